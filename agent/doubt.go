package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// doubt is what the agent cannot be sure of after one of its logs was damaged, or may be
// older than it was, and what it waits for before it acts. It is kept in the log that it
// is about, from the very write that follows the finding.
type doubt struct {
	// At is when that was found: what was asked for earlier may have been carried out.
	At time.Time `json:"at"`
	// Read: no command is sent before every BMC was asked how things are.
	Read bool `json:"read,omitempty"`
	// Compare: what the log says is outstanding waits until central has said what it
	// knows, or a person has acknowledged the alarm.
	Compare bool `json:"compare,omitempty"`
	// Assign: the monitor waits until central has sent the whole assignment.
	Assign bool `json:"assign,omitempty"`
	// Ack: the monitor waits until a person has acknowledged the alarm.
	Ack bool `json:"ack,omitempty"`
	// Tell: central must be told that records may be lost.
	Tell bool `json:"tell,omitempty"`
}

// doubtKey is no operation's id.
const doubtKey = "doubt/"

func (d doubt) none() bool { return d == (doubt{At: d.At}) }

func (d doubt) and(o doubt) doubt {
	return doubt{
		At: later(d.At, o.At), Read: d.Read || o.Read, Compare: d.Compare || o.Compare, Assign: d.Assign || o.Assign,
		Ack: d.Ack || o.Ack, Tell: d.Tell || o.Tell,
	}
}

// without is what is left of it once some of it is settled.
func (d doubt) without(o doubt) doubt {
	d.Read, d.Compare, d.Tell = d.Read && !o.Read, d.Compare && !o.Compare, d.Tell && !o.Tell
	d.Assign, d.Ack = d.Assign && !o.Assign, d.Ack && !o.Ack
	return d
}

// doubtOf finds the doubt that a log holds.
func doubtOf(live []journal.Record) (d doubt, err error) {
	for _, r := range live {
		if r.Kind == kindDoubt && r.Key == doubtKey {
			err = json.Unmarshal(r.Payload, &d)
		}
	}
	return d, err
}

// onOpenJournal says what follows from what was found in the journal of operations. It
// is durable together with the segment that takes the place of what was found.
func (a *Agent) onOpenJournal(found journal.Recovery, live []journal.Record) []journal.Entry {
	d := doubt{At: time.Now().UTC()}
	switch {
	case found.WentBack != "":
		d.Read, d.Compare, d.Tell = true, true, true
	case found.Damaged():
		d.Read, d.Tell = true, true
	}
	if found.Copied != "" {
		d.Compare, d.Tell = true, true
	}
	if d.none() {
		return nil
	}
	if before, err := doubtOf(live); err == nil {
		d = d.and(before)
	}
	entries := []journal.Entry{entry(journal.Put, kindDoubt, doubtKey, d)}
	if found.WentBack != "" || found.Copied != "" { // central may have been away when more of it happened
		return append(entries, doubtEntries(live, ^uint64(0))...)
	}
	return append(entries, doubtEntries(live, found.LostBelow)...)
}

// doubtEntries mark the operations that have not ended and were accepted before the
// given LSN: of what was done for them a part may be lost.
func doubtEntries(live []journal.Record, below uint64) []journal.Entry {
	ended := map[string]bool{}
	for _, r := range live {
		ended[r.Key] = ended[r.Key] || r.Kind == kindEnded || r.Kind == kindDoubt
	}
	var entries []journal.Entry
	for _, r := range live {
		if (r.Kind == kindAccepted || r.Kind == kindAdded) && r.LSN < below && !ended[r.Key] {
			entries = append(entries, entry(journal.Add, kindDoubt, r.Key, nil))
		}
	}
	return entries
}

