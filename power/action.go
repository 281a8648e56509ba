package power

import (
	"fmt"
	"strings"
	"time"
)

// Action is what a request asks of a node.
type Action string

// The actions.
const (
	ActOn       Action = "on"
	ActOff      Action = "off"       // hard
	ActSoftOff  Action = "soft-off"  // by ACPI, then hard when the grace is over
	ActCycle    Action = "cycle"     // off, seen off, on
	ActReset    Action = "reset"     // hard reset, power stays
	ActDiag     Action = "diag"      // NMI
	ActBMCReset Action = "bmc-reset" // restarts the BMC, not the node
	ActCap      Action = "cap"       // limits how much power the node may take
)

// Actions lists every action, in the order in which help texts show them.
var Actions = []Action{ActOn, ActOff, ActSoftOff, ActCycle, ActReset, ActDiag, ActBMCReset, ActCap}

// ParseAction reads an action's name.
func ParseAction(s string) (Action, error) {
	for _, a := range Actions {
		if string(a) == s {
			return a, nil
		}
	}
	return "", fmt.Errorf("unknown action %q: want one of %s", s, join(Actions))
}

// With is the action with what is asked besides, for people: "cap 800 W".
func (a Action) With(o Options) string {
	if a != ActCap {
		return string(a)
	}
	return "cap " + LimitText(o.Limit)
}

// Final is the state that a success of the action leaves the node in, Unknown
// for actions that leave the power as it is.
func (a Action) Final() State {
	switch a {
	case ActOn, ActCycle, ActReset:
		return On
	case ActOff, ActSoftOff:
		return Off
	default:
		return Unknown
	}
}

// CutsPower reports whether the action takes power, or the running system, away
// from a node that is on: what bulk confirmations count.
func (a Action) CutsPower() bool {
	switch a {
	case ActOff, ActSoftOff, ActCycle, ActReset:
		return true
	default:
		return false
	}
}

// StopsSystem reports whether the action takes power, or the running system, away from a
// node that is on, as an NMI does too: what is never done to a protected node.
func (a Action) StopsSystem() bool { return a.CutsPower() || a == ActDiag }

// LeavesPower reports whether the action has nothing to do with whether the node is on: what
// was under way with its power before is so after it.
func (a Action) LeavesPower() bool { return a == ActBMCReset || a == ActCap }

// Once reports whether the action is a once-operation (rules 3), whose command must never
// be sent twice: each arrival acts again, and nothing that can be read tells whether
// the first one did.
func (a Action) Once() bool { return a == ActReset || a == ActDiag || a == ActBMCReset }

// Boots reports whether the action may carry a boot device.
func (a Action) Boots() bool { return a == ActOn || a == ActCycle || a == ActReset }

// Deadlines and bounds of operations.
const (
	DefaultDeadline        = 5 * time.Minute
	DefaultSoftOffDeadline = 15 * time.Minute
	DefaultGrace           = 3 * time.Minute
	MaxGrace               = 24 * time.Hour
)

// Deadline is how long an operation of this action may take, waiting included,
// when its asker does not say. A long grace widens it.
func (a Action) Deadline(grace time.Duration) time.Duration {
	switch {
	case a != ActSoftOff:
		return DefaultDeadline
	case grace+DefaultDeadline > DefaultSoftOffDeadline:
		return grace + DefaultDeadline
	default:
		return DefaultSoftOffDeadline
	}
}

func join[T ~string](words []T) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return strings.Join(texts, ", ")
}
