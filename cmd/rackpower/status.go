package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/noderange"
)

func statusCommand(d server) *cli.Command {
	name := d.command + " status"
	return &cli.Command{
		Name: "status", Category: "look", Usage: "show the power state of nodes", ArgsUsage: "[NODES...]",
		Description: "The state is what was last read, with its age; --fresh reads now. A node that differs from its desired state is\n" +
			"pending if it was not in that state yet (with what the monitor waits for), and in drift if it was.\n" +
			"A node that repeated corrections did not change is in fault. rackpower explain NODE says why.\n" +
			"Where the table would be longer than the terminal, nodes that are alike share a line, as with --summary." + nodesHelp +
			examples(name+" @rack1", name+" @state:on -o name", name+" r1n[01-40] --fresh -o json", name+" --summary", name+" --watch",
				name+" -o go-template='{{range .}}{{.name}} {{end}}'") + exitHelp,
		Flags: d.flags(
			&cli.BoolFlag{Name: "fresh", Usage: "read the nodes now"},
			&cli.DurationFlag{Name: "timeout", Value: 15 * time.Second, Usage: "with --fresh: wait at most `DURATION`, up to 60s"},
			&cli.BoolFlag{Name: "summary", Aliases: []string{"s"}, Usage: "show a line for all nodes that are alike"},
			&cli.BoolFlag{Name: "long", Usage: "show a line for each node, be it more than a terminal has"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "continue and show changes, until interrupted"},
			&cli.DurationFlag{Name: "interval", Value: 2 * time.Second, Usage: "with --watch: refresh every `DURATION`"},
		),
		Action: d.looking(showStatus),
	}
}

