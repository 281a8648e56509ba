package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

func nodeCommand() *cli.Command {
	return &cli.Command{
		Name: "node", Category: "nodes", Usage: "add, change, show or remove nodes",
		Description: "Central keeps the rack, the BMC and the life-cycle status of each node." +
			examples("rackpower node import racks.yaml", "rackpower node show r1n01") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a node, or change one", ArgsUsage: "NAME", Action: atCentral.with(addNode),
				Description: "The password is read from a file, or from stdin with \"-\" (on a terminal without echo), never from the command line.\n" +
					"Options of the BMC's address, joined by &: suite=3|17; target=0x30, the IPMB address of this node in a chassis whose BMC\n" +
					"serves several (channel=0); level=user|operator|administrator, the privilege that sessions ask for; boot=legacy|efi, how\n" +
					"boot devices are booted; kg-file=FILE, as --kg-file. A node has a BMC, or part of one, for itself.\n" +
					"Redfish: redfish://USER@HOST[:PORT]/[SYSTEM]; without SYSTEM the only one that can be reset. Its options:\n" +
					"pin=first (--trust-first) trusts the public key that the BMC shows first, pin=sha256:HASH that one; without, its\n" +
					"certificate must be of an authority that the agent trusts. tls=1.2 allows TLS 1.2; auth=basic needs no session; boot=legacy|efi.\n" +
					"redfish+http:// is without TLS, for laboratories.\n" +
					"auto://USER@HOST has the rack's agent find out, at the usual ports: Redfish where the BMC has a System that can be\n" +
					"reset, else IPMI. The node's address becomes what was found (rackpower node show); until then nothing is sent to it.\n" +
					"exec:PROGRAM?KEY=VALUE has the rack's agent run a program, such as a fence agent of ClusterLabs, from the directory that\n" +
					"it was started with (rackpower agent --exec-dir): on, off, cycle and status. Keys: username, ip, ipport, plug, lanplus,\n" +
					"cipher, privlvl, ssl, ssl_secure, ssl_insecure, snmp_version, login_timeout, shell_timeout, power_timeout, power_wait." +
					examples("rackpower node add r1n01 --rack r1 --bmc ipmi://admin@10.0.1.1 --password-file bmc.password",
						"rackpower node add r1n02 --rack r1 --bmc 'redfish://admin@10.0.1.2?pin=first' --password-file bmc.password",
						"rackpower node add r1n03 --rack r1 --bmc 'exec:fence_apc_snmp?ip=10.0.1.9&plug=3&username=rp' --password-file pdu.password",
						"rackpower node add r1n01 --rack r1 --status READY --update",
						"rackpower node add r1n01a --rack r1 --bmc 'ipmi://admin@10.0.1.1?target=0x30' --password-file bmc.password") + exitHelp,
				Flags: atCentral.flags(append(confirmFlags(),
					&cli.StringFlag{Name: "rack", Required: true, Usage: "`NAME` of the rack; the rack's agent controls the node"},
					agentsFlag("the node; \"\": as the rack says (rackpower rack set --agents)"),
					&cli.StringFlag{Name: "bmc", Usage: "`URL` of the BMC: ipmi://USER@HOST[:PORT][?OPTIONS] or " +
						"redfish://USER@HOST[:PORT]/[SYSTEM][?OPTIONS], auto://USER@HOST or exec:PROGRAM[?OPTIONS]"},
					&cli.StringFlag{Name: "password-file", Usage: "read the BMC's password from the first line of `FILE`; -: from stdin"},
					&cli.StringFlag{Name: "kg-file", Usage: "read the BMC's key K_g from the first line of `FILE`: text, or 0x and " +
						"hexadecimal digits; only for BMCs with two-key logins"},
					&cli.StringFlag{Name: "credentials", Usage: "`NAME` of the credentials to use instead of a password (rackpower credentials)"},
					&cli.StringFlag{Name: "domain", Usage: "`NAME` of the power domain, such as a feed or PDU"},
					&cli.StringFlag{Name: "status", Usage: "life-cycle `STATUS` of the node; rackpower node set-status --help lists them"},
					&cli.BoolFlag{Name: "update", Usage: "change the node if it exists; flags that are not given keep their value, \"\" removes one"},
					labelFlag(),
					trustFirstFlag(", log in once and show it; so it is on a terminal unless =false"),
					forceFlag(),
				)...),
			},
			nodeSetCommand(), nodeListCommand(),
			{
				Name: "import", Usage: "add nodes from a file, all or none", ArgsUsage: "FILE|-", Action: atCentral.with(importNodes),
				Description: "YAML or JSON: a list of nodes; CSV: a line each, the first names the columns.\n" +
					"Fields: name, rack, bmc, password or password_file (relative to this file), kg or kg_file, credentials (a name),\n" +
					"domain, labels, status, protected (why its power must not be taken away), agents (that can reach it, the preferred\n" +
					"one first).\n" +
					"With --update, a field that YAML or JSON gives as \"\" is removed. To move more than one node to another rack\n" +
					"needs a confirmation." +
					examples("rackpower node import racks.yaml --dry-run", "rackpower node export -o csv | rackpower node import - --update") + exitHelp,
				Flags: atCentral.flags(append(confirmFlags(),
					&cli.BoolFlag{Name: "update", Usage: "change nodes that exist; fields that are not given keep their value"},
					trustFirstFlag(""),
					forceFlag(),
					&cli.BoolFlag{Name: "dry-run", Usage: "check everything, change nothing"},
				)...),
			},
			{
				Name: "export", Usage: "print all nodes in the format of import, without passwords", Action: exportNodes,
				Description: "YAML unless -o says json, jsonl or csv." + examples("rackpower node export > racks.yaml",
					"rackpower node export -o csv") + exitHelp,
				Flags: atCentral.flags(),
			},
			{
				Name: "rm", Usage: "remove nodes", ArgsUsage: "NODES...", Action: atCentral.with(removeNodes),
				Flags: atCentral.flags(reasonFlag(false), &cli.BoolFlag{
					Name: "yes", Aliases: []string{"y"},
					Usage: "do not ask for confirmation",
				}),
				Description: "Their power does not change. Nodes with an outstanding operation are refused. It asks before it removes\n" +
					"more than one; without a terminal it needs --yes then." + nodesHelp + examples("rackpower node rm r1n[01-04]") + exitHelp,
			},
			protectCommand("protect"), protectCommand("unprotect"),
			testCommand("node test"), retryCommand(atCentral),
			{
				Name: "show", Usage: "show the details of nodes", ArgsUsage: "NODES...", Action: atCentral.looking(showNode),
				Description: examples("rackpower node show r1n01")[2:] + exitHelp,
				Flags:       atCentral.flags(),
			},
			{
				Name: "set-status", Usage: "set the life-cycle status of nodes, which determines their desired power", ArgsUsage: "NODES... STATUS",
				Action: atCentral.with(setStatus),
				Description: asksFirst[1:] + "\n\nSTATUS\n" + statusHelp() + nodesHelp +
					examples("rackpower node set-status r1n[01-40] DEPLOYING --reason \"order 4711\"") + exitHelp,
				Flags: atCentral.flags(append(confirmFlags(), reasonFlag(false))...),
			},
		},
	}
}

