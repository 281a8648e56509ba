package agent

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/power"
)

// A node that other agents can reach as well (AssignedNode.Epoch) is acted on under a lease only
// (rules 9, docs/decisions/0015-leases.md). There is one for all such nodes of the agent:
//
//	a poll is sent               its time is noted, by the clock that runs on while the machine sleeps
//	it is answered with a lease  what came with the answer is durable and in force first; then the lease
//	                             lasts so long from the noted time on
//	right before each command    the lease is looked at, and the command is given up where it ends
//	the lease is over            nothing is sent to these nodes, whoever asked; operations wait for
//	                             another lease, or for their deadline
//
// A lease ends with its process, and when the wall clock is set: neither is ever stretched.

const (
	// stepTolerance is what the wall clock may move against the other one before it counts as set.
	// A clock that is slewed moves by less than 10 ms within a lease.
	stepTolerance = 500 * time.Millisecond
	// driftSlack is what is allowed beside api.LeaseDrift in comparing clocks: for scheduling.
	driftSlack = 100 * time.Millisecond
	// driftBase is how long clocks are compared from one moment on.
	driftBase = 10 * time.Minute
	// driftAgrees is how long they must have agreed after they did not.
	driftAgrees = time.Minute
	// leaselessPoll is how long a poll of an agent waits that was given no lease.
	leaselessPoll = time.Second
)

// instant is a moment by both clocks of the machine.
type instant struct {
	boot time.Duration // since the machine started, sleep included; nobody sets it
	wall time.Time     // without a monotonic reading
}

// sinceBoot reads the clock that runs on while the machine sleeps.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("no CLOCK_BOOTTIME: %v", err)) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// machineClock is the clock of the machine.
func machineClock() (time.Duration, time.Time) { return sinceBoot(), time.Now().Round(0) }

// leaseholder knows whether the agent has a lease. Its zero value has none.
type leaseholder struct {
	clock func() (time.Duration, time.Time)

	mu      lock.Mutex[lock.Permit]
	until   time.Duration // by instant.boot; 0: there is none
	given   instant       // when it was last given
	ended   string        // why it ended before its time; "": it did not
	changed chan struct{}
	drift   drift
}

func (h *leaseholder) now() instant {
	boot, wall := h.clock()
	return instant{boot, wall}
}

// give has the lease last from sent on, what central's clock said compared with this one.
func (h *leaseholder) give(sent instant, lasts time.Duration, c *api.CentralClock) (wasNone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if c != nil {
		h.drift.compare(sent.boot, now.boot, *c)
	}
	wasNone = h.left(now) <= 0
	switch {
	case h.drift.differ != "":
		h.until, h.ended = 0, h.drift.differ
		return false
	case lasts <= 0 || stepped(sent, now): // the wall clock was set since the poll left
		return false
	case sent.boot+lasts > h.until:
		h.until, h.given, h.ended = sent.boot+lasts, now, ""
	}
	if h.left(now) <= 0 {
		return false
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
	return wasNone
}

// stepped reports whether the wall clock was set between two moments.
func stepped(a, b instant) bool {
	return (b.wall.Sub(a.wall) - (b.boot - a.boot)).Abs() > stepTolerance
}

// left is how much of the lease is left; the lock is held.
func (h *leaseholder) left(now instant) time.Duration {
	if h.until > 0 && stepped(h.given, now) {
		h.until, h.ended = 0, "the clock of this machine was set"
	}
	return max(h.until-now.boot, 0)
}

// remains is how long the agent may go on with nodes that others can reach.
func (h *leaseholder) remains() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left(h.now())
}

// why says why there is no lease, "" if there is one.
func (h *leaseholder) why() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.left(h.now()) > 0:
		return ""
	case h.ended != "":
		return "waiting for a lease on the node from central: " + h.ended
	}
	return "waiting for a lease on the node from central"
}

// differs is why no lease counts: how fast the clocks of central and of this machine go; "": they
// agree.
func (h *leaseholder) differs() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drift.differ
}

// news returns a channel that closes when a lease is given.
func (h *leaseholder) news() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// drift compares how fast two clocks go. What central's clock said was said between two moments of
// this one: bounds that hold however long messages take.
type drift struct {
	start    string // of central's process
	at       time.Duration
	from, to time.Duration // by this clock, the moment lay between them
	differ   string        // how they differ; "": they do not
	agreeing time.Duration // since when they agree again, by this clock
	agrees   bool
}

