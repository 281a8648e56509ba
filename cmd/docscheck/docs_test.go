package docscheck

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

var small = fstest.MapFS{
	"README.md": {}, "Makefile": {}, "agent/README.md": {}, "agent/lane.go": {}, "agent/testdata/a.txt": {},
}

// expect compares what a check found with words that each finding has to contain.
func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(got[i], want[i])
	}
	if !ok {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestPathsFindsWhatIsNotThere(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"[a](agent/README.md#part) and `agent/lane.go`, `lane.go`, `agent/testdata/*.txt`, `agent/`, `./agent`", nil},
		{"[a](https://example.org/x.md), `/etc/x.yaml`, `seq/NODE`, `r1n[01-04]`, `agent/NODE`, `.go`", nil},
		{"[a](agent/GONE.md)", []string{"agent/GONE.md"}},
		{"`agent/gone.go` and `gone.go`", []string{"agent/gone.go", "gone.go"}},
		{"`agent/simtest/` is a directory", []string{"agent/simtest/"}},
		{"`agent/testdata/*.sql`", []string{"*.sql"}},
	} {
		expect(t, Paths(small, Doc{"README.md", c.text}), c.want...)
	}
	expect(t, Paths(small, Doc{"agent/README.md", "`lane.go`, [up](../README.md), [wrong](README2.md)"}), "README2.md")
}

func TestVerbsFindsWhatTheMakefileHasNot(t *testing.T) {
	makefile := "build:\n\tgo build\ntest race: build\nBIN := bin\nPREFIX ?= x\n"
	for _, c := range []struct {
		text string
		want []string
	}{
		{"`make test`, `make build race`, `make race X=1`, and we make sense of it", nil},
		{"    make build        # make nonsense of it\n    sudo make test\n", nil},
		{"`make soak`", []string{"make soak"}},
		{"```\n$ make build rest\n```\n`make bin`", []string{"make bin", "make rest"}},
	} {
		expect(t, Verbs(makefile, Doc{"README.md", c.text}), c.want...)
	}
}

func TestTestsFindsWhatNobodyWrote(t *testing.T) {
	names := func(dir string) []string {
		return map[string][]string{"agent": {"TestSimOps", "FuzzScan", "BenchmarkHungBMCs"}}[dir]
	}
	for _, c := range []struct {
		text string
		want []string
	}{
		{"`PROOF_SEED=7 go test -run '^TestSimOps$' ./agent`, `go test -bench HungBMCs ./agent`, `go test ./...`", nil},
		{"`go test -run '^$' -fuzz '^FuzzScan$' ./agent`", nil},
		{"`go test -run TestGone ./agent`", []string{"TestGone"}},
		{"    go test ./gone -run TestSimOps\n", []string{"./gone"}},
		{"`PROOF_GONE=7 go test ./agent`", []string{"PROOF_GONE"}},
	} {
		expect(t, Tests(small, names, "os.Getenv(\"PROOF_SEED\")", Doc{"README.md", c.text}), c.want...)
	}
}

func TestCommandsFindsWhatDoesNotParse(t *testing.T) {
	known := map[string]Help{
		"rackpower":               {Commands: []string{"brake", "off", "agent"}},
		"rackpower brake":         {Commands: []string{"show", "release"}},
		"rackpower brake show":    {},
		"rackpower off":           {Flags: []string{"--reason", "-o"}},
		"rackpower agent":         {Flags: []string{"--name"}},
		"rackpower-central":       {Commands: []string{"serve"}},
		"rackpower-central serve": {Flags: []string{"--data"}},
	}
	help := func(binary string, words ...string) (Help, error) {
		h, ok := known[strings.Join(append([]string{binary}, words...), " ")]
		if !ok {
			return h, errors.New("no such command")
		}
		return h, nil
	}
	for _, c := range []struct {
		text string
		want []string
	}{
		{"`rackpower off r1n[1-4] --reason TEXT`, `rackpower brake show|release`, `rackpower COMMAND --help`", nil},
		{"    bin/rackpower-central serve --data /tmp/c &\n    for i in 1; do bin/rackpower off r$i; done\n", nil},
		{"```\n people --- rackpower (CLI) ---+   rackpower agent -------+\n$ rackpower off a \\\n    --reason x\n```\n", nil},
		{"`rackpower --central unix:///c.sock`, the rackpower project", nil},
		{"`rackpower of r1n1`", []string{"no command rackpower of"}},
		{"`rackpower brake show|free`", []string{"brake free"}},
		{"    rackpower off r1n1 --why TEXT   # --reason\n", []string{"no flag --why"}},
		{"`rackpower-central serve --name r1`", []string{"no flag --name"}},
		{"    X=1 rackpower off r1n1; bin/rackpower agent -o json\n", []string{"no flag -o"}},
	} {
		expect(t, Commands(help, Doc{"README.md", c.text}), c.want...)
	}
}

