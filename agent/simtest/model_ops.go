package simtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// OpsModel is the reference for what an agent may do. It knows nothing of lanes, tasks
// and executions: it sees what was asked and answered, which records became durable,
// which exchanges were had with the BMCs and what central was told, each with its
// time, and holds every one of these events against the rules when it happens. All
// methods may be called concurrently.
//
// It survives the agent's deaths. What a dying process had given to its journal
// without an answer is unsure until the next one has opened it: then it is there,
// whole groups only, or it is not.
type OpsModel struct {
	Trace
	rules   OpsRules
	proc    int       // process of now
	inSince time.Time // its start
	nodes   map[string]*opsNode
	ops     map[string]*opsOp   // accepted ones, by id
	asked   map[string]power.Op // requests, as asked
	cancels map[string]bool     // ids whose cancelling was asked for
	live    []journal.Record    // what the journal holds
	lsn     uint64
	pending []unsureGroup
	told    map[string]power.End // ends that central got
	version int                  // counts what became durable

	diskFailed bool // a fault other than death was injected
	diskSince  time.Time
}

type unsureGroup struct {
	proc    int
	entries []journal.Entry
}

type opsNode struct {
	name    string
	desired power.Desired
	lane    []*opsOp // outstanding, in the order in which they run
	lastSeq power.Seq
	refused int // log-ins in a row, in this process
	// kept is how many refused log-ins in a row the agent may remember from all its
	// lives, lost what it had of them before a log-in of this process that passed: a
	// death may take either note with it.
	kept, lost int
	done       []*opsOp // ended, oldest first
	// what the power rests on
	handAt time.Time // somebody was at the front panel
	waits  time.Time // until when an operation may wait for the commands of those before it
}

// opsOp is an accepted request.
type opsOp struct {
	op      power.Op
	says    power.Decision
	node    *opsNode
	joined  *opsOp
	joiners []*opsOp
	taken   time.Time // when it was accepted
	started time.Time // zero: it waits

	cancel      *cancelRecord
	cancelAt    time.Time
	cancelIn    int
	hastened    bool
	hastyReads  int       // readings of "on" since then, in this process
	lateReads   int       // the same since the grace was over
	concludedAt time.Time // its work was taken for done at this time, in process concludedIn
	concludedIn int

	sends     map[power.Command]int // sendings that may have left
	pending   power.Command         // sending without sent
	pendingIn int
	left      bool          // the pending command was given to the driver
	answer    *power.Error  // what the driver said of it
	acked     power.Command // the last command that the BMC confirmed
	lastSend  time.Time
	leftAt    time.Time // lastSend of before the pending one
	softAt    time.Time
	offSeen   time.Time
	noSoft    bool // the BMC cannot do soft-off

	triedIn, readIn, bootIn int // processes, from 1; 0: never
	read                    power.State
	limit                   int // of a cap: that was read
	readAt                  time.Time
	blockedAt               time.Time // a dial failed
	keptAt                  time.Time // a command did not leave
	sawOff                  bool
	deceived                bool // a reading was a lie
	trouble                 bool // an exchange failed
	refused                 int  // log-ins, in this process

	unnoted []unnoted

	end  *power.End
	gone bool // dropped from the journal
}

// slack is how late, in simulated time, something may happen that is to happen at once.
const slack = time.Second

// OpsRules are the numbers of the rules, as the agent under test was told them.
type OpsRules struct {
	Verify   []time.Duration // after each sending, until the next
	MinOff   time.Duration   // of a cycle
	Exchange time.Duration   // the longest that one takes
	Keeps    int             // how many ended operations of a node are remembered, at least
}

// NewOpsModel makes a model of an agent without nodes.
func NewOpsModel(verbose bool, rules OpsRules) *OpsModel {
	return &OpsModel{
		Trace: newTrace(verbose), rules: rules, nodes: map[string]*opsNode{}, ops: map[string]*opsOp{}, asked: map[string]power.Op{},
		cancels: map[string]bool{}, told: map[string]power.End{},
	}
}

// AddNode adds a node.
func (m *OpsModel) AddNode(name string, d power.Desired) {
	m.nodes[name] = &opsNode{name: name, desired: d}
}

// Processes and the journal.

// Begin takes the start of a process.
func (m *OpsModel) Begin(proc int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proc, m.inSince = proc+1, time.Now()
	for _, n := range m.nodes {
		n.refused, n.kept, n.lost = 0, max(n.kept, n.lost), 0
		if len(n.lane) > 0 {
			n.lane[0].refused, n.lane[0].hastyReads, n.lane[0].lateReads = 0, 0, 0
		}
	}
	m.note("process %d starts", proc)
}

// Died takes the end of a process.
func (m *OpsModel) Died() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("the process is gone")
}

// DiskTrouble takes that a disk is about to fail in another way than by a death.
func (m *OpsModel) DiskTrouble() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.diskFailed, m.diskSince = true, time.Now()
}

// DiskFailed reports whether a disk failed in another way than by a death.
func (m *OpsModel) DiskFailed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.diskFailed
}

// FaultsLifted takes that no disk fails any more.
func (m *OpsModel) FaultsLifted() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.diskSince = time.Now()
}

// Unsure takes a group that a dying process appended and got no answer for.
func (m *OpsModel) Unsure(proc int, entries []journal.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   unsure: %s", groupText(entries))
	m.pending = append(m.pending, unsureGroup{proc + 1, entries})
}

