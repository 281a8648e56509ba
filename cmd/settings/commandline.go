package settings

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// line is a command line, taken apart.
type line struct {
	app      *cli.App
	path     []string // names of command and subcommand
	command  *cli.Command
	flags    []cli.Flag // of the command
	given    []value
	operands []string
	help     bool
	version  bool
}

// value is what a flag was given.
type value struct {
	name, text string // the name as typed
	bare       bool   // a flag without a value
}

// name is the command's full name within the program.
func (l *line) name() string { return strings.Join(l.path, " ") }

// title is the command as its user types it.
func (l *line) title() string { return strings.Join(append([]string{l.app.Name}, l.path...), " ") }

// takeApart reads the arguments after the program's name.
func takeApart(app *cli.App, args []string) (*line, error) {
	l := &line{app: app}
	commands := app.Commands
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			for _, operand := range args[i+1:] {
				if err := l.word(operand, &commands); err != nil {
					return l, err
				}
			}
			return l, l.settle()
		case len(arg) > 1 && arg[0] == '-':
			used, err := l.flag(args[i:])
			if err != nil {
				return l, err
			}
			i += used
		default:
			if err := l.word(arg, &commands); err != nil {
				return l, err
			}
		}
	}
	return l, l.settle()
}

// listName is the subcommand of what a command does without one. Where that takes no operand,
// makeName is the one of a command that is given only operands.
const (
	listName = "list"
	makeName = "make"
)

// word is a command's name or an operand.
func (l *line) word(word string, commands *[]*cli.Command) error {
	if l.command != nil && len(l.command.Subcommands) == 0 {
		l.operands = append(l.operands, word)
		return nil
	}
	if word == "help" {
		l.help = true
		return nil
	}
	i := slices.IndexFunc(*commands, func(c *cli.Command) bool { return c.HasName(word) })
	if i < 0 && l.command != nil && l.command.Action != nil {
		// What has no subcommand's name is an operand of what the command does without one.
		i = slices.IndexFunc(*commands, func(c *cli.Command) bool {
			return (c.Name == listName || c.Name == makeName) && c.ArgsUsage != ""
		})
		if i >= 0 {
			l.operands = append(l.operands, word)
		}
	}
	if i < 0 {
		var names []string
		for _, c := range *commands {
			names = append(names, c.Name)
		}
		return Usage("unknown command %q%s", word, didYouMean(word, names, ""))
	}
	l.command = (*commands)[i]
	l.path = append(l.path, l.command.Name)
	l.flags = l.command.Flags
	*commands = l.command.Subcommands
	return nil
}

// flag reads one flag and returns how many further arguments it used.
func (l *line) flag(args []string) (int, error) {
	name, text, has := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(args[0], "-"), "-"), "=")
	switch {
	case name == "help" || name == "h":
		l.help = true
		return 0, nil
	case name == "version" && l.command == nil:
		l.version = true
		return 0, nil
	}
	f := l.lookup(name)
	switch {
	case f == nil:
		return 0, l.unknown(name)
	case has:
		l.given = append(l.given, value{name: name, text: text})
		return 0, nil
	case !valued(f):
		l.given = append(l.given, value{name: name, text: "true", bare: true})
		return 0, nil
	case len(args) < 2 || args[1] == "--":
		return 0, Usage("%s needs a value", dashed(name))
	}
	l.given = append(l.given, value{name: name, text: args[1]})
	return 1, nil
}

// lookup finds a flag: of the command, or, as long as the command has not been
// named, of any.
func (l *line) lookup(name string) cli.Flag {
	if l.command != nil && len(l.command.Subcommands) == 0 {
		return find(l.flags, name)
	}
	for _, c := range leaves(l.app) {
		if f := find(c.Flags, name); f != nil {
			return f
		}
	}
	return nil
}

func (l *line) unknown(name string) error {
	var elsewhere []string
	for title, c := range leaves(l.app) {
		if find(c.Flags, name) != nil {
			elsewhere = append(elsewhere, title)
		}
	}
	slices.Sort(elsewhere)
	switch {
	case len(elsewhere) > 0 && l.command != nil:
		return Usage("unknown flag %s: it belongs to %s", dashed(name), strings.Join(elsewhere, ", "))
	case l.command != nil:
		return Usage("unknown flag %s%s", dashed(name), didYouMean(name, longNames(l.flags), "--"))
	}
	var all []string
	for _, c := range leaves(l.app) {
		all = append(all, longNames(c.Flags)...)
	}
	slices.Sort(all)
	return Usage("unknown flag %s%s", dashed(name), didYouMean(name, all, "--"))
}

