package simtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
	"rackpower/power/powertest"
)

// Observer is the model, which the harness tells what happens: starts, deaths and exchanges.
type Observer interface {
	Broken() bool
	Fail(rule, format string, args ...any)
	Tracef(format string, args ...any)
	Begin(proc int)
	Died()
	Dialled(proc int, node string, err error)
	Read(proc int, node string, began time.Time, s power.State, err error, lie bool)
	ReadLimit(proc int, node string, watts int, err error)
	Leaves(proc int, node string, cmd power.Command)
	Came(proc int, node string, cmd power.Command, err error)
	Boots(proc int, node string, dev power.BootDevice)
	Booted(proc int, node string, dev power.BootDevice, err error)
}

// CrashPoint is where a process dies: within the n-th call that changes a disk.
type CrashPoint struct {
	n    int
	keep int  // of a write, how many thousandths are done; of another call, whether (from 500)
	byte int  // of a write, how many bytes are done; -1: as keep says
	any  bool // all calls of both disks count, else those on segments of the journal
	Down time.Duration
	Loss uint64 // 0: a killed process; else the seed of what a Loss of power leaves
}

// CrashPointOf reads a crash point from the arguments of a step.
func CrashPointOf(s Step) *CrashPoint {
	at := -1
	if s.Get("byte") != "" {
		at = s.Number("byte")
	}
	return &CrashPoint{
		n: max(1, s.Number("n")), byte: at, keep: s.Number("keep"), any: s.Get("any") != "", Down: s.Duration("down"),
		Loss: uint64(s.Number("power")),
	}
}

// Process is what one process of an agent reaches: its disks and, through the eyes of the
// observer, its BMCs. It reaches neither any more when it is dead.
type Process struct {
	N int // from 0

	ctx     context.Context // ends with its death
	kill    context.CancelFunc
	dead    atomic.Bool
	see     Observer
	fake    *powertest.Fake
	trouble func(segment bool, c faultfs.Call) faultfs.Fault
	fatal   func(faultfs.Call)

	mu     sync.Mutex
	crash  *CrashPoint
	fired  *CrashPoint    // what killed it
	flying map[string]int // exchanges by BMC
}

// NewProcess makes process number n. It calls trouble for the calls on a disk that no crash
// falls on (segment: it is one on a segment of the journal of operations), and fatal for the
// one within which the process dies.
func NewProcess(n int, see Observer, fake *powertest.Fake, trouble func(segment bool, c faultfs.Call) faultfs.Fault,
	fatal func(faultfs.Call),
) *Process {
	p := &Process{N: n, see: see, fake: fake, trouble: trouble, fatal: fatal, flying: map[string]int{}}
	p.ctx, p.kill = context.WithCancel(context.Background())
	return p
}

// CrashAt sets where the process is to die; nil: nowhere.
func (p *Process) CrashAt(c *CrashPoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.crash = c
}

// Kill lets the process die now, and leave its disks as the crash point says.
func (p *Process) Kill(c *CrashPoint) {
	p.mu.Lock()
	p.fired = c
	p.mu.Unlock()
	p.Die()
}

// Fired is the crash point that the process died of; the zero one, if there was none.
func (p *Process) Fired() CrashPoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fired == nil {
		return CrashPoint{}
	}
	return *p.fired
}

// Dead reports whether the process is dead.
func (p *Process) Dead() bool { return p.dead.Load() }

// Death is closed when the process dies.
func (p *Process) Death() <-chan struct{} { return p.ctx.Done() }

