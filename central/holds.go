package central

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// What an audit entry says happened to a hold.
const (
	auditHold     = "hold"
	auditRelease  = "release"
	auditHoldOver = "hold-over" // its time was over
	auditRetry    = "retry"
)

// heldAs is the hold, or release, that is asked for. Its sequence is given when it is
// taken.
func heldAs(in api.SetHold, who string, now time.Time) power.Hold {
	h := power.Hold{By: who, Reason: in.Reason, Since: now.UTC(), Confirmed: in.Confirmed}
	if in.Want == "" {
		return h
	}
	h.Want, _ = power.ParseWant(string(in.Want))
	if in.For > 0 {
		h.Until = h.Since.Add(in.For)
	}
	return h
}

// setHolds holds or releases nodes.
func (u *unitOfWork) setHolds(in api.SetHold) (out api.Changed, err error) {
	h := heldAs(in, in.AskedBy, u.now)
	nodes, err := find(u.tx, in.Names)
	if err != nil {
		return out, err
	}
	var changed []store.Node
	for _, n := range nodes {
		if alike(n.Hold, h, u.now) {
			out.Unchanged++
			continue
		}
		out.Changed++
		if note := neverCut(n, h); note != "" {
			out.Notes = append(out.Notes, "node "+n.Name+": "+note)
		}
		if err := u.hold(n, h, ""); err != nil {
			return out, err
		}
		n.Hold = h
		changed = append(changed, n)
	}
	out.Notes, err = u.idleNotes(out.Notes, changed)
	return out, err
}

// idleNotes adds, for each rack of nodes whose desired power was changed, why nothing is
// done about that for now.
func (u *unitOfWork) idleNotes(notes []string, nodes []store.Node) ([]string, error) {
	concerned := map[string][]string{}
	for _, n := range nodes {
		if power.Effective(n.Status, n.Hold, u.now).Enforces() {
			concerned[n.Agent] = append(concerned[n.Agent], n.Name)
		}
	}
	for _, rack := range slices.Sorted(maps.Keys(concerned)) {
		a, found, err := u.tx.Agent(rack)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		state, err := a.State()
		if err != nil {
			return nil, err
		}
		set, err := settings(u.tx, a)
		if err != nil {
			return nil, err
		}
		if why := api.Idle(rack, state, set, u.now); why != "" {
			notes = append(notes, fmt.Sprintf("nothing is done about %s for now: %s", noderange.Fold(concerned[rack]), why))
		}
	}
	return notes, nil
}

// alike reports whether to hold a node as asked changes nothing: it is held just so
// without an end, or it is not held and a release is asked for.
func alike(is, asked power.Hold, now time.Time) bool {
	if asked.Want == "" {
		return !is.Active(now)
	}
	return is.Active(now) && is.Want == asked.Want && is.Schedule == asked.Schedule && is.By == asked.By && is.Reason == asked.Reason &&
		is.Until.IsZero() && asked.Until.IsZero() && (is.Confirmed || !asked.Confirmed)
}

// neverCut says that a hold will not be enforced, where that is so.
func neverCut(n store.Node, h power.Hold) string {
	if h.Want == power.WantOff && n.Protected.On() {
		return fmt.Sprintf("it is %s; the hold is enforced once that is taken back", n.Protected.Text())
	}
	if h.Want != power.WantOff || !n.Status.Desired().NoCut {
		return ""
	}
	return fmt.Sprintf("the monitor never takes power away while the status is %s; the hold is enforced once that has changed", n.Status)
}

// hold sets or releases a node's hold; a hold without a sequence gets the next one.
// where says where it came in, "" for central's own.
func (u *unitOfWork) hold(n store.Node, h power.Hold, where string) error {
	if h.Seq == 0 {
		h.Seq = u.tx.NextSeq(u.now)
	}
	if h.Schedule != "" {
		h.Heard = n.Hold.Heard
		if n.Hold.Schedule == "" {
			h.Heard = n.Hold.Seq
		}
	}
	next := n
	next.Hold = h
	if err := u.save(n, next); err != nil {
		return err
	}
	what, detail := auditHold, describeHold(h)
	if h.Want == "" {
		what, detail = auditRelease, "desired "+string(n.Status.Desired().Want)
	}
	if n.Hold.Active(u.now) {
		detail += fmt.Sprintf(", was %s (%s)", n.Hold.Want, power.DesiredFrom(n.Status, n.Hold, u.now))
	}
	if note := neverCut(n, h); note != "" {
		detail += "; " + note
	}
	if where != "" {
		detail += "; " + where
	}
	return u.tx.AddAudit(api.AuditEntry{At: u.now, HappenedAt: h.Since, Who: h.By, What: what, Node: n.Name, Why: h.Reason, Detail: detail})
}

// describeHold is "off until 2026-03-01T19:00:00Z, schedule night; confirmed".
func describeHold(h power.Hold) string {
	text := string(h.Want) + " until released"
	if !h.Until.IsZero() {
		text = string(h.Want) + " until " + power.At(h.Until)
	}
	if h.Schedule != "" {
		text += ", schedule " + h.Schedule
	}
	if h.Confirmed {
		text += ", confirmed"
	}
	return text
}

