package main

import (
	"errors"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
)

func credentialsCommand() *cli.Command {
	return &cli.Command{
		Name: "credentials", Category: "access", Usage: "keep users and passwords of BMCs that many nodes share",
		Description: "A node names its credentials (rackpower node add --credentials), or a rack does for its nodes (rackpower rack\n" +
			"set --credentials). A password of the node's own stands over the name that it has, and that over the rack's.\n" +
			"Credentials of a name may also stay in a file on the rack (rackpower agent --credentials-file), which central\n" +
			"never sees and which stands over central's of that name." +
			examples("rackpower credentials set lab --user admin --password-file bmc.password", "rackpower credentials list") + exitHelp,
		Subcommands: []*cli.Command{{
			Name: "list", Usage: "list the credentials, without their passwords", Flags: atCentral.flags(),
			Action: atCentral.with(listCredentials),
			Description: "With how many nodes use them. Those that nodes name and central does not have must be on the racks." +
				examples("rackpower credentials list", "rackpower credentials list -o json") + exitHelp,
		}, {
			Name: "set", Usage: "add credentials, or replace them", ArgsUsage: "NAME", Action: atCentral.with(setCredentials),
			Description: "The password is read from a file, or from stdin with \"-\" (on a terminal without echo), never from the\n" +
				"command line. All nodes that use the credentials log in with the new ones from then on. It does not change\n" +
				"the password at the BMCs." +
				examples("rackpower credentials set lab --user admin --password-file bmc.password",
					"rackpower credentials set lab --user admin --password-file -") + exitHelp,
			Flags: atCentral.flags(append(loginFlags(), reasonFlag(false))...),
		}, testCommand("credentials test"), {
			Name: "rotate", Usage: "replace credentials, node by node", ArgsUsage: "NAME", Action: atCentral.with(rotateCredentials),
			Description: "Tries the new ones at the BMC of each node that uses NAME, once; where they are taken, the node uses them from\n" +
				"then on, elsewhere it keeps the old. When all nodes use the new ones, the old ones go. Until then agents try\n" +
				"the others, once, where a BMC refuses what the node uses: change the passwords at the BMCs in any order, this\n" +
				"command does not. Without --user it goes on with what was begun." +
				examples("rackpower credentials rotate lab --user admin --password-file new.password", "rackpower credentials rotate lab",
					"rackpower credentials rotate lab --cancel") + exitHelp,
			Flags: atCentral.flags(
				&cli.StringFlag{Name: "user", Usage: "`NAME` of the BMCs' user from now on"},
				&cli.StringFlag{Name: "password-file", Usage: "read the new password from the first line of `FILE`; -: from stdin"},
				&cli.StringFlag{Name: "kg-file", Usage: "read the new key K_g from the first line of `FILE`"},
				&cli.StringFlag{Name: "on", Usage: "try the new ones on these `NODES` only", DefaultText: "all that use NAME"},
				&cli.BoolFlag{Name: "cancel", Usage: "drop the new ones"},
				&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "drop them although BMCs took them"},
				reasonFlag(false)),
		}, {
			Name: "rm", Usage: "remove credentials that nothing names", ArgsUsage: "NAME", Action: atCentral.with(removeCredentials),
			Description: "Refused while a node or a rack names them." + examples("rackpower credentials rm lab") + exitHelp,
			Flags:       atCentral.flags(reasonFlag(false)),
		}},
	}
}

func loginFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "user", Required: true, Usage: "`NAME` of the BMCs' user"},
		&cli.StringFlag{Name: "password-file", Required: true, Usage: "read the password from the first line of `FILE`; -: from stdin"},
		&cli.StringFlag{Name: "kg-file", Usage: "read the BMCs' key K_g from the first line of `FILE`: text, or 0x and hexadecimal digits"},
	}
}

// credentialsName is the one operand of the commands on credentials.
func (s *session) credentialsName() (string, error) {
	if s.c.NArg() != 1 {
		return "", settings.Usage("name one set of credentials")
	}
	name := s.c.Args().First()
	if err := api.CheckName(name); err != nil {
		return "", settings.Usage("%v", err)
	}
	return name, nil
}

