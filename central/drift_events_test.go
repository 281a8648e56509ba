package central

import (
	"context"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// seen is a reading of now, with what the monitor makes of it.
func (s *site) seen(node string, state power.State, m api.NodeMonitor) api.NodeReading {
	return api.NodeReading{Node: node, Reading: power.Seen(state, s.clock()), Monitor: m}
}

var matched = api.NodeMonitor{Matched: true}

// settled has the agent polled once more, so that central knows what it holds.
func (r *rack) settled() {
	r.s.t.Helper()
	r.poll()
	r.poll()
}

// tick moves the clock, so that the next reading is newer.
func (r *rack) tick(readings ...api.NodeReading) {
	r.s.t.Helper()
	r.read(readings...)
	r.s.later(time.Second)
}

func TestDriftIsAnEventOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.On, api.NodeMonitor{})) // not off yet: pending
	if n := s.node("a"); !n.Pending || n.Drift {
		t.Errorf("%+v", n)
	}
	wantLines(t, s.entries("a", auditDrift, auditDriftOver))
	r.tick(s.seen("a", power.Off, matched))
	drift := s.seen("a", power.On, matched)
	for range 3 {
		r.read(drift) // the same report, again and again
	}
	s.later(time.Second)
	r.tick(s.seen("a", power.On, matched))
	if n := s.node("a"); n.Pending || !n.Drift {
		t.Errorf("%+v", n)
	}
	wantLines(t, s.entries("a", auditDrift, auditDriftOver), "drift: on, wanted off (status READY)")
	failed := drift.Failed(power.ReachUnreachable, s.clock())
	r.tick(api.NodeReading{Node: "a", Reading: failed, Monitor: matched}) // nothing was seen: it drifts on
	r.tick(s.seen("a", power.Off, matched))
	r.tick(s.seen("a", power.Off, matched))
	wantLines(t, s.entries("a", auditDrift, auditDriftOver), "drift: on", "drift-over: off, as status READY says")
	s.restart()
	r.tick(s.seen("a", power.Off, matched))
	wantLines(t, s.entries("a", auditDrift, auditDriftOver), "drift: on", "drift-over: off")
}

func TestWhatIsExpectedDriftsAtOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusDeployed, "a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.Off, api.NodeMonitor{}))
	if n := s.node("a"); n.Pending || !n.Drift {
		t.Errorf("%+v", n)
	}
	wantLines(t, s.entries("a", auditDrift), "drift: off, expected on (status DEPLOYED); nothing is done about it")
	// It goes on drifting when nothing but the wording of the desire changes.
	s.hold(power.HandsOff, 0, "a")
	wantLines(t, s.entries("a", auditDrift, auditDriftOver), "drift: ", "drift-over: off; what is desired of it changed to hands-off")
	r.settled()
	r.tick(s.seen("a", power.Off, api.NodeMonitor{}))
	wantLines(t, s.entries("a", auditDrift), "drift: ")
}

// TestAChangeOfDesireIsNoDrift has reports arrive that speak of what was desired
// before.
func TestAChangeOfDesireIsNoDrift(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.Off, matched))
	s.status(power.StatusDeploying, "a")
	r.tick(s.seen("a", power.Off, matched)) // matched: it was to be off when that was said
	if n := s.node("a"); !n.Pending {
		t.Errorf("%+v", n)
	}
	wantLines(t, s.entries("a", auditDrift, auditDriftOver))
	r.settled()
	r.tick(s.seen("a", power.Off, api.NodeMonitor{}))
	r.tick(s.seen("a", power.On, matched))
	r.tick(s.seen("a", power.Off, matched))
	wantLines(t, s.entries("a", auditDrift, auditDriftOver), "drift: off, wanted on (status DEPLOYING)")
	s.status(power.StatusReady, "a")
	wantLines(t, s.entries("a", auditDrift, auditDriftOver), "drift: off", "drift-over: what is desired of it changed to off")
	if n := s.node("a"); n.Pending || n.Drift {
		t.Errorf("%+v", n)
	}
}

