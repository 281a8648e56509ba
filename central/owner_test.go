package central

import (
	"context"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// other is a node of rack r2.
func (s *site) other(name string) {
	s.t.Helper()
	spec := api.NodeSpec{Name: name, Rack: "r2", BMC: "ipmi://admin@192.0.2.2", Password: "pw"}
	if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: []api.NodeSpec{spec}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) disowned() (found []api.AuditEntry) {
	s.t.Helper()
	all, err := s.Audit(context.Background(), "", 10000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		if e.What == auditDisowned {
			found = append(found, e)
		}
	}
	return found
}

// TestAnIDOfAnotherNode: what an agent says of an operation that central has for
// another node, or with another action, does not become that one's outcome.
func TestAnIDOfAnotherNode(t *testing.T) {
	s := newSite(t)
	s.nodes("n0", "n1")
	r := s.rack("r1")
	r.poll()
	for what, change := range map[string]func(*power.Op){
		"node":   func(o *power.Op) { o.Node = "n0" },
		"action": func(o *power.Op) { o.Action = power.ActOff },
		"boot":   func(o *power.Op) { o.Boot = power.BootDisk },
	} {
		mine := r.deliver("n1", power.ActOn)
		theirs := mine
		theirs.Origin = power.FromLocal
		change(&theirs)
		r.mustReport(r.running(theirs), r.ended(theirs, power.Succeeded))
		if o := s.op(mine.ID); o.Outcome != "" || o.Phase != api.PhaseTaken {
			t.Errorf("%s: %+v", what, o)
		}
		joins := power.Op{ID: newID(), Node: "n0", Action: power.ActOn, Seq: mine.Seq + 1, Origin: power.FromLocal, AskedAt: s.clock()}
		r.mustReport(r.joined(joins, mine.ID))
		refused := r.ended(mine, power.Refused)
		refused.Verdict, refused.End.Detail = power.VerdictRefuse, "its id is another operation's"
		r.mustReport(refused)
		if o := s.op(mine.ID); o.Outcome != power.Refused || o.Detail == "" {
			t.Errorf("%s: %+v", what, o)
		}
		if o := s.op(joins.ID); o.Outcome != "" {
			t.Errorf("%s: who joined the other one shares the outcome: %+v", what, o)
		}
	}
	if got := s.disowned(); len(got) != 6 || got[1].Outcome != string(power.Succeeded) {
		t.Errorf("%+v", got)
	}
	if n := s.agent("r1").ForeignReports; n != 6 {
		t.Errorf("%d counted", n)
	}
}

// TestAnIDTwiceInOneRequest is refused, really and as a dry run.
func TestAnIDTwiceInOneRequest(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	id := newID()
	two := []api.OpRequest{{ID: id, Node: "a", Action: power.ActOn}, {ID: id, Node: "b", Action: power.ActOn}}
	for _, dry := range []bool{true, false} {
		_, err := s.AskOps(t.Context(), api.AskOps{Ops: two, DryRun: dry})
		wantCode(t, err, api.CodeBadRequest)
	}
	if found, err := s.QueryOps(t.Context(), api.QueryOps{}); err != nil || len(found.Ops) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := s.AskOps(t.Context(), api.AskOps{Ops: two[:1]}); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		_, err := s.AskOps(t.Context(), api.AskOps{Ops: two[1:], DryRun: dry})
		wantCode(t, err, api.CodeBadRequest)
		if !strings.Contains(err.Error(), "node a") {
			t.Error(err)
		}
	}
}

// TestWhatAnAgentTellsOfOthers: a reading, a hold, an operation or a brake of a node
// that is not the agent's changes nothing; it is counted, and told a few times a minute.
func TestWhatAnAgentTellsOfOthers(t *testing.T) {
	s := newSite(t)
	s.nodes("mine")
	s.other("theirs")
	r, two := s.rack("r1"), s.rack("r2")
	r.poll()
	two.poll()
	op := two.deliver("theirs", power.ActOff)
	r.mustReport(r.ended(op, power.Succeeded))
	if o := s.op(op.ID); o.Outcome != "" {
		t.Errorf("%+v", o)
	}
	tell := func() {
		t.Helper()
		seq := s.c.store.Seq(s.clock())
		_, err := s.Report(t.Context(), "r1", api.Report{
			Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn, SentAt: s.clock(),
			Ops: []api.OpReport{
				r.ended(power.Op{ID: newID(), Node: "theirs", Action: power.ActOff, Seq: seq, Origin: power.FromLocal}, power.Succeeded),
				r.ended(power.Op{ID: newID(), Node: "ghost", Action: power.ActOff, Seq: seq, Origin: power.FromLocal}, power.Succeeded),
			},
			Readings: []api.NodeReading{{Node: "theirs", Reading: power.Reading{
				State: power.On, Reach: power.ReachOK, ObservedAt: s.clock(),
				TriedAt: s.clock(),
			}}},
			Holds: []api.NodeHold{{Node: "theirs", Hold: power.Hold{Want: power.WantOff, By: "x", Reason: "x", Seq: seq}}},
			Rack:  &api.RackState{Brake: &api.Brake{ID: newID(), Nodes: []string{"mine", "theirs"}, Total: 2}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tell()
	if n := s.node("theirs"); n.State != power.Unknown || n.Hold != nil || n.Op == nil || n.Op.ID != op.ID {
		t.Errorf("%+v", n)
	}
	if found, err := s.QueryOps(t.Context(), api.QueryOps{Nodes: []string{"theirs", "ghost"}}); err != nil || len(found.Ops) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	brakes, err := s.Brakes(t.Context())
	if err != nil || len(brakes) != 1 || len(brakes[0].Brake.Nodes) != 1 {
		t.Errorf("%+v, %v", brakes, err)
	}
	for range 20 {
		tell()
	}
	if n := s.agent("r1").ForeignReports; n < 50 {
		t.Errorf("%d counted", n)
	}
	if got := s.disowned(); len(got) != disownedShown {
		t.Errorf("%d entries", len(got))
	}
	s.later(2 * time.Minute)
	tell()
	if got := s.disowned(); len(got) <= disownedShown {
		t.Errorf("%d entries", len(got))
	}
}

// TestReportsThatMakeNoSense are noted and change nothing, and the rest of the report counts.
func TestReportsThatMakeNoSense(t *testing.T) {
	s := newSite(t)
	s.nodes("n0", "n1")
	r := s.rack("r1")
	r.poll()
	bad, good := r.deliver("n0", power.ActOn), r.deliver("n1", power.ActOn)
	noEnd, noOutcome, taken := r.ended(bad, power.Succeeded), r.ended(bad, power.Succeeded), r.running(bad)
	noEnd.End = nil
	noOutcome.End = &power.End{At: s.clock()}
	taken.Phase = api.PhaseTaken
	r.mustReport(noEnd, noOutcome, taken, r.ended(good, power.Succeeded))
	if o := s.op(bad.ID); o.Outcome != "" || o.Phase != api.PhaseTaken {
		t.Errorf("%+v", o)
	}
	if o := s.op(good.ID); o.Outcome != power.Succeeded {
		t.Errorf("%+v", o)
	}
	if got := s.disowned(); len(got) != 3 {
		t.Errorf("%+v", got)
	}
}
