package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/power"
)

// place is an operation's place in the line of a power domain.
type place struct {
	op   string
	rank power.Seq     // who asked first is served first, after a restart too
	turn chan struct{} // closed when the place has got its slot
	away chan struct{} // closed when the place was taken out of the line: its node is in another domain

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
	limit   api.DomainLimit
	granted time.Time            // when the last slot was handed out
	leaves  time.Time            // when the last command may leave; may lie ahead
	flying  map[string]time.Time // operations with a slot, since when
	line    []*place             // by rank, equal ones in the order they came
	took    time.Duration        // how long a slot is out, about
}

// newDomain counts the start as a power-on: who knows what was sent just before it.
func newDomain(limit api.DomainLimit, start time.Time) *domain {
	return &domain{limit: limit, granted: start, leaves: start, flying: map[string]time.Time{}}
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
	return d.limit.Concurrent > 0 && len(d.flying) >= d.limit.Concurrent
}

func (d *domain) join(p *place) {
	at := sort.Search(len(d.line), func(i int) bool { return d.line[i].rank > p.rank })
	d.line = slices.Insert(d.line, at, p)
}

// leave takes a place out of the line; false: it was not in it any more.
func (d *domain) leave(p *place) bool {
	at := slices.Index(d.line, p)
	if at < 0 {
		return false
	}
	d.line = slices.Delete(d.line, at, at+1)
	return true
}

// grant hands out the slots that are due and returns who got one. next is when the
// next one is due; zero: nobody waits, or one must come back first.
func (d *domain) grant(now time.Time) (got []*place, next time.Time) {
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
		d.granted, d.flying[p.op] = now, now
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
	since, ok := d.flying[op]
	if !ok {
		return false
	}
	delete(d.flying, op)
	if took := now.Sub(since); d.took == 0 {
		d.took = took
	} else {
		d.took += (took - d.took) / 8
	}
	return true
}

// estimate is about how long a place with so many ahead of it waits.
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
	return api.DomainState{DomainLimit: d.limit, InFlight: len(d.flying), Waiting: len(d.line)}
}

// stagger holds the power domains of an agent and wakes who has its turn.
type stagger struct {
	wake chan struct{} // a token: the times of the next turns may have changed

	mu      sync.Mutex
	start   time.Time
	limits  map[string]api.DomainLimit // those that were set
	domains map[string]*domain
	holders map[string]*domain // by operation: where it has a slot
}

func newStagger() *stagger {
	return &stagger{wake: make(chan struct{}, 1), domains: map[string]*domain{}, holders: map[string]*domain{}}
}

// begin notes when the agent starts to act. Nothing is granted before.
func (s *stagger) begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = now
	for _, d := range s.domains {
		d.granted, d.leaves = now, now
	}
}

func (s *stagger) limit(name string) api.DomainLimit {
	if l, ok := s.limits[name]; ok {
		return l
	}
	return api.DomainLimit{Name: name, Rate: power.DefaultDomainRate, Concurrent: power.DefaultDomainConcurrent}
}

func (s *stagger) domain(name string) *domain {
	d := s.domains[name]
	if d == nil {
		d = newDomain(s.limit(name), s.start)
		s.domains[name] = d
	}
	return d
}

// setLimits replaces all limits; domains that are not named have the defaults.
func (s *stagger) setLimits(limits []api.DomainLimit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = map[string]api.DomainLimit{}
	for _, l := range limits {
		s.limits[l.Name] = l
	}
	for name, d := range s.domains {
		d.setLimit(s.limit(name), time.Now())
		s.pump(d)
	}
}

// hold gives an operation a slot without waiting: its command left before a restart.
func (s *stagger) hold(name, op string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.domain(name)
	d.flying[op], s.holders[op] = now, d
}

// enter waits until the operation has a slot of the domain. says is told of its
// place in line. ctx ends the wait at once, moved ends it with errMoved.
func (s *stagger) enter(ctx context.Context, name, op string, rank power.Seq, says func(string)) error {
	s.mu.Lock()
	d := s.domain(name)
	if s.holders[op] == d {
		s.mu.Unlock()
		return nil
	}
	s.releaseLocked(op) // its node moved to another domain
	p := &place{op: op, rank: rank, turn: make(chan struct{}), away: make(chan struct{}), tell: make(chan struct{}, 1)}
	d.join(p)
	s.pump(d)
	if at := slices.Index(d.line, p); at >= 0 {
		s.announce(d, p, at, time.Now())
	}
	s.mu.Unlock()
	for {
		select {
		case <-p.turn:
			return nil
		case <-p.away:
			return errMoved
		case <-p.tell:
			s.mu.Lock()
			text := p.says
			s.mu.Unlock()
			says(text)
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			if !d.leave(p) {
				s.releaseLocked(op)
			}
			s.pump(d)
			return context.Cause(ctx)
		}
	}
}

// moved takes an operation that waits in line elsewhere than in the domain out of it,
// without a word where it waits as it should. "": its node is in no domain.
func (s *stagger) moved(op, domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, d := range s.domains {
		if name == domain {
			continue
		}
		if at := slices.IndexFunc(d.line, func(p *place) bool { return p.op == op }); at >= 0 {
			close(d.line[at].away)
			d.line = slices.Delete(d.line, at, at+1)
		}
	}
}

// leaveAt is when the operation's command may leave.
func (s *stagger) leaveAt(name string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.domain(name).leaveAt(time.Now())
}

// release takes the slot of an operation back, if it has one.
func (s *stagger) release(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(op)
}

func (s *stagger) releaseLocked(op string) {
	d := s.holders[op]
	if d == nil {
		return
	}
	delete(s.holders, op)
	d.release(op, time.Now())
	s.pump(d)
}