// statusHelp lists the statuses with what they want.
func statusHelp() string {
	by := map[string][]string{}
	for _, s := range power.Statuses() {
		want := string(s.Desired().Want)
		by[want] = append(by[want], string(s))
	}
	text := ""
	for _, want := range []power.Want{power.WantOn, power.WantOff, power.HandsOff} {
		for i, line := range term.Wrap(strings.Join(by[string(want)], " "), 60) {
			if i > 0 {
				want = ""
			}
			text += fmt.Sprintf("   %-10s %s\n", want, line)
		}
	}
	return strings.TrimRight(text, "\n")
}

func addNode(s *session) error {
	c := s.c
	spec := api.NodeSpec{
		Name: c.Args().First(), Rack: c.String("rack"), BMC: c.String("bmc"), Credentials: c.String("credentials"), Domain: c.String("domain"),
		Status: power.Status(c.String("status")), Labels: c.StringSlice("label"), Agents: agentNames(c.String("agents")),
	}
	bmc, kgFile, err := power.CutKGFile(spec.BMC)
	if err == nil && kgFile != "" && c.IsSet("kg-file") {
		err = errors.New("the key K_g is given by --kg-file and within --bmc")
	}
	spec.BMC, kgFile = bmc, cmp.Or(kgFile, c.String("kg-file"))
	if err == nil {
		err = tidySpec(&spec)
	}
	if err != nil {
		return settings.Usage("%v", err)
	}
	for flag, field := range map[string]string{
		"bmc": "bmc", "password-file": "password", "kg-file": "kg", "credentials": "credentials", "domain": "domain",
		"status": "status", "agents": "agents",
	} {
		if c.Bool("update") && c.IsSet(flag) && c.String(flag) == "" && !(field == "kg" && kgFile != "") {
			spec.Clear = append(spec.Clear, field)
		}
	}
	slices.Sort(spec.Clear)
	if c.String("password-file") != "" && spec.Credentials != "" {
		return settings.Usage("--password-file and --credentials exclude each other: a password of the node's own stands over credentials")
	}
	if file := c.String("password-file"); file != "" {
		if spec.Password, err = readSecrets(s.c, s.Printer).password(file); err != nil {
			return err
		}
	}
	if kgFile != "" {
		if spec.KG, err = readSecrets(s.c, s.Printer).inFile(kgFile, "K_g"); err != nil {
			return err
		}
	}
	if err := checkSecrets(spec); err != nil {
		return settings.Usage("%v", err)
	}
	if s.trustsFirst() {
		spec.BMC = s.trustFirst(spec)
	}
	in := api.AddNodes{Nodes: []api.NodeSpec{spec}, Update: c.Bool("update"), Force: c.Bool("force"), AskedBy: s.askedBy()}
	if err := addNodes(s, in); err != nil {
		return err
	}
	if s.trustsFirst() {
		s.showFirst(spec)
	}
	return nil
}

