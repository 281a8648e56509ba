package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
	"rackpower/power/powertest"
)

// proofTiming is short, so that a history is; the ratios are those of the defaults.
var proofTiming = Timing{
	Moment:    1000 * time.Hour, // the monitor itself is tested elsewhere: it asks through the same door
	Verify:    []time.Duration{8 * time.Second, 10 * time.Second, 12 * time.Second},
	FirstLook: 300 * time.Millisecond, LongLook: 2 * time.Second,
	Unreachable: 12 * time.Second, Retry: 500 * time.Millisecond, LongRetry: 4 * time.Second,
	MinOff: 5 * time.Second, Exchange: 6 * time.Second, KeepSession: 20 * time.Second, BMCReset: 20 * time.Second,
}

// chassis is the BMC that the nodes n3 and n4 share; they differ by its user.
const chassis = "chassis"

// world is everything around the agent in one history: BMCs, disks, askers, central.
// It lives in a bubble of simulated time, and tells the model what it sees.
type world struct {
	m     *model
	fake  *powertest.Fake
	disks [2]*faultfs.FS // of the journal of operations, of the assignment
	in    *incarnation
	nodes []api.AssignedNode

	startArms []*arm // crashes within the starts to come
	requests  map[string]power.Op
	central   clock // central's sequences
	full      atomic.Bool
	eio       atomic.Int64 // writes to the journal until one fails
	skip      atomic.Int64 // appends until
	deny      atomic.Int64 // so many are not taken
	races     sync.WaitGroup
	fatal     []faultfs.Call // the calls within which it died
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
	return &arm{n: max(1, s.number("n")), byte: at, keep: s.number("keep"), any: s.get("any") != "", down: s.duration("down"), loss: uint64(s.number("power"))}
}

// incarnation is one process of the agent.
type incarnation struct {
	w      *world
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

// played is what became of a history.
type played struct {
	broken string         // the rules that were broken; empty: none
	story  string         // what happened, line by line, if it was traced
	fatal  []faultfs.Call // the calls of the disk within which the agent died
	met    map[string]int
}

// playProof plays a history.
func playProof(t *testing.T, s proofScript, trace bool) (p played) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := &world{fake: powertest.NewFake(), requests: map[string]power.Op{}, m: newModel(trace)}
		w.disks = [2]*faultfs.FS{faultfs.New(), faultfs.New()}
		w.fake.Preset(func(b *powertest.BMC) { b.SetTimeout(2 * time.Second) })
		w.run(s)
		p.broken, p.story = w.m.verdict()
		p.fatal, p.met = w.fatal, w.m.met
		for _, c := range w.fatal {
			p.met["death in "+string(c.Op)]++
		}
	})
	return p
}

func (w *world) run(s proofScript) {
	n := 1
	if len(s) > 0 && s[0].verb == "nodes" {
		_, _ = fmt.Sscan(s[0].operand(0), &n)
	}
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		bmc := "ipmi://admin@" + name
		if i >= 2 {
			bmc = "ipmi://" + name + "@" + chassis
		}
		status := power.StatusNone
		if i == 1 {
			status = power.StatusDeploying
		}
		w.nodes = append(w.nodes, api.AssignedNode{Name: name, BMC: bmc, Password: "secret", Status: status, Desired: status.Desired()})
		w.m.addNode(name, status.Desired())
	}
	w.start()
	for _, step := range s {
		if w.m.broken() {
			break
		}
		w.sleep(step.after)
		w.m.tracef("-- %s", step)
		w.play(step)
		if step.get("race") == "" {
			synctest.Wait()
		}
	}
	if !w.m.broken() {
		w.settleDown()
	}
	w.stop()
	w.races.Wait()
}

