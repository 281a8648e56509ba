package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

// scripted is a central over real sockets that keeps to the protocol and does what
// a test tells it on top. It answers from state, as central does, so a lost answer
// is never a lost item.
type scripted struct {
	t   *testing.T
	srv *httptest.Server

	mu       sync.Mutex
	id       string
	restored int64 // incarnation
	wants    bool  // to be told what is enforced
	seq      power.Seq
	rev      int64
	full     bool // answer the next difference of revisions with everything
	nodes    map[string]api.AssignedNode
	changed  map[string]int64 // revision of a node's last change, or of its removal
	items    []item           // the cursor counts them
	reads    []string
	explain  []string
	rack     *api.RackSettings
	sessions int
	repeats  int // polls still to be answered with all that was said before
	news     chan struct{}

	down     bool                    // connections break off
	refuse   map[string]*api.Problem // next answer of "poll" or "report"
	loseNext int                     // reports that are taken and whose answer is lost
	gate     chan struct{}           // non-nil: reports wait here before they are taken
	judge    func(api.Report) error  // non-nil: may refuse a report

	hellos  []api.Hello
	polls   []api.Poll
	reports []api.Report
	words   map[string][]api.OpReport
	seen    map[string]power.Reading
}

type item struct {
	op     *power.Op
	cancel *api.Cancel
}

func newScripted(t *testing.T) *scripted {
	c := &scripted{
		t: t, id: "central-1", nodes: map[string]api.AssignedNode{}, changed: map[string]int64{}, news: make(chan struct{}),
		refuse: map[string]*api.Problem{}, words: map[string][]api.OpReport{}, seen: map[string]power.Reading{},
	}
	mux := http.NewServeMux()
	serve(c, mux, "hello", c.hello)
	serve(c, mux, "poll", c.poll)
	serve(c, mux, "report", c.report)
	c.srv = httptest.NewServer(mux)
	t.Cleanup(func() {
		c.do(func() { c.down = true })
		c.srv.CloseClientConnections()
		c.srv.Close()
	})
	return c
}

// errBreak breaks the connection off instead of answering.
var errBreak = errors.New("break")

func serve[In, Out any](c *scripted, mux *http.ServeMux, verb string, fn func(*http.Request, In) (Out, error)) {
	mux.HandleFunc("POST /v1/agents/r1/"+verb, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			panic(http.ErrAbortHandler)
		}
		var out Out
		err := c.refusal(verb)
		if err == nil {
			out, err = fn(r, in)
		}
		var p *api.Problem
		switch {
		case errors.As(err, &p):
			p.Write(w)
		case err != nil:
			panic(http.ErrAbortHandler)
		default:
			_ = json.NewEncoder(w).Encode(out)
		}
	})
}

func (c *scripted) refusal(verb string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return errBreak
	}
	if p := c.refuse[verb]; p != nil {
		delete(c.refuse, verb)
		return p
	}
	return nil
}

// do changes or reads the script and wakes polls that wait.
func (c *scripted) do(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
	close(c.news)
	c.news = make(chan struct{})
}

func (c *scripted) database() api.Database {
	return api.Database{CentralID: c.id, Incarnation: c.restored}
}

func (c *scripted) session() string { return fmt.Sprintf("%s/%d", c.id, c.sessions) }

func (c *scripted) hello(_ *http.Request, in api.Hello) (api.Welcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hellos = append(c.hellos, in)
	c.sessions++
	c.seq = max(c.seq, in.Seq)
	return api.Welcome{Database: c.database(), Session: c.session(), Seq: c.seq, TellEnforced: c.wants}, nil
}

func (c *scripted) poll(r *http.Request, in api.Poll) (api.Assignment, error) {
	c.do(func() { c.polls = append(c.polls, in) })
	for {
		c.mu.Lock()
		news := c.news
		out, some := c.assignment(in)
		known, down, refused := in.Session == c.session(), c.down, c.refuse["poll"]
		delete(c.refuse, "poll")
		c.mu.Unlock()
		switch {
		case down:
			return out, errBreak
		case refused != nil:
			return out, refused
		case !known:
			return out, api.Problemf(api.CodeHello, "say hello first")
		case some, in.Wait == 0:
			return out, nil
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return out, errBreak
		}
	}
}

