package monitor

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// atNoon is the round of the tests.
func atNoon() planRound {
	return planRound{
		Now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Fresh: actFresh, Timing: Timing{}.WithDefaults(),
		Tally: tally{Of: 100, Bounds: brakeBounds{Percent: 20, Above: 5}},
	}
}

func TestPlan(t *testing.T) {
	r := atNoon()
	ago := func(d time.Duration) time.Time { return r.Now.Add(-d) }
	read := func(s power.State) func(*watched) {
		return func(n *watched) { n.Reading = power.Seen(s, ago(time.Second)) }
	}
	for _, c := range []struct {
		name   string
		status power.Status
		node   func(*watched)
		round  func(*planRound)
		action power.Action
		reason power.Reason
		until  time.Duration // from now
	}{
		{name: "wanted off, is on", status: power.StatusReady, action: power.ActOff, reason: power.ReasonDrift},
		{name: "wanted off, is off", status: power.StatusReady, node: read(power.Off), reason: power.ReasonAlready},
		{name: "wanted on, is off", status: power.StatusDiskErasing, node: read(power.Off), action: power.ActOn, reason: power.ReasonDrift},
		{name: "expected on, is off", status: power.StatusDeployed, node: read(power.Off), reason: power.ReasonHandsOff},
		{name: "no status", reason: power.ReasonHandsOff},
		{name: "busy", status: power.StatusReady, node: func(n *watched) { n.Busy = true }, reason: power.ReasonBusy},
		{
			name: "unreachable", status: power.StatusReady, node: func(n *watched) { n.Reading = n.Reading.Failed(power.ReachUnreachable, r.Now) },
			reason: power.ReasonUnread,
		},
		{
			name: "never read", status: power.StatusReady,
			node: func(n *watched) { n.Reading = power.Reading{State: power.Unknown, Reach: power.ReachNever} }, reason: power.ReasonUnread,
		},
		{
			name: "read before the desire changed", status: power.StatusReady, node: func(n *watched) { n.Memory.Since = ago(time.Millisecond) },
			reason: power.ReasonUnread,
		},
		{
			name: "read too long ago", status: power.StatusReady, node: func(n *watched) { n.Reading = power.Seen(power.On, ago(16*time.Second)) },
			reason: power.ReasonUnread,
		},
		{
			name: "just changed", status: power.StatusReady, node: func(n *watched) { n.Changed = ago(59 * time.Second) },
			reason: power.ReasonSettling, until: time.Second,
		},
		{
			name: "settled", status: power.StatusReady, node: func(n *watched) { n.Changed = ago(61 * time.Second) }, action: power.ActOff,
			reason: power.ReasonDrift,
		},
		{
			name: "just changed, but wanted otherwise since", status: power.StatusReady,
			node: func(n *watched) { n.Changed = ago(9 * time.Second); n.Memory.Since = ago(8 * time.Second) }, action: power.ActOff,
			reason: power.ReasonDrift,
		},
		{
			name: "just changed, but came back", status: power.StatusReady,
			node: func(n *watched) { n.Changed = ago(30 * time.Second); n.CameBack = true }, action: power.ActOff, reason: power.ReasonCameBack,
		},
		{
			name: "held off while erasing", status: power.StatusDiskErasing, node: func(n *watched) { n.Memory.Desired.Want = power.WantOff },
			reason: power.ReasonNoCut,
		},
		{
			name: "protected", status: power.StatusReady,
			node: func(n *watched) { n.Protected = "protected by ann"; n.Memory.Desired.NoCut = true }, reason: power.ReasonProtected,
		},
		{
			name: "protected, wanted on", status: power.StatusDiskErasing,
			node: func(n *watched) { read(power.Off)(n); n.Protected = "protected by ann" }, action: power.ActOn, reason: power.ReasonDrift,
		},
		{
			name: "debounced, first reading", status: power.StatusNew,
			node: func(n *watched) { n.Run = run{power.On, ago(20 * time.Second), ago(time.Second)} }, reason: power.ReasonDebounce,
			until: 10 * time.Second,
		},
		{
			name: "debounced, second reading", status: power.StatusNew,
			node: func(n *watched) { n.Run = run{power.On, ago(31 * time.Second), ago(time.Second)} }, action: power.ActOff,
			reason: power.ReasonDrift,
		},
		{
			name: "changed a moment ago", status: power.StatusReady, node: func(n *watched) { n.Memory.Since = ago(2 * time.Second) },
			reason: power.ReasonGather, until: 3 * time.Second,
		},
		{
			name: "another changed a moment ago", status: power.StatusReady, node: func(n *watched) { n.Memory.Since = ago(7 * time.Second) },
			round: func(r *planRound) { r.Tally.Changed = ago(time.Second) }, reason: power.ReasonGather, until: 4 * time.Second,
		},
		{
			name: "the agent started a moment ago", status: power.StatusReady, node: func(n *watched) { n.Memory.Since = ago(31 * time.Second) },
			round: func(r *planRound) { r.Started = ago(time.Second) }, reason: power.ReasonGather, until: 4 * time.Second,
		},
		{
			name: "others change for ever", status: power.StatusReady, node: func(n *watched) { n.Memory.Since = ago(29 * time.Second) },
			round: func(r *planRound) { r.Tally.Changed = ago(time.Second) }, reason: power.ReasonGather, until: time.Second,
		},
		{
			name: "others changed for ever", status: power.StatusReady, node: func(n *watched) { n.Memory.Since = ago(31 * time.Second) },
			round: func(r *planRound) { r.Tally.Changed = ago(time.Second) }, action: power.ActOff, reason: power.ReasonDrift,
		},
		{
			name: "changed a moment ago and confirmed", status: power.StatusReady,
			node: func(n *watched) { n.Memory.Since, n.Memory.Confirmed = ago(2*time.Second), true }, action: power.ActOff,
			reason: power.ReasonDrift,
		},
		{
			name: "wanted on a moment ago", status: power.StatusDiskErasing,
			node: func(n *watched) { read(power.Off)(n); n.Memory.Since = ago(2 * time.Second) }, action: power.ActOn, reason: power.ReasonDrift,
		},
		{name: "in fault", status: power.StatusReady, node: func(n *watched) {
			n.Memory.Fault, n.Memory.NextTry = "3 failed",
				r.Now.Add(time.Minute)
		}, reason: power.ReasonFault, until: time.Minute},
		{name: "in fault, its try is due", status: power.StatusReady, node: func(n *watched) {
			n.Memory.Fault, n.Memory.NextTry = "3 failed",
				r.Now
		}, action: power.ActOff, reason: power.ReasonDrift},
		{
			name: "paused", status: power.StatusReady, round: func(r *planRound) { r.Pause = &api.Pause{By: "ann", Until: r.Now.Add(time.Hour)} },
			reason: power.ReasonPaused, until: time.Hour,
		},
		{
			name: "the pause is over", status: power.StatusReady, round: func(r *planRound) { r.Pause = &api.Pause{By: "ann", Until: r.Now} },
			action: power.ActOff, reason: power.ReasonDrift,
		},
		{
			name: "the brake holds", status: power.StatusReady, round: func(r *planRound) { r.Brake = &api.Brake{Kind: BrakeCut} },
			reason: power.ReasonBrake,
		},
		{
			name: "the brake holds, wanted on", status: power.StatusDiskErasing, node: read(power.Off),
			round: func(r *planRound) { r.Brake = &api.Brake{Kind: BrakeCut} }, reason: power.ReasonBrake,
		},
		{
			name: "the brake holds, confirmed", status: power.StatusReady, node: func(n *watched) { n.Memory.Confirmed = true },
			round: func(r *planRound) { r.Brake = &api.Brake{Kind: BrakeDrift} }, reason: power.ReasonBrake,
		},
		{name: "no monitor", status: power.StatusReady, round: func(r *planRound) { r.Off = true }, reason: power.ReasonRack},
		{name: "another node has its BMC", status: power.StatusReady, node: func(n *watched) { n.SharedWith = "n2" }, reason: power.ReasonShared},
		{name: "another node has its BMC, confirmed", status: power.StatusReady, node: func(n *watched) {
			n.SharedWith, n.Memory.Confirmed = "n2",
				true
		}, reason: power.ReasonShared},
		{
			name: "its BMC is left alone", status: power.StatusReady, node: func(n *watched) { n.BreakerOpen = "no answer" },
			reason: power.ReasonBreaker,
		},
		{
			name: "too many were not read", status: power.StatusReady, round: func(r *planRound) { r.Tally.Blind = 21 }, reason: power.ReasonOthers,
			until: 30 * time.Second,
		},
		{
			name: "too many were not read, for too long", status: power.StatusReady,
			node: func(n *watched) { n.OthersSince = ago(30 * time.Second) }, round: func(r *planRound) { r.Tally.Blind = 21 }, action: power.ActOff,
			reason: power.ReasonDrift,
		},
		{
			name: "too many were not read, but confirmed", status: power.StatusReady, node: func(n *watched) { n.Memory.Confirmed = true },
			round: func(r *planRound) { r.Tally.Blind = 21 }, action: power.ActOff, reason: power.ReasonDrift,
		},
	} {
		round := atNoon()
		if c.round != nil {
			c.round(&round)
		}
		n := watched{Node: "n1", From: "status " + string(c.status)}
		n.Memory = Memory{Desired: c.status.Desired(), Since: ago(time.Hour)}
		n.Run = run{power.On, ago(time.Hour), ago(time.Second)}
		read(power.On)(&n)
		if c.node != nil {
			c.node(&n)
		}
		d := plan(round, []watched{n})[0]
		if d.Action != c.action || d.Reason != c.reason || d.Message == "" || d.Node != "n1" {
			t.Errorf("%s: %+v, want %q for %s", c.name, d, c.action, c.reason)
		}
		if c.until != 0 && !d.Until.Equal(round.Now.Add(c.until)) {
			t.Errorf("%s: until %s, want in %s", c.name, d.Until, c.until)
		}
	}
}

