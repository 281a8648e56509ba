package central

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestProtected: central refuses what takes power from a protected node, its agent is
// told, and it stays so until somebody says why not.
func TestProtected(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	r.poll()
	protect := func(in api.ProtectNodes) (api.Changed, error) {
		in.AskedBy = "bob"
		return s.ProtectNodes(t.Context(), in)
	}
	if out, err := protect(api.ProtectNodes{Names: []string{"a"}, Reason: "database"}); err != nil || out.Changed != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	if out, err := protect(api.ProtectNodes{Names: []string{"a"}, Reason: "other"}); err != nil || out.Unchanged != 1 {
		t.Fatalf("again: %+v, %v", out, err)
	}
	g := r.poll()
	if len(g.Nodes) != 1 || g.Nodes[0].Protected.By != meFor("bob") || g.Nodes[0].Protected.Reason != "database" {
		t.Fatalf("assigned: %+v", g.Nodes)
	}
	s.restart()
	for _, action := range power.Actions {
		takes := action != power.ActOn && action != power.ActBMCReset && action != power.ActCap
		op := s.ask("a", action)
		if refused := op.Why == power.ReasonProtected; refused != takes {
			t.Errorf("%s: %+v", action, op)
		} else if takes && (op.Verdict != power.VerdictRefuse || !strings.Contains(op.Message, "bob") ||
			!strings.Contains(op.Message, "database") ||
			!strings.Contains(op.Message, "rackpower node unprotect a")) {
			t.Errorf("%s: %+v", action, op)
		}
	}
	if op := s.ask("b", power.ActOff); op.Verdict == power.VerdictRefuse {
		t.Errorf("another node: %+v", op)
	}
	if out := s.hold(power.WantOff, time.Hour, "a"); !strings.Contains(strings.Join(out.Notes, " "), "protected by") {
		t.Errorf("notes on the hold: %q", out.Notes)
	}
	s.hold("", 0, "a")
	if n := s.node("a"); n.Protected == nil || n.Protected.Reason != "database" {
		t.Errorf("row %+v", n)
	}
	specs, err := s.ExportNodes(t.Context())
	if err != nil || specs[0].Protected != "database" || specs[1].Protected != "" {
		t.Errorf("export %+v, %v", specs, err)
	}
	specs[0].Protected, specs[1].Protected = "", "new"
	if out, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: specs, Update: true}); err != nil || out.Changed != 1 {
		t.Errorf("import %+v, %v", out, err)
	}
	if a, b := s.node("a"), s.node("b"); a.Protected == nil || b.Protected == nil || b.Protected.Reason != "new" {
		t.Errorf("after the import: %+v, %+v", a, b)
	}
	_, err = protect(api.ProtectNodes{Names: []string{"a"}, Unprotect: true})
	wantCode(t, err, api.CodeBadRequest)
	if out, err := protect(api.ProtectNodes{Names: []string{"a"}, Unprotect: true, Reason: "moved"}); err != nil || out.Changed != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	if op := s.ask("a", power.ActOff); op.Verdict == power.VerdictRefuse {
		t.Errorf("unprotected: %+v", op)
	}
	wantLines(t, s.entries("a", "protect", "unprotect"), "protect: nothing takes", "unprotect: database")
}

// TestAProtectedNodeIsNotRemoved: added again, it would be without its protection.
func TestAProtectedNodeIsNotRemoved(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	if _, err := s.ProtectNodes(t.Context(), api.ProtectNodes{Names: []string{"a"}, Reason: "database"}); err != nil {
		t.Fatal(err)
	}
	both := api.RemoveNodes{Names: []string{"a", "b"}, Confirmed: true}
	_, err := s.RemoveNodes(t.Context(), both)
	wantCode(t, err, api.CodeRefused)
	s.node("b") // nothing was removed
	if _, err := s.ProtectNodes(t.Context(), api.ProtectNodes{Names: []string{"a"}, Unprotect: true, Reason: "moved"}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.RemoveNodes(t.Context(), both); err != nil || out.Changed != 2 {
		t.Errorf("%+v, %v", out, err)
	}
}
