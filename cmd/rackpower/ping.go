package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
)

func pingCommand() *cli.Command {
	return &cli.Command{
		Name: "ping", Category: "on a rack", Usage: "check that a member of the gossip cluster answers", ArgsUsage: "AGENT",
		Action: eitherDoor(pingMember),
		Description: "The request travels by gossip, so the time is that of some rounds of gossip, not of a packet." +
			examples("rackpower ping r2", "rackpower ping central --count 3") + exitHelp,
		Flags: eitherFlags(&cli.IntFlag{Name: "count", Value: 1, Usage: "send `N` requests"}),
	}
}

func pingMember(s *session) error {
	count := s.c.Int("count")
	if count < 1 || count > 1000 {
		return settings.Usage("--count: %d is not between 1 and 1000", count)
	}
	var pongs []api.Pong
	for range count {
		one, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		pong, err := s.client.Ping(one, s.c.Args().First())
		cancel()
		if api.CodeOf(err) == api.CodeRefused {
			return settings.Exit(settings.ExitFailed, "%v", err) // no sign of life is a failure, not a refusal
		}
		if err != nil {
			return err
		}
		if s.People() {
			s.Say("%s answered after %.1f ms", term.Clean(pong.Name), pong.RTTMS)
		}
		pongs = append(pongs, pong)
	}
	if s.People() {
		return nil
	}
	return printer.Show(s.Printer, printer.Listing[api.Pong]{Rows: pongs, Name: func(p api.Pong) string { return p.Name }})
}
