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
	err := c.write(r.Context(), now, "agent "+name, func(u *unitOfWork) error {
		a, err := checkSession(u.tx, name, in.Session)
		if err != nil {
			return err
		}
		if a.JournalID != in.JournalID {
			return errHello(name)
		}
		u.tx.OnCommit(func() { out.Rev = c.store.Rev() })
		if d.late(in.Run, in.Nth) {
			in.Readings, in.Rack = nil, nil // a later one has told how things stand
		}
		in.Readings = plausible(in.Readings, d.ahead(in.SentAt, now), now)
		if err := u.follow(name, in.Seq); err != nil {
			return err
		}
		if in.Rev > a.Rev {
			in.Rev = 0 // nobody goes by what there was never
		}
		if out.Ended, err = u.applyReport(name, in); err != nil {
			return err
		}
		if d.leaving() && in.Rev > 0 {
			if err := u.lettingGo(name, in.Rev, in.Unreleased); err != nil {
				return err
			}
		}
		if err := errors.Join(u.taken(name, in.Tested), u.told(name, in.Enforced)); err != nil {
			return err
		}
		if in.LSN > a.LSN {
			return u.tx.ReportedLSN(name, in.LSN, now)
		}
		return nil
	})
	if err != nil {
		return api.Reported{}, err
	}
	d.heard(now)
	d.answer(in.Explained)
	d.tested(in.Tested)
	out.Seq = c.store.Seq(now)
	return out, nil
}

// Bounds of one report. Agents send less at once.
const (
	maxReportOps      = 5_000
	maxReportReadings = 10_000
	maxReportHolds    = 20_000
	maxExplained      = 1_000
	maxTested         = 20_000
	maxEnforced       = 100_000
)

