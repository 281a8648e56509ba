package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/term"
	"rackpower/power"
)

// TestHelpTellsTheStatuses: every command explains its exit statuses and shows an
// example.
func TestHelpTellsTheStatuses(t *testing.T) {
	f := newFake(t)
	var titles []string
	var walk func(prefix string, list []*cli.Command)
	walk = func(prefix string, list []*cli.Command) {
		for _, c := range list {
			titles = append(titles, prefix+c.Name)
			walk(prefix+c.Name+" ", c.Subcommands)
		}
	}
	walk("", newApp().Commands)
	if len(titles) < 60 {
		t.Fatalf("%q", titles)
	}
	for _, title := range titles {
		got := f.runContext(t.Context(), append(strings.Fields(title), "--help"))
		if got.exit != 0 || !strings.Contains(got.out, "EXIT STATUS") || !strings.Contains(got.out, "EXAMPLES") ||
			!strings.Contains(got.out, "rackpower "+title) {
			t.Errorf("%s --help: status %d\n%s%s", title, got.exit, got.out, got.errs)
		}
		for line := range strings.Lines(got.out) {
			if width := term.Width(strings.TrimRight(line, "\n")); width > 80 {
				t.Errorf("%s --help: a line of %d columns: %s", title, width, line)
			}
			for _, word := range []string{"LONG", "DO", "WHAT", "HOW", "TIMES", "NUMBER", "VALUE"} {
				if slices.Contains(strings.Fields(line), word) {
					t.Errorf("%s --help: the placeholder %s says nothing: %s", title, word, line)
				}
			}
		}
	}
	for _, absent := range []string{"agent-token"} {
		if got := f.run(absent + " x"); got.exit != 2 {
			t.Errorf("%s: status %d", absent, got.exit)
		}
	}
}

// TestHelpHasTheStatusesOfItsCommand has those left out that a command cannot end with.
func TestHelpHasTheStatusesOfItsCommand(t *testing.T) {
	f := newFake(t)
	for title, want := range map[string]string{
		"off": "012345", "apply": "012345", "wait": "012345", "status": "01235", "node rm": "01235", "sim": "012", "journal dump": "012",
		"demo": "012", "": "012345", "node": "012345", "node set-status": "012345",
	} {
		_, section, _ := strings.Cut(f.runContext(t.Context(), append(strings.Fields(title), "--help")).out, "EXIT STATUS:\n")
		got := ""
		for line := range strings.Lines(section) {
			if strings.HasPrefix(line, "   ") && line[3] >= '0' && line[3] <= '9' && line[4] == ' ' {
				got += line[3:4]
			}
		}
		if got != want {
			t.Errorf("%q has the statuses %s, want %s", title, got, want)
		}
	}
}

// TestSettingsFileReachesTheCommands also guards that flags of one name take the
// same kind of value everywhere: a file serves all commands.
func TestSettingsFileReachesTheCommands(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	file := filepath.Join(t.TempDir(), "c.yaml")
	for text, c := range map[string]struct {
		exit      int
		out, errs string
	}{
		"output: name\n":               {0, "r1n01\n", ""},
		"outputt: name\n":              {2, "", file + ":1: outputt: unknown key (did you mean output?)"},
		"central: x\noutput: [json]\n": {2, "", file + ":2: output: want a text"},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, text, f.runContext(t.Context(), []string{"status", "--config", file}), c.exit, c.out, c.errs)
	}
}
