package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// schemaOne makes a database as the first version of the program left it, with a row
// in every table.
func schemaOne(t *testing.T) string {
	t.Helper()
	path := newPath(t)
	err := withConn(t.Context(), path, false, func(c *sql.Conn) error {
		if err := steps(t.Context(), c, 0, 1); err != nil {
			return err
		}
		for _, query := range []string{
			`UPDATE meta SET seq = 1 << 60, rev = 77`,
			`INSERT INTO agents (name, rev, floor, rev_seen, journal_id, epoch, lsn, session, seen_at, version, alarm, address)
				VALUES ('r1', 41, 7, 40, 'journal', 3, 99, 'session', 5, 'v1', 'alarm', '192.0.2.1:7946')`,
			`INSERT INTO nodes (name, rack, agent, bmc, password, domain, status, confirmed, rev, state, reach, observed_at, tried_at)
				VALUES ('n1', 'r1', 'r1', 'ipmi://u@192.0.2.2', 'secret', 'd1', 'READY', 1, 41, 'off', 'ok', 1000, 2000)`,
			`INSERT INTO removed (agent, name, rev, at) VALUES ('r1', 'n2', 40, 3)`,
			`INSERT INTO ops SELECT 'op', 5, 'n1', 'r1', 'on', 'me', 'central', 'why', 1, 2, 'queue', '', 0, 0, 1, 8, 1, 'taken', 0, '', '', '', 0, 0, '', '', 0, '', '', 0, '', '', 0, '', '', 0, 9`,
			`INSERT INTO audit (at, who, what, node, op, why, outcome, detail) VALUES (4, 'me', 'asked', 'n1', 'op', '', '', '')`,
		} {
			if _, err := c.ExecContext(t.Context(), query); err != nil {
				return fmt.Errorf("%s: %w", query, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestADatabaseOfTheFirstVersionLosesNothing migrates one, and restores a backup of
// one.
func TestADatabaseOfTheFirstVersionLosesNothing(t *testing.T) {
	onFiles(t)
	backup := schemaOne(t)
	restored := newPath(t)
	if _, _, err := Restore(context.Background(), backup, restored, ""); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{"migrated": schemaOne(t), "restored": restored} {
		s := mustOpen(t, Config{Path: path})
		if s.SeqAside(time.Now()) < 1<<60 { // too far ahead to be followed
			t.Errorf("%s: sequence %d put aside", what, s.SeqAside(time.Now()))
		}
		mustView(t, s, func(tx *Tx) error {
			a, _, err := tx.Agent("r1")
			if err != nil || a.Rev != 42 || a.SettingsRev != 42 || a.Floor != 7 || a.JournalID != "journal" || a.LSN != 99 {
				t.Errorf("%s: agent %+v, %v", what, a, err)
			}
			if raised, err := tx.Alarms("r1"); err != nil || len(raised) != 1 || raised[0].Message != "alarm" || !raised[0].NeedsAck {
				t.Errorf("%s: alarms %+v, %v", what, raised, err)
			}
			if set, err := a.Settings(); err != nil || set.Monitor != "" || set.Pause != nil || set.ReleaseBrake != "" {
				t.Errorf("%s: settings %+v, %v", what, set, err)
			}
			if state, err := a.State(); err != nil || state != nil {
				t.Errorf("%s: state %+v, %v", what, state, err)
			}
			n, _, err := tx.Node("n1")
			want := Node{
				Name: "n1", Rack: "r1", Agent: "r1", BMC: "ipmi://u@192.0.2.2", Password: "secret", Domain: "d1", Status: power.StatusReady,
				Confirmed: true,
				Rev:       41, Unsettled: true, Reading: power.Reading{
					State: power.Off, Reach: power.ReachOK, ObservedAt: timeAt(1000),
					TriedAt: timeAt(2000),
				},
			}
			want.Confirmed = what == "migrated" // a restore takes it back
			if err != nil || n != want {
				t.Errorf("%s: node %+v, %v", what, n, err)
			}
			gone, _, _ := tx.RemovedSince("r1", 0)
			o, found, _ := tx.Op("op")
			trail, err := tx.Audit(AuditFilter{Nodes: []string{"n1"}}, 10)
			if len(gone) != 1 || !found || o.IfBusy != power.Queue || len(trail) != 1 || err != nil {
				t.Errorf("%s: removed %v, operation %+v, trail %+v, %v", what, gone, o, trail, err)
			}
			all, err := tx.Schedules()
			if len(all) != 0 || err != nil {
				t.Errorf("%s: %v, %v", what, all, err)
			}
			return err
		})
		s.Close()
		if sum, err := Check(context.Background(), path); err != nil || sum.Schema != Schema || sum.Nodes != 1 || sum.Open != 1 {
			t.Errorf("%s: %+v, %v", what, sum, err)
		}
	}
}

// TestWhatPeopleSetComesBack writes every new thing, and reads it from the database,
// from a backup of it and from that backup restored.
func TestWhatPeopleSetComesBack(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	at := time.Now().UTC()
	node := Node{
		Name: "n", Rack: "r1", Agent: "r1", Domain: "d", Rev: 3, Retry: 9, Matched: true, Drifting: true, BreakerOpen: true, Unsettled: true,
		Hold: power.Hold{
			Want: power.WantOff, By: "bob", Reason: "why", Schedule: "night", Since: at, Until: at.Add(time.Hour), Seq: 1 << 62, Confirmed: true,
		},
		Reading: power.Reading{State: power.Unknown, Reach: power.ReachNever},
		Monitor: api.NodeMonitor{
			Fault: "f", FaultSince: at, Failures: 3, Faults: 1, Matched: true, Waits: power.ReasonFault, WaitsMessage: "w", WaitsUntil: at,
		},
	}
	set := api.RackSettings{
		Monitor: "@every 30s", Pause: &api.Pause{By: "bob", Reason: "why", Since: at, Until: at.Add(time.Hour)}, BrakePercent: 10, BrakeAbove: 3,
		ReleaseBrake: "b", ReleasedBy: "bob",
	}
	state := api.RackState{
		Monitor: "@every 60s", Brake: &api.Brake{ID: "b", Since: at, Kind: "cut", Nodes: []string{"n"}, Total: 1, Message: "s"},
		Faults: 2,
	}
	sched := Schedule{Schedule: api.Schedule{
		Name: "night", Cron: "0 19 * * *", Nodes: "all", Want: power.WantOff, For: time.Hour, Reason: "why", By: "bob", Confirmed: true,
		CreatedAt: at,
		LastAt:    at, LastMessage: "did",
	}, Done: at.Add(time.Minute)}
	mustWrite(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutNode(node), tx.SaveSettings("r1", set, 5), tx.SaveRackState("r1", state), tx.PutSchedule(sched),
			tx.SetDomain(api.DomainLimit{Name: "d", Rate: 2.5, Concurrent: 7}))
	})
	compare := func(what, path string) {
		t.Helper()
		s := mustOpen(t, Config{Path: path})
		defer s.Close()
		mustView(t, s, func(tx *Tx) error {
			if n, _, err := tx.Node("n"); err != nil || n != node {
				t.Errorf("%s: node\n%+v, want\n%+v, %v", what, n, node, err)
			}
			a, _, _ := tx.Agent("r1")
			gotSet, err := a.Settings()
			gotState, err2 := a.State()
			if encode(gotSet) != encode(set) || encode(gotState) != encode(state) || a.SettingsRev != 5 || !a.Said(state) ||
				errors.Join(err, err2) != nil {
				t.Errorf("%s: %+v, %+v, %v, %v", what, gotSet, gotState, err, err2)
			}
			got, _, err := tx.Schedule("night")
			if err != nil || got != sched {
				t.Errorf("%s: schedule %+v, %v", what, got, err)
			}
			d, err := tx.Domain("d")
			if err != nil || d.Limits == nil || *d.Limits != (api.DomainLimit{Name: "d", Rate: 2.5, Concurrent: 7}) || d.Nodes != 1 ||
				d.Agents != 1 {
				t.Errorf("%s: domain %+v, %v", what, d, err)
			}
			over, err := tx.PausesOver(at.Add(time.Hour))
			held, _ := tx.HeldUntil(at.Add(time.Hour))
			early, _ := tx.HeldUntil(at.Add(time.Hour - 1))
			if len(over) != 1 || len(held) != 1 || len(early) != 0 {
				t.Errorf("%s: over %v, held %v, early %v", what, over, held, early)
			}
			return err
		})
	}
	s.Close()
	compare("database", path)
	backup := filepath.Join(t.TempDir(), "b.db")
	if _, err := Backup(context.Background(), path, backup); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Restore(context.Background(), backup, path, ""); err != nil {
		t.Fatal(err)
	}
	compare("restored", path)
}

func TestARunOfAScheduleIsNeverTakenBack(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	at := time.Now().UTC()
	put := func(done time.Time) {
		mustWrite(t, s, func(tx *Tx) error { return tx.PutSchedule(Schedule{Schedule: api.Schedule{Name: "x"}, Done: done}) })
	}
	put(at)
	put(at.Add(-time.Hour))
	mustView(t, s, func(tx *Tx) error {
		got, _, err := tx.Schedule("x")
		if !got.Done.Equal(at) {
			t.Errorf("done went back to %s", got.Done)
		}
		return err
	})
}

// TestEntriesOfTheTrailAreNumberedOnce prunes the whole trail, and restores a backup.
func TestEntriesOfTheTrailAreNumberedOnce(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	var told atomic.Int64
	s := mustOpen(t, Config{Path: path, Audited: func() { told.Add(1) }})
	add := func(at time.Time) (id int64) {
		mustWrite(t, s, func(tx *Tx) error { return tx.AddAudit(api.AuditEntry{At: at, What: "x", Node: "n"}) })
		mustView(t, s, func(tx *Tx) (err error) { id, err = tx.LastAudit(); return err })
		return id
	}
	now := time.Now()
	first := add(now.Add(-time.Hour))
	withAgent(t, s, "r1")
	if told.Load() != 1 {
		t.Errorf("told %d times of one entry", told.Load())
	}
	mustWrite(t, s, func(tx *Tx) error { _, _, err := tx.Prune(now, 100, 0); return err })
	second := add(now.Add(-time.Hour))
	if second <= first {
		t.Errorf("entry %d after entry %d was pruned", second, first)
	}
	backup := filepath.Join(t.TempDir(), "b.db")
	if _, err := Backup(context.Background(), path, backup); err != nil {
		t.Fatal(err)
	}
	third := add(now)
	s.Close()
	if _, _, err := Restore(context.Background(), backup, path, ""); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Path: path})
	mustView(t, s, func(tx *Tx) error {
		behind, err := tx.AuditAfter(AuditFilter{}, third, 10)
		if len(behind) != 1 || behind[0].What != "restore" {
			t.Errorf("who had seen entry %d is told %+v", third, behind)
		}
		some, err2 := tx.AuditAfter(AuditFilter{Nodes: []string{"n"}}, 0, 1)
		none, err3 := tx.AuditAfter(AuditFilter{Nodes: []string{"m"}}, 0, 10)
		if len(some) != 1 || some[0].Node != "n" || len(none) != 0 {
			t.Errorf("%+v, %+v", some, none)
		}
		return errors.Join(err, err2, err3)
	})
}
