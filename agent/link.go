package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// link keeps in touch with central: it says hello, polls and reports. What central says
// it gives to the agent, and it takes nothing from a central that is not trusted.
type link struct {
	name, version string  // the agent's
	central       Central // nil: there is none
	agent         follower
	log           opLog
	opening       string        // names this opening of the journal
	foundLSN      uint64        // that of the last record that it found
	bare          bool          // the agent never had a central, a node or an operation when it started
	kept          appender      // the assignment's log
	rack          chan struct{} // a token: there is something of the rack that central is told
	gate          *gate
	permit        *permit
	lease         *leaseholder
	assigned      *assigned
	heeded        *atomic.Pointer[syncRecord] // the assignment that the monitor goes by
	outbox        *outbox
	readings      *readings
	view          *rackView
	alarms        *alarms
	gossip        *gossiper
	clock         *power.Clock
	logger        *slog.Logger

	toTell      toTell
	undelivered undelivered // what central refused

	mu        sync.Mutex
	sessionID string
	ops       int64 // cursor of operations taken into the journal during this run
	up        bool
	since     time.Time
	acked     int64 // highest revision that an acknowledgement of the trusted central named
	again     bool  // the next hello follows all the ends that are kept
	// gossipRefused is why central does not join this agent's gossip.
	gossipRefused string
	unknown       *untrusted              // the central that answered last, if it is not trusted
	end           context.CancelCauseFunc // ends the session
}

// follower is what the agent as a whole does with what central says.
type follower interface {
	checkClock(now time.Time)
	followCentral(seq power.Seq)
	compared(w api.Welcome) error
	apply(got api.Assignment, db api.Database) error
	heedEnds(ends []api.EndedOp) error
	acknowledged(ops []api.OpReport, by ack) bool
	letGo(nodes []string, by, reason string) error
	holdsBack() []string
	keptEnds() []api.OpReport
	locate(readings []api.NodeReading)
	removed() error
	leaseGiven()
}

func newLink(a *Agent, foundLSN uint64) *link {
	return &link{
		name: a.cfg.Name, version: a.cfg.Version, central: a.cfg.Central, agent: a, log: a.log, opening: newID(), foundLSN: foundLSN,
		kept: a.assignLg, rack: a.rack, gate: &a.gate, permit: &a.permit, lease: &a.lease, assigned: a.assigned, heeded: &a.heeded,
		outbox:   a.outbox,
		readings: a.readings, view: a.view, alarms: a.alarms, gossip: &a.gossip, clock: &a.clock, logger: a.logger,
	}
}

// begin notes the session that is under way, and the central that it is with if that is
// not trusted.
func (l *link) begin(end context.CancelCauseFunc, u *untrusted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end, l.unknown = end, u
}

// over ends the session that is under way.
func (l *link) over(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown = nil
	if l.end != nil {
		l.end(err)
	}
}

// stranger is what is known of the central that answered last and is not trusted; nil:
// that is not so.
func (l *link) stranger() *untrusted {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unknown == nil {
		return nil
	}
	u := *l.unknown
	u.nodes = maps.Clone(u.nodes)
	return &u
}

// heardRev notes the revision of an acknowledgement.
func (l *link) heardRev(rev int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = max(l.acked, rev)
}

func (l *link) set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up != up || l.since.IsZero() {
		l.up, l.since = up, time.Now()
	}
}

// String is "reached" or "away for 3 min".
func (l *link) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.unknown != nil:
		return "answers and is not trusted: see rackpower local trust"
	case l.since.IsZero():
		return "not reached yet"
	case !l.up:
		return "away for " + power.Ago(time.Since(l.since))
	default:
		return "reached"
	}
}

// reached reports whether central answers and is trusted.
func (l *link) reached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown == nil && l.up
}