// TestPlanAgainstRules: whatever is planned is what the rules allow, said plainly.
func TestPlanAgainstRules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := atNoon()
		r.Off = rapid.IntRange(0, 9).Draw(rt, "off") == 0
		if rapid.IntRange(0, 9).Draw(rt, "brake") == 0 {
			r.Brake = &api.Brake{Kind: BrakeDrift}
		}
		if rapid.IntRange(0, 9).Draw(rt, "pause") == 0 {
			r.Pause = &api.Pause{Until: r.Now.Add(time.Duration(rapid.IntRange(-1, 1).Draw(rt, "pauseEnd")) * time.Second)}
		}
		var nodes []watched
		for i := range rapid.IntRange(1, 12).Draw(rt, "nodes") {
			n := drawWatched(rt, i, r.Now)
			if rapid.Bool().Draw(rt, "fresh") {
				n.Reading = power.Seen(n.Reading.State, r.Now)
			}
			nodes = append(nodes, n)
		}
		r.Tally = judge(r.Now, brakeBounds{Percent: 20, Above: rapid.IntRange(0, 5).Draw(rt, "above"), Window: time.Minute}, nodes)
		for i, d := range plan(r, nodes) {
			n := nodes[i]
			m := n.Memory
			var want power.Action
			if m.Desired.Want == power.WantOn && n.Reading.State == power.Off {
				want = power.ActOn
			}
			if m.Desired.Want == power.WantOff && n.Reading.State == power.On {
				want = power.ActOff
			}
			age := r.Now.Sub(n.Reading.ObservedAt)
			forbidden := n.Busy || r.Off || n.SharedWith != "" || r.Brake != nil || r.Pause != nil && r.Pause.Until.After(r.Now) ||
				n.Reading.Reach != power.ReachOK || age > 15*time.Second || n.Reading.ObservedAt.Before(m.Since) ||
				m.Desired.NoCut && want == power.ActOff || m.Fault != "" && m.NextTry.After(r.Now) ||
				m.Desired.Debounced && n.Run.Last.Sub(n.Run.First) < 30*time.Second ||
				r.Now.Sub(n.Changed) < time.Minute && n.Changed.After(m.Since) && !n.CameBack ||
				want == power.ActOff && !m.Matched && !m.Confirmed && !m.Released && m.Fault == "" && r.Now.Sub(m.Since) < 5*time.Second
			switch {
			case d.Node != n.Node || d.Reason == "" || d.Message == "":
				rt.Fatalf("decision %+v on %s", d, n.Node)
			case d.Action != "" && (d.Action != want || forbidden):
				rt.Fatalf("planned %s (%s) for %+v, want %q, forbidden %t", d.Action, d.Reason, n, want, forbidden)
			case d.Action == "" && want != "" && !forbidden && d.Reason != power.ReasonOthers && d.Reason != power.ReasonGather:
				rt.Fatalf("nothing planned (%s: %s) for %+v, want %s", d.Reason, d.Message, n, want)
			}
			if d.Reason == power.ReasonOthers && r.Tally.sure(r.Now, n) {
				rt.Fatalf("waits for others although it is sure: %+v", n)
			}
		}
	})
}

