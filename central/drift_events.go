package central

import (
	"fmt"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// What an audit entry says was noticed on a node. Each is written once, when it
// begins or ends, however often and in whatever order reports arrive.
const (
	auditFault     = "fault"
	auditFaultOver = "fault-over"
	auditDrift     = "drift"
	auditDriftOver = "drift-over"
	auditAlone     = "bmc-left-alone"
	auditBack      = "bmc-back"
	auditFell      = "fell-back" // an operation had succeeded, and that did not last
)

// storeReading stores a reading and what the monitor makes of the node. Nearly all say
// the same as the one before, and cost one statement. rev is the revision of the
// assignment that the monitor went by.
func (u *unitOfWork) storeReading(agent string, r api.NodeReading, rev int64) error {
	done, err := u.tx.Refresh(agent, r)
	if done || err != nil {
		return err
	}
	old, found, err := u.tx.Node(r.Node)
	if err != nil {
		return err
	}
	if !found || old.Agent != agent {
		if had, err := u.tx.Had(agent, r.Node); err != nil || had {
			return err // it was on its way
		}
		return u.disown(agent, otherNode("a reading", old, found, r.Node))
	}
	next := nodeAfter(old, r, rev >= old.Rev, u.now)
	if next.Drifting && !old.Drifting {
		// While something is under way, what is read on the way is no drift.
		open, err := u.tx.OpenOpsOn([]string{old.Name})
		if err != nil {
			return err
		}
		if len(open) > 0 {
			next.Drifting, next.Unsettled = false, true
		}
	}
	if next == old {
		return nil
	}
	if err := u.tx.Observe(next); err != nil {
		return err
	}
	for _, e := range nodeEvents(old, next, u.now) {
		e.At, e.Who, e.Node = u.now, "agent "+agent, old.Name
		if err := u.tx.AddAudit(e); err != nil {
			return err
		}
	}
	if next.Monitor.RevertedOp != old.Monitor.RevertedOp {
		return u.noteReverted(next)
	}
	return nil
}

// noteReverted notes with an operation, and with those that joined it, that their success did not
// last. It stays a success: it was seen.
func (u *unitOfWork) noteReverted(n store.Node) error {
	if n.Monitor.RevertedOp == "" {
		return nil
	}
	ops, err := u.tx.Shared(n.Name, n.Monitor.RevertedOp)
	if err != nil {
		return err
	}
	for i := range ops {
		o := &ops[i]
		if o.Rack != n.Agent || o.Outcome != power.Succeeded {
			continue
		}
		if o.Detail != "" {
			o.Detail += "; "
		}
		o.Detail += "did not last: " + n.Monitor.Reverted
		if err := u.tx.SaveOp(o); err != nil {
			return err
		}
		u.marks.note(o.Rev)
	}
	return nil
}

// nodeAfter is what a node becomes by a reading that is not overtaken. knows says that
// the agent spoke of what is desired of the node now.
func nodeAfter(old store.Node, r api.NodeReading, knows bool, now time.Time) store.Node {
	n := old
	if r.TriedAt.After(old.TriedAt) || old.TriedAt.After(now) { // central's clock was set back
		n.Reading = r.Reading
		if r.ObservedAt.IsZero() { // not read since the agent's start: what was read before is valid, with its age
			n.State, n.ObservedAt = old.State, old.ObservedAt
		}
	}
	n.Monitor, n.Matched, n.Unsettled = r.Monitor, r.Monitor.Matched, false
	if !knows && !old.Matched {
		n.Matched, n.Unsettled = false, r.Monitor.Matched
	}
	if n.Hold.Want != "" && !n.Hold.Active(now) {
		n.Unsettled = true // the sweep comes first
	} else if n.Reach == power.ReachOK {
		d := standing(n)
		n.Drifting = d.DiffersFrom(n.State) && (n.Matched || !d.Enforces())
	}
	n.BreakerOpen = leftAlone(old, n)
	if noAnswer(n.Reach) && !n.BreakerOpen {
		n.Unsettled = true // another one like it makes two
	}
	return n
}

// leftAlone reports whether a node's BMC is left alone: the monitor says so, or two
// attempts in a row brought nothing, after which an agent tries it by a slow
// schedule only. It is back with the first reading.
func leftAlone(old, n store.Node) bool {
	if n.Monitor.Waits == power.ReasonBreaker {
		return true
	}
	twice := noAnswer(old.Reach) && n.TriedAt.After(old.TriedAt)
	return noAnswer(n.Reach) && (old.BreakerOpen || twice)
}

func noAnswer(r power.Reach) bool {
	switch r {
	case power.ReachUnreachable, power.ReachBusy, power.ReachAuthFailed, power.ReachPrivilege:
		return true
	}
	return false
}

// nodeEvents lists what began or ended between two states of a node.
func nodeEvents(old, n store.Node, now time.Time) (news []api.AuditEntry) {
	add := func(what string, at time.Time, why power.Reason, format string, args ...any) {
		news = append(news, api.AuditEntry{What: what, HappenedAt: at, Why: string(why), Detail: fmt.Sprintf(format, args...)})
	}
	d := standing(n)
	switch {
	case n.Drifting && !old.Drifting:
		add(auditDrift, n.ObservedAt, power.ReasonDrift, "%s", describeDrift(n, d, now))
	case old.Drifting && !n.Drifting && d.DiffersFrom(n.State):
		add(auditDriftOver, now, power.ReasonDesired, "%s; its agent has not seen it yet in what is desired now", n.State)
	case old.Drifting && !n.Drifting:
		add(auditDriftOver, n.ObservedAt, "", "%s, as %s says", n.State, power.DesiredFrom(n.Status, n.Hold, now))
	}
	switch was, is := old.Monitor, n.Monitor; {
	case was.Fault == "" && is.Fault != "":
		add(auditFault, is.FaultSince, power.ReasonFault, "%s", is.Fault)
	case was.Fault != "" && is.Fault == "":
		add(auditFaultOver, time.Time{}, "", "was: %s", was.Fault)
	}
	if m := n.Monitor; m.RevertedOp != "" && m.RevertedOp != old.Monitor.RevertedOp {
		add(auditFell, m.RevertedAt, power.ReasonDrift, "%s", m.Reverted)
		news[len(news)-1].Op = m.RevertedOp
	}
	switch {
	case n.BreakerOpen && !old.BreakerOpen:
		add(auditAlone, n.TriedAt, power.ReasonBreaker, "its BMC is left alone for now (%s); last read %s", n.Reach, n.State)
	case old.BreakerOpen && !n.BreakerOpen:
		add(auditBack, n.TriedAt, "", "its BMC answers again (%s); %s", n.Reach, n.State)
	}
	return news
}

func describeDrift(n store.Node, d power.Desired, now time.Time) string {
	from := power.DesiredFrom(n.Status, n.Hold, now)
	if !d.Enforces() {
		return fmt.Sprintf("%s, expected %s (%s); nothing is done about it", n.State, d.State(), from)
	}
	return fmt.Sprintf("%s, wanted %s (%s)", n.State, d.State(), from)
}
