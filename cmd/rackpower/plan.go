package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// plannable are the actions that plan has.
var plannable = []power.Action{power.ActOn, power.ActOff, power.ActSoftOff, power.ActCycle, power.ActReset}

func planCommand() *cli.Command {
	plan := &cli.Command{
		Name: "plan", Category: "power", Usage: "show what a change would do, node by node, to apply it later",
		Description: "Nothing is changed. The plan says which nodes would lose power, be turned on, be refused and why, and which\n" +
			"are out of reach. rackpower apply ID makes the change within an hour, if it still does what was shown." +
			examples("rackpower plan set-status r1n[01-40] READY", "rackpower plan off @rack1", "rackpower apply ID") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "set-status", Usage: "plan to set the life-cycle status of nodes", ArgsUsage: "NODES... STATUS",
				Flags: atCentral.flags(reasonFlag(false)),
				Description: "STATUS is one of those that rackpower node set-status --help lists." + nodesHelp +
					examples("rackpower plan set-status r1n[01-40] READY") + exitHelp,
				Action: atCentral.with(func(s *session) error {
					in, _, err := statusOf(s)
					if err != nil {
						return err
					}
					in.Confirmed = true // by who applies it: the nodes were shown
					return makePlan(s, api.Change{Status: &in})
				}),
			},
			{
				Name: "hold", Usage: "plan to hold nodes", ArgsUsage: "NODES... on|off|hands-off",
				Flags:       atCentral.flags(lastingFlag("for", "until released"), reasonFlag(true)),
				Description: nodesHelp[2:] + examples("rackpower plan hold @rack1 off --for 2h --reason \"feed B is being serviced\"") + exitHelp,
				Action: atCentral.with(func(s *session) error {
					in, nodes, err := holdOf(s)
					if err != nil {
						return err
					}
					in.Names, in.Confirmed = namesOf(nodes), true
					return makePlan(s, api.Change{Hold: &in})
				}),
			},
			{
				Name: "release", Usage: "plan to end the holds of nodes", ArgsUsage: "NODES...", Flags: atCentral.flags(reasonFlag(false)),
				Description: nodesHelp[2:] + examples("rackpower plan release @rack1") + exitHelp,
				Action: atCentral.with(func(s *session) error {
					nodes, err := s.nodes(s.c.Args().Slice())
					if err != nil {
						return err
					}
					in := api.SetHold{Names: namesOf(nodes), Reason: s.c.String("reason"), AskedBy: s.askedBy(), Confirmed: true}
					return makePlan(s, api.Change{Hold: &in})
				}),
			},
			{
				Name: "show", Usage: "show a plan again", ArgsUsage: "ID", Flags: atCentral.flags(), Action: atCentral.with(showPlanAgain),
				Description: examples("rackpower plan show ID")[2:] + exitHelp,
			},
		},
	}
	for _, action := range plannable {
		plan.Subcommands = append(plan.Subcommands, &cli.Command{
			Name: string(action), Usage: "plan to " + actionUsage[action], ArgsUsage: "NODES...", Flags: atCentral.flags(requestFlags(action)...),
			Description: nodesHelp[2:] + examples("rackpower plan "+string(action)+" @rack1") + exitHelp,
			Action: atCentral.with(func(s *session) error {
				o, err := requestOf(s, action)
				if err != nil {
					return err
				}
				nodes, err := s.nodes(s.c.Args().Slice())
				if err != nil {
					return err
				}
				o.confirmed = true
				return makePlan(s, api.Change{Ops: &api.AskOps{Ops: o.requests(nodes)}})
			}),
		})
	}
	return plan
}

func applyCommand() *cli.Command {
	return &cli.Command{
		Name: "apply", Category: "power", Usage: "make the change that a plan has shown", ArgsUsage: "ID", Action: atCentral.with(applyPlan),
		Flags: atCentral.flags(waitFlags("the longest deadline of the operations")...),
		Description: "Only who made the plan applies it, within an hour. Where something would happen now that the plan did not show,\n" +
			"nothing is done and the differences are shown. Applying a plan again does nothing more." +
			examples("rackpower apply 01935f6e-58a1-7cc3-9d40-0d7cbb9ab0b1") + exitHelp,
	}
}

func makePlan(s *session, ch api.Change) error {
	p, err := s.client.MakePlan(s.ctx, api.MakePlan{ID: uuid.Must(uuid.NewV7()).String(), Change: ch})
	if err != nil {
		return err
	}
	return s.showPlan(p)
}

func showPlanAgain(s *session) error {
	id, err := s.planID()
	if err != nil {
		return err
	}
	p, err := s.client.Plan(s.ctx, id)
	if err != nil {
		return err
	}
	return s.showPlan(p)
}

func planListing(p api.Plan) printer.Listing[api.Plan] {
	return printer.Listing[api.Plan]{Rows: []api.Plan{p}, Name: func(p api.Plan) string { return p.ID }}
}

