package central

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/robfig/cron/v3"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/cronexpr"
)

// What an audit entry says happened to a schedule.
const (
	auditSchedule       = "schedule" // a run
	auditScheduleAdd    = "schedule-add"
	auditScheduleChange = "schedule-change"
	auditScheduleRemove = "schedule-remove"
)

// maxRuns bounds the runs of one schedule in one answer.
const maxRuns = 366

// readTimes reads the cron expression of a schedule: times of day, not intervals.
func readTimes(text string) (cron.Schedule, error) {
	s, err := cronexpr.Parse(text)
	if err != nil {
		return nil, err
	}
	if _, every := s.(cron.ConstantDelaySchedule); every {
		return nil, fmt.Errorf("cron expression %q names an interval: a schedule has times, such as \"0 19 * * 1-5\" or @daily", text)
	}
	if spec, ok := s.(*cron.SpecSchedule); ok && spec.Hour&everyHour != everyHour {
		return wallClock{spec}, nil
	}
	return s, nil
}

// everyHour are the hours of a schedule that names none.
const everyHour = 1<<24 - 1

// wallClock has a schedule that names hours run once for each of its times, also when
// the clocks are changed: what is left out comes as much later as they are put forward,
// and what is shown twice counts the first time.
type wallClock struct{ spec *cron.SpecSchedule }

// mostChange is more than clocks are put forward by.
const mostChange = 3 * time.Hour

// Next is the first time after t.
func (w wallClock) Next(t time.Time) (best time.Time) {
	zone := w.spec.Location
	if zone == time.Local {
		zone = t.Location()
	}
	spec := *w.spec
	spec.Location = time.UTC // where no clock is changed
	for wall := spec.Next(shown(t.In(zone)).Add(-mostChange)); !wall.IsZero(); wall = spec.Next(wall) {
		if !best.IsZero() && wall.After(shown(best)) {
			break // a later one that is left out cannot come before it
		}
		if at := showing(wall, zone); at.After(t) && (best.IsZero() || at.Before(best)) {
			best = at
		}
	}
	return best.In(t.Location())
}

// shown is what the clock of a time's zone shows, as if that were UTC.
func shown(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// showing is the first time at which the clock of a zone shows what wall says; where it
// never does, the time at which it would, had it not been put forward.
func showing(wall time.Time, zone *time.Location) time.Time {
	by := func(t time.Time) time.Time { // by the clock as it was at t
		_, ahead := t.Zone()
		return wall.Add(-time.Duration(ahead) * time.Second).In(zone)
	}
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, zone)
	if shown(t).Before(wall) {
		return by(t)
	}
	if changed, _ := t.ZoneBounds(); !changed.IsZero() {
		if first := by(changed.Add(-time.Second)); first.Before(changed) {
			return first
		}
	}
	return t
}

// next is the first time of a schedule after t, by central's own clock where the
// expression names no zone.
func next(s cron.Schedule, t time.Time) time.Time {
	if at := s.Next(t.Local()); !at.IsZero() {
		return at.UTC()
	}
	return time.Time{}
}

// nextOf is the next time of a stored schedule, zero if none can be told.
func nextOf(s store.Schedule, now time.Time) time.Time {
	times, err := readTimes(s.Cron)
	if err != nil {
		return time.Time{}
	}
	if s.Done.After(now) && !misled(s, now) {
		now = s.Done // the clock went back
	}
	return next(times, now)
}

// readSchedule checks what can be checked without the database.
func readSchedule(in api.PutSchedule, who string, now time.Time) (store.Schedule, error) {
	s := store.Schedule{Schedule: in.Schedule, Done: now.UTC()}
	s.By, s.CreatedAt, s.LastAt, s.LastMessage = who, now.UTC(), time.Time{}, ""
	times, err := readTimes(s.Cron)
	if err != nil {
		return s, err
	}
	if s.NextAt = next(times, now); s.NextAt.IsZero() {
		return s, fmt.Errorf("cron expression %q names a time that never comes", s.Cron)
	}
	if s.Want != "" {
		s.Want, err = power.ParseWant(string(s.Want))
	}
	return s, err
}

// maxSchedules is how many there may be: each is looked at when any is due.
const maxSchedules = 1000

