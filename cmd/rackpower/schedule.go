package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// wantRelease is what --want says for a schedule that ends holds.
const wantRelease = "release"

func scheduleCommand() *cli.Command {
	return &cli.Command{
		Name: "schedule", Category: "monitor", Usage: "set holds at the times of a cron expression",
		Description: "For example: unused nodes are off at night, test racks are on at 7. A hold that a person set takes precedence." +
			examples("rackpower schedule add night --cron '0 20 * * *' --nodes '@status:DEPLOYED&@rack1' --want off --for 11h",
				"rackpower schedule next") + exitHelp,
		Subcommands: []*cli.Command{
			scheduleAddCommand(),
			{
				Name: "list", Usage: "list the schedules", Action: atCentral.with(listSchedules), Flags: atCentral.flags(),
				Description: examples("rackpower schedule list", "rackpower schedule list -o json")[2:] + exitHelp,
			},
			{
				Name: "show", Usage: "show the details of a schedule", ArgsUsage: "NAME", Action: atCentral.with(showSchedule),
				Flags:       atCentral.flags(),
				Description: examples("rackpower schedule show night")[2:] + exitHelp,
			},
			{
				Name: "rm", Usage: "remove a schedule", ArgsUsage: "NAME", Action: atCentral.with(removeSchedule),
				Flags: atCentral.flags(reasonFlag(false)),
				Description: "Holds that it has set stay until they end; rackpower release ends them now." + examples("rackpower schedule rm night") +
					exitHelp,
			},
			{
				Name: "next", Usage: "show the next runs and what they would do now", ArgsUsage: "[NAME]",
				Action: atCentral.with(nextRuns),
				Description: "Nothing is done. LOSES are the nodes that are on now and would lose power, HELD those that a person holds, which\n" +
					"are left alone." + examples("rackpower schedule next", "rackpower schedule next night --count 14 -o json") + exitHelp,
				Flags: atCentral.flags(&cli.IntFlag{Name: "count", Value: 5, Usage: "show the next `N` runs of each schedule"}),
			},
		},
	}
}

func scheduleAddCommand() *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "add a schedule, or replace one", ArgsUsage: "NAME", Action: atCentral.with(addSchedule),
		Description: "CRON is minute, hour, day of the month, month and day of the week, or @daily, @every 6h and the like, in central's\n" +
			"local time; CRON_TZ=Europe/Oslo before it names another zone. Each run selects the nodes again.\n" +
			asksFirst[1:] + nodesHelp +
			examples("rackpower schedule add night --cron '0 20 * * 1-5' --nodes '@rack1,!r1n07' --want off --for 11h --reason \"nobody tests at "+
				"night\"",
				"rackpower schedule add morning --cron '0 7 * * 1-5' --nodes @rack1 --want release",
				"rackpower schedule add night --cron @daily --nodes @rack1 --want off --update --dry-run") + exitHelp,
		Flags: atCentral.flags(append(confirmFlags(),
			&cli.StringFlag{Name: "cron", Required: true, Usage: "run at the times of this `CRON` expression"},
			&cli.StringFlag{Name: "nodes", Required: true, Usage: "apply to the `NODES` that this expression selects at the time of the run"},
			&cli.StringFlag{Name: "want", Required: true, Usage: "hold the nodes in this `STATE`: on, off or hands-off; release: end their holds"},
			&cli.DurationFlag{Name: "for", Usage: "end each hold after `DURATION`, such as 11h or 1d", DefaultText: "until released"},
			reasonFlag(false),
			&cli.BoolFlag{Name: "update", Usage: "replace the schedule of that name if it exists"},
			&cli.BoolFlag{Name: "dry-run", Usage: "check the input, change nothing"},
		)...),
	}
}

