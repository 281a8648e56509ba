package central

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Bounds of plans.
const (
	planLasts   = time.Hour          // a plan may be applied
	planShown   = 7 * 24 * time.Hour // it is shown after that
	maxPlansOf  = 100                // of a principal: the newest are kept
	maxPlanBody = 8 << 20
)

const auditApply = "plan-apply"

// foreseen is what a change does to each node that it names, and what came of it.
type foreseen struct {
	made
	nodes []api.PlannedNode
	needs string // why a second person has to approve it
}

// foresee makes a change and tells what it does to each node. Whoever only wants to know
// undoes the job.
func (u *unitOfWork) foresee(ch api.Change) (out foreseen, err error) {
	names := ch.Names()
	before, err := nodesNamed(u.tx, names)
	if err != nil {
		return out, err
	}
	open, err := u.tx.OpenOpsOn(names)
	if err != nil {
		return out, err
	}
	if out.made, err = u.make(ch); err != nil {
		return out, err
	}
	after, err := nodesNamed(u.tx, names)
	if err != nil {
		return out, err
	}
	lanes := lanesOf(open)
	for i, name := range names {
		n := u.planned(before[name], after[name], lanes[name])
		n.Node = name
		if ch.Ops != nil {
			u.plannedOp(&n, out.ops[i], before[name], lanes[name])
			if h := after[name].Hold; h != before[name].Hold {
				n.Message += "; the node is held " + describeHold(h)
			}
		}
		out.nodes = append(out.nodes, n)
	}
	if ch.Schedule != nil {
		for _, name := range slices.Sorted(maps.Keys(u.cuts.nodes)) {
			out.nodes = append(out.nodes, api.PlannedNode{Node: name, Effect: api.EffectLosesPower, Message: describeSchedule(out.schedule)})
		}
	}
	return out, u.stagger(out.nodes, after)
}

func nodesNamed(tx *store.Tx, names []string) (map[string]store.Node, error) {
	nodes, err := tx.NodesNamed(names)
	all := make(map[string]store.Node, len(nodes))
	for _, n := range nodes {
		all[n.Name] = n
	}
	return all, err
}

// planned is what a change of what is desired of a node does to it.
func (u *unitOfWork) planned(before, after store.Node, lane power.Lane) api.PlannedNode {
	was, is := power.Effective(before.Status, before.Hold, u.now), power.Effective(after.Status, after.Hold, u.now)
	out := api.PlannedNode{
		Rack: after.Rack, State: after.State, Effect: api.EffectNone, Desired: is.Want,
		Before: fmt.Sprintf("%s (%s)", was.Want, power.DesiredFrom(before.Status, before.Hold, u.now)), OutOfReach: u.outOfReach(after),
	}
	if before.Hold.Active(u.now) && before.Status != "" {
		out.Before += ", status " + string(before.Status)
	}
	from := power.DesiredFrom(after.Status, after.Hold, u.now)
	switch when := turnsOff(after, u.now); {
	case before.Status == after.Status && before.Hold == after.Hold && before.Confirmed == after.Confirmed &&
		before.Protected == after.Protected:
		out.Message = "nothing changes"
	case after.Protected.On() && is.Want == power.WantOff:
		out.Message = after.Protected.Text()
	case is.Want == power.WantOff && is.NoCut:
		out.Message = neverCut(after, power.Hold{Want: power.WantOff})
	case when > offNever && mayLosePower(after, lane, u.presence(after), u.now):
		out.Effect, out.Message = api.EffectLosesPower, from
		if when == offLater {
			out.Message = fmt.Sprintf("%s, and at its end, %s, the status %s", from, power.At(after.Hold.Until), after.Status)
		}
	case is.Want == power.WantOn && after.State != power.On:
		out.Effect, out.Message = api.EffectTurnsOn, from
	case is.Enforces():
		out.Message = fmt.Sprintf("it is %s already (%s)", is.Want, from)
	default:
		out.Message = fmt.Sprintf("it is left alone (%s)", from)
	}
	return out
}

// plannedOp is what an operation does to a node.
func (u *unitOfWork) plannedOp(out *api.PlannedNode, op api.Op, n store.Node, lane power.Lane) {
	out.Effect, out.Verdict, out.Why, out.Message = api.EffectRefused, op.Verdict, op.Why, op.Message
	if op.Outcome == power.Refused {
		return
	}
	out.Message = foresee(&op, lane, op.Request(), u.now)
	out.Verdict, out.Why = op.Verdict, op.Why
	switch {
	case op.Verdict == power.VerdictRefuse:
	case op.Action.StopsSystem() && mayLosePower(n, lane, u.presence(n), u.now):
		out.Effect = api.EffectLosesPower
	case op.Action.Final() == power.On && n.State != power.On:
		out.Effect = api.EffectTurnsOn
	default:
		out.Effect = api.EffectNone
	}
}

func (u *unitOfWork) presence(n store.Node) api.AgentPresence { return u.c.presence(n.Agent) }

