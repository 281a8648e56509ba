package power

import "slices"

// Verdict is what happens to a request.
type Verdict string

// The verdicts.
const (
	VerdictStart     Verdict = "start"     // runs now
	VerdictJoin      Verdict = "join"      // shares the id and the outcome of an outstanding one
	VerdictHasten    Verdict = "hasten"    // joins a soft-off, whose grace ends now
	VerdictFollow    Verdict = "follow"    // runs after the outstanding one, which goes on
	VerdictSupersede Verdict = "supersede" // takes the place of an outstanding one
	VerdictQueue     Verdict = "queue"     // waits behind all, as its asker wished
	VerdictRefuse    Verdict = "refuse"    // is not accepted
)

// Accepted reports whether the request became, or became part of, an operation.
func (v Verdict) Accepted() bool { return v != VerdictRefuse && v != "" }

// Joined reports whether the request shares another operation's outcome.
func (v Verdict) Joined() bool { return v == VerdictJoin || v == VerdictHasten }

// Held is one outstanding operation as Decide sees it.
type Held struct {
	Op Op
	// Running is true from its "started" record on; only the first of a lane runs.
	Running bool
	// Cancelling is true once it was told to stop at its next safe point. That is
	// not taken back.
	Cancelling bool
	// Hastened is true for a soft-off whose grace was ended by an off.
	Hastened bool
	// Joined is how many requests joined it.
	Joined int
}

// Lane is what Decide knows of a node.
type Lane struct {
	// Outstanding holds the running operation first, then those that wait, in the
	// order in which they will run.
	Outstanding []Held
	// LastSeq is the highest sequence ever accepted for the node, joined requests
	// included. It only grows.
	LastSeq Seq
}

// Decision is a verdict with what it does to others.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	Reason  Reason  `json:"reason"`
	// With is the outstanding operation that the request was held against last:
	// the one it joins, follows, supersedes or is refused for.
	With string `json:"with,omitempty"`
	// Supersedes lists waiting operations that end now, in the request's favour.
	// None of them has touched the node.
	Supersedes []string `json:"supersedes,omitempty"`
	// Cancels is the running operation that ends at its next safe point.
	Cancels string `json:"cancels,omitempty"`
}

// Bounds of a lane; a request beyond one of them is refused (queue-full).
const (
	MaxOutstanding = 64  // operations
	MaxJoined      = 256 // requests that joined any of them
)

// Decide says what becomes of a request, given what is outstanding on its node.
// It is rules 2 as a whole; callers carry out what it says and decide nothing
// themselves.
//
// The request is held against the newest outstanding operation. Waiting ones
// that do not satisfy it, and have another idea of the power, end superseded,
// and it is held against the one before, down to the running one.
func Decide(lane Lane, req Op) Decision {
	for _, h := range lane.Outstanding {
		if h.Op.ID == req.ID {
			return Decision{Verdict: VerdictJoin, Reason: ReasonRepeat, With: req.ID}
		}
	}
	if req.Seq < lane.LastSeq {
		return Decision{Verdict: VerdictRefuse, Reason: ReasonStale, With: newest(lane)}
	}
	if len(lane.Outstanding) == 0 {
		return Decision{Verdict: VerdictStart, Reason: ReasonIdle}
	}
	d := against(lane.Outstanding, req)
	switch {
	case waits(d) && len(lane.Outstanding)-len(d.Supersedes) >= MaxOutstanding:
		return Decision{Verdict: VerdictRefuse, Reason: ReasonQueueFull, With: newest(lane)}
	case d.Verdict.Joined() && lane.joined() >= MaxJoined:
		return Decision{Verdict: VerdictRefuse, Reason: ReasonQueueFull, With: d.With}
	}
	return d
}

// joined is how many requests joined what is outstanding.
func (l Lane) joined() (n int) {
	for _, h := range l.Outstanding {
		n += h.Joined
	}
	return n
}

