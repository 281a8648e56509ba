package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"rackpower/central"
	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/gossip"
)

// noGossip is the --gossip of a central that agents are not to gossip with.
const noGossip = "off"

// gossipConfig reads the flags; nil: no gossip.
func gossipConfig(c *cli.Context, log *slog.Logger) *gossip.Config {
	bind := c.String("gossip")
	if bind == noGossip || bind == "" {
		return nil
	}
	return &gossip.Config{
		Name: central.MemberName, Role: gossip.RoleCentral, Version: c.App.Version, Bind: bind, Join: c.StringSlice("join"), Logger: log,
	}
}

// startGossip makes central a member of the agents' cluster, once its database is
// open: before that another central may have the name. The returned function
// leaves.
func startGossip(c *central.Central, cfg *gossip.Config, log *slog.Logger) (stop func(), err error) {
	if cfg == nil {
		return func() {}, nil
	}
	if err := settings.CheckFree("gossip", cfg.Bind); err != nil {
		return nil, err
	}
	cluster, err := gossip.New(*cfg)
	if err != nil {
		return nil, err
	}
	stop = func() {
		if err := cluster.Close(); err != nil {
			log.Warn("gossip ended badly", "err", err)
		}
	}
	if err := c.UseGossip(members{cluster}); err != nil {
		stop()
		return nil, err
	}
	log.Info("gossip", "address", cluster.Addr(), "join", cfg.Join)
	return stop, nil
}

// members shows the cluster as central wants it.
type members struct{ *gossip.Cluster }

// Members lists the cluster.
func (g members) Members() []api.Member {
	list := []api.Member{}
	for _, m := range g.Cluster.Members() {
		list = append(list, api.Member{Name: m.Name, Addr: m.Addr, Port: m.Port, Status: m.Status, Tags: m.Tags})
	}
	return list
}
