package docscheck

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

var repo = os.DirFS("../..")

// walk calls f with each file of the repository that has the extension.
func walk(t *testing.T, ext string, f func(name, text string)) {
	t.Helper()
	err := fs.WalkDir(repo, ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (strings.HasPrefix(e.Name(), ".") && p != "." || e.Name() == "bin" || e.Name() == "testdata"):
			return fs.SkipDir
		case e.IsDir() || path.Ext(p) != ext:
			return nil
		}
		text, err := fs.ReadFile(repo, p)
		f(p, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// documents are the Markdown files and the package comments.
func documents(t *testing.T) (all []Doc) {
	t.Helper()
	walk(t, ".md", func(name, text string) { all = append(all, Doc{name, text}) })
	if len(all) < 10 {
		t.Fatalf("only %d Markdown files found", len(all))
	}
	return append(all, packageComments(t)...)
}

var fileWord = regexp.MustCompile(`\b[\w/-]+\.(go|md|sql)\b`)

// packageComments are the comments of packages, with names of files as code spans.
func packageComments(t *testing.T) (all []Doc) {
	t.Helper()
	walk(t, ".go", func(name, text string) {
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
		} else if f.Doc != nil {
			all = append(all, Doc{name, fileWord.ReplaceAllString(f.Doc.Text(), "`$0`")})
		}
	})
	return all
}

func check(t *testing.T, f func(Doc) []string) {
	t.Helper()
	for _, d := range documents(t) {
		for _, wrong := range f(d) {
			t.Error(wrong)
		}
	}
}

func TestNamedFilesExist(t *testing.T) {
	check(t, func(d Doc) []string { return Paths(repo, d) })
}

func TestNamedVerbsExist(t *testing.T) {
	makefile := read(t, "Makefile").Text
	check(t, func(d Doc) []string { return Verbs(makefile, d) })
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)

func TestNamedTestsExist(t *testing.T) {
	var source strings.Builder
	names := map[string][]string{}
	walk(t, ".go", func(name, text string) {
		if strings.HasPrefix(name, "cmd/docscheck/") {
			return
		}
		source.WriteString(text)
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			names[path.Dir(name)] = append(names[path.Dir(name)], m[1])
		}
	})
	source.WriteString(read(t, "Makefile").Text)
	check(t, func(d Doc) []string {
		return Tests(repo, func(dir string) []string { return names[dir] }, source.String(), d)
	})
}

func TestCitedRulesExist(t *testing.T) {
	rules, cited := read(t, "docs/rules.md").Text, 0
	each := func(name, text string) {
		if strings.HasPrefix(name, "cmd/docscheck/") {
			return // it has examples of wrong ones
		}
		cited += len(rulesCited.FindAllString(text, -1))
		for _, wrong := range Rules(rules, Doc{name, text}) {
			t.Error(wrong)
		}
	}
	walk(t, ".go", each)
	walk(t, ".md", each)
	if cited == 0 {
		t.Error("nothing cites the rules")
	}
}

func TestEveryPackageIsDescribed(t *testing.T) {
	described := map[string]bool{}
	for _, d := range packageComments(t) {
		described[path.Dir(d.Path)] = true
	}
	seen := map[string]bool{}
	walk(t, ".go", func(name, _ string) {
		if dir := path.Dir(name); !seen[dir] && !strings.HasSuffix(name, "_test.go") {
			seen[dir] = true
			if !described[dir] {
				t.Errorf("package %s has no comment that describes it", dir)
			}
		}
	})
}

// withoutClient are routes that no command asks: for scripts at a rack's socket, and the
// description of the others.
var withoutClient = []string{"GET /v1/alarms", "GET /v1/openapi"}

// TestRoutes holds the routes that are served against those that central/api documents
// and those that its client calls.
func TestRoutes(t *testing.T) {
	parsed := func(dirs ...string) (files []*ast.File) {
		for _, dir := range dirs {
			more, err := Sources(repo, dir)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, more...)
		}
		return files
	}
	ofCentral, ofAgent, ok := strings.Cut(read(t, "central/api/doc.go").Text, "# Routes of an agent's socket")
	if !ok {
		t.Fatal("central/api/doc.go has no section of the routes of an agent's socket")
	}
	central, agent := Registered(parsed("central")), Registered(parsed("agent"))
	if len(central) < 30 || len(agent) < 15 {
		t.Fatalf("only %d routes of central and %d of agents found", len(central), len(agent))
	}
	wrong := Differ("central", central, "central/api/doc.go", Routes(ofCentral))
	wrong = append(wrong, Differ("an agent's socket", agent, "central/api/doc.go", Routes(ofAgent))...)
	all := Routes(strings.Join(append(central, agent...), "\n"))
	all = slices.DeleteFunc(all, func(r string) bool { return slices.Contains(withoutClient, r) })
	wrong = append(wrong, Differ("the servers", all, "the client", Called(parsed("central/api")))...)
	for _, w := range wrong {
		t.Error(w)
	}
}

// binaries builds both programs, unless RACKPOWER_TEST_BIN names a directory with them.
func binaries(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("RACKPOWER_TEST_BIN"); dir != "" {
		return dir
	}
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// builtIn is where they were built; "": not yet.
var builtIn string

var built = sync.OnceValues(func() (dir string, err error) {
	defer func() { builtIn = dir }()
	if dir, err = os.MkdirTemp("", "docscheck-"); err != nil {
		return "", err
	}
	for _, name := range []string{"rackpower", "rackpower-central"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "rackpower/cmd/"+name).CombinedOutput(); err != nil {
			return dir, fmt.Errorf("go build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// helper asks the programs in dir for help, each question once.
func helper(dir string) func(binary string, words ...string) (Help, error) {
	type answer struct {
		h   Help
		err error
	}
	var mu sync.Mutex
	known := map[string]answer{}
	return func(binary string, words ...string) (Help, error) {
		mu.Lock()
		defer mu.Unlock()
		line := strings.Join(append([]string{binary}, words...), " ")
		a, ok := known[line]
		if !ok {
			out, err := exec.Command(filepath.Join(dir, binary), append(words, "--help")...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s --help: %w", line, err)
			}
			a = answer{ReadHelp(string(out)), err}
			known[line] = a
		}
		return a.h, a.err
	}
}

func TestCommandLinesParse(t *testing.T) {
	help := helper(binaries(t))
	if h, err := help("rackpower"); err != nil || len(h.Commands) < 20 {
		t.Fatalf("rackpower --help names only %v, %v", h.Commands, err)
	}
	if h, err := help("rackpower", "off"); err != nil || len(h.Flags) < 5 {
		t.Fatalf("rackpower off --help names only %v, %v", h.Flags, err)
	}
	check(t, func(d Doc) []string { return Commands(help, d) })
}

func read(t *testing.T, name string) Doc {
	t.Helper()
	text, err := fs.ReadFile(repo, name)
	if err != nil {
		t.Fatal(err)
	}
	return Doc{name, string(text)}
}

func TestFloorsAreDocumented(t *testing.T) {
	for _, wrong := range Floors(read(t, "cmd/layers_test.go").Text, read(t, "docs/architecture.md")) {
		t.Error(wrong)
	}
}

func TestExamplesFitATerminal(t *testing.T) {
	for _, wrong := range Wide(80, read(t, "README.md")) {
		t.Error(wrong)
	}
}
