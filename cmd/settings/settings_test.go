package settings

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// bench is an app with one command of each kind; seen is what its action found.
type bench struct {
	app       *cli.App
	out, errs bytes.Buffer
	seen      string
}

func newBench() *bench {
	b := &bench{}
	look := func(c *cli.Context) error {
		b.seen = fmt.Sprintf("%s %q on=%v wait=%s n=%d for=%s join=%q", c.Command.Name, c.Args().Slice(), c.Bool("on"), c.String("wait"),
			c.Int("count"), c.Duration("timeout"), c.StringSlice("join"))
		return nil
	}
	flags := func() []cli.Flag {
		return []cli.Flag{
			&cli.BoolFlag{Name: "on", Aliases: []string{"y"}},
			&cli.StringFlag{Name: "wait", Aliases: []string{"w"}, Value: "verified"},
			&cli.IntFlag{Name: "count"},
			&cli.DurationFlag{Name: "timeout"},
			&cli.StringSliceFlag{Name: "join"},
		}
	}
	b.app = &cli.App{
		Name: "prog", Version: "v1", Writer: &b.out, ErrWriter: &b.errs,
		Metadata: map[string]any{DaemonsKey: Daemons{"run": "PROG"}},
		Commands: []*cli.Command{
			{Name: "do", ArgsUsage: "NODES...", Flags: flags(), Action: look},
			{Name: "look", ArgsUsage: "[NODES]", Flags: append(flags(), &cli.BoolFlag{Name: "fresh"}), Action: look},
			{Name: "run", ArgsUsage: "[NODES]", Flags: append(flags(), &cli.BoolFlag{Name: "yes"}), Action: look},
			{
				Name: "print", ArgsUsage: "NODES...", Flags: append(flags(), &cli.StringFlag{Name: "output", Aliases: []string{"o"}}),
				Action: func(c *cli.Context) error {
					b.seen = c.String("output") + " on=" + fmt.Sprint(c.Bool("on"))
					return nil
				},
			},
			{Name: "node", Subcommands: []*cli.Command{{
				Name: "add", ArgsUsage: "NAME",
				Flags: []cli.Flag{&cli.StringFlag{Name: "rack", Required: true}}, Action: look,
			}}},
			{Name: "fail", Action: func(*cli.Context) error { return Exit(ExitRefused, "refused: %s", "busy") }},
			{Name: "quiet", Action: func(*cli.Context) error { return Exit(ExitFailed, "") }},
			{Name: "serve", Flags: LogFlags(), Action: func(c *cli.Context) error {
				log, err := Logger(c)
				if err == nil {
					log.Info("started", "node", "n1", "took", 1500*time.Millisecond)
				}
				return err
			}},
		},
	}
	return b
}

func (b *bench) run(args string) int {
	return RunContext(context.Background(), b.app, append([]string{"prog"}, strings.Fields(args)...))
}

func TestFlagsStandOnBothSides(t *testing.T) {
	for args, want := range map[string]string{
		"do a b":                           `do ["a" "b"] on=false wait=verified n=0 for=0s join=[]`,
		"do a --on b --wait none":          `do ["a" "b"] on=true wait=none n=0 for=0s join=[]`,
		"do --wait=none -y a":              `do ["a"] on=true wait=none n=0 for=0s join=[]`,
		"do a -w none --timeout 90s":       `do ["a"] on=false wait=none n=0 for=1m30s join=[]`,
		"do a --on=false":                  `do ["a"] on=false wait=verified n=0 for=0s join=[]`,
		"do -- --on -x":                    `do ["--on" "-x"] on=false wait=verified n=0 for=0s join=[]`,
		"do a --count 3 -- --on":           `do ["a" "--on"] on=false wait=verified n=3 for=0s join=[]`,
		"do a --count -3":                  `do ["a"] on=false wait=verified n=-3 for=0s join=[]`,
		"do - !x":                          `do ["-" "!x"] on=false wait=verified n=0 for=0s join=[]`,
		"--wait none do a":                 `do ["a"] on=false wait=none n=0 for=0s join=[]`,
		"look --join a:1 n1 --join=b:2":    `look ["n1"] on=false wait=verified n=0 for=0s join=["a:1" "b:2"]`,
		"look":                             `look [] on=false wait=verified n=0 for=0s join=[]`,
		"node add n1 --rack r1":            `add ["n1"] on=false wait= n=0 for=0s join=[]`,
		"node --rack r1 add n1":            `add ["n1"] on=false wait= n=0 for=0s join=[]`,
		"do look node --wait look":         `do ["look" "node"] on=false wait=look n=0 for=0s join=[]`,
		"do a,b help":                      `do ["a,b" "help"] on=false wait=verified n=0 for=0s join=[]`,
		"do a --wait -- b":                 "",
		"do a --wait":                      "",
		"do a --wait none --wait accepted": "",
	} {
		b := newBench()
		exit := b.run(args)
		if want == "" {
			if exit != ExitUsage || b.seen != "" {
				t.Errorf("%s: status %d, ran %s", args, exit, b.seen)
			}
			continue
		}
		if exit != 0 || b.seen != want {
			t.Errorf("%s: status %d\ngot  %s\nwant %s\n%s", args, exit, b.seen, want, b.errs.String())
		}
	}
}

