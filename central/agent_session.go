package central

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
)

// agentSession is what is kept in memory of an agent: enough to know, without the
// database, whether a poll has anything to say. The writer's commit hooks keep
// it up to date, in the order of the commits.
type agentSession struct {
	name string

	mu      sync.Mutex
	session string
	speaks  int   // the protocol of the agent, Hello.Protocol
	greets  bool  // it has said hello since central started, so that speaks is known
	rev     int64 // of the assignment
	mark    int64 // highest cursor of a request or cancellation
	revSeen int64 // what the agent holds
	seen    time.Time
	noted   time.Time // seen, as it is stored
	polls   int       // in flight
	latest  uint64    // number of the poll that came last
	reads   map[string]*read
	asked   questions[api.Explanation]
	tests   questions[api.NodeTest]
	polled  time.Time      // when a poll last began or ended, or a hello was said
	gone    api.AgentState // what gossip says of an agent that is gone: failed or left; "": nothing
	goneAt  time.Time      // when it said so
	offset  time.Duration  // what central's clock is ahead of the agent's
	told    bool           // offset is known
	fate    fate           // of the journal, to be judged when the agent has told all ends that it keeps
	run     string         // of the client whose hello was taken last
	nth     uint64         // which of its hellos that was
	sender  string         // client of the latest report
	sent    uint64         // which of its reports that was
	news    chan struct{}  // closed and replaced when something changes

	disowned disowned
	// strayGossip is the gossip address that it named last and that central does not dial.
	strayGossip string

	polling    time.Time     // since when it has polled without a pause
	leaseFrom  time.Duration // by central's monotonic clock: another process of its name may hold a lease until then
	leaseUntil time.Time     // when the lease ends that was given last

	holder holder        // the process that has the name
	rival  *rival        // another one that wants it; nil: none
	lets   bool          // it has to let go of something
	came   chan struct{} // closed and replaced when a request of the holder comes
}

// read is a node of which somebody wants a fresh reading.
type read struct {
	since time.Time // a reading tried earlier is not fresh
	until time.Time
	sent  time.Time // zero: not yet
}

// A read or a question that was sent to the agent is sent again after so long: the
// answer to the poll may have been lost.
const resendRead = 3 * time.Second

// snapshot is what a poll compares with.
type snapshot struct {
	session   string
	rev, mark int64
	reads     []string
	asked     []string // nodes to be explained
	tests     []api.AskedTest
	again     time.Duration // until a read or a question is due that was sent before; 0: none is
	news      <-chan struct{}
	knocks    uint64 // as in holder
}

// look returns how things stand and a channel that closes when they change.
func (d *agentSession) look(now time.Time) snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := snapshot{session: d.session, rev: d.rev, mark: d.mark, news: d.news, knocks: d.holder.knocks}
	for node, r := range d.reads {
		switch {
		case now.After(r.until):
			delete(d.reads, node)
		case g.due(r.sent, now):
			g.reads = append(g.reads, node)
		}
	}
	slices.Sort(g.reads)
	g.asked = d.asked.due(&g, now)
	for _, key := range d.tests.due(&g, now) {
		q := askedTest(key)
		if q.Consumption && d.speaks < api.ProtocolCap {
			continue // an older agent would log in and test
		}
		q.ID = d.tests[key].id
		g.tests = append(g.tests, q)
	}
	return g
}

// due reports whether what was sent then must be sent (again) now, and notes when
// it will be.
func (g *snapshot) due(sent, now time.Time) bool {
	if now.Sub(sent) > resendRead {
		return true
	}
	if due := resendRead - now.Sub(sent) + time.Millisecond; g.again == 0 || due < g.again {
		g.again = due
	}
	return false
}

// sentWishes notes that what was asked for is on its way to the agent.
func (d *agentSession) sentWishes(out *api.Assignment, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked.sent(out.Explain, now)
	for _, t := range out.Tests {
		d.tests.sent([]string{testKey(t.Node, t.Other, t.Consumption)}, now)
	}
	for _, node := range out.Reads {
		if r := d.reads[node]; r != nil {
			r.sent = now
		}
	}
}

// update runs f under the lock and wakes all who wait.
func (d *agentSession) update(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.news)
	d.news = make(chan struct{})
}

