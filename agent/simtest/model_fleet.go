package simtest

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

// FleetModel holds an agent with its monitor on against the rules of desired states and
// of the monitor. It knows what was assigned and asked, which requests the journal took,
// and every exchange with a BMC; of what the agent says of itself it goes by the brake
// alone. It shares no logic with the monitor: what a status wants is a table of its own.
//
// What the rules leave open it lets pass. So a process that dies may have forgotten what
// happened within the last second (durable), and what happens at the very instant of a
// change may go by what was before it. All methods may be called concurrently.
type FleetModel struct {
	Trace
	fake  *powertest.Fake
	agent FleetAgent
	nodes map[string]*fleetNode
	ops   map[string]*fleetOp

	settings, maybeSet api.RackSettings
	setAt              time.Time // when the settings became what they are
	unsure             bool      // whether the agent has maybeSet
	born               time.Time // of the process
	dead               bool      // no process is there
	quietAt            time.Time // from then on nothing is left to do
	brake              *api.Brake
	holds              bool            // a brake does, also one that was released and that is not let go
	brakeDied          bool            // it held when the process died, and was not seen since
	brakeAt            time.Time       // when it was last seen to hold
	nextDue            time.Time       // when a node may be due
	released           map[string]bool // brakes that somebody released, by id
}

// durable is how soon what happened is remembered over a death, at the latest.
const durable = time.Second

// What the rules say, in numbers.
const (
	fleetSettle     = 60 * time.Second
	fleetDebounce   = 30 * time.Second
	fleetSecondLook = 30 * time.Second
	fleetFresh      = 15 * time.Second
	fleetWindow     = 60 * time.Second
	fleetFollows    = 45 * time.Second // what is confirmed is done within this
	fleetLasting    = 30 * time.Minute // corrections of a node within this, one in vain after the other,
	fleetMost       = 9                // are no more: three, then with pauses of 1, 2, 4, 8 and 16 min
)

// sure is what is known of something: no, perhaps, yes.
type sure int

const (
	no sure = iota
	perhaps
	yes
)

// desire is what a node's power should be: "on", "off", or "" when nobody's hand is on it.
type desire struct {
	want      power.State
	debounced bool
	noCut     bool
	expectsOn bool // shown and never enforced
}

// desires is the table of rules 5. What is not in it is hands-off.
var desires = map[power.Status]desire{
	"NEW": {want: power.Off, debounced: true}, "READY": {want: power.Off}, "BROKEN": {want: power.Off}, "FAILED_DEPLOYMENT": {want: power.Off},
	"DEPLOYING": {want: power.On, debounced: true}, "TESTING": {want: power.On, debounced: true}, "DISK_ERASING": {
		want:  power.On,
		noCut: true,
	},
	"DEPLOYED": {expectsOn: true},
}

// allows reports whether the monitor may send the command.
func (w desire) allows(cmd power.Command) bool {
	return cmd == power.PowerOn && w.want == power.On || cmd == power.PowerOff && w.want == power.Off && !w.noCut
}

// fleetInput is what a desire comes from.
type fleetInput struct {
	status    power.Status
	confirmed bool
	hold      power.Hold
	retry     power.Seq
}

func holds(h power.Hold, now time.Time) bool {
	return h.Want != "" && (h.Until.IsZero() || now.Before(h.Until))
}

func (i fleetInput) desire(now time.Time) desire {
	w := desires[i.status]
	if !holds(i.hold, now) {
		return w
	}
	held := desire{noCut: w.noCut}
	switch i.hold.Want {
	case "on":
		held.want = power.On
	case "off":
		held.want = power.Off
	}
	return held
}

// newerHold is which of two holds is valid: the later one, but a person's that ran when a
// schedule set its own.
func newerHold(central, local power.Hold) power.Hold {
	ran := local.Schedule == "" && central.Schedule != "" && holds(local, central.Since)
	if local.Seq != 0 && (ran || local.Seq > central.Seq) {
		return local
	}
	return central
}

// agrees is whether somebody confirmed the change from one input to another.
func agrees(from, to fleetInput, now time.Time, heldBefore bool) sure {
	heldNow := holds(to.hold, now)
	switch {
	case heldNow && to.hold.Confirmed, !heldNow && !heldBefore && to.confirmed && !to.hold.Confirmed && !from.hold.Confirmed:
		return yes
	case heldNow, !to.confirmed && !to.hold.Confirmed && !from.hold.Confirmed:
		return no
	default: // what the end of a hold is confirmed by is a matter of its own
		return perhaps
	}
}

