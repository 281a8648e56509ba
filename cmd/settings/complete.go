package settings

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
)

// Candidate is what a word may become.
type Candidate struct{ Text, About string }

// Asked is what a word is completed for: a value of the kind that ArgsUsage or a flag's usage
// names (NODES, RACK, ID ...) of a command, with the flags that were given so far.
type Asked struct {
	Command string // its full name within the program: "local on"
	Kind    string
	Word    string // as typed so far
	Given   map[string]string
}

// Values finds the values of a kind that begin with a word. It is quick, and silent when it
// cannot.
type Values func(Asked) []Candidate

// What the shell itself completes.
const (
	completeFiles = ":files"
	completeDirs  = ":dirs"
)

// complete lists what the last of the words may become, or one of the constants above.
func complete(app *cli.App, words []string, values Values) []Candidate {
	l := &line{app: app}
	commands := app.Commands
	last := len(words) - 1
	var flag cli.Flag // that waits for its value
	ended := false    // by --
	given := map[string]string{}
	for _, word := range words[:last] {
		switch {
		case flag != nil:
			given[NameOf(flag)] = word
			flag = nil
		case word == "--" && !ended:
			ended = true
		case len(word) > 1 && word[0] == '-' && !ended:
			name, text, has := strings.Cut(strings.TrimLeft(word, "-"), "=")
			f := l.lookup(name)
			switch {
			case f == nil:
			case has || !valued(f):
				given[NameOf(f)] = text
			default:
				flag = f
			}
		case l.word(word, &commands) != nil:
			return nil
		}
	}
	word := words[last]
	value := func(kind, word string) []Candidate {
		return valuesOf(Asked{Command: l.name(), Kind: kind, Word: word, Given: given}, values)
	}
	name, text, has := strings.Cut(word, "=")
	switch {
	case flag != nil:
		return flagValues(flag, word, value)
	case strings.HasPrefix(word, "--") && has && !ended:
		f := l.lookup(strings.TrimLeft(name, "-"))
		if f == nil || !valued(f) {
			return nil
		}
		found := flagValues(f, text, value)
		for i := range found {
			if found[i].Text[0] != ':' {
				found[i].Text = name + "=" + found[i].Text
			}
		}
		return found
	case strings.HasPrefix(word, "-") && !ended:
		return l.flagNames(word, given)
	}
	found := commandNames(commands, word)
	return append(found, l.operandValues(word, value)...)
}

// commandNames lists commands by their beginning.
func commandNames(commands []*cli.Command, word string) []Candidate {
	var found []Candidate
	for _, c := range commands {
		if !c.Hidden && strings.HasPrefix(c.Name, word) {
			found = append(found, Candidate{c.Name, c.Usage})
		}
	}
	return found
}

// flagNames lists the flags of the command that were not given yet.
func (l *line) flagNames(word string, given map[string]string) []Candidate {
	flags := l.flags
	if l.command != nil && l.command.Action != nil {
		for _, c := range l.command.Subcommands { // what the command does without one
			if c.Name == listName {
				flags = c.Flags
			}
		}
	}
	var found []Candidate
	for _, f := range flags {
		_, before := given[NameOf(f)]
		if name := dashed(NameOf(f)); strings.HasPrefix(name, word) && (!before || repeatable(f)) {
			_, text := unquote(f.(cli.DocGenerationFlag).GetUsage())
			found = append(found, Candidate{name, text})
		}
	}
	if help := "--help"; strings.HasPrefix(help, word) && l.command != nil {
		found = append(found, Candidate{help, "show this help"})
	}
	return found
}

