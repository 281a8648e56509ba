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

// simHarness is the agent with its disks and its BMCs, over all the processes of a history:
// how it starts, what it dies of and what is left then. It runs in a bubble of
// simulated time.
type simHarness struct {
	see   simObserver
	fake  *powertest.Fake
	disks [2]*faultfs.FS // of the journal of operations, of the assignment
	proc  *simProcess

	// configure says what a process is started with, born is called when New has
	// returned and before Run, trouble decides about calls on a disk that no death falls
	// on. segment says that the call is on a segment of the journal of operations.
	configure func(*simProcess) Config
	born      func(*simProcess)
	trouble   func(segment bool, c faultfs.Call) faultfs.Fault
	excused   func() bool // a disk failed: Close may say so
	started   func()      // called when a process is under way; nil: nothing is

	whole        bool          // no death tears a write: the machine stays up
	startCrashes []*crashPoint // crashes within the starts to come
	races        sync.WaitGroup
	fatal        []faultfs.Call // the calls within which it died
}

// simObserver is the model, which the harness tells what happens: starts, deaths and exchanges.
type simObserver interface {
	broken() bool
	fail(rule, format string, args ...any)
	tracef(format string, args ...any)
	begin(proc int)
	died()
	dialled(proc int, node string, err error)
	read(proc int, node string, began time.Time, s power.State, err error, lie bool)
	leaves(proc int, node string, cmd power.Command)
	came(proc int, node string, cmd power.Command, err error)
	boots(proc int, node string, dev power.BootDevice)
	booted(proc int, node string, dev power.BootDevice, err error)
}

// awayCentral cannot be reached: the worlds of the models call what a session would.
type awayCentral struct{ Central }

func (awayCentral) Target() string { return "a model" }

func (awayCentral) Hello(context.Context, string, api.Hello) (api.Welcome, error) {
	return api.Welcome{}, errors.New("the model speaks for central")
}

// create makes the disks and BMCs of a history.
func (h *simHarness) create(see simObserver) {
	h.see, h.fake, h.disks = see, powertest.NewFake(), [2]*faultfs.FS{faultfs.New(), faultfs.New()}
	h.fake.Preset(func(b *powertest.BMC) { b.SetTimeout(2 * time.Second) })
}

// crashPoint is where the process dies: within the n-th call that changes a disk.
type crashPoint struct {
	n    int
	keep int  // of a write, how many thousandths are done; of another call, whether (from 500)
	byte int  // of a write, how many bytes are done; -1: as keep says
	any  bool // all calls of both disks count, else those on segments of the journal
	down time.Duration
	loss uint64 // 0: a killed process; else the seed of what a loss of power leaves
}

func crashPointOf(s simStep) *crashPoint {
	at := -1
	if s.get("byte") != "" {
		at = s.number("byte")
	}
	return &crashPoint{
		n: max(1, s.number("n")), byte: at, keep: s.number("keep"), any: s.get("any") != "", down: s.duration("down"),
		loss: uint64(s.number("power")),
	}
}

// simProcess is one process of the agent.
type simProcess struct {
	h      *simHarness
	n      int
	ctx    context.Context // ends with its death
	kill   context.CancelFunc
	dead   atomic.Bool
	a      *Agent
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	runErr error

	mu     sync.Mutex
	crash  *crashPoint
	fired  *crashPoint    // what killed it
	flying map[string]int // exchanges by BMC
}

