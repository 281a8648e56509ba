package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

func explainCommand(d server) *cli.Command {
	name := d.command + " explain"
	return &cli.Command{
		Name: "explain", Category: "look", Usage: "explain the state of a node and what to do about it", ArgsUsage: "NODE",
		Flags: d.flags(),
		Description: "Shows the desired state and its source, what the monitor read, decided and waits for, how the BMC\n" +
			"answers, and the operations of the node. Times include their zone." +
			examples(name+" r1n07", name+" r1n07 -o json") + exitHelp,
		Action: d.with(explainNode),
	}
}

func explainNode(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if len(nodes) > 1 {
		return settings.Usage("explain takes one node, and this is %d: %s", len(nodes), noderange.Fold(namesOf(nodes)))
	}
	e, err := s.client.Explain(s.ctx, nodes[0].Name)
	if err != nil {
		return err
	}
	if !s.People() || s.Quiet {
		return printer.Show(s.Printer, printer.Listing[api.Explanation]{
			Rows: []api.Explanation{e},
			Name: func(e api.Explanation) string { return e.Node },
		})
	}
	p := &nodePage{view: s.view, Page: printer.NewPage(s.Printer, s.PageWidth()), server: s.server}
	p.explain(e, nodes[0])
	_, err = fmt.Fprint(s.Out, p.String())
	return err
}

// nodePage is what explain shows of a node.
type nodePage struct {
	view
	*printer.Page
	server server
}

// explain fills the page; n is the node's row in status.
func (p *nodePage) explain(e api.Explanation, n api.Node) {
	p.Block("", p.Readable(facts.Lead(e)))
	p.Line("")
	for _, f := range facts.Of(e, n, p.Now()) {
		p.Fact(f.Name, f.Text)
	}
	p.section("operations", p.opRows(e.Ops))
	p.section("readings, the newest first", p.seenRows(e.RecentReadings))
	p.section("decisions of the monitor, the newest first", p.decidedRows(e.RecentDecisions))
	p.advise(facts.Hints(p.server.command, p.Now(), e, n))
}

func (p *nodePage) advise(hints []facts.Hint) {
	if len(hints) > 0 {
		p.Title("what to do")
	}
	for _, h := range hints {
		p.Block("  - ", p.Readable(h.Text))
		for _, command := range h.Run {
			p.Line("      " + term.Clean(command)) // unbroken, to be copied
		}
	}
}

func (p *nodePage) section(title string, rows [][]string) {
	if len(rows) > 0 {
		p.Title(title)
		p.Rows(rows)
	}
}

// opRows has what is outstanding first, then the newest that ended.
func (v view) opRows(ops []api.Op) [][]string {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b api.Op) int {
		return cmp.Or(over(a)-over(b), b.AskedAt.Compare(a.AskedAt))
	})
	var rows [][]string
	for _, o := range ops {
		text := opResult(o)
		if detail := opDetail(o); detail != "" {
			text += ": " + detail
		}
		rows = append(rows, []string{v.Time(o.AskedAt), o.Action.With(o.Options), "by " + o.AskedBy, text + bracketed(o.Reason)})
	}
	return rows
}

// bracketed is text in brackets, if there is any.
func bracketed(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// over orders operations: 0 for one that is outstanding, 1 for one that is over.
func over(o api.Op) int {
	if o.Outcome == "" {
		return 0
	}
	return 1
}

func (v view) seenRows(seen []api.ReadingRun) [][]string {
	var rows [][]string
	for _, r := range slices.Backward(seen) {
		rows = append(rows, []string{fmt.Sprintf("%s, %s", r.State, r.Reach), v.run(r.First, r.Last, r.Times), r.Message})
	}
	return rows
}

// run says when something was the case last, and how often:
// "2026-03-01 14:12:02Z (12 times in 11 min)".
func (v view) run(first, last time.Time, times int) string {
	if times <= 1 {
		return v.Time(last)
	}
	return fmt.Sprintf("%s (%d times in %s)", v.Time(last), times, power.Ago(last.Sub(first)))
}

func (v view) decidedRows(decided []api.Decision) [][]string {
	var rows [][]string
	for _, d := range slices.Backward(decided) {
		rows = append(rows, []string{cmp.Or(string(d.Action), "nothing"), string(d.Reason), v.run(d.First, d.Last, d.Times), d.Message})
	}
	return rows
}
