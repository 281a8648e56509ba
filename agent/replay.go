package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"rackpower/journal"
	"rackpower/power"
)

// replay turns the journal's live records back into lanes and outbox, as they
// were when the last record became durable. It decides nothing again: what was
// joined or superseded stays so, because the records say it.
func (a *Agent) replay(live []journal.Record) error {
	tasks := map[string]*task{}
	var order []*task
	for _, r := range live {
		if err := a.replayRecord(r, tasks, &order); err != nil {
			return fmt.Errorf("cannot replay journal record %d (%s of %s): %w", r.LSN, KindName(uint8(r.Kind)), r.Key, err)
		}
	}
	a.mendReplay(tasks, order)
	for _, t := range order {
		l := a.lane(t.op.Node)
		if err := a.ids.claim(t.op); err != nil {
			a.logger.Warn("the journal has an id twice", "node", l.node, "err", err)
		}
		t.replayed = true
		switch {
		case t.end != nil:
			l.remember(t)
		case t.joined != "" && tasks[t.joined] != nil && tasks[t.joined].end != nil:
			l.owe([]*task{t}, *tasks[t.joined].end)
		case t.joined == "" || tasks[t.joined] == nil:
			l.tasks = append(l.tasks, t.alone())
		}
		a.outbox.put(t.report())
	}
	for _, l := range a.allLanes() {
		l.notAfter(time.Now())
	}
	return nil
}

func (a *Agent) replayRecord(r journal.Record, tasks map[string]*task, order *[]*task) error {
	if r.Kind == kindLastSeq {
		var last lastRecord
		err := json.Unmarshal(r.Payload, &last)
		l := a.lane(strings.TrimPrefix(r.Key, lastSeqPrefix))
		l.seqs.Load(last.Seq)
		l.done = last.Done
		if last.Acked.Database == a.assigned.trusts().Database {
			a.link.heardRev(last.Acked.Rev)
		}
		for _, d := range last.Done {
			if err := a.ids.claim(power.Op{ID: d.ID, Node: l.node, Action: d.Action}); err != nil {
				a.logger.Warn("the journal has an id twice", "node", l.node, "err", err)
			}
			if d.End.Attempts > 0 && d.Action != power.ActCap {
				l.ended = later(l.ended, d.End.At)
			}
		}
		if last.Unsettled != nil || l.unsettled == nil {
			// An end that is in the journal as well may be newer than this: rather wait once
			// too often.
			l.unsettled = last.Unsettled
		}
		a.clock.Load(last.Seq)
		return err
	}
	if r.Kind == kindDoubt && r.Key == doubtKey {
		return nil // see loadDoubt
	}
	if r.Kind == kindAccepted || r.Kind == kindAdded {
		t, err := a.replayAccepted(r, tasks)
		if err != nil {
			return err
		}
		t.doubt = a.strays[t.op.ID]
		tasks[t.op.ID] = t
		*order = append(*order, t)
		return nil
	}
	t := tasks[r.Key]
	if t == nil {
		// The accepted record went with a damaged segment. Asked for once more, it is no news.
		a.strays[r.Key] = true
		return nil
	}
	t.lsn = r.LSN
	err := t.replay(r)
	if err == nil && r.Kind == kindDoubt && t.left != nil {
		a.lane(t.op.Node).unsettled = t.left
	}
	if err == nil && r.Kind == kindEnded {
		a.lane(t.op.Node).leaves(t.op, *t.end)
	}
	return err
}

func (a *Agent) replayAccepted(r journal.Record, tasks map[string]*task) (*task, error) {
	var rec acceptedRecord
	if err := json.Unmarshal(r.Payload, &rec); err != nil {
		return nil, err
	}
	t := newTask(rec.Op, rec.Decision, rec.Message)
	t.lsn = r.LSN
	a.lane(rec.Op.Node).raise(rec.Op)
	a.clock.Load(rec.Op.Seq)
	if rec.Decision.Verdict.Joined() {
		t.joined = rec.Decision.With
		if target := tasks[t.joined]; target != nil {
			t.running, t.started = target.running, target.started
			target.joiners = append(target.joiners, t)
		}
	}
	return t, nil
}