// onOpenAssigned is the same for the assignment. A hold that was set here, or what is
// desired of a node, may be lost or old.
func (a *Agent) onOpenAssigned(found journal.Recovery, live []journal.Record) []journal.Entry {
	now := time.Now()
	d := doubt{At: now.UTC()}
	if !found.Damaged() && found.WentBack == "" && found.Copied == "" {
		return nil
	}
	if found.LostBelow == 0 && found.WentBack == "" && found.Copied == "" {
		return []journal.Entry{alarmEntry(assignmentAlarm(found, now))} // nothing is lost
	}
	d.Read, d.Assign, d.Ack = true, true, found.Damaged() || found.WentBack != ""
	if before, err := doubtOf(live); err == nil {
		d = d.and(before)
	}
	entries := []journal.Entry{entry(journal.Put, kindDoubt, doubtKey, d), alarmEntry(assignmentAlarm(found, now))}
	for _, r := range live {
		var at syncRecord
		if r.Kind == kindSync && json.Unmarshal(r.Payload, &at) == nil {
			at.Rev = 0 // central sends everything
			entries = append(entries, entry(journal.Put, kindSync, syncKey, at))
		}
	}
	return entries
}

func assignmentAlarm(found journal.Recovery, now time.Time) api.Alarm {
	text := found.WentBack
	switch {
	case text != "":
	case found.Damaged():
		text = fmt.Sprintf("the assignment is damaged (%v)", found.Damage[0])
	default:
		text = found.Copied + "; a hold that was set at the rack since it was made, or an alarm, may be lost"
	}
	if found.Damaged() && found.LostBelow > 0 || found.WentBack != "" {
		text += "; a hold that was set at the rack may be lost, and the monitor corrects nothing until this is acknowledged"
	}
	return alarmAt(api.Alarm{Kind: api.AlarmAssignmentDamaged, Message: text, NeedsAck: true}, now)
}

// gate keeps what is not to happen yet. Its zero value is open.
type gate struct {
	mu      lock.Mutex[lock.Gate]
	ops     doubt // of the journal of operations
	nodes   doubt // of the assignment
	changed chan struct{}
}

func (g *gate) look() (d doubt, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.ops.and(g.nodes), g.changed
}

func (g *gate) doubts() doubt {
	d, _ := g.look()
	return d
}

// settle notes, durably, that some of the doubt is over.
func (a *Agent) settle(over doubt) {
	g := &a.gate
	g.mu.Lock()
	ops, nodes := g.ops.without(over), g.nodes.without(over)
	if ops == g.ops && nodes == g.nodes {
		g.mu.Unlock()
		return
	}
	for _, part := range []struct {
		log      appender
		was, now doubt
	}{{a.log, g.ops, ops}, {a.assignLg, g.nodes, nodes}} {
		if part.was == part.now {
			continue
		}
		// At stays in the log for a while: see asked.
		if _, err := part.log.Append(entry(journal.Put, kindDoubt, doubtKey, part.now)); err != nil {
			a.logger.Error("what was found out after the damage is found out again by the next start", "err", err)
		}
	}
	g.ops, g.nodes = ops, nodes
	if g.changed != nil {
		close(g.changed)
	}
	g.changed = nil
	g.mu.Unlock()
	a.monitor.Poke()
}