type fleetNode struct {
	name   string
	shares bool // its BMC
	in     fleetInput
	maybe  *fleetInput // assigned, and it is not known whether the agent has it
	local  power.Hold  // set at the rack

	desire, before desire
	since, latest  time.Time // when that became the desire, at the earliest and at the latest
	uncounted      sure      // the brake does not count it: confirmed or released
	reachedAt      time.Time // when it was first seen as desired while nothing was under way
	matched        bool

	read       power.State // the last that was read
	readAt     time.Time
	offSeen    time.Time // when it was last read off
	readWell   bool      // the last attempt succeeded, in this process
	refused    bool      // the last log-in was refused
	run        power.State
	runFrom    time.Time
	ops        []*fleetOp // outstanding
	sending    *fleetOp   // whose command leaves next
	changed    time.Time  // when an operation ended that had touched it
	backAfter  time.Duration
	fallAfter  time.Duration
	corrected  []time.Time // when the monitor asked for something, under this desire and since nobody else touched the node
	cutAt      time.Time   // when the monitor last sent it an unconfirmed off
	fails      int         // corrections that failed in a row, at least
	tries      int         // that ended under this desire
	lastFail   time.Time
	failBefore time.Time // the one before that
	failBorn   time.Time // the process in which
	offAt      time.Time // a power-off that waits for its second look
	offMine    bool
	due        time.Time // a confirmed off is to have been asked for
	bulk       *bulkChange
	outage     *outage
	ill        map[string]bool // settings of its BMC that are not as they should be
	illTill    time.Time
}

// bulkChange is a change that too many nodes had at once, and nobody confirmed.
type bulkChange struct {
	at     time.Time
	of     int
	bound  int
	unseen int // of them, that were not read for so long that they are not known
	cut    map[string]bool
}

// outage is a number of nodes, too many, that went off or on at once.
type outage struct {
	at    time.Time
	bound int
}

type fleetOp struct {
	op          power.Op
	persons     bool
	unconfirmed bool      // an off that nobody confirmed, by all that is known
	limit       int       // on such offs when it was asked for
	born        time.Time // the process that accepted it
}

// FleetAgent is what the model asks about the agent of now.
type FleetAgent interface {
	// Dead reports whether its process is dead.
	Dead() bool
	// Brake is the brake that holds, as the agent says; nil: none does.
	Brake() *api.Brake
}

// NewFleetModel makes a model of an agent without nodes, over the BMCs of fake.
func NewFleetModel(verbose bool, fake *powertest.Fake, agent FleetAgent) *FleetModel {
	return &FleetModel{
		Trace: newTrace(verbose), fake: fake, agent: agent,
		nodes: map[string]*fleetNode{}, ops: map[string]*fleetOp{}, released: map[string]bool{},
	}
}

// AddNode adds a node; shares: its BMC is that of other nodes, too.
func (m *FleetModel) AddNode(name string, shares bool) {
	m.nodes[name] = &fleetNode{name: name, shares: shares}
}

// Processes.

// Begin takes the start of a process.
func (m *FleetModel) Begin(proc int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.born, m.dead = now, false
	m.note("process %d starts", proc)
	for _, n := range m.nodes {
		m.advance(n, now)
		if n.latest.IsZero() { // it may not have been noted before the death
			n.latest = now.Add(durable)
		}
		n.readWell, n.run, n.sending = false, "", nil
	}
}

// Died takes the end of a process.
func (m *FleetModel) Died() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.note("the process is gone")
	m.met["death"]++
	m.dead = true
	m.brakeDied = m.brake != nil
	changed, amid, waits := false, false, false
	for _, n := range m.nodes {
		m.advance(n, now)
		n.due, n.corrected = time.Time{}, nil // what was not noted yet goes with the process
		recent := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) < durable }
		if recent(n.since) {
			n.latest = time.Time{}
			changed = true
		}
		amid = amid || recent(n.readAt)
		waits = waits || n.maybe != nil
		if recent(n.reachedAt) {
			n.reachedAt, n.matched = time.Time{}, false
			n.uncounted = max(n.uncounted, min(perhaps, n.uncounted))
			if n.uncounted == no {
				n.uncounted = perhaps
			}
		}
		if recent(n.lastFail) && n.fails > 0 {
			n.fails--
			n.lastFail = n.failBefore
		}
		if recent(n.offAt) {
			n.offAt, n.offMine = time.Time{}, false
		}
		if n.fails >= 3 {
			m.met["death with a fault"]++
		}
	}
	for what, so := range map[string]bool{
		"death with a brake": m.brakeDied, "death among readings": amid, "death after a change": changed, "death within a change": waits,
	} {
		if so {
			m.met[what]++
		}
	}
}

// advance brings a node's desire up to the time now. The lock is held.
func (m *FleetModel) advance(n *fleetNode, now time.Time) {
	m.change(n, n.in, now)
	if !n.reachedAt.IsZero() && !m.dead && now.Sub(n.reachedAt) >= durable && n.uncounted != no {
		n.uncounted = no
	}
}

