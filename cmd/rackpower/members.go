package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/gossip"
	"rackpower/power"
	"rackpower/power/noderange"
)

// eitherDoor has a command ask this rack's agent, or central when --central is given
// and --socket is not. What is typed goes before what environment and file say.
func eitherDoor(do func(*session) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		d := atAgent
		if c.IsSet(atCentral.flag) && (!c.IsSet(atAgent.flag) || settings.Typed(c, atCentral.flag) && !settings.Typed(c, atAgent.flag)) {
			d = atCentral
		}
		return d.with(do)(c)
	}
}

func eitherFlags(more ...cli.Flag) []cli.Flag {
	return append(atAgent.flags(more...),
		&cli.StringFlag{Name: atCentral.flag, Usage: "ask central at `URL`; --socket takes precedence"})
}

const eitherHelp = "As this rack's agent sees it; as central sees it when --central is given and --socket is not."

func membersCommand() *cli.Command {
	return &cli.Command{
		Name: "members", Category: "on a rack", Usage: "list the members of the gossip cluster", Action: eitherDoor((*session).members),
		Description: eitherHelp + examples("rackpower members", "rackpower members --status failed", "rackpower members --watch",
			"rackpower members -o json") + exitHelp,
		Flags: eitherFlags(
			&cli.StringFlag{Name: "status", Usage: "only members with this `STATUS`: alive, leaving, left, failed"},
			&cli.StringFlag{Name: "role", Usage: "only members with this `ROLE`: agent, central"},
			&cli.StringFlag{Name: "rack", Usage: "only the members of this `RACK`"},
			&cli.StringSliceFlag{Name: "tag", Usage: "only members with the tag `KEY=VALUE`; may be repeated"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "continue and show changes, until interrupted"},
		),
	}
}

// memberFilter is what the flags of members want: of the tags, and the status, "" for any.
func (s *session) memberFilter() (tagged func(api.Member) bool, status string, err error) {
	want := map[string]string{}
	for _, flag := range []string{"role", "rack"} {
		if v := s.c.String(flag); v != "" {
			want[flag] = v
		}
	}
	for _, text := range s.c.StringSlice("tag") {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, "", settings.Usage("--tag: %q is not KEY=VALUE", text)
		}
		want[key] = value
	}
	status = s.c.String("status")
	if known := []string{"", gossip.StatusAlive, gossip.StatusLeaving, gossip.StatusLeft, gossip.StatusFailed}; !slices.Contains(known,
		status) {
		return nil, "", settings.Usage("--status: unknown %q: want %s", status, strings.Join(known[1:], ", "))
	}
	return func(m api.Member) bool {
		for key, value := range want {
			if m.Tags[key] != value {
				return false
			}
		}
		return true
	}, status, nil
}

func (s *session) members() error {
	tagged, status, err := s.memberFilter()
	if err != nil {
		return err
	}
	wanted := func(m api.Member) bool { return tagged(m) && (status == "" || m.Status == status) }
	members, err := s.client.Members(s.ctx)
	if err != nil {
		return err
	}
	known := map[string]string{}
	for _, m := range members {
		known[m.Name] = m.Status
	}
	members = slices.DeleteFunc(members, func(m api.Member) bool { return !wanted(m) })
	slices.SortFunc(members, func(a, b api.Member) int { return noderange.Compare(a.Name, b.Name) })
	if len(members) == 0 && s.people() && !s.quiet {
		s.warn("no member is like that")
	}
	if err := show(s.printer, s.memberListing(members)); err != nil || !s.c.Bool("watch") {
		return err
	}
	return s.watchMembers(known, func(m api.Member, before string) bool {
		return wanted(m) || tagged(m) && before == status
	})
}

func (s *session) memberListing(members []api.Member) listing[api.Member] {
	return listing[api.Member]{
		rows: members, name: func(m api.Member) string { return m.Name },
		head: []string{"MEMBER", "ADDRESS", "PORT", "STATUS", "TAGS"},
		cells: func(m api.Member) []string {
			var tags []string
			for _, key := range slices.Sorted(maps.Keys(m.Tags)) {
				tags = append(tags, key+"="+m.Tags[key])
			}
			status := m.Status
			if status != gossip.StatusAlive && m.SinceMS > 0 {
				status += " " + ago(m.SinceMS)
			}
			addr, port := m.Addr, fmt.Sprint(m.Port)
			if addr == "" {
				addr, port = "-", "-"
			}
			return []string{m.Name, addr, port, status, strings.Join(tags, " ")}
		},
	}
}

// ago is "40 s ago" of milliseconds.
func ago(ms int64) string { return power.Ago(time.Duration(ms)*time.Millisecond) + " ago" }

// watchMembersEvery is how often the members are looked at.
const watchMembersEvery = 500 * time.Millisecond

