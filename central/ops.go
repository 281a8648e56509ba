package central

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/internal/backoff"
	"rackpower/power"
)

// Bounds of operations at central.
const (
	defaultFound = api.MaxPage                            // in an answer, unless they are named
	maxOpenOf    = 20_000                                 // of an agent that have not ended
	maxOpenOn    = power.MaxOutstanding + power.MaxJoined // of a node: what its agent takes
	expireAtOnce = 1000
)

// asked is a request that makes sense, before it is held against anything.
type asked struct {
	op     power.Op
	within time.Duration // what the deadline was made of
	hold   *power.Hold   // to be set together with the request, without its sequence yet; nil: none
}

// held is the node as the request is weighed: with the hold that comes with it.
func (a asked) held(n store.Node) store.Node {
	if a.hold != nil {
		n.Hold = *a.hold
	}
	return n
}

// readRequests makes operations of requests, which are valid by themselves.
func readRequests(in api.AskOps, now time.Time) []asked {
	all := make([]asked, len(in.Ops))
	for i, r := range in.Ops {
		all[i] = readRequest(r, r.AskedBy, now)
	}
	return all
}

func readRequest(r api.OpRequest, who string, now time.Time) asked {
	op := r.Op(who, power.FromCentral, now.UTC()).WithDefaults(now.UTC())
	return asked{op: op, within: op.Deadline.Sub(op.AskedAt), hold: r.HoldWith(op)}
}

// sameRequest reports whether a stored operation is what is asked for again.
// Who asked and why may differ: the first one counts.
func sameRequest(o *store.Op, a asked) bool {
	return o.Node == a.op.Node && o.Action == a.op.Action && o.Options == a.op.Options && o.NoEscalate == a.op.NoEscalate &&
		o.Deadline.Sub(o.AskedAt) == a.within
}

// askAll takes or refuses each request of who may touch all of the nodes.
func (u *unitOfWork) askAll(in api.AskOps) ([]api.Op, error) {
	all := readRequests(in, u.now)
	if err := mayTouch(u.tx, nodesOf(all)...); err != nil {
		return nil, err
	}
	return u.takeAll(all)
}

func nodesOf(all []asked) []string {
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.op.Node
	}
	return names
}

// takeAll takes or refuses each request; any error undoes all.
func (u *unitOfWork) takeAll(all []asked) ([]api.Op, error) {
	out := make([]api.Op, 0, len(all))
	ids := make([]string, len(all))
	for i, a := range all {
		ids[i] = a.op.ID
	}
	known, err := u.tx.OpsNamed(ids)
	if err != nil {
		return nil, err
	}
	for i, a := range all {
		o, found := known[a.op.ID]
		switch {
		case !found:
			if o, err = u.take(a); err != nil {
				return nil, err
			}
			if o.Rev > 0 { // it is stored
				known[a.op.ID] = o
			}
		case !sameRequest(&o, a):
			return nil, usedBefore(u.tx, i, &o)
		}
		out = append(out, u.c.show(&o, u.now))
	}
	return out, nil
}

func usedBefore(tx *store.Tx, i int, o *store.Op) error {
	if mayTouch(tx, o.Node) != nil {
		return api.Problemf(api.CodeBadRequest, "request %d: id %s was used before: ask again with an id of its own", i+1, o.ID)
	}
	return api.Problemf(api.CodeBadRequest,
		"request %d: id %s was used before, for something else (%s of node %s): ask again with an id of its own", i+1, o.ID, o.Action, o.Node)
}

// take stores one request, taken or refused, with the hold that it asks for. That of
// an unknown node is answered and not stored.
func (u *unitOfWork) take(a asked) (store.Op, error) {
	node, known, err := u.tx.Node(a.op.Node)
	if err != nil {
		return store.Op{}, err
	}
	a.op.Seq = u.tx.NextSeq(u.now)
	o := judge(a.op, a.held(node), known, u.now)
	if !known {
		return o, nil
	}
	if o.Stage() == store.StageTaken && o.Action == power.ActCap {
		u.c.refuseOld(&o, u.now)
	}
	open, err := u.tx.FirstOpenOn(node.Name, outstandingShown+1)
	if err != nil {
		return o, err
	}
	if o.Stage() == store.StageTaken {
		says, err := u.full(node, len(open))
		if err != nil {
			return o, err
		}
		if says != "" {
			refuse(&o, power.ReasonQueueFull, says, u.now)
		}
	}
	if o.Stage() == store.StageTaken {
		if err := u.takeIn(&o, node, a.hold); err != nil {
			return o, err
		}
	}
	asked := entry(&o, auditAsked, o.AskedBy, u.now)
	asked.Detail += outstanding(open)
	if err := u.tx.AddOp(&o); err != nil {
		return o, err
	}
	u.marks.note(o.Rev)
	if err := u.opEvent(&o, asked); err != nil {
		return o, err
	}
	if o.Outcome == power.Refused {
		return o, u.opEvent(&o, entry(&o, auditRefused, "central", u.now))
	}
	return o, nil
}

