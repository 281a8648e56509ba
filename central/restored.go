package central

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// A restored database knows the statuses and holds of the backup. What was set since then would
// be undone by the monitors, so they correct nothing until central knows what changes: each agent
// tells what it enforced so far before it takes its nodes from the restored database. A rack where
// little changes goes on by itself; otherwise a person sees what changes and confirms it.

// What an audit entry says of a rack after a restore.
const (
	auditRestored  = "restored"
	auditConfirmed = "restore-confirmed"
)

// restoreSettles is how long after a restore, and after the start, agents have to come back
// before they count as away.
const restoreSettles = 30 * time.Second

// restoredEvery is how often it is looked which racks may go on: while much differs, that is a look
// at many nodes.
const restoredEvery = 5 * time.Second

// restorePause is what the monitor of a rack rests for after a restore.
func restorePause(at time.Time) *api.Pause {
	return &api.Pause{By: "central", Reason: "its database was restored", Since: at.UTC(), Restored: true}
}

// restored is what there is to decide after a restore.
type restored struct {
	api.Site
	agents map[string]store.Agent // those that are not through
	nodes  map[string]int         // by agent: those of which something else is desired and enforced
	of     map[string]int         // by agent: all
}

// afterRestore gathers it.
func (c *Central) afterRestore(tx *store.Tx, now time.Time) (r restored, err error) {
	r.nodes, r.of, r.agents = map[string]int{}, map[string]int{}, map[string]store.Agent{}
	if r.Restored, r.Of, err = tx.Restored(); err != nil || r.Restored.IsZero() {
		return r, err
	}
	agents, err := tx.Agents()
	if err != nil {
		return r, err
	}
	waits := false
	for _, a := range agents {
		waits = waits || a.Restored != store.RestoreOver
	}
	if !waits {
		return r, nil
	}
	if r.of, err = tx.NodeCounts(namesOfAgents(agents)); err != nil {
		return r, err
	}
	if err := r.compare(tx, now); err != nil {
		return r, err
	}
	all := 0
	for _, n := range r.of {
		all += n
	}
	settled := now.Sub(c.started) >= restoreSettles && now.Sub(r.Restored) >= restoreSettles
	if !settled {
		settled = !slices.ContainsFunc(agents, func(a store.Agent) bool { return a.Restored == store.RestoreAsked && r.of[a.Name] > 0 })
	}
	changes := 0
	for _, n := range r.nodes {
		changes += n
	}
	tooMany := power.OverBrake(changes, all, power.DefaultBrakePercent, power.DefaultBrakeAbove)
	for _, a := range agents {
		if a.Restored == store.RestoreOver {
			continue
		}
		set, err := a.Settings()
		if err != nil {
			return r, err
		}
		percent, above := cmp.Or(set.BrakePercent, power.DefaultBrakePercent), cmp.Or(set.BrakeAbove, power.DefaultBrakeAbove)
		switch silent := c.sessions.of(a.Name).tellsNothing(); {
		case a.Restored != store.RestoreTold && r.of[a.Name] == 0:
			continue // there is nothing that it could enforce
		case a.Restored == store.RestoreSilent || a.Restored == store.RestoreAsked && silent:
			r.Silent, r.Waits = append(r.Silent, a.Name), append(r.Waits, a.Name)
		case a.Restored == store.RestoreAsked:
			r.Untold = append(r.Untold, a.Name)
		case tooMany && r.nodes[a.Name] > 0 || power.OverBrake(r.nodes[a.Name], r.of[a.Name], percent, above):
			r.Waits = append(r.Waits, a.Name)
		case !settled:
			r.Undecided = append(r.Undecided, a.Name)
		}
		r.agents[a.Name] = a
	}
	return r, nil
}

// goesOn reports whether the rack's monitor may go on without a person.
func (r *restored) goesOn(agent string) bool {
	return !slices.Contains(r.Untold, agent) && !slices.Contains(r.Undecided, agent) && !slices.Contains(r.Waits, agent)
}

// compare finds what is desired otherwise than the agents told.
func (r *restored) compare(tx *store.Tx, now time.Time) error {
	before, err := tx.Enforced()
	if err != nil || len(before) == 0 {
		return err
	}
	names := make([]string, len(before))
	for i, b := range before {
		names[i] = b.Node
	}
	nodes, err := nodesNamed(tx, names)
	if err != nil {
		return err
	}
	for _, b := range before {
		n, known := nodes[b.Node]
		d, differs := difference(b, n, known, now)
		if !differs {
			continue
		}
		r.Differences = append(r.Differences, d)
		if d.Acts() {
			r.nodes[b.Agent]++
		}
	}
	return nil
}

