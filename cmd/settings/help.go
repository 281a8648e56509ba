package settings

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/term"
)

// helpIndent is where the text of a section begins, helpColumn where that of a flag or
// command does.
const (
	helpIndent = 3
	helpColumn = 26
)

// help prints the help of a command, of a group of commands or of the program, as wide as
// the terminal. The library's own breaks no lines, and knows nothing of the environment
// variables, which it must not read by itself.
type help struct {
	w     io.Writer
	width int
}

// showHelp prints the help of the command.
func (l *line) showHelp() error {
	h := help{l.app.Writer, helpWidth(l.app.Writer)}
	usage, description, commands := l.app.Usage, l.app.Description, l.app.Commands
	synopsis := "COMMAND [flags]"
	if c := l.command; c != nil {
		usage, description, commands = c.Usage, c.Description, c.Subcommands
		if len(commands) == 0 {
			synopsis = "[flags] " + c.ArgsUsage
		}
	}
	h.title("NAME")
	h.entry(helpIndent, l.title()+" -", usage)
	if l.command != nil && len(l.command.Aliases) > 0 {
		h.entry(helpIndent, "", "also: "+strings.Join(l.command.Aliases, ", "))
	}
	h.title("\nUSAGE")
	h.entry(helpIndent, l.title(), synopsis)
	prose, sections := cutProse(description)
	if prose != "" {
		h.title("\nDESCRIPTION")
		for i, paragraph := range strings.Split(prose, "\n\n") {
			if i > 0 {
				fmt.Fprintln(h.w)
			}
			h.entry(helpIndent, "", paragraph)
		}
	}
	h.commands(commands)
	if l.command != nil && len(commands) == 0 {
		h.title("\nOPTIONS")
		kept := func(f cli.Flag) bool { return NameOf(f) != configFlag && envOf(l.app, l.name(), NameOf(f)) != "" }
		configured := slices.ContainsFunc(l.flags, kept)
		for _, f := range l.flags {
			if NameOf(f) == configFlag && !configured {
				continue // a file could say nothing to this command
			}
			h.flag(f, envOf(l.app, l.name(), NameOf(f)))
		}
		h.row(helpIndent, "-h, --help", "show this help")
	}
	for _, section := range sections {
		h.section(section)
	}
	return nil
}

// helpWidth is how wide a help may be: the terminal, and no wider than is pleasant to read.
func helpWidth(w io.Writer) int {
	if width := term.Columns(w); width >= 40 {
		return min(width, 100)
	}
	return 80
}

// sectionTitle finds where a section of a description begins, such as EXAMPLES.
var sectionTitle = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?:^|\n\n)([A-Z][A-Z ]+)\n`) })

// cutProse parts a description into its text and its sections.
func cutProse(description string) (prose string, sections []string) {
	at := sectionTitle().FindAllStringSubmatchIndex(description, -1)
	end := len(description)
	for _, found := range slices.Backward(at) {
		sections = append(sections, description[found[2]:end])
		end = found[0]
	}
	slices.Reverse(sections)
	return strings.TrimSpace(description[:end]), sections
}

func (h help) title(text string) { fmt.Fprintln(h.w, text+":") }

// entry writes text behind a head; further lines are indented as far.
func (h help) entry(indent int, head, text string) {
	if head != "" {
		head += " "
	}
	head = strings.Repeat(" ", indent) + head
	for i, line := range term.Wrap(text, h.width-len(head)) {
		if i > 0 {
			head = strings.Repeat(" ", len(head))
		}
		fmt.Fprintln(h.w, strings.TrimRight(head+line, " "))
	}
}

// row writes a name and what it means, in two columns; a long name has a line of its own.
func (h help) row(indent int, name, text string) {
	name = strings.Repeat(" ", indent) + name
	if len(name)+2 > helpColumn {
		fmt.Fprintln(h.w, name)
		name = ""
	}
	h.entry(0, fmt.Sprintf("%-*s", helpColumn-1, name), text)
}

// commands lists commands, by category where they have one.
func (h help) commands(list []*cli.Command) {
	if len(list) == 0 {
		return
	}
	h.title("\nCOMMANDS")
	list = slices.Clone(list)
	var categories []string
	for _, c := range list {
		if !slices.Contains(categories, c.Category) {
			categories = append(categories, c.Category)
		}
	}
	slices.SortStableFunc(list, func(a, b *cli.Command) int {
		return slices.Index(categories, a.Category) - slices.Index(categories, b.Category)
	})
	category, indent := "", helpIndent
	for _, c := range list {
		if c.Hidden {
			continue
		}
		if c.Category != category {
			category, indent = c.Category, helpIndent+2
			fmt.Fprintf(h.w, "   %s:\n", category)
		}
		h.row(indent, strings.Join(c.Names(), ", "), c.Usage)
	}
}

// flag writes a flag with its default and its environment variable.
func (h help) flag(f cli.Flag, env string) {
	name, placeholder, text := flagHelp(f, env)
	h.row(helpIndent, strings.TrimSpace(name+" "+placeholder), text)
}

// flagHelp is what help and manual say of a flag; placeholder is empty when it takes no value.
func flagHelp(f cli.Flag, env string) (name, placeholder, text string) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return dashed(NameOf(f)), "", ""
	}
	placeholder, text = unquote(d.GetUsage())
	names := f.Names()
	name = "--" + names[0]
	for _, short := range names[1:] {
		name = "-" + short + ", " + name
	}
	if !d.TakesValue() {
		placeholder = ""
	}
	switch initial := defaultOf(d); {
	case required(f):
		text += " (required)"
	case initial != "":
		text += " (default: " + initial + ")"
	}
	if env != "" {
		text += " [$" + env + "]"
	}
	return name, placeholder, text
}

// unquote takes the placeholder of a flag's value out of its usage.
func unquote(usage string) (placeholder, text string) {
	parts := strings.SplitN(usage, "`", 3)
	if len(parts) < 3 {
		return "VALUE", usage
	}
	return parts[1], strings.Join(parts, "")
}

// defaultOf is what a flag is when it is not given, "" when that goes without saying.
func defaultOf(d cli.DocGenerationFlag) string {
	switch f := d.(type) {
	case *cli.BoolFlag:
		return ""
	case *cli.DurationFlag:
		if f.DefaultText == "" && f.Value > 0 {
			return Duration(f.Value)
		}
		return f.DefaultText
	case *cli.IntFlag:
		if f.DefaultText == "" && f.Value == 0 {
			return ""
		}
	case *cli.Int64Flag:
		if f.DefaultText == "" && f.Value == 0 {
			return ""
		}
	case *cli.Float64Flag:
		if f.DefaultText == "" && f.Value == 0 {
			return ""
		}
	}
	return strings.Trim(d.GetDefaultText(), `"`)
}

// Duration writes a duration without parts that are nought: "11h", "1h30m".
func Duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// section writes a section of a description as it is laid out; commands that are too long
// go on in a line that a shell joins.
func (h help) section(text string) {
	title, body, _ := strings.Cut(text, "\n")
	h.title("\n" + title)
	for line := range strings.Lines(strings.TrimRight(body, "\n")) {
		line = strings.TrimRight(line, "\n")
		for title == "EXAMPLES" && len(line) > h.width {
			at := strings.LastIndex(line[:h.width-2], " --")
			if at <= 2*helpIndent {
				break
			}
			fmt.Fprintln(h.w, line[:at]+" \\")
			line = strings.Repeat(" ", 2*helpIndent) + line[at+1:]
		}
		fmt.Fprintln(h.w, line)
	}
}
