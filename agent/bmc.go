package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"rackpower/power"
)

// bmc is one BMC: a lock that lets one exchange happen at a time, and the
// connection that is kept between them. Nodes behind one BMC share it.
type bmc struct {
	of       *bmcs
	key      string
	dial     power.Dialer
	exchange time.Duration // bound on one exchange
	keep     time.Duration // that a session may be idle
	age      time.Duration // that a session may have
	turn     chan struct{} // holds one token: whoever has it talks to the BMC
	beside   chan struct{} // the token that is held besides: the BMC is another one as well, by another name

	// below: owned by the holder of the token
	endpoint power.Endpoint
	driver   power.Driver
	lastUsed time.Time
	opened   time.Time // the session of the driver

	reader chan struct{} // holds one token: whoever has it reads the BMC's nodes

	mu      sync.Mutex // guards what is below
	breaker breaker
	probing bool
	anew    bool            // the next exchange is to open a new session
	nodes   map[string]bool // that were read by this BMC, gone ones too
	// refused are the log-ins refused in a row, by the credentials: nodes that share a
	// BMC may not share these.
	refused map[credentials]refusals
}

// refusals is how often in a row, and why at last.
type refusals struct {
	times int
	kind  power.ErrorKind
	says  string // of the last, in this process
}

func newBMC(of *bmcs, key string) *bmc {
	b := &bmc{
		of: of, key: key, dial: of.dial, exchange: of.t.Exchange, keep: of.t.KeepSession, age: of.t.SessionAge, turn: make(chan struct{},
			1), reader: make(chan struct{}, 1),
		nodes: map[string]bool{}, refused: map[credentials]refusals{},
	}
	b.turn <- struct{}{}
	b.reader <- struct{}{}
	return b
}

