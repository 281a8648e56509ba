package printer

import (
	"fmt"
	"strings"

	"rackpower/cmd/term"
)

// Page is text as wide as its reader's terminal.
type Page struct {
	p     Printer
	width int // 0: lines are not broken
	text  strings.Builder
}

// NewPage is an empty page of a width, such as the printer's.
func NewPage(p Printer, width int) *Page { return &Page{p: p, width: width} }

// Line writes one line as it is, however long.
func (p *Page) Line(text string) { p.text.WriteString(text + "\n") }

// String is what has been written.
func (p *Page) String() string { return p.text.String() }

// column is how wide the names of a page's facts are; a last column with less room
// than narrow goes on in a line of its own.
const (
	column = 14
	narrow = 45
)

// Fact writes a name and what there is to say of it; nothing where that is "".
func (p *Page) Fact(name, text string) {
	if text != "" {
		p.Block(fmt.Sprintf("%-*s", column, name), p.p.Readable(text))
	}
}

// Title begins a section.
func (p *Page) Title(text string) { p.Line("\n" + text) }

// Block writes text behind its head; further lines are indented as far.
func (p *Page) Block(head, text string) {
	indent := term.Width(head)
	lines := term.Wrap(text, p.width-indent)
	for i, line := range lines {
		if i == 0 {
			word, rest, _ := strings.Cut(line, " ")
			line = head + p.p.Paint(word) + " " + rest
		} else {
			line = strings.Repeat(" ", indent) + line
		}
		p.Line(strings.TrimRight(line, " "))
	}
}

// Rows writes a table without a head; its last column may go on in further lines.
func (p *Page) Rows(rows [][]string) {
	var width []int
	for _, row := range rows {
		for i := range row {
			row[i] = p.p.Readable(row[i])
			if len(width) <= i {
				width = append(width, 0)
			}
			width[i] = max(width[i], term.Width(row[i]))
		}
	}
	for _, row := range rows {
		head := "  "
		for i, cell := range row[:len(row)-1] {
			head += term.Pad(cell, width[i]+2)
		}
		last := row[len(row)-1]
		if room := p.width - term.Width(head); p.width > 0 && room < narrow && room < term.Width(last) {
			p.Line(strings.TrimRight(head, " "))
			head = strings.Repeat(" ", 6)
		}
		p.Block(head, last)
	}
}

// PageWidth is how wide a page may be: the terminal, and no wider than is pleasant to
// read. What goes elsewhere is not broken.
func (p Printer) PageWidth() int { return min(term.Columns(p.Out), 120) }