// takeIn has a request go to the node's agent, with the hold that comes with it.
func (u *unitOfWork) takeIn(o *store.Op, node store.Node, hold *power.Hold) error {
	if err := u.losesByOp(node, o.Action); err != nil {
		return err
	}
	o.Message = "taken by central"
	if hold != nil {
		if err := u.hold(node, *hold, "together with operation "+o.ID); err != nil {
			return err
		}
		o.Message += "; the node is held " + describeHold(*hold)
		if note := neverCut(node, *hold); note != "" {
			o.Message += "; " + note
		}
	}
	if note := cmp.Or(u.c.waitsNote(node.WaitsFor, u.now), u.c.awayNote(o, u.now)); note != "" {
		o.Message += "; " + note
	}
	o.Cursor = u.tx.NextRev()
	o.Delivered = u.leavesNow(node)
	u.marks.raise(o.Rack, o.Cursor)
	return nil
}

// leavesNow reports whether a request that is taken leaves for its agent at once, since a poll of
// that waits for it. Then it counts as delivered from the beginning, and a poll with other requests
// only needs no job of its own to note that.
func (u *unitOfWork) leavesNow(n store.Node) bool {
	if n.WaitsFor != "" || u.leaving[n.Agent] >= deliverAtOnce || !u.c.sessions.of(n.Agent).listens() {
		return false
	}
	u.leaving[n.Agent]++
	return true
}

// outstandingShown is how many operations that are outstanding the audit log names.
const outstandingShown = 3

// outstanding says for the audit log what has not ended on a node, "" for nothing.
func outstanding(open []store.Op) string {
	if len(open) == 0 {
		return ""
	}
	var texts []string
	for _, o := range open[:min(len(open), outstandingShown)] {
		texts = append(texts, fmt.Sprintf("%s %s", o.Action, o.ID))
	}
	if len(open) > outstandingShown {
		texts = append(texts, "...")
	}
	return "; outstanding: " + strings.Join(texts, ", ")
}

// judge decides whether central takes a request. What is outstanding on the
// node is not weighed here: that is the agent's part.
func judge(op power.Op, node store.Node, known bool, now time.Time) store.Op {
	o := store.Op{Op: api.NewOp(op, node.Agent)}
	o.Phase = api.PhaseTaken
	refuse := func(why power.Reason, says string) { refuse(&o, why, says, now) }
	switch desired := power.Effective(node.Status, node.Hold, now); {
	case !known:
		refuse(power.ReasonNoNode, fmt.Sprintf("no node %s", op.Node))
	case node.Agent == "":
		refuse(power.ReasonNoNode, fmt.Sprintf("node %s is assigned to no agent, since its own was forgotten: give it one (rackpower node add "+
			"%s --update --rack RACK)", op.Node, op.Node))
	case node.BMC == "":
		refuse(power.ReasonConfigless, fmt.Sprintf("no BMC is known for node %s", op.Node))
	case node.Damaged() != "":
		refuse(power.ReasonDamaged, damagedNote(node))
	case node.Shared != "":
		refuse(power.ReasonShared, power.SharedBMC(node.Name, node.Shared))
	case node.Protected.Forbids(op.Action):
		refuse(power.ReasonProtected, node.Protected.Refusal(node.Name))
	case desired.Conflicts(op.Action):
		refuse(power.ReasonDesired, power.RefusedBy(op.Action, node.Status, node.Hold, now))
	}
	return o
}

// refuseOld refuses a cap of a node whose agent is known to be of before there were caps. One
// that is away may be another when it is back, and says then that it cannot.
func (c *Central) refuseOld(o *store.Op, now time.Time) {
	session := c.sessions.of(o.Rack)
	if says := session.tooOld(api.ProtocolCap); says != "" && !c.presence(o.Rack).Absent() {
		refuse(o, power.ReasonOldAgent, says, now)
	}
}

