package central

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// What an audit entry says happened to an approval.
const (
	auditApprovalAsked   = "approval-asked"
	auditApproved        = "approved"
	auditDenied          = "denied"
	auditApprovalOver    = "approval-expired"
	auditWithoutApproval = "without-approval" // at the socket of a rack
	auditPolicy          = "policy"
)

const (
	approvalLasts = time.Hour        // where the policy does not say
	cutsCount     = 10 * time.Minute // nodes that a principal took power from count so long
	maxAwaiting   = 20               // approvals of a principal
)

// cuts are the nodes that lose power by what a job changes, as far as the policy asks for
// that.
type cuts struct {
	policy *api.Policy     // nil: not read yet
	marked map[string]bool // lose power only with an approval; as they were before the job
	nodes  map[string]bool
}

// watched reads the policy once, before the first node changes that could lose power. It
// reports whether it asks for anything.
func (u *unitOfWork) watched() (bool, error) {
	if u.cuts.policy == nil {
		p, err := u.tx.Policy()
		if err != nil {
			return false, err
		}
		u.cuts = cuts{policy: &p, marked: map[string]bool{}, nodes: map[string]bool{}}
		if p.ApproveNodes != "" {
			if u.cuts.marked, err = scopeOf(p.ApproveNodes, u.tx.Selection()); err != nil {
				return false, err
			}
		}
	}
	return u.cuts.policy.ApproveAbove > 0 || u.cuts.policy.ApproveNodes != "", nil
}

// losesByOp notes that an operation takes power from a node.
func (u *unitOfWork) losesByOp(n store.Node, action power.Action) error {
	if !action.StopsSystem() {
		return nil
	}
	return u.loses(n)
}

// losesByDesire notes that what is desired of a node from now on takes its power away, now
// or when its hold ends.
func (u *unitOfWork) losesByDesire(old, next store.Node) error {
	was, is := turnsOff(old, u.now), turnsOff(next, u.now)
	confirmed := next.Confirmed && !old.Confirmed || next.Hold.Confirmed && !old.Hold.Confirmed
	if is == offNever || is <= was && !confirmed && next.BMC == old.BMC {
		return nil
	}
	return u.loses(next)
}

// loses notes that a node loses power, if it may have any.
func (u *unitOfWork) loses(n store.Node) error {
	if on, err := u.watched(); err != nil || !on {
		return err
	}
	if !mayLosePower(n, power.Lane{}, u.presence(n), u.now) {
		open, err := u.tx.OpenOpsOn([]string{n.Name})
		if err != nil || !mayLosePower(n, lanesOf(open)[n.Name], u.presence(n), u.now) {
			return err
		}
	}
	u.cuts.nodes[n.Name] = true
	return nil
}

// needs says why a principal needs the approval of another person for what the job did,
// "" where it does not.
func (u *unitOfWork) needs(principal string) (string, error) {
	if len(u.cuts.nodes) == 0 {
		return "", nil
	}
	var marked []string
	for name := range u.cuts.nodes {
		if u.cuts.marked[name] {
			marked = append(marked, name)
		}
	}
	if len(marked) > 0 {
		return noderange.Fold(marked) + ": the policy asks for an approval before the power is taken", nil
	}
	count, above := len(u.cuts.nodes), u.cuts.policy.ApproveAbove
	if above == 0 {
		return "", nil
	}
	before, err := u.tx.Cuts(principal, u.now.Add(-cutsCount))
	if err != nil {
		return "", err
	}
	before = slices.DeleteFunc(before, func(name string) bool { return u.cuts.nodes[name] })
	switch {
	case count+len(before) <= above:
		return "", nil
	case len(before) > 0:
		return fmt.Sprintf("%d nodes would lose power, with the %d of the last %s, and more than %d need an approval", count+len(before),
			len(before), power.Ago(cutsCount), above), nil
	}
	return fmt.Sprintf("%d nodes would lose power, and more than %d need an approval", count, above), nil
}

// needsApproval is the error of a job that a second person has to approve. It says how to
// ask for that; who can keep the request, keeps it instead.
type needsApproval struct {
	*api.Problem
	why string
}

