package main

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
)

// Flags that many commands have. Each call makes new ones: the library writes into
// them.

func reasonFlag(required bool) cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: "`TEXT` for the audit log", Required: required}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask for confirmation"}
}

// lastingFlag is how long something is to last; until says what ends it otherwise.
func lastingFlag(name, until string) cli.Flag {
	return &settings.TimeFlag{StringFlag: cli.StringFlag{
		Name: name, Usage: "end it after `DURATION`, such as 90m, 2h or 1d, or at a time", DefaultText: until,
	}}
}

// sinceFlag is since when something is shown.
func sinceFlag(usage string) cli.Flag {
	return &settings.TimeFlag{StringFlag: cli.StringFlag{Name: "since", Usage: usage + ": 2006-01-02T15:04:05Z, or 2h or 1d ago"}}
}

// when is the time that a flag gives, or what is so long ago; zero without the flag.
func (s *session) when(flag string) (time.Time, error) {
	text := s.c.String(flag)
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := settings.ParseDuration(text); err == nil {
		return s.Now().Add(-d), nil
	}
	at, err := settings.ParseTime(text, s.Location())
	if err != nil {
		return at, settings.Usage("--%s: %v", flag, err)
	}
	return at, nil
}

// excludeName is the flag that takes nodes out again, since ! is not for every shell.
const excludeName = "exclude"

// aliases are other words for commands, which hands type by themselves. reboot is a reset,
// as the button is called: what is off stays off. poweroff is hard, as that of ipmitool is.
var aliases = map[string][]string{
	"on": {"poweron"}, "off": {"poweroff"}, "soft-off": {"shutdown"},
	"reset": {"reboot"}, "cycle": {"powercycle"}, "list": {"ls"}, "rm": {"remove", "delete"},
}

// finish gives all commands what they have by a rule: aliases, --exclude where they take
// NODES, and the exit statuses that they have.
func finish(commands []*cli.Command) {
	for _, c := range commands {
		c.Aliases = append(c.Aliases, aliases[c.Name]...)
		c.Description = strings.Replace(c.Description, exitHelp, exitHelpOf(c), 1)
		if strings.Contains(c.ArgsUsage, "NODES") {
			address := func(f cli.Flag) bool { return settings.NameOf(f) == "central" || settings.NameOf(f) == "socket" }
			at := max(0, slices.IndexFunc(c.Flags, address))
			c.Flags = slices.Insert(c.Flags, at, cli.Flag(&cli.StringSliceFlag{Name: excludeName, Usage: "leave out `NODES`, as ! does; may be repeated"}))
		}
		finish(c.Subcommands)
	}
}

// reason is what --reason says, where one is wanted.
func (k connection) reason() (string, error) {
	text := strings.TrimSpace(k.c.String("reason"))
	if text == "" {
		return "", settings.Usage("--reason is empty")
	}
	return text, nil
}

// lasting is the duration of a lastingFlag, 0 when it has none.
func (s *session) lasting(flag string) (time.Duration, error) {
	text := s.c.String(flag)
	if text == "" {
		return 0, nil
	}
	d, err := settings.ParseDuration(text)
	if err == nil && d <= 0 {
		return 0, settings.Usage("--%s: %s is not positive; omit the flag for no end", flag, d)
	}
	if err == nil {
		return d, nil
	}
	at, err := settings.ParseTime(text, s.Location())
	if err != nil {
		return 0, settings.Usage("--%s: %v", flag, err)
	}
	if d = at.Sub(s.Now()); d <= 0 {
		return 0, settings.Usage("--%s: %s is over", flag, s.Time(at))
	}
	return d, nil
}

func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "output", Aliases: []string{"o"}, Value: "table",
			Usage: "output `FORMAT`: " + strings.Join(printer.Formats, ", ") + ", go-template=TEXT",
		},
		&cli.BoolFlag{Name: "no-color", Usage: "do not use colors (also NO_COLOR)"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
	}
}

func newPrinter(c *cli.Context, more ...string) (printer.Printer, error) {
	p := printer.Printer{Out: c.App.Writer, Err: c.App.ErrWriter, Quiet: c.Bool("quiet"), Clock: clockOf(c)}
	p.Format = cmp.Or(c.String("output"), "table") // a fence agent has no such flag
	p.Color = term.Is(p.Out) && !c.Bool("no-color") && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if text, is := strings.CutPrefix(p.Format, printer.TemplateFormat+"="); is {
		var err error
		if p.Template, err = template.New("-o").Parse(text); err != nil {
			return p, settings.Usage("%v", err)
		}
		p.Format = printer.TemplateFormat
		return p, nil
	}
	known := append(slices.Clone(printer.Formats), more...)
	if !slices.Contains(known, p.Format) {
		return p, settings.Usage("-o: unknown format %q: want one of %s, go-template=TEXT", p.Format, strings.Join(known, ", "))
	}
	return p, nil
}

// clockKey is where an App has a clock that is not the machine's.
const clockKey = "clock"

// clockOf is the clock of a command line.
func clockOf(c *cli.Context) printer.Clock {
	if clock, ok := c.App.Metadata[clockKey].(printer.Clock); ok {
		return clock
	}
	return printer.Clock{Now: time.Now, Zone: time.Local}
}
