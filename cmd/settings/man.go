package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// writeManual writes a page in man(7) for the program and one for each of its commands.
func writeManual(app *cli.App, section, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the manual: %w", err)
	}
	pages := []*line{{app: app}}
	var walk func(l *line, commands []*cli.Command)
	walk = func(l *line, commands []*cli.Command) {
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			next := &line{app: app, path: append(l.path[:len(l.path):len(l.path)], c.Name), command: c, flags: c.Flags}
			pages = append(pages, next)
			walk(next, c.Subcommands)
		}
	}
	walk(pages[0], app.Commands)
	for _, l := range pages {
		name := l.pageName() + "." + section
		if err := os.WriteFile(filepath.Join(dir, name), []byte(l.manual(section)), 0o644); err != nil {
			return fmt.Errorf("cannot write the manual: %w", err)
		}
	}
	return nil
}

func (l *line) pageName() string { return strings.ReplaceAll(l.title(), " ", "-") }

// manual is the page of a command, with what its help has.
func (l *line) manual(section string) string {
	usage, description, commands := l.app.Usage, l.app.Description, l.app.Commands
	synopsis := "\\fICOMMAND\\fR [flags]"
	if c := l.command; c != nil {
		usage, description, commands = c.Usage, c.Description, c.Subcommands
		if len(commands) == 0 {
			synopsis = strings.TrimSpace("[flags] " + roff(c.ArgsUsage))
		}
	}
	var b strings.Builder
	day, _, _ := strings.Cut(ThisBuild().Date, "T")
	fmt.Fprintf(&b, ".TH %s %s %q %q\n", strings.ToUpper(roff(l.pageName())), section, day, l.app.Name+" "+l.app.Version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(l.pageName()), roff(usage))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fR %s\n", roff(l.title()), synopsis)
	prose, sections := cutProse(description)
	if prose != "" {
		b.WriteString(".SH DESCRIPTION\n")
		for i, paragraph := range strings.Split(prose, "\n\n") {
			if i > 0 {
				b.WriteString(".PP\n")
			}
			b.WriteString(roffLines(paragraph))
		}
	}
	also := l.pageName()
	if i := strings.LastIndexByte(also, '-'); l.command != nil && i > 0 {
		also = also[:i]
	} else {
		also = ""
	}
	if len(commands) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, c := range commands {
			if !c.Hidden {
				fmt.Fprintf(&b, ".TP\n.BR %s (%s)\n%s", roff(l.pageName()+"-"+c.Name), section, roffLines(c.Usage))
			}
		}
	} else {
		b.WriteString(".SH OPTIONS\n")
		for _, f := range l.flags {
			names, placeholder, text := flagHelp(f, envOf(l.app, l.name(), NameOf(f)))
			head := "\\fB" + roff(names) + "\\fR"
			if placeholder != "" {
				head += " \\fI" + roff(placeholder) + "\\fR"
			}
			fmt.Fprintf(&b, ".TP\n%s\n%s", head, roffLines(text))
		}
		b.WriteString(".TP\n\\fB\\-h, \\-\\-help\\fR\nshow this help\n")
	}
	for _, s := range sections {
		title, body, _ := strings.Cut(s, "\n")
		fmt.Fprintf(&b, ".SH %s\n.nf\n%s.fi\n", roff(title), roffLines(strings.TrimRight(body, "\n")))
	}
	if also != "" {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (%s)\n", roff(also), section)
	}
	return b.String()
}

// roff has a text mean itself.
func roff(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "", "^", `\(ha`, "~", `\(ti`).Replace(text)
}

// roffLines is roff of lines, none of which is taken for a request.
func roffLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = roff(strings.TrimRight(line, "\n "))
		if strings.HasPrefix(line, ".") {
			line = `\&` + line
		}
		if line == "" {
			line = ".sp"
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
