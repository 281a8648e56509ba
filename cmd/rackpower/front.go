package main

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/rackpower/front"
	"rackpower/cmd/rackpower/front/powerman"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
	"rackpower/systemd"
)

// frontCommand has the doors for programs that speak another protocol than central's.
func frontCommand() *cli.Command {
	return &cli.Command{
		Name: "front", Category: "daemons and tools", Usage: "let programs that know other protocols control nodes",
		Description: "Each is a translation: what it asks central for are the requests of the command line, with\n" +
			"the identity that it was started with." +
			examples("rackpower front powerman", "powerman -q") + exitHelp,
		Subcommands: []*cli.Command{powermanCommand(), fenceCommand(), slurmCommand()},
	}
}

// doorFlags are those of every door. Nobody can be asked there: --yes has to say beforehand
// what a person would confirm.
func doorFlags() []cli.Flag {
	return append(confirmFlags(), &cli.DurationFlag{Name: "deadline", Usage: "let operations expire after `DURATION`", DefaultText: "as of the commands"})
}

func powermanCommand() *cli.Command {
	return &cli.Command{
		Name: "powerman", Usage: "answer powerman and libpowerman in place of powermand", Action: atCentral.with(servePowerman),
		Description: "powerman -q, -1, -0, -c, -r and -l work as they are, and so does what is built on libpowerman. The\n" +
			"power is read when it is asked for; success is said when it was verified, and a node that failed is named.\n" +
			"The protocol knows no identity: whoever connects acts as the one that this was started as. It listens on\n" +
			"loopback addresses only, unless --expose says otherwise; every user of this machine can connect.\n" +
			"What would have to be confirmed at the command line is refused without --yes. Until SIGTERM." +
			examples("rackpower front powerman", "rackpower front powerman --listen 127.0.0.1:10101 --profile hall1 --yes",
				"powerman -h 127.0.0.1:10101 -1 r1n[01-20]") + exitHelp,
		Flags: atCentral.flags(append(append([]cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:10101", Usage: "listen on `HOST:PORT`"},
			&cli.BoolFlag{Name: "stdin", Usage: "serve one client on stdin and stdout, as inetd and systemd start it, and do not listen"},
			&cli.BoolFlag{Name: "expose", Usage: "allow an address of --listen that other machines reach"},
			&cli.DurationFlag{Name: "read-timeout", Value: 15 * time.Second, Usage: "wait for a reading at most `DURATION`, up to 60s"},
			&cli.StringFlag{
				Name:  "server-version",
				Usage: "tell clients `VERSION`; powerman warns of one that is not its own", DefaultText: "that of rackpower",
			},
		}, doorFlags()...), settings.LogFlags()...)...),
	}
}

func servePowerman(s *session) error {
	logger, err := settings.Logger(s.c)
	if err != nil {
		return err
	}
	cfg := powerman.Config{
		Fleet: newDoor(s), Logger: logger, Wait: s.c.Duration("read-timeout"),
		Version: cmp.Or(s.c.String("server-version"), "rackpower-"+s.c.App.Version),
	}
	if len(strings.Fields(cfg.Version)) != 1 {
		return settings.Usage("--server-version: %q is not one word", cfg.Version)
	}
	if s.c.Bool("stdin") {
		return powerman.Converse(s.ctx, s.c.App.Reader, s.c.App.Writer, "on stdin", cfg)
	}
	l, err := listenHere(s.c.String("listen"), s.c.Bool("expose"))
	if err != nil {
		return err
	}
	settings.Daemon(s.ctx, logger)
	logger.Info("serving powerman", "listen", l.Addr().String(), "central", s.client.Target())
	notifier := systemd.New(logger)
	notifier.Ready()
	defer notifier.Stopping()
	return powerman.Serve(s.ctx, l, cfg)
}

// listenHere listens on an address, which only this machine reaches unless it may be exposed.
func listenHere(addr string, exposed bool) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, settings.Usage("--listen: %v", err)
	}
	if ip, ok := netip.AddrFromSlice(tcp.IP); !exposed && (!ok || !ip.Unmap().IsLoopback()) {
		return nil, settings.Usage("--listen: other machines reach %s, and nobody who connects there is known: use a loopback address, or "+
			"--expose if a firewall says who may connect", addr)
	}
	l, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, settings.Exit(settings.ExitFailed, "cannot listen on %s: %v", addr, err)
	}
	return l, nil
}

// door is central as the front ends see it.
type door struct{ s *session }

func newDoor(s *session) door {
	quiet := *s
	quiet.Quiet = true // what is beside the answer has no place in other protocols
	return door{&quiet}
}

