package simtest

import (
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// relations is rules 2 for plain parameters, "what is outstanding > what is asked". Pairs that are not in it differ in their final
// state; diag and bmc-reset stand apart from all.
var relations = map[string]string{
	"on > on": "satisfied", "on > cycle": "more", "on > reset": "more",
	"cycle > on": "satisfied", "cycle > cycle": "satisfied", "cycle > reset": "satisfied",
	"reset > on": "satisfied", "reset > reset": "satisfied", "reset > cycle": "more",
	"off > off": "satisfied", "off > soft-off": "satisfied",
	"soft-off > soft-off": "satisfied", "soft-off > off": "hasten",
}

// relation is what an outstanding operation is to a request.
func relation(out, req power.Op) string {
	equal := out.Action == req.Action && out.Boot == req.Boot && out.Grace == req.Grace && out.NoEscalate == req.NoEscalate &&
		out.Limit == req.Limit
	word, listed := relations[fmt.Sprintf("%s > %s", out.Action, req.Action)]
	switch {
	case equal:
		return "equal"
	case out.Action == power.ActCap && req.Action == power.ActCap:
		return "differs"
	case twoStates[out.Action] == "" || twoStates[req.Action] == "":
		return "apart"
	case !listed:
		return "differs"
	case word == "satisfied" && req.Boot != "" && req.Boot != out.Boot:
		return "more" // it boots, but not from there
	case word == "satisfied" && out.NoEscalate && out.Action == req.Action && !req.NoEscalate:
		return "more" // it may end without having switched off
	}
	return word
}

// foretell says what the rules make of a request, given what is outstanding.
// cancelling counts the running operation among those that are being cancelled.
func foretell(lane []*opsOp, lastSeq power.Seq, req power.Op, cancelling bool) power.Decision {
	var d power.Decision
	if len(lane) > 0 {
		d.With = lane[len(lane)-1].op.ID
	}
	ending := func(i int) bool { return lane[i].cancel != nil || i == 0 && cancelling }
	if req.Seq < lastSeq {
		d.Verdict, d.Reason = power.VerdictRefuse, power.ReasonStale
		return d
	}
	if len(lane) == 0 {
		d.Verdict = power.VerdictStart
		return d
	}
	newest := len(lane) - 1
	if req.IfBusy != power.Supersede && !(relation(lane[newest].op, req) == "equal" && !ending(newest)) {
		d.Verdict = power.VerdictQueue
		if req.IfBusy == power.Refuse {
			d.Verdict, d.Reason = power.VerdictRefuse, power.ReasonBusy
		}
		return d
	}
	var own []*opsOp // a cap and the power have nothing to do with each other
	for _, a := range lane {
		if (a.op.Action == power.ActCap) == (req.Action == power.ActCap) {
			own = append(own, a)
		}
	}
	if len(own) == 0 {
		d.Verdict = power.VerdictFollow
		return d
	}
	for i := len(own) - 1; i >= 0; i-- {
		a := own[i]
		d.With = a.op.ID
		word := relation(a.op, req)
		if a.cancel != nil || a == lane[0] && cancelling {
			word = "ending"
		}
		waits := a.started.IsZero()
		switch word {
		case "equal", "satisfied":
			d.Verdict = power.VerdictJoin
			return d
		case "hasten":
			d.Verdict = power.VerdictHasten
			return d
		case "apart":
			d.Verdict = power.VerdictFollow
			return d
		}
		if i > 0 || waits && word == "differs" {
			d.Supersedes = append(d.Supersedes, a.op.ID)
			continue
		}
		if word == "differs" {
			d.Verdict, d.Cancels = power.VerdictSupersede, a.op.ID
			return d
		}
		d.Verdict = power.VerdictFollow
		if len(d.Supersedes) > 0 {
			d.Verdict = power.VerdictSupersede
		}
		return d
	}
	d.Verdict = power.VerdictSupersede
	return d
}

func sameDecision(got, want power.Decision) bool {
	return got.Verdict == want.Verdict && (got.With == want.With || want.Verdict == power.VerdictStart) && got.Cancels == want.Cancels &&
		slices.Equal(got.Supersedes, want.Supersedes)
}

// judge holds an acceptance that has become durable, and what is in its group,
// against the table. The lock is held.
func (m *OpsModel) judge(g *appended) {
	o := g.accepted
	if o.node == nil || m.ops[o.op.ID] != nil {
		return // said elsewhere
	}
	lane := o.node.lane
	want := foretell(lane, o.node.lastSeq, o.op, false)
	if !sameDecision(o.says, want) {
		// The work of the running one may be done, and only its end to come.
		late := foretell(lane, o.node.lastSeq, o.op, true)
		if len(lane) == 0 || lane[0].started.IsZero() || !sameDecision(o.says, late) {
			m.breach("verdict", "%s (%s, %s) got %+v while %s is outstanding, want %+v", o.op.ID, o.op.Action, o.op.IfBusy, o.says, laneText(lane),
				want)
			return
		}
		lane[0].concludedAt, lane[0].concludedIn = time.Now(), g.proc
		want = late
	}
	var ends []string
	for _, id := range want.Supersedes {
		ends = append(ends, id)
		for _, j := range m.ops[id].joiners {
			ends = append(ends, j.op.ID)
		}
	}
	for _, id := range ends {
		if g.ended[id] == nil {
			m.breach("supersede", "%s supersedes %s, whose end is not durable with it", o.op.ID, id)
		}
	}
	if len(ends) != len(g.ended) {
		m.breach("supersede", "%s supersedes %v, and %d end with it", o.op.ID, ends, len(g.ended))
	}
	if want.Cancels == "" && len(g.cancels) > 0 || want.Cancels != "" && !slices.Equal(g.cancels, []string{want.Cancels}) {
		m.breach("supersede", "%s cancels %v, want %q", o.op.ID, g.cancels, want.Cancels)
	}
	if hasten := want.Verdict == power.VerdictHasten; hasten && !slices.Equal(g.hastened, []string{want.With}) || !hasten &&
		len(g.hastened) > 0 {
		m.breach("hasten", "%s hastens %v, want it of %q: %v", o.op.ID, g.hastened, want.With, hasten)
	}
}

// Asks notes a request before it is made, and returns how much was durable then.
func (m *OpsModel) Asks(op power.Op) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, again := m.asked[op.ID]; !again {
		m.asked[op.ID] = op
	}
	m.note("   ask %s: %s of %s (%s, %s, seq %d, until %.3fs)", op.ID, op.Action, op.Node, op.IfBusy, op.Origin, op.Seq,
		op.Deadline.Sub(m.began).Seconds())
	return m.version
}

