package main

import (
	"errors"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/gossip"
)

// noGossip is the --gossip of an agent that keeps to itself.
const noGossip = "off"

// gossip joins the cluster and connects the agent with it.
func (d *daemon) gossip(c *cli.Context, a *agent.Agent, name string) error {
	bind := c.String("gossip")
	if bind == noGossip {
		return nil
	}
	cfg := gossip.Config{
		Name: name, Role: gossip.RoleAgent, Rack: name, Version: version, Bind: bind, Advertise: c.String("advertise"),
		Join: c.StringSlice("join"), Epoch: a.JournalEpoch(), Logger: d.logger,
	}
	if err := cfg.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	cluster, err := gossip.New(cfg)
	if errors.Is(err, syscall.EADDRINUSE) && !c.IsSet("gossip") {
		d.logger.Warn("the usual gossip port is taken, using a free one", "address", bind)
		cfg.Bind = "127.0.0.1:0"
		cluster, err = gossip.New(cfg)
	}
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
