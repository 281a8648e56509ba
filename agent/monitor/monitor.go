// Package monitor compares what is desired of the nodes of a rack with what was read, and asks
// for corrections, unless the fleet brake holds.
package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/robfig/cron/v3"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/internal/lock"
	"rackpower/power"
	"rackpower/power/cronexpr"
)

// DefaultSchedule is how often every node is read and compared.
const DefaultSchedule = "@every 60s"

// Off as a schedule means that nothing is read or enforced by itself.
const Off = api.MonitorOff

// schedule is a cron schedule; nil: never.
type schedule = cron.Schedule

// CheckSchedule says what is wrong with a schedule.
func CheckSchedule(text string) error {
	_, err := parseSchedule(text)
	return err
}

func parseSchedule(text string) (schedule, error) {
	switch text {
	case Off:
		return nil, nil
	case "":
		text = DefaultSchedule
	}
	s, err := cronexpr.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("monitor schedule: %w; or off", err)
	}
	return s, nil
}

const (
	// maxSpread bounds the time over which the readings of one round are spread.
	maxSpread = 20 * time.Second
	// actFresh is how old a reading may be that is acted on.
	actFresh = 15 * time.Second
	// askAgain is how long a node is not read once more for another one's sake.
	askAgain = 10 * time.Second
)

// Items of the agenda beside those that a decision waits for.
const (
	whyHoldEnds   power.Reason = "hold-ends"
	whyEarlyLook  power.Reason = "early-look" // tells when it fell back, if it did
	whySecondLook power.Reason = "second-look"
	whySaveAgain  power.Reason = "save-again"
)

// Monitor compares what is desired with what was read, and asks for corrections
// in the same way as everybody. It reads on its schedule, when its agenda says
// so, and whenever somebody asks.
//
//	readings, ends of operations, changes of desire
//	      |
//	      v            a moment later, over all nodes
//	  keep: one pass = remember -> judge (brake) -> plan -> journal -> submit
//	      |
//	      +-> agenda: what must be read again, and when
//
// Readings run beside the passes, so a BMC that does not answer holds none up.
type Monitor struct {
	host    Host
	name    string // of the rack
	own     string // the agent's own schedule
	t       Timing
	started time.Time
	logger  *slog.Logger

	poked   chan struct{} // a token: there is something to compare
	calm    chan struct{} // a token: there is, and nothing changes by it
	retimed chan struct{} // a token: the schedule changed
	resting atomic.Bool   // the brake holds
	off     atomic.Bool   // central turned it off
	pause   atomic.Pointer[api.Pause]
	times   atomic.Pointer[timetable]
	shown   atomic.Pointer[standing]

	ends struct { // operations that ended since the last pass
		lock.Mutex[lock.Ends]
		list []opEnd
	}

	// mu guards all below. It is held while the journals flush (by save, and by a lane that
	// is asked): who only looks goes by times and shown.
	mu       lock.Mutex[lock.Monitor]
	nodes    map[string]*nodeWatch
	brake    *api.Brake
	agenda   agenda
	settings api.RackSettings
	retries  []string // nodes whose BMCs are to be tried again
	rested   bool     // in the last pass
}

// timetable is when nodes are read and compared.
type timetable struct {
	schedule schedule
	text     string // of the schedule
	ignored  string // why central's schedule is not in force
}

// standing is how the monitor stood when its lock was last released. It is never changed.
type standing struct {
	brake  *api.Brake
	faults int
	// tense says that a reading matters to other nodes: the brake holds, or one waits for them.
	tense bool
	nodes map[string]nodeStanding
}

type nodeStanding struct {
	decided []api.Decision
	since   time.Time // when it became desired as it is
	next    time.Time // when it is on the agenda; zero: it is not
	// settled is the state of which another reading changes nothing; "": each may.
	settled power.State
}

// nodeWatch is a node as the monitor keeps it.
type nodeWatch struct {
	mem, kept   Memory // kept is what the log has of it
	run         run
	tried       time.Time   // the newest reading that was taken
	state       power.State // that it found; "": none
	cameBack    bool
	due         bool      // there is something that was not decided on
	othersSince time.Time // as in watched
	failedAt    time.Time // when a correction last ended without success
	asked       time.Time // when it was last to be read for another one's sake
	shown       api.NodeMonitor
	last        decision
	decided     []api.Decision
}

