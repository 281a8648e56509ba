package agent

import (
	"fmt"
	"time"

	"rackpower/power"
)

// watched is one node as the monitor sees it at one moment.
type watched struct {
	Node    string
	Desired power.Desired
	Reading power.Reading
	// Busy is true while an operation is outstanding: its final state stands for
	// the desired one.
	Busy bool
	// Changed is when the last operation that touched the node's power ended,
	// DesiredAt when its desire changed; zero: long ago.
	Changed, DesiredAt time.Time
	Status             power.Status
}

// task the monitor wants done.
type planned struct {
	Node   string
	Action power.Action
	Reason power.Reason
	Says   string
}

// planRound bounds what plan goes by.
type planRound struct {
	Now    time.Time
	Since  time.Time     // readings before this are not of this round
	Settle time.Duration // how long a changed node is left alone
}

// plan compares what is desired with what was seen and says what to do about it:
// values in, values out. It leaves alone nodes that are busy, hands-off, just
// changed, or not freshly read.
func plan(r planRound, nodes []watched) []planned {
	var todo []planned
	for _, n := range nodes {
		if reason := leaveAlone(r, n); reason != "" {
			continue
		}
		action := power.ActOn
		if n.Desired.Want == power.WantOff {
			action = power.ActOff
		}
		todo = append(todo, planned{
			Node: n.Node, Action: action, Reason: power.ReasonDrift,
			Says: fmt.Sprintf("%s wants it %s, it was read %s", n.Status, n.Desired.Want, n.Reading.State),
		})
	}
	return todo
}

// leaveAlone says why the monitor does nothing about a node, "" if it does.
func leaveAlone(r planRound, n watched) power.Reason {
	switch {
	case !n.Desired.Enforces():
		return power.ReasonHandsOff
	case n.Busy:
		return power.ReasonBusy
	case n.Reading.Reach != power.ReachOK || n.Reading.ObservedAt.Before(r.Since):
		return power.ReasonUnread
	case n.Reading.State == n.Desired.State():
		return power.ReasonAlready
	case r.Now.Sub(n.Changed) < r.Settle && n.DesiredAt.Before(n.Changed):
		return power.ReasonSettling
	case n.Desired.NoCut && n.Desired.Want == power.WantOff:
		return power.ReasonNoCut
	default:
		return ""
	}
}
