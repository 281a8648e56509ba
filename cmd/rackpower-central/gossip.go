package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"rackpower/central"
	"rackpower/cmd/settings"
	"rackpower/gossip"
)

// noGossip is the --gossip of a central that agents are not to gossip with.
const noGossip = "off"

// gossipConfig reads the flags; nil: no gossip.
func gossipConfig(c *cli.Context, log *slog.Logger) (*gossip.Config, error) {
	bind := c.String("gossip")
	if bind == noGossip || bind == "" {
		return nil, nil
	}
	cfg := &gossip.Config{
		Name: central.MemberName, Role: gossip.RoleCentral, Version: c.App.Version, Bind: bind, Advertise: c.String("advertise"),
		Join: c.StringSlice("join"), Logger: log,
	}
	return cfg, settings.GossipKeys(c, cfg, c.String("data"))
}

// needsKey reports whether the configuration lacks nothing but a key, which central
// makes by itself and hands out to the agents.
func needsKey(cfg *gossip.Config) bool { return errors.Is(cfg.Validate(), gossip.ErrNeedsKey) }

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
	if needsKey(cfg) {
		cfg.Key = gossip.NewKey()
		log.Info("a gossip key was made; agents get it from here, others from the file", "id", cfg.Key.ID(), "file", cfg.KeyringFile)
	}
	cfg.OnMember = func(m gossip.Member) { c.MemberChanged(m.Name, m.Status, m.StatusAge) }
	cluster, err := gossip.New(*cfg)
	if err != nil {
		return nil, err
	}
	stop = func() {
		if err := cluster.Close(); err != nil {
			log.Warn("gossip ended badly", "err", err)
		}
	}
	if err := c.UseGossip(settings.Cluster{Cluster: cluster}); err != nil {
		stop()
		return nil, fmt.Errorf("cannot gossip: %w", err)
	}
	log.Info("gossip", "address", cluster.Addr(), "join", cfg.Join, "encrypted", len(cluster.Ring()) > 0, "rpc", cluster.RPCAddr())
	return stop, nil
}
