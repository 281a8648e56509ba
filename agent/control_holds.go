package agent

import (
	"cmp"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// hold sets or releases holds as somebody at the rack asked. When it returns without
// error they are durable and in force; central is told until it has them.
func (a *Agent) hold(in api.SetHold, now time.Time) (api.Changed, error) {
	holds, unchanged, err := a.holdsOf(in, now)
	if err != nil {
		return api.Changed{}, err
	}
	if err := a.assigned.setHolds(holds); err != nil {
		return api.Changed{}, err
	}
	names := make([]string, 0, len(holds))
	for name, h := range holds {
		names = append(names, name)
		a.logger.Info("hold", "node", name, "want", h.Want, "until", h.Until, "by", h.By, "reason", h.Reason, "seq", h.Seq)
	}
	a.desiresChanged(names)
	a.poller.readSoon(names)
	a.tellRack()
	out := api.Changed{Changed: len(names), Unchanged: unchanged}
	state := a.monitor.state()
	if why := api.Idle(a.cfg.Name, &state, a.assigned.settings(), now); why != "" && len(names) > 0 && in.Want != power.HandsOff {
		out.Notes = append(out.Notes, "nothing is done about it for now: "+why)
	}
	return out, nil
}

func (a *Agent) holdsOf(in api.SetHold, now time.Time) (holds map[string]power.Hold, unchanged int, err error) {
	h := power.Hold{Want: in.Want, By: in.AskedBy, Reason: in.Reason, Since: now.UTC().Round(0), Confirmed: in.Confirmed}
	if h.By == "" {
		h.By = "local"
	}
	if in.For > 0 && in.Want != "" {
		h.Until = h.Since.Add(in.For)
	}
	holds = map[string]power.Hold{}
	for _, name := range in.Names {
		n, ok := a.assigned.get(name)
		if !ok {
			return nil, 0, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", name, a.cfg.Name)
		}
		if in.Want == "" && !n.hold.Active(now) {
			unchanged++
			continue
		}
		h.Seq = max(a.clock.Next(now), n.hold.Seq+1) // central's clock may be ahead of this one
		holds[name] = h
	}
	return holds, unchanged, nil
}

// desiresChanged has everything follow what is desired now: the monitor knows it
// before anything is read, and ends what it asked for and nobody desires any more.
func (a *Agent) desiresChanged(names []string) {
	a.monitor.desiresChanged()
	for _, name := range names {
		a.lane(name).dropUnwanted()
	}
}

// askHeld sets a hold in the final state of the request and then asks. A request that
// would be refused leaves no hold behind.
func (a *Agent) askHeld(req api.OpRequest, op power.Op) (api.OpReport, error) {
	if known, ok := a.lane(op.Node).isKnown(op.ID); ok {
		return known, nil // asked again: the hold was set the first time
	}
	if r := a.weigh(op, true); r.Verdict == power.VerdictRefuse {
		r.Phase = api.PhaseEnded
		r.End = &power.End{Outcome: power.Refused, Reason: r.Reason, Detail: r.Message, At: time.Now()}
		return r, nil
	}
	_, err := a.hold(api.SetHold{
		Names: []string{op.Node}, Want: api.HeldBy(op.Action), For: req.HoldFor,
		Reason: cmp.Or(op.Reason, "asked for together with "+string(op.Action)), AskedBy: op.AskedBy, Confirmed: op.Confirmed,
	}, time.Now())
	if err != nil {
		return api.OpReport{}, err
	}
	return a.Submit(op)
}

func (a *Agent) ctlHold(r *http.Request) (api.Changed, error) {
	in, err := body[api.SetHold](r)
	if err != nil {
		return api.Changed{}, err
	}
	return a.hold(in, time.Now())
}

func (a *Agent) ctlRetry(r *http.Request) (api.Changed, error) {
	in, err := body[api.RetryNodes](r)
	if err != nil {
		return api.Changed{}, err
	}
	for _, name := range in.Names {
		if _, ok := a.assigned.get(name); !ok {
			return api.Changed{}, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", name, a.cfg.Name)
		}
	}
	a.logger.Info("retry", "nodes", in.Names, "by", in.AskedBy, "reason", in.Reason)
	a.monitor.retryAll(in.Names)
	a.poller.readSoon(in.Names)
	return api.Changed{Changed: len(in.Names)}, nil
}

func (a *Agent) ctlBrakes(*http.Request) ([]api.RackBrake, error) {
	if b := a.monitor.state().Brake; b != nil {
		return []api.RackBrake{{Rack: a.cfg.Name, Brake: *b}}, nil
	}
	return []api.RackBrake{}, nil
}

func (a *Agent) ctlReleaseBrake(r *http.Request) ([]api.RackBrake, error) {
	in, err := body[api.ReleaseBrake](r)
	if err != nil {
		return nil, err
	}
	for _, rack := range in.Racks {
		if rack != a.cfg.Name {
			return nil, api.Problemf(api.CodeNotFound, "this is the agent of rack %s, not %s", a.cfg.Name, rack)
		}
	}
	if in.AskedBy == "" {
		in.AskedBy = "local"
	}
	b, err := a.monitor.release(in)
	switch {
	case err != nil:
		return nil, err
	case b == nil:
		return []api.RackBrake{}, nil
	}
	return []api.RackBrake{{Rack: a.cfg.Name, Brake: *b, Released: true}}, nil
}

func (a *Agent) ctlRacks(*http.Request) ([]api.Rack, error) {
	return []api.Rack{{
		Name: a.cfg.Name, Agent: a.cfg.Name, AgentState: api.AgentPresence{State: api.AgentAlive}, Nodes: len(a.assigned.all()),
		Settings: a.assigned.settings(), State: a.rackState(),
	}}, nil
}

func (a *Agent) ctlDomains(*http.Request) ([]api.Domain, error) {
	counts := map[string]int{}
	for _, n := range a.assigned.all() {
		counts[n.Domain]++
	}
	list := []api.Domain{}
	for _, d := range a.Domains() {
		list = append(list, api.Domain{DomainState: d, Nodes: counts[d.Name], Agents: 1})
	}
	return list, nil
}
