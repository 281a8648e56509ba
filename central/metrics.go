package central

import (
	"context"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/internal/metrics"
	"rackpower/internal/prom"
)

// What /metrics has. The numbers of the site begin with rackpower_, those of central itself with
// rackpower_central_, those of an agent, which it shows by itself, with rackpower_agent_. None has
// the name of a node.
var (
	figures metrics.Set

	nodesByState = figures.Gauge("rackpower_nodes", "Nodes by rack and power, as read last.", "rack", "state")
	nodesByReach = figures.Gauge("rackpower_nodes_reach", "Nodes by rack and how the latest reading went.", "rack", "reach")
	nodesStale   = figures.Gauge("rackpower_nodes_stale", "Nodes whose power was read too long ago to count on.", "rack")
	nodesDrift   = figures.Gauge("rackpower_nodes_drifting", "Nodes whose power differs from what is desired and was so before.", "rack")
	nodesFault   = figures.Gauge("rackpower_nodes_fault", "Nodes that the monitor gave up correcting.", "rack")
	nodesAlone   = figures.Gauge("rackpower_nodes_breaker_open", "Nodes whose BMC is left alone because it does not answer.", "rack")
	nodesHeld    = figures.Gauge("rackpower_nodes_held", "Nodes with a hold.", "rack")

	agentUp   = figures.Gauge("rackpower_rack_agent_up", "1 while the rack's agent polls central.", "rack")
	agentSeen = figures.Gauge("rackpower_rack_agent_last_seen_timestamp_seconds", "When the rack's agent was heard last; 0: never.", "rack")
	rackBrake = figures.Gauge("rackpower_rack_brake", "1 while the fleet brake of the rack holds.", "rack")
	rackPause = figures.Gauge("rackpower_rack_paused", "1 while the monitor of the rack is paused.", "rack")
	rackAlarm = figures.Gauge("rackpower_rack_alarms", "Alarms of the rack's agent by kind.", "rack", "kind")

	opsOpen   = figures.Gauge("rackpower_operations_open", "Operations that have not ended, by action and phase.", "action", "phase")
	opsOldest = figures.Gauge("rackpower_operation_oldest_open_seconds", "Age of the oldest operation that has not ended; 0: none.")

	databaseUp = figures.Gauge("rackpower_central_database_up", "1 if the database could be read for this scrape.")
)

// Metrics lists what /metrics of central may have.
func Metrics() metrics.Set { return append(prom.Common(), figures...) }

// metricsWithin bounds how long a scrape waits for the database.
const metricsWithin = 5 * time.Second

func (c *Central) metricsHandler() http.HandlerFunc {
	return prom.Handler("central", c.cfg.Version, c.collect).ServeHTTP
}

// collect reads all that is shown from what is there anyway.
func (c *Central) collect(s metrics.Sink) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsWithin)
	defer cancel()
	now := c.cfg.Now()
	var nodes []store.NodeFigures
	var ops []store.OpFigures
	var racks []api.Rack
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		if nodes, err = tx.NodeFigures(now); err != nil {
			return err
		}
		if ops, err = tx.OpFigures(); err != nil {
			return err
		}
		agents, err := tx.Agents()
		for _, a := range agents {
			rack, err := c.showRack(tx, a, 0)
			if err != nil {
				return err
			}
			racks = append(racks, rack)
		}
		return err
	})
	s.Value(databaseUp, metrics.Bool(err == nil))
	if err != nil {
		c.log.Error("cannot read what the metrics show", "err", err)
		return
	}
	collectNodes(s, nodes)
	collectRacks(s, racks, now)
	collectOps(s, ops, now)
}

func collectNodes(s metrics.Sink, all []store.NodeFigures) {
	type by struct{ rack, label string }
	states, reaches := map[by]int{}, map[by]int{}
	sums := map[string]*store.NodeFigures{}
	for _, f := range all {
		states[by{f.Agent, string(f.State)}] += f.Nodes
		reaches[by{f.Agent, string(f.Reach)}] += f.Nodes
		sum := sums[f.Agent]
		if sum == nil {
			sum = new(store.NodeFigures)
			sums[f.Agent] = sum
		}
		sum.Stale += f.Stale
		sum.Drifting += f.Drifting
		sum.InFault += f.InFault
		sum.BreakerOpen += f.BreakerOpen
		sum.Held += f.Held
	}
	for at, n := range states {
		s.Value(nodesByState, float64(n), at.rack, at.label)
	}
	for at, n := range reaches {
		s.Value(nodesByReach, float64(n), at.rack, at.label)
	}
	for rack, sum := range sums {
		s.Value(nodesStale, float64(sum.Stale), rack)
		s.Value(nodesDrift, float64(sum.Drifting), rack)
		s.Value(nodesFault, float64(sum.InFault), rack)
		s.Value(nodesAlone, float64(sum.BreakerOpen), rack)
		s.Value(nodesHeld, float64(sum.Held), rack)
	}
}

func collectRacks(s metrics.Sink, all []api.Rack, now time.Time) {
	for _, r := range all {
		s.Value(agentUp, metrics.Bool(r.AgentState.State == api.AgentAlive), r.Name)
		s.Value(agentSeen, seconds(r.AgentState.LastSeen), r.Name)
		s.Value(rackBrake, metrics.Bool(r.State.Brake != nil), r.Name)
		s.Value(rackPause, metrics.Bool(r.Settings.Pause.Active(now)), r.Name)
		for _, a := range r.State.Alarms {
			s.Value(rackAlarm, 1, r.Name, a.Kind)
		}
	}
}

func collectOps(s metrics.Sink, all []store.OpFigures, now time.Time) {
	oldest := now
	for _, f := range all {
		s.Value(opsOpen, float64(f.Ops), string(f.Action), f.Phase)
		if f.Oldest.Before(oldest) {
			oldest = f.Oldest
		}
	}
	s.Value(opsOldest, now.Sub(oldest).Seconds())
}

// seconds is a time as Prometheus has it, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
