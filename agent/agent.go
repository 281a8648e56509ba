package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"rackpower/agent/bmcpool"
	"rackpower/agent/limiter"
	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// appender is what keeps the assignment.
type appender interface {
	Append(entries ...journal.Entry) (lsn uint64, err error)
}

// opLog is what the agent needs of its journal of operations.
type opLog interface {
	appender
	Live() []journal.Record
	ID() string
	Epoch() uint64
	LSN() uint64
	Err() error
	Close() error
}

// Agent is the daemon of one rack. New opens and replays its journal, Run works
// until its context ends. Submit, Cancel and the queries may be called by many
// goroutines from New to the end of Run.
type Agent struct {
	cfg      Config
	logger   *slog.Logger
	log      opLog
	assignLg *journal.Journal
	assigned *assigned
	outbox   *outbox
	readings *readings
	bmcs     *bmcpool.Pool
	limiter  *limiter.Limiter
	clock    power.Clock
	ids      *ids
	monitor  *monitor.Monitor
	poller   *poller
	prober   *prober
	tester   *tester
	alarms   *alarms
	gate     gate
	numbers  *numbers
	handed   sync.Map        // operations, by id, that are being taken and that another agent may have begun
	strays   map[string]bool // operations of which records are there, and not what was accepted; fixed by replay

	addresses *addresses

	ctx     context.Context // ends when lanes are to stop at their next safe point
	stop    context.CancelCauseFunc
	gossip  gossiper
	view    *rackView
	control *control
	rack    chan struct{} // a token: there is something of the rack that central is told

	mu      lock.Mutex[lock.Agent]
	lanes   map[string]*lane
	running bool // Run was called: lanes may work
	closed  bool
	wg      sync.WaitGroup // lane goroutines and reads that were asked for

	heeded atomic.Pointer[syncRecord] // the assignment that the monitor goes by

	link    *link
	permit  permit
	lease   leaseholder
	leaving leaving
}

// The two logs in the agent's directory.
const (
	journalDir  = "journal"
	assignedDir = "assigned"
)

