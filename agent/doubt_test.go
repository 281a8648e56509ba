package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// flipIn flips a bit in the payload of the newest record of a kind, as a bad disk does.
func (r *harness) flipIn(sub string, kind journal.Kind) {
	r.t.Helper()
	dir := filepath.Join(r.cfg.Dir, sub)
	var at journal.Position
	var rec journal.Record
	_, err := journal.Scan(dir, nil, func(found journal.Record, pos journal.Position) error {
		if found.Kind == kind {
			at, rec = pos, found
		}
		return nil
	})
	if err != nil || at.File == "" {
		r.t.Fatalf("no record %s in %s: %v", KindName(uint8(kind)), sub, err)
	}
	path := filepath.Join(dir, at.File)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	off := at.Offset + 36 + int64(len(rec.Key)) + 3
	if _, err := f.ReadAt(b, off); err != nil {
		r.t.Fatal(err)
	}
	b[0] ^= 2
	if _, err := f.WriteAt(b, off); err != nil {
		r.t.Fatal(err)
	}
}

// keep copies the agent's directory, putBack puts a part of that copy in its place.
func (r *harness) keep() string {
	r.t.Helper()
	to := r.t.TempDir()
	if err := os.CopyFS(to, os.DirFS(r.cfg.Dir)); err != nil {
		r.t.Fatal(err)
	}
	return to
}