// change takes another input, or the same at a later time.
func (m *FleetModel) change(n *fleetNode, to fleetInput, now time.Time) {
	from := n.in
	n.in = to
	w := to.desire(now)
	if w == n.desire {
		if to != from && (to.confirmed || to.hold.Confirmed) && n.uncounted == no {
			n.uncounted, n.reachedAt = perhaps, time.Time{} // agreed to afterwards
		}
		if from.confirmed && !to.confirmed || from.hold != to.hold {
			n.uncounted = min(n.uncounted, perhaps) // what a process knew of before may go with it
		}
		return
	}
	at := now
	heldBefore := holds(from.hold, at.Add(-1))
	if to == from && !to.hold.Until.IsZero() { // its hold ended meanwhile
		at, heldBefore = to.hold.Until, true
		m.met["hold expired"]++
	}
	n.before, n.desire, n.since = n.desire, w, at
	n.latest = at.Add(durable)
	if m.dead {
		n.latest = time.Time{}
	} else if m.born.After(at) {
		n.latest = m.born.Add(durable)
	}
	n.uncounted = agrees(from, to, now, heldBefore)
	n.reachedAt, n.matched = time.Time{}, false
	if n.readAt.Before(at) { // at the same instant it counts
		n.run = ""
	}
	n.fails, n.tries, n.due, n.bulk, n.outage, n.corrected = 0, 0, time.Time{}, nil, nil, nil
}

// What is assigned.

// input is what a node's desire comes from once central has said something about it.
func (n *fleetNode) input(a api.AssignedNode) fleetInput {
	return fleetInput{status: a.Status, confirmed: a.Confirmed, hold: newerHold(a.Hold, n.local), retry: a.Retry}
}

// Assigning takes what the agent is about to be told.
func (m *FleetModel) Assigning(a api.Assignment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, as := range a.Nodes {
		in := m.nodes[as.Name].input(as)
		m.nodes[as.Name].maybe = &in
	}
	if a.Rack != nil {
		m.maybeSet, m.unsure = *a.Rack, true
	}
}

// Assigned takes what the agent has confirmed to have.
func (m *FleetModel) Assigned(a api.Assignment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var cut []*fleetNode
	now := time.Now()
	m.takeSettings(now) // a release is about what was desired before
	for _, as := range a.Nodes {
		n := m.nodes[as.Name]
		m.advance(n, now)
		was := n.desire
		if as.Retry > 0 {
			m.retry(n)
		}
		n.take(m, now)
		if n.local.Seq != 0 && n.in.hold.Seq != n.local.Seq {
			n.local = power.Hold{}
		}
		if n.desire != was && n.desire.want == power.Off && !n.desire.noCut && m.fake.BMC(n.name).Power() == power.On && n.read == power.On {
			cut = append(cut, n)
		}
	}
	m.bulkChange(cut, now)
}

// take makes what was perhaps assigned the input.
func (n *fleetNode) take(m *FleetModel, now time.Time) {
	if n.maybe != nil {
		in := *n.maybe
		n.maybe = nil
		m.change(n, in, now)
	}
}

// KeepsHold says that a node is about to be assigned by a central that may not know its
// newest hold, which is valid all the same.
func (m *FleetModel) KeepsHold(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[name]; n.in.hold.Seq != 0 {
		m.met["a hold of after the backup"]++
		n.local = n.in.hold
	}
}

func (m *FleetModel) takeSettings(now time.Time) {
	if !m.unsure {
		return
	}
	if m.settings.BrakePercent != m.maybeSet.BrakePercent || m.settings.BrakeAbove != m.maybeSet.BrakeAbove {
		for _, n := range m.nodes {
			n.bulk, n.outage = nil, nil
		}
	}
	if m.settings.ReleaseBrake != m.maybeSet.ReleaseBrake || m.settings.ReleaseNodes != m.maybeSet.ReleaseNodes {
		m.uncountAll()
	}
	m.settings, m.setAt, m.unsure = m.maybeSet, now, false
}

// bulkChange takes nodes that are to lose power by one change.
func (m *FleetModel) bulkChange(cut []*fleetNode, now time.Time) {
	limit := m.bound()
	var unconfirmed, confirmed []*fleetNode
	for _, n := range cut {
		leads := slices.ContainsFunc(n.ops, func(o *fleetOp) bool { return o.op.Action.Final() == power.Off })
		switch {
		case n.uncounted == no && !leads:
			unconfirmed = append(unconfirmed, n)
		case n.uncounted == yes:
			confirmed = append(confirmed, n)
		}
	}
	if len(unconfirmed) > limit {
		m.met["bulk unconfirmed"]++
		b := &bulkChange{at: now, of: len(unconfirmed), bound: limit, cut: map[string]bool{}}
		for _, n := range unconfirmed {
			n.bulk = b
			if now.Sub(n.readAt) > 10*time.Minute {
				b.unseen++
			}
		}
		if b.unseen > limit {
			m.met["bulk out of sight"]++
		}
	}
	if len(confirmed) > limit {
		m.met["bulk confirmed"]++
	}
	if m.resting(now) || m.holds {
		return
	}
	for _, n := range confirmed { // it is followed soon, if nothing else is the matter
		if n.readWell && now.Sub(n.readAt) < 70*time.Second && len(n.ops) == 0 && !m.ill(n, now) {
			n.due = now.Add(fleetFollows)
			if n.desire.debounced {
				n.due = n.due.Add(fleetDebounce)
			}
			m.nextDue = n.due
		}
	}
}