// assignment is what there is to say to a poll.
func (c *scripted) assignment(in api.Poll) (api.Assignment, bool) {
	c.seq = max(c.seq, in.Seq)
	out := api.Assignment{Rev: c.rev, OpsCursor: int64(len(c.items)), Reads: c.reads, Explain: c.explain, Rack: c.rack, Seq: c.seq}
	if in.Database != c.database() {
		in.Rev = 0
	}
	out.Full = c.rev > in.Rev && (c.full || in.Rev == 0)
	for name, rev := range c.changed {
		n, there := c.nodes[name]
		switch {
		case there && (out.Full || rev > in.Rev):
			out.Nodes = append(out.Nodes, n)
		case !there && rev > in.Rev && !out.Full:
			out.Removed = append(out.Removed, name)
		}
	}
	from := in.Ops
	if c.repeats > 0 && in.Ops == int64(len(c.items)) {
		c.repeats--
		from = 0
	}
	for _, it := range c.items[min(from, int64(len(c.items))):] {
		switch {
		case it.cancel != nil:
			out.Cancels = append(out.Cancels, *it.cancel)
		case from > 0 || in.Ops > 0 || !c.hasEnded(it.op.ID):
			out.Ops = append(out.Ops, *it.op)
		}
	}
	c.reads, c.explain = nil, nil
	return out, out.Full || in.Rev != c.rev || len(out.Ops)+len(out.Cancels)+len(out.Reads)+len(out.Explain) > 0
}

func (c *scripted) hasEnded(id string) bool {
	return slices.ContainsFunc(c.words[id], func(r api.OpReport) bool { return r.End != nil })
}

func (c *scripted) report(r *http.Request, in api.Report) (api.Reported, error) {
	c.mu.Lock()
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return api.Reported{}, errBreak
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return api.Reported{}, errBreak
	}
	if in.Session != c.session() {
		return api.Reported{}, api.Problemf(api.CodeHello, "say hello first")
	}
	if c.judge != nil {
		if err := c.judge(in); err != nil {
			return api.Reported{}, err
		}
	}
	c.reports = append(c.reports, in)
	c.seq = max(c.seq, in.Seq)
	for _, w := range in.Ops {
		c.words[w.Op.ID] = append(c.words[w.Op.ID], w)
		c.seq = max(c.seq, w.Op.Seq)
	}
	for _, n := range in.Readings {
		c.seen[n.Node] = n.Reading
	}
	if c.loseNext > 0 && slices.ContainsFunc(in.Ops, func(r api.OpReport) bool { return r.End != nil }) {
		c.loseNext--
		return api.Reported{}, errBreak
	}
	return api.Reported{Seq: c.seq}, nil
}

// The verbs of a test.

func (c *scripted) assign(nodes ...api.AssignedNode) {
	c.do(func() {
		c.rev++
		for _, n := range nodes {
			c.nodes[n.Name], c.changed[n.Name] = n, c.rev
		}
	})
}

func (c *scripted) unassign(names ...string) {
	c.do(func() {
		c.rev++
		for _, name := range names {
			delete(c.nodes, name)
			c.changed[name] = c.rev
		}
	})
}

// become has another central answer, with nothing but these nodes.
func (c *scripted) become(id string, nodes ...api.AssignedNode) {
	c.do(func() {
		c.id, c.items, c.rev, c.words, c.seen, c.reports, c.hellos = id, nil, 1, map[string][]api.OpReport{}, map[string]power.Reading{}, nil, nil
		c.nodes, c.changed = map[string]api.AssignedNode{}, map[string]int64{}
		for _, n := range nodes {
			c.nodes[n.Name], c.changed[n.Name] = n, 1
		}
	})
}

// ask takes a request as central does and returns its id.
func (c *scripted) ask(node string, action power.Action, opts ...opOption) string {
	op := power.Op{Node: node, Action: action, AskedBy: "admin", Origin: power.FromCentral, AskedAt: time.Now()}
	c.do(func() {
		c.seq = c.seq.Next(time.Now())
		op.ID, op.Seq = fmt.Sprintf("op-%d", len(c.items)+1), c.seq
		for _, o := range opts {
			o(&op)
		}
		c.items = append(c.items, item{op: &op})
	})
	return op.ID
}

func (c *scripted) cancel(id string) {
	c.do(func() {
		c.items = append(c.items, item{cancel: &api.Cancel{ID: id, By: "operator", Reason: "wrong node"}})
	})
}

// goAway breaks all that is under way and refuses what comes.
func (c *scripted) goAway() {
	c.do(func() { c.down = true })
	c.srv.CloseClientConnections()
}

func (c *scripted) comeBack() { c.do(func() { c.down = false }) }

func get[T any](c *scripted, fn func() T) (out T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fn()
}

