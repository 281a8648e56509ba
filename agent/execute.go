package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rackpower/agent/bmcpool"
	"rackpower/internal/backoff"
	"rackpower/journal"
	"rackpower/power"
)

// execution carries one operation out. It runs in one goroutine; between two of
// its commands lie the safe points, where it looks whether it should go on.
type execution struct {
	l    *lane
	a    *Agent
	t    *task
	op   power.Op
	h    *history
	time Timing
	bmc  *bmcpool.BMC
	ep   power.Endpoint
	// force lets the first log-in pass an open breaker: a person asked.
	force bool
	seen  power.State // last read, for the end's words
	// seenLimit is the limit that was last read.
	seenLimit power.Limit
	note      string // added to the end's detail
	// waiting replaces "waiting for STATE" as the phase.
	waiting string
}

// endError ends an execution with an outcome other than success.
type endError struct{ end power.End }

func (e endError) Error() string { return string(e.end.Outcome) + ": " + e.end.Detail }

func fail(reason power.Reason, format string, args ...any) error {
	return endError{power.End{Outcome: power.Failed, Reason: reason, Detail: fmt.Sprintf(format, args...)}}
}

func newExecution(l *lane, t *task) *execution {
	return &execution{
		l: l, a: l.a, t: t, op: t.op, h: &t.history, time: l.a.cfg.Timing, force: t.op.Origin != power.FromMonitor,
		seen: power.Unknown,
	}
}

// run carries the operation out and returns its end. An error means that the agent
// is stopping and the operation goes on at its next start.
func (x *execution) run(ctx context.Context) (power.End, error) {
	reason, err := x.carryOut(ctx)
	for errors.Is(err, errNotNow) {
		if err = x.awaitPermit(ctx); err == nil {
			reason, err = x.carryOut(ctx)
		}
	}
	end, unfinished := x.conclude(reason, err)
	if unfinished != nil {
		return power.End{}, unfinished // with its slot: nobody takes its place while all stop
	}
	x.a.limiter.Release(x.op.ID)
	end.At, end.Attempts, end.State, end.Unsettled = time.Now(), x.h.attempts, x.seen, x.unsettled(end)
	if x.note != "" {
		if end.Detail != "" {
			end.Detail += "; "
		}
		end.Detail += x.note
	}
	return end, nil
}

