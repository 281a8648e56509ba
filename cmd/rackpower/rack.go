package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

func pauseCommand() *cli.Command {
	return &cli.Command{
		Name: "pause", Category: "monitor", Usage: "pause the monitor of a rack, or of all", ArgsUsage: "RACK|all",
		Action: atCentral.with(pauseRack),
		Description: "For maintenance: nodes are read and requests are carried out, but nothing is corrected.\n" +
			"With all, racks that are added later are paused too." +
			examples("rackpower pause r1 --for 2h --reason \"moving cables\"", "rackpower pause all --reason \"feed B is gone\"") + exitHelp,
		Flags: atCentral.flags(lastingFlag("for", "until resumed"), reasonFlag(true)),
	}
}

func resumeCommand() *cli.Command {
	return &cli.Command{
		Name: "resume", Category: "monitor", Usage: "resume the monitor of a rack, or what was paused by pause all", ArgsUsage: "RACK|all",
		Action: atCentral.with(resumeRack),
		Description: "What differs from the desired state is corrected from now on; the fleet brake watches over it.\n" +
			"A rack that was also paused by itself stays so when all are resumed, and the other way round." +
			examples("rackpower resume r1", "rackpower resume all") + exitHelp,
		Flags: atCentral.flags(reasonFlag(false)),
	}
}

func pauseRack(s *session) error {
	in := api.SetPause{AskedBy: s.askedBy()}
	var err error
	if in.Reason, err = s.reason(); err != nil {
		return err
	}
	if in.For, err = s.lasting("for"); err != nil {
		return err
	}
	return setPause(s, in, "the monitor is paused "+s.UntilOr(s.After(in.For), "resumed")+"; requests are still carried out")
}

func resumeRack(s *session) error {
	return setPause(s, api.SetPause{Resume: true, AskedBy: s.askedBy(), Reason: s.c.String("reason")}, "the monitor resumes")
}

func setPause(s *session, in api.SetPause, what string) error {
	if s.c.Args().First() == "all" {
		return setSitePause(s, in, what)
	}
	rack, err := s.rack()
	if err != nil {
		return err
	}
	if in.Resume && !rack.Settings.Pause.Active(s.Now()) && !rack.State.Pause.Active(s.Now()) {
		what = "the monitor is not paused"
	}
	if rack, err = s.client.SetPause(s.ctx, rack.Name, in); err != nil {
		return err
	}
	if p := rack.Settings.Pause; in.Resume && p.Active(s.Now()) {
		what = "still paused, " + s.pauseCell(p)
	}
	return s.showRack(rack, what)
}

// setSitePause is setPause of all racks.
func setSitePause(s *session, in api.SetPause, what string) error {
	racks, err := s.client.SetSitePause(s.ctx, in)
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, s.rackListing(racks))
	}
	what, only := strings.Replace(what, "the monitor is", "the monitors are", 1), []string{}
	if in.Resume {
		what = "the monitors resume"
	}
	s.Say("all racks (%d): %s", len(racks), term.Clean(what))
	for _, r := range racks {
		if in.Resume && r.Settings.Pause.Active(s.Now()) {
			only = append(only, r.Name)
		}
	}
	if len(only) > 0 {
		s.Warn("paused by themselves, and still so: racks %s (rackpower rack list)", noderange.Fold(only))
	}
	return nil
}

