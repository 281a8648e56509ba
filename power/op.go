package power

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// IfBusy says what a request wants when its node is busy with something else.
type IfBusy string

// The three answers to a busy node.
const (
	Supersede IfBusy = "supersede" // the newer request wins (default)
	Queue     IfBusy = "queue"     // wait behind everything outstanding
	Refuse    IfBusy = "refuse"    // ask again later
)

// Origin is where a request came in.
type Origin string

// The origins. All of them lead to the same lane.
const (
	FromCentral Origin = "central"
	FromLocal   Origin = "local"   // the agent's own socket
	FromMonitor Origin = "monitor" // enforcement of a desired state
)

// Options are what an asker may choose beside the action. They stand in every form of a
// request, and are shown with the operation.
type Options struct {
	IfBusy IfBusy     `json:"if_busy,omitempty"`
	Boot   BootDevice `json:"boot,omitempty"`
	// Grace is how long a soft-off waits for the system to go down by itself.
	Grace time.Duration `json:"grace,omitempty"` // nanoseconds
	// Limit is what a cap limits the node to, in watts; 0: the cap ends the limit.
	Limit int `json:"limit,omitempty"`
}

// MaxLimit is the highest limit that a cap may ask for, in watts: DCMI has 16 bits for it.
const MaxLimit = 65535

// Op is one request to take one node through one action.
type Op struct {
	// ID is a UUIDv7 chosen by the asker; asking again with it is harmless.
	ID     string `json:"id"`
	Node   string `json:"node"`
	Action Action `json:"action"`
	// Seq orders the requests for a node; it is given where the request enters.
	Seq     Seq       `json:"seq"`
	AskedBy string    `json:"asked_by"`
	Origin  Origin    `json:"origin"`
	Reason  string    `json:"reason,omitempty"`
	AskedAt time.Time `json:"asked_at"`
	// Deadline holds in the queue too.
	Deadline time.Time `json:"deadline"`
	Options
	// NoEscalate keeps a soft-off from becoming a hard off.
	NoEscalate bool `json:"no_escalate,omitempty"`
	// Confirmed says that an administrator was told how many nodes lose power
	// and agreed; of a cap, that the BMC may turn the node off at the limit.
	Confirmed bool `json:"confirmed,omitempty"`
}

// Validate reports what is wrong with a request, in words for its asker.
func (o Op) Validate() error {
	if o.ID == "" || o.Node == "" {
		return fmt.Errorf("a request needs an id and a node")
	}
	if _, err := ParseAction(string(o.Action)); err != nil {
		return err
	}
	switch o.IfBusy {
	case "", Supersede, Queue, Refuse:
	default:
		return fmt.Errorf("unknown if-busy %q: want supersede, queue or refuse", o.IfBusy)
	}
	if o.Boot != BootNone && !slices.Contains(BootDevices, o.Boot) {
		return fmt.Errorf("unknown boot device %q: want one of %s", o.Boot, join(BootDevices))
	}
	if o.Boot != BootNone && !o.Action.Boots() {
		return fmt.Errorf("%s does not boot the node: a boot device goes with on, cycle or reset", o.Action)
	}
	if (o.Grace != 0 || o.NoEscalate) && o.Action != ActSoftOff {
		return fmt.Errorf("%s knows no grace: grace and no-escalate go with soft-off", o.Action)
	}
	if o.Limit != 0 && o.Action != ActCap {
		return fmt.Errorf("%s knows no limit: that goes with cap", o.Action)
	}
	if o.Limit < 0 || o.Limit > MaxLimit {
		return fmt.Errorf("limit %s is not between 0 and %s", Watts(o.Limit), Watts(MaxLimit))
	}
	if o.Grace < 0 || o.Grace > MaxGrace {
		return fmt.Errorf("grace %s is not between 0 and %s", o.Grace, MaxGrace)
	}
	return nil
}

// WithDefaults fills in what the asker left open. now is when the request entered.
func (o Op) WithDefaults(now time.Time) Op {
	if o.IfBusy == "" {
		o.IfBusy = Supersede
	}
	if o.AskedAt.IsZero() {
		o.AskedAt = now
	}
	if o.Action == ActSoftOff && o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Deadline.IsZero() {
		o.Deadline = now.Add(o.Action.Deadline(o.Grace))
	}
	return o
}

// same reports whether two requests ask for the very same thing.
func (o Op) same(p Op) bool {
	return o.Action == p.Action && o.Boot == p.Boot && o.Grace == p.Grace && o.NoEscalate == p.NoEscalate && o.Limit == p.Limit
}

// Is reports whether p is the operation that o is: an operation is its id together with
// its node, its action and what goes with them. What is known of an ended one by its id,
// node and action alone (without an origin) is compared by these.
func (o Op) Is(p Op) bool {
	if o.ID != p.ID || o.Node != p.Node || o.Action != p.Action {
		return false
	}
	if o.Origin == "" || p.Origin == "" {
		return true
	}
	return o.same(p) && cmp.Or(o.IfBusy, Supersede) == cmp.Or(p.IfBusy, Supersede)
}

// Outcome is how an operation ended. Every operation gets exactly one.
type Outcome string

// The outcomes. Refused is the outcome of a request that was never accepted.
const (
	Succeeded     Outcome = "succeeded"
	Failed        Outcome = "failed"
	Superseded    Outcome = "superseded"
	Cancelled     Outcome = "cancelled"
	Expired       Outcome = "expired"
	Indeterminate Outcome = "indeterminate" // sent once, unanswered, and not to be repeated
	Refused       Outcome = "refused"
)

// End is an outcome with everything that goes with it.
type End struct {
	Outcome Outcome   `json:"outcome"`
	Reason  Reason    `json:"reason,omitempty"` // why, as a constant
	Detail  string    `json:"detail,omitempty"` // why, for people
	At      time.Time `json:"at"`
	// Already is true when the node was found as asked and no command was sent.
	Already bool `json:"already,omitempty"`
	// SupersededBy is the operation that took this one's place.
	SupersededBy string `json:"superseded_by,omitempty"`
	// State is what the node's power was last read to be.
	State State `json:"state,omitempty"`
	// Attempts counts the power commands that may have left for the BMC.
	Attempts int `json:"attempts,omitempty"`
	// Unsettled is the last command that left and whose effect was not seen; nil:
	// none. What runs next on the node waits for it before it trusts a reading.
	Unsettled *Unsettled `json:"unsettled,omitempty"`
}

// Unsettled is a command that may still take effect.
type Unsettled struct {
	Command Command   `json:"command"`
	Until   time.Time `json:"until"` // when it is no longer waited for
}

// Target is the state that the command leads to, Unknown if it changes none.
func (c Command) Target() State {
	switch c {
	case PowerOn:
		return On
	case PowerOff, PressSoftOff:
		return Off
	default:
		return Unknown
	}
}