// settle holds what was given against the command.
func (l *line) settle() error {
	if l.help || l.version && l.command == nil {
		return nil
	}
	if l.command != nil && len(l.command.Subcommands) > 0 && l.command.Action != nil {
		subcommands := l.command.Subcommands
		if err := l.word(listName, &subcommands); err != nil {
			return err
		}
	}
	if l.command == nil || len(l.command.Subcommands) > 0 {
		return Usage("a command is missing")
	}
	seen := map[string]bool{}
	for _, v := range l.given {
		f := find(l.flags, v.name)
		if f == nil {
			return l.unknown(v.name)
		}
		if wrong := check(f, v.text); wrong != "" {
			return Usage("%s: %s", dashed(v.name), wrong)
		}
		if seen[NameOf(f)] && !repeatable(f) {
			return Usage("%s is given twice", dashed(v.name))
		}
		seen[NameOf(f)] = true
	}
	return l.count()
}

// count holds the number of operands against ArgsUsage.
func (l *line) count() error {
	words := strings.Fields(l.command.ArgsUsage)
	least, most := 0, len(words)
	for _, word := range words {
		if !strings.HasPrefix(word, "[") {
			least++
		}
		if strings.Contains(word, "...") {
			most = len(l.operands)
		}
	}
	switch n := len(l.operands); {
	case n < least:
		return Usage("%s is missing", strings.TrimSuffix(words[n], "..."))
	case n > most && most == 0:
		return Usage("unexpected operand %q: the command takes none", l.operands[0])
	case n > max(most, least):
		return Usage("unexpected operand %q: the command takes %s", l.operands[most], l.command.ArgsUsage)
	}
	return nil
}

// typedKey is where an app keeps which flags were typed.
const typedKey = "typed"

// Typed reports whether a flag, by its long name, is on the command line itself, not in
// the environment or a file.
func Typed(c *cli.Context, flag string) bool {
	typed, _ := c.App.Metadata[typedKey].(map[string]bool)
	return typed[flag]
}

// complete adds what environment and file say about flags that are not given.
func (l *line) complete() error {
	file, err := l.file()
	if err != nil {
		return err
	}
	given := map[string]bool{}
	for _, v := range l.given {
		given[NameOf(find(l.flags, v.name))] = true
	}
	if l.app.Metadata == nil {
		l.app.Metadata = map[string]any{}
	}
	l.app.Metadata[typedKey] = maps.Clone(given)
	for _, f := range l.flags {
		name := NameOf(f)
		if given[name] {
			continue
		}
		env := envOf(l.app, l.name(), name)
		more, err := fromEnv(f, env)
		if err != nil {
			return err
		}
		if len(more) == 0 && env != "" {
			more = file[name]
			for _, text := range more {
				if wrong := check(f, text); wrong != "" {
					return Usage("%s in the file of --config: %s", name, wrong)
				}
			}
		}
		for _, text := range more {
			l.given = append(l.given, value{name: name, text: text})
		}
		switch {
		case len(more) > 0 || !required(f):
		case env == "":
			return Usage("%s is missing", dashed(name))
		default:
			return Usage("%s is missing (or %s, or %q in the file of --config)", dashed(name), env, name)
		}
	}
	return nil
}

// fromEnv reads a flag's environment variable, env; one that is empty counts as none.
func fromEnv(f cli.Flag, env string) ([]string, error) {
	text := os.Getenv(env)
	if env == "" || text == "" {
		return nil, nil
	}
	list := []string{text}
	if repeatable(f) {
		list = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, one := range list {
		if wrong := check(f, one); wrong != "" {
			return nil, Usage("%s: %s", env, wrong)
		}
	}
	return list, nil
}

// file reads the file of --config, if there is one.
func (l *line) file() (map[string][]string, error) {
	path := os.Getenv(envOf(l.app, l.name(), configFlag))
	for _, v := range l.given {
		if v.name == configFlag {
			path = v.text
		}
	}
	if path == "" {
		return nil, nil
	}
	return readFile(l.app, path)
}

// arguments puts the line together again so that the library takes it as meant:
// flags first.
func (l *line) arguments() []string {
	args := append([]string{l.app.Name}, l.path...)
	for _, v := range l.given {
		if _, is := find(l.flags, v.name).(*cli.DurationFlag); is {
			if d, err := ParseDuration(v.text); err == nil {
				v.text = d.String() // the library knows no days
			}
		}
		args = append(args, fmt.Sprintf("%s=%s", dashed(v.name), v.text))
	}
	return append(append(args, "--"), l.operands...)
}