// ill reports whether something is the matter with the node's BMC, as far as the node can
// feel it: blades share one.
func (m *FleetModel) ill(n *fleetNode, now time.Time) bool {
	for _, x := range m.nodes {
		if (x == n || x.shares && n.shares) && (len(x.ill) > 0 || now.Before(x.illTill)) {
			return true
		}
	}
	return false
}

// bound is the most nodes that are not too many, by the settings of now.
func (m *FleetModel) bound() int {
	return bound(len(m.nodes), m.settings.BrakePercent, m.settings.BrakeAbove)
}

// resting reports whether the monitor was told to do nothing.
func (m *FleetModel) resting(now time.Time) bool {
	p := m.settings.Pause
	return m.settings.Monitor == api.MonitorOff || p != nil && (p.Until.IsZero() || now.Before(p.Until))
}

// Holding takes a hold that somebody is about to set or release at the rack.
func (m *FleetModel) Holding(in api.SetHold, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range in.Names {
		n := m.nodes[name]
		m.advance(n, now)
		if in.Want == "" && !holds(n.in.hold, now) {
			continue
		}
		to := n.in
		to.hold = power.Hold{Want: in.Want, By: in.AskedBy, Since: now, Confirmed: in.Confirmed}
		if in.For > 0 && in.Want != "" {
			to.hold.Until = now.Add(in.For)
		}
		n.maybe = &to
	}
}

// Resolve finds out what of that which was assigned is durable at the agent.
func (m *FleetModel) Resolve(settings api.RackSettings, nodes map[string]api.AssignedNode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.unsure {
		if sameSettings(settings, m.maybeSet) {
			m.takeSettings(now)
		}
		m.unsure = false
	}
	for _, n := range m.nodes {
		as, ok := nodes[n.name]
		if n.maybe == nil || !ok {
			n.maybe = nil
			continue
		}
		sameHold := func(h power.Hold) bool {
			return h.Want == as.Hold.Want && h.Until.Equal(as.Hold.Until) && h.Confirmed == as.Hold.Confirmed && h.Since.Equal(as.Hold.Since)
		}
		same := func(in fleetInput) bool {
			return in.status == as.Status && in.confirmed == as.Confirmed && sameHold(in.hold)
		}
		if as.Retry > n.in.retry && as.Retry == n.maybe.retry {
			m.retry(n)
		}
		switch {
		case same(*n.maybe):
			if n.maybe.hold.Seq == 0 && as.Hold.Seq != 0 { // set here, under a sequence that was drawn here
				n.maybe.hold.Seq = as.Hold.Seq
				n.local = n.maybe.hold
			}
			n.take(m, now)
		case same(n.in):
			n.maybe = nil
		default:
			m.breach("assignment", "%s is kept with %+v, assigned was %+v, before %+v", n.name, as, *n.maybe, n.in)
		}
	}
}

// retry takes an administrator's desire that the node is tried again.
func (m *FleetModel) retry(n *fleetNode) {
	n.fails, n.tries, n.corrected = 0, 0, nil
}

// Retried takes that somebody had the agent try nodes again.
func (m *FleetModel) Retried(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		m.retry(m.nodes[name])
	}
}

// BrakeReleased takes the release of a brake.
func (m *FleetModel) BrakeReleased(b *api.Brake, local bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.met["brake released"]++
	m.brake, m.brakeDied, m.released[b.ID] = nil, false, true
	if local {
		m.uncountAll()
	}
}

// uncountAll has the brake count no node that must be corrected now: more may have joined
// the one that was released than were seen.
func (m *FleetModel) uncountAll() {
	for _, n := range m.nodes {
		n.uncounted, n.outage, n.bulk = max(n.uncounted, perhaps), nil, nil
		n.reachedAt = time.Time{}
	}
}