// showFirst has the agent log in to a BMC whose key is trusted as it is seen first, and shows
// which that is. That it cannot be shown yet is no failure: the node was added.
func (s *session) showFirst(spec api.NodeSpec) {
	ep, err := power.ParseEndpoint(spec.BMC)
	if err != nil || ep.Pin != power.PinFirst {
		return
	}
	all, err := s.client.TestNodes(s.ctx, api.TestNodes{Names: []string{spec.Name}, Wait: firstContact, AskedBy: s.askedBy()})
	switch {
	case err == nil && len(all) == 1 && all[0].Key != "":
		fmt.Fprintf(s.c.App.ErrWriter, "the BMC of %s has the key %s\n", spec.Name, term.Clean(all[0].Key))
		return
	case err == nil && len(all) == 1 && all[0].Message == "": // it speaks IPMI
		return
	case err == nil && len(all) == 1:
		err = errors.New(all[0].Message)
	}
	if err != nil {
		fmt.Fprintf(s.c.App.ErrWriter, "its key cannot be shown yet (rackpower node test %s): %s\n", spec.Name, term.Clean(err.Error()))
	}
}

// firstContact is how long the key is waited for.
const firstContact = 20 * time.Second

// trustFirstFlag has keys trusted that are seen first.
func trustFirstFlag(usually string) cli.Flag {
	return &cli.BoolFlag{
		Name:  "trust-first",
		Usage: "trust the public key that a Redfish BMC without pin shows first, as ?pin=first does" + usually,
	}
}

// trustsFirst reports whether that is so: it was said, or somebody is there to be told.
func (s *session) trustsFirst() bool {
	if s.c.IsSet("trust-first") {
		return s.c.Bool("trust-first")
	}
	return term.Interactive(s.c.App.Reader, s.c.App.ErrWriter)
}

