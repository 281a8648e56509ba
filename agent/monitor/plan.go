package monitor

import (
	"cmp"
	"fmt"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// leaseLook is when a node that needs a lease is looked at again.
const leaseLook = 5 * time.Second

// watched is one node as the monitor sees it at one moment.
type watched struct {
	Node string
	From string // where its desired power comes from, in words
	// Protected is who keeps its power from being taken away, in words; "": nobody.
	Protected string
	Memory    Memory
	Reading   power.Reading
	Run       run // of equal readings since the desire changed
	// Busy is true while an operation is outstanding: its final state stands for
	// the desired one.
	Busy bool
	// Elsewhere is true while one takes the node elsewhere than to the desired state.
	Elsewhere bool
	// NoLease is true while another agent may have the node.
	NoLease bool
	// Cutting is true while a power-off that the monitor asked for is outstanding.
	Cutting bool
	// Changed is when the last operation that touched the node's power ended, or a
	// correction that came to nothing; zero: long ago.
	Changed time.Time
	// CameBack says that it was seen on again after it had been turned off.
	CameBack bool
	// OthersSince is since when it waits for the readings of other nodes; zero: not yet.
	OthersSince time.Time
	// SharedWith names other nodes that have the same BMC, "" for none.
	SharedWith string
	// BreakerOpen is why its BMC is not in the rounds, "" when it is.
	BreakerOpen string
}

// planRound is what a plan goes by, beside the nodes.
type planRound struct {
	Now   time.Time
	Fresh time.Duration // readings older than this are not acted on
	Timing
	Off   bool       // the agent runs without a monitor
	Pause *api.Pause // nil or over: it does not rest
	Brake *api.Brake // nil: none holds
	Tally tally
	// Started is when the agent did: what was changed before that, while it was away, it
	// hears of a moment later.
	Started time.Time
}

// decision is what the monitor makes of a node.
type decision struct {
	Node    string
	Action  power.Action // on or off; empty: nothing is done
	Reason  power.Reason
	Message string
	Until   time.Time // when it is looked at again; zero: with the next round
}

// plan compares what is desired with what was seen and says what to do about each
// node, or why nothing is done: values in, values out.
func plan(r planRound, nodes []watched) []decision {
	list := make([]decision, 0, len(nodes))
	for _, n := range nodes {
		d := r.leaveAlone(n)
		if d.Reason == "" {
			d = r.correct(n)
		}
		d.Node = n.Node
		list = append(list, d)
	}
	return list
}

func (r planRound) correct(n watched) decision {
	d := decision{Action: power.ActOn, Reason: power.ReasonDrift}
	if n.Memory.Desired.Want == power.WantOff {
		d.Action = power.ActOff
	}
	if n.CameBack {
		d.Reason = power.ReasonCameBack
	}
	d.Message = fmt.Sprintf("%s wants it %s, it was read %s", n.From, n.Memory.Desired.Want, n.Reading.State)
	return d
}

// leaveAlone says why the monitor does nothing about a node; its Reason is empty if
// it does. What is nobody's to correct comes first, then what is known too little of,
// then what has to wait.
func (r planRound) leaveAlone(n watched) decision {
	d, m := n.Memory.Desired, n.Memory
	// An empty text is that of the reason; only a text with facts of the node is written here.
	not := func(reason power.Reason, until time.Time, text string, args ...any) decision {
		return decision{Reason: reason, Until: until, Message: cmp.Or(fmt.Sprintf(text, args...), reason.Text())}
	}
	switch {
	case !d.Enforces() && d.Expected != "" && n.differs(r.Now):
		return not(power.ReasonHandsOff, time.Time{}, "%s expects it %s; that is shown and not enforced", n.From, d.Expected)
	case !d.Enforces():
		return not(power.ReasonHandsOff, time.Time{}, "%s", power.LeftAlone(n.From))
	case n.Busy:
		return not(power.ReasonBusy, time.Time{}, "")
	case r.Off:
		return not(power.ReasonRack, time.Time{}, "")
	case n.NoLease:
		return not(power.ReasonNoLease, r.Now.Add(leaseLook), "")
	case n.SharedWith != "":
		return not(power.ReasonShared, time.Time{}, "%s", power.SharedBMC(n.Node, n.SharedWith))
	case n.BreakerOpen != "":
		return not(power.ReasonBreaker, time.Time{}, "%s", n.BreakerOpen)
	case n.Reading.Reach != power.ReachOK:
		return not(power.ReasonUnread, time.Time{}, "it cannot be read: %s", n.Reading.Reach)
	case n.Reading.State != power.On && n.Reading.State != power.Off:
		return not(power.ReasonUnread, time.Time{}, "the BMC does not report the power state")
	case n.Reading.ObservedAt.Before(m.Since):
		return not(power.ReasonUnread, r.Now, "")
	case n.Reading.State == d.State():
		return not(power.ReasonAlready, time.Time{}, "%s wants it %s, and it is", n.From, d.Want)
	case n.Protected != "" && d.Want == power.WantOff:
		return not(power.ReasonProtected, time.Time{}, "it is %s", n.Protected)
	case d.NoCut && d.Want == power.WantOff:
		return not(power.ReasonNoCut, time.Time{}, "")
	case r.Pause.Active(r.Now):
		return not(power.ReasonPaused, r.Pause.Until, "%s paused the monitor%s", r.Pause.By, because(r.Pause.Reason))
	case r.Brake != nil:
		return not(power.ReasonBrake, time.Time{}, "the fleet brake holds since %s: %s", power.At(r.Brake.Since), brakeSays[r.Brake.Kind])
	case m.resting(r.Now):
		return not(power.ReasonFault, m.NextTry, "%s", m.Fault)
	}
	return r.postpone(n, not)
}

// postpone says what a correction that is due has still to wait for.
func (r planRound) postpone(n watched, not func(power.Reason, time.Time, string, ...any) decision) decision {
	m := n.Memory
	settled := n.Changed.Add(r.Settle)
	cut := n.uncertainCut(r.Now) && !m.Matched
	switch {
	case r.Now.Before(settled) && m.Since.Before(n.Changed) && !n.CameBack:
		return not(power.ReasonSettling, settled, "")
	case m.Desired.Debounced && n.Run.lasts() < r.Debounce:
		return not(power.ReasonDebounce, n.Run.First.Add(r.Debounce), "%s needs two equal readings %s apart", n.From,
			r.Debounce)
	case cut && r.Now.Before(r.gathered(n)):
		return not(power.ReasonGather, r.gathered(n), "")
	case !r.Tally.sure(r.Now, n) && (n.OthersSince.IsZero() || r.Now.Before(n.OthersSince.Add(r.Others))):
		since := n.OthersSince
		if since.IsZero() {
			since = r.Now
		}
		return not(power.ReasonOthers, since.Add(r.Others), "")
	case r.Now.Sub(n.Reading.ObservedAt) > r.Fresh:
		return not(power.ReasonUnread, r.Now, "")
	}
	return decision{}
}

// gathered is when a node that loses power without a confirmation has waited long
// enough for others: a while after the last such change and after the start, and not for
// ever.
func (r planRound) gathered(n watched) time.Time {
	since := n.Memory.Since
	if since.Before(r.Started) {
		since = r.Started
	}
	quiet, latest := r.Tally.Changed.Add(r.Gather), since.Add(6*r.Gather)
	if since.After(r.Tally.Changed) {
		quiet = since.Add(r.Gather)
	}
	if latest.Before(quiet) {
		return latest
	}
	return quiet
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}
