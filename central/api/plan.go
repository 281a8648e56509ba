package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"

	"rackpower/power"
	"rackpower/power/noderange"
)

// Change is a change of nodes that can be planned. One of its fields is set.
type Change struct {
	Ops    *AskOps    `json:"ops,omitempty"`
	Status *SetStatus `json:"status,omitempty"`
	Hold   *SetHold   `json:"hold,omitempty"`
	// These two are not planned, and may await an approval.
	Protect  *ProtectNodes `json:"protect,omitempty"`
	Schedule *PutSchedule  `json:"schedule,omitempty"`
}

// MakePlan is the body of POST /v1/plans. The answer is a Plan; nothing is changed.
type MakePlan struct {
	ID string `json:"id"` // UUIDv7 chosen by the asker
	Change
}

// PlanState is how far a plan is.
type PlanState string

// The states of a plan.
const (
	PlanMade     PlanState = "planned"
	PlanAwaiting PlanState = "awaiting" // the approval of a second person
	PlanApplied  PlanState = "applied"
	PlanDenied   PlanState = "denied"
	PlanExpired  PlanState = "expired"
)

// Effect is what a change does to the power of a node.
type Effect string

// The effects.
const (
	EffectLosesPower Effect = "loses-power" // or the running system
	EffectTurnsOn    Effect = "turns-on"
	EffectNone       Effect = "none" // the power stays as it is
	EffectRefused    Effect = "refused"
)