// When a node is turned off by what is desired of it.
const (
	offNever = iota
	offLater // when its hold ends by itself
	offNow
)

// turnsOff says when what is desired of a node lets the monitor turn it off, if it is on.
func turnsOff(n store.Node, at time.Time) int {
	status := n.Status.Desired()
	switch is := power.Effective(n.Status, n.Hold, at); {
	case n.Protected.On():
		return offNever
	case is.Want == power.WantOff && !is.NoCut:
		return offNow
	case n.Hold.Active(at) && !n.Hold.Until.IsZero() && status.Want == power.WantOff && !status.NoCut:
		return offLater
	}
	return offNever
}

// mayLosePower reports whether a node has power, or may have it: it is not known to be off
// and to stay so.
func mayLosePower(n store.Node, lane power.Lane, agent api.AgentPresence, now time.Time) bool {
	return n.State != power.Off || agent.Absent() || stale(n.Reading, now) ||
		slices.ContainsFunc(lane.Outstanding, func(h power.Held) bool { return h.Op.Action.Final() == power.On })
}

// outOfReach says why nothing reaches a node now, "" where something does.
func (u *unitOfWork) outOfReach(n store.Node) string {
	p := u.presence(n)
	switch {
	case n.Agent == "":
		return "no agent has it"
	case p.Absent():
		return agentIs(n.Agent, p, u.now)
	case n.BMC == "":
		return "no BMC is known"
	case n.Reach != "" && n.Reach != power.ReachOK && n.Reach != power.ReachNever:
		return "its BMC: " + string(n.Reach)
	}
	return ""
}

// stagger fills in about when power-ons start that wait for others of their power domain.
func (u *unitOfWork) stagger(rows []api.PlannedNode, nodes map[string]store.Node) error {
	queues, err := queues(u.tx)
	if err != nil {
		return err
	}
	before, limits := map[string]int{}, map[string]api.DomainLimit{}
	for i := range rows {
		domain := nodes[rows[i].Node].Domain
		if rows[i].Effect != api.EffectTurnsOn || rows[i].OutOfReach != "" || domain == "" {
			continue
		}
		limit, known := limits[domain]
		if !known {
			d, err := u.tx.Domain(domain)
			if err != nil {
				return err
			}
			limit, before[domain] = limitsOf(d), queues[domain].Waiting
			limits[domain] = limit
		}
		if limit.Rate > 0 {
			if wait := time.Duration(float64(before[domain]) / limit.Rate * float64(time.Second)); wait >= time.Second {
				rows[i].StartsAt = u.now.Add(wait).UTC()
			}
		}
		before[domain]++
	}
	return nil
}

func (c *Central) makePlan(r *http.Request, in api.MakePlan) (api.Plan, error) {
	if err := mayPlan(r, in); err != nil {
		return api.Plan{}, err
	}
	nameAskers(r, &in.Change)
	now, principal := c.cfg.Now(), httpserver.Principal(r).Name
	var out api.Plan
	err := c.write(r.Context(), now, changer(in.Change), func(u *unitOfWork) error {
		old, found, err := u.tx.Plan(in.ID)
		if err != nil {
			return err
		}
		if found && old.Principal != principal {
			return api.Problemf(api.CodeBadRequest, "id %s was used before, for another plan", in.ID)
		}
		if found { // asked again
			out, err = c.showPlan(u.tx, old, now)
			return err
		}
		p := store.Plan{Principal: principal, Change: in.Change, Plan: api.Plan{
			ID: in.ID, State: api.PlanMade, What: in.What(), AskedAt: now.UTC(), ExpiresAt: now.Add(planLasts).UTC(),
		}}
		p.AskedBy, p.Reason = in.Asker()
		seen, err := u.wouldDo(in.Change)
		if err != nil {
			return err
		}
		p.Nodes, p.Notes, p.Needs = seen.nodes, seen.changed.Notes, seen.needs
		if err := u.tx.PutPlan(p); err != nil {
			return err
		}
		out = p.Plan
		return u.tx.PrunePlansOf(principal, maxPlansOf)
	})
	return out, err
}

// wouldDo is what a change would do.
func (u *unitOfWork) wouldDo(ch api.Change) (out foreseen, err error) {
	err = u.tx.Undone(func() (err error) {
		then := u.c.unitOfWork(u.tx, u.now, u.who)
		if out, err = then.foresee(ch); err == nil {
			out.needs, err = then.needs(u.tx.Asker().Name)
		}
		return err
	})
	return out, err
}

func (c *Central) getPlan(r *http.Request) (api.Plan, error) {
	var out api.Plan
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		p, err := knownPlan(tx, r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := mayTouch(tx, p.Change.Names()...); err != nil {
			return err
		}
		out, err = c.showPlan(tx, p, c.cfg.Now())
		return err
	})
	return out, err
}

