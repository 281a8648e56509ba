// Package term is what a program has to know of terminals: whether its output goes to one,
// how wide that is, and how wide a text is on it. It imports no package of this module.
package term

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// Is reports whether what is written there is seen on a terminal.
func Is(w any) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// Columns is how wide the terminal is that is written to, 0 where that is none.
func Columns(w io.Writer) int {
	width, _ := Size(w)
	return width
}

// Size is how wide and how high the terminal is that is written to, 0 where that is none.
func Size(w io.Writer) (columns, lines int) {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || !Is(w) {
		return 0, 0
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 || lines <= 0 {
		return 80, 24
	}
	return columns, lines
}

// Interactive reports whether somebody is there to be asked: in is read from a terminal,
// and out is seen on one.
func Interactive(in io.Reader, out io.Writer) bool { return Is(in) && Is(out) }

// ReadPassword reads a line from stdin without echo. The returned function makes the
// terminal as it was, for when reading is given up.
func ReadPassword() (read func() (string, error), restore func()) {
	fd := int(os.Stdin.Fd())
	restore = func() {}
	if before, err := term.GetState(fd); err == nil {
		restore = func() { _ = term.Restore(fd, before) }
	}
	return func() (string, error) {
		data, err := term.ReadPassword(fd)
		return string(data), err
	}, restore
}

// Width is how many columns a text takes.
func Width(text string) int {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return runewidth.StringWidth(text)
		}
	}
	return len(text)
}

// Pad fills a text up with blanks.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-Width(text), 0))
}

// Shorten cuts a text that would make a table wider than is of use.
func Shorten(text string, most int) string {
	if Width(text) <= most {
		return text
	}
	return strings.TrimSpace(runewidth.Truncate(text, most-4, "")) + " ..."
}

// Wrap breaks text at blanks into lines of a width. Too narrow ones are not broken.
func Wrap(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	return Break(text, width)
}

// Break is Wrap to any width; a word that is wider stays whole.
func Break(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// Clean makes what terminals would obey visible: text from BMCs, operators and files
// reaches the tables.
func Clean(s string) string {
	bad := func(r rune) bool { return !unicode.IsPrint(r) && r != ' ' }
	if strings.IndexFunc(s, bad) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, "\\x%02x", s[i])
		case bad(r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