// Denied takes a group that the journal refused, as a full disk makes it. The process
// that noted the answer of a command in vain goes on by what it knows; the next
// process will not know it.
func (m *OpsModel) Denied(proc int, entries []journal.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   denied: %s", groupText(entries))
	m.diskFailed, m.diskSince = true, time.Now()
	e := entries[0]
	m.met["denied "+kindName(e.Kind)]++
	o := m.ops[e.Key]
	if o != nil && e.Kind == kindSending {
		o.trouble = true                 // it did not leave, which may be said of it
		o.hastyReads, o.lateReads = 0, 0 // before it is tried again the node is read once more
	}
	if o != nil && e.Kind == kindSent && o.end == nil {
		var cmd commandRecord
		m.decode(e, &cmd)
		softAt := o.softAt
		m.takeSent(&appended{proc: proc + 1}, o, cmd)
		o.unnoted = append(o.unnoted, unnoted{cmd, softAt, o.lastSend})
	}
}

// unnoted is an answer that only the process that got it knows.
type unnoted struct {
	commandRecord
	softAt, sentAt time.Time
}

// forget makes the operation what the next process takes it for.
func (o *opsOp) forget() {
	for _, u := range o.unnoted {
		if u.NotLeft {
			o.sends[u.Command]++
			if u.Command == power.PressSoftOff && (o.softAt.IsZero() || u.softAt.Before(o.softAt)) {
				o.softAt = u.softAt
			}
		}
		if u.sentAt.Equal(o.lastSend) && o.pending == "" {
			o.pending, o.acked = u.Command, ""
		}
	}
	o.unnoted = nil
}

// Reopened compares what a start found with what was durable before it, and settles
// what was unsure.
func (m *OpsModel) Reopened(live []journal.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := map[string][]journal.Record{}
	for _, r := range live {
		have[r.Key] = append(have[r.Key], r)
	}
	type found struct {
		unsureGroup
		lsn uint64
	}
	var survived []found
	for _, g := range m.pending {
		lsn, there, adds := uint64(0), 0, 0
		dropped := true
		for i, e := range g.entries {
			switch e.Op {
			case journal.Add:
				adds++
				for _, r := range have[e.Key] {
					if r.LSN > m.lsn && r.Kind == e.Kind && bytes.Equal(r.Payload, e.Payload) {
						there++
						lsn = r.LSN + uint64(len(g.entries)-1-i)
					}
				}
			case journal.Drop:
				dropped = dropped && len(have[e.Key]) == 0
			}
		}
		switch {
		case adds > 0 && there == adds, adds == 0 && dropped:
			survived = append(survived, found{g, lsn})
			m.met["unsure and there"]++
			m.note("   survived: %s", groupText(g.entries))
		case adds > 0 && there > 0:
			m.breach("whole groups", "of %s only %d of %d records survived", groupText(g.entries), there, adds)
		}
	}
	m.met["unsure and gone"] += len(m.pending) - len(survived)
	m.pending = nil
	slices.SortStableFunc(survived, func(a, b found) int { return int(int64(a.lsn) - int64(b.lsn)) })
	for _, g := range survived {
		m.takeGroup(g.proc, g.entries, g.lsn)
	}
	for _, o := range m.ops {
		if o.end == nil {
			o.forget()
		}
	}
	m.compareLive(live)
	for _, r := range live {
		m.lsn = max(m.lsn, r.LSN)
	}
}

func (m *OpsModel) compareLive(live []journal.Record) {
	if len(live) != len(m.live) {
		m.breach("nothing durable is lost", "the journal holds %d records, %d were durable: %s; want %s", len(live), len(m.live),
			recordsText(live), recordsText(m.live))
		return
	}
	for _, want := range m.live {
		if !slices.ContainsFunc(live, func(r journal.Record) bool {
			return r.Key == want.Key && r.Kind == want.Kind && bytes.Equal(r.Payload, want.Payload)
		}) {
			m.breach("nothing durable is lost", "the journal does not hold %s %s any more", kindName(want.Kind), want.Key)
		}
	}
}

// Durable takes a group that the journal acknowledged.
func (m *OpsModel) Durable(proc int, entries []journal.Entry, lsn uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takeGroup(proc+1, entries, lsn)
	m.lsn = max(m.lsn, lsn)
}

func (m *OpsModel) takeGroup(proc int, entries []journal.Entry, lsn uint64) {
	m.version++
	m.note("   %s", groupText(entries))
	group := m.readGroup(proc, entries)
	first := lsn - uint64(len(entries)) + 1
	for i, e := range entries {
		if e.Op != journal.Add {
			m.live = slices.DeleteFunc(m.live, func(r journal.Record) bool { return r.Key == e.Key })
		}
		if e.Op != journal.Drop {
			m.live = append(m.live, journal.Record{LSN: first + uint64(i), Entry: e})
		}
		m.take(group, e)
	}
	group.complete(m)
}

// appended is what was appended at once: after a crash all of it is there or nothing.
type appended struct {
	proc     int
	accepted *opsOp // the request whose acceptance this is
	ended    map[string][]byte
	cancels  []string
	hastened []string
}

func (m *OpsModel) readGroup(proc int, entries []journal.Entry) *appended {
	g := &appended{proc: proc, ended: map[string][]byte{}}
	for _, e := range entries {
		switch e.Kind {
		case kindAccepted, kindAdded:
			var rec acceptedRecord
			if err := json.Unmarshal(e.Payload, &rec); err != nil {
				m.breach("records", "%v", err)
			}
			if (e.Kind == kindAdded) != (rec.Op.Action == power.ActCap) {
				m.breach("records", "%s of %s is accepted in a record of kind %d", rec.Op.Action, rec.Op.ID, e.Kind)
			}
			if g.accepted != nil {
				m.breach("records", "two requests accepted at once: %s", groupText(entries))
			}
			g.accepted = &opsOp{op: rec.Op, says: rec.Decision, node: m.nodes[rec.Op.Node], sends: map[power.Command]int{}}
		case kindEnded:
			if g.ended[e.Key] != nil {
				m.breach("one outcome", "%s ends twice in %s", e.Key, groupText(entries))
			}
			g.ended[e.Key] = e.Payload
		case kindCancel:
			g.cancels = append(g.cancels, e.Key)
		case kindHastened:
			g.hastened = append(g.hastened, e.Key)
		}
	}
	if g.accepted != nil {
		m.judge(g)
	}
	return g
}