func rackCommand() *cli.Command {
	return &cli.Command{
		Name: "rack", Category: "monitor", Usage: "show or set how the monitors of the racks work",
		Description: "The monitor of a rack reads its nodes and corrects those that differ from their desired state." +
			examples("rackpower rack list", "rackpower rack set r1 --monitor '@every 30s'") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the racks and the state of their monitors", Action: atCentral.with(listRacks),
				Flags:       atCentral.flags(),
				Description: examples("rackpower rack list", "rackpower rack list -o json")[2:] + exitHelp,
			},
			{
				Name: "show", Usage: "show the details of a rack's monitor", ArgsUsage: "RACK", Action: atCentral.with(showRack),
				Flags:       atCentral.flags(),
				Description: examples("rackpower rack show r1")[2:] + exitHelp,
			},
			{
				Name: "set", Usage: "set how a rack's monitor works, and which agents can reach its nodes", ArgsUsage: "RACK",
				Action: atCentral.with(setRack),
				Description: "What is not given stays. The fleet brake holds when more than the percentage of the rack's nodes, and more\n" +
					"than the number, would lose power at once or differ at once." +
					examples("rackpower rack set r1 --monitor '*/5 * * * *'", "rackpower rack set r1 --monitor \"\"",
						"rackpower rack set r1 --brake-percent 50 --brake-above 10", "rackpower rack set r1 --agents r1,r2") + exitHelp,
				Flags: atCentral.flags(
					&cli.StringFlag{Name: "monitor", Usage: "read the nodes at the times of the `CRON` expression, or \"off\"; \"\": as the agent is " +
						"configured"},
					&cli.IntFlag{
						Name: "brake-percent", Usage: "the fleet brake holds if more than `PERCENT` of the nodes, and more than --brake-above, are concerned",
						DefaultText: fmt.Sprintf("unchanged; 0: %d", power.DefaultBrakePercent),
					},
					&cli.IntFlag{
						Name: "brake-above", Usage: "the fleet brake holds if more than `N` nodes, and more than --brake-percent, are concerned",
						DefaultText: fmt.Sprintf("unchanged; 0: %d", power.DefaultBrakeAbove),
					},
					&cli.StringFlag{
						Name:  "credentials",
						Usage: "`NAME` of the credentials of the rack's nodes that have neither a password nor credentials; \"\": none",
					},
					agentsFlag("the rack's nodes that name none; \"\": its own"),
					reasonFlag(false),
				),
			},
		},
	}
}

// rack is the rack that the first operand names.
func (k connection) rack() (api.Rack, error) {
	racks, err := k.client.Racks(k.ctx)
	if err != nil {
		return api.Rack{}, err
	}
	return rackNamed(racks, k.c.Args().First())
}

func rackNamed(racks []api.Rack, name string) (api.Rack, error) {
	i := slices.IndexFunc(racks, func(r api.Rack) bool { return r.Name == name })
	if i < 0 {
		names := make([]string, len(racks))
		for i, r := range racks {
			names[i] = r.Name
		}
		return api.Rack{}, noSuch("rack", name, names)
	}
	return racks[i], nil
}

// noSuch is the error of a name that none of the known things has.
func noSuch(what, name string, known []string) error {
	hint := ""
	if near := settings.Nearest(name, known); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return settings.Exit(settings.ExitUsage, "no such %s: %s%s", what, cmp.Or(term.Clean(name), `""`), term.Clean(hint))
}

func listRacks(s *session) error {
	racks, err := s.client.Racks(s.ctx)
	if err != nil {
		return err
	}
	if len(racks) == 0 {
		s.Say("no racks are known yet")
	}
	return printer.Show(s.Printer, s.rackListing(racks))
}

func (v view) rackListing(racks []api.Rack) printer.Listing[api.Rack] {
	return printer.Listing[api.Rack]{
		Rows: racks, Name: func(r api.Rack) string { return r.Name },
		Head: []string{"RACK", "AGENT", "NODES", "READS", "BRAKE AT", "MONITOR"},
		Cells: func(r api.Rack) []string {
			return []string{r.Name, v.agentOf(r), fmt.Sprint(r.Nodes), readsCell(r), brakeBounds(r.Settings), cmp.Or(v.rackCell(r), wellCell(r))}
		},
		WideHead: []string{"DOMAINS"},
		WideCells: func(r api.Rack) []string {
			return []string{strings.Join(domainWords(r.State.Domains), "; ")}
		},
	}
}

func (v view) agentOf(r api.Rack) string {
	if !r.AgentState.Absent() {
		return r.Agent
	}
	return fmt.Sprintf("%s (%s)", r.Agent, r.AgentState.Text(v.Now()))
}

// readsCell is the schedule of the readings: the one in force, else the one set.
func readsCell(r api.Rack) string {
	set, told := r.Settings.Monitor, r.State.Monitor
	if set != "" && told != "" && set != told && !strings.HasPrefix(told, set+" ") && !strings.Contains(told, "(central's is ignored") {
		return set + " (not yet confirmed by its agent)"
	}
	return cmp.Or(told, set, "as the agent says")
}

func brakeBounds(r api.RackSettings) string {
	return fmt.Sprintf("%d %%, %d nodes", cmp.Or(r.BrakePercent, power.DefaultBrakePercent), cmp.Or(r.BrakeAbove, power.DefaultBrakeAbove))
}

