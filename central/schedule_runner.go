package central

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Outcomes of a run in the audit log.
const (
	runDone   = "done"
	runMissed = "missed" // central was not running, and the time of its holds is over
	runFailed = "failed" // nothing can be selected
)

// due is a run of a schedule whose time has come.
type due struct {
	store.Schedule
	at time.Time
}

// runSchedules carries out the schedules whose time has come since they were carried
// out last. Of several times that were missed the latest counts.
func (c *Central) runSchedules(ctx context.Context) {
	now := c.cfg.Now()
	some := false
	err := c.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Schedules()
		some = len(dueRuns(all, now)) > 0 || slices.ContainsFunc(all, func(s store.Schedule) bool { return misled(s, now) })
		return err
	})
	if err == nil && some {
		err = c.write(ctx, now, "central", (*unitOfWork).runDue)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		c.log.Error("cannot run schedules", "err", err)
	}
}

// setBack is by how much at least a clock was wrong that went back.
const setBack = 24 * time.Hour

// misled reports whether runs are over by a clock that was far ahead: what is to come
// by the clock of now would not be carried out for long.
func misled(s store.Schedule, now time.Time) bool { return s.Done.Sub(now) > setBack }

// dueRuns returns the runs that are due, in the order of their times.
func dueRuns(all []store.Schedule, now time.Time) (runs []due) {
	for _, s := range all {
		times, err := readTimes(s.Cron)
		if err != nil {
			continue // it was read when it was stored: the zone is gone from this machine
		}
		// What was carried out is over, also when a clock that was not set yet led to
		// believe that it is still to come.
		if at := latest(times, s.Done, now); !at.IsZero() && !at.Equal(s.LastAt) {
			runs = append(runs, due{s, at})
		}
	}
	slices.SortStableFunc(runs, func(a, b due) int { return a.at.Compare(b.at) })
	return runs
}

// latest is the latest time of a schedule after done and not after now; zero: none.
// It looks back step by step, so that a long absence costs no more than a short one.
func latest(s cron.Schedule, done, now time.Time) time.Time {
	const day = 24 * time.Hour
	for _, back := range []time.Duration{time.Hour, day, 32 * day, 366 * day, 10 * 366 * day} {
		from := now.Add(-back)
		if from.Before(done) {
			from = done
		}
		at := time.Time{}
		for t := next(s, from); !t.IsZero() && !t.After(now); t = next(s, t) {
			at = t
		}
		if !at.IsZero() || from.Equal(done) {
			return at
		}
	}
	return time.Time{}
}

// runDue carries out what is due, all in one job: what is carried out and that it was
// are durable together.
func (u *unitOfWork) runDue() error {
	all, err := u.tx.Schedules()
	if err != nil {
		return err
	}
	for i := range all {
		if s := &all[i]; misled(*s, u.now) {
			s.Done = u.now.UTC()
			if err := u.replaceSchedule(*s); err != nil {
				return err
			}
		}
	}
	for _, run := range dueRuns(all, u.now) {
		if err := u.run(run); err != nil {
			return err
		}
	}
	return nil
}

// replaceSchedule stores a schedule whose Done may go back.
func (u *unitOfWork) replaceSchedule(s store.Schedule) error {
	if err := u.tx.DeleteSchedule(s.Name); err != nil {
		return err
	}
	return u.tx.PutSchedule(s)
}

func (u *unitOfWork) run(d due) error {
	s := d.Schedule
	s.Done = d.at
	says, outcome := "", runMissed
	if s.For > 0 && !u.now.Before(d.at.Add(s.For)) {
		says = fmt.Sprintf("missed: central was not running, and it would have lasted until %s", power.At(d.at.Add(s.For)))
	} else {
		var err error
		if says, outcome, err = u.carryOut(s, d.at); err != nil {
			return err
		}
		s.LastAt = d.at
	}
	s.LastMessage = says
	if err := u.tx.PutSchedule(s); err != nil {
		return err
	}
	detail := fmt.Sprintf("schedule %s of %s: %s", s.Name, power.At(d.at), says)
	return u.tx.AddAudit(api.AuditEntry{At: u.now, Who: s.By, What: auditSchedule, Why: s.Reason, Outcome: outcome, Detail: detail})
}

