package central

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestPollTellsWhatChanged(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	first := r.poll()
	if !first.Full || len(first.Nodes) != 2 || first.Nodes[0].Password != "pw-a" || first.Nodes[0].Desired.Want != power.HandsOff ||
		first.Rev == 0 {
		t.Fatalf("%+v", first)
	}
	if none := r.poll(); none.Full || len(none.Nodes) != 0 || none.Rev != first.Rev {
		t.Errorf("%+v", none)
	}
	got := r.pollBehind(time.Minute)
	s.status(power.StatusReady, "b")
	g := <-got
	if g.Full || len(g.Nodes) != 1 || g.Nodes[0].Name != "b" || g.Nodes[0].Desired.Want != power.WantOff || g.Rev <= first.Rev {
		t.Fatalf("%+v", g)
	}
	r.took(g.Assignment)
	rev := s.agent("r1").Rev
	s.status(power.StatusReady, "b")
	if s.agent("r1").Rev != rev {
		t.Error("nothing changed, and the revision was raised")
	}
	if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if g := r.poll(); !slices.Equal(g.Removed, []string{"a"}) || len(g.Nodes) != 0 || g.Full {
		t.Errorf("%+v", g)
	}
	s.nodes("a")
	if g := r.poll(); len(g.Removed) != 0 || len(g.Nodes) != 1 {
		t.Errorf("%+v", g)
	}
	for what, change := range map[string]func(*api.Poll){
		"another central": func(p *api.Poll) { p.CentralID = "other" },
		"nothing yet":     func(p *api.Poll) { p.Rev = 0 },
		"a revision that is not": func(p *api.Poll) {
			p.Rev += 100
		},
	} {
		p := r.request(0)
		change(&p)
		if g, err := s.Poll(t.Context(), "r1", p); err != nil || !g.Full || len(g.Nodes) != 2 {
			t.Errorf("%s: %+v, %v", what, g, err)
		}
	}
}

func TestAnEmptyAssignmentIsNotSentForEver(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	if g := r.poll(); !g.Full || g.Rev == 0 {
		t.Fatalf("%+v", g)
	}
	got := r.pollBehind(30 * time.Millisecond)
	if g := <-got; g.err != nil || g.Full {
		t.Errorf("%+v", g)
	}
}

