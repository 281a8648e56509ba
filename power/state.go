package power

import "time"

// State is what a node's power was last read to be.
type State string

// The states. Unknown stands for "never read"; a failed read does not make a
// known state unknown, it changes the Reach beside it.
const (
	On      State = "on"
	Off     State = "off"
	Unknown State = "unknown"
)

// Reach says how well the last attempt to read a node's power went. It is
// beside the State, never inside it.
type Reach string

// The reaches.
const (
	ReachOK           Reach = "ok"
	ReachUnreachable  Reach = "unreachable"  // no answer from the BMC
	ReachBusy         Reach = "busy"         // the BMC answers, and cannot be read now: no free session, starting, no IPMI 2.0
	ReachAuthFailed   Reach = "auth-failed"  // the BMC refused user or password
	ReachPrivilege    Reach = "privilege"    // the BMC knows the user and gives no right to what is asked
	ReachUnsupported  Reach = "unsupported"  // the BMC cannot say or the driver cannot speak to it
	ReachNever        Reach = "never"        // no reading was tried yet
	ReachUnconfigured Reach = "unconfigured" // no BMC is known for the node
)

// Reason is the reason that goes with a reach other than ok and never.
func (r Reach) Reason() Reason {
	if r == ReachBusy {
		return ReasonBMCBusy
	}
	return Reason(r)
}

// DefaultStale is the age from which a reading is shown as stale.
const DefaultStale = 10 * time.Minute

// Reading is one look at a node's power.
type Reading struct {
	State      State     `json:"state"`
	Reach      Reach     `json:"reach"`
	ObservedAt time.Time `json:"observed_at"`       // when State was last truly read; zero: never
	TriedAt    time.Time `json:"tried_at,omitzero"` // when Reach was last determined
}

// Failed returns the reading after an attempt at the given time that ended in
// reach: the last known state and its time are kept.
func (r Reading) Failed(reach Reach, at time.Time) Reading {
	if r.State == "" {
		r.State = Unknown
	}
	r.Reach, r.TriedAt = reach, at
	return r
}

// Seen returns the reading after a successful look.
func Seen(s State, at time.Time) Reading {
	return Reading{State: s, Reach: ReachOK, ObservedAt: at, TriedAt: at}
}

// Stale reports whether the state is older than bound at the time now, or was
// never read at all.
func (r Reading) Stale(now time.Time, bound time.Duration) bool {
	return r.ObservedAt.IsZero() || now.Sub(r.ObservedAt) > bound
}
