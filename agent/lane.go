package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// lane is one node's line of operations. tasks[0] runs, the others wait in order.
// Its goroutine lives while there is work.
type lane struct {
	a    *Agent
	node string

	mu      lock.Mutex[lock.Lane]
	tasks   []*task
	owed    []owedEnd
	seqs    power.Clock  // the highest sequence accepted from anybody but the monitor
	done    []doneRecord // the newest ended operations, for repeats; oldest first
	working bool
	wake    chan struct{} // tells the goroutine that tasks changed
	ended   time.Time     // when an operation that may have changed the power ended
	// unsettled is a command of an ended operation that may still take effect.
	unsettled *power.Unsettled
	effects   map[power.Command]effect // what a command took last
}

// owedEnd is the end of a request that joined what has ended, while it is not in the
// journal. A start finds it again by the end of the other.
type owedEnd struct {
	t   *task
	end power.End
}

func newLane(a *Agent, node string) *lane {
	return &lane{a: a, node: node, wake: make(chan struct{}, 1)}
}

// submit decides on a request, journals what was decided and takes it on. When it
// returns without error the answer is final and durable.
func (l *lane) submit(op power.Op) (api.OpReport, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, known := l.known(op.ID); known {
		if !r.Op.Is(op) {
			return api.OpReport{}, idUsed(op.ID, r.Op)
		}
		return r, nil
	}
	if l.notAssigned(op) {
		return refusal(op, power.ReasonNoNode, fmt.Sprintf("node %s is not assigned to agent %s any more", op.Node, l.a.cfg.Name)), nil
	}
	if op.Seq == 0 { // drawn here, so that nobody overtakes it on the way to the lane
		op.Seq = l.a.clock.Next(time.Now())
	}
	view := l.view()
	d := power.Decide(view, op)
	now := time.Now()
	t := newTask(op, d, power.Describe(d, view, op, now))
	if !d.Verdict.Accepted() {
		return l.refuse(t, now), nil
	}
	if l.a.stopping() {
		return api.OpReport{}, l.a.refusesAll()
	}
	if err := l.a.ids.claim(op); err != nil {
		return api.OpReport{}, err
	}
	t.left = l.a.leftBehind(op, now)
	t.doubt = l.a.strays[op.ID] || l.a.askedBefore(op)
	lsn, err := l.a.log.Append(l.acceptEntries(t, now)...)
	if err != nil {
		l.a.ids.release(op.ID, l.node)
		l.a.journalFailed()
		return api.OpReport{}, fmt.Errorf("cannot accept %s of node %s: %w", op.Action, l.node, err)
	}
	t.lsn = lsn
	if t.left != nil {
		l.unsettled = t.left
	}
	l.accept(t, now)
	l.a.numbers.accepted.Time(max(time.Since(op.AskedAt), 0))
	l.a.logger.Info("accepted", "node", l.node, "op", op.ID, "action", op.Action, "seq", op.Seq, "verdict", d.Verdict, "reason", d.Reason,
		"asked_by", op.AskedBy)
	return t.report(), nil
}

// known finds a request that was accepted before, by its id.
func (l *lane) known(id string) (api.OpReport, bool) {
	for _, o := range l.owed {
		if o.t.op.ID == id {
			return o.t.report(), true
		}
	}
	for _, t := range l.tasks {
		if t.op.ID == id {
			return t.report(), true
		}
		for _, j := range t.joiners {
			if j.op.ID == id {
				return j.report(), true
			}
		}
	}
	if r, ok := l.a.outbox.find(id); ok {
		return r, true
	}
	for _, d := range l.done {
		if d.ID == id {
			r := d.report(l.node)
			r.Verdict, r.Reason = power.VerdictJoin, power.ReasonRepeat
			return r, true
		}
	}
	return api.OpReport{}, false
}

func (l *lane) view() power.Lane {
	v := power.Lane{LastSeq: l.seqs.Now(time.Now())}
	for _, t := range l.tasks {
		v.Outstanding = append(v.Outstanding, t.held())
	}
	return v
}

func (l *lane) refuse(t *task, now time.Time) api.OpReport {
	t.end = &power.End{Outcome: power.Refused, Reason: t.decision.Reason, Detail: t.says, At: now}
	l.a.logger.Info("refused", "node", l.node, "op", t.op.ID, "action", t.op.Action, "seq", t.op.Seq, "reason", t.decision.Reason)
	return t.report()
}