// watchMembers prints what becomes of the members, until interrupted. known is what
// they were; wanted says of a member, and what it was before, whether it is shown.
func (s *session) watchMembers(known map[string]string, wanted func(m api.Member, before string) bool) error {
	p := s.printer
	if p.format == "json" {
		p.format = "jsonl" // one array could never end
	}
	for reachable := true; ; {
		if pause(s.ctx, watchMembersEvery) != nil {
			return nil // being interrupted is how it ends
		}
		members, err := s.client.Members(s.ctx)
		switch {
		case s.ctx.Err() != nil:
			return nil
		case lost(err):
			if reachable {
				s.warn("%v; trying again", s.explain(err))
			}
			reachable = false
			continue
		case err != nil:
			return err
		}
		reachable = true
		var changed []api.Member
		for _, m := range members {
			before := known[m.Name]
			if known[m.Name] = m.Status; before != m.Status && wanted(m, before) {
				changed = append(changed, m)
			}
		}
		if len(changed) > 0 {
			if err := s.showMemberChanges(p, changed); err != nil {
				return err
			}
		}
	}
}

func (s *session) showMemberChanges(p printer, changed []api.Member) error {
	if !s.people() {
		return show(p, s.memberListing(changed))
	}
	for _, m := range changed {
		now := s.now()
		s.say("%s  %s", s.clock(now), term.Clean(m.Name+" "+m.Status+at(m)))
	}
	return nil
}

// at is " (10.0.0.1:7946)", "" when the address is not known.
func at(m api.Member) string {
	if m.Addr == "" {
		return ""
	}
	return " (" + net.JoinHostPort(m.Addr, fmt.Sprint(m.Port)) + ")"
}

func peersCommand() *cli.Command {
	return &cli.Command{
		Name: "peers", Category: "on a rack", Usage: "show the power of all nodes as gossip reports it", ArgsUsage: "[NODES...]",
		Action: eitherDoor((*session).peers),
		Description: eitherHelp + "\nCentral need not be there. In NODES, @NAME stands for the nodes of that agent.\n\n" +
			"With --who it says which agent has a node and who can reach its BMC: agents that do not have the node ask the\n" +
			"BMC for a sign of life, for which its address must be known to whom you ask. It ends with 1 when none can, with 2\n" +
			"when nobody knows the node." + nodesHelp +
			examples("rackpower peers", "rackpower peers @state:off -o name", "rackpower peers --who r1n01") + exitHelp,
		Flags: eitherFlags(&cli.StringFlag{Name: "who", Usage: "show which agent has `NODE`, and which agents reach its BMC"}),
	}
}

func (s *session) peers() error {
	if node := s.c.String("who"); node != "" || s.c.IsSet("who") {
		if s.c.NArg() > 0 || node == "" {
			return settings.Usage("--who takes the name of one node, and no NODES")
		}
		return s.whose(node)
	}
	expr, err := selection(s.c.Args().Slice())
	if err != nil {
		return err
	}
	peers, err := s.client.Peers(s.ctx)
	if err != nil {
		return err
	}
	if peers, err = selectPeers(peers, expr); err != nil {
		return err
	}
	slices.SortFunc(peers, func(a, b api.PeerNode) int { return noderange.Compare(a.Node, b.Node) })
	s.tellGone(peers)
	return show(s.printer, peerListing(peers))
}

func selectPeers(peers []api.PeerNode, expr string) ([]api.PeerNode, error) {
	if expr == "" {
		return peers, nil
	}
	known := make([]noderange.Node, len(peers))
	for i, p := range peers {
		known[i] = noderange.Node{Name: p.Node, Rack: p.Owner, State: string(p.State)}
	}
	names, err := noderange.Select(expr, known)
	if err != nil {
		return nil, settings.Exit(settings.ExitUsage, "%v", err)
	}
	chosen := map[string]bool{}
	for _, n := range names {
		chosen[n] = true
	}
	return slices.DeleteFunc(peers, func(p api.PeerNode) bool { return !chosen[p.Node] }), nil
}

// tellGone says which agents are gone: what is shown of their nodes is the last that
// they said.
func (s *session) tellGone(peers []api.PeerNode) {
	if !s.people() || s.quiet {
		return
	}
	nodes, status := map[string][]string{}, map[string]string{}
	for _, p := range peers {
		if p.OwnerStatus != gossip.StatusAlive {
			nodes[p.Owner] = append(nodes[p.Owner], p.Node)
			status[p.Owner] = ownerStatus(p)
		}
	}
	s.warnEach(slices.Sorted(maps.Keys(nodes)), "rack agents %s are gone: their nodes are shown as they said last", func(owner string) {
		s.warn("rack agent %s %s: %s is shown as it said last", term.Clean(owner), term.Clean(status[owner]),
			term.Clean(noderange.Fold(nodes[owner])))
	})
}

