package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
)

const profileFlagName = "profile"

func profileFlag() cli.Flag {
	return &cli.StringFlag{
		Name: profileFlagName, DefaultText: "the one in use",
		Usage: "use the `NAME`d profile of rackpower login (rackpower profile list)",
	}
}

// profileName is the profile that a command line names, or the one in use.
func profileName(c *cli.Context) string {
	return cmp.Or(c.String(profileFlagName), settings.CurrentProfile())
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
		Description: "Removes the profile from this machine. Token and certificate hold on until they expire, or an admin\n" +
			"revokes them." +
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
	profile := settings.Profile{Name: profileName(c), URL: target}
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
	name := profileName(c)
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
func connect(c *cli.Context, p printer.Printer, target string) (*api.Client, error) {
	profile, found, err := settings.LoadProfile(profileName(c))
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
	if profile.Certificate != "" {
		cert, err := tls.X509KeyPair([]byte(profile.Certificate), []byte(profile.Key))
		if err != nil {
			return nil, settings.Exit(settings.ExitUsage, "profile %s: %v; log in again", profile.Name, err)
		}
		cfg.Certificates, profile.Token = []tls.Certificate{cert}, ""
		if end := cert.Leaf.NotAfter; p.Now().After(end.Add(-expiresSoon(cert.Leaf))) && p.Now().Before(end) && c.Command.Name != "cert" {
			p.Warn("your certificate expires at %s: rackpower user cert %s renews it", p.Time(end), profile.User)
		}
	}
	client.Secure(cfg, profile.Token)
	return client, nil
}

// expiresSoon is how long before its end a certificate is to be renewed: in its last
// quarter, and in a week at most.
func expiresSoon(cert *x509.Certificate) time.Duration {
	return min(cert.NotAfter.Sub(cert.NotBefore)/4, 7*24*time.Hour)
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
			Name: "cert", Usage: "get a client certificate, to use instead of the token", ArgsUsage: "NAME", Action: atCentral.with(certifyUser),
			Description: "The key is made here and stays here. Key and certificate go to the profile of rackpower login, in the\n" +
				"place of the token, or to one file with --out, as curl reads it (curl --cert FILE). The same command\n" +
				"renews the certificate before it expires; it ends with the token that it was made with. Admins may\n" +
				"make one for another user, with --out." +
				examples("rackpower user cert alice", "rackpower user cert backup-robot --ttl 2160h --out robot.pem") + exitHelp,
			Flags: atCentral.flags(
				&cli.DurationFlag{Name: "ttl", Usage: "have it expire after `DURATION`", DefaultText: "30 days"},
				&cli.StringFlag{Name: "out", Usage: "write key and certificate to the new `FILE`, not to the profile"}, reasonFlag(false)),
		}, {
			Name: "revoke", Usage: "revoke the tokens and certificates of a user", ArgsUsage: "NAME", Action: atCentral.with(revokeUser),
			Description: "At once: what is open ends, too. The user stays; rackpower user rotate makes a new token. With --cert only\n" +
				"one certificate is revoked; rackpower user list -o wide shows the serials." +
				examples("rackpower user revoke alice --reason \"laptop stolen\"", "rackpower user revoke alice --cert 5f1c...") + exitHelp,
			Flags: atCentral.flags(&cli.StringFlag{Name: "cert", Usage: "revoke only the certificate with this `SERIAL`"}, reasonFlag(false)),
		}, {
			Name: "rotate", Usage: "revoke the credentials of a user and print a new token", ArgsUsage: "NAME", Action: atCentral.with(rotateToken),
			Description: "Tokens and certificates are revoked. With --revoke there is no new token." +
				examples("rackpower user rotate alice", "rackpower user rotate alice --revoke") +
				exitHelp,
			Flags: atCentral.flags(
				&cli.DurationFlag{Name: "ttl", Usage: "have the token expire after `DURATION`", DefaultText: "never"},
				&cli.BoolFlag{Name: "revoke", Usage: "make no new token"}, reasonFlag(false)),
		}, {
			Name: "rm", Usage: "remove a user with all tokens and certificates", ArgsUsage: "NAME", Action: atCentral.with(removeUser),
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
		Head: []string{"USER", "ROLE", "NODES", "TOKEN", "USED", "CERT"}, Rows: users, Name: func(u api.User) string { return u.Name },
		Cells: func(u api.User) []string {
			token, used := "none", "never"
			switch {
			case u.ExpiresAt != nil:
				token = "until " + s.day(*u.ExpiresAt)
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
			cert := "none"
			for _, c := range u.Certificates { // the last one ends last
				cert = "until " + s.day(c.NotAfter)
				if c.UsedAt != nil && (u.UsedAt == nil || c.UsedAt.After(*u.UsedAt)) {
					used = s.Time(*c.UsedAt)
				}
			}
			return []string{u.Name, u.Role, nodes, token, used, cert}
		},
		WideHead: []string{"SERIALS"},
		WideCells: func(u api.User) []string {
			var serials []string
			for _, c := range u.Certificates {
				serials = append(serials, c.Serial)
			}
			return []string{strings.Join(serials, ",")}
		},
	})
}