// TestAgendaAgainstAList: the heap gives what a sorted list would.
func TestAgendaAgainstAList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		var a agenda
		model := map[agendaKey]time.Time{}
		now := begin
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			key := agendaKey{rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(rt, "node"), rapid.SampledFrom([]power.Reason{"a", "b"}).Draw(rt,
				"why")}
			switch rapid.IntRange(0, 3).Draw(rt, "do") {
			case 0, 1:
				at := now.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "at")) * time.Second)
				a.set(key.Node, key.Why, at)
				model[key] = at
			case 2:
				a.set(key.Node, key.Why, time.Time{})
				delete(model, key)
			default:
				now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(rt, "pass")) * time.Second)
				for _, k := range a.due(now) {
					if at, ok := model[k]; !ok || at.After(now) {
						rt.Fatalf("%v fires at %s, want %s", k, now, at)
					}
					delete(model, k)
				}
				for k, at := range model {
					if !at.After(now) {
						rt.Fatalf("%v of %s did not fire at %s", k, at, now)
					}
				}
			}
			var first, of time.Time
			for k, at := range model {
				if first.IsZero() || at.Before(first) {
					first = at
				}
				if k.Node == key.Node && (of.IsZero() || at.Before(of)) {
					of = at
				}
			}
			if next, ok := a.next(); ok != (len(model) > 0) || !next.Equal(first) || !a.firsts()[key.Node].Equal(of) {
				rt.Fatalf("next %s, of %s %s; want %s, %s", next, key.Node, a.firsts()[key.Node], first, of)
			}
		}
	})
}

