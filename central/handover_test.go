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

// move moves a node, and returns what is said about it.
func (s *site) move(node, to string, force bool) api.AddedNodes {
	s.t.Helper()
	out, err := s.AddNodes(context.Background(), api.AddNodes{
		Nodes: []api.NodeSpec{{Name: node, Rack: to}}, Update: true, Force: force,
		AskedBy: "boss",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// pollAs polls with what the agent acts by, and holds back.
func (r *rack) pollAs(holdsBack ...string) api.Assignment {
	r.s.t.Helper()
	p := r.request(0)
	p.AppliedRev, p.Unreleased = r.rev, holdsBack
	a, err := r.s.Poll(context.Background(), r.name, p)
	if err != nil {
		r.s.t.Fatal(err)
	}
	r.took(a)
	return a
}

func hasNode(a api.Assignment, name string) bool {
	return slices.ContainsFunc(a.Nodes, func(n api.AssignedNode) bool { return n.Name == name })
}

// TestAMovedNodeWaitsForItsOldAgent: the new agent gets the node, and what was asked for
// meanwhile, when the old one acts without it and has nothing under way there.
func TestAMovedNodeWaitsForItsOldAgent(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	two.pollAs()
	s.later(3 * time.Minute) // r1 is away
	two.pollAs()
	if out := s.move("a", "r2", false); out.Changed != 1 || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "agent r1 is away since") {
		t.Errorf("%+v", out)
	}
	op := s.ask("a", power.ActOn)
	if !strings.Contains(op.Message, "r1") || !strings.Contains(op.AgentNote, "r1") {
		t.Errorf("%+v", op)
	}
	if n := s.node("a"); n.Rack != "r2" || n.Waits != power.ReasonMoving || !strings.Contains(n.WaitsMessage, "agent r1 is away since") {
		t.Errorf("%+v", n)
	}
	for range 2 {
		if g := two.pollAs(); hasNode(g, "a") || len(g.Ops) != 0 {
			t.Fatalf("r2 has it: %+v", g)
		}
		s.restart()
	}
	two.central.CentralID = "other" // it starts anew: everything is sent
	if g := two.pollAs(); !g.Full || hasNode(g, "a") || len(g.Ops) != 0 {
		t.Fatalf("r2 has it: %+v", g)
	}
	if g := one.pollAs(); !slices.Equal(g.Removed, []string{"a"}) {
		t.Fatalf("%+v", g)
	}
	one.pollAs("a") // something is under way
	if g := two.pollAs(); hasNode(g, "a") {
		t.Fatalf("r2 has it: %+v", g)
	}
	got := two.pollBehind(time.Minute)
	one.pollAs()
	g := <-got
	if g.err != nil || !hasNode(g.Assignment, "a") || ids(g.Ops) != " "+op.ID {
		t.Fatalf("%+v", g)
	}
	if n := s.node("a"); n.Waits != "" {
		t.Errorf("%+v", n)
	}
	if lines := s.entries("a", auditLetGo); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
}

// TestAReportTellsThatANodeWasLetGo: its end comes with a report, before the next poll.
func TestAReportTellsThatANodeWasLetGo(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	s.move("a", "r2", false)
	one.pollAs()
	one.pollAs("a")
	for _, in := range []api.Report{{Unreleased: []string{"a"}, Rev: one.rev}, {Rev: 0}, {Rev: one.rev - 1}} {
		in.Session, in.JournalID, in.SentAt = one.w.Session, one.journal, s.clock()
		if _, err := s.Report(t.Context(), "r1", in); err != nil {
			t.Fatal(err)
		}
		if g := two.pollAs(); hasNode(g, "a") {
			t.Fatalf("%+v let it go", in)
		}
	}
	if _, err := s.Report(t.Context(), "r1", api.Report{
		Session: one.w.Session, JournalID: one.journal, Rev: one.rev,
		SentAt: s.clock(),
	}); err != nil {
		t.Fatal(err)
	}
	if g := two.pollAs(); !hasNode(g, "a") {
		t.Errorf("%+v", g)
	}
}

// TestWhoseNodeItIsWaitsByNameAndByBMC: whichever way a node, or a BMC, comes to another
// agent, the one before has to let go first.
func TestWhoseNodeItIsWaitsByNameAndByBMC(t *testing.T) {
	add := func(s *site, update bool, specs ...api.NodeSpec) {
		s.t.Helper()
		if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: specs, Update: update}); err != nil {
			s.t.Fatal(err)
		}
	}
	remove := func(s *site, name string) {
		s.t.Helper()
		if _, err := s.RemoveNodes(context.Background(), api.RemoveNodes{Names: []string{name}, Confirmed: true}); err != nil {
			s.t.Fatal(err)
		}
	}
	const bmc, other = "ipmi://admin@192.0.2.7", "ipmi://admin@192.0.2.8"
	for what, c := range map[string]struct {
		node string
		do   func(s *site)
		free bool
	}{
		"moved": {"n", func(s *site) { s.move("n", "r2", false) }, false},
		"removed and added": {"n", func(s *site) {
			remove(s, "n")
			add(s, false, api.NodeSpec{Name: "n", Rack: "r2", BMC: other})
		}, false},
		"its BMC, another name": {"m", func(s *site) {
			remove(s, "n")
			add(s, false, api.NodeSpec{Name: "m", Rack: "r2", BMC: bmc})
		}, false},
		"its BMC, which it gave up": {"m", func(s *site) {
			add(s, true, api.NodeSpec{Name: "n", BMC: other})
			add(s, false, api.NodeSpec{Name: "m", Rack: "r2", BMC: bmc})
		}, false},
		"its BMC by another protocol": {"m", func(s *site) {
			remove(s, "n")
			add(s, false, api.NodeSpec{Name: "m", Rack: "r2", BMC: "redfish://admin@192.0.2.7/System_0"})
		}, false},
		"its BMC by no protocol yet": {"m", func(s *site) {
			remove(s, "n")
			add(s, false, api.NodeSpec{Name: "m", Rack: "r2", BMC: "auto://admin@192.0.2.7"})
		}, false},
		"another part of its BMC": {"m", func(s *site) {
			remove(s, "n")
			add(s, false, api.NodeSpec{Name: "m", Rack: "r2", BMC: bmc + "?target=0x30"})
		}, true},
		"to and fro": {"n", func(s *site) {
			s.move("n", "r2", false)
			s.move("n", "r1", false)
			s.move("n", "r2", false)
		}, false},
		"over a third": {"n", func(s *site) {
			s.move("n", "r3", false)
			s.move("n", "r2", false)
		}, false},
		"another name, another BMC": {"m", func(s *site) {
			remove(s, "n")
			add(s, false, api.NodeSpec{Name: "m", Rack: "r2", BMC: other})
		}, true},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			add(s, false, api.NodeSpec{Name: "n", Rack: "r1", BMC: bmc})
			one, two := s.rack("r1"), s.rack("r2")
			one.pollAs()
			two.pollAs()
			c.do(s)
			if g := two.pollAs(); hasNode(g, c.node) != c.free {
				t.Fatalf("%+v", g)
			}
			s.restart()
			one.pollAs()
			one.pollAs()
			two.central.CentralID = "other"
			if g := two.pollAs(); !hasNode(g, c.node) {
				t.Fatalf("it is nobody's: %+v", g)
			}
		})
	}
}

