package main

import (
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/gossip"
)

// noGossip is the --gossip of an agent that keeps to itself.
const noGossip = "off"

// gossipConfig reads the flags of gossip; nil: no gossip.
func gossipConfig(c *cli.Context, logger *slog.Logger) *gossip.Config {
	bind, name := c.String("gossip"), c.String("name")
	if bind == noGossip {
		return nil
	}
	return &gossip.Config{
		Name: name, Role: gossip.RoleAgent, Rack: name, Version: version, Bind: bind, Advertise: c.String("advertise"),
		Join: c.StringSlice("join"), Logger: logger,
	}
}

// checkGossip looks at the flags of gossip before anything is written.
func checkGossip(c *cli.Context) error {
	cfg := gossipConfig(c, nil)
	if cfg == nil {
		return nil
	}
	for _, addr := range cfg.Join {
		if err := settings.CheckAddress("join", addr); err != nil {
			return err
		}
	}
	if err := cfg.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	return nil
}

// gossip joins the cluster and connects the agent with it.
func (d *daemon) gossip(c *cli.Context, a *agent.Agent) error {
	cfg := gossipConfig(c, d.logger)
	if cfg == nil {
		return nil
	}
	cfg.Epoch = a.JournalEpoch()
	if err := settings.CheckFree("gossip", cfg.Bind); err != nil {
		if c.IsSet("gossip") {
			return err
		}
		d.logger.Warn("the usual gossip port is taken, using a free one", "address", cfg.Bind)
		cfg.Bind = "127.0.0.1:0"
	}
	cluster, err := gossip.New(*cfg)
	if err != nil {
		return err
	}
	d.later(cluster.Close)
	a.SetGossip(cluster2agent{cluster}, cluster.Addr())
	d.logger.Info("gossip", "address", cluster.Addr(), "join", cfg.Join)
	return nil
}

// cluster2agent shows the cluster as the agent wants it.
type cluster2agent struct{ *gossip.Cluster }

// SetNodes publishes the rack's power.
func (g cluster2agent) SetNodes(views []agent.NodeView) {
	nodes := make([]gossip.NodePower, len(views))
	for i, v := range views {
		nodes[i] = gossip.NodePower{Name: v.Name, State: v.State, Reach: v.Reach, Age: -1, Op: v.Op}
		if !v.ObservedAt.IsZero() {
			nodes[i].Age = time.Since(v.ObservedAt)
		}
	}
	g.Cluster.SetNodes(nodes)
}

// Join asks to join in the background.
func (g cluster2agent) Join(addrs ...string) { _ = g.Seed(addrs...) }

// Members lists the cluster.
func (g cluster2agent) Members() []api.Member {
	members := []api.Member{}
	for _, m := range g.Cluster.Members() {
		members = append(members, api.Member{Name: m.Name, Addr: m.Addr, Port: m.Port, Status: m.Status, Tags: m.Tags})
	}
	return members
}

// Peers is the power of the whole fleet.
func (g cluster2agent) Peers() []agent.PeerNode {
	nodes := []agent.PeerNode{}
	for _, p := range g.Cluster.Peers() {
		for _, n := range p.Nodes {
			node := agent.PeerNode{
				Node: n.Name, Owner: p.Name, OwnerStatus: p.Status, State: n.State, Reach: n.Reach,
				AgeMS: -1, RecordMS: p.Age.Milliseconds(), Op: n.Op,
			}
			if n.Age >= 0 {
				node.AgeMS = n.Age.Milliseconds()
			}
			nodes = append(nodes, node)
		}
	}
	return nodes
}