type opEnd struct {
	op      power.Op
	end     power.End
	started bool
}

// Config is what a monitor goes by.
type Config struct {
	Name     string // of the rack
	Schedule string // of the readings, where central has none
	Timing   Timing
	Logger   *slog.Logger
}

// New makes a monitor that remembers nothing; see Load.
func New(host Host, cfg Config) *Monitor {
	m := &Monitor{
		host: host, name: cfg.Name, own: cfg.Schedule, logger: cfg.Logger, t: cfg.Timing, started: time.Now(),
		poked: make(chan struct{}, 1), calm: make(chan struct{}, 1), retimed: make(chan struct{}, 1), nodes: map[string]*nodeWatch{},
	}
	m.times.Store(&timetable{})
	m.shown.Store(&standing{})
	return m
}

// unlock shows what changed and releases the lock.
func (m *Monitor) unlock() {
	next := m.agenda.firsts()
	s := &standing{brake: m.brake, faults: m.faults(), tense: m.brake != nil, nodes: make(map[string]nodeStanding, len(m.nodes))}
	for name, w := range m.nodes {
		s.nodes[name] = nodeStanding{decided: w.decided, since: w.mem.Since, next: next[name], settled: w.settled()}
		s.tense = s.tense || w.last.Reason == power.ReasonOthers
	}
	m.shown.Store(s)
	m.mu.Unlock()
}

// Load takes what was kept over the restart.
func (m *Monitor) Load(memories map[string]Memory, brake *api.Brake, s api.RackSettings) {
	m.mu.Lock()
	for name, mem := range memories {
		w := m.watch(name)
		w.mem, w.kept = mem, mem
		m.show(name, mem.view()) // the first report says no less than the last one did
		if mem.Left != "" {
			m.agenda.set(name, whySecondLook, mem.LeftAt.Add(m.t.SecondLook))
		}
	}
	m.setBrake(brake)
	m.configure(s)
	m.desiresChanged()
	m.unlock()
}

func (m *Monitor) watch(name string) *nodeWatch {
	w := m.nodes[name]
	if w == nil {
		w = &nodeWatch{}
		m.nodes[name] = w
	}
	return w
}

// Configure takes the settings of the rack.
func (m *Monitor) Configure(s api.RackSettings) {
	m.mu.Lock()
	defer m.unlock()
	m.configure(s)
}

// configure is Configure. The caller holds mu.
func (m *Monitor) configure(s api.RackSettings) {
	if m.times.Load().text != "" && reflect.DeepEqual(s, m.settings) {
		return
	}
	rested := m.settings.Pause.Active(time.Now())
	m.settings = s
	m.letGoAs(nil) // at once: it was decided for what is desired now
	m.pause.Store(s.Pause)
	if s.Pause != nil {
		m.agenda.set("", power.ReasonPaused, s.Pause.Until)
	} else if rested {
		m.agenda.set("", power.ReasonPaused, time.Now())
	}
	m.reschedule(s.Monitor)
	m.redecide()
	poke(m.poked)
}

// reschedule puts central's schedule in force, or the agent's own where that is
// empty. One that cannot be read is ignored, loudly.
func (m *Monitor) reschedule(text string) {
	own, ownErr := parseSchedule(m.own)
	if ownErr != nil {
		own = nil
	}
	s, now, ignored := own, m.own, ""
	if text != "" {
		theirs, err := parseSchedule(text)
		if err != nil {
			ignored = err.Error()
			m.logger.Error("the rack's monitor schedule is ignored", "err", err, "in force", now)
		} else {
			s, now = theirs, text
		}
	}
	changed := now != m.times.Load().text
	m.times.Store(&timetable{s, now, ignored})
	m.off.Store(text == Off)
	if changed {
		poke(m.retimed)
	}
}

// poke leaves a token.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run reads and compares until ctx ends.
func (m *Monitor) Run(ctx context.Context) {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { m.keep(ctx) })
	runner := cron.New()
	runner.Start()
	defer func() { <-runner.Stop().Done() }()
	job := cron.NewChain(cron.SkipIfStillRunning(cron.DiscardLogger)).Then(cron.FuncJob(func() {
		m.host.ReadAll(ctx, m.spread())
	}))
	var entry cron.EntryID
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.retimed:
			runner.Remove(entry)
			if s := m.timetable(); s != nil {
				entry = runner.Schedule(s, job)
				parts.Go(func() { m.host.ReadAll(ctx, 0) })
			}
		}
	}
}