// operandValues completes an operand by the words of the command's ArgsUsage.
func (l *line) operandValues(word string, value func(kind, word string) []Candidate) []Candidate {
	c := l.command
	if c == nil {
		return nil
	}
	for _, sub := range c.Subcommands {
		if c.Action != nil && sub.Name == listName {
			c = sub
			break
		}
	}
	if len(c.Subcommands) > 0 {
		return nil
	}
	var kinds []string
	for i, kind := range strings.Fields(c.ArgsUsage) {
		many := strings.Contains(kind, "...")
		if i == len(l.operands) || i < len(l.operands) && many || len(kinds) > 0 && len(l.operands) > 0 {
			kinds = append(kinds, strings.Trim(strings.ReplaceAll(kind, "...", ""), "[]"))
		}
	}
	var found []Candidate
	for _, kind := range kinds {
		for one := range strings.SplitSeq(kind, "|") {
			if strings.ToUpper(one) != one { // itself
				if strings.HasPrefix(one, word) {
					found = append(found, Candidate{Text: one})
				}
				continue
			}
			found = append(found, value(one, word)...)
		}
	}
	return found
}

// flagValues completes a flag's value: one of those that its usage lists, or of its kind.
func flagValues(f cli.Flag, word string, value func(kind, word string) []Candidate) []Candidate {
	if _, isBool := f.(*cli.BoolFlag); isBool {
		return nil
	}
	usage := f.(cli.DocGenerationFlag).GetUsage()
	var found []Candidate
	for _, one := range listed(usage) {
		if strings.HasPrefix(one, word) {
			found = append(found, Candidate{Text: one})
		}
	}
	if len(found) > 0 {
		return found
	}
	kind, _ := unquote(usage)
	return value(kind, word)
}

var (
	inParentheses = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(` ?\([^)]*\)`) })
	plainWord     = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]*$`) })
)

// listed are the values in a usage such as "output `FORMAT`: table, wide or json".
func listed(usage string) []string {
	_, list, found := strings.Cut(usage, "`: ")
	if _, after, more := strings.Cut(usage, ": "); !found && more && strings.Contains(usage, "`") {
		list = after
	}
	list, _, _ = strings.Cut(list, ";")
	list = strings.ReplaceAll(inParentheses().ReplaceAllString(list, ""), " or ", ", ")
	words := strings.Split(list, ", ")
	if len(words) < 2 || slices.ContainsFunc(words, func(w string) bool { return !plainWord().MatchString(w) }) {
		return nil
	}
	return words
}

// valuesOf completes what needs nobody's answer, and asks otherwise.
func valuesOf(a Asked, values Values) []Candidate {
	switch a.Kind {
	case "FILE", "PATH", "-":
		return []Candidate{{Text: completeFiles}}
	case "DIR":
		return []Candidate{{Text: completeDirs}}
	}
	if values == nil {
		return nil
	}
	return values(a)
}

// ShellCommands are the commands that a shell and a packager want: completion, and the hidden
// ones that answer it and write the manual. exitHelp ends their help.
func ShellCommands(category, section, exitHelp string, values Values) []*cli.Command {
	return []*cli.Command{{
		Name: "completion", Category: category, Usage: "print what a shell needs to complete commands", ArgsUsage: "bash|zsh|fish",
		Description: "The packages have it in place. The shell then asks the program itself, which knows commands and\n" +
			"flags, and asks central for names, for at most 300 ms.\n\nEXAMPLES\n" +
			"   source <(rackpower completion bash)      # in ~/.bashrc\n" +
			"   source <(rackpower completion zsh)       # in ~/.zshrc, after compinit\n" +
			"   rackpower completion fish | source       # in config.fish" + exitHelp,
		Action: func(c *cli.Context) error {
			script, ok := completionScripts[c.Args().First()]
			if !ok {
				return Usage("completion: %q is not bash, zsh or fish", c.Args().First())
			}
			function := "_" + strings.ReplaceAll(c.App.Name, "-", "_")
			_, err := strings.NewReplacer("PROGRAM", c.App.Name, "FUNCTION", function).WriteString(c.App.Writer, script)
			return err
		},
	}, {
		Name: "complete", Hidden: true, Usage: "list what the last WORD may become; for the shells", ArgsUsage: "SHELL WORDS...",
		Description: "For bash the WORDS are the line up to the cursor and the characters that part words." +
			"\n\nEXAMPLES\n   rackpower complete fish -- node a" + exitHelp,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			shell, words := args[0], args[1:]
			cut := ""
			if shell == "bash" && len(args) == 3 {
				words, cut = bashWords(args[1], args[2])
			}
			writeCandidates(c.App.Writer, shell, cut, complete(c.App, words, values))
			return nil
		},
	}, {
		Name: "man", Hidden: true, Usage: "write the manual pages into DIR", ArgsUsage: "DIR",
		Description: "A page for the program and one for each command, of section " + section + "." +
			"\n\nEXAMPLES\n   rackpower man /usr/local/share/man/man" + section + exitHelp,
		Action: func(c *cli.Context) error { return writeManual(c.App, section, c.Args().First()) },
	}}
}

