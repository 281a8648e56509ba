package loadtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/power"
)

// Size is how large a fleet is.
type Size struct{ Agents, NodesEach int }

// Nodes is how many nodes there are.
func (s Size) Nodes() int { return s.Agents * s.NodesEach }

// Rack is the name of an agent, from 0 on.
func (s Size) Rack(agent int) string { return fmt.Sprintf("r%04d", agent) }

// Node is the name of a node of all, from 0 on; those of a rack follow one another.
func (s Size) Node(i int) string {
	return fmt.Sprintf("r%04dn%02d", i/s.NodesEach, i%s.NodesEach)
}

// Spec describes a node.
func (s Size) Spec(i int) api.NodeSpec {
	return api.NodeSpec{
		Name: s.Node(i), Rack: s.Rack(i / s.NodesEach), BMC: fmt.Sprintf("ipmi://admin@10.%d.%d.%d", i>>16, i>>8&255, i&255), Password: "secret",
	}
}

// Config says how a fleet behaves.
type Config struct {
	Size
	Target string // of central, as api.NewClient takes it
	// Secure sets how an agent authenticates; nil: by its user, at a socket.
	Secure func(agent string, c *api.Client)
	// Took is how long an operation takes from its start to its end. 0: its end is the first
	// word of it.
	Took time.Duration
	// Every is how often each node is read; 0: once, at the start.
	Every time.Duration
}

// What package agent waits for before it reports.
const (
	pollWait   = 25 * time.Second
	gatherFor  = 250 * time.Millisecond // readings that are news gather so long
	gatherCalm = 5 * time.Second        // those that are not
	maxSpread  = 20 * time.Second       // over which the readings of a round are spread
)

// Fleet is agents at work. Its methods may be called by many goroutines.
type Fleet struct {
	cfg    Config
	agents []*agent
	stop   context.CancelFunc
	done   sync.WaitGroup

	settled atomic.Int64 // sessions that have told all
	ended   atomic.Int64
	reports atomic.Int64
	lost    atomic.Int64
	asked   sync.Map // by id: when it was asked for
	tookMu  sync.Mutex
	took    []time.Duration // from asked to acknowledged
}

// Start has all agents say hello at once.
func Start(cfg Config) (*Fleet, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &Fleet{cfg: cfg, stop: cancel}
	for i := range cfg.Agents {
		client, err := api.NewClient(cfg.Target)
		if err != nil {
			cancel()
			return nil, err
		}
		a := &agent{
			f: f, name: cfg.Rack(i), client: client, journal: fmt.Sprintf("journal-%04d", i), lsn: 1,
			now: make(chan struct{}, 1), news: make(chan struct{}, 1), calm: make(chan struct{}, 1),
			open: map[string]power.Op{}, unsent: map[string]api.OpReport{}, nodes: map[string]power.Reading{}, untold: map[string]bool{},
		}
		if cfg.Secure != nil {
			cfg.Secure(a.name, client)
		}
		for n := range cfg.NodesEach {
			a.nodes[cfg.Node(i*cfg.NodesEach+n)] = power.Seen(power.Off, time.Now())
		}
		f.agents = append(f.agents, a)
	}
	for _, a := range f.agents {
		f.done.Go(func() { a.run(ctx) })
		if cfg.Every > 0 {
			f.done.Go(func() { a.read(ctx, cfg.Every) })
		}
	}
	return f, nil
}

// Stop ends all agents without a goodbye, as kill -9 does.
func (f *Fleet) Stop() {
	f.stop()
	f.done.Wait()
	for _, a := range f.agents {
		a.client.Close()
	}
}

// Settled is how many sessions have their assignment and have told all readings, since the
// fleet started.
func (f *Fleet) Settled() int64 { return f.settled.Load() }

// Ended is how many operations central has acknowledged the end of, Reports how many reports it
// has taken, and Lost how many sessions ended with an error.
func (f *Fleet) Ended() int64 { return f.ended.Load() }

// Reports is described with Ended.
func (f *Fleet) Reports() int64 { return f.reports.Load() }

// Lost is described with Ended.
func (f *Fleet) Lost() int64 { return f.lost.Load() }

// Asking notes when an operation is asked for, so that Took has how long it took.
func (f *Fleet) Asking(ids ...string) {
	now := time.Now()
	for _, id := range ids {
		f.asked.Store(id, now)
	}
}

// Took returns how long operations took from Asking to the acknowledgement of their end, and
// forgets it.
func (f *Fleet) Took() []time.Duration {
	f.tookMu.Lock()
	defer f.tookMu.Unlock()
	all := f.took
	f.took = nil
	return all
}

