package central

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// report stores what an agent says. Its answer comes after the commit, so the
// agent may forget what it reported.
func (c *Central) report(r *http.Request, in api.Report) (api.Reported, error) {
	name := r.PathValue("name")
	d := c.sessions.known(name)
	if d == nil {
		return api.Reported{}, errHello(name)
	}
	if err := checkReport(in); err != nil {
		return api.Reported{}, err
	}
	now := c.cfg.Now()
	var out api.Reported
	err := c.store.Write(r.Context(), func(tx *store.Tx) error {
		a, err := checkSession(tx, name, in.Session)
		if err != nil {
			return err
		}
		if a.JournalID != in.JournalID {
			return errHello(name)
		}
		tx.OnCommit(func() { out.Rev = c.store.Rev() })
		if d.late(in.Run, in.Nth) {
			in.Readings, in.Rack = nil, nil // a later one has told how things stand
		}
		in.Readings = plausible(in.Readings, d.ahead(in.SentAt, now), now)
		if err := c.follow(tx, name, in.Seq, now); err != nil {
			return err
		}
		if in.Rev > a.Rev {
			in.Rev = 0 // nobody goes by what there was never
		}
		if out.Ended, err = c.applyReport(tx, name, in, now); err != nil {
			return err
		}
		if d.leaving() && in.Rev > 0 {
			if err := c.lettingGo(tx, name, in.Rev, in.Unreleased, now); err != nil {
				return err
			}
		}
		if in.LSN > a.LSN {
			return tx.ReportedLSN(name, in.LSN, now)
		}
		return nil
	})
	if err != nil {
		return api.Reported{}, err
	}
	d.heard(now)
	d.answer(in.Explained)
	out.Seq = c.store.Seq(now)
	return out, nil
}

// Bounds of one report. Agents send less at once.
const (
	maxReportOps      = 5_000
	maxReportReadings = 10_000
	maxReportHolds    = 20_000
	maxExplained      = 1_000
)

// checkReport refuses what no agent sends, before it holds up those that write.
func checkReport(in api.Report) error {
	for _, b := range []struct {
		what    string
		n, most int
	}{
		{"operations", len(in.Ops), maxReportOps},
		{"readings", len(in.Readings), maxReportReadings},
		{"holds", len(in.Holds), maxReportHolds},
		{"explanations", len(in.Explained), maxExplained},
	} {
		if b.n > b.most {
			return api.Problemf(api.CodeQueueFull, "a report of %d %s: at most %d at once", b.n, b.what, b.most)
		}
	}
	return checkPosition(in.Epoch, in.LSN)
}

// checkPosition refuses positions in a journal that none comes to.
func checkPosition(epoch, lsn uint64) error {
	if max(epoch, lsn) >= 1<<62 {
		return api.Problemf(api.CodeBadRequest, "record %d of epoch %d: no journal comes to that", lsn, epoch)
	}
	return nil
}

// follow takes the sequence of an agent whose request was accepted. One that is too far
// ahead of central's clock is not followed: all that is asked for until that time would
// be older than it.
func (c *Central) follow(tx *store.Tx, agent string, seq power.Seq, now time.Time) error {
	switch {
	case seq == 0:
		return nil
	case c.store.MergeSeq(seq, now):
		return c.clear(tx, agent, api.AlarmSequenceAhead, now)
	}
	return c.raiseAhead(tx, agent, "its sequence", now)
}

func (c *Central) raiseAhead(tx *store.Tx, agent, what string, now time.Time) error {
	return c.raise(tx, agent, api.Alarm{
		Kind: api.AlarmSequenceAhead, Remedy: "see to the clocks of both machines (timedatectl)",
		Message: fmt.Sprintf("%s is more than %s ahead of central's clock and is not followed: one of the two clocks is wrong", what,
			power.MaxAhead),
	}, now)
}

// each takes one item of a report. What cannot be stored is skipped and counted, so that
// it keeps no other item back; only a failing disk ends the report.
func (c *Central) each(tx *store.Tx, agent, what string, take func() error) error {
	err := tx.Try(take)
	if err == nil || errors.Is(err, store.ErrDisk) || errors.Is(err, store.ErrRemoved) || errors.Is(err, store.ErrCorrupt) {
		return err
	}
	c.skipped.Add(1)
	c.log.Error("skipped in a report", "agent", agent, "what", what, "err", err)
	return nil
}

