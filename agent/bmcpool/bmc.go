// Package bmcpool holds the connections to the BMCs of a rack, one exchange at a time each,
// and knows which of them are left alone because they do not answer or refuse the log-in.
package bmcpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"rackpower/internal/lock"
	"rackpower/power"
)

// BMC is one BMC: a lock that lets one exchange happen at a time, and the
// connection that is kept between them. Nodes behind one BMC share it.
type BMC struct {
	of       *Pool
	key      string
	dial     power.Dialer
	exchange time.Duration // bound on one exchange
	keep     time.Duration // that a session may be idle; below 0: it is not kept
	turn     chan struct{} // holds one token: its holder talks to the BMC
	beside   chan struct{} // the token that is held besides: the BMC is another one as well, by another name

	// below: owned by the holder of the token
	endpoint power.Endpoint
	driver   power.Driver
	lastUsed time.Time
	opened   time.Time // the session of the driver
	// idle is how long that may be so, and age how old it may be
	idle, age time.Duration

	reader chan struct{} // holds one token: its holder reads the BMC's nodes

	mu      lock.Mutex[lock.BMC] // guards what is below
	breaker breaker
	probing bool
	reopen  bool            // the next exchange must open a new session
	nodes   map[string]bool // that were read by this BMC, gone ones too
	// refused are the log-ins refused in a row, by the credentials: nodes that share a
	// BMC may not share these.
	refused map[Credentials]refusals
}

// refusals is how often in a row, and why at last.
type refusals struct {
	times int
	kind  power.ErrorKind
	says  string // of the last, in this process
}

func newBMC(of *Pool, key string) *BMC {
	b := &BMC{
		of: of, key: key, dial: of.dial, exchange: of.exchange, keep: of.keepFor, turn: make(chan struct{}, 1), reader: make(chan struct{}, 1),
		nodes: map[string]bool{}, refused: map[Credentials]refusals{},
	}
	b.turn <- struct{}{}
	b.reader <- struct{}{}
	return b
}

// Key is that of its endpoints.
func (b *BMC) Key() string { return b.key }

// BeginReading takes the right to read the BMC's nodes, which one reading at a time has, until
// done is called. wait: until it is free; false: somebody else has it, or ctx has ended.
func (b *BMC) BeginReading(ctx context.Context, wait bool) (done func(), ok bool) {
	done = func() { b.reader <- struct{}{} }
	select {
	case <-b.reader:
		return done, true
	default:
	}
	if !wait {
		return nil, false
	}
	select {
	case <-b.reader:
		return done, true
	case <-ctx.Done():
		return nil, false
	}
}