// knownPlan finds a plan. To others than who made it one with nodes beyond their scope is
// not there.
func knownPlan(tx *store.Tx, id string) (store.Plan, error) {
	p, found, err := tx.Plan(id)
	if err == nil && (!found || p.Principal != tx.Asker().Name && mayTouch(tx, p.NodeNames()...) != nil) {
		err = api.Problemf(api.CodeNotFound, "no plan %s: plans are kept for %d days", id, int(planShown.Hours()/24))
	}
	return p, err
}

// showPlan is a plan as people see it: with its operations as they are.
func (c *Central) showPlan(tx *store.Tx, p store.Plan, now time.Time) (api.Plan, error) {
	out := p.Plan
	if (out.State == api.PlanMade || out.State == api.PlanAwaiting) && !now.Before(out.ExpiresAt) {
		out.State = api.PlanExpired
	}
	if p.Change.Ops == nil || out.State != api.PlanApplied {
		return out, nil
	}
	out.Ops = []api.Op{}
	for _, r := range p.Change.Ops.Ops {
		o, found, err := tx.Op(r.ID)
		if err != nil {
			return out, err
		}
		if found {
			out.Ops = append(out.Ops, c.show(&o, now))
		}
	}
	return out, nil
}

// applyPlan makes the change of a plan, once, if it still does what was shown.
func (c *Central) applyPlan(r *http.Request, _ struct{}) (api.Plan, error) {
	now := c.cfg.Now()
	var out api.Plan
	var p store.Plan
	err := c.write(r.Context(), now, "central", func(u *unitOfWork) (err error) {
		if p, err = knownPlan(u.tx, r.PathValue("id")); err != nil {
			return err
		}
		u.who = changer(p.Change)
		if err := u.apply(&p, httpserver.Principal(r).Name); err != nil {
			return err
		}
		out, err = c.showPlan(u.tx, p, now)
		return err
	})
	var needs *needsApproval
	if errors.As(err, &needs) {
		err = c.await(r, p, needs.why)
	}
	return out, err
}

func (u *unitOfWork) apply(p *store.Plan, principal string) error {
	switch {
	case p.Principal != principal:
		return api.Problemf(api.CodeForbidden, "not permitted: plan %s was made by %s, who alone may apply it: make one of your own (rackpower "+
			"plan)", p.ID, p.Principal)
	case p.State == api.PlanApplied:
		return nil // once is enough
	case p.State == api.PlanAwaiting && u.now.Before(p.ExpiresAt):
		return awaitingProblem(p.Plan)
	case p.State == api.PlanDenied:
		return api.Problemf(api.CodeRefused, "nothing was done: %s denied plan %s", p.DecidedBy, p.ID)
	case p.State == api.PlanExpired, !u.now.Before(p.ExpiresAt):
		return api.Problemf(api.CodeRefused, "nothing was done: plan %s expired at %s: make another one (rackpower plan)", p.ID,
			power.At(p.ExpiresAt))
	}
	seen, err := u.foresee(p.Change)
	if err != nil {
		return err
	}
	if news := changes(p.Nodes, seen.nodes); len(news) > 0 {
		return api.Problemf(api.CodeChanged,
			"nothing was done: what plan %s was made for has changed since:\n%s\nMake another plan (rackpower plan)",
			p.ID, strings.Join(news, "\n"))
	}
	p.State, p.AppliedAt = api.PlanApplied, u.now.UTC()
	if p.Change.Ops == nil {
		p.Changed = &seen.changed
	}
	if err := u.tx.PutPlan(*p); err != nil {
		return err
	}
	return u.tx.AddAudit(api.AuditEntry{
		At: u.now, Who: p.AskedBy, What: auditApply, Why: p.Reason,
		Detail: fmt.Sprintf("plan %s: %s of %s", p.ID, p.What, noderange.Fold(p.Change.Names())),
	})
}

// changes says what differs from what was planned, alike nodes in one line.
func changes(planned, seen []api.PlannedNode) (lines []string) {
	groups := map[string][]string{}
	for i, n := range planned {
		if i >= len(seen) || n.Same(seen[i]) {
			continue
		}
		text := fmt.Sprintf("%s; planned: %s", effectWords(seen[i]), effectWords(n))
		if seen[i].Before != n.Before {
			text = fmt.Sprintf("desired %s by now; planned from %s", seen[i].Before, n.Before)
		}
		if groups[text] == nil {
			lines = append(lines, text)
		}
		groups[text] = append(groups[text], n.Node)
	}
	for i, text := range lines {
		lines[i] = noderange.Fold(groups[text]) + ": " + text
	}
	if len(lines) > changesShown {
		lines = append(lines[:changesShown], "...")
	}
	return lines
}

const changesShown = 10

func effectWords(n api.PlannedNode) string {
	text := strings.ReplaceAll(string(n.Effect), "-", " ")
	if n.Effect == api.EffectNone {
		text = "its power stays"
	}
	if n.Verdict != "" && n.Verdict != power.VerdictRefuse {
		text += ", " + string(n.Verdict)
	}
	if n.Message != "" {
		text += " (" + n.Message + ")"
	}
	if n.OutOfReach != "" {
		text += ", out of reach"
	}
	return text
}