// complete checks what must stand together: joined requests end with what they joined.
func (g *appended) complete(m *OpsModel) {
	for id := range g.ended {
		o := m.ops[id]
		if o == nil {
			continue
		}
		for _, j := range o.joiners {
			if g.ended[j.op.ID] == nil {
				m.breach("join shares the outcome", "%s joined %s, which ends without it", j.op.ID, id)
			}
		}
		if o.joined != nil && !bytes.Equal(g.ended[id], g.ended[o.joined.op.ID]) {
			m.breach("join shares the outcome", "%s joined %s and ends otherwise: %s; %s", id, o.joined.op.ID, g.ended[id], g.ended[o.joined.op.ID])
		}
	}
}

// take takes one record.
func (m *OpsModel) take(g *appended, e journal.Entry) {
	if e.Kind == kindAccepted || e.Kind == kindAdded {
		m.takeAccepted(g, g.accepted)
		return
	}
	if e.Kind == kindLastSeq {
		return
	}
	o := m.ops[e.Key]
	if o == nil {
		m.breach("records", "%s of %s, which was never accepted", kindName(e.Kind), e.Key)
		return
	}
	if o.end != nil && e.Kind != kindReported {
		m.breach("one outcome", "%s of %s comes after its end (%s)", kindName(e.Kind), e.Key, o.end.Outcome)
		return
	}
	var at startedRecord
	var cmd commandRecord
	switch e.Kind {
	case kindStarted:
		m.decode(e, &at)
		m.takeStarted(g, o, at.At)
	case kindSending:
		m.decode(e, &cmd)
		m.takeSending(g, o, cmd)
	case kindSent:
		m.decode(e, &cmd)
		m.takeSent(g, o, cmd)
	case kindOffSeen:
		m.decode(e, &at)
		m.takeOffSeen(g, o, at.At)
	case kindCancel:
		m.takeCancel(g, o, e)
	case kindHastened:
		o.hastened = true
	case kindEnded:
		m.takeEnded(g, o, e)
	case kindReported:
		if o.end == nil {
			m.breach("reported", "%s leaves the journal without an end", e.Key)
		} else if _, told := m.told[e.Key]; !told {
			m.breach("reported", "%s leaves the journal and central never got its end", e.Key)
		}
		o.gone = true
	}
}

func (m *OpsModel) decode(e journal.Entry, to any) {
	if err := json.Unmarshal(e.Payload, to); err != nil {
		m.breach("records", "%s of %s: %v", kindName(e.Kind), e.Key, err)
	}
}

func (m *OpsModel) takeAccepted(g *appended, o *opsOp) {
	id := o.op.ID
	asked, ok := m.asked[id]
	if !ok {
		m.breach("records", "%s was accepted and never asked for", id)
		return
	}
	if m.ops[id] != nil {
		m.breach("one outcome", "%s was accepted a second time", id)
		return
	}
	got := o.op
	if asked.Seq == 0 {
		if got.Seq <= o.node.lastSeq {
			m.breach("sequence", "%s got sequence %d, not above %d", id, got.Seq, o.node.lastSeq)
		}
		asked.Seq = got.Seq
	}
	if !asked.Deadline.Equal(got.Deadline) || !asked.AskedAt.Equal(got.AskedAt) {
		m.breach("records", "%s was asked as %+v and accepted as %+v", id, asked, got)
	}
	asked.Deadline, asked.AskedAt = got.Deadline, got.AskedAt
	if asked != got {
		m.breach("records", "%s was asked as %+v and accepted as %+v", id, asked, got)
	}
	m.ops[id], o.taken = o, time.Now()
	m.met["verdict "+string(o.says.Verdict)+" "+string(o.says.Reason)]++
	if got.Origin != power.FromMonitor {
		o.node.lastSeq = max(o.node.lastSeq, got.Seq)
	}
	if o.says.Verdict.Joined() {
		target := m.ops[o.says.With]
		if target == nil || target.end != nil {
			m.breach("join shares the outcome", "%s joined %q, which is not outstanding", id, o.says.With)
			return
		}
		o.joined = target
		target.joiners = append(target.joiners, o)
		return
	}
	o.node.lane = append(o.node.lane, o)
}

func (m *OpsModel) takeStarted(g *appended, o *opsOp, at time.Time) {
	switch {
	case o.joined != nil:
		m.breach("join shares the outcome", "%s joined %s and is started itself", o.op.ID, o.joined.op.ID)
	case !o.started.IsZero():
		m.breach("one at a time", "%s is started twice", o.op.ID)
	case len(o.node.lane) == 0 || o.node.lane[0] != o:
		m.breach("one at a time", "%s is started, but %s is first on %s", o.op.ID, laneText(o.node.lane), o.node.name)
	case !at.Before(o.op.Deadline) && !(m.diskFailed && at.Before(m.diskSince.Add(slack))): // its end may not have been taken
		m.breach("deadline in the queue", "%s is started %s after its deadline", o.op.ID, at.Sub(o.op.Deadline))
	}
	o.started = at
}

