package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// The kinds of journal records. The numbers are on disk and never change their
// meaning; README.md describes each payload.
const (
	kindAccepted journal.Kind = 1  // acceptedRecord
	kindStarted  journal.Kind = 2  // startedRecord
	kindSending  journal.Kind = 3  // commandRecord, durable before the command leaves
	kindSent     journal.Kind = 4  // commandRecord with the BMC's answer
	kindOffSeen  journal.Kind = 5  // a cycle's off was read; no second cut from here on
	kindEnded    journal.Kind = 6  // power.End
	kindReported journal.Kind = 7  // central has it: the operation leaves the live set
	kindCancel   journal.Kind = 8  // cancelRecord
	kindHastened journal.Kind = 9  // the grace of a soft-off is over
	kindLastSeq  journal.Kind = 10 // lastRecord, one per node
	kindAdded    journal.Kind = 12 // acceptedRecord of an action that agents of before would take for another one
	kindNode     journal.Kind = 20 // api.AssignedNode, in the assignment's own log
	kindSync     journal.Kind = 21 // syncRecord, there too
	kindMemory   journal.Kind = 22 // memory of the monitor, one per node, there too
	kindRack     journal.Kind = 23 // api.RackSettings, there too
	kindBrake    journal.Kind = 24 // api.Brake while it holds, there too
	kindHold     journal.Kind = 25 // power.Hold set at the rack's socket until central has it, there too
	kindRefused  journal.Kind = 26 // refusedRecord, there too
	kindDoubt    journal.Kind = 11 // doubt, under its own key in both logs; of an operation: records of it may be lost
	kindAlarm    journal.Kind = 27 // api.Alarm until it is over or acknowledged, there too
	kindTrust    journal.Kind = 28 // trustRecord, there too
	kindContact  journal.Kind = 29 // contactRecord, there too
	kindNote     journal.Kind = 30 // what a driver keeps of a BMC, there too
	kindLeased   journal.Kind = 31 // api.AssignedNode that needs a lease, there too: agents of before pass over it
	kindEpoch    journal.Kind = 32 // the latest epoch of a lease, there too
)

var kindNames = map[journal.Kind]string{
	kindAccepted: "accepted", kindStarted: "started", kindSending: "sending", kindSent: "sent",
	kindOffSeen: "off-seen", kindEnded: "ended", kindReported: "reported", kindCancel: "cancel",
	kindHastened: "hastened", kindLastSeq: "last-seq", kindNode: "node", kindSync: "sync",
	kindMemory: "monitor", kindRack: "rack", kindBrake: "brake", kindHold: "hold",
	kindRefused: "refused", kindAlarm: "alarm", kindTrust: "trust", kindDoubt: "doubt", kindContact: "contact",
	kindNote: "note", kindAdded: "accepted", kindLeased: "leased-node", kindEpoch: "epoch",
}

// KindName names a kind of journal record, for people.
func KindName(k uint8) string {
	if name, ok := kindNames[journal.Kind(k)]; ok {
		return name
	}
	return fmt.Sprintf("kind-%d", k)
}

type acceptedRecord struct {
	Op       power.Op       `json:"op"`
	Decision power.Decision `json:"decision"`
	Message  string         `json:"message,omitempty"`
}

// acceptedKind is the kind of the record that a request is accepted with. An agent from
// before there was the action passes over kindAdded, and would restart the BMC for an action
// that it finds in kindAccepted and does not know.
func acceptedKind(op power.Op) journal.Kind {
	if op.Action == power.ActCap {
		return kindAdded
	}
	return kindAccepted
}

type startedRecord struct {
	At time.Time `json:"at"`
}

type commandRecord struct {
	Command power.Command `json:"command"`
	At      time.Time     `json:"at"`
	// Error is the kind of the driver's error; empty in "sent": acknowledged.
	Error power.ErrorKind `json:"error,omitempty"`
	Text  string          `json:"text,omitempty"`
	// NotLeft is true in "sent" when the driver promises that nothing left.
	NotLeft bool `json:"not_left,omitempty"`
}

