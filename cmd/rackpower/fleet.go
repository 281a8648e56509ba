package main

import (
	"cmp"
	"fmt"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
)

func agentsCommand() *cli.Command {
	return &cli.Command{
		Name: "agents", Category: "look", Usage: "lists the agents", Flags: atCentral.flags(),
		Description: "With when central heard of each last, what it has not taken yet, and what keeps its monitor from its work." + examples("rackpower agents", "rackpower agents -o json") + exitHelp,
		Action: atCentral.with(func(s *session) error {
			agents, err := s.client.Agents(s.ctx)
			if err != nil {
				return err
			}
			if len(agents) == 0 {
				s.say("no agents are known yet")
			}
			return show(s.printer, s.agentListing(agents))
		}),
	}
}

func (s *session) agentListing(agents []api.Agent) listing[api.Agent] {
	return listing[api.Agent]{
		rows: agents, name: func(a api.Agent) string { return a.Name },
		head: []string{"AGENT", "STATE", "SEEN", "NODES", "OUTSTANDING", "TAKEN", "MONITOR", "VERSION", "ADDRESS", "ALARM"},
		cells: func(a api.Agent) []string {
			seen, alarm := cmp.Or(s.age(a.SeenAt), "never"), a.Alarm
			if s.format == "table" {
				alarm = shorten(alarm, 60)
			}
			return []string{a.Name, a.State, seen, fmt.Sprint(a.Nodes), fmt.Sprint(a.Outstanding), fmt.Sprint(a.Taken), s.monitorCell(a.Rack), a.Version, a.Address, alarm}
		},
		wideHead: []string{"REV", "HAS", "JOURNAL", "EPOCH", "LSN"},
		wideCells: func(a api.Agent) []string {
			return []string{fmt.Sprint(a.Rev), fmt.Sprint(a.RevSeen), a.JournalID, fmt.Sprint(a.Epoch), fmt.Sprint(a.LSN)}
		},
	}
}

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Category: "look", Usage: "shows who did what to which node, when and why", ArgsUsage: "[NODES...]",
		Description: "Oldest first." + nodesHelp + examples("rackpower audit r1n01", "rackpower audit --limit 20") + exitHelp,
		Flags:       atCentral.flags(&cli.IntFlag{Name: "limit", Value: 1000, Usage: "show the newest `NUMBER` at most"}),
		Action: atCentral.with(func(s *session) error {
			expr, err := selection(s.c.Args().Slice())
			if err != nil {
				return err
			}
			limit := s.c.Int("limit")
			if limit < 1 {
				return settings.Usage("--limit: %d is not at least 1", limit)
			}
			entries, err := s.client.Audit(s.ctx, expr, limit)
			if err != nil {
				return err
			}
			return show(s.printer, auditListing(entries))
		}),
	}
}

func auditListing(entries []api.AuditEntry) listing[api.AuditEntry] {
	return listing[api.AuditEntry]{
		rows: entries, name: func(e api.AuditEntry) string { return fmt.Sprint(e.ID) },
		head: []string{"AT", "WHO", "WHAT", "NODE", "OUTCOME", "WHY", "DETAIL"},
		cells: func(e api.AuditEntry) []string {
			return []string{stamp(&e.At), e.Who, e.What, e.Node, e.Outcome, e.Why, e.Detail}
		},
		wideHead:  []string{"OPERATION"},
		wideCells: func(e api.AuditEntry) []string { return []string{e.Op} },
	}
}
