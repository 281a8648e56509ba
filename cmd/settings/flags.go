package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// configFlag names the file. Every command has it.
const configFlag = "config"

// DaemonsKey is where an app's Metadata has its Daemons.
const DaemonsKey = "daemons"

// Daemons gives the commands that run for long, by their full name ("serve"), the prefix
// of their environment variables: with "AGENT", --name is RACKPOWER_AGENT_NAME. All their
// flags have a variable and a key in the file of --config, and no other command has those
// variables: what a daemon is configured with does not leak into the commands of people.
type Daemons map[string]string

// common are the flags that every command may have from the environment (RACKPOWER_ and
// the name) and from the file: whom to ask, how to print, when to ask first. What is said for one
// command (yes, hold, wait, status, force, reason ...) has neither, or a line in a
// profile would confirm every power-off to come.
var common = []string{configFlag, "central", "profile", "socket", "output", "no-color", "quiet", "confirm-share"}

// never are flags that confirm or force: not even a daemon's command has them from
// anywhere but the command line.
var never = []string{"yes", "force", "reason"}

// Env is the environment variable of a flag that all commands have in common.
func Env(flag string) string {
	return "RACKPOWER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// envOf is the environment variable of a command's flag, "" when it has none. A flag
// without a variable has no key in the file either.
func envOf(app *cli.App, command, flag string) string {
	daemons, _ := app.Metadata[DaemonsKey].(Daemons)
	prefix, daemon := daemons[command]
	switch {
	case slices.Contains(never, flag):
		return ""
	case daemon:
		return Env(prefix + "-" + flag)
	case slices.Contains(common, flag):
		return Env(flag)
	default:
		return ""
	}
}

// valued reports whether a flag takes a value.
func valued(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func repeatable(f cli.Flag) bool {
	_, ok := f.(*cli.StringSliceFlag)
	return ok
}

func required(f cli.Flag) bool {
	r, ok := f.(cli.RequiredFlag)
	return ok && r.IsRequired()
}

// check says what is wrong with a flag's value, "" if nothing is.
func check(f cli.Flag, text string) string {
	var err error
	want := ""
	switch f.(type) {
	case *TimeFlag:
		return wrongTime(text)
	case *cli.BoolFlag:
		_, err = strconv.ParseBool(text)
		want = "true or false"
	case *cli.IntFlag, *cli.Int64Flag:
		_, err = strconv.ParseInt(text, 0, 64)
		want = "a whole number"
	case *cli.UintFlag, *cli.Uint64Flag:
		_, err = strconv.ParseUint(text, 0, 64)
		want = "a whole number, not negative"
	case *cli.Float64Flag:
		_, err = strconv.ParseFloat(text, 64)
		want = "a number"
	case *cli.DurationFlag:
		var d time.Duration
		d, err = ParseDuration(text)
		if err == nil && d < 0 {
			return fmt.Sprintf("%q is negative", text)
		}
		want = "a duration such as 90s, 5m, 1h30m or 1d"
	}
	if err != nil {
		return fmt.Sprintf("%q is not %s", text, want)
	}
	return ""
}

// find returns the flag of that name or alias, nil if there is none.
func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// NameOf is the long name of a flag, by which file and environment know it. The library finds it
// with a regular expression, which for all flags of all commands takes longer than most commands.
func NameOf(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.StringFlag:
		return f.Name
	case *cli.BoolFlag:
		return f.Name
	case *cli.DurationFlag:
		return f.Name
	case *cli.IntFlag:
		return f.Name
	case *cli.StringSliceFlag:
		return f.Name
	default:
		return f.Names()[0]
	}
}

func longNames(flags []cli.Flag) []string {
	var list []string
	for _, f := range flags {
		list = append(list, NameOf(f))
	}
	return list
}

// dashed writes a flag's name as it is typed.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// leaves lists all commands that can be run, with their full names.
func leaves(app *cli.App) map[string]*cli.Command {
	all := map[string]*cli.Command{}
	var walk func(prefix string, list []*cli.Command)
	walk = func(prefix string, list []*cli.Command) {
		for _, c := range list {
			if len(c.Subcommands) == 0 {
				all[prefix+c.Name] = c
			}
			walk(prefix+c.Name+" ", c.Subcommands)
		}
	}
	walk("", app.Commands)
	return all
}
