package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

func agentsCommand() *cli.Command {
	list := &cli.Command{
		Name: "list", Usage: "list the agents", Flags: atCentral.flags(), Action: atCentral.with(listAgents),
		Description: "Shows when central last heard from each, what it has not taken yet, and what stops its monitor.\n" +
			"Alarms are shown with the command that helps." + examples("rackpower agents", "rackpower agents list -o json") + exitHelp,
	}
	return &cli.Command{
		Name: "agents", Category: "look", Usage: "list the agents, acknowledge their alarms, drain or remove agents", Action: list.Action,
		Description: "Without a subcommand it lists them." + examples("rackpower agents", "rackpower agents ack r1 --reason \"disk replaced\"") +
			exitHelp,
		Subcommands: []*cli.Command{list, {
			Name: "token", Usage: "print a token that enrols an agent once", ArgsUsage: "AGENT", Action: atCentral.with(agentToken),
			Description: "Write the line to a file of the rack's machine and start the agent there with --token-file FILE. The agent gets a\n" +
				"certificate for 30 days, which it renews by itself. A token before it that was not used holds no longer." +
				examples("rackpower agents token r1 > r1.token", "rackpower agents token r1 --ttl 1h") + exitHelp,
			Flags: atCentral.flags(&cli.DurationFlag{Name: "ttl", Usage: "have the token expire after `DURATION`", DefaultText: "15m"}),
		}, {
			Name: "revoke", Usage: "have the certificate of an agent hold no longer", ArgsUsage: "AGENT", Action: atCentral.with(revokeAgent),
			Description: "Its connection ends at once. It goes on enforcing what it was assigned last, and its nodes stay with it, until\n" +
				"it is enrolled again (agents token) or forgotten (agents forget)." +
				examples("rackpower agents revoke r1 --reason \"the machine was stolen\"") + exitHelp,
			Flags: atCentral.flags(reasonFlag(true)),
		}, {
			Name: "ack", Usage: "acknowledge alarms of an agent", ArgsUsage: "AGENT", Action: atCentral.with(ackAlarm),
			Description: "What the alarm blocks then continues; the alarm says what that is. An alarm whose\n" +
				"cause persists comes back." +
				examples("rackpower agents ack r1 --kind journal-damaged --reason \"disk replaced, nodes looked at\"") + exitHelp,
			Flags: atCentral.flags(kindFlag(), reasonFlag(true)),
		}, {
			Name: "drain", Usage: "have other agents take the nodes of an agent, for maintenance", ArgsUsage: "AGENT",
			Action: atCentral.with(drainAgent),
			Description: "Nodes that others can reach (node add --agents) go to them, each once nothing is under way on it. Those that only\n" +
				"this agent can reach stay and are named. It is given no node again until rackpower agents resume." +
				examples("rackpower agents drain r1 --reason \"new disk\"", "rackpower agents resume r1") + exitHelp,
			Flags: atCentral.flags(reasonFlag(true)),
		}, {
			Name: "resume", Usage: "give a drained agent nodes again", ArgsUsage: "AGENT", Action: atCentral.with(resumeAgent),
			Description: "Nodes that prefer it come back when it has been in touch for 5 minutes." +
				examples("rackpower agents resume r1") + exitHelp,
			Flags: atCentral.flags(reasonFlag(false)),
		}, {
			Name: "forget", Usage: "remove an agent that does not come back", ArgsUsage: "AGENT",
			Action: atCentral.with(forgetAgent),
			Description: "Nodes that others can reach go to them, with what is outstanding, when its lease has run out. Operations of the\n" +
				"other nodes that it had end as indeterminate, those that it never had as cancelled; these nodes stay known and are\n" +
				"assigned to nobody: give them another rack (node add --update), or remove them. An agent that is alive is refused;\n" +
				"one that comes back is told that it has no node." + examples("rackpower agents forget r9 --reason \"a typing mistake\"") +
				exitHelp,
			Flags: atCentral.flags(reasonFlag(true), yesFlag()),
		}},
	}
}

func kindFlag() cli.Flag {
	return &cli.StringFlag{Name: "kind", Usage: "only the alarm of this `KIND`, as listed by rackpower agents"}
}

func localAckCommand() *cli.Command {
	return &cli.Command{
		Name: "ack", Category: "monitor", Usage: "acknowledge alarms of this rack's agent", ArgsUsage: "[KIND]",
		Action: atAgent.with(ackOwnAlarm),
		Description: "All alarms, or that of one KIND. What the alarm blocks then continues." +
			examples("rackpower local status", "rackpower local ack journal-damaged") + exitHelp,
		Flags: atAgent.flags(reasonFlag(false)),
	}
}