// start starts the agent, again and again while it dies of it.
func (h *simHarness) start() {
	for !h.see.broken() {
		proc := &simProcess{h: h, ended: make(chan struct{}), flying: map[string]int{}}
		if h.proc != nil {
			proc.n = h.proc.n + 1
		}
		proc.ctx, proc.kill = context.WithCancel(context.Background())
		if len(h.startCrashes) > 0 {
			proc.crash, h.startCrashes = h.startCrashes[0], h.startCrashes[1:]
		}
		h.proc = proc
		for i, disk := range h.disks {
			disk.OnCall(func(c faultfs.Call) faultfs.Fault { return proc.onCall(i, c) })
		}
		h.see.begin(proc.n)
		cfg := h.configure(proc)
		cfg.Name, cfg.Dir, cfg.Dial, cfg.Logger = "r1", "/agent", proc.dial, slog.New(slog.DiscardHandler)
		cfg.tuneLog = func(c *journal.Config) {
			c.FS, c.SegmentSize, c.KeepSegments = h.disks[0], 16<<10, 1
			c.Boot = "up"
			if !h.whole {
				c.Boot = fmt.Sprint(proc.n) // a death may tear a write, as a loss of power does
			}
			if filepath.Base(c.Dir) == "assigned" {
				c.FS = h.disks[1]
			}
		}
		a, err := New(cfg)
		proc.a = a
		switch {
		case proc.dead.Load():
			close(proc.ended)
			if a != nil {
				_ = a.Close()
			}
			h.bury()
			continue
		case err != nil:
			close(proc.ended)
			h.see.fail("start", "New: %v", err)
			return
		}
		h.born(proc)
		var ctx context.Context
		ctx, proc.cancel = context.WithCancel(context.Background())
		go func() {
			proc.runErr = a.Run(ctx, nil)
			close(proc.ended)
		}()
		synctest.Wait()
		if h.started != nil {
			h.started()
		}
		return
	}
}

// onCall decides about a call that changes a disk.
func (proc *simProcess) onCall(disk int, c faultfs.Call) faultfs.Fault {
	if proc.dead.Load() {
		return faultfs.Fault{Err: faultfs.ErrPower}
	}
	proc.mu.Lock()
	defer proc.mu.Unlock()
	segment := disk == 0 && (strings.HasSuffix(c.Name, ".jnl") || c.Op == faultfs.OpSyncDir)
	if a := proc.crash; a != nil && (a.any || segment) {
		if a.n--; a.n == 0 {
			proc.h.see.tracef("dies within %s of %s (%d bytes)", c.Op, c.Name, c.Size)
			proc.crash, proc.fired, proc.h.fatal = nil, a, append(proc.h.fatal, c)
			proc.die()
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
	return proc.h.trouble(segment, c)
}

// die is the moment of death: nothing more reaches a disk or a BMC.
func (proc *simProcess) die() {
	proc.dead.Store(true)
	proc.kill()
}

// bury waits for a dead process to be gone, leaves the disks as its death left
// them, and lets the time pass until the next start.
func (h *simHarness) bury() {
	proc := h.proc
	proc.mu.Lock()
	how := proc.fired
	proc.mu.Unlock()
	if how == nil {
		how = &crashPoint{}
	}
	rng := rand.New(rand.NewPCG(how.loss, 1))
	for i, disk := range h.disks {
		if how.loss == 0 {
			h.disks[i] = disk.Restart()
		} else {
			h.disks[i] = disk.PowerLoss(512, rng.IntN)
		}
	}
	h.see.died()
	time.Sleep(how.down)
}

// sleep lets time pass, and starts the agent anew when it dies meanwhile.
func (h *simHarness) sleep(d time.Duration) {
	if d == 0 && h.proc.ctx.Err() == nil {
		return // what came before may still be at work: the next step races with it
	}
	until := time.Now().Add(d)
	for !h.see.broken() {
		timer := time.NewTimer(max(0, time.Until(until)))
		select {
		case <-timer.C:
			synctest.Wait()
			if h.proc.ctx.Err() == nil {
				return
			}
		case <-h.proc.ctx.Done():
		case <-h.proc.ended:
		}
		timer.Stop()
		h.again()
	}
}

// again starts the next process after one that died, or that stopped by itself
// because its journal could take no more.
func (h *simHarness) again() {
	proc := h.proc
	if !proc.dead.Load() {
		if err := proc.a.log.Err(); err == nil {
			h.see.fail("run", "Run returned by itself: %v", proc.runErr)
			return
		}
		h.see.tracef("stopped by itself: %v", proc.runErr)
	}
	h.reap()
	h.bury()
	h.start()
}

func (h *simHarness) reap() {
	proc := h.proc
	proc.die()
	proc.cancel()
	<-proc.ended
	_ = proc.a.Close()
	h.races.Wait()
}

// stop ends the agent in an orderly way.
func (h *simHarness) stop() {
	proc := h.proc
	if proc == nil || proc.a == nil || proc.cancel == nil {
		return
	}
	proc.cancel()
	<-proc.ended
	h.races.Wait()
	err := proc.a.Close()
	if !proc.dead.Load() && err != nil && !h.excused() {
		h.see.fail("stop", "Close: %v", err)
	}
	proc.die()
	for i, disk := range h.disks {
		h.disks[i] = disk.Restart()
	}
	h.see.died()
}

// dial opens a session through which the model sees every exchange, and which ends
// with the process.
func (proc *simProcess) dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	node := ep.Host
	if node == chassis {
		node = ep.User
	}
	d := &observedDriver{proc: proc, key: ep.Key(), node: node}
	err := d.exchange(ctx, "dial", func(ctx context.Context) (err error) {
		d.inner, err = proc.h.fake.Dial(ctx, power.Endpoint{Scheme: ep.Scheme, Host: node, Port: ep.Port, User: ep.User, Password: ep.Password})
		return err
	})
	proc.h.see.dialled(proc.n, node, err)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type observedDriver struct {
	proc      *simProcess
	inner     power.Driver
	key, node string
}

var errGone = errors.New("the process is dead")

// exchange counts what is in flight and cuts it off at the death of the process.
func (d *observedDriver) exchange(ctx context.Context, what string, fn func(context.Context) error) error {
	proc := d.proc
	if proc.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: what, Lost: true, Err: errGone}
	}
	proc.mu.Lock()
	proc.flying[d.key]++
	if n := proc.flying[d.key]; n > 1 {
		proc.h.see.fail("one exchange per BMC", "%d exchanges with %s are in flight (%s of %s)", n, d.key, what, d.node)
	}
	proc.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(proc.ctx, cancel)
	err := fn(ctx)
	unhook()
	cancel()
	proc.mu.Lock()
	proc.flying[d.key]--
	proc.mu.Unlock()
	return err
}