// eventually polls until fn is true, within a bound.
func eventually(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !fn(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

// ends waits until central was told of n ends of an operation and returns the last.
func (c *scripted) ends(id string, n int) power.End {
	c.t.Helper()
	var end power.End
	eventually(c.t, fmt.Sprintf("%d ends of %s reported", n, id), func() bool {
		return get(c, func() bool {
			found := 0
			for _, w := range c.words[id] {
				if w.End != nil {
					found++
					end = *w.End
				}
			}
			return found >= n
		})
	})
	return end
}

func (c *scripted) wantEnd(id string, outcome power.Outcome, reason power.Reason) power.End {
	c.t.Helper()
	end := c.ends(id, 1)
	if end.Outcome != outcome || end.Reason != reason {
		c.t.Fatalf("%s ended %s (%s: %s), want %s (%s)", id, end.Outcome, end.Reason, end.Detail, outcome, reason)
	}
	return end
}

// phase waits until central was told last that an operation is in a phase.
func (c *scripted) phase(id, prefix string) {
	c.t.Helper()
	eventually(c.t, id+" is "+prefix, func() bool {
		return get(c, func() bool {
			w := c.words[id]
			return len(w) > 0 && strings.HasPrefix(w[len(w)-1].Phase, prefix)
		})
	})
}

// polledPast waits until the agent asks for what comes after all that there is.
func (c *scripted) polledPast() {
	c.t.Helper()
	eventually(c.t, "all is taken", func() bool {
		return get(c, func() bool {
			n := len(c.polls)
			return n > 0 && c.polls[n-1].Ops == int64(len(c.items)) && c.polls[n-1].Rev == c.rev &&
				c.polls[n-1].Database == c.database() && c.polls[n-1].Session == c.session() && c.repeats == 0
		})
	})
}

// quick is a Timing for BMCs that answer at once.
func quick() Timing {
	return Timing{
		Verify: []time.Duration{time.Minute}, FirstLook: time.Millisecond, LongLook: 5 * time.Millisecond, Unreachable: 200 * time.Millisecond,
		Retry: time.Millisecond, LongRetry: 5 * time.Millisecond, MinOff: time.Millisecond, Exchange: time.Second,
		Timing: monitor.Timing{Settle: time.Millisecond},
	}
}

// withCentral starts an agent of hands-off nodes n1, n2, ... that has its
// assignment from a scripted central.
func withCentral(t *testing.T, nodes int) (*harness, *scripted) {
	t.Helper()
	t.Parallel()
	c := newScripted(t)
	client, err := api.NewClient(c.srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r := &harness{t: t, fake: powertest.NewFake()}
	r.cfg = Config{
		Name: "r1", Dir: t.TempDir(), Version: "test", Dial: r.fake.Dial, Monitor: MonitorOff, Central: client, Timing: quick(),
		Logger: slog.New(slog.DiscardHandler),
	}
	for i := range nodes {
		r.nodes = append(r.nodes, handsOff(fmt.Sprintf("n%d", i+1)))
	}
	c.assign(r.nodes...)
	r.start()
	t.Cleanup(r.crash)
	eventually(t, "the nodes are assigned", func() bool { return len(r.a.assigned.all()) == nodes })
	return r, c
}

// slow makes a node take for ever to go on, so that operations stay outstanding.
func (r *harness) slow(node string) { r.bmc(node).SetOnAfter(time.Hour) }

// allReported waits until the agent knows that central has its every word.
func (r *harness) allReported() {
	r.t.Helper()
	eventually(r.t, "all is reported", func() bool { return len(r.a.outbox.take(1)) == 0 })
}

// liveKeys lists the operations that the journal holds.
func (r *harness) liveKeys() []string {
	keys := []string{}
	for _, rec := range r.a.log.Live() {
		if rec.Kind == kindAccepted {
			keys = append(keys, rec.Key)
		}
	}
	slices.Sort(keys)
	return keys
}

func TestSyncHelloPollReport(t *testing.T) {
	r, c := withCentral(t, 2)
	on := c.ask("n1", power.ActOn)
	off := c.ask("n2", power.ActOff)
	c.wantEnd(on, power.Succeeded, power.ReasonVerified)
	if end := c.wantEnd(off, power.Succeeded, power.ReasonAlready); !end.Already || end.State != power.Off {
		t.Fatalf("end %+v", end)
	}
	r.wantCommands("n1", power.PowerOn)
	r.wantCommands("n2")
	eventually(t, "the journal lets go of what is reported", func() bool { return len(r.liveKeys()) == 0 })
	eventually(t, "the readings are reported", func() bool {
		return get(c, func() bool { return c.seen["n1"].State == power.On && c.seen["n2"].State == power.Off })
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hellos[0]
	if len(c.hellos) != 1 || h.JournalID != r.a.log.ID() || h.Epoch != 1 || h.Version != "test" || len(h.Outstanding) != 0 {
		t.Errorf("hellos %+v", c.hellos)
	}
	if p := c.polls[0]; p.Rev != 0 || p.Ops != 0 || p.Wait != 0 {
		t.Errorf("first poll %+v", p)
	}
	lsn := uint64(0)
	for _, rep := range c.reports {
		if rep.JournalID != h.JournalID || rep.Epoch != 1 || rep.LSN < lsn {
			t.Errorf("report %+v", rep)
		}
		lsn = rep.LSN
		for _, w := range rep.Ops {
			if w.LSN == 0 || w.LSN > rep.LSN {
				t.Errorf("word on %s stands on record %d of %d", w.Op.ID, w.LSN, rep.LSN)
			}
		}
	}
}

func TestSyncReadsWhatCentralWaitsFor(t *testing.T) {
	r, c := withCentral(t, 1)
	eventually(t, "a first reading", func() bool { return get(c, func() bool { return c.seen["n1"].State == power.Off }) })
	r.bmc("n1").SetPower(power.On)
	c.do(func() { c.reads = []string{"n1"} })
	eventually(t, "the reading is reported", func() bool { return get(c, func() bool { return c.seen["n1"].State == power.On }) })
}

// TestSyncOpsDeliveredAgainRunOnce delivers a reset, which acts anew each time it
// leaves, again by a repeated answer, after a hello and after a restart.
func TestSyncOpsDeliveredAgainRunOnce(t *testing.T) {
	r, c := withCentral(t, 2)
	r.bmc("n1").SetPower(power.On)
	r.slow("n2")
	reset := c.ask("n1", power.ActReset)
	on := c.ask("n2", power.ActOn) // outstanding all the time
	c.wantEnd(reset, power.Succeeded, power.ReasonVerified)
	c.phase(on, api.PhaseRunning+": waiting")

	r.allReported()
	c.do(func() { c.repeats, c.words = 1, map[string][]api.OpReport{} })
	c.wantEnd(reset, power.Succeeded, power.ReasonVerified) // and central is told again
	c.phase(on, api.PhaseRunning)

	r.allReported()
	// Only central forgets: all is delivered anew, in a new session.
	c.do(func() { c.restored, c.words = 2, map[string][]api.OpReport{}; c.sessions++ })
	c.wantEnd(reset, power.Succeeded, power.ReasonVerified)
	c.phase(on, api.PhaseRunning)
	c.polledPast()

	eventually(t, "the journal lets go of the reset", func() bool { return !slices.Contains(r.liveKeys(), reset) })
	r.allReported()
	c.do(func() { c.words = map[string][]api.OpReport{} })
	r.restart()
	if end := c.wantEnd(reset, power.Succeeded, power.ReasonVerified); end.Attempts != 1 {
		t.Errorf("end after a restart: %+v", end)
	}
	c.phase(on, api.PhaseRunning)
	c.polledPast()
	r.wantCommands("n1", power.HardReset)
	r.wantCommands("n2", power.PowerOn)
}

// TestSyncReportAnswerLost: central took a report, the agent does not know.
func TestSyncReportAnswerLost(t *testing.T) {
	r, c := withCentral(t, 1)
	c.do(func() { c.loseNext = 1 })
	id := c.ask("n1", power.ActOn)
	first := c.ends(id, 1)
	if again := c.ends(id, 2); again.Outcome != first.Outcome || !again.At.Equal(first.At) {
		t.Fatalf("reported %+v, then %+v", first, again)
	}
	eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
	hellos := get(c, func() []api.Hello { return slices.Clone(c.hellos) })
	wantIDs(t, "outstanding of the hello after", refIDs(hellos[len(hellos)-1].Outstanding), id)
	r.wantCommands("n1", power.PowerOn)
	r.restart()
	eventually(t, "a hello", func() bool { return get(c, func() bool { return len(c.hellos) > len(hellos) }) })
	wantIDs(t, "outstanding after a restart", get(c, func() []string { return refIDs(c.hellos[len(c.hellos)-1].Outstanding) }))
}

// TestSyncSaysHelloAgain: whichever request is answered "say hello first", the
// agent does, with the same outstanding operations, and nothing is repeated.
func TestSyncSaysHelloAgain(t *testing.T) {
	for _, verb := range []string{"poll", "report"} {
		t.Run(verb, func(t *testing.T) {
			r, c := withCentral(t, 2)
			r.slow("n1")
			on := c.ask("n1", power.ActOn)
			cycle := c.ask("n1", power.ActCycle)
			c.phase(on, api.PhaseRunning+": waiting")
			c.phase(cycle, api.PhaseWaiting)
			c.do(func() { c.refuse[verb] = api.Problemf(api.CodeHello, "say hello first") })
			off := c.ask("n2", power.ActOff)
			c.wantEnd(off, power.Succeeded, power.ReasonAlready)
			eventually(t, "a second hello", func() bool { return get(c, func() bool { return len(c.hellos) == 2 }) })
			h := get(c, func() []api.Hello { return slices.Clone(c.hellos) })
			for _, id := range []string{on, cycle} {
				if !slices.Contains(refIDs(h[1].Outstanding), id) {
					t.Errorf("the second hello does not name %s: %v", id, h[1].Outstanding)
				}
			}
			if h[0].JournalID != h[1].JournalID || h[0].Epoch != h[1].Epoch || h[1].LSN < h[0].LSN {
				t.Errorf("hellos %+v", h)
			}
			c.polledPast()
			wantIDs(t, "operations in the journal", slices.DeleteFunc(r.liveKeys(), func(id string) bool { return id == off }), on, cycle)
			r.wantCommands("n1", power.PowerOn)
		})
	}
}

// TestSyncCentralAwayDuringAnOperation: what ends meanwhile is reported later,
// also by the next start of the agent.
func TestSyncCentralAwayDuringAnOperation(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			r, c := withCentral(t, 1)
			r.slow("n1")
			id := c.ask("n1", power.ActOn)
			c.phase(id, api.PhaseRunning+": waiting")
			c.goAway()
			r.bmc("n1").SetOnAfter(0)
			r.bmc("n1").SetPower(power.On)
			eventually(t, "the operation ends", func() bool {
				got, ok := r.a.outbox.find(id)
				return ok && got.End != nil
			})
			wantIDs(t, "operations in the journal", r.liveKeys(), id)
			if restart {
				r.restart()
				wantIDs(t, "operations in the journal after a restart", r.liveKeys(), id)
				if n := len(r.a.assigned.all()); n != 1 {
					t.Fatalf("%d nodes after a restart without central", n)
				}
			}
			if get(c, func() bool { return c.hasEnded(id) }) {
				t.Fatal("central heard of the end while it was away")
			}
			c.comeBack()
			c.wantEnd(id, power.Succeeded, power.ReasonVerified)
			eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
			r.wantCommands("n1", power.PowerOn)
		})
	}
}

func TestSyncAssignmentIncrementalAndFull(t *testing.T) {
	r, c := withCentral(t, 3)
	names := func() []string { return r.a.assigned.names() }
	n2 := handsOff("n2")
	n2.BMC = "ipmi://admin@elsewhere"
	c.unassign("n1")
	c.assign(n2, handsOff("n4"))
	c.polledPast()
	wantIDs(t, "nodes", names(), "n2", "n3", "n4")
	if got, _ := r.a.assigned.get("n2"); got.BMC != n2.BMC {
		t.Fatalf("n2 is at %s", got.BMC)
	}
	if got := r.a.readings.get("n1"); got.Reach != power.ReachNever {
		t.Fatalf("the reading of a node that is gone: %+v", got)
	}
	gone := c.ask("n1", power.ActOn)
	c.wantEnd(gone, power.Refused, power.ReasonNoNode)

	eventually(t, "the monitor has noted the nodes", func() bool {
		r.a.assigned.mu.Lock()
		defer r.a.assigned.mu.Unlock()
		return len(r.a.assigned.memories) == 3
	})
	lsn := r.a.assignLg.LSN()
	c.do(func() { c.repeats = 1 }) // an answer without a change of the assignment
	c.wantEnd(c.ask("n3", power.ActOff), power.Succeeded, power.ReasonAlready)
	c.polledPast()
	if now := r.a.assignLg.LSN(); now != lsn {
		t.Errorf("an unchanged assignment wrote %d records", now-lsn)
	}

	c.do(func() {
		delete(c.nodes, "n3") // without being named as removed
		delete(c.changed, "n3")
		c.full, c.rev = true, c.rev+1
	})
	c.polledPast()
	wantIDs(t, "nodes", names(), "n2", "n4")
	r.restart()
	wantIDs(t, "nodes after a restart", names(), "n2", "n4")
	polls := get(c, func() int { return len(c.polls) })
	eventually(t, "a poll", func() bool { return get(c, func() bool { return len(c.polls) > polls }) })
	if p := get(c, func() api.Poll { return c.polls[polls] }); p.Rev != c.rev || p.Database != c.database() || p.Ops != 0 {
		t.Errorf("first poll after a restart: %+v, want revision %d", p, c.rev)
	}
}

// TestSyncAnotherCentral: revisions and cursors of one central mean nothing to
// another, which a person has to trust first.
func TestSyncAnotherCentral(t *testing.T) {
	r, c := withCentral(t, 2)
	for range 3 {
		c.wantEnd(c.ask("n1", power.ActOff), power.Succeeded, power.ReasonAlready)
	}
	r.slow("n1")
	if _, err := r.a.control.ask(api.OpRequest{ID: "local", Node: "n1", Action: power.ActOn}, false); err != nil {
		t.Fatal(err)
	}
	c.phase("local", api.PhaseRunning+": waiting")
	c.polledPast()
	polls := get(c, func() int { return len(c.polls) })
	c.become("central-2", handsOff("n1"), handsOff("n9"))
	c.wantEnd(c.ask("n9", power.ActOn, func(o *power.Op) { o.ID = "early" }), power.Refused, power.ReasonUntrusted)
	wantIDs(t, "nodes", r.a.assigned.names(), "n1", "n2")
	r.trust("n2")
	on := c.ask("n9", power.ActOn, func(o *power.Op) { o.ID = "new" })
	c.wantEnd(on, power.Succeeded, power.ReasonVerified)
	c.phase("local", api.PhaseRunning+": waiting") // it is told what it did not ask for
	c.polledPast()
	wantIDs(t, "nodes", r.a.assigned.names(), "n1", "n9")
	c.mu.Lock()
	defer c.mu.Unlock()
	first := slices.IndexFunc(c.polls, func(p api.Poll) bool { return p.Session == c.session() })
	if first < polls {
		t.Fatalf("no poll in the new session")
	}
	if p := c.polls[first]; p.Rev != 0 || p.Ops != 0 {
		t.Errorf("first poll of another central: %+v", p)
	}
}

// failingLog refuses records while it is told to.
type failingLog struct {
	opLog
	failing atomic.Pointer[func(journal.Entry) bool]
	refused atomic.Int64
}

var errFull = errors.New("no space left on device")

func (f *failingLog) Append(entries ...journal.Entry) (uint64, error) {
	if fails := f.failing.Load(); fails != nil && slices.ContainsFunc(entries, *fails) {
		f.refused.Add(1)
		return 0, errFull
	}
	return f.opLog.Append(entries...)
}

func (f *failingLog) fail(kinds ...journal.Kind) {
	f.refused.Store(0)
	fails := func(e journal.Entry) bool { return slices.Contains(kinds, e.Kind) }
	f.failing.Store(&fails)
}

func (f *failingLog) heal() { f.failing.Store(nil) }

func withFailingLog(t *testing.T, nodes int) (*harness, *scripted, *failingLog) {
	r, c := withCentral(t, nodes)
	var disk *failingLog
	r.cfg.wrapLog = func(_ *Agent, log opLog) opLog {
		disk = &failingLog{opLog: log}
		return disk
	}
	r.restart()
	c.polledPast()
	return r, c, disk
}

// TestSyncCursorStaysBehindTheJournal: what the journal does not take is asked for
// again, with the cursor where it was.
func TestSyncCursorStaysBehindTheJournal(t *testing.T) {
	r, c, disk := withFailingLog(t, 2)
	r.slow("n2")
	done := c.ask("n2", power.ActOn)
	c.phase(done, api.PhaseRunning+": waiting")
	c.polledPast()
	disk.fail(kindAccepted)
	id := c.ask("n1", power.ActOn)
	eventually(t, "the journal refused twice", func() bool { return disk.refused.Load() >= 2 })
	for _, p := range get(c, func() []api.Poll { return slices.Clone(c.polls) }) {
		if p.Ops > 1 {
			t.Fatalf("a poll asks for what comes after an operation that is not durable: %+v", p)
		}
	}
	if words := get(c, func() int { return len(c.words[id]) }); words != 0 {
		t.Fatalf("central was told of it %d times", words)
	}
	r.wantCommands("n1")
	disk.heal()
	c.wantEnd(id, power.Succeeded, power.ReasonVerified)
	c.polledPast()
	r.wantCommands("n1", power.PowerOn)
	r.wantCommands("n2", power.PowerOn)
}

func TestSyncCancelIsNotLostWithTheJournal(t *testing.T) {
	r, c, disk := withFailingLog(t, 1)
	r.slow("n1")
	id := c.ask("n1", power.ActOn)
	c.phase(id, api.PhaseRunning+": waiting")
	disk.fail(kindCancel)
	c.cancel(id)
	eventually(t, "the journal refused", func() bool { return disk.refused.Load() >= 1 })
	disk.heal()
	c.wantEnd(id, power.Cancelled, power.ReasonAsked)
}

// TestSyncAcknowledgedEndLeavesTheJournalLater: central has the end, the journal
// cannot let go of it yet; that is made up for without a restart.
func TestSyncAcknowledgedEndLeavesTheJournalLater(t *testing.T) {
	r, c, disk := withFailingLog(t, 1)
	disk.fail(kindReported)
	id := c.ask("n1", power.ActOn)
	c.wantEnd(id, power.Succeeded, power.ReasonVerified)
	eventually(t, "the journal refused", func() bool { return disk.refused.Load() >= 1 })
	wantIDs(t, "operations in the journal", r.liveKeys(), id)
	disk.heal()
	eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
	r.wantCommands("n1", power.PowerOn)
}

func TestSyncCancels(t *testing.T) {
	r, c := withCentral(t, 2)
	ended := c.ask("n2", power.ActOff)
	c.wantEnd(ended, power.Succeeded, power.ReasonAlready)
	r.slow("n1")
	running := c.ask("n1", power.ActOn)
	waiting := c.ask("n1", power.ActCycle)
	joined := c.ask("n1", power.ActCycle)
	c.phase(running, api.PhaseRunning+": waiting")
	c.phase(joined, api.PhaseWaiting)

	c.cancel("nobody knows it")
	c.cancel(ended)
	c.ends(ended, 2) // central seems not to know: it is told again
	c.cancel(joined)
	c.polledPast()
	if end := c.ends(ended, 2); end.Outcome != power.Succeeded {
		t.Fatalf("an ended operation was cancelled: %+v", end)
	}
	for _, id := range []string{running, waiting, joined} {
		if get(c, func() bool { return c.hasEnded(id) }) {
			t.Fatalf("%s has ended", id)
		}
	}
	c.cancel(waiting)
	for _, id := range []string{waiting, joined} {
		if end := c.wantEnd(id, power.Cancelled, power.ReasonAsked); end.Detail != "cancelled by operator (wrong node); it had not started" {
			t.Errorf("%s: %q", id, end.Detail)
		}
	}
	c.cancel(running)
	if end := c.wantEnd(running, power.Cancelled, power.ReasonAsked); end.Attempts != 1 {
		t.Errorf("end %+v", end)
	}
	r.wantCommands("n1", power.PowerOn)
}

// TestSyncCancelWithItsOperation: both are new to the agent.
func TestSyncCancelWithItsOperation(t *testing.T) {
	r, c := withCentral(t, 1)
	r.slow("n1")
	c.goAway()
	id := c.ask("n1", power.ActOn)
	c.cancel(id)
	c.comeBack()
	c.wantEnd(id, power.Cancelled, power.ReasonAsked)
}

func TestSyncRefusalsAreReportedWithTheirReason(t *testing.T) {
	r, c := withCentral(t, 2)
	r.slow("n1")
	running := c.ask("n1", power.ActOn)
	c.phase(running, api.PhaseRunning+": waiting")
	old := func(o *power.Op) { o.Seq = 1 }
	busy := func(o *power.Op) { o.IfBusy = power.Refuse }
	graceful := func(o *power.Op) { o.Grace = time.Second }
	for _, want := range []struct {
		id     string
		reason power.Reason
	}{
		{c.ask("n1", power.ActOff, old), power.ReasonStale},
		{c.ask("n1", power.ActOff, busy), power.ReasonBusy},
		{c.ask("n7", power.ActOff), power.ReasonNoNode},
		{c.ask("n2", "explode"), power.ReasonUnsupported},
		{c.ask("n2", power.ActOn, graceful), power.ReasonUnsupported},
	} {
		if end := c.wantEnd(want.id, power.Refused, want.reason); end.Detail == "" {
			t.Errorf("%s is refused without a word", want.id)
		}
		w := get(c, func() api.OpReport { return c.words[want.id][0] })
		if w.Verdict != power.VerdictRefuse || w.Reason != want.reason || w.Phase != api.PhaseEnded || w.Message == "" {
			t.Errorf("%s: word %+v", want.id, w)
		}
	}
	c.polledPast()
	wantIDs(t, "operations in the journal", r.liveKeys(), running)
	r.wantCommands("n1", power.PowerOn)
	r.wantCommands("n2")
}

// TestSyncClocksMerge: a sequence given at the rack after hearing of central's is
// higher, and central hears of it.
func TestSyncClocksMerge(t *testing.T) {
	step := power.Seq(10*time.Minute/time.Millisecond) << 16
	r, c := withCentral(t, 2)
	ahead := power.Seq(0).Next(time.Now()) + step
	c.do(func() { c.seq = ahead })
	c.wantEnd(c.ask("n1", power.ActOff), power.Succeeded, power.ReasonAlready)
	r.slow("n1")
	local, err := r.a.control.ask(api.OpRequest{ID: "local", Node: "n1", Action: power.ActOn}, false)
	if err != nil || !local.Verdict.Accepted() || local.Op.Seq <= ahead+1 {
		t.Fatalf("asked at the rack: %+v, %v; want a sequence above %d", local, err, ahead+1)
	}
	c.phase("local", api.PhaseRunning)
	if seq := get(c, func() power.Seq { return c.seq }); seq < local.Op.Seq {
		t.Errorf("central's clock %d is behind %d", seq, local.Op.Seq)
	}

	c.do(func() { c.gate = make(chan struct{}) }) // from here on no answer of a report merges
	c.do(func() { c.seq += step; ahead = c.seq; c.rev++ })
	eventually(t, "the answer of a poll is merged", func() bool { return r.a.clock.Now(time.Now()) >= ahead })

	// A welcome alone, and one over a restart of the agent, merge too.
	c.goAway()
	c.do(func() { c.seq += step; ahead = c.seq })
	r.restart()
	if now := r.a.clock.Now(time.Now()); now < local.Op.Seq {
		t.Errorf("clock %d after a restart is behind the journal's %d", now, local.Op.Seq)
	}
	c.comeBack()
	eventually(t, "the welcome is merged", func() bool { return r.a.clock.Now(time.Now()) >= ahead })
	h := get(c, func() api.Hello { return c.hellos[len(c.hellos)-1] })
	if h.Seq < local.Op.Seq {
		t.Errorf("hello with clock %d, want at least %d", h.Seq, local.Op.Seq)
	}
}

// TestSyncNewerWordWhileOneIsOnItsWay holds a report back at central while the
// operation goes on.
func TestSyncNewerWordWhileOneIsOnItsWay(t *testing.T) {
	r, c := withCentral(t, 1)
	gate := make(chan struct{})
	c.do(func() { c.gate = gate })
	id := c.ask("n1", power.ActOn)
	eventually(t, "the operation ends", func() bool {
		got, ok := r.a.outbox.find(id)
		return ok && got.End != nil
	})
	close(gate)
	c.wantEnd(id, power.Succeeded, power.ReasonVerified)
	eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
}

func TestLinkSaysHowCentralIs(t *testing.T) {
	r, c := withCentral(t, 1)
	eventually(t, "reached", func() bool { return r.a.link.String() == "reached" })
	c.goAway()
	eventually(t, "away", func() bool {
		got := r.a.link.String()
		return strings.HasPrefix(got, "away for ") && strings.HasSuffix(got, " s")
	})
	if got := new(link).String(); got != "not reached yet" {
		t.Errorf("at the start: %q", got)
	}
}

func refIDs(refs []api.OpRef) []string {
	ids := []string{}
	for _, ref := range refs {
		ids = append(ids, ref.ID)
	}
	return ids
}

// joins is a cluster that notes whom it is to join.
type joins struct {
	api.Cluster
	asked []string
}

func (j *joins) SetNodes([]NodeView) {}

func (j *joins) Addr() string { return "" }

func (j *joins) Join(addrs ...string) error {
	j.asked = append(j.asked, addrs...)
	return nil
}

// TestCentralNamesHostsOnly has a central name addresses to gossip with that no host has, or
// that would have to be looked up: none is joined.
func TestCentralNamesHostsOnly(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		j := new(joins)
		r.a.SetGossip(j)
		for _, addr := range []string{"", "0.0.0.0:7946", "[::]:7946", "224.0.0.1:7946", "host.example:7946", "127.0.0.1", "127.0.0.1:0", "x"} {
			r.a.link.joinCentral(api.Welcome{Gossip: addr})
		}
		if len(j.asked) != 0 {
			t.Errorf("joined %q", j.asked)
		}
		r.a.link.joinCentral(api.Welcome{Gossip: "192.0.2.7:7946"})
		if !slices.Equal(j.asked, []string{"192.0.2.7:7946"}) {
			t.Errorf("joined %q", j.asked)
		}
	})
}