func TestUsageErrorsAreOneLineAndAHint(t *testing.T) {
	for args, want := range map[string]string{
		"":                          "prog: a command is missing\nsee prog --help\n",
		"dp a":                      "prog: unknown command \"dp\" (did you mean do?)\nsee prog --help\n",
		"do":                        "prog do: NODES is missing\nsee prog do --help\n",
		"do a --wiat none":          "prog do: unknown flag --wiat (did you mean --wait?)\nsee prog do --help\n",
		"do a --fresh":              "prog do: unknown flag --fresh: it belongs to look\nsee prog do --help\n",
		"--fresh do a":              "prog do: unknown flag --fresh: it belongs to look\nsee prog do --help\n",
		"do a -x":                   "prog do: unknown flag -x\nsee prog do --help\n",
		"do a --timeout soon":       "prog do: --timeout: \"soon\" is not a duration such as 90s, 5m, 1h30m or 1d\nsee prog do --help\n",
		"do a --timeout -5s":        "prog do: --timeout: \"-5s\" is negative\nsee prog do --help\n",
		"do a --count many":         "prog do: --count: \"many\" is not a whole number\nsee prog do --help\n",
		"do a --on=maybe":           "prog do: --on: \"maybe\" is not true or false\nsee prog do --help\n",
		"do a --wait":               "prog do: --wait needs a value\nsee prog do --help\n",
		"do a -w none --wait none":  "prog do: --wait is given twice\nsee prog do --help\n",
		"look a b":                  "prog look: unexpected operand \"b\": the command takes [NODES]\nsee prog look --help\n",
		"fail a":                    "prog fail: unexpected operand \"a\": the command takes none\nsee prog fail --help\n",
		"node":                      "prog node: a command is missing\nsee prog node --help\n",
		"node add n1":               "prog node add: --rack is missing\nsee prog node add --help\n",
		"serve --log-level loud":    "prog serve: --log-level: unknown level \"loud\": want debug, info, warn or error\nsee prog serve --help\n",
		"serve --log-format morse":  "prog serve: --log-format: unknown format \"morse\": want text, json or auto\nsee prog serve --help\n",
		"do a --config /nonexist/f": "prog do: cannot read the settings: open /nonexist/f: no such file or directory\n",
	} {
		b := newBench()
		if exit := b.run(args); exit != ExitUsage || b.errs.String() != want || b.seen != "" {
			t.Errorf("%q: status %d, ran %q\ngot  %swant %s", args, exit, b.seen, b.errs.String(), want)
		}
	}
}