// TestANodeComesBackToTheAgentThatHasIt at once: it never let go.
func TestANodeComesBackToTheAgentThatHasIt(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	two.pollAs()
	s.move("a", "r2", false)
	s.move("a", "r1", false)
	two.pollAs()
	two.pollAs()
	if g := one.pollAs(); !hasNode(g, "a") || len(g.Removed) != 0 {
		t.Errorf("%+v", g)
	}
}

// TestADeadAgentIsNotWaitedFor when a person says so; it is told when it comes back, and
// the audit log says so too. What it had under way is indeterminate, the rest goes along.
func TestADeadAgentIsNotWaitedFor(t *testing.T) {
	for _, late := range []bool{false, true} { // force at once, or when one waits already
		s := newSite(t)
		s.nodes("a")
		one, two := s.rack("r1"), s.rack("r2")
		one.pollAs()
		had := power.Op{}
		if late {
			s.move("a", "r2", false)
			two.pollAs()
		} else {
			had = one.deliver("a", power.ActOff)
			one.mustReport(one.running(had))
		}
		waits := s.ask("a", power.ActOn)
		if out := s.move("a", "r2", true); out.Changed != 1 || len(out.Notes) != 0 {
			t.Errorf("%+v", out)
		}
		if had.ID != "" {
			if o := s.op(had.ID); o.Outcome != power.Indeterminate || !strings.Contains(o.Detail, "boss") {
				t.Errorf("%+v", o)
			}
		}
		if g := two.pollAs(); !hasNode(g, "a") || ids(g.Ops) != " "+waits.ID {
			t.Fatalf("late %t: %+v", late, g)
		}
		if out := s.move("a", "r2", true); out.Changed != 0 {
			t.Errorf("%+v", out)
		}
		g := one.pollAs()
		if !slices.Equal(g.Removed, []string{"a"}) || len(g.Forced) != 1 || !strings.Contains(g.Forced[0].By, "boss at ") {
			t.Errorf("%+v", g)
		}
		one.pollAs()
		if lines := s.entries("a", auditLetGo, auditForce); len(lines) != 2 || !strings.Contains(lines[1], "only now") {
			t.Errorf("%q", lines)
		}
	}
}