func (d *agentSession) want(nodes []string, since, until time.Time) {
	d.update(func() {
		for _, node := range nodes {
			last := until
			if r := d.reads[node]; r != nil && r.until.After(last) {
				last = r.until // somebody else waits longer
			}
			d.reads[node] = &read{since: since, until: last}
		}
	})
}

// saw takes the reads back that the readings, in central's time, have answered.
func (d *agentSession) saw(all []api.NodeReading) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range all {
		if want := d.reads[r.Node]; want != nil && !r.TriedAt.Before(want.since) {
			delete(d.reads, r.Node)
		}
	}
}

// answer gives the agent's explanations to those who wait for them.
func (d *agentSession) answer(all []api.Explanation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range all {
		d.asked.answer(e.Node, e)
	}
}

// holds is the revision of the assignment that the agent named last.
func (d *agentSession) holds() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.revSeen
}

// A report may be this long on its way; what looks longer is a clock that was
// set back.
const longestWay = 10 * time.Second

// sameClock is how far an agent's clock may be from central's without being another
// one: messages take time.
const sameClock = 5 * time.Second

// farthestClock is how far off a clock may be and be believed: one that lost its time
// starts in 1970, and none says what lies outside of what can be stored.
const farthestClock = 100 * 365 * 24 * time.Hour

// clock is what the agent's clock is ahead of central's, nought where that is little.
func (d *agentSession) clock() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.offset.Abs() < sameClock {
		return 0
	}
	return -d.offset
}

// ahead is what central's clock is ahead of the agent's, learnt from a message
// that was sent at sent by that and came at now by this. The time on the way
// makes it look larger, so the smallest counts.
func (d *agentSession) ahead(sent, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := now.Sub(sent)
	if sent.IsZero() || seen.Abs() > farthestClock {
		return d.offset
	}
	if !d.told || seen < d.offset || seen > d.offset+longestWay {
		d.offset, d.told = seen, true
	}
	return d.offset
}

// overtaken reports whether a later hello of the same client was taken already,
// and if not counts this one.
func (d *agentSession) overtaken(run string, nth uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run != "" && run == d.run && nth < d.nth {
		return true
	}
	d.run, d.nth = run, nth
	return false
}

// admitted begins the time of another process that has the agent's name.
func (d *agentSession) admitted(a store.Agent, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	signs, knocks := d.holder.signs, d.holder.knocks
	d.holder = holderOf(a)
	d.holder.signs, d.holder.knocks = signs, knocks
	if d.rival != nil && d.rival.run == a.Run {
		d.rival = nil
	}
	d.signed(now)
}

// late reports whether a later report of the same client was taken already, and if
// not counts this one.
func (d *agentSession) late(run string, nth uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run != "" && run == d.sender && nth < d.sent {
		return true
	}
	d.sender, d.sent = run, nth
	return false
}

// greeted begins a session.
func (d *agentSession) greeted(session string, rev int64, in api.Hello, now time.Time) {
	d.update(func() {
		d.speaks, d.greets = in.Protocol, true
		d.session, d.rev, d.seen, d.polled, d.told = session, max(d.rev, rev), now, now, false
		for _, r := range d.reads {
			r.sent = time.Time{} // the answer that carried it may have been lost
		}
		d.asked.unsent()
		d.tests.unsent()
	})
	d.ahead(in.SentAt, now)
}

// tellsNothing reports whether the agent is of a version that cannot tell what it enforced
// before a restore.
func (d *agentSession) tellsNothing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.greets && d.session != "" && d.speaks < api.ProtocolEnforced
}

// tells notes what became of the journal of an agent that is to tell the ends that it
// keeps before that is judged; journalFirst: nothing is open.
func (d *agentSession) tells(f fate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fate = f
}

// untold is what tells noted.
func (d *agentSession) untold() fate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fate
}

// arrive notes a poll that begins; the returned function notes its end. A caller that knocks
// after the sign of life that the poll is finds another count of knocks than was returned.
func (d *agentSession) arrive(ctx context.Context, now func() time.Time, rev int64) (knocks uint64, leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := now()
	d.signed(before)
	d.latest++
	nth := d.latest
	if before.Sub(d.polled) >= leaseSilent && d.polls == 0 || d.polling.IsZero() {
		d.polling = before
	}
	d.polls, d.seen, d.polled, d.revSeen = d.polls+1, before, before, rev
	return d.holder.knocks, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		at := now()
		d.polls--
		// Another one may wait: a poll that was given up can arrive after the one that replaced it.
		if ctx.Err() != nil && d.latest == nth && d.polls == 0 {
			d.holder.closed = true // until the next request comes
		}
		if d.gone == "" || !before.Before(d.goneAt) {
			d.seen, d.polled = at, at
		} // else its end is no sign of life: gossip lost the agent while it waited
	}
}