// trustFirst is the address of a node's BMC with the key pinned that its agent sees first. The
// agent alone talks to BMCs, so that it, and not this command, finds out which.
func (s *session) trustFirst(spec api.NodeSpec) string {
	ep, err := power.ParseEndpoint(spec.BMC)
	if err != nil || !ep.TrustsNobody() {
		return spec.BMC
	}
	ep.Pin = power.PinFirst
	fmt.Fprintf(s.c.App.ErrWriter, "agent %s will trust the public key that the BMC of %s shows first (?pin=first)\n", term.Clean(spec.Rack),
		spec.Name)
	return ep.String()
}

// added is what node add and import print.
type added struct {
	api.AddedNodes
	DryRun bool `json:"dry_run"`
}

func (v view) showAdded(a api.AddedNodes, specs []api.NodeSpec, dry bool) error {
	if v.People() {
		would := ""
		if dry {
			would = "would be "
		}
		v.Say("%s %sadded, %d changed, %d unchanged", power.Count(a.Added, "node"), would, a.Changed, a.Unchanged)
		for _, note := range a.Notes {
			v.Warn("%s", term.Clean(note))
		}
		return nil
	}
	if v.Format == "name" {
		return printer.Show(v.Printer, printer.Listing[api.NodeSpec]{Rows: specs, Name: func(n api.NodeSpec) string { return n.Name }})
	}
	return printer.Show(v.Printer, printer.Listing[added]{Rows: []added{{a, dry}}})
}

// addNodes has nodes added; when some exist it names the flag that changes them.
func addNodes(s *session, in api.AddNodes) error {
	var err error
	if in.Update && !in.DryRun {
		if in.MovesConfirmed, err = s.confirmMoves(in.Nodes); err != nil {
			return err
		}
		if in.Confirmed, err = s.confirmStatuses(in.Nodes); err != nil {
			return err
		}
	}
	a, err := s.client.AddNodes(s.ctx, in)
	switch {
	case api.CodeOf(err) == api.CodeExists:
		said := s.explain(err)
		return settings.Exit(settings.CodeOf(said), "%v\n--update changes nodes that exist", said)
	case err != nil:
		return err
	}
	return s.showAdded(a, in.Nodes, in.DryRun)
}

// confirmMoves asks when more than one node goes to another rack: their agents let go of
// them, be they most that an agent has. It reports whether a person knows of all that go.
func (k confirmer) confirmMoves(specs []api.NodeSpec) (bool, error) {
	to := map[string]string{}
	for _, n := range specs {
		if n.Rack != "" {
			to[n.Name] = n.Rack
		}
	}
	if len(to) == 0 || k.c.Bool("yes") {
		return len(to) > 0, nil
	}
	nodes, err := k.client.Nodes(k.ctx, "all")
	if err != nil {
		return false, err
	}
	nodes = slices.DeleteFunc(nodes, func(n api.Node) bool { return to[n.Name] == "" || to[n.Name] == n.Rack })
	if len(nodes) < 2 {
		return true, nil
	}
	return k.question(fmt.Sprintf("%d nodes will be moved from racks %s: %s", len(nodes), noderange.Fold(racksOf(nodes)),
		noderange.Fold(namesOf(nodes))))
}

// racksOf names the racks of nodes, each once.
func racksOf(nodes []api.Node) []string {
	racks := map[string]bool{}
	for _, n := range nodes {
		racks[n.Rack] = true
	}
	return slices.Sorted(maps.Keys(racks))
}

// confirmStatuses asks when statuses that nodes are given take power from many.
func (k confirmer) confirmStatuses(specs []api.NodeSpec) (bool, error) {
	off := map[string]power.Status{}
	for _, n := range specs {
		if n.Status.Desired().Want == power.WantOff {
			off[n.Name] = n.Status
		}
	}
	if len(off) == 0 {
		return k.c.Bool("yes"), nil
	}
	nodes, err := k.client.Nodes(k.ctx, "all")
	if err != nil {
		return false, err
	}
	nodes = slices.DeleteFunc(nodes, func(n api.Node) bool { return off[n.Name] == "" || off[n.Name] == n.Status })
	return k.confirm(cut(nodes))
}