// Scheduled reports whether nodes are read and enforced at all.
func (m *Monitor) Scheduled() bool { return m.timetable() != nil }

func (m *Monitor) timetable() schedule {
	return m.times.Load().schedule
}

// spread is the time over which the next round's readings are spread: at most
// half the time to the round after.
func (m *Monitor) spread() time.Duration {
	s := m.timetable()
	if s == nil {
		return 0
	}
	now := time.Now()
	return min(s.Next(now).Sub(now)/2, maxSpread)
}

// Poke says that there is something to compare.
func (m *Monitor) Poke() { poke(m.poked) }

// Read says that a node was read. Readings that show nothing new, nearly all of a round, are
// compared together, up to Timing.Calm later: a pass looks at all nodes.
func (m *Monitor) Read(node string) {
	shown := m.shown.Load()
	if r := m.host.Reading(node); shown.tense || r.Reach != power.ReachOK || r.State != shown.nodes[node].settled {
		poke(m.poked)
		return
	}
	poke(m.calm)
}

// settled is the state in which the node was read, if it is left as it is and nothing is
// remembered that another such reading would change.
func (w *nodeWatch) settled() power.State {
	mem, last := w.mem, w.last.Reason
	if w.due || mem.Left != "" || mem.Fault != "" || mem.Failures > 0 || mem.Lost > 0 || mem.Confirmed || mem.Released {
		return ""
	}
	if last == power.ReasonAlready && mem.Matched || last == power.ReasonHandsOff && !mem.Desired.Enforces() && mem.Desired.Expected == "" {
		return w.state
	}
	return ""
}

// Ended says that an operation ended. Its lane's lock is held.
func (m *Monitor) Ended(op power.Op, end power.End, started bool) {
	m.ends.Lock()
	defer m.ends.Unlock()
	m.ends.list = append(m.ends.list, opEnd{op, end, started})
	poke(m.poked)
}

// Rests reports whether the monitor corrects nothing at all for now.
func (m *Monitor) Rests(now time.Time) bool {
	return m.resting.Load() || m.off.Load() || m.pause.Load().Active(now)
}

// DesiresChanged notes, before anything is read, what is desired from now on.
func (m *Monitor) DesiresChanged() {
	m.mu.Lock()
	defer m.unlock()
	m.desiresChanged()
}

// desiresChanged is DesiresChanged. The caller holds mu.
func (m *Monitor) desiresChanged() {
	now := time.Now()
	m.refresh(m.host.Nodes(now), now)
	poke(m.poked)
}

// refresh brings the memories up to what is desired now. It returns the nodes of which
// that is something new.
func (m *Monitor) refresh(nodes []Node, now time.Time) (changed []string) {
	for _, n := range nodes {
		w := m.watch(n.Name)
		w.mem.notAfter(now, m.t)
		source, confirmed := n.Source(w.mem.Source)
		if w.mem.want(n.Desired, source, confirmed, now) {
			w.last = decision{Node: n.Name, Reason: power.ReasonUnread, Message: power.ReasonUnread.Text()}
			w.run, w.othersSince, w.cameBack = run{}, time.Time{}, false
			m.show(n.Name, w.mem.view()) // what was told before was about another desire
			changed = append(changed, n.Name)
		}
		if n.Retry > w.mem.Retry { // lower: central was restored, and nobody asked for a retry
			m.retry(n.Name, w)
			w.mem.Retry = n.Retry
		}
		m.agenda.set(n.Name, whyHoldEnds, n.HoldUntil)
	}
	return changed
}

// RetryAll has nodes tried again because somebody at the rack asked.
func (m *Monitor) RetryAll(names []string) {
	m.mu.Lock()
	defer m.unlock()
	for _, name := range names {
		m.retry(name, m.watch(name))
	}
	poke(m.poked)
}