// writeCandidates writes a line for each, as the shell wants it.
func writeCandidates(w io.Writer, shell, cut string, found []Candidate) {
	slices.SortStableFunc(found, func(a, b Candidate) int { return strings.Compare(a.Text, b.Text) })
	for _, one := range slices.Compact(found) {
		about := strings.Join(strings.Fields(one.About), " ")
		switch text := strings.ReplaceAll(one.Text, ":", `\:`); { // zsh takes what is behind a colon for a description
		case shell == "zsh" && one.Text[0] != ':' && about != "":
			fmt.Fprintf(w, "%s:%s\n", text, about)
		case shell == "zsh" && one.Text[0] != ':':
			fmt.Fprintln(w, text)
		case shell == "bash" || about == "":
			fmt.Fprintln(w, strings.TrimPrefix(one.Text, cut))
		default:
			fmt.Fprintf(w, "%s\t%s\n", one.Text, about)
		}
	}
}

// bashWords parts a line into the words after the program, the last being the one to complete. Bash
// parts words at more characters than blanks, and replaces what is behind the last of those:
// cut is what of the last word is before it.
func bashWords(text, breaks string) (words []string, cut string) {
	var word strings.Builder
	var quote rune
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == '\\':
			word.WriteRune(r)
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"' || r == '\\':
			quote = r
		case r == ' ' || r == '\t':
			if word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	words = append(words, word.String())[min(1, len(words)):]
	if last := words[len(words)-1]; quote == 0 {
		cut = last[:strings.LastIndexAny(last, strings.Trim(breaks, " \t\n"))+1]
	}
	return words, cut
}

// completionScripts hand the words to the program. Where it says :files or :dirs the shell
// completes these.
var completionScripts = map[string]string{
	"bash": `# bash completion for PROGRAM
FUNCTION() {
	mapfile -t COMPREPLY < <(PROGRAM complete bash -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2> /dev/null)
	case ${COMPREPLY[0]-} in
	:files) COMPREPLY=() && compopt -o default ;;
	:dirs) COMPREPLY=() && compopt -o dirnames ;;
	*[:=,@]) compopt -o nospace ;;
	esac
}
complete -F FUNCTION PROGRAM
`,
	"zsh": `#compdef PROGRAM
# zsh completion for PROGRAM
FUNCTION() {
	local -a found
	found=("${(@f)$(PROGRAM complete zsh -- "${(@Q)words[2,CURRENT]}" 2> /dev/null)}")
	case $found[1] in
	'') return 1 ;;
	:files) _files ;;
	:dirs) _files -/ ;;
	*) _describe PROGRAM found ;;
	esac
}
if [ "$funcstack[1]" = FUNCTION ]; then
	FUNCTION "$@"
else
	compdef FUNCTION PROGRAM
fi
`,
	"fish": `# fish completion for PROGRAM
function FUNCTION
	set -l words (commandline -opc)
	set -l found (PROGRAM complete fish -- $words[2..-1] (commandline -ct) 2> /dev/null)
	switch "$found[1]"
		case :files
			__fish_complete_path (commandline -ct)
		case :dirs
			__fish_complete_directories (commandline -ct)
		case '*'
			printf '%s\n' $found
	end
end
complete -c PROGRAM -f -a '(FUNCTION)'
`,
}
