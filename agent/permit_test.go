package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestPermit: who was out of touch for longer than the lease asks first, and who was not
// goes on.
func TestPermit(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := t0.Add
	for _, c := range []struct {
		what    string
		contact time.Time
		do      func(p *permit)
		at      time.Duration // since the start
		may     bool
	}{
		{"a start", at(-time.Second), func(*permit) {}, 0, false},
		{"a start, central away", at(-time.Second), func(p *permit) { p.away() }, 0, true},
		{"a start, central silent", at(-time.Second), func(*permit) {}, startFor, true},
		{"a start, nothing known", time.Time{}, func(p *permit) { p.away() }, 0, true},
		{"a start, in touch", at(-time.Second), func(p *permit) { p.synced(at(0)) }, 0, true},
		{"a late start, central away", at(-2 * lease), func(p *permit) { p.away() }, rejoinFor - time.Second, false},
		{"a late start, central away for long", at(-2 * lease), func(p *permit) { p.away(); p.beat = at(rejoinFor) }, rejoinFor, true},
		{"a late start, in touch", at(-2 * lease), func(p *permit) { p.synced(at(0)) }, 0, true},
		{"central away for long", at(-time.Second), func(p *permit) { p.synced(at(0)); p.away(); p.beat = at(time.Hour) }, time.Hour, true},
		{"it was asleep", at(-time.Second), func(p *permit) { p.synced(at(0)) }, time.Hour, false},
		{"it was asleep, central away", at(-time.Second), func(p *permit) { p.synced(at(0)); p.why(at(time.Hour)); p.away() }, time.Hour, false},
		{
			"it was asleep, in touch", at(-time.Second), func(p *permit) { p.synced(at(0)); p.why(at(time.Hour)); p.synced(at(time.Hour)) },
			time.Hour, true,
		},
		{
			"the link is back", at(-time.Second), func(p *permit) { p.synced(at(0)); p.beat = at(time.Hour); p.back(at(time.Hour)) }, time.Hour,
			false,
		},
		{
			"the link is back and gone", at(-time.Second),
			func(p *permit) { p.synced(at(0)); p.beat = at(time.Hour); p.back(at(time.Hour)); p.away() }, time.Hour, true,
		},
		{"the link was away for a moment", at(-time.Second), func(p *permit) { p.synced(at(0)); p.back(at(time.Second)) }, time.Second, true},
		{"the name is another's", at(-time.Second), func(p *permit) { p.standDown("x"); p.away(); p.beat = at(time.Hour) }, time.Hour, false},
		{"the name is its own again", at(-time.Second), func(p *permit) { p.standDown("x"); p.synced(at(0)) }, 0, true},
	} {
		p := new(permit)
		p.begin(c.contact, t0)
		c.do(p)
		if why := p.why(at(c.at)); (why == "") != c.may {
			t.Errorf("%s: %q", c.what, why)
		}
	}
}

// TestAnAgentWhoseNameIsTakenSendsNothing: it reads on, says why, does what a person at
// the rack asks for, and goes on with the rest when central takes it back.
func TestAnAgentWhoseNameIsTakenSendsNothing(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		taken := api.Problemf(api.CodeTwoAgents, "the name r1 is taken")
		r.a.link.refusedName(taken)
		waits := r.ask("n1", power.ActOn)
		time.Sleep(2 * time.Minute)
		if got, _ := r.a.outbox.find(waits.Op.ID); got.End != nil || !strings.Contains(got.Phase, "another agent") {
			t.Errorf("%+v", got)
		}
		r.wantCommands("n1")
		local := r.ask("n2", power.ActOn, func(o *power.Op) { o.Origin = power.FromLocal })
		r.wantEnd(local.Op.ID, power.Succeeded, power.ReasonVerified)
		if !r.a.alarms.active(api.AlarmTwoAgents) {
			t.Error("no alarm")
		}
		time.Sleep(time.Second)
		r.restart() // it still knows
		time.Sleep(time.Minute)
		r.wantCommands("n1")
		r.a.link.inTouch()
		r.wantEnd(waits.Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantCommands("n1", power.PowerOn)
	})
}

