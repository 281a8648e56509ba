package term

import (
	"errors"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// Screen is a whole terminal: keys come as they are typed, and each picture takes the place
// of the one before. What was on the terminal is there again once it is closed.
type Screen struct {
	out    io.Writer
	fd     int
	before *term.State
}

// errNoTerminal is that there is no terminal to draw on.
var errNoTerminal = errors.New("it needs a terminal, to draw on and to read keys from")

// NewScreen takes a terminal over.
func NewScreen(in any, out io.Writer) (*Screen, error) {
	keys, ok := in.(interface{ Fd() uintptr })
	if !ok || !Is(in) || !Is(out) {
		return nil, errNoTerminal
	}
	s := &Screen{out: out, fd: int(keys.Fd())}
	var err error
	if s.before, err = term.MakeRaw(s.fd); err != nil {
		return nil, err
	}
	// Another buffer, no cursor, and lines that are too long are cut.
	_, err = io.WriteString(out, "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J")
	return s, err
}

// Draw shows lines, which should fit. It is one write that erases nothing before it is
// drawn over, and terminals that know how show it at once: it does not flicker.
func (s *Screen) Draw(lines []string) error {
	var b strings.Builder
	b.WriteString("\x1b[?2026h\x1b[H")
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J\x1b[?2026l")
	_, err := io.WriteString(s.out, b.String())
	return err
}

// Close gives the terminal back as it was.
func (s *Screen) Close() error {
	_, err := io.WriteString(s.out, "\x1b[?7h\x1b[?25h\x1b[?1049l")
	return errors.Join(err, term.Restore(s.fd, s.before))
}

// Cut is a text cut off at a width; dots say so.
func Cut(text string, width int) string {
	if width < 4 {
		return runewidth.Truncate(text, max(width, 0), "")
	}
	return runewidth.Truncate(text, width, "...")
}