// Unwrap gives the problem, for those that cannot keep the request.
func (n *needsApproval) Unwrap() error { return n.Problem }

// approval is the error of a person's job that needs an approval and has none. What a rack
// did by itself in an emergency is told.
func (u *unitOfWork) approval() error {
	asker := u.tx.Asker()
	if u.approved || asker.Name == "" || len(u.cuts.nodes) == 0 {
		return nil
	}
	principal := asker.Name
	if !asker.Person {
		principal = u.who // "agent r1", who may be root on the socket
	}
	why, err := u.needs(principal)
	switch {
	case err != nil:
		return err
	case why != "" && asker.Person:
		return &needsApproval{api.Problemf(api.CodeRefused, "nothing was changed: %s, which cannot be asked for in this way: use "+
			"rackpower node set-status, hold, release or off (rackpower approvals --help)", why), why}
	case why != "":
		err = u.tx.AddAudit(api.AuditEntry{
			At: u.now, Who: "central", What: auditWithoutApproval,
			Detail: fmt.Sprintf("at the socket of %s: %s; nodes %s", principal, why, noderange.Fold(keys(u.cuts.nodes))),
		})
	}
	if err != nil || u.cuts.policy.ApproveAbove == 0 {
		return err
	}
	if err := u.tx.PruneCuts(u.now.Add(-cutsCount)); err != nil {
		return err
	}
	for name := range u.cuts.nodes {
		if err := u.tx.NoteCut(principal, name, u.now); err != nil {
			return err
		}
	}
	return nil
}

func keys(set map[string]bool) (names []string) {
	for name := range set {
		names = append(names, name)
	}
	return names
}

// await keeps a change until a second person approves it. The error that it gives says so.
func (c *Central) await(r *http.Request, p store.Plan, why string) error {
	now, awaiting := c.cfg.Now(), error(nil)
	err := c.write(r.Context(), now, changer(p.Change), func(u *unitOfWork) error {
		p, err := u.await(p, httpserver.Principal(r), why)
		awaiting = awaitingProblem(p.Plan)
		return err
	})
	return cmp.Or(err, awaiting)
}

func awaitingProblem(p api.Plan) *api.Problem {
	problem := api.Problemf(api.CodeAwaiting, "nothing was done yet: %s; another person may approve it until %s: rackpower approve %s",
		p.Needs,
		power.At(p.ExpiresAt), p.ID)
	problem.Plan = p.ID
	return problem
}

func (u *unitOfWork) await(p store.Plan, asker auth.Principal, why string) (store.Plan, error) {
	all, err := u.tx.Awaiting()
	if err != nil {
		return p, err
	}
	count := 0
	for _, other := range all {
		if other.Principal != asker.Name || !u.now.Before(other.ExpiresAt) {
			continue
		}
		if count++; store.SameChange(other.Change, p.Change) {
			return other, nil // asked again
		}
	}
	if count >= maxAwaiting {
		return p, api.Problemf(api.CodeQueueFull, "%d requests of %s await an approval already (rackpower approvals)", count, asker.Name)
	}
	seen, err := u.wouldDo(p.Change)
	if err != nil {
		return p, err
	}
	policy, err := u.tx.Policy()
	if err != nil {
		return p, err
	}
	p.State, p.Needs, p.Principal, p.Asker = api.PlanAwaiting, why, asker.Name, asker
	p.AppliedAt, p.Changed = time.Time{}, nil
	p.What, p.AskedAt, p.ExpiresAt = p.Change.What(), u.now.UTC(), u.now.Add(cmp.Or(policy.ApprovalLasts, approvalLasts)).UTC()
	p.AskedBy, p.Reason = p.Change.Asker()
	p.Nodes, p.Notes = seen.nodes, seen.changed.Notes
	if err := u.tx.PutPlan(p); err != nil {
		return p, err
	}
	return p, u.auditPlan(p, p.AskedBy, auditApprovalAsked, p.Reason, why)
}