func TestAMovedNodeLeavesItsOldAgent(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	one, two := s.rack("r1"), s.rack("r2")
	one.poll()
	two.poll()
	op := s.ask("a", power.ActOn)
	move := api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r2"}}, Update: true}
	_, err := s.AddNodes(t.Context(), move)
	wantCode(t, err, api.CodeBadRequest)
	if !strings.Contains(err.Error(), op.ID) {
		t.Errorf("%v", err)
	}
	if _, err := s.CancelOp(t.Context(), op.ID, api.CancelOp{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddNodes(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	if g := one.poll(); !slices.Equal(g.Removed, []string{"a"}) {
		t.Errorf("%+v", g)
	}
	one.pollAs()
	if g := two.poll(); len(g.Nodes) != 1 || g.Nodes[0].Password != "pw-a" || g.Nodes[0].BMC == "" {
		t.Errorf("%+v", g)
	}
}

func TestDeliveryIsInOrderAndUntilAccepted(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	r.poll()
	got := r.pollBehind(time.Minute)
	one := s.ask("a", power.ActOn)
	g := <-got
	if g.err != nil || len(g.Ops) != 1 || g.Ops[0].ID != one.ID || g.Ops[0].Seq != one.Seq || !g.Ops[0].Deadline.Equal(one.Deadline) {
		t.Fatalf("%+v", g)
	}
	two := s.ask("b", power.ActOff)
	// The first answer was lost on its way: the cursor has not moved.
	if g := r.poll(); ids(g.Ops) != " "+one.ID+" "+two.ID {
		t.Errorf("%s", ids(g.Ops))
	}
	if g := r.poll(); len(g.Ops) != 0 {
		t.Errorf("delivered twice within a run: %s", ids(g.Ops))
	}
	s.restart()
	if g := r.poll(); len(g.Ops) != 0 {
		t.Errorf("delivered twice because central was restarted: %s", ids(g.Ops))
	}
	r.mustReport(r.waiting(g.Ops[0]))
	r.cursor = 0 // another run
	if g := r.poll(); ids(g.Ops) != " "+two.ID {
		t.Errorf("%s", ids(g.Ops))
	}
}

func TestNodesComeBeforeTheirOperations(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	r.poll()
	s.nodes("new")
	s.ask("new", power.ActOn)
	if g := r.poll(); len(g.Ops) != 1 || len(g.Nodes) != 1 {
		t.Errorf("%+v", g)
	}
}

func TestSessions(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	_, err := s.Poll(t.Context(), "r9", api.Poll{Session: "x"})
	wantCode(t, err, api.CodeHello)
	r := s.rack("r1")
	op := r.deliver("a", power.ActOn)
	for _, session := range []string{"", "guess"} {
		_, err := s.Poll(t.Context(), "r1", api.Poll{Session: session})
		wantCode(t, err, api.CodeHello)
		_, err = s.Report(t.Context(), "r1", api.Report{Session: session, JournalID: r.journal})
		wantCode(t, err, api.CodeHello)
	}
	old := *r
	got := old.pollBehind(time.Minute)
	r.mustHello()
	if g := <-got; api.CodeOf(g.err) != api.CodeHello {
		t.Errorf("the poll of the session before ends with %v", g.err)
	}
	wantCode(t, old.report(old.running(op)), api.CodeHello)
	if o := s.op(op.ID); o.Phase != api.PhaseTaken {
		t.Errorf("a report of an old session counted: %+v", o)
	}
	s.restart()
	r.mustReport(r.running(op)) // the session survives a restart of central
	r.journal = "another"
	wantCode(t, r.report(), api.CodeHello)
}

func TestHelloWithTheSameJournalIsNoNews(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	running, ended, taken := r.deliver("a", power.ActOn), r.deliver("b", power.ActOn), s.ask("a", power.ActOff)
	r.mustReport(r.running(running), r.running(ended))
	r.epoch++
	r.next() // the end of the second one, not reported yet
	r.cursor = 0
	r.mustHello(running.ID, ended.ID)
	for _, id := range []string{running.ID, ended.ID} {
		if o := s.op(id); o.Outcome != "" || o.Phase != "running: reading" {
			t.Errorf("%+v", o)
		}
	}
	if g := r.poll(); ids(g.Ops) != " "+taken.ID {
		t.Errorf("%s", ids(g.Ops))
	}
	r.mustReport(r.ended(ended, power.Succeeded))
	if o := s.op(ended.ID); o.Outcome != power.Succeeded {
		t.Errorf("%+v", o)
	}
	if a := s.agent("r1"); a.Alarm != "" || a.Epoch != 2 || a.Version != "v1" || a.Address == "" {
		t.Errorf("%+v", a)
	}
}

func TestALostJournalIsNoticed(t *testing.T) {
	for name, lose := range map[string]func(*rack){
		"another journal":  func(r *rack) { r.journal, r.epoch, r.lsn = "fresh", 1, 1 },
		"records gone":     func(r *rack) { r.epoch, r.lsn = r.epoch+1, r.lsn-3 },
		"an older epoch":   func(r *rack) { r.epoch-- },
		"silently forgets": func(r *rack) { r.epoch++ },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a", "b", "c", "d", "e")
			r := s.rack("r1")
			r.epoch = 5
			r.mustHello()
			lost, kept := r.deliver("a", power.ActOn), r.deliver("b", power.ActOn)
			sent, sentOnce := r.deliver("c", power.ActOff), r.deliver("d", power.ActReset)
			done := r.deliver("e", power.ActOn)
			r.lsn += 20
			r.mustReport(r.running(lost), r.running(kept), r.ended(done, power.Succeeded))
			lose(r)
			r.cursor = 0
			r.mustHello(kept.ID)
			if o := s.op(lost.ID); o.Outcome != power.Indeterminate || o.Why != power.ReasonLost {
				t.Errorf("the lost one: %+v", o)
			}
			if o := s.op(kept.ID); o.Outcome != "" {
				t.Errorf("the one that the journal has: %+v", o)
			}
			if o := s.op(done.ID); o.Outcome != power.Succeeded {
				t.Errorf("the one that had ended: %+v", o)
			}
			again := ids(r.poll().Ops)
			wantAgain := " " + sent.ID
			if name == "silently forgets" { // nothing says that the journal is not whole
				wantAgain += " " + sentOnce.ID
			} else if o := s.op(sentOnce.ID); o.Outcome != power.Indeterminate {
				t.Errorf("a reset that may have been carried out: %+v", o)
			}
			if again != wantAgain {
				t.Errorf("delivered again:%s, want%s", again, wantAgain)
			}
			if len(r.w.Alarms) != 1 || s.agent("r1").Alarm != r.w.Alarms[0].Message || !r.w.Alarms[0].NeedsAck {
				t.Errorf("alarms %+v, shown %q", r.w.Alarms, s.agent("r1").Alarm)
			}
			entries, _ := s.Audit(t.Context(), "", 1000)
			if !slices.ContainsFunc(entries, func(e api.AuditEntry) bool { return e.What == "alarm" && e.Who == "agent r1" }) {
				t.Errorf("no alarm in %+v", entries)
			}
			// Reports on what is left count, although its records count anew.
			r.mustReport(r.running(kept))
			r.mustReport(r.ended(kept, power.Succeeded))
			if o := s.op(kept.ID); o.Outcome != power.Succeeded {
				t.Errorf("%+v", o)
			}
			r.mustReport(r.ended(lost, power.Succeeded))
			if o := s.op(lost.ID); o.Outcome != power.Succeeded || s.c.Contradictions() != 0 {
				t.Errorf("the agent knows it after all: %+v, %d", o, s.c.Contradictions())
			}
			r.mustReport(r.ended(lost, power.Failed))
			if o := s.op(lost.ID); o.Outcome != power.Succeeded || s.c.Contradictions() != 1 {
				t.Errorf("an end is final: %+v, %d", o, s.c.Contradictions())
			}
			r.epoch++
			r.mustHello()
			if len(r.w.Alarms) != 2 || !slices.ContainsFunc(r.w.Alarms, func(a api.Alarm) bool { return a.Kind == api.AlarmOutcomesDiffer }) {
				t.Errorf("a clean start ended alarms that nobody has seen: %+v", r.w.Alarms)
			}
			if _, err := s.AckAlarm(t.Context(), "r1", api.AckAlarm{Reason: "seen", AskedBy: "bob"}); err != nil {
				t.Fatal(err)
			}
			if a := s.agent("r1"); a.Alarm != "" || len(a.Alarms) != 0 {
				t.Errorf("acknowledged: %+v", a.Alarms)
			}
		})
	}
}

func TestAnotherJournalWithNothingOutstandingIsNoAlarm(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	r.journal, r.lsn = "fresh", 0
	r.mustHello()
	if len(r.w.Alarms) > 0 {
		t.Errorf("%+v", r.w.Alarms)
	}
}

func TestReportsAreAppliedOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := r.deliver("a", power.ActCycle)
	waiting, running, ended := r.waiting(op), r.running(op), r.ended(op, power.Succeeded)
	r.mustReport(waiting)
	o := s.op(op.ID)
	if o.Phase != api.PhaseWaiting || o.Verdict != power.VerdictFollow || o.Why != power.ReasonMore || o.Message != "waits" {
		t.Errorf("%+v", o)
	}
	rev := o.Rev
	r.mustReport(waiting)
	if s.op(op.ID).Rev != rev {
		t.Error("the same report raised the revision")
	}
	r.mustReport(running)
	r.mustReport(waiting)
	if o := s.op(op.ID); o.Phase != "running: reading" || o.StartedAt == nil {
		t.Errorf("it went back: %+v", o)
	}
	r.mustReport(ended)
	r.mustReport(running, waiting, ended)
	o = s.op(op.ID)
	if o.Outcome != power.Succeeded || o.Phase != api.PhaseEnded || o.Attempts != 1 || o.State != power.On || o.Why != power.ReasonVerified ||
		o.EndedAt == nil {
		t.Errorf("%+v", o)
	}
	if auditLog := s.auditLog(op.ID); !slices.Equal(auditLog, []string{"asked", "accepted", "started", "ended"}) {
		t.Errorf("audit log %v", auditLog)
	}
	other := r.ended(op, power.Failed)
	r.mustReport(other)
	if s.op(op.ID).Outcome != power.Succeeded || s.c.Contradictions() != 1 {
		t.Errorf("another end: %+v, %d", s.op(op.ID), s.c.Contradictions())
	}
}

