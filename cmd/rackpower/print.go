package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

var formats = []string{"table", "wide", "json", "jsonl", "yaml", "name"}

func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "output `FORMAT`: " + strings.Join(formats, ", ")},
		&cli.BoolFlag{Name: "no-color", Usage: "do not use colors (also NO_COLOR)"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
	}
}

// printer writes results to stdout and what is beside them to stderr.
type printer struct {
	out, err io.Writer
	format   string
	color    bool
	quiet    bool
	wallClock
}

func newPrinter(c *cli.Context, more ...string) (printer, error) {
	p := printer{out: c.App.Writer, err: c.App.ErrWriter, format: c.String("output"), quiet: c.Bool("quiet"), wallClock: clockOf(c)}
	p.color = term.Is(p.out) && !c.Bool("no-color") && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	known := append(slices.Clone(formats), more...)
	if !slices.Contains(known, p.format) {
		return p, settings.Usage("-o: unknown format %q: want one of %s", p.format, strings.Join(known, ", "))
	}
	return p, nil
}

// people reports whether the output is for reading rather than for programs.
func (p printer) people() bool { return p.format == "table" || p.format == "wide" }

// listing is a result with its forms. Rows go out as they are for programs.
type listing[T any] struct {
	rows  []T
	name  func(T) string // for -o name
	head  []string
	cells func(T) []string
	// wide columns follow the others under -o wide.
	wideHead  []string
	wideCells func(T) []string
}

// show prints a listing in the format asked for.
func show[T any](p printer, l listing[T]) error {
	if p.quiet {
		return nil
	}
	if l.rows == nil {
		l.rows = []T{}
	}
	if !p.people() {
		l.rows = inUTC(l.rows)
	}
	switch p.format {
	case "json":
		return writeJSON(p.out, l.rows)
	case "jsonl":
		return writeLines(p.out, l.rows)
	case "yaml":
		return writeYAML(p.out, l.rows)
	case "name":
		return writeNames(p.out, l)
	}
	if len(l.rows) == 0 {
		return nil
	}
	head := l.head
	wide := p.format == "wide" && l.wideCells != nil
	if wide {
		head = append(slices.Clone(head), l.wideHead...)
	}
	table := [][]string{head}
	for _, row := range l.rows {
		cells := l.cells(row)
		if wide {
			cells = append(cells, l.wideCells(row)...)
		}
		table = append(table, cells)
	}
	return p.table(table)
}

func writeJSON(w io.Writer, rows any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(rows)
}

func writeLines[T any](w io.Writer, rows []T) error {
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

func writeNames[T any](w io.Writer, l listing[T]) error {
	for _, row := range l.rows {
		if _, err := fmt.Fprintln(w, term.Clean(l.name(row))); err != nil {
			return err
		}
	}
	return nil
}

// table writes aligned columns; empty columns are left out.
func (p printer) table(rows [][]string) error {
	_, err := p.out.Write(p.tableIn(term.Columns(p.out), rows))
	return err
}

// tableIn lays a table out. Where a row is wider than a terminal of so many columns
// its last cell goes on in further lines; 0 breaks none.
func (p printer) tableIn(columns int, rows [][]string) []byte {
	width := make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for i := range row {
			row[i] = p.readable(row[i])
			width[i] = max(width[i], term.Width(row[i]))
		}
	}
	last, begin := 0, 0 // the column that is broken, and where it begins
	for i := range width {
		if width[i] == 0 {
			continue
		}
		width[i] = max(width[i], term.Width(rows[0][i]))
		last = i
	}
	for _, w := range width[:last] {
		if w > 0 {
			begin += w + 2
		}
	}
	var buf bytes.Buffer
	for r, row := range rows {
		line := ""
		var more []string
		for i, cell := range row {
			if width[i] == 0 {
				continue
			}
			if room := columns - begin; i == last && columns > 0 && term.Width(cell) > room {
				more = term.Wrap(cell, room)
				cell, more = more[0], more[1:]
			}
			pad := width[i] - term.Width(cell)
			if r > 0 {
				cell = p.paint(cell)
			}
			line += cell + strings.Repeat(" ", pad+2)
		}
		buf.WriteString(strings.TrimRight(line, " ") + "\n")
		for _, line := range more {
			buf.WriteString(strings.Repeat(" ", begin) + line + "\n")
		}
	}
	return buf.Bytes()
}

// details writes one thing as "key: value" lines.
func (p printer) details(pairs ...string) {
	if p.quiet {
		return
	}
	text := newPage(p)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			text.block(fmt.Sprintf("%-14s ", pairs[i]+":"), p.readable(pairs[i+1]))
		}
	}
	fmt.Fprint(p.out, text.text.String())
}

var colors = map[string]string{
	"on": "32", "succeeded": "32", "alive": "32", "off": "2", "failed": "31", "expired": "31", "indeterminate": "31",
	"refused": "33", "drift": "33", "unreachable": "31", "auth-failed": "31", "privilege": "31", "busy": "33", "away": "31",
}

// paint colors a cell by its first word.
func (p printer) paint(cell string) string {
	if !p.color {
		return cell
	}
	word, _, _ := strings.Cut(cell, " ")
	code, ok := colors[strings.TrimRight(word, ":,")]
	if !ok {
		return cell
	}
	return "\x1b[" + code + "m" + cell + "\x1b[0m"
}

// say prints a line for people; programs find the same in fields.
func (p printer) say(format string, args ...any) {
	if !p.quiet && p.people() {
		fmt.Fprintln(p.out, p.localized(fmt.Sprintf(format, args...)))
	}
}

// warn prints a line on stderr, whatever the format.
func (p printer) warn(format string, args ...any) {
	fmt.Fprintln(p.err, p.localized(fmt.Sprintf(format, args...)))
}

// readable is a text as people may see it: clean, and with its times as theirs.
func (p printer) readable(s string) string { return term.Clean(p.localized(s)) }

// age writes how long ago something was, "" for never.
func (p printer) age(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return power.Ago(p.now().Sub(*t))
}

// fewLines is how many racks or agents have a line each on stderr; more share one.
const fewLines = 3

// warnEach warns of each of a few names, and of more in one line, of which %s in all is
// their range.
func (p printer) warnEach(names []string, all string, each func(name string)) {
	if len(names) > fewLines {
		p.warn(all, term.Clean(noderange.Fold(names)))
		return
	}
	for _, name := range names {
		each(name)
	}
}