// loadDoubt takes what the logs of operations and of the assignment hold, and has people told.
func (a *Agent) loadDoubt(found journal.Recovery, ops, assigned []journal.Record) error {
	var err error
	if a.gate.ops, err = doubtOf(ops); err != nil {
		return fmt.Errorf("cannot read what is in doubt: %w", err)
	}
	if a.gate.nodes, err = doubtOf(assigned); err != nil {
		return fmt.Errorf("cannot read what is in doubt: %w", err)
	}
	if found.Damaged() {
		text := fmt.Sprintf("the journal is damaged (%v", found.Damage[0])
		if more := len(found.Damage) - 1; more > 0 {
			text += fmt.Sprintf(", and %d more places", more)
		}
		text += fmt.Sprintf("; kept as %s)", strings.Join(found.Kept, ", "))
		if found.LostBelow > 0 {
			text += ": what may not happen twice ended indeterminate, and every BMC is read before anything is done"
		}
		a.alarms.raise(api.Alarm{Kind: api.AlarmJournalDamaged, Message: text, NeedsAck: true})
	}
	if found.WentBack != "" {
		a.alarms.raise(api.Alarm{
			Kind: api.AlarmJournalWentBack, NeedsAck: true,
			Message: found.WentBack + "; what was outstanding waits until central was reached, or this is acknowledged",
		})
	}
	if d := a.gate.doubts(); d.Compare && !a.alarms.active(api.AlarmJournalWentBack) {
		says := found.Copied
		if says == "" {
			says = "the journal may be older than it was"
		}
		a.alarms.raise(api.Alarm{
			Kind: api.AlarmJournalCopied, Remedy: "rackpower local ack " + api.AlarmJournalCopied,
			Message: says + "; what was outstanding waits until central was reached, or this is acknowledged",
		})
	}
	old := time.Now().Add(-recentlyFor)
	for _, part := range []struct {
		log appender
		d   *doubt
	}{{a.log, &a.gate.ops}, {a.assignLg, &a.gate.nodes}} {
		if part.d.none() && !part.d.At.IsZero() && part.d.At.Before(old) {
			if _, err := part.log.Append(entry(journal.Drop, kindDoubt, doubtKey, nil)); err != nil {
				return err
			}
			*part.d = doubt{}
		}
	}
	return nil
}

