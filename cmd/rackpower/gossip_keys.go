package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/gossip"
)

func gossipCommand() *cli.Command {
	keyArg := "ID, or --key-file"
	file := func() cli.Flag {
		return &cli.StringFlag{Name: "key-file", Usage: "read the key, in base64, from `FILE`; -: from stdin"}
	}
	return &cli.Command{
		Name: "gossip", Category: "on a rack", Usage: "show or change the keys that encrypt gossip",
		Description: "A key is changed without a gap in three steps, each on all members at once: install the new one, use it, remove\n" +
			"the old one." +
			examples("rackpower gossip keygen > new.key", "rackpower gossip keys install --key-file new.key", "rackpower gossip keys list",
				"rackpower gossip keys use ID", "rackpower gossip keys remove OLD_ID") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "keygen", Usage: "print a new key", Action: func(c *cli.Context) error {
					_, err := fmt.Fprintln(c.App.Writer, gossip.NewKey().Reveal())
					return err
				},
				Description: "32 random bytes in base64: for --gossip-key-file, the systemd credential gossip-key, and gossip keys install." +
					examples("umask 077; rackpower gossip keygen > gossip.key") + exitHelp,
			},
			{
				Name: "keys", Usage: "list, install, use or remove keys on all members",
				Description: "Keys are named by the first digits of their SHA-256; they are never shown." +
					examples("rackpower gossip keys list", "rackpower gossip keys install --key-file new.key") + exitHelp,
				Subcommands: []*cli.Command{
					{
						Name: "list", Usage: "list the keys of the members", Flags: eitherFlags(), Action: eitherDoor(listKeys),
						Description: "PRIMARY counts the members that send with the key." + examples("rackpower gossip keys list") + exitHelp,
					},
					keyChange(api.KeyInstall, "", "add a key on all members", file()),
					keyChange(api.KeyUse, keyArg, "make a key that all members have the one they send with", file()),
					keyChange(api.KeyRemove, keyArg, "remove a key that no member sends with", file()),
				},
			},
		},
	}
}

func keyChange(do, operand, usage string, file cli.Flag) *cli.Command {
	args := ""
	if operand != "" {
		args = "[ID]"
	}
	return &cli.Command{
		Name: do, Usage: usage, ArgsUsage: args, Flags: eitherFlags(file),
		Description: "All members must answer; with those that did not it fails, and may be repeated." +
			examples("rackpower gossip keys "+do+" "+cmp.Or(operand, "--key-file new.key")) + exitHelp,
		Action: eitherDoor(func(s *session) error { return changeKeys(s, do) }),
	}
}

func listKeys(s *session) error {
	keys, err := s.client.GossipKeys(s.ctx)
	if err != nil {
		return err
	}
	return s.showKeys(keys)
}

func (v view) showKeys(keys api.GossipKeys) error {
	for _, member := range slices.Sorted(maps.Keys(keys.Problems)) {
		v.Warn("%s: %s", term.Clean(member), term.Clean(keys.Problems[member]))
	}
	if keys.Answered < keys.Members {
		v.Warn("%d of %d members did not answer", keys.Members-keys.Answered, keys.Members)
	}
	return printer.Show(v.Printer, printer.Listing[api.GossipKey]{
		Rows: keys.Keys, Name: func(k api.GossipKey) string { return k.ID },
		Head: []string{"KEY", "MEMBERS", "PRIMARY"},
		Cells: func(k api.GossipKey) []string {
			return []string{k.ID, fmt.Sprintf("%d of %d", k.Members, keys.Members), fmt.Sprint(k.Primary)}
		},
	})
}

func changeKeys(s *session, do string) error {
	in := api.ChangeKeys{Action: do, ID: s.c.Args().First()}
	if file := s.c.String("key-file"); file != "" {
		text, err := readSecrets(s.c, s.Printer).gossipKey(file)
		if err != nil {
			return err
		}
		in.Key = text
	}
	switch {
	case do == api.KeyInstall && in.Key == "":
		return settings.Usage("--key-file is missing: it names the file with the new key")
	case (in.Key == "") == (in.ID == ""):
		return settings.Usage("name one key: its ID, or --key-file")
	}
	keys, err := s.client.ChangeKeys(s.ctx, in)
	if err != nil {
		return err
	}
	tellUnasked(s)
	return s.showKeys(keys)
}

// tellUnasked says which members a change of keys did not reach as they are gone.
func tellUnasked(s *session) {
	members, err := s.client.Members(s.ctx)
	if err != nil || s.Quiet {
		return // the change itself went well
	}
	for _, m := range members {
		if m.Status == gossip.StatusFailed {
			s.Warn("%s failed %s and was not asked: if it comes back after the old key was removed, it needs the new one (central hands it out)",
				term.Clean(m.Name), ago(m.SinceMS))
		}
	}
}