// refuse ends a request that is not taken.
func refuse(o *store.Op, why power.Reason, says string, now time.Time) {
	finish(o, power.End{Outcome: power.Refused, Reason: why, At: now})
	o.Verdict, o.Message, o.Detail = power.VerdictRefuse, says, says
}

// full says why nothing more is taken for a node now, "" when it is; then one more counts
// as taken. Every request that is taken has to be delivered and told of, so that an agent
// which is away for long must not find more of them than it can take in. ofNode is how many
// have not ended on the node, or at least that many where it is more than are shown.
func (u *unitOfWork) full(n store.Node, ofNode int) (says string, err error) {
	ofAgent, known := u.open[n.Agent]
	if !known {
		if ofAgent, err = u.tx.CountOpenOf(n.Agent); err != nil {
			return "", err
		}
	}
	if ofNode > outstandingShown {
		if ofNode, err = u.tx.CountOpenOn(n.Name); err != nil {
			return "", err
		}
	}
	switch {
	case ofNode >= maxOpenOn:
		return fmt.Sprintf("%d operations of node %s have not ended, which is the limit for a node: ask again later, or cancel some (rackpower "+
			"ops %s --outstanding)", ofNode, n.Name, n.Name), nil
	case ofAgent >= maxOpenOf:
		return fmt.Sprintf("%d operations of agent %s have not ended, which is the limit for an agent: ask again later (rackpower agents)",
			ofAgent, n.Agent), nil
	}
	u.open[n.Agent] = ofAgent + 1
	return "", nil
}

// wouldTake says what would become of the requests, as far as central knows.
func (c *Central) wouldTake(tx *store.Tx, all []asked, now time.Time) ([]api.Op, error) {
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.op.Node
	}
	open, err := tx.OpenOpsOn(names)
	if err != nil {
		return nil, err
	}
	lanes := lanesOf(open)
	out := make([]api.Op, 0, len(all))
	for i, a := range all {
		if o, used, err := tx.Op(a.op.ID); err != nil {
			return nil, err
		} else if used && !sameRequest(&o, a) {
			return nil, usedBefore(tx, i, &o)
		}
		node, known, err := tx.Node(a.op.Node)
		if err != nil {
			return nil, err
		}
		a.op.Seq = c.store.Seq(now).Next(now)
		o := judge(a.op, a.held(node), known, now)
		if o.Outcome == "" && o.Action == power.ActCap {
			c.refuseOld(&o, now)
		}
		if o.Outcome == "" {
			o.Phase = ""
			o.Message = "dry run: " + foresee(&o.Op, lanes[a.op.Node], a.op, now)
			if a.hold != nil {
				o.Message += "; the node would be held " + describeHold(*a.hold)
			}
			if note := c.awayNote(&o, now); note != "" {
				o.Message += "; " + note
			}
		}
		out = append(out, o.Op)
	}
	return out, nil
}

// foresee says what the agent will decide, as far as central knows.
func foresee(o *api.Op, lane power.Lane, op power.Op, now time.Time) (says string) {
	d := power.Decide(lane, op)
	o.Verdict, o.Why = d.Verdict, d.Reason
	return power.Describe(d, lane, op, now)
}

// lanesOf is what Decide would see, as far as central knows.
func lanesOf(open []store.Op) map[string]power.Lane {
	lanes, joined := map[string]power.Lane{}, map[string]int{}
	for i := range open {
		joined[open[i].Joined]++
	}
	for i := range open {
		o := &open[i]
		lane := lanes[o.Node]
		lane.LastSeq = max(lane.LastSeq, o.Seq)
		held := power.Held{Op: o.Request(), Joined: joined[o.ID], Running: o.Stage() == store.StageRunning, Cancelling: o.CancelBy != ""}
		switch {
		case o.Joined != "":
		case held.Running:
			lane.Outstanding = slices.Insert(lane.Outstanding, 0, held)
		default:
			lane.Outstanding = append(lane.Outstanding, held)
		}
		lanes[o.Node] = lane
	}
	return lanes
}

// expire ends what never left central and whose time is over. It and the
// delivery run as jobs of the one writer: an operation goes one way or the other.
func (c *Central) expire(ctx context.Context) {
	now := c.cfg.Now()
	due := false
	err := c.store.View(ctx, func(tx *store.Tx) error {
		ops, err := tx.DueOps(now, 1)
		due = len(ops) > 0
		return err
	})
	if err == nil && due {
		err = c.write(ctx, now, "central", (*unitOfWork).expireDue)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		c.log.Error("cannot end expired operations", "err", err)
	}
}