const (
	pollWait      = 25 * time.Second
	firstPause    = 200 * time.Millisecond // after a session that failed
	maxReportOps  = 500
	maxReportRead = 2000
	gatherFor     = 250 * time.Millisecond // news that nobody waits for
	gatherCalm    = 5 * time.Second        // readings that found what was known
)

// run keeps in touch with central until ctx ends: hello, then one long
// poll and one stream of reports side by side. Any error starts over with a hello,
// after a pause that grows. All that is exchanged is state, so starting over
// repeats nothing.
func (l *link) run(ctx context.Context) {
	pauses := backoff.Doubling{First: firstPause}
	var logged time.Time // that the name is another's
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errHelloAgain) {
			continue
		}
		if api.CodeOf(err) != api.CodeHello {
			l.set(false)
		}
		if time.Since(began) > 10*time.Second {
			pauses.Reset()
		}
		pauses.Most = 3 * time.Second
		if api.CodeOf(err) == api.CodeTwoAgents {
			pauses.Most = 10 * time.Second
		}
		pause := pauses.Next()
		if api.CodeOf(err) == api.CodeTwoAgents {
			l.refusedName(err)
			if time.Since(logged) >= time.Minute {
				logged = time.Now()
				l.logger.Error("central gives the name to another agent", "central", l.central.Target(), "err", err)
			}
		} else {
			l.permit.away()
			l.logger.Warn("central is away", "central", l.central.Target(), "err", err, "pause", pause)
		}
		if backoff.Sleep(ctx, pause/2+rand.N(pause)) != nil {
			return
		}
	}
}

// errHelloAgain ends a session that the next one goes on with at once.
var errHelloAgain = errors.New("there is something new to say hello with")

// hello says how things stand here.
func (l *link) hello(ctx context.Context) (api.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	in := api.Hello{
		Version: l.version, JournalID: l.log.ID(), Epoch: l.log.Epoch(), LSN: l.log.LSN(),
		Opening: l.opening, FoundLSN: l.foundLSN, Doubt: l.gate.doubts().Tell,
		Outstanding: l.outbox.outstanding(), Seq: l.clock.Now(time.Now()), Gossip: l.gossip.addr(), Host: hostName(),
		Machine: machineName(), LeaseEpoch: l.assigned.latestEpoch(),
	}
	l.mu.Lock()
	in.ReportedAll, l.again = l.again, false
	acked := l.acked
	l.mu.Unlock()
	if trust := l.assigned.trusts(); trust.Reported {
		in.ReportedTo, in.Rev = trust.Database, acked
	}
	w, err := l.central.Hello(ctx, l.name, in)
	if err != nil {
		return w, fmt.Errorf("hello: %w", err)
	}
	return w, nil
}

// joinCentral has gossip join central where it says that it gossips. A central that is
// trusted may say where, since it says where the BMCs are too; it names an IP, so that
// nothing is looked up.
func (l *link) joinCentral(w api.Welcome) {
	g := l.gossip.member()
	if g == nil {
		return
	}
	l.mu.Lock()
	news := w.GossipRefused != "" && w.GossipRefused != l.gossipRefused
	l.gossipRefused = w.GossipRefused
	l.mu.Unlock()
	if news {
		l.logger.Warn("central does not join this agent's gossip: this one joins central's",
			"reason", w.GossipRefused, "address", w.Gossip, "remedy", "where that cannot be reached: --join with an address of central that can")
	}
	if w.Gossip == "" {
		return
	}
	_, err := api.GossipAddr(w.Gossip)
	if err == nil {
		err = g.Join(w.Gossip)
	}
	if err != nil {
		l.logger.Warn("cannot gossip with central", "address", w.Gossip, "err", err)
	}
}