// New opens the agent's directory and replays what is outstanding. Nothing is
// done to any node before Run.
func New(cfg Config) (*Agent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, logger: cfg.Logger, outbox: newOutbox(cfg.Timing.KeepEnded), ids: newIDs(),
		limiter: limiter.New(), lanes: map[string]*lane{}, gossip: gossiper{dirty: make(chan struct{}, 1)}, rack: make(chan struct{}, 1),
		numbers: newNumbers(),
	}
	a.lease.clock = cfg.Clock
	a.alarms = newAlarms(cfg.Logger, a.tellRack)
	a.strays = map[string]bool{}
	a.monitor = monitor.New(&host{a: a}, monitor.Config{Name: cfg.Name, Schedule: cfg.Monitor, Timing: cfg.Timing.Timing, Logger: cfg.Logger})
	a.readings = newReadings(a.gossip.changed)
	a.addresses = newAddresses(cfg.LookUp)
	a.bmcs = bmcpool.New(bmcpool.Config{
		Dial: cfg.Dial, Forget: cfg.Forget, Exchange: cfg.Timing.Exchange, KeepSession: cfg.Timing.KeepSession,
		SessionAge: cfg.Timing.SessionAge, Probe: cfg.Timing.Probe, LongProbe: cfg.Timing.LongProbe, Jitter: rand.Float64,
		Beside: a.addresses.turn, Refused: a.refusedLogIn, Logger: cfg.Logger,
	})
	a.ctx, a.stop = context.WithCancelCause(context.Background())
	if err := a.open(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) open() (err error) {
	disk := journal.Disk()
	open := func(sub string, onOpen func(journal.Recovery, []journal.Record) []journal.Entry) (*journal.Journal, error) {
		cfg := journal.Config{
			Dir: filepath.Join(a.cfg.Dir, sub), Owner: a.cfg.Name, Logger: a.logger,
			OnAlarm: func(al journal.Alarm) { a.heedJournal(sub, al) }, OnFlush: a.numbers.flushed(sub), OnOpen: onOpen, Mark: true, Boot: bootID(),
		}
		if a.cfg.tuneLog != nil {
			a.cfg.tuneLog(&cfg)
			disk = cmp.Or(cfg.FS, disk)
		}
		return openJournal(cfg)
	}
	operations, err := open(journalDir, a.onOpenJournal)
	if err != nil {
		return fmt.Errorf("cannot open the journal: %w", err)
	}
	a.log = operations
	if a.cfg.wrapLog != nil {
		a.log = a.cfg.wrapLog(a, operations)
	}
	keys, err := openKeys(a.cfg, disk)
	if err != nil {
		return err
	}
	a.assignLg, err = open(assignedDir, a.onOpenAssigned)
	if err != nil {
		return fmt.Errorf("cannot open the assignment: %w", err)
	}
	var sealErr error
	kept, upTo := a.assignLg.Live(), a.assignLg.LSN()
	if a.assigned, sealErr, err = loadAssigned(a.cfg.Name, a.assignLg, keys, kept); err != nil {
		return err
	}
	a.assigned.own = a.cfg.Credentials
	if sealErr != nil {
		a.logger.Error("passwords do not open: their nodes have no BMC until central gives all anew", "err", sealErr)
	}
	a.trySeal()
	a.poller = newPoller(a)
	a.prober = newProber(a)
	a.tester = newTester(a)
	a.view = newRackView(a)
	a.link = newLink(a, operations.Recovery().FoundLSN)
	a.control = newControl(a)
	a.addresses.compare(a.places())
	if a.assignLg.LSN() != upTo {
		kept = a.assignLg.Live()
	}
	// Each takes its own kinds of it, and writes no other.
	if err := a.prober.loadRefused(kept); err != nil {
		return err
	}
	if err := a.keepNotes(kept); err != nil {
		return fmt.Errorf("cannot keep what is known of BMCs: %w", err)
	}
	if err := a.alarms.load(kept); err != nil {
		return err
	}
	ops := a.log.Live()
	if err := a.loadDoubt(operations.Recovery(), ops, kept); err != nil {
		return err
	}
	if err := a.alarms.save(a.assignLg); err != nil {
		return err
	}
	if err := a.replay(ops); err != nil {
		return err
	}
	a.clock.Load(a.assigned.newest())
	a.checkClock(time.Now())
	a.limiter.SetLimits(a.assigned.settings().Domains)
	a.monitor.Load(a.assigned.memories, a.assigned.brake, a.assigned.settings())
	a.heeds()
	a.link.bare = a.assigned.position() == syncRecord{} && a.assigned.trusts().CentralID == "" && len(a.assigned.all()) == 0 &&
		len(a.allLanes()) == 0
	a.noteKept()
	if a.link.bare {
		a.logger.Warn("the journal is new; if there should be one, stop the agent and see whether its volume is mounted", "data", a.cfg.Dir)
	}
	a.leaveReplayed()
	if err := a.beginPermit(kept); err != nil {
		return err
	}
	a.logger.Info("journal replayed", "epoch", a.log.Epoch(), "lsn", a.log.LSN(), "outstanding", len(a.outbox.unacknowledged()), "nodes",
		len(a.assigned.all()))
	return nil
}

// lockWait is how long a start waits for the process before it to be gone: one that
// was killed holds its lock for a moment longer.
const lockWait = 3 * time.Second

func openJournal(cfg journal.Config) (*journal.Journal, error) {
	for until := time.Now().Add(lockWait); ; time.Sleep(50 * time.Millisecond) {
		j, err := journal.Open(cfg)
		if !errors.Is(err, journal.ErrLocked) || time.Now().After(until) {
			return j, err
		}
	}
}

// Close releases the directory of an agent whose Run has returned or was never
// called. It may be called twice.
func (a *Agent) Close() error {
	a.stop(errStopping)
	var errs []error
	if a.log != nil {
		errs = append(errs, a.log.Close())
	}
	if a.assignLg != nil {
		errs = append(errs, a.assignLg.Close())
	}
	return errors.Join(errs...)
}

