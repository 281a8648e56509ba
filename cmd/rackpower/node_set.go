package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power/noderange"
)

// labelFlag gives nodes labels.
func labelFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "label", Usage: "set the label `KEY[=VALUE]`, KEY- takes it away; may be repeated"}
}

func nodeSetCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "set labels, power domain, credentials or agents of nodes, all or none", ArgsUsage: "NODES...",
		Action: atCentral.with(setNodes),
		Description: "What no flag names stays. A label is a KEY, or a KEY with a VALUE; @label:KEY and\n" +
			"@label:KEY=VALUE select by it, in the scopes of users and in schedules too. Statuses are set by\n" +
			"rackpower node set-status, the BMC and the rack of one node by rackpower node add --update." + nodesHelp +
			examples("rackpower node set r1n[01-08] --label gpu --label model=h100", "rackpower node set @label:gpu --label gpu-",
				"rackpower node set @rack1 --domain feedA", "rackpower node set r1n[01-08] --agents r1,r2") + exitHelp,
		Flags: atCentral.flags(
			labelFlag(),
			&cli.StringFlag{Name: "domain", Usage: "`NAME` of the power domain; \"\": none"},
			&cli.StringFlag{Name: "credentials", Usage: "`NAME` of the credentials of nodes without a password; \"\": none"},
			agentsFlag("the nodes; \"\": as their rack says"),
		),
	}
}

// agentsFlag names the agents that can reach something.
func agentsFlag(what string) cli.Flag {
	return &cli.StringFlag{
		Name: "agents", Usage: "`NAMES` of the agents that can reach " + what + "; separated by commas, the preferred one first. One at a " +
			"time has it",
	}
}

// agentNames reads what agentsFlag was given.
func agentNames(text string) (names []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func setNodes(s *session) error {
	spec := api.NodeSpec{
		Labels: s.c.StringSlice("label"), Domain: s.c.String("domain"), Credentials: s.c.String("credentials"),
		Agents: agentNames(s.c.String("agents")),
	}
	if err := api.CheckAgents(spec.Agents); err != nil {
		return settings.Usage("--agents: %v", err)
	}
	for i, label := range spec.Labels {
		spec.Labels[i] = strings.TrimSpace(label)
		if err := noderange.CheckLabel(spec.Labels[i]); err != nil {
			return settings.Usage("--label: %v", err)
		}
	}
	for _, flag := range []string{"domain", "credentials", "agents"} {
		if s.c.IsSet(flag) && s.c.String(flag) == "" {
			spec.Clear = append(spec.Clear, flag)
		}
	}
	if len(spec.Labels)+len(spec.Clear)+len(spec.Agents) == 0 && spec.Domain == "" && spec.Credentials == "" {
		return settings.Usage("nothing is to be set: want --label, --domain, --credentials or --agents")
	}
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	in := api.AddNodes{Update: true, AskedBy: s.askedBy()}
	for _, n := range nodes {
		spec.Name = n.Name
		in.Nodes = append(in.Nodes, spec)
	}
	done, err := s.client.AddNodes(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showChangedNodes(api.Changed{Changed: done.Changed, Unchanged: done.Unchanged, Notes: done.Notes}, nodes, "set")
}

func nodeListCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list nodes with what was set of them", ArgsUsage: "[NODES...]", Action: atCentral.looking(listNodes),
		Description: "rackpower status shows their power." + nodesHelp +
			examples("rackpower node list", "rackpower node list @label:gpu -o name") + exitHelp,
		Flags: atCentral.flags(),
	}
}

func listNodes(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		s.Say("no nodes are known yet (rackpower node add, rackpower node import)")
	}
	return printer.Show(s.Printer, printer.Listing[api.Node]{
		Rows: nodes, Name: func(n api.Node) string { return n.Name },
		Head: []string{"NODE", "RACK", "STATUS", "DOMAIN", "CREDENTIALS", "LABELS"},
		Cells: func(n api.Node) []string {
			return []string{n.Name, n.Rack, string(n.Status), n.Domain, n.Credentials, strings.Join(n.Labels, ", ")}
		},
		WideHead: []string{"BMC", "PROTECTED"},
		WideCells: func(n api.Node) []string {
			return []string{n.BMC, term.Shorten(facts.Protection(n.Protected), 60)}
		},
	})
}
