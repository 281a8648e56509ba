package central

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestAGapInTheRevisionsIsNoOtherDatabase has a job undone that had drawn
// revisions. Who waits from there on is not given everything again.
func TestAGapInTheRevisionsIsNoOtherDatabase(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	known := s.ask("a", power.ActOn)
	_, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{
		{ID: newID(), Node: "a", Action: power.ActOn},
		{ID: known.ID, Node: "b", Action: power.ActOff},
	}})
	wantCode(t, err, api.CodeBadRequest)
	s.nodes("c") // makes the gap durable
	all, err := s.QueryOps(t.Context(), api.QueryOps{})
	if err != nil || len(all.Ops) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	none, err := s.QueryOps(t.Context(), api.QueryOps{AfterRev: all.Rev, Wait: 30 * time.Millisecond})
	if err != nil || len(none.Ops) != 0 {
		t.Errorf("told again: %+v, %v", none, err)
	}
}

// TestAHelloThatWasOvertakenIsVoid delivers a hello after a later one of the same
// agent, as a connection that was given up can.
func TestAHelloThatWasOvertakenIsVoid(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	hello := api.Hello{JournalID: r.journal, Epoch: 1, LSN: r.lsn, Outstanding: []api.OpRef{}, SentAt: s.clock(), Run: r.run, Nth: 2}
	late := hello
	late.Nth = 1
	w, err := s.Hello(t.Context(), "r1", hello)
	if err != nil {
		t.Fatal(err)
	}
	r.w = w
	op := r.deliver("a", power.ActCycle)
	r.mustReport(r.running(op))
	_, err = s.Hello(t.Context(), "r1", late)
	wantCode(t, err, api.CodeHello)
	if o := s.op(op.ID); o.Outcome != "" {
		t.Errorf("ended by what is no longer so: %+v", o)
	}
	r.mustReport(r.ended(op, power.Succeeded)) // the session goes on
	if a := s.agent("r1"); a.Alarm != "" {
		t.Errorf("%+v", a)
	}
	hello.Run, hello.Nth, hello.Epoch, hello.LSN = "another", 1, 2, r.lsn
	if _, err := s.Hello(t.Context(), "r1", hello); err != nil {
		t.Errorf("the agent was started anew: %v", err)
	}
}

// TestAJoinerOutlivesALostRecord has the agent know a request whose operation went
// with a damaged part of its journal: it carries the request out by itself.
func TestAJoinerOutlivesALostRecord(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	first, second, third := r.deliver("a", power.ActOn), r.deliver("a", power.ActOn), r.deliver("a", power.ActOn)
	r.mustReport(r.running(first), r.joined(second, first.ID), r.joined(third, first.ID))
	r.epoch++
	r.mustHello(second.ID)
	if o := s.op(second.ID); o.Outcome != "" {
		t.Errorf("the agent knows it: %+v", o)
	}
	for _, id := range []string{first.ID, third.ID} {
		if o := s.op(id); o.Outcome != power.Indeterminate || o.Why != power.ReasonLost {
			t.Errorf("%+v", o)
		}
	}
	r.mustReport(r.ended(second, power.Succeeded))
	if o := s.op(second.ID); o.Outcome != power.Succeeded || s.c.Contradictions() != 0 {
		t.Errorf("%+v, %d contradictions", o, s.c.Contradictions())
	}
}

// TestTheAuditTrailKeepsTheReasonOfTheAcceptance reports it together with the end.
func TestTheAuditTrailKeepsTheReasonOfTheAcceptance(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.mustReport(r.ended(r.deliver("a", power.ActOn), power.Succeeded))
	entries, err := s.Audit(t.Context(), "a", 100)
	if err != nil {
		t.Fatal(err)
	}
	why := map[string]string{}
	for _, e := range entries {
		why[e.What] = e.Why
	}
	if why[auditAccepted] != string(power.ReasonIdle) || why[auditEnded] != string(power.ReasonVerified) {
		t.Errorf("%v", why)
	}
}

// TestARackOfTheFutureIsNotedNow has a rack's clock run ahead.
func TestARackOfTheFutureIsNotedNow(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := power.Op{
		ID: newID(), Node: "a", Action: power.ActOn, AskedBy: "x", Origin: power.FromLocal,
		AskedAt: s.clock().Add(time.Hour),
	}.WithDefaults(s.clock())
	r.mustReport(r.ended(op, power.Succeeded))
	entries, err := s.Audit(t.Context(), "a", 100)
	for _, e := range entries {
		if e.Op == op.ID && e.At.After(s.clock()) {
			t.Errorf("%+v", e)
		}
	}
	if err != nil || len(entries) < 2 {
		t.Errorf("%+v, %v", entries, err)
	}
}