// ownerStatus is "failed 40 s ago".
func ownerStatus(p api.PeerNode) string {
	switch {
	case p.OwnerStatus == gossip.StatusUnknown:
		return "is not known here"
	case p.OwnerStatus != gossip.StatusAlive && p.OwnerSinceMS > 0:
		return p.OwnerStatus + " " + ago(p.OwnerSinceMS)
	default:
		return p.OwnerStatus
	}
}

func peerListing(peers []api.PeerNode) listing[api.PeerNode] {
	return listing[api.PeerNode]{
		rows: peers, name: func(p api.PeerNode) string { return p.Node },
		head: []string{"NODE", "STATE", "AGE", "REACH", "OWNER", "OPERATION"},
		cells: func(p api.PeerNode) []string {
			age := "never"
			if p.AgeMS >= 0 {
				age = power.Ago(time.Duration(p.AgeMS) * time.Millisecond)
			}
			reach := string(p.Reach)
			if p.Reach == power.ReachOK {
				reach = ""
			}
			owner := p.Owner
			if p.OwnerStatus != gossip.StatusAlive {
				owner += " (" + p.OwnerStatus + ")"
			}
			if len(p.AlsoClaimedBy) > 0 {
				owner += ", also told by " + strings.Join(p.AlsoClaimedBy, ", ")
			}
			return []string{p.Node, string(p.State), age, reach, owner, string(p.Op)}
		},
	}
}

// whose says who has a node and who can reach its BMC.
func (s *session) whose(node string) error {
	w, err := s.client.Who(s.ctx, node)
	if err != nil {
		return err
	}
	if !s.people() {
		if err := show(s.printer, listing[api.Who]{rows: []api.Who{w}, name: func(w api.Who) string { return w.Node }}); err != nil {
			return err
		}
		return exitOfWho(w)
	}
	s.say("%s", term.Clean(w.Message))
	for _, o := range w.Owners {
		age := "never read"
		if o.AgeMS >= 0 {
			age = "read " + ago(o.AgeMS)
		}
		s.say("  agent %s (%s) has it: %s, %s", term.Clean(o.Owner), term.Clean(ownerStatus(o)), term.Clean(string(o.State)), age)
	}
	for _, r := range w.Reach {
		s.say("  agent %s can reach its BMC: %s", term.Clean(r.Agent), term.Clean(r.How))
	}
	if w.Answered < w.Asked {
		s.say("  %d of %d members did not answer", w.Asked-w.Answered, w.Asked)
	}
	return exitOfWho(w)
}

// exitOfWho is the exit status of what has been said: 2 of a node that nobody knows, 1
// when nobody can reach the BMC.
func exitOfWho(w api.Who) error {
	switch {
	case len(w.Reach) > 0:
		return nil
	case len(w.Owners) == 0:
		return settings.Exit(settings.ExitUsage, "")
	default:
		return settings.Exit(settings.ExitFailed, "")
	}
}

func pingCommand() *cli.Command {
	return &cli.Command{
		Name: "ping", Category: "on a rack", Usage: "check that a member of the gossip cluster answers", ArgsUsage: "AGENT",
		Action: eitherDoor((*session).ping),
		Description: "The question travels by gossip, so the time is that of some rounds of gossip, not of a packet." +
			examples("rackpower ping r2", "rackpower ping central --count 3") + exitHelp,
		Flags: eitherFlags(&cli.IntFlag{Name: "count", Value: 1, Usage: "send `N` requests"}),
	}
}

func (s *session) ping() error {
	count := s.c.Int("count")
	if count < 1 || count > 1000 {
		return settings.Usage("--count: %d is not between 1 and 1000", count)
	}
	var pongs []api.Pong
	for range count {
		one, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		pong, err := s.client.Ping(one, s.c.Args().First())
		cancel()
		if api.CodeOf(err) == api.CodeRefused {
			return settings.Exit(settings.ExitFailed, "%v", err) // no sign of life is a failure, not a refusal
		}
		if err != nil {
			return err
		}
		if s.people() {
			s.say("%s answered after %.1f ms", term.Clean(pong.Name), pong.RTTMS)
		}
		pongs = append(pongs, pong)
	}
	if s.people() {
		return nil
	}
	return show(s.printer, listing[api.Pong]{rows: pongs, name: func(p api.Pong) string { return p.Name }})
}

