package api

import (
	"fmt"
	"time"

	"rackpower/power"
)

// AgentState says whether an agent can be counted on.
type AgentState string

// The states of an agent.
const (
	AgentAlive  AgentState = "alive"
	AgentAway   AgentState = "away"   // it was heard once, and does not poll any more
	AgentNever  AgentState = "never"  // it never said hello
	AgentFailed AgentState = "failed" // gossip says that it stopped answering
	AgentLeft   AgentState = "left"   // gossip says that it ended on purpose
)

// AgentPresence is an agent's state with its times. Its zero value says that nothing is
// known of it.
type AgentPresence struct {
	State AgentState `json:"state"`
	// Since is when an agent that is not alive polled last, or was seen to fail or leave.
	Since    time.Time `json:"since,omitzero"`
	LastSeen time.Time `json:"last_seen,omitzero"` // zero: never
}

// Absent reports whether the agent is known not to be alive.
func (p AgentPresence) Absent() bool { return p.State != "" && p.State != AgentAlive }

// Text describes the presence for people at the time now: "alive", "away since ...",
// "failed 40 s ago, as gossip says".
func (p AgentPresence) Text(now time.Time) string {
	switch p.State {
	case AgentFailed, AgentLeft:
		return fmt.Sprintf("%s %s ago, as gossip says", p.State, power.Ago(now.Sub(p.Since)))
	case AgentNever:
		return "away: it never said hello"
	case AgentAway:
		seen := fmt.Sprintf("(last seen %s ago)", power.Ago(now.Sub(p.LastSeen)))
		if p.Since.IsZero() {
			return "away " + seen
		}
		return fmt.Sprintf("away since %s %s", power.At(p.Since), seen)
	}
	return string(p.State)
}

// Predicate is Text with its verb, to go behind the agent's name: "is away since ...",
// "failed 40 s ago, ...".
func (p AgentPresence) Predicate(now time.Time) string {
	if p.State == AgentFailed || p.State == AgentLeft {
		return p.Text(now)
	}
	return "is " + p.Text(now)
}