func listAgents(s *session) error {
	agents, err := s.client.Agents(s.ctx)
	if err != nil {
		return err
	}
	if len(agents) == 0 {
		s.Say("no agents are known yet")
	}
	if err := printer.Show(s.Printer, s.agentListing(agents)); err != nil || s.Quiet || !s.People() {
		return err
	}
	byKind, words := map[string][]string{}, map[string]string{}
	for _, a := range agents {
		for _, alarm := range a.Alarms {
			byKind[alarm.Kind] = append(byKind[alarm.Kind], a.Name)
			words[a.Name+" "+alarm.Kind] = fmt.Sprintf("since %s: %s", s.Since(alarm.Since), facts.Alarm(alarm))
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		s.WarnEach(byKind[kind], "agents %s: alarm "+term.Clean(kind)+": rackpower agents -o json has each", func(name string) {
			s.Warn("agent %s, %s", term.Clean(name), term.Clean(words[name+" "+kind]))
		})
	}
	return nil
}

// agentName is the one operand of the commands on an agent.
func (s *session) agentName() (string, error) {
	if s.c.NArg() != 1 {
		return "", settings.Usage("name one agent")
	}
	return s.c.Args().First(), nil
}

// agentToken prints the token alone on stdout, to be redirected into a file.
func agentToken(s *session) error {
	name, err := s.agentName()
	if err != nil {
		return err
	}
	out, err := s.client.AgentToken(s.ctx, name, api.MakeAgentToken{TTL: s.c.Duration("ttl"), AskedBy: s.askedBy()})
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, printer.Listing[api.AgentToken]{
			Rows: []api.AgentToken{out},
			Name: func(t api.AgentToken) string { return t.Token },
		})
	}
	fmt.Fprintln(s.Out, out.Token)
	if !s.Quiet {
		s.Warn("agent %s may enrol with it once, until %s: rackpower agent --name %s --token-file FILE", name, s.Time(out.ExpiresAt), name)
	}
	return nil
}

func revokeAgent(s *session) error {
	name, err := s.agentName()
	if err != nil {
		return err
	}
	reason, err := s.reason()
	if err != nil {
		return err
	}
	if _, err := s.client.RevokeAgent(s.ctx, name, api.RevokeAgent{AskedBy: s.askedBy(), Reason: reason}); err != nil {
		return err
	}
	s.Say("the certificate of agent %s holds no longer", name)
	return nil
}

// forgetAgent asks when nodes lose their agent.
func forgetAgent(s *session) error {
	in, name := api.ForgetAgent{AskedBy: s.askedBy()}, s.c.Args().First()
	var err error
	if in.Reason, err = s.reason(); err != nil {
		return err
	}
	agents, err := s.client.Agents(s.ctx)
	if err != nil {
		return err
	}
	for _, a := range agents {
		if a.Name != name || a.Nodes == 0 || s.c.Bool("yes") {
			continue
		}
		if _, err := s.question(fmt.Sprintf("%s will be assigned to no agent, and %s ended", power.Count(a.Nodes, "node"),
			power.Count(a.Outstanding, "operation"))); err != nil {
			return err
		}
	}
	gone, err := s.client.ForgetAgent(s.ctx, name, in)
	if err != nil {
		return err
	}
	if s.People() && !s.Quiet {
		s.Say("agent %s forgotten: %s ended, %s assigned to nobody%s", term.Clean(name), power.Count(gone.Ended, "operation"),
			power.Count(len(gone.Nodes), "node"), nodesBehind(gone.Nodes))
		if len(gone.Given) > 0 {
			s.Say("%s given to other agents%s", power.Count(len(gone.Given), "node"), nodesBehind(gone.Given))
		}
		return nil
	}
	return printer.Show(s.Printer, printer.Listing[api.ForgottenAgent]{
		Rows: []api.ForgottenAgent{gone},
		Name: func(a api.ForgottenAgent) string { return a.Name },
	})
}