func (u *unitOfWork) expireDue() error {
	due, err := u.tx.DueOps(u.now, expireAtOnce)
	if err != nil {
		return err
	}
	for i := range due {
		o := &due[i]
		detail := fmt.Sprintf("its time was over before agent %s asked for it", o.Rack)
		if err := u.end(o, power.End{Outcome: power.Expired, Reason: power.ReasonDeadline, Detail: detail, At: u.now}); err != nil {
			return err
		}
	}
	return nil
}

// end ends an operation by central's own decision, and those that joined it.
func (u *unitOfWork) end(o *store.Op, end power.End) error {
	if err := u.endAlone(o, end); err != nil {
		return err
	}
	return u.endJoiners(o)
}

// endAlone is end that leaves those that joined it.
func (u *unitOfWork) endAlone(o *store.Op, end power.End) error {
	finish(o, end)
	if err := u.tx.SaveOp(o); err != nil {
		return err
	}
	u.marks.note(o.Rev)
	return u.opEvent(o, entry(o, auditEnded, u.who, u.now))
}

func (c *Central) cancelOp(r *http.Request, in api.CancelOp) (api.Op, error) {
	now := c.cfg.Now()
	var out api.Op
	err := c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		o, found, err := u.tx.Op(r.PathValue("id"))
		if err != nil {
			return err
		}
		if !found || mayTouch(u.tx, o.Node) != nil {
			return api.Problemf(api.CodeNotFound, "no operation %s", r.PathValue("id"))
		}
		if err := u.cancel(&o, in.Reason); err != nil {
			return err
		}
		out = c.show(&o, now)
		return nil
	})
	return out, err
}

func (u *unitOfWork) cancel(o *store.Op, why string) error {
	switch {
	case o.Stage() == store.StageEnded:
		return api.Problemf(api.CodeRefused, "%s of node %s has ended already: %s", o.Action, o.Node, howEnded(o))
	case o.Joined != "":
		return api.Problemf(api.CodeRefused, "this request shares the outcome of operation %s: cancel that one", o.Joined)
	case o.CancelBy != "":
		return nil // once is enough
	}
	o.CancelBy, o.CancelReason = u.who, why
	if err := u.tx.AddAudit(api.AuditEntry{
		At: u.now, Who: u.who, What: auditCancel, Node: o.Node, Op: o.ID, Why: why,
		Detail: string(o.Action),
	}); err != nil {
		return err
	}
	if o.Stage() == store.StageTaken && !o.Delivered {
		detail := fmt.Sprintf("cancelled by %s before it left central", u.who)
		return u.end(o, power.End{Outcome: power.Cancelled, Reason: power.ReasonAsked, Detail: detail, At: u.now})
	}
	o.CancelCursor = u.tx.NextRev()
	u.marks.raise(o.Rack, o.CancelCursor)
	if err := u.tx.SaveOp(o); err != nil {
		return err
	}
	u.marks.note(o.Rev)
	return nil
}

func howEnded(o *store.Op) string {
	text := string(o.Outcome)
	if o.EndedAt != nil {
		text += " at " + power.At(*o.EndedAt)
	}
	if o.Detail != "" {
		text += " (" + o.Detail + ")"
	}
	return text
}

// queryPause is how often who waits for anything at all looks again, and onePause, times what
// is waited for, who waits for what is named.
const (
	queryPause = 20 * time.Millisecond
	onePause   = 20 * time.Microsecond
)

func (c *Central) queryOps(r *http.Request, in api.QueryOps) (api.FoundOps, error) {
	if most := max(defaultFound, len(in.IDs)); in.Limit <= 0 || in.Limit > most {
		in.Limit = most // who names operations gets all of them
	}
	if err := c.checkRev(r.Context(), &in); err != nil {
		return api.FoundOps{}, err
	}
	timer := time.NewTimer(min(max(in.Wait, 0), maxWait))
	defer timer.Stop()
	var w *wait
	for {
		rev, news := c.changes.look()
		found := api.FoundOps{Ops: []api.Op{}, Rev: in.AfterRev}
		if rev > in.AfterRev || in.AfterRev == 0 || in.Wait <= 0 {
			var err error
			if found, err = c.findOps(r.Context(), in); err != nil || len(found.Ops) > 0 || in.Wait <= 0 {
				return found, err
			}
		}
		if w == nil {
			var err error
			if w, err = c.awaitOps(r.Context(), in.IDs); err != nil {
				return found, err
			}
			defer w.leave()
			continue // nothing is missed from here on
		}
		if w.token != nil {
			news = w.token
		}
		resume, err := idle(r.Context())
		if err != nil {
			return found, err
		}
		select {
		case <-news:
		case <-timer.C:
			return found, nil
		case <-c.stop:
			return found, nil
		case <-r.Context().Done():
			return found, r.Context().Err()
		}
		if backoff.Sleep(r.Context(), w.pause) != nil {
			return found, r.Context().Err()
		}
		if err := resume(); err != nil {
			return found, err
		}
	}
}

