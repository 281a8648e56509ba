package central

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// TestAPasswordThatDoesNotOpen is a matter of its node only: the others are listed and acted
// on, what is said of it names the command that helps, and that helps.
func TestAPasswordThatDoesNotOpen(t *testing.T) {
	s := newSite(t)
	s.c.explainWait = 10 * time.Millisecond
	s.nodes("a", "b")
	agent := s.rack("r1")
	agent.mustHello()
	if err := s.c.store.Write(t.Context(), func(tx *store.Tx) error {
		n, _, err := tx.Node("a")
		n.Password, n.DamagedPassword = "", "seal1:00000000:"+strings.Repeat("A", 60)
		return errors.Join(err, tx.PutNode(n))
	}); err != nil {
		t.Fatal(err)
	}
	const help = "rackpower node add a --rack r1 --password-file FILE --update"
	nodes, err := s.Nodes(t.Context(), "")
	if err != nil || len(nodes) != 2 || nodes[0].Waits != power.ReasonDamaged || !strings.Contains(nodes[0].WaitsMessage, help) ||
		nodes[1].Waits != "" {
		t.Fatalf("%+v, %v", nodes, err)
	}
	e, err := s.Explain(t.Context(), "a")
	if err != nil || !strings.Contains(e.Message, help) {
		t.Errorf("%q, %v", e.Message, err)
	}
	if o := s.ask("a", power.ActOn); o.Outcome != power.Refused || o.Why != power.ReasonDamaged || !strings.Contains(o.Detail, help) {
		t.Errorf("%+v", o)
	}
	if o := s.ask("b", power.ActOn); o.Outcome != "" {
		t.Errorf("%+v", o)
	}
	given := map[string]api.AssignedNode{}
	for _, n := range agent.poll().Nodes {
		given[n.Name] = n
	}
	if given["a"].BMC != "" || given["b"].Password != "pw-b" {
		t.Errorf("%+v", given)
	}
	if _, err := s.AddNodes(context.Background(), api.AddNodes{
		Nodes: []api.NodeSpec{{Name: "a", Rack: "r1", Password: "new"}}, Update: true, AskedBy: "admin",
	}); err != nil {
		t.Fatal(err)
	}
	if nodes, err = s.Nodes(t.Context(), "a"); err != nil || nodes[0].Waits != "" {
		t.Errorf("%+v, %v", nodes, err)
	}
}
