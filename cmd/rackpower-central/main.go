// Command rackpower-central is the coordinator's daemon, and what is done to its
// database: backup, restore, check. It is apart from rackpower because SQLite
// needs cgo.
package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/settings"
)

// version is set by the linker.
var version = "unknown"

// exitHelp ends the help of every command.
const exitHelp = `

EXIT STATUS
   0  done
   1  failed, or damage was found
   2  usage error; nothing was done`

// examples makes the section of that name.
func examples(lines ...string) string { return "\n\nEXAMPLES\n   " + strings.Join(lines, "\n   ") }

func main() { os.Exit(settings.Run(newApp(), os.Args)) }

func newApp() *cli.App {
	app := &cli.App{
		Name: "rackpower-central", Version: version, Usage: "run central, the coordinator of rackpower, and maintain its database",
		Metadata: map[string]any{settings.DaemonsKey: settings.Daemons{
			"serve": "CENTRAL", "backup": "CENTRAL", "restore": "CENTRAL", "check": "CENTRAL", "seal": "CENTRAL",
			"migrate": "CENTRAL", // whose database it is
		}},
		Description: "Central takes requests, hands them to the agents of the racks and collects what became of them." + exitHelp,
		Commands: []*cli.Command{
			serveCommand(), backupCommand(), restoreCommand(), checkCommand(), migrateCommand(), sealCommand(), caCommand(),
		},
	}
	app.Commands = append(app.Commands, settings.ShellCommands("", "8", exitHelp, nil)...)
	return app
}
