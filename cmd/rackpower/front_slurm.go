package main

import (
	"github.com/urfave/cli/v2"

	"rackpower/cmd/rackpower/front/slurm"
	"rackpower/power"
)

// slurmCommand has the programs that slurmctld starts.
func slurmCommand() *cli.Command {
	program := func(p slurm.Program, usage, about string, more ...cli.Flag) *cli.Command {
		return &cli.Command{
			Name: p.Name, Usage: usage, ArgsUsage: "HOSTLIST",
			Description: about + "\nIt returns when central has taken the requests, and fails when it did not take one." +
				examples("rackpower front slurm "+p.Name+" 'n[01-20]' --yes") + exitHelp,
			Flags: atCentral.flags(append(more, doorFlags()...)...),
			Action: atCentral.with(func(s *session) error {
				if p == slurm.Suspend && s.c.Bool("hard") {
					p = slurm.SuspendNow
				}
				return p.Run(s.ctx, newDoor(s), s.c.Args().First())
			}),
		}
	}
	return &cli.Command{
		Name: "slurm", Usage: "be the programs that slurmctld saves power by",
		Description: "slurm.conf names a script for each of them, since it takes no arguments: docs/front-ends.md has an example." +
			examples("rackpower front slurm suspend 'n[01-20]' --yes") + exitHelp,
		Subcommands: []*cli.Command{
			program(slurm.Suspend, "SuspendProgram: shut nodes down",
				"Nodes that are not off after the grace of soft-off ("+power.DefaultGrace.String()+") are turned off hard.",
				&cli.BoolFlag{Name: "hard", Usage: "turn nodes off hard at once"}),
			program(slurm.Resume, "ResumeProgram: turn nodes on", "Power domains space them."),
			program(slurm.ResumeFail, "ResumeFailProgram: turn nodes off that did not come up", "They are turned off hard."),
		},
	}
}