// putSchedule adds or replaces a schedule. A dry run ends with errDryRun.
func (u *unitOfWork) putSchedule(in api.PutSchedule) (api.Schedule, error) {
	s, err := readSchedule(in, in.AskedBy, u.now)
	if err != nil {
		return s.Schedule, api.Problemf(api.CodeBadRequest, "schedule %q: %v", in.Name, err)
	}
	old, exists, err := u.tx.Schedule(s.Name)
	if err != nil {
		return s.Schedule, err
	}
	if exists && !in.Update {
		return s.Schedule, api.Problemf(api.CodeExists, "schedule %s exists already", s.Name)
	}
	if all, err := u.tx.Schedules(); err != nil {
		return s.Schedule, err
	} else if !exists && len(all) >= maxSchedules {
		return s.Schedule, api.Problemf(api.CodeQueueFull, "there are %d schedules already: remove one first (rackpower schedule rm)", len(all))
	}
	names, err := selectNodes(s.Nodes, u.tx.Selection())
	if err != nil {
		return s.Schedule, err // a mistake in a name must not be noticed at night only
	}
	what := auditScheduleAdd
	if exists {
		what = auditScheduleChange
		s.CreatedAt, s.LastAt, s.LastMessage = old.CreatedAt, old.LastAt, old.LastMessage
	}
	if in.DryRun {
		return s.Schedule, errDryRun
	}
	nodes, err := u.tx.NodesNamed(names)
	if err != nil {
		return s.Schedule, err
	}
	for _, held := range nodes {
		held.Hold = holdOf(s, u.now, u.now)
		if turnsOff(held, u.now) != offNever {
			held.State = power.Unknown // whatever it is when the time has come
			if err := u.loses(held); err != nil {
				return s.Schedule, err
			}
		}
	}
	if err := u.tx.PutSchedule(s); err != nil {
		return s.Schedule, err
	}
	detail := describeSchedule(s.Schedule)
	if exists {
		detail += ", was " + describeSchedule(old.Schedule)
	}
	return s.Schedule, u.audit(what, "", s.Reason, fmt.Sprintf("schedule %s: %s", s.Name, detail))
}

// describeSchedule is "0 19 * * 1-5: @status:READY off for 12h0m0s".
func describeSchedule(s api.Schedule) string {
	text := fmt.Sprintf("%s: %s %s", s.Cron, s.Nodes, cmp.Or(string(s.Want), "released"))
	if s.For > 0 {
		text += " for " + s.For.String()
	}
	if s.Confirmed {
		text += ", confirmed"
	}
	return text
}

func (c *Central) removeSchedule(r *http.Request, in api.RemoveSchedule) (api.Changed, error) {
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err := c.store.Write(r.Context(), func(tx *store.Tx) error {
		old, found, err := tx.Schedule(in.Name)
		if err != nil {
			return err
		}
		if !found {
			return api.Problemf(api.CodeNotFound, "no such schedule: %s", in.Name)
		}
		if err := tx.DeleteSchedule(in.Name); err != nil {
			return err
		}
		detail := fmt.Sprintf("schedule %s: %s", in.Name, describeSchedule(old.Schedule))
		return tx.AddAudit(api.AuditEntry{At: now, Who: who, What: auditScheduleRemove, Why: in.Reason, Detail: detail})
	})
	if err != nil {
		return api.Changed{}, err
	}
	return api.Changed{Changed: 1}, nil
}

func (c *Central) listSchedules(r *http.Request) ([]api.Schedule, error) {
	out := []api.Schedule{}
	now := c.cfg.Now()
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		all, err := tx.Schedules()
		for _, s := range all {
			s.NextAt = nextOf(s, now)
			out = append(out, s.Schedule)
		}
		return err
	})
	return out, err
}

// nextRuns lists runs to come, with the nodes as they are now, in the order of time.
func (c *Central) nextRuns(r *http.Request) ([]api.ScheduledRun, error) {
	name, count := r.URL.Query().Get("name"), 1
	if text := r.URL.Query().Get("count"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxRuns {
			return nil, api.Problemf(api.CodeBadRequest, "count %q is not between 0 and %d", text, maxRuns)
		}
		count = max(n, 1)
	}
	out := []api.ScheduledRun{}
	now := c.cfg.Now()
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		all, err := tx.Schedules()
		if err != nil {
			return err
		}
		if name != "" {
			all = slices.DeleteFunc(all, func(s store.Schedule) bool { return s.Name != name })
			if len(all) == 0 {
				return api.Problemf(api.CodeNotFound, "no such schedule: %s", name)
			}
		}
		in, err := within(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			p, err := planOf(tx, s, in, now)
			if err != nil {
				return err
			}
			out = append(out, runsOf(s, p, count, now)...)
		}
		return nil
	})
	return out, err
}

// runName is where a run is in a list: they are in the order of their times.
func runName(run api.ScheduledRun) string { return timeName(run.At) + " " + run.Schedule }

func runsOf(s store.Schedule, p plan, count int, now time.Time) (runs []api.ScheduledRun) {
	run := api.ScheduledRun{Schedule: s.Name, Want: s.Want, Nodes: namesOf(p.selected), LosingPower: []string{}, Held: namesOf(p.held)}
	for _, n := range p.change {
		after := power.Effective(n.Status, holdOf(s, now, now), now)
		if n.State == power.On && after.Want == power.WantOff && !after.NoCut && !n.Protected.On() {
			run.LosingPower = append(run.LosingPower, n.Name)
		}
	}
	times, err := readTimes(s.Cron)
	if err != nil {
		return nil
	}
	at := nextOf(s, now)
	for ; count > 0 && !at.IsZero(); count, at = count-1, next(times, at) {
		run.At, run.Until = at, time.Time{}
		if s.For > 0 {
			run.Until = at.Add(s.For)
		}
		runs = append(runs, run)
	}
	return runs
}

func namesOf(nodes []store.Node) []string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return names
}
