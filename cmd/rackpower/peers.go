package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/gossip"
	"rackpower/power"
	"rackpower/power/noderange"
)

func peersCommand() *cli.Command {
	return &cli.Command{
		Name: "peers", Category: "on a rack", Usage: "show the power of all nodes as gossip reports it", ArgsUsage: "[NODES...]",
		Action: eitherDoor(listPeers),
		Description: eitherHelp + "\nIt works without central. In NODES, @NAME means the nodes of that agent.\n\n" +
			"With --who it shows which agent has a node and which agents reach its BMC: agents that do not have the node\n" +
			"probe the BMC, if the asked member knows its address. It exits with 1 if none reaches the BMC, with 2 if nobody\n" +
			"knows the node." + nodesHelp +
			examples("rackpower peers", "rackpower peers @state:off -o name", "rackpower peers --who r1n01") + exitHelp,
		Flags: eitherFlags(&cli.StringFlag{Name: "who", Usage: "show which agent has `NODE`, and which agents reach its BMC"}),
	}
}

func listPeers(s *session) error {
	if node := s.c.String("who"); node != "" || s.c.IsSet("who") {
		if s.c.NArg() > 0 || node == "" {
			return settings.Usage("--who takes the name of one node, and no NODES")
		}
		return showOwner(s, node)
	}
	expr, err := s.selection(s.c.Args().Slice())
	if err != nil {
		return err
	}
	peers, err := s.client.Peers(s.ctx)
	if err != nil {
		return err
	}
	if peers, err = selectPeers(peers, expr); err != nil {
		return err
	}
	slices.SortFunc(peers, func(a, b api.PeerNode) int { return noderange.Compare(a.Node, b.Node) })
	s.tellGone(peers)
	return printer.Show(s.Printer, peerListing(peers))
}

func selectPeers(peers []api.PeerNode, expr string) ([]api.PeerNode, error) {
	if expr == "" {
		return peers, nil
	}
	known := make([]noderange.Node, len(peers))
	for i, p := range peers {
		known[i] = noderange.Node{Name: p.Node, Rack: p.Owner, State: string(p.State)}
	}
	names, err := noderange.Select(expr, known)
	if err != nil {
		return nil, settings.Exit(settings.ExitUsage, "%v", err)
	}
	chosen := map[string]bool{}
	for _, n := range names {
		chosen[n] = true
	}
	return slices.DeleteFunc(peers, func(p api.PeerNode) bool { return !chosen[p.Node] }), nil
}

// tellGone says which agents are gone: what is shown of their nodes is the last that
// they said.
func (v view) tellGone(peers []api.PeerNode) {
	if !v.People() || v.Quiet {
		return
	}
	nodes, status := map[string][]string{}, map[string]string{}
	for _, p := range peers {
		if p.OwnerStatus != gossip.StatusAlive {
			nodes[p.Owner] = append(nodes[p.Owner], p.Node)
			status[p.Owner] = ownerStatus(p)
		}
	}
	v.WarnEach(slices.Sorted(maps.Keys(nodes)), "rack agents %s are gone: their nodes are shown as they said last", func(owner string) {
		v.Warn("rack agent %s %s: %s is shown as it said last", term.Clean(owner), term.Clean(status[owner]),
			term.Clean(noderange.Fold(nodes[owner])))
	})
}

// ownerStatus is "failed 40 s ago".
func ownerStatus(p api.PeerNode) string {
	switch {
	case p.OwnerStatus == gossip.StatusUnknown:
		return "is not known here"
	case p.OwnerStatus != gossip.StatusAlive && p.OwnerSinceMS > 0:
		return p.OwnerStatus + " " + ago(p.OwnerSinceMS)
	default:
		return p.OwnerStatus
	}
}

func peerListing(peers []api.PeerNode) printer.Listing[api.PeerNode] {
	return printer.Listing[api.PeerNode]{
		Rows: peers, Name: func(p api.PeerNode) string { return p.Node },
		Head: []string{"NODE", "STATE", "AGE", "REACH", "OWNER", "OPERATION"},
		Cells: func(p api.PeerNode) []string {
			age := "never"
			if p.AgeMS >= 0 {
				age = power.Ago(time.Duration(p.AgeMS) * time.Millisecond)
			}
			reach := string(p.Reach)
			if p.Reach == power.ReachOK {
				reach = ""
			}
			owner := p.Owner
			if p.OwnerStatus != gossip.StatusAlive {
				owner += " (" + p.OwnerStatus + ")"
			}
			if len(p.AlsoClaimedBy) > 0 {
				owner += ", also told by " + strings.Join(p.AlsoClaimedBy, ", ")
			}
			return []string{p.Node, string(p.State), age, reach, owner, string(p.Op)}
		},
	}
}

// showOwner says who has a node and who can reach its BMC.
func showOwner(s *session, node string) error {
	w, err := s.client.Who(s.ctx, node)
	if err != nil {
		return err
	}
	if !s.People() {
		if err := printer.Show(s.Printer, printer.Listing[api.Who]{
			Rows: []api.Who{w},
			Name: func(w api.Who) string { return w.Node },
		}); err != nil {
			return err
		}
		return exitOfWho(w)
	}
	s.Say("%s", term.Clean(w.Message))
	for _, o := range w.Owners {
		age := "never read"
		if o.AgeMS >= 0 {
			age = "read " + ago(o.AgeMS)
		}
		s.Say("  agent %s (%s) has it: %s, %s", term.Clean(o.Owner), term.Clean(ownerStatus(o)), term.Clean(string(o.State)), age)
	}
	for _, r := range w.Reach {
		s.Say("  agent %s can reach its BMC: %s", term.Clean(r.Agent), term.Clean(r.How))
	}
	if w.Answered < w.Asked {
		s.Say("  %d of %d members did not answer", w.Asked-w.Answered, w.Asked)
	}
	return exitOfWho(w)
}

// exitOfWho is the exit status of what has been said: 2 of a node that nobody knows, 1
// when nobody can reach the BMC.
func exitOfWho(w api.Who) error {
	switch {
	case len(w.Reach) > 0:
		return nil
	case len(w.Owners) == 0:
		return settings.Exit(settings.ExitUsage, "")
	default:
		return settings.Exit(settings.ExitFailed, "")
	}
}
