package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/cmd/daemon"
	"rackpower/cmd/rackpower/agentd"
	"rackpower/cmd/settings"
)

// defaultGossip is where agents gossip when nothing else is said.
const defaultGossip = "127.0.0.1:7946"

func agentCommand() *cli.Command {
	return &cli.Command{
		Name: "agent", Category: "daemons and tools", Usage: "run the agent of a rack", Action: agentd.Run,
		Description: "It controls the nodes that central assigns to the rack of its name, keeps a journal of their operations in its data\n" +
			"directory, and answers on its own socket when central is away. Until SIGTERM." +
			examples("rackpower agent --name r1 --data /var/lib/rackpower/agent --central unix:///run/rackpower/central.sock",
				"rackpower agent --config /etc/rackpower/agent.yaml") + exitHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Required: true, Usage: "`NAME` of the agent and of its rack"},
			&cli.StringFlag{Name: "data", Required: true, Usage: "store the journal and the assignment in `DIR`"},
			&cli.StringFlag{
				Name: "central", Required: true,
				Usage: "`URL` of central, or \"none\"; several https URLs, separated by commas, are its names",
			},
			&cli.StringFlag{
				Name: "token-file",
				Usage: "enrol with the token in `FILE` (rackpower agents token), once; default: the systemd credential " +
					agentd.TokenCredential + ", if there is one",
			},
			&cli.StringFlag{
				Name: "seal-key-file",
				Usage: "read the keys that seal passwords in the data directory from `FILE`; default: the systemd credential " +
					agentd.SealKeyCredential + ", else seal.key in the data directory, which is made",
			},
			&cli.StringFlag{
				Name:  "bmc-ca-file",
				Usage: "trust Redfish BMCs whose certificate is of an authority in `FILE` (PEM); default: those of the system",
			},
			&cli.StringFlag{
				Name: "exec-dir",
				Usage: "run the programs in `DIR` for nodes with exec:PROGRAM, as the agent's user; nobody else but root may be able to " +
					"change them; default: none are run",
			},
			&cli.StringFlag{
				Name: "credentials-file",
				Usage: "read credentials that nodes name and central never sees from `FILE`, a YAML list of name, user and password or " +
					"password_file; default: the systemd credential " + agentd.CredentialsCredential + ", if there is one",
			},
			&cli.StringFlag{Name: "gossip", Value: defaultGossip, Usage: "`HOST:PORT` for gossip, or \"off\""},
			&cli.StringFlag{Name: "advertise", Usage: "`HOST:PORT` at which other members reach this agent's gossip"},
			&cli.StringSliceFlag{Name: "join", Usage: "`HOST:PORT` of a gossip member to join; may be repeated"},
			&cli.StringFlag{Name: "socket", Usage: "`PATH` of the agent's control socket", DefaultText: "agent.sock in the data directory"},
			&cli.StringFlag{
				Name: "monitor", Value: agent.DefaultMonitor,
				Usage: "read the nodes at the times of the `CRON` expression, or \"off\"; central's setting for the rack takes precedence",
			},
			&cli.DurationFlag{
				Name: "debounce", Value: agent.DefaultDebounce,
				Usage: "enforce transient statuses (NEW, DEPLOYING, ...) after two equal readings that are `DURATION` apart",
			},
		}, slices.Concat(agentd.MetricsFlags(), daemon.GossipFlags(), settings.LogFlags())...),
	}
}