// OnCall decides about a call that changes a disk; the first disk is that of the journal.
func (p *Process) OnCall(disk int, c faultfs.Call) faultfs.Fault {
	if p.dead.Load() {
		return faultfs.Fault{Err: faultfs.ErrPower}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	segment := disk == 0 && (strings.HasSuffix(c.Name, ".jnl") || c.Op == faultfs.OpSyncDir)
	if a := p.crash; a != nil && (a.any || segment) {
		if a.n--; a.n == 0 {
			p.see.Tracef("dies within %s of %s (%d bytes)", c.Op, c.Name, c.Size)
			p.crash, p.fired = nil, a
			p.fatal(c)
			p.Die()
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
	return p.trouble(segment, c)
}

// Die is the moment of death: nothing more reaches a disk or a BMC.
func (p *Process) Die() {
	p.dead.Store(true)
	p.kill()
}

// Chassis is a BMC that several nodes share; they differ by its user.
const Chassis = "chassis"

// PartOf is where node i of the chassis is.
func PartOf(name string, i int) string {
	return fmt.Sprintf("ipmi://%s@%s?target=%#02x", name, Chassis, 0x30+2*i)
}

// Dial opens a session through which the model sees every exchange, and which ends
// with the process.
func (p *Process) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	node := ep.Host
	if node == Chassis {
		node = ep.User
	}
	d := &observedDriver{p: p, key: ep.Key(), node: node}
	err := d.exchange(ctx, "dial", func(ctx context.Context) (err error) {
		d.inner, err = p.fake.Dial(ctx, power.Endpoint{Scheme: ep.Scheme, Host: node, Port: ep.Port, User: ep.User, Password: ep.Password})
		return err
	})
	p.see.Dialled(p.N, node, err)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type observedDriver struct {
	p         *Process
	inner     power.Driver
	key, node string
}

// ErrGone is what a dead process gets of its exchanges.
var ErrGone = errors.New("the process is dead")

// exchange counts what is in flight and cuts it off at the death of the process.
func (d *observedDriver) exchange(ctx context.Context, what string, fn func(context.Context) error) error {
	p := d.p
	if p.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: what, Lost: true, Err: ErrGone}
	}
	p.mu.Lock()
	p.flying[d.key]++
	if n := p.flying[d.key]; n > 1 {
		p.see.Fail("one exchange per BMC", "%d exchanges with %s are in flight (%s of %s)", n, d.key, what, d.node)
	}
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(p.ctx, cancel)
	err := fn(ctx)
	unhook()
	cancel()
	p.mu.Lock()
	p.flying[d.key]--
	p.mu.Unlock()
	return err
}

func (d *observedDriver) State(ctx context.Context) (s power.State, err error) {
	began := time.Now()
	b := d.p.fake.BMC(d.node)
	lies := b.Counts().Lies
	err = d.exchange(ctx, "state", func(ctx context.Context) (err error) {
		s, err = d.inner.State(ctx)
		return err
	})
	if !d.p.dead.Load() {
		d.p.see.Read(d.p.N, d.node, began, s, err, b.Counts().Lies > lies)
	}
	return s, err
}

func (d *observedDriver) Consumption(ctx context.Context) (c power.Consumption, err error) {
	err = d.exchange(ctx, "consumption", func(ctx context.Context) (err error) {
		c, err = d.inner.(power.Meter).Consumption(ctx)
		return err
	})
	if !d.p.dead.Load() {
		watts := 0
		if c.Limit != nil {
			watts = c.Limit.Now()
		}
		d.p.see.ReadLimit(d.p.N, d.node, watts, err)
	}
	return c, err
}

func (d *observedDriver) SetLimit(ctx context.Context, watts int) error {
	return d.command(ctx, power.SetLimit, func(ctx context.Context) error { return d.inner.(power.Meter).SetLimit(ctx, watts) })
}

func (d *observedDriver) Do(ctx context.Context, cmd power.Command) error {
	return d.command(ctx, cmd, func(ctx context.Context) error { return d.inner.Do(ctx, cmd) })
}

func (d *observedDriver) command(ctx context.Context, cmd power.Command, do func(context.Context) error) error {
	if d.p.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: string(cmd), Lost: true, Err: ErrGone}
	}
	d.p.see.Leaves(d.p.N, d.node, cmd)
	err := d.exchange(ctx, string(cmd), do)
	d.p.see.Came(d.p.N, d.node, cmd, err)
	return err
}

func (d *observedDriver) SetBoot(ctx context.Context, dev power.BootDevice) error {
	d.p.see.Boots(d.p.N, d.node, dev)
	err := d.exchange(ctx, "boot", func(ctx context.Context) error { return d.inner.SetBoot(ctx, dev) })
	d.p.see.Booted(d.p.N, d.node, dev, err)
	return err
}

func (d *observedDriver) Close() error {
	return d.exchange(context.Background(), "close", func(context.Context) error { return d.inner.Close() })
}
