// Package docscheck checks documentation against the repository: that files, make verbs,
// tests and commands that it names exist, that the routes of the API are the documented
// ones, and that comments cite rules that are there. Its tests run it over the whole
// repository; each check has a test of its own on input that is wrong.
package docscheck

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Doc is one document: a Markdown file, or the text of a package comment.
type Doc struct {
	Path string // within the repository
	Text string
}

// Markdown is read no further than this needs: links, code spans, and code blocks, fenced
// or indented by four spaces.
var (
	fence    = regexp.MustCompile("^\\s*```")
	span     = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s#]+)(?:#[^)]*)?\)`)
	fileName = regexp.MustCompile(`^[\w*{][\w./*{},-]*\.(go|md|sql|txt|sh|yaml|yml|service|socket|conf|mod|target)$`)
)

// code returns the spans and the lines of blocks that are code.
func (d Doc) code() (spans, lines []string) {
	inFence, joined := false, ""
	for line := range strings.Lines(d.Text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case fence.MatchString(line):
			inFence = !inFence
			continue
		case inFence || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t"):
			if joined += strings.TrimSpace(line); strings.HasSuffix(joined, `\`) {
				joined = strings.TrimSuffix(joined, `\`)
				continue
			}
			lines = append(lines, joined)
			joined = ""
		default:
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				spans = append(spans, m[1])
			}
		}
	}
	return spans, lines
}

// Paths reports names of files and directories that are not in the repository. A name is
// looked for beside the document and at the root; one without a directory anywhere.
func Paths(repo fs.FS, d Doc) (wrong []string) {
	for _, m := range link.FindAllStringSubmatch(d.Text, -1) {
		if !strings.Contains(m[1], ":") && !exists(repo, path.Join(path.Dir(d.Path), m[1])) {
			wrong = append(wrong, fmt.Sprintf("%s links to %s, which is not there", d.Path, m[1]))
		}
	}
	spans, _ := d.code()
	for _, s := range spans {
		if !isPath(repo, s) || found(repo, d, s) {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%s names %s, which is not there", d.Path, s))
	}
	return wrong
}

// isPath reports whether a code span is meant to be a file of the repository: it begins
// with one of its directories, or is a name that sources and documents have.
func isPath(repo fs.FS, s string) bool {
	if strings.ContainsAny(s, " ~$:<>|=%()") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "-") {
		return false
	}
	s = strings.TrimPrefix(s, "./")
	first, _, isDir := strings.Cut(s, "/")
	if isDir && exists(repo, first) {
		return !strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") || fileName.MatchString(s)
	}
	return fileName.MatchString(s)
}

func found(repo fs.FS, d Doc, s string) bool {
	s = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(s, "./"), "/..."), "NNNN", "*")
	if exists(repo, path.Join(path.Dir(d.Path), s)) || exists(repo, path.Clean(s)) {
		return true
	}
	if strings.Contains(s, "/") {
		return false
	}
	there := false
	_ = fs.WalkDir(repo, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && strings.HasPrefix(e.Name(), ".git") {
			return fs.SkipDir
		}
		if ok, _ := path.Match(s, e.Name()); ok {
			there = true
			return fs.SkipAll
		}
		return nil
	})
	return there
}

func exists(repo fs.FS, name string) bool {
	hits, err := fs.Glob(repo, path.Clean(name))
	return err == nil && len(hits) > 0
}

var (
	makeLine = regexp.MustCompile(`(?:^|[;&(]\s*|\$ |sudo )make((?: [a-z][a-z-]*)+)`)
	target   = regexp.MustCompile(`(?m)^([a-z][a-z-]*(?: [a-z][a-z-]*)*):(?:[^=]|$)`)
)

// Verbs reports verbs of make that the Makefile does not have.
func Verbs(makefile string, d Doc) (wrong []string) {
	have := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(makefile, -1) {
		for _, v := range strings.Fields(m[1]) {
			have[v] = true
		}
	}
	spans, lines := d.code()
	for _, text := range append(spans, lines...) {
		text, _, _ = strings.Cut(text, "  ")
		for _, m := range makeLine.FindAllStringSubmatch(text, -1) {
			for _, v := range strings.Fields(m[1]) {
				if !have[v] {
					wrong = append(wrong, fmt.Sprintf("%s says make %s, which is not in the Makefile", d.Path, v))
				}
			}
		}
	}
	return wrong
}

var (
	goTest  = regexp.MustCompile(`go test [^;&]*`)
	pattern = regexp.MustCompile(`-(run|bench|fuzz)[ =]'?([^'\s]+)'?`)
	testPkg = regexp.MustCompile(`(?:^|\s)\./([\w/-]+)`)
	varName = regexp.MustCompile(`\b((?:RACKPOWER|PROOF|SOAK|FUZZ)[A-Z_]*)=`)
)

// Tests reports go test lines whose package is not there or whose pattern matches no
// test of it, and variables that nothing reads. names returns the names of the tests,
// benchmarks and fuzz targets of a directory; source is where variables are read.
func Tests(repo fs.FS, names func(dir string) []string, source string, d Doc) (wrong []string) {
	spans, lines := d.code()
	for _, text := range append(spans, lines...) {
		for _, m := range varName.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(source, m[1]) {
				wrong = append(wrong, fmt.Sprintf("%s sets %s, which nothing reads", d.Path, m[1]))
			}
		}
		for _, line := range goTest.FindAllString(text, -1) {
			pkg := testPkg.FindStringSubmatch(line)
			if pkg == nil || strings.Contains(line, "./...") {
				continue
			}
			if !exists(repo, pkg[1]) {
				wrong = append(wrong, fmt.Sprintf("%s tests ./%s, which is not there", d.Path, pkg[1]))
				continue
			}
			for _, m := range pattern.FindAllStringSubmatch(line, -1) {
				if !matchesAny(m[2], names(pkg[1])) {
					wrong = append(wrong, fmt.Sprintf("%s: no test of ./%s matches %s", d.Path, pkg[1], m[2]))
				}
			}
		}
	}
	return wrong
}