// session lasts from one hello to the first error.
func (l *link) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.agent.checkClock(time.Now())
	w, err := l.hello(ctx)
	if err != nil {
		return err
	}
	met, err := l.welcome(w.Database)
	switch {
	case err != nil:
		return err
	case !met.trusted():
		return l.untrustedSession(ctx, cancel, w, met)
	}
	l.permit.back(time.Now())
	l.alarms.clear(api.AlarmTwoAgents)
	l.begin(cancel, nil)
	l.alarms.clear(api.AlarmCentralUnknown)
	l.agent.followCentral(w.Seq)
	l.mu.Lock()
	l.ops = 0 // all not accepted comes again, which is harmless; the cursor may be another's
	l.sessionID = w.Session
	l.mu.Unlock()
	l.set(true)
	for _, al := range w.Alarms {
		l.logger.Error("central has an alarm about this agent", "kind", al.Kind, "message", al.Message)
	}
	if err := l.agent.compared(w); err != nil {
		return err
	}
	l.joinCentral(w)
	l.outbox.allAgain()
	if n := l.outbox.lost(); n > 0 {
		l.logger.Error("more requests were refused while central was away than are kept: it is not told of the oldest", "dropped", n, "kept",
			maxRefused)
	}
	l.readings.allUntold()
	l.toTell.begin()
	l.undelivered.begin()
	l.logger.Info("central reached", "central", l.central.Target(), "central_id", w.CentralID, "epoch", l.log.Epoch())

	if !l.assigned.trusts().Reported {
		if err := l.tellKept(ctx, w); err != nil {
			return err
		}
		if w.ReportAll {
			return errHelloAgain
		}
	}
	if w.TellEnforced { // the first poll takes what the restored database says
		if err := l.tellEnforced(ctx, w); err != nil {
			return err
		}
	}
	var parts sync.WaitGroup
	parts.Go(func() { cancel(l.poll(ctx, w)) })
	parts.Go(func() { cancel(l.reportAll(ctx, w)) })
	parts.Wait()
	return context.Cause(ctx)
}

// poll asks for what changed, again and again.
func (l *link) poll(ctx context.Context, w api.Welcome) error {
	asked := false // for a lease, with the assignment that is in force
	for first := true; ; first = false {
		for l.agent.removed() != nil { // nothing can be taken
			if err := backoff.Sleep(ctx, pollWait); err != nil {
				return err
			}
		}
		at := l.assigned.position()
		if at.Database != w.Database {
			at.Rev = 0
		}
		l.mu.Lock()
		cursor := l.ops
		l.mu.Unlock()
		waits, sent := l.pollWaits(first, asked), l.lease.now()
		one, cancel := context.WithTimeout(ctx, pollWait+10*time.Second)
		got, err := l.central.Poll(one, l.name, api.Poll{
			Session: w.Session, Database: at.Database, Rev: at.Rev, Ops: cursor, Seq: l.clock.Now(time.Now()), Wait: waits,
			AppliedRev: at.Rev, Unreleased: l.agent.holdsBack(), Lease: true,
		})
		cancel()
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if err := l.agent.apply(got, w.Database); err != nil {
			if api.CodeOf(err) != "" || ctx.Err() != nil {
				return err
			}
			// The journal took something not: central gives it again. What is told of meanwhile
			// is told in this session.
			l.logger.Error("cannot take what central gave", "err", err)
			if err := backoff.Sleep(ctx, journalPause); err != nil {
				return err
			}
			l.inTouch()
			continue
		}
		asked = l.assigned.position() == at
		l.takeLease(sent, got)
		l.inTouch()
	}
}