// login reads the new credentials that the flags name.
func (s *session) login() (in api.SetCredentials, err error) {
	in = api.SetCredentials{User: s.c.String("user"), AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	secrets := readSecrets(s.c, s.Printer)
	if in.Password, err = secrets.password(s.c.String("password-file")); err != nil {
		return in, err
	}
	if file := s.c.String("kg-file"); file != "" {
		if in.KG, err = secrets.inFile(file, "K_g"); err != nil {
			return in, err
		}
	}
	if err := in.Validate(); err != nil {
		return in, settings.Usage("%v", err)
	}
	return in, nil
}

func setCredentials(s *session) error {
	name, err := s.credentialsName()
	if err != nil {
		return err
	}
	in, err := s.login()
	if err != nil {
		return err
	}
	changed, err := s.client.SetCredentials(s.ctx, name, in)
	if err != nil {
		return err
	}
	return s.showCredentialsChange(name, changed, "set")
}

func removeCredentials(s *session) error {
	name, err := s.credentialsName()
	if err != nil {
		return err
	}
	changed, err := s.client.RemoveCredentials(s.ctx, name, api.RemoveCredentials{AskedBy: s.askedBy(), Reason: s.c.String("reason")})
	if err != nil {
		return err
	}
	return s.showCredentialsChange(name, changed, "removed")
}

func (v view) showCredentialsChange(name string, changed api.Changed, what string) error {
	if !v.People() {
		return printer.Show(v.Printer, printer.Listing[api.Changed]{Rows: []api.Changed{changed}, Name: func(api.Changed) string { return name }})
	}
	if changed.Changed == 0 {
		what = "as they were"
	}
	v.Say("credentials %s: %s", name, what)
	return nil
}

func listCredentials(s *session) error {
	all, err := s.client.Credentials(s.ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		s.Say("there are no credentials: rackpower credentials set NAME --user USER --password-file FILE")
	}
	return printer.Show(s.Printer, printer.Listing[api.Credentials]{
		Rows: all, Name: func(c api.Credentials) string { return c.Name },
		Head: []string{"NAME", "USER", "NODES", "RACKS", "SET", "BY"},
		Cells: func(c api.Credentials) []string {
			user, set := c.User, s.Age(&c.SetAt)+" ago"
			if c.KG {
				user += " (and K_g)"
			}
			if c.AtRacks {
				user, set = "(not at central)", ""
			}
			if c.Damaged {
				user += " (does not open: set it anew)"
			}
			return []string{c.Name, user, strconv.Itoa(c.Nodes), noderange.Fold(c.Racks), set, c.SetBy}
		},
	})
}

// namedBy is how people see what a node logs in with.
func namedBy(n api.Node) string {
	if n.Credentials == "" {
		return ""
	}
	return n.Credentials + " (where it has no password)"
}

func rotateCredentials(s *session) error {
	name, err := s.credentialsName()
	if err != nil {
		return err
	}
	c := s.c
	begin := c.IsSet("user") || c.IsSet("password-file")
	switch {
	case begin && !(c.IsSet("user") && c.IsSet("password-file")):
		return settings.Usage("--user and --password-file go together")
	case c.Bool("cancel") && (begin || c.IsSet("on")):
		return settings.Usage("--cancel takes no credentials and no nodes")
	}
	in := api.RotateCredentials{Cancel: c.Bool("cancel"), Confirmed: c.Bool("yes")}
	if begin {
		in.SetCredentials, err = s.login()
	} else {
		in.AskedBy, in.Reason = s.askedBy(), c.String("reason")
	}
	if err != nil {
		return err
	}
	if begin || in.Cancel {
		changed, err := s.client.RotateCredentials(s.ctx, name, in)
		if err != nil || in.Cancel {
			return errors.Join(err, s.showDropped(name, changed, err))
		}
	}
	return s.tryNew(name)
}

func (s *session) showDropped(name string, changed api.Changed, err error) error {
	if err != nil {
		return nil
	}
	return s.showCredentialsChange(name, changed, "the new ones are dropped")
}

// tryNew tries new credentials on the nodes that keep the old ones.
func (s *session) tryNew(name string) error {
	cred, err := s.credentialsOf(name)
	if err != nil {
		return err
	}
	names := cred.Keep
	if expr := s.c.String("on"); expr != "" {
		nodes, err := s.selected(expr)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(namesOf(nodes), func(n string) bool { return !slices.Contains(cred.Keep, n) })
	}
	var all []api.NodeTest
	if len(names) > 0 {
		if all, err = s.client.TestNodes(s.ctx, api.TestNodes{Names: names, New: true, AskedBy: s.askedBy()}); err != nil {
			return err
		}
	}
	uses := map[bool]string{true: "new", false: "old"}
	err = printer.Show(s.Printer, printer.Listing[api.NodeTest]{
		Rows: all, Name: func(t api.NodeTest) string { return t.Node }, Head: []string{"NODE", "LOG-IN", "USES"},
		Cells: func(t api.NodeTest) []string { return []string{t.Node, loginWord(t), uses[t.Reach == power.ReachOK]} },
	})
	if err != nil {
		return err
	}
	s.tellTests(all, func(api.NodeTest) []string { return nil })
	if cred, err = s.credentialsOf(name); err != nil {
		return err
	}
	if cred.NextUser == "" {
		s.Say("credentials %s: all nodes use the new ones; the old ones are gone", name)
		return nil
	}
	s.Say("credentials %s: %s use the new ones, %d keep the old: %s", name, power.Count(len(cred.Took), "node"), len(cred.Keep),
		noderange.Fold(cred.Keep))
	return settings.Exit(settings.ExitPending, "the replacement goes on: rackpower credentials rotate %s tries the others again", name)
}

func (s *session) credentialsOf(name string) (api.Credentials, error) {
	all, err := s.client.Credentials(s.ctx)
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
	}
	if err == nil {
		err = settings.Exit(settings.ExitUsage, "no such credentials: %s", name)
	}
	return api.Credentials{}, err
}