type cancelRecord struct {
	By           string `json:"by"`
	Reason       string `json:"reason,omitempty"`
	SupersededBy string `json:"superseded_by,omitempty"`
	// Moved says that another agent has the node and goes on with the operation.
	Moved bool `json:"moved,omitempty"`
}

// lastRecord is what stays of a node when its operations have left the journal.
type lastRecord struct {
	// Seq is the highest sequence accepted from anybody but the monitor.
	Seq power.Seq `json:"seq"`
	// Done holds the newest ended operations, so that one asked for again is answered
	// with its outcome and not carried out once more.
	Done []doneRecord `json:"done,omitempty"`
	// Unsettled is a command that may still take effect.
	Unsettled *power.Unsettled `json:"unsettled,omitempty"`
	// Acked is who acknowledged the newest end, and so all ends of the node that are not
	// in the journal by themselves.
	Acked ack `json:"acked,omitzero"`
}

// doneRecord is an ended operation, with all that a central has to know that never
// heard of it. ID, Action and Seq are its own; a record of an older agent holds no
// more than these and the end.
type doneRecord struct {
	ID        string        `json:"id"`
	Action    power.Action  `json:"action"`
	Seq       power.Seq     `json:"seq"`
	Op        power.Op      `json:"op,omitzero"`
	Verdict   power.Verdict `json:"verdict,omitempty"`
	Reason    power.Reason  `json:"reason,omitempty"` // of the verdict
	Message   string        `json:"message,omitempty"`
	Joined    string        `json:"joined,omitempty"`
	StartedAt time.Time     `json:"started_at,omitzero"`
	End       power.End     `json:"end"`
}

func doneOf(r api.OpReport) doneRecord {
	return doneRecord{
		ID: r.Op.ID, Action: r.Op.Action, Seq: r.Op.Seq, Op: r.Op, Verdict: r.Verdict, Reason: r.Reason, Message: r.Message, Joined: r.Joined,
		StartedAt: r.StartedAt, End: *r.End,
	}
}

// report is the last word on the operation, which is one of the node.
func (d doneRecord) report(node string) api.OpReport {
	op := d.Op
	if op.ID == "" {
		op = power.Op{ID: d.ID, Node: node, Action: d.Action, Seq: d.Seq}
	}
	return api.OpReport{
		Op: op, Verdict: d.Verdict, Reason: d.Reason, Message: d.Message, Joined: d.Joined, Phase: api.PhaseEnded, StartedAt: d.StartedAt,
		End: &d.End,
	}
}

// How many of them are kept for each node: some always, more while they are so recent
// that their askers, who had no answer, may still be asking. Those of the monitor never
// take the place of what somebody asked for.
const (
	keepDone    = 8
	keepRecent  = 64
	recentlyFor = 15 * time.Minute
)

// keptOf drops from the newest ended operations, oldest first, those that nobody will
// ask for any more.
func keptOf(done []doneRecord, now time.Time) []doneRecord {
	most := map[bool]int{} // so many more are kept, of the monitor's and of others
	for _, monitors := range []bool{false, true} {
		most[monitors] = keepRecent
	}
	var kept []doneRecord
	for _, d := range slices.Backward(done) {
		monitors := d.Op.Origin == power.FromMonitor
		if most[monitors] > 0 && (most[monitors] > keepRecent-keepDone || now.Sub(d.End.At) <= recentlyFor) {
			most[monitors]--
			kept = append(kept, d)
		}
	}
	slices.Reverse(kept)
	return kept
}

// syncRecord is the central that the agent trusts, and how far it has come with it.
type syncRecord struct {
	api.Database
	Rev int64 `json:"rev"` // of the assignment that is held; 0: nothing of this database's yet
}

const lastSeqPrefix = "seq/"

// entry makes a journal entry; the payloads here always marshal.
func entry(op journal.Op, kind journal.Kind, key string, payload any) journal.Entry {
	e := journal.Entry{Op: op, Kind: kind, Key: key}
	if payload != nil {
		data, err := json.Marshal(payload)
		if err != nil {
			panic(fmt.Sprintf("agent: record %s does not marshal: %v", KindName(uint8(kind)), err))
		}
		e.Payload = data
	}
	return e
}
