package main

import (
	"fmt"

	"rackpower/cmd/term"
)

// progress rewrites one line on stderr, if that is a terminal.
func (p printer) progress(format string, args ...any) {
	if !p.quiet && term.Is(p.err) {
		fmt.Fprintf(p.err, "\r\x1b[K"+format, args...)
	}
}

// clearProgress takes the line away before something else is printed.
func (p printer) clearProgress() {
	if !p.quiet && term.Is(p.err) {
		fmt.Fprint(p.err, "\r\x1b[K")
	}
}
