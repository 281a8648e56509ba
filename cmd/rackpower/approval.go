package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/noderange"
)

func approvalsCommand() *cli.Command {
	return &cli.Command{
		Name: "approvals", Category: "power", Usage: "list the requests that a second person has to approve", Flags: atCentral.flags(),
		Action: atCentral.with(listApprovals),
		Description: "Where the policy asks for it (rackpower policy), a request that takes power from nodes is not carried out until\n" +
			"another person approves it. rackpower plan show ID shows what it does to each node." +
			examples("rackpower approvals", "rackpower policy set approve-above 50") + exitHelp,
	}
}

func approveCommand(verb string) *cli.Command {
	c := &cli.Command{
		Name: verb, Category: "power", Usage: "approve a request, which is carried out then", ArgsUsage: "ID",
		Flags: atCentral.flags(reasonFlag(false)), Action: atCentral.with(decidePlan),
		Description: "Who approves has the right to ask for the same, for all of the nodes, and is not the one who asked. Central looks\n" +
			"again: what is protected by now is refused, and where more nodes would lose power nothing is done." +
			examples("rackpower plan show 01935f6e-58a1-7cc3-9d40-0d7cbb9ab0b1", "rackpower approve 01935f6e-58a1-7cc3-9d40-0d7cbb9ab0b1") +
			exitHelp,
	}
	if verb == "deny" {
		c.Usage = "deny a request that awaits an approval, or take one's own back"
		c.Description = "The request ends, and nothing is done." +
			examples("rackpower deny 01935f6e-58a1-7cc3-9d40-0d7cbb9ab0b1 --reason \"not today\"") + exitHelp
	}
	return c
}

func policyCommand() *cli.Command {
	keys := "approve-above N     more nodes than N lose power only if a second person approves;\n" +
		"                    those that the asker took power from in the last ten minutes count\n" +
		"approve-nodes NODES these lose power only if a second person approves\n" +
		"approval-lasts D    a request awaits its approval for D, such as 30m; otherwise 1h"
	return &cli.Command{
		Name: "policy", Category: "power", Usage: "show or set when a second person has to approve",
		Description: keys + examples("rackpower policy set approve-above 50 --reason \"as agreed\"", "rackpower policy unset approve-above") +
			exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "show the policy", Flags: atCentral.flags(), Action: atCentral.with(showPolicy),
				Description: examples("rackpower policy show")[2:] + exitHelp,
			},
			{
				Name: "set", Usage: "set a part of the policy", ArgsUsage: "RULE SETTING", Flags: atCentral.flags(reasonFlag(false)),
				Action: atCentral.with(setPolicy), Description: keys + examples("rackpower policy set approve-nodes 'db[01-04]'") + exitHelp,
			},
			{
				Name: "unset", Usage: "set a part of the policy back to its default", ArgsUsage: "RULE", Flags: atCentral.flags(reasonFlag(false)),
				Action: atCentral.with(setPolicy), Description: keys + examples("rackpower policy unset approve-above") + exitHelp,
			},
		},
	}
}

func listApprovals(s *session) error {
	all, err := s.client.Approvals(s.ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		s.Say("nothing awaits an approval")
	}
	return printer.Show(s.Printer, printer.Listing[api.Plan]{
		Rows: all, Name: func(p api.Plan) string { return p.ID },
		Head: []string{"PLAN", "WHAT", "LOSE POWER", "ASKED BY", "UNTIL"},
		Cells: func(p api.Plan) []string {
			id := p.ID
			if s.Format == "table" {
				id = shortID(id)
			}
			return []string{id, p.What, fmt.Sprint(len(p.LosingPower())), p.AskedBy, s.Time(p.ExpiresAt)}
		},
		WideHead: []string{"NODES", "REASON", "WHY"},
		WideCells: func(p api.Plan) []string {
			return []string{noderange.Fold(p.LosingPower()), p.Reason, p.Needs}
		},
	})
}

