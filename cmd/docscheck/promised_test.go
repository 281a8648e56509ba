package docscheck

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rackpower/central"
	"rackpower/cmd/settings"
)

var promise = flag.Bool("promise", false, "add what is new to testdata/promised.txt")

// TestNothingPromisedGoes holds docs/releases.md: commands, flags, exit statuses, reason words, and
// routes, parameters and fields of the API stay. testdata/promised.txt has those of the last
// release, or of when somebody wrote it before there was one; -promise adds what is new. A line
// that goes, or says another type, breaks a promise.
func TestNothingPromisedGoes(t *testing.T) {
	const file = "testdata/promised.txt"
	now := slices.Concat(promisedCommands(t), promisedStatuses(), promisedReasons(t), promisedAPI(t))
	if len(now) < 2000 {
		t.Errorf("only %d promises", len(now))
	}
	text, err := os.ReadFile(file)
	if err != nil && !*promise {
		t.Fatal(err)
	}
	kept := unfold(string(text))
	for _, line := range kept {
		if !slices.Contains(now, line) {
			t.Errorf("promised, and gone: %s", line)
		}
	}
	if *promise {
		if err := os.WriteFile(file, []byte(fold(append(kept, now...))), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if len(kept) < 2000 {
		t.Errorf("only %d were promised", len(kept))
	}
}

// fold writes lines in order, each once, and a command with all its flags in one.
func fold(lines []string) string {
	slices.Sort(lines)
	text, last := "", ""
	for _, line := range slices.Compact(lines) {
		if command, flag, found := strings.Cut(line, " --"); found && command == last {
			text += " --" + flag
			continue
		}
		text += "\n" + line
		last = line
	}
	return strings.TrimSpace(text) + "\n"
}

// unfold is the inverse of fold.
func unfold(text string) (lines []string) {
	for line := range strings.Lines(text) {
		parts := strings.Split(strings.TrimSpace(line), " --")
		if !strings.HasPrefix(line, "command ") {
			parts = []string{strings.TrimSpace(line)}
		}
		lines = append(lines, parts[0])
		for _, flag := range parts[1:] {
			lines = append(lines, parts[0]+" --"+flag)
		}
	}
	return lines
}

// promisedCommands are the commands of both programs and their flags.
func promisedCommands(t *testing.T) (lines []string) {
	help := helper(binaries(t))
	var visit func(words []string)
	visit = func(words []string) {
		h, err := help(words[0], words[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		name := "command " + strings.Join(words, " ")
		lines = append(lines, name)
		for _, flag := range h.Flags {
			lines = append(lines, name+" --"+strings.TrimLeft(flag, "-"))
		}
		for _, command := range h.Commands {
			if command != "help" {
				visit(append(slices.Clone(words), command))
			}
		}
	}
	visit([]string{"rackpower"})
	visit([]string{"rackpower-central"})
	return lines
}

func promisedStatuses() (lines []string) {
	for what, status := range map[string]int{
		"failed": settings.ExitFailed, "usage": settings.ExitUsage, "unreachable": settings.ExitUnreachable, "pending": settings.ExitPending,
		"refused": settings.ExitRefused,
	} {
		lines = append(lines, fmt.Sprintf("exit %d %s", status, what))
	}
	return lines
}

// promisedReasons are the words of docs/reasons.md, which a test of package power makes.
func promisedReasons(t *testing.T) (lines []string) {
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(read(t, "docs/reasons.md").Text, -1) {
		lines = append(lines, "reason "+m[1])
	}
	return lines
}

// promisedAPI is what central's own description has: routes, parameters, and fields with their types.
func promisedAPI(t *testing.T) (lines []string) {
	c, err := central.New(central.Config{Data: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/openapi.json", nil))
	type schema struct {
		Type       any
		Ref        string `json:"$ref"`
		Properties map[string]json.RawMessage
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		}
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			route := "api " + strings.ToUpper(method) + " " + path
			lines = append(lines, route)
			for _, p := range op.Parameters {
				lines = append(lines, route+" "+p.In+" "+p.Name)
			}
		}
	}
	for name, s := range doc.Components.Schemas {
		for field, of := range s.Properties {
			lines = append(lines, "field "+name+"."+field+" "+string(of))
		}
	}
	return lines
}
