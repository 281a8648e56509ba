package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power/noderange"
)

// door says whom a command asks. Central and an agent's own socket speak the same
// language, so the commands are the same.
type door struct {
	who     string // "central", "agent"
	command string // what precedes the command's name: "rackpower", "rackpower local"
	flag    string // that names the address
	usage   string
	initial string
	unit    string // that systemd runs there
	hint    string // what to do when nobody answers
}

var (
	atCentral = door{
		who: "central", unit: "rackpower-central.service", command: "rackpower", flag: "central", initial: "unix:///run/rackpower/central.sock",
		usage: "`URL` of central: unix:///PATH or https://HOST:PORT",
		hint: "is rackpower-central running there? name another address with --central or RACKPOWER_CENTRAL; on a rack, rackpower local asks " +
			"its agent",
	}
	atAgent = door{
		who: "the agent", unit: "rackpower-agent.service", command: "rackpower local", flag: "socket", initial: "/run/rackpower/agent.sock",
		usage: "`PATH` of the agent's control socket",
		hint:  "is rackpower agent running there? name another socket with --socket or RACKPOWER_SOCKET",
	}
)

// wayOut is what to do when nobody answered at a target.
func (d door) wayOut(target string) string {
	path := strings.TrimPrefix(target, "unix://")
	if errors.Is(access(path, accessWrite), fs.ErrPermission) {
		return "you may not use that socket: its group (rackpower-admin) may, and root"
	}
	return d.hint
}

// accessWrite asks access(2) for the right that connecting to a socket needs.
const accessWrite = 2

// access is access(2). Tests, which root may run, put themselves here.
var access = syscall.Access

// flags are those of the address and of the output.
func (d door) flags(more ...cli.Flag) []cli.Flag {
	return append(more, append([]cli.Flag{&cli.StringFlag{Name: d.flag, Value: d.initial, Usage: d.usage}}, outputFlags()...)...)
}

// session is one command at work.
type session struct {
	c      *cli.Context
	ctx    context.Context
	door   door
	client *api.Client
	printer
}

// open makes the session of a command; nothing is sent yet.
func (d door) open(c *cli.Context) (*session, error) {
	p, err := newPrinter(c)
	if err != nil {
		return nil, err
	}
	target := c.String(d.flag)
	if d.flag == "socket" {
		target = socketURL(target)
	} else if err := settings.CheckCentral(target); err != nil {
		return nil, err
	}
	client, err := api.NewClient(target)
	if err != nil {
		return nil, settings.Usage("--%s: %v", d.flag, err)
	}
	s := &session{c: c, ctx: c.Context, door: d, client: client, printer: p}
	p.patience(client, d.who, patience)
	return s, nil
}

// patience is how long a command waits for a sign of life. Tests are more impatient.
var patience = api.DefaultPatience()

// patience has a client tell of silence.
func (p printer) patience(client *api.Client, who string, in api.Patience) {
	in.Silent = func() { p.warn("%s at %s has not answered for %s, still waiting", who, client.Target(), in.Say) }
	client.SetPatience(in)
}

// socketURL is the address of a socket whose path may begin where the process stands.
func socketURL(path string) string {
	path = strings.TrimPrefix(path, "unix://")
	if path == "" || strings.Contains(path, "://") {
		return path
	}
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return "unix://" + path
}

// with opens a session around an action.
func (d door) with(do func(*session) error) cli.ActionFunc {
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
func (d door) looking(do func(*session) error) cli.ActionFunc {
	return d.with(func(s *session) error {
		var none nothing
		err := do(s)
		if !errors.As(err, &none) {
			return err
		}
		if !s.quiet {
			s.warn("%s", term.Clean(none.Error()))
		}
		return s.showNone()
	})
}

// showNone prints an empty list.
func (s *session) showNone() error {
	return show(s.printer, listing[api.Node]{name: func(n api.Node) string { return n.Name }, cells: func(api.Node) []string { return nil }})
}

// interrupted reports whether an error is the end of the command's context. With a
// signal its cause names the signal and is no context.Canceled.
func (s *session) interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || s.ctx.Err() != nil && errors.Is(err, context.Cause(s.ctx))
}

// explain gives the errors of the API the exit statuses that they have for people.
func (s *session) explain(err error) error {
	var p *api.Problem
	switch {
	case err == nil:
		return nil
	case errors.Is(err, api.ErrSilent):
		return settings.Exit(settings.ExitUnreachable, "%s at %v; see systemctl status %s, journalctl -u %s", s.door.who, err, s.door.unit,
			s.door.unit)
	case errors.Is(err, api.ErrUnreachable):
		return settings.Exit(settings.ExitUnreachable, "%s at %v; %s", s.door.who, err, s.door.wayOut(s.c.String(s.door.flag)))
	case errors.As(err, new(nothing)):
		return settings.Exit(settings.ExitUsage, "%v", err)
	case s.interrupted(err):
		return settings.Exit(settings.ExitFailed, "interrupted")
	case !errors.As(err, &p):
		return err
	}
	code := settings.ExitFailed
	switch p.Code {
	case api.CodeBadRequest, api.CodeNotFound, api.CodeExists:
		code = settings.ExitUsage
	case api.CodeBusy, api.CodeRefused:
		code = settings.ExitRefused
	case api.CodeUnavailable:
		code = settings.ExitUnreachable
	}
	return settings.Exit(code, "%s", s.readable(p.Detail))
}

// selection is the expression that the operands are together; "" when there are none.
// An operand that is empty is an error: it may be a variable that was not set, and
// would mean every node.
func selection(operands []string) (string, error) {
	if slices.ContainsFunc(operands, func(s string) bool { return strings.TrimSpace(s) == "" }) {
		return "", settings.Usage("NODES is empty; say all if you mean every node")
	}
	return strings.Join(operands, ","), nil
}

// nothing is that no node is as an expression says: @state:unknown of a fleet all of
// which is read.
type nothing struct{ expr string }

func (n nothing) Error() string { return fmt.Sprintf("no node matches %q", n.expr) }

// nodes has the expression evaluated where the nodes are known.
func (s *session) nodes(operands []string) ([]api.Node, error) {
	expr, err := selection(operands)
	if err != nil {
		return nil, err
	}
	nodes, err := s.client.Nodes(s.ctx, cmp.Or(expr, "all"))
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 && expr != "" {
		return nil, nothing{expr}
	}
	slices.SortFunc(nodes, func(a, b api.Node) int { return noderange.Compare(a.Name, b.Name) })
	return nodes, nil
}

func namesOf(nodes []api.Node) []string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return names
}

// askedBy is who the trail will show.
func askedBy() string {
	login := ""
	if u, err := user.Current(); err == nil {
		login = u.Username
	}
	return cmp.Or(os.Getenv("RACKPOWER_ASKED_BY"), os.Getenv("SUDO_USER"), os.Getenv("USER"), login, fmt.Sprintf("uid %d", os.Getuid()))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