// within is the session with the context of one request.
func (d door) within(ctx context.Context) *session {
	s := *d.s
	s.ctx, s.confirmer.ctx = ctx, ctx
	return &s
}

// Names implements front.Fleet.
func (d door) Names(ctx context.Context) ([]string, error) {
	s := d.within(ctx)
	nodes, err := s.selected("")
	return namesOf(nodes), s.explain(err)
}

// named are the nodes of these names. A name is never an expression here: "all" is no node.
func (d door) named(s *session, names []string) ([]api.Node, error) {
	names = slices.Clone(names)
	noderange.Sort(names)
	names = slices.Compact(names)
	usable := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "all" || !noderange.IsName(n) })
	if len(usable) == len(names) && len(names) > 0 {
		nodes, err := s.selected(noderange.Fold(names))
		if err == nil && slices.Equal(namesOf(nodes), names) {
			return nodes, nil
		}
		if err != nil && api.CodeOf(err) != api.CodeNotFound {
			return nil, s.explain(err)
		}
	}
	all, err := s.selected("")
	if err != nil {
		return nil, s.explain(err)
	}
	known := namesOf(all)
	return nil, front.Unknown{Names: slices.DeleteFunc(names, func(n string) bool { return slices.Contains(known, n) })}
}

// Read implements front.Fleet.
func (d door) Read(ctx context.Context, names []string, wait time.Duration) ([]front.Reading, error) {
	s := d.within(ctx)
	in := api.ReadNodes{Select: "all", Wait: min(max(wait, time.Second), time.Minute)}
	if len(names) > 0 {
		nodes, err := d.named(s, names)
		if err != nil {
			return nil, err
		}
		in.Names, in.Select = namesOf(nodes), ""
	}
	nodes, err := s.client.ReadNodes(ctx, in)
	if err != nil {
		return nil, s.explain(err)
	}
	slices.SortFunc(nodes, func(a, b api.Node) int { return noderange.Compare(a.Name, b.Name) })
	readings := make([]front.Reading, len(nodes))
	for i, n := range nodes {
		r := front.Reading{Node: n.Name, State: n.State, Why: unreadFor(n, s.Now())}
		if r.State == power.Unknown && r.Why == "" {
			r.Why = "the BMC does not say"
		}
		if r.Why != "" {
			r.State = power.Unknown
		}
		readings[i] = r
	}
	return readings, nil
}

// Operate implements front.Fleet.
func (d door) Operate(ctx context.Context, in front.Request) ([]front.Result, error) {
	s := d.within(ctx)
	o, err := requestOf(s, in.Action)
	if err != nil {
		return nil, err
	}
	o.request.Reason, o.wait, o.request.Deadline = in.Reason, waitVerified, cmp.Or(in.Deadline, o.request.Deadline)
	if in.Hand {
		o.wait = waitNone
	}
	o.timeout = cmp.Or(o.request.Deadline, in.Action.Deadline(o.request.Grace)) + waitSlack
	nodes, err := d.named(s, in.Names)
	if err != nil {
		return nil, err
	}
	if asksBefore(in.Action) && len(nodes) > 1 {
		if o.confirmed, err = s.confirmedBefore(impactOf(in.Action, nodes)); err != nil {
			return nil, s.explain(err)
		}
	}
	f, err := s.send(o, nodes)
	if err != nil {
		return nil, s.explain(s.unsure(err, nodes, false))
	}
	f.follow()
	return f.answers(), nil
}

// confirmedBefore is confirm where nobody can be asked.
func (k confirmer) confirmedBefore(im impact) (bool, error) {
	if k.c.Bool("yes") {
		return true, nil
	}
	part, ask, err := k.many(im)
	if err != nil || !ask {
		return false, err
	}
	return false, settings.Exit(settings.ExitRefused, "%d %s%s, which a person has to confirm, at the command line or beforehand "+
		"(--yes of this front end); nothing was done", len(im.nodes), im.what, part)
}

// answers are the results for a door.
func (f *following) answers() []front.Result {
	results := make([]front.Result, len(f.rows))
	for i, row := range f.rows {
		r := front.Result{Node: row.op.Node, Text: f.order.words(row.op)}
		switch {
		case row.op.Outcome != "":
			r.OK = row.op.Outcome == power.Succeeded
		case f.order.wait == waitNone:
			r.OK = true
		case f.lost != nil:
			r.Text = "not known: " + f.s.explain(f.lost).Error() + "; the operation goes on"
		default:
			r.Text += "; the operation goes on"
		}
		results[i] = r
	}
	return results
}

var _ front.Fleet = door{}
