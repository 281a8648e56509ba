package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/noderange"
)

// What a central says counts as far as the agent knows it. The first one that it ever
// meets is trusted, and so is a newer restore of that one; any other takes nodes, holds
// and acknowledgements from the agent only when a person at the rack has said so.

// meeting is how a central that answers relates to the one that the agent trusts.
type meeting int

const (
	meetTrusted  meeting = iota // the very same state of its database
	meetFirst                   // the agent never had a central
	meetRestored                // the same, restored from a backup since
	meetOlder                   // the same, with a database that a restore had replaced
	meetUnknown                 // another one
)

// meet compares the central that answers with the trusted one. bare says that the
// agent never had a central, a node or an operation.
func meet(trusted, answers api.Database, bare bool) meeting {
	switch {
	case answers == trusted:
		return meetTrusted
	case trusted.CentralID == "" && bare:
		return meetFirst
	case answers.CentralID != trusted.CentralID:
		return meetUnknown
	case answers.Incarnation < trusted.Incarnation:
		return meetOlder
	default:
		return meetRestored
	}
}

// trusted reports whether the agent follows it without being told to.
func (m meeting) trusted() bool { return m != meetOlder && m != meetUnknown }

// trustRecord is the central that the agent trusts, and what of its word waits until a
// person confirms it.
type trustRecord struct {
	api.Database
	At     time.Time `json:"at"`           // since when
	By     string    `json:"by,omitempty"` // who said so; empty: it was the first, or a restore of it
	Reason string    `json:"reason,omitempty"`
	// Reported says that this database knows all ends that the agent keeps.
	Reported bool `json:"reported,omitempty"`
	// MayGo names the nodes that the person who trusts it has let go, until its first assignment.
	MayGo []string `json:"may_go,omitempty"`
	// Kept names the nodes that it took away and that the agent goes on with, KeptSince
	// since when.
	Kept      []string  `json:"kept,omitempty"`
	KeptSince time.Time `json:"kept_since,omitzero"`
	// Removed counts the nodes that it took away since RemovedSince, of RemovedOf.
	Removed      int       `json:"removed,omitempty"`
	RemovedOf    int       `json:"removed_of,omitempty"`
	RemovedSince time.Time `json:"removed_since,omitzero"`
}

// removedWithin is how long removals count together: a script takes nodes away one by one.
const removedWithin = time.Hour

// shrinks reports whether losing so many of the nodes waits for a person: all of them,
// or more than half of them and more than 5.
func shrinks(lost, of int) bool { return lost >= of || lost > 5 && 2*lost > of }

// part divides nodes that are no longer assigned into those that go and those that are
// kept until a person confirms it. The first assignment of a database may take nothing
// away that nobody confirmed: a restored one does not know what was added after its
// backup. It counts what goes.
func (t *trustRecord) part(gone, confirmed []string, first bool, of int, now time.Time) (gos, kept []string) {
	if len(gone) == 0 {
		return nil, nil
	}
	for _, name := range gone {
		if slices.Contains(confirmed, name) || first && slices.Contains(t.MayGo, name) {
			gos = append(gos, name)
		} else {
			kept = append(kept, name)
		}
	}
	if t.RemovedSince.IsZero() || now.Sub(t.RemovedSince) > removedWithin || now.Before(t.RemovedSince) {
		t.Removed, t.RemovedOf, t.RemovedSince = 0, of, now
	}
	fresh := slices.DeleteFunc(slices.Clone(kept), func(name string) bool { return slices.Contains(t.Kept, name) })
	if first || len(fresh) < len(kept) || shrinks(t.Removed+len(fresh)+len(t.Kept), t.RemovedOf) {
		return gos, kept
	}
	t.Removed += len(fresh)
	return append(gos, fresh...), nil
}

// keep notes what is kept now: what was, but for the nodes that came back or went, and more.
func (t *trustRecord) keep(more []string, assigned map[string]bool, gone []string, now time.Time) {
	kept := slices.DeleteFunc(slices.Clone(t.Kept), func(name string) bool { return assigned[name] || slices.Contains(gone, name) })
	kept = append(kept, more...)
	slices.SortFunc(kept, compareNames)
	kept = slices.Compact(kept)
	switch {
	case len(kept) == 0:
		t.KeptSince = time.Time{}
	case len(t.Kept) == 0:
		t.KeptSince = now
	}
	t.Kept = kept
}

// trusts is the central that is trusted.
func (s *assigned) trusts() trustRecord {
	return s.now.Load().trust
}