func (d *drift) compare(sent, received time.Duration, c api.CentralClock) {
	from, to := sent+c.Held-c.Held*api.LeaseDrift/1000, received
	if d.start != c.Start || from-d.to > driftBase {
		d.start, d.at, d.from, d.to = c.Start, c.At, from, to
		return
	}
	theirs := c.At - d.at
	allowed := max(theirs, 0)*api.LeaseDrift/1000 + driftSlack
	least, most := from-d.to, to-d.from
	if theirs+allowed < least || theirs-allowed > most {
		d.differ = fmt.Sprintf("the clocks of central and of this machine go at different speeds: %s there were %s to %s here",
			theirs.Round(time.Millisecond), least.Round(time.Millisecond), most.Round(time.Millisecond))
		d.start, d.agrees = "", false // compared anew from the next answer on
		return
	}
	if d.differ == "" {
		return
	}
	if !d.agrees {
		d.agreeing, d.agrees = received, true
	}
	if received-d.agreeing >= driftAgrees {
		d.differ, d.agrees = "", false
	}
}

// leased reports whether others can reach the node as well.
func (a *Agent) leased(node string) bool {
	n, ok := a.assigned.get(node)
	return ok && n.Epoch > 0
}

// mayNot says why nothing may be sent to the node, whoever asked for it; "": it may.
func (a *Agent) mayNot(node string) string {
	if !a.leased(node) {
		return ""
	}
	return a.lease.why()
}

// withinLease bounds what is done to a node by the lease on it.
func (a *Agent) withinLease(ctx context.Context, node string) (context.Context, context.CancelFunc) {
	if !a.leased(node) {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, a.lease.remains(), errNotNow)
}

// pollWaits is how long the next poll waits for news: a lease is renewed a few times while it lasts.
func (l *link) pollWaits(first, asked bool) time.Duration {
	switch {
	case first:
		return 0 // to know soon that nothing has changed
	case !l.assigned.anyLeased():
		return pollWait
	case l.lease.remains() > 0:
		return leasePoll
	case asked: // central gave none
		return leaselessPoll
	}
	return 0
}

// leasePoll is how long a poll waits of an agent that has a lease.
const leasePoll = 3 * time.Second

// takeLease takes the lease that came with an answer, whose assignment is in force.
func (l *link) takeLease(sent instant, got api.Assignment) {
	if l.lease.give(sent, got.Lease, got.Clock) {
		l.agent.leaseGiven()
	}
	switch differ := l.lease.differs(); {
	case differ == "":
		l.alarms.clear(api.AlarmClockDrift)
	case l.assigned.anyLeased():
		l.alarms.raise(api.Alarm{
			Kind: api.AlarmClockDrift, Message: differ + ": nothing is sent to nodes that other agents can reach",
			Remedy: "compare the clocks of both machines (timedatectl; chronyc tracking)",
		})
	}
}

// leaseGiven has nodes compared that were left alone without a lease.
func (a *Agent) leaseGiven() {
	var nodes []string
	for _, n := range a.assigned.all() {
		if n.Epoch > 0 {
			nodes = append(nodes, n.Name)
		}
	}
	a.poller.readSoon(nodes)
}

// wasHanded reports whether another agent may have begun with an operation that is being taken.
func (a *Agent) wasHanded(op power.Op) bool {
	_, handed := a.handed.Load(op.ID)
	return handed
}

// leftBehind is what another agent may have sent for an operation that this one takes over: its effect
// may still come. nil: nothing.
func (a *Agent) leftBehind(op power.Op, now time.Time) *power.Unsettled {
	if !a.wasHanded(op) {
		return nil
	}
	left := power.Unsettled{Until: now.Add(a.cfg.Timing.Verify[0])}
	switch op.Action {
	case power.ActOn:
		left.Command = power.PowerOn
	case power.ActOff, power.ActCycle:
		left.Command = power.PowerOff
	case power.ActSoftOff:
		left.Command, left.Until = power.PowerOff, later(left.Until, now.Add(op.Grace))
	default:
		return nil // it does not change the power, or is not taken over
	}
	return &left
}
