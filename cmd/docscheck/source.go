package docscheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Sources parses the Go files of the directories below dir that are no tests.
func Sources(repo fs.FS, dir string) ([]*ast.File, error) {
	var files []*ast.File
	err := fs.WalkDir(repo, dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(repo, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, text, parser.ParseComments)
		files = append(files, f)
		return err
	})
	return files, err
}

// Registered finds the routes that are given to a mux: strings such as "GET /v1/nodes".
func Registered(files []*ast.File) []string {
	var text strings.Builder
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && wholeRoute.MatchString(s) {
					text.WriteString(s + "\n")
				}
			}
			return true
		})
	}
	return Routes(text.String())
}

var (
	wholeRoute = regexp.MustCompile(`^(GET|POST|PUT|DELETE) /v1/\S*$`)
	verbLetter = regexp.MustCompile(`%[a-z]`)
)

// Called finds the routes that a client calls: a method of net/http followed by an
// expression that makes the path, or the last operand of list, which reads pages.
func Called(files []*ast.File) []string {
	var text strings.Builder
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if fun, ok := call.Fun.(*ast.IndexExpr); ok && len(call.Args) == 3 {
				if name, ok := fun.X.(*ast.Ident); ok && name.Name == "list" {
					where, _, _ := strings.Cut(pathOf(call.Args[2]), "?")
					text.WriteString("GET " + where + "\n")
				}
			}
			for i := 0; i+1 < len(call.Args); i++ {
				if method, ok := methodOf(call.Args[i]); ok {
					where, _, _ := strings.Cut(pathOf(call.Args[i+1]), "?")
					text.WriteString(method + " " + where + "\n")
				}
			}
			return true
		})
	}
	return Routes(text.String())
}

func methodOf(e ast.Expr) (string, bool) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	name, ok := strings.CutPrefix(s.Sel.Name, "Method")
	return strings.ToUpper(name), ok
}

// pathOf is an expression as a route: what is not a string in it is a parameter.
func pathOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return verbLetter.ReplaceAllString(s, "{}")
	case *ast.BinaryExpr:
		return pathOf(e.X) + pathOf(e.Y)
	case *ast.CallExpr:
		if s, ok := e.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Sprintf" {
			return pathOf(e.Args[0])
		}
	}
	return "{}"
}