// Flip has a node be found in its other state.
func (f *Fleet) Flip(node int) {
	a, name := f.agents[node/f.cfg.NodesEach], f.cfg.Node(node)
	a.mu.Lock()
	state := power.On
	if a.nodes[name].State == power.On {
		state = power.Off
	}
	a.saw(name, state)
	a.mu.Unlock()
	poke(a.news)
}

// agent is one of them.
type agent struct {
	f       *Fleet
	name    string
	client  *api.Client
	journal string
	now     chan struct{} // holds a token while there is something that somebody waits for
	news    chan struct{} // likewise what is to gather
	calm    chan struct{} // likewise what is no news

	mu     sync.Mutex
	db     api.Database
	rev    int64
	cursor int64
	seq    power.Seq
	acked  int64
	lsn    uint64
	open   map[string]power.Op
	unsent map[string]api.OpReport
	nodes  map[string]power.Reading
	untold map[string]bool // nodes
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// saw takes a reading. The lock is held.
func (a *agent) saw(node string, state power.State) {
	a.nodes[node], a.untold[node] = power.Seen(state, time.Now()), true
}

// read reads all nodes in rounds, the starts of each spread over a time.
func (a *agent) read(ctx context.Context, every time.Duration) {
	names := slices.Sorted(maps.Keys(a.nodes))
	if backoff.Sleep(ctx, rand.N(every)) != nil {
		return
	}
	for next := time.Now(); ; next = next.Add(every) {
		for _, name := range names {
			a.mu.Lock()
			a.saw(name, a.nodes[name].State)
			a.mu.Unlock()
			poke(a.calm)
			if backoff.Sleep(ctx, min(every/2, maxSpread)/time.Duration(len(names))) != nil {
				return
			}
		}
		if backoff.Sleep(ctx, time.Until(next.Add(every))) != nil {
			return
		}
	}
}

// run has one session after the other until ctx ends.
func (a *agent) run(ctx context.Context) {
	pauses := backoff.Doubling{First: 200 * time.Millisecond, Most: 3 * time.Second}
	for ctx.Err() == nil {
		began := time.Now()
		_ = a.session(ctx) // the next one begins with all that was not told
		if ctx.Err() != nil {
			return
		}
		a.f.lost.Add(1)
		if time.Since(began) > 10*time.Second {
			pauses.Reset()
		}
		pause := pauses.Next()
		if backoff.Sleep(ctx, pause/2+rand.N(pause)) != nil {
			return
		}
	}
}

// session lasts from a hello to the first error.
func (a *agent) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	one, enough := context.WithTimeout(ctx, 10*time.Second)
	w, err := a.client.Hello(one, a.name, a.greeting())
	enough()
	if err != nil {
		return err
	}
	a.begin(w)
	assigned := make(chan struct{})
	var parts sync.WaitGroup
	parts.Go(func() { cancel(a.poll(ctx, w, assigned)) })
	parts.Go(func() { cancel(a.report(ctx, w, assigned)) })
	parts.Wait()
	return context.Cause(ctx)
}

func (a *agent) greeting() api.Hello {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := api.Hello{
		Version: "loadtest", JournalID: a.journal, Epoch: 1, LSN: a.lsn, Opening: a.journal, FoundLSN: 1, ReportedTo: a.db, Rev: a.acked,
		Host: a.name, Machine: "host-of-" + a.name,
	}
	for _, op := range a.open {
		in.Outstanding = append(in.Outstanding, api.OpRef{ID: op.ID, Node: op.Node, Action: op.Action})
	}
	return in
}

// begin has all told again that central has not acknowledged the end of.
func (a *agent) begin(w api.Welcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.db != w.Database {
		a.db, a.rev = w.Database, 0
	}
	a.cursor, a.seq = 0, w.Seq
	for name := range a.nodes {
		a.untold[name] = true
	}
	for _, op := range a.open {
		if _, said := a.unsent[op.ID]; !said {
			a.unsent[op.ID] = a.word(op, api.PhaseRunning)
		}
	}
}

// poll takes what central gives. assigned is closed by the first answer.
func (a *agent) poll(ctx context.Context, w api.Welcome, assigned chan struct{}) error {
	for first := true; ; first = false {
		a.mu.Lock()
		in := api.Poll{Session: w.Session, Database: a.db, Rev: a.rev, Ops: a.cursor, AppliedRev: a.rev, Seq: a.seq, Wait: pollWait}
		a.mu.Unlock()
		if first {
			in.Wait = 0
		}
		one, cancel := context.WithTimeout(ctx, pollWait+10*time.Second)
		got, err := a.client.Poll(one, a.name, in)
		cancel()
		if err != nil {
			return err
		}
		a.take(got)
		if first {
			close(assigned)
		}
	}
}

