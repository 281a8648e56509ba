package agent

import (
	"context"
	"errors"
	"time"

	"rackpower/agent/limiter"
	"rackpower/internal/backoff"
	"rackpower/power"
)

// beginLimiter gives the operations whose power-on, or the cut before it, left before the
// start their slots back, and then lets the queues move.
func (a *Agent) beginLimiter(now time.Time) {
	for _, l := range a.allLanes() {
		n, _ := a.assigned.get(l.node)
		if n.Domain == "" {
			continue
		}
		l.mu.Lock()
		for _, t := range l.tasks {
			if t.history.unsettled == power.PowerOn || t.op.Action == power.ActCycle && t.history.attempts > 0 {
				a.limiter.Hold(n.Domain, t.op.ID, now)
			}
		}
		l.mu.Unlock()
	}
	a.limiter.Begin(now)
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
			x.a.limiter.Release(x.op.ID)
			return "", nil
		}
		err := x.a.limiter.Enter(ctx, n.Domain, x.op.ID, x.op.Seq, func(says string) { x.l.setPhase(x.t, says) })
		if now, _ := x.a.assigned.get(x.l.node); errors.Is(err, limiter.ErrMoved) || err == nil && now.Domain != n.Domain {
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
			a.limiter.Moved(r.Op.ID, n.Domain)
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
		s.at = x.a.limiter.LeaveAt(s.domain)
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