// TestADeadlineIsByTheAgentsClock: an agent whose clock is off has as long for an
// operation as any other, and central goes on by its own.
func TestADeadlineIsByTheAgentsClock(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, -time.Second, time.Second, time.Hour} {
		s := newSite(t)
		s.nodes("a")
		r := s.rack("r1")
		w, err := s.Hello(t.Context(), "r1", api.Hello{JournalID: r.journal, Epoch: 1, Run: r.run, LSN: r.lsn, SentAt: s.clock().Add(skew)})
		if err != nil {
			t.Fatal(err)
		}
		r.w = w
		op := s.ask("a", power.ActOn)
		got := r.poll()
		if len(got.Ops) != 1 {
			t.Fatalf("%+v", got)
		}
		theirs := s.clock().Add(skew)
		if left, want := got.Ops[0].Deadline.Sub(theirs), op.Deadline.Sub(s.clock()); (left - want).Abs() > time.Second {
			t.Errorf("clock %s ahead: %s left, want %s", skew, left, want)
		}
		if asked := theirs.Sub(got.Ops[0].AskedAt); asked.Abs() > time.Second {
			t.Errorf("clock %s ahead: asked %s ago", skew, asked)
		}
		if shown := s.op(op.ID); !shown.Deadline.Equal(op.Deadline) {
			t.Errorf("central shows the deadline %s, it was %s", shown.Deadline, op.Deadline)
		}
	}
}

// TestClocksNeedNotAgree reads a node whose agent's clock is off, either way, and
// is then set right.
func TestClocksNeedNotAgree(t *testing.T) {
	for name, skew := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a")
			r := s.rack("r1")
			r.poll()
			report := func(skew time.Duration, state power.State) {
				t.Helper()
				at := s.clock().Add(skew)
				_, err := s.Report(t.Context(), "r1", api.Report{
					Session: r.w.Session, JournalID: r.journal, LSN: r.lsn, SentAt: at,
					Readings: []api.NodeReading{{Node: "a", Reading: power.Seen(state, at.Add(-time.Second))}},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			sayHello := func(skew time.Duration) {
				t.Helper()
				w, err := s.Hello(t.Context(), "r1", api.Hello{JournalID: r.journal, Epoch: 1, Run: r.run, LSN: r.lsn, SentAt: s.clock().Add(skew)})
				if err != nil {
					t.Fatal(err)
				}
				r.w = w
			}
			sayHello(skew)
			poll := r.pollBehind(time.Minute)
			got := make(chan []api.Node, 1)
			go func() {
				nodes, _ := s.ReadNodes(context.Background(), api.ReadNodes{Names: []string{"a"}, Wait: 20 * time.Second})
				got <- nodes
			}()
			r.took((<-poll).Assignment)
			report(skew, power.Off) // a second old: from before it was asked for
			s.later(5 * time.Second)
			if again := r.poll(); !slices.Equal(again.Reads, []string{"a"}) {
				t.Errorf("an old reading was taken for the fresh one: %+v", again)
			}
			report(skew, power.On)
			select {
			case nodes := <-got:
				if len(nodes) != 1 || nodes[0].State != power.On || nodes[0].Stale || !nodes[0].TriedAt.Equal(s.clock().Add(-time.Second)) {
					t.Errorf("%+v", nodes)
				}
			case <-time.After(10 * time.Second):
				t.Error("the fresh reading was not noticed")
			}
			s.later(resendRead + time.Second)
			if again := r.poll(); len(again.Reads) != 0 {
				t.Errorf("asked for once more: %+v", again)
			}
			s.later(time.Minute)
			report(0, power.Off) // the clock was set right
			if n := s.node("a"); n.State != power.Off || n.TriedAt.After(s.clock()) {
				t.Errorf("%+v", n)
			}
		})
	}
}

// TestReadingsGoOnAfterCentralsClockWasSetBack has readings stored by a clock that
// runs ahead for a while.
func TestReadingsGoOnAfterCentralsClockWasSetBack(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.mustHello()
	s.later(time.Hour)
	r.read(api.NodeReading{Node: "a", Reading: power.Seen(power.On, s.clock())})
	if n := s.node("a"); n.State != power.On {
		t.Fatalf("%+v", n)
	}
	s.later(-time.Hour)
	r.read(api.NodeReading{Node: "a", Reading: power.Seen(power.Off, s.clock())})
	if n := s.node("a"); n.State != power.Off || n.TriedAt.After(s.clock()) {
		t.Errorf("the node is off, and shown as %s, read at %s (now %s)", n.State, n.TriedAt, s.clock())
	}
}

