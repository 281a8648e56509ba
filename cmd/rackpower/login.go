package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
)

const profileFlagName = "profile"

func profileFlag() cli.Flag {
	return &cli.StringFlag{Name: profileFlagName, Value: settings.DefaultProfile, Usage: "use the `NAME`d profile of rackpower login"}
}

func loginCommand() *cli.Command {
	return &cli.Command{
		Name: "login", Category: "access", Usage: "keep the address of a central and your token", ArgsUsage: "URL", Action: login,
		Description: "The token, which an admin made with rackpower user add, is read from the file, or typed. It is tried before it is\n" +
			"kept, in a file of the user's own. Commands without --central then ask that central.\n" +
			"The hash of its CA is printed by rackpower-central ca; without one the CAs of this machine are trusted." +
			examples("rackpower login https://central:7620 --ca-hash sha256:5f1c...", "rackpower login https://central:7620 --profile lab "+
				"--ca-hash sha256:5f1c... --token-file token") + exitHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "ca-hash", Usage: "`HASH` of the public key of the site's CA"},
			&cli.StringFlag{Name: "token-file", Usage: "read the token from `FILE`; - for stdin", Value: "-"},
			profileFlag(),
		}, outputFlags()...),
	}
}

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name: "logout", Category: "access", Usage: "forget a central and your token", Action: logout,
		Description: "Removes the profile from this machine. The token holds on until it expires, or an admin revokes it." +
			examples("rackpower logout", "rackpower logout --profile lab") + exitHelp,
		Flags: append([]cli.Flag{profileFlag()}, outputFlags()...),
	}
}

func login(c *cli.Context) error {
	p, err := newPrinter(c)
	if err != nil {
		return err
	}
	target := strings.TrimSuffix(c.Args().First(), "/")
	if c.NArg() != 1 || !strings.HasPrefix(target, "https://") {
		return settings.Usage("name the URL of one central: https://HOST:PORT")
	}
	client, err := api.NewClient(target)
	if err != nil {
		return settings.Usage("%v", err)
	}
	defer client.Close()
	profile := settings.Profile{Name: c.String(profileFlagName), URL: target}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if text := c.String("ca-hash"); text != "" {
		hash, err := auth.ParseHash(text)
		if err != nil {
			return settings.Usage("--ca-hash: %v", err)
		}
		cfg = auth.Pinned(hash, func(ca *x509.Certificate) {
			profile.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
		})
	}
	if profile.Token, err = readSecrets(c, p).token(c.String("token-file")); err != nil {
		return err
	}
	client.Secure(cfg, profile.Token)
	tellSilence(p, client, "central", patience)
	me, err := client.WhoAmI(c.Context)
	if err != nil {
		return explainAt(c.Context, atCentral, target, p, err)
	}
	profile.User = me.Name
	path, err := profile.Save()
	if err != nil {
		return settings.Exit(settings.ExitFailed, "%v", err)
	}
	p.Say("logged in at %s as %s, %s; kept in %s", target, me.Name, roleWords(me), path)
	return nil
}

func logout(c *cli.Context) error {
	p, err := newPrinter(c)
	if err != nil {
		return err
	}
	name := c.String(profileFlagName)
	found, err := settings.RemoveProfile(name)
	switch {
	case err != nil:
		return err
	case !found:
		return settings.Exit(settings.ExitUsage, "there is no profile %s", name)
	}
	p.Say("profile %s is removed", name)
	return nil
}

// token reads a bearer token like a password.
func (r secretReader) token(file string) (string, error) {
	text, err := r.secret(file, "the token", "Token: ")
	if err == nil && !auth.IsToken(text) && !auth.IsJWT(text) {
		err = settings.Usage("this is no token: it is the line beginning with rpt_ that rackpower user add printed, or an ID token")
	}
	return text, err
}

// roleWords is "operator of @rack1".
func roleWords(u api.User) string {
	if u.Nodes == "" || u.Nodes == "all" {
		return u.Role
	}
	return u.Role + " of " + u.Nodes
}