func matchesAny(expr string, names []string) bool {
	re, err := regexp.Compile(strings.Split(expr, "/")[0])
	return err == nil && (expr == "^$" || slices.ContainsFunc(names, re.MatchString))
}

// Help is what a command's --help names.
type Help struct {
	Commands []string
	Flags    []string // with their dashes
}

var (
	command  = regexp.MustCompile(`(?:^|[\s;&(])(?:bin/|\./)?(rackpower(?:-central)?)((?:\s+[^;&#)]+)?)`)
	verb     = regexp.MustCompile(`^[a-z][a-z-]*(\|[a-z][a-z-]*)*$`)
	flagWord = regexp.MustCompile(`^\[?(--?[a-z][a-z-]*)(=.*)?\]?$`)
)

// Commands reports command lines with commands or flags that there are not. help asks a
// binary of that name, and fails where the command does not exist.
func Commands(help func(binary string, words ...string) (Help, error), d Doc) (wrong []string) {
	spans, lines := d.code()
	for _, s := range spans {
		if strings.HasPrefix(strings.TrimPrefix(s, "bin/"), "rackpower") {
			lines = append(lines, s)
		}
	}
	for _, line := range lines {
		line, _, _ = strings.Cut(line, " # ")
		for _, m := range command.FindAllStringSubmatch(line, -1) {
			for _, w := range commandLine(help, m[1], strings.Fields(m[2])) {
				wrong = append(wrong, fmt.Sprintf("%s: %s: %s", d.Path, strings.TrimSpace(m[0]), w))
			}
		}
	}
	return wrong
}

// commandLine walks down the commands that a line names and then looks at its flags.
func commandLine(help func(string, ...string) (Help, error), binary string, words []string) (wrong []string) {
	if len(words) > 0 && strings.HasPrefix(words[0], "--") && words[0] != "--help" {
		return nil // a flag of a command that is named behind it
	}
	var at []string
	h, err := help(binary)
	for err == nil && len(words) > 0 && len(h.Commands) > 0 && verb.MatchString(words[0]) {
		alternatives := strings.Split(words[0], "|")
		for _, a := range alternatives {
			if !slices.Contains(h.Commands, a) {
				return []string{fmt.Sprintf("no command %s %s", strings.Join(append([]string{binary}, at...), " "), a)}
			}
		}
		at, words = append(at, alternatives[0]), words[1:]
		h, err = help(binary, at...)
	}
	if err != nil {
		return []string{err.Error()}
	}
	for _, w := range words {
		m := flagWord.FindStringSubmatch(w)
		switch {
		case w == "--" || w == "|" || w == ">" || strings.HasPrefix(w, "---"):
			return wrong // operands, another command, or a drawing
		case m != nil && m[1] != "--help" && !slices.Contains(h.Flags, m[1]):
			wrong = append(wrong, fmt.Sprintf("no flag %s", m[1]))
		}
	}
	return wrong
}

var (
	rulesCited = regexp.MustCompile(`\brules (\d+)(?:(?:, | and | to )(\d+))*`)
	number     = regexp.MustCompile(`\d+`)
	heading    = regexp.MustCompile(`(?m)^## (\d+)\. `)
	noSource   = regexp.MustCompile(`\bsection \d+ of the rules`)
)