// applyReport takes a report. It returns the operations that had ended otherwise here, which
// the agent is told.
func (c *Central) applyReport(tx *store.Tx, name string, in api.Report, now time.Time) ([]api.EndedOp, error) {
	var differ differing
	marks := marks{}
	for _, w := range in.Ops {
		if err := c.each(tx, name, "operation "+w.Op.ID,
			func() error { return c.applyOpReport(tx, name, w, in.JournalID, marks, &differ, now) }); err != nil {
			return nil, err
		}
	}
	if err := differ.tell(c, tx, name, now); err != nil {
		return nil, err
	}
	return differ.ends, c.applyRest(tx, name, in, marks, now)
}

// differing are operations that an agent says have ended otherwise than they did here.
type differing struct {
	ends  []api.EndedOp
	texts []string
}

func (d *differing) note(o *store.Op, there power.Outcome) {
	d.ends = append(d.ends, api.EndedOp{OpRef: refOf(o), End: endOf(o)})
	d.texts = append(d.texts, fmt.Sprintf("%s of node %s (%s at the agent, %s here)", o.Action, o.Node, there, o.Outcome))
}

// tell raises the alarm about them.
func (d *differing) tell(c *Central, tx *store.Tx, agent string, now time.Time) error {
	if len(d.texts) == 0 {
		return nil
	}
	text := d.texts[0]
	if more := len(d.texts) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return c.raise(tx, agent, api.Alarm{
		Kind: api.AlarmOutcomesDiffer, NeedsAck: true, Message: "the agent reported another end of what had ended, which stays as it was: " +
			text,
	}, now)
}

// applyRest takes what a report says beside operations.
func (c *Central) applyRest(tx *store.Tx, name string, in api.Report, marks marks, now time.Time) error {
	if err := c.each(tx, name, "holds", func() error { return c.applyHolds(tx, name, in.Holds, now) }); err != nil {
		return err
	}
	if in.Rack != nil {
		if err := c.applyRackState(tx, name, *in.Rack, now); err != nil {
			return err
		}
		marks.note(0)
	}
	rev := in.Rev
	if rev == 0 {
		rev = c.sessions.of(name).holds()
	}
	u := c.unitOfWork(tx, now, "agent "+name)
	for _, r := range in.Readings {
		err := c.each(tx, name, "reading of "+r.Node, func() error {
			return errors.Join(c.located(tx, name, r, u), c.storeReading(tx, name, r, rev, marks, now))
		})
		if err != nil {
			return err
		}
	}
	if len(in.Readings) > 0 {
		tx.OnCommit(func() { c.sessions.of(name).saw(in.Readings) })
		marks.note(0)
	}
	c.announce(tx, marks)
	return u.finish()
}

// plausible drops readings that carry no time of their own or no known state, and
// keeps the newest of each node, with its times by central's clock, which is ahead
// of the agent's. None lies in the future.
func plausible(all []api.NodeReading, ahead time.Duration, now time.Time) []api.NodeReading {
	newest := make(map[string]api.NodeReading, len(all))
	for _, r := range all {
		if r.TriedAt.IsZero() {
			r.TriedAt = r.ObservedAt
		}
		if r.ObservedAt.Unix() <= 0 {
			r.ObservedAt = time.Time{}
		}
		if r.State != power.On && r.State != power.Off {
			r.State = power.Unknown
		}
		if r.Node != "" && r.Reach != "" && r.TriedAt.Unix() > 0 && r.TriedAt.After(newest[r.Node].TriedAt) {
			newest[r.Node] = r
		}
	}
	for node, r := range newest {
		by := ahead
		if late := now.Sub(r.TriedAt); late < by {
			by = late
		}
		r.TriedAt = r.TriedAt.Add(by)
		if !r.ObservedAt.IsZero() {
			r.ObservedAt = r.ObservedAt.Add(by)
		}
		r.TriedAt, r.ObservedAt = notAfter(r.TriedAt, now), notAfter(r.ObservedAt, now)
		newest[node] = r
	}
	return slices.Collect(maps.Values(newest))
}