// acceptEntries is everything that the decision means for the journal, in one
// group: after a crash all of it is there or none.
func (l *lane) acceptEntries(t *task, now time.Time) []journal.Entry {
	var entries []journal.Entry
	d, room := t.decision, power.MaxJoined
	for _, id := range d.Supersedes {
		if f := l.find(id); f != nil {
			entries = append(entries, endEntries(f, supersededBy(t, now, "it had not started"), &room)...)
		}
	}
	if d.Cancels != "" {
		entries = append(entries, entry(journal.Add, kindCancel, d.Cancels, cancelRecord{By: t.op.AskedBy, SupersededBy: t.op.ID}))
	}
	if d.Verdict == power.VerdictHasten {
		entries = append(entries, entry(journal.Add, kindHastened, d.With, cancelRecord{By: t.op.AskedBy}))
	}
	entries = append(entries, entry(journal.Add, acceptedKind(t.op), t.op.ID, acceptedRecord{Op: t.op, Decision: d, Message: t.says}))
	if t.doubt {
		var left any
		if t.left != nil {
			left = t.left
		}
		entries = append(entries, entry(journal.Add, kindDoubt, t.op.ID, left))
	}
	return entries
}

// accept carries out in memory what acceptEntries made durable. Replay uses it
// too, so that both ways lead to the same lane.
func (l *lane) accept(t *task, now time.Time) {
	l.raise(t.op)
	d, room := t.decision, power.MaxJoined
	for _, id := range d.Supersedes {
		if f := l.find(id); f != nil {
			l.remove(f)
			l.conclude(f, supersededBy(t, now, "it had not started"), t.lsn, &room)
		}
	}
	if a := l.find(d.Cancels); a != nil {
		l.stop(a, cancelRecord{By: t.op.AskedBy, SupersededBy: t.op.ID})
	}
	if a := l.find(d.With); a != nil && d.Verdict.Joined() {
		if d.Verdict == power.VerdictHasten {
			a.setHastened()
		}
		t.joined, t.running, t.started = a.op.ID, a.running, a.started
		a.joiners = append(a.joiners, t)
		l.a.outbox.put(t.report())
		return
	}
	l.tasks = append(l.tasks, t)
	l.a.outbox.put(t.report())
	l.kick()
}

// raise notes the sequence of an accepted request. The monitor's do not count: a
// person's request that was on its way while the monitor acted is not stale.
func (l *lane) raise(op power.Op) {
	if op.Origin != power.FromMonitor {
		l.seqs.Load(op.Seq)
	}
}

func supersededBy(t *task, now time.Time, where string) power.End {
	return power.End{
		Outcome: power.Superseded, Reason: power.ReasonNewer, SupersededBy: t.op.ID, At: now,
		Detail: fmt.Sprintf("superseded by %s (asked by %s); %s", t.op.Action, t.op.AskedBy, where),
	}
}

func (l *lane) find(id string) *task {
	for _, t := range l.tasks {
		if t.op.ID == id && id != "" {
			return t
		}
	}
	return nil
}

func (l *lane) remove(t *task) {
	l.tasks = slices.DeleteFunc(l.tasks, func(x *task) bool { return x == t })
}

// stop tells a running task to end at its next safe point; that is not taken back.
func (l *lane) stop(t *task, why cancelRecord) {
	if t.stopped != nil {
		return
	}
	t.stopped = &why
	if t.cancel != nil {
		t.cancel(stopError{why})
	}
}

// cancelOp ends an operation because somebody asked: at once when it waits, at its
// next safe point when it runs.
func (l *lane) cancelOp(c api.Cancel) (api.OpReport, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.find(c.ID)
	if t == nil {
		r, known := l.known(c.ID)
		switch {
		case !known:
			return r, api.Problemf(api.CodeNotFound, "no operation %s is known for node %s", c.ID, l.node)
		case r.End != nil:
			return r, api.Problemf(api.CodeRefused, "operation %s has ended already: %s", c.ID, r.End.Outcome)
		default:
			return r, api.Problemf(api.CodeRefused, "request %s joined operation %s; cancel that one", c.ID, r.Joined)
		}
	}
	return l.cancelTask(t, cancelRecord{By: c.By, Reason: c.Reason})
}

