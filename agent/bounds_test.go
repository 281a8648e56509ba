package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// TestJoinersAreBounded asks for the same thing again and again: those beyond the limit
// are refused, whichever operation of the node they would join, and all that were
// accepted end together.
func TestJoinersAreBounded(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetOffAfter(20 * time.Second)
		first := r.ask("n1", power.ActOff)
		behind := r.ask("n1", power.ActDiag)
		var joined []string
		for i := range power.MaxJoined + 3 {
			got := r.ask("n1", power.ActDiag) // joins what waits
			switch {
			case i < power.MaxJoined && got.Joined == behind.Op.ID:
				joined = append(joined, got.Op.ID)
			case i < power.MaxJoined:
				t.Fatalf("request %d: %+v, want it to join %s", i, got, behind.Op.ID)
			case got.Verdict != power.VerdictRefuse || got.Reason != power.ReasonQueueFull || !strings.Contains(got.Message, "256 requests joined"):
				t.Fatalf("request %d: %s (%s) %q, want queue-full", i, got.Verdict, got.Reason, got.Message)
			}
		}
		if other := r.ask("n2", power.ActOn); !other.Verdict.Accepted() {
			t.Errorf("another node: %+v", other)
		}
		r.wantEnd(first.Op.ID, power.Succeeded, power.ReasonVerified)
		end := r.end(behind.Op.ID)
		for _, id := range joined {
			if got, _ := r.a.outbox.find(id); got.End == nil || *got.End != end {
				t.Fatalf("%s ended %+v, want %+v", id, got.End, end)
			}
		}
	})
}

// crowd writes what an agent without a bound for joiners had in its journal: an
// operation and n requests that joined it.
func (r *harness) crowd(op power.Op, n int) {
	r.t.Helper()
	now := time.Now()
	op = op.WithDefaults(now)
	entries := []journal.Entry{entry(journal.Add, kindAccepted, op.ID,
		acceptedRecord{Op: op, Decision: power.Decision{Verdict: power.VerdictQueue}})}
	first := op.ID
	for i := range n {
		op.ID = fmt.Sprintf("%s-%05d", first, i)
		entries = append(entries, entry(journal.Add, kindAccepted, op.ID,
			acceptedRecord{Op: op, Decision: power.Decision{Verdict: power.VerdictJoin, With: first}}))
	}
	for len(entries) > 0 {
		k := min(len(entries), 1000)
		if _, err := r.a.log.Append(entries[:k]...); err != nil {
			r.t.Fatal(err)
		}
		entries = entries[k:]
	}
}

// TestAJournalWithTooManyJoiners starts on a journal of an agent that took 12,000 equal
// requests. What ends with words as long as they may be would be a group above the
// journal's limit: the node goes on, nobody ends twice or not at all, and a start in
// the middle of it ends the rest.
func TestAJournalWithTooManyJoiners(t *testing.T) {
	long := strings.Repeat("\x01", api.MaxText) // six bytes each in JSON
	op := power.Op{ID: "first", Node: "n1", Action: power.ActOff, AskedBy: "admin", Origin: power.FromCentral}
	for name, c := range map[string]struct {
		n   int
		end func(r *harness)
	}{
		"cancelled": {12_000, func(r *harness) {
			_, _ = r.a.Cancel(api.Cancel{ID: "first", Node: "n1", Action: power.ActOff, By: "bob", Reason: long})
		}},
		"superseded": {1000, func(r *harness) {
			got := r.ask("n1", power.ActOn, func(o *power.Op) { o.AskedBy = long })
			if !got.Verdict.Accepted() {
				r.t.Fatalf("not accepted: %+v", got)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(r *harness) {
				h := hooked(r)
				r.bmc("n1").SetMute(true) // what runs does not end
				running := op
				running.ID, running.Action = "running", power.ActDiag
				r.crowd(running, 0)
				r.crowd(op, c.n)
				r.restart()
				groups, ends := 0, map[string]int{}
				h.set(func(e []journal.Entry) error {
					for _, x := range e {
						if x.Kind == kindEnded {
							ends[x.Key]++
						}
					}
					if groups++; len(e) > 2*power.MaxJoined {
						t.Errorf("a group of %d records", len(e))
					}
					if groups == 3 { // in the middle of it the disk is full, and then the agent dies
						h.set(func([]journal.Entry) error { return errTestFull })
						return errTestFull
					}
					return nil
				})
				c.end(r)
				time.Sleep(100 * time.Millisecond)
				r.crash()
				h.set(nil)
				r.bmc("n1").SetMute(false)
				r.start()
				want := r.end("first")
				for i := range c.n {
					if got := r.end(fmt.Sprintf("first-%05d", i)); got.Outcome != want.Outcome || got.Detail != want.Detail {
						t.Fatalf("joiner %d ended %s, the first %s", i, got.Outcome, want.Outcome)
					}
				}
				r.end("running")
				for r.a.outbox.waiting() > 0 { // central takes all
					r.a.acknowledged(r.a.outbox.take(maxReportOps), ack{})
					time.Sleep(time.Second)
				}
				for _, k := range r.liveKeys() {
					if strings.HasPrefix(k, "first") {
						t.Fatalf("%s is still in the journal", k)
					}
				}
			})
		})
	}
}

// TestUnknownNodesLeaveNothing asks for nodes that are not the agent's, through every door
// that takes a name.
func TestUnknownNodesLeaveNothing(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		synctest.Wait() // it runs
		lanes, readings := len(r.a.allLanes()), len(r.a.view.gossiped())
		for i := range 100 {
			name := fmt.Sprintf("zz%d", i)
			if got := r.ask(name, power.ActOn); got.Reason != power.ReasonNoNode {
				t.Fatalf("%+v", got)
			}
			if _, err := r.a.Cancel(api.Cancel{ID: "op-none", Node: name, Action: power.ActOn}); err == nil {
				t.Fatal("there was something to cancel")
			}
			r.a.monitor.RetryAll([]string{name})
			r.a.lane(name).dropUnwanted()
			r.a.prober.hurry([]string{name})
		}
		if l, n := len(r.a.allLanes()), len(r.a.view.gossiped()); l != lanes || n != readings {
			t.Errorf("%d lanes and %d readings, were %d and %d", l, n, lanes, readings)
		}
	})
}