// start starts the agent, again and again while it dies of it.
func (w *world) start() {
	for !w.m.broken() {
		in := &incarnation{w: w, ended: make(chan struct{}), flying: map[string]int{}}
		if w.in != nil {
			in.n = w.in.n + 1
		}
		in.ctx, in.kill = context.WithCancel(context.Background())
		if len(w.startArms) > 0 {
			in.arm, w.startArms = w.startArms[0], w.startArms[1:]
		}
		w.in = in
		for i, disk := range w.disks {
			disk.OnCall(func(c faultfs.Call) faultfs.Fault { return in.onCall(i, c) })
		}
		w.full.Store(false)
		w.deny.Store(0)
		w.m.begin(in.n)
		a, err := New(Config{
			Name: "r1", Dir: "/agent", Dial: in.dial, Monitor: MonitorOff, Timing: proofTiming, Logger: slog.New(slog.DiscardHandler),
			wrapLog: func(_ *Agent, log opLog) opLog {
				w.m.reopened(log.Live())
				return &tap{opLog: log, in: in}
			},
			tuneLog: func(c *journal.Config) {
				c.FS, c.SegmentSize, c.KeepSegments = w.disks[0], 16<<10, 1
				if filepath.Base(c.Dir) == "assigned" {
					c.FS = w.disks[1]
				}
			},
			asCentral: func(ctx context.Context, _ *Agent) { <-ctx.Done() },
		})
		in.a = a
		switch {
		case in.dead.Load():
			close(in.ended)
			if a != nil {
				_ = a.Close()
			}
			w.bury()
			continue
		case err != nil:
			close(in.ended)
			w.m.fail("start", "New: %v", err)
			return
		case in.n == 0:
			if _, _, err := a.assigned.apply(api.Assignment{Nodes: w.nodes, Rev: 1}, "central"); err != nil {
				w.m.fail("start", "apply: %v", err)
			}
		case len(a.assigned.all()) != len(w.nodes):
			w.m.fail("start", "of %d assigned nodes %d are left", len(w.nodes), len(a.assigned.all()))
		}
		var ctx context.Context
		ctx, in.cancel = context.WithCancel(context.Background())
		go func() {
			in.runErr = a.Run(ctx, nil)
			close(in.ended)
		}()
		synctest.Wait()
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
			in.w.m.tracef("dies within %s of %s (%d bytes)", c.Op, c.Name, c.Size)
			in.arm, in.fired, in.w.fatal = nil, a, append(in.w.fatal, c)
			in.die()
			switch {
			case c.Op == faultfs.OpWrite && a.byte >= 0:
				return faultfs.Fault{Err: faultfs.ErrPower, Bytes: a.byte}
			case c.Op == faultfs.OpWrite:
				return faultfs.Fault{Err: faultfs.ErrPower, Bytes: c.Size * a.keep / 1000}
			case a.keep >= 500:
				return faultfs.Fault{PowerOff: true}
			default:
				return faultfs.Fault{Err: faultfs.ErrPower}
			}
		}
	}
	if segment && c.Op == faultfs.OpWrite && in.w.eio.Load() > 0 && in.w.eio.Add(-1) == 0 {
		return faultfs.Fault{Err: faultfs.ErrIO, Bytes: c.Size / 2}
	}
	if in.w.full.Load() && c.Name == "spare" && (c.Op == faultfs.OpWrite || c.Op == faultfs.OpCreate) {
		return faultfs.Fault{Err: faultfs.ErrFull}
	}
	return faultfs.Fault{}
}

// die is the moment of death: nothing more reaches a disk or a BMC.
func (in *incarnation) die() {
	in.dead.Store(true)
	in.kill()
}

// bury waits for a dead process to be gone, leaves the disks as its death left
// them, and lets the time pass until the next start.
func (w *world) bury() {
	in := w.in
	in.mu.Lock()
	how := in.fired
	in.mu.Unlock()
	if how == nil {
		how = &arm{}
	}
	rng := rand.New(rand.NewPCG(how.loss, 1))
	for i, disk := range w.disks {
		if how.loss == 0 {
			w.disks[i] = disk.Restart()
		} else {
			w.disks[i] = disk.PowerLoss(512, rng.IntN)
		}
	}
	w.m.died()
	time.Sleep(how.down)
}

// sleep lets time pass, and starts the agent anew when it dies meanwhile.
func (w *world) sleep(d time.Duration) {
	if d == 0 && w.in.ctx.Err() == nil {
		return // what came before may still be at work: the next step races with it
	}
	until := time.Now().Add(d)
	for !w.m.broken() {
		timer := time.NewTimer(max(0, time.Until(until)))
		select {
		case <-timer.C:
			synctest.Wait()
			if w.in.ctx.Err() == nil {
				return
			}
		case <-w.in.ctx.Done():
		case <-w.in.ended:
		}
		timer.Stop()
		w.again()
	}
}

// again starts the next process after one that died, or that stopped by itself
// because its journal could take no more.
func (w *world) again() {
	in := w.in
	if !in.dead.Load() {
		if err := in.a.log.Err(); err == nil {
			w.m.fail("run", "Run returned by itself: %v", in.runErr)
			return
		}
		w.m.tracef("stopped by itself: %v", in.runErr)
	}
	w.reap()
	w.bury()
	w.start()
}

func (w *world) reap() {
	in := w.in
	in.die()
	in.cancel()
	<-in.ended
	_ = in.a.Close()
	w.races.Wait()
}

// stop ends the agent in an orderly way.
func (w *world) stop() {
	in := w.in
	if in == nil || in.a == nil || in.cancel == nil {
		return
	}
	in.cancel()
	<-in.ended
	w.races.Wait()
	err := in.a.Close()
	if !in.dead.Load() && err != nil && !w.m.diskFailed {
		w.m.fail("stop", "Close: %v", err)
	}
	in.die()
	for i, disk := range w.disks {
		w.disks[i] = disk.Restart()
	}
	w.m.died()
}

