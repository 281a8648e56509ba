package simtest

import (
	"fmt"
	"time"

	"rackpower/journal"
	"rackpower/power"
)

// The kinds of records in the journal of operations, as they are on disk. The models read
// them by themselves: what the agent writes, it has to write in this form.
const (
	kindAccepted journal.Kind = iota + 1
	kindStarted
	kindSending
	kindSent
	kindOffSeen
	kindEnded
	kindReported
	kindCancel
	kindHastened
	kindLastSeq
	kindDoubt
	kindAdded // accepted, of a cap
)

var kindNames = []string{
	"", "accepted", "started", "sending", "sent", "off-seen", "ended", "reported", "cancel", "hastened", "last-seq", "doubt", "accepted",
}

func kindName(k journal.Kind) string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", k)
}

type acceptedRecord struct {
	Op       power.Op       `json:"op"`
	Decision power.Decision `json:"decision"`
}

type startedRecord struct {
	At time.Time `json:"at"`
}

type commandRecord struct {
	Command power.Command `json:"command"`
	At      time.Time     `json:"at"`
	NotLeft bool          `json:"not_left"`
}

type cancelRecord struct {
	SupersededBy string `json:"superseded_by"`
}
