package agent

import (
	"time"

	"rackpower/agent/limiter"
	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/power"
)

// rackView shows the state of the rack. A reader waits for no disk: it takes no lock that
// is held over a flush, and none of a lane.
type rackView struct {
	name     string // the agent's
	assigned *assigned
	readings *readings
	outbox   *outbox
	monitor  *monitor.Monitor
	prober   *prober
	limiter  *limiter.Limiter
	alarms   *alarms
}

func newRackView(a *Agent) *rackView {
	return &rackView{
		name: a.cfg.Name, assigned: a.assigned, readings: a.readings, outbox: a.outbox, monitor: a.monitor, prober: a.prober,
		limiter: a.limiter, alarms: a.alarms,
	}
}

// nodes is the rack's power as the agent knows it.
func (v *rackView) nodes(now time.Time) []api.Node {
	list := []api.Node{}
	monitored, running := v.monitor.Scheduled(), v.outbox.running()
	for _, n := range v.assigned.all() {
		reading := v.readings.get(n.Name)
		desired, made := n.desired(now), v.readings.made(n.Name)
		out := running[n.Name]
		row := api.Node{
			Name: n.Name, Rack: v.name, State: reading.State, Reach: reading.Reach, Stale: reading.Stale(now, power.DefaultStale),
			Status: n.Status, Desired: desired.Want, DesiredFrom: n.from(now), Hold: api.ShowHold(n.hold, now), Agent: v.name, BMC: n.BMC,
			Domain: n.Domain, Protected: api.ShowProtection(n.Protected),
		}
		if !reading.ObservedAt.IsZero() {
			row.ObservedAt = &reading.ObservedAt
		}
		if !reading.TriedAt.IsZero() {
			row.TriedAt = &reading.TriedAt
		}
		if len(out) > 0 {
			op := out[0]
			row.Op = &api.OpBrief{
				ID: op.Op.ID, Action: op.Op.Action, Verdict: op.Verdict, AskedBy: op.Op.AskedBy, AskedAt: op.Op.AskedAt,
				Phase: op.Phase,
			}
			row.Waiting = len(out) - 1
		}
		row.Waits, row.WaitsMessage, row.WaitsUntil = made.Waits, made.WaitsMessage, made.WaitsUntil
		row.Fault, row.FaultSince = made.Fault, made.FaultSince
		row.Compare(desired, made.Matched, monitored)
		list = append(list, row)
	}
	return list
}

// rack is the state of the rack: its monitor, its BMCs and power domains, and what people
// have to know.
func (v *rackView) rack() api.RackState {
	s := v.monitor.State()
	s.OpenBreakers, s.Domains, s.Alarms = v.prober.bmcs.LeftAlone(), v.domains(), v.alarms.list()
	return s
}

// domains is how the queues of the power domains of this agent's nodes stand.
func (v *rackView) domains() []api.DomainState {
	return v.limiter.States(v.assigned.domains())
}

// domainOf is the state of the queue of the node's power domain; nil: it is in none.
func (v *rackView) domainOf(node string) *api.DomainState {
	n, ok := v.assigned.get(node)
	if !ok || n.Domain == "" {
		return nil
	}
	st := v.limiter.State(n.Domain)
	return &st
}

// gossiped is what gossip tells of the nodes.
func (v *rackView) gossiped() []NodeView {
	nodes, running := v.assigned.all(), v.outbox.running()
	views := make([]NodeView, 0, len(nodes))
	for _, n := range nodes {
		view := NodeView{Name: n.Name, Reading: v.readings.get(n.Name)}
		if out := running[n.Name]; len(out) > 0 {
			view.Op = out[0].Op.Action
		}
		views = append(views, view)
	}
	return views
}