// TestALostReadIsAskedForAgain has the answer that carried it lost, and the agent
// polling on.
func TestALostReadIsAskedForAgain(t *testing.T) {
	s := newSite(t)
	d := s.c.sessions.of("r1")
	d.want([]string{"a"}, s.clock(), s.clock().Add(time.Minute))
	d.sentWishes(&api.Assignment{Reads: []string{"a"}}, s.clock())
	s.later(time.Second)
	if g := d.look(s.clock()); len(g.reads) != 0 || g.again <= time.Second || g.again > resendRead {
		t.Errorf("%+v", g)
	}
	d.greeted("another session", 1, api.Hello{}, s.clock())
	if g := d.look(s.clock()); len(g.reads) != 1 {
		t.Errorf("%+v", g)
	}
	d.want([]string{"a"}, s.clock(), s.clock().Add(time.Second)) // somebody with less patience
	s.later(30 * time.Second)
	if g := d.look(s.clock()); len(g.reads) != 1 {
		t.Errorf("the first asker is forgotten: %+v", g)
	}
}

// TestAPollWakesForALostRead waits in real time for the read to be due again.
func TestAPollWakesForALostRead(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	d := s.c.sessions.of("r1")
	d.want([]string{"a"}, s.clock(), s.clock().Add(time.Minute))
	d.sentWishes(&api.Assignment{Reads: []string{"a"}}, s.clock().Add(50*time.Millisecond-resendRead))
	got := r.pollBehind(20 * time.Second)
	s.later(time.Second)
	select {
	case g := <-got:
		if !slices.Equal(g.Reads, []string{"a"}) {
			t.Errorf("%+v", g)
		}
	case <-time.After(5 * time.Second):
		t.Error("the poll sleeps on")
	}
}

func TestAStatusCanBeConfirmedAfterwards(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	s.status(power.StatusReady, "a")
	if g := r.poll(); g.Nodes[0].Confirmed {
		t.Fatalf("%+v", g)
	}
	confirm := api.SetStatus{Names: []string{"a"}, Status: power.StatusReady, Confirmed: true, AskedBy: "boss"}
	for _, want := range []int{1, 0} {
		if out, err := s.SetStatus(t.Context(), confirm); err != nil || out.Changed != want {
			t.Errorf("%+v, %v", out, err)
		}
	}
	if g := r.poll(); len(g.Nodes) != 1 || !g.Nodes[0].Confirmed {
		t.Errorf("%+v", g)
	}
	s.status(power.StatusReady, "a")
	if g := r.poll(); len(g.Nodes) != 0 {
		t.Errorf("a confirmation was taken back: %+v", g)
	}
}

// TestReportsAloneDoNotMakeAnAgentAlive: without a poll no request reaches it.
func TestReportsAloneDoNotMakeAnAgentAlive(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	s.later(15 * time.Second)
	r.mustReport()
	a := s.agent("r1")
	if a.State != "away" || a.SeenAt == nil || !a.SeenAt.Equal(s.clock()) {
		t.Errorf("%+v", a)
	}
	if o := s.ask("a", power.ActOn); !strings.Contains(o.Message, "away since") {
		t.Errorf("%q", o.Message)
	}
	r.poll()
	if a := s.agent("r1"); a.State != "alive" {
		t.Errorf("%+v", a)
	}
}