// Run works until ctx ends, then lets every operation come to its next safe point
// and returns. socket may be nil: no control socket. A journal that cannot go on
// ends Run with an error; a restart is then the remedy.
func (a *Agent) Run(ctx context.Context, socket net.Listener) error {
	var parts sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	context.AfterFunc(ctx, func() { a.stop(errStopping) })
	stopped := context.AfterFunc(a.ctx, func() {
		if a.removed() == nil { // else it stays to say so
			cancel(context.Cause(a.ctx))
		}
	})
	defer stopped()

	for _, part := range []func(context.Context){a.monitor.Run, a.poller.run, a.bmcs.Tend, a.prober.run, a.limiter.Run, a.watchAddresses} {
		parts.Go(func() { part(ctx) })
	}
	parts.Go(func() { a.alarms.keep(ctx, a.assignLg) })
	parts.Go(func() { a.keepSealing(ctx) })
	parts.Go(func() { a.gossip.run(ctx, a.view.gossiped) })
	if a.cfg.Central != nil {
		parts.Go(func() { a.link.run(ctx) })
		parts.Go(func() { a.permit.beats(ctx) })
	} else {
		parts.Go(func() { a.reportToNobody(ctx) })
	}
	a.beginLimiter(time.Now())
	parts.Go(func() { a.readFirst(ctx) })
	a.resume()
	if socket != nil { // after resume: a read that is requested there needs an agent that runs
		parts.Go(func() { a.control.serve(ctx, socket) })
	}
	<-ctx.Done()
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.wg.Wait()
	parts.Wait()
	a.poller.reads.Wait()
	a.link.goodbye()
	closing, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	a.bmcs.Close(closing)
	if err := errors.Join(a.log.Err(), a.assignLg.Err()); err != nil {
		return fmt.Errorf("the journal failed: %w", err)
	}
	return nil
}

// resume sets the replayed lanes to work.
func (a *Agent) resume() {
	a.mu.Lock()
	a.running = true
	a.mu.Unlock()
	for _, l := range a.allLanes() {
		l.mu.Lock()
		l.kick()
		l.mu.Unlock()
	}
}

func (a *Agent) stopping() bool { return a.ctx.Err() != nil }

// begin counts a goroutine that Run waits for; false: the agent has stopped.
func (a *Agent) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.running || a.closed || a.stopping() {
		return false
	}
	a.wg.Add(1)
	return true
}

func (a *Agent) done() { a.wg.Done() }

// journalFailed stops the agent when its journal can take no more records at all.
func (a *Agent) journalFailed() {
	if err := a.log.Err(); err != nil {
		a.stop(fmt.Errorf("%w: %w", errStopping, err))
	}
}

// lane is that of a node. One that is not assigned, and has no lane yet, has an empty
// one that is not kept: anybody may ask for any name.
func (a *Agent) lane(node string) *lane {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.lanes[node]; l != nil {
		return l
	}
	l := newLane(a, node)
	if _, ok := a.assigned.get(node); ok || !a.running {
		a.lanes[node] = l
	}
	return l
}

// keptLane is the lane of a node that is about to get work.
func (a *Agent) keptLane(node string) *lane {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lanes[node] == nil {
		a.lanes[node] = newLane(a, node)
	}
	return a.lanes[node]
}

func (a *Agent) allLanes() []*lane {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*lane, 0, len(a.lanes))
	for _, l := range a.lanes {
		list = append(list, l)
	}
	return list
}

