package web

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/noderange"
)

// changeForm is what the forms carry that change nodes. The ids of all that one asks for come
// from its nonce and from what is asked for: sent twice it is done once, and sent with something
// else in it, it is another request.
type changeForm struct {
	CSRF  string
	Nonce string
}

func (v *visit) changeForm() changeForm {
	nonce, err := uuid.NewV7()
	if err != nil {
		panic(err) // the system has no random numbers
	}
	return changeForm{CSRF: v.s.csrf, Nonce: nonce.String()}
}

// idOf is a UUIDv7 of the time of the nonce, the same for the same texts.
func idOf(nonce uuid.UUID, texts ...string) string {
	sum := sha256.New()
	sum.Write(nonce[:])
	for _, text := range texts {
		fmt.Fprintf(sum, "%d %s", len(text), text)
	}
	var id uuid.UUID
	copy(id[:], sum.Sum(nil))
	copy(id[:6], nonce[:6])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id.String()
}

// wanted is a change as a form asks for it.
type wanted struct {
	nonce  uuid.UUID
	what   string // an action, set-status, hold or release
	names  []string
	status power.Status
	want   power.Want
	lasts  time.Duration
	hold   bool // with an action: hold the nodes in its final state
	boot   power.BootDevice
	reason string
}

func (v *visit) wanted() (in wanted, err error) {
	if in.nonce, err = uuid.Parse(v.form("nonce")); err != nil {
		return in, api.Problemf(api.CodeBadRequest, "the form is not whole: reload the page it was on")
	}
	in.what, in.reason, in.hold = v.form("what"), v.form("reason"), v.form("hold") != ""
	in.boot = power.BootDevice(v.form("boot"))
	in.want = power.Want(v.form("want"))
	if text := v.form("for"); text != "" {
		if in.lasts, err = time.ParseDuration(text); err != nil || in.lasts <= 0 {
			return in, api.Problemf(api.CodeBadRequest, "%q is no duration such as 30m or 4h", text)
		}
	}
	if in.what == "set-status" {
		if in.status, err = power.ParseStatus(v.form("status")); err != nil {
			return in, api.Problemf(api.CodeBadRequest, "%v", err)
		}
	}
	in.names = slices.Clone(v.r.PostForm["node"])
	if expr := v.form("nodes"); expr != "" {
		nodes, err := v.api.Nodes(v.r.Context(), expr)
		if err != nil {
			return in, err
		}
		for _, n := range nodes {
			in.names = append(in.names, n.Name)
		}
	}
	noderange.Sort(in.names)
	in.names = slices.Compact(in.names)
	if len(in.names) == 0 {
		return in, api.Problemf(api.CodeBadRequest, "no node was chosen: tick some, or name them")
	}
	return in, nil
}

// change is what is asked for. confirmed says that a person sees the nodes that lose power
// before it is done.
func (in wanted) change(confirmed bool) (ch api.Change, err error) {
	switch in.what {
	case "set-status":
		ch.Status = &api.SetStatus{Names: in.names, Status: in.status, Confirmed: confirmed, Reason: in.reason}
	case "hold":
		ch.Hold = &api.SetHold{Names: in.names, Want: in.want, For: in.lasts, Confirmed: confirmed, Reason: in.reason}
		if in.want == "" {
			return ch, api.Problemf(api.CodeBadRequest, "hold the nodes on, off or hands-off")
		}
	case "release":
		ch.Hold = &api.SetHold{Names: in.names, Confirmed: confirmed, Reason: in.reason}
	default:
		action, err := power.ParseAction(in.what)
		if err != nil {
			return ch, api.Problemf(api.CodeBadRequest, "%v", err)
		}
		ch.Ops = new(api.AskOps)
		for _, name := range in.names {
			op := api.OpRequest{ID: in.id("op", name), Node: name, Action: action, Confirmed: confirmed, Reason: in.reason}
			if action.Boots() {
				op.Boot = in.boot
			}
			if in.hold && action.Final() != power.Unknown {
				op.Hold, op.HoldFor = true, in.lasts
			}
			ch.Ops.Ops = append(ch.Ops.Ops, op)
		}
	}
	return ch, nil
}

func (in wanted) id(texts ...string) string {
	return idOf(in.nonce, append(texts, in.what, strings.Join(in.names, " "), string(in.status), string(in.want), in.lasts.String(),
		fmt.Sprint(in.hold), string(in.boot), in.reason)...)
}

// change plans what a form asks for. Where no node loses power it is done at once; else the
// page of the plan names the nodes, and asks.
func (p *Page) change(v *visit) error {
	in, err := v.wanted()
	if err != nil {
		return err
	}
	plan, err := v.plan(in, false)
	if err != nil {
		return err
	}
	many := in.what == string(power.ActBMCReset) && len(in.names) > 1
	switch {
	case len(plan.LosingPower()) > 0 || many:
		if plan, err = v.plan(in, true); err != nil {
			return err
		}
	case !slices.ContainsFunc(plan.Nodes, func(n api.PlannedNode) bool { return n.Effect != api.EffectRefused }):
		// Its page says why all of it is refused.
	default:
		if _, err = v.api.ApplyPlan(v.r.Context(), plan.ID); err != nil && api.CodeOf(err) != api.CodeAwaiting {
			return err
		}
	}
	return v.back(Prefix+"plans/"+plan.ID, "")
}