// difference compares what an agent enforced with what is desired now. known: n is the node.
func difference(b store.Enforced, n store.Node, known bool, now time.Time) (d api.Difference, differs bool) {
	d = api.Difference{Node: b.Node, Agent: b.Agent, State: n.State}
	if b.Had {
		was := power.Effective(b.Status, b.Hold, now)
		d.Was, d.WasFrom = &was, power.DesiredFrom(b.Status, b.Hold, now)
	}
	if !known || !b.Had && n.Agent != b.Agent {
		return d, b.Had
	}
	hold := n.Hold
	if b.Hold.Over(hold) {
		hold = b.Hold // the agent keeps it, and central learns of it
	}
	is := power.Effective(n.Status, hold, now)
	d.Is, d.IsFrom = &is, power.DesiredFrom(n.Status, hold, now)
	if n.Agent != b.Agent {
		d.To = n.Agent
		return d, true
	}
	if !b.Had {
		return d, is.State() != power.Unknown
	}
	return d, d.Was.Want != is.Want || d.Was.Expected != is.Expected || d.Was.NoCut != is.NoCut
}

// told takes what an agent enforced before the restore: kept is of what something else is desired.
// One that follows the restored database already, since it was of a version that tells nothing,
// does not know it any more.
func (u *unitOfWork) told(name string, before *api.Enforced) error {
	if before == nil {
		return nil
	}
	a, found, err := u.tx.Agent(name)
	switch {
	case err != nil || !found || a.Restored != store.RestoreAsked:
		return err
	case before.Database == u.c.store.Database():
		return u.tx.SaveRestored(name, store.RestoreSilent, nil)
	}
	nodes, err := u.tx.NodesSince(name, 0)
	if err != nil {
		return err
	}
	names := make([]string, len(before.Nodes))
	for i, n := range before.Nodes {
		names[i] = n.Node
	}
	known, err := nodesNamed(u.tx, names)
	if err != nil {
		return err
	}
	had := map[string]bool{}
	var kept []store.Enforced
	for _, n := range before.Nodes {
		if had[n.Node] || api.CheckName(n.Node) != nil {
			continue
		}
		had[n.Node] = true
		e := store.Enforced{Agent: name, Node: n.Node, Had: true, Status: n.Status, Hold: n.Hold}
		now, there := known[n.Node]
		if _, differs := difference(e, now, there, u.now); differs {
			kept = append(kept, e)
		}
	}
	for _, n := range nodes {
		e := store.Enforced{Agent: name, Node: n.Name}
		if _, differs := difference(e, n, true, u.now); differs && !had[n.Name] {
			kept = append(kept, e)
		}
	}
	// It may have had no node here so far, and not been waited for.
	u.tx.OnCommit(func() { u.c.waitsRestored.Store(true) })
	return u.tx.SaveRestored(name, store.RestoreTold, kept)
}

// goOnRestored has the monitors of racks go on where little changes by the restore.
func (c *Central) goOnRestored(ctx context.Context) {
	if !c.waitsRestored.Load() {
		return
	}
	now, due, left := c.cfg.Now(), false, 0
	look := func(tx *store.Tx) (r restored, goOn []string, err error) {
		r, err = c.afterRestore(tx, now)
		for name := range r.agents {
			if r.goesOn(name) {
				goOn = append(goOn, name)
			}
		}
		slices.Sort(goOn)
		return r, goOn, err
	}
	err := c.store.View(ctx, func(tx *store.Tx) error {
		r, names, err := look(tx)
		due, left = len(names) > 0, len(r.agents)
		return err
	})
	if err == nil && due {
		err = c.write(ctx, now, "central", func(u *unitOfWork) error {
			r, names, err := look(u.tx)
			for _, name := range names {
				if err := u.restoreOver(name, auditRestored, "", r); err != nil {
					return err
				}
			}
			left = len(r.agents) - len(names)
			return err
		})
	}
	if err == nil && left == 0 {
		c.waitsRestored.Store(false)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		c.log.Error("cannot see which racks go on after the restore", "err", err)
	}
}