// retry forgets that a node is in fault and its BMC left alone.
func (m *Monitor) retry(name string, w *nodeWatch) {
	w.mem.mended()
	w.due = true
	m.retries = append(m.retries, name)
}

// keep compares, a moment after there is something to compare and whenever the
// agenda says so, until ctx ends. It is the only one that decides.
func (m *Monitor) keep(ctx context.Context) {
	took := time.Duration(0)  // a large rack is compared less often
	var calm <-chan time.Time // when calm readings are compared; nil: there are none
	for {
		timer := time.NewTimer(m.untilDue())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-m.poked:
			timer.Stop()
			if backoff.Sleep(ctx, max(m.t.Moment, 10*took)) != nil {
				return
			}
		case <-m.calm:
			timer.Stop()
			if calm == nil {
				calm = time.After(m.t.Calm)
			}
			continue
		case <-calm:
			timer.Stop()
		case <-timer.C:
		}
		calm = nil
		select { // what is said from here on is of readings that the pass may miss
		case <-m.calm:
		default:
		}
		began := time.Now()
		m.Pass(began)
		took = min(time.Since(began), time.Second/10)
	}
}

func (m *Monitor) untilDue() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.agenda.next()
	if !ok {
		return time.Hour
	}
	return max(time.Until(at), 0)
}

// Pass looks at all nodes, judges them together, decides on those that something is
// new about, and asks for what must be done once all that is remembered is durable.
func (m *Monitor) Pass(now time.Time) {
	m.mu.Lock()
	nodes := m.host.Nodes(now)
	looks := append(m.fire(now), m.refresh(nodes, now)...)
	m.forgetGone(nodes)
	all := m.observe(nodes, now)
	round := planRound{
		Now: now, Fresh: actFresh, Timing: m.t, Off: m.timetable() == nil, Pause: m.settings.Pause,
		Tally: judge(now, m.bounds(), all), Started: m.started,
	}
	looks = append(looks, m.applyBrake(&round, all)...)
	todo, more := m.decide(round, all)
	looks = append(looks, more...)
	if err := m.save(); err != nil {
		m.logger.Error("the monitor corrects nothing for now", "err", err)
		m.again(todo, now)
		todo = nil
	}
	held := m.host.Holds(now)
	if held != "" {
		m.again(todo, now)
		todo = nil
	}
	m.publish(all, held, now)
	retries := m.retries
	m.retries = nil
	began := !m.rested && m.Rests(now)
	m.rested = m.Rests(now)
	m.unlock()
	if began { // what it asked for blocks nobody
		m.host.DropUnwanted(nodes)
	}
	for _, name := range retries {
		m.host.RetryBMC(name)
	}
	slices.Sort(looks)
	m.host.ReadSoon(slices.Compact(looks))
	for _, d := range todo {
		m.submit(d)
	}
	m.host.Passed()
}

// again has decided what could not be made durable, in a while.
func (m *Monitor) again(todo []decision, now time.Time) {
	for _, d := range todo {
		m.nodes[d.Node].due = true
	}
	m.agenda.set("", whySaveAgain, now.Add(askAgain))
}

// bounds are those of the brake.
func (m *Monitor) bounds() brakeBounds {
	b := brakeBounds{Percent: m.settings.BrakePercent, Above: m.settings.BrakeAbove, Window: m.t.BrakeWindow}
	if b.Percent == 0 {
		b.Percent = power.DefaultBrakePercent
	}
	if b.Above == 0 {
		b.Above = power.DefaultBrakeAbove
	}
	return b
}

func (m *Monitor) forgetGone(nodes []Node) {
	if len(m.nodes) == len(nodes) {
		return
	}
	there := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		there[n.Name] = true
	}
	for name := range m.nodes {
		if !there[name] {
			delete(m.nodes, name)
		}
	}
}

// fire takes what is due off the agenda and returns the nodes to read.
func (m *Monitor) fire(now time.Time) []string {
	var looks []string
	for _, key := range m.agenda.due(now) {
		if key.Node == "" {
			looks = append(looks, m.waiting(key.Why)...)
			continue
		}
		w := m.nodes[key.Node]
		if w == nil {
			continue
		}
		if key.Why == power.ReasonOthers {
			w.due = true
		} else {
			looks = append(looks, key.Node)
		}
	}
	return looks
}