// clearDoubt waits until the operation may touch its node.
func (x *execution) clearDoubt(ctx context.Context) error {
	for {
		d, changed := x.a.gate.look()
		switch {
		case d.Compare && x.t.replayed:
			x.l.setPhase(x.t, "waiting until central has said what it knows: the journal may be older than it was")
		case x.decided() != nil:
			return nil // it ends without a command
		case d.Read:
			x.l.setPhase(x.t, "waiting until every BMC has been read: the journal is damaged")
		default:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// holdsMonitor is why the monitor corrects nothing for now, "" if nothing keeps it.
func (a *Agent) holdsMonitor(now time.Time) string {
	switch d := a.gate.doubts(); {
	case d.Read:
		return "the journal or the assignment is damaged: every BMC is read first"
	case d.Compare:
		return "the journal may be older than it was: wait for central, or acknowledge it (rackpower local ack)"
	case d.Assign:
		return "the assignment may be older than it was: wait for central, or acknowledge it (rackpower local ack)"
	case d.Ack:
		return "the assignment is damaged: acknowledge it (rackpower local ack)"
	case a.stopping():
		return "the agent stops"
	}
	return a.permit.why(now)
}

// readFirst has every BMC read after damage, before anything is done. One that gives no
// answer has been asked.
func (a *Agent) readFirst(ctx context.Context) {
	if !a.gate.doubts().Read {
		return
	}
	names := a.assigned.names()
	a.logger.Info("every BMC is read before anything is done", "nodes", len(names))
	a.poller.readNow(ctx, names)
	if ctx.Err() != nil {
		return
	}
	a.settle(doubt{Read: true})
	a.monitor.Poke()
}

// compared goes on after central said, in its hello's answer, what it knows: whether the
// journal went back, and which operations have ended that are outstanding here.
func (a *Agent) compared(w api.Welcome) error {
	if err := a.heedEnds(w.Ended); err != nil {
		return err
	}
	if w.WentBack {
		a.alarms.raise(api.Alarm{
			Kind: api.AlarmJournalWentBack, NeedsAck: true,
			Message: "central knows newer records of this agent's journal than are in it: it was put back from a copy",
		})
		if err := a.doubtReplayed(); err != nil {
			return err
		}
	}
	a.alarms.clear(api.AlarmJournalCopied)
	a.settle(doubt{Compare: true, Tell: !w.ReportAll}) // else it is told with the next hello, which is judged
	return nil
}

// doubtReplayed has what the journal says is outstanding, and may not happen twice, end
// indeterminate: more of it may have happened than the journal says.
func (a *Agent) doubtReplayed() error {
	for _, l := range a.allLanes() {
		l.mu.Lock()
		var entries []journal.Entry
		for _, t := range l.tasks {
			if t.replayed && !t.doubt && t.end == nil {
				entries = append(entries, entry(journal.Add, kindDoubt, t.op.ID, nil))
			}
		}
		var err error
		if len(entries) > 0 {
			_, err = a.log.Append(entries...)
		}
		if err == nil {
			for _, t := range l.tasks {
				if t.replayed && !t.doubt {
					t.doubt = true
					if t.op.Action.Once() && t.cancel != nil {
						t.cancel(endError{lostEnd(t.op.Action)})
					}
				}
			}
		}
		l.mu.Unlock()
		if err != nil {
			return fmt.Errorf("cannot note what is in doubt: %w", err)
		}
	}
	return nil
}

// decided is the end of an operation that is not to be carried out, or not any further,
// for what is known beside its records.
func (x *execution) decided() error {
	x.l.mu.Lock()
	central, doubt, over := x.t.central, x.t.doubt, x.t.over
	x.l.mu.Unlock()
	switch {
	case central != nil:
		return endError{*central}
	case over:
		return endError{power.End{
			Outcome: power.Indeterminate, Reason: power.ReasonLost,
			Detail: "records of the journal were lost: it had ended, as a later operation on the node shows, and how is not known",
		}}
	case doubt && x.op.Action.Once() && x.h.attempts == 0:
		return endError{lostEnd(x.op.Action)}
	}
	return nil
}

// cutInDoubt waits whether a cycle, of which records may be lost, is still to be seen
// off. Else it may have been off and on again: it is not cut once more.
func (x *execution) cutInDoubt(ctx context.Context, state power.State) error {
	x.l.mu.Lock()
	doubt := x.t.doubt
	x.l.mu.Unlock()
	if !doubt || state != power.On {
		return nil
	}
	off, err := x.await(ctx, power.Off, x.time.Verify[0])
	if err == nil && !off {
		return endError{lostEnd(x.op.Action)}
	}
	return err
}

// lostEnd is the end of an operation that may have been carried out.
func lostEnd(action power.Action) power.End {
	return power.End{
		Outcome: power.Indeterminate, Reason: power.ReasonLost,
		Detail: fmt.Sprintf("records of the journal were lost: the %s may have been carried out, and is not repeated", action),
	}
}

// heedEnds takes central's word for operations that have ended there. One that is
// outstanding here is not carried out, or not any further; of one that ended otherwise
// here central's report is valid.
func (a *Agent) heedEnds(ends []api.EndedOp) error {
	var differ []string
	for _, e := range ends {
		l := a.lane(e.Node)
		l.mu.Lock()
		how := l.heedEnd(e)
		l.mu.Unlock()
		if how != "" {
			a.logger.Error("central knows another outcome of an operation", "node", e.Node, "op", e.ID, "outcome", e.End.Outcome, "here", how)
			differ = append(differ, fmt.Sprintf("%s of node %s (%s here, %s at central)", e.Action, e.Node, how, e.End.Outcome))
		}
	}
	if len(differ) == 0 {
		return nil
	}
	slices.Sort(differ)
	text := differ[0]
	if more := len(differ) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	a.alarms.raise(api.Alarm{
		Kind: api.AlarmOutcomesDiffer, NeedsAck: true,
		Message: "agent and central differ, and central's outcome counts: " + text,
	})
	return nil
}

// heedEnd is heedEnds for one operation, under the lane's lock. It returns what the
// agent had of it where that differs.
func (l *lane) heedEnd(e api.EndedOp) (differs string) {
	for _, t := range l.tasks {
		for _, x := range append([]*task{t}, t.joiners...) {
			if x.op.ID != e.ID || x.op.Action != e.Action {
				continue
			}
			if x != t { // it shares the fate of what it joined, and central is told so
				return ""
			}
			if t.central == nil && !t.concluding {
				end := e.End
				t.central = &end
				if t.cancel != nil {
					t.cancel(endError{end})
				}
				return "outstanding"
			}
			return ""
		}
	}
	r, ok := l.a.outbox.find(e.ID)
	if !ok || r.End == nil || r.Op.Action != e.Action || r.End.Outcome == e.End.Outcome {
		return ""
	}
	if e.End.Reason == power.ReasonLost {
		return "" // that is what central made of the agent's silence: it is told what is known here
	}
	was := r.End.Outcome
	end := e.End
	r.End = &end
	l.a.outbox.overrule(r)
	for i := range l.done {
		if l.done[i].ID == e.ID {
			l.done[i].End = end
		}
	}
	return string(was)
}

// askedBefore reports whether a request that comes in now was first made before records were
// lost: ids that are UUIDv7 say when they were made. It may have been carried out, and
// the record of that be among the lost ones. Central keeps books of its own, and says of which
// operations another agent has the records.
func (a *Agent) askedBefore(op power.Op) bool {
	if a.wasHanded(op) {
		return true
	}
	id, err := uuid.Parse(op.ID)
	if err != nil || id.Version() != 7 || op.Origin != power.FromLocal {
		return false
	}
	at := a.gate.doubts().At
	sec, nsec := id.Time().UnixTime()
	return !at.IsZero() && time.Unix(sec, nsec).Before(at)
}

// acknowledgedAlarm goes on with what waited for a person to see an alarm.
func (a *Agent) acknowledgedAlarm(alarm api.Alarm) {
	switch alarm.Kind {
	case api.AlarmTwoAgents:
		a.permit.standDown("") // a person at the rack knows better
	case api.AlarmJournalWentBack, api.AlarmJournalCopied:
		if a.gate.doubts().Compare {
			a.settle(doubt{Compare: true, Assign: true})
		}
	case api.AlarmAssignmentShrank:
		if err := a.letGo(a.assigned.trusts().Kept, "who acknowledged the alarm", ""); err != nil {
			a.logger.Error("cannot let go of nodes that central took away", "err", err)
			a.noteKept()
		}
	case api.AlarmAssignmentDamaged:
		a.settle(doubt{Assign: true, Ack: true})
	}
	a.monitor.Poke()
}

// filesRemoved has the agent act no more: what it writes down would be lost with the
// files. It goes on reading, and says what is wrong. A restart begins with what is in the
// directory then, so it is for a person to decide.
func (a *Agent) filesRemoved(cause error) {
	a.alarms.raise(api.Alarm{
		Kind: api.AlarmFilesRemoved, NeedsAck: true,
		Message: fmt.Sprintf("%v; nothing is accepted or done any more", cause),
		Remedy:  fmt.Sprintf("see who removed files in %s, then systemctl restart rackpower-agent", a.cfg.Dir),
	})
	a.stop(fmt.Errorf("%w: %w", errStopping, cause))
}

// removed is why the agent acts no more although it runs; nil: it does.
func (a *Agent) removed() error {
	if cause := context.Cause(a.ctx); errors.Is(cause, journal.ErrRemoved) {
		return cause
	}
	return nil
}

// refusesAll is the answer to a request while the agent stops.
func (a *Agent) refusesAll() error {
	if cause := a.removed(); cause != nil {
		return api.Problemf(api.CodeUnavailable,
			"agent %s accepts nothing: %v; see who removed files in %s, then systemctl restart rackpower-agent",
			a.cfg.Name, cause, a.cfg.Dir)
	}
	return errStopping
}

// bootID names the present run of the machine, "" where that is not known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