// rackCell is monitorCell of a rack: what central was told to set, and its agent has not
// confirmed, is said to be so.
func (v view) rackCell(r api.Rack) string {
	asked, told := r.Settings.Pause.Active(v.Now()), r.State.Pause.Active(v.Now())
	if asked == told {
		return v.monitorCell(&r.State)
	}
	state, words := r.State, "resuming, not yet confirmed by its agent"
	state.Pause = nil
	if asked {
		words = v.pauseCell(r.Settings.Pause) + ", not yet confirmed by its agent"
	}
	if rest := v.monitorCell(&state); rest != "" {
		words += ", " + rest
	}
	return words
}

// pauseOf is the pause of a rack in full, as rackCell.
func (v view) pauseOf(r api.Rack) string {
	asked, told := v.pauseWords(r.Settings.Pause), v.pauseWords(r.State.Pause)
	switch {
	case asked == "" && told != "":
		return told + "; resuming, not yet confirmed by its agent"
	case asked != "" && told == "":
		return asked + "; not yet confirmed by its agent"
	}
	return asked
}

// wellCell is about a monitor that nothing is known to keep from its work.
func wellCell(r api.Rack) string {
	if !r.AgentState.Absent() {
		return "ok"
	}
	return "not known"
}

// monitorCell is what keeps a monitor from its work, "" when nothing does.
func (v view) monitorCell(r *api.RackState) string {
	if r == nil {
		return ""
	}
	var notes []string
	if r.Monitor == "off" {
		notes = append(notes, "off")
	}
	if r.Brake != nil {
		notes = append(notes, fmt.Sprintf("brake holds %s (%s)", power.Count(len(r.Brake.Nodes), "node"), r.Brake.Kind))
	}
	if pause := v.pauseCell(r.Pause); pause != "" {
		notes = append(notes, pause)
	}
	if r.Faults > 0 {
		notes = append(notes, fmt.Sprintf("%s in fault", power.Count(r.Faults, "node")))
	}
	if r.OpenBreakers > 0 {
		notes = append(notes, fmt.Sprintf("%s left alone", power.Count(r.OpenBreakers, "BMC")))
	}
	return strings.Join(notes, ", ")
}

func (v view) pauseCell(pause *api.Pause) string {
	if !pause.Active(v.Now()) {
		return ""
	}
	text := "paused by " + pause.By
	if pause.Site {
		text = "all racks paused by " + pause.By
	}
	if pause.Until.IsZero() {
		return text
	}
	return text + " until " + v.Time(pause.Until)
}

// domainWords describes the queues of power domains.
func domainWords(domains []api.DomainState) []string {
	var words []string
	for _, d := range domains {
		words = append(words, facts.Domain(d))
	}
	return words
}

func showRack(s *session) error {
	rack, err := s.rack()
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, s.rackListing([]api.Rack{rack}))
	}
	st := rack.State
	s.Details("rack", rack.Name, "agent", s.agentOf(rack), "nodes", fmt.Sprint(rack.Nodes), "reads", readsCell(rack), "brake at",
		brakeBounds(rack.Settings),
		"credentials", rack.Settings.Credentials, "agents", strings.Join(rack.Settings.Agents, ", "), "brake", s.brakeWords(st.Brake),
		"pause", s.pauseOf(rack),
		"in fault", power.Count(st.Faults, "node"), "left alone", power.Count(st.OpenBreakers, "BMC"))
	for _, words := range domainWords(st.Domains) {
		s.Details("domain", words)
	}
	return nil
}

func (v view) brakeWords(b *api.Brake) string { return v.Readable(facts.Brake(b, v.Now())) }

func (v view) pauseWords(pause *api.Pause) string { return v.Readable(facts.Pause(pause, v.Now())) }

func setRack(s *session) error {
	in := api.SetRack{AskedBy: s.askedBy(), Reason: s.c.String("reason")}
	var said []string
	if s.c.IsSet("monitor") {
		text := strings.TrimSpace(s.c.String("monitor"))
		in.Monitor = &text
		said = append(said, "reads "+cmp.Or(text, "as the agent says"))
	}
	for flag, into := range map[string]**int{"brake-percent": &in.BrakePercent, "brake-above": &in.BrakeAbove} {
		if s.c.IsSet(flag) {
			n := s.c.Int(flag)
			*into = &n
		}
	}
	if in.BrakePercent != nil || in.BrakeAbove != nil {
		said = append(said, "brake at %s")
	}
	if s.c.IsSet("credentials") {
		name := strings.TrimSpace(s.c.String("credentials"))
		in.Credentials = &name
		said = append(said, "credentials "+cmp.Or(name, "none"))
	}
	if s.c.IsSet("agents") {
		names := agentNames(s.c.String("agents"))
		in.Agents = &names
		said = append(said, "agents "+cmp.Or(strings.Join(names, ", "), "its own"))
	}
	if len(said) == 0 {
		return settings.Usage("nothing to set: give --monitor, --brake-percent, --brake-above, --credentials or --agents")
	}
	if err := in.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	rack, err := s.rack()
	if err != nil {
		return err
	}
	if rack, err = s.client.SetRack(s.ctx, rack.Name, in); err != nil {
		return err
	}
	return s.showRack(rack, strings.ReplaceAll(strings.Join(said, ", "), "%s", brakeBounds(rack.Settings)))
}