// carryOut sets or releases the holds of a run.
func (u *unitOfWork) carryOut(s store.Schedule, at time.Time) (says, outcome string, err error) {
	p, err := planOf(u.tx, s, nil, u.now)
	if err != nil {
		return "", "", err
	}
	if p.err != nil {
		return p.err.Error(), runFailed, nil
	}
	for _, n := range p.change {
		if err := u.hold(n, holdOf(s, at, u.now), ""); err != nil {
			return "", "", err
		}
	}
	return p.says(s), runDone, nil
}

// holdOf is the hold that a run at a time sets, or the release.
func holdOf(s store.Schedule, at, now time.Time) power.Hold {
	h := power.Hold{
		Want: s.Want, By: s.By, Reason: cmp.Or(s.Reason, "schedule "+s.Name), Schedule: s.Name, Since: now.UTC(),
		Confirmed: s.Confirmed,
	}
	if s.For > 0 {
		h.Until = at.Add(s.For).UTC()
	}
	return h
}

// plan is what a run means for the nodes, as they are.
type plan struct {
	selected []store.Node
	change   []store.Node // get a hold, or lose one
	held     []store.Node // a person holds them: left alone
	gone     []string     // named, and no longer there
	err      error        // nothing can be selected
}

// planOf finds the nodes of a run. What a person holds is never changed, neither by a
// hold nor by a release; what is as it would be is not changed either.
// in has the names of those that count; nil: all.
func planOf(tx *store.Tx, s store.Schedule, in map[string]bool, now time.Time) (p plan, err error) {
	from := tx.Selection()
	if in != nil {
		from = noderange.Within(from, in)
	}
	names, gone, err := selectThere(s.Nodes, from)
	if finds(err) || errors.As(err, new(*noderange.SyntaxError)) {
		p.err = err
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.gone = gone
	nodes, err := tx.NodesNamed(names)
	if err != nil {
		return p, err
	}
	h := holdOf(s, now, now)
	for _, n := range inOrder(nodes) {
		p.selected = append(p.selected, n)
		switch {
		case n.Hold.Active(now) && n.Hold.Schedule == "":
			p.held = append(p.held, n)
		case !alike(n.Hold, h, now):
			p.change = append(p.change, n)
		}
	}
	return p, nil
}

// says is "12 nodes held off (r1n[01-12]); 1 held by people, left alone (r1n13)".
func (p plan) says(s store.Schedule) string {
	var parts []string
	add := func(format string, names []string) {
		if len(names) > 0 {
			parts = append(parts, fmt.Sprintf(format, len(names), noderange.Fold(names)))
		}
	}
	what := "%d held " + string(s.Want) + " (%s)"
	if s.Want == "" {
		what = "%d released (%s)"
	}
	add(what, namesOf(p.change))
	if same := len(p.selected) - len(p.change) - len(p.held); same > 0 {
		parts = append(parts, fmt.Sprintf("%d so already", same))
	}
	add("%d held by people, left alone (%s)", namesOf(p.held))
	add("%d no longer there (%s)", p.gone)
	if len(parts) == 0 {
		return "no node is selected"
	}
	return strings.Join(parts, "; ")
}

// selectThere selects like selectNodes, but passes over names that are no longer
// there: a node that was removed must not keep a schedule from the others.
func selectThere(expr string, from noderange.Source) (names, gone []string, err error) {
	parsed, err := noderange.Parse(expr)
	if err != nil {
		return nil, nil, err
	}
	for {
		names, err = parsed.From(noderange.Also(from, gone))
		var unknown *noderange.UnknownError
		if !errors.As(err, &unknown) {
			break
		}
		gone = append(gone, unknown.Names...)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(gone, name) })
	return names, gone, err
}
