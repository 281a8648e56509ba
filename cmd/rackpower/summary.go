package main

import (
	"fmt"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// nodesAlike are nodes of which there is the same to say.
type nodesAlike struct {
	Nodes string `json:"nodes"` // folded
	Count int    `json:"count"`
	What  string `json:"what"`
}

// alike puts nodes together of which the words are the same, in the order of the first of
// each.
func (v view) alike(nodes []api.Node, words func(api.Node) string) []nodesAlike {
	names := map[string][]string{}
	var order []string
	for _, n := range nodes {
		text := words(n)
		if names[text] == nil {
			order = append(order, text)
		}
		names[text] = append(names[text], n.Name)
	}
	groups := []nodesAlike{}
	for _, text := range order {
		groups = append(groups, nodesAlike{noderange.Fold(names[text]), len(names[text]), text})
	}
	return groups
}

// briefly is the power of a node, and what is in the way.
func (v view) briefly(n api.Node) string {
	words := []string{stateCell(n)}
	n.WaitsUntil = time.Time{} // differs between nodes that are alike otherwise
	if n.Fault != "" {
		words = append(words, "fault: "+term.Shorten(n.Fault, 60))
	} else if text := v.differs(n); text != "" {
		words = append(words, text)
	}
	if n.Op != nil {
		words = append(words, fmt.Sprintf("%s by %s: %s", n.Op.Action, n.Op.AskedBy, phaseOf(n.Op.Phase, n.Op.AgentNote)))
	}
	if n.Reach != power.ReachOK {
		words = append(words, string(n.Reach))
	}
	return strings.Join(words, ", ")
}

// summary prints a line for all nodes that are alike, and how many are how.
func (s *session) summary(found []api.NodesAlike) error {
	var groups []nodesAlike
	at := map[string]int{}
	for _, g := range found {
		what := s.briefly(g.Like)
		i, known := at[what]
		if !known {
			i, at[what] = len(groups), len(groups)
			groups = append(groups, nodesAlike{What: what})
		}
		groups[i].Count += g.Count
		groups[i].Nodes = joined(groups[i].Nodes, g.Nodes)
	}
	if !s.People() || s.Quiet {
		return printer.Show(s.Printer, printer.Listing[nodesAlike]{Rows: groups, Name: func(g nodesAlike) string { return g.Nodes }})
	}
	page := printer.NewPage(s.Printer, s.PageWidth())
	for _, g := range groups {
		if width := s.PageWidth(); width > 0 && term.Width(g.Nodes)+20 > width {
			for _, line := range term.Break(strings.ReplaceAll(g.Nodes, ",", ", "), width) {
				page.Line(strings.ReplaceAll(line, ", ", ","))
			}
			page.Block("    ", s.Readable(g.What))
			continue
		}
		page.Block(g.Nodes+" ", s.Readable(g.What))
	}
	if len(found) > 0 {
		page.Line(counts(found))
		if !s.c.Bool("summary") {
			page.Line("--long shows a line for each")
		}
	}
	_, err := fmt.Fprint(s.Out, page.String())
	return err
}

// foldedNodes is what central folds, of nodes that are here.
func foldedNodes(nodes []api.Node) []api.NodesAlike {
	var folding api.Folding
	for i := range nodes {
		folding.Add(&nodes[i])
	}
	return folding.Groups()
}

// joined are the names of two groups, folded together.
func joined(a, b string) string {
	if a == "" {
		return b
	}
	names, err := noderange.Expand(a + "," + b)
	if err != nil { // more names than an expression may have
		return a + "," + b
	}
	return noderange.Fold(names)
}

// counts says how many nodes are on and off, and how many are not as they should be.
func counts(groups []api.NodesAlike) string {
	states, wrong, all := map[power.State]int{}, map[string]int{}, 0
	for _, g := range groups {
		all += g.Count
		states[g.Like.State] += g.Count
		switch n := g.Like; {
		case n.Fault != "":
			wrong["in fault"] += g.Count
		case n.Drift:
			wrong["in drift"] += g.Count
		case n.Pending:
			wrong["pending"] += g.Count
		}
		if g.Like.Stale {
			wrong["stale"] += g.Count
		}
	}
	var parts, bad []string
	for _, state := range []power.State{power.On, power.Off, power.Unknown} {
		if states[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
		}
	}
	for _, word := range []string{"in fault", "in drift", "pending", "stale"} {
		if wrong[word] > 0 {
			bad = append(bad, fmt.Sprintf("%d %s", wrong[word], word))
		}
	}
	text := power.Count(all, "node") + ": " + strings.Join(parts, ", ")
	return text + strings.TrimSuffix("; "+strings.Join(bad, ", "), "; ")
}
