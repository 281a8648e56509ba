package power

import (
	"strings"
	"time"
)

// Hold overrides what a node's status says about its power, or takes such an
// override back. The zero Hold overrides nothing.
type Hold struct {
	// Want is on, off or hands-off; empty: the hold was released.
	Want   Want   `json:"want,omitempty"`
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Schedule names the schedule that set the hold, "" when a person did.
	Schedule string    `json:"schedule,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"` // when it ends by itself; zero: when released
	// Seq orders sets and releases of a node's hold wherever they entered, at
	// central or at the socket of a rack: the highest one is valid.
	Seq Seq `json:"seq,omitempty"`
	// Heard is the Seq of the newest hold or release of a person that the schedule knew.
	Heard Seq `json:"heard,omitempty"`
	// Confirmed says that the one who set it was told how many nodes lose power and
	// agreed.
	Confirmed bool `json:"confirmed,omitempty"`
}

// Active reports whether the hold overrides the status at the time now.
func (h Hold) Active(now time.Time) bool {
	return h.Want != "" && (h.Until.IsZero() || now.Before(h.Until))
}

// Over reports whether h is valid where both became known: the one that was set or
// released later does, but for a person's hold that ran when a schedule set its own. A
// schedule lets people's holds be; only one that did not know of it can have set
// another, as central's can not of what is set at the socket of a rack it has no link
// to. Of two different holds at most one is over the other.
func (h Hold) Over(other Hold) bool {
	switch {
	case h.overrules(other):
		return true
	case other.overrules(h):
		return false
	default:
		return h.Seq > other.Seq
	}
}

// overrules reports whether h is a person's that ran when other's schedule set it, and
// that the schedule did not know.
func (h Hold) overrules(other Hold) bool {
	return h.Schedule == "" && other.Schedule != "" && h.Seq > other.Heard && h.Active(other.Since)
}

// ParseWant reads what a hold wants.
func ParseWant(text string) (Want, error) {
	switch w := Want(strings.ToLower(strings.TrimSpace(text))); w {
	case WantOn, WantOff, HandsOff:
		return w, nil
	}
	return "", errWant(text)
}

// Effective is the desired power of a node at the time now: what its hold says
// while there is one, else its status. What a status forbids the monitor
// (Desired.NoCut) it forbids under every hold.
func Effective(s Status, h Hold, now time.Time) Desired {
	d := s.Desired()
	if !h.Active(now) {
		return d
	}
	return Desired{Want: h.Want, NoCut: d.NoCut}
}

// DesiredFrom says in words where a node's desired power comes from at the time now.
func DesiredFrom(s Status, h Hold, now time.Time) string {
	switch {
	case h.Active(now) && h.Schedule != "":
		return "schedule " + h.Schedule
	case h.Active(now):
		return "hold of " + h.By
	case s == StatusNone:
		return "no status"
	default:
		return "status " + string(s)
	}
}

// Limits of a power domain for which none were set. Nodes without a domain are not
// limited.
const (
	DefaultDomainRate       = 10.0 // power-ons a second
	DefaultDomainConcurrent = 50   // nodes on their way to "on" at once
)

// Bounds of the fleet brake for which none were set: it holds when more than
// DefaultBrakePercent of an agent's nodes, and more than DefaultBrakeAbove nodes,
// are concerned at once.
const (
	DefaultBrakePercent = 20
	DefaultBrakeAbove   = 5
)

// OverBrake reports whether so many of all nodes are too many to be changed at once without
// a person: more than percent of them, and more than above.
func OverBrake(nodes, of, percent, above int) bool {
	return nodes > above && nodes*100 > percent*of
}