// Rules reports citations of rules that are not in the document of the rules.
func Rules(rules string, d Doc) (wrong []string) {
	have := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(rules, -1) {
		have[m[1]] = true
	}
	for _, cited := range rulesCited.FindAllString(d.Text, -1) {
		for _, n := range number.FindAllString(cited, -1) {
			if !have[n] {
				wrong = append(wrong, fmt.Sprintf("%s cites rules %s, which are not in docs/rules.md", d.Path, n))
			}
		}
	}
	for _, s := range noSource.FindAllString(d.Text, -1) {
		wrong = append(wrong, fmt.Sprintf("%s cites %q: say rules N, as in docs/rules.md", d.Path, s))
	}
	return wrong
}

var (
	route = regexp.MustCompile(`\b(GET|POST|PUT|DELETE) +(/v1/[\w/{}-]*)`)
	param = regexp.MustCompile(`\{[^}]*\}`)
)

// Routes finds routes in a text, with every parameter as {}.
func Routes(text string) []string {
	var all []string
	for _, m := range route.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1]+" "+param.ReplaceAllString(m[2], "{}"))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Differ reports what only one of two lists has.
func Differ(nameA string, a []string, nameB string, b []string) (wrong []string) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			wrong = append(wrong, fmt.Sprintf("%s: in %s and not in %s", x, nameA, nameB))
		}
	}
	for _, x := range b {
		if !slices.Contains(a, x) {
			wrong = append(wrong, fmt.Sprintf("%s: in %s and not in %s", x, nameB, nameA))
		}
	}
	return wrong
}

var (
	helpTitle = regexp.MustCompile(`^[A-Z][A-Z ]+:$`)
	helpEntry = regexp.MustCompile(`^ {3,5}([a-z][a-z-]*(?:, [a-z][a-z-]*)*)(?:  |$)`)
	helpFlag  = regexp.MustCompile(`(?:^ {3,5}|, )(--?[a-z][a-z-]*)`)
)

// ReadHelp reads what --help prints.
func ReadHelp(text string) (h Help) {
	title := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if helpTitle.MatchString(line) {
			title = line
			continue
		}
		switch title {
		case "COMMANDS:":
			if m := helpEntry.FindStringSubmatch(line); m != nil {
				h.Commands = append(h.Commands, strings.Split(m[1], ", ")...)
			}
		case "OPTIONS:", "GLOBAL OPTIONS:":
			head, _, _ := strings.Cut(strings.TrimLeft(line, " "), "  ")
			for _, m := range helpFlag.FindAllStringSubmatch("   "+head, -1) {
				h.Flags = append(h.Flags, m[1])
			}
		}
	}
	return h
}

var (
	floorEntry = regexp.MustCompile(`"rackpower/([\w/-]+)":\s*(\d)`)
	floorRow   = regexp.MustCompile(`(?m)^\| (\d) \|(.*)\|$`)
)

// Floors reports packages whose floor in the document differs from that in the test of
// the layers: one lists "rackpower/PACKAGE": N, the other has a row for each N.
func Floors(layers string, d Doc) (wrong []string) {
	floors, rows := map[string]string{}, map[string]string{}
	for _, m := range floorEntry.FindAllStringSubmatch(layers, -1) {
		floors[m[1]] = m[2]
	}
	for _, row := range floorRow.FindAllStringSubmatch(d.Text, -1) {
		for _, m := range span.FindAllStringSubmatch(row[2], -1) {
			rows[m[1]] = row[1]
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(floors)) {
		if rows[pkg] != floors[pkg] {
			wrong = append(wrong, fmt.Sprintf("%s: package %s is on floor %s and listed at %q", d.Path, pkg, floors[pkg], rows[pkg]))
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(rows)) {
		if floors[pkg] == "" {
			wrong = append(wrong, fmt.Sprintf("%s lists package %s, which has no floor", d.Path, pkg))
		}
	}
	return wrong
}

// Wide reports lines of fenced blocks that do not fit a terminal.
func Wide(columns int, d Doc) (wrong []string) {
	inFence := false
	for line := range strings.Lines(d.Text) {
		line = strings.TrimRight(line, "\n")
		if fence.MatchString(line) {
			inFence = !inFence
		} else if n := utf8.RuneCountInString(line); inFence && n > columns {
			wrong = append(wrong, fmt.Sprintf("%s: %d columns: %s", d.Path, n, line))
		}
	}
	return wrong
}