// scheduleOf is the one that the flags describe.
func scheduleOf(s *session) (in api.PutSchedule, err error) {
	c := s.c
	in = api.PutSchedule{Update: c.Bool("update"), DryRun: c.Bool("dry-run"), AskedBy: s.askedBy()}
	in.Name, in.Cron, in.Nodes, in.Reason, in.By = strings.TrimSpace(c.Args().First()), strings.TrimSpace(c.String("cron")),
		strings.TrimSpace(c.String("nodes")), c.String("reason"), in.AskedBy
	switch {
	case in.Name == "":
		return in, settings.Usage("NAME is empty")
	case in.Cron == "":
		return in, settings.Usage("--cron is empty")
	case in.Nodes == "":
		return in, settings.Usage("--nodes: NODES is empty; use all for every node")
	}
	if in.For = c.Duration("for"); c.IsSet("for") && in.For <= 0 {
		return in, settings.Usage("--for: %s is not positive; omit the flag for no end", in.For)
	}
	if in.Want, err = scheduledWant(c.String("want")); err != nil {
		return in, settings.Usage("--want: %v", err)
	}
	if in.Want == "" && in.For > 0 {
		return in, settings.Usage("--for goes with a hold: a schedule that releases sets none")
	}
	return in, nil
}

func scheduledWant(text string) (power.Want, error) {
	if strings.EqualFold(strings.TrimSpace(text), wantRelease) {
		return "", nil
	}
	want, err := power.ParseWant(text)
	if err != nil {
		err = fmt.Errorf("%w, or %s", err, wantRelease)
	}
	return want, err
}

func addSchedule(s *session) error {
	in, err := scheduleOf(s)
	if err != nil {
		return err
	}
	nodes, err := selectedNow(s, in.Nodes)
	if err != nil {
		return err
	}
	if in.Confirmed, err = s.confirmSchedule(in, nodes); err != nil {
		return err
	}
	put, err := s.client.PutSchedule(s.ctx, in)
	if api.CodeOf(err) == api.CodeExists {
		said := s.explain(err)
		return settings.Exit(settings.CodeOf(said), "%v\n--update replaces a schedule that exists", said)
	}
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, s.scheduleListing([]api.Schedule{put}))
	}
	done := "set"
	if in.DryRun {
		done = "would be set"
	}
	s.Say("schedule %s %s: %s %s, next %s", term.Clean(put.Name), done, wantOf(put), selectedWords(nodes), s.nextRun(put))
	return nil
}

// selectedNow evaluates an expression that is going to be evaluated again and again:
// that it selects nothing now is worth a word, but no error.
func selectedNow(s *session, expr string) ([]api.Node, error) {
	all, err := s.client.Nodes(s.ctx, "all")
	if err != nil {
		return nil, err
	}
	known := make([]noderange.Node, len(all))
	for i, n := range all {
		known[i] = noderange.Node{
			Name: n.Name, Rack: n.Rack, Status: string(n.Status), State: string(n.State),
			Labels: noderange.Labels("").With(n.Labels),
		}
	}
	parsed, err := noderange.Parse(expr)
	var names []string
	if err == nil {
		names, err = parsed.Select(known) // a rack without nodes is an error, as it is to central
	}
	switch {
	case err != nil:
		return nil, settings.Exit(settings.ExitUsage, "--nodes: %s", term.Clean(err.Error()))
	case len(names) == 0:
		s.Warn("--nodes selects no node now")
	}
	return slices.DeleteFunc(all, func(n api.Node) bool { return !slices.Contains(names, n.Name) }), nil
}

// confirmSchedule asks when a run may take power from many. Whether the nodes are on
// then nobody knows now, so all that are selected count.
func (k confirmer) confirmSchedule(in api.PutSchedule, nodes []api.Node) (bool, error) {
	switch in.Want {
	case power.WantOff:
	case "":
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n api.Node) bool { return n.Status.Desired().Want != power.WantOff })
	default:
		nodes = nil
	}
	if in.DryRun {
		return k.c.Bool("yes"), nil
	}
	all := func(nodes []api.Node) []api.Node { return nodes }
	return k.confirm(impact{nodes: nodes, what: "nodes will lose power in each run, if they are on then", counts: all})
}

func selectedWords(nodes []api.Node) string {
	if len(nodes) == 0 {
		return "no node now"
	}
	return fmt.Sprintf("%s (%s now)", noderange.Fold(namesOf(nodes)), power.Count(len(nodes), "node"))
}

// wantOf is what a schedule does, in a word or two.
func wantOf(c api.Schedule) string {
	text := cmp.Or(string(c.Want), wantRelease)
	if c.For > 0 {
		text += " for " + settings.Duration(c.For)
	}
	return text
}

func (v view) nextRun(c api.Schedule) string {
	if c.NextAt.IsZero() {
		return "never"
	}
	return v.Until(c.NextAt)
}