// TestAnAgentThatWasNeverThereIsNotWaitedFor: a typing mistake in --rack.
func TestAnAgentThatWasNeverThereIsNotWaitedFor(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	two := s.rack("r2")
	s.move("a", "r2", false)
	if g := two.pollAs(); !hasNode(g, "a") {
		t.Errorf("%+v", g)
	}
}

// TestOneThatDoesNotFollowLetsNothingGo: an agent that does not trust this central polls
// it, and goes on with its nodes.
func TestOneThatDoesNotFollowLetsNothingGo(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	s.move("a", "r2", false)
	one.poll()
	one.poll() // it names the revision, and does not act by it
	if g := two.pollAs(); hasNode(g, "a") {
		t.Errorf("%+v", g)
	}
}

// TestAConfirmedMoveIsToldToTheAgent as a confirmed removal is, be it most that the agent
// has; one that no person confirmed is not.
func TestAConfirmedMoveIsToldToTheAgent(t *testing.T) {
	for what, c := range map[string]struct {
		in   api.AddNodes
		want bool
	}{
		"nobody":    {api.AddNodes{}, false},
		"the moves": {api.AddNodes{MovesConfirmed: true}, true},
		"all of it": {api.AddNodes{Confirmed: true}, true},
		"force":     {api.AddNodes{Force: true}, true},
	} {
		s := newSite(t)
		s.nodes("a", "b")
		one := s.rack("r1")
		one.poll()
		c.in.Update, c.in.Nodes = true, []api.NodeSpec{{Name: "a", Rack: "r2"}, {Name: "b", Rack: "r2"}}
		if _, err := s.AddNodes(context.Background(), c.in); err != nil {
			t.Fatal(err)
		}
		g := one.poll()
		if len(g.Removed) != 2 || slices.Equal(g.Confirmed, g.Removed) != c.want {
			t.Errorf("%s: %v, of which %v are confirmed", what, g.Removed, g.Confirmed)
		}
	}
}

// TestAForcedNodeThatComesBackIsLetGoFirst: the agent that it was taken from, and to which
// it is moved back, goes on with it until it hears of the force. It is told to let go while
// the other one has the node.
func TestAForcedNodeThatComesBackIsLetGoFirst(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	two.pollAs()
	s.move("a", "r2", true)
	if g := two.pollAs(); !hasNode(g, "a") {
		t.Fatalf("%+v", g)
	}
	s.move("a", "r1", false) // r2 is cut off by now
	if g := one.pollAs(); hasNode(g, "a") || !slices.Contains(g.Removed, "a") || !slices.Contains(g.Confirmed, "a") {
		t.Errorf("while r2 has it: %+v", g)
	}
	two.pollAs()
	two.pollAs()
	if g := one.pollAs(); !hasNode(g, "a") || len(g.Removed) != 0 {
		t.Errorf("once r2 has let go: %+v", g)
	}
}

// TestANodeThatNeverWentStays: the agent that has it keeps it when the move is taken back,
// although the other one, which never had it, is cut off.
func TestANodeThatNeverWentStays(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	two.pollAs()
	s.move("a", "r2", false)
	s.move("a", "r1", false)
	if g := one.pollAs(); !hasNode(g, "a") || len(g.Removed) != 0 {
		t.Errorf("%+v", g)
	}
}

// TestARequestIsDeliveredOnceItsNodeGetsItsBMCBack: the agent polled while the node waited for
// another BMC, and its request was passed over.
func TestARequestIsDeliveredOnceItsNodeGetsItsBMCBack(t *testing.T) {
	const first, second, third = "ipmi://admin@192.0.2.1", "ipmi://admin@192.0.2.2", "ipmi://admin@192.0.2.3"
	s := newSite(t)
	put := func(specs ...api.NodeSpec) {
		t.Helper()
		if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: specs, Update: true}); err != nil {
			t.Fatal(err)
		}
	}
	put(api.NodeSpec{Name: "a", Rack: "r1", BMC: first}, api.NodeSpec{Name: "b", Rack: "r2", BMC: second})
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	two.pollAs()
	put(api.NodeSpec{Name: "a", BMC: third})
	put(api.NodeSpec{Name: "b", BMC: first}) // which r1 has to let go of
	op := s.ask("b", power.ActOn)
	if g := two.pollAs(); len(g.Ops) != 0 {
		t.Fatalf("it was delivered while the node waits: %+v", g)
	}
	put(api.NodeSpec{Name: "b", BMC: second})
	if g := two.pollAs(); !hasNode(g, "b") || len(g.Ops) != 1 || g.Ops[0].ID != op.ID {
		t.Errorf("%+v", g)
	}
}
