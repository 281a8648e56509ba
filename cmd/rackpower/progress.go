package main

import (
	"fmt"

	"rackpower/cmd/term"
)

// progress rewrites one line on stderr, if that is a terminal.
func (s *session) progress(format string, args ...any) {
	if !s.quiet && term.Is(s.err) {
		fmt.Fprintf(s.err, "\r\x1b[K"+format, args...)
	}
}

// clearProgress takes the line away before something else is printed.
func (s *session) clearProgress() {
	if !s.quiet && term.Is(s.err) {
		fmt.Fprint(s.err, "\r\x1b[K")
	}
}
