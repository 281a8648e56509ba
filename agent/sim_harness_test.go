package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
	"rackpower/power/powertest"
)

// life is the agent with its disks and its BMCs, over all the processes of a history:
// how it starts, what it dies of and what is left then. It lives in a bubble of
// simulated time.
type life struct {
	see   witness
	fake  *powertest.Fake
	disks [2]*faultfs.FS // of the journal of operations, of the assignment
	in    *incarnation

	// configure says what a process is started with, born is called when New has
	// returned and before Run, trouble decides about calls on a disk that no death falls
	// on. segment says that the call is on a segment of the journal of operations.
	configure func(*incarnation) Config
	born      func(*incarnation)
	trouble   func(segment bool, c faultfs.Call) faultfs.Fault
	excused   func() bool // a disk failed: Close may say so
	started   func()      // called when a process is under way; nil: nothing is

	whole     bool   // no death tears a write: the machine stays up
	startArms []*arm // crashes within the starts to come
	races     sync.WaitGroup
	fatal     []faultfs.Call // the calls within which it died
}

// witness is the model as a life tells it what happens: starts, deaths and exchanges.
type witness interface {
	broken() bool
	fail(rule, format string, args ...any)
	tracef(format string, args ...any)
	begin(in int)
	died()
	dialled(in int, node string, err error)
	read(in int, node string, began time.Time, s power.State, err error, lie bool)
	leaves(in int, node string, cmd power.Command)
	came(in int, node string, cmd power.Command, err error)
	boots(in int, node string, dev power.BootDevice)
	booted(in int, node string, dev power.BootDevice, err error)
}

// awayCentral cannot be reached: the worlds of the models call what a session would.
type awayCentral struct{ Central }

func (awayCentral) Target() string { return "a model" }

func (awayCentral) Hello(context.Context, string, api.Hello) (api.Welcome, error) {
	return api.Welcome{}, errors.New("the model speaks for central")
}

// create makes the disks and BMCs of a life.
func (l *life) create(see witness) {
	l.see, l.fake, l.disks = see, powertest.NewFake(), [2]*faultfs.FS{faultfs.New(), faultfs.New()}
	l.fake.Preset(func(b *powertest.BMC) { b.SetTimeout(2 * time.Second) })
}

// arm is a death to come: within the n-th call that changes a disk.
type arm struct {
	n    int
	keep int  // of a write, how many thousandths are done; of another call, whether (from 500)
	byte int  // of a write, how many bytes are done; -1: as keep says
	any  bool // all calls of both disks count, else those on segments of the journal
	down time.Duration
	loss uint64 // 0: a killed process; else the seed of what a loss of power leaves
}

func armOf(s proofStep) *arm {
	at := -1
	if s.get("byte") != "" {
		at = s.number("byte")
	}
	return &arm{
		n: max(1, s.number("n")), byte: at, keep: s.number("keep"), any: s.get("any") != "", down: s.duration("down"),
		loss: uint64(s.number("power")),
	}
}

// incarnation is one process of the agent.
type incarnation struct {
	l      *life
	n      int
	ctx    context.Context // ends with its death
	kill   context.CancelFunc
	dead   atomic.Bool
	a      *Agent
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	runErr error

	mu     sync.Mutex
	arm    *arm
	fired  *arm           // what killed it
	flying map[string]int // exchanges by BMC
}