func TestWhatEnteredAtTheRackIsKnown(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := power.Op{
		ID: newID(), Node: "a", Action: power.ActOff, Seq: s.c.store.Seq(s.clock()).Next(s.clock().Add(time.Hour)),
		AskedBy: "operator", Origin: power.FromLocal, AskedAt: s.clock(),
	}
	op = op.WithDefaults(s.clock())
	r.mustReport(r.ended(op, power.Succeeded))
	if o := s.op(op.ID); o.Origin != power.FromLocal || o.AskedBy != "operator" || o.Outcome != power.Succeeded || o.Seq != op.Seq ||
		o.Rack != "r1" {
		t.Errorf("%+v", o)
	}
	if next := s.ask("a", power.ActOn); next.Seq <= op.Seq {
		t.Errorf("what is asked later is numbered %d, before %d", next.Seq, op.Seq)
	}
	refused := power.Op{ID: newID(), Node: "a", Action: power.ActOn, AskedBy: "operator", Origin: power.FromLocal, AskedAt: s.clock()}
	r.mustReport(api.OpReport{
		Op: refused, LSN: 0, Verdict: power.VerdictRefuse, Reason: power.ReasonBusy, Message: "busy", Phase: api.PhaseEnded,
		End: &power.End{Outcome: power.Refused, Reason: power.ReasonBusy, At: s.clock()},
	})
	if auditLog := s.auditLog(refused.ID); !slices.Equal(auditLog, []string{"asked", "refused"}) {
		t.Errorf("audit log %v", auditLog)
	}
	// Its agent starts anew, is asked again with the same id, and accepts.
	refused.Seq = s.c.store.Seq(s.clock()).Next(s.clock())
	r.mustReport(r.waiting(refused), r.ended(refused, power.Succeeded))
	if o := s.op(refused.ID); o.Outcome != power.Succeeded || o.Seq != refused.Seq || o.Verdict == power.VerdictRefuse ||
		s.c.Contradictions() != 0 {
		t.Errorf("refused, then accepted: %+v", o)
	}
	if auditLog := s.auditLog(refused.ID); !slices.Equal(auditLog, []string{"asked", "refused", "accepted", "started", "ended"}) {
		t.Errorf("audit log %v", auditLog)
	}
	// Another agent has no say in it.
	two := s.rack("r2")
	mine := s.ask("a", power.ActOn)
	two.mustReport(two.ended(power.Op{ID: mine.ID, Node: "a", Action: power.ActOn}, power.Succeeded))
	if o := s.op(mine.ID); o.Outcome != "" {
		t.Errorf("%+v", o)
	}
}

