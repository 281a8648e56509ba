package agent

import (
	"context"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// task is an accepted request: an outstanding operation, or one that joined
// another. The lane's lock guards all of it but history, which belongs to the
// goroutine that carries the operation out.
type task struct {
	op       power.Op
	decision power.Decision
	says     string
	lsn      uint64 // of its newest record
	started  time.Time
	running  bool
	phase    string // what a running one is doing: "waiting for off"
	attempts int    // as history has it, for those who ask meanwhile
	hastened bool
	// stopped says that the operation ends at its next safe point, and why.
	stopped *cancelRecord
	// concluding is true once its work is done and only its end must be journaled:
	// too late to join it.
	concluding bool
	// replayed: it was accepted before the present start. doubt: records of it may be lost,
	// so that more may have been done than they say. over: it had ended for sure.
	replayed, doubt, over bool
	// left is what the agent that had it before may have sent.
	left *power.Unsettled
	// central is the end that central has of it.
	central *power.End
	// joiners share the outcome.
	joiners []*task
	joined  string // id of the operation that this request joined
	end     *power.End

	cancel  context.CancelCauseFunc // while running
	hasten  chan struct{}           // closed once hastened
	history history
}

// history is what was done for an operation so far, in this process and, by the
// journal, in those before.
type history struct {
	sendings map[power.Command]int // commands that may have left
	pending  power.Command         // sending is durable, sent is not
	last     power.Command         // that may have left, at lastSent
	lastSent time.Time
	softOff  time.Time // when the ACPI request first left
	offSeen  time.Time
	attempts int
	// refused is the answer of a command that left and was not acknowledged.
	refused *commandRecord
	// unsettled is the last command that changes power and left, until its effect
	// is seen.
	unsettled   power.Command
	unsettledAt time.Time
	// before is what was unsettled before the command that is about to leave.
	before   power.Command
	beforeAt time.Time
}

func newTask(op power.Op, d power.Decision, says string) *task {
	return &task{op: op, decision: d, says: says, hasten: make(chan struct{}), history: history{sendings: map[power.Command]int{}}}
}

func (t *task) setHastened() {
	if !t.hastened {
		t.hastened = true
		close(t.hasten)
	}
}

// persons reports whether somebody other than the monitor asked for it, or joined it.
func (t *task) persons() bool {
	return t.op.Origin != power.FromMonitor || slices.ContainsFunc(t.joiners, func(j *task) bool { return j.op.Origin != power.FromMonitor })
}

// share divides the joiners: those for whose ends a group of records has room, which it
// uses up, and the rest.
func (t *task) share(room *int) (now, later []*task) {
	n := min(len(t.joiners), *room)
	*room -= n
	return t.joiners[:n], t.joiners[n:]
}

func (t *task) held() power.Held {
	return power.Held{Op: t.op, Running: t.running, Cancelling: t.stopped != nil || t.concluding, Hastened: t.hastened, Joined: len(t.joiners)}
}

// report is the latest word on the task.
func (t *task) report() api.OpReport {
	r := api.OpReport{
		Op: t.op, LSN: t.lsn, Verdict: t.decision.Verdict, Reason: t.decision.Reason, Message: t.says,
		Joined: t.joined, StartedAt: t.started, Attempts: t.attempts, End: t.end,
	}
	switch {
	case t.end != nil:
		r.Phase = api.PhaseEnded
	case t.running && t.phase != "":
		r.Phase = api.PhaseRunning + ": " + t.phase
	case t.running:
		r.Phase = api.PhaseRunning
	default:
		r.Phase = api.PhaseWaiting
	}
	return r
}

// notAfter brings times down that lie ahead of the clock: it was stepped back, and
// what is waited for from then on must not take longer.
func (h *history) notAfter(now time.Time) {
	for _, at := range []*time.Time{&h.lastSent, &h.softOff, &h.offSeen, &h.unsettledAt, &h.beforeAt} {
		if at.After(now) {
			*at = now
		}
	}
}

// sending notes that a command is about to leave.
func (h *history) sending(c power.Command, at time.Time) {
	h.sendings[c]++
	h.attempts++
	h.pending, h.last, h.lastSent = c, c, at
	if c == power.PressSoftOff && h.softOff.IsZero() {
		h.softOff = at
	}
	if c.Target() != power.Unknown {
		h.before, h.beforeAt = h.unsettled, h.unsettledAt
		h.unsettled, h.unsettledAt = c, at
	}
}

// saw notes a reading: a command whose target is seen has settled.
func (h *history) saw(s power.State) {
	if h.unsettled != "" && h.unsettled.Target() == s {
		h.unsettled = ""
	}
}

// sent notes its answer; a command that never left is taken back. One whose sending is
// not known was sent all the same.
func (h *history) sent(r commandRecord) {
	if h.pending != r.Command {
		if r.NotLeft {
			return
		}
		pending := h.pending
		h.sending(r.Command, r.At)
		defer func() { h.pending = pending }()
	}
	h.pending = ""
	if !r.NotLeft {
		if r.Error != "" {
			h.refused = &r
		}
		return
	}
	h.sendings[r.Command]--
	h.attempts--
	if h.unsettled == r.Command {
		h.unsettled, h.unsettledAt = h.before, h.beforeAt
	}
	if r.Command == power.PressSoftOff {
		h.softOff = time.Time{}
	}
}