// cancelTask is cancelOp for a task of the lane, whose lock is held.
func (l *lane) cancelTask(t *task, why cancelRecord) (api.OpReport, error) {
	if t.stopped != nil {
		return t.report(), nil
	}
	id := t.op.ID
	if !t.running {
		if err := l.end(t, cancelled(why, time.Now(), "it had not started")); err != nil {
			return t.report(), fmt.Errorf("cannot cancel %s: %w", id, err)
		}
		l.kick()
		return t.report(), nil
	}
	lsn, err := l.a.log.Append(entry(journal.Add, kindCancel, t.op.ID, why))
	if err != nil {
		l.a.journalFailed()
		return t.report(), fmt.Errorf("cannot cancel %s: %w", id, err)
	}
	t.lsn = lsn
	l.stop(t, why)
	return t.report(), nil
}

// noLongerDesired is why an operation of the monitor ends when the desire changed.
const noLongerDesired = "the desired state has changed since the monitor asked, or the monitor is paused or off"

// dropUnwanted ends what the monitor asked for and nobody desires any more.
func (l *lane) dropUnwanted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range slices.Clone(l.tasks) {
		if t.persons() || l.a.wants(t.op) {
			continue
		}
		if _, err := l.cancelTask(t, cancelRecord{By: "monitor", Reason: noLongerDesired}); err != nil {
			l.a.logger.Info("cannot cancel what is not desired any more", "node", l.node, "op", t.op.ID, "err", err)
		}
	}
}

func cancelled(why cancelRecord, now time.Time, where string) power.End {
	detail := "cancelled by " + why.By
	if why.Reason != "" {
		detail += " (" + why.Reason + ")"
	}
	reason := power.ReasonAsked
	if why.Moved {
		reason = power.ReasonTakenOver
	}
	return power.End{Outcome: power.Cancelled, Reason: reason, Detail: detail + "; " + where, At: now}
}

func expired(now time.Time, where string) power.End {
	return power.End{Outcome: power.Expired, Reason: power.ReasonDeadline, Detail: "its deadline passed; " + where, At: now}
}

// end makes the end of a task durable and takes it off the lane, whose lock is held.
func (l *lane) end(t *task, end power.End) error {
	room := power.MaxJoined
	lsn, err := l.a.log.Append(endEntries(t, end, &room)...)
	if err != nil {
		l.a.journalFailed()
		return err
	}
	l.remove(t)
	room = power.MaxJoined
	l.conclude(t, end, lsn, &room)
	return nil
}

// endEntries ends a task and those that joined it, as far as there is room in the group;
// the ends of the rest follow from that of the task and are written by payOwed.
func endEntries(t *task, end power.End, room *int) []journal.Entry {
	entries := []journal.Entry{entry(journal.Add, kindEnded, t.op.ID, end)}
	now, _ := t.share(room)
	for _, j := range now {
		entries = append(entries, entry(journal.Add, kindEnded, j.op.ID, end))
	}
	return entries
}

// conclude takes the durable end of a task, which has left the lane, to those who
// want to know.
func (l *lane) conclude(t *task, end power.End, lsn uint64, room *int) {
	now, later := t.share(room)
	t.joiners = nil
	for _, x := range append([]*task{t}, now...) {
		l.tell(x, end, lsn)
	}
	l.owe(later, end)
	l.leaves(t.op, end)
	l.a.gossip.changed()
}

func (l *lane) owe(joiners []*task, end power.End) {
	for _, j := range joiners {
		l.owed = append(l.owed, owedEnd{j, end})
	}
	if len(joiners) > 0 {
		l.kick()
	}
}

// owes reports whether the operation must stay in the journal, since the ends of some
// that joined it are found by its own.
func (l *lane) owes(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.owed, func(o owedEnd) bool { return o.t.joined == id })
}

// tell has everybody know the durable end of one request.
func (l *lane) tell(t *task, end power.End, lsn uint64) {
	t.end, t.lsn, t.running = &end, lsn, false
	l.remember(t)
	l.a.outbox.put(t.report())
	l.a.monitor.Ended(t.op, end, !t.started.IsZero())
	l.a.numbers.opEnded(t.op, end)
	l.a.logger.Info("ended", "node", l.node, "op", t.op.ID, "action", t.op.Action, "seq", t.op.Seq, "outcome", end.Outcome, "reason",
		end.Reason, "detail", end.Detail)
}

