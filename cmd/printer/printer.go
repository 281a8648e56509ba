// Package printer writes what a command has to say: listings in the formats that programs
// read, and tables, lines and pages for people, as wide as their terminal and with times in
// their zone.
package printer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"

	"go.yaml.in/yaml/v3"

	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Formats are those in which Show writes.
var Formats = []string{"table", "wide", "json", "jsonl", "yaml", "name"}

// TemplateFormat is the format of which a Template is part.
const TemplateFormat = "go-template"

// Printer writes results to stdout and what is beside them to stderr.
type Printer struct {
	Out, Err io.Writer
	Format   string
	Color    bool
	Quiet    bool
	// Template is what -o go-template=TEXT says.
	Template *template.Template
	Clock
}

// People reports whether the output is for reading rather than for programs.
func (p Printer) People() bool { return p.Format == "table" || p.Format == "wide" }

// Listing is a result with its forms. Rows go out as they are for programs.
type Listing[T any] struct {
	Rows  []T
	Name  func(T) string // for -o name
	Head  []string
	Cells func(T) []string
	// wide columns follow the others under -o wide.
	WideHead  []string
	WideCells func(T) []string
}

// Show prints a listing in the format asked for.
func Show[T any](p Printer, l Listing[T]) error {
	if p.Quiet {
		return nil
	}
	if l.Rows == nil {
		l.Rows = []T{}
	}
	switch p.Format {
	case TemplateFormat:
		return p.writeTemplate(inUTC(l.Rows))
	case "json":
		return writeJSON(p.Out, l.Rows)
	case "jsonl":
		for i := range l.Rows {
			if err := WriteLines(p.Out, inUTC(l.Rows[i:i+1])); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		return writeYAML(p.Out, inUTC(l.Rows))
	case "name":
		return writeNames(p.Out, l)
	}
	if len(l.Rows) == 0 {
		return nil
	}
	head := l.Head
	wide := p.Format == "wide" && l.WideCells != nil
	if wide {
		head = append(slices.Clone(head), l.WideHead...)
	}
	table := [][]string{head}
	for _, row := range l.Rows {
		cells := l.Cells(row)
		if wide {
			cells = append(cells, l.WideCells(row)...)
		}
		table = append(table, cells)
	}
	return p.table(table)
}

// writeTemplate has the template see what -o json prints.
func (p Printer) writeTemplate(rows any) error {
	data, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	var seen any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // 1000000, not 1e+06
	if err := dec.Decode(&seen); err != nil {
		return err
	}
	return p.Template.Execute(p.Out, seen)
}

// writeJSON writes an array row by row: there may be very many, and encoding/json would keep the whole text, twice.
func writeJSON[T any](w io.Writer, rows []T) error {
	out := bufio.NewWriter(w)
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	between, end := "[\n  ", "[]\n"
	for i := range rows {
		text.Reset()
		if err := enc.Encode(inUTC(rows[i : i+1])[0]); err != nil {
			return err
		}
		out.WriteString(between)
		out.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
		between, end = ",\n  ", "\n]\n"
	}
	out.WriteString(end)
	return out.Flush() // which has the error of those before
}

// WriteLines writes rows as JSON, each in a line of its own.
func WriteLines[T any](w io.Writer, rows []T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, row := range rows {
		if err := enc.Encode(row); err != nil {
			return err
		}
	}
	return nil
}

// writeYAML writes the same fields, in the same order, as JSON.
func writeYAML(w io.Writer, rows any) error {
	data, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("cannot write YAML: %w", err)
	}
	blockStyle(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

// oldBools are texts that readers of YAML 1.1, such as Python's, take for true or false
// where they stand without quotes: a power state among them.
var oldBools = []string{"on", "off", "yes", "no", "y", "n"}

func blockStyle(n *yaml.Node) {
	empty := len(n.Content) == 0 && n.Kind != yaml.ScalarNode
	if !empty {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.SetString(n.Value)
		if slices.Contains(oldBools, strings.ToLower(n.Value)) {
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, child := range n.Content {
		blockStyle(child)
	}
}

func writeNames[T any](w io.Writer, l Listing[T]) error {
	for _, row := range l.Rows {
		if _, err := fmt.Fprintln(w, term.Clean(l.Name(row))); err != nil {
			return err
		}
	}
	return nil
}

// table writes aligned columns; empty columns are left out.
func (p Printer) table(rows [][]string) error {
	_, err := p.Out.Write(p.tableIn(term.Columns(p.Out), rows))
	return err
}

// tableIn lays a table out. Where it is wider than a terminal of so many columns its
// widest cells go on in further lines, broken at blanks; 0 breaks none.
func (p Printer) tableIn(columns int, rows [][]string) []byte {
	width, least := make([]int, len(rows[0])), make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for i := range row {
			row[i] = p.Readable(row[i])
			width[i] = max(width[i], term.Width(row[i]))
			if columns > 0 {
				least[i] = max(least[i], longestWord(row[i]))
			}
		}
	}
	for i, title := range rows[0] {
		if width[i] > 0 {
			width[i], least[i] = max(width[i], term.Width(title)), max(least[i], longestWord(title))
		}
	}
	if columns > 0 {
		fit(width, least, columns)
	}
	var buf bytes.Buffer
	for r, row := range rows {
		cells, lines := make([][]string, len(row)), 0
		for i, cell := range row {
			if width[i] == 0 {
				continue
			}
			if cells[i] = []string{cell}; term.Width(cell) > width[i] {
				cells[i] = term.Break(cell, width[i])
			}
			lines = max(lines, len(cells[i]))
		}
		for n := range lines {
			line, gap := "", 0
			for i, cell := range cells {
				if width[i] == 0 {
					continue
				}
				text := ""
				if n < len(cell) {
					text = cell[n]
				}
				line += strings.Repeat(" ", gap)
				if gap = width[i] - term.Width(text) + gutter; r > 0 {
					text = p.paintAs(row[i], text)
				}
				line += text
			}
			buf.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	return buf.Bytes()
}

// gutter is what parts the columns of a table.
const gutter = 2

// fit takes from the widest columns, as far as their words let it, until they fit.
func fit(width, least []int, columns int) {
	total := -gutter
	for _, w := range width {
		if w > 0 {
			total += w + gutter
		}
	}
	for total > columns {
		widest := -1
		for i, w := range width {
			if w > least[i] && (widest < 0 || w >= width[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		width[widest]--
		total--
	}
}

func longestWord(text string) int {
	longest := 0
	for word := range strings.FieldsSeq(text) {
		longest = max(longest, term.Width(word))
	}
	return longest
}

// Details writes one thing as "key: value" lines.
func (p Printer) Details(pairs ...string) {
	if p.Quiet {
		return
	}
	text := NewPage(p, p.PageWidth())
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			text.Block(fmt.Sprintf("%-14s ", pairs[i]+":"), p.Readable(pairs[i+1]))
		}
	}
	fmt.Fprint(p.Out, text.String())
}

var colors = map[string]string{
	"on": "32", "succeeded": "32", "alive": "32", "off": "2", "failed": "31", "expired": "31", "indeterminate": "31",
	"refused": "33", "drift": "33", "unreachable": "31", "auth-failed": "31", "privilege": "31", "busy": "33", "away": "31",
}

// Paint colors a cell by its first word.
func (p Printer) Paint(cell string) string { return p.paintAs(cell, cell) }

// paintAs colors a part of a cell as the cell.
func (p Printer) paintAs(cell, part string) string {
	if !p.Color || part == "" {
		return part
	}
	word, _, _ := strings.Cut(cell, " ")
	code, ok := colors[strings.TrimRight(word, ":,")]
	if !ok {
		return part
	}
	return "\x1b[" + code + "m" + part + "\x1b[0m"
}

// Say prints a line for people; programs find the same in fields.
func (p Printer) Say(format string, args ...any) {
	if !p.Quiet && p.People() {
		fmt.Fprintln(p.Out, p.localized(fmt.Sprintf(format, args...)))
	}
}

// Warn prints a line on stderr, whatever the format.
func (p Printer) Warn(format string, args ...any) {
	fmt.Fprintln(p.Err, p.localized(fmt.Sprintf(format, args...)))
}

// Readable is a text as people may see it: clean, and with its times as theirs.
func (p Printer) Readable(s string) string { return term.Clean(p.localized(s)) }

// Age writes how long ago something was, "" for never.
func (p Printer) Age(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return power.Ago(p.Now().Sub(*t))
}

// fewLines is how many racks or agents have a line each on stderr; more share one.
const fewLines = 3

// WarnEach warns of each of a few names, and of more in one line, of which %s in all is
// their range.
func (p Printer) WarnEach(names []string, all string, each func(name string)) {
	if len(names) > fewLines {
		p.Warn(all, term.Clean(noderange.Fold(names)))
		return
	}
	for _, name := range names {
		each(name)
	}
}

// Progress rewrites one line on stderr, if that is a terminal.
func (p Printer) Progress(format string, args ...any) {
	if !p.Quiet && term.Is(p.Err) {
		fmt.Fprintf(p.Err, "\r\x1b[K"+format, args...)
	}
}

// ClearProgress takes the line away before something else is printed.
func (p Printer) ClearProgress() {
	if !p.Quiet && term.Is(p.Err) {
		fmt.Fprint(p.Err, "\r\x1b[K")
	}
}
