package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
)

// consumptionCommand is rackpower power.
func consumptionCommand() *cli.Command {
	return &cli.Command{
		Name: "power", ArgsUsage: "NODES...", Category: "power", Usage: "show how much power nodes take, and what limits it",
		Action: atCentral.with(showConsumption),
		Flags: atCentral.flags(
			&cli.DurationFlag{Name: "timeout", Value: api.DefaultTestWait, Usage: "wait for `DURATION` at most"},
			&cli.StringFlag{Name: "sum", Usage: "show sums alone, of each `GROUP`: rack, domain or all"},
		),
		Description: "Each BMC is asked now, by DCMI (IPMI) or by PowerControl or EnvironmentMetrics (Redfish). MIN, MAX and\n" +
			"AVERAGE are those of the BMC's own statistics. LIMIT is what rackpower cap sets; one in brackets is set\n" +
			"and does not hold. AT-LIMIT is what the BMC does to a node that takes more for too long. Sums are of\n" +
			"the nodes that were read." + nodesHelp +
			examples("rackpower power r1n[01-40]", "rackpower power all --sum rack", "rackpower power @rack1 -o json") + exitHelp,
	}
}

func showConsumption(s *session) error {
	sum := s.c.String("sum")
	if !slices.Contains([]string{"", "rack", "domain", "all"}, sum) {
		return settings.Usage("--sum: %q is not rack, domain or all", sum)
	}
	got, err := s.consumption(s.c.Args().Slice())
	if err != nil {
		return err
	}
	switch sum {
	case "rack":
		err = showSums(s.Printer, "RACK", got.Racks)
	case "domain":
		err = showSums(s.Printer, "DOMAIN", got.Domains)
	case "all":
		err = showSums(s.Printer, "SUM", []api.ConsumptionSum{got.Total})
	default:
		err = s.showNodes(got)
	}
	if err != nil {
		return err
	}
	about, unread := []saidOf{}, 0
	for _, n := range got.Nodes {
		if n.Message != "" {
			about = append(about, saidOf{n.Node, n.Message})
		}
		if n.ReadAt == nil {
			unread++
		}
	}
	s.tell(about)
	if unread > 0 {
		return settings.Exit(settings.ExitFailed, "%d of %s were not read", unread, power.Count(len(got.Nodes), "node"))
	}
	return nil
}

// consumption has central ask for what nodes take.
func (s *session) consumption(operands []string) (api.Consumption, error) {
	wait := s.c.Duration("timeout")
	if wait <= 0 || wait > time.Minute {
		return api.Consumption{}, settings.Usage("--timeout: %s is not between 1ms and 1m", wait)
	}
	nodes, err := s.nodes(operands)
	if err != nil {
		return api.Consumption{}, err
	}
	return s.client.Consumption(s.ctx, api.ReadConsumption{Names: namesOf(nodes), Wait: wait})
}

func (s *session) showNodes(got api.Consumption) error {
	err := printer.Show(s.Printer, printer.Listing[api.NodeConsumption]{
		Rows: got.Nodes, Name: func(n api.NodeConsumption) string { return n.Node },
		Head: []string{"NODE", "WATTS", "MIN", "MAX", "AVERAGE", "LIMIT", "AT-LIMIT", "AGE"},
		Cells: func(n api.NodeConsumption) []string {
			limit, exception := limitCells(n)
			watts := wattsCell(n.Watts)
			if n.ReadAt == nil {
				watts = string(n.Reach)
			}
			return []string{
				n.Node, watts, wattsCell(n.Min), wattsCell(n.Max), wattsCell(n.Average), limit, exception, s.Age(n.ReadAt),
			}
		},
		WideHead:  []string{"RACK", "DOMAIN"},
		WideCells: func(n api.NodeConsumption) []string { return []string{n.Rack, n.Domain} },
	})
	if err != nil || !s.People() || len(got.Nodes) < 2 {
		return err
	}
	var sums []api.ConsumptionSum
	for _, sum := range got.Racks {
		sum.Name = "rack " + sum.Name
		sums = append(sums, sum)
	}
	for _, sum := range got.Domains {
		sum.Name = "domain " + sum.Name
		sums = append(sums, sum)
	}
	s.Say("")
	return showSums(s.Printer, "SUM", append(sums, got.Total))
}

// showSums lists what groups of nodes take.
func showSums(p printer.Printer, head string, sums []api.ConsumptionSum) error {
	return printer.Show(p, printer.Listing[api.ConsumptionSum]{
		Rows: sums, Name: func(sum api.ConsumptionSum) string { return sum.Name },
		Head: []string{head, "WATTS", "READ", "LIMITS", "LIMITED"},
		Cells: func(sum api.ConsumptionSum) []string {
			limits, limited := "", ""
			if sum.Limited > 0 {
				limits, limited = strconv.Itoa(sum.LimitWatts), ofCell(sum.Limited, sum.Nodes)
			}
			return []string{sum.Name, strconv.Itoa(sum.Watts), ofCell(sum.Read, sum.Nodes), limits, limited}
		},
	})
}

func ofCell(n, all int) string { return fmt.Sprintf("%d of %d", n, all) }

func wattsCell(watts *int) string {
	if watts == nil {
		return ""
	}
	return strconv.Itoa(*watts)
}

// limitCells are a limit, and what happens at it.
func limitCells(n api.NodeConsumption) (limit, exception string) {
	switch l := n.Limit; {
	case l == nil:
		return "", ""
	case l.Now() > 0:
		return strconv.Itoa(l.Watts), string(l.Exception)
	case l.Watts > 0:
		return fmt.Sprintf("(%d)", l.Watts), string(l.Exception)
	default:
		return "none", string(l.Exception)
	}
}