var commandsOf = map[power.Action][]power.Command{
	power.ActOn: {power.PowerOn}, power.ActOff: {power.PowerOff}, power.ActSoftOff: {power.PressSoftOff, power.PowerOff},
	power.ActCycle: {power.PowerOff, power.PowerOn}, power.ActReset: {power.HardReset}, power.ActDiag: {power.PulseDiag},
	power.ActBMCReset: {power.ResetBMC}, power.ActCap: {power.SetLimit},
}

// Commands lists what an action may send, in the order in which it sends them; each of them
// may be repeated where the action may.
func Commands(a power.Action) []power.Command { return commandsOf[a] }

// leadsTo is the state after a command; hard-reset and pulse-diag need the node on.
func leadsTo(c power.Command) power.State {
	switch c {
	case "power-on":
		return power.On
	case "power-off", "soft-off":
		return power.Off
	}
	return ""
}

func onlyOnce(c power.Command) bool { return leadsTo(c) == "" && c != power.SetLimit }

// takeSending checks most of rules 3: a command is about to leave.
func (m *OpsModel) takeSending(g *appended, o *opsOp, rec commandRecord) {
	id, c, at := o.op.ID, rec.Command, rec.At
	n := o.sends[c]
	window := time.Duration(0)
	if n > 0 {
		window = m.rules.Verify[min(n, len(m.rules.Verify))-1]
	}
	switch {
	case o.started.IsZero():
		m.breach("one at a time", "%s sends %s and was not started", id, c)
	case !slices.Contains(Commands(o.op.Action), c):
		m.breach("actions", "%s of %s sends %s", o.op.Action, id, c)
	case o.cancel != nil && (at.After(o.cancelAt) || g.proc != o.cancelIn):
		m.breach("safe point", "%s sends %s, %s after it was told to stop", id, c, at.Sub(o.cancelAt))
	case at.After(o.op.Deadline):
		m.breach("deadline", "%s sends %s, %s after its deadline", id, c, at.Sub(o.op.Deadline))
	case onlyOnce(c) && (n > 0 || o.pending != ""):
		m.breach("at most once", "%s sends %s again", id, c)
	case o.pending != "" && o.pendingIn == g.proc:
		m.breach("records", "%s sends %s before the answer of %s is noted", id, c, o.pending)
	case n >= 3:
		m.breach("resend at most twice", "%s sends %s a fourth time", id, c)
	case c == power.ResetBMC && o.triedIn != g.proc, c != power.ResetBMC && o.readIn != g.proc:
		m.breach("fresh read", "%s sends %s without having read the power in this process", id, c)
	case c != power.ResetBMC && !o.readAt.After(o.blockedAt) && at.Sub(o.readAt) > 2*time.Second:
		m.breach("fresh read", "%s sends %s after a dial that failed, and read the power %s ago, before that", id, c, at.Sub(o.readAt))
	case c != power.ResetBMC && o.readAt.Before(o.keptAt):
		m.breach("fresh read", "%s sends %s again %s after it did not leave, and did not read the power since", id, c, at.Sub(o.keptAt))
	case c == power.SetLimit && o.limit == o.op.Limit:
		m.breach("no command where none is needed", "%s limits a node to %d W that it read limited so", id, o.limit)
	case c != power.ResetBMC && c != power.SetLimit && o.read == leadsTo(c):
		m.breach("no command where none is needed", "%s sends %s to a node that it read %s", id, c, o.read)
	case (c == power.HardReset || c == power.PulseDiag) && o.read != power.On:
		m.breach("node is off", "%s sends %s to a node that it read %s", id, c, o.read)
	case n > 0 && (!o.readAt.After(o.lastSend) || at.Before(o.lastSend.Add(window))):
		m.breach("resend only after reads", "%s sends %s again %s after it was sent, the last read being %s later", id, c, at.Sub(o.lastSend),
			o.readAt.Sub(o.lastSend))
	case o.op.Boot != power.BootNone && (c == power.PowerOn || c == power.HardReset) && n == 0 && o.bootIn != g.proc:
		m.breach("boot device", "%s sends %s before boot device %s was set", id, c, o.op.Boot)
	}
	switch {
	case o.op.Action == power.ActSoftOff && c == power.PowerOff:
		grace := !o.softAt.IsZero() && !at.Before(o.softAt.Add(o.op.Grace))
		switch {
		case o.op.NoEscalate && !o.hastened:
			m.breach("grace", "%s was not to escalate and sends %s", id, c)
		case !grace && !o.hastened && !o.noSoft && n == 0:
			m.breach("grace", "%s sends %s within the grace of %s", id, c, o.op.Grace)
		}
	case o.op.Action == power.ActCycle && c == power.PowerOff:
		if !o.offSeen.IsZero() || o.sends[power.PowerOn] > 0 {
			m.breach("one cut", "cycle %s cuts power again after it was seen off", id)
		}
	case o.op.Action == power.ActCycle && c == power.PowerOn && o.sends[power.PowerOff] > 0:
		if o.offSeen.IsZero() {
			m.breach("off seen", "cycle %s powers on, but off was not seen", id)
		} else if off := at.Sub(o.offSeen); off < m.rules.MinOff {
			m.breach("minimum off time", "cycle %s powers on %s after off was seen", id, off)
		}
	}
	if n > 0 {
		m.met["resend"]++
	}
	if o.pending != "" {
		m.met["resend after a death"]++
	}
	if o.op.Action == power.ActCycle && c == power.PowerOn && !o.offSeen.IsZero() && o.offSeen.Before(m.inSince) {
		m.met["cycle goes on after a death"]++
	}
	o.sends[c]++
	o.pending, o.pendingIn, o.left, o.answer = c, g.proc, false, nil
	o.leftAt, o.lastSend = o.lastSend, at
	if c == power.PressSoftOff && o.softAt.IsZero() {
		o.softAt = at
	}
}

