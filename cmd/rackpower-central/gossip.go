package main

import (
	"fmt"
	"log/slog"

	"rackpower/central"
	"rackpower/cmd/daemon"
	"rackpower/gossip"
)

// startGossip makes central a member of the agents' cluster, once its database is
// open: before that another central may have the name. The returned function
// leaves.
func startGossip(c *central.Central, cfg *gossip.Config, log *slog.Logger) (stop func(), err error) {
	if cfg == nil {
		return func() {}, nil
	}
	if err := daemon.CheckFree("gossip", cfg.Bind); err != nil {
		return nil, err
	}
	if !cfg.HasKey() { // central makes it, and hands it out to the agents
		cfg.Key = gossip.NewKey()
		log.Info("a gossip key was made; agents get it from here when they start, others from the file. Members without a key are refused",
			"id", cfg.Key.ID(), "file", cfg.KeyringFile)
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
	if err := c.UseGossip(daemon.Cluster{Cluster: cluster}); err != nil {
		stop()
		return nil, fmt.Errorf("cannot gossip: %w", err)
	}
	log.Info("gossip", "address", cluster.Addr(), "join", cfg.Join, "encrypted", len(cluster.Ring()) > 0, "rpc", cluster.RPCAddr())
	return stop, nil
}