// SetByHand takes somebody pressing buttons.
func (m *FleetModel) SetByHand(names []string, to power.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var drift []*fleetNode
	for _, name := range names {
		n := m.nodes[name]
		m.advance(n, now)
		known := n.matched && !m.dead && now.Sub(n.reachedAt) >= durable && n.readWell &&
			now.Sub(n.readAt) < 70*time.Second && n.offAt.IsZero() &&
			n.fails == 0
		wants := n.desire.want
		if n.desire.expectsOn {
			wants = power.On
		}
		n.bulk, n.outage = nil, nil
		known = known && !m.ill(n, now) // what is out of sight is not counted: an outage may take BMCs along
		if known && wants != "" && wants != to && len(n.ops) == 0 && m.fake.BMC(name).Power() == wants {
			drift = append(drift, n)
		}
	}
	if len(drift) <= m.bound() {
		return
	}
	m.met["outage"]++
	o := &outage{at: now, bound: m.bound()}
	for _, n := range drift {
		n.outage = o
	}
}

// ComesBack has a node turn itself on so long after it was turned off; less than 0: not
// any more.
func (m *FleetModel) ComesBack(name string, after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[name].backAfter = after + 1
}

// FallsBack has a node go off by itself so long after it was turned on; less than 0: not
// any more.
func (m *FleetModel) FallsBack(name string, after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[name].fallAfter = after + 1
}

// lasts holds a correction against those before it: what does not last is a failure, and a
// node that fails is not corrected again and again.
func (m *FleetModel) lasts(n *fleetNode, now time.Time) {
	n.corrected = slices.DeleteFunc(n.corrected, func(at time.Time) bool { return now.Sub(at) > fleetLasting })
	if n.corrected = append(n.corrected, now); len(n.corrected) > fleetMost {
		m.breach("lasting", "%s is corrected %d times within %s, and nobody did anything about it", n.name, len(n.corrected),
			now.Sub(n.corrected[0]))
	}
}

// Disturbed says that something is done that may keep nodes from what they were to do.
func (m *FleetModel) Disturbed(verb string, names []string) {
	m.Poll()
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Contains([]string{"kill", "crash", "stop", "pause", "monitor", "bounds", "release-brake", "end", "resume"}, verb)
	blades := slices.ContainsFunc(names, func(name string) bool { return m.nodes[name].shares })
	for _, n := range m.nodes {
		named := slices.Contains(names, n.name)
		if named {
			n.falls(verb)
		}
		if all || named || blades && n.shares {
			n.due = time.Time{}
		}
		if named && verb != "manual" || verb == "end" {
			n.outage = nil
		}
	}
}

// falls notes what is wrong with a node's BMC from now on, or not any more.
func (n *fleetNode) falls(verb string) {
	if n.ill == nil {
		n.ill = map[string]bool{}
	}
	switch verb {
	case "stuck", "mute", "password":
		n.ill[verb] = true
	case "unstuck":
		delete(n.ill, "stuck")
	case "wake":
		delete(n.ill, "mute")
	case "end":
		clear(n.ill)
	case "restart-bmc", "lose":
		n.illTill = time.Now().Add(10 * time.Minute)
	}
}

// Pending reports whether a node is for long otherwise than the monitor is to have it.
func (m *FleetModel) Pending(name string, is power.State) (power.State, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[name]
	m.advance(n, time.Now())
	return n.desire.want, n.desire.want != "" && n.desire.want != is && time.Since(n.since) > 3*time.Minute
}

// Forbidden reports whether the monitor may not do what is wanted.
func (m *FleetModel) Forbidden(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.nodes[name].desire
	return w.noCut && w.want == power.Off
}

// MayBeInFault reports whether so many corrections of a node ended that it may be in fault.
func (m *FleetModel) MayBeInFault(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[name].tries >= 3
}

// WasRefused reports whether the last log-in at the BMC of a node was refused.
func (m *FleetModel) WasRefused(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[name].refused
}

// Quiet says that all is as it is wanted.
func (m *FleetModel) Quiet() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quietAt = time.Now()
}

// Poll looks what the agent says of the brake, and what was to have happened by now.
func (m *FleetModel) Poll() {
	b := m.agent.Brake()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.dead || m.agent.Dead() || len(m.breaches) > 0 {
		return
	}
	m.takeBrake(b, now)
	if m.nextDue.IsZero() || now.Before(m.nextDue) {
		return
	}
	m.nextDue = time.Time{}
	for _, n := range m.nodes {
		if n.due.IsZero() {
			continue
		}
		if now.Before(n.due) {
			m.nextDue = n.due
			continue
		}
		n.due = time.Time{}
		if m.fake.BMC(n.name).Power() != power.Off {
			m.breach("confirmed", "%s was to be off by a change that was confirmed, and is not", n.name)
			return
		}
	}
}

