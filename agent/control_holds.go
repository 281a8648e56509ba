package agent

import (
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// hold sets or releases holds as somebody at the rack asked. When it returns without
// error they are durable and in force; central is told until it has them.
func (c *control) hold(in api.SetHold, now time.Time) (api.Changed, error) {
	holds, unchanged, err := c.holdsOf(in, now)
	if err != nil {
		return api.Changed{}, err
	}
	if err := c.assigned.setHolds(holds); err != nil {
		return api.Changed{}, err
	}
	names := make([]string, 0, len(holds))
	for name, h := range holds {
		names = append(names, name)
		c.logger.Info("hold", "node", name, "want", h.Want, "until", h.Until, "by", h.By, "reason", h.Reason, "seq", h.Seq)
	}
	c.agent.desiresChanged(names)
	c.poller.readSoon(names)
	c.tellRack()
	out := api.Changed{Changed: len(names), Unchanged: unchanged}
	state := c.monitor.State()
	if why := api.Idle(c.name, &state, c.assigned.settings(), now); why != "" && len(names) > 0 && in.Want != power.HandsOff {
		out.Notes = append(out.Notes, "nothing is done about it for now: "+why)
	}
	return out, nil
}

func (c *control) holdsOf(in api.SetHold, now time.Time) (holds map[string]power.Hold, unchanged int, err error) {
	h := power.Hold{Want: in.Want, By: in.AskedBy, Reason: in.Reason, Since: now.UTC().Round(0), Confirmed: in.Confirmed}
	if in.For > 0 && in.Want != "" {
		h.Until = h.Since.Add(in.For)
	}
	holds = map[string]power.Hold{}
	for _, name := range in.Names {
		n, ok := c.assigned.get(name)
		if !ok {
			return nil, 0, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", name, c.name)
		}
		if in.Want == "" && !n.hold.Active(now) {
			unchanged++
			continue
		}
		h.Seq = max(c.clock.Next(now), n.hold.Seq+1) // central's clock may be ahead of this one
		holds[name] = h
	}
	return holds, unchanged, nil
}

// askHeld sets a hold in the final state of the request and then asks. A request that
// would be refused leaves no hold behind.
func (c *control) askHeld(req api.OpRequest, op power.Op) (api.OpReport, error) {
	if known, ok := c.agent.isKnown(op); ok {
		return known, nil // asked again: the hold was set the first time
	}
	if r := c.agent.weigh(op, true); r.Verdict == power.VerdictRefuse {
		r.Phase = api.PhaseEnded
		r.End = &power.End{Outcome: power.Refused, Reason: r.Reason, Detail: r.Message, At: time.Now()}
		return r, nil
	}
	h := req.HoldWith(op)
	in := api.SetHold{Names: []string{op.Node}, Want: h.Want, For: req.HoldFor, Reason: h.Reason, AskedBy: h.By, Confirmed: h.Confirmed}
	if _, err := c.hold(in, h.Since); err != nil {
		return api.OpReport{}, err
	}
	return c.agent.Submit(op)
}

func (c *control) ctlHold(r *http.Request) (api.Changed, error) {
	in, err := body[api.SetHold](r)
	if err != nil {
		return api.Changed{}, err
	}
	return c.hold(in, time.Now())
}

func (c *control) ctlRetry(r *http.Request) (api.Changed, error) {
	in, err := body[api.RetryNodes](r)
	if err != nil {
		return api.Changed{}, err
	}
	for _, name := range in.Names {
		if _, ok := c.assigned.get(name); !ok {
			return api.Changed{}, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", name, c.name)
		}
	}
	c.logger.Info("retry", "nodes", in.Names, "by", in.AskedBy, "reason", in.Reason)
	c.monitor.RetryAll(in.Names)
	c.poller.readSoon(in.Names)
	return api.Changed{Changed: len(in.Names)}, nil
}

func (c *control) ctlBrakes(*http.Request) ([]api.RackBrake, error) {
	if b := c.monitor.State().Brake; b != nil {
		return []api.RackBrake{{Rack: c.name, Brake: *b}}, nil
	}
	return []api.RackBrake{}, nil
}

func (c *control) ctlReleaseBrake(r *http.Request) ([]api.RackBrake, error) {
	in, err := body[api.ReleaseBrake](r)
	if err != nil {
		return nil, err
	}
	for _, rack := range in.Racks {
		if rack != c.name {
			return nil, api.Problemf(api.CodeNotFound, "this is the agent of rack %s, not %s", c.name, rack)
		}
	}
	b, err := c.monitor.Release(in)
	switch {
	case err != nil:
		return nil, err
	case b == nil:
		return []api.RackBrake{}, nil
	}
	return []api.RackBrake{{Rack: c.name, Brake: *b, Released: true}}, nil
}

func (c *control) ctlRacks(*http.Request) ([]api.Rack, error) {
	return []api.Rack{{
		Name: c.name, Agent: c.name, AgentState: api.AgentPresence{State: api.AgentAlive}, Nodes: len(c.assigned.all()),
		Settings: c.assigned.settings(), State: c.view.rack(),
	}}, nil
}

func (c *control) ctlDomains(*http.Request) ([]api.Domain, error) {
	counts := map[string]int{}
	for _, n := range c.assigned.all() {
		counts[n.Domain]++
	}
	list := []api.Domain{}
	for _, d := range c.view.domains() {
		list = append(list, api.Domain{DomainState: d, Nodes: counts[d.Name], Agents: 1})
	}
	return list, nil
}