func against(held []Held, req Op) Decision {
	last := held[len(held)-1]
	equal := last.Op.same(req) && !last.Cancelling
	switch {
	case req.IfBusy == Refuse && !equal:
		return Decision{Verdict: VerdictRefuse, Reason: ReasonBusy, With: last.Op.ID}
	case equal:
		return Decision{Verdict: VerdictJoin, Reason: ReasonEqual, With: last.Op.ID}
	case req.IfBusy == Queue:
		return Decision{Verdict: VerdictQueue, Reason: ReasonQueued, With: last.Op.ID}
	}
	held = slices.DeleteFunc(slices.Clone(held), func(h Held) bool { return unrelated(h.Op, req) })
	if len(held) == 0 {
		return Decision{Verdict: VerdictFollow, Reason: ReasonUnrelated, With: last.Op.ID}
	}
	var ended []string
	for i := len(held) - 1; i >= 0; i-- {
		d, goOn := weigh(held[i], req, i == 0)
		d.Supersedes = append(ended, d.Supersedes...)
		if !goOn {
			if len(d.Supersedes) > 0 && d.Verdict == VerdictFollow && d.Reason != ReasonNoFinal {
				d.Verdict, d.Reason = VerdictSupersede, ReasonConflict
			}
			return d
		}
		ended = d.Supersedes
	}
	// Every one of them was waiting and has ended; none is left to run before.
	return Decision{Verdict: VerdictSupersede, Reason: ReasonConflict, With: held[0].Op.ID, Supersedes: ended}
}

// unrelated reports whether two requests have nothing to do with each other: a cap changes
// nothing about the power, and no power action anything about the limit. Each waits for the
// other, since a BMC does one thing at a time, and neither ends the other.
func unrelated(a, b Op) bool { return (a.Action == ActCap) != (b.Action == ActCap) }

// weigh holds a request against one operation. goOn is true when that one has
// ended superseded and the one before it must be asked.
func weigh(h Held, req Op, first bool) (d Decision, goOn bool) {
	d.With = h.Op.ID
	switch {
	case h.Cancelling:
		d.Verdict, d.Reason = VerdictFollow, ReasonCancelling
	case h.Op.same(req):
		d.Verdict, d.Reason = VerdictJoin, ReasonEqual
	case h.Op.Action == ActCap: // the limits differ: the newer one counts
		if !h.Running {
			d.Supersedes = []string{h.Op.ID}
			return d, true
		}
		d.Verdict, d.Reason, d.Cancels = VerdictSupersede, ReasonConflict, h.Op.ID
	case h.Op.Action.Final() == Unknown || req.Action.Final() == Unknown:
		d.Verdict, d.Reason = VerdictFollow, ReasonNoFinal
	case h.Op.Action == ActSoftOff && req.Action == ActOff:
		d.Verdict, d.Reason = VerdictHasten, ReasonGraceOver
	case satisfies(h.Op, req):
		d.Verdict, d.Reason = VerdictJoin, ReasonSatisfied
	case !first || !h.Running && h.Op.Action.Final() != req.Action.Final():
		d.Supersedes = []string{h.Op.ID}
		return d, true
	case h.Op.Action.Final() == req.Action.Final():
		d.Verdict, d.Reason = VerdictFollow, ReasonMore
	default:
		d.Verdict, d.Reason, d.Cancels = VerdictSupersede, ReasonConflict, h.Op.ID
	}
	return d, false
}

// satisfies reports whether a success of the outstanding operation is all that
// the request asks for.
func satisfies(out, req Op) bool {
	if req.Boot != BootNone && req.Boot != out.Boot {
		return false
	}
	switch req.Action {
	case ActOn:
		return out.Action == ActOn || out.Action == ActCycle || out.Action == ActReset
	case ActReset:
		return out.Action == ActReset || out.Action == ActCycle
	case ActCycle:
		return out.Action == ActCycle
	case ActSoftOff:
		return out.Action == ActOff || out.Action == ActSoftOff && (!out.NoEscalate || req.NoEscalate)
	default:
		return out.Action == req.Action
	}
}

func waits(d Decision) bool { return !d.Verdict.Joined() && d.Verdict != VerdictRefuse }

func newest(lane Lane) string {
	if n := len(lane.Outstanding); n > 0 {
		return lane.Outstanding[n-1].Op.ID
	}
	return ""
}
