package central

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// broken is one rule broken in the code: the old text, which stands once in its file,
// replaced by the new one. Where the code has moved on, the mutation follows it.
type broken struct{ what, file, old, new string }

// handoverMutations break the rules of who commands what, for TestNoBMCIsCommandedByTwo.
var handoverMutations = []broken{
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
		"a removed node is nobody's at once", "nodes.go", "u.forget(n.Agent, n.Name, in.Confirmed), u.leaves(n))",
		"u.forget(n.Agent, n.Name, in.Confirmed))",
	},
	{
		"requests that waited are not delivered", "handover.go", "u.tx.RequeueOps(n.Name, n.Agent, cursor)",
		"u.tx.RequeueOps(\"\", n.Agent, cursor)",
	},
	{"any process of the name is let in", "twins.go", "return h.closed && silent >= closedFor, false", "return true, false"},
	{
		"a clone is let in without a look at who has the name", "twins.go", "ok = h.closed || knocked && h.signs == signs",
		"ok = h.closed || knocked",
	},
	{"a report counts by its id alone", "owner.go", "case !o.Request().Is(w.Op):", "case o.ID != w.Op.ID:"},
}

// otherMutations break rules that no model plays: each by the tests that must find it.
var otherMutations = []struct {
	broken
	tests string
}{
	{
		broken{"any number of operations is taken for an agent", "ops.go", "case ofAgent >= maxOpenOf:", "case ofAgent < 0:"},
		"TestOutstandingIsBounded",
	},
	{broken{
		"central does not check what it is sent", "http.go", "err := api.Valid(in); err != nil",
		"err := api.Valid(in); err != nil && false",
	}, "TestBodiesAreCheckedAtTheDoor"},
	{
		broken{"a rack's socket does not check what it is sent", "../agent/control.go", "return in, api.Valid(in)", "return in, nil"},
		"TestControlBadRequestAcceptsNothing",
	},
	{broken{"any number of requests joins", "../power/decide.go", "lane.joined() >= MaxJoined", "lane.joined() < 0"}, "TestJoinersAreBounded"},
	{broken{
		"an agent that was long out of touch acts at once", "../agent/permit.go", "!contact.IsZero() && age > lease",
		"!contact.IsZero() && age < 0",
	}, "TestPermit|TestWhoWasOutOfTouchAsksFirst"},
	{
		broken{"an agent that was suspended acts at once", "../agent/permit.go", "now.Sub(p.beat) > lease+beatEvery", "now.Before(p.beat)"},
		"TestPermit",
	},
	{
		broken{"an agent whose name is another's acts", "../agent/permit.go", "case p.rival != \"\":", "case p.rival == \"\" && false:"},
		"TestAnAgentWhoseNameIsTakenSendsNothing",
	},
	{broken{
		"a central that was never seen is followed", "../agent/trust.go", "case answers.CentralID != trusted.CentralID:",
		"case answers.CentralID == \"\":",
	}, "TestMeet|TestSyncAnEmptyCentralTakesNothing"},
	{broken{
		"an older copy of central's database is followed", "../agent/trust.go", "case answers.Incarnation < trusted.Incarnation:",
		"case answers.Incarnation < 0:",
	}, "TestMeet"},
	{
		broken{"all nodes may be taken away", "../agent/trust.go", "return lost >= of || lost > 5 && 2*lost > of", "return lost > of"},
		"TestMostNodesAreNotTakenAwayUnconfirmed|TestNoOrderOfRemovalsTakesMostNodes",
	},
}

// TestMutationsApply: code that was changed must not leave a mutation without its place.
func TestMutationsApply(t *testing.T) {
	all := slices.Clone(handoverMutations)
	for _, m := range otherMutations {
		all = append(all, m.broken)
	}
	for _, m := range all {
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: its place stands %d times in %s", m.what, n, m.file)
		}
	}
}

var (
	brokenRule = regexp.MustCompile(`(two command|was carried out on|was forged|has the name of|without an end|is taken for|was taken for|and nobody did it)[^\n]*`)
	failedTest = regexp.MustCompile(`--- FAIL: (Test\w+)`)
)

// TestMutations shows that the model and the tests find each mutation. It takes some
// minutes and runs where PROOF_MUTATIONS is set: to "all", or to a part of their names.
func TestMutations(t *testing.T) {
	want := os.Getenv("PROOF_MUTATIONS")
	if want == "" {
		t.Skip("set PROOF_MUTATIONS=all to run it (make mutations)")
	}
	const model = "TestNoBMCIsCommandedByTwo"
	chosen := func(m broken, tests string) bool {
		return want == "all" || want == tests || strings.Contains(m.what, want)
	}
	for _, m := range handoverMutations {
		if chosen(m, model) {
			m.run(t, model, brokenRule, "-rapid.checks=300")
		}
	}
	for _, m := range otherMutations {
		if chosen(m.broken, m.tests) {
			m.run(t, m.tests, failedTest)
		}
	}
}

// run has the tests of the package that judges the broken file run on it.
func (m broken) run(t *testing.T, tests string, finds *regexp.Regexp, args ...string) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	file, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	judge := "."
	if strings.HasPrefix(m.file, "../") {
		judge = "../agent"
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{
		"test", "-vet=off", "-count=1", "-overlay", overlay, "-run", "^(" + tests + ")$", judge, "-rapid.nofailfile", "-rapid.shrinktime=0s",
	}, args...)...)
	out, err := cmd.CombinedOutput()
	found := finds.FindString(string(out))
	if err == nil || found == "" {
		t.Errorf("survived: %s\n%s", m.what, out)
		return
	}
	fmt.Printf("| %s | %s |\n", m.what, found)
}