func TestExitStatuses(t *testing.T) {
	b := newBench()
	if exit := b.run("fail"); exit != ExitRefused || b.errs.String() != "prog fail: refused: busy\n" {
		t.Errorf("%d %q", exit, b.errs.String())
	}
	b = newBench()
	if exit := b.run("quiet"); exit != ExitFailed || b.errs.String() != "" {
		t.Errorf("%d %q", exit, b.errs.String())
	}
	if got := CodeOf(fmt.Errorf("around: %w", Exit(ExitPending, "x"))); got != ExitPending {
		t.Errorf("wrapped: %d", got)
	}
	if got := CodeOf(fmt.Errorf("other")); got != ExitFailed {
		t.Errorf("any other error: %d", got)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, env := range map[string]string{
		"run --help": "$RACKPOWER_PROG_WAIT", "run a -h": "$RACKPOWER_PROG_WAIT", "help run": "$RACKPOWER_PROG_WAIT",
		"print --help": "$RACKPOWER_OUTPUT", "run --help --wiat": "",
	} {
		b := newBench()
		exit := b.run(args)
		if env != "" && (exit != 0 || !strings.Contains(b.out.String(), env) || b.seen != "") {
			t.Errorf("%s: status %d, %s", args, exit, b.out.String())
		}
		if strings.Contains(b.out.String(), "RACKPOWER_WAIT") || strings.Contains(b.out.String(), "_YES") {
			t.Errorf("%s names a variable that is not read: %s", args, b.out.String())
		}
	}
	b := newBench()
	if exit := b.run("--version"); exit != 0 || b.out.String() != "prog v1\n" {
		t.Errorf("%d %q", exit, b.out.String())
	}
}

// settingsFile writes a file of settings and returns its path.
func settingsFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rackpower.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := settingsFile(t, "wait: none\ncount: 7\njoin: [a:1, b:2]\n")
	b := newBench()
	if exit := b.run("run a --config " + file); exit != 0 || b.seen != `run ["a"] on=false wait=none n=7 for=0s join=["a:1" "b:2"]` {
		t.Fatalf("file over default: %d %s%s", exit, b.seen, b.errs.String())
	}
	t.Setenv("RACKPOWER_PROG_WAIT", "accepted")
	t.Setenv("RACKPOWER_PROG_JOIN", "c:3,d:4")
	t.Setenv("RACKPOWER_PROG_ON", "true")
	t.Setenv("RACKPOWER_PROG_TIMEOUT", "")
	t.Setenv("RACKPOWER_PROG_CONFIG", file)
	b = newBench()
	if exit := b.run("run a"); exit != 0 || b.seen != `run ["a"] on=true wait=accepted n=7 for=0s join=["c:3" "d:4"]` {
		t.Fatalf("environment over file: %d %s%s", exit, b.seen, b.errs.String())
	}
	b = newBench()
	if exit := b.run("run a -w verified --on=false --count 0 --join e:5"); exit != 0 ||
		b.seen != `run ["a"] on=false wait=verified n=0 for=0s join=["e:5"]` {
		t.Fatalf("flag over environment: %d %s%s", exit, b.seen, b.errs.String())
	}
	t.Setenv("RACKPOWER_PROG_COUNT", "lots")
	b = newBench()
	if exit := b.run("run a"); exit != ExitUsage ||
		b.errs.String() != "prog run: RACKPOWER_PROG_COUNT: \"lots\" is not a whole number\nsee prog run --help\n" {
		t.Fatalf("%d %q", exit, b.errs.String())
	}
}

// TestOneCommandsFlags: what is said for one command comes from its command line only; a
// daemon's variables are no other command's.
func TestOneCommandsFlags(t *testing.T) {
	for _, name := range []string{"ON", "WAIT", "COUNT", "YES", "RACK"} {
		t.Setenv("RACKPOWER_"+name, "true")
	}
	t.Setenv("RACKPOWER_PROG_WAIT", "none")
	t.Setenv("RACKPOWER_PROG_YES", "true")
	t.Setenv("RACKPOWER_OUTPUT", "json")
	b := newBench()
	if exit := b.run("do a"); exit != 0 || b.seen != `do ["a"] on=false wait=verified n=0 for=0s join=[]` {
		t.Errorf("%d %s%s", exit, b.seen, b.errs.String())
	}
	b = newBench()
	if exit := b.run("print a"); exit != 0 || b.seen != "json on=false" {
		t.Errorf("how to print comes from the environment: %d %s%s", exit, b.seen, b.errs.String())
	}
	b = newBench()
	if exit := b.run("node add n1"); exit != ExitUsage {
		t.Errorf("a required flag came from the environment: %d %s", exit, b.seen)
	}
	b = newBench()
	if exit := b.run("run --config " + settingsFile(t, "output: json\nyes: true\n")); exit != ExitUsage ||
		!strings.Contains(b.errs.String(), ":2: yes: no key: --yes is given on the command line, for one command") {
		t.Errorf("%d %s", exit, b.errs.String())
	}
	b = newBench()
	if exit := b.run("print a --config " + settingsFile(t, "output: yaml\nwait: none\n")); exit != 0 || b.seen != "json on=false" {
		t.Errorf("a daemon's key in the file touches no other command: %d %s%s", exit, b.seen, b.errs.String())
	}
}

