package store

import (
	"database/sql"
	"os"
	"reflect"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestADatabaseOfSchema12LosesNothing reads one that was written by the program of November
// 2026, with a row in every table and a value in every column.
func TestADatabaseOfSchema12LosesNothing(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	rows, err := os.ReadFile("testdata/schema12.sql")
	if err != nil {
		t.Fatal(err)
	}
	err = withConn(t.Context(), path, false, func(c *sql.Conn) error {
		if err := steps(t.Context(), c, 0, 12); err != nil {
			return err
		}
		_, err := c.ExecContext(t.Context(), string(rows))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Path: path})
	at := time.Date(2026, 11, 26, 10, 30, 0, 123456789, time.UTC)
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", what, err, got, want)
		}
	}
	mustView(t, s, func(tx *Tx) error {
		o, _, err := tx.Op("id")
		same("operation", o, Op{Op: api.Op{
			ID: "id", Node: "n", Rack: "r1", Action: power.ActSoftOff, Seq: 77, AskedBy: "me", Origin: power.FromLocal, Reason: "because",
			AskedAt: at, StartedAt: &at, EndedAt: &at, Outcome: power.Failed, Detail: "detail", Already: true, SupersededBy: "s", Joined: "j",
			Attempts: 3, Verdict: power.VerdictStart, Why: power.ReasonAuth, Message: "it was on", Phase: api.PhaseEnded, State: power.Off,
			Deadline: at.Add(time.Second), Options: power.Options{IfBusy: power.Queue, Boot: power.BootPXE, Grace: time.Minute}, CancelBy: "c", Rev: 1, NoEscalate: true, Confirmed: true,
		}, Cursor: 5, Delivered: true, JournalID: "jj", LSN: 1 << 62, CancelReason: "cr", CancelCursor: 6},
			err)
		n, _, err := tx.Node("n")
		same("node", n, Node{
			Name: "n", Rack: "r1", Agent: "r1", BMC: "ipmi://u@192.0.2.2", Password: "secret", Status: power.StatusReady, Confirmed: true,
			Domain: "d", Rev: 3, Retry: 9, Matched: true, Drifting: true, BreakerOpen: true, WaitsFor: "r2",
			Hold: power.Hold{
				Want: power.WantOff, By: "bob", Reason: "why", Schedule: "night", Since: at, Until: at.Add(time.Hour), Seq: 1 << 62,
				Heard: 1 << 61, Confirmed: true,
			},
			Reading: power.Reading{State: power.Off, Reach: power.ReachOK, ObservedAt: timeAt(1000), TriedAt: timeAt(2000)},
			Monitor: api.NodeMonitor{
				Fault: "3 corrections failed", FaultSince: at, Failures: 3, Faults: 1, Reverted: "it went off again", RevertedOp: "op", RevertedAt: at,
				RevertedTimes: 2, Matched: true, Waits: power.ReasonFault, WaitsMessage: "it is in fault", WaitsUntil: at.Add(time.Minute),
			},
			BMCIdentity: BMCIdentity{KG: "k", Part: "p", Addr: "x", At: "y", Shared: "z"},
		}, err)
		if m, _, err := tx.Node("m"); err != nil || m.Monitor != (api.NodeMonitor{Matched: true}) {
			t.Errorf("node m %+v, %v", m, err)
		}
		a, _, err := tx.Agent("r1")
		if err != nil || a.Rev != 41 || a.RevSeen != 40 || a.LSN != 99 || a.Opening != "o" || a.Run != "run" || a.Peer != "peer" {
			t.Errorf("agent %+v, %v", a, err)
		}
		state, err := a.State()
		same("rack", state, &api.RackState{
			Monitor: "@every 60s",
			Brake: &api.Brake{
				ID: "b", Since: at, Kind: "cut", Nodes: []string{"n"}, Total: 1, Message: "1 of 1 nodes would lose power",
			},
			Pause: &api.Pause{By: "bob", Reason: "why", Since: at, Until: at.Add(time.Hour)}, Faults: 2, OpenBreakers: 3,
			Domains: []api.DomainState{{DomainLimit: api.DomainLimit{Name: "d", Rate: 2.5, Concurrent: 7}, InFlight: 1, Waiting: 2}},
			Alarms:  []api.Alarm{{Kind: api.AlarmDiskFull, Message: "full", Since: at, Remedy: "make room", NeedsAck: true}},
		}, err)
		set, err := a.Settings()
		same("settings", set, api.RackSettings{Monitor: "off", BrakePercent: 10}, err)
		sched, _, err := tx.Schedule("night")
		same("schedule", sched, Schedule{Schedule: api.Schedule{
			Name: "night", Cron: "0 19 * * *", Nodes: "all", Want: power.WantOff, For: time.Hour, Reason: "why", By: "bob", Confirmed: true,
			CreatedAt: at, LastAt: at, LastMessage: "held 40 nodes",
		}, Done: at.Add(time.Minute)}, err)
		audit, err := tx.Audit(AuditFilter{Nodes: []string{"n"}}, 10)
		same("audit", audit, []api.AuditEntry{{
			ID: 1, At: at, HappenedAt: at.Add(-time.Second), Who: "me", What: "asked", Node: "n", Op: "id", Why: "w", Outcome: "failed", Detail: "d",
		}}, err)
		alarms, err := tx.Alarms("r1")
		same("alarms", alarms, []api.Alarm{{Kind: api.AlarmJournalLost, Message: "lost", Since: at, Remedy: "r", NeedsAck: true}}, err)
		leaving, err := tx.AllLeaving()
		same("leaving", leaving, []Leaving{{Agent: "r2", Node: "n", Part: "p", At: "a", Rev: 4, Since: at}}, err)
		gone, _, err := tx.RemovedSince("r1", 0)
		if err != nil || len(gone) == 0 {
			t.Errorf("removed %+v, %v", gone, err)
		}
		return nil
	})
}