// takeBrake holds the brake against what is known of its nodes.
func (m *FleetModel) takeBrake(b *api.Brake, now time.Time) {
	if m.holds = b != nil; m.holds {
		for _, n := range m.nodes {
			n.due = time.Time{}
		}
	}
	if b != nil && m.released[b.ID] || b == nil && m.brake == nil {
		return
	}
	if b == nil {
		if m.brakeDied && now.Sub(m.born) < durable {
			return // the process is not up yet
		}
		m.brakeOver(now)
		m.brake, m.brakeDied = nil, false
		m.met["brake over"]++
		return
	}
	old := []string{}
	if m.brake != nil && m.brake.ID == b.ID {
		old = m.brake.Nodes
	} else {
		m.met["brake "+b.Kind]++
		m.note("the brake holds: %s", b.Message)
		if m.brakeDied {
			m.brakeOver(now)
		}
	}
	if m.brakeDied {
		m.met["brake over a death"]++
	}
	for _, name := range b.Nodes {
		n := m.nodes[name]
		m.advance(n, now)
		if !slices.Contains(old, name) && b.Kind == "cut" && n.uncounted == yes && now.Sub(n.since) > durable {
			m.breach("confirmed", "the brake names %s, which should be off by a change that was confirmed", name)
		}
	}
	m.brake, m.brakeDied, m.brakeAt = b, false, now
}

// brakeOver takes the end of a brake that nobody released: none of its nodes is as it was.
func (m *FleetModel) brakeOver(now time.Time) {
	for _, name := range m.brake.Nodes {
		n := m.nodes[name]
		m.advance(n, now)
		if m.brake.Kind == "cut" && n.desire.want == power.Off && n.since.Before(m.brakeAt) && n.read == power.On &&
			n.offSeen.Before(m.brakeAt.Add(-durable)) {
			m.breach("brake", "it is over, and %s is on as before", name)
		}
	}
}

// The journal.

// Reopened takes what the journal holds at a start.
func (m *FleetModel) Reopened(live []journal.Record) {
	for _, r := range live {
		m.Record(r.Kind, r.Key, r.Payload, false)
	}
}