func decidePlan(s *session) error {
	in := api.DecidePlan{Deny: s.c.Command.Name == "deny", AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	id, err := s.planID()
	if err != nil {
		return err
	}
	p, err := s.client.DecidePlan(s.ctx, id, in)
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, planListing(p))
	}
	what := fmt.Sprintf("%s of %s, asked by %s: ", p.What, power.Count(len(p.Nodes), "node"), p.AskedBy)
	if in.Deny {
		s.Say("%sdenied, nothing is done", term.Clean(what))
		return nil
	}
	s.Say("%sapproved, and carried out", term.Clean(what))
	var refused []api.PlannedNode
	for _, n := range p.Nodes {
		if n.Effect == api.EffectRefused {
			refused = append(refused, n)
		}
	}
	s.planned(refused)
	return nil
}

func showPolicy(s *session) error {
	p, err := s.client.Policy(s.ctx)
	if err != nil {
		return err
	}
	return s.showPolicy(p)
}

func (v view) showPolicy(p api.Policy) error {
	if !v.People() {
		return printer.Show(v.Printer, printer.Listing[api.Policy]{Rows: []api.Policy{p}, Name: func(api.Policy) string { return "policy" }})
	}
	above := "never"
	if p.ApproveAbove > 0 {
		above = power.Count(p.ApproveAbove, "node")
	}
	v.Details("approve above", above, "approve nodes", cmp.Or(p.ApproveNodes, "none"), "approval lasts",
		settings.Duration(cmp.Or(p.ApprovalLasts, time.Hour)))
	return nil
}

// policyRules are the parts of a policy.
var policyRules = []string{"approve-above", "approve-nodes", "approval-lasts"}

func setPolicy(s *session) error {
	in := api.SetPolicy{AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	key, value := s.c.Args().First(), s.c.Args().Get(1)
	if s.c.Command.Name == "set" && value == "" {
		return settings.Usage("SETTING is empty: rackpower policy unset %s takes it away", key)
	}
	switch key {
	case "approve-above":
		n, err := strconv.Atoi(cmp.Or(value, "0"))
		if err != nil {
			return settings.Usage("approve-above: %q is no number of nodes", value)
		}
		in.ApproveAbove = &n
	case "approve-nodes":
		in.ApproveNodes = &value
	case "approval-lasts":
		d, err := settings.ParseDuration(cmp.Or(value, "0s"))
		if err != nil || value != "" && d <= 0 {
			return settings.Usage("approval-lasts: %q is no duration such as 30m", value)
		}
		in.ApprovalLasts = &d
	default:
		return settings.Usage("unknown rule %q: want %s", key, strings.Join(policyRules, ", "))
	}
	if err := in.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	p, err := s.client.SetPolicy(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showPolicy(p)
}

// decisionEvery spaces the questions whether somebody has decided.
var decisionEvery = time.Second

// awaitApproval says what awaits an approval and who may give it, and waits for that, as the
// command waits for its operations. It returns what was asked for then.
func (s *session) awaitApproval(err error, wait string, timeout time.Duration) (api.Plan, error) {
	var problem *api.Problem
	if !errors.As(err, &problem) || problem.Code != api.CodeAwaiting || wait == waitNone {
		return api.Plan{}, err
	}
	s.Warn("%s", s.Readable(problem.Detail))
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	defer s.ClearProgress()
	for {
		p, err := s.client.Plan(ctx, problem.Plan)
		switch {
		case err != nil && (ctx.Err() == nil && !lost(err) || s.ctx.Err() != nil):
			return p, err
		case err == nil && p.State == api.PlanApplied:
			s.Warn("approved by %s", term.Clean(p.DecidedBy))
			return p, nil
		case err == nil && p.State == api.PlanDenied:
			return p, settings.Exit(settings.ExitRefused, "denied by %s%s; nothing was done", term.Clean(p.DecidedBy),
				term.Clean(because(p.DecidedWhy)))
		case err == nil && p.State != api.PlanAwaiting:
			return p, settings.Exit(settings.ExitRefused, "nobody approved it in time; nothing was done")
		}
		s.Progress("awaiting the approval of another person")
		if backoff.Sleep(ctx, decisionEvery) != nil {
			if s.ctx.Err() != nil {
				return p, context.Cause(s.ctx)
			}
			return p, settings.Exit(settings.ExitPending, "still awaiting an approval; nothing was done yet (rackpower plan show %s)", problem.Plan)
		}
	}
}
