package agent

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rackpower/agent/simtest"
	"rackpower/internal/mutation"
)

// TestMutations shows that the random histories notice a broken rule: each patch is applied
// to a copy of the tree, and the test that it names must fail there. It takes some minutes
// and runs where PROOF_MUTATIONS is set: to "all", to the name of a test, or to a part of
// what is broken.
func TestMutations(t *testing.T) {
	chosen := mutation.Chosen(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := copyTree(root, dir); err != nil {
		t.Fatal(err)
	}
	caught := 0
	for _, m := range chosen {
		word, by := runMutated(t, m, root, dir)
		if word != "survived" {
			caught++
		} else {
			t.Errorf("survived: %s", m.Breaks)
		}
		fmt.Printf("| %s | %s | %s | %s |\n", m.FoundBy, m.Breaks, word, by)
	}
	fmt.Printf("%d of %d mutations caught\n", caught, len(chosen))
}

// TestMutationsApply: code that was changed must not leave a mutation without its place.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutation.All(t) {
		if _, err := m.Apply(".."); err != nil {
			t.Error(err)
		}
	}
}

// TestMutationsCompile: nor one that does not compile any more.
func TestMutationsCompile(t *testing.T) {
	if raceEnabled {
		t.Skip("it says the same without the race detector, in less time")
	}
	check := newTypeChecker(t)
	for _, m := range mutation.All(t) {
		files, err := m.Apply("..")
		if err != nil {
			t.Error(err)
		}
		replaced := map[string]string{}
		for file, text := range files {
			replaced[filepath.Join("..", file)] = text
		}
		for file := range replaced {
			if err := check.dir(filepath.Dir(file), replaced); err != nil {
				t.Errorf("%s does not compile: %v", m.File, err)
			}
		}
	}
}

// typeChecker checks packages some files of which are replaced.
type typeChecker struct {
	fset    *token.FileSet
	imports types.Importer
	parsed  map[string]*ast.File
}

// newTypeChecker has the compiler tell where the types of all that the packages import are.
func newTypeChecker(t *testing.T) typeChecker {
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	fset := token.NewFileSet()
	open := func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
	return typeChecker{fset, importer.ForCompiler(fset, "gc", open), map[string]*ast.File{}}
}

func (c typeChecker) dir(dir string, replaced map[string]string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	var files []*ast.File
	for _, name := range names {
		if ok, err := build.Default.MatchFile(dir, filepath.Base(name)); err != nil || !ok || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file := c.parsed[name]
		if text, ok := replaced[name]; ok {
			file, err = parser.ParseFile(c.fset, name, text, parser.SkipObjectResolution)
		} else if file == nil {
			file, err = parser.ParseFile(c.fset, name, nil, parser.SkipObjectResolution)
			c.parsed[name] = file
		}
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	_, err = (&types.Config{Importer: c.imports}).Check(dir, c.fset, files, nil)
	return err
}

var foundIn = regexp.MustCompile(`history (\d+) of seed \d+ broke a rule:\s+at [0-9.]+s ([^:\n]+)`)

// runMutated applies a mutation to the copy of the tree at dir, and tells after how many
// histories its test found it, and by which rule.
func runMutated(t *testing.T, m mutation.Mutation, root, dir string) (word, by string) {
	files, err := m.Apply(root)
	if err != nil {
		t.Error(err)
		return "survived", "it does not apply"
	}
	for file, text := range files {
		old, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(filepath.Join(dir, file), old, 0o644); err != nil {
				t.Fatal(err)
			}
		}()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "proof.test")
	build := exec.Command("go", "test", "-vet=off", "-c", "-o", bin, "./agent")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("%s does not compile: %s", m.Breaks, out)
		return "survived", "it does not compile"
	}
	// Histories end by themselves, and the run of them by PROOF_TIME: what is at work after
	// that spins in one moment of simulated time. What it heaps up meanwhile is bounded, or it
	// would take all the memory that the machine has.
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	play := func(tests string) ([]byte, error) {
		run := exec.CommandContext(ctx, "sh", "-c", `ulimit -v 4000000; exec "$0" "$@"`, bin, "-test.run", tests)
		run.Dir = filepath.Join(dir, "agent")
		run.Env = append(os.Environ(), "PROOF_SHRINK=0", "PROOF_TIME=3m", "GOGC=400",
			fmt.Sprintf("PROOF_HISTORIES=%d", simtest.EnvNumber(t, "PROOF_HISTORIES", 20000)))
		return run.CombinedOutput()
	}
	out, err := play("^(" + m.FoundBy + ")$")
	switch found := foundIn.FindSubmatch(out); {
	case found != nil:
		return string(found[1]), string(found[2])
	case ctx.Err() != nil || strings.Contains(string(out), "out of memory"):
		return "hung", "the histories did not end"
	case err != nil && strings.Contains(string(out), "--- FAIL: "+m.FoundBy+" ") && !strings.Contains(string(out), "panic:"):
		return "failed", m.FoundBy // a test without histories
	case err != nil && strings.Contains(string(out), "panic:"):
		_, why, _ := strings.Cut(string(out), "panic: ")
		why, _, _ = strings.Cut(why, "\n")
		return "panic", why
	case err != nil && !strings.HasPrefix(m.FoundBy, "TestSim") && strings.Contains(string(out), "--- FAIL: "+m.FoundBy):
		return "failed", m.FoundBy
	case err != nil:
		t.Errorf("%s: %v\n%s", m.Breaks, err, out)
	}
	if out, err := play("^TestSimTranscripts$"); err != nil && strings.Contains(string(out), "BROKEN") {
		return "transcript", "by one of testdata/sim only"
	}
	return "survived", ""
}

// copyTree copies the sources of the module.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == ".git" || rel == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || d.Name() == ".git" {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
}
