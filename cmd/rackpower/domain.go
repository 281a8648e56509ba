package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
)

func domainCommand() *cli.Command {
	return &cli.Command{
		Name: "domain", Category: "monitor", Usage: "show or set how fast the nodes of a power domain are turned on",
		Description: fmt.Sprintf("A power domain is what nodes hang on together: a feed, a PDU (rackpower node add --domain). So that its "+
			"breakers\n"+
			"hold, power-ons start %g a second and %d at once at most unless something else is set, no matter who asks.", power.DefaultDomainRate,
			power.DefaultDomainConcurrent) +
			examples("rackpower domain list", "rackpower domain set feedA --rate 5 --concurrent 20") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the power domains and their queues", Action: atCentral.with(listDomains),
				Flags:       atCentral.flags(),
				Description: examples("rackpower domain list", "rackpower domain list -o json")[2:] + exitHelp,
			},
			{
				Name: "set", Usage: "limit the power-ons of a domain", ArgsUsage: "NAME", Action: atCentral.with(setDomain),
				Description: "The limits are of the domain as a whole, whichever racks its nodes are in. What is not given stays." +
					examples("rackpower domain set feedA --rate 5 --concurrent 20", "rackpower domain set feedA --rate 0.5") + exitHelp,
				Flags: atCentral.flags(
					&cli.Float64Flag{Name: "rate", Usage: "start at most `N` power-ons per second; 0: no limit", DefaultText: "unchanged"},
					&cli.IntFlag{
						Name: "concurrent", Usage: "have at most `N` nodes powering on at the same time; 0: no limit",
						DefaultText: "unchanged",
					},
					reasonFlag(false),
				),
			},
			{
				Name: "rm", Usage: "reset the limits of a domain to the default", ArgsUsage: "NAME",
				Action:      atCentral.with(removeDomain),
				Description: "The nodes stay in the domain." + examples("rackpower domain rm feedA") + exitHelp,
				Flags:       atCentral.flags(reasonFlag(false)),
			},
		},
	}
}

func listDomains(s *session) error {
	domains, err := s.client.Domains(s.ctx)
	if err != nil {
		return err
	}
	if len(domains) == 0 {
		s.Say("no node is in a power domain (rackpower node add --domain)")
	}
	return printer.Show(s.Printer, domainListing(domains))
}

func domainListing(domains []api.Domain) printer.Listing[api.Domain] {
	return printer.Listing[api.Domain]{
		Rows: domains, Name: func(d api.Domain) string { return d.Name },
		Head: []string{"DOMAIN", "RATE", "CONCURRENT", "NODES", "AGENTS", "ON THE WAY", "WAITING", "LIMITS"},
		Cells: func(d api.Domain) []string {
			from := ""
			if d.Default {
				from = "default"
			}
			return []string{
				d.Name, bound("%g/s", d.Rate), bound("%g", float64(d.Concurrent)), fmt.Sprint(d.Nodes), fmt.Sprint(d.Agents),
				fmt.Sprint(d.InFlight), fmt.Sprint(d.Waiting), from,
			}
		},
	}
}

func bound(format string, n float64) string {
	if n <= 0 {
		return "no bound"
	}
	return fmt.Sprintf(format, n)
}

func setDomain(s *session) error {
	rate, concurrent := s.c.Float64("rate"), s.c.Int("concurrent")
	if !s.c.IsSet("rate") && !s.c.IsSet("concurrent") {
		return settings.Usage("nothing to set: give --rate or --concurrent")
	}
	before, known, err := s.domain()
	if err != nil {
		return err
	}
	in := api.SetDomain{DomainLimit: before.DomainLimit, AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	if s.c.IsSet("rate") {
		in.Rate = rate
	}
	if s.c.IsSet("concurrent") {
		in.Concurrent = concurrent
	}
	if err := in.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	after, err := s.client.SetDomain(s.ctx, in)
	if err != nil {
		return err
	}
	if !known && after.Nodes == 0 {
		s.Warn("no node is in a domain %s yet", term.Clean(in.Name))
	}
	return s.showDomain(after)
}

// domain is the one that the operand names, with the limits it has; one that is not
// known has the default.
func (k connection) domain() (d api.Domain, known bool, err error) {
	name := k.c.Args().First()
	if name == "" {
		return d, false, settings.Usage("NAME is empty")
	}
	domains, err := k.client.Domains(k.ctx)
	if err != nil {
		return d, false, err
	}
	for _, d := range domains {
		if d.Name == name {
			return d, true, nil
		}
	}
	d.DomainLimit = api.DomainLimit{Name: name, Rate: power.DefaultDomainRate, Concurrent: power.DefaultDomainConcurrent}
	return d, false, nil
}

func removeDomain(s *session) error {
	name := s.c.Args().First()
	_, known, err := s.domain()
	if err != nil {
		return err
	}
	if !known {
		return settings.Exit(settings.ExitUsage, "no such domain: %s", term.Clean(name))
	}
	in := api.SetDomain{DomainLimit: api.DomainLimit{Name: name}, Remove: true, AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	after, err := s.client.SetDomain(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showDomain(after)
}

func (v view) showDomain(d api.Domain) error {
	if !v.People() {
		return printer.Show(v.Printer, domainListing([]api.Domain{d}))
	}
	v.Say("domain %s: %s", term.Clean(d.Name), facts.Limits(d.DomainLimit))
	return nil
}
