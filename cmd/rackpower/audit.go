package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Category: "look", Usage: "show the audit log: who did what to which node, when and why", ArgsUsage: "[NODES...]",
		Description: "Oldest first." + nodesHelp + examples("rackpower audit r1n01", "rackpower audit --limit 20") + exitHelp,
		Flags:       atCentral.flags(&cli.IntFlag{Name: "limit", Value: 1000, Usage: "show at most the newest `N` entries"}),
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
			return printer.Show(s.Printer, s.auditListing(entries))
		}),
	}
}

// happened is when that was what an entry tells of.
func happened(e api.AuditEntry) time.Time {
	if e.HappenedAt.IsZero() {
		return e.At
	}
	return e.HappenedAt
}

// toldLater says how much later central heard of it: "" when that was at once.
func toldLater(e api.AuditEntry) string {
	late := e.At.Sub(happened(e))
	if late < 10*time.Second {
		return ""
	}
	return power.Ago(late) + " later"
}

func (v view) auditListing(entries []api.AuditEntry) printer.Listing[api.AuditEntry] {
	return printer.Listing[api.AuditEntry]{
		Rows: entries, Name: func(e api.AuditEntry) string { return fmt.Sprint(e.ID) },
		Head: []string{"AT", "TOLD", "WHO", "WHAT", "NODE", "OUTCOME", "WHY", "DETAIL"},
		Cells: func(e api.AuditEntry) []string {
			return []string{v.Time(happened(e)), toldLater(e), e.Who, e.What, e.Node, e.Outcome, e.Why, e.Detail}
		},
		WideHead:  []string{"OPERATION"},
		WideCells: func(e api.AuditEntry) []string { return []string{e.Op} },
	}
}
