package main

import (
	"os"
	"slices"
	"strings"
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
	return &cli.DurationFlag{Name: name, Usage: "end it after `DURATION`, such as 90m or 2h", DefaultText: until}
}

// excludeName is the flag that takes nodes out again, since ! is not for every shell.
const excludeName = "exclude"

// addExclude gives every command that takes NODES that flag.
func addExclude(commands []*cli.Command) {
	for _, c := range commands {
		if strings.Contains(c.ArgsUsage, "NODES") {
			at := max(0, slices.IndexFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains([]string{"central", "socket"}, f.Names()[0]) }))
			c.Flags = slices.Insert(c.Flags, at, cli.Flag(&cli.StringSliceFlag{Name: excludeName, Usage: "leave out `NODES`, as ! does; may be repeated"}))
		}
		addExclude(c.Subcommands)
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
func (k connection) lasting(flag string) (time.Duration, error) {
	d := k.c.Duration(flag)
	if k.c.IsSet(flag) && d <= 0 {
		return 0, settings.Usage("--%s: %s is not positive; omit the flag for no end", flag, d)
	}
	return d, nil
}

func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "output `FORMAT`: " + strings.Join(printer.Formats, ", ")},
		&cli.BoolFlag{Name: "no-color", Usage: "do not use colors (also NO_COLOR)"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
	}
}

func newPrinter(c *cli.Context, more ...string) (printer.Printer, error) {
	p := printer.Printer{Out: c.App.Writer, Err: c.App.ErrWriter, Format: c.String("output"), Quiet: c.Bool("quiet"), Clock: clockOf(c)}
	p.Color = term.Is(p.Out) && !c.Bool("no-color") && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	known := append(slices.Clone(printer.Formats), more...)
	if !slices.Contains(known, p.Format) {
		return p, settings.Usage("-o: unknown format %q: want one of %s", p.Format, strings.Join(known, ", "))
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