// acquire waits for the BMC's turn. ctx ends the wait.
func (b *bmc) acquire(ctx context.Context) error {
	select {
	case <-b.turn:
	default:
		select {
		case <-b.turn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if beside := b.of.beside(b.key); beside != nil {
		select {
		case <-beside:
			b.beside = beside
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		b.release()
		return context.Cause(ctx)
	}
	return nil
}

// tryAcquire takes the BMC's turn if nobody has it.
func (b *bmc) tryAcquire() bool {
	select {
	case <-b.turn:
	default:
		return false
	}
	if beside := b.of.beside(b.key); beside != nil {
		select {
		case <-beside:
			b.beside = beside
		default:
			b.release()
			return false
		}
	}
	return true
}

func (b *bmc) release() {
	if b.beside != nil {
		b.beside <- struct{}{}
		b.beside = nil
	}
	b.turn <- struct{}{}
}

// with runs fn with a connected driver while nobody else talks to the BMC. ctx
// ends the wait for the turn and is looked at again before fn; what fn then does
// runs to its own end, within the exchange bound, whatever becomes of ctx. force
// lets one log-in through although earlier ones were refused.
func (b *bmc) with(ctx context.Context, ep power.Endpoint, force bool, fn func(context.Context, power.Driver) error) error {
	if err := b.acquire(ctx); err != nil {
		return err
	}
	defer b.release()
	b.turnTo(ep)
	if r := b.refusals(ep); r.times >= authFailuresToOpen && !force {
		return &power.Error{Kind: r.kind, Op: "log in", Err: fmt.Errorf("not tried: %s", r.text())}
	}
	inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.exchange)
	defer cancel()
	if err := b.connect(inner); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := fn(inner, b.driver)
	b.lastUsed = time.Now()
	b.learn(ep, err)
	if b.keep < 0 {
		b.drop()
	}
	return err
}

// turnTo has the connection be one to the endpoint: the one that is kept, where only the
// part of the BMC differs and it serves all of them, else none yet.
func (b *bmc) turnTo(ep power.Endpoint) {
	was := b.endpoint
	b.endpoint = ep
	if was == ep {
		return
	}
	was.Target, was.Channel = ep.Target, ep.Channel
	if d, ok := targeter(b.driver); ok && was == ep {
		d.SetTarget(ep.Target, ep.Channel)
		return
	}
	b.drop()
}

// state reads the power, once more over a new connection when a kept one turns
// out to be dead: BMCs forget sessions.
func (b *bmc) state(ctx context.Context, ep power.Endpoint, force bool) (power.State, error) {
	var state power.State
	for try := 0; ; try++ {
		kept := false
		err := b.with(ctx, ep, force && try == 0, func(ctx context.Context, d power.Driver) (err error) {
			kept = !b.lastUsed.IsZero()
			state, err = d.State(ctx)
			return err
		})
		var de *power.Error
		if err == nil || try > 0 || !kept || !errors.As(err, &de) || !de.Lost || ctx.Err() != nil {
			return state, err
		}
	}
}

func (b *bmc) connect(ctx context.Context) error {
	if b.driver != nil && (b.keep > 0 && time.Since(b.lastUsed) > b.keep || time.Since(b.opened) > b.age || b.wantsNew()) {
		b.drop()
	}
	if b.driver != nil {
		return nil
	}
	d, err := b.dial(ctx, b.endpoint)
	if err != nil {
		err = unanswered(err, b.exchange)
		b.learn(b.endpoint, err)
		return err
	}
	b.driver, b.lastUsed, b.opened = bounded{d, b.exchange}, time.Time{}, time.Now()
	b.learn(b.endpoint, nil)
	return nil
}

// wantsNew reports, once, whether somebody wants the session to be a new one.
func (b *bmc) wantsNew() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	anew := b.anew
	b.anew = false
	return anew
}

// drop ends the connection. Only the holder of the token calls it.
func (b *bmc) drop() {
	if b.driver != nil {
		_ = b.driver.Close()
		b.driver, b.lastUsed = nil, time.Time{}
	}
}

// closeIdle ends a connection that was not used for the time it is kept, unless
// somebody is using the BMC now.
func (b *bmc) closeIdle() {
	if b.tryAcquire() {
		defer b.release()
		if b.driver != nil && time.Since(b.lastUsed) > b.keep {
			b.drop()
		}
	}
}

// bmcs holds the BMCs of a rack by their key.
type bmcs struct {
	dial   power.Dialer
	forget func(power.Endpoint) // what was learnt of the BMC; nil: nothing is
	t      Timing
	pauses probePauses
	logger *slog.Logger
	salt   string                          // of credentials
	keep   func(rec refusedRecord, k bool) // makes a count of refusals durable
	wake   chan struct{}                   // a token: the times of the next probes may have changed
	beside func(key string) chan struct{}  // addresses.turn

	mu    sync.Mutex
	all   map[string]*bmc
	alone map[*bmc]bool // those that a probe may be due for
}

func (s *bmcs) get(ep power.Endpoint) *bmc { return s.byKey(ep.Key()) }

func (s *bmcs) byKey(key string) *bmc {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[key]
	if b == nil {
		b = newBMC(s, key)
		s.all[key] = b
	}
	return b
}

func (s *bmcs) list() []*bmc {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*bmc, 0, len(s.all))
	for _, b := range s.all {
		list = append(list, b)
	}
	return list
}

// tend closes idle sessions until ctx ends.
func (s *bmcs) tend(ctx context.Context) {
	if s.t.KeepSession <= 0 {
		return
	}
	tick := time.NewTicker(max(s.t.KeepSession/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, b := range s.list() {
				b.closeIdle()
			}
		}
	}
}

// closeAll ends all sessions; exchanges under way are waited for until ctx ends.
func (s *bmcs) closeAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, b := range s.list() {
		wg.Go(func() {
			if b.acquire(ctx) == nil {
				b.drop()
				b.release()
			}
		})
	}
	wg.Wait()
}