// alone is the task on its own. One that had joined an operation whose records went
// with a damaged segment is carried out itself, but for what may not happen twice.
func (t *task) alone() *task {
	t.doubt = t.doubt || t.joined != ""
	t.joined = ""
	return t
}

// begun notes that the task had started, where the record that says so is lost.
func (t *task) begun(at time.Time) {
	if t.running {
		return
	}
	for _, x := range append([]*task{t}, t.joiners...) {
		x.running, x.started = true, at
	}
}

// mendReplay puts together what belongs together and of which records were lost: what
// was accepted says what became of others in the same write, and what comes later shows
// that what was before it is over.
func (a *Agent) mendReplay(tasks map[string]*task, order []*task) {
	for _, t := range order {
		for _, id := range t.decision.Supersedes {
			if x := tasks[id]; x != nil && x.end == nil {
				end := supersededBy(t, time.Now(), "it had not started")
				x.end = &end
			}
		}
		if x := tasks[t.decision.Cancels]; x != nil && x.stopped == nil {
			x.stopped = &cancelRecord{By: t.op.AskedBy, SupersededBy: t.op.ID}
		}
	}
	later := map[string]bool{} // nodes on which a later operation had begun
	for _, t := range slices.Backward(order) {
		if done := a.lane(t.op.Node).doneWith(t.op.ID); t.end == nil && done != nil {
			t.end = done
		}
		if t.end == nil && t.joined == "" {
			t.over = later[t.op.Node]
		}
		if t.joined == "" && !t.started.IsZero() {
			later[t.op.Node] = true
		}
	}
}

// doneWith is the end of an operation that is kept for repeats.
func (l *lane) doneWith(id string) *power.End {
	for _, d := range l.done {
		if d.ID == id {
			return &d.End
		}
	}
	return nil
}

// replay takes one record into the task.
func (t *task) replay(r journal.Record) error {
	switch r.Kind {
	case kindStarted:
		var rec startedRecord
		if err := json.Unmarshal(r.Payload, &rec); err != nil {
			return err
		}
		for _, x := range append([]*task{t}, t.joiners...) {
			x.running, x.started = true, rec.At
		}
	case kindSending, kindSent:
		var rec commandRecord
		if err := json.Unmarshal(r.Payload, &rec); err != nil {
			return err
		}
		t.begun(rec.At)
		if r.Kind == kindSending {
			t.history.sending(rec.Command, rec.At)
		} else {
			t.history.sent(rec)
		}
	case kindOffSeen:
		var rec startedRecord
		if err := json.Unmarshal(r.Payload, &rec); err != nil {
			return err
		}
		t.begun(rec.At)
		t.history.offSeen = rec.At
		t.history.saw(power.Off)
	case kindCancel:
		t.stopped = new(cancelRecord)
		return json.Unmarshal(r.Payload, t.stopped)
	case kindHastened:
		t.setHastened()
	case kindDoubt:
		t.doubt = true
		if len(r.Payload) > 0 {
			return json.Unmarshal(r.Payload, &t.left)
		}
	case kindEnded:
		t.end = new(power.End)
		return json.Unmarshal(r.Payload, t.end)
	}
	return nil
}

// maxDrop is about how many bytes one group holds that takes operations out.
const maxDrop = 1 << 20

// reported takes operations whose end central has out of the journal. What
// remains of a node is its highest sequence, so that a late request stays stale, and
// the ends that another central, or this one after a restore, may have to be told.
func (a *Agent) reported(ids map[string][]string, by ack) error {
	var entries []journal.Entry
	size := 0
	flush := func() error {
		if len(entries) == 0 {
			return nil
		}
		_, err := a.log.Append(entries...)
		if err != nil {
			a.journalFailed()
		}
		entries, size = nil, 0
		return err
	}
	for node, gone := range ids {
		l := a.lane(node)
		l.mu.Lock()
		last := lastRecord{Seq: l.seqs.Now(time.Now()), Done: slices.Clone(l.done), Unsettled: l.unsettled, Acked: by}
		l.mu.Unlock()
		entries = append(entries, entry(journal.Put, kindLastSeq, lastSeqPrefix+node, last))
		size += len(entries[len(entries)-1].Payload)
		for _, id := range gone {
			entries = append(entries, entry(journal.Drop, kindReported, id, startedRecord{At: time.Now()}))
		}
		if size > maxDrop {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