// applyHolds takes the holds that were set or released at a rack's own socket, each
// if it overrides what central knows. The node's assignment carries the newest
// one either way.
func (u *unitOfWork) applyHolds(agent string, all []api.NodeHold) error {
	if len(all) == 0 {
		return nil
	}
	for _, in := range all {
		h := in.Hold
		if _, err := power.ParseWant(string(h.Want)); h.Want != "" && err != nil || h.Seq == 0 || !u.c.store.MergeSeq(h.Seq, u.now) {
			u.c.log.Warn("an invalid hold was reported", "agent", agent, "node", in.Node, "want", h.Want, "seq", h.Seq)
			continue
		}
		n, found, err := u.tx.Node(in.Node)
		if err != nil {
			return err
		}
		if !found || n.Agent != agent {
			if err := u.disown(agent, otherNode("a hold", n, found, in.Node)); err != nil {
				return err
			}
			continue
		}
		if !h.Over(n.Hold) {
			continue
		}
		if h.Seq < n.Hold.Seq {
			// A schedule's makes way that was set meanwhile. The next above it, so that what
			// the rack sets before it hears of this still overrides both.
			h.Seq = n.Hold.Seq + 1
			u.c.store.MergeSeq(h.Seq, u.now)
		}
		h.By, h.Reason, h.Since, h.Until = cut(h.By), cut(h.Reason), h.Since.UTC(), h.Until.UTC()
		if err := u.hold(n, h, "at the socket of agent "+agent); err != nil {
			return err
		}
	}
	return nil
}

// cut is a text that came from elsewhere, no longer than one is.
func cut(text string) string { return text[:min(len(text), api.MaxText)] }

// sweep ends holds, pauses and requests for approval whose time is over.
func (c *Central) sweep(ctx context.Context) {
	now := c.cfg.Now()
	due := false
	err := c.store.View(ctx, func(tx *store.Tx) error {
		held, err := tx.HeldUntil(now)
		if err != nil {
			return err
		}
		paused, err := tx.PausesOver(now)
		if err != nil {
			return err
		}
		site, err := tx.SitePause()
		if err != nil {
			return err
		}
		overdue, err := tx.Overdue(now)
		due = len(held)+len(paused)+len(overdue) > 0 || site != nil && !site.Active(now)
		return err
	})
	if err == nil && due {
		err = c.write(ctx, now, "central", (*unitOfWork).sweepDue)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		c.log.Error("cannot end holds and pauses", "err", err)
	}
}

func (u *unitOfWork) sweepDue() error {
	held, err := u.tx.HeldUntil(u.now)
	if err != nil {
		return err
	}
	for _, n := range held {
		next := n
		// The confirmation stays, for what the end brings about. The sequence stays too,
		// and whose hold it was: the end of a hold is no news, and must not stand over what
		// was set at the rack since, or before a schedule that did not know it.
		next.Hold = power.Hold{Seq: n.Hold.Seq, Confirmed: n.Hold.Confirmed, Schedule: n.Hold.Schedule, Since: n.Hold.Since, Heard: n.Hold.Heard}
		if err := u.save(n, next); err != nil {
			return err
		}
		if err := u.audit(auditHoldOver, n.Name, n.Hold.Reason, fmt.Sprintf("%s (%s)", n.Hold.Want, by(n.Hold))); err != nil {
			return err
		}
	}
	paused, err := u.tx.PausesOver(u.now)
	if err != nil {
		return err
	}
	for _, a := range paused {
		if err := u.endPause(a, auditPauseOver, ""); err != nil {
			return err
		}
	}
	site, err := u.tx.SitePause()
	if err == nil && site != nil && !site.Active(u.now) {
		err = u.endSitePause(site, auditPauseOver, "")
	}
	return errors.Join(err, u.expireApprovals())
}

func by(h power.Hold) string {
	if h.Schedule != "" {
		return "schedule " + h.Schedule
	}
	return "hold of " + h.By
}

// retryNodes has agents try nodes again that they leave alone.
func (c *Central) retryNodes(r *http.Request, in api.RetryNodes) (api.Changed, error) {
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	var out api.Changed
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		nodes, err := find(u.tx, in.Names)
		if err != nil {
			return err
		}
		seq := u.tx.NextSeq(now)
		for _, n := range nodes {
			next := n
			next.Retry = seq
			if err := u.save(n, next); err != nil {
				return err
			}
			if err := u.audit(auditRetry, n.Name, in.Reason, n.Monitor.Fault); err != nil {
				return err
			}
		}
		out.Changed = len(nodes)
		return nil
	})
	return out, err
}

// restampHolds gives holds a new sequence whose own is too far ahead of the clock: those
// of a clock that was set back, or of a version that followed any. No hold that is set at
// a rack would stand over them until that time.
func (c *Central) restampHolds() error {
	now := c.cfg.Now()
	return c.write(context.Background(), now, "central", func(u *unitOfWork) error {
		nodes, err := u.tx.Nodes()
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if !n.Hold.Seq.Ahead(now) {
				continue
			}
			next := n
			next.Hold.Seq = u.tx.NextSeq(now)
			if err := u.save(n, next); err != nil {
				return err
			}
			c.log.Warn("the sequence of a hold was too far ahead of the clock: it has a new one", "node", n.Name, "was", n.Hold.Seq.Time())
		}
		return nil
	})
}