// payOwed writes the ends that did not go into the group of the operation that they
// joined. Journals from before the number of joiners had a bound may hold many of them.
// It reports false when the agent stops first: the next start goes on.
func (l *lane) payOwed() bool {
	for {
		l.mu.Lock()
		n := min(len(l.owed), power.MaxJoined)
		if n == 0 {
			l.mu.Unlock()
			return true
		}
		entries := make([]journal.Entry, n)
		for i, o := range l.owed[:n] {
			entries[i] = entry(journal.Add, kindEnded, o.t.op.ID, o.end)
		}
		lsn, err := l.a.log.Append(entries...)
		if err == nil {
			for _, o := range l.owed[:n] {
				l.tell(o.t, o.end, lsn)
			}
			l.owed = l.owed[n:]
		}
		l.mu.Unlock()
		if err != nil {
			l.a.logger.Error("cannot journal ends, trying again", "node", l.node, "ends", n, "err", err)
			l.a.journalFailed()
			if backoff.Sleep(l.a.ctx, time.Second) != nil {
				return false
			}
		}
	}
}

// leaves notes what an ended operation may still do to the node's power. A reset of
// the BMC itself changes nothing about what was left before.
func (l *lane) leaves(op power.Op, end power.End) {
	if end.Attempts == 0 {
		return
	}
	if op.Action != power.ActCap {
		l.ended = end.At
	}
	if !op.Action.LeavesPower() {
		l.unsettled = end.Unsettled
	}
}

// notAfter brings times down that lie ahead of the clock, which was stepped back since
// they were noted.
func (l *lane) notAfter(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.done); n > 0 && l.unsettled != nil {
		if ahead := l.done[n-1].End.At.Sub(now); ahead > 0 {
			l.unsettled = &power.Unsettled{Command: l.unsettled.Command, Until: l.unsettled.Until.Add(-ahead)}
		}
	}
	if l.ended.After(now) {
		l.ended = now
	}
	for _, t := range l.tasks {
		t.history.notAfter(now)
	}
}

// remember keeps an ended operation for when it is asked for once more.
func (l *lane) remember(t *task) {
	known := func(d doneRecord) bool { return d.ID == t.op.ID }
	if slices.ContainsFunc(l.done, known) {
		return
	}
	all := append(l.done, doneOf(t.report()))
	l.done = keptOf(all, time.Now())
	for _, d := range all {
		if !slices.ContainsFunc(l.done, func(kept doneRecord) bool { return kept.ID == d.ID }) {
			l.a.ids.release(d.ID, l.node)
		}
	}
}

// kick makes sure that somebody works the lane. The lock is held.
func (l *lane) kick() {
	if l.working {
		select {
		case l.wake <- struct{}{}:
		default:
		}
		return
	}
	if len(l.tasks)+len(l.owed) == 0 || !l.a.begin() {
		return
	}
	l.working = true
	go func() {
		defer l.a.done()
		l.work()
	}()
}

// work runs the lane's operations one after the other until none is left or the
// agent stops.
func (l *lane) work() {
	for {
		t := l.next()
		if t == nil {
			return
		}
		end, err := l.oversee(t)
		if err != nil {
			l.a.logger.Info("left for the next start", "node", l.node, "op", t.op.ID, "reason", err)
			l.idle()
			return
		}
		if !l.finish(t, end) {
			l.idle()
			return
		}
	}
}

func (l *lane) idle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.working = false
}

// next marks the first task as running, or ends the work of the goroutine.
func (l *lane) next() *task {
	for {
		l.expireWaiting(time.Now())
		if !l.payOwed() {
			l.idle()
			return nil
		}
		l.mu.Lock()
		if len(l.tasks) == 0 || l.a.stopping() {
			l.working = false
			l.mu.Unlock()
			return nil
		}
		t := l.tasks[0]
		if t.running {
			l.mu.Unlock()
			return t
		}
		now := time.Now()
		lsn, err := l.a.log.Append(entry(journal.Add, kindStarted, t.op.ID, startedRecord{At: now}))
		if err == nil {
			l.begin(t, now, lsn)
			l.mu.Unlock()
			return t
		}
		l.mu.Unlock()
		l.a.logger.Error("cannot start", "node", l.node, "op", t.op.ID, "err", err)
		l.a.journalFailed()
		if backoff.Sleep(l.a.ctx, time.Second) != nil {
			l.idle()
			return nil
		}
	}
}