func drainAgent(s *session) error {
	name, err := s.agentName()
	if err != nil {
		return err
	}
	reason, err := s.reason()
	if err != nil {
		return err
	}
	out, err := s.client.DrainAgent(s.ctx, name, api.DrainAgent{Reason: reason, AskedBy: s.askedBy()})
	if err != nil {
		return err
	}
	if s.People() && !s.Quiet {
		s.Say("agent %s is drained: %s to other agents%s", term.Clean(name), power.Count(len(out.Moving), "node"), nodesBehind(out.Moving))
		if len(out.Staying) > 0 {
			s.Warn("%s no other agent can take now: %s", power.Count(len(out.Staying), "node"), noderange.Fold(out.Staying))
		}
		return nil
	}
	return printer.Show(s.Printer, printer.Listing[api.DrainedAgent]{
		Rows: []api.DrainedAgent{out}, Name: func(a api.DrainedAgent) string { return a.Name },
	})
}

func resumeAgent(s *session) error {
	name, err := s.agentName()
	if err != nil {
		return err
	}
	in := api.DrainAgent{Resume: true, Reason: s.c.String("reason"), AskedBy: s.askedBy()}
	if _, err := s.client.DrainAgent(s.ctx, name, in); err != nil {
		return err
	}
	s.Say("agent %s is given nodes again", term.Clean(name))
	return nil
}

func nodesBehind(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (" + noderange.Fold(names) + ")"
}

func ackAlarm(s *session) error {
	in := api.AckAlarm{Kind: s.c.String("kind"), AskedBy: s.askedBy()}
	var err error
	if in.Reason, err = s.reason(); err != nil {
		return err
	}
	acked, err := s.client.AckAlarm(s.ctx, s.c.Args().First(), in)
	if err != nil {
		return err
	}
	return s.showAcked(acked)
}

func ackOwnAlarm(s *session) error {
	acked, err := s.client.AckOwnAlarm(s.ctx, api.AckAlarm{Kind: s.c.Args().First(), AskedBy: s.askedBy(), Reason: s.c.String("reason")})
	if err != nil {
		return err
	}
	return s.showAcked(acked)
}

func (v view) showAcked(acked []api.Alarm) error {
	if !v.People() || v.Quiet {
		return printer.Show(v.Printer, printer.Listing[api.Alarm]{Rows: acked, Name: func(a api.Alarm) string { return a.Kind }})
	}
	for _, a := range acked {
		v.Say("acknowledged %s: %s", term.Clean(a.Kind), term.Clean(a.Message))
	}
	return nil
}

func (v view) agentListing(agents []api.Agent) printer.Listing[api.Agent] {
	return printer.Listing[api.Agent]{
		Rows: agents, Name: func(a api.Agent) string { return a.Name },
		Head: []string{"AGENT", "STATE", "SEEN", "NODES", "OUTSTANDING", "TAKEN", "MONITOR", "VERSION", "ADDRESS", "ALARM"},
		Cells: func(a api.Agent) []string {
			seen, alarm := cmp.Or(v.Age(a.SeenAt), "never"), a.Alarm
			if v.Format == "table" {
				alarm = term.Shorten(alarm, 60)
			}
			return []string{
				a.Name, agentState(a), seen, nodesCell(a), fmt.Sprint(a.Outstanding), fmt.Sprint(a.Taken), v.monitorCell(a.Rack),
				a.Version, a.Address, alarm,
			}
		},
		WideHead: []string{"REV", "HAS", "JOURNAL", "EPOCH", "LSN", "CERTIFICATE", "LEASE UNTIL"},
		WideCells: func(a api.Agent) []string {
			return []string{
				fmt.Sprint(a.Rev), fmt.Sprint(a.RevSeen), a.JournalID, fmt.Sprint(a.Epoch), fmt.Sprint(a.LSN),
				v.certificateCell(a.Certificate), v.leaseCell(a),
			}
		},
	}
}

// agentState is whether an agent is there, and that it is drained.
func agentState(a api.Agent) string {
	if a.Drained != nil {
		return string(a.State) + ", drained"
	}
	return string(a.State)
}

// nodesCell is how many nodes an agent has, and how many of them under a lease.
func nodesCell(a api.Agent) string {
	if a.Leased > 0 {
		return fmt.Sprintf("%d (%d leased)", a.Nodes, a.Leased)
	}
	return fmt.Sprint(a.Nodes)
}

func (v view) leaseCell(a api.Agent) string {
	switch {
	case a.Leased == 0:
		return ""
	case a.LeaseUntil.IsZero():
		return "none"
	}
	return v.Time(a.LeaseUntil)
}

func (v view) certificateCell(c *api.AgentCertificate) string {
	switch {
	case c == nil:
		return "socket"
	case c.RevokedAt != nil:
		return "revoked " + v.Time(*c.RevokedAt)
	case c.NotAfter != nil:
		return "until " + v.Time(*c.NotAfter)
	default:
		return "not enrolled yet"
	}
}
