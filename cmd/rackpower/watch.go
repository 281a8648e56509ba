package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/internal/backoff"
	"rackpower/power/noderange"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name: "watch", Category: "look", Usage: "show events as they happen, until interrupted", ArgsUsage: "[NODES...]",
		Action: atCentral.with(watchEvents),
		Description: "Requests and their outcomes, statuses, holds, faults, drift, brakes: the audit log from now on; --since\n" +
			"and --limit add earlier entries. When central is away it says so, and continues when central is back." + nodesHelp +
			examples("rackpower watch", "rackpower watch @rack1 --since 1h", "rackpower watch -o jsonl") + exitHelp,
		Flags: atCentral.flags(
			sinceFlag("begin with the events since `TIME`"),
			&cli.IntFlag{Name: "limit", Usage: "begin with the newest `N` events", DefaultText: "none, 1000 with --since"},
		),
	}
}

// How long a poll of the audit log waits, and how long a central that is away is
// left alone.
// Tests are more impatient.
const watchPoll = 30 * time.Second

var watchAgain = time.Second

// events follows the audit log.
type events struct {
	s     *session
	expr  string
	since time.Time // zero: from now on
	after int64     // id of the newest entry that needs not be shown
	away  bool
	node  int // width of the column
	what  int
}

func watchEvents(s *session) error {
	expr, err := s.selection(s.c.Args().Slice())
	if err != nil {
		return err
	}
	if limit := s.c.Int("limit"); limit < 0 {
		return settings.Usage("--limit: %d is not at least 0", limit)
	}
	if expr != "" {
		var none nothing // now; events to come may match
		if _, err := s.selected(expr); err != nil && !errors.As(err, &none) {
			return err
		}
	}
	if s.Format == "json" {
		s.Format = "jsonl" // one array could never end
	}
	since, err := s.when("since")
	if err != nil {
		return err
	}
	e := &events{s: s, expr: expr, since: since, node: 6, what: 9}
	if err := e.begin(); err != nil {
		return e.ended(err)
	}
	return e.ended(e.follow())
}

// ended makes of an interruption the end that it is meant to be.
func (e *events) ended(err error) error {
	if e.s.ctx.Err() != nil {
		return nil
	}
	return err
}

// begin finds the newest entry, and shows the requested ones before it.
func (e *events) begin() error {
	newest, err := e.s.client.Audit(e.s.ctx, "", 1)
	if err != nil {
		return err
	}
	if len(newest) > 0 {
		e.after = newest[len(newest)-1].ID
	}
	limit := e.s.c.Int("limit")
	if e.since.IsZero() && limit == 0 {
		return nil
	}
	before, err := e.s.client.Audit(e.s.ctx, e.expr, cmp.Or(limit, 1000))
	if err != nil {
		return err
	}
	var wanted []api.AuditEntry
	for _, entry := range before {
		recent := !entry.At.Before(e.since) // what became known since then
		if recent && entry.ID <= e.after {
			wanted = append(wanted, entry)
		}
	}
	return e.show(wanted)
}

// follow shows what comes, until the context ends.
func (e *events) follow() error {
	for {
		asked, wait := time.Now(), watchPoll
		if e.away {
			wait = 0 // whether it is back is news by itself
		}
		entries, err := e.s.client.AuditAfter(e.s.ctx, e.expr, e.after, wait)
		switch {
		case e.s.ctx.Err() != nil:
			return nil
		case lost(err):
			e.lost(err)
		case err != nil:
			return err
		default:
			e.back()
			if err := e.news(entries); err != nil {
				return err
			}
		}
		if lost(err) || len(entries) == 0 && time.Since(asked) < watchAgain {
			err = backoff.Sleep(e.s.ctx, watchAgain)
		} else {
			err = backoff.Sleep(e.s.ctx, pollPause)
		}
		if err != nil {
			return nil
		}
	}
}

func (e *events) lost(err error) {
	if !e.away {
		e.s.Warn("%v; trying again", e.s.explain(err))
	}
	e.away = true
}

func (e *events) back() {
	if e.away {
		e.s.Warn("%s is back", e.s.server.who)
	}
	e.away = false
}

// news shows entries that have not been shown.
func (e *events) news(entries []api.AuditEntry) error {
	var unseen []api.AuditEntry
	for _, entry := range entries {
		if entry.ID > e.after {
			e.after = entry.ID
			unseen = append(unseen, entry)
		}
	}
	return e.show(unseen)
}

func (e *events) show(entries []api.AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	if !e.s.People() || e.s.Quiet {
		return printer.Show(e.s.Printer, e.s.auditListing(entries))
	}
	for _, ev := range together(entries) {
		if _, err := fmt.Fprintln(e.s.Out, e.line(ev)); err != nil {
			return err
		}
	}
	return nil
}

// event is entries that differ in their nodes only, for people.
type event struct {
	api.AuditEntry
	nodes []string
}

// together makes one event of what happened to several nodes in the same second. The
// order of each node's own events stays.
func together(entries []api.AuditEntry) []*event {
	var events []*event
	free := map[string]int{} // where the next event of a node may go at the earliest
	for _, entry := range entries {
		i := free[entry.Node]
		for i < len(events) && !events[i].alike(entry) {
			i++
		}
		if i == len(events) {
			events = append(events, &event{AuditEntry: entry})
		}
		if entry.Node != "" {
			events[i].nodes = append(events[i].nodes, entry.Node)
		}
		free[entry.Node] = i + 1
	}
	return events
}

// alike reports whether an entry says the same of another node.
func (ev *event) alike(entry api.AuditEntry) bool {
	a, b := ev.AuditEntry, entry
	same := a.Node != "" && b.Node != "" && happened(a).Truncate(time.Second).Equal(happened(b).Truncate(time.Second))
	for _, one := range []*api.AuditEntry{&a, &b} {
		one.ID, one.At, one.HappenedAt, one.Node, one.Op = 0, time.Time{}, time.Time{}, "", ""
	}
	return same && a == b
}

// line is an event for people: time, nodes, what, who, and what else is known.
func (e *events) line(ev *event) string {
	node, what := term.Clean(cmp.Or(noderange.Fold(ev.nodes), "-")), term.Clean(ev.What)
	e.node, e.what = max(e.node, min(term.Width(node), widest)), max(e.what, min(term.Width(what), widest))
	rest := []string{ev.Outcome, ev.Why, ev.Detail}
	if e.s.Format == "wide" && len(ev.nodes) == 1 {
		rest = append(rest, ev.Op)
	}
	if late := toldLater(ev.AuditEntry); late != "" {
		rest = append(rest, "told "+late)
	}
	var said []string
	for _, text := range rest {
		if text != "" {
			said = append(said, e.s.Readable(text))
		}
	}
	return strings.TrimRight(fmt.Sprintf("%s  %s  %s  %-8s  %s", e.s.Time(happened(ev.AuditEntry)), term.Pad(node, e.node),
		e.s.Paint(term.Pad(what, e.what)),
		term.Clean(ev.Who), strings.Join(said, ": ")), " ")
}

// widest is how wide the columns of events grow at most.
const widest = 24