// apply takes an assignment: nodes first, then requests in the order of their
// sequences, then cancellations. The cursor moves only past what is durable.
func (a *Agent) apply(got api.Assignment, db api.Database) error {
	others, domains, leased := a.otherBMC(got.Nodes), a.assigned.settings().Domains, a.assigned.leasedOf(a.assigned.names())
	if got.Rack != nil && got.Rack.Pause.Active(time.Now()) {
		a.monitor.Configure(*got.Rack) // before it sees what is desired now
	}
	changed, gone, err := a.assigned.apply(got, db)
	if err != nil {
		return err
	}
	a.leaveBMCs(others)
	a.leave(slices.DeleteFunc(leased, func(name string) bool { return !slices.Contains(gone, name) }), cancelRecord{
		By: "central", Reason: "another agent has the node now", Moved: true,
	})
	a.followCentral(got.Seq)
	a.noteKept()
	if got.Rack != nil {
		if now := a.assigned.settings().Domains; !slices.Equal(now, domains) {
			a.limiter.SetLimits(now)
		}
		a.monitor.Configure(a.assigned.settings())
		a.heedAcks(a.assigned.settings().Acks)
	}
	a.assignmentChanged(changed, gone)
	if got.Full {
		a.settle(doubt{Assign: true})
	}
	for _, f := range got.Forced {
		if slices.Contains(gone, f.Node) {
			a.logger.Warn("the node was given to another agent while this one was taken for dead", "node", f.Node, "by", f.By)
		}
	}
	if err := a.takeOps(got.Ops, got.Handed); err != nil {
		return err
	}
	for _, c := range got.Cancels {
		if _, err := a.Cancel(c); err != nil {
			if api.CodeOf(err) == "" {
				return err // the journal did not take it: central sends it again
			}
			a.logger.Info("cancel had no effect", "op", c.ID, "reason", err)
			a.outbox.again(c.ID)
		}
	}
	a.link.mu.Lock()
	a.link.ops = got.OpsCursor
	a.link.mu.Unlock()
	a.tester.take(got.Tests)
	if len(got.Explain) > 0 {
		a.link.toTell.explains(got.Explain)
		a.tellRack()
	}
	a.readings.await(got.Reads)
	a.prober.hurry(got.Reads)
	a.poller.readSoon(append(changed, got.Reads...))
	return nil
}

// assignmentChanged has everything follow nodes that changed and nodes that are gone.
func (a *Agent) assignmentChanged(changed, gone []string) {
	some := len(changed)+len(gone) > 0
	a.leave(gone, cancelRecord{By: "central", Reason: "the node is no longer assigned to agent " + a.cfg.Name})
	if some {
		a.link.toTell.holdsAgain(changed)
		a.bmcsChanged(append(slices.Clone(changed), gone...))
		a.follow(a.assigned.newest(), "a hold", time.Now())
		a.desiresChanged(append(slices.Clone(changed), gone...))
		a.domainsChanged(changed)
	}
	a.heeds()
	for _, node := range gone {
		a.readings.forget(node)
	}
	if some {
		a.prober.forgetRefused()
		a.gossip.changed()
	}
}

// takeOps submits requests: those of one node in their order.
func (a *Agent) takeOps(ops []power.Op, handed []string) error {
	for _, id := range handed {
		a.handed.Store(id, true)
	}
	defer a.handed.Clear() // polls are taken one after the other
	byNode := map[string][]power.Op{}
	for _, op := range ops {
		byNode[op.Node] = append(byNode[op.Node], op)
	}
	return sideBySide(byNode, a.takeNodeOps)
}

