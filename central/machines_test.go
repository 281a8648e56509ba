package central

import (
	"slices"
	"strings"
	"testing"

	"rackpower/central/api"
)

// TestMachinesOfDaemonsAreProtected: the machines of central and of agents are protected when
// they become nodes, or nodes turn out to be theirs; once, and an agent's own nodes only.
func TestMachinesOfDaemonsAreProtected(t *testing.T) {
	s := newSite(t)
	protected := func() (names []string) {
		nodes, err := s.Nodes(t.Context(), "all")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.Protected != nil {
				names = append(names, n.Name+": "+n.Protected.Reason)
			}
		}
		return names
	}
	want := func(when string, names ...string) {
		t.Helper()
		if got := protected(); !slices.Equal(got, names) {
			t.Errorf("%s: protected are %q, want %q", when, got, names)
		}
	}
	unprotect := func(name string) {
		t.Helper()
		if _, err := s.ProtectNodes(t.Context(), api.ProtectNodes{Names: []string{name}, Unprotect: true, Reason: "known"}); err != nil {
			t.Fatal(err)
		}
	}
	s.nodes("a", "b", "c", "headless")
	want("no machine is a node")
	head := api.NodeSpec{Name: "head", Rack: "r1", BMC: "ipmi://admin@192.0.9.1", Password: "x"}
	out, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{head}})
	if err != nil || !strings.Contains(strings.Join(out.Notes, " "), "head is protected: central runs on it") {
		t.Errorf("notes %q, %v", out.Notes, err)
	}
	want("a node that is central's machine", "head: central runs on it")

	r := s.rack("r1")
	r.machine = "B.example.org"
	r.mustHello()
	other := s.rack("r2")
	other.machine = "c"
	other.mustHello()
	want("an agent's machine; that of another's node is not its business", "b: agent r1 runs on it", "head: central runs on it")

	unprotect("b")
	unprotect("head")
	r.mustHello()
	s.restart()
	s.rack("r1")
	want("who unprotects is not overruled")
	r.machine = "a"
	r.mustHello()
	s.stop()
	s.machine = "c"
	s.start()
	want("other machines", "a: agent r1 runs on it", "c: central runs on it")
}
