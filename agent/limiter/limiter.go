// Package limiter makes power-ons pass a power domain one after the other: no faster than the
// domain's rate, and no more at once than it allows.
package limiter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/power"
)

// waiter is an operation in the line of a power domain.
type waiter struct {
	op   string
	rank power.Seq     // who asked first is served first, after a restart too
	turn chan struct{} // closed when it has got its slot
	away chan struct{} // closed when it was taken out of the line: its node is in another domain

	// what the waiting operation says next, and when
	says   string
	tellAt time.Time
	tell   chan struct{} // a token: says is new
}

// domain is a power domain's queue: values and times in, decisions out.
//
// A power-on passes two gates. At the first it waits in line for a slot; slots are
// handed out at the domain's rate and no more than Concurrent are out at once. Then
// its operation looks at the node once more and prepares it, which takes as long as
// its BMC takes. At the second it is told when its command may leave, so that the
// commands are spaced whatever the BMCs did to the spacing of the slots. A command
// that is sent again keeps its slot and passes the second gate only.
type domain struct {
	limit    api.DomainLimit
	granted  time.Time            // when the last slot was handed out
	leaves   time.Time            // when the last command may leave; may lie ahead
	inFlight map[string]time.Time // operations with a slot, since when
	line     []*waiter            // by rank, equal ones in the order they came
	took     time.Duration        // how long a slot is out, about
}

// newDomain counts the start as a power-on: who knows what was sent just before it.
func newDomain(limit api.DomainLimit, start time.Time) *domain {
	return &domain{limit: limit, granted: start, leaves: start, inFlight: map[string]time.Time{}}
}

// interval is the time between two power-ons; 0: no bound.
func (d *domain) interval() time.Duration {
	if d.limit.Rate <= 0 {
		return 0
	}
	return time.Duration(min(float64(time.Second)/d.limit.Rate, float64(24*time.Hour)))
}

// setLimit has another limit hold from now on.
func (d *domain) setLimit(limit api.DomainLimit, now time.Time) {
	d.limit = limit
	if latest := now.Add(d.interval()); d.leaves.After(latest) {
		d.leaves = latest // spaced by the limit before
	}
}

func (d *domain) full() bool {
	return d.limit.Concurrent > 0 && len(d.inFlight) >= d.limit.Concurrent
}

func (d *domain) join(p *waiter) {
	at := sort.Search(len(d.line), func(i int) bool { return d.line[i].rank > p.rank })
	d.line = slices.Insert(d.line, at, p)
}

// leave takes a waiter out of the line; false: it was not in it any more.
func (d *domain) leave(p *waiter) bool {
	at := slices.Index(d.line, p)
	if at < 0 {
		return false
	}
	d.line = slices.Delete(d.line, at, at+1)
	return true
}

// grant hands out the slots that are due and returns who got one. next is when the
// next one is due; zero: nobody waits, or one must come back first.
func (d *domain) grant(now time.Time) (got []*waiter, next time.Time) {
	for len(d.line) > 0 && !d.full() {
		if gap := d.interval(); gap > 0 {
			due := d.granted.Add(gap)
			if d.leaves.After(due) {
				due = d.leaves // commands that are sent again fall behind otherwise
			}
			if now.Before(due) {
				return got, due
			}
		}
		p := d.line[0]
		d.line = d.line[1:]
		d.granted, d.inFlight[p.op] = now, now
		got = append(got, p)
	}
	return got, time.Time{}
}

// leaveAt is when the next command may leave, and counts it as left then.
func (d *domain) leaveAt(now time.Time) time.Time {
	at := now
	if gap := d.interval(); gap > 0 && d.leaves.Add(gap).After(at) {
		at = d.leaves.Add(gap)
	}
	if at.After(d.leaves) {
		d.leaves = at
	}
	return at
}

// release takes an operation's slot back; false: it has none.
func (d *domain) release(op string, now time.Time) bool {
	since, ok := d.inFlight[op]
	if !ok {
		return false
	}
	delete(d.inFlight, op)
	if took := now.Sub(since); d.took == 0 {
		d.took = took
	} else {
		d.took += (took - d.took) / 8
	}
	return true
}

// estimate is about how long an operation with so many ahead of it waits.
func (d *domain) estimate(ahead int) time.Duration {
	gap := d.interval()
	if d.limit.Concurrent > 0 {
		gap = max(gap, d.took/time.Duration(d.limit.Concurrent))
	}
	return time.Duration(ahead+1) * gap
}

func (d *domain) says(ahead int) string {
	return fmt.Sprintf("waiting for power domain %s: %d ahead, about %s", d.limit.Name, ahead, power.Ago(d.estimate(ahead)))
}

func (d *domain) state() api.DomainState {
	return api.DomainState{DomainLimit: d.limit, InFlight: len(d.inFlight), Waiting: len(d.line)}
}

// Limiter holds the power domains of an agent and wakes who has its turn.
type Limiter struct {
	wake chan struct{} // a token: the times of the next turns may have changed

	mu      lock.Mutex[lock.Limiter]
	start   time.Time
	limits  map[string]api.DomainLimit // those that were set
	domains map[string]*domain
	holders map[string]*domain // by operation: where it has a slot
}

// ErrMoved ends the wait of an operation whose node is in another power domain by now.
var ErrMoved = errors.New("the node is in another power domain by now")

// New has no limits set: domains have the defaults.
func New() *Limiter {
	return &Limiter{wake: make(chan struct{}, 1), domains: map[string]*domain{}, holders: map[string]*domain{}}
}

