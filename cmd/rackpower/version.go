package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
)

// versionOf is what is known of a program that runs, or of this one.
type versionOf struct {
	Name    string `json:"name"` // rackpower, central, or agent and its name
	Version string `json:"version"`
	settings.Build
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Category: "look", Usage: "show the versions of this program, central and the agents",
		Description: "Central and its agents are left out, with a line on stderr, when they cannot be asked." +
			examples("rackpower version", "rackpower version -o json") + exitHelp,
		Flags: atCentral.flags(), Action: atCentral.with(showVersions),
	}
}

// askWithin bounds the questions of commands that have something to say without an answer.
const askWithin = 5 * time.Second

func showVersions(s *session) error {
	rows := []versionOf{{Name: s.c.App.Name, Version: s.c.App.Version, Build: settings.ThisBuild()}}
	ctx, cancel := context.WithTimeout(s.ctx, askWithin)
	defer cancel()
	info, err := s.client.Info(ctx)
	var agents []api.Agent
	if err == nil {
		rows = append(rows, versionOf{Name: "central", Version: info.Version})
		agents, err = s.client.Agents(ctx)
	}
	for _, a := range agents {
		rows = append(rows, versionOf{Name: "agent " + a.Name, Version: cmp.Or(a.Version, "not known")})
	}
	if err != nil && !s.Quiet {
		s.Warn("%s cannot be asked: %v", s.server.who, s.explain(err))
	}
	return printer.Show(s.Printer, printer.Listing[versionOf]{
		Rows: rows, Name: func(v versionOf) string { return fmt.Sprintf("%s %s", v.Name, v.Version) },
		Head: []string{"PROGRAM", "VERSION", "COMMIT", "DATE", "GO"},
		Cells: func(v versionOf) []string {
			return []string{v.Name, v.Version, v.Commit[:min(8, len(v.Commit))], v.Date, v.Go}
		},
	})
}
