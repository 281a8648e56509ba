package main

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
)

// server is what a command asks. Central and an agent's own socket have the same
// API, so the commands are the same.
type server struct {
	who     string // "central", "agent"
	command string // what precedes the command's name: "rackpower", "rackpower local"
	flag    string // that names the address
	usage   string
	initial string
	unit    string // that systemd runs there
	hint    string // what to do when nobody answers
}

var (
	atCentral = server{
		who: "central", unit: "rackpower-central.service", command: facts.AtCentral, flag: "central",
		initial: "unix:///run/rackpower/central.sock",
		usage:   "`URL` of central: unix:///PATH or https://HOST:PORT, or several of the latter, separated by commas",
		hint: "is rackpower-central running there? name another address with --central or RACKPOWER_CENTRAL; on a rack, rackpower local asks " +
			"its agent",
	}
	atAgent = server{
		who: "the agent", unit: "rackpower-agent.service", command: facts.AtAgent, flag: "socket", initial: "/run/rackpower/agent.sock",
		usage: "`PATH` of the agent's control socket",
		hint:  "is rackpower agent running there? name another socket with --socket or RACKPOWER_SOCKET",
	}
)

// wayOut is what to do when nobody answered at a target.
func (d server) wayOut(target string) string {
	path := strings.TrimPrefix(target, "unix://")
	if errors.Is(access(path, accessWrite), fs.ErrPermission) {
		return "you may not use that socket: its group (rackpower-admin) may, and root"
	}
	return d.hint
}

// accessWrite asks access(2) for the right that connecting to a socket needs.
const accessWrite = 2

// access is access(2). Tests replace it, because root may use every socket.
var access = syscall.Access

// flags are those of the address and of the output.
func (d server) flags(more ...cli.Flag) []cli.Flag {
	own := []cli.Flag{&cli.StringFlag{Name: d.flag, Value: d.initial, Usage: d.usage}}
	if d.flag == "central" {
		own = append(own, profileFlag())
	}
	return append(more, append(own, outputFlags()...)...)
}

// open makes the session of a command; nothing is sent yet.
func (d server) open(c *cli.Context) (*session, error) {
	p, err := newPrinter(c)
	if err != nil {
		return nil, err
	}
	target := c.String(d.flag)
	var client *api.Client
	if d.flag == "socket" {
		if client, err = api.NewClient(settings.SocketURL(target)); err != nil {
			err = settings.Usage("--socket: %v", err)
		}
	} else {
		client, err = connect(c, p, target)
	}
	if err != nil {
		return nil, err
	}
	k := connection{c: c, ctx: c.Context, server: d, client: client}
	tellSilence(p, client, d.who, patience)
	return &session{connection: k, confirmer: confirmer{k, p.Err}, view: view{p}}, nil
}

// with opens a session around an action.
func (d server) with(do func(*session) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		s, err := d.open(c)
		if err != nil {
			return err
		}
		defer s.client.Close()
		return s.explain(do(s))
	}
}

// looking is with for commands that only look: where no node is as the expression says,
// programs get an empty list and people a line on stderr, and that is no failure. What
// acts on nodes needs some.
func (d server) looking(do func(*session) error) cli.ActionFunc {
	return d.with(func(s *session) error {
		var none nothing
		err := do(s)
		if !errors.As(err, &none) {
			return err
		}
		if !s.Quiet {
			s.Warn("%s", term.Clean(none.Error()))
		}
		return s.showNone()
	})
}
