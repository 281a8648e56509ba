package central

import (
	"context"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestAnAgentIsForgotten forgets one that was never there, and one that is gone: what they
// had ends truthfully, their nodes are free, and one that comes back has none of them.
func TestAnAgentIsForgotten(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	s.nodes("a", "b")
	r := s.rack("r1")
	if _, err := s.ForgetAgent(ctx, "r1", api.ForgetAgent{Reason: "x"}); api.CodeOf(err) != api.CodeRefused {
		t.Fatalf("an agent that is alive: %v", err)
	}
	added, err := s.AddNodes(ctx, api.AddNodes{Nodes: []api.NodeSpec{{Name: "c", Rack: "r9", BMC: "ipmi://h9"}}})
	if err != nil || len(added.Notes) != 1 || !strings.Contains(added.Notes[0], "no agent of rack r9 was ever seen") {
		t.Fatalf("a rack whose agent nobody saw: %+v, %v", added, err)
	}
	never := s.ask("c", power.ActOn)
	had := s.ask("a", power.ActOff)
	r.poll()
	s.later(10 * 60e9)
	later := s.ask("b", power.ActOff)
	for name, want := range map[string]api.ForgottenAgent{
		"r9": {Ended: 1, Nodes: []string{"c"}},
		"r1": {Ended: 2, Nodes: []string{"a", "b"}},
	} {
		if _, err := s.ForgetAgent(ctx, name, api.ForgetAgent{}); api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("without a reason: %v", err)
		}
		got, err := s.ForgetAgent(ctx, name, api.ForgetAgent{Reason: "gone", AskedBy: "ann"})
		if err != nil || got.Ended != want.Ended || len(got.Nodes) != len(want.Nodes) {
			t.Fatalf("forget %s: %+v, %v", name, got, err)
		}
	}
	if all, err := s.Agents(ctx); err != nil || len(all) != 0 {
		t.Errorf("agents left: %+v, %v", all, err)
	}
	for id, want := range map[string]power.Outcome{never.ID: power.Cancelled, had.ID: power.Indeterminate, later.ID: power.Cancelled} {
		if got := s.op(id); got.Outcome != want {
			t.Errorf("%s of %s ended %s (%s), want %s", got.Action, got.Node, got.Outcome, got.Detail, want)
		}
	}
	if n := s.node("a"); n.Agent != "" || n.Rack != "r1" {
		t.Errorf("node a: agent %q, rack %q", n.Agent, n.Rack)
	}
	if got := s.ask("a", power.ActOn); got.Outcome != power.Refused || got.Why != power.ReasonNoNode {
		t.Errorf("asked of a node without an agent: %+v", got)
	}
	if err := r.report(); api.CodeOf(err) != api.CodeHello {
		t.Errorf("a report of the session before: %v", err)
	}
	r.mustHello()
	r.central, r.rev = r.w.Database, 1
	if a := r.poll(); len(a.Nodes) > 0 || len(a.Ops) > 0 || !a.Full && len(a.Removed) != 2 {
		t.Errorf("one that comes back is told %+v", a)
	}
	if _, err := s.ForgetAgent(ctx, "none", api.ForgetAgent{Reason: "x"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("an agent that nobody knows: %v", err)
	}
}

// TestForgettingWaitsForNobody: to forget an agent is to take it for dead. What it was to
// let go of, and what it had, is the next agent's at once; when it comes back, it is told
// so, and what it may have done meanwhile is in the audit log.
func TestForgettingWaitsForNobody(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	one, two := s.rack("r1"), s.rack("r2")
	one.pollAs()
	s.move("a", "r2", false)
	if g := two.pollAs(); hasNode(g, "a") {
		t.Fatalf("r1 has not let go of a: %+v", g)
	}
	s.later(10 * time.Minute)
	two.mustHello()
	if _, err := s.ForgetAgent(context.Background(), "r1", api.ForgetAgent{Reason: "burnt", AskedBy: "boss"}); err != nil {
		t.Fatal(err)
	}
	if out := s.move("b", "r2", false); len(out.Notes) != 0 {
		t.Errorf("%+v", out)
	}
	two.rev = 0
	if g := two.pollAs(); !hasNode(g, "a") || !hasNode(g, "b") {
		t.Fatalf("r2 has %+v", g)
	}
	s.restart()
	one.mustHello()
	g := one.pollAs()
	forced := map[string]bool{}
	for _, f := range g.Forced {
		forced[f.Node] = strings.Contains(f.By, "boss at ")
	}
	if len(g.Nodes) > 0 || !forced["a"] || !forced["b"] {
		t.Fatalf("the one that comes back is told %+v", g)
	}
	one.pollAs()
	for _, node := range []string{"a", "b"} {
		if lines := s.entries(node, auditLetGo); len(lines) != 1 || !strings.Contains(lines[0], "only now") {
			t.Errorf("%s: %q", node, lines)
		}
	}
}