func TestAnEndedHoldIsNoDriftBeforeItIsSwept(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	s.hold(power.WantOn, time.Minute, "a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.On, matched))
	s.later(time.Minute)
	r.tick(s.seen("a", power.Off, matched)) // the agent has ended the hold by itself
	s.c.sweep(context.Background())
	r.settled()
	r.tick(s.seen("a", power.Off, matched))
	wantLines(t, s.entries("a", auditDrift, auditDriftOver, auditHoldOver), "hold-over: on")
}

// TestWhatCannotBeReadDoesNotDrift has a node's desire change while its BMC is silent.
func TestWhatCannotBeReadDoesNotDrift(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	r.settled()
	off := s.seen("a", power.Off, matched)
	r.tick(off)
	s.status(power.StatusDeployed, "a")
	r.settled()
	r.tick(api.NodeReading{Node: "a", Reading: off.Failed(power.ReachUnreachable, s.clock())})
	wantLines(t, s.entries("a", auditDrift))
	r.tick(s.seen("a", power.Off, api.NodeMonitor{}))
	wantLines(t, s.entries("a", auditDrift), "drift: off, expected on")
}

// TestTheMiddleOfACycleIsNoDrift reads a node while an operation runs on it.
func TestTheMiddleOfACycleIsNoDrift(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusDeployed, "a")
	r := s.rack("r1")
	op := r.deliver("a", power.ActCycle)
	r.settled()
	r.mustReport(r.running(op))
	r.tick(s.seen("a", power.On, matched))
	r.tick(s.seen("a", power.Off, matched))
	if n := s.node("a"); !n.Pending || n.Drift {
		t.Errorf("%+v", n)
	}
	r.mustReport(r.ended(op, power.Failed))
	wantLines(t, s.entries("a", auditDrift))
	r.tick(s.seen("a", power.Off, matched)) // says the same as before, but now it counts
	wantLines(t, s.entries("a", auditDrift), "drift: off, expected on")
}

func TestFaultsAreEventsOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	r.settled()
	fault := api.NodeMonitor{
		Fault: "off failed 3 times", FaultSince: s.clock(), Failures: 3, Faults: 1, Waits: power.ReasonFault,
		WaitsMessage: "tries again", WaitsUntil: s.clock().Add(time.Minute),
	}
	r.tick(s.seen("a", power.On, api.NodeMonitor{Failures: 2}))
	r.tick(s.seen("a", power.On, fault))
	n := s.node("a")
	if n.Fault != fault.Fault || n.Waits != power.ReasonFault || n.WaitsMessage != "tries again" || !n.FaultSince.Equal(fault.FaultSince) ||
		!n.WaitsUntil.Equal(fault.WaitsUntil) || !n.Pending {
		t.Errorf("%+v", n)
	}
	more := fault
	more.Fault, more.Failures = "off failed 4 times", 4
	r.tick(s.seen("a", power.On, more))
	s.restart()
	r.tick(s.seen("a", power.On, more))
	wantLines(t, s.entries("a", auditFault, auditFaultOver), "fault: off failed 3 times")
	r.tick(s.seen("a", power.Off, matched))
	wantLines(t, s.entries("a", auditFault, auditFaultOver), "fault: off failed 3 times", "fault-over: was: off failed 4 times")
}

// TestTheMonitorsWordNeedsNoNewReading has the monitor decide something after the
// reading that was reported already.
func TestTheMonitorsWordNeedsNoNewReading(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	r.settled()
	reading := s.seen("a", power.On, api.NodeMonitor{})
	r.read(reading)
	reading.Monitor = api.NodeMonitor{Waits: power.ReasonGather, WaitsMessage: "5 s"}
	r.read(reading)
	if n := s.node("a"); n.Waits != power.ReasonGather {
		t.Errorf("%+v", n)
	}
	// The estimate of the clocks got better: the same reading looks older now.
	reading.Monitor.Fault = "f"
	reading.TriedAt = reading.TriedAt.Add(-3 * time.Millisecond)
	r.read(reading)
	if n := s.node("a"); n.Fault != "f" || !n.TriedAt.Equal(s.clock()) {
		t.Errorf("%+v", n)
	}
}