// waiting lists the nodes about which nothing is done for a reason.
func (m *Monitor) waiting(why power.Reason) []string {
	var names []string
	for name, w := range m.nodes {
		if w.last.Reason == why {
			names = append(names, name)
		}
	}
	return names
}

// observe takes in what happened to the nodes since the last pass.
func (m *Monitor) observe(nodes []Node, now time.Time) []watched {
	all := make([]watched, len(nodes))
	for i, n := range nodes { // whether they are busy first: an end that comes meanwhile is then taken
		f := m.host.Facts(n.Name, m.nodes[n.Name].mem.Desired.State())
		all[i] = watched{
			Node: n.Name, From: n.From, Protected: n.Protected, Busy: f.Busy, Elsewhere: f.Elsewhere, Cutting: f.Cutting, NoLease: f.NoLease,
			Changed: f.Changed,
		}
	}
	m.takeEnds()
	for i := range all {
		n, w := &all[i], m.nodes[all[i].Node]
		n.Reading = m.host.Reading(n.Node)
		if !n.Reading.TriedAt.Equal(w.tried) {
			w.tried, w.due, w.state = n.Reading.TriedAt, true, ""
			if n.Reading.Reach == power.ReachOK {
				w.state = n.Reading.State
			}
			w.run.saw(n.Reading, w.mem.Since)
			fell := w.mem.RevertedAt
			if w.mem.saw(n.Reading, n.Busy, n.Elsewhere, m.t) {
				w.cameBack = true
			}
			if !w.mem.RevertedAt.Equal(fell) {
				m.logger.Warn("a success did not last", "node", n.Node, "op", w.mem.RevertedOp, "message", w.mem.Reverted)
			}
			if n.Reading.State == w.mem.Desired.State() {
				w.cameBack = false
			}
		}
		if w.failedAt.After(n.Changed) {
			n.Changed = w.failedAt
		}
		n.Memory, n.Run, n.CameBack, n.OthersSince = w.mem, w.run, w.cameBack, w.othersSince
	}
	return all
}

func (m *Monitor) takeEnds() {
	m.ends.Lock()
	ends := m.ends.list
	m.ends.list = nil
	m.ends.Unlock()
	for _, e := range ends {
		w := m.nodes[e.op.Node]
		if w == nil {
			continue
		}
		w.mem.ended(e.op, e.end, e.started, m.t)
		if e.op.Origin == power.FromMonitor && e.end.Outcome != power.Succeeded {
			w.failedAt = e.end.At
		}
		w.due = true
		if w.mem.LeftOp == e.op.ID {
			m.agenda.set(e.op.Node, whyEarlyLook, w.mem.LeftAt.Add(m.t.SecondLook/6))
			m.agenda.set(e.op.Node, whySecondLook, w.mem.LeftAt.Add(m.t.SecondLook))
		}
	}
}

// applyBrake brings the brake up to the count. It returns nodes to read: those that
// waited for a brake that let go.
func (m *Monitor) applyBrake(r *planRound, all []watched) []string {
	defer func() { r.Brake = m.brake }()
	if m.letGoAs(all) {
		r.Tally = judge(r.Now, m.bounds(), all)
	}
	if m.brake == nil && (r.Off || r.Pause.Active(r.Now)) {
		return nil
	}
	before := m.brake
	after := r.Tally.after(before, all, r.Now)
	if SameBrake(before, after) {
		return nil
	}
	m.setBrake(after)
	switch {
	case before == nil:
		m.logger.Error("the fleet brake holds", "rack", m.name, "reason", power.ReasonBrake, "kind", after.Kind, "nodes", after.Nodes,
			"of", after.Total, "message", after.Message)
		m.redecide()
	case after == nil:
		m.logger.Warn("the fleet brake is over: its nodes match their desired state", "rack", m.name)
		return m.waiting(power.ReasonBrake)
	}
	return nil
}

// redecide has all that waits looked at in the light of a brake or of other settings.
func (m *Monitor) redecide() {
	for _, w := range m.nodes {
		w.due = w.due || w.last.Action == "" && w.last.Reason != power.ReasonAlready
	}
}

func (m *Monitor) setBrake(b *api.Brake) {
	m.brake = b
	m.resting.Store(b != nil)
}