func TestMemoryOfADesire(t *testing.T) {
	tm, now := Timing{}.WithDefaults(), time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	m := Memory{}
	if !m.want(power.Desired{Want: power.WantOff}, "status READY false", false, now) || m.Matched || !m.Since.Equal(now) {
		t.Fatalf("%+v", m)
	}
	m.failed("x", now, tm)
	m.failed("x", now, tm)
	if m.want(power.Desired{Want: power.WantOff}, "status BROKEN true", true, now.Add(time.Minute)) || !m.Confirmed || m.Failures != 2 ||
		!m.Since.Equal(now) {
		t.Fatalf("the same desire from another status: %+v", m)
	}
	m.failed("x", now, tm)
	if m.Fault == "" || m.Faults != 1 || !m.resting(now) || m.resting(now.Add(tm.FaultPause)) {
		t.Fatalf("%+v", m)
	}
	m.saw(power.Seen(power.Off, now.Add(-time.Second)), false, false, tm)
	if m.Matched {
		t.Fatal("matched by a reading of before the desire")
	}
	m.saw(power.Seen(power.Off, now.Add(time.Second)), false, false, tm)
	if !m.Matched || m.Confirmed || m.Fault != "" || m.Failures != 0 || m.Faults != 1 {
		t.Fatalf("seen as desired: %+v", m)
	}
	m.saw(power.Seen(power.On, now.Add(2*time.Second)), false, false, tm)
	m.saw(power.Seen(power.On, now.Add(9*time.Second)), false, false, tm)
	if !m.Differs.Equal(now.Add(2 * time.Second)) {
		t.Fatalf("it differs since %s", m.Differs)
	}
	if !m.want(power.Desired{Want: power.WantOn}, "hold 7", true, now.Add(time.Hour)) || m.Matched || !m.Differs.IsZero() || !m.Confirmed ||
		m.Faults != 1 {
		t.Fatalf("another desire: %+v", m)
	}
	for _, c := range []struct {
		end     power.End
		started bool
		want    int
	}{
		{power.End{Outcome: power.Failed}, true, 1},
		{power.End{Outcome: power.Indeterminate}, true, 1},
		{power.End{Outcome: power.Expired, Attempts: 1}, true, 1},
		{power.End{Outcome: power.Expired}, false, 0},
		{power.End{Outcome: power.Expired}, true, 0},
		{power.End{Outcome: power.Superseded, Attempts: 1}, true, 0},
		{power.End{Outcome: power.Cancelled, Attempts: 1}, true, 0},
		{power.End{Outcome: power.Refused}, false, 0},
		{power.End{Outcome: power.Succeeded, Attempts: 1}, true, 0},
	} {
		for origin, want := range map[power.Origin]int{power.FromMonitor: c.want, power.FromCentral: 0} {
			m := Memory{Desired: power.Desired{Want: power.WantOn}}
			m.ended(power.Op{Action: power.ActOn, Origin: origin}, c.end, c.started, tm)
			if m.Failures != want {
				t.Errorf("%s by %s: %d failures, want %d", c.end.Outcome, origin, m.Failures, want)
			}
		}
	}
}

func TestRingsAreBounded(t *testing.T) {
	var w nodeWatch
	now := time.Now()
	for i := range 3 * keepRuns {
		w.note(decision{Reason: power.ReasonAlready, Message: fmt.Sprint(i / 2)}, now)
	}
	if len(w.decided) != keepRuns || w.decided[0].Times != 2 {
		t.Fatalf("%d decisions: %+v", len(w.decided), w.decided[0])
	}
}
