package main

import (
	"fmt"
	"strings"

	"rackpower/cmd/term"
)

// page is text as wide as its reader's terminal.
type page struct {
	p     printer
	width int // 0: lines are not broken
	text  strings.Builder
}

// newPage is an empty page as wide as what the printer writes to.
func newPage(p printer) *page { return &page{p: p, width: p.widthOf()} }

// column is how wide the names of a page's facts are; a last column with less room
// than narrow goes on in a line of its own.
const (
	column = 14
	narrow = 45
)

func (p *page) fact(name, text string) {
	if text != "" {
		p.block(fmt.Sprintf("%-*s", column, name), p.p.readable(text))
	}
}

// title begins a section.
func (p *page) title(text string) { p.text.WriteString("\n" + text + "\n") }

// block writes text behind its head; further lines are indented as far.
func (p *page) block(head, text string) {
	indent := term.Width(head)
	lines := term.Wrap(text, p.width-indent)
	for i, line := range lines {
		if i == 0 {
			word, rest, _ := strings.Cut(line, " ")
			line = head + p.p.paint(word) + " " + rest
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
			row[i] = p.p.readable(row[i])
			if len(width) <= i {
				width = append(width, 0)
			}
			width[i] = max(width[i], term.Width(row[i]))
		}
	}
	for _, row := range rows {
		head := "  "
		for i, cell := range row[:len(row)-1] {
			head += cell + strings.Repeat(" ", width[i]-term.Width(cell)+2)
		}
		last := row[len(row)-1]
		if room := p.width - term.Width(head); p.width > 0 && room < narrow && room < term.Width(last) {
			p.text.WriteString(strings.TrimRight(head, " ") + "\n")
			head = strings.Repeat(" ", 6)
		}
		p.block(head, last)
	}
}

// widthOf is how wide a page may be: the terminal, and no wider than is pleasant to
// read. What goes elsewhere is not broken.
func (p printer) widthOf() int { return min(term.Columns(p.out), 120) }