func (u *unitOfWork) auditPlan(p store.Plan, who, what, why, more string) error {
	detail := fmt.Sprintf("plan %s: %s of %s", p.ID, p.What, noderange.Fold(p.NodeNames()))
	if more != "" {
		detail += "; " + more
	}
	return u.tx.AddAudit(api.AuditEntry{At: u.now, Who: who, What: what, Why: why, Detail: detail})
}

func (c *Central) listApprovals(r *http.Request) ([]api.Plan, error) {
	out := []api.Plan{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		all, err := tx.Awaiting()
		if err != nil {
			return err
		}
		in, err := within(tx)
		for _, p := range all {
			beyond := slices.ContainsFunc(p.NodeNames(), func(name string) bool { return !in[name] })
			if c.cfg.Now().Before(p.ExpiresAt) && (in == nil || !beyond) {
				out = append(out, p.Plan)
			}
		}
		return err
	})
	return out, err
}

// accessTo is who may make a change, and approve it.
func accessTo(ch api.Change) access {
	switch {
	case ch.Protect != nil:
		return manages
	case ch.Schedule != nil:
		return actsOnSite
	}
	return acts
}

// decidePlan approves what awaits that, and makes the change in the same job, or denies it.
func (c *Central) decidePlan(r *http.Request, in api.DecidePlan) (api.Plan, error) {
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	var out api.Plan
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		p, err := knownPlan(u.tx, r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := u.mayDecide(r, p, who, in.Deny); err != nil {
			return err
		}
		state := api.PlanApplied
		if in.Deny {
			state = api.PlanDenied
		}
		if p.State != state {
			p.State, p.DecidedBy, p.DecidedAt, p.DecidedWhy = state, who, now.UTC(), in.Reason
			if err := u.decide(r, &p); err != nil {
				return err
			}
		}
		out, err = c.showPlan(u.tx, p, now)
		return err
	})
	return out, err
}

// mayDecide says why somebody may not decide on a plan now, nil if he may.
func (u *unitOfWork) mayDecide(r *http.Request, p store.Plan, who string, deny bool) error {
	if err := may(httpserver.Principal(r), accessTo(p.Change), r); err != nil {
		return err
	}
	switch {
	case p.State == api.PlanMade:
		return api.Problemf(api.CodeRefused, "plan %s awaits no approval: nobody has applied it", p.ID)
	case p.State == api.PlanApplied && p.DecidedBy == who && !deny, p.State == api.PlanDenied && p.DecidedBy == who && deny:
		return nil // once is enough
	case p.State != api.PlanAwaiting && p.DecidedBy != "":
		return api.Problemf(api.CodeRefused, "plan %s is decided: %s by %s", p.ID, p.State, p.DecidedBy)
	case p.State != api.PlanAwaiting:
		return api.Problemf(api.CodeRefused, "plan %s awaits no approval: it is %s", p.ID, p.State)
	case !u.now.Before(p.ExpiresAt):
		return api.Problemf(api.CodeRefused, "plan %s expired at %s: it has to be asked for again", p.ID, power.At(p.ExpiresAt))
	case !deny && onePerson(p, httpserver.Principal(r).Name, who):
		return api.Problemf(api.CodeForbidden, "not permitted: %s asked for plan %s: another person has to approve it", p.AskedBy, p.ID)
	}
	return nil
}

// onePerson reports whether one of the names asked for a plan, be it in the name of another.
func onePerson(p store.Plan, names ...string) bool {
	asked := persons(p.Principal, p.AskedBy)
	if p.Change.Ops != nil {
		for _, r := range p.Change.Ops.Ops {
			asked = append(asked, persons(r.AskedBy)...)
		}
	}
	return slices.ContainsFunc(persons(names...), func(name string) bool {
		return slices.ContainsFunc(asked, func(other string) bool { return strings.EqualFold(name, other) })
	})
}

// persons are those that "alice for bob" names.
func persons(names ...string) (all []string) {
	for _, name := range names {
		all = append(all, strings.Split(name, " for ")...)
	}
	return all
}