// connect makes the client of central: of the profile where no address is named, or one of
// the same address is.
func connect(c *cli.Context, target string) (*api.Client, error) {
	profile, found, err := settings.LoadProfile(cmp.Or(c.String(profileFlagName), settings.DefaultProfile))
	if err != nil {
		return nil, err
	}
	switch {
	case found && !c.IsSet("central"):
		target = profile.URL
	case !found && c.IsSet(profileFlagName):
		return nil, settings.Usage("there is no profile %s: rackpower login URL --profile %s", c.String(profileFlagName),
			c.String(profileFlagName))
	}
	if err := settings.CheckCentral(target); err != nil {
		return nil, err
	}
	client, err := api.NewClient(target)
	if err != nil {
		return nil, settings.Usage("--central: %v", err)
	}
	if !strings.HasPrefix(target, "https://") {
		return client, nil
	}
	if !found || profile.URL != strings.TrimSuffix(target, "/") {
		return nil, settings.Exit(settings.ExitRefused, "nobody is logged in at %s: rackpower login %s --ca-hash HASH", target, target)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if profile.CA != "" {
		if cfg, err = auth.Trusting([]byte(profile.CA)); err != nil {
			return nil, settings.Exit(settings.ExitUsage, "profile %s: %v; log in again", profile.Name, err)
		}
	}
	client.Secure(cfg, profile.Token)
	return client, nil
}

func userCommand() *cli.Command {
	return &cli.Command{
		Name: "user", Category: "access", Usage: "say who may ask, and what",
		Description: "Root, central's own user and the members of the group rackpower-admin may do everything on its socket;\n" +
			"everybody else is refused what no role allows." + examples("rackpower user list", "rackpower user add alice --role operator") +
			exitHelp,
		Subcommands: []*cli.Command{{
			Name: "list", Usage: "list the users", Flags: atCentral.flags(), Action: atCentral.with(listUsers),
			Description: "With their roles, the nodes that these are for, and when their tokens were used last." + examples("rackpower user list") +
				exitHelp,
		}, {
			Name: "add", Usage: "add a user and print the token", ArgsUsage: "NAME", Action: atCentral.with(addUser),
			Description: "viewer reads; operator also turns nodes on and off, holds them and sets their status; admin may do everything.\n" +
				"With --nodes the role is for these nodes only. The token is printed once; the user gives it to rackpower login.\n" +
				"A user of the machine's own with the same name has the role on the socket of central, too." +
				examples("rackpower user add alice --role operator --nodes @rack1", "rackpower user add bob --role viewer --ttl 2160h") + exitHelp,
			Flags: atCentral.flags(
				&cli.StringFlag{Name: "role", Required: true, Usage: "`ROLE`: viewer, operator or admin"},
				&cli.StringFlag{Name: "nodes", Usage: "give the role for these `NODES` only", DefaultText: "all"},
				&cli.DurationFlag{Name: "ttl", Usage: "have the token expire after `DURATION`", DefaultText: "never"},
				&cli.BoolFlag{Name: "no-token", Usage: "make no token: the user asks on the socket of central only"},
				&cli.BoolFlag{Name: "speaks-for-others", Usage: "allow requests in the name of others, for front ends"},
				&cli.BoolFlag{Name: "update", Usage: "change the role and the nodes of a user; tokens stay"},
				reasonFlag(false)),
		}, {
			Name: "rotate", Usage: "revoke the tokens of a user and print a new one", ArgsUsage: "NAME", Action: atCentral.with(rotateToken),
			Description: "With --revoke there is no new one." + examples("rackpower user rotate alice", "rackpower user rotate alice --revoke") +
				exitHelp,
			Flags: atCentral.flags(
				&cli.DurationFlag{Name: "ttl", Usage: "have the token expire after `DURATION`", DefaultText: "never"},
				&cli.BoolFlag{Name: "revoke", Usage: "make no new token"}, reasonFlag(false)),
		}, {
			Name: "rm", Usage: "remove a user with all tokens", ArgsUsage: "NAME", Action: atCentral.with(removeUser),
			Description: "What the user asked for stays as it is." + examples("rackpower user rm alice --reason \"left\"") + exitHelp,
			Flags:       atCentral.flags(reasonFlag(false)),
		}},
	}
}

func listUsers(s *session) error {
	users, err := s.client.Users(s.ctx)
	if err != nil {
		return err
	}
	if len(users) == 0 {
		s.Say("there are no users: root, central's own user and the group rackpower-admin may ask on its socket (rackpower user add)")
	}
	return printer.Show(s.Printer, printer.Listing[api.User]{
		Head: []string{"USER", "ROLE", "NODES", "TOKEN", "USED"}, Rows: users, Name: func(u api.User) string { return u.Name },
		Cells: func(u api.User) []string {
			token, used := "none", "never"
			switch {
			case u.ExpiresAt != nil:
				token = "until " + s.Time(*u.ExpiresAt)
			case u.HasToken:
				token = "until revoked"
			}
			if u.UsedAt != nil {
				used = s.Time(*u.UsedAt)
			}
			nodes := u.Nodes
			if nodes == "" {
				nodes = "all"
			}
			return []string{u.Name, u.Role, nodes, token, used}
		},
	})
}

// userName is the one operand of the commands on a user.
func (s *session) userName() (string, error) {
	if s.c.NArg() != 1 {
		return "", settings.Usage("name one user")
	}
	return s.c.Args().First(), nil
}

func addUser(s *session) error {
	name, err := s.userName()
	if err != nil {
		return err
	}
	c := s.c
	in := api.AddUser{
		Name: name, Role: c.String("role"), Nodes: c.String("nodes"), TTL: c.Duration("ttl"), NoToken: c.Bool("no-token"),
		SpeaksForOthers: c.Bool("speaks-for-others"), Update: c.Bool("update"), AskedBy: s.askedBy(), Reason: c.String("reason"),
	}
	out, err := s.client.AddUser(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showToken(out, fmt.Sprintf("%s is %s", name, roleWords(api.User{Role: in.Role, Nodes: in.Nodes})))
}

// showToken prints the token, which is shown only this once, alone on stdout.
func (s *session) showToken(out api.NewToken, what string) error {
	if s.People() {
		s.Say("%s", what)
		if out.Token != "" {
			s.Say("the token, which is not shown again (rackpower login reads it):")
			fmt.Fprintln(s.Out, out.Token)
		}
		return nil
	}
	return printer.Show(s.Printer, printer.Listing[api.NewToken]{
		Head: []string{"USER", "TOKEN"}, Rows: []api.NewToken{out}, Name: func(t api.NewToken) string { return t.Name },
		Cells: func(t api.NewToken) []string { return []string{t.Name, t.Token} },
	})
}

func rotateToken(s *session) error {
	name, err := s.userName()
	if err != nil {
		return err
	}
	in := api.RotateToken{TTL: s.c.Duration("ttl"), RevokeOnly: s.c.Bool("revoke"), AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	out, err := s.client.RotateToken(s.ctx, name, in)
	if err != nil {
		return err
	}
	return s.showToken(out, "the tokens of "+name+" are revoked")
}

func removeUser(s *session) error {
	name, err := s.userName()
	if err != nil {
		return err
	}
	if _, err := s.client.RemoveUser(s.ctx, name, api.RemoveUser{AskedBy: s.askedBy(), Reason: s.c.String("reason")}); err != nil {
		return err
	}
	s.Say("%s is removed", name)
	return nil
}