func (l *lane) begin(t *task, at time.Time, lsn uint64) {
	t.running, t.started, t.lsn, t.attempts = true, at, lsn, t.history.attempts
	l.a.outbox.put(t.report())
	for _, j := range t.joiners {
		j.running, j.started = true, at
		l.a.outbox.put(j.report())
	}
	l.a.gossip.changed()
}

// oversee carries the task out and meanwhile lets those that wait expire. An
// error means unfinished work: the agent is stopping.
func (l *lane) oversee(t *task) (power.End, error) {
	ctx, cancel := context.WithCancelCause(l.a.ctx)
	defer cancel(nil)
	ctx, cancelDeadline := context.WithDeadlineCause(ctx, t.op.Deadline, errDeadline)
	defer cancelDeadline()
	l.mu.Lock()
	t.cancel = cancel
	if t.stopped != nil {
		cancel(stopError{*t.stopped})
	}
	l.mu.Unlock()

	type result struct {
		end power.End
		err error
	}
	done := make(chan result, 1)
	go func() {
		for {
			end, err := newExecution(l, t).run(ctx)
			if err != nil || l.settled(t, end) {
				done <- result{end, err}
				return
			}
		}
	}()
	var again time.Time // when to try again what the journal did not take, no matter who wakes the lane before
	for {
		timer := time.NewTimer(max(l.untilExpiry(), time.Until(again)))
		select {
		case r := <-done:
			timer.Stop()
			return r.end, r.err
		case <-l.wake:
			l.payOwed()
		case <-timer.C:
			if !l.expireWaiting(time.Now()) {
				again = time.Now().Add(time.Second)
			}
		}
		timer.Stop()
	}
}

// settled closes the task to newcomers once its work is done. It reports false
// when an off has ended the grace of a soft-off that has just failed for not being
// allowed to be hard, and when a person joined what the monitor does not want any
// more: then there is more to do.
func (l *lane) settled(t *task, end power.End) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.hastened && end.Reason == power.ReasonNotEscal {
		return false
	}
	if end.Outcome == power.Cancelled && end.Reason == power.ReasonDesired && t.persons() {
		return false // who joined it while it ended
	}
	t.concluding = true
	return true
}

// untilExpiry is the time until the next waiting task's deadline.
func (l *lane) untilExpiry() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := time.Hour
	for _, t := range l.tasks {
		if !t.running {
			next = min(next, max(time.Until(t.op.Deadline), 0))
		}
	}
	return next
}

// expireWaiting ends those whose deadline passed before they started. It reports
// false when the journal did not take an end.
func (l *lane) expireWaiting(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range slices.Clone(l.tasks) {
		if t.running || t.op.Deadline.After(now) {
			continue
		}
		if err := l.end(t, expired(now, "it had not started")); err != nil {
			l.a.logger.Error("cannot end an expired operation", "node", l.node, "op", t.op.ID, "err", err)
			return false
		}
	}
	return true
}

// finish makes the end durable and takes the task off the lane. It reports false
// when the agent stops before the journal takes it: the next start decides again.
func (l *lane) finish(t *task, end power.End) bool {
	for {
		l.mu.Lock()
		err := l.end(t, end)
		l.mu.Unlock()
		if err == nil {
			return true
		}
		l.a.logger.Error("cannot journal an end, trying again", "node", l.node, "op", t.op.ID, "outcome", end.Outcome, "err", err)
		if backoff.Sleep(l.a.ctx, time.Second) != nil {
			return false
		}
	}
}

// setPhase says what a running task is doing, and how many commands it has sent. It is for
// the goroutine that carries the task out.
func (l *lane) setPhase(t *task, phase string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.phase != phase || t.attempts != t.history.attempts {
		t.phase, t.attempts = phase, t.history.attempts
		l.a.outbox.put(t.report())
	}
}

// outstanding returns the tasks' reports, running first.
func (l *lane) outstanding() []api.OpReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []api.OpReport
	for _, t := range l.tasks {
		list = append(list, t.report())
	}
	return list
}

var (
	errDeadline = errors.New("the operation's deadline passed")
	errStopping = errors.New("the agent is stopping")
)

// stopError is the cause of a task's context when it was told to stop.
type stopError struct{ why cancelRecord }

func (e stopError) Error() string { return "stopped by " + e.why.By }
