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
)

// Change is a change of nodes that can be planned. One of its fields is set.
type Change struct {
	Ops    *AskOps    `json:"ops,omitempty"`
	Status *SetStatus `json:"status,omitempty"`
	Hold   *SetHold   `json:"hold,omitempty"`
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
	PlanMade    PlanState = "planned"
	PlanApplied PlanState = "applied"
	PlanExpired PlanState = "expired"
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
	if count != 1 {
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
