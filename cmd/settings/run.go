package settings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"rackpower/power"
)

// Run runs a command line (os.Args) until it has ended or SIGINT, SIGTERM or SIGHUP
// ends the context of its command, and returns the exit status. What went wrong is
// said in one line on app.ErrWriter. A second signal ends the process at once.
// After a signal the process ends by that signal, unless the command is a daemon.
func Run(app *cli.App, args []string) int {
	syscall.Umask(0o077) // an inherited one may open what is secret to all, or close it to us
	ctx, s := catch(context.Background())
	return s.end(RunContext(ctx, app, args))
}

// RunContext is Run without the signals.
func RunContext(ctx context.Context, app *cli.App, args []string) int {
	prepare(app)
	l, err := takeApart(app, args[1:])
	switch {
	case err != nil:
	case l.version:
		fmt.Fprintf(app.Writer, "%s %s\n", app.Name, app.Version)
	case l.help:
		err = l.showHelp()
	default:
		if err = l.complete(); err == nil {
			err = app.RunContext(ctx, l.arguments())
		}
	}
	if out, ok := app.Writer.(*output); ok && err == nil && out.failed != nil {
		err = Exit(ExitFailed, "cannot write the output: %v", out.failed)
	}
	tell(app.ErrWriter, l, err)
	return CodeOf(err)
}

// output is stdout, which remembers that something could not be written: an answer that
// was lost is no success, no matter who printed it.
type output struct {
	*os.File
	failed error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	o.failed = cmp.Or(o.failed, err)
	return n, err
}

// prepare makes the library leave to this package what it does otherwise.
func prepare(app *cli.App) {
	if app.Writer == nil {
		app.Writer = &output{File: os.Stdout}
	}
	if app.ErrWriter == nil {
		app.ErrWriter = os.Stderr
	}
	app.HideHelpCommand = true
	app.HideVersion = true
	app.ExitErrHandler = func(*cli.Context, error) {}
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return Usage("%v", err) }
	var walk func([]*cli.Command)
	walk = func(list []*cli.Command) {
		for _, c := range list {
			c.HideHelpCommand = true
			c.OnUsageError = app.OnUsageError
			if len(c.Subcommands) == 0 && !slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return NameOf(f) == configFlag }) {
				c.Flags = append(c.Flags, &cli.StringFlag{Name: configFlag, Usage: "read settings from `FILE` (YAML, flag: value)"})
			}
			walk(c.Subcommands)
		}
	}
	walk(app.Commands)
}

// tell says what went wrong in one line, and where help is.
func tell(w io.Writer, l *line, err error) {
	if err == nil || err.Error() == "" {
		return
	}
	_, _ = fmt.Fprintf(w, "%s: %s\n", l.title(), power.Redact(strings.TrimSpace(err.Error())))
	var e *exit
	if errors.As(err, &e) && e.usage {
		_, _ = fmt.Fprintf(w, "see %s --help\n", l.title())
	}
}