func (d *observedDriver) State(ctx context.Context) (s power.State, err error) {
	began := time.Now()
	b := d.proc.h.fake.BMC(d.node)
	lies := b.Counts().Lies
	err = d.exchange(ctx, "state", func(ctx context.Context) (err error) {
		s, err = d.inner.State(ctx)
		return err
	})
	if !d.proc.dead.Load() {
		d.proc.h.see.read(d.proc.n, d.node, began, s, err, b.Counts().Lies > lies)
	}
	return s, err
}

func (d *observedDriver) Do(ctx context.Context, cmd power.Command) error {
	if d.proc.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: string(cmd), Lost: true, Err: errGone}
	}
	d.proc.h.see.leaves(d.proc.n, d.node, cmd)
	err := d.exchange(ctx, string(cmd), func(ctx context.Context) error { return d.inner.Do(ctx, cmd) })
	d.proc.h.see.came(d.proc.n, d.node, cmd, err)
	return err
}

func (d *observedDriver) SetBoot(ctx context.Context, dev power.BootDevice) error {
	d.proc.h.see.boots(d.proc.n, d.node, dev)
	err := d.exchange(ctx, "boot", func(ctx context.Context) error { return d.inner.SetBoot(ctx, dev) })
	d.proc.h.see.booted(d.proc.n, d.node, dev, err)
	return err
}

func (d *observedDriver) Close() error {
	return d.exchange(context.Background(), "close", func(context.Context) error { return d.inner.Close() })
}
