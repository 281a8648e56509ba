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
	bmcsBy        = figures.Gauge("rackpower_agent_bmcs", "BMCs by the state of their circuit breaker.", "breaker")
	alarmsRaised  = figures.Gauge("rackpower_agent_alarms", "Alarms by kind.", "kind")

	opsOpen = figures.Gauge("rackpower_agent_operations_open",
		"Operations that have not ended, by action and stage: accepted, or running.", "action", "stage")
	opsUntold    = figures.Gauge("rackpower_agent_outbox_operations", "Operations whose end central has not acknowledged.")
	readsUntold  = figures.Gauge("rackpower_agent_outbox_readings", "Nodes whose newest reading central was not told of yet.")
	lanesBusy    = figures.Gauge("rackpower_agent_lanes_busy", "Nodes with an operation that has not ended.")
	laneLongest  = figures.Gauge("rackpower_agent_lane_longest_queue", "Operations that wait for one node, of the node with most of them.")
	domainQueue  = figures.Gauge("rackpower_agent_domain_waiting", "Power-ons in the queue of a power domain.", "domain")
	domainFlight = figures.Gauge("rackpower_agent_domain_in_flight", "Nodes of a power domain on their way to on.", "domain")

	opsEnded = figures.Counter("rackpower_agent_operations_ended_total", "Operations that ended, by action, origin and outcome.",
		"action", "origin", "outcome")
	opAccepted = figures.Histogram("rackpower_agent_operation_accept_seconds",
		"Time from when an operation was asked for until it was accepted and in the journal.")
	opSent = figures.Histogram("rackpower_agent_operation_first_command_seconds",
		"Time from when an operation was asked for until its first command left for the BMC.")
	opTook = figures.Histogram("rackpower_agent_operation_duration_seconds",
		"Time from when an operation was asked for until its effect was read, of those that changed something and succeeded.", "action")

	readsTaken = figures.Counter("rackpower_agent_readings_total", "Readings of nodes by how they went.", "reach")
	readTook   = figures.Histogram("rackpower_agent_reading_seconds", "Time that a reading took that was answered.")
	roundTook  = figures.Histogram("rackpower_agent_round_seconds",
		"Time that a round over all nodes took, with what it was spread over, and without readings that were left behind as too slow.")

	flushTook = figures.Histogram("rackpower_agent_journal_flush_seconds", "Time that a write to a journal took, with its flush.",
		"journal")
	flushRecords = figures.Histogram("rackpower_agent_journal_flush_records", "Records that one flush made durable together.", "journal")
	flushBytes   = figures.Counter("rackpower_agent_journal_written_bytes_total", "Bytes that were written to a journal.", "journal")
	flushFailed  = figures.Counter("rackpower_agent_journal_failures_total", "Writes to a journal that failed.", "journal")

	centralUp = figures.Gauge("rackpower_agent_central_up", "1 while central answers this agent, and is trusted.")
)

// Metrics lists what Collect may give.
func Metrics() metrics.Set { return figures }

// Collect gives a sink all numbers of the agent. It waits for no disk.
func (a *Agent) Collect(s metrics.Sink) {
	now := time.Now()
	a.view.collect(s, now)
	a.numbers.collect(s)
	a.readings.count.Collect(s, readsTaken)
	s.Value(readsUntold, float64(a.readings.untoldCount()))
	for state, n := range a.bmcs.ByBreaker() {
		s.Value(bmcsBy, float64(n), state)
	}
	if g, ok := a.gossip.member().(metrics.Collector); ok {
		g.Collect(s)
	}
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
	type alike struct{ action, stage string }
	open := map[alike]int{}
	busy, longest := v.outbox.running(), 0
	for _, ops := range busy {
		longest = max(longest, len(ops)-1)
		for _, o := range ops {
			stage := "accepted"
			if !o.StartedAt.IsZero() {
				stage = "running"
			}
			open[alike{string(o.Op.Action), stage}]++
		}
	}
	for by, count := range open {
		s.Value(opsOpen, float64(count), by.action, by.stage)
	}
	s.Value(lanesBusy, float64(len(busy)))
	s.Value(laneLongest, float64(longest))
	rack := v.rack()
	s.Value(brakeHolds, metrics.Bool(rack.Brake != nil))
	for _, d := range rack.Domains {
		s.Value(domainQueue, float64(d.Waiting), d.Name)
		s.Value(domainFlight, float64(d.InFlight), d.Name)
	}
	for _, alarm := range rack.Alarms {
		s.Value(alarmsRaised, 1, alarm.Kind)
	}
}