// letGoAs releases the brake if the settings say so of it. all is as for letGo.
func (m *Monitor) letGoAs(all []watched) bool {
	s := m.settings
	if m.brake == nil || m.brake.ID != s.ReleaseBrake || s.ReleaseNodes > 0 && len(m.brake.Nodes) > s.ReleaseNodes {
		return false
	}
	m.letGo(s.ReleasedBy, all)
	return true
}

// letGo releases the brake: its nodes are not counted again until they were seen as
// desired. all, if any, is brought up to that too.
func (m *Monitor) letGo(by string, all []watched) {
	m.logger.Warn("the fleet brake was released", "rack", m.name, "by", by, "nodes", m.brake.Nodes)
	for _, name := range m.brake.Nodes {
		if w := m.nodes[name]; w != nil {
			w.mem.Released = true
		}
	}
	for i := range all {
		all[i].Memory.Released = m.nodes[all[i].Node].mem.Released
	}
	m.setBrake(nil)
	m.redecide()
}

// Release lets the brake go because somebody at the rack asked. When it returns
// without error that is durable.
func (m *Monitor) Release(in api.ReleaseBrake) (*api.Brake, error) {
	m.mu.Lock()
	defer m.unlock()
	was := m.brake
	if was == nil {
		return nil, nil
	}
	if err := in.Grown(m.name, *was); err != nil {
		return nil, err
	}
	m.letGo(in.AskedBy, nil)
	if err := m.save(); err != nil {
		m.setBrake(was)
		return nil, err
	}
	poke(m.poked)
	return was, nil
}

// decide plans for the nodes that something is new about, or that wait for others. It
// returns what must be done and whom to read.
func (m *Monitor) decide(r planRound, all []watched) (todo []decision, looks []string) {
	var asked []watched
	for i, n := range all {
		if w := m.nodes[n.Node]; w.due || w.last.Reason == power.ReasonOthers {
			w.due = false
			all[i].BreakerOpen, all[i].SharedWith = m.host.LeftAlone(n.Node)
			asked = append(asked, all[i])
		}
	}
	others := time.Time{} // up to when the other nodes must have been read
	for i, d := range plan(r, asked) {
		n, w := asked[i], m.nodes[d.Node]
		w.note(d, r.Now)
		m.remind(d, n, r, &looks)
		switch {
		case d.Action != "":
			if d.Action == power.ActOff {
				w.mem.cuts(r.Now, r.BrakeWindow)
			}
			w.cameBack = false
			todo = append(todo, d)
		case d.Reason == power.ReasonOthers:
			if w.othersSince.IsZero() {
				w.othersSince = r.Now
			}
			if n.Memory.Matched && n.Memory.Differs.After(others) {
				others = n.Memory.Differs
			}
			continue
		case d.Reason == power.ReasonUnread:
			continue
		}
		w.othersSince = time.Time{}
	}
	return todo, append(looks, m.unreadSince(others, all, r.Now)...)
}

// remind puts on the agenda when the node must be looked at again.
func (m *Monitor) remind(d decision, n watched, r planRound, looks *[]string) {
	if w := m.nodes[d.Node]; w.last.Reason != d.Reason {
		m.agenda.set(d.Node, w.last.Reason, time.Time{})
	}
	switch {
	case d.Until.IsZero() || d.Reason == power.ReasonPaused:
	case !d.Until.After(r.Now): // at once, unless it just was
		if again := m.nodes[d.Node].asked.Add(askAgain); again.After(r.Now) {
			m.agenda.set(d.Node, d.Reason, again)
			break
		}
		m.nodes[d.Node].asked = r.Now
		*looks = append(*looks, d.Node)
	default:
		m.agenda.set(d.Node, d.Reason, d.Until)
	}
	m.nodes[d.Node].last = d
}

// unreadSince lists the nodes that may have drifted and were not looked at since.
func (m *Monitor) unreadSince(since time.Time, all []watched, now time.Time) []string {
	if since.IsZero() {
		return nil
	}
	var names []string
	for _, n := range all {
		w := m.nodes[n.Node]
		if n.Memory.Matched && !n.Busy && n.Reading.Reach == power.ReachOK && n.Reading.TriedAt.Before(since) && now.Sub(w.asked) >= askAgain {
			w.asked = now
			names = append(names, n.Node)
		}
	}
	return names
}

