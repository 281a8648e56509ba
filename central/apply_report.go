package central

import (
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// What an audit entry says happened to an operation.
const (
	auditAsked    = "asked"
	auditRefused  = "refused"
	auditAccepted = "accepted"
	auditStarted  = "started"
	auditEnded    = "ended"
	auditCancel   = "cancel"
)

// applied says what came of a report on an operation.
type applied int

const (
	ignored     applied = iota // old, or nothing new
	taken                      // the operation was changed
	contradicts                // another end than the known one
	malformed                  // makes no sense
)

// advanceOp brings what is known of an operation up to an agent's report, and lists
// what is news, for the audit log. It is where a report counts once: reports may
// come again and in any order.
func advanceOp(o *store.Op, w api.OpReport, journal string) (news []string, how applied) {
	next := store.StageOf(w.Phase)
	if w.End != nil {
		next = store.StageEnded
	}
	unrefused := o.Outcome == power.Refused && w.Verdict.Accepted()
	// That it was lost is what central made of an agent's silence.
	found := o.Outcome == power.Indeterminate && o.Why == power.ReasonLost && w.End != nil && w.End.Reason != power.ReasonLost
	switch {
	case o.Stage() == store.StageEnded && !unrefused && !found:
		if w.End != nil && w.End.Outcome != o.Outcome {
			return nil, contradicts
		}
		return nil, ignored
	case next == store.StageEnded && (w.End == nil || w.End.Outcome == ""):
		return nil, malformed
	case next == store.StageTaken:
		return nil, malformed // that is for central to say
	case next != store.StageEnded && older(o, w, next, journal):
		return nil, ignored
	}
	switch {
	case unrefused:
		takeRefusalBack(o, w.Op)
	case found:
		o.Phase, o.Outcome, o.Detail, o.EndedAt, o.Why = api.PhaseWaiting, "", "", nil, ""
	}
	before := *o
	o.JournalID, o.LSN = journal, w.LSN
	o.Verdict, o.Why, o.Message, o.Joined = w.Verdict, w.Reason, w.Message, w.Joined
	if !w.StartedAt.IsZero() {
		at := w.StartedAt.UTC()
		o.StartedAt = &at
	}
	o.Phase, o.Attempts = w.Phase, w.Attempts
	if w.End != nil {
		finish(o, *w.End)
	}
	news = opEvents(before, *o)
	if len(news) == 0 && before.Phase == o.Phase && before.Attempts == o.Attempts && before.Joined == o.Joined &&
		before.Message == o.Message &&
		before.JournalID == o.JournalID && before.LSN == o.LSN {
		return nil, ignored
	}
	return news, taken
}

// takeRefusalBack makes a refusal undone. An agent keeps none of them over a restart,
// so that what is asked for again with the same id may be accepted then: of the two
// reports the acceptance is the one in the journal. It came later and has its place where it
// came: its sequence is another.
func takeRefusalBack(o *store.Op, again power.Op) {
	o.Seq, o.AskedAt, o.Deadline = again.Seq, again.AskedAt.UTC(), again.Deadline.UTC()
	o.Phase, o.Outcome, o.Detail, o.EndedAt, o.Why = api.PhaseTaken, "", "", nil, ""
}

// older reports whether a report of no end is based on an earlier record than
// the one that is known. Records of different journals cannot be compared: the
// one that the agent has now counts.
func older(o *store.Op, w api.OpReport, next store.Stage, journal string) bool {
	if o.Stage() == store.StageTaken || o.JournalID != journal {
		return false
	}
	return w.LSN < o.LSN || w.LSN == o.LSN && next < o.Stage()
}

// finish ends an operation.
func finish(o *store.Op, end power.End) {
	at := end.At.UTC()
	o.Phase, o.Outcome, o.Detail, o.EndedAt = api.PhaseEnded, end.Outcome, end.Detail, &at
	o.Already, o.SupersededBy, o.State, o.Attempts = end.Already, end.SupersededBy, end.State, end.Attempts
	if end.Reason != "" {
		o.Why = end.Reason
	}
}

// endOf is the end that finish was given.
func endOf(o *store.Op) power.End {
	end := power.End{
		Outcome: o.Outcome, Reason: o.Why, Detail: o.Detail, Already: o.Already, SupersededBy: o.SupersededBy, State: o.State,
		Attempts: o.Attempts,
	}
	if o.EndedAt != nil {
		end.At = *o.EndedAt
	}
	return end
}

// opEvents lists what happened between two states of an operation. An end that
// comes first tells of the acceptance and the start as well.
func opEvents(before, after store.Op) (news []string) {
	ended := after.Stage() == store.StageEnded && before.Stage() != store.StageEnded
	if ended && after.Outcome == power.Refused {
		return []string{auditRefused}
	}
	if before.Stage() == store.StageTaken && after.Verdict.Accepted() {
		news = append(news, auditAccepted)
	}
	if before.StartedAt == nil && after.StartedAt != nil {
		news = append(news, auditStarted)
	}
	if ended {
		news = append(news, auditEnded)
	}
	return news
}

// entry makes an audit entry of an operation's news.
func entry(o *store.Op, what, who string, at time.Time) api.AuditEntry {
	e := api.AuditEntry{At: at, Who: who, What: what, Node: o.Node, Op: o.ID, Why: string(o.Why)}
	switch what {
	case auditAsked:
		e.Why, e.Detail = o.Reason, o.Action.With(o.Options)
	case auditAccepted:
		e.Outcome, e.Detail = string(o.Verdict), o.Message
	case auditStarted:
		e.Why, e.Detail = "", o.Action.With(o.Options)
		e.HappenedAt = timeOf(o.StartedAt)
	case auditRefused:
		e.Outcome, e.Detail = string(o.Outcome), o.Message
		if o.Detail != "" {
			e.Detail = o.Detail
		}
	case auditEnded:
		e.Outcome, e.Detail, e.HappenedAt = string(o.Outcome), o.Detail, timeOf(o.EndedAt)
	}
	return e
}

// opEvent writes what happened to an operation into the audit log, and counts it.
func (u *unitOfWork) opEvent(o *store.Op, e api.AuditEntry) error {
	if err := u.tx.AddAudit(e); err != nil {
		return err
	}
	done := *o
	u.tx.OnCommit(func() { u.c.numbers.opEvent(&done, e) })
	return nil
}

// timeOf is zero for none.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
