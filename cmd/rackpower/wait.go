package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/noderange"
)

// conditions are what nodes are waited for.
var conditions = map[string]func(api.Node) bool{
	"on":  func(n api.Node) bool { return n.State == power.On && !n.Stale },
	"off": func(n api.Node) bool { return n.State == power.Off && !n.Stale },
	"settled": func(n api.Node) bool {
		return n.Op == nil && n.Waiting == 0 && !n.Pending && !n.Drift && n.Fault == "" && n.State != power.Unknown && !n.Stale
	},
}

// waitEvery is how often nodes are looked at at most.
var waitEvery = time.Second

func waitCommand(d server) *cli.Command {
	name := d.command + " wait"
	return &cli.Command{
		Name: "wait", Category: "look", Usage: "wait until nodes are on, off or settled", ArgsUsage: "NODES...",
		Description: "on and off are the power as it was last read, and not stale. A node is settled when nothing is outstanding, its\n" +
			"power is as desired and it is in no fault. NODES is read once: @state:off are those that are off now." + nodesHelp +
			examples(name+" r1n[01-40] --for off --timeout 10m", name+" @rack1 --for settled") + exitHelp,
		Flags: d.flags(
			&cli.StringFlag{Name: "for", Required: true, Usage: "wait for `STATE`: on, off or settled"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Minute, Usage: "wait at most `DURATION`"},
		),
		Action: d.with(waitNodes),
	}
}

func waitNodes(s *session) error {
	want := s.c.String("for")
	is := conditions[want]
	if is == nil {
		return settings.Usage("--for: unknown %q: want on, off or settled", want)
	}
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	expr := noderange.Fold(namesOf(nodes))
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Duration("timeout"))
	defer cancel()
	defer s.ClearProgress()
	var away error
	for took := time.Duration(0); ; {
		missing := slices.DeleteFunc(slices.Clone(nodes), is)
		if len(missing) == 0 {
			s.ClearProgress()
			return s.showWaited(nodes, "")
		}
		s.Progress("%d of %d %s", len(nodes)-len(missing), len(nodes), want)
		if backoff.Sleep(ctx, max(waitEvery, 5*took)) != nil { // long answers are asked for less often
			s.ClearProgress()
			return s.gaveUp(nodes, missing, want, away)
		}
		asked := time.Now()
		now, err := s.selected(expr)
		took = time.Since(asked)
		switch {
		case lost(err) && away == nil:
			s.Warn("%v; trying again", s.explain(err))
		case err != nil && !lost(err):
			return err
		case err == nil:
			nodes = now
		}
		away = err
	}
}

// gaveUp says what has not come.
func (s *session) gaveUp(nodes, missing []api.Node, want string, away error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if away != nil {
		return away
	}
	if err := s.showWaited(nodes, want); err != nil {
		return err
	}
	return settings.Exit(settings.ExitPending, "%d of %s not %s: %s", len(missing), power.Count(len(nodes), "node"), want,
		noderange.Fold(namesOf(missing)))
}

// showWaited prints how the nodes are, folded for people; what is wanted tells which are
// not as they should be.
func (s *session) showWaited(nodes []api.Node, want string) error {
	if s.Format != "table" || s.Quiet {
		return printer.Show(s.Printer, s.nodeListing(nodes))
	}
	for _, g := range s.alike(nodes, func(n api.Node) string {
		text := s.briefly(n)
		if want != "" && !conditions[want](n) {
			text = fmt.Sprintf("not %s: %s", want, text)
		}
		return text
	}) {
		s.Say("%s %s", g.Nodes, s.Paint(s.Readable(g.What)))
	}
	return nil
}
