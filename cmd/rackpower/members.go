package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/gossip"
	"rackpower/internal/backoff"
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
		Name: "members", Category: "on a rack", Usage: "list the members of the gossip cluster", Action: eitherDoor(listMembers),
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
func memberFilter(s *session) (tagged func(api.Member) bool, status string, err error) {
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

func listMembers(s *session) error {
	tagged, status, err := memberFilter(s)
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
	if len(members) == 0 && s.People() && !s.Quiet {
		s.Warn("no member matches")
	}
	if err := printer.Show(s.Printer, s.memberListing(members)); err != nil || !s.c.Bool("watch") {
		return err
	}
	return watchMembers(s, known, func(m api.Member, before string) bool {
		return wanted(m) || tagged(m) && before == status
	})
}

func (v view) memberListing(members []api.Member) printer.Listing[api.Member] {
	return printer.Listing[api.Member]{
		Rows: members, Name: func(m api.Member) string { return m.Name },
		Head: []string{"MEMBER", "ADDRESS", "PORT", "STATUS", "TAGS"},
		Cells: func(m api.Member) []string {
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
func watchMembers(s *session, known map[string]string, wanted func(m api.Member, before string) bool) error {
	p := s.Printer
	if p.Format == "json" {
		p.Format = "jsonl" // one array could never end
	}
	for reachable := true; ; {
		if backoff.Sleep(s.ctx, watchMembersEvery) != nil {
			return nil // being interrupted is how it ends
		}
		members, err := s.client.Members(s.ctx)
		switch {
		case s.ctx.Err() != nil:
			return nil
		case lost(err):
			if reachable {
				s.Warn("%v; trying again", s.explain(err))
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

func (v view) showMemberChanges(p printer.Printer, changed []api.Member) error {
	if !v.People() {
		return printer.Show(p, v.memberListing(changed))
	}
	for _, m := range changed {
		now := v.Now()
		v.Say("%s  %s", v.Time(now), term.Clean(m.Name+" "+m.Status+at(m)))
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