// Plan is a change, and what it does to each node, as central knows them.
type Plan struct {
	ID        string        `json:"id"`
	State     PlanState     `json:"state"`
	What      string        `json:"what"` // the change in words: "set-status READY"
	AskedBy   string        `json:"asked_by"`
	Reason    string        `json:"reason"`
	AskedAt   time.Time     `json:"asked_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	AppliedAt time.Time     `json:"applied_at,omitzero"`
	Nodes     []PlannedNode `json:"nodes"`
	Notes     []string      `json:"notes,omitempty"` // as in Changed
	// Needs says why a second person has to approve; empty: nobody has to.
	Needs      string    `json:"needs,omitempty"`
	DecidedBy  string    `json:"decided_by,omitempty"` // who approved or denied
	DecidedAt  time.Time `json:"decided_at,omitzero"`
	DecidedWhy string    `json:"decided_why,omitempty"`
	// Once it is applied: the operations as they are now, or what was changed.
	Ops     []Op     `json:"ops,omitempty"`
	Changed *Changed `json:"changed,omitempty"`
}

// PlannedNode is what a change does to a node.
type PlannedNode struct {
	Node    string        `json:"node"`
	Rack    string        `json:"rack"`
	State   power.State   `json:"state"` // as it was last read
	Effect  Effect        `json:"effect"`
	Verdict power.Verdict `json:"verdict,omitempty"` // of an operation
	Why     power.Reason  `json:"why,omitempty"`
	Message string        `json:"message"` // why, for people
	Desired power.Want    `json:"desired"` // what is desired of it then
	// Before is what was desired before, and where that came from.
	Before string `json:"before"`
	// OutOfReach says why nothing reaches the node now; empty: something does.
	OutOfReach string `json:"out_of_reach,omitempty"`
	// StartsAt is about when a power-on starts that waits for others of its power domain.
	StartsAt time.Time `json:"starts_at,omitzero"`
}

// Same reports whether a node is as it was planned: what is for people may differ.
func (n PlannedNode) Same(m PlannedNode) bool {
	return n.Node == m.Node && n.Effect == m.Effect && n.Verdict == m.Verdict && n.Why == m.Why && n.Desired == m.Desired &&
		n.Before == m.Before && (n.OutOfReach == "") == (m.OutOfReach == "")
}

// LosingPower names the nodes that lose power, or their running system.
func (p Plan) LosingPower() (names []string) {
	for _, n := range p.Nodes {
		if n.Effect == EffectLosesPower {
			names = append(names, n.Node)
		}
	}
	return names
}

// Names are the nodes that a change names.
func (ch Change) Names() []string {
	switch {
	case ch.Ops != nil:
		names := make([]string, len(ch.Ops.Ops))
		for i, r := range ch.Ops.Ops {
			names[i] = r.Node
		}
		return names
	case ch.Status != nil:
		return ch.Status.Names
	case ch.Hold != nil:
		return ch.Hold.Names
	case ch.Protect != nil:
		return ch.Protect.Names
	}
	return nil
}

// Asker is who asks for the change, and why.
func (ch Change) Asker() (who, why string) {
	switch {
	case ch.Ops != nil && len(ch.Ops.Ops) > 0:
		return ch.Ops.Ops[0].AskedBy, ch.Ops.Ops[0].Reason
	case ch.Status != nil:
		return ch.Status.AskedBy, ch.Status.Reason
	case ch.Hold != nil:
		return ch.Hold.AskedBy, ch.Hold.Reason
	case ch.Protect != nil:
		return ch.Protect.AskedBy, ch.Protect.Reason
	case ch.Schedule != nil:
		return ch.Schedule.AskedBy, ch.Schedule.Reason
	}
	return "", ""
}

// What is the change in words.
func (ch Change) What() string {
	switch {
	case ch.Ops != nil && len(ch.Ops.Ops) > 0:
		text := string(ch.Ops.Ops[0].Action)
		if ch.Ops.Ops[0].Hold {
			text += " and hold"
		}
		return text
	case ch.Status != nil:
		return "set-status " + string(ch.Status.Status)
	case ch.Hold != nil && ch.Hold.Want == "":
		return "release"
	case ch.Hold != nil && ch.Hold.For > 0:
		return fmt.Sprintf("hold %s for %s", ch.Hold.Want, ch.Hold.For)
	case ch.Hold != nil:
		return fmt.Sprintf("hold %s until released", ch.Hold.Want)
	case ch.Protect != nil:
		return "unprotect"
	case ch.Schedule != nil:
		return "schedule " + ch.Schedule.Name
	}
	return ""
}

// Validate checks that there is one change, of different nodes.
func (in MakePlan) Validate() error {
	if id, err := uuid.Parse(in.ID); err != nil || id.String() != in.ID {
		return fmt.Errorf("id %q is no UUID in lower case", shortened(in.ID))
	}
	count, errs := 0, []error{}
	if in.Ops != nil {
		count++
		errs = append(errs, in.Ops.Validate())
		if in.Ops.DryRun {
			errs = append(errs, errors.New("a plan is no dry run"))
		}
	}
	if in.Status != nil {
		count++
		errs = append(errs, in.Status.Validate())
	}
	if in.Hold != nil {
		count++
		errs = append(errs, in.Hold.Validate(), checkNames(in.Hold.Names))
	}
	if count != 1 || in.Protect != nil || in.Schedule != nil {
		return fmt.Errorf("%d changes: a plan has one of ops, status and hold", count)
	}
	seen := map[string]bool{}
	for _, name := range in.Names() {
		if seen[name] {
			errs = append(errs, fmt.Errorf("node %q is named twice", shortened(name)))
			break
		}
		seen[name] = true
	}
	return errors.Join(errs...)
}

// MakePlan asks what a change would do.
func (c *Client) MakePlan(ctx context.Context, in MakePlan) (Plan, error) {
	return call[Plan](ctx, c, http.MethodPost, "/v1/plans", in)
}

// Plan returns a plan.
func (c *Client) Plan(ctx context.Context, id string) (Plan, error) {
	return call[Plan](ctx, c, http.MethodGet, "/v1/plans/"+url.PathEscape(id), nil)
}

// ApplyPlan makes the change of a plan.
func (c *Client) ApplyPlan(ctx context.Context, id string) (Plan, error) {
	return call[Plan](ctx, c, http.MethodPost, "/v1/plans/"+url.PathEscape(id)+"/apply", struct{}{})
}

// Policy is what the site asks for before nodes lose power.
type Policy struct {
	// ApproveAbove is how many nodes a person may take power from without a second one,
	// those of the last ten minutes counted; 0: any number.
	ApproveAbove int `json:"approve_above"`
	// ApproveNodes is a NODES expression: these lose power only with an approval; "": none.
	ApproveNodes string `json:"approve_nodes"`
	// ApprovalLasts is how long a request awaits its approval; 0: an hour.
	ApprovalLasts time.Duration `json:"approval_lasts"`
}

// SetPolicy is the body of POST /v1/policy: what is not given stays.
type SetPolicy struct {
	ApproveAbove  *int           `json:"approve_above,omitempty"`
	ApproveNodes  *string        `json:"approve_nodes,omitempty"`
	ApprovalLasts *time.Duration `json:"approval_lasts,omitempty"`
	AskedBy       string         `json:"asked_by,omitempty"`
	Reason        string         `json:"reason,omitempty"`
}

// Validate checks a policy by itself.
func (in SetPolicy) Validate() error {
	errs := []error{CheckTexts(in.AskedBy, in.Reason)}
	if n := in.ApproveAbove; n != nil && (*n < 0 || *n > MaxCount) {
		errs = append(errs, fmt.Errorf("approve-above %d is not between 0 (never) and %d nodes", *n, MaxCount))
	}
	if expr := in.ApproveNodes; expr != nil && *expr != "" {
		_, err := noderange.Parse(*expr)
		errs = append(errs, err, CheckTexts(*expr))
	}
	if d := in.ApprovalLasts; d != nil && *d != 0 && (*d < time.Minute || *d > MaxDeadline) {
		errs = append(errs, fmt.Errorf("approval-lasts %s is not between 1m and %s", *d, MaxDeadline))
	}
	return errors.Join(errs...)
}

// DecidePlan is the body of POST /v1/approvals/{id}.
type DecidePlan struct {
	Deny    bool   `json:"deny,omitempty"`
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Validate checks who decides and why.
func (in DecidePlan) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// Approvals lists what awaits an approval.
func (c *Client) Approvals(ctx context.Context) ([]Plan, error) {
	return list[Plan](ctx, c, "/v1/approvals")
}

// DecidePlan approves what awaits that, which makes the change, or denies it.
func (c *Client) DecidePlan(ctx context.Context, id string, in DecidePlan) (Plan, error) {
	return call[Plan](ctx, c, http.MethodPost, "/v1/approvals/"+url.PathEscape(id), in)
}

// Policy returns what the site asks for before nodes lose power.
func (c *Client) Policy(ctx context.Context) (Policy, error) {
	return call[Policy](ctx, c, http.MethodGet, "/v1/policy", nil)
}

// SetPolicy changes it.
func (c *Client) SetPolicy(ctx context.Context, in SetPolicy) (Policy, error) {
	return call[Policy](ctx, c, http.MethodPost, "/v1/policy", in)
}
