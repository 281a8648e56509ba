package agent

import (
	"net/http"
	"time"

	"rackpower/internal/metrics"
)

// What /metrics of an agent has. None has the name of a node.
var (
	figures metrics.Set

	nodesAssigned = figures.Gauge("rackpower_agent_nodes", "Nodes that central assigned to this agent.")
	nodesReach    = figures.Gauge("rackpower_agent_nodes_reach", "Nodes by how their latest reading went.", "reach")
	nodesFault    = figures.Gauge("rackpower_agent_nodes_fault", "Nodes that the monitor gave up correcting.")
	drifting      = figures.Gauge("rackpower_agent_nodes_drifting", "Nodes whose power differs from what is desired and was so before.")
	heldNodes     = figures.Gauge("rackpower_agent_nodes_held", "Nodes with a hold.")
	brakeHolds    = figures.Gauge("rackpower_agent_brake", "1 while the fleet brake holds.")
	breakersOpen  = figures.Gauge("rackpower_agent_bmc_breakers_open", "BMCs that are left alone for now.")
	alarmsRaised  = figures.Gauge("rackpower_agent_alarms", "Alarms by kind.", "kind")

	opsOpen      = figures.Gauge("rackpower_agent_operations_open", "Operations that have not ended, by action and phase.", "action", "phase")
	opsUntold    = figures.Gauge("rackpower_agent_outbox_operations", "Operations whose end central has not acknowledged.")
	domainQueue  = figures.Gauge("rackpower_agent_domain_waiting", "Power-ons in the queue of a power domain.", "domain")
	domainFlight = figures.Gauge("rackpower_agent_domain_in_flight", "Nodes of a power domain on their way to on.", "domain")

	centralUp = figures.Gauge("rackpower_agent_central_up", "1 while central answers this agent, and is trusted.")
)

// Metrics lists what Collect may give.
func Metrics() metrics.Set { return figures }

// Collect gives a sink all numbers of the agent. It waits for no disk.
func (a *Agent) Collect(s metrics.Sink) {
	now := time.Now()
	a.view.collect(s, now)
	s.Value(opsUntold, float64(a.outbox.waiting()))
	if a.cfg.Central != nil {
		s.Value(centralUp, metrics.Bool(a.link.reached()))
	}
}

// ServeMetrics has the agent's socket answer GET /metrics. It must be called before Run.
func (a *Agent) ServeMetrics(h http.Handler) { a.control.metrics = h }

func (v *rackView) collect(s metrics.Sink, now time.Time) {
	nodes := v.nodes(now)
	s.Value(nodesAssigned, float64(len(nodes)))
	reach := map[string]int{}
	var drift, held, fault int
	for _, n := range nodes {
		reach[string(n.Reach)]++
		if n.Drift {
			drift++
		}
		if n.Hold != nil {
			held++
		}
		if n.Fault != "" {
			fault++
		}
	}
	for label, count := range reach {
		s.Value(nodesReach, float64(count), label)
	}
	s.Value(drifting, float64(drift))
	s.Value(heldNodes, float64(held))
	s.Value(nodesFault, float64(fault))
	type alike struct{ action, phase string }
	open := map[alike]int{}
	for _, ops := range v.outbox.running() {
		for _, o := range ops {
			open[alike{string(o.Op.Action), string(o.Phase)}]++
		}
	}
	for by, count := range open {
		s.Value(opsOpen, float64(count), by.action, by.phase)
	}
	rack := v.rack()
	s.Value(brakeHolds, metrics.Bool(rack.Brake != nil))
	s.Value(breakersOpen, float64(rack.OpenBreakers))
	for _, d := range rack.Domains {
		s.Value(domainQueue, float64(d.Waiting), d.Name)
		s.Value(domainFlight, float64(d.InFlight), d.Name)
	}
	for _, alarm := range rack.Alarms {
		s.Value(alarmsRaised, 1, alarm.Kind)
	}
}
