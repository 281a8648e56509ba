package settings

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func shellApp() *cli.App {
	return &cli.App{
		Name: "tool", Usage: "do things",
		Metadata: map[string]any{},
		Commands: []*cli.Command{
			{Name: "node", Usage: "nodes", Subcommands: []*cli.Command{
				{
					Name: "add", Usage: "add a node's name", ArgsUsage: "NAME", Action: func(*cli.Context) error { return nil },
					Description: "Text.\n'quoted'\n\nEXAMPLES\n   tool node add x",
				},
			}},
			{
				Name: "set", Usage: "set", ArgsUsage: "NODES... on|off", Flags: []cli.Flag{
					&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "output `FORMAT`: table, wide or json"},
					&cli.StringFlag{Name: "file", Usage: "read `FILE`"},
					&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
					&cli.StringSliceFlag{Name: "tag", Usage: "`TEXT`; may be repeated"},
				},
			},
			{Name: "secret", Hidden: true},
		},
	}
}

// TestCompleteOffersWhatMayStandThere goes through the places of a command line.
func TestCompleteOffersWhatMayStandThere(t *testing.T) {
	values := func(a Asked) []Candidate {
		if a.Kind == "NODES" {
			return []Candidate{{Text: "n1"}, {Text: "n2"}}
		}
		return nil
	}
	for line, want := range map[string]string{
		"":                        "node set",
		"no":                      "node",
		"sec":                     "",
		"node ":                   "add",
		"node add ":               "",
		"bogus ":                  "",
		"set ":                    "n1 n2",
		"set n1 ":                 "n1 n2 on off",
		"set n1 of":               "n1 n2 off", // values are asked with the word; the one here ignores it
		"set --o":                 "--output",
		"set --output ":           "table wide json",
		"set -o j":                "json",
		"set --output=w":          "--output=wide",
		"set --output json --":    "--file --yes --tag --help",
		"set --tag a --t":         "--tag",
		"set --file ":             completeFiles,
		"set --file=x":            completeFiles,
		"set --yes --output wide": "wide",
		"set -- --":               "n1 n2",
	} {
		words := strings.Split(line, " ")
		var got []string
		for _, c := range complete(shellApp(), words, values) {
			got = append(got, c.Text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestBashWordsAreThoseOfTheShell: quotes are taken off, and what bash keeps of the last word is cut.
func TestBashWordsAreThoseOfTheShell(t *testing.T) {
	for line, want := range map[string]string{
		"tool set n1":          "set|n1/",
		"tool set ":            "set|/",
		"tool set --output=j":  "set|--output=j/--output=",
		"tool set @status:RE":  "set|@status:RE/@status:",
		"tool set 'a b' \"c d": "set|a b|c d/",
		`tool set a\ b`:        "set|a b/",
	} {
		words, cut := bashWords(line, " \t\n\"'@><=;|&(:")
		if got := strings.Join(words, "|") + "/" + cut; got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// TestManualIsWellFormed has mandoc read the pages.
func TestManualIsWellFormed(t *testing.T) {
	app := shellApp()
	prepare(app)
	dir := t.TempDir()
	if err := writeManual(app, "1", dir); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(pages) != 4 {
		t.Errorf("%q", pages)
	}
	lintManual(t, pages)
}

func lintManual(t *testing.T, pages []string) {
	t.Helper()
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("LEFT OUT: mandoc is not installed (apt-get install mandoc)")
	}
	out, _ := exec.Command("mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "missing date") { // a build without a commit
			t.Error(line)
		}
	}
}
