package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// section is a part of the picture. Each block stays together, and those first are the more
// important ones.
type section struct {
	title, none string
	blocks      [][]string
	lines       int // that it may take, without its title
}

// picture is what top shows on a terminal of that size.
func (v view) picture(o overview, columns, lines int) []string {
	columns-- // what erases the rest of a line would take a character in the last column
	out := []string{v.topTitle(o, columns)}
	if o.wrong != "" {
		text := fmt.Sprintf("no news for %s: %s", power.Ago(v.Now().Sub(o.at)), o.wrong)
		out = append(out, v.paintAs("31", term.Cut(v.Readable(text), columns)))
	}
	sections := []section{
		{title: "RACKS", none: "there are none", blocks: v.topRacks(o)},
		{title: "ATTENTION", none: "nothing wants attention", blocks: v.topAttention(o, columns)},
		{title: "OPERATIONS", none: "none is under way", blocks: v.topOps(o)},
	}
	left := share(sections, lines-len(out)-len(sections))
	for _, s := range sections {
		if left >= len(sections) {
			out = append(out, "")
		}
		out = append(out, v.paintAs("1", term.Cut(s.title, columns)))
		for _, line := range s.fit() {
			out = append(out, v.topLine(line, columns))
		}
	}
	return out[:min(len(out), lines)]
}

func (v view) paintAs(code, text string) string {
	if !v.Color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// topTitle has the counts, and the time on the right.
func (v view) topTitle(o overview, columns int) string {
	clock := v.Now().In(v.Location()).Format(time.TimeOnly)
	return term.Cut(term.Pad(term.Cut(counts(foldedNodes(o.nodes)), columns-len(clock)-2), columns-len(clock))+clock, columns)
}

// share gives each section its lines: all get a third, or what they need, and what is left
// goes to the attention list first, then to operations and racks. It returns what nobody needs.
func share(sections []section, lines int) int {
	need := make([]int, len(sections))
	for i := range sections {
		for _, b := range sections[i].blocks {
			need[i] += len(b)
		}
		need[i] = max(need[i], 1)
		sections[i].lines = min(need[i], max(lines/len(sections), 1))
	}
	left := lines
	for _, s := range sections {
		left -= s.lines
	}
	for _, i := range []int{1, 2, 0} {
		more := min(need[i]-sections[i].lines, max(left, 0))
		sections[i].lines += more
		left -= more
	}
	return left
}

// fit is as many blocks as there are lines for; the last line counts the others.
func (s section) fit() []string {
	if len(s.blocks) == 0 {
		return []string{"  " + s.none}
	}
	total := 0
	for _, b := range s.blocks {
		total += len(b)
	}
	if total <= s.lines {
		return slices.Concat(s.blocks...)
	}
	var out []string
	for i, b := range s.blocks {
		if len(out)+len(b) > s.lines-1 {
			return append(out, fmt.Sprintf("  %d more", len(s.blocks)-i))
		}
		out = append(out, b...)
	}
	return out
}

// topLine cuts a line off at the width; one that begins with a severity has its color.
func (v view) topLine(line string, columns int) string {
	text := term.Cut(v.Readable(line), columns)
	for severity, code := range severityColors {
		if strings.HasPrefix(text, "  "+severity) {
			return v.paintAs(code, text[:len(severity)+2]) + text[len(severity)+2:]
		}
	}
	return text
}

var severityColors = map[string]string{
	string(api.SeverityCritical): "31", string(api.SeverityWarning): "33", string(api.SeverityNotice): "36",
}

// topRacks is a line for each rack, those in trouble first.
func (v view) topRacks(o overview) [][]string {
	count, wrong := map[string]map[power.State]int{}, map[string]int{}
	for _, n := range o.nodes {
		if count[n.Rack] == nil {
			count[n.Rack] = map[power.State]int{}
		}
		count[n.Rack][n.State]++
		if n.Fault != "" || n.Drift || n.Reach != power.ReachOK {
			wrong[n.Rack]++
		}
	}
	trouble := func(r api.Rack) int { // the most pressing first
		switch {
		case r.AgentState.Absent() || len(r.State.Alarms) > 0 || r.State.Brake != nil:
			return 0
		case wrong[r.Name] > 0:
			return 1
		case v.rackCell(r) != "":
			return 2
		default:
			return 3
		}
	}
	racks := slices.Clone(o.racks)
	slices.SortStableFunc(racks, func(a, b api.Rack) int {
		return cmp.Or(trouble(a)-trouble(b), wrong[b.Name]-wrong[a.Name], noderange.Compare(a.Name, b.Name))
	})
	width := 4
	for _, r := range racks {
		width = max(width, min(term.Width(r.Name), 20))
	}
	blocks := make([][]string, len(racks))
	for i, r := range racks {
		c := count[r.Name]
		text := fmt.Sprintf("  %s %5d on %5d off", term.Pad(term.Cut(r.Name, width), width), c[power.On], c[power.Off])
		if n := c[power.Unknown]; n > 0 {
			text += fmt.Sprintf(" %5d unknown", n)
		}
		var said []string
		if n := wrong[r.Name]; n > 0 {
			said = append(said, fmt.Sprintf("%d in trouble", n))
		}
		if r.AgentState.Absent() {
			said = append(said, "agent "+r.AgentState.Text(v.Now()))
		}
		if cell := v.rackCell(r); cell != "" {
			said = append(said, cell)
		}
		if len(said) > 0 {
			text += "  " + strings.Join(said, "; ")
		}
		blocks[i] = []string{text}
	}
	return blocks
}

// topAttention is what is the matter, and the command that helps.
func (v view) topAttention(o overview, columns int) [][]string {
	var blocks [][]string
	for _, a := range o.attention {
		text := a.Message
		if !a.Since.IsZero() {
			text = v.Age(&a.Since) + ": " + text
		}
		const indent = "           "
		block := term.Wrap(v.Readable(text), columns-len(indent))
		for i := range block {
			block[i] = indent + block[i]
		}
		block[0] = fmt.Sprintf("  %-8s ", a.Severity) + strings.TrimPrefix(block[0], indent)
		if len(a.Run) > 0 {
			block = append(block, indent+a.Run[0])
		} else if a.Do != "" {
			block = append(block, indent+a.Do)
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// topOps is a line for the operations that stand alike, the oldest first.
func (v view) topOps(o overview) [][]string {
	type group struct {
		action    power.Action
		by, phase string
	}
	names, oldest := map[group][]string{}, map[group]time.Time{}
	var order []group
	for _, op := range o.ops {
		g := group{op.Action, op.AskedBy, phaseOf(op.Phase, op.AgentNote)}
		if names[g] == nil {
			order = append(order, g)
			oldest[g] = op.AskedAt
		}
		names[g] = append(names[g], op.Node)
		if op.AskedAt.Before(oldest[g]) {
			oldest[g] = op.AskedAt
		}
	}
	slices.SortStableFunc(order, func(a, b group) int { return oldest[a].Compare(oldest[b]) })
	var blocks [][]string
	for _, g := range order {
		at := oldest[g]
		blocks = append(blocks, []string{fmt.Sprintf("  %s %s by %s, %s ago: %s", noderange.Fold(names[g]), g.action, g.by, v.Age(&at), g.phase)})
	}
	return blocks
}