// save makes durable what is remembered and was not before.
func (m *Monitor) save() error {
	memories := map[string]Memory{}
	for name, w := range m.nodes {
		if mem := w.mem.kept(); mem != w.kept {
			memories[name] = mem
		}
	}
	if err := m.host.Save(memories, m.brake); err != nil {
		return err
	}
	for name, mem := range memories {
		m.nodes[name].kept = mem
	}
	return nil
}

// publish tells what the monitor makes of the nodes; held is why it corrects none.
func (m *Monitor) publish(all []watched, held string, now time.Time) {
	for _, n := range all {
		w := m.nodes[n.Node]
		view := w.mem.view()
		if n.differs(now) && !n.Busy && w.last.Action == "" && w.last.Reason != power.ReasonBusy && w.last.Reason != power.ReasonAlready {
			view.Waits, view.WaitsMessage, view.WaitsUntil = w.last.Reason, w.last.Message, w.last.Until
		} else if n.differs(now) && !n.Busy && w.last.Action != "" && held != "" {
			view.Waits, view.WaitsMessage = power.ReasonUnsure, held
		}
		switch was := w.shown.Fault; {
		case was == "" && view.Fault != "":
			m.logger.Error("node in fault", "node", n.Node, "reason", power.ReasonFault, "message", view.Fault)
		case was != "" && view.Fault == "":
			m.logger.Info("node no longer in fault", "node", n.Node)
		}
		m.show(n.Node, view)
	}
}

// show has others told what the monitor makes of a node.
func (m *Monitor) show(node string, view api.NodeMonitor) {
	m.watch(node).shown = view
	m.host.Show(node, view)
}

// State is the state of the monitor.
func (m *Monitor) State() api.RackState {
	shown, times, pause := m.shown.Load(), m.times.Load(), m.pause.Load()
	s := api.RackState{Monitor: times.text, Brake: shown.brake, Faults: shown.faults}
	if times.ignored != "" {
		s.Monitor = fmt.Sprintf("%s (central's is ignored: %s)", times.text, times.ignored)
	}
	if pause.Active(time.Now()) {
		s.Pause = pause
	}
	return s
}

func (m *Monitor) faults() (n int) {
	for _, w := range m.nodes {
		if w.mem.Fault != "" {
			n++
		}
	}
	return n
}

// submit asks for a correction.
func (m *Monitor) submit(d decision) {
	op := power.Op{
		ID: uuid.Must(uuid.NewV7()).String(), Node: d.Node, Action: d.Action, AskedBy: "monitor", Origin: power.FromMonitor,
		Reason: d.Message, Options: power.Options{IfBusy: power.Refuse},
	}
	r, err := m.host.Submit(op)
	m.logger.Info("monitor", "node", d.Node, "action", d.Action, "reason", d.Reason, "message", d.Message, "verdict", r.Verdict, "err", err)
}

// keepRuns is how many runs of equal decisions are remembered of a node.
const keepRuns = 20

// note keeps a decision for those who ask why. They hold what was there before, which
// therefore stays as it was.
func (w *nodeWatch) note(d decision, now time.Time) {
	seen := api.Decision{Action: d.Action, Reason: d.Reason, Message: d.Message, First: now, Last: now, Times: 1}
	before := w.decided
	if n := len(before); n > 0 {
		if last := before[n-1]; last.Action == d.Action && last.Reason == d.Reason && last.Message == d.Message {
			seen.First, seen.Times = last.First, last.Times+1
			before = before[:n-1]
		}
	}
	before = before[max(0, len(before)+1-keepRuns):]
	w.decided = append(slices.Clone(before), seen)
}

// Decisions are the runs of decisions that are kept of a node, since when it is desired as
// it is, and when it is read next.
func (m *Monitor) Decisions(name string, now time.Time) (decided []api.Decision, since, next time.Time) {
	n := m.shown.Load().nodes[name]
	decided, since, next = append([]api.Decision{}, n.decided...), n.since, n.next
	if s := m.timetable(); s != nil {
		if round := s.Next(now); next.IsZero() || round.Before(next) {
			next = round
		}
	}
	return decided, since, next
}