// take starts what central asks for.
func (a *agent) take(got api.Assignment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rev, a.cursor = got.Rev, got.OpsCursor
	for _, op := range got.Ops {
		if _, known := a.open[op.ID]; known {
			continue
		}
		a.open[op.ID] = op
		if a.f.cfg.Took == 0 {
			a.end(op)
			continue
		}
		a.lsn += 2 // accepted, started
		a.unsent[op.ID] = a.word(op, api.PhaseRunning)
		time.AfterFunc(a.f.cfg.Took, func() {
			a.mu.Lock()
			a.end(op)
			a.mu.Unlock()
			poke(a.now)
		})
	}
	for _, name := range got.Reads {
		a.saw(name, a.nodes[name].State)
	}
	if len(got.Ops)+len(got.Reads) > 0 {
		poke(a.now)
	}
}

// word is what there is to say of an operation. The lock is held.
func (a *agent) word(op power.Op, phase string) api.OpReport {
	return api.OpReport{
		Op: op, LSN: a.lsn, Verdict: power.VerdictStart, Reason: power.ReasonIdle, Message: "starts now", Phase: phase, StartedAt: time.Now(),
	}
}

// end has an operation succeed. The lock is held.
func (a *agent) end(op power.Op) {
	a.lsn += 3 // sending, sent, ended
	state := op.Action.Final()
	if state == power.Unknown {
		state = a.nodes[op.Node].State
	}
	w := a.word(op, api.PhaseEnded)
	w.Attempts = 1
	w.End = &power.End{Outcome: power.Succeeded, At: time.Now(), State: state, Attempts: 1}
	a.unsent[op.ID] = w
	a.saw(op.Node, state)
}

// report tells central what is new, as it comes.
func (a *agent) report(ctx context.Context, w api.Welcome, assigned chan struct{}) error {
	settled := false
	rack := &api.RackState{Monitor: "@every 60s"}
	for {
		out := a.toTell(w)
		out.Rack, rack = rack, nil
		if len(out.Ops)+len(out.Readings) > 0 || out.Rack != nil {
			one, cancel := context.WithTimeout(ctx, 15*time.Second)
			answer, err := a.client.Report(one, a.name, out)
			cancel()
			if err != nil {
				a.untell(out)
				return err
			}
			a.f.reports.Add(1)
			a.acknowledged(out, answer)
			continue
		}
		if !settled {
			select {
			case <-assigned:
				settled = true
				a.f.settled.Add(1)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := a.await(ctx); err != nil {
			return err
		}
	}
}

// await waits for something to tell. What nobody waits for gathers.
func (a *agent) await(ctx context.Context) error {
	var gathered, calm <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.now:
			return nil
		case <-gathered:
			return nil
		case <-calm:
			return nil
		case <-a.news:
			if gathered == nil {
				gathered = time.After(gatherFor)
			}
		case <-a.calm:
			if calm == nil {
				calm = time.After(gatherCalm)
			}
		}
	}
}

// toTell is what central has not been told.
func (a *agent) toTell(w api.Welcome) api.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := api.Report{Session: w.Session, JournalID: a.journal, Epoch: 1, LSN: a.lsn, Rev: a.rev, Seq: a.seq}
	out.Ops = slices.Collect(maps.Values(a.unsent))
	clear(a.unsent)
	for node := range a.untold {
		out.Readings = append(out.Readings, api.NodeReading{Node: node, Reading: a.nodes[node]})
	}
	clear(a.untold)
	return out
}

// untell takes back what toTell gave.
func (a *agent) untell(out api.Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range out.Ops {
		if _, newer := a.unsent[w.Op.ID]; !newer {
			a.unsent[w.Op.ID] = w
		}
	}
}

func (a *agent) acknowledged(out api.Report, answer api.Reported) {
	var took []time.Duration
	a.mu.Lock()
	a.acked = max(a.acked, answer.Rev)
	for _, w := range out.Ops {
		if w.End == nil {
			continue
		}
		delete(a.open, w.Op.ID)
		a.f.ended.Add(1)
		if at, asked := a.f.asked.LoadAndDelete(w.Op.ID); asked {
			took = append(took, time.Since(at.(time.Time))) //nolint:errcheck,forcetypeassert // Asking stores nothing else
		}
	}
	a.mu.Unlock()
	a.f.tookMu.Lock()
	a.f.took = append(a.f.took, took...)
	a.f.tookMu.Unlock()
}

var errTimeout = errors.New("timed out")

// Until waits until ok, or says what was waited for in vain.
func Until(ctx context.Context, bound time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(bound); !ok(); {
		if time.Now().After(end) {
			return fmt.Errorf("%w after %s: %s", errTimeout, bound, what)
		}
		if err := backoff.Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