// setTrust makes durable which central is trusted from now on. Nodes that the one before
// took away stay until the first assignment of this one.
func (s *assigned) setTrust(t trustRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.publish()
	return s.putTrust(t)
}

func (s *assigned) putTrust(t trustRecord) error {
	if _, err := s.log.Append(entry(journal.Put, kindTrust, trustKey, t)); err != nil {
		return fmt.Errorf("cannot keep which central is trusted: %w", err)
	}
	s.trust = t
	return nil
}

// toldAll makes durable that the database has been told all ends.
func (s *assigned) toldAll(db api.Database) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.publish()
	if s.trust.Database != db || s.trust.Reported {
		return nil
	}
	t := s.trust
	t.Reported = true
	return s.putTrust(t)
}

// letGo drops nodes that are kept although central took them away: a person has
// confirmed it. It returns those that are gone.
func (s *assigned) letGo(names []string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.publish()
	var gone []string
	var entries []journal.Entry
	for _, name := range names {
		if _, ok := s.nodes[name]; ok && slices.Contains(s.trust.Kept, name) {
			gone = append(gone, name)
			entries = append(entries, s.dropAll(name)...)
		}
	}
	t := s.trust
	t.keep(nil, nil, names, time.Now())
	if _, err := s.log.Append(append(entries, entry(journal.Put, kindTrust, trustKey, t))...); err != nil {
		return nil, fmt.Errorf("cannot let nodes go: %w", err)
	}
	s.trust = t
	s.forget(gone)
	return gone, nil
}

// forget takes nodes out of memory that have left the log.
func (s *assigned) forget(gone []string) {
	for _, name := range gone {
		delete(s.nodes, name)
		delete(s.memories, name)
		delete(s.holds, name)
		s.sorted = nil
	}
}

// welcome decides whether the central that answered is followed, and makes durable when
// that is another one, or another state of it, than before.
func (l *link) welcome(db api.Database) (meeting, error) {
	trust := l.assigned.trusts()
	m := meet(trust.Database, db, l.bare)
	switch {
	case !m.trusted() || m == meetTrusted:
		return m, nil
	case m == meetRestored:
		l.logger.Warn("central's database was restored: all ends that are kept here are told again", "central_id", db.CentralID, "incarnation",
			db.Incarnation)
	}
	return m, l.assigned.setTrust(trustRecord{Database: db, At: time.Now().UTC().Round(0)})
}

// Trusts reports whether the agent takes anything from that central. One that never had
// a central trusts each.
func (a *Agent) Trusts(db api.Database) bool {
	return meet(a.assigned.trusts().Database, db, a.link.bare).trusted()
}

// untrusted is a central that answers and that the agent does not follow, with what it
// would assign.
type untrusted struct {
	api.Database
	why   meeting
	since time.Time
	known bool // nodes holds what it would assign
	nodes map[string]api.AssignedNode
	rev   int64
}

// take takes its answer to a poll.
func (u *untrusted) take(got api.Assignment) {
	if got.Full {
		u.known, u.nodes = true, map[string]api.AssignedNode{}
	}
	for _, name := range got.Removed {
		delete(u.nodes, name)
	}
	for _, n := range got.Nodes {
		u.nodes[n.Name] = n
	}
	u.rev = got.Rev
}

// says is why it is not followed.
func (u *untrusted) says(trust trustRecord) string {
	switch {
	case u.why == meetOlder:
		return fmt.Sprintf("central %s answers with an older database than the one that this agent has followed since %s: a restore had "+
			"replaced it", u.CentralID, power.At(trust.At))
	case trust.CentralID == "":
		return fmt.Sprintf("central %s answers, which this agent has never met, and it does not know any more which central it followed",
			u.CentralID)
	default:
		return fmt.Sprintf("central %s answers, which this agent has never followed: it has followed %s since %s", u.CentralID, trust.CentralID,
			power.At(trust.At))
	}
}