func (r *harness) putBack(from string, parts ...string) {
	r.t.Helper()
	for _, part := range parts {
		to := filepath.Join(r.cfg.Dir, part)
		if err := os.RemoveAll(to); err != nil {
			r.t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(from, part))
		switch {
		case err != nil:
			r.t.Fatal(err)
		case info.IsDir():
			err = os.CopyFS(to, os.DirFS(filepath.Join(from, part)))
		default:
			var data []byte
			if data, err = os.ReadFile(filepath.Join(from, part)); err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *harness) wantAlarm(kind string) api.Alarm {
	r.t.Helper()
	for _, a := range r.a.alarms.list() {
		if a.Kind == kind {
			return a
		}
	}
	r.t.Fatalf("no alarm %s: %+v", kind, r.a.alarms.list())
	return api.Alarm{}
}

// TestNothingIsSentTwiceAfterDamage kills an agent after each record of an operation that
// may not happen twice, flips a bit in each of its records, and starts it again.
func TestNothingIsSentTwiceAfterDamage(t *testing.T) {
	for _, c := range []struct {
		action  power.Action
		records []journal.Kind
	}{
		{power.ActReset, []journal.Kind{kindAccepted, kindStarted, kindSending, kindSent, kindEnded}},
		{power.ActDiag, []journal.Kind{kindAccepted, kindStarted, kindSending, kindSent, kindEnded}},
		{power.ActBMCReset, []journal.Kind{kindAccepted, kindStarted, kindSending, kindSent, kindEnded}},
		{power.ActCycle, []journal.Kind{kindAccepted, kindStarted, kindSending, kindSent, kindOffSeen, kindSending, kindSent, kindEnded}},
	} {
		for n := 1; n <= len(c.records); n++ {
			for _, kind := range slices.Compact(slices.Sorted(slices.Values(c.records[:n]))) {
				t.Run(fmt.Sprintf("%s after %d, %s flipped", c.action, n, KindName(uint8(kind))), func(t *testing.T) {
					inBubble(t, 2, func(r *harness) { r.damageOnce(c.action, n, kind) })
				})
			}
		}
	}
}

func (r *harness) damageOnce(action power.Action, records int, kind journal.Kind) {
	bmc := r.bmc("n1")
	bmc.SetPower(power.On)
	r.crash()
	r.dieAfter(records, false)
	r.start()
	id := r.ask("n1", action).Op.ID
	<-r.a.ctx.Done()
	r.crash()
	r.flipIn("journal", kind)
	r.cfg.wrapLog = nil
	r.start()
	r.wantAlarm(api.AlarmJournalDamaged)
	again := func() {
		got, err := r.a.Submit(power.Op{ID: id, Node: "n1", Action: action, AskedBy: "admin", Origin: power.FromCentral})
		if err != nil {
			r.t.Fatal(err)
		}
		_ = got
	}
	if kind != kindAccepted || records > 1 {
		again() // where its acceptance is lost, it comes once more
	}
	if _, known := r.a.outbox.find(id); known {
		r.end(id)
	}
	time.Sleep(5 * time.Minute)
	r.restart()
	r.wantAlarm(api.AlarmJournalDamaged)
	counts := bmc.Counts()
	if counts.Resets > 1 || counts.Pulses > 1 || counts.BMCResets > 1 || counts.Cuts > 1 || bmc.Power() != power.On {
		r.t.Fatalf("%+v, the node is %s; commands %v", counts, bmc.Power(), bmc.Commands())
	}
	if _, err := r.a.ackAlarms(api.AckAlarm{Kind: api.AlarmJournalDamaged}); err != nil {
		r.t.Fatal(err)
	}
	r.restart()
	if list := r.a.alarms.list(); len(list) > 0 {
		r.t.Fatalf("acknowledged: %+v", list)
	}
}

// TestEveryBMCIsReadFirstAfterDamage has one BMC that gives no answer.
func TestEveryBMCIsReadFirstAfterDamage(t *testing.T) {
	inBubble(t, 3, func(r *harness) {
		r.bmc("n3").SetMute(true)
		r.bmc("n3").SetTimeout(7 * time.Second)
		r.crash()
		r.dieAfter(1, true)
		r.start()
		id := r.ask("n1", power.ActOn).Op.ID
		<-r.a.ctx.Done()
		r.crash()
		r.bmc("n1").SetMute(false)
		if err := os.Truncate(r.newest("journal"), 1<<20); err != nil {
			t.Fatal(err)
		}
		r.cfg.wrapLog = nil
		before := r.bmc("n2").Counts().Reads
		r.start()
		began := time.Now()
		r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		if r.bmc("n2").Counts().Reads == before || r.fake.Log()[0].At.Sub(began) < 7*time.Second {
			t.Errorf("sent after %s, before every BMC was asked", r.fake.Log()[0].At.Sub(began))
		}
	})
}

func (r *harness) newest(sub string) string {
	r.t.Helper()
	all, err := filepath.Glob(filepath.Join(r.cfg.Dir, sub, "*.jnl"))
	if err != nil || len(all) == 0 {
		r.t.Fatal(err, all)
	}
	return all[len(all)-1]
}

// TestAJournalPutBackWaitsForCentralOrAPerson puts a directory back in which a reset is
// accepted that has been carried out since.
func TestAJournalPutBackWaitsForCentralOrAPerson(t *testing.T) {
	for name, tt := range map[string]struct {
		parts   []string
		goOn    func(r *harness, id string)
		outcome power.Outcome
		resets  int
	}{
		"acknowledged": {[]string{"journal"}, func(r *harness, _ string) {
			_, err := r.a.ackAlarms(api.AckAlarm{})
			must(r.t, err)
		}, power.Indeterminate, 1},
		"all of it, acknowledged": {[]string{"journal", "journal.mark", "assigned", "assigned.mark"}, func(r *harness, _ string) {
			_, err := r.a.ackAlarms(api.AckAlarm{})
			must(r.t, err)
		}, power.Indeterminate, 1},
		"central knows the end": {[]string{"journal", "journal.mark"}, func(r *harness, id string) {
			end := power.End{Outcome: power.Succeeded, Reason: power.ReasonVerified}
			must(r.t, r.a.compared(api.Welcome{
				WentBack: true,
				Ended:    []api.EndedOp{{OpRef: api.OpRef{ID: id, Node: "n1", Action: power.ActReset}, End: end}},
			}))
		}, power.Succeeded, 1},
		"central knows that it went back": {[]string{"journal", "journal.mark"}, func(r *harness, _ string) {
			must(r.t, r.a.compared(api.Welcome{WentBack: true}))
		}, power.Indeterminate, 1},
		"central knows of nothing newer": {[]string{"journal", "journal.mark"}, func(r *harness, _ string) {
			must(r.t, r.a.compared(api.Welcome{}))
		}, power.Indeterminate, 1}, // it may have been away when it happened
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(r *harness) {
				bmc := r.bmc("n1")
				bmc.SetPower(power.On)
				bmc.SetMute(true)
				id := r.ask("n1", power.ActReset).Op.ID
				time.Sleep(3 * time.Second) // started, and not read yet
				old := r.keep()
				bmc.SetMute(false)
				r.wantEnd(id, power.Succeeded, power.ReasonVerified)
				r.crash()
				r.putBack(old, tt.parts...)
				r.start()
				time.Sleep(time.Minute)
				if n := bmc.Counts().Resets; n != 1 {
					t.Fatalf("%d resets", n)
				}
				if got, _ := r.a.outbox.find(id); got.End != nil {
					t.Fatalf("ended before anybody knew: %+v", got.End)
				}
				if len(r.a.alarms.list()) == 0 {
					t.Fatal("no alarm")
				}
				tt.goOn(r, id)
				if end := r.end(id); end.Outcome != tt.outcome {
					t.Errorf("%+v, want %s", end, tt.outcome)
				}
				time.Sleep(time.Minute)
				if n := bmc.Counts().Resets; n != tt.resets {
					t.Errorf("%d resets, want %d", n, tt.resets)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnAgentWhoseFilesAreRemovedActsNoMore removes them under a running one.
func TestAnAgentWhoseFilesAreRemovedActsNoMore(t *testing.T) {
	for _, sub := range []string{"journal", "assigned"} {
		inBubble(t, 1, func(r *harness) {
			must(t, os.RemoveAll(filepath.Join(r.cfg.Dir, sub)))
			time.Sleep(3 * time.Second)
			alarm := r.wantAlarm(api.AlarmFilesRemoved)
			if !strings.Contains(r.a.Summary(), alarm.Message) || !strings.Contains(alarm.Remedy, "restart") {
				t.Errorf("%+v, %s", alarm, r.a.Summary())
			}
			_, err := r.a.Submit(power.Op{ID: "x", Node: "n1", Action: power.ActOn, AskedBy: "admin"})
			if api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "systemctl restart") {
				t.Errorf("%v", err)
			}
			if !r.a.Alive() {
				t.Error("the watchdog would start it anew, on an empty directory")
			}
			select {
			case err := <-r.ended:
				t.Fatalf("it ended: %v", err)
			default:
			}
			r.wantCommands("n1")
			r.cancel()
			if err := <-r.ended; !errors.Is(err, journal.ErrRemoved) {
				t.Errorf("%v", err)
			}
			_ = r.a.Close()
			r.start()
			if sub == "journal" {
				r.wantAlarm(api.AlarmJournalWentBack)
			} else {
				r.wantAlarm(api.AlarmAssignmentDamaged)
			}
		})
	}
}

// TestALostHoldIsNotEnforcedAway damages a hold that was set at the rack: what the status
// wants is not enforced before a person has seen it.
func TestALostHoldIsNotEnforcedAway(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		bmc := r.bmc("n1")
		bmc.SetPower(power.On)
		node := r.nodes[0]
		node.Status, node.Desired = power.StatusReady, power.StatusReady.Desired()
		_, err := r.a.control.hold(api.SetHold{Names: []string{"n1"}, Want: power.WantOn, Reason: "somebody works at it"}, time.Now())
		must(t, err)
		must(t, r.a.apply(api.Assignment{Nodes: []api.AssignedNode{node}, Rev: 2}, r.a.assigned.position().Database))
		time.Sleep(5 * time.Minute)
		r.wantCommands("n1")
		r.crash()
		r.flipIn("assigned", kindHold)
		r.start()
		r.wantAlarm(api.AlarmAssignmentDamaged)
		if rev := r.a.assigned.position().Rev; rev != 0 {
			t.Errorf("central is not asked for everything, but for what is new since %d", rev)
		}
		time.Sleep(10 * time.Minute)
		must(t, r.a.apply(api.Assignment{Nodes: []api.AssignedNode{node}, Rev: 2, Full: true}, r.a.assigned.position().Database))
		time.Sleep(10 * time.Minute)
		r.wantCommands("n1")
		r.restart()
		time.Sleep(10 * time.Minute)
		r.wantCommands("n1")
		_, err = r.a.ackAlarms(api.AckAlarm{Kind: api.AlarmAssignmentDamaged})
		must(t, err)
		time.Sleep(10 * time.Minute)
		r.wantCommands("n1", power.PowerOff)
	})
}