func (v view) showPlan(p api.Plan) error {
	if !v.People() {
		return printer.Show(v.Printer, planListing(p))
	}
	v.planned(p.Nodes)
	for _, note := range p.Notes {
		v.Say("%s", v.Readable(note))
	}
	lose := "lose"
	if len(p.LosingPower()) == 1 {
		lose = "loses"
	}
	v.Say("%s of %s: %d %s power", term.Clean(p.What), power.Count(len(p.Nodes), "node"), len(p.LosingPower()), lose)
	switch p.State {
	case api.PlanMade:
		if p.Needs != "" {
			v.Say("A second person will have to approve it: %s", v.Readable(p.Needs))
		}
		v.Say("Nothing was done. To do this, until %s:\n  rackpower apply %s", v.Time(p.ExpiresAt), term.Clean(p.ID))
	case api.PlanAwaiting:
		v.Say("Awaits the approval of a second person until %s, asked by %s%s: %s\n  rackpower approve %s", v.Time(p.ExpiresAt),
			term.Clean(p.AskedBy), term.Clean(because(p.Reason)), v.Readable(p.Needs), term.Clean(p.ID))
	case api.PlanApplied:
		v.Say("applied %s", v.Time(p.AppliedAt))
	case api.PlanDenied:
		v.Say("denied by %s %s%s", term.Clean(p.DecidedBy), v.Time(p.DecidedAt), term.Clean(because(p.DecidedWhy)))
	default:
		v.Say("%s %s", p.State, v.Time(p.ExpiresAt))
	}
	return nil
}

var effectWords = map[api.Effect][2]string{ // of one node, of more
	api.EffectLosesPower: {"loses power", "lose power"},
	api.EffectTurnsOn:    {"is turned on", "are turned on"},
	api.EffectNone:       {"stays as it is", "stay as they are"},
	api.EffectRefused:    {"is refused", "are refused"},
}

// planned prints a line for the nodes to which the same happens.
func (v view) planned(nodes []api.PlannedNode) {
	type group struct {
		effect        api.Effect
		message, away string
	}
	names, last := map[group][]string{}, map[group]time.Time{}
	var order []group
	for _, n := range nodes {
		g := group{n.Effect, n.Message, n.OutOfReach}
		if names[g] == nil {
			order = append(order, g)
		}
		names[g] = append(names[g], n.Node)
		if n.StartsAt.After(last[g]) {
			last[g] = n.StartsAt
		}
	}
	for _, effect := range []api.Effect{api.EffectLosesPower, api.EffectTurnsOn, api.EffectRefused, api.EffectNone} {
		for _, g := range order {
			if g.effect != effect {
				continue
			}
			words := effectWords[effect][0]
			if len(names[g]) > 1 {
				words = effectWords[effect][1]
			}
			text := fmt.Sprintf("%s %s: %s", noderange.Fold(names[g]), words, v.Readable(g.message))
			if !last[g].IsZero() {
				text += fmt.Sprintf("; staggered, the last about %s", v.Time(last[g]))
			}
			if g.away != "" {
				text += "; out of reach: " + v.Readable(g.away)
			}
			v.Say("%s", text)
		}
	}
}

func applyPlan(s *session) error {
	wait, err := waitOf(s)
	if err != nil {
		return err
	}
	id, err := s.planID()
	if err != nil {
		return err
	}
	p, err := s.client.ApplyPlan(s.ctx, id)
	if api.CodeOf(err) == api.CodeAwaiting {
		p, err = s.awaitApproval(err, wait, cmp.Or(s.c.Duration("timeout"), power.DefaultDeadline))
	}
	if err != nil {
		return err
	}
	return s.applied(p, wait)
}

// applied follows the operations of a plan, or tells what it changed.
func (s *session) applied(p api.Plan, wait string) error {
	if len(p.Ops) > 0 {
		o := order{action: p.Ops[0].Action, wait: wait, timeout: s.c.Duration("timeout")}
		if !s.c.IsSet("timeout") {
			for _, op := range p.Ops {
				o.timeout = max(o.timeout, op.Deadline.Sub(s.Now())+waitSlack)
			}
		}
		return s.followed(o, p.Ops)
	}
	if !s.People() {
		return printer.Show(s.Printer, planListing(p))
	}
	if p.Changed == nil {
		return nil
	}
	text := fmt.Sprintf("%s: %s changed", p.What, power.Count(p.Changed.Changed, "node"))
	if p.Changed.Unchanged > 0 {
		text += fmt.Sprintf(", %d unchanged", p.Changed.Unchanged)
	}
	s.Say("%s; applied %s", term.Clean(text), s.Time(p.AppliedAt))
	for _, note := range p.Changed.Notes {
		if !s.Quiet {
			s.Warn("%s", s.Readable(note))
		}
	}
	return nil
}