// pump hands out what is due in a domain and has run see to the rest.
func (s *stagger) pump(d *domain) (next time.Time) {
	if s.start.IsZero() {
		return time.Time{}
	}
	got, next := d.grant(time.Now())
	for _, p := range got {
		s.holders[p.op] = d
		close(p.turn)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return next
}

// announce gives a waiting operation something new to say. Those far behind have
// news less often.
func (s *stagger) announce(d *domain, p *place, ahead int, now time.Time) {
	p.says = d.says(ahead)
	p.tellAt = now.Add(min(max(d.estimate(ahead)/8, tellEvery), 10*tellEvery))
	select {
	case p.tell <- struct{}{}:
	default:
	}
}

// tellEvery is how often a waiting operation renews its words at most.
const tellEvery = 3 * time.Second

// run hands out slots as they become due, until ctx ends.
func (s *stagger) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		timer.Reset(s.step(time.Now()))
	}
}

// step hands out what is due and renews words that are old. It returns the time
// until it is to be called again.
func (s *stagger) step(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := time.Hour
	for _, d := range s.domains {
		if next := s.pump(d); !next.IsZero() {
			again = min(again, next.Sub(now))
		}
		for i, p := range d.line {
			if !now.Before(p.tellAt) {
				s.announce(d, p, i, now)
			}
			again = min(again, p.tellAt.Sub(now))
		}
	}
	select {
	case <-s.wake: // its own
	default:
	}
	return max(again, 0)
}

// states lists the domains of those names and all with work, by name.
func (s *stagger) states(names map[string]bool) []api.DomainState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []api.DomainState
	for name, d := range s.domains {
		if !names[name] && len(d.flying)+len(d.line) > 0 {
			list = append(list, d.state())
		}
	}
	for name := range names {
		list = append(list, s.domain(name).state())
	}
	slices.SortFunc(list, func(a, b api.DomainState) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// beginStagger gives the operations whose power-on, or the cut before it, left before the
// start their slots back, and then lets the queues move.
func (a *Agent) beginStagger(now time.Time) {
	for _, l := range a.allLanes() {
		n, _ := a.assigned.get(l.node)
		if n.Domain == "" {
			continue
		}
		l.mu.Lock()
		for _, t := range l.tasks {
			if t.history.unsettled == power.PowerOn || t.op.Action == power.ActCycle && t.history.attempts > 0 {
				a.stagger.hold(n.Domain, t.op.ID, now)
			}
		}
		l.mu.Unlock()
	}
	a.stagger.begin(now)
}

// freshFor is how old a reading may be when a power-on goes by it.
const freshFor = time.Second

// promptness is how long after its time a power-on may leave; then it asks for
// another time. It doubles each time that was not enough.
const promptness = time.Second

// Why a power-on did not leave.
var (
	errThere = errors.New("the node is so already")
	errLate  = errors.New("the time at which the power-on could leave is over")
	errMoved = errors.New("the node is in another power domain by now")
)

// ascent is the way of one power-on through its domain; its zero value is that of a
// node without one.
type ascent struct {
	domain string
	at     time.Time     // when it may leave; zero: not known yet
	good   time.Duration // for so long after that
}

// queue waits for a slot of the node's power domain and then sees that what was read
// before still holds.
func (x *execution) queue(ctx context.Context) (*ascent, error) {
	began := time.Now()
	domain, err := x.slot(ctx)
	if err == nil {
		err = x.lookAgain(ctx, began)
	}
	return &ascent{domain: domain, good: promptness}, err
}

// slot waits for a slot of the node's power domain, if the operation has none yet. It
// returns the domain's name, "" for a node in none.
func (x *execution) slot(ctx context.Context) (string, error) {
	for {
		n, _ := x.a.assigned.get(x.l.node)
		if n.Domain == "" {
			x.a.stagger.release(x.op.ID)
			return "", nil
		}
		err := x.a.stagger.enter(ctx, n.Domain, x.op.ID, x.op.Seq, func(says string) { x.l.setPhase(x.t, says) })
		if now, _ := x.a.assigned.get(x.l.node); errors.Is(err, errMoved) || err == nil && now.Domain != n.Domain {
			continue
		}
		return n.Domain, err
	}
}

// domainsChanged has operations that wait for a power domain wait for the one that
// their nodes are in now.
func (a *Agent) domainsChanged(nodes []string) {
	for _, name := range nodes {
		n, _ := a.assigned.get(name)
		for _, r := range a.lane(name).outstanding() {
			a.stagger.moved(r.Op.ID, n.Domain)
		}
	}
}

// lookAgain reads the node if the last reading is older than freshFor.
func (x *execution) lookAgain(ctx context.Context, last time.Time) error {
	if time.Since(last) <= freshFor {
		return nil
	}
	state, err := x.read(ctx)
	if err == nil && state == power.On {
		err = errThere
	}
	return err
}

// pace waits until the command may leave. It returns how long that took.
func (x *execution) pace(ctx context.Context, s *ascent) (time.Duration, error) {
	began := time.Now()
	for s.domain != "" && (s.at.IsZero() || s.late()) {
		if !s.at.IsZero() {
			s.good *= 2
		}
		asked := time.Now()
		s.at = x.a.stagger.leaveAt(s.domain)
		if left := time.Until(s.at); left > 0 {
			if err := backoff.Sleep(ctx, left); err != nil {
				return 0, err
			}
		}
		if err := x.lookAgain(ctx, asked); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

func (s *ascent) late() bool {
	return s.domain != "" && time.Since(s.at) > s.good
}