func TestJoinedRequestsShareTheEnd(t *testing.T) {
	for name, order := range map[string]func(r *rack, joined, ended api.OpReport){
		"join first": func(r *rack, joined, ended api.OpReport) { r.mustReport(joined); r.mustReport(ended) },
		"end first":  func(r *rack, joined, ended api.OpReport) { r.mustReport(ended); r.mustReport(joined) },
		"together":   func(r *rack, joined, ended api.OpReport) { r.mustReport(ended, joined) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a")
			r := s.rack("r1")
			first, second := r.deliver("a", power.ActOn), r.deliver("a", power.ActOn)
			r.mustReport(r.running(first))
			order(r, r.joined(second, first.ID), r.ended(first, power.Failed))
			o := s.op(second.ID)
			if o.Joined != first.ID || o.Outcome != power.Failed || o.Detail != "as it was" || o.Verdict != power.VerdictJoin {
				t.Errorf("%+v", o)
			}
			own := r.ended(second, power.Failed)
			own.Joined = first.ID
			r.mustReport(own)
			if auditLog := s.auditLog(second.ID); !slices.Equal(auditLog, []string{"asked", "accepted", "ended"}) || s.c.Contradictions() != 0 {
				t.Errorf("audit log %v, %d contradictions", auditLog, s.c.Contradictions())
			}
		})
	}
}

// TestLostAnswersAreHarmless commits what a hello, a poll and a report ask, and
// loses the answers.
func TestLostAnswersAreHarmless(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	req := api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActReset}}}
	for range 2 {
		if _, err := s.AskOps(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	var got api.Assignment
	for range 2 {
		var err error
		if got, err = s.Poll(t.Context(), "r1", r.request(0)); err != nil || len(got.Ops) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	r.took(got)
	report := r.ended(got.Ops[0], power.Succeeded)
	for range 3 {
		r.mustReport(report)
		r.mustHello(got.Ops[0].ID)
		s.restart()
	}
	if auditLog := s.auditLog(report.Op.ID); !slices.Equal(auditLog, []string{"asked", "accepted", "started", "ended"}) {
		t.Errorf("audit log %v", auditLog)
	}
	if s.agent("r1").Alarm != "" || s.op(report.Op.ID).Outcome != power.Succeeded {
		t.Errorf("%+v", s.op(report.Op.ID))
	}
}

func TestARestoreOfCentralRepeatsNothing(t *testing.T) {
	onFiles(t)
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := r.deliver("a", power.ActOn)
	s.stop()
	restoreOnto(t, s.dir, func() {
		s.start()
		r.mustReport(r.ended(op, power.Succeeded))
		s.stop()
	})
	s.start()
	wantCode(t, r.report(), api.CodeHello)
	was := r.w.Database
	r.mustHello()
	if r.w.CentralID != was.CentralID || r.w.Incarnation <= was.Incarnation || len(r.w.Alarms) > 0 {
		t.Errorf("%+v", r.w)
	}
	g := r.poll()
	if !g.Full || ids(g.Ops) != " "+op.ID {
		t.Errorf("%+v", g)
	}
	// The agent has carried it out, and says so.
	r.mustReport(api.OpReport{
		Op: op, Verdict: power.VerdictRefuse, Reason: power.ReasonStale, Phase: api.PhaseEnded,
		End: &power.End{Outcome: power.Refused, Reason: power.ReasonStale, At: s.clock()},
	})
	if o := s.op(op.ID); o.Outcome != power.Refused {
		t.Errorf("%+v", o)
	}
}