func gossipCommand() *cli.Command {
	keyArg := "ID, or --key-file"
	file := func() cli.Flag {
		return &cli.StringFlag{Name: "key-file", Usage: "read the key, in base64, from `FILE`; -: from stdin"}
	}
	return &cli.Command{
		Name: "gossip", Category: "on a rack", Usage: "show or change the keys that encrypt gossip",
		Description: "A key is changed without a gap in three steps, each on all members at once: install the new one, use it, remove\n" +
			"the old one." +
			examples("rackpower gossip keygen > new.key", "rackpower gossip keys install --key-file new.key", "rackpower gossip keys list",
				"rackpower gossip keys use ID", "rackpower gossip keys remove OLD_ID") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "keygen", Usage: "print a new key", Action: func(c *cli.Context) error {
					_, err := fmt.Fprintln(c.App.Writer, gossip.NewKey().Reveal())
					return err
				},
				Description: "32 random bytes in base64: for --gossip-key-file, the systemd credential gossip-key, and gossip keys install." +
					examples("umask 077; rackpower gossip keygen > gossip.key") + exitHelp,
			},
			{
				Name: "keys", Usage: "list, install, use or remove keys on all members",
				Description: "Keys are named by the first digits of their SHA-256; they are never shown." +
					examples("rackpower gossip keys list", "rackpower gossip keys install --key-file new.key") + exitHelp,
				Subcommands: []*cli.Command{
					{
						Name: "list", Usage: "list the keys of the members", Flags: eitherFlags(), Action: eitherDoor((*session).keysList),
						Description: "PRIMARY counts the members that send with the key." + examples("rackpower gossip keys list") + exitHelp,
					},
					keyChange(api.KeyInstall, "", "add a key on all members", file()),
					keyChange(api.KeyUse, keyArg, "make a key that all members have the one they send with", file()),
					keyChange(api.KeyRemove, keyArg, "remove a key that no member sends with", file()),
				},
			},
		},
	}
}

func keyChange(do, operand, usage string, file cli.Flag) *cli.Command {
	args := ""
	if operand != "" {
		args = "[ID]"
	}
	return &cli.Command{
		Name: do, Usage: usage, ArgsUsage: args, Flags: eitherFlags(file),
		Description: "All members must answer; with those that did not it fails, and may be repeated." +
			examples("rackpower gossip keys "+do+" "+cmp.Or(operand, "--key-file new.key")) + exitHelp,
		Action: eitherDoor(func(s *session) error { return s.changeKeys(do) }),
	}
}

func (s *session) keysList() error {
	keys, err := s.client.GossipKeys(s.ctx)
	if err != nil {
		return err
	}
	return s.showKeys(keys)
}

func (s *session) showKeys(keys api.GossipKeys) error {
	for _, member := range slices.Sorted(maps.Keys(keys.Problems)) {
		s.warn("%s: %s", term.Clean(member), term.Clean(keys.Problems[member]))
	}
	if keys.Answered < keys.Members {
		s.warn("%d of %d members did not answer", keys.Members-keys.Answered, keys.Members)
	}
	return show(s.printer, listing[api.GossipKey]{
		rows: keys.Keys, name: func(k api.GossipKey) string { return k.ID },
		head: []string{"KEY", "MEMBERS", "PRIMARY"},
		cells: func(k api.GossipKey) []string {
			return []string{k.ID, fmt.Sprintf("%d of %d", k.Members, keys.Members), fmt.Sprint(k.Primary)}
		},
	})
}

func (s *session) changeKeys(do string) error {
	in := api.ChangeKeys{Action: do, ID: s.c.Args().First()}
	if file := s.c.String("key-file"); file != "" {
		text, err := s.keyText(file)
		if err != nil {
			return err
		}
		in.Key = text
	}
	switch {
	case do == api.KeyInstall && in.Key == "":
		return settings.Usage("--key-file is missing: it names the file with the new key")
	case (in.Key == "") == (in.ID == ""):
		return settings.Usage("name one key: its ID, or --key-file")
	}
	keys, err := s.client.ChangeKeys(s.ctx, in)
	if err != nil {
		return err
	}
	s.tellUnasked()
	return s.showKeys(keys)
}

// tellUnasked says which members a change of keys did not reach as they are gone.
func (s *session) tellUnasked() {
	members, err := s.client.Members(s.ctx)
	if err != nil || s.quiet {
		return // the change itself went well
	}
	for _, m := range members {
		if m.Status == gossip.StatusFailed {
			s.warn("%s failed %s and was not asked: if it comes back after the old key was removed, it needs the new one (central hands it out)",
				term.Clean(m.Name), ago(m.SinceMS))
		}
	}
}

// keyText reads a key from a file, or from stdin.
func (s *session) keyText(file string) (string, error) {
	text, err := "", error(nil)
	if file == "-" {
		text, err = firstLine(bufio.NewReader(s.c.App.Reader))
	} else if text, err = s.secretIn(file, "the key"); err != nil {
		return "", err
	}
	if err != nil {
		return "", settings.Exit(settings.ExitUsage, "cannot read the key: %v", err)
	}
	if _, err := gossip.ParseKey(text); err != nil {
		return "", settings.Usage("%v", err)
	}
	return text, nil
}
