package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// brakeCommand lets people see and release the fleet brake. An agent has one, so
// there no rack is named and no reason wanted.
func brakeCommand(d server) *cli.Command {
	name, operands, why := d.command+" brake", "[RACK...]", reasonFlag(true)
	which := "Without a RACK it is every brake that holds. "
	shown := []string{name + " show", name + " show r1 -o json"}
	released := []string{name + " release r1 --reason \"30 nodes go back to the pool\" --yes"}
	if d == atAgent {
		operands, which, why = "", "", reasonFlag(false)
		shown, released = []string{name + " show"}, []string{name + " release --yes"}
	}
	return &cli.Command{
		Name: "brake", Category: "monitor", Usage: "show or release the fleet brake, which stops mass power-offs",
		Description: "When many nodes would lose power at once, or leave their desired state at once, the monitor of their rack\n" +
			"corrects nothing until an administrator releases the brake. Requests are still carried out." +
			examples(shown[0], released[0]) + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "show the brakes that hold, and the nodes they hold", ArgsUsage: operands, Flags: d.flags(),
				Action:      d.with(showHeldBrakes),
				Description: "The status is 0 whether one holds or not." + examples(shown...) + exitHelp,
			},
			{
				Name: "release", Usage: "release brakes: let the monitors correct the nodes they hold", ArgsUsage: operands,
				Flags:  d.flags(append(confirmFlags(), why)...),
				Action: d.with(releaseBrakes),
				Description: which + "Where that is not meant, undo the change that led\nto it instead: " +
					"a brake ends when no node differs any more." +
					asksFirst + examples(released...) + exitHelp,
			},
		},
	}
}

// brakes lists those that hold, of the racks that are named.
func (k connection) brakes() ([]api.RackBrake, error) {
	all, err := k.client.Brakes(k.ctx)
	named := k.c.Args().Slice()
	if err != nil || len(named) == 0 {
		return all, err
	}
	var racks []api.Rack
	if racks, err = k.client.Racks(k.ctx); err != nil {
		return nil, err
	}
	for _, name := range named {
		if _, err := rackNamed(racks, name); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(all, func(b api.RackBrake) bool { return !slices.Contains(named, b.Rack) }), nil
}

func showHeldBrakes(s *session) error {
	brakes, err := s.brakes()
	if err != nil {
		return err
	}
	if len(brakes) == 0 {
		s.Say("no brake holds")
	}
	return s.showBrakes(s.server, brakes)
}

func (v view) showBrakes(d server, brakes []api.RackBrake) error {
	if !v.People() || v.Quiet {
		return printer.Show(v.Printer, printer.Listing[api.RackBrake]{Rows: brakes, Name: func(b api.RackBrake) string { return b.Rack }})
	}
	for i, b := range brakes {
		if i > 0 {
			v.Say("")
		}
		v.Details("rack", b.Rack, "message", b.Message, "kind", brakeKinds[b.Kind], "since", v.Since(b.Since),
			"nodes", fmt.Sprintf("%s (%d of %d)", noderange.Fold(b.Nodes), len(b.Nodes), b.Total))
		if b.Released {
			v.Details("released", "yes, not yet confirmed by its agent")
		} else {
			v.Details("to release", facts.ReleaseBrakeBy(d.command, b.Rack))
		}
	}
	return nil
}

var brakeKinds = map[string]string{
	"cut":   "cut: too many would lose power at once",
	"drift": "drift: too many left their desired state at once",
}

func releaseBrakes(s *session) error {
	in := api.ReleaseBrake{AskedBy: s.askedBy(), Reason: strings.TrimSpace(s.c.String("reason"))}
	var err error
	if s.server == atCentral {
		if in.Reason, err = s.reason(); err != nil {
			return err
		}
	}
	brakes, err := s.brakes()
	if err != nil {
		return err
	}
	if len(brakes) == 0 {
		s.Say("no brake holds: there is nothing to release")
		return s.showBrakes(s.server, nil)
	}
	if err := s.confirmBrakes(brakes); err != nil {
		return err
	}
	in.MaxNodes = map[string]int{}
	for _, b := range brakes {
		in.MaxNodes[b.Rack] = len(b.Nodes)
		if s.server == atCentral {
			in.Racks = append(in.Racks, b.Rack)
		}
	}
	released, err := s.client.ReleaseBrake(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showReleased(s.server, released)
}

// confirmBrakes asks when what the brakes hold takes power from many.
func (k confirmer) confirmBrakes(brakes []api.RackBrake) error {
	nodes, err := k.client.Nodes(k.ctx, "all")
	if err != nil {
		return err
	}
	known := map[string]api.Node{}
	for _, n := range nodes {
		known[n.Name] = n
	}
	var lose []api.Node
	for _, b := range brakes {
		lose = append(lose, brakeLoses(b, known)...)
	}
	_, err = k.confirm(cut(lose))
	return err
}

func (v view) showReleased(d server, brakes []api.RackBrake) error {
	if !v.People() {
		return v.showBrakes(d, brakes)
	}
	for _, b := range brakes {
		v.Say("rack %s: released; the monitor corrects %s", term.Clean(b.Rack), cmp.Or(noderange.Fold(b.Nodes), "what differs"))
	}
	if len(brakes) == 0 {
		v.Say("no brake holds any more: there is nothing to release")
	}
	return nil
}

// brakeLoses are the nodes that lose power when a brake is released: of a cut all
// that it holds, of a drift those whose desired state is off.
func brakeLoses(b api.RackBrake, known map[string]api.Node) []api.Node {
	var wantedOff []api.Node
	for _, name := range b.Nodes {
		n, ok := known[name]
		if !ok {
			n.Name = name
		}
		if b.Kind == "cut" || n.Desired == power.WantOff {
			wantedOff = append(wantedOff, n)
		}
	}
	return wantedOff
}