func notAfter(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// applyOpReport takes the report on one operation. One that had ended otherwise here is added to
// differ.
func (c *Central) applyOpReport(tx *store.Tx, name string, w api.OpReport, journal string, marks marks, differ *differing,
	now time.Time,
) error {
	if w.Op.ID == "" {
		return nil
	}
	o, found, err := tx.Op(w.Op.ID)
	if err != nil {
		return err
	}
	if w.LSN == 0 && w.Reason == power.ReasonNoNode && !found {
		return nil // the agent refused it, as it should: the node is not its own
	}
	if !found && w.Op.AskedAt.IsZero() {
		return nil // an end that its agent kept in short: who asked for it is not known any more
	}
	if what, err := c.notIts(tx, name, w, o, found); err != nil || what != "" {
		return errors.Join(err, c.disown(tx, name, foreignReport{node: w.Op.Node, op: w.Op.ID, what: what, outcome: outcomeOf(w)}, now))
	}
	if !c.store.MergeSeq(w.Op.Seq, now) {
		w.Op.Seq = tx.NextSeq(now) // it happened all the same, and stands where it was heard of
	}
	if !found {
		o = entered(w.Op, name)
	}
	seq := o.Seq
	news, how := advanceOp(&o, past(w, now), journal)
	switch how {
	case contradicts:
		c.contradictions.Add(1)
		c.log.Warn("another end was reported for an operation that has ended", "agent", name, "op", o.ID, "outcome", o.Outcome, "reported",
			w.End.Outcome)
		differ.note(&o, w.End.Outcome)
		return nil
	case malformed:
		what := fmt.Sprintf("a report that makes no sense: phase %.20q with %s", w.Phase, cmp.Or(outcomeOf(w), "no outcome"))
		return c.disown(tx, name, foreignReport{node: w.Op.Node, op: w.Op.ID, what: what, outcome: outcomeOf(w)}, now)
	case ignored:
		return nil
	}
	save := tx.SaveOp
	if !found {
		save = tx.AddOp
	}
	if err := save(&o); err != nil {
		return err
	}
	if o.Seq != seq {
		if err := tx.MoveOp(&o); err != nil {
			return err
		}
	}
	marks.note(o.Rev)
	if !found {
		at := o.AskedAt
		if at.IsZero() || at.After(now) {
			at = now // a rack's clock must not write into the future
		}
		e := entry(&o, auditAsked, o.AskedBy, now)
		e.HappenedAt = at
		if err := tx.AddAudit(e); err != nil {
			return err
		}
	}
	for _, what := range news {
		e := entry(&o, what, "agent "+name, now)
		if what == auditAccepted {
			e.Why = string(w.Reason) // the operation's own is that of its end by now
			if !found {
				e.HappenedAt = o.AskedAt // at the rack, at once
			}
		}
		if err := tx.AddAudit(e); err != nil {
			return err
		}
	}
	return c.together(tx, &o, "agent "+name, marks, now)
}

// past is a report whose times do not lie in the future: a rack's clock may run ahead.
func past(w api.OpReport, now time.Time) api.OpReport {
	if w.StartedAt.After(now) {
		w.StartedAt = now
	}
	if w.End != nil && w.End.At.After(now) {
		end := *w.End
		end.At = now
		w.End = &end
	}
	return w
}

// together ends requests with the operation that they joined, in whatever order
// the two are heard of. The agent reports each of them as well, with the same end.
func (c *Central) together(tx *store.Tx, o *store.Op, who string, marks marks, now time.Time) error {
	if o.Stage() == store.StageEnded {
		return c.endJoiners(tx, o, who, marks, now)
	}
	if o.Joined == "" || o.Joined == o.ID {
		return nil
	}
	first, found, err := tx.Op(o.Joined)
	if err != nil || !found || first.Rack != o.Rack || first.Node != o.Node || first.Stage() != store.StageEnded {
		return err
	}
	return c.end(tx, o, endOf(&first), who, marks, now)
}

func (c *Central) endJoiners(tx *store.Tx, o *store.Op, who string, marks marks, now time.Time) error {
	joiners, err := tx.Joiners(o.ID)
	if err != nil {
		return err
	}
	for i := range joiners {
		if j := &joiners[i]; j.ID != o.ID && j.Rack == o.Rack && j.Node == o.Node {
			if err := c.end(tx, j, endOf(o), who, marks, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// entered is an operation that central hears of for the first time: it entered
// at the rack, or is older than a restored database.
func entered(op power.Op, agent string) store.Op {
	op.AskedAt, op.Deadline = op.AskedAt.UTC(), op.Deadline.UTC()
	o := store.Op{Op: api.NewOp(op, agent), Delivered: true}
	o.Phase = api.PhaseTaken
	return o
}
