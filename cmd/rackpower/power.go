package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
)

// What a power command waits for.
const (
	waitVerified = "verified" // its outcome
	waitAccepted = "accepted" // the agent's word on it
	waitNone     = "none"     // that it is taken
)

var actionUsage = map[power.Action]string{
	power.ActOn:       "turn nodes on",
	power.ActOff:      "turn nodes off, hard",
	power.ActSoftOff:  "shut down the operating system; turn nodes off hard after --grace",
	power.ActCycle:    "turn nodes off, verify that, and turn them on",
	power.ActReset:    "reset nodes that are on, hard, without cutting power",
	power.ActDiag:     "send a diagnostic interrupt (NMI) to nodes that are on",
	power.ActBMCReset: "restart the BMCs; the nodes keep running",
}

// powerCommand makes the command of an action.
func powerCommand(action power.Action, d server) *cli.Command {
	flags := append(waitFlags(waitDefault(action)), requestFlags(action)...)
	flags = append(flags, &cli.BoolFlag{Name: "dry-run", Usage: "show what would happen, do nothing"})
	if asksBefore(action) {
		flags = append(flags, confirmFlags()...)
	} else {
		flags = append(flags, yesFlag())
	}
	name := d.command + " " + string(action)
	return &cli.Command{
		Name: string(action), Usage: actionUsage[action], ArgsUsage: "NODES...", Category: "power", Flags: d.flags(flags...),
		Description: verbDescription(action) + nodesHelp +
			examples(name+" r1n[01-40]", name+" @rack1 '!r1n07' --reason \"feed B\" --yes", name+" r1n01 --wait accepted -o json") + exitHelp,
		Action: d.with(func(s *session) error { return operate(s, action) }),
	}
}

// waitFlags say how long a command waits for operations.
func waitFlags(byDefault string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "wait", Value: waitVerified,
			Usage: "wait for this `CONDITION`: verified (the power was read), accepted (by the agent), none (central has the request)",
		},
		&cli.DurationFlag{
			Name: "timeout", Usage: "wait at most `DURATION`; the operations continue after that",
			DefaultText: byDefault,
		},
	}
}

// requestFlags say what is asked for, beside the action.
func requestFlags(action power.Action) []cli.Flag {
	flags := []cli.Flag{
		&cli.DurationFlag{
			Name: "deadline", Usage: "let operations expire after `DURATION`",
			DefaultText: waitDefault(action),
		},
		&cli.StringFlag{
			Name: "if-busy", Value: string(power.Supersede),
			Usage: "`POLICY` for nodes with another outstanding operation: supersede, queue or refuse",
		},
		reasonFlag(false),
	}
	if action.Final() != power.Unknown {
		flags = append(flags,
			&cli.BoolFlag{Name: "hold", Usage: "also hold the nodes " + string(action.Final()) + ", overriding their status"},
			lastingFlag("hold-for", "until released"),
		)
	}
	if action.Boots() {
		flags = append(flags, &cli.StringFlag{Name: "boot", Usage: "boot once from `DEVICE`: pxe, disk, cdrom, bios"})
	}
	if action == power.ActSoftOff {
		flags = append(flags,
			&cli.DurationFlag{Name: "grace", Value: power.DefaultGrace, Usage: "turn nodes off hard that are not off after `DURATION`"},
			&cli.BoolFlag{Name: "no-escalate", Usage: "do not turn nodes off hard"},
		)
	}
	return flags
}

func verbDescription(action power.Action) string {
	text := "Each node gets one operation. It joins, follows or supersedes what is outstanding on the node,\n" +
		"and the answer says so. --timeout bounds the waiting only: rackpower op show ID shows the outcome."
	if action.Final() != power.Unknown {
		text += "\nA request against the desired state is refused, because the monitor would undo it; --hold overrides the status."
	}
	switch {
	case action.CutsPower():
		text += asksFirst
	case asksBefore(action):
		text += strings.Replace(asksFirst, "lose power", "be concerned", 1)
	}
	return text
}

// asksBefore reports whether the action does something to many nodes that has to be
// confirmed.
func asksBefore(action power.Action) bool { return action != power.ActOn }

func waitDefault(action power.Action) string {
	if action == power.ActSoftOff {
		return "--grace plus 5m, at least 15m"
	}
	return strings.TrimSuffix(action.Deadline(0).String(), "0s")
}

// order is a power command as asked for.
type order struct {
	action    power.Action
	wait      string
	timeout   time.Duration
	dryRun    bool
	confirmed bool
	request   api.OpRequest // what is the same for all nodes
	held      string        // "held on until released"; empty: without a hold
}