func (m *OpsModel) takeSent(g *appended, o *opsOp, rec commandRecord) {
	id, c := o.op.ID, rec.Command
	if o.pending != c || o.pendingIn != g.proc || !o.left {
		m.breach("records", "%s notes the answer of %s, which was not sent", id, c)
	}
	notLeft := o.answer != nil && !o.answer.Sent
	if rec.NotLeft != notLeft {
		m.breach("records", "%s notes of %s not left = %v, the driver says %v", id, c, rec.NotLeft, notLeft)
	}
	o.pending = ""
	if notLeft {
		o.sends[c]--
		o.keptAt, o.lastSend = rec.At, o.leftAt
		if c == power.PowerOff {
			o.hastyReads, o.lateReads = 0, 0
		}
		if c == power.PressSoftOff {
			o.softAt = time.Time{}
		}
	}
	if o.answer != nil {
		o.trouble = true
		if c == power.PressSoftOff && o.answer.Kind == power.KindUnsupported {
			o.noSoft = true
		}
	} else {
		o.acked = c
	}
}

func (m *OpsModel) takeOffSeen(g *appended, o *opsOp, at time.Time) {
	switch {
	case o.op.Action != power.ActCycle:
		m.breach("off seen", "%s of %s notes off seen", o.op.Action, o.op.ID)
	case o.readIn != g.proc || o.read != power.Off || o.readAt.Before(o.lastSend):
		m.breach("off seen", "%s notes off seen and last read %s", o.op.ID, o.read)
	}
	o.offSeen = at
}

func (m *OpsModel) takeCancel(g *appended, o *opsOp, e journal.Entry) {
	var rec cancelRecord
	m.decode(e, &rec)
	switch {
	case o.cancel != nil:
		m.breach("cancelling is not taken back", "%s is cancelled twice", o.op.ID)
	case o.started.IsZero():
		m.breach("safe point", "%s is cancelled as if it ran, and waits", o.op.ID)
	case rec.SupersededBy == "" && !m.cancels[o.op.ID]:
		m.breach("cancel", "%s is cancelled and nobody asked", o.op.ID)
	case rec.SupersededBy != "" && (g.accepted == nil || g.accepted.op.ID != rec.SupersededBy):
		m.breach("supersede", "%s is superseded by %s, which is not accepted with it", o.op.ID, rec.SupersededBy)
	}
	o.cancel, o.cancelAt, o.cancelIn = &rec, time.Now(), g.proc
}

func (m *OpsModel) takeEnded(g *appended, o *opsOp, e journal.Entry) {
	var end power.End
	m.decode(e, &end)
	o.end = &end
	m.met["end "+string(end.Outcome)+" "+string(end.Reason)]++
	o.node.done = append(o.node.done, o)
	if o.joined != nil {
		if g.ended[o.joined.op.ID] == nil {
			m.breach("join shares the outcome", "%s joined %s and ends without it", o.op.ID, o.joined.op.ID)
		}
		return
	}
	o.node.lane = slices.DeleteFunc(o.node.lane, func(x *opsOp) bool { return x == o })
	if o.started.IsZero() {
		m.endOfWaiting(g, o, end)
		return
	}
	if u := end.Unsettled; u != nil && u.Until.After(o.node.waits) {
		o.node.waits = u.Until
	}
	m.endOfRunning(g, o, end)
}

func (m *OpsModel) endOfWaiting(g *appended, o *opsOp, end power.End) {
	id := o.op.ID
	switch end.Outcome {
	case power.Expired:
		if end.At.Before(o.op.Deadline) {
			m.breach("deadline", "%s expired %s before its deadline", id, o.op.Deadline.Sub(end.At))
		}
	case power.Cancelled:
		if !m.cancels[id] {
			m.breach("cancel", "%s ended cancelled and nobody asked", id)
		}
	case power.Superseded:
		if g.accepted == nil || end.SupersededBy != g.accepted.op.ID {
			m.breach("supersede", "%s ended superseded by %q, which is not accepted with it", id, end.SupersededBy)
		}
	default:
		m.breach("outcome", "%s ended %s (%s) without having been started", id, end.Outcome, end.Reason)
	}
	m.punctual(o, end.At, 0)
	if end.Attempts != 0 {
		m.breach("outcome", "%s ended waiting, with %d attempts", id, end.Attempts)
	}
}

// punctual checks that an end is not later than the deadline allows: from there it
// has the time of the exchange under way.
func (m *OpsModel) punctual(o *opsOp, at time.Time, room time.Duration) {
	due := o.op.Deadline
	if o.cancel != nil && o.cancelAt.Before(due) {
		due = o.cancelAt
	}
	for _, t := range []time.Time{m.inSince, m.diskSince, o.taken} {
		if due.Before(t) {
			due = t
		}
	}
	if late := at.Sub(due); late > room+slack {
		m.breach("deadline", "%s ended %s, %s after its deadline or cancelling", o.op.ID, o.end.Outcome, late)
	}
}

func (o *opsOp) attempts() (n int) {
	for _, x := range o.sends {
		n += x
	}
	return n
}

