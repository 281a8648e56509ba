package central

import (
	"context"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func (s *site) consuming(in api.ReadConsumption) <-chan api.Consumption {
	got := make(chan api.Consumption, 1)
	go func() {
		all, err := s.Consumption(context.Background(), in)
		if err != nil {
			s.t.Error(err)
		}
		got <- all
	}()
	return got
}

func consumed(watts, limit int) *power.Consumption {
	return &power.Consumption{Watts: &watts, Limit: &power.Limit{Watts: limit, Active: limit > 0}}
}

// TestConsumptionGoesToTheAgentAndBack: it takes the way of a test, beside one of the same node,
// and is summed over racks and power domains.
func TestConsumptionGoesToTheAgentAndBack(t *testing.T) {
	s := newSite(t)
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{
		{Name: "a", Rack: "r1", BMC: "ipmi://admin@192.0.2.1", Domain: "feed-a"},
		{Name: "b", Rack: "r1", BMC: "ipmi://admin@192.0.2.2", Domain: "feed-b"},
		{Name: "c", Rack: "r1", BMC: "ipmi://admin@192.0.2.3", Domain: "feed-a"},
		{Name: "d", Rack: "r1"},
		{Name: "e", Rack: "r2", BMC: "ipmi://admin@192.0.2.5", Domain: "feed-a"},
	}}); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	r.poll()
	got := s.consuming(api.ReadConsumption{Names: []string{"c", "b", "a", "d", "e"}})
	test := s.testing(api.TestNodes{Names: []string{"a"}})
	asked := map[string]string{}
	until(t, "all are asked for", func() bool {
		for _, q := range r.poll().Tests {
			name := q.Node
			if !q.Consumption {
				name = "the test"
			}
			asked[name] = q.ID
		}
		return len(asked) == 4
	})
	r.tested(api.NodeTest{ID: asked["the test"], Node: "a", Reach: power.ReachOK, Tried: true},
		api.NodeTest{ID: asked["a"], Node: "a", Reach: power.ReachOK, At: s.clock(), Consumption: consumed(400, 500)},
		api.NodeTest{ID: asked["b"], Node: "b", Reach: power.ReachOK, At: s.clock(), Consumption: consumed(300, 0)},
		api.NodeTest{ID: asked["c"], Node: "c", Reach: power.ReachUnsupported, Consumption: &power.Consumption{}, Message: "it has none"})
	if all := <-test; all[0].Reach != power.ReachOK || all[0].Consumption != nil {
		t.Errorf("%+v", all)
	}
	all := <-got
	want := []struct {
		reach power.Reach
		read  bool
		says  string
	}{
		{power.ReachOK, true, ""},
		{power.ReachOK, true, ""},
		{power.ReachUnsupported, false, "it has none"},
		{power.ReachUnconfigured, false, "no BMC"},
		{power.ReachNever, false, "r2 is away"},
	}
	for i, n := range all.Nodes {
		if n.Reach != want[i].reach || (n.ReadAt != nil) != want[i].read || (n.Watts != nil) != want[i].read ||
			!strings.Contains(n.Message, want[i].says) {
			t.Errorf("%+v, want %+v", n, want[i])
		}
	}
	for _, sum := range append(append(all.Racks, all.Domains...), all.Total) {
		wanted := map[string]api.ConsumptionSum{
			"r1": {Nodes: 4, Read: 2, Watts: 700, Limited: 1, LimitWatts: 500}, "r2": {Nodes: 1},
			"feed-a": {Nodes: 3, Read: 1, Watts: 400, Limited: 1, LimitWatts: 500}, "feed-b": {Nodes: 1, Read: 1, Watts: 300},
			"all": {Nodes: 5, Read: 2, Watts: 700, Limited: 1, LimitWatts: 500},
		}[sum.Name]
		if wanted.Name = sum.Name; sum != wanted {
			t.Errorf("%+v, want %+v", sum, wanted)
		}
	}
	if again := r.poll(); len(again.Tests) != 0 {
		t.Errorf("asked for after the answer: %+v", again.Tests)
	}
	_, err := s.Consumption(t.Context(), api.ReadConsumption{Names: []string{"none"}})
	wantCode(t, err, api.CodeNotFound)
	_, err = s.Consumption(t.Context(), api.ReadConsumption{Names: []string{"a"}, Wait: -1})
	wantCode(t, err, api.CodeBadRequest)
}

// TestOldAgentsAreNotWaitedFor: central knows what they cannot do, and says so at once. One
// that is away may be upgraded until it is back.
func TestOldAgentsAreNotWaitedFor(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	session := s.c.sessions.of("r1")
	speaks := func(protocol int) {
		session.mu.Lock()
		defer session.mu.Unlock()
		session.speaks = protocol
	}
	asks := func() api.Op {
		t.Helper()
		req := api.OpRequest{ID: newID(), Node: "a", Action: power.ActCap, Options: power.Options{Limit: 800}}
		dry, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{req}, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		ops, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{req}})
		if err != nil || ops[0].Outcome != dry[0].Outcome || ops[0].Limit != 800 {
			t.Fatalf("%+v, %v; the dry run said %+v", ops, err, dry)
		}
		return ops[0]
	}
	if op := asks(); op.Outcome != "" {
		t.Errorf("of an agent that is as new as central: %+v", op)
	}
	speaks(1)
	all := <-s.consuming(api.ReadConsumption{Names: []string{"a"}})
	if n := all.Nodes[0]; n.Reach != power.ReachNever || !strings.Contains(n.Message, "older version") {
		t.Errorf("%+v", n)
	}
	if op := asks(); op.Outcome != power.Refused || op.Why != power.ReasonOldAgent || !strings.Contains(op.Message, "upgrade") {
		t.Errorf("%+v", op)
	}
	if again := r.poll(); len(again.Tests) != 0 {
		t.Errorf("%+v", again)
	}
	s.restart() // and nobody has said hello yet
	if op := asks(); op.Outcome != "" {
		t.Errorf("of an agent of which central does not know: %+v", op)
	}
	r.hello()
	s.later(time.Hour)
	if op := asks(); op.Outcome != "" || op.Phase != api.PhaseTaken {
		t.Errorf("of an agent that is away: %+v", op)
	}
	r.hello()
	if op := asks(); op.Outcome != "" {
		t.Errorf("of an agent that was upgraded: %+v", op)
	}
	if got := r.poll().Ops; len(got) < 2 || got[0].Limit != 800 || got[0].Action != power.ActCap {
		t.Errorf("the agent is given %+v", got)
	}
}