// waitSlack lets an operation's own deadline be seen before the waiting ends.
const waitSlack = 5 * time.Second

func orderOf(s *session, action power.Action) (order, error) {
	c := s.c
	o, err := requestOf(s, action)
	if err != nil {
		return o, err
	}
	o.dryRun, o.confirmed = c.Bool("dry-run"), c.Bool("yes")
	if o.wait, err = waitOf(s); err != nil {
		return o, err
	}
	switch {
	case c.IsSet("timeout"):
		o.timeout = c.Duration("timeout")
	case o.request.Deadline > 0:
		o.timeout = o.request.Deadline + waitSlack
	default:
		o.timeout = action.Deadline(o.request.Grace) + waitSlack
	}
	return o, nil
}

func waitOf(s *session) (string, error) {
	wait := s.c.String("wait")
	if !slices.Contains([]string{waitVerified, waitAccepted, waitNone}, wait) {
		return "", settings.Usage("--wait: unknown %q: want %s, %s or %s", wait, waitVerified, waitAccepted, waitNone)
	}
	return wait, nil
}

// requestOf reads what requestFlags say.
func requestOf(s *session, action power.Action) (order, error) {
	c, o := s.c, order{action: action}
	o.request = api.OpRequest{
		Action: action, Options: power.Options{IfBusy: power.IfBusy(c.String("if-busy")), Boot: power.BootDevice(c.String("boot"))},
		NoEscalate: c.Bool("no-escalate"),
		Deadline:   c.Duration("deadline"), Reason: c.String("reason"), AskedBy: s.askedBy(),
	}
	if action == power.ActSoftOff {
		o.request.Grace = c.Duration("grace")
	}
	if err := orderHold(s, &o); err != nil {
		return o, err
	}
	op := power.Op{
		ID: "-", Node: "-", Action: action, Options: o.request.Options, NoEscalate: o.request.NoEscalate,
	}
	if err := op.Validate(); err != nil {
		return o, settings.Usage("%v", err)
	}
	return o, nil
}

// requests makes the requests of an order.
func (o order) requests(nodes []api.Node) []api.OpRequest {
	reqs := make([]api.OpRequest, len(nodes))
	for i, n := range nodes {
		reqs[i] = o.request
		reqs[i].Node, reqs[i].Confirmed = n.Name, o.confirmed
		reqs[i].ID = uuid.Must(uuid.NewV7()).String()
	}
	return reqs
}

// orderHold adds what --hold and --hold-for say.
func orderHold(s *session, o *order) error {
	var err error
	o.request.Hold = s.c.Bool("hold")
	if o.request.HoldFor, err = s.lasting("hold-for"); err != nil {
		return err
	}
	if s.c.IsSet("hold-for") && !o.request.Hold {
		return settings.Usage("--hold-for needs --hold")
	}
	if o.request.Hold {
		o.held = fmt.Sprintf("held %s %s", o.action.Final(), s.UntilOr(s.After(o.request.HoldFor), "released"))
	}
	return nil
}

// operate carries out a power command from its selection to its last line.
func operate(s *session, action power.Action) error {
	o, err := orderOf(s, action)
	if err != nil {
		return err
	}
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if asksBefore(action) && !o.dryRun {
		if o.confirmed, err = s.confirm(impactOf(action, nodes)); err != nil {
			return err
		}
	}
	return carryOut(s, o, nodes)
}

// carryOut asks for an order on nodes, and follows it to its last line.
func carryOut(s *session, o order, nodes []api.Node) error {
	f, err := s.send(o, nodes)
	if api.CodeOf(err) == api.CodeAwaiting {
		p, err := s.awaitApproval(err, o.wait, o.timeout)
		if err != nil {
			return err
		}
		return s.followed(o, p.Ops)
	}
	if err != nil {
		return s.unsure(err, nodes, o.dryRun)
	}
	if o.dryRun {
		return f.tellDryRun()
	}
	interrupted := f.follow()
	return f.finish(interrupted)
}

// send asks for an order on nodes, which can be followed then.
func (s *session) send(o order, nodes []api.Node) (*following, error) {
	reqs, began := o.requests(nodes), s.Now()
	ops, err := s.ask(api.AskOps{Ops: reqs, DryRun: o.dryRun})
	if err == nil && len(ops) != len(reqs) {
		err = fmt.Errorf("%s answered %d of %d requests", s.server.who, len(ops), len(reqs))
	}
	if err != nil {
		return nil, err
	}
	return newFollowing(s, o, ops, began), nil
}

// followed waits for operations that were asked for later, by an approval or a plan.
func (s *session) followed(o order, ops []api.Op) error {
	f := newFollowing(s, o, ops, s.Now())
	return f.finish(f.follow())
}
