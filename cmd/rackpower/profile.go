package main

import (
	"cmp"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
)

// profileCommand is about the sites that somebody is logged in at.
func profileCommand() *cli.Command {
	list := &cli.Command{
		Name: "list", Usage: "list the profiles of this machine", Action: listProfiles, Flags: outputFlags(),
		Description: examples("rackpower profile list", "rackpower profile list -o name")[2:] + exitHelp,
	}
	return &cli.Command{
		Name: "profile", Aliases: []string{"context"}, Category: "access", Usage: "list the sites that you are logged in at, choose one",
		Description: "rackpower login keeps a profile for each. Commands ask the central of the one in use, unless\n" +
			"--profile, --central or their environment variables name another." +
			examples("rackpower login https://central.lab:7620 --profile lab --ca-hash sha256:5f1c...", "rackpower profile use lab") + exitHelp,
		Subcommands: []*cli.Command{
			list,
			{
				Name: "use", Usage: "choose the profile of commands that name none", ArgsUsage: "NAME", Action: useProfile, Flags: outputFlags(),
				Description: "Other shells of yours use it too; RACKPOWER_PROFILE is for one shell alone." +
					examples("rackpower profile use lab") + exitHelp,
			},
		},
	}
}

// profile is one as it is listed, without its secrets.
type profile struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	User  string `json:"user"`
	InUse bool   `json:"in_use"`
	Wrong string `json:"wrong,omitempty"` // why it cannot be read
}

func listProfiles(c *cli.Context) error {
	p, err := newPrinter(c)
	if err != nil {
		return err
	}
	names, err := settings.Profiles()
	if err != nil {
		return settings.Exit(settings.ExitFailed, "cannot list the profiles: %v", err)
	}
	current := settings.CurrentProfile()
	rows := []profile{}
	for _, name := range names {
		row := profile{Name: name, InUse: name == current}
		kept, _, err := settings.LoadProfile(name)
		if err != nil {
			row.Wrong = err.Error()
		}
		row.URL, row.User = kept.URL, kept.User
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		p.Say("there are none: rackpower login URL makes one")
	}
	return printer.Show(p, printer.Listing[profile]{
		Rows: rows, Name: func(r profile) string { return r.Name }, Head: []string{"PROFILE", "IN USE", "USER", "URL"},
		Cells: func(r profile) []string {
			used := ""
			if r.InUse {
				used = "yes"
			}
			return []string{r.Name, used, r.User, cmp.Or(r.Wrong, r.URL)}
		},
	})
}

func useProfile(c *cli.Context) error {
	p, err := newPrinter(c)
	if err != nil {
		return err
	}
	name := c.Args().First()
	if err := settings.UseProfile(name); err != nil {
		return err
	}
	kept, _, err := settings.LoadProfile(name)
	if err == nil {
		p.Say("commands ask %s as %s from now on", kept.URL, cmp.Or(kept.User, "nobody"))
	}
	return err
}