// TestAReportThatWasOvertakenIsOld delivers a report after a later one.
func TestAReportThatWasOvertakenIsOld(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.settled()
	send := func(nth uint64, m api.NodeMonitor, rack *api.RackState) {
		t.Helper()
		in := api.Report{
			Session: r.w.Session, JournalID: r.journal, LSN: r.lsn, SentAt: s.clock(), Run: "run", Nth: nth, Rack: rack,
			Readings: []api.NodeReading{s.seen("a", power.On, m)},
		}
		if _, err := s.Report(t.Context(), "r1", in); err != nil {
			t.Fatal(err)
		}
	}
	brake := &api.RackState{Brake: &api.Brake{ID: "b", Kind: "cut", Message: "too many", Nodes: []string{"a"}, Total: 1}}
	send(2, api.NodeMonitor{Fault: "f"}, brake)
	send(1, api.NodeMonitor{}, &api.RackState{})
	send(3, api.NodeMonitor{Fault: "f"}, brake)
	wantLines(t, s.entries("a", auditFault, auditFaultOver), "fault: f")
	wantLines(t, s.entries("", auditBrake, auditBrakeOver), "brake: rack r1: too many (nodes a, of 1)")
}

func TestABMCIsLeftAloneOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	r.settled()
	fails := func(node string, reach power.Reach, m api.NodeMonitor) {
		t.Helper()
		r.tick(api.NodeReading{Node: node, Reading: power.Seen(power.On, s.clock().Add(-time.Hour)).Failed(reach, s.clock()), Monitor: m})
	}
	kinds := []string{auditAlone, auditBack}
	r.tick(s.seen("a", power.On, matched))
	fails("a", power.ReachUnreachable, matched) // once may be a lost packet
	r.tick(s.seen("a", power.On, matched))
	wantLines(t, s.entries("a", kinds...))
	for range 4 {
		fails("a", power.ReachUnreachable, matched)
	}
	for _, reach := range []power.Reach{power.ReachAuthFailed, power.ReachBusy, power.ReachPrivilege} {
		fails("a", reach, matched) // another reach like it is no news
	}
	wantLines(t, s.entries("a", kinds...), "bmc-left-alone: (unreachable); last read on")
	r.tick(s.seen("a", power.Off, matched))
	wantLines(t, s.entries("a", kinds...), "bmc-left-alone: ", "bmc-back: (ok); off")
	r.tick(s.seen("b", power.On, api.NodeMonitor{Waits: power.ReasonBreaker})) // its neighbour's failures opened it
	r.tick(s.seen("b", power.On, api.NodeMonitor{}))
	wantLines(t, s.entries("b", kinds...), "bmc-left-alone: ", "bmc-back: ")
}

func TestAMovedNodeLeavesItsFaultBehind(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.On, api.NodeMonitor{Fault: "f", Matched: true}))
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r2"}}, Update: true}); err != nil {
		t.Fatal(err)
	}
	if n := s.node("a"); n.Fault != "" || n.State != power.On {
		t.Errorf("%+v", n)
	}
	if s.node("a").AgentState.State != api.AgentNever {
		t.Error("r2 was never there")
	}
}