// day is the day of a time.
func (v view) day(at time.Time) string {
	day, _, _ := strings.Cut(v.Time(at), " ")
	return day
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

// certifyUser makes a key, has central sign it, and keeps both.
func certifyUser(s *session) error {
	name, err := s.userName()
	if err != nil {
		return err
	}
	out := s.c.String("out")
	profile, found, err := settings.LoadProfile(profileName(s.c))
	switch {
	case err != nil:
		return err
	case out == "" && (!found || profile.URL != s.client.Target()):
		return settings.Usage("nobody is logged in here to keep it for: rackpower login, or --out FILE")
	case out == "" && profile.User != name:
		return settings.Usage("profile %s is %s's: --out FILE for another user", profile.Name, profile.User)
	}
	if out != "" {
		if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
			return settings.Usage("--out: %s exists", out)
		}
	}
	key, err := auth.NewKey()
	if err != nil {
		return err
	}
	signer, err := auth.ParseKey(key)
	if err != nil {
		return err
	}
	request, err := auth.NewRequest(signer, name)
	if err != nil {
		return err
	}
	cert, err := s.client.CertifyUser(s.ctx, name, api.CertifyUser{
		Request: string(request), TTL: s.c.Duration("ttl"), AskedBy: s.askedBy(), Reason: s.c.String("reason"),
	})
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair([]byte(cert.Certificate), key); err != nil {
		return settings.Exit(settings.ExitFailed, "central gave another certificate: %v", err)
	}
	path := out
	if out != "" {
		err = auth.WriteFile(out, append(key, cert.Certificate...), 0o600)
	} else {
		profile.Certificate, profile.Key, profile.Token = cert.Certificate, string(key), ""
		path, err = profile.Save()
	}
	if err != nil {
		return settings.Exit(settings.ExitFailed, "%v", err)
	}
	if s.People() {
		s.Say("%s has a certificate until %s, kept in %s", name, s.Time(cert.NotAfter), path)
		return nil
	}
	return printer.Show(s.Printer, printer.Listing[api.UserCertificate]{
		Head: []string{"USER", "SERIAL", "UNTIL"}, Rows: []api.UserCertificate{cert}, Name: func(c api.UserCertificate) string { return c.User },
		Cells: func(c api.UserCertificate) []string { return []string{c.User, c.Serial, s.Time(c.NotAfter)} },
	})
}

func revokeUser(s *session) error {
	name, err := s.userName()
	if err != nil {
		return err
	}
	serial := s.c.String("cert")
	in := api.RotateToken{RevokeOnly: true, Certificate: serial, AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	if _, err = s.client.RotateToken(s.ctx, name, in); err != nil {
		return err
	}
	if serial != "" {
		s.Say("certificate %s of %s is revoked", serial, name)
		return nil
	}
	s.Say("the tokens and certificates of %s are revoked", name)
	return nil
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
	return s.showToken(out, "the tokens and certificates of "+name+" are revoked")
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
