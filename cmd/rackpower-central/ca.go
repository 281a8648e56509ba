package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"rackpower/central/auth"
	"rackpower/cmd/settings"
)

func caCommand() *cli.Command {
	return &cli.Command{
		Name: "ca", Usage: "print the hash of the site's CA",
		Description: "People give it to rackpower login, which trusts central by it. Central makes the CA when it first serves with --listen." +
			examples("rackpower-central ca", "rackpower-central ca --pem") + exitHelp,
		Flags: []cli.Flag{
			databaseFlag(),
			&cli.BoolFlag{Name: "pem", Usage: "print the certificate instead"},
		},
		Action: func(c *cli.Context) error {
			path := filepath.Join(c.String("data"), auth.CACertFile)
			text, err := os.ReadFile(path)
			if err != nil {
				return settings.Exit(settings.ExitFailed, "cannot read the site's CA: %v; central makes it when it first serves with --listen", err)
			}
			cert, err := auth.ParseCert(text)
			if err != nil {
				return settings.Exit(settings.ExitFailed, "cannot read %s: %v", path, err)
			}
			if c.Bool("pem") {
				fmt.Fprint(c.App.Writer, string(text))
				return nil
			}
			fmt.Fprintln(c.App.Writer, auth.Hash(cert))
			return nil
		},
	}
}
