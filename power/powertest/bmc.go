package powertest

import (
	"context"
	"errors"
	"slices"
	"time"

	"rackpower/power"
)

// Counts is what happened on a BMC so far.
type Counts struct {
	Dials        int // sessions tried
	AuthFailures int // of these, refused for their user or password
	Reads        int // power states asked for
	Probes       int // times asked whether it is there
	Cuts         int // times the power really went from on to off
	PowerOns     int // times it really went from off to on
	Lies         int // reads answered with what SetLie told
	Resets       int // hard resets executed
	Pulses       int // diagnostic interrupts executed
	Limits       int // limits set or taken away
	BMCResets    int // cold resets of the BMC executed
	MaxInFlight  int // most exchanges in flight at once: 1 when nobody broke the rule
	Sessions     int // sessions open now
	MaxSessions  int // most sessions ever open at once
}

// failures is a number of exchanges that are to fail with a kind.
type failures struct {
	n    int
	kind power.ErrorKind
}

func (f *failures) take() (power.ErrorKind, bool) {
	if f.n == 0 {
		return "", false
	}
	f.n--
	return f.kind, true
}

// BMC is one BMC of a Fake and its chassis. All methods may be called
// concurrently, from hooks too; what they set holds from the next exchange on.
//
// A command takes effect when it is sent; the latency lies between that and the
// answer. Power really changes at once (what Counts.Cuts counts) and is reported
// late by the two delays; a soft-off really ends when its delay is over.
type BMC struct {
	fake *Fake // its mutex guards all below
	name string

	user          string
	password      power.Secret
	wrongPassword bool
	noSession     bool
	refuse        power.ErrorKind
	maxSessions   int
	sessions      int
	boots         int // how often the BMC itself restarted: older sessions are dead

	latency, timeout        time.Duration
	onAfter, offAfter, soft time.Duration
	rebootTime              time.Duration
	mute, stuck, deaf       bool
	downUntil               time.Time
	lie                     power.State
	lieUntil                time.Time
	loseAnswers             int
	failNext                failures
	failReads               failures
	failDials               failures
	failSends               failures

	real     power.State
	shown    power.State
	shownDue time.Time // when real is reported; zero: now
	softDue  time.Time // when a soft-off ends; zero: none under way
	bootDev  power.BootDevice
	limit    int // in watts; 0: none
	noMeter  bool
	// exception is what happens at the limit.
	exception power.LimitException
	counts    Counts
	flying    int
	log       []Entry
}

// set runs fn under the lock.
func (b *BMC) set(fn func()) {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	fn()
}

// Name returns the BMC's name.
func (b *BMC) Name() string { return b.name }

// SetPower sets the power as a hand at the front panel would: at once, reported
// at once, counted as no cut.
func (b *BMC) SetPower(s power.State) {
	b.set(func() { b.real, b.shown, b.shownDue, b.softDue = s, s, time.Time{}, time.Time{} })
}

// Power returns what the power really is now.
func (b *BMC) Power() power.State {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	b.settle(time.Now())
	return b.real
}

// SetAccount has sessions opened only with this user and password. Empty values
// are not checked.
func (b *BMC) SetAccount(user string, password power.Secret) {
	b.set(func() { b.user, b.password = user, password })
}

// SetWrongPassword has every dial fail with KindAuth while it is true.
func (b *BMC) SetWrongPassword(wrong bool) { b.set(func() { b.wrongPassword = wrong }) }

// RefuseLogIns has every dial refused with kind after the user was named; "": none is.
func (b *BMC) RefuseLogIns(kind power.ErrorKind) { b.set(func() { b.refuse = kind }) }

// SetNoSession has every dial fail with KindBusy while it is true.
func (b *BMC) SetNoSession(none bool) { b.set(func() { b.noSession = none }) }

// SetMaxSessions limits the sessions open at once; 0: no limit.
func (b *BMC) SetMaxSessions(n int) { b.set(func() { b.maxSessions = n }) }

// SetLatency is how long each exchange takes.
func (b *BMC) SetLatency(d time.Duration) { b.set(func() { b.latency = d }) }

// SetTimeout is how long the driver waits for an answer that does not come.
func (b *BMC) SetTimeout(d time.Duration) { b.set(func() { b.timeout = d }) }