// acquire waits for the BMC's turn. ctx ends the wait.
func (b *BMC) acquire(ctx context.Context) error {
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
func (b *BMC) tryAcquire() bool {
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

func (b *BMC) release() {
	if b.beside != nil {
		b.beside <- struct{}{}
		b.beside = nil
	}
	b.turn <- struct{}{}
}

// With runs fn with a connected driver while nobody else talks to the BMC. ctx
// ends the wait for the turn and is looked at again before fn; what fn then does
// runs to its own end, within the exchange bound, whatever becomes of ctx. force
// lets one log-in through although earlier ones were refused.
func (b *BMC) With(ctx context.Context, ep power.Endpoint, force bool, fn func(context.Context, power.Driver) error) error {
	if err := b.acquire(ctx); err != nil {
		return err
	}
	defer b.release()
	b.turnTo(ep)
	if r := b.refusals(ep); r.times >= authFailuresToOpen && !force {
		b.of.refused(ep)
		return &power.Error{Kind: r.kind, Op: "log in", Err: fmt.Errorf("%w: %s", errNotTried, r.text())}
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
func (b *BMC) turnTo(ep power.Endpoint) {
	was := b.endpoint
	b.endpoint = ep
	if was == ep {
		return
	}
	if d, ok := as[power.Targeter](b.driver); ok && was.BMC() == ep.BMC() {
		d.SetTarget(ep)
		return
	}
	b.drop()
}

// Test opens a new session, once, and has the BMC say what it is. Refused log-ins count, and
// keep it from being tried, as ever: tried is false where it was not.
func (b *BMC) Test(ctx context.Context, ep power.Endpoint) (result power.TestResult, tried bool, err error) {
	b.mu.Lock()
	b.reopen = true
	b.mu.Unlock()
	err = b.With(ctx, ep, false, func(ctx context.Context, d power.Driver) (err error) {
		if t, ok := tester(d); ok {
			result, err = t.Test(ctx)
			return unanswered(err, b.exchange)
		}
		result.State, err = d.State(ctx)
		return err
	})
	return result, !errors.Is(err, errNotTried) && ctx.Err() == nil, err
}

// errNotTried means that a log-in was left alone.
var errNotTried = errors.New("not tried")

// State reads the power, once more over a new connection when a kept one turns
// out to be dead: BMCs forget sessions.
func (b *BMC) State(ctx context.Context, ep power.Endpoint, force bool) (power.State, error) {
	seen, err := b.Read(ctx, ep, force)
	return seen.State, err
}

// Seen is what a reading brought.
type Seen struct {
	power.State
	Changing bool // the power is about to change
	// Found is the BMC of an auto endpoint by the protocol that it speaks, and Why by that one;
	// the zero Endpoint: it was no such endpoint.
	Found power.Endpoint
	Why   string
}

// Read is State, and says more.
func (b *BMC) Read(ctx context.Context, ep power.Endpoint, force bool) (seen Seen, _ error) {
	err := b.read(ctx, ep, force, func(ctx context.Context, d power.Driver) (err error) {
		seen.State, err = d.State(ctx)
		if c, ok := as[power.Changer](d); ok {
			seen.Changing = c.Changing()
		}
		if f, ok := as[power.Finder](d); ok {
			seen.Found, seen.Why = f.Found()
		}
		return err
	})
	return seen, err
}

// Consumption reads what the node takes, and its limit, as Read does the power.
func (b *BMC) Consumption(ctx context.Context, ep power.Endpoint, force bool) (c power.Consumption, _ error) {
	err := b.read(ctx, ep, force, func(ctx context.Context, d power.Driver) (err error) {
		c, err = MeterOf(d).Consumption(ctx)
		return err
	})
	return c, err
}

// read is With for what may be repeated, once more over a new connection.
func (b *BMC) read(ctx context.Context, ep power.Endpoint, force bool, fn func(context.Context, power.Driver) error) error {
	for try := 0; ; try++ {
		kept := false
		err := b.With(ctx, ep, force && try == 0, func(ctx context.Context, d power.Driver) (err error) {
			kept = !b.lastUsed.IsZero()
			return fn(ctx, d)
		})
		var de *power.Error
		if err == nil || try > 0 || !kept || !errors.As(err, &de) || !de.Lost || ctx.Err() != nil {
			return err
		}
	}
}

func (b *BMC) connect(ctx context.Context) error {
	if b.driver != nil && (b.keep > 0 && time.Since(b.lastUsed) > b.idle || time.Since(b.opened) > b.age || b.wantsNew()) {
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
	b.idle, b.age = b.keep, b.of.age
	if k, ok := as[power.Keeper](b.driver); ok {
		b.idle, b.age = k.KeepFor()
	}
	b.learn(b.endpoint, nil)
	return nil
}

// wantsNew reports, once, whether somebody wants the session to be a new one.
func (b *BMC) wantsNew() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	reopen := b.reopen
	b.reopen = false
	return reopen
}

// drop ends the connection. Only the holder of the token calls it.
func (b *BMC) drop() {
	if b.driver != nil {
		_ = b.driver.Close()
		b.driver, b.lastUsed = nil, time.Time{}
	}
}

// closeIdle ends a connection that was not used for the time it is kept, unless
// somebody is using the BMC now.
func (b *BMC) closeIdle() {
	if b.tryAcquire() {
		defer b.release()
		if b.driver != nil && time.Since(b.lastUsed) > b.idle {
			b.drop()
		}
	}
}

// Rest ends the session that was opened since, for a round of readings: the next round opens another one,
// and until then this would take one of the few of the BMC. One that is dear to open (power.Keeper) stays.
func (b *BMC) Rest(since time.Time) {
	if !b.tryAcquire() {
		return // somebody uses it
	}
	defer b.release()
	if _, keeps := as[power.Keeper](b.driver); b.driver != nil && !keeps && b.opened.After(since) {
		b.drop()
	}
}

// Config is what a pool needs.
type Config struct {
	Dial   power.Dialer
	Forget func(power.Endpoint) // what was learnt of the BMC; nil: nothing is
	// Exchange bounds one exchange; KeepSession is how long a session may be idle,
	// SessionAge how old it may be.
	Exchange, KeepSession, SessionAge time.Duration
	// Probe is the pause before a silent BMC is probed; it doubles up to LongProbe, and up
	// to a quarter of each is left out by Jitter, in [0, 1).
	Probe, LongProbe time.Duration
	Jitter           func() float64
	// Beside is a token that is held besides while a BMC is talked to, nil for none: it may
	// be another one as well, by another name.
	Beside func(key string) chan struct{}
	// Refused is told of log-ins that a BMC refused, or that are not tried because it did; nil:
	// nobody is.
	Refused func(power.Endpoint)
	Logger  *slog.Logger
}

// Pool holds the BMCs of a rack by their key.
type Pool struct {
	dial                   power.Dialer
	forget                 func(power.Endpoint)
	exchange, keepFor, age time.Duration
	pauses                 probePauses
	logger                 *slog.Logger
	salt                   string                    // of credentials
	keep                   func(rec Refusal, k bool) // makes a count of refusals durable
	wake                   chan struct{}             // a token: the times of the next probes may have changed
	beside                 func(key string) chan struct{}
	refused                func(power.Endpoint)

	mu    lock.Mutex[lock.Pool]
	all   map[string]*BMC
	alone map[*BMC]bool // those that a probe may be due for
}

// New makes a pool. Nothing is dialled before somebody asks.
func New(c Config) *Pool {
	if c.Refused == nil {
		c.Refused = func(power.Endpoint) {}
	}
	return &Pool{
		refused: c.Refused,
		dial:    c.Dial, forget: c.Forget, exchange: c.Exchange, keepFor: c.KeepSession, age: c.SessionAge, logger: c.Logger,
		pauses: probePauses{first: c.Probe, longest: c.LongProbe, jitter: c.Jitter}, beside: c.Beside, wake: make(chan struct{}, 1),
		all: map[string]*BMC{}, alone: map[*BMC]bool{}, keep: func(Refusal, bool) {},
	}
}

// KeepRefusals has counts of refused log-ins made durable, or forgotten, by keep. The hash of
// the credentials in them is made with the salt. It is called before the pool is used.
func (p *Pool) KeepRefusals(salt string, keep func(r Refusal, keep bool)) {
	p.salt, p.keep = salt, keep
}

// Get is the BMC of an endpoint.
func (p *Pool) Get(ep power.Endpoint) *BMC { return p.byKey(ep.Key()) }

func (p *Pool) byKey(key string) *BMC {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.all[key]
	if b == nil {
		b = newBMC(p, key)
		p.all[key] = b
	}
	return b
}

func (p *Pool) list() []*BMC {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*BMC, 0, len(p.all))
	for _, b := range p.all {
		list = append(list, b)
	}
	return list
}

// Tend closes idle sessions until ctx ends.
func (p *Pool) Tend(ctx context.Context) {
	if p.keepFor <= 0 {
		return
	}
	tick := time.NewTicker(max(p.keepFor/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, b := range p.list() {
				b.closeIdle()
			}
		}
	}
}

// Close ends all sessions; exchanges under way are waited for until ctx ends.
func (p *Pool) Close(ctx context.Context) {
	var wg sync.WaitGroup
	for _, b := range p.list() {
		wg.Go(func() {
			if b.acquire(ctx) == nil {
				b.drop()
				b.release()
			}
		})
	}
	wg.Wait()
}