func (m *OpsModel) endOfRunning(g *appended, o *opsOp, end power.End) {
	id := o.op.ID
	m.punctual(o, end.At, m.rules.Exchange)
	if end.Attempts != o.attempts() {
		m.breach("outcome", "%s ended with %d attempts, %d left", id, end.Attempts, o.attempts())
	}
	if o.concludedIn == g.proc && end.At.After(o.concludedAt) {
		m.breach("verdict", "%s was followed as if its work were done, which was %s later", id, end.At.Sub(o.concludedAt))
	}
	if once := isOnce[o.op.Action]; o.pending != "" && once && end.Outcome != power.Indeterminate {
		m.breach("indeterminate", "%s sent %s, nobody knows its answer, and it ended %s", id, o.pending, end.Outcome)
	}
	if isOnce[o.op.Action] && o.acked == "" && o.answer != nil && o.answer.Kind == power.KindUncertain &&
		(end.Outcome == power.Failed || end.Outcome == power.Succeeded) {
		m.breach("indeterminate", "%s had an answer that leaves open whether the BMC acted, and ended %s", id, end.Outcome)
	}
	stopped := o.cancel != nil && o.cancelIn != g.proc
	switch end.Outcome {
	case power.Succeeded:
		if stopped {
			m.breach("cancelling is not taken back", "%s was told to stop before a restart and succeeded after it", id)
		}
		m.success(g, o, end)
	case power.Failed:
		if stopped && !isOnce[o.op.Action] {
			m.breach("cancelling is not taken back", "%s was told to stop before a restart and failed after it", id)
		}
		m.failure(g, o, end)
	case power.Superseded:
		if o.cancel == nil || o.cancel.SupersededBy == "" || o.cancel.SupersededBy != end.SupersededBy {
			m.breach("supersede", "%s ended superseded by %q, its cancelling says %+v", id, end.SupersededBy, o.cancel)
		}
	case power.Cancelled:
		unwanted := o.monitors() && (!o.node.desired.Enforces() || o.node.desired.State() != twoStates[o.op.Action])
		if !unwanted && (o.cancel == nil || o.cancel.SupersededBy != "") {
			m.breach("cancel", "%s ended cancelled, its cancelling says %+v", id, o.cancel)
		}
		if unwanted && end.Attempts > 0 {
			m.breach("cancel", "%s of the monitor was not wanted and sent %d commands", id, end.Attempts)
		}
	case power.Expired:
		if end.At.Before(o.op.Deadline) {
			m.breach("deadline", "%s expired %s before its deadline", id, o.op.Deadline.Sub(end.At))
		}
	case power.Indeterminate:
		if !isOnce[o.op.Action] || o.attempts() == 0 {
			m.breach("indeterminate", "%s of %s ended indeterminate after %d commands", o.op.Action, id, o.attempts())
		}
		if o.pending == "" && o.answer == nil {
			m.breach("indeterminate", "%s ended indeterminate, and the BMC confirmed its command", id)
		}
	default:
		m.breach("outcome", "%s ended %q", id, end.Outcome)
	}
}

func (m *OpsModel) success(g *appended, o *opsOp, end power.End) {
	id := o.op.ID
	if end.Already != (o.attempts() == 0) {
		m.breach("outcome", "%s succeeded with already = %v after %d commands", id, end.Already, o.attempts())
	}
	if said, did := strings.Contains(end.Detail, "escalated"), o.op.Action == power.ActSoftOff && o.sends[power.PowerOff] > 0; said != did {
		m.breach("outcome", "%s succeeded (%s) after %v", id, end.Detail, o.sends)
	}
	if f := twoStates[o.op.Action]; f != "" {
		if o.readIn != g.proc || o.read != f || o.readAt.Before(o.lastSend) {
			m.breach("outcome", "%s succeeded, and the last read (in process %d of %d, %s after its last command) showed %q", id, o.readIn, g.proc,
				o.readAt.Sub(o.lastSend), o.read)
		}
	}
	switch a := o.op.Action; {
	case a == power.ActCap && (o.readIn != g.proc || o.limit != o.op.Limit || o.readAt.Before(o.lastSend)):
		m.breach("outcome", "%s succeeded in a limit of %d W, and the last one read (in process %d of %d, %s after its last command) was %d W",
			id,
			o.op.Limit, o.readIn, g.proc, o.readAt.Sub(o.lastSend), o.limit)
	case isOnce[a] && (o.attempts() == 0 || o.acked == ""):
		m.breach("outcome", "%s of %s succeeded after %d confirmed commands", a, id, o.attempts())
	case a == power.ActCycle && (!o.sawOff || o.offSeen.IsZero() && o.sends[power.PowerOff] > 0):
		m.breach("off seen", "cycle %s succeeded after %v, and off was never seen", id, o.sends)
	}
}

// isOnce has the actions whose command must not leave twice.
var isOnce = map[power.Action]bool{"reset": true, "diag": true, "bmc-reset": true}

// twoStates has the final state of each action that has one.
var twoStates = map[power.Action]power.State{"on": "on", "cycle": "on", "reset": "on", "off": "off", "soft-off": "off"}

func (m *OpsModel) failure(g *appended, o *opsOp, end power.End) {
	id := o.op.ID
	switch end.Reason {
	case power.ReasonNodeOff:
		if o.read != power.Off || o.readIn != g.proc || o.op.Action != power.ActReset && o.op.Action != power.ActDiag {
			m.breach("node is off", "%s failed because the node is off; it read %q", id, o.read)
		}
	case power.ReasonNotReached:
		if o.op.Action == power.ActCap {
			if o.sends[power.SetLimit] < 3 || o.limit == o.op.Limit {
				m.breach("outcome", "%s gave up after %v, having read a limit of %d W", id, o.sends, o.limit)
			}
			return
		}
		if o.op.Action != power.ActReset && o.sends[power.PowerOn] < 3 && o.sends[power.PowerOff] < 3 {
			m.breach("outcome", "%s gave up after %v", id, o.sends)
		}
		if o.read == twoStates[o.op.Action] && o.op.Action != power.ActCycle {
			m.breach("outcome", "%s failed and last read %s", id, o.read)
		}
	case power.ReasonNotEscal:
		if !o.op.NoEscalate || o.hastened || end.At.Before(o.softAt.Add(o.op.Grace)) {
			m.breach("grace", "%s ended not escalated", id)
		}
	default:
		refused := end.Reason == power.ReasonAuth || end.Reason == power.ReasonPrivilege
		if !o.trouble && !(refused && o.node.kept >= 2) {
			m.breach("outcome", "%s failed (%s: %s), and no exchange had", id, end.Reason, end.Detail)
		}
	}
}