func (v *visit) plan(in wanted, confirmed bool) (api.Plan, error) {
	ch, err := in.change(confirmed)
	if err != nil {
		return api.Plan{}, err
	}
	return v.api.MakePlan(v.r.Context(), api.MakePlan{ID: in.id("plan", fmt.Sprint(confirmed)), Change: ch})
}

// planView is what the page of a plan shows.
type planView struct {
	api.Plan
	Groups []planGroup
	Own    bool // it may be applied by who looks at it
	Moot   bool // all of it is refused
	Losing int
}

// planGroup is the nodes to which the same happens.
type planGroup struct {
	Effect api.Effect
	Nodes  []api.PlannedNode
}

// Folded names them.
func (g planGroup) Folded() string {
	names := make([]string, len(g.Nodes))
	for i, n := range g.Nodes {
		names[i] = n.Node
	}
	return noderange.Fold(names)
}

func (p *Page) showPlan(v *visit) error {
	plan, err := v.api.Plan(v.r.Context(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	out := planView{Plan: plan, Own: plan.AskedBy == v.s.user.Name, Losing: len(plan.LosingPower()), Moot: true}
	for _, effect := range []api.Effect{api.EffectLosesPower, api.EffectTurnsOn, api.EffectNone, api.EffectRefused} {
		g := planGroup{Effect: effect}
		for _, n := range plan.Nodes {
			if n.Effect == effect {
				g.Nodes = append(g.Nodes, n)
			}
		}
		if len(g.Nodes) > 0 {
			out.Groups = append(out.Groups, g)
			out.Moot = out.Moot && effect == api.EffectRefused
		}
	}
	title := fmt.Sprintf("%s: %s", plan.What, power.Count(len(plan.Nodes), "node"))
	if plan.State != api.PlanApplied {
		title = "Plan: " + title
	}
	return v.show("plan", title, "ops", "page", out)
}

func (p *Page) applyPlan(v *visit) error {
	id := v.r.PathValue("id")
	if _, err := v.api.ApplyPlan(v.r.Context(), id); err != nil && api.CodeOf(err) != api.CodeAwaiting {
		return err
	}
	return v.back(Prefix+"plans/"+url.PathEscape(id), "")
}

func (p *Page) decide(v *visit) error {
	deny := v.form("decision") == "deny"
	plan, err := v.api.DecidePlan(v.r.Context(), v.r.PathValue("id"), api.DecidePlan{Deny: deny, Reason: v.form("reason")})
	if err != nil {
		return err
	}
	return v.back(Prefix+"plans/"+plan.ID, "")
}

func (p *Page) retry(v *visit) error {
	names := v.r.PostForm["node"]
	if _, err := v.api.RetryNodes(v.r.Context(), api.RetryNodes{Names: names, Reason: v.form("reason")}); err != nil {
		return err
	}
	return v.back(v.from(), "retry: "+noderange.Fold(names)+" will be tried again")
}

func (p *Page) cancel(v *visit) error {
	op, err := v.api.CancelOp(v.r.Context(), v.r.PathValue("id"), api.CancelOp{Reason: v.form("reason")})
	if err != nil {
		return err
	}
	return v.back(v.from(), fmt.Sprintf("cancel: %s of %s is %s", op.Action, op.Node, resultWord(op)))
}

func (p *Page) pause(v *visit) error {
	in := api.SetPause{Resume: v.form("resume") != "", Reason: v.form("reason")}
	if text := v.form("for"); text != "" && !in.Resume {
		var err error
		if in.For, err = time.ParseDuration(text); err != nil || in.For <= 0 {
			return api.Problemf(api.CodeBadRequest, "%q is no duration such as 30m or 4h", text)
		}
	}
	name, verb := v.r.PathValue("name"), "paused"
	if in.Resume {
		verb = "resumed"
	}
	if _, err := v.api.SetPause(v.r.Context(), name, in); err != nil {
		return err
	}
	return v.back(Prefix+"racks/"+url.PathEscape(name), verb+" the monitor of rack "+name)
}

// showBrake asks before a brake is released, and names the nodes that it holds.
func (p *Page) showBrake(v *visit) error {
	r, err := v.rack(v.r.PathValue("name"))
	if err != nil {
		return err
	}
	if r.State.Brake == nil {
		return api.Problemf(api.CodeNotFound, "no brake holds on rack %s", r.Name)
	}
	return v.show("brake", "Release the brake of rack "+r.Name, "site", "", r)
}

func (p *Page) releaseBrake(v *visit) error {
	name, most := v.r.PathValue("name"), 0
	if _, err := fmt.Sscan(v.form("most"), &most); err != nil {
		return api.Problemf(api.CodeBadRequest, "the form is not whole: reload the page it was on")
	}
	in := api.ReleaseBrake{Racks: []string{name}, MaxNodes: map[string]int{name: most}, Reason: v.form("reason")}
	if _, err := v.api.ReleaseBrake(v.r.Context(), in); err != nil {
		return err
	}
	return v.back(Prefix+"racks/"+url.PathEscape(name), "released the brake of rack "+name+"; its agent is told")
}

func (p *Page) ack(v *visit) error {
	name := v.r.PathValue("name")
	if _, err := v.api.AckAlarm(v.r.Context(), name, api.AckAlarm{Kind: v.form("kind"), Reason: v.form("reason")}); err != nil {
		return err
	}
	return v.back(v.from(), "acknowledged the alarm of agent "+name)
}

// from is the page that a form was on.
func (v *visit) from() string { return within(v.form("from")) }