// unsettled is what this operation leaves behind: the command whose effect it has not
// seen, and until when that may still come. A command given up after all its windows
// is not waited for again. One to the same end that was given earlier and with more
// time, by this operation or one before, still has that time.
func (x *execution) unsettled(end power.End) *power.Unsettled {
	x.l.mu.Lock()
	before := x.l.unsettled
	x.l.mu.Unlock()
	h := x.h
	if h.unsettled == "" {
		if x.op.Action.Once() || x.op.Action.LeavesPower() {
			return before // it changed nothing about that, and may have had no time to wait
		}
		return nil
	}
	left := power.Unsettled{Command: h.unsettled}
	if end.Reason != power.ReasonNotReached {
		left.Until = h.unsettledAt.Add(x.time.Verify[0])
	}
	if left.Command.Target() == power.Off && !h.softOff.IsZero() {
		left.Until = later(left.Until, h.softOff.Add(max(x.time.Verify[0], x.op.Grace)))
	}
	if before != nil && before.Command.Target() == left.Command.Target() {
		left.Until = later(left.Until, before.Until)
	}
	if !left.Until.After(time.Now()) {
		return nil
	}
	return &left
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// settle waits for the effect of the command that the operation before left
// behind: until it is seen, a reading may show what is about to change. An operation
// whose time is over before that expires, since whatever it read could be undone.
func (x *execution) settle(ctx context.Context) error {
	x.l.mu.Lock()
	left := x.l.unsettled
	x.l.mu.Unlock()
	if left == nil || x.h.attempts > 0 {
		return nil
	}
	if x.op.Action.CutsPower() && x.op.Action != power.ActReset && left.Command.Target() == power.Off {
		return nil // it does the same, and harder
	}
	if x.t.left != nil && x.op.Action == power.ActOn && left.Command.Target() == power.On {
		return nil // likewise, and the agent before may have sent nothing
	}
	state, err := x.read(ctx)
	if err != nil {
		return err
	}
	if window := time.Until(left.Until); state != left.Command.Target() && window > 0 {
		x.waiting = fmt.Sprintf("waiting for an earlier %s to take effect, until %s", left.Command, power.At(left.Until))
		_, err = x.await(ctx, left.Command.Target(), window)
		x.waiting = ""
		if errors.Is(err, errDeadline) {
			x.note = fmt.Sprintf("an earlier %s may still take effect", left.Command)
		}
	}
	if err == nil {
		x.l.mu.Lock()
		x.l.unsettled = nil
		x.l.mu.Unlock()
	}
	return err
}

// conclude turns the way in which carryOut ended into an end.
func (x *execution) conclude(reason power.Reason, err error) (power.End, error) {
	var ended endError
	var stopped stopError
	switch {
	case err == nil:
		return power.End{Outcome: power.Succeeded, Reason: reason, Already: reason == power.ReasonAlready}, nil
	case errors.As(err, &ended):
		return ended.end, nil
	case errors.As(err, &stopped):
		if stopped.why.SupersededBy == "" {
			return cancelled(stopped.why, time.Now(), x.where()), nil
		}
		return power.End{
			Outcome: power.Superseded, Reason: power.ReasonNewer, SupersededBy: stopped.why.SupersededBy,
			Detail: fmt.Sprintf("superseded by a newer request of %s; %s", stopped.why.By, x.where()),
		}, nil
	case errors.Is(err, errDeadline):
		return expired(time.Now(), x.where()), nil
	case errors.Is(err, errStopping), errors.Is(err, context.Canceled):
		return power.End{}, errStopping
	default:
		kind := power.KindOf(err)
		return power.End{Outcome: power.Failed, Reason: power.ReasonOf(kind), Detail: err.Error()}, nil
	}
}

// where says what had happened when an operation was stopped.
func (x *execution) where() string {
	did := "no command was sent"
	if x.h.attempts > 0 {
		did = "commands had been sent"
	}
	if x.seen == power.Unknown {
		return did
	}
	return did + ", the node was last read " + string(x.seen)
}

func (x *execution) carryOut(ctx context.Context) (power.Reason, error) {
	if err := x.clearDoubt(ctx); err != nil {
		return "", err
	}
	if err := x.interrupted(); err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err := x.unwanted(); err != nil {
		return "", err
	}
	if n, _ := x.a.assigned.get(x.l.node); x.h.attempts == 0 && n.Protected.Forbids(x.op.Action) {
		return "", protected(n)
	}
	ep, err := x.known(ctx)
	if err != nil {
		return "", err
	}
	x.a.lookBeforeActing(ctx, ep)
	if err := x.alone(); err != nil {
		return "", err
	}
	x.ep, x.bmc = ep, x.a.bmcs.Get(ep)
	if !x.op.Action.LeavesPower() {
		if err := x.settle(ctx); err != nil {
			return "", err
		}
	}
	switch x.op.Action {
	case power.ActOn:
		return x.on(ctx)
	case power.ActOff:
		return x.reach(ctx, power.Off, power.PowerOff)
	case power.ActSoftOff:
		return x.softOff(ctx)
	case power.ActCycle:
		return x.cycle(ctx)
	case power.ActReset:
		return x.once(ctx, power.HardReset)
	case power.ActDiag:
		return x.once(ctx, power.PulseDiag)
	case power.ActBMCReset:
		return x.bmcReset(ctx)
	case power.ActCap:
		return x.limit(ctx)
	default: // of a newer agent, whose journal this is
		return "", fail(power.ReasonUnsupported, "this agent does not know how to %s", x.op.Action)
	}
}

// known is where the node's BMC is, once it is known which protocol it speaks and central has
// noted that. No command leaves before.
func (x *execution) known(ctx context.Context) (power.Endpoint, error) {
	for retry := x.retries(); ; {
		ep, err := x.a.assigned.endpoint(x.l.node)
		if err != nil || ep.Scheme != power.SchemeAuto {
			return ep, err
		}
		x.l.setPhase(x.t, "finding out which protocol the BMC speaks")
		x.a.poller.readNow(ctx, []string{x.l.node})
		switch r := x.a.readings.run(x.l.node); r.Reach {
		case power.ReachAuthFailed:
			return ep, fail(power.ReasonOf(power.KindAuth), "%s", r.Message)
		case power.ReachPrivilege:
			return ep, fail(power.ReasonOf(power.KindPrivilege), "%s", r.Message)
		case power.ReachUnsupported:
			return ep, fail(power.ReasonOf(power.KindUnsupported), "%s", r.Message)
		}
		if err := backoff.Sleep(ctx, retry.Next()); err != nil {
			return ep, err
		}
	}
}

// locate finds the node's BMC as it is known now: somebody may correct its address or its
// password meanwhile. Once a command went to one BMC nothing is asked of another: its
// effect would not be seen there. A node that was taken away is brought to its end.
func (x *execution) locate() error {
	ep, err := x.a.assigned.endpoint(x.l.node)
	if err != nil || ep == x.ep {
		return nil
	}
	b := x.a.bmcs.Get(ep)
	if b != x.bmc && x.h.attempts > 0 {
		return fail(power.ReasonMoved, "its BMC was changed from %s to %s after a command had been sent to the first; nothing is sent to the "+
			"second", x.ep, ep)
	}
	x.ep, x.bmc = ep, b
	return nil
}

// errOtherBMC says that the node was given another BMC, or other credentials, while a command
// waited for its turn.
var errOtherBMC = errors.New("the node's BMC was changed")

// stateNow reads the power at the BMC that the node has when it answers.
func (x *execution) stateNow(ctx context.Context) (power.State, error) {
	for {
		if err := x.locate(); err != nil {
			return "", err
		}
		state, err := x.bmc.State(ctx, x.ep, x.force)
		if now, gone := x.a.assigned.endpoint(x.l.node); gone != nil || now == x.ep || stops(ctx, err) {
			return state, err
		}
	}
}

// interrupted ends an operation whose command may have left before a crash and
// must not leave again.
func (x *execution) interrupted() error {
	if err := x.decided(); err != nil {
		return err
	}
	if !x.op.Action.Once() || x.h.pending == "" && x.h.refused == nil {
		return nil
	}
	if r := x.h.refused; r != nil {
		return x.answered(r.Command, &power.Error{Kind: r.Error, Sent: true, Op: string(r.Command), Err: errors.New(r.Text)})
	}
	return endError{power.End{
		Outcome: power.Indeterminate, Reason: power.ReasonInterrupted,
		Detail: fmt.Sprintf("the agent was interrupted between sending %s and its answer; it may have reached the BMC and is not sent again",
			x.h.pending),
	}}
}

// unwanted ends what the monitor asked for when nobody desires it any more.
func (x *execution) unwanted() error {
	if err := x.permitted(); err != nil {
		return err
	}
	x.l.mu.Lock()
	persons := x.t.persons()
	x.l.mu.Unlock()
	if persons || x.a.wants(x.op) {
		return nil
	}
	return endError{power.End{Outcome: power.Cancelled, Reason: power.ReasonDesired, Detail: noLongerDesired}}
}

// protected ends an operation of before its node was protected. One that has cut power
// already may still give it back.
func protected(n *assignedNode) error {
	return endError{power.End{Outcome: power.Cancelled, Reason: power.ReasonProtected, Detail: n.Protected.Refusal(n.Name)}}
}

func (x *execution) on(ctx context.Context) (power.Reason, error) {
	state, err := x.read(ctx)
	if err != nil {
		return "", err
	}
	if state == power.On && x.h.attempts == 0 {
		if x.op.Boot != power.BootNone {
			x.note = "boot device not set: the node runs already"
		}
		return power.ReasonAlready, nil
	}
	return x.reach(ctx, power.On, power.PowerOn)
}

// boot sets the boot device, where one was asked for and power was not yet given.
func (x *execution) boot(ctx context.Context) error {
	if x.op.Boot == power.BootNone || x.h.sendings[power.PowerOn]+x.h.sendings[power.HardReset] > 0 {
		return nil
	}
	if err := x.permitted(); err != nil {
		return err
	}
	x.l.setPhase(x.t, "setting boot device "+string(x.op.Boot))
	err := x.persist(ctx, func() error {
		return x.bmc.With(ctx, x.ep, x.force, func(ctx context.Context, d power.Driver) error {
			within, cancel := x.a.withinLease(ctx, x.l.node)
			defer cancel()
			return d.SetBoot(within, x.op.Boot)
		})
	})
	if err != nil && !stops(ctx, err) {
		return fail(power.ReasonOf(power.KindOf(err)), "cannot set boot device %s: %v", x.op.Boot, err)
	}
	return err
}

// bootFor is boot right before a command, and looks again when it took long.
func (x *execution) bootFor(ctx context.Context, cmd power.Command) error {
	began := time.Now()
	err := x.boot(ctx)
	if err == nil && time.Since(began) > freshFor {
		err = x.stillNeeded(ctx, cmd)
	}
	return err
}

// reach brings the node to the target with cmd: nothing is sent when it is there,
// and a command is sent again only after reads that show the old state.
func (x *execution) reach(ctx context.Context, target power.State, cmd power.Command) (power.Reason, error) {
	state, err := x.read(ctx)
	if err != nil {
		return "", err
	}
	if state == target {
		return x.there(), nil
	}
	for {
		n := x.h.sendings[cmd]
		if n > 0 {
			// Sent in this process or, by the journal, in an earlier one: BMCs report
			// late, so look before anything is sent again.
			window := x.time.Verify[min(n, len(x.time.Verify))-1]
			reached, err := x.await(ctx, target, min(window, time.Until(x.h.lastSent.Add(window))))
			if err != nil || reached {
				return power.ReasonVerified, err
			}
		}
		if n >= len(x.time.Verify) {
			return "", fail(power.ReasonNotReached, "still %s after %s was sent %d times", x.seen, cmd, n)
		}
		if err := x.send(ctx, cmd); errors.Is(err, errThere) {
			return x.there(), nil
		} else if err != nil {
			return "", err
		}
	}
}

// there is why an operation succeeded that has read its target.
func (x *execution) there() power.Reason {
	if x.h.attempts == 0 {
		return power.ReasonAlready
	}
	return power.ReasonVerified
}

// await reads until the target is seen or the window is over. What is as wanted already, as a
// node after a reset, is read at once; what has to change is read when it likely has.
func (x *execution) await(ctx context.Context, target power.State, window time.Duration) (bool, error) {
	x.l.setPhase(x.t, cmp.Or(x.waiting, "waiting for "+string(target)))
	cmd, k := x.h.last, looks{}
	if cmd.Target() == target {
		k.known = x.l.took(cmd)
	}
	look := func() (bool, error) {
		state, err := x.read(ctx)
		return state == target, err
	}
	if x.seen == target {
		if seen, err := look(); err != nil || seen {
			return seen, err
		}
	}
	seen, err := x.awaitSeen(ctx, window, &k, look)
	if seen && cmd.Target() == target && x.h.sendings[cmd] == 1 {
		x.l.learn(cmd, k.learnt(time.Since(x.h.lastSent)))
	}
	return seen, err
}

// awaitSeen looks, at the times that k says, until it is seen or the window is over.
func (x *execution) awaitSeen(ctx context.Context, window time.Duration, k *looks, look func() (bool, error)) (bool, error) {
	k.first, k.longest = x.time.FirstLook, x.time.LongLook
	until, since := time.Now().Add(window), x.h.lastSent
	if since.IsZero() {
		since = time.Now()
	}
	for {
		if err := backoff.Sleep(ctx, k.next(time.Since(since))); err != nil {
			return false, err
		}
		looked := time.Since(since)
		if seen, err := look(); err != nil || seen {
			return seen, err
		}
		if !time.Now().Before(until) {
			return false, nil
		}
		k.missed(looked)
	}
}

func (x *execution) cycle(ctx context.Context) (power.Reason, error) {
	if x.h.offSeen.IsZero() && x.h.sendings[power.PowerOn] == 0 {
		state, err := x.read(ctx)
		if err != nil {
			return "", err
		}
		if state == power.Off && x.h.sendings[power.PowerOff] == 0 {
			return x.on(ctx)
		}
		if err := x.cutInDoubt(ctx, state); err != nil {
			return "", err
		}
		if x.h.attempts == 0 {
			if err := x.slotToCut(ctx); err != nil {
				return "", err
			}
		}
		if err := x.boot(ctx); err != nil {
			return "", err
		}
		if _, err := x.reach(ctx, power.Off, power.PowerOff); err != nil {
			return "", err
		}
		if err := x.offSeen(ctx); err != nil {
			return "", err
		}
	}
	x.l.setPhase(x.t, "off, waiting to power on")
	if err := backoff.Sleep(ctx, time.Until(x.h.offSeen.Add(x.time.MinOff))); err != nil {
		return "", err
	}
	return x.reach(ctx, power.On, power.PowerOn)
}

// slotToCut waits for the slot that the power-on after a cut needs, so that the node does
// not wait for it without power. After a wait, too little time may be left to come back in.
func (x *execution) slotToCut(ctx context.Context) error {
	began := time.Now()
	if _, err := x.slot(ctx); err != nil {
		return err
	}
	if time.Since(began) > freshFor && time.Until(x.op.Deadline) < x.time.MinOff+x.time.Verify[0] {
		return endError{power.End{
			Outcome: power.Expired, Reason: power.ReasonDeadline,
			Detail: "after the wait for its power domain too little time was left for a cycle; " + x.where(),
		}}
	}
	return nil
}

// offSeen makes it durable that the cut has happened: from here on a restart goes
// on with "on".
func (x *execution) offSeen(ctx context.Context) error {
	now := time.Now()
	for {
		err := x.record(kindOffSeen, startedRecord{At: now})
		if err == nil {
			x.h.offSeen = now
			return nil
		}
		x.a.journalFailed()
		if err := backoff.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (x *execution) softOff(ctx context.Context) (power.Reason, error) {
	reason, err := x.goDown(ctx)
	if x.h.sendings[power.PowerOff] > 0 { // by this process or by one before
		x.note = strings.TrimSuffix("escalated to a hard off; "+x.note, "; ")
	}
	return reason, err
}

func (x *execution) goDown(ctx context.Context) (power.Reason, error) {
	state, err := x.read(ctx)
	if err != nil {
		return "", err
	}
	if state == power.Off {
		return x.there(), nil
	}
	down, err := x.askDown(ctx)
	if err != nil || down {
		return x.there(), err
	}
	if x.op.NoEscalate && !x.isHastened() {
		return "", fail(power.ReasonNotEscal, "still on after the grace of %s, and no hard off was wanted", x.op.Grace)
	}
	return x.reach(ctx, power.Off, power.PowerOff)
}

// askDown asks the system to go down by itself and waits for the grace. It
// reports false when it is time for something harder.
func (x *execution) askDown(ctx context.Context) (bool, error) {
	if x.isHastened() || x.h.sendings[power.PowerOff] > 0 {
		return false, nil
	}
	if x.h.sendings[power.PressSoftOff] == 0 {
		err := x.send(ctx, power.PressSoftOff)
		var ended endError
		if errors.As(err, &ended) && ended.end.Reason == power.ReasonUnsupported && !x.op.NoEscalate {
			return false, nil // nothing will come of waiting
		}
		if errors.Is(err, errHastened) {
			return false, nil
		}
		if errors.Is(err, errThere) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	x.l.setPhase(x.t, fmt.Sprintf("waiting for the system to go down, hard off at %s", power.At(x.h.softOff.Add(x.op.Grace))))
	phase := x.t.phase
	for pause := x.time.FirstLook; ; pause = min(pause*3/2, x.time.LongLook) {
		left := time.Until(x.h.softOff.Add(x.op.Grace))
		if left <= 0 {
			return false, nil
		}
		if err := x.sleepInGrace(ctx, min(pause, left)); errors.Is(err, errHastened) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		state, err := x.read(ctx)
		if err != nil || state == power.Off {
			return state == power.Off, err
		}
		x.l.setPhase(x.t, phase)
	}
}

var errHastened = errors.New("the grace was ended by an off")

// sleepInGrace is a pause that an off ends, with errHastened.
func (x *execution) sleepInGrace(ctx context.Context, pause time.Duration) error {
	graceful, cancel := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	defer close(stop)
	defer cancel(nil)
	go func() {
		select {
		case <-x.t.hasten:
			cancel(errHastened)
		case <-stop:
		}
	}()
	return backoff.Sleep(graceful, pause)
}

func (x *execution) isHastened() bool {
	select {
	case <-x.t.hasten:
		return true
	default:
		return false
	}
}

// once carries out reset and diag, whose command leaves at most once.
func (x *execution) once(ctx context.Context, cmd power.Command) (power.Reason, error) {
	state, err := x.read(ctx)
	if err != nil {
		return "", err
	}
	if x.h.sendings[cmd] == 0 {
		if state == power.Off {
			return "", fail(power.ReasonNodeOff, "node is off")
		}
		if err := x.bootFor(ctx, cmd); err != nil {
			return "", err
		}
		if err := x.send(ctx, cmd); err != nil {
			return "", err
		}
	}
	if cmd != power.HardReset {
		return power.ReasonAcknowledged, nil
	}
	on, err := x.await(ctx, power.On, x.time.Verify[0])
	if err == nil && !on {
		err = fail(power.ReasonNotReached, "the BMC confirmed the reset, but the node is read %s", x.seen)
	}
	return power.ReasonVerified, err
}

// bmcReset restarts the BMC and waits until it answers again. A BMC that cannot
// read the power any more is just what it is for, so that read may fail.
func (x *execution) bmcReset(ctx context.Context) (power.Reason, error) {
	if x.h.sendings[power.ResetBMC] == 0 {
		state, err := x.bmc.State(ctx, x.ep, x.force)
		x.force = false
		switch {
		case err == nil:
			x.observe(state)
		case stops(ctx, err):
			return "", err
		case bmcpool.RefusedLogIn(err):
			return "", fail(power.ReasonOf(power.KindOf(err)), "%v", err)
		}
		if err := x.send(ctx, power.ResetBMC); err != nil {
			return "", err
		}
	}
	x.l.setPhase(x.t, "waiting for the BMC to come back")
	until, last := time.Now().Add(x.time.BMCReset), error(nil)
	retry := x.retries()
	for time.Now().Before(until) {
		if err := backoff.Sleep(ctx, retry.Next()); err != nil {
			return "", err
		}
		state, err := x.bmc.State(ctx, x.ep, false)
		if err == nil {
			x.observe(state)
			return power.ReasonVerified, nil
		}
		if stops(ctx, err) {
			return "", err
		}
		last = err
	}
	if bmcpool.RefusedLogIn(last) {
		return "", fail(power.ReasonOf(power.KindOf(last)), "the BMC confirmed its reset and is back; %v", last)
	}
	return "", fail(power.ReasonUnreachable, "the BMC confirmed its reset and has not answered for %s", x.time.BMCReset)
}

// read reads the power state, trying again while the BMC gives no answer.
func (x *execution) read(ctx context.Context) (power.State, error) {
	if x.seen == power.Unknown {
		x.l.setPhase(x.t, "reading the power state")
	}
	var state power.State
	err := x.persist(ctx, func() (err error) {
		state, err = x.stateNow(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	x.observe(state)
	return state, nil
}

func (x *execution) observe(state power.State) {
	x.force = false // the log-in passed
	x.seen = state
	x.h.saw(state)
	x.a.readings.saw(x.l.node, power.Seen(state, time.Now()))
}

// retries is the pauses between tries to reach a BMC.
func (x *execution) retries() backoff.Doubling {
	return backoff.Doubling{First: x.time.Retry, Most: x.time.LongRetry}
}

// persist tries fn again with growing waits while the BMC is unreachable or busy,
// for as long as the Unreachable bound says. fn must be harmless to repeat.
func (x *execution) persist(ctx context.Context, fn func() error) error {
	until := time.Now().Add(x.time.Unreachable)
	for retry := x.retries(); ; {
		pause := retry.Next()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := fn()
		var ended endError
		if err == nil || stops(ctx, err) || errors.As(err, &ended) {
			return err
		}
		x.force = false
		x.a.readings.failed(x.l.node, power.ReachOf(err), err.Error())
		kind := power.KindOf(err)
		if kind != power.KindUnreachable && kind != power.KindBusy && kind != power.KindRefused || !time.Now().Add(pause).Before(until) {
			return fail(power.ReasonOf(kind), "%v", err)
		}
		x.l.setPhase(x.t, "BMC "+string(kind)+", trying again")
		if err := backoff.Sleep(ctx, max(pause, power.AfterOf(err))); err != nil {
			return err
		}
	}
}

// stops reports whether err is the end of ctx and not the BMC's doing.
func stops(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
}

// send lets one command leave, with its record before it and its answer's record
// behind. It returns nil when the command may have had its effect, so that reading
// tells more; a command that did not leave is tried again here. A power-on waits for
// its power domain first, and has errThere when the node is read on meanwhile. A soft-off
// that an off overtakes before it left has errHastened.
func (x *execution) send(ctx context.Context, cmd power.Command) error {
	way := &ascent{}
	if cmd == power.PowerOn {
		var err error
		if way, err = x.queue(ctx); err != nil {
			return err
		}
		if err := x.bootFor(ctx, cmd); err != nil {
			return err
		}
	}
	until := time.Now().Add(x.time.Unreachable)
	for retry := x.retries(); ; {
		pause := retry.Next()
		waited, err := x.pace(ctx, way)
		if err != nil {
			return err
		}
		until = until.Add(waited)
		if err := x.unwanted(); err != nil {
			return err
		}
		if n, _ := x.a.assigned.get(x.l.node); n.Protected.ForbidsCommand(cmd) {
			return protected(n)
		}
		if err := x.locate(); err != nil {
			return err
		}
		x.l.setPhase(x.t, "sending "+string(cmd))
		var left bool
		var ended endError
		err = x.bmc.With(ctx, x.ep, x.force, func(inner context.Context, d power.Driver) (err error) {
			if way.late() {
				return errLate
			}
			if err := errors.Join(x.unwanted(), x.alone()); err != nil { // it may have waited for its turn
				return err
			}
			if now, gone := x.a.assigned.endpoint(x.l.node); gone == nil && now != x.ep {
				return errOtherBMC
			}
			left, err = x.exchange(inner, d, cmd)
			return err
		})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errLate), errors.Is(err, errOtherBMC):
			continue
		case left:
			return x.answered(cmd, err)
		case stops(ctx, err), errors.As(err, &ended), errors.Is(err, errNotNow):
			return err
		}
		kind := power.KindOf(err)
		if kind == power.KindAuth || kind == power.KindPrivilege || kind == power.KindUnsupported ||
			power.AfterOf(err) == 0 && !time.Now().Add(pause).Before(until) { // one that says "not now" did not take it: the deadline is the bound
			return fail(power.ReasonOf(kind), "%v", err)
		}
		pause = max(pause, power.AfterOf(err))
		if cmd == power.PressSoftOff {
			err = x.sleepInGrace(ctx, pause)
		} else {
			err = backoff.Sleep(ctx, pause)
		}
		if err != nil {
			return err
		}
		if err := x.stillNeeded(ctx, cmd); err != nil {
			return err
		}
	}
}

// stillNeeded reads the power before a command that has not left is tried again: time has
// passed, and the BMC's name may lead to another one than was read. It returns errThere
// when the command is not needed any more.
func (x *execution) stillNeeded(ctx context.Context, cmd power.Command) error {
	if cmd == power.ResetBMC {
		return nil
	}
	if cmd == power.SetLimit {
		if there, err := x.limited(ctx); err != nil || !there {
			return err
		}
		return errThere
	}
	state, err := x.read(ctx)
	switch {
	case err != nil:
		return err
	case state == cmd.Target():
		return errThere
	case cmd.Target() == power.Unknown && state == power.Off:
		return fail(power.ReasonNodeOff, "node is off")
	}
	return nil
}

// exchange journals and sends, while the BMC is ours. left says whether the
// command may have reached the BMC.
func (x *execution) exchange(ctx context.Context, d power.Driver, cmd power.Command) (left bool, err error) {
	now := time.Now()
	if err := x.record(kindSending, commandRecord{Command: cmd, At: now}); err != nil {
		x.a.journalFailed()
		return false, &power.Error{Kind: power.KindBusy, Op: string(cmd), Err: fmt.Errorf("not sent, the journal did not take it: %w", err)}
	}
	first := x.h.attempts == 0
	x.h.sending(cmd, now)
	err = x.tell(ctx, d, cmd)
	left = power.WasSent(err)
	if first && left {
		x.a.numbers.sent.Time(max(now.Sub(x.op.AskedAt), 0))
	}
	answer := commandRecord{Command: cmd, At: time.Now(), NotLeft: !left}
	if err != nil {
		answer.Error, answer.Text = power.KindOf(err), err.Error()
	}
	if jerr := x.record(kindSent, answer); jerr != nil {
		// What follows is at worst repeated by the next start, within the rules.
		x.a.logger.Error("cannot journal the answer of a command", "node", x.l.node, "op", x.op.ID, "command", cmd, "err", jerr)
		x.a.journalFailed()
	}
	x.h.sent(answer)
	x.a.logger.Debug("command", "node", x.l.node, "op", x.op.ID, "command", cmd, "left", left, "took", answer.At.Sub(now), "err", err)
	return left, err
}

// tell has the BMC do what the command says.
func (x *execution) tell(ctx context.Context, d power.Driver, cmd power.Command) error {
	if x.a.mayNot(x.l.node) != "" { // its record may have waited for the disk
		return &power.Error{Kind: power.KindCanceled, Op: string(cmd), Err: errNotNow}
	}
	ctx, cancel := x.a.withinLease(ctx, x.l.node)
	defer cancel()
	if cmd == power.SetLimit {
		return bmcpool.MeterOf(d).SetLimit(ctx, x.op.Limit)
	}
	return d.Do(ctx, cmd)
}

// answered says what an error means for a command that left.
func (x *execution) answered(cmd power.Command, err error) error {
	kind := power.KindOf(err)
	switch {
	case cmd == power.SetLimit && kind == power.KindRefused: // it will not take it next time either
		return fail(power.ReasonRefusedBMC, "%v", err)
	case kind == power.KindUnreachable || kind == power.KindCanceled:
		if cmd.Repeatable() {
			return nil // the reads to come will tell
		}
		return endError{power.End{
			Outcome: power.Indeterminate, Reason: power.ReasonUnanswered,
			Detail: fmt.Sprintf("%s was sent and the BMC did not answer; it may have acted and is not sent again (%v)", cmd, err),
		}}
	case kind == power.KindUncertain && !cmd.Repeatable():
		return endError{power.End{
			Outcome: power.Indeterminate, Reason: power.ReasonUncertain,
			Detail: fmt.Sprintf("%s was sent and the answer leaves open whether the BMC acted; it is not sent again (%v)", cmd, err),
		}}
	case kind == power.KindUncertain:
		x.note = "the BMC answered: " + err.Error()
		return nil // the reads to come will tell
	case cmd.Repeatable() && (kind == power.KindRefused || kind == power.KindBusy) && x.h.sendings[cmd] < len(x.time.Verify):
		x.note = "the BMC answered: " + err.Error()
		return nil
	default:
		if x.note == "the BMC answered: "+err.Error() { // to the try before: it is not said twice
			x.note = ""
		}
		return fail(power.ReasonOf(kind), "%v", err)
	}
}

func (x *execution) record(kind journal.Kind, payload any) error {
	lsn, err := x.a.log.Append(entry(journal.Add, kind, x.op.ID, payload))
	if err == nil {
		x.l.mu.Lock()
		x.t.lsn = lsn
		x.l.mu.Unlock()
	}
	return err
}