// checkRev drops a revision of a database that is no more. What the notifier says
// does not tell: a job that was undone leaves a gap above it.
func (c *Central) checkRev(ctx context.Context, in *api.QueryOps) error {
	if rev, _ := c.changes.look(); in.AfterRev <= rev {
		return nil
	}
	return c.store.View(ctx, func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err == nil && in.AfterRev > rev {
			in.AfterRev = 0
		}
		return err
	})
}

func (c *Central) findOps(ctx context.Context, in api.QueryOps) (api.FoundOps, error) {
	found := api.FoundOps{Ops: []api.Op{}}
	now := c.cfg.Now()
	err := c.store.View(ctx, func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err != nil {
			return err
		}
		found.Rev = rev
		if scope, err := within(tx); err != nil || !narrow(&in, scope) {
			return err
		}
		ops, err := tx.FindOps(in)
		if in.AfterRev > 0 && len(ops) == in.Limit { // there may be more: go on behind these
			found.Rev = slices.MaxFunc(ops, func(a, b store.Op) int { return cmp.Compare(a.Rev, b.Rev) }).Rev
		}
		if err != nil {
			return err
		}
		if in.AfterRev == 0 && len(ops) == in.Limit {
			found.Next = api.OpPlace(ops[0].Op)
		}
		for i := range ops {
			found.Ops = append(found.Ops, c.show(&ops[i], now))
		}
		return nil
	})
	return found, err
}

// narrow has a query find only what is within a scope, nil for all; false: that is nothing.
func narrow(q *api.QueryOps, scope map[string]bool) bool {
	switch {
	case scope == nil:
		return true
	case len(q.Nodes) == 0:
		q.Nodes = slices.Collect(maps.Keys(scope))
	default:
		q.Nodes = slices.DeleteFunc(slices.Clone(q.Nodes), func(name string) bool { return !scope[name] })
	}
	return len(q.Nodes) > 0
}

// show is an operation as people see it.
func (c *Central) show(o *store.Op, now time.Time) api.Op {
	out := o.Op
	if o.Stage() != store.StageEnded {
		out.AgentNote = c.awayNote(o, now)
	}
	return out
}

// awayNote says that the operation's agent is away, "" when it is not.
func (c *Central) awayNote(o *store.Op, now time.Time) string {
	if note := c.waitsNote(c.moving.of(o.Node), now); note != "" && o.Stage() == store.StageTaken && !o.Delivered {
		return note + "; kept until " + o.Deadline.UTC().Format("15:04:05Z")
	}
	p := c.sessions.of(o.Rack).presence(now, c.cfg.Away)
	if !p.Absent() {
		return ""
	}
	note := agentIs(o.Rack, p.AgentPresence, now)
	if p.State == api.AgentFailed || p.State == api.AgentLeft {
		note += ", and no other agent has the node"
	}
	if o.Stage() == store.StageTaken && !o.Delivered {
		note += "; kept until " + power.At(o.Deadline)
	}
	return note
}

// agentIs is a sentence about an agent: "agent r1 is away since ...".
func agentIs(agent string, p api.AgentPresence, now time.Time) string {
	return "agent " + agent + " " + p.Predicate(now)
}

// marks collects what a job changed, for those who wait. The key "" holds the
// highest revision of an operation.
type marks map[string]int64

func (m marks) raise(agent string, cursor int64) { m[agent] = max(m[agent], cursor) }
func (m marks) note(rev int64)                   { m[""] = max(m[""], rev) }

// announce wakes, after the commit, whom the marks concern.
func (u *unitOfWork) announce() {
	if len(u.marks) == 0 {
		return
	}
	u.tx.OnCommit(func() {
		for agent, cursor := range u.marks {
			if agent != "" {
				d := u.c.sessions.of(agent)
				d.update(func() { d.mark = max(d.mark, cursor) })
			}
		}
		u.c.changes.raise(u.marks[""])
	})
}

// brief lists names for an error: all of a few, else the first of many.
func brief(names []string) string {
	const few = 10
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}