// trustState is what a person has to know before trusting a central.
func (l *link) trustState() api.Trust {
	trust := l.assigned.trusts()
	out := api.Trust{Trusted: trust.Database, Since: trust.At, By: trust.By, Kept: trust.Kept}
	out.Outstanding = len(l.outbox.unacknowledged())
	u := l.stranger()
	if u == nil {
		return out
	}
	out.Untrusted = &api.UntrustedCentral{Database: u.Database, Since: u.since, Message: u.says(trust), Known: u.known}
	if !u.known {
		return out
	}
	mine := map[string]*assignedNode{}
	for _, n := range l.assigned.all() {
		mine[n.Name] = n
		if _, stays := u.nodes[n.Name]; !stays {
			out.Untrusted.Removes = append(out.Untrusted.Removes, n.Name)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(u.nodes), compareNames) {
		switch n, ok := mine[name]; {
		case !ok:
			out.Untrusted.Adds = append(out.Untrusted.Adds, name)
		case n.BMC != u.nodes[name].BMC || n.Status != u.nodes[name].Status:
			out.Untrusted.Changes = append(out.Untrusted.Changes, name)
		}
	}
	return out
}

// confirmTrust does what a person at the rack confirmed: trust the central that answers,
// or let the nodes go that central took away.
func (l *link) confirmTrust(in api.ConfirmTrust) (api.Trust, error) {
	state := l.trustState()
	if in.Database != (api.Database{}) {
		u := state.Untrusted
		if u == nil || u.Database != in.Database {
			return state, api.Problemf(api.CodeRefused, "central %s does not answer this agent now: nothing was changed; see rackpower local trust",
				in.CentralID)
		}
		if more := without(u.Removes, in.Removes); len(more) > 0 {
			return state, api.Problemf(api.CodeRefused,
				"nothing was changed: by now it would take more nodes away: %s; look again with rackpower local trust", noderange.Fold(more))
		}
		t := trustRecord{Database: in.Database, At: time.Now().UTC().Round(0), By: in.AskedBy, Reason: in.Reason, MayGo: in.Removes}
		if err := l.assigned.setTrust(t); err != nil {
			return state, err
		}
		l.logger.Warn("another central is trusted", "central_id", in.CentralID, "was", state.Trusted.CentralID, "by", in.AskedBy, "reason",
			in.Reason,
			"removes", len(in.Removes))
		l.alarms.clear(api.AlarmCentralUnknown)
		l.over(errHelloAgain)
		return l.trustState(), nil
	}
	if len(in.Removes) == 0 {
		return state, api.Problemf(api.CodeBadRequest, "neither a central nor a node is named")
	}
	if unknown := without(in.Removes, state.Kept); len(unknown) > 0 {
		return state, api.Problemf(api.CodeRefused,
			"nothing was changed: these nodes do not wait to be removed: %s; look again with rackpower local trust", noderange.Fold(unknown))
	}
	if err := l.agent.letGo(in.Removes, in.AskedBy, in.Reason); err != nil {
		return state, err
	}
	return l.trustState(), nil
}

// letGo drops nodes that central took away, as a person confirmed.
func (a *Agent) letGo(names []string, by, reason string) error {
	gone, err := a.assigned.letGo(names)
	if err != nil {
		return err
	}
	a.logger.Warn("nodes that central took away are let go", "nodes", noderange.Fold(gone), "by", by, "reason", reason)
	a.assignmentChanged(nil, gone)
	return nil
}

// without returns what of a is not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// untrustedSession keeps in touch with a central that is not trusted: it is told that
// this is so, its requests are refused, and what it would assign is kept for the person
// who is to decide. It gets neither ends, holds and readings nor anything acknowledged.
func (l *link) untrustedSession(ctx context.Context, cancel context.CancelCauseFunc, w api.Welcome, met meeting) error {
	u := &untrusted{Database: w.Database, why: met, since: time.Now().UTC().Round(0)}
	if old := l.stranger(); old != nil && old.Database == w.Database {
		u.since = old.since
	}
	l.begin(cancel, u)
	l.raiseUntrusted()
	var refused []api.OpReport
	var cursor int64
	for {
		if err := l.tellUntrusted(ctx, w, refused); err != nil {
			return err
		}
		one, done := context.WithTimeout(ctx, pollWait+10*time.Second)
		l.mu.Lock()
		rev := u.rev
		l.mu.Unlock()
		got, err := l.central.Poll(one, l.name, api.Poll{Session: w.Session, Database: w.Database, Rev: rev, Ops: cursor, Wait: pollWait})
		done()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("poll of a central that is not trusted: %w", err)
		}
		l.mu.Lock()
		u.take(got)
		l.mu.Unlock()
		l.raiseUntrusted()
		refused, cursor = nil, got.OpsCursor
		for _, op := range got.Ops {
			text := fmt.Sprintf("agent %s does not trust this central; on its machine: rackpower local trust", l.name)
			refused = append(refused, refusal(op, power.ReasonUntrusted, text))
		}
	}
}

