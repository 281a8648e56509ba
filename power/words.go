package power

import (
	"fmt"
	"time"
)

// Describe says in words what a request found and what will happen, for the one
// who asked: "cycle (asked by admin, 4 s ago) in progress; off next". lane is
// what Decide was given.
func Describe(d Decision, lane Lane, req Op, now time.Time) string {
	found, asked := "", req.Action.With(req.Options)
	for _, h := range lane.Outstanding {
		if h.Op.ID == d.With {
			found = fmt.Sprintf("%s (asked by %s, %s ago) %s", h.Op.Action.With(h.Op.Options), h.Op.AskedBy, Ago(now.Sub(h.Op.AskedAt)), phrase(h))
		}
	}
	switch d.Verdict {
	case VerdictStart:
		return fmt.Sprintf("nothing outstanding; %s starts", asked)
	case VerdictJoin:
		if d.Reason == ReasonRepeat {
			return fmt.Sprintf("%s; this request was accepted before", found)
		}
		return fmt.Sprintf("%s; joined", found)
	case VerdictHasten:
		return fmt.Sprintf("%s; its grace ends now", found)
	case VerdictFollow:
		return fmt.Sprintf("%s; %s next", found, asked)
	case VerdictSupersede:
		if d.Cancels != "" {
			return fmt.Sprintf("%s, being cancelled; %s next", found, asked)
		}
		return fmt.Sprintf("%s; %s next, %s superseded", found, asked, Count(len(d.Supersedes), "waiting operation"))
	case VerdictQueue:
		return fmt.Sprintf("%s; %s waits as number %d", found, asked, len(lane.Outstanding)+1)
	}
	switch d.Reason {
	case ReasonStale:
		return fmt.Sprintf("a newer request (of %s) was accepted for this node before; this older one is refused", At(lane.LastSeq.Time()))
	case ReasonQueueFull:
		if len(lane.Outstanding) < MaxOutstanding {
			return fmt.Sprintf("%s; %d requests joined what is outstanding on this node, which is the limit: ask again when it has ended, or "+
				"cancel it (rackpower op cancel %s)",
				found, lane.joined(), d.With)
		}
		return fmt.Sprintf("%d operations are outstanding on this node, which is the limit; ask again later", len(lane.Outstanding))
	case ReasonBusy:
		return fmt.Sprintf("%s; refused because busy", found)
	default:
		return d.Reason.Text()
	}
}

func phrase(h Held) string {
	switch {
	case h.Cancelling:
		return "is being cancelled"
	case h.Running:
		return "in progress"
	default:
		return "waiting"
	}
}

// Count writes how many of something there are: "1 node", "2 nodes".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Ago writes a duration as people say it: "4 s", "3 min", "2 h", "5 d".
func Ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	}
}

// RefusedAgainstDesired words the refusal of a request that the monitor would
// undo, with the two ways out. from is what DesiredFrom says.
func RefusedAgainstDesired(a Action, from string, want Want) string {
	return fmt.Sprintf("%s is against the desired state: %s wants the node %s and the monitor would undo it; change the status first "+
		"(rackpower node set-status NODE STATUS), or hold the node in the new state together with the request (--hold)", a, from, want)
}

// RefusedBy is RefusedAgainstDesired for a node with the status and the hold: what
// the hold wants is changed by a release.
func RefusedBy(a Action, s Status, h Hold, now time.Time) string {
	from, want := DesiredFrom(s, h, now), Effective(s, h, now).Want
	if !h.Active(now) {
		return RefusedAgainstDesired(a, from, want)
	}
	if h.Reason != "" {
		from += fmt.Sprintf(" (%s)", h.Reason)
	}
	return fmt.Sprintf("%s is against the desired state: %s wants the node %s and the monitor would undo it; release the hold first "+
		"(rackpower release NODE), or hold the node in the new state together with the request (--hold)", a, from, want)
}

// LeftAlone says why nothing is wanted of a node, from where its desire comes.
func LeftAlone(from string) string {
	if from == DesiredFrom(StatusNone, Hold{}, time.Time{}) {
		return "without a status or a hold it is left alone"
	}
	return from + " leaves it alone"
}

// At writes a time within a sentence: RFC 3339 in UTC, to the second. The command line
// shows people their own zone instead.
func At(t time.Time) string { return t.UTC().Format(time.RFC3339) }