// Submit decides on a request. When it returns without error the answer is final:
// accepted and durable, joined, or refused (End is then set). It is harmless to
// submit a request again. An error means that nothing was accepted.
func (a *Agent) Submit(op power.Op) (api.OpReport, error) {
	now := time.Now()
	op = op.WithDefaults(now)
	if err := op.Validate(); err != nil {
		return api.OpReport{}, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	if err := a.usedOtherwise(op); err != nil {
		return api.OpReport{}, err
	}
	if r, known := a.isKnown(op); known {
		if !r.Op.Is(op) {
			return api.OpReport{}, idUsed(op.ID, r.Op)
		}
		return r, nil
	}
	if !a.follow(op.Seq, "a request", now) {
		return refusal(op, power.ReasonSequence, aheadText(op.Seq, now)), nil
	}
	if r, refused := a.refuses(op); refused {
		if r.Op.Seq == 0 {
			r.Op.Seq = a.clock.Next(now)
		}
		return r, nil
	}
	return a.keptLane(op.Node).submit(op)
}

// refuses answers a request that does not come to its node's lane.
func (a *Agent) refuses(op power.Op) (api.OpReport, bool) {
	n, ok := a.assigned.get(op.Node)
	now := time.Now()
	switch d := n.desired(now); {
	case !ok:
		return refusal(op, power.ReasonNoNode, fmt.Sprintf("node %s is not assigned to agent %s", op.Node, a.cfg.Name)), true
	case a.sharedWith(op.Node) != "":
		return refusal(op, power.ReasonShared, power.SharedBMC(op.Node, a.sharedWith(op.Node))), true
	case n.Protected.Forbids(op.Action):
		return refusal(op, power.ReasonProtected, n.Protected.Refusal(op.Node)), true
	case (op.Origin == power.FromLocal || op.Origin == power.FromCentral && n.unheard()) && d.Conflicts(op.Action):
		return refusal(op, power.ReasonDesired, power.RefusedAgainstDesired(op.Action, n.from(now), d.Want)), true
	}
	return api.OpReport{}, false
}

func refusal(op power.Op, reason power.Reason, text string) api.OpReport {
	return api.OpReport{
		Op: op, Verdict: power.VerdictRefuse, Reason: reason, Message: text, Phase: api.PhaseEnded,
		End: &power.End{Outcome: power.Refused, Reason: reason, Detail: text, At: time.Now()},
	}
}

// weigh says what would become of a request, held: together with a hold.
func (a *Agent) weigh(op power.Op, held bool) api.OpReport {
	now := time.Now()
	op = op.WithDefaults(now)
	op.Seq = a.clock.Now(now).Next(now)
	r, refused := a.refuses(op)
	if refused && !(held && r.Reason == power.ReasonDesired) {
		r.Phase, r.End = phaseDryRun, nil
		return r
	}
	l := a.lane(op.Node)
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.view()
	d := power.Decide(view, op)
	return api.OpReport{Op: op, Verdict: d.Verdict, Reason: d.Reason, Message: power.Describe(d, view, op, now), Phase: phaseDryRun}
}

// phaseDryRun is the phase of a request that was only weighed.
const phaseDryRun = "dry-run"

// isKnown finds a request that was accepted before.
func (a *Agent) isKnown(op power.Op) (api.OpReport, bool) {
	l := a.lane(op.Node)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known(op.ID)
}

// Cancel ends an operation at its next safe point.
func (a *Agent) Cancel(c api.Cancel) (api.OpReport, error) {
	r, ok := a.outbox.find(c.ID)
	if !ok {
		return r, api.Problemf(api.CodeNotFound, "no operation %s is known here", c.ID)
	}
	if c.Node != "" && (r.Op.Node != c.Node || r.Op.Action != c.Action) {
		return r, api.Problemf(api.CodeNotFound, "no operation %s (%s of node %s) is known here: here it is %s of node %s", c.ID, c.Action,
			c.Node, r.Op.Action, r.Op.Node)
	}
	return a.lane(r.Op.Node).cancelOp(c)
}

// desiresChanged has everything follow what is desired now: the monitor knows it
// before anything is read, and ends what it asked for and nobody desires any more.
func (a *Agent) desiresChanged(names []string) {
	a.monitor.DesiresChanged()
	for _, name := range names {
		a.lane(name).dropUnwanted()
	}
}

// heeds notes that the monitor goes by the newest assignment from now on.
func (a *Agent) heeds() {
	at := a.assigned.position()
	a.heeded.Store(&at)
}

// Summary says in a line how the agent is, for systemd's STATUS.
func (a *Agent) Summary() string {
	outstanding := 0
	for _, ops := range a.outbox.running() {
		outstanding += len(ops)
	}
	text := fmt.Sprintf("%d nodes, %d operations outstanding, %d to report, central %s", len(a.assigned.all()), outstanding,
		a.outbox.waiting(), a.link.String())
	if b := a.monitor.State().Brake; b != nil {
		text = "the fleet brake holds since " + power.At(b.Since) + "; " + text
	}
	if alarms := a.alarms.list(); len(alarms) > 0 {
		text = "alarm: " + api.AlarmText(alarms) + "; " + text
	}
	return text
}

// Alive reports whether the agent works: the journals take records, and no lock is stuck
// that is held for moments only. It is what the watchdog asks, and waits for no disk: a
// restart does not mend one that hangs.
func (a *Agent) Alive() bool {
	_ = a.allLanes()
	_ = a.outbox.waiting()
	// A restart would not bring removed files back.
	return a.removed() != nil || a.log.Err() == nil && a.assignLg.Err() == nil
}

// SetGossip connects the agent with the gossip cluster that it is a member of. It may
// be called at any time, once: a cluster whose key central has to hand out comes late.
func (a *Agent) SetGossip(g Gossip) {
	a.gossip.cluster.Store(&g)
	a.gossip.changed()
}

// JournalEpoch is how often this agent's journal was opened.
func (a *Agent) JournalEpoch() uint64 { return a.log.Epoch() }

// newID is a fresh UUIDv7.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// compareNames sorts node names: by text, which zero-padded numbers are made for.
func compareNames(a, b string) int { return strings.Compare(a, b) }