// start starts the agent, again and again while it dies of it.
func (l *life) start() {
	for !l.see.broken() {
		in := &incarnation{l: l, ended: make(chan struct{}), flying: map[string]int{}}
		if l.in != nil {
			in.n = l.in.n + 1
		}
		in.ctx, in.kill = context.WithCancel(context.Background())
		if len(l.startArms) > 0 {
			in.arm, l.startArms = l.startArms[0], l.startArms[1:]
		}
		l.in = in
		for i, disk := range l.disks {
			disk.OnCall(func(c faultfs.Call) faultfs.Fault { return in.onCall(i, c) })
		}
		l.see.begin(in.n)
		cfg := l.configure(in)
		cfg.Name, cfg.Dir, cfg.Dial, cfg.Logger = "r1", "/agent", in.dial, slog.New(slog.DiscardHandler)
		cfg.tuneLog = func(c *journal.Config) {
			c.FS, c.SegmentSize, c.KeepSegments = l.disks[0], 16<<10, 1
			c.Boot = "up"
			if !l.whole {
				c.Boot = fmt.Sprint(in.n) // a death may tear a write, as a loss of power does
			}
			if filepath.Base(c.Dir) == "assigned" {
				c.FS = l.disks[1]
			}
		}
		a, err := New(cfg)
		in.a = a
		switch {
		case in.dead.Load():
			close(in.ended)
			if a != nil {
				_ = a.Close()
			}
			l.bury()
			continue
		case err != nil:
			close(in.ended)
			l.see.fail("start", "New: %v", err)
			return
		}
		l.born(in)
		var ctx context.Context
		ctx, in.cancel = context.WithCancel(context.Background())
		go func() {
			in.runErr = a.Run(ctx, nil)
			close(in.ended)
		}()
		synctest.Wait()
		if l.started != nil {
			l.started()
		}
		return
	}
}

// onCall decides about a call that changes a disk.
func (in *incarnation) onCall(disk int, c faultfs.Call) faultfs.Fault {
	if in.dead.Load() {
		return faultfs.Fault{Err: faultfs.ErrPower}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	segment := disk == 0 && (strings.HasSuffix(c.Name, ".jnl") || c.Op == faultfs.OpSyncDir)
	if a := in.arm; a != nil && (a.any || segment) {
		if a.n--; a.n == 0 {
			in.l.see.tracef("dies within %s of %s (%d bytes)", c.Op, c.Name, c.Size)
			in.arm, in.fired, in.l.fatal = nil, a, append(in.l.fatal, c)
			in.die()
			switch {
			case c.Op == faultfs.OpWrite && a.byte >= 0:
				return faultfs.Fault{Err: faultfs.ErrPower, Bytes: a.byte}
			case c.Op == faultfs.OpWrite && strings.HasSuffix(c.Name, journal.MarkSuffix): // one sector
				return faultfs.Fault{Err: faultfs.ErrPower, Bytes: c.Size * min(a.keep/500, 1)}
			case c.Op == faultfs.OpWrite:
				return faultfs.Fault{Err: faultfs.ErrPower, Bytes: c.Size * a.keep / 1000}
			case a.keep >= 500:
				return faultfs.Fault{PowerOff: true}
			default:
				return faultfs.Fault{Err: faultfs.ErrPower}
			}
		}
	}
	return in.l.trouble(segment, c)
}

// die is the moment of death: nothing more reaches a disk or a BMC.
func (in *incarnation) die() {
	in.dead.Store(true)
	in.kill()
}

// bury waits for a dead process to be gone, leaves the disks as its death left
// them, and lets the time pass until the next start.
func (l *life) bury() {
	in := l.in
	in.mu.Lock()
	how := in.fired
	in.mu.Unlock()
	if how == nil {
		how = &arm{}
	}
	rng := rand.New(rand.NewPCG(how.loss, 1))
	for i, disk := range l.disks {
		if how.loss == 0 {
			l.disks[i] = disk.Restart()
		} else {
			l.disks[i] = disk.PowerLoss(512, rng.IntN)
		}
	}
	l.see.died()
	time.Sleep(how.down)
}

// sleep lets time pass, and starts the agent anew when it dies meanwhile.
func (l *life) sleep(d time.Duration) {
	if d == 0 && l.in.ctx.Err() == nil {
		return // what came before may still be at work: the next step races with it
	}
	until := time.Now().Add(d)
	for !l.see.broken() {
		timer := time.NewTimer(max(0, time.Until(until)))
		select {
		case <-timer.C:
			synctest.Wait()
			if l.in.ctx.Err() == nil {
				return
			}
		case <-l.in.ctx.Done():
		case <-l.in.ended:
		}
		timer.Stop()
		l.again()
	}
}

// again starts the next process after one that died, or that stopped by itself
// because its journal could take no more.
func (l *life) again() {
	in := l.in
	if !in.dead.Load() {
		if err := in.a.log.Err(); err == nil {
			l.see.fail("run", "Run returned by itself: %v", in.runErr)
			return
		}
		l.see.tracef("stopped by itself: %v", in.runErr)
	}
	l.reap()
	l.bury()
	l.start()
}

func (l *life) reap() {
	in := l.in
	in.die()
	in.cancel()
	<-in.ended
	_ = in.a.Close()
	l.races.Wait()
}

// stop ends the agent in an orderly way.
func (l *life) stop() {
	in := l.in
	if in == nil || in.a == nil || in.cancel == nil {
		return
	}
	in.cancel()
	<-in.ended
	l.races.Wait()
	err := in.a.Close()
	if !in.dead.Load() && err != nil && !l.excused() {
		l.see.fail("stop", "Close: %v", err)
	}
	in.die()
	for i, disk := range l.disks {
		l.disks[i] = disk.Restart()
	}
	l.see.died()
}

// dial opens a session through which the model sees every exchange, and which ends
// with the process.
func (in *incarnation) dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	node := ep.Host
	if node == chassis {
		node = ep.User
	}
	d := &tapDriver{in: in, key: ep.Key(), node: node}
	err := d.exchange(ctx, "dial", func(ctx context.Context) (err error) {
		d.inner, err = in.l.fake.Dial(ctx, power.Endpoint{Scheme: ep.Scheme, Host: node, Port: ep.Port, User: ep.User, Password: ep.Password})
		return err
	})
	in.l.see.dialled(in.n, node, err)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type tapDriver struct {
	in        *incarnation
	inner     power.Driver
	key, node string
}

var errGone = errors.New("the process is dead")

// exchange counts what is in flight and cuts it off at the death of the process.
func (d *tapDriver) exchange(ctx context.Context, what string, fn func(context.Context) error) error {
	in := d.in
	if in.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: what, Lost: true, Err: errGone}
	}
	in.mu.Lock()
	in.flying[d.key]++
	if n := in.flying[d.key]; n > 1 {
		in.l.see.fail("one exchange per BMC", "%d exchanges with %s are in flight (%s of %s)", n, d.key, what, d.node)
	}
	in.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(in.ctx, cancel)
	err := fn(ctx)
	unhook()
	cancel()
	in.mu.Lock()
	in.flying[d.key]--
	in.mu.Unlock()
	return err
}

