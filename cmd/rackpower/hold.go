package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
)

func holdCommand(d server) *cli.Command {
	name := d.command + " hold"
	return &cli.Command{
		Name: "hold", Category: "monitor", Usage: "set the desired power of nodes, overriding their status",
		ArgsUsage: "NODES... on|off|hands-off",
		Description: "The monitor turns the nodes on or off and keeps them so, or leaves them alone (hands-off), until the hold is\n" +
			"released or ends; then their statuses apply again. A new hold replaces the one before." + asksFirst + nodesHelp +
			examples(name+" r1n07 hands-off --reason \"swapping a DIMM\"", name+" @rack1 off --for 2h --reason \"feed B is being serviced\" --yes") +
			exitHelp,
		Flags:  d.flags(append(confirmFlags(), lastingFlag("for", "until released"), reasonFlag(true))...),
		Action: d.with(holdNodes),
	}
}

func releaseCommand(d server) *cli.Command {
	name := d.command + " release"
	return &cli.Command{
		Name: "release", Category: "monitor", Usage: "end the holds of nodes, so that their statuses apply again", ArgsUsage: "NODES...",
		Description: "A node that a hold kept on is turned off if its status wants it off." + asksFirst + nodesHelp +
			examples(name+" r1n07", name+" @rack1 --reason \"feed B is back\"") + exitHelp,
		Flags:  d.flags(append(confirmFlags(), reasonFlag(false))...),
		Action: d.with(releaseNodes),
	}
}

func holdNodes(s *session) error {
	in, nodes, err := holdOf(s)
	if err != nil {
		return err
	}
	if in.Confirmed, err = s.confirmHold(nodes, in.Want); err != nil {
		return err
	}
	what := fmt.Sprintf("held %s %s", in.Want, s.UntilOr(s.After(in.For), "released"))
	return setHold(s, in, nodes, what)
}

// holdOf reads a hold and its nodes.
func holdOf(s *session) (in api.SetHold, nodes []api.Node, err error) {
	operands := s.c.Args().Slice()
	last := len(operands) - 1
	in.AskedBy = s.askedBy()
	if in.Want, err = power.ParseWant(operands[last]); err != nil {
		return in, nil, settings.Usage("%v", err)
	}
	if in.Reason, err = s.reason(); err != nil {
		return in, nil, err
	}
	if in.For, err = s.lasting("for"); err != nil {
		return in, nil, err
	}
	nodes, err = s.nodes(operands[:last])
	return in, nodes, err
}

// confirmHold asks when a hold takes power from many.
func (k confirmer) confirmHold(nodes []api.Node, want power.Want) (bool, error) {
	if want != power.WantOff {
		nodes = nil
	}
	return k.confirm(cut(nodes))
}

func releaseNodes(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	in := api.SetHold{Reason: s.c.String("reason"), AskedBy: s.askedBy()}
	if in.Confirmed, err = s.confirm(cut(freed(nodes))); err != nil {
		return err
	}
	return setHold(s, in, nodes, "released")
}

// freed are the nodes whose desired state is off when their hold ends.
func freed(nodes []api.Node) []api.Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n api.Node) bool {
		return n.Hold == nil || n.Hold.Want == power.WantOff || n.Status.Desired().Want != power.WantOff
	})
}

func setHold(s *session, in api.SetHold, nodes []api.Node, what string) error {
	in.Names = namesOf(nodes)
	changed, err := s.client.SetHold(s.ctx, in)
	if err != nil {
		return err
	}
	if in.Want == "" && changed.Changed == 0 {
		what = "not held: nothing changed"
		changed.Unchanged = 0
	}
	s.noteAway(nodes)
	return s.showChangedNodes(changed, nodes, what)
}

// noteAway names the agents that do not learn of a change now.
func (v view) noteAway(nodes []api.Node) {
	if v.Quiet {
		return
	}
	away := map[string]api.AgentPresence{}
	for _, n := range nodes {
		if n.AgentState.Absent() {
			away[n.Agent] = n.AgentState
		}
	}
	v.WarnEach(slices.Sorted(maps.Keys(away)), "agents %s are away: they learn of this when they are back", func(name string) {
		v.Warn("agent %s %s: it learns of this when it is back", term.Clean(name), term.Clean(away[name].Predicate(v.Now())))
	})
}

// held says who holds a node and how long, "" when nobody does.
func (v view) held(h *api.Hold) string { return v.Readable(facts.Hold(h, v.Now())) }

// because is the end of a line that has a reason.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