// restoreOver has the monitor of a rack go on.
func (u *unitOfWork) restoreOver(agent, what, why string, r restored) error {
	var changed []string
	for _, d := range r.Differences {
		if d.Agent == agent && d.Acts() {
			changed = append(changed, d.Node)
		}
	}
	if err := u.tx.SaveRestored(agent, store.RestoreOver, nil); err != nil {
		return err
	}
	if err := u.tellRack(agent); err != nil {
		return err
	}
	if r.of[agent] == 0 {
		return nil
	}
	detail := fmt.Sprintf("rack %s: its monitor goes on after the restore; something else is desired of %d of %s", agent, len(changed),
		power.Count(r.of[agent], "node"))
	if len(changed) > 0 {
		detail += ": " + noderange.Fold(changed)
	}
	return u.audit(what, "", why, detail)
}

func (c *Central) getSite(r *http.Request) (out api.Site, err error) {
	err = c.store.View(r.Context(), func(tx *store.Tx) error {
		all, err := c.afterRestore(tx, c.cfg.Now())
		out = all.Site
		return err
	})
	return out, err
}

// confirmSite has the monitors go on that wait for a person. Those who lose power by it do so
// with that person's word: the brake counts others.
func (c *Central) confirmSite(r *http.Request, in api.ConfirmSite) (out api.Site, err error) {
	now := c.cfg.Now()
	err = c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		site, err := c.afterRestore(u.tx, now)
		switch {
		case err != nil:
			return err
		case len(site.Waits) == 0:
			return api.Problemf(api.CodeRefused, "nothing was done: no rack waits for it; see rackpower site show")
		case site.Token() != in.Shown:
			return api.Problemf(api.CodeRefused, "nothing was done: something else differs by now; look again: rackpower site show")
		}
		for _, d := range site.Differences {
			if err := u.confirmDifference(d, site.Waits, in.Reason); err != nil {
				return err
			}
		}
		for _, name := range site.Waits {
			if err := u.restoreOver(name, auditConfirmed, in.Reason, site); err != nil {
				return err
			}
		}
		after, err := c.afterRestore(u.tx, now)
		out = after.Site
		return err
	})
	return out, err
}

func (u *unitOfWork) confirmDifference(d api.Difference, racks []string, why string) error {
	if !d.Acts() || !slices.Contains(racks, d.Agent) {
		return nil
	}
	n, found, err := u.tx.Node(d.Node)
	if err != nil || !found || n.Agent != d.Agent {
		return err
	}
	detail := fmt.Sprintf("%s, as %s says; before the restore %s", d.Is.Want, d.IsFrom, wasWords(d))
	if err := u.audit(auditConfirmed, d.Node, why, detail); err != nil {
		return err
	}
	next := n
	if !n.Hold.Active(u.now) {
		next.Confirmed = true
	}
	return u.save(n, next)
}

// wasWords is what was enforced before the restore.
func wasWords(d api.Difference) string {
	if d.Was == nil {
		return "its agent did not have it"
	}
	return strings.TrimSpace(fmt.Sprintf("%s, as %s said", d.Was.Want, d.WasFrom))
}

// restoredAttention is the item about the restore; waits: monitors wait.
func (c *Central) restoredAttention(tx *store.Tx, now time.Time) (x api.Attention, waits bool, err error) {
	if !c.waitsRestored.Load() {
		return x, false, nil
	}
	site, err := c.afterRestore(tx, now)
	if err != nil || len(site.agents) == 0 {
		return x, false, err
	}
	x = api.Attention{
		Severity: api.SeverityNotice, Kind: api.AttentionRestored, Since: site.Restored.UTC(), Count: len(site.Differences),
		Message: fmt.Sprintf("the database was restored as it was at %s, and the monitors of %s correct nothing until their agents have told "+
			"what they enforced", power.At(site.Of), power.Count(len(site.agents), "rack")),
		Do: "wait, or start the agents that are away", Run: []string{"rackpower site show"},
	}
	if len(site.Waits) > 0 {
		x.Severity, x.Do, x.Run = api.SeverityCritical, "look at what would change, set right what is not meant, then confirm", []string{
			"rackpower site show", "rackpower site confirm",
		}
		x.Message = fmt.Sprintf("the database was restored as it was at %s, and the monitors of %s wait for a person: something else is desired "+
			"of %s than was enforced", power.At(site.Of), power.Count(len(site.Waits), "rack"), power.Count(len(site.Differences), "node"))
	}
	return x, true, nil
}