// settleDown lifts all faults, waits for every end, and looks what is left: in the
// power, in the outbox, in the journal, over two more starts.
func (w *world) settleDown() {
	w.m.tracef("-- all faults are lifted")
	w.startArms = nil
	w.in.mu.Lock()
	w.in.arm = nil
	w.in.mu.Unlock()
	w.full.Store(false)
	w.eio.Store(0)
	w.deny.Store(0)
	w.m.lifted()
	for _, n := range w.nodes {
		b := w.fake.BMC(n.Name)
		b.SetMute(false)
		b.SetStuck(false)
		b.SetWrongPassword(false)
		b.SetLie(power.Off, 0)
		b.FailNext(0, "")
		b.FailNextReads(0, "")
		b.FailNextDials(0, "")
		b.SetTimeout(2 * time.Second)
	}
	for range 60 * 4 {
		w.sleep(15 * time.Second) // the process of before may have died of the last step
		if w.m.broken() || w.m.idle() {
			break
		}
	}
	w.sleep(2 * time.Minute) // what is under way at the nodes comes to its end
	w.m.allEnded()
	for _, n := range w.nodes {
		w.m.restsAt(n.Name, w.fake.BMC(n.Name).Power())
	}
	w.stop()
	w.start()
	if w.m.broken() {
		return
	}
	w.m.unreported(w.in.a.outbox.unacknowledged())
	w.report(1000, false)
	w.m.left(w.in.a.log.Live())
	w.stop()
	w.start()
	if w.m.broken() {
		return
	}
	for _, probe := range w.m.staleProbes() {
		w.submit(probe)
	}
	if ids := w.in.a.outbox.unacknowledged(); len(ids) > 0 {
		w.m.fail("reported", "%v came back", ids)
	}
	w.m.left(w.in.a.log.Live())
}

func (w *world) play(s proofStep) {
	b := w.fake.BMC(s.operand(0))
	value, _ := time.ParseDuration(s.operand(1))
	kind := power.ErrorKind(cmp.Or(s.get("kind"), string(power.KindRefused)))
	state := power.State(cmp.Or(s.operand(1), string(power.On)))
	switch s.verb {
	case "ask":
		w.ask(s)
	case "again":
		if op, ok := w.requests[s.operand(0)]; ok {
			w.submit(op)
		}
	case "cancel":
		w.cancel(s.operand(0))
	case "report":
		w.report(max(1, s.number("n")), s.get("lose") != "")
	case "crash":
		w.in.mu.Lock()
		w.in.arm = armOf(s)
		w.in.mu.Unlock()
	case "start-crash":
		w.startArms = append(w.startArms, armOf(s))
	case "kill":
		w.in.mu.Lock()
		w.in.fired = armOf(s)
		w.in.mu.Unlock()
		w.in.die()
		w.again()
	case "stop":
		w.stop()
		w.start()
	case "full", "room":
		w.full.Store(s.verb == "full")
		w.m.diskTrouble()
	case "deny":
		w.skip.Store(int64(s.number("skip")))
		w.deny.Store(int64(max(1, s.number("n"))))
	case "eio":
		w.eio.Store(2)
		w.m.diskTrouble()
	case "late":
		b.SetOnAfter(s.duration("on"))
		b.SetOffAfter(s.duration("off"))
	case "prompt":
		b.SetOnAfter(0)
		b.SetOffAfter(0)
	case "latency":
		b.SetLatency(value)
	case "timeout":
		b.SetTimeout(value)
	case "soft":
		b.SetSoftOffAfter(value)
	case "deaf":
		b.SetDeaf(s.operand(1) == "true")
	case "stuck":
		b.SetStuck(s.operand(1) == "true")
	case "password": // somebody changes it at the BMC, and back
		b.SetWrongPassword(s.operand(1) == "wrong")
		b.SetRebootTime(0)
		b.Restart()
	case "mute", "wake":
		b.SetMute(s.verb == "mute")
	case "lie":
		d, _ := time.ParseDuration(s.operand(2))
		b.SetLie(state, d)
	case "lose":
		b.LoseNextAnswers(s.number("n"))
	case "refuse":
		b.FailNext(s.number("n"), kind)
	case "refuse-reads":
		b.FailNextReads(s.number("n"), kind)
	case "refuse-dials":
		b.FailNextDials(s.number("n"), kind)
	case "restart-bmc":
		b.SetRebootTime(s.duration("reboot"))
		b.Restart()
	case "hand":
		w.m.hand(b.Name())
		b.SetPower(state)
	}
}

