package api

import (
	"context"
	"time"
)

// Severity says how soon a person should look.
type Severity string

// The severities, the most pressing first.
const (
	SeverityCritical Severity = "critical" // a rack is not looked after, or an agent raises an alarm
	SeverityWarning  Severity = "warning"  // nodes are not as they should be, or a person waits
	SeverityNotice   Severity = "notice"   // it is as somebody wanted it, or it will matter soon
)

// What wants attention, besides what has a word in package power: fault, drift, brake,
// paused, no-monitor, unreachable, bmc-busy, auth-failed, privilege, bmc-shared,
// password-damaged, no-credentials.
const (
	AttentionAgent       = "agent-away"
	AttentionAlarm       = "alarm"
	AttentionHold        = "hold-ends"
	AttentionApproval    = "approval"
	AttentionCertificate = "certificate-ends"
	AttentionBackup      = "backup-failed"
	AttentionRestored    = "restored"
	AttentionDisk        = "disk-hangs"
)

// Attention is something that wants a person: an item of the answer of GET /v1/attention.
// What is alike on many nodes of a rack is one item.
type Attention struct {
	Severity Severity `json:"severity"`
	Kind     string   `json:"kind"` // a reason of package power, or one of the constants above
	// Rack and Agent are where it is; empty: at several, or at none.
	Rack  string `json:"rack,omitempty"`
	Agent string `json:"agent,omitempty"`
	// Nodes are those concerned, folded, and Count how many they are. A long list is cut.
	Nodes string `json:"nodes,omitempty"`
	Count int    `json:"count,omitempty"`
	// Since is when it began, of the first of the nodes; zero: not known.
	Since   time.Time `json:"since,omitzero"`
	Message string    `json:"message"` // what is the matter, in a sentence
	// Next is when it is tried again, or ends, by itself; zero: not by itself, or not known.
	Next time.Time `json:"next,omitzero"`
	Do   string    `json:"do"`            // what to do about it
	Run  []string  `json:"run,omitempty"` // the commands for that, in order
	ID   string    `json:"id,omitempty"`  // of the plan that awaits an approval
}

// Attention lists what wants a person, the most pressing first.
func (c *Client) Attention(ctx context.Context) ([]Attention, error) {
	return list[Attention](ctx, c, "/v1/attention")
}