// forceFlag moves nodes away from agents that do not confirm it.
func forceFlag() cli.Flag {
	return &cli.BoolFlag{
		Name: "force",
		Usage: "move the node without waiting for its former agent to release it; use this only if that agent is dead, otherwise two agents " +
			"act on the node until it learns of the move",
	}
}

func importNodes(s *session) error {
	specs, err := specReader{readSecrets(s.c, s.Printer)}.read(s.c.Args().First())
	if err != nil {
		return err
	}
	if s.c.Bool("trust-first") {
		for i := range specs {
			specs[i].BMC = s.trustFirst(specs[i])
		}
	}
	return addNodes(s, api.AddNodes{
		Nodes: specs, Update: s.c.Bool("update"), Force: s.c.Bool("force"), DryRun: s.c.Bool("dry-run"),
		AskedBy: s.askedBy(),
	})
}

func exportNodes(c *cli.Context) error {
	p, err := newPrinter(c, "csv")
	if err != nil {
		return err
	}
	if p.People() {
		p.Format = "yaml"
	}
	if p.Format == "csv" {
		if err := c.Set("output", "yaml"); err != nil { // for the session, which knows no CSV
			return err
		}
	}
	return atCentral.with(func(s *session) error {
		nodes, err := s.client.ExportNodes(s.ctx)
		if err != nil {
			return err
		}
		for i := range nodes {
			nodes[i].Password, nodes[i].KG = "", ""
		}
		slices.SortFunc(nodes, func(a, b api.NodeSpec) int { return noderange.Compare(a.Name, b.Name) })
		if p.Format == "csv" {
			return writeCSV(p.Out, nodes)
		}
		return printer.Show(p, printer.Listing[api.NodeSpec]{Rows: nodes, Name: func(n api.NodeSpec) string { return n.Name }})
	})(c)
}