// showRack tells what was done to a rack.
func (v view) showRack(rack api.Rack, what string) error {
	if v.People() {
		v.Say("rack %s: %s", term.Clean(rack.Name), term.Clean(what))
		if rack.AgentState.Absent() && !v.Quiet {
			v.Warn("its agent %s: it learns of it when it is back", term.Clean(rack.AgentState.Predicate(v.Now())))
		}
		for _, note := range rack.Notes {
			v.Warn("%s", term.Clean(note))
		}
		return nil
	}
	return printer.Show(v.Printer, v.rackListing([]api.Rack{rack}))
}

// fewRacks is up to how many racks are asked for by name.
const fewRacks = 50

// noteRacks says on stderr which of the nodes' agents are away, and what keeps the
// monitors of their racks from correcting them. Who cannot say so, says nothing. Without nodes
// they are those that the expression selects.
func (s *session) noteRacks(expr string, nodes []api.Node) {
	if s.Quiet || !s.People() || expr == "" && len(nodes) == 0 && s.server != atAgent {
		return
	}
	concerned := map[string]bool{}
	for _, n := range nodes {
		concerned[n.Rack] = true
	}
	if expr == "" && len(concerned) > 0 && len(concerned) <= fewRacks {
		expr = "@" + strings.Join(slices.Sorted(maps.Keys(concerned)), ",@")
	}
	var racks []api.Rack
	var err error
	if expr == "" || len(expr) > longest || s.server != atCentral {
		racks, err = s.client.Racks(s.ctx)
	} else {
		racks, err = s.client.RacksOf(s.ctx, expr)
	}
	if err != nil {
		return
	}
	var away, alarmed, braked, paused []string
	byName := map[string]api.Rack{}
	for _, r := range racks {
		if len(nodes) > 0 && !concerned[r.Name] && s.server != atAgent {
			continue
		}
		byName[r.Name] = r
		for _, note := range []struct {
			list *[]string
			is   bool
		}{
			{&away, r.AgentState.Absent()},
			{&alarmed, len(r.State.Alarms) > 0},
			{&braked, r.State.Brake != nil},
			{&paused, s.pauseOf(r) != ""},
		} {
			if note.is {
				*note.list = append(*note.list, r.Name)
			}
		}
	}
	s.WarnEach(away, "racks %s: their agents are away: their nodes are shown as they were last read (rackpower agents)", func(name string) {
		r := byName[name]
		s.Warn("rack %s: agent %s %s: its nodes are shown as they were last read", term.Clean(r.Name), term.Clean(r.Agent),
			term.Clean(r.AgentState.Predicate(s.Now())))
	})
	s.WarnEach(alarmed, "racks %s: alarm (rackpower agents)", func(name string) {
		for _, a := range byName[name].State.Alarms {
			s.Warn("rack %s: %s", term.Clean(name), term.Clean(facts.Alarm(a)))
		}
	})
	s.WarnEach(braked, "racks %s: the brake holds: "+s.server.command+" brake show",
		func(name string) { s.noteBrake(s.server, name, *byName[name].State.Brake) })
	s.WarnEach(paused, "racks %s: the monitor is paused ("+s.server.command+" rack list)", func(name string) {
		s.Warn("rack %s: the monitor is paused %s", term.Clean(name), term.Clean(s.pauseOf(byName[name])))
	})
}

func (v view) noteBrake(d server, rack string, b api.Brake) {
	v.Warn("rack %s: the brake holds %s (%s) since %s: %s brake show", term.Clean(rack), power.Count(len(b.Nodes), "node"), term.Clean(b.Kind),
		v.Since(b.Since), d.command)
}