// SetOnAfter is how late "on" is reported.
func (b *BMC) SetOnAfter(d time.Duration) { b.set(func() { b.onAfter = d }) }

// SetOffAfter is how late "off" is reported.
func (b *BMC) SetOffAfter(d time.Duration) { b.set(func() { b.offAfter = d }) }

// SetSoftOffAfter is how long the operating system takes to shut down.
func (b *BMC) SetSoftOffAfter(d time.Duration) { b.set(func() { b.soft = d }) }

// SetRebootTime is how long the BMC is silent after a ResetBMC or Restart.
func (b *BMC) SetRebootTime(d time.Duration) { b.set(func() { b.rebootTime = d }) }

// SetStuck has commands answered and ignored while it is true.
func (b *BMC) SetStuck(stuck bool) { b.set(func() { b.stuck = stuck }) }

// SetDeaf has soft-offs answered and ignored while it is true.
func (b *BMC) SetDeaf(deaf bool) { b.set(func() { b.deaf = deaf }) }

// SetMute has exchanges hang until their context or the time-out ends; nothing
// sent meanwhile is executed.
func (b *BMC) SetMute(mute bool) { b.set(func() { b.mute = mute }) }

// SetLie has reads of the power state answered with s for d from now, whatever the
// power is.
func (b *BMC) SetLie(s power.State, d time.Duration) {
	b.set(func() { b.lie, b.lieUntil = s, time.Now().Add(d) })
}

// LoseNextAnswers has the next n commands take effect while their answers are
// lost: the driver reports KindUnreachable with Sent.
func (b *BMC) LoseNextAnswers(n int) { b.set(func() { b.loseAnswers = n }) }

// FailNext has the next n commands (boot devices too) answered with kind and not
// executed.
func (b *BMC) FailNext(n int, kind power.ErrorKind) { b.set(func() { b.failNext = failures{n, kind} }) }

// FailNextReads has the next n reads of the power state fail with kind.
func (b *BMC) FailNextReads(n int, kind power.ErrorKind) {
	b.set(func() { b.failReads = failures{n, kind} })
}

// FailNextDials has the next n dials fail with kind.
func (b *BMC) FailNextDials(n int, kind power.ErrorKind) {
	b.set(func() { b.failDials = failures{n, kind} })
}

// FailNextSends has the next n commands fail with kind before they leave: the BMC gets
// nothing, and the driver reports kind without Sent.
func (b *BMC) FailNextSends(n int, kind power.ErrorKind) {
	b.set(func() { b.failSends = failures{n, kind} })
}

// Restart restarts the BMC itself: open sessions are dead, and it is silent for
// its reboot time. The chassis keeps its power.
func (b *BMC) Restart() { b.set(b.restartLocked) }

func (b *BMC) restartLocked() {
	b.boots++
	b.sessions = 0
	if b.rebootTime > 0 {
		b.downUntil = time.Now().Add(b.rebootTime)
	}
}

// Boot returns the boot device set for the next boot.
func (b *BMC) Boot() power.BootDevice {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	return b.bootDev
}

// nodeWatts is what a node takes that is on and not limited.
const nodeWatts = 400

// Watts returns what the node takes.
func (b *BMC) Watts() int {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	return *b.consumption().Watts
}

// Limit returns the limit that holds, in watts; 0: none.
func (b *BMC) Limit() int {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	return b.limit
}

// SetNoMeter has the BMC know nothing of watts and limits while it is true.
func (b *BMC) SetNoMeter(none bool) { b.set(func() { b.noMeter = none }) }

// SetLimitException is what the BMC does at the limit.
func (b *BMC) SetLimitException(e power.LimitException) { b.set(func() { b.exception = e }) }

// consumption is what a reading is answered with.
func (b *BMC) consumption() power.Consumption {
	watts, least := 0, 0
	if b.real == power.On {
		watts = nodeWatts
	}
	if b.limit > 0 {
		watts = min(watts, b.limit)
	}
	return power.Consumption{
		Watts: &watts, Min: &least, Max: &watts, Average: &watts,
		Limit: &power.Limit{Watts: b.limit, Active: b.limit > 0, Exception: b.exception},
	}
}