// sideBySide takes the requests of all nodes at the same time, so that their journal records
// share flushes. It returns the error of one that was not taken.
func sideBySide[T any](byNode map[string][]T, take func([]T) error) error {
	errs := make(chan error, len(byNode))
	var wg sync.WaitGroup
	for _, requests := range byNode {
		wg.Go(func() { errs <- take(requests) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) takeNodeOps(ops []power.Op) error {
	for _, op := range ops {
		_, before := a.outbox.find(op.ID)
		r, err := a.Submit(op)
		switch {
		case api.CodeOf(err) == api.CodeBadRequest:
			why := power.ReasonUnsupported
			if a.usedOtherwise(op) != nil {
				why = power.ReasonIDUsed
			}
			a.outbox.put(refusal(op, why, err.Error()))
		case errors.Is(err, journal.ErrTooLarge):
			a.outbox.put(refusal(op, power.ReasonUnsupported, err.Error())) // it will not get smaller
		case err != nil:
			return err // the journal takes nothing now: central keeps it and sends it again
		default:
			a.tellOf(op.ID, before, r)
		}
	}
	return nil
}

// tellOf has central told of a request that it sent. before: it had been sent already, and
// central may have lost what it was told.
func (a *Agent) tellOf(id string, before bool, r api.OpReport) {
	_, now := a.outbox.find(id)
	switch {
	case now && !before: // on its way since it was accepted
	case !a.outbox.again(id):
		a.outbox.put(r) // refused, or known from the journal only
	}
}

// reportAll sends what central has not been told, as it comes. What comes while a report is
// under way goes with the next one.
func (l *link) reportAll(ctx context.Context, w api.Welcome) error {
	for {
		ops, heeded := l.outbox.take(maxReportOps), *l.heeded.Load() // before the readings: they are of then, or later
		readings := l.readings.take(maxReportRead)
		l.agent.locate(readings)
		rack := l.rackNews()
		if len(ops) == 0 && len(readings) == 0 && rack.none() {
			if err := l.awaitNews(ctx); err != nil {
				return err
			}
			continue
		}
		err := l.deliver(news{ops, readings, rack}, func(n news) error { return l.report(ctx, w, heeded, n.ops, n.readings, n.rack) })
		if err != nil {
			l.readings.untold(readings)
			l.toTell.untold(rack)
			return err
		}
		if len(ops) < maxReportOps {
			l.allDelivered()
		}
	}
}

// awaitNews waits until there is something to report. What nobody waits for gathers for a while,
// readings that found all as it was for longer: there is one a second and rack at rest.
func (l *link) awaitNews(ctx context.Context) error {
	words, readings := l.outbox.bell, l.readings.bell
	var gathered, calm <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-words.now:
			return nil
		case <-readings.now:
			return nil
		case <-l.rack:
			return nil
		case <-gathered:
			return nil
		case <-calm:
			return nil
		case <-l.readings.calm:
			if calm == nil {
				timer := time.NewTimer(gatherCalm)
				defer timer.Stop()
				calm = timer.C
			}
			continue
		case <-words.later:
		case <-readings.later:
		}
		if gathered == nil { // with the calm ones, which come no later
			timer := time.NewTimer(gatherFor)
			defer timer.Stop()
			gathered = timer.C
		}
	}
}

// bell tells the link that there is something to report.
type bell struct{ now, later chan struct{} } // each holds a token

func newBell() bell { return bell{make(chan struct{}, 1), make(chan struct{}, 1)} }

// ring is for news; now: somebody waits for them.
func (b bell) ring(now bool) {
	if now {
		poke(b.now)
	} else {
		poke(b.later)
	}
}

// waitOr waits for d or until news or more.
func waitOr(ctx context.Context, d time.Duration, news, more <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	case <-news:
	case <-more:
	}
	return nil
}

func (l *link) report(ctx context.Context, w api.Welcome, at syncRecord, ops []api.OpReport, readings []api.NodeReading,
	rack rackWord,
) error {
	one, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if at.Database != w.Database {
		at.Rev = 0
	}
	answer, err := l.central.Report(one, l.name, api.Report{
		Session: w.Session, JournalID: l.log.ID(), Epoch: l.log.Epoch(), LSN: l.log.LSN(),
		Ops: ops, Readings: readings, Rev: at.Rev, Seq: l.clock.Now(time.Now()), Unreleased: l.agent.holdsBack(),
		Holds: rack.holds, Rack: rack.state, Explained: rack.explained, Tested: rack.tested,
	})
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	l.agent.followCentral(answer.Seq)
	if err := l.agent.heedEnds(answer.Ended); err != nil {
		return err
	}
	if !l.agent.acknowledged(ops, ack{w.Database, answer.Rev}) {
		return backoff.Sleep(ctx, journalPause)
	}
	return nil
}

