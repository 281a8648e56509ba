package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
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
	p.Block("", p.Readable(cmp.Or(e.Message, fmt.Sprintf("%s is %s and should be %s.", e.Node, e.Reading.State, e.Desired.Want))))
	p.Line("")
	p.facts(e, n)
	p.section("operations", p.opRows(e.Ops))
	p.section("readings, the newest first", p.seenRows(e.RecentReadings))
	p.section("decisions of the monitor, the newest first", p.decidedRows(e.RecentDecisions))
	p.advise(hints(p.server, p.Now(), e, n))
}

func (p *nodePage) advise(hints []hint) {
	if len(hints) > 0 {
		p.Title("what to do")
	}
	for _, h := range hints {
		p.Block("  - ", p.Readable(h.text))
		for _, command := range h.run {
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

// facts is the middle of the page: how things stand.
func (p *nodePage) facts(e api.Explanation, n api.Node) {
	p.Fact("node", p.nodeWords(e, n))
	if e.Away != "" {
		p.Fact("missing", "what only its agent knows: "+e.Away)
	}
	p.Fact("power", p.readingWords(e))
	p.Fact("desired", desiredWords(e))
	p.Fact("hold", p.held(e.Hold))
	p.Fact("protected", protection(e.Protected))
	p.Fact("monitor", p.waitsWords(e.Monitor))
	p.Fact("fault", p.faultWords(e.Monitor))
	for _, a := range e.Rack.Alarms {
		p.Fact("alarm", alarmWords(a))
	}
	p.Fact("brake", p.brakeWords(e.Rack.Brake))
	p.Fact("pause", p.pauseWords(e.Rack.Pause))
	if e.Domain != nil {
		p.Fact("power domain", domainState(*e.Domain))
	}
	p.Fact("BMC", p.bmcWords(e, n))
	if e.BMC != nil {
		p.Fact("", e.BMC.LastError)
	}
	switch alone := e.BMC != nil && e.BMC.BreakerOpen != ""; {
	case alone && e.BMC.NextProbe.IsZero():
		p.Fact("next reading", "none until its BMC is corrected")
	case alone:
		p.Fact("next reading", "when its BMC answers a probe")
	case e.Next.IsZero():
		p.Fact("readings", e.Rack.Monitor)
	default:
		p.Fact("next reading", p.Until(e.Next)+note(e.Rack.Monitor))
	}
}

// protection is who protects a node since when, and why.
func protection(p *power.Protection) string {
	if p == nil {
		return ""
	}
	return strings.TrimPrefix(p.Text(), "protected ")
}

// note is text in brackets, if there is any.
func note(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func (v view) nodeWords(e api.Explanation, n api.Node) string {
	agent := "agent " + cmp.Or(e.Agent, n.Agent, "none")
	if text := n.AgentState.Text(v.Now()); text != "" {
		agent += " " + text
	}
	words := []string{e.Node, agent}
	if n.Rack != "" && n.Rack != e.Agent {
		words = []string{e.Node, "rack " + n.Rack, agent}
	}
	return strings.Join(append(words, "status "+cmp.Or(string(e.Status), "none")), ", ")
}

// readingWords is the power with its age, and the reach where that is not ok.
func (v view) readingWords(e api.Explanation) string {
	r := e.Reading
	text := string(cmp.Or(r.State, power.Unknown))
	if !r.ObservedAt.IsZero() {
		text += ", read " + v.Since(r.ObservedAt)
	}
	switch r.Reach {
	case power.ReachOK, "":
		return text
	case power.ReachNever:
		return text + ", never read"
	}
	text += "; now " + string(r.Reach)
	if !r.TriedAt.IsZero() {
		text += ", tried " + v.Since(r.TriedAt)
	}
	return text
}

// desiredWords is the desired state with its conditions and where it comes from.
func desiredWords(e api.Explanation) string {
	text := string(e.Desired.Want)
	switch {
	case e.Desired.Want == power.HandsOff && e.Desired.Expected != "":
		text += fmt.Sprintf(", expected %s", e.Desired.Expected)
	case e.Desired.Debounced:
		text += " (after two equal readings)"
	}
	if e.Desired.NoCut {
		text += ", power is never taken away"
	}
	if e.DesiredFrom != "" {
		text += ", from " + e.DesiredFrom
	}
	return text
}

func (v view) waitsWords(m api.NodeMonitor) string {
	if m.Waits == "" {
		return ""
	}
	text := "waits: " + string(m.Waits)
	if !m.WaitsUntil.IsZero() {
		text += " until " + v.Until(m.WaitsUntil)
	}
	return text + because(m.WaitsMessage)
}

func (v view) faultWords(m api.NodeMonitor) string {
	text := m.Fault
	switch {
	case text != "" && !m.FaultSince.IsZero():
		text += ", since " + v.Since(m.FaultSince)
	case text == "" && m.Failures == 0:
		return ""
	case text == "":
		text = "not yet"
	}
	if m.Failures > 0 && m.Fault == "" { // a fault says it itself
		text += ", " + power.Count(m.Failures, "correction") + " failed in a row"
	}
	if m.Waits == power.ReasonFault && !m.WaitsUntil.IsZero() {
		text += ", next try " + v.Until(m.WaitsUntil)
	}
	if m.Faults > 1 {
		text += fmt.Sprintf(", %d faults so far", m.Faults)
	}
	return text
}

func (v view) bmcWords(e api.Explanation, n api.Node) string {
	b := e.BMC
	if b == nil {
		return n.BMC
	}
	words := []string{cmp.Or(b.Address, n.BMC, "none known")}
	switch {
	case b.SharedWith != "":
		words = append(words, "that of "+b.SharedWith+" too")
	case b.BreakerOpen != "":
		words = append(words, "left alone: "+b.BreakerOpen)
	case b.Failures == 0 && b.AuthFailures == 0:
		words = append(words, "answers")
	}
	if b.Failures > 0 {
		words = append(words, power.Count(b.Failures, "attempt")+" without an answer")
	}
	if b.AuthFailures > 0 {
		words = append(words, power.Count(b.AuthFailures, "login")+" refused")
	}
	if !b.NextProbe.IsZero() {
		words = append(words, "next probe "+v.Until(b.NextProbe))
	}
	return strings.Join(words, ", ")
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
		rows = append(rows, []string{v.Time(o.AskedAt), o.Action.With(o.Options), "by " + o.AskedBy, text + note(o.Reason)})
	}
	return rows
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
