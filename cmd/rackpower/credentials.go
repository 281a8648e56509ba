package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
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
			user, set := c.User, s.Time(c.SetAt)
			if c.KG {
				user += " (and K_g)"
			}
			if c.AtRacks {
				user, set = "(not at central)", ""
			}
			if c.Damaged {
				user += " (does not open: set it anew)"
			}
			return []string{c.Name, user, strconv.Itoa(c.Nodes), strings.Join(c.Racks, ","), set, c.SetBy}
		},
	})
}

// credentialsOf is how people see what a node logs in with.
func credentialsOf(n api.Node) string {
	if n.Credentials == "" {
		return ""
	}
	return n.Credentials + " (where it has no password)"
}