// tellUntrusted reports what a central may know that is not trusted.
func (l *link) tellUntrusted(ctx context.Context, w api.Welcome, refused []api.OpReport) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	state := api.RackState{Monitor: l.view.rack().Monitor}
	for _, al := range l.alarms.list() {
		if al.Kind == api.AlarmCentralUnknown {
			state.Alarms = append(state.Alarms, al)
		}
	}
	_, err := l.central.Report(ctx, l.name, api.Report{
		Session: w.Session, JournalID: l.log.ID(), Epoch: l.log.Epoch(), LSN: l.log.LSN(), Ops: refused, Rack: &state,
	})
	if err != nil {
		return fmt.Errorf("report to a central that is not trusted: %w", err)
	}
	return nil
}

// raiseUntrusted says that a central answers which is not trusted.
func (l *link) raiseUntrusted() {
	state := l.trustState()
	u := state.Untrusted
	if u == nil {
		return
	}
	text := u.Message + ". The agent goes on with what it has and takes nothing from it"
	if u.Known {
		text += fmt.Sprintf("; to trust it means that %d nodes come, %d go and %d change", len(u.Adds), len(u.Removes), len(u.Changes))
	}
	l.alarms.raise(api.Alarm{Kind: api.AlarmCentralUnknown, Message: text, Remedy: "rackpower local trust"})
}

// noteKept raises or ends the alarm about nodes that central took away.
func (a *Agent) noteKept() {
	trust := a.assigned.trusts()
	if len(trust.Kept) == 0 {
		a.alarms.clear(api.AlarmAssignmentShrank)
		return
	}
	a.alarms.raise(api.Alarm{
		Kind: api.AlarmAssignmentShrank, NeedsAck: true, Remedy: "rackpower local trust",
		Message: fmt.Sprintf("central took %d of %d nodes away, and nobody confirmed it: %s. The agent keeps them as they are: assign them "+
			"again, or acknowledge this to let them go",
			len(trust.Kept), len(a.assigned.all()), noderange.Fold(trust.Kept)),
	})
}

// maxTold bounds the ends that are told at once.
const maxTold = maxReportOps

// tellKept tells a database that may not know them all ends that are kept although some
// central has acknowledged them.
func (l *link) tellKept(ctx context.Context, w api.Welcome) error {
	all := l.agent.keptEnds()
	tell := func(n news) error {
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		answer, err := l.central.Report(one, l.name, api.Report{
			Session: w.Session, JournalID: l.log.ID(), Epoch: l.log.Epoch(), LSN: l.log.LSN(), Ops: n.ops, Seq: l.clock.Now(time.Now()),
		})
		cancel()
		if err != nil {
			return fmt.Errorf("report of ends that are kept: %w", err)
		}
		l.heardRev(answer.Rev)
		return nil
	}
	for part := range slices.Chunk(all, maxTold) {
		if err := l.deliver(news{ops: part}, tell); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		l.logger.Info("central was told all ends that are kept", "ends", len(all), "central_id", w.CentralID)
	}
	l.mu.Lock()
	l.again = w.ReportAll
	l.mu.Unlock()
	return l.assigned.toldAll(w.Database)
}

// tellEnforced tells a restored database what is enforced so far, which it compares with what
// it desires.
func (l *link) tellEnforced(ctx context.Context, w api.Welcome) error {
	one, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	told := &api.Enforced{Database: l.assigned.position().Database, Nodes: []api.EnforcedNode{}}
	for _, n := range l.assigned.all() {
		told.Nodes = append(told.Nodes, api.EnforcedNode{Node: n.Name, Status: n.Status, Hold: n.hold})
	}
	_, err := l.central.Report(one, l.name, api.Report{
		Session: w.Session, JournalID: l.log.ID(), Epoch: l.log.Epoch(), LSN: l.log.LSN(), Enforced: told, Seq: l.clock.Now(time.Now()),
	})
	if err != nil {
		return fmt.Errorf("report of what is enforced: %w", err)
	}
	return nil
}

// keptEnds lists the ends that are kept and not about to be told anyway, in the order of
// their sequences.
func (a *Agent) keptEnds() []api.OpReport {
	var all []api.OpReport
	for _, l := range a.allLanes() {
		l.mu.Lock()
		for _, d := range l.done {
			all = append(all, d.report(l.node))
		}
		l.mu.Unlock()
	}
	untold := a.outbox.unacknowledged()
	all = slices.DeleteFunc(all, func(r api.OpReport) bool {
		_, waits := slices.BinarySearch(untold, r.Op.ID)
		return waits
	})
	sortReports(all)
	return all
}