func (w *world) ask(s proofStep) {
	label := s.operand(0)
	if _, twice := w.requests[label]; twice {
		return
	}
	op := power.Op{
		ID: label, Node: s.operand(1), Action: power.Action(s.operand(2)), AskedBy: "admin", Origin: power.FromCentral,
		IfBusy: power.IfBusy(s.get("if_busy")), Boot: power.BootDevice(s.get("boot")), Grace: s.duration("grace"), NoEscalate: s.get("no-escalate") != "",
	}
	now := time.Now()
	if d := s.duration("deadline"); d != 0 {
		op.Deadline = now.Add(d)
	}
	switch s.get("from") {
	case "local":
		op.Origin = power.FromLocal
	case "monitor":
		op.Origin = power.FromMonitor
	default:
		op.Seq = w.central.next(now.Add(s.duration("seq")))
		if s.get("seq") != "" { // one that was on its way for long
			op.Seq = power.Seq(now.Add(s.duration("seq")).UnixMilli()) << 16
		}
	}
	op = op.WithDefaults(now)
	if op.Validate() != nil {
		return // what the shrinker made of it
	}
	w.requests[label] = op
	if s.get("race") != "" {
		w.races.Go(func() { w.submit(op) })
		return
	}
	w.submit(op)
}

func (w *world) submit(op power.Op) {
	in := w.in
	before := w.m.asks(op)
	r, err := in.a.Submit(op)
	w.m.answered(op, before, r, err)
}

func (w *world) cancel(label string) {
	w.m.cancelAsked(label)
	_, err := w.in.a.Cancel(api.Cancel{ID: label, By: "bob"})
	w.m.cancelAnswered(label, err)
}

// report is central taking up to n words from the outbox. With lose, its
// acknowledgement gets lost.
func (w *world) report(n int, lose bool) {
	list := w.in.a.outbox.take(n)
	w.m.delivered(list)
	if lose {
		return
	}
	if err := w.in.a.acknowledged(list); err != nil && !w.in.dead.Load() && !w.m.diskFailed {
		w.m.fail("reported", "acknowledged: %v", err)
	}
}

// tap sees what the journal is given and what it took.
type tap struct {
	opLog
	in *incarnation
}

func (p *tap) Append(entries ...journal.Entry) (uint64, error) {
	if w := p.in.w; w.skip.Add(-1) < 0 && w.deny.Load() > 0 && w.deny.Add(-1) >= 0 && !p.in.dead.Load() {
		w.m.denied(p.in.n, entries)
		return 0, journal.ErrFull
	}
	lsn, err := p.opLog.Append(entries...)
	switch {
	case err == nil:
		p.in.w.m.durable(p.in.n, entries, lsn)
	case p.in.dead.Load() || errors.Is(err, journal.ErrStopped):
		p.in.w.m.unsure(p.in.n, entries)
	default:
		p.in.w.m.denied(p.in.n, entries)
	}
	return lsn, err
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
		d.inner, err = in.w.fake.Dial(ctx, power.Endpoint{Scheme: ep.Scheme, Host: node, Port: ep.Port, User: ep.User, Password: ep.Password})
		return err
	})
	in.w.m.dialled(in.n, node, err)
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
		in.w.m.fail("one exchange per BMC", "%d exchanges with %s are in flight (%s of %s)", n, d.key, what, d.node)
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
	b := d.in.w.fake.BMC(d.node)
	lies := b.Counts().Lies
	err = d.exchange(ctx, "state", func(ctx context.Context) (err error) {
		s, err = d.inner.State(ctx)
		return err
	})
	if !d.in.dead.Load() {
		d.in.w.m.read(d.in.n, d.node, began, s, err, b.Counts().Lies > lies)
	}
	return s, err
}

func (d *tapDriver) Do(ctx context.Context, cmd power.Command) error {
	if d.in.dead.Load() {
		return &power.Error{Kind: power.KindCanceled, Op: string(cmd), Lost: true, Err: errGone}
	}
	d.in.w.m.leaves(d.in.n, d.node, cmd)
	err := d.exchange(ctx, string(cmd), func(ctx context.Context) error { return d.inner.Do(ctx, cmd) })
	d.in.w.m.came(d.in.n, d.node, cmd, err)
	return err
}

func (d *tapDriver) SetBoot(ctx context.Context, dev power.BootDevice) error {
	d.in.w.m.boots(d.in.n, d.node, dev)
	err := d.exchange(ctx, "boot", func(ctx context.Context) error { return d.inner.SetBoot(ctx, dev) })
	d.in.w.m.booted(d.in.n, d.node, dev, err)
	return err
}

func (d *tapDriver) Close() error {
	return d.exchange(context.Background(), "close", func(context.Context) error { return d.inner.Close() })
}