func (d *tapDriver) State(ctx context.Context) (s power.State, err error) {
	began := time.Now()
	b := d.in.l.fake.BMC(d.node)
	lies := b.Counts().Lies
	err = d.exchange(ctx, "state", func(ctx context.Context) (err error) {
		s, err = d.inner.State(ctx)
		return err
	})
	if !d.in.dead.Load() {
		d.in.l.see.read(d.in.n, d.node, began, s, err, b.Counts().Lies > lies)
	}
	return s, err
}

func (d *tapDriver) Do(ctx context.Context, cmd power.Command) error {
	if d.in.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: string(cmd), Lost: true, Err: errGone}
	}
	d.in.l.see.leaves(d.in.n, d.node, cmd)
	err := d.exchange(ctx, string(cmd), func(ctx context.Context) error { return d.inner.Do(ctx, cmd) })
	d.in.l.see.came(d.in.n, d.node, cmd, err)
	return err
}

func (d *tapDriver) SetBoot(ctx context.Context, dev power.BootDevice) error {
	d.in.l.see.boots(d.in.n, d.node, dev)
	err := d.exchange(ctx, "boot", func(ctx context.Context) error { return d.inner.SetBoot(ctx, dev) })
	d.in.l.see.booted(d.in.n, d.node, dev, err)
	return err
}

func (d *tapDriver) Close() error {
	return d.exchange(context.Background(), "close", func(context.Context) error { return d.inner.Close() })
}