func TestFileErrorsNameFileLineAndKey(t *testing.T) {
	for text, want := range map[string]string{
		"# hall 1\nwiat: none\n":     ":2: wiat: unknown key (did you mean wait?)",
		"zzzzzzz: 1\n":               ":1: zzzzzzz: unknown key",
		"wait: none\ncount: many\n":  ":2: count: \"many\" is not a whole number",
		"timeout: 5\n":               ":1: timeout: \"5\" is not a duration such as 90s, 5m, 1h30m or 1d",
		"on: [true]\n":               ":1: on: want true or false",
		"wait:\n  deep: 1\n":         ":1: wait: want a text",
		"wait: none\nwait: verify\n": "wait",
		"- wait\n":                   ":1: want lines of the form \"flag: value\"",
		"wait: [\n":                  "line",
		"config: other.yaml\n":       ":1: config: unknown key",
		"fresh: true\n":              ":1: fresh: no key: --fresh is given on the command line, for one command",
	} {
		b := newBench()
		file := settingsFile(t, text)
		exit := b.run("do a --config " + file)
		if got := b.errs.String(); exit != ExitUsage || !strings.HasPrefix(got, "prog do: "+file) || !strings.Contains(got, want) ||
			strings.Count(got, "\n") != 1 {
			t.Errorf("%q: status %d, got %qwant %q", text, exit, got, want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n"} {
		b := newBench()
		if exit := b.run("do a --config " + settingsFile(t, text)); exit != 0 {
			t.Errorf("%q: %d %s", text, exit, b.errs.String())
		}
	}
}

// TestFlagsOfOneNameMayDiffer: a value of the file has to suit one of them, and the
// command that takes it.
func TestFlagsOfOneNameMayDiffer(t *testing.T) {
	for text, c := range map[string]struct {
		exit int
		errs string
	}{
		"wait: 90s\n":  {ExitOK, ""},
		"wait: soon\n": {ExitUsage, "prog when: wait in the file of --config: \"soon\" is not a duration"},
	} {
		b := newBench()
		b.app.Metadata[DaemonsKey] = Daemons{"run": "PROG", "when": "PROG"}
		b.app.Commands = append(b.app.Commands, &cli.Command{
			Name: "when", Flags: []cli.Flag{&cli.DurationFlag{Name: "wait"}},
			Action: func(*cli.Context) error { return nil },
		})
		file := settingsFile(t, text)
		if exit := b.run("when --config " + file); exit != c.exit || !strings.HasPrefix(b.errs.String(), c.errs) {
			t.Errorf("%q: %d %s", text, exit, b.errs.String())
		}
		if exit := b.run("do a --config " + file); exit != 0 {
			t.Errorf("%q: %d %s", text, exit, b.errs.String())
		}
	}
}

func TestLogIsJSONWhereNobodyReads(t *testing.T) {
	b := newBench()
	if exit := b.run("serve"); exit != 0 {
		t.Fatal(b.errs.String())
	}
	var line struct{ Msg, Node, Took string }
	if err := json.Unmarshal(b.errs.Bytes(), &line); err != nil || line.Msg != "started" || line.Node != "n1" || line.Took != "1.5s" {
		t.Errorf("%q: %v", b.errs.String(), err)
	}
	b = newBench()
	if b.run("serve --log-format text"); !strings.Contains(b.errs.String(), "msg=started node=n1 took=1.5s") {
		t.Errorf("%q", b.errs.String())
	}
	b = newBench()
	if b.run("serve --log-level warn"); b.errs.String() != "" {
		t.Errorf("%q", b.errs.String())
	}
}

func TestRunContextEndsTheCommandsContext(t *testing.T) {
	b := newBench()
	b.app.Commands = []*cli.Command{{Name: "wait", Action: func(c *cli.Context) error { <-c.Context.Done(); return Exit(ExitPending, "") }}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if exit := RunContext(ctx, b.app, []string{"prog", "wait"}); exit != ExitPending {
		t.Error(exit)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"central", "config", "count", "on", "off"}
	for word, want := range map[string]string{
		"centrall": "central", "cnetral": "central", "conut": "count", "offf": "off", "conf": "config",
		"of": "off", "zebra": "", "": "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// FuzzTakeApart: no command line may panic, and what is run has been checked.
func FuzzTakeApart(f *testing.F) {
	for _, s := range []string{"do\na\n--on", "look\n--\n--on", "-y\ndo\nx", "node\nadd", "--wait", "-", "--=", "help\nhelp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := newBench()
		prepare(b.app)
		l, err := takeApart(b.app, strings.Split(text, "\n"))
		if err == nil && !l.help && !l.version && l.command == nil {
			t.Fatalf("%q: no command and no error", text)
		}
		if err != nil && CodeOf(err) != ExitUsage {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// TestAFileHasOneDocument has the settings of two files put together: those behind the
// mark must not be passed over.
func TestAFileHasOneDocument(t *testing.T) {
	app := &cli.App{
		Name: "x", Metadata: map[string]any{DaemonsKey: Daemons{"go": "GO"}},
		Commands: []*cli.Command{{Name: "go", Flags: []cli.Flag{&cli.StringFlag{Name: "a"}, &cli.StringFlag{Name: "b"}}}},
	}
	for text, want := range map[string]string{
		"a: 1\n---\nb: 2\n": ":2: ", "---\na: 1\n...\n---\n---\n": ":4: ", "a: 1\n---\nb: [\n": ":", "---\na: 1\n...\n# the end\n": "",
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readFile(app, path)
		if want == "" && (err != nil || len(got["a"]) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), path+want)) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
