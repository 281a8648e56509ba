package central

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// handoverMutations break the rules of who commands what, one by one. The text of each old
// place stands once in its file; where the code has moved on, the mutation follows it.
var handoverMutations = []struct{ what, file, old, new string }{
	{"an agent has let go though something is under way", "handover.go", "l.Rev > rev || slices.Contains(holdsBack, l.Node)", "l.Rev > rev"},
	{
		"an agent has let go before it acts by the assignment", "handover.go", "l.Rev > rev || slices.Contains(holdsBack, l.Node)",
		"slices.Contains(holdsBack, l.Node)",
	},
	{"nobody is waited for", "handover.go", "n.WaitsFor = agentsOf(holders)", "n.WaitsFor = agentsOf(holders[:0])"},
	{
		"a BMC that a node had is given away at once", "nodes.go", "} else if exists && old.Part != \"\" && (old.Part",
		"} else if exists && old.Part == \"\" && (old.Part",
	},
	{
		"a removed node is nobody's at once", "nodes.go", "ch.forget(n.Agent, n.Name, in.Confirmed), ch.leaves(n))",
		"ch.forget(n.Agent, n.Name, in.Confirmed))",
	},
	{
		"requests that waited are not delivered", "handover.go", "ch.tx.RequeueOps(n.Name, n.Agent, cursor)",
		"ch.tx.RequeueOps(\"\", n.Agent, cursor)",
	},
	{"any process of the name is let in", "twins.go", "return h.closed && silent >= closedFor, false", "return true, false"},
	{
		"a clone is let in without a look at who has the name", "twins.go", "ok = h.closed || knocked && h.signs == signs",
		"ok = h.closed || knocked",
	},
	{"a word counts by its id alone", "owner.go", "case !o.Request().Is(w.Op):", "case o.ID != w.Op.ID:"},
}

// TestHandoverMutationsApply: code that was changed must not leave a mutation without its place.
func TestHandoverMutationsApply(t *testing.T) {
	for _, m := range handoverMutations {
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: its place stands %d times in %s", m.what, n, m.file)
		}
	}
}

var brokenRule = regexp.MustCompile(`(two command|was carried out on|was forged|has the name of|without an end|is taken for|was taken for|and nobody did it)[^\n]*`)

// TestHandoverMutations shows that the model has teeth: it finds each mutation. It takes
// some minutes and runs where PROOF_MUTATIONS is set: to "all", or to a part of their names.
func TestHandoverMutations(t *testing.T) {
	want := os.Getenv("PROOF_MUTATIONS")
	if want == "" {
		t.Skip("set PROOF_MUTATIONS=all to run it (make mutations)")
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range handoverMutations {
		if want != "all" && want != "TestNoBMCIsCommandedByTwo" && !strings.Contains(m.what, want) {
			continue
		}
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
		list, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, m.file): mutant}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(mutant, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(overlay, list, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-overlay", overlay, "-run", "^TestNoBMCIsCommandedByTwo$", ".",
			"-rapid.checks=300", "-rapid.nofailfile", "-rapid.shrinktime=0s")
		out, err := cmd.CombinedOutput()
		found := brokenRule.FindString(string(out))
		if err == nil || found == "" {
			t.Errorf("survived: %s\n%s", m.what, out)
			continue
		}
		fmt.Printf("| %s | %s |\n", m.what, found)
	}
}