// decide carries out what was decided on a plan.
func (u *unitOfWork) decide(r *http.Request, p *store.Plan) error {
	if p.State == api.PlanDenied {
		if err := u.tx.PutPlan(*p); err != nil {
			return err
		}
		return u.auditPlan(*p, p.DecidedBy, auditDenied, p.DecidedWhy, "asked by "+p.AskedBy)
	}
	if err := u.auditPlan(*p, p.DecidedBy, auditApproved, p.DecidedWhy, "asked by "+p.AskedBy); err != nil {
		return err
	}
	asker, err := u.stillMay(r, *p)
	if err != nil {
		return err
	}
	u.tx.As(askerOf(asker))
	u.who, u.approved = changer(p.Change), true
	seen, err := u.foresee(p.Change)
	if err != nil {
		return err
	}
	var more []string
	for _, name := range (api.Plan{Nodes: seen.nodes}).LosingPower() {
		if !slices.Contains(p.LosingPower(), name) {
			more = append(more, name)
		}
	}
	if len(more) > 0 {
		return api.Problemf(api.CodeChanged,
			"nothing was done: %s would lose power by now, which was not so when plan %s was made: it has to be "+
				"asked for again", noderange.Fold(more), p.ID)
	}
	p.AppliedAt, p.Nodes = u.now.UTC(), seen.nodes
	if p.Change.Ops == nil {
		p.Changed = &seen.changed
	}
	return u.tx.PutPlan(*p)
}

// stillMay is who asked for a plan, with the rights of now.
func (u *unitOfWork) stillMay(r *http.Request, p store.Plan) (auth.Principal, error) {
	asker := p.Asker
	if !asker.Own {
		user, found, err := u.tx.User(asker.Name)
		switch {
		case err != nil:
			return asker, err
		case found && asker.Method != auth.ByOIDC:
			address := asker.Address
			asker = userOf(user, asker.Method)
			asker.Address = address
		case asker.Method == auth.ByToken || asker.Method == auth.ByCertificate:
			return asker, api.Problemf(api.CodeRefused, "nothing was done: %s, who asked for plan %s, is no user any more", asker.Name, p.ID)
		}
	}
	if err := may(asker, accessTo(p.Change), r); err != nil {
		return asker, api.Problemf(api.CodeRefused, "nothing was done: who asked for plan %s may not any more: %v", p.ID, err)
	}
	return asker, nil
}

// expireApprovals ends what awaited an approval too long.
func (u *unitOfWork) expireApprovals() error {
	overdue, err := u.tx.Overdue(u.now)
	for _, p := range overdue {
		p.State = api.PlanExpired
		if err := errors.Join(u.tx.PutPlan(p), u.auditPlan(p, "central", auditApprovalOver, "", "asked by "+p.AskedBy)); err != nil {
			return err
		}
	}
	return err
}

func (c *Central) getPolicy(r *http.Request) (p api.Policy, err error) {
	err = c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		p, err = tx.Policy()
		return err
	})
	return p, err
}

func (c *Central) setPolicy(r *http.Request, in api.SetPolicy) (api.Policy, error) {
	var out api.Policy
	err := c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		old, err := u.tx.Policy()
		if err != nil {
			return err
		}
		out = old
		if in.ApproveAbove != nil {
			out.ApproveAbove = *in.ApproveAbove
		}
		if in.ApproveNodes != nil {
			if out.ApproveNodes = *in.ApproveNodes; out.ApproveNodes != "" {
				if _, err := selectNodes(out.ApproveNodes, u.tx.Selection()); err != nil {
					return err
				}
			}
		}
		if in.ApprovalLasts != nil {
			out.ApprovalLasts = *in.ApprovalLasts
		}
		if out == old {
			return nil
		}
		if err := u.tx.SavePolicy(out); err != nil {
			return err
		}
		return u.audit(auditPolicy, "", in.Reason, policyWords(out)+", was "+policyWords(old))
	})
	return out, err
}

func policyWords(p api.Policy) string {
	return fmt.Sprintf("approve-above %d, approve-nodes %q, approval-lasts %s", p.ApproveAbove, p.ApproveNodes,
		cmp.Or(p.ApprovalLasts, approvalLasts))
}
