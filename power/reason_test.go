package power

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestReasonsAreDeclaredInOnePlace: every reason comes from a line of the table, with a
// word and a text of its own.
func TestReasonsAreDeclaredInOnePlace(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			if v, ok := s.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Reason") {
				declared++
			}
		}
	}
	if declared != len(reasons) {
		t.Errorf("%d reasons are declared, and the table has %d", declared, len(reasons))
	}
	words, texts := map[Reason]bool{}, map[string]bool{}
	for _, a := range reasons {
		if words[a.reason] || texts[a.text] {
			t.Errorf("%s: its word or its text is another reason's, too", a.reason)
		}
		words[a.reason], texts[a.text] = true, true
		if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(string(a.reason)) || a.text == "" || strings.HasSuffix(a.text, ".") {
			t.Errorf("%s: want a word of small letters, and a sentence without its full stop; got %q", a.reason, a.text)
		}
		for _, command := range a.help {
			if !strings.HasPrefix(command, "rackpower ") {
				t.Errorf("%s: %q is no command of rackpower", a.reason, command)
			}
		}
	}
}

// TestReasonsAreDocumented: docs/reasons.md is what the table says. docscheck checks there
// that the commands exist.
func TestReasonsAreDocumented(t *testing.T) {
	const file = "../docs/reasons.md"
	want := reasonsPage()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := os.ReadFile(file); err != nil || string(is) != want {
		t.Errorf("docs/reasons.md does not say what power/reason.go says (%v): go test ./power -run Reason -update", err)
	}
}

func reasonsPage() string {
	var b strings.Builder
	b.WriteString("# Reasons\n\nThe word that log, journal, API and terminal show for why something happened, what it means, and\n" +
		"which commands help. Made from `power/reason.go` by `go test ./power -run Reason -update`.\n")
	kind := ""
	for _, a := range reasons {
		if a.kind != kind {
			kind = a.kind
			fmt.Fprintf(&b, "\n## Of %s\n\n| reason | meaning | commands that help |\n|---|---|---|\n", kind)
		}
		help := ""
		for i, command := range a.help {
			if i > 0 {
				help += ", "
			}
			help += "`" + command + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", a.reason, a.text, help)
	}
	return b.String()
}

// TestReasonsAreNotWrittenAsLiterals: outside of reason.go the code names the variables,
// so that a reason is found by its name and a misspelt one does not compile.
func TestReasonsAreNotWrittenAsLiterals(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != ".." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata"):
			return fs.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || path == "../power/reason.go":
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit := reasonLiteral(n); lit != nil {
				t.Errorf("%s: the reason %s is a literal: name its variable", fset.Position(lit.Pos()), lit.Value)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reasonLiteral returns the reason that a node writes as text: converted, compared with
// a field, or put into one.
func reasonLiteral(n ast.Node) *ast.BasicLit {
	named := func(e ast.Expr) bool {
		if s, ok := e.(*ast.SelectorExpr); ok {
			e = s.Sel
		}
		id, ok := e.(*ast.Ident)
		return ok && slices.Contains([]string{"Reason", "Waits", "Why"}, id.Name)
	}
	where, texts := ast.Expr(nil), []ast.Expr(nil)
	switch n := n.(type) {
	case *ast.CallExpr:
		where, texts = n.Fun, n.Args
	case *ast.BinaryExpr:
		where, texts = n.X, []ast.Expr{n.Y}
	case *ast.KeyValueExpr:
		where, texts = n.Key, []ast.Expr{n.Value}
	case *ast.AssignStmt:
		where, texts = n.Lhs[0], n.Rhs
	case *ast.ValueSpec:
		where, texts = n.Type, n.Values
	}
	if where == nil || !named(where) {
		return nil
	}
	for _, e := range texts {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			continue
		}
		word, _ := strconv.Unquote(lit.Value)
		if slices.ContainsFunc(reasons, func(a about) bool { return string(a.reason) == word }) {
			return lit
		}
	}
	return nil
}

func TestReasonHelpNamesTheNode(t *testing.T) {
	if got := ReasonPaused.Help("n1", "r1"); !slices.Equal(got, []string{"rackpower resume r1"}) {
		t.Errorf("got %q", got)
	}
	if got := ReasonFault.Help("n1", "r1"); !slices.Equal(got, []string{"rackpower node retry n1"}) {
		t.Errorf("got %q", got)
	}
	if newer := Reason("from-a-newer-version"); newer.Text() != "from-a-newer-version" || newer.Help("n1", "r1") != nil {
		t.Errorf("an unknown reason: %q, %q", newer.Text(), newer.Help("n1", "r1"))
	}
}