// Counts returns what happened so far.
func (b *BMC) Counts() Counts {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	c := b.counts
	c.Sessions = b.sessions
	return c
}

// Log returns the commands that reached this BMC, in order.
func (b *BMC) Log() []Entry {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	return slices.Clone(b.log)
}

// Commands returns the commands of Log alone, boot devices left out.
func (b *BMC) Commands() []power.Command {
	var cs []power.Command
	for _, e := range b.Log() {
		if e.Command != "" {
			cs = append(cs, e.Command)
		}
	}
	return cs
}

// reported is the power state that a read is answered with.
func (b *BMC) reported(now time.Time) power.State {
	b.settle(now)
	if now.Before(b.lieUntil) {
		if b.lie != b.shown {
			b.counts.Lies++
		}
		return b.lie
	}
	return b.shown
}

// deadLocked reports whether nothing that is sent now is seen.
func (b *BMC) deadLocked() bool { return b.mute || time.Now().Before(b.downUntil) }

// settle lets time have done its work on the power.
func (b *BMC) settle(now time.Time) {
	if !b.softDue.IsZero() && !now.Before(b.softDue) {
		b.softDue = time.Time{}
		b.turn(power.Off)
		b.shown = power.Off
	}
	if b.shown != b.real && !now.Before(b.shownDue) {
		b.shown = b.real
	}
}

// turn changes the real power and counts it.
func (b *BMC) turn(to power.State) {
	if b.real == to {
		return
	}
	b.real = to
	if to == power.Off {
		b.counts.Cuts++
	} else {
		b.counts.PowerOns++
	}
}

// execute lets a command have its effect.
func (b *BMC) execute(cmd power.Command) {
	now := time.Now()
	b.settle(now)
	switch cmd {
	case power.PowerOn:
		b.softDue = time.Time{}
		b.turn(power.On)
		b.shownDue = now.Add(b.onAfter)
	case power.PowerOff:
		b.softDue = time.Time{}
		b.turn(power.Off)
		b.shownDue = now.Add(b.offAfter)
	case power.PressSoftOff:
		if b.real == power.On {
			b.softDue = now.Add(b.soft)
		}
	case power.HardReset:
		if b.real == power.On {
			b.counts.Resets++
		}
	case power.PulseDiag:
		b.counts.Pulses++
	case power.ResetBMC:
		b.counts.BMCResets++
		b.restartLocked()
	}
	b.settle(now)
}

// arrive notes a command that reached the BMC.
func (b *BMC) arrive(e Entry) {
	e.BMC, e.At = b.name, time.Now()
	b.log = append(b.log, e)
	b.fake.log = append(b.fake.log, e)
}

// exchange is one round trip: hooks around it, counted as in flight, act called
// under the lock at the moment of sending, the latency or the time-out awaited.
func (b *BMC) exchange(ctx context.Context, op string, act func() *power.Error) (err error) {
	b.enter()
	defer b.leave()
	b.fake.event(Event{Phase: Before, BMC: b, Op: op})
	defer func() { b.fake.event(Event{Phase: After, BMC: b, Op: op, Err: err}) }()
	if cause := ctx.Err(); cause != nil {
		return &power.Error{Kind: power.KindCanceled, Op: op, Err: context.Cause(ctx)}
	}
	var e *power.Error
	var wait time.Duration
	isCommand := op != "dial" && op != "probe" && op != "state" && op != "consumption" && op != "boot" && op != "close"
	b.set(func() {
		e = act()
		wait = b.latency
		if e != nil && errors.Is(e.Err, errNoAnswer) {
			wait = b.timeout
		}
	})
	if !pause(ctx, wait) {
		return &power.Error{Kind: power.KindCanceled, Op: op, Sent: isCommand, Err: context.Cause(ctx)}
	}
	if e == nil {
		return nil
	}
	e.Op = op
	return e
}

// pause waits and reports whether it waited to the end.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *BMC) enter() {
	b.set(func() {
		b.flying++
		b.counts.MaxInFlight = max(b.counts.MaxInFlight, b.flying)
		b.fake.flying++
		b.fake.highest = max(b.fake.highest, b.fake.flying)
	})
}

func (b *BMC) leave() {
	b.set(func() {
		b.flying--
		b.fake.flying--
	})
}