// TestWhoWasOutOfTouchAsksFirst: a start after more than the lease leaves what was under
// way, and what the monitor wants, until central has said what is still the agent's.
func TestWhoWasOutOfTouchAsksFirst(t *testing.T) {
	for _, away := range []time.Duration{10 * time.Second, time.Hour} {
		inBubble(t, 1, func(r *harness) {
			r.a.link.inTouch()
			r.crash()
			time.Sleep(away)
			r.start()
			id := r.ask("n1", power.ActOn).Op.ID
			time.Sleep(startFor + time.Minute)
			got, _ := r.a.outbox.find(id)
			if away > lease {
				if got.End != nil || !strings.Contains(got.Phase, "hear from central") {
					t.Errorf("%+v", got)
				}
				r.wantCommands("n1")
				time.Sleep(3 * time.Minute) // its deadline is later than rejoinFor
			}
			r.a.link.inTouch()
			if away > lease {
				r.end(id)
				return
			}
			r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		})
	}
}

// TestANodeThatGoesIsLetGo when nothing is under way there any more: what ran is told to
// stop, and nothing new is taken.
func TestANodeThatGoesIsLetGo(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		running := r.ask("n1", power.ActCycle)
		waiting := r.ask("n1", power.ActBMCReset)
		time.Sleep(10 * time.Millisecond)
		if err := r.a.apply(api.Assignment{Full: true, Nodes: r.nodes[1:], Confirmed: []string{"n1"}, Rev: 2},
			api.Database{CentralID: "central"}); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{running.Op.ID, waiting.Op.ID} {
			r.wantEnd(id, power.Cancelled, power.ReasonAsked)
		}
		late := power.Op{ID: "late", Node: "n1", Action: power.ActOn, AskedBy: "x", Origin: power.FromCentral}
		if got, err := r.a.lane("n1").submit(late); err != nil || got.Reason != power.ReasonNoNode {
			t.Errorf("%+v, %v", got, err)
		}
		if held := r.a.holdsBack(); len(held) != 0 {
			t.Errorf("%v", held)
		}
	})
}

// TestANodeIsHeldBackWhileItsOldBMCIsUsed: what runs when its address changes may be at
// work on the old BMC until it has ended. Other changes of a node hold nothing back.
func TestANodeIsHeldBackWhileItsOldBMCIsUsed(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.bmc("n1").SetLatency(2 * time.Second)
		id := r.ask("n1", power.ActOn).Op.ID
		for range 100 {
			if got, _ := r.a.outbox.find(id); strings.Contains(got.Phase, "sending") {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second) // the command is on its way
		next := r.nodes[0]
		change := func(rev int64, held ...string) {
			t.Helper()
			if err := r.a.apply(api.Assignment{Nodes: []api.AssignedNode{next}, Rev: rev}, api.Database{CentralID: "central"}); err != nil {
				t.Fatal(err)
			}
			if got := r.a.holdsBack(); !slices.Equal(got, held) {
				t.Errorf("revision %d: %v is held back, want %v", rev, got, held)
			}
		}
		next.Password = "another"
		change(2)
		next.BMC = "ipmi://admin@192.0.2.99"
		change(3, "n1")
		change(4, "n1")
		r.end(id)
		change(5)
		next.BMC = r.nodes[0].BMC
		change(6) // nothing is under way
	})
}

// TestANodeIsHeldBackWhileSomethingRunsThere, over a restart too.
func TestANodeIsHeldBackWhileSomethingRunsThere(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		b := r.bmc("n1")
		b.SetLatency(2 * time.Second)
		id := r.ask("n1", power.ActOn).Op.ID
		for range 100 {
			if got, _ := r.a.outbox.find(id); strings.Contains(got.Phase, "sending") {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second) // the command is on its way
		if err := r.a.apply(api.Assignment{Full: true, Nodes: r.nodes[1:], Confirmed: []string{"n1"}, Rev: 2},
			api.Database{CentralID: "central"}); err != nil {
			t.Fatal(err)
		}
		if held := r.a.holdsBack(); !slices.Equal(held, []string{"n1"}) {
			t.Errorf("%v", held)
		}
		r.end(id)
		if held := r.a.holdsBack(); len(held) != 0 {
			t.Errorf("%v", held)
		}
	})
}
