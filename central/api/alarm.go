package api

import (
	"strings"
	"time"
)

// Alarm is something about an agent that a person has to know.
type Alarm struct {
	// Kind is one of the constants below; an agent has at most one alarm of a kind.
	Kind string `json:"kind"`
	// Message is the cause, in a sentence.
	Message string `json:"message"`
	// Since is when it was raised with this message.
	Since time.Time `json:"since"`
	// Remedy is the command to type, "" where there is none.
	Remedy string `json:"remedy,omitempty"`
	// NeedsAck says that it stays until a person acknowledges it. One that does not ends
	// with its cause.
	NeedsAck bool `json:"needs_ack,omitempty"`
}

// The kinds of alarms.
const (
	AlarmJournalDamaged     = "journal-damaged"      // flushed records of operations cannot be read any more
	AlarmAssignmentDamaged  = "assignment-damaged"   // the same of what central assigned
	AlarmJournalWentBack    = "journal-went-back"    // files of an older state were put back
	AlarmJournalCopied      = "journal-copied"       // files that may be of an older state
	AlarmJournalLost        = "journal-lost"         // the agent does not know what it had accepted
	AlarmOutcomesDiffer     = "outcomes-differ"      // agent and central have different ends of an operation
	AlarmFilesRemoved       = "files-removed"        // files were removed or replaced under a running daemon
	AlarmDiskFull           = "disk-full"            // no room for the journal of operations
	AlarmAssignmentDiskFull = "assignment-disk-full" // no room for the assignment
	AlarmNotSealed          = "not-sealed"           // passwords are in plain in the assignment's log
	AlarmWriteFailed        = "write-failed"         // the disk of the data directory fails
	AlarmCentralUnknown     = "central-unknown"      // a central that was never seen before
	AlarmAssignmentShrank   = "assignment-shrank"    // central takes most nodes away
	AlarmSequenceAhead      = "sequence-ahead"       // a sequence too far ahead of the clock
	AlarmTwoAgents          = "two-agents"           // two agents of one name
	AlarmReportRefused      = "report-refused"       // central refuses something that the agent reports
	AlarmClockDrift         = "clock-drift"          // central's clock and an agent's go at different speeds
	AlarmBMCShared          = "bmc-shared"           // one BMC under two nodes
)

// AlarmText is the messages of alarms in a line, "" for none.
func AlarmText(alarms []Alarm) string {
	var texts []string
	for _, a := range alarms {
		texts = append(texts, a.Message)
	}
	return strings.Join(texts, "; ")
}

// AckAlarm is the body of POST /v1/agents/{name}/ack at central, and of POST
// /v1/alarms/ack at an agent's own socket. The answer is the list of alarms that were
// acknowledged.
type AckAlarm struct {
	Kind    string `json:"kind,omitempty"` // empty: all of the agent
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// ForgetAgent is the body of POST /v1/agents/{name}/forget.
type ForgetAgent struct {
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason"`
}

// ForgottenAgent is the answer: what went with the agent.
type ForgottenAgent struct {
	Name  string   `json:"name"`
	Ended int      `json:"ended"` // operations, as indeterminate or, if it never had them, cancelled
	Nodes []string `json:"nodes"` // that are assigned to nobody now
	// Given are nodes that other agents have now, or as soon as its lease has run out.
	Given []string `json:"given,omitempty"`
}

// AlarmAck tells an agent that a person acknowledged an alarm: that of the kind which
// was raised at Since, and none that was raised again later.
type AlarmAck struct {
	Kind  string    `json:"kind"`
	Since time.Time `json:"since"`
	By    string    `json:"by"`
}