// listens reports whether a poll waits: what there is for the agent leaves at once.
func (d *agentSession) listens() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.polls > 0 && d.gone == ""
}

func (d *agentSession) heard(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signed(now)
	d.seen = now
}

// presence says whether an agent can be counted on: whether it polls. Reports
// alone do not bring it a request.
type presence struct {
	api.AgentPresence
	revSeen int64
	notIts  int64
}

func (d *agentSession) presence(now time.Time, away time.Duration) presence {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := presence{revSeen: d.revSeen, notIts: d.disowned.count}
	p.LastSeen = d.seen.UTC()
	if d.gone != "" && d.polled.Before(d.goneAt) && d.seen.Before(d.goneAt) {
		p.State, p.Since = d.gone, d.goneAt.UTC() // a poll that waits is no sign of life
		return p
	}
	polled := d.polled
	if d.polls > 0 {
		p.LastSeen, polled = now.UTC(), now
	}
	switch {
	case !polled.IsZero() && now.Sub(polled) < away:
		p.State = api.AgentAlive
	case p.LastSeen.IsZero() && polled.IsZero():
		p.State = api.AgentNever
	default:
		p.State, p.Since = api.AgentAway, polled.UTC()
	}
	return p
}

// agentSessions holds those of all agents.
type agentSessions struct {
	mu sync.RWMutex
	m  map[string]*agentSession
}

func newAgentSessions() *agentSessions { return &agentSessions{m: map[string]*agentSession{}} }

// of returns the session of the agent, making it if it is missing.
func (s *agentSessions) of(name string) *agentSession {
	s.mu.RLock()
	d := s.m[name]
	s.mu.RUnlock()
	if d != nil {
		return d
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[name] == nil {
		s.m[name] = &agentSession{
			name: name, rev: 1, reads: map[string]*read{}, asked: questions[api.Explanation]{}, tests: questions[api.NodeTest]{},
			news: make(chan struct{}),
			came: make(chan struct{}),
		}
	}
	return s.m[name]
}

// anySeen reports whether any agent was heard.
func (s *agentSessions) anySeen() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, d := range s.m {
		d.mu.Lock()
		seen := !d.seen.IsZero()
		d.mu.Unlock()
		if seen {
			return true
		}
	}
	return false
}

// forget ends the agent's session.
func (s *agentSessions) forget(name string) {
	if d := s.known(name); d != nil {
		d.update(func() { d.session = "" })
	}
}

// all returns the sessions.
func (s *agentSessions) all() []*agentSession {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.m))
}

// known returns the session of the agent, nil if there is none.
func (s *agentSessions) known(name string) *agentSession {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[name]
}

type sighting struct {
	name string
	seen time.Time
	rev  int64
}

// heard returns the agents that were heard since the last call.
func (s *agentSessions) heard() []sighting {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []sighting
	for name, d := range s.m {
		d.mu.Lock()
		if d.seen.After(d.noted) {
			d.noted = d.seen
			all = append(all, sighting{name, d.seen, d.revSeen})
		}
		d.mu.Unlock()
	}
	return all
}

// notifier tells everybody who waits that some operation or reading changed.
type notifier struct {
	mu   sync.Mutex
	rev  int64 // of operations
	news chan struct{}
}

func newNotifier() *notifier { return &notifier{news: make(chan struct{})} }

// raise notes that operations changed, up to rev; 0: something else did.
func (n *notifier) raise(rev int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rev = max(n.rev, rev)
	close(n.news)
	n.news = make(chan struct{})
}

func (n *notifier) look() (rev int64, news <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rev, n.news
}

// moving knows which nodes wait for other agents than their own.
type moving struct {
	mu sync.Mutex
	m  map[string]string // by node: the agents
}

func (m *moving) set(node, waitsFor string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = map[string]string{}
	}
	if m.m[node] = waitsFor; waitsFor == "" {
		delete(m.m, node)
	}
}

func (m *moving) of(node string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[node]
}
