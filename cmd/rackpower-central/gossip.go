package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"rackpower/central"
)

func startGossip(c *cli.Context, log *slog.Logger) (central.Gossip, func(), error) {
	return nil, nil, nil
}