// Exchanges.

// running is the operation that may talk to a node's BMC.
func (m *OpsModel) running(node, what string) *opsOp {
	n := m.nodes[node]
	if len(n.lane) == 0 || n.lane[0].started.IsZero() {
		m.breach("one at a time", "%s of %s, and no operation runs there", what, node)
		return nil
	}
	return n.lane[0]
}

// Dialled takes a log-in at a BMC.
func (m *OpsModel) Dialled(proc int, node string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if proc+1 != m.proc {
		return
	}
	if err == nil {
		n := m.nodes[node]
		n.refused, n.kept, n.lost = 0, 0, max(n.kept, n.lost)
		return
	}
	m.note("   dial %s: %v", node, err)
	o := m.running(node, "dial")
	if o == nil {
		return
	}
	o.trouble, o.triedIn, o.blockedAt = true, proc+1, time.Now()
	var de *power.Error
	if errors.As(err, &de) && (de.Kind == power.KindAuth || de.Refused) {
		n := o.node
		n.refused++
		n.kept++
		o.refused++
		if n.refused > 2 && (o.op.Origin == power.FromMonitor || o.refused > 1) || o.refused > 2 {
			m.breach("log-ins", "%s (%s) tries a log-in at %s after %d that were refused, %d of them its own", o.op.ID, o.op.Origin, node,
				n.refused-1, o.refused-1)
		}
	}
}

// Read takes a reading of a node's power; lie: it was not the true one.
func (m *OpsModel) Read(proc int, node string, began time.Time, s power.State, err error, lie bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   read %s: %s %v", node, s, err)
	o := m.running(node, "read")
	if o == nil {
		return
	}
	o.triedIn = proc + 1
	if power.KindOf(err) == power.KindAuth {
		o.node.kept++ // a session that is refused in its middle may count as a log-in
	}
	if err != nil {
		o.trouble = true
		return
	}
	o.read, o.readAt, o.readIn = s, time.Now(), proc+1
	o.deceived = o.deceived || lie
	o.sawOff = o.sawOff || s == power.Off
	if o.hastened && s == power.On && o.sends[power.PowerOff] == 0 && time.Now().After(o.node.waits) {
		if o.hastyReads++; o.hastyReads > 3 {
			m.breach("hasten", "%s was hastened and reads on and on", o.op.ID)
		}
	}
	if !o.softAt.IsZero() && began.After(o.softAt.Add(o.op.Grace)) && s == power.On && o.sends[power.PowerOff] == 0 {
		if o.lateReads++; o.lateReads > 3 {
			m.breach("grace", "%s reads on and on after its grace of %s", o.op.ID, o.op.Grace)
		}
	}
}

// ReadLimit takes a reading of a node's limit.
func (m *OpsModel) ReadLimit(proc int, node string, watts int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   read limit of %s: %d W %v", node, watts, err)
	o := m.running(node, "read of the limit")
	if o == nil {
		return
	}
	o.triedIn = proc + 1
	if power.KindOf(err) == power.KindAuth {
		o.node.kept++ // as in Read
	}
	if err != nil {
		o.trouble = true
		return
	}
	if o.op.Action != power.ActCap {
		m.breach("actions", "%s of %s reads the limit", o.op.Action, o.op.ID)
	}
	o.limit, o.readAt, o.readIn = watts, time.Now(), proc+1
}

// Leaves takes a command that goes to a BMC now.
func (m *OpsModel) Leaves(proc int, node string, cmd power.Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   %s to %s", cmd, node)
	o := m.running(node, string(cmd))
	if o == nil {
		return
	}
	if o.pending != cmd || o.pendingIn != proc+1 || o.left {
		m.breach("sending is durable first", "%s leaves for %s without its record (of %s)", cmd, node, o.op.ID)
	}
	o.left = true
}

// Came takes the answer to a command.
func (m *OpsModel) Came(proc int, node string, cmd power.Command, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if proc+1 != m.proc {
		return
	}
	if err != nil {
		m.note("   answer of %s at %s: %v", cmd, node, err)
	}
	n := m.nodes[node]
	if len(n.lane) == 0 || n.lane[0].pending != cmd {
		return // said before
	}
	o := n.lane[0]
	o.answer = nil
	if err != nil {
		o.answer = &power.Error{Kind: power.KindOf(err), Sent: power.WasSent(err)}
	}
}

// Boots takes a boot device that is about to be set.
func (m *OpsModel) Boots(proc int, node string, dev power.BootDevice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.running(node, "boot device")
	switch {
	case o == nil:
	case o.op.Boot != dev:
		m.breach("boot device", "%s sets %s, %s was asked for", o.op.ID, dev, o.op.Boot)
	case o.cancel != nil && time.Now().After(o.cancelAt):
		m.breach("safe point", "%s sets its boot device after it was told to stop", o.op.ID)
	}
}

// Booted takes the answer to that.
func (m *OpsModel) Booted(proc int, node string, dev power.BootDevice, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   boot device %s at %s: %v", dev, node, err)
	n := m.nodes[node]
	if len(n.lane) == 0 {
		return
	}
	if err != nil {
		n.lane[0].trouble = true
	} else {
		n.lane[0].bootIn = proc + 1
	}
}

// SetByHand takes that somebody is about to switch a node at its front panel.
func (m *OpsModel) SetByHand(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[node]; n != nil {
		n.handAt = time.Now()
	}
}

