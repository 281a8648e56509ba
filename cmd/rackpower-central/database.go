package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"rackpower/central"
	"rackpower/central/seal"
	"rackpower/central/store"
	"rackpower/cmd/daemon"
	"rackpower/cmd/settings"
)

// databaseFlag names the directory; where central is installed it need not be given.
func databaseFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Value: installedData, Usage: "data directory `DIR` of central"}
}

// sealKeyFlag names the file of keys that seal passwords, where it is not in the data
// directory.
func sealKeyFlag() cli.Flag {
	return &cli.StringFlag{Name: "seal-key-file", Usage: "read the keys that seal passwords from `FILE`; default: the systemd credential " +
		sealKeyCredential + ", else " + seal.FileName + " in the data directory"}
}

// sealKeyCredential is the name of the systemd credential that holds the keys.
const sealKeyCredential = "seal-key"

func sealKeyFile(c *cli.Context) string {
	return daemon.CredentialFile(c.String("seal-key-file"), sealKeyCredential)
}

// installedData is the data directory of the systemd unit.
const installedData = "/var/lib/rackpower/central"

func backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "back up the database; central may be running", ArgsUsage: "FILE",
		Description: "The copy shows one moment and is checked before it gets its name. It holds the passwords of the\n" +
			"BMCs sealed: keep a copy of the key, " + seal.FileName + " in the data directory, in another place.\n" +
			"It is readable by its owner only. An existing file is not overwritten." +
			examples("rackpower-central backup /backup/central-monday.db", "rackpower-central backup --data DIR /backup/central-monday.db") +
			exitHelp,
		Flags: []cli.Flag{databaseFlag()},
		Action: func(c *cli.Context) error {
			sum, err := store.Backup(c.Context, central.DatabasePath(c.String("data")), c.Args().First())
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.App.Writer, "%s: %s\n", c.Args().First(), describe(sum))
			return nil
		},
	}
}

func restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "replace the database with a backup", ArgsUsage: "FILE",
		Description: "Central must not run. The database that was there is kept beside the restored one. Agents notice\n" +
			"that, take their whole assignment again, report again how operations ended, and carry out nothing twice.\n" +
			"They keep nodes and holds of after the backup, which rackpower agents shows. Run it as the user\n" +
			"that central runs as, who has to own the database. The key that seals the passwords in the backup\n" +
			"has to be there (" + seal.FileName + " in the data directory, or --seal-key-file): without it nothing is restored." +
			examples("rackpower-central restore /backup/central-monday.db") + exitHelp,
		Flags: []cli.Flag{databaseFlag(), sealKeyFlag()},
		Action: func(c *cli.Context) error {
			if err := store.MakeDirectory(c.String("data")); err != nil {
				return failed(err)
			}
			sum, kept, err := store.Restore(c.Context, c.Args().First(), central.DatabasePath(c.String("data")), sealKeyFile(c))
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.App.Writer, "restored: %s\n", describe(sum))
			if kept != "" {
				fmt.Fprintf(c.App.Writer, "kept what was there as %s\n", kept)
			}
			return nil
		},
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check the database for damage",
		Description: "Central may run meanwhile." + examples("rackpower-central check") + exitHelp,
		Flags:       []cli.Flag{databaseFlag()},
		Action: func(c *cli.Context) error {
			sum, err := store.Check(c.Context, central.DatabasePath(c.String("data")))
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.App.Writer, "ok: %s\n", describe(sum))
			return nil
		},
	}
}

func failed(err error) error { return settings.Exit(settings.ExitFailed, "%s", oneLine(err)) }

func describe(s store.Summary) string {
	return fmt.Sprintf("schema %d, generation %d, id %s; %d nodes, %d agents, %d operations (%d outstanding), %d audit entries",
		s.Schema, s.Generation, s.ID, s.Nodes, s.Agents, s.Ops, s.Open, s.Audit)
}