func listSchedules(s *session) error {
	list, err := s.client.Schedules(s.ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		s.Say("no schedules (rackpower schedule add)")
	}
	return printer.Show(s.Printer, s.scheduleListing(list))
}

func (v view) scheduleListing(list []api.Schedule) printer.Listing[api.Schedule] {
	return printer.Listing[api.Schedule]{
		Rows: list, Name: func(c api.Schedule) string { return c.Name },
		Head: []string{"SCHEDULE", "CRON", "NODES", "WANT", "NEXT", "LAST"},
		Cells: func(c api.Schedule) []string {
			return []string{c.Name, c.Cron, c.Nodes, wantOf(c), v.nextRun(c), v.lastRun(c)}
		},
		WideHead:  []string{"BY", "REASON"},
		WideCells: func(c api.Schedule) []string { return []string{c.By, c.Reason} },
	}
}

func (v view) lastRun(c api.Schedule) string {
	if c.LastAt.IsZero() {
		return ""
	}
	return v.Since(c.LastAt) + because(c.LastMessage)
}

func showSchedule(s *session) error {
	c, err := s.scheduleNamed(s.c.Args().First())
	if err != nil {
		return err
	}
	if !s.People() {
		return printer.Show(s.Printer, s.scheduleListing([]api.Schedule{c}))
	}
	confirmed := "no: the fleet brake applies to each run"
	if c.Confirmed {
		confirmed = "yes, for every run"
	}
	s.Details("schedule", c.Name, "cron", c.Cron, "nodes", c.Nodes, "want", wantOf(c), "reason", c.Reason, "by", c.By, "since",
		s.Since(c.CreatedAt),
		"confirmed", confirmed, "last run", s.lastRun(c), "next run", s.nextRun(c))
	return nil
}

// scheduleNamed finds a schedule.
func (k connection) scheduleNamed(name string) (api.Schedule, error) {
	list, err := k.client.Schedules(k.ctx)
	if err != nil {
		return api.Schedule{}, err
	}
	names := make([]string, len(list))
	for i, c := range list {
		if c.Name == name {
			return c, nil
		}
		names[i] = c.Name
	}
	return api.Schedule{}, noSuch("schedule", name, names)
}

func removeSchedule(s *session) error {
	c, err := s.scheduleNamed(s.c.Args().First())
	if err != nil {
		return err
	}
	changed, err := s.client.RemoveSchedule(s.ctx, api.RemoveSchedule{Name: c.Name, AskedBy: s.askedBy(), Reason: s.c.String("reason")})
	if err != nil {
		return err
	}
	if s.People() {
		s.Say("schedule %s removed; the holds that it has set stay until they end", term.Clean(c.Name))
		return nil
	}
	return printer.Show(s.Printer, printer.Listing[api.Changed]{
		Rows: []api.Changed{changed},
		Name: func(api.Changed) string { return c.Name },
	})
}

func nextRuns(s *session) error {
	count, name := s.c.Int("count"), s.c.Args().First()
	switch {
	case count < 1:
		return settings.Usage("--count: %d is not at least 1", count)
	case s.c.NArg() > 0:
		if _, err := s.scheduleNamed(name); err != nil {
			return err
		}
	}
	runs, err := s.client.NextRuns(s.ctx, name, count)
	if err != nil {
		return err
	}
	if len(runs) == 0 {
		s.Say("no runs to come")
	}
	return printer.Show(s.Printer, s.runListing(runs))
}

func (v view) runListing(runs []api.ScheduledRun) printer.Listing[api.ScheduledRun] {
	return printer.Listing[api.ScheduledRun]{
		Rows: runs, Name: func(r api.ScheduledRun) string { return r.Schedule },
		Head: []string{"AT", "SCHEDULE", "WANT", "UNTIL", "NODES", "LOSES", "HELD"},
		Cells: func(r api.ScheduledRun) []string {
			end := ""
			if !r.Until.IsZero() {
				end = v.Time(r.Until)
			}
			return []string{
				v.Until(r.At), r.Schedule, cmp.Or(string(r.Want), wantRelease), end, cmp.Or(noderange.Fold(r.Nodes), "none"),
				noderange.Fold(r.LosingPower), noderange.Fold(r.Held),
			}
		},
	}
}