func TestRulesFindsWhatIsNotThere(t *testing.T) {
	rules := "# Rules\n\n## 1. One\n\n## 2. Two\n"
	for _, c := range []struct {
		text string
		want []string
	}{
		{"// as rules 2 say, and rules 1 and 2", nil},
		{"// the three rules of three", nil},
		{"// rules 3", []string{"rules 3"}},
		{"// rules 1 to 4", []string{"rules 4"}},
		{"// section 2 of the rules", []string{"say rules N"}},
	} {
		expect(t, Rules(rules, Doc{"a.go", c.text}), c.want...)
	}
}

func TestRoutesAreCompared(t *testing.T) {
	parse := func(body string) []*ast.File {
		f, err := parser.ParseFile(token.NewFileSet(), "a.go", "package a\nfunc f() {\n"+body+"\n}", 0)
		if err != nil {
			t.Fatal(err)
		}
		return []*ast.File{f}
	}
	served := Registered(parse(`mux.HandleFunc("GET /v1/nodes", f); mux.HandleFunc("POST /v1/ops/{id}/cancel", f); log("GET it")`))
	called := Called(parse(`list[Node](ctx, c, "/v1/nodes?select="+x); call(c, http.MethodPost, "/v1/ops/"+url.PathEscape(id)+"/cancel", in)
	call(c, http.MethodGet, fmt.Sprintf("/v1/audit?limit=%d", n), nil)`))
	documented := Routes("//\tGET    /v1/nodes       text\n//\tPOST   /v1/ops/{op}/cancel\n//\tPOST   /v1/nodes")
	if want := []string{"GET /v1/nodes", "POST /v1/ops/{}/cancel"}; !slices.Equal(served, want) {
		t.Errorf("served %q, want %q", served, want)
	}
	expect(t, Differ("mux", served, "client", called), "GET /v1/audit: in client and not in mux")
	expect(t, Differ("mux", served, "doc", documented), "POST /v1/nodes: in doc and not in mux")
	expect(t, Differ("mux", append(served, "GET /v1/new"), "doc", served), "GET /v1/new: in mux and not in doc")
}

func TestReadHelp(t *testing.T) {
	h := ReadHelp(`NAME:
   rackpower - controls
DESCRIPTION:
   off     in prose
   --prose in prose
COMMANDS:
   look:
     status, st  shows
     ops         lists
   off  turns off
OPTIONS:
   --output FORMAT, -o FORMAT  print as FORMAT, see --input
   --yes, -y                   do not ask
`)
	if want := []string{"status", "st", "ops", "off"}; !slices.Equal(h.Commands, want) {
		t.Errorf("commands %q, want %q", h.Commands, want)
	}
	if want := []string{"--output", "-o", "--yes", "-y"}; !slices.Equal(h.Flags, want) {
		t.Errorf("flags %q, want %q", h.Flags, want)
	}
}

func TestFloorsAreCompared(t *testing.T) {
	layers := `var floors = map[string]int{"rackpower/agent": 2, "rackpower/power/ipmi":  1,}`
	for _, c := range []struct {
		text string
		want []string
	}{
		{"| 2 | `agent` |\n| 1 | `power/ipmi` (a driver) |\n", nil},
		{"| 2 | `agent`, `power/ipmi` |\n", []string{"power/ipmi is on floor 1"}},
		{"| 2 | `agent` |\n", []string{"power/ipmi is on floor 1"}},
		{"| 2 | `agent`, `gone` |\n| 1 | `power/ipmi` |\n", []string{"lists package gone"}},
	} {
		expect(t, Floors(layers, Doc{"a.md", c.text}), c.want...)
	}
}

func TestWideFindsLongLines(t *testing.T) {
	text := "a line of prose that is long\n```\n12345678\n\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\n```\n"
	expect(t, Wide(8, Doc{"a.md", text}))
	expect(t, Wide(7, Doc{"a.md", text}), "8 columns: 12345678", "8 columns")
}
