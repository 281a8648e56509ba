package main

import (
	"cmp"
	"fmt"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
)

// localTrustCommand has a person decide what an agent does not take at a central's word.
func localTrustCommand() *cli.Command {
	return &cli.Command{
		Name: "trust", Category: "on a rack", Usage: "show which central the agent trusts, or confirm another one",
		Action: atAgent.with(confirmTrust),
		Description: "An agent follows the first central that it meets, and another one only after a confirmation here: a central that\n" +
			"starts with an empty directory would take all nodes and holds away. Nor does it release most of its nodes at once without a\n" +
			"confirmation. This shows what waits for one and what it would change, and asks. To move a rack\n" +
			"to another central, point its agent there (--central) and confirm here." +
			examples("rackpower local trust", "rackpower local trust --yes --reason \"the new central of hall 2\"") + exitHelp,
		Flags: atAgent.flags(reasonFlag(false), yesFlag()),
	}
}

func confirmTrust(s *session) error {
	state, err := s.client.Trust(s.ctx)
	if err != nil {
		return err
	}
	in := api.ConfirmTrust{AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	statement := ""
	switch u := state.Untrusted; {
	case u != nil && !u.Known:
		return settings.Exit(settings.ExitFailed, "%s; it has not said yet what it would assign: ask again in a moment", u.Message)
	case u != nil:
		in.Database, in.Removes = u.Database, u.Removes
		statement = fmt.Sprintf("the agent will follow central %s: %s will come, %d go, %d get another BMC or status",
			u.CentralID, power.Count(len(u.Adds), "node"),
			len(u.Removes), len(u.Changes))
	case len(state.Kept) > 0:
		in.Removes = state.Kept
		statement = fmt.Sprintf("%s will be let go, with their holds: %s", power.Count(len(state.Kept), "node"), noderange.Fold(state.Kept))
	default:
		s.Say("nothing waits to be confirmed")
		return s.showTrust(state)
	}
	if s.People() {
		if err := s.showTrust(state); err != nil {
			return err
		}
	}
	if !s.c.Bool("yes") {
		if _, err := s.question(statement); err != nil {
			return err
		}
	}
	if state, err = s.client.ConfirmTrust(s.ctx, in); err != nil {
		return err
	}
	if s.People() {
		s.Say("done")
		return nil
	}
	return s.showTrust(state)
}

func (v view) showTrust(t api.Trust) error {
	if !v.People() || v.Quiet {
		return printer.Show(v.Printer, printer.Listing[api.Trust]{
			Rows: []api.Trust{t},
			Name: func(t api.Trust) string { return t.Trusted.CentralID },
		})
	}
	since := ""
	if !t.Since.IsZero() { // an agent of before did not note it
		since = v.Since(t.Since)
	}
	v.Details("follows", cmp.Or(t.Trusted.CentralID, "no central yet"), "since", since, "confirmed by", t.By, "not acknowledged",
		fmt.Sprint(t.Outstanding, " operations"))
	if len(t.Kept) > 0 {
		v.Details("central took away", noderange.Fold(t.Kept))
	}
	if u := t.Untrusted; u != nil {
		v.Details("answers", u.CentralID, "why not", u.Message, "nodes that come", noderange.Fold(u.Adds), "nodes that go",
			noderange.Fold(u.Removes),
			"other BMC or status", noderange.Fold(u.Changes))
	}
	return nil
}