// Record takes one record; now: it was written just now.
func (m *FleetModel) Record(kind journal.Kind, key string, payload []byte, now bool) {
	if kind != kindAccepted && kind != kindEnded && kind != kindSending {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch kind {
	case kindAccepted:
		var rec acceptedRecord
		if json.Unmarshal(payload, &rec) == nil {
			m.accepted(rec, now)
		}
	case kindEnded:
		var end power.End
		if o := m.ops[key]; o != nil && json.Unmarshal(payload, &end) == nil {
			m.ended(o, end, now)
		}
	case kindSending:
		if o := m.ops[key]; o != nil && now {
			m.nodes[o.op.Node].sending = o
		}
	}
}

func (m *FleetModel) accepted(rec acceptedRecord, fresh bool) {
	if m.ops[rec.Op.ID] != nil {
		return
	}
	n, now := m.nodes[rec.Op.Node], time.Now()
	m.advance(n, now)
	o := &fleetOp{op: rec.Op, persons: rec.Op.Origin != power.FromMonitor, born: m.born}
	m.ops[rec.Op.ID] = o
	m.note("accepted %s of %s by %s (%s)", rec.Op.Action, n.name, rec.Op.AskedBy, rec.Decision.Verdict)
	if o.persons {
		n.due, n.outage, n.corrected = time.Time{}, nil, nil
	}
	if with := m.ops[rec.Decision.With]; rec.Decision.Verdict.Joined() && with != nil {
		with.persons = with.persons || o.persons
		return
	}
	if !o.persons {
		m.met["correction"]++
		if !n.due.IsZero() && o.op.Action == power.ActOff {
			n.due = time.Time{}
			m.met["confirmed followed"]++
		}
		o.unconfirmed = o.op.Action == power.ActOff && n.uncounted == no
		o.limit = m.bound()
		if fresh {
			m.correction(n, o, now)
			m.lasts(n, now)
		}
	}
	n.ops = append(n.ops, o)
}

// correction holds what the monitor asks for against what was read and done before.
func (m *FleetModel) correction(n *fleetNode, o *fleetOp, now time.Time) {
	target := o.op.Action.Final()
	switch {
	case !n.readWell || now.Sub(n.readAt) > fleetFresh+time.Second:
		m.breach("fresh", "%s of %s is asked for, last read %s ago (well: %t)", o.op.Action, n.name, now.Sub(n.readAt), n.readWell)
	case n.readAt.Before(n.since):
		m.breach("fresh", "%s of %s is asked for, and it was not read since its desired power changed", o.op.Action, n.name)
	case n.read == target:
		m.breach("fresh", "%s of %s is asked for, which was read %s", o.op.Action, n.name, n.read)
	}
	if n.desire.debounced {
		m.met["debounced"]++
		if lasts := n.readAt.Sub(n.runFrom); n.run != n.read || lasts < fleetDebounce {
			m.breach("debounce", "%s of %s is asked for after equal readings for %s", o.op.Action, n.name, lasts)
		}
	}
	back := target == power.Off && n.tries > 0 || target == power.Off && now.Sub(n.changed) >= fleetSecondLook
	if n.changed.After(n.since) && n.changed.After(n.latest) && now.Sub(n.changed) < fleetSettle && !back {
		m.breach("settle", "%s of %s is asked for %s after it was changed", o.op.Action, n.name, now.Sub(n.changed))
	}
	if since := now.Sub(n.changed); n.changed.After(n.since) && since >= fleetSettle && since < fleetSettle+30*time.Second {
		m.met["settled"]++
	}
	if n.fails >= 3 {
		m.met["try in fault"]++
		pause := min(time.Minute<<(n.fails-3), 30*time.Minute)
		if now.Sub(n.lastFail) < pause-time.Second {
			m.breach("fault", "%s of %s is asked for %s after correction %d that failed", o.op.Action, n.name, now.Sub(n.lastFail), n.fails)
		}
		if n.failBorn != m.born {
			m.met["fault over a death"]++
		}
	}
	if !m.quietAt.IsZero() && now.Sub(n.since) > 10*time.Minute {
		m.breach("quiet", "%s of %s is asked for, and all was as it was wanted", o.op.Action, n.name)
	}
}

// failed counts a correction that came to nothing.
func (m *FleetModel) failed(n *fleetNode, at time.Time) {
	n.fails++
	n.failBefore, n.lastFail, n.failBorn = n.lastFail, at, m.born
	if n.fails == 3 {
		m.met["fault"]++
	}
}

func (m *FleetModel) ended(o *fleetOp, end power.End, fresh bool) {
	n := m.nodes[o.op.Node]
	at := slices.Index(n.ops, o)
	if at < 0 {
		return
	}
	n.ops = slices.Delete(n.ops, at, at+1)
	now := time.Now()
	m.advance(n, now)
	m.note("%s of %s by %s ended %s (%s)", o.op.Action, n.name, o.op.AskedBy, end.Outcome, end.Detail)
	final, mine := o.op.Action.Final(), o.op.Origin == power.FromMonitor
	if end.Attempts > 0 {
		n.changed = end.At
		if !mine {
			m.met["person's operation"]++
		}
	}
	if mine && end.Outcome != power.Cancelled {
		n.tries++
	}
	if final == power.On && (end.Attempts > 0 || end.Outcome == power.Succeeded) {
		n.offAt, n.offMine = time.Time{}, false
	}
	switch {
	case end.Outcome == power.Succeeded && end.Attempts > 0 && final == power.Off:
		if fresh {
			n.offAt, n.offMine = end.At, mine
		}
	case end.Outcome == power.Succeeded && final == n.desire.want && n.offAt.IsZero():
		n.fails = 0
	case mine && fresh && (end.Outcome == power.Failed || end.Outcome == power.Indeterminate || end.Outcome == power.Expired &&
		end.Attempts > 0):
		m.failed(n, end.At)
	}
	n.mends()
}

// mends forgets corrections that failed when the node is as wished, nothing is under way
// and no second look is due.
func (n *fleetNode) mends() {
	if n.offAt.IsZero() && len(n.ops) == 0 && n.desire.want == n.read {
		n.fails = 0
	}
}

// Exchanges.

// Dialled takes a log-in at a BMC.
func (m *FleetModel) Dialled(proc int, node string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[node]
	if err != nil {
		m.note("   dial %s: %v", node, err)
		n.readWell = false
	}
	n.refused = power.KindOf(err) == power.KindAuth && err != nil
	if n.refused {
		m.met["refused log-in"]++
	}
}

// Read takes a reading of a node's power.
func (m *FleetModel) Read(proc int, node string, _ time.Time, s power.State, err error, _ bool) {
	m.Poll()
	m.mu.Lock()
	defer m.mu.Unlock()
	n, now := m.nodes[node], time.Now()
	m.advance(n, now)
	m.note("   read %s: %s %v", node, s, err)
	if err != nil {
		n.readWell = false
		return
	}
	if s != n.run {
		n.run, n.runFrom = s, now
	}
	n.read, n.readAt, n.readWell = s, now, true
	if s == power.Off {
		n.offSeen = now
	}
	if s == power.Off && !slices.ContainsFunc(n.ops, func(o *fleetOp) bool { return o.op.Action.Final() == power.On }) {
		n.bulk = nil // and not in the middle of a cycle
	}
	elsewhere := slices.ContainsFunc(n.ops, func(o *fleetOp) bool {
		return o.op.Action.Final() != power.Unknown && o.op.Action.Final() != n.desire.want
	})
	if !n.offAt.IsZero() && !elsewhere && now.Sub(n.offAt) >= fleetSecondLook {
		if s == power.On && n.desire.want == power.Off {
			m.met["came back"]++
			if n.offMine {
				m.failed(n, now)
			}
		}
		n.offAt, n.offMine = time.Time{}, false
	}
	want := n.desire.want
	if n.desire.expectsOn {
		want = power.On
	}
	if s != want {
		return
	}
	n.mends()
	if n.uncounted == yes && !elsewhere { // a cycle passes through off
		n.uncounted = perhaps
	}
	if len(n.ops) == 0 {
		n.matched = true
		if n.reachedAt.IsZero() {
			n.reachedAt = now
		}
	}
}

// Leaves takes a command that goes to a BMC now.
func (m *FleetModel) Leaves(proc int, node string, cmd power.Command) {
	b := m.agent.Brake()
	m.mu.Lock()
	defer m.mu.Unlock()
	n, now := m.nodes[node], time.Now()
	m.advance(n, now)
	m.note("   %s to %s", cmd, node)
	o := n.sending
	if o == nil {
		m.breach("sending", "%s leaves for %s, and no operation sends it", cmd, node)
		return
	}
	if o.persons {
		return
	}
	m.monitorSends(n, o, cmd, b, now)
}

// monitorSends holds a command of the monitor, that nobody else asked for, against what
// is wanted.
func (m *FleetModel) monitorSends(n *fleetNode, o *fleetOp, cmd power.Command, b *api.Brake, now time.Time) {
	if !n.desire.allows(cmd) && !(now.Equal(n.since) && n.before.allows(cmd)) {
		rule := "desired"
		switch held := holds(n.in.hold, now); {
		case n.desire.noCut && cmd == power.PowerOff:
			rule = "erasing"
		case held:
			rule = "hold"
		case n.desire.want == "":
			rule = "hands off"
		}
		m.breach(rule, "the monitor sends %s to %s (%s, hold %q, since %s ago)", cmd, n.name, n.in.status, n.in.hold.Want, now.Sub(n.since))
	}
	if m.resting(now) && now.After(m.setAt) {
		m.breach("pause", "the monitor sends %s to %s while it is to rest", cmd, n.name)
	}
	if b != nil && now.After(b.Since) {
		m.breach("brake", "the monitor sends %s to %s while the brake holds", cmd, n.name)
	}
	if n.outage != nil {
		left := 0
		for _, x := range m.nodes {
			if x.outage == n.outage {
				left++
			}
		}
		if left > n.outage.bound {
			m.breach("outage", "the monitor sends %s to %s, one of %d nodes that went otherwise at once %s ago", cmd, n.name, left,
				now.Sub(n.outage.at))
		}
	}
	if cmd != power.PowerOff {
		m.met["monitor's on"]++
		return
	}
	m.met["monitor's off"]++
	if !o.unconfirmed {
		return
	}
	n.cutAt = now
	cut := []string{}
	for _, x := range m.nodes {
		if !x.cutAt.IsZero() && now.Sub(x.cutAt) < fleetWindow {
			cut = append(cut, x.name)
		}
	}
	limit := max(m.bound(), o.limit)
	slices.Sort(cut)
	if len(cut) == limit {
		m.met["as many cut as may be"]++
	}
	if len(cut) > limit {
		m.breach("dark", "%d of %d nodes were sent off within a minute, and nobody confirmed it: %v", len(cut), len(m.nodes), cut)
	}
	if n.bulk != nil {
		n.bulk.cut[n.name] = true
		if len(n.bulk.cut) > n.bulk.bound {
			m.breach("dark", "of %d nodes whose status changed at once, unconfirmed, %d were sent off", n.bulk.of, len(n.bulk.cut))
		}
	}
}

// Came takes the answer to a command.
func (m *FleetModel) Came(proc int, node string, cmd power.Command, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[node]
	if err != nil {
		m.note("   answer of %s at %s: %v", cmd, node, err)
	}
	b := m.fake.BMC(node)
	if cmd == power.PowerOn && n.fallAfter > 0 {
		m.met["fell back"]++
		time.AfterFunc(n.fallAfter-1, func() { b.SetPower(power.Off) })
	}
	if cmd != power.PowerOff || n.backAfter <= 0 {
		return
	}
	time.AfterFunc(n.backAfter-1, func() {
		if b.Power() == power.Off {
			b.SetPower(power.On)
		}
	})
}

// Boots takes a boot device that is about to be set.
func (m *FleetModel) Boots(int, string, power.BootDevice) {}

// Booted takes the answer to that.
func (m *FleetModel) Booted(int, string, power.BootDevice, error) {}

// bound is the most nodes that are not too many.
func bound(of, percent, above int) int {
	if percent == 0 {
		percent = 20
	}
	if above == 0 {
		above = 5
	}
	return max(above, int(math.Floor(float64(of)*float64(percent)/100)))
}

// sameSettings compares settings as they are stored.
func sameSettings(a, b api.RackSettings) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// ReadLimit implements Observer: no cap is asked for.
func (m *FleetModel) ReadLimit(int, string, int, error) {}