// checkReport refuses what no agent sends, before it holds up those that write.
func checkReport(in api.Report) error {
	enforced := 0
	if in.Enforced != nil {
		enforced = len(in.Enforced.Nodes)
	}
	for _, b := range []struct {
		what    string
		n, most int
	}{
		{"operations", len(in.Ops), maxReportOps},
		{"readings", len(in.Readings), maxReportReadings},
		{"holds", len(in.Holds), maxReportHolds},
		{"explanations", len(in.Explained), maxExplained},
		{"tests", len(in.Tested), maxTested},
		{"nodes that were enforced", enforced, maxEnforced},
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
func (u *unitOfWork) follow(agent string, seq power.Seq) error {
	switch {
	case seq == 0:
		return nil
	case u.c.store.MergeSeq(seq, u.now):
		return u.clear(agent, api.AlarmSequenceAhead)
	}
	return u.raiseAhead(agent, "its sequence")
}

func (u *unitOfWork) raiseAhead(agent, what string) error {
	return u.raise(agent, api.Alarm{
		Kind: api.AlarmSequenceAhead, Remedy: "compare the clocks of both machines (timedatectl)",
		Message: fmt.Sprintf("%s is more than %s ahead of central's clock and is not followed: one of the two clocks is wrong", what,
			power.MaxAhead),
	})
}

// each takes one item of a report. What cannot be stored is skipped and counted, so that
// it keeps no other item back; only a failing disk ends the report.
func (u *unitOfWork) each(agent, what string, take func() error) error {
	if !u.apart {
		return take()
	}
	err := u.undoing(take)
	if err == nil || ofDisk(err) {
		return err
	}
	u.c.skipped.Add(1)
	u.c.log.Error("skipped in a report", "agent", agent, "what", what, "err", err)
	return nil
}

func ofDisk(err error) bool {
	return errors.Is(err, store.ErrDisk) || errors.Is(err, store.ErrInUse) || errors.Is(err, store.ErrTakenOver) ||
		errors.Is(err, store.ErrRemoved) || errors.Is(err, store.ErrCorrupt)
}

// undoing is Try that takes back which revisions were raised, too.
func (u *unitOfWork) undoing(f func() error) error {
	revs := maps.Clone(u.revs)
	err := u.tx.Try(f)
	if err != nil {
		u.revs = revs
	}
	return err
}

// items takes all items of a report at once, as goes well nearly always. Where it does not that
// is undone, and each is taken by itself.
func (u *unitOfWork) items(take func() error) error {
	err := u.undoing(take)
	if err == nil || ofDisk(err) {
		return err
	}
	u.apart = true
	defer func() { u.apart = false }()
	return take()
}

// applyReport takes a report. It returns the operations that had ended otherwise here, which
// the agent is told.
func (u *unitOfWork) applyReport(name string, in api.Report) (ended []api.EndedOp, err error) {
	err = u.items(func() (err error) {
		ended, err = u.applyItems(name, in)
		return err
	})
	return ended, err
}

func (u *unitOfWork) applyItems(name string, in api.Report) ([]api.EndedOp, error) {
	var differ differing
	for _, w := range in.Ops {
		if err := u.each(name, "operation "+w.Op.ID, func() error { return u.applyOpReport(name, w, in.JournalID, &differ) }); err != nil {
			return nil, err
		}
	}
	if err := u.tellDiffering(name, differ.texts); err != nil {
		return nil, err
	}
	return differ.ends, u.applyRest(name, in)
}

// differing are operations that an agent says have ended otherwise than they did here.
type differing struct {
	ends  []api.EndedOp
	texts []string
}

func (d *differing) note(o *store.Op, there power.Outcome) {
	d.ends = append(d.ends, api.EndedOp{OpRef: refOf(o), End: endOf(o)})
	if o.Handed != "" {
		return // the agent before told of its end first
	}
	d.texts = append(d.texts, fmt.Sprintf("%s of node %s (%s at the agent, %s here)", o.Action, o.Node, there, o.Outcome))
}

// tellDiffering raises the alarm about them.
func (u *unitOfWork) tellDiffering(agent string, texts []string) error {
	if len(texts) == 0 {
		return nil
	}
	text := texts[0]
	if more := len(texts) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return u.raise(agent, api.Alarm{
		Kind: api.AlarmOutcomesDiffer, NeedsAck: true, Message: "the agent reported another end of what had ended, which stays as it was: " +
			text,
	})
}

// applyRest takes what a report says beside operations.
func (u *unitOfWork) applyRest(name string, in api.Report) error {
	if err := u.each(name, "holds", func() error { return u.applyHolds(name, in.Holds) }); err != nil {
		return err
	}
	if in.Rack != nil {
		if err := u.applyRackState(name, *in.Rack); err != nil {
			return err
		}
		u.marks.note(0)
	}
	rev := in.Rev
	if rev == 0 {
		rev = u.c.sessions.of(name).holds()
	}
	for _, r := range in.Readings {
		err := u.each(name, "reading of "+r.Node, func() error {
			return errors.Join(u.found(name, r), u.located(name, r), u.storeReading(name, r, rev))
		})
		if err != nil {
			return err
		}
	}
	if len(in.Readings) > 0 {
		u.tx.OnCommit(func() {
			u.c.sessions.of(name).saw(in.Readings)
			u.c.waiting.read(in.Readings)
		})
		u.marks.note(0)
	}
	return nil
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
func (u *unitOfWork) applyOpReport(name string, w api.OpReport, journal string, differ *differing) error {
	if w.Op.ID == "" {
		return nil
	}
	o, found, err := u.tx.Op(w.Op.ID)
	if err != nil {
		return err
	}
	if w.LSN == 0 && w.Reason == power.ReasonNoNode && !found {
		return nil // the agent refused it, as it should: the node is not its own
	}
	if !found && w.Op.AskedAt.IsZero() {
		return nil // an end that its agent kept in short: who asked for it is not known any more
	}
	done, knows, err := u.ofFormer(name, w, &o, found)
	if done || err != nil {
		return err
	}
	if what, err := u.c.notIts(u.tx, name, w, o, found, knows); err != nil || what != "" {
		return errors.Join(err, u.disown(name, foreignReport{node: w.Op.Node, op: w.Op.ID, what: what, outcome: outcomeOf(w)}))
	}
	if !u.c.store.MergeSeq(w.Op.Seq, u.now) {
		w.Op.Seq = u.tx.NextSeq(u.now) // it happened all the same, and has its place where it was reported
	}
	if !found {
		o = entered(w.Op, name)
	}
	seq := o.Seq
	news, how := advanceOp(&o, past(w, u.now), journal)
	switch how {
	case contradicts:
		u.tx.OnCommit(func() { u.c.contradictions.Add(1) })
		u.c.log.Warn("another end was reported for an operation that has ended", "agent", name, "op", o.ID, "outcome", o.Outcome, "reported",
			w.End.Outcome)
		differ.note(&o, w.End.Outcome)
		return nil
	case malformed:
		what := fmt.Sprintf("an invalid report: phase %.20q with %s", w.Phase, cmp.Or(outcomeOf(w), "no outcome"))
		return u.disown(name, foreignReport{node: w.Op.Node, op: w.Op.ID, what: what, outcome: outcomeOf(w)})
	case ignored:
		return nil
	}
	save := u.tx.SaveOp
	if !found {
		save = u.tx.AddOp
	}
	if err := save(&o); err != nil {
		return err
	}
	if o.Seq != seq {
		if err := u.tx.MoveOp(&o); err != nil {
			return err
		}
	}
	u.marks.note(o.Rev)
	if !found && o.Origin == power.FromLocal && o.Outcome != power.Refused {
		if n, known, err := u.tx.Node(o.Node); err != nil || known {
			if err := errors.Join(err, u.losesByOp(n, o.Action)); err != nil {
				return err
			}
		}
	}
	if !found {
		at := o.AskedAt
		if at.IsZero() || at.After(u.now) {
			at = u.now // a rack's clock must not write into the future
		}
		e := entry(&o, auditAsked, o.AskedBy, u.now)
		e.HappenedAt = at
		if err := u.opEvent(&o, e); err != nil {
			return err
		}
	}
	for _, what := range news {
		e := entry(&o, what, "agent "+name, u.now)
		if what == auditAccepted {
			e.Why = string(w.Reason) // the operation's own is that of its end by now
			if !found {
				e.HappenedAt = o.AskedAt // at the rack, at once
			}
		}
		if err := u.opEvent(&o, e); err != nil {
			return err
		}
	}
	return u.together(&o)
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
func (u *unitOfWork) together(o *store.Op) error {
	if o.Stage() == store.StageEnded {
		return u.endJoiners(o)
	}
	if o.Joined == "" || o.Joined == o.ID {
		return nil
	}
	first, found, err := u.tx.Op(o.Joined)
	if err != nil || !found || first.Rack != o.Rack || first.Node != o.Node || first.Stage() != store.StageEnded {
		return err
	}
	return u.end(o, endOf(&first))
}

func (u *unitOfWork) endJoiners(o *store.Op) error {
	joiners, err := u.tx.Joiners(o.ID)
	if err != nil {
		return err
	}
	for i := range joiners {
		if j := &joiners[i]; j.ID != o.ID && j.Rack == o.Rack && j.Node == o.Node {
			if err := u.end(j, endOf(o)); err != nil {
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