func removeNodes(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if len(nodes) > 1 && !s.c.Bool("yes") {
		if _, err = s.question(fmt.Sprintf("%d nodes will be removed, with the passwords of their BMCs: %s", len(nodes),
			noderange.Fold(namesOf(nodes)))); err != nil {
			return err
		}
	}
	// The one who asks was told how many nodes go, or named the one: the agent lets go of them,
	// be they most that it has.
	in := api.RemoveNodes{Names: namesOf(nodes), Confirmed: true, AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	changed, err := s.client.RemoveNodes(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showChangedNodes(changed, nodes, "removed")
}

func (v view) showChangedNodes(c api.Changed, nodes []api.Node, what string) error {
	if v.People() {
		text := fmt.Sprintf("%s %s", noderange.Fold(namesOf(nodes)), what)
		if c.Unchanged > 0 {
			text += fmt.Sprintf(" (%d unchanged)", c.Unchanged)
		}
		v.Say("%s", text)
		if !v.Quiet {
			for _, note := range c.Notes {
				v.Warn("%s", term.Clean(note))
			}
		}
		return nil
	}
	if v.Format == "name" {
		return printer.Show(v.Printer, printer.Listing[api.Node]{Rows: nodes, Name: func(n api.Node) string { return n.Name }})
	}
	return printer.Show(v.Printer, printer.Listing[api.Changed]{Rows: []api.Changed{c}})
}

// retryCommand is part of rackpower node, and of rackpower local.
func retryCommand(d server) *cli.Command {
	name, category := "rackpower node retry", ""
	if d == atAgent {
		name, category = d.command+" retry", "monitor"
	}
	return &cli.Command{
		Name: "retry", Category: category, Usage: "try nodes again that are in fault or whose BMC is left alone", ArgsUsage: "NODES...",
		Flags: d.flags(reasonFlag(false)),
		Description: "Resets the count of failed corrections, and logs in again at once to BMCs that did not answer or\n" +
			"refused their password." + nodesHelp + examples(name+" r1n07", name+" @rack1 --reason \"switch replaced\"") + exitHelp,
		Action: d.with(retryNodes),
	}
}

func retryNodes(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	changed, err := s.client.RetryNodes(s.ctx, api.RetryNodes{Names: namesOf(nodes), AskedBy: s.askedBy(), Reason: s.c.String("reason")})
	if err != nil {
		return err
	}
	s.noteAway(nodes)
	return s.showChangedNodes(changed, nodes, "tried again from now on")
}

// protectCommand is rackpower node protect, and unprotect.
func protectCommand(verb string) *cli.Command {
	c := &cli.Command{
		Name: verb, Usage: "keep anything from taking power from nodes", ArgsUsage: "NODES...",
		Flags: atCentral.flags(reasonFlag(false)), Action: atCentral.with(protectNodes),
		Description: "Neither the monitor nor a request, at central or at the rack, turns a protected node off, resets it or sends\n" +
			"it an NMI, until an admin unprotects it. An operation that has sent no command yet ends. The BMC may be restarted.\n" +
			"A node with the host name of central's machine, or of its own agent's, is protected by itself, once." +
			nodesHelp + examples("rackpower node protect r1n07 --reason \"database of the site\"") + exitHelp,
	}
	if verb == "unprotect" {
		c.Usage, c.Flags = "let power be taken from protected nodes again", atCentral.flags(reasonFlag(true))
		c.Description = "What the monitor wants of the nodes is enforced from then on." + nodesHelp +
			examples("rackpower node unprotect r1n07 --reason \"database moved\"") + exitHelp
	}
	return c
}

func protectNodes(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	in := api.ProtectNodes{
		Names: namesOf(nodes), AskedBy: s.askedBy(), Reason: s.c.String("reason"),
		Unprotect: s.c.Command.Name == "unprotect",
	}
	changed, err := s.client.ProtectNodes(s.ctx, in)
	if err != nil {
		return err
	}
	return s.showChangedNodes(changed, nodes, s.c.Command.Name+"ed")
}

func showNode(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, s.nodeListing(nodes))
	}
	for i, n := range nodes {
		if i > 0 {
			s.Say("")
		}
		s.Details(
			"node", n.Name, "rack", n.Rack, "agent", strings.TrimSpace(n.Agent+" "+n.AgentState.Text(s.Now())), "agents",
			strings.Join(n.Agents, ", "), "lease", s.Readable(facts.Lease(n.Lease)), "bmc", n.BMC, "credentials",
			namedBy(n), "domain", n.Domain, "labels", strings.Join(n.Labels, ", "),
			"state", stateCell(n), "observed at", s.OptionalTime(n.ObservedAt), "reach", string(n.Reach), "tried at", s.OptionalTime(n.TriedAt),
			"status", string(n.Status), "desired", strings.TrimSuffix(fmt.Sprintf("%s, from %s", n.Desired, n.DesiredFrom), ", from "), "hold",
			s.held(n.Hold), "protected", facts.Protection(n.Protected), "differs", s.differs(n), "fault", s.faultOf(n), "operation", s.opCell(n),
		)
	}
	return nil
}

// statusOf reads a status and its nodes.
func statusOf(s *session) (in api.SetStatus, nodes []api.Node, err error) {
	operands := s.c.Args().Slice()
	last := len(operands) - 1
	in.AskedBy, in.Reason = s.askedBy(), s.c.String("reason")
	if in.Status, err = power.ParseStatus(operands[last]); err != nil {
		return in, nil, settings.Usage("%v", err)
	}
	nodes, err = s.nodes(operands[:last])
	in.Names = namesOf(nodes)
	return in, nodes, err
}

func setStatus(s *session) error {
	in, nodes, err := statusOf(s)
	if err != nil {
		return err
	}
	status := in.Status
	in.Confirmed = s.c.Bool("yes")
	if status.Desired().Want == power.WantOff {
		if in.Confirmed, err = s.confirm(cut(nodes)); err != nil {
			return err
		}
	}
	changed, err := s.client.SetStatus(s.ctx, in)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s: %s", status, status.Desired().Want)
	if status.Desired().Enforces() {
		what = fmt.Sprintf("%s: power %s", status, status.Desired().Want)
	}
	return s.showChangedNodes(changed, nodes, what)
}