func showStatus(s *session) error {
	if s.c.Bool("summary") && s.c.Bool("long") {
		return settings.Usage("--summary and --long exclude each other")
	}
	expr, err := s.selection(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if done, err := s.foldedStatus(expr); done || err != nil {
		return err
	}
	list := s.selected
	if s.c.Bool("fresh") {
		list = s.readNow
	}
	nodes, err := list(expr)
	if err != nil {
		return err
	}
	if s.c.Bool("watch") {
		return watchNodes(s, expr, nodes)
	}
	if err := showNodes(s, nodes); err != nil {
		return err
	}
	return s.unreadError(nodes)
}

// mostLines is how many nodes the table may have; ok is false where it may have any.
func (s *session) mostLines() (most int, ok bool) {
	_, lines := term.Size(s.Out)
	return lines - 2, s.Format == "table" && lines > 0 && !s.c.Bool("long")
}

// foldedStatus has central fold the nodes where a line for each is not wanted, or more than the
// terminal has: there may be very many. It reports whether that was so.
func (s *session) foldedStatus(expr string) (done bool, err error) {
	if s.server != atCentral || s.c.Bool("fresh") || s.c.Bool("watch") {
		return false, nil
	}
	most, bounded := s.mostLines()
	switch {
	case s.c.Bool("summary"):
	case !bounded || len(expr) > longest:
		return false, nil
	default:
		if _, more, err := s.client.FirstNodes(s.ctx, cmp.Or(expr, "all"), max(most, 0)); !more || err != nil {
			return false, err
		}
	}
	var groups []api.NodesAlike
	for _, part := range inParts(cmp.Or(expr, "all")) {
		found, err := s.client.NodesAlike(s.ctx, part)
		if err != nil {
			return false, err
		}
		groups = append(groups, found...)
	}
	if len(groups) == 0 {
		return false, nil // which is said as of a table
	}
	s.noteRacks(cmp.Or(expr, "all"), nil)
	return true, s.summary(groups)
}

func showNodes(s *session, nodes []api.Node) error {
	if len(nodes) == 0 {
		s.Say("no nodes are known yet (rackpower node add, rackpower node import)")
	}
	s.noteRacks("", nodes)
	if most, bounded := s.mostLines(); s.c.Bool("summary") || bounded && len(nodes) > most {
		return s.summary(foldedNodes(nodes))
	}
	return printer.Show(s.Printer, s.nodeListing(nodes))
}

// readNow has the nodes read that an expression selects, "" being all.
func (s *session) readNow(expr string) ([]api.Node, error) {
	s.Progress("reading the nodes")
	defer s.ClearProgress()
	wait := min(max(s.c.Duration("timeout"), time.Second), time.Minute)
	nodes, err := s.client.ReadNodes(s.ctx, api.ReadNodes{Select: cmp.Or(expr, "all"), Wait: wait})
	if err == nil && len(nodes) == 0 && expr != "" {
		err = nothing{expr}
	}
	return nodes, err
}

// unreadError names, after --fresh, the nodes that were not read, by reason.
func (s *session) unreadError(nodes []api.Node) error {
	if !s.c.Bool("fresh") {
		return nil
	}
	count, unread := 0, map[string][]string{}
	for _, n := range nodes {
		if reason := unreadFor(n, s.Now()); reason != "" {
			count++
			unread[reason] = append(unread[reason], n.Name)
		}
	}
	if count == 0 {
		return nil
	}
	var texts []string
	for _, why := range slices.Sorted(maps.Keys(unread)) {
		texts = append(texts, fmt.Sprintf("%s %s", noderange.Fold(unread[why]), term.Clean(why)))
	}
	return settings.Exit(settings.ExitFailed, "%s could not be read now: %s", power.Count(count, "node"), strings.Join(texts, ", "))
}

// unreadFor is why a node was not read just now, "" where it was.
func unreadFor(n api.Node, now time.Time) string {
	switch {
	case n.Reach != power.ReachOK:
		return string(n.Reach)
	case !n.Unread:
		return ""
	case n.AgentState.Absent():
		return "agent " + n.Agent + " " + n.AgentState.Text(now)
	default:
		return "no answer in time"
	}
}

func (v view) nodeListing(nodes []api.Node) printer.Listing[api.Node] {
	return printer.Listing[api.Node]{
		Rows: nodes, Name: func(n api.Node) string { return n.Name },
		Head: []string{"NODE", "STATE", "AGE", "REACH", "STATUS", "DESIRED", "DRIFT", "OPERATION"},
		Cells: func(n api.Node) []string {
			return []string{
				n.Name, stateCell(n), cmp.Or(v.Age(n.ObservedAt), "never"), reachCell(n), string(n.Status), desiredCell(n),
				v.driftCell(n), v.opCell(n),
			}
		},
		WideHead: []string{"RACK", "AGENT", "DOMAIN", "LABELS", "BMC", "PROTECTED"},
		WideCells: func(n api.Node) []string {
			agent := n.Agent
			if n.AgentState.Absent() {
				agent += " (" + n.AgentState.Text(v.Now()) + ")"
			}
			return []string{n.Rack, agent, n.Domain, strings.Join(n.Labels, ","), n.BMC, facts.Protection(n.Protected)}
		},
	}
}

func stateCell(n api.Node) string {
	if n.Stale && n.State != power.Unknown {
		return string(n.State) + " (stale)"
	}
	return string(n.State)
}

func reachCell(n api.Node) string {
	if n.Reach == power.ReachOK {
		return ""
	}
	return string(n.Reach)
}

func desiredCell(n api.Node) string {
	switch {
	case n.Hold == nil:
		return string(n.Desired)
	case n.Hold.Schedule != "":
		return fmt.Sprintf("%s (schedule %s)", n.Desired, n.Hold.Schedule)
	default:
		return fmt.Sprintf("%s (held by %s)", n.Desired, n.Hold.By)
	}
}

// driftCell is the difference between what is desired and what was seen, and why it
// is not mended yet.
func (v view) driftCell(n api.Node) string {
	if v.Format == "table" {
		n.Fault = term.Shorten(n.Fault, 60)
	}
	if fault := v.faultOf(n); fault != "" {
		return "fault: " + fault
	}
	return v.differs(n)
}

func (v view) differs(n api.Node) string {
	underWay := n.Op != nil && n.Op.Action.Final() != power.Unknown && n.Op.Action.Final() != n.State
	word := ""
	switch {
	case n.Pending || underWay:
		word = "pending"
	case n.Drift:
		word = "drift"
	}
	if word == "" || n.Waits == "" || n.Op != nil {
		return word
	}
	word += ": " + string(n.Waits)
	if left := n.WaitsUntil.Sub(v.Now()); !n.WaitsUntil.IsZero() && left > 0 {
		word += ", " + power.Ago(left.Round(time.Second))
	}
	return word
}

// faultOf is why a node is in fault and since when.
func (v view) faultOf(n api.Node) string {
	if n.Fault == "" || n.FaultSince.IsZero() {
		return n.Fault
	}
	return fmt.Sprintf("%s, %s", n.Fault, v.Age(&n.FaultSince))
}

// phaseOf is where an operation is, and of an agent that is away where it was when that
// said so last.
func phaseOf(phase, note string) string {
	switch {
	case note == "" || phase == "" || phase == api.PhaseTaken:
		return cmp.Or(phase, api.PhaseTaken)
	default:
		return fmt.Sprintf("not known: %s; it said last: %s", note, phase)
	}
}

func (v view) opCell(n api.Node) string {
	if n.Op == nil {
		return ""
	}
	text := fmt.Sprintf("%s (asked by %s, %s ago) %s", n.Op.Action, n.Op.AskedBy, v.Age(&n.Op.AskedAt), phaseOf(n.Op.Phase, n.Op.AgentNote))
	if n.Waiting > 0 {
		text += fmt.Sprintf(", %d more", n.Waiting)
	}
	return text
}

// watchNodes shows nodes again and again: the whole table on a terminal, otherwise what
// has changed.
func watchNodes(s *session, expr string, nodes []api.Node) error {
	interval := max(s.c.Duration("interval"), 100*time.Millisecond)
	screen := s.People() && term.Is(s.Out)
	shown := map[string]string{}
	reachable := true
	for {
		if screen {
			fmt.Fprint(s.Out, "\x1b[H\x1b[2J")
			if err := showNodes(s, nodes); err != nil {
				return err
			}
		} else if err := s.showChanged(nodes, shown); err != nil {
			return err
		}
		if backoff.Sleep(s.ctx, interval) != nil {
			return nil // being interrupted is how it ends
		}
		now, err := s.selected(expr)
		switch {
		case s.ctx.Err() != nil:
			return nil
		case lost(err):
			if reachable {
				s.Warn("%v; trying again", s.explain(err))
			}
			reachable = false
		case err != nil:
			return err
		default:
			nodes, reachable = now, true
		}
	}
}

// showChanged prints the nodes that differ from what was shown of them before.
func (v view) showChanged(nodes []api.Node, shown map[string]string) error {
	var changed []api.Node
	for _, n := range nodes {
		op := ""
		if n.Op != nil {
			op = n.Op.ID + n.Op.Phase
		}
		now := fmt.Sprint(n.State, n.Reach, n.Stale, n.Status, n.Desired, n.Drift, n.Pending, n.Waits, n.Fault, n.Hold != nil, op,
			n.AgentState.State)
		if shown[n.Name] != now {
			shown[n.Name] = now
			changed = append(changed, n)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	p := v.Printer
	if p.Format == "json" {
		p.Format = "jsonl" // one array could never end
	}
	return printer.Show(p, v.nodeListing(changed))
}
