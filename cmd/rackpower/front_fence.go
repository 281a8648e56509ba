package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/rackpower/front"
	"rackpower/cmd/rackpower/front/fence"
	"rackpower/cmd/settings"
)

// fenceOffKey is where an app keeps a *bool that says that status found the node off. Nothing
// else ends a fence agent with 2, which is a usage error elsewhere.
const fenceOffKey = "fence-off"

func fenceCommand() *cli.Command {
	return &cli.Command{
		Name: "fence", Usage: "be a fence agent of Pacemaker", Action: runFenceAction,
		Description: "Called as " + fence.Name + ", the program is this command. Without options it reads them from stdin,\n" +
			"NAME=VALUE a line. off and reboot end with 0 only when the node was read off." +
			examples(fence.Name+" -o status -n r1n01", "rackpower front fence --action=off --plug=r1n01", fence.Name+" -o metadata") + exitHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "action", Aliases: []string{"o"}, Value: "reboot",
				Usage: "do `ACTION`: on, off, reboot, status, list, list-status, monitor, metadata, validate-all",
			},
			&cli.StringFlag{Name: "plug", Aliases: []string{"n"}, Usage: "the `NODE`"},
			&cli.IntFlag{Name: "power-timeout", Value: 40, Usage: "give an operation up after `SECONDS`; it is not carried out later"},
			&cli.StringFlag{Name: atCentral.flag, Value: atCentral.initial, Usage: atCentral.usage}, profileFlag(),
		},
	}
}

func runFenceAction(c *cli.Context) error {
	in := fence.Params{Action: c.String("action"), Plug: c.String("plug"), Expire: time.Duration(c.Int("power-timeout")) * time.Second}
	if in.Expire <= 0 {
		return settings.Usage("--power-timeout: %d is not positive", c.Int("power-timeout"))
	}
	var fleet front.Fleet
	if !strings.EqualFold(in.Action, "metadata") { // which is asked for before there is anything else
		s, err := atCentral.open(c)
		if err != nil {
			return err
		}
		defer s.client.Close()
		fleet = newDoor(s)
	}
	status, err := fence.Do(c.Context, fleet, in, c.App.Writer)
	if off, ok := c.App.Metadata[fenceOffKey].(*bool); ok {
		*off = err == nil && status == fence.IsOff
	}
	switch {
	case err != nil:
		return settings.Exit(fence.Failed, "%v", err)
	case status != fence.Done:
		return settings.Exit(status, "")
	default:
		return nil
	}
}

// asFenceAgent reports whether a command line is that of the fence agent, by the name of the
// program or by that of the command, and returns it with the latter.
func asFenceAgent(args []string) ([]string, bool) {
	switch {
	case len(args) > 0 && filepath.Base(args[0]) == fence.Name:
		return append([]string{args[0], "front", "fence"}, args[1:]...), true
	case len(args) > 2 && args[1] == "front" && args[2] == "fence":
		return args, true
	default:
		return nil, false
	}
}

// runFence runs a command line of asFenceAgent and returns the exit status. Without options they
// come from stdin.
func runFence(app *cli.App, args []string, stdin io.Reader) int {
	if len(args) == 3 {
		var known []string
		for _, f := range fenceCommand().Flags {
			known = append(known, settings.NameOf(f))
		}
		flags, err := fence.ReadStdin(stdin, known)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", fence.Name, err)
			return fence.Failed
		}
		args = append(args, flags...)
	}
	off := false
	app.Metadata[fenceOffKey] = &off
	if status := settings.Run(app, args); status == fence.Done || off {
		return status
	}
	return fence.Failed
}
