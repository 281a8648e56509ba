// Command rackpower is the command line for people and scripts, and the programs of a
// rack: the agent, the simulator of BMCs and the demonstration. It is free of cgo and
// linked statically.
package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/rackpower/demo"
	"rackpower/cmd/settings"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if args, is := asFenceAgent(os.Args); is {
		os.Exit(runFence(newApp(), args, os.Stdin))
	}
	os.Exit(settings.Run(newApp(), os.Args))
}

// newApp makes the whole command line. It reads nothing yet.
func newApp() *cli.App {
	app := &cli.App{
		Name: "rackpower", Version: version, Usage: "control the power of bare-metal servers",
		Metadata: map[string]any{settings.DaemonsKey: settings.Daemons{"agent": "AGENT", "sim": "SIM", "front powerman": "POWERMAN"}},
		Description: "Power operations are asked of central, which hands them to the agent of the node's rack.\n" +
			"Each is carried out once, verified by reading the power, and has one outcome." + nodesHelp +
			examples("rackpower status", "rackpower cycle r1n[01-04] --reason \"new kernel\"", "rackpower ops --outstanding") + exitHelp,
	}
	for _, a := range powerVerbs {
		app.Commands = append(app.Commands, powerCommand(a, atCentral))
	}
	app.Commands = append(app.Commands,
		cancelCommand(atCentral), consumptionCommand(), capCommand(atCentral),
		statusCommand(atCentral), topCommand(), waitCommand(atCentral), opsCommand(atCentral), opCommand(atCentral), nodeCommand(),
		explainCommand(atCentral), watchCommand(), agentsCommand(), membersCommand(), peersCommand(), pingCommand(), gossipCommand(),
		auditCommand(), localCommand(),
		planCommand(), applyCommand(), approvalsCommand(), approveCommand("approve"), approveCommand("deny"), policyCommand(),
		holdCommand(atCentral), releaseCommand(atCentral), brakeCommand(atCentral), pauseCommand(),
		resumeCommand(),
		siteCommand(),
		rackCommand(), domainCommand(), scheduleCommand(), journalCommand(), loginCommand(), logoutCommand(), profileCommand(), userCommand(),
		credentialsCommand(), versionCommand(), doctorCommand(), agentCommand(),
		simCommand(), frontCommand(), demoCommand(), nodesCommand(),
	)
	app.Commands = append(app.Commands, settings.ShellCommands("daemons and tools", "1", exitHelp, completeValues(app))...)
	finish(app.Commands)
	app.Description = strings.Replace(app.Description, exitHelp, exitHelpOf(&cli.Command{Subcommands: app.Commands}), 1)
	return app
}

// localCommand holds the commands that an agent answers by itself.
func localCommand() *cli.Command {
	local := &cli.Command{
		Name: "local", Category: "on a rack", Usage: "ask this rack's agent directly, without central",
		Description: "For emergencies on the rack: the same rules, the same journal, the agent's own nodes only.\n" +
			"Central learns of it when it is back." +
			examples("rackpower local status", "rackpower local off r1n01 --socket /run/rackpower/agent.sock") + exitHelp,
		Subcommands: []*cli.Command{
			statusCommand(atAgent), waitCommand(atAgent), explainCommand(atAgent), opsCommand(atAgent), opCommand(atAgent),
			holdCommand(atAgent), releaseCommand(atAgent), brakeCommand(atAgent), retryCommand(atAgent), localAckCommand(),
			cancelCommand(atAgent), localTrustCommand(),
		},
	}
	local.Subcommands = append(local.Subcommands, capCommand(atAgent))
	for _, a := range powerVerbs {
		local.Subcommands = append(local.Subcommands, powerCommand(a, atAgent))
	}
	return local
}

// demoCommand plays the demonstration.
func demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Category: "daemons and tools", Usage: "run a demonstration on this machine: simulated BMCs, agents, central",
		Description: "Everything runs on loopback and ends with the demo; nothing outside is touched." +
			examples("rackpower demo", "rackpower demo --racks 2 --nodes 4 --keep", "rackpower demo --page") + exitHelp,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "racks", Value: 3, Usage: "simulate `N` racks, at least 2"},
			&cli.IntFlag{Name: "nodes", Value: 8, Usage: "simulate `N` nodes in each rack"},
			&cli.BoolFlag{Name: "keep", Usage: "keep state and logs"},
			&cli.BoolFlag{Name: "page", Usage: "then serve the page of central, with a few faults to find, until Ctrl-C"},
		},
		Action: func(c *cli.Context) error {
			racks, nodes := c.Int("racks"), c.Int("nodes")
			if racks < 2 || racks > 50 || nodes < 1 || nodes > 99 {
				return settings.Usage("the demo takes 2 to 50 racks of 1 to 99 nodes")
			}
			return demo.Run(c.Context, c.App.Writer, racks, nodes, c.Bool("keep"), c.Bool("page"))
		},
	}
}
