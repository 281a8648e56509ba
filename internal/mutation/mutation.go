// Package mutation reads patches each of which breaks a rule in the code, for tests that
// show that other tests notice it.
//
// A file says in its first line what is broken, and after "Found by:" the test that must
// fail, or several as a regular expression. Then comes a unified diff, with paths from the
// root of the module. A hunk applies where its old lines stand, which must be in exactly
// one place: line numbers count for nothing, so that code above may grow.
package mutation

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Mutation is one patch.
type Mutation struct {
	File    string // where it was read
	Breaks  string // the rule that it breaks, in words
	FoundBy string // a regular expression for the names of tests
	edits   []edit
}

type edit struct{ file, old, new string }

// Read reads all patches of a directory, in the order of their names.
func Read(dir string) ([]Mutation, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no patches in %s", dir)
	}
	var all []Mutation
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		m, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		m.File = name
		all = append(all, m)
	}
	return all, nil
}

// All reads the patches of the package under test, from its testdata/mutations.
func All(t testing.TB) []Mutation {
	t.Helper()
	all, err := Read("testdata/mutations")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Chosen are those of All that PROOF_MUTATIONS names: "all", a test that finds them, or a
// part of what they break. Without it the test is skipped.
func Chosen(t testing.TB) []Mutation {
	t.Helper()
	want := os.Getenv("PROOF_MUTATIONS")
	if want == "" {
		t.Skip("set PROOF_MUTATIONS=all to run it (make mutations)")
	}
	return slices.DeleteFunc(All(t), func(m Mutation) bool {
		return want != "all" && want != m.FoundBy && !strings.Contains(m.Breaks, want)
	})
}

func parse(text string) (m Mutation, err error) {
	var file string
	var hunk *edit
	for line := range strings.Lines(text) {
		mark, rest := line[0], line[1:]
		switch {
		case m.Breaks == "":
			m.Breaks = strings.TrimSpace(line)
		case file == "" && strings.HasPrefix(line, "Found by: "):
			m.FoundBy = strings.TrimSpace(line[len("Found by: "):])
		case strings.HasPrefix(line, "--- a/"):
			hunk = nil
		case strings.HasPrefix(line, "+++ b/"):
			file, hunk = strings.TrimSpace(line[len("+++ b/"):]), nil
		case mark == '@' && file != "":
			m.edits = append(m.edits, edit{file: file})
			hunk = &m.edits[len(m.edits)-1]
		case hunk == nil: // of the head
		case mark == '\n': // an empty line whose space an editor took away
			hunk.old, hunk.new = hunk.old+"\n", hunk.new+"\n"
		case mark == ' ':
			hunk.old, hunk.new = hunk.old+rest, hunk.new+rest
		case mark == '-':
			hunk.old += rest
		case mark == '+':
			hunk.new += rest
		default:
			return m, fmt.Errorf("a line of a diff begins with %q", mark)
		}
	}
	if m.Breaks == "" || m.FoundBy == "" || len(m.edits) == 0 {
		return m, fmt.Errorf("it needs a line that says what it breaks, a line \"Found by: TEST\" and a diff")
	}
	return m, nil
}

// Apply returns the files that the mutation changes, by their paths from root, changed.
func (m Mutation) Apply(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			raw, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.File, err)
			}
			text = string(raw)
		}
		if n := strings.Count("\n"+text, "\n"+e.old); n != 1 {
			return nil, fmt.Errorf("%s: the old lines stand %d times in %s; where the code has moved on, the patch follows it", m.File, n, e.file)
		}
		files[e.file] = strings.TrimPrefix(strings.Replace("\n"+text, "\n"+e.old, "\n"+e.new, 1), "\n")
	}
	return files, nil
}