// Answered holds an answer against what is durable.
func (m *OpsModel) Answered(op power.Op, before int, r api.OpReport, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   answer to %s: %s (%s) end %v, %v", op.ID, r.Verdict, r.Reason, r.End != nil, err)
	o := m.ops[op.ID]
	still := m.version == before
	if r.Reason == power.ReasonRepeat {
		m.met["repeat"]++
	}
	switch {
	case err != nil:
		return // it may have been accepted or not; the journal will tell
	case r.Op.ID != op.ID:
		m.breach("answer", "%s was asked and %s is answered", op.ID, r.Op.ID)
	case o != nil && r.Verdict == power.VerdictRefuse && still && m.remembers(o):
		m.breach("answer", "%s, accepted before, is refused (%s)", op.ID, r.Reason)
	case r.Verdict == power.VerdictRefuse:
		m.refused(op, r, still)
	case o == nil:
		m.breach("accepted is durable", "%s is answered %s (%s), and no record of it is durable", op.ID, r.Verdict, r.Reason)
	case r.End != nil && o.end == nil:
		m.breach("accepted is durable", "%s is answered as ended %s, which is not durable", op.ID, r.End.Outcome)
	case r.End != nil && !sameEnd(*r.End, *o.end):
		m.breach("one outcome", "%s is answered as ended %+v, the journal says %+v", op.ID, *r.End, *o.end)
	case r.End == nil && o.end != nil && still:
		m.breach("one outcome", "%s is answered as outstanding, it ended %s", op.ID, o.end.Outcome)
	case r.Reason != power.ReasonRepeat && r.Verdict != o.says.Verdict:
		m.breach("answer", "%s is answered %s, the journal says %s", op.ID, r.Verdict, o.says.Verdict)
	}
}

// remembers reports whether the agent has to know an operation that is asked for
// again: until central has its end, and then the newest of each node.
func (m *OpsModel) remembers(o *opsOp) bool {
	newer := 0 // a restart puts those that have ended in the order of their acceptance
	for _, x := range o.node.done {
		if x.op.Seq > o.op.Seq {
			newer++
		}
	}
	return !o.gone || newer < m.rules.Keeps && slices.Contains(o.node.done[max(0, len(o.node.done)-m.rules.Keeps):], o)
}

// Retold takes what a restored central is told of ends that were acknowledged before.
func (m *OpsModel) Retold(list []api.OpReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := map[string]api.OpReport{}
	for _, r := range list {
		told[r.Op.ID] = r
	}
	m.note("   %d ends are told again", len(list))
	for _, n := range m.nodes {
		for _, o := range n.done {
			if !o.gone || !m.remembers(o) {
				continue
			}
			m.met["told again"]++
			if r, ok := told[o.op.ID]; !ok || r.End == nil || r.End.Outcome != o.end.Outcome || r.Op.Node != o.op.Node ||
				r.Op.AskedBy != o.op.AskedBy {
				m.breach("restored", "%s ended %s, and a restored central is told %+v", o.op.ID, o.end.Outcome, r)
			}
		}
	}
}

// refused holds a refusal against the rules. still: nothing became durable meanwhile.
func (m *OpsModel) refused(op power.Op, r api.OpReport, still bool) {
	m.met["verdict refuse "+string(r.Reason)]++
	n := m.nodes[op.Node]
	want := power.Reason("")
	switch {
	case n == nil:
		want = power.ReasonNoNode
	case op.Origin == power.FromLocal && n.desired.Enforces() && twoStates[op.Action] != "" && twoStates[op.Action] != n.desired.State():
		want = power.ReasonDesired
	default:
		if op.Seq == 0 {
			op.Seq = r.Op.Seq
		}
		want = foretell(n.lane, n.lastSeq, op, false).Reason
		if want == "" {
			want = foretell(n.lane, n.lastSeq, op, true).Reason
		}
	}
	if r.Reason != want && still {
		m.breach("verdict", "%s (%s, %s) is refused (%s) while %s is outstanding, want %q", op.ID, op.Action, op.IfBusy, r.Reason,
			laneText(n.lane), want)
	}
}

// CancelAsked notes that an operation is about to be cancelled.
func (m *OpsModel) CancelAsked(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancels[id] = true
}

// CancelAnswered holds the answer to that against what is durable.
func (m *OpsModel) CancelAnswered(id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   cancel %s: %v", id, err)
	o := m.ops[id]
	if err == nil && (o == nil || o.cancel == nil && o.end == nil) {
		m.breach("cancel", "cancelling %s is answered, and no record of it is durable", id)
	}
}
