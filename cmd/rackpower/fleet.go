package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
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

func membersCommand() *cli.Command {
	flags := append(atAgent.flags(), &cli.StringFlag{Name: atCentral.flag, Usage: "ask central at `URL` instead, unless --socket is given too"})
	return &cli.Command{
		Name: "members", Category: "on a rack", Usage: "lists the gossip cluster", Flags: flags,
		Description: "As this rack's agent sees it; as central sees it when --central is given and --socket is not." + examples("rackpower members", "rackpower members -o json") + exitHelp,
		Action: func(c *cli.Context) error {
			d := atAgent
			if c.IsSet(atCentral.flag) && !c.IsSet(atAgent.flag) {
				d = atCentral
			}
			return d.with((*session).members)(c)
		},
	}
}

func (s *session) members() error {
	members, err := s.client.Members(s.ctx)
	if err != nil {
		return err
	}
	return show(s.printer, listing[api.Member]{
		rows: members, name: func(m api.Member) string { return m.Name },
		head: []string{"MEMBER", "ADDRESS", "PORT", "STATUS", "TAGS"},
		cells: func(m api.Member) []string {
			var tags []string
			for _, key := range slices.Sorted(maps.Keys(m.Tags)) {
				tags = append(tags, key+"="+m.Tags[key])
			}
			return []string{m.Name, m.Addr, fmt.Sprint(m.Port), m.Status, strings.Join(tags, " ")}
		},
	})
}

func peersCommand() *cli.Command {
	return &cli.Command{
		Name: "peers", Category: "on a rack", Usage: "shows the power of the whole fleet as gossip knows it", ArgsUsage: "[NODES...]", Flags: atAgent.flags(),
		Description: "Asked of this rack's agent; central need not be there. In NODES, @NAME stands for the nodes of that agent." + nodesHelp +
			examples("rackpower peers", "rackpower peers @state:off -o name") + exitHelp,
		Action: atAgent.with((*session).peers),
	}
}

func (s *session) peers() error {
	expr, err := selection(s.c.Args().Slice())
	if err != nil {
		return err
	}
	var peers []agent.PeerNode
	if err := s.client.Do(s.ctx, http.MethodGet, "/v1/peers", nil, &peers); err != nil {
		return err
	}
	if expr != "" {
		known := make([]noderange.Node, len(peers))
		for i, p := range peers {
			known[i] = noderange.Node{Name: p.Node, Rack: p.Owner, State: string(p.State)}
		}
		names, err := noderange.Select(expr, known)
		if err != nil {
			return settings.Exit(settings.ExitUsage, "%v", err)
		}
		chosen := map[string]bool{}
		for _, n := range names {
			chosen[n] = true
		}
		peers = slices.DeleteFunc(peers, func(p agent.PeerNode) bool { return !chosen[p.Node] })
	}
	slices.SortFunc(peers, func(a, b agent.PeerNode) int { return noderange.Compare(a.Node, b.Node) })
	return show(s.printer, listing[agent.PeerNode]{
		rows: peers, name: func(p agent.PeerNode) string { return p.Node }, fold: true,
		head: []string{"NODE", "STATE", "AGE", "REACH", "OWNER", "OPERATION"},
		cells: func(p agent.PeerNode) []string {
			age := "never"
			if p.AgeMS >= 0 {
				age = power.Ago(time.Duration(p.AgeMS) * time.Millisecond)
			}
			reach := string(p.Reach)
			if p.Reach == power.ReachOK {
				reach = ""
			}
			owner := p.Owner
			if p.OwnerStatus != "alive" {
				owner += " (" + p.OwnerStatus + ")"
			}
			return []string{p.Node, string(p.State), age, reach, owner, string(p.Op)}
		},
	})
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