// ack is a database that has acknowledged something, and its revision then.
type ack struct {
	api.Database
	Rev int64 `json:"rev,omitempty"`
}

// journalPause is how long is waited after the journal took nothing.
const journalPause = time.Second

// acknowledged takes the ends that central has out of the journal. It reports false
// when some stay for now: they are reported once more.
func (a *Agent) acknowledged(ops []api.OpReport, by ack) bool {
	a.link.heardRev(by.Rev)
	ids := map[string][]string{}
	var stay []api.OpReport
	ended := a.outbox.acked(ops, time.Now())
	for _, r := range ended {
		switch {
		case r.Verdict == power.VerdictRefuse:
		case a.lane(r.Op.Node).owes(r.Op.ID):
			stay = append(stay, r)
		default:
			ids[r.Op.Node] = append(ids[r.Op.Node], r.Op.ID)
		}
	}
	if err := a.reported(ids, by); err != nil {
		a.logger.Error("cannot take ended operations out of the journal", "err", err)
		stay = ended
	}
	a.outbox.unack(stay)
	return len(stay) == 0
}

// reportToNobody takes the place of central where none is configured: ends need no
// acknowledgement then.
func (a *Agent) reportToNobody(ctx context.Context) {
	for {
		news, again := a.outbox.changed(), time.Minute
		if !a.acknowledged(a.outbox.take(maxReportOps), ack{}) {
			news, again = nil, journalPause
		}
		if waitOr(ctx, again, news, nil) != nil {
			return
		}
	}
}

// rackWord is what a report says beside operations and readings.
type rackWord struct {
	state     *api.RackState
	holds     []api.NodeHold
	explained []api.Explanation
	tested    []api.NodeTest
}

func (w rackWord) none() bool {
	return w.state == nil && len(w.holds) == 0 && len(w.explained) == 0 && len(w.tested) == 0
}

// toTell is what central has not been told of the rack as a whole.
type toTell struct {
	mu      lock.Mutex[lock.News]
	told    *api.RackState       // nil: nothing in this session
	holds   map[string]power.Seq // told in this session
	explain map[string]bool      // nodes that central wants explained
	tested  []api.NodeTest
}

// begin starts a session: all is told again.
func (t *toTell) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told, t.holds = nil, map[string]power.Seq{}
}

// holdsAgain has the holds of nodes told once more: central may not have had the nodes
// when it was told.
func (t *toTell) holdsAgain(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		delete(t.holds, name)
	}
}

func (t *toTell) explains(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.explain == nil {
		t.explain = map[string]bool{}
	}
	for _, name := range names {
		t.explain[name] = true
	}
}

// tests notes what came of tests.
func (t *toTell) tests(results ...api.NodeTest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tested = append(t.tested, results...)
}

// untold takes back what rackNews gave: central did not get it.
func (t *toTell) untold(w rackWord) {
	t.begin()
	for _, e := range w.explained {
		t.explains([]string{e.Node})
	}
	t.tests(w.tested...)
}

// tellRack has central told what is new of the rack.
func (a *Agent) tellRack() { poke(a.rack) }

// rackNews is what central has not been told, and counts as told from now on.
func (l *link) rackNews() rackWord {
	var w rackWord
	state, holds, now := l.view.rack(), l.assigned.unconfirmed(), time.Now()
	t := &l.toTell
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == nil || !reflect.DeepEqual(state, *t.told) {
		t.told, w.state = &state, &state
	}
	for _, h := range holds {
		if t.holds[h.Node] != h.Hold.Seq {
			t.holds[h.Node] = h.Hold.Seq
			w.holds = append(w.holds, h)
		}
	}
	w.tested, t.tested = t.tested, nil
	for name := range t.explain {
		delete(t.explain, name)
		if e, ok := l.view.explain(name, now); ok {
			w.explained = append(w.explained, e)
		}
	}
	return w
}