// Begin notes when the agent starts to act. Nothing is granted before.
func (l *Limiter) Begin(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = now
	for _, d := range l.domains {
		d.granted, d.leaves = now, now
	}
}

func (l *Limiter) limit(name string) api.DomainLimit {
	if set, ok := l.limits[name]; ok {
		return set
	}
	return api.DomainLimit{Name: name, Rate: power.DefaultDomainRate, Concurrent: power.DefaultDomainConcurrent}
}

func (l *Limiter) domain(name string) *domain {
	d := l.domains[name]
	if d == nil {
		d = newDomain(l.limit(name), l.start)
		l.domains[name] = d
	}
	return d
}

// SetLimits replaces all limits; domains that are not named have the defaults.
func (l *Limiter) SetLimits(limits []api.DomainLimit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = map[string]api.DomainLimit{}
	for _, limit := range limits {
		l.limits[limit.Name] = limit
	}
	for name, d := range l.domains {
		d.setLimit(l.limit(name), time.Now())
		l.dispatch(d)
	}
}

// Hold gives an operation a slot without waiting: its command left before a restart.
func (l *Limiter) Hold(name, op string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.domain(name)
	d.inFlight[op], l.holders[op] = now, d
}

// Enter waits until the operation has a slot of the domain. says is told of its
// place in line. ctx ends the wait at once, Moved ends it with ErrMoved.
func (l *Limiter) Enter(ctx context.Context, name, op string, rank power.Seq, says func(string)) error {
	l.mu.Lock()
	d := l.domain(name)
	if l.holders[op] == d {
		l.mu.Unlock()
		return nil
	}
	l.releaseLocked(op) // its node moved to another domain
	p := &waiter{op: op, rank: rank, turn: make(chan struct{}), away: make(chan struct{}), tell: make(chan struct{}, 1)}
	d.join(p)
	l.dispatch(d)
	if at := slices.Index(d.line, p); at >= 0 {
		l.announce(d, p, at, time.Now())
	}
	l.mu.Unlock()
	for {
		select {
		case <-p.turn:
			return nil
		case <-p.away:
			return ErrMoved
		case <-p.tell:
			l.mu.Lock()
			text := p.says
			l.mu.Unlock()
			says(text)
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			if !d.leave(p) {
				l.releaseLocked(op)
			}
			l.dispatch(d)
			return context.Cause(ctx)
		}
	}
}

// Moved takes an operation that waits in line elsewhere than in the domain out of it,
// without a word where it waits as it should. "": its node is in no domain.
func (l *Limiter) Moved(op, domain string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, d := range l.domains {
		if name == domain {
			continue
		}
		if at := slices.IndexFunc(d.line, func(p *waiter) bool { return p.op == op }); at >= 0 {
			close(d.line[at].away)
			d.line = slices.Delete(d.line, at, at+1)
		}
	}
}

// LeaveAt is when the operation's command may leave.
func (l *Limiter) LeaveAt(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.domain(name).leaveAt(time.Now())
}

// Release takes the slot of an operation back, if it has one.
func (l *Limiter) Release(op string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releaseLocked(op)
}

func (l *Limiter) releaseLocked(op string) {
	d := l.holders[op]
	if d == nil {
		return
	}
	delete(l.holders, op)
	d.release(op, time.Now())
	l.dispatch(d)
}

// dispatch hands out what is due in a domain and has run see to the rest.
func (l *Limiter) dispatch(d *domain) (next time.Time) {
	if l.start.IsZero() {
		return time.Time{}
	}
	got, next := d.grant(time.Now())
	for _, p := range got {
		l.holders[p.op] = d
		close(p.turn)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return next
}

// announce gives a waiting operation something new to say. Those far behind have
// news less often.
func (l *Limiter) announce(d *domain, p *waiter, ahead int, now time.Time) {
	p.says = d.says(ahead)
	p.tellAt = now.Add(min(max(d.estimate(ahead)/8, tellEvery), 10*tellEvery))
	select {
	case p.tell <- struct{}{}:
	default:
	}
}

// tellEvery is how often a waiting operation renews its words at most.
const tellEvery = 3 * time.Second

// Run hands out slots as they become due, until ctx ends.
func (l *Limiter) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.wake:
		}
		timer.Reset(l.step(time.Now()))
	}
}

// step hands out what is due and renews words that are old. It returns the time
// until it must be called again.
func (l *Limiter) step(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	again := time.Hour
	for _, d := range l.domains {
		if next := l.dispatch(d); !next.IsZero() {
			again = min(again, next.Sub(now))
		}
		for i, p := range d.line {
			if !now.Before(p.tellAt) {
				l.announce(d, p, i, now)
			}
			again = min(again, p.tellAt.Sub(now))
		}
	}
	select {
	case <-l.wake: // its own
	default:
	}
	return max(again, 0)
}

// State is the state of a domain.
func (l *Limiter) State(name string) api.DomainState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.domain(name).state()
}

// States lists the domains of those names and all with work, by name.
func (l *Limiter) States(names map[string]bool) []api.DomainState {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []api.DomainState
	for name, d := range l.domains {
		if !names[name] && len(d.inFlight)+len(d.line) > 0 {
			list = append(list, d.state())
		}
	}
	for name := range names {
		list = append(list, l.domain(name).state())
	}
	slices.SortFunc(list, func(a, b api.DomainState) int { return strings.Compare(a.Name, b.Name) })
	return list
}