// What central is told.

// Delivered takes what central is told.
func (m *OpsModel) Delivered(list []api.OpReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range list {
		if r.End == nil {
			continue
		}
		o := m.ops[r.Op.ID]
		if o == nil || o.end == nil {
			m.breach("reported", "central is told an end of %s that is not durable", r.Op.ID)
			continue
		}
		if !sameEnd(*r.End, *o.end) {
			m.breach("one outcome", "central is told %s ended %+v, the journal says %+v", r.Op.ID, *r.End, *o.end)
		}
		m.told[r.Op.ID] = *r.End
	}
}

func sameEnd(a, b power.End) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// At rest.

// Idle reports whether no operation is outstanding.
func (m *OpsModel) Idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nodes {
		if len(n.lane) > 0 {
			return false
		}
	}
	return true
}

// AllEnded checks that every operation has its end.
func (m *OpsModel) AllEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, o := range m.ops {
		if o.end == nil {
			m.breach("nothing blocks a node for ever", "%s (%s of %s) has no end long after all faults were lifted", id, o.op.Action, o.op.Node)
		}
	}
}

// RestsAt compares the power of a node that is at rest with the newest operation
// carried out on it, if that one succeeded and nobody and nothing lied meanwhile.
func (m *OpsModel) RestsAt(node string, s power.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[node]
	var o *opsOp
	for i := len(n.done) - 1; i >= 0 && o == nil; i-- {
		x := n.done[i]
		if !x.started.IsZero() && (twoStates[x.op.Action] != "" && x.end.Outcome == power.Succeeded || x.moved()) {
			o = x
		}
	}
	if o == nil || o.end.Outcome != power.Succeeded || twoStates[o.op.Action] == s || o.deceived || !n.handAt.Before(o.started) {
		return
	}
	for _, x := range n.done { // one that gave up, or lied to, may have left anything behind
		if x == o || x.started.IsZero() || !x.moved() {
			continue
		}
		slow := x.sends[power.PressSoftOff] > 0 && x.op.Grace < time.Minute
		if slow || x.deceived || x.end.Reason == power.ReasonNotReached {
			return
		}
	}
	m.breach("final state", "%s rests %s, and %s, the newest operation on it, succeeded in %s", node, s, o.op.ID, o.op.Action)
}

// LimitRests compares the limit of a node that is at rest with the newest cap that was carried
// out on it, if that one succeeded.
func (m *OpsModel) LimitRests(node string, watts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range slices.Backward(m.nodes[node].done) {
		switch {
		case o.op.Action != power.ActCap || o.joined != nil:
		case o.end.Outcome == power.Succeeded && o.op.Limit != watts:
			m.breach("final state", "%s rests limited to %d W, and %s, the newest cap on it, succeeded in %d W", node, watts, o.op.ID, o.op.Limit)
			return
		case o.end.Outcome == power.Succeeded || o.sends[power.SetLimit] > 0:
			return
		}
	}
}

// monitors reports whether nobody but the monitor asked for the operation.
func (o *opsOp) monitors() bool {
	for _, j := range o.joiners {
		if j.op.Origin != power.FromMonitor {
			return false
		}
	}
	return o.op.Origin == power.FromMonitor
}

// moved reports whether the operation sent what changes power.
func (o *opsOp) moved() bool {
	return o.sends[power.PowerOn]+o.sends[power.PowerOff]+o.sends[power.PressSoftOff] > 0
}

// Unreported compares what a fresh start means to report with what it has to.
func (m *OpsModel) Unreported(ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var want []string
	for id, o := range m.ops {
		if !o.gone {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	slices.Sort(ids)
	if !slices.Equal(ids, want) {
		m.breach("reported", "after a restart %v are to be reported, want %v", ids, want)
	}
}

// Left checks that nothing but the nodes' last sequences is in a journal whose
// operations were all reported.
func (m *OpsModel) Left(live []journal.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range live {
		if r.Kind != kindLastSeq {
			m.breach("reported", "%s of %s is still in the journal, and central has its end", kindName(r.Kind), r.Key)
		}
	}
}

// StaleProbes are requests that came too late for each node, and the newest ones
// once more.
func (m *OpsModel) StaleProbes() []power.Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	var probes []power.Op
	for name, n := range m.nodes {
		if n.lastSeq > 0 {
			op := power.Op{ID: "late-" + name, Node: name, Action: power.ActOn, Seq: n.lastSeq - 1, AskedBy: "admin", Origin: power.FromCentral}
			probes = append(probes, op.WithDefaults(time.Now()))
		}
		if len(n.done) > 0 {
			probes = append(probes, n.done[len(n.done)-1].op)
		}
	}
	return probes
}

func groupText(entries []journal.Entry) string {
	var words []string
	for _, e := range entries {
		text := kindName(e.Kind) + " " + e.Key
		switch e.Kind {
		case kindSending, kindSent, kindEnded, kindCancel:
			text += " " + string(e.Payload)
		case kindAccepted, kindAdded:
			var rec acceptedRecord
			_ = json.Unmarshal(e.Payload, &rec)
			text += fmt.Sprintf(" %s: %s (%s) with %q", rec.Op.Action, rec.Decision.Verdict, rec.Decision.Reason, rec.Decision.With)
		}
		words = append(words, text)
	}
	return strings.Join(words, " + ")
}

func recordsText(list []journal.Record) string {
	var words []string
	for _, r := range list {
		words = append(words, kindName(r.Kind)+" "+r.Key)
	}
	return strings.Join(words, ", ")
}

func laneText(lane []*opsOp) string {
	var ids []string
	for _, o := range lane {
		ids = append(ids, o.op.ID)
	}
	return strings.Join(ids, " ")
}
