package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// siteCommand is about what concerns all racks after a restore of central's database.
func siteCommand() *cli.Command {
	return &cli.Command{
		Name: "site", Category: "monitor", Usage: "show what a restore of central's database changes, and confirm it",
		Description: "A restored database has the statuses and holds of the backup. The monitors correct nothing until the agents\n" +
			"have told what they enforced. A rack where little changes goes on by itself; the others wait for site confirm." +
			examples("rackpower site show", "rackpower site confirm --reason \"the backup of 14:00 is what we want\"") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "show what the monitors wait for since the restore, and what would change", Flags: atCentral.flags(),
				Action: atCentral.with(showSite), Description: examples("rackpower site show", "rackpower site show -o json")[2:] + exitHelp,
			},
			{
				Name: "confirm", Usage: "let the monitors enforce what the restored database desires", Action: atCentral.with(confirmSite),
				Description: "First it shows which nodes are desired otherwise than their agents enforced so far. What is not meant can be\n" +
					"set right before (rackpower node set-status, hold): then it does not differ any more. Racks whose agents are\n" +
					"away are not confirmed by it: they tell when they are back." +
					examples("rackpower site confirm --reason \"checked with the tenants\"") + exitHelp,
				Flags: atCentral.flags(yesFlag(), reasonFlag(true)),
			},
		},
	}
}

func showSite(s *session) error {
	site, err := s.client.Site(s.ctx)
	if err != nil {
		return err
	}
	return s.showSite(site)
}

func (v view) showSite(site api.Site) error {
	if !v.People() || v.Quiet {
		return printer.Show(v.Printer, printer.Listing[api.Site]{
			Rows: []api.Site{site}, Name: func(api.Site) string { return "site" },
		})
	}
	if site.Restored.IsZero() {
		v.Say("central's database was never restored")
		return nil
	}
	silent, untold := "", ""
	if len(site.Silent) > 0 {
		silent = noderange.Fold(site.Silent) + ": their agents are of an older version and tell nothing"
	}
	if len(site.Untold) > 0 {
		untold = noderange.Fold(site.Untold) + ": their agents have not told what they enforced (rackpower agents)"
	}
	v.Details("restored", v.Since(site.Restored), "as of", v.Since(site.Of),
		"to confirm", noderange.Fold(site.Waits), "not known", silent, "not told", untold,
		"undecided", noderange.Fold(site.Undecided))
	if len(site.Waits)+len(site.Untold)+len(site.Undecided) == 0 {
		v.Say("no monitor waits")
		return nil
	}
	if len(site.Differences) == 0 {
		v.Say("no difference is known between what was enforced and what is desired now")
		return nil
	}
	v.Say("")
	return printer.Show(v.Printer, printer.Listing[api.Difference]{
		Rows: site.Differences, Name: func(d api.Difference) string { return d.Node },
		Head: []string{"NODE", "RACK", "IS", "WAS ENFORCED", "DESIRED NOW"},
		Cells: func(d api.Difference) []string {
			is := wishCell(d.Is, d.IsFrom)
			switch {
			case d.Is == nil:
				is = "not in the backup: its agent goes on (rackpower local trust)"
			case d.To != "":
				is = "rack " + d.To + " has it: " + is
			}
			return []string{d.Node, d.Agent, cmp.Or(string(d.State), "?"), cmp.Or(wishCell(d.Was, d.WasFrom), "not there"), is}
		},
	})
}

// wishCell is what is desired of a node, and by what.
func wishCell(d *power.Desired, from string) string {
	if d == nil {
		return ""
	}
	text := string(d.Want)
	if d.Expected != "" {
		text += ", expected " + string(d.Expected)
	}
	return strings.TrimSpace(text + ", " + from)
}

func confirmSite(s *session) error {
	in := api.ConfirmSite{AskedBy: s.askedBy()}
	var err error
	if in.Reason, err = s.reason(); err != nil {
		return err
	}
	site, err := s.client.Site(s.ctx)
	if err != nil {
		return err
	}
	if len(site.Waits) == 0 {
		if err := s.showSite(site); err != nil || len(site.Untold)+len(site.Undecided) == 0 {
			return err
		}
		return settings.Exit(settings.ExitFailed, "nothing was confirmed: no rack waits for it yet")
	}
	if s.People() {
		if err := s.showSite(site); err != nil {
			return err
		}
	}
	acts := 0
	for _, d := range site.Differences {
		if d.Acts() {
			acts++
		}
	}
	if !s.c.Bool("yes") {
		statement := fmt.Sprintf("the monitors of racks %s will enforce what is desired now, which is something else of %s",
			noderange.Fold(site.Waits), power.Count(acts, "node"))
		if _, err := s.question(statement); err != nil {
			return err
		}
	}
	in.Shown = site.Token()
	waited := noderange.Fold(site.Waits)
	if site, err = s.client.ConfirmSite(s.ctx, in); err != nil {
		return err
	}
	if !s.People() {
		return s.showSite(site)
	}
	s.Say("the monitors of racks %s go on", term.Clean(waited))
	if len(site.Untold) > 0 {
		s.Warn("racks %s wait on: their agents have not told what they enforced (rackpower agents)", term.Clean(noderange.Fold(site.Untold)))
	}
	return nil
}
