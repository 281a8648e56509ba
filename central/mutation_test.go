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

	"rackpower/internal/mutation"
)

// TestMutationsApply: code that was changed must not leave a mutation without its place.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutation.All(t) {
		if _, err := m.Apply(".."); err != nil {
			t.Error(err)
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
	for _, m := range mutation.Chosen(t) {
		if m.FoundBy == "TestNoBMCIsCommandedByTwo" { // the model
			runMutated(t, m, brokenRule, "-rapid.checks=300")
		} else {
			runMutated(t, m, failedTest)
		}
	}
}

// declared reports whether one of the tests is in the package of a directory.
func declared(t *testing.T, dir, tests string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	declares := regexp.MustCompile(`(?m)^func (` + tests + `)\(`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if declares.Match(text) {
			return true
		}
	}
	return false
}

// runMutated has the tests that a mutation names run on the mutated files.
func runMutated(t *testing.T, m mutation.Mutation, finds *regexp.Regexp, args ...string) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := m.Apply(root)
	if err != nil {
		t.Error(err)
		return
	}
	dir, judge, rapid := t.TempDir(), ".", append([]string{"-rapid.nofailfile", "-rapid.shrinktime=0s"}, args...)
	replace := map[string]string{}
	for file, text := range files {
		mutant := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(mutant, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = mutant
		switch {
		case strings.HasPrefix(file, "central/webhook/"):
			judge, rapid = "./webhook", nil
		case strings.HasPrefix(file, "central/store/") && !declared(t, ".", m.FoundBy):
			judge = "./store"
		case !strings.HasPrefix(file, "central/") && !declared(t, ".", m.FoundBy):
			judge = "../agent"
		}
	}
	overlay := filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{
		"test", "-vet=off", "-count=1", "-overlay", overlay, "-run", "^(" + m.FoundBy + ")$", judge,
	}, rapid...)...)
	out, err := cmd.CombinedOutput()
	found := finds.FindString(string(out))
	if err == nil || found == "" {
		t.Errorf("survived: %s\n%s", m.Breaks, out)
		return
	}
	fmt.Printf("| %s | %s |\n", m.Breaks, found)
}