// TestWhatDidNotArriveIsTakenBack loses the answer that carried operations, and
// has the agent come back with its journal as it was.
func TestWhatDidNotArriveIsTakenBack(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c", "d")
	r := s.rack("r1")
	before, after, due, arrived := s.ask("a", power.ActOff), s.ask("b", power.ActOff), s.ask("c", power.ActOff), s.ask("d", power.ActOff)
	if g, err := s.Poll(t.Context(), "r1", r.request(0)); err != nil || len(g.Ops) != 4 {
		t.Fatalf("%+v, %v", g, err)
	}
	cancel := func(id string) api.Op {
		t.Helper()
		o, err := s.CancelOp(t.Context(), id, api.CancelOp{AskedBy: "boss", Reason: "no"})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := cancel(before.ID); o.Outcome != "" {
		t.Errorf("central ended what may have arrived: %+v", o)
	}
	cancel(arrived.ID)
	r.epoch++
	r.mustHello(arrived.ID)
	if o := s.op(before.ID); o.Outcome != power.Cancelled || !strings.Contains(o.Detail, "boss") {
		t.Errorf("cancelled before: %+v", o)
	}
	if o := cancel(after.ID); o.Outcome != power.Cancelled {
		t.Errorf("cancelled after: %+v", o)
	}
	if o := s.op(arrived.ID); o.Outcome != "" {
		t.Errorf("the agent knows it: %+v", o)
	}
	s.later(time.Hour)
	s.c.expire(context.Background())
	if o := s.op(due.ID); o.Outcome != power.Expired {
		t.Errorf("%+v", o)
	}
	if g := r.poll(); len(g.Ops) != 1 || len(g.Cancels) != 1 || g.Ops[0].ID != arrived.ID {
		t.Errorf("%s, %+v", ids(g.Ops), g.Cancels)
	}
	if auditLog := s.auditLog(before.ID); !slices.Equal(auditLog, []string{"asked", "cancel", "ended"}) || s.agent("r1").Alarm != "" {
		t.Errorf("audit log %v", auditLog)
	}
}

// TestFollowingInSmallStepsMissesNothing asks for one change at a time.
func TestFollowingInSmallStepsMissesNothing(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	first := s.ask("a", power.ActOn)
	for range 3 {
		s.ask("b", power.ActOn)
	}
	seen, rev := 0, first.Rev
	for range 3 {
		found, err := s.QueryOps(t.Context(), api.QueryOps{AfterRev: rev, Limit: 1, Wait: time.Second})
		if err != nil || len(found.Ops) != 1 || found.Rev <= rev {
			t.Fatalf("%+v, %v", found, err)
		}
		seen, rev = seen+1, found.Rev
	}
	if none, err := s.QueryOps(t.Context(), api.QueryOps{AfterRev: rev, Limit: 1}); err != nil || len(none.Ops) != 0 || seen != 3 {
		t.Errorf("%+v, %v", none, err)
	}
}

// TestAnAgentOfAnotherTimeIsAway has central's clock set back while it does not run:
// that an agent was heard in what is the future now is no sign of life.
func TestAnAgentOfAnotherTimeIsAway(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.later(6 * time.Hour)
	r := s.rack("r1")
	r.poll()
	r.read(api.NodeReading{Node: "a", Reading: power.Seen(power.On, s.clock())})
	s.later(-6 * time.Hour)
	s.restart()
	s.later(time.Minute)
	if a := s.agent("r1"); a.State != "away" || a.SeenAt.After(s.clock()) {
		t.Errorf("%s, seen %s (now %s)", a.State, a.SeenAt, s.clock())
	}
	if n := s.node("a"); !n.Stale {
		t.Errorf("fresh: %+v", n)
	}
	s.restart()
	s.later(time.Minute)
	if a := s.agent("r1"); a.State != "away" {
		t.Errorf("%+v", a)
	}
}

// TestAReadingOfAnotherTimeIsNotFresh has central's clock set back, and a node that
// cannot be read since.
func TestAReadingOfAnotherTimeIsNotFresh(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusDeployed, "a")
	r := s.rack("r1")
	s.later(6 * time.Hour)
	r.poll()
	r.read(api.NodeReading{Node: "a", Reading: power.Seen(power.Off, s.clock())})
	if n := s.node("a"); n.Stale || !n.Drift {
		t.Fatalf("%+v", n)
	}
	s.later(-6 * time.Hour)
	r.poll()
	if n := s.node("a"); !n.Stale || n.Drift {
		t.Errorf("it was read in the future, and is fresh: %+v", n)
	}
	s.c.explainWait = 50 * time.Millisecond
	if e, err := s.Explain(t.Context(), "a"); err != nil || strings.Contains(e.Message, "0 s ago;") {
		t.Errorf("%s, %v", e.Message, err)
	}
	began := time.Now()
	if _, err := s.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"a"}, Wait: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if time.Since(began) < 300*time.Millisecond {
		t.Error("it counts as read just now")
	}
}

// TestStrangersLeaveNothingBehind has reports and polls of agents that are none.
func TestStrangersLeaveNothingBehind(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"r1", strings.Repeat("x", 5000), "all"} {
		_, err := s.Report(t.Context(), name, api.Report{Session: "s", JournalID: "j"})
		wantCode(t, err, api.CodeHello)
		_, err = s.Poll(t.Context(), name, api.Poll{Session: "s"})
		wantCode(t, err, api.CodeHello)
	}
	if n := len(s.c.sessions.m); n != 0 {
		t.Errorf("%d sessions were made for nobody", n)
	}
}

// TestNothingEndsInTheFuture has a rack's clock run ahead.
func TestNothingEndsInTheFuture(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := r.deliver("a", power.ActOn)
	report := r.ended(op, power.Succeeded)
	report.StartedAt, report.End.At = s.clock().Add(time.Hour), s.clock().Add(time.Hour)
	r.mustReport(report)
	if o := s.op(op.ID); o.EndedAt.After(s.clock()) || o.StartedAt.After(s.clock()) {
		t.Errorf("started %s, ended %s (now %s)", o.StartedAt, o.EndedAt, s.clock())
	}
}
