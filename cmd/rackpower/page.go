package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"rackpower/cmd/settings"
)

// page is text as wide as its reader's terminal.
type page struct {
	printer
	width int // 0: lines are not broken
	text  strings.Builder
}

// column is how wide the names of a page's facts are; a last column with less room
// than narrow goes on in a line of its own.
const (
	column = 14
	narrow = 45
)

func (p *page) fact(name, text string) {
	if text != "" {
		p.block(fmt.Sprintf("%-*s", column, name), p.readable(text))
	}
}

// title begins a section.
func (p *page) title(text string) { p.text.WriteString("\n" + text + "\n") }

// block writes text behind its head; further lines are indented as far.
func (p *page) block(head, text string) {
	indent := utf8.RuneCountInString(head)
	lines := wrap(text, p.width-indent)
	for i, line := range lines {
		if i == 0 {
			word, rest, _ := strings.Cut(line, " ")
			line = head + p.paint(word) + " " + rest
		} else {
			line = strings.Repeat(" ", indent) + line
		}
		p.text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// rows writes a table without a head; its last column may go on in further lines.
func (p *page) rows(rows [][]string) {
	var width []int
	for _, row := range rows {
		for i := range row {
			row[i] = p.readable(row[i])
			if len(width) <= i {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		head := "  "
		for i, cell := range row[:len(row)-1] {
			head += cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
		}
		last := row[len(row)-1]
		if room := p.width - utf8.RuneCountInString(head); p.width > 0 && room < narrow && room < utf8.RuneCountInString(last) {
			p.text.WriteString(strings.TrimRight(head, " ") + "\n")
			head = strings.Repeat(" ", 6)
		}
		p.block(head, last)
	}
}

// wrap breaks text at blanks into lines of a width. Too narrow ones are not broken.
func wrap(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// widthOf is how wide a page may be: the terminal, and no wider than is pleasant to
// read. What goes elsewhere is not broken.
func (p printer) widthOf() int { return min(p.terminal(), 120) }

// terminal is how many columns the terminal has that the output goes to, 0 where that
// is none.
func (p printer) terminal() int {
	f, ok := p.out.(interface{ Fd() uintptr })
	if !ok || !settings.IsTerminal(p.out) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 80
	}
	return width
}