// TestReportThatWasOnItsWay: the agent knows what is desired now, and its report of
// before comes after that.
func TestReportThatWasOnItsWay(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusDeployed, "a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.On, matched))
	before := r.rev
	s.status(power.StatusReady, "a")
	r.settled()
	for _, rev := range []int64{before, r.rev} {
		s.later(time.Second)
		said := matched
		if rev == r.rev {
			said = api.NodeMonitor{}
		}
		_, err := s.Report(t.Context(), "r1", api.Report{
			Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn, Rev: rev,
			Readings: []api.NodeReading{s.seen("a", power.On, said)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.node("a"); n.Drift && !n.Pending {
			t.Errorf("%+v", n)
		}
	}
	wantLines(t, s.entries("a", auditDrift, auditDriftOver))
}

// TestAnAgentThatKnowsLessTakesNothingBack has an agent start anew and find that a BMC
// no longer answers: the last state it was read in stands.
func TestAnAgentThatKnowsLessTakesNothingBack(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("a", power.On, matched))
	was := *s.node("a").ObservedAt
	r.tick(api.NodeReading{Node: "a", Reading: power.Reading{State: power.Unknown, Reach: power.ReachAuthFailed, TriedAt: s.clock()}})
	if n := s.node("a"); n.State != power.On || n.Reach != power.ReachAuthFailed || n.ObservedAt == nil || !n.ObservedAt.Equal(was) {
		t.Errorf("%+v", n)
	}
}

// TestASuccessThatDoesNotLastIsTold: once, in the audit log and with the operation, which stays
// a success, and with those that joined it.
func TestASuccessThatDoesNotLastIsTold(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.settled()
	op, joiner := r.deliver("a", power.ActOn), r.deliver("a", power.ActOn)
	r.mustReport(r.running(op), r.joined(joiner, op.ID), r.ended(op, power.Succeeded))
	s.later(40 * time.Second)
	fell := api.NodeMonitor{
		Reverted: "it went off again within 5 s after it had been turned on", RevertedOp: op.ID,
		RevertedAt: s.clock().Add(-10 * time.Second),
	}
	before := s.op(op.ID)
	for range 3 {
		r.tick(s.seen("a", power.Off, fell))
	}
	for _, id := range []string{op.ID, joiner.ID} {
		if o := s.op(id); o.Outcome != power.Succeeded ||
			!strings.Contains(o.Detail, "did not last: it went off again within 5 s after it had been turned on") ||
			strings.Count(o.Detail, "did not last") != 1 || o.Rev <= before.Rev {
			t.Errorf("%+v", o)
		}
	}
	wantLines(t, s.entries("a", auditFell), "fell-back: it went off again within 5 s")
	all, err := s.Audit(t.Context(), "a", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.What == auditFell && (e.Op != op.ID || !e.HappenedAt.Equal(fell.RevertedAt) || !e.At.After(e.HappenedAt)) {
			t.Errorf("%+v", e)
		}
	}
	r.tick(s.seen("a", power.On, api.NodeMonitor{}))
	s.restart()
	r.tick(s.seen("a", power.On, api.NodeMonitor{}))
	wantLines(t, s.entries("a", auditFell), "fell-back: it went off again within 5 s")
}

// TestTheTrailSaysWhenThingsHappened: what a rack tells of when central is back has its
// own time beside the one at which central heard of it.
func TestTheTrailSaysWhenThingsHappened(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.settled()
	asked := s.clock()
	op := power.Op{
		ID: "01900000-0000-7000-8000-000000000001", Node: "a", Action: power.ActOn, AskedBy: "bob", AskedAt: asked,
		Origin: power.FromLocal, Seq: 5, Deadline: asked.Add(time.Minute),
	}
	report := r.ended(op, power.Succeeded)
	report.StartedAt, report.End.At = asked.Add(time.Second), asked.Add(3*time.Second)
	s.later(2 * time.Hour)
	heard := s.clock()
	r.mustReport(report)
	seen := s.seen("a", power.On, api.NodeMonitor{Fault: "x", FaultSince: asked.Add(time.Minute)})
	r.read(seen)
	all, err := s.Audit(t.Context(), "a", 1000)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{
		auditAsked: 0, auditAccepted: 0, auditStarted: time.Second, auditEnded: 3 * time.Second,
		auditFault: time.Minute,
	}
	for _, e := range all {
		after, told := want[e.What]
		if !told {
			continue
		}
		delete(want, e.What)
		if !e.HappenedAt.Equal(asked.Add(after)) || e.At.Before(heard) {
			t.Errorf("%s happened at %s and is noted at %s", e.What, e.HappenedAt, e.At)
		}
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", want)
	}
	s.status(power.StatusReady, "a")
	if all, err = s.Audit(t.Context(), "a", 1); err != nil || !all[0].HappenedAt.Equal(all[0].At) {
		t.Errorf("%+v %v", all, err)
	}
}
