package central

import (
	"context"
	"net/http"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/central/webhook"
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

	agentUp    = figures.Gauge("rackpower_rack_agent_up", "1 while the rack's agent polls central.", "rack")
	agentClock = figures.Gauge("rackpower_rack_clock_offset_seconds", "What the agent's clock is ahead of central's; 0 where that is little.",
		"rack")
	agentSeen = figures.Gauge("rackpower_rack_agent_last_seen_timestamp_seconds", "When the rack's agent was heard last; 0: never.", "rack")
	rackBrake = figures.Gauge("rackpower_rack_brake", "1 while the fleet brake of the rack holds.", "rack")
	rackPause = figures.Gauge("rackpower_rack_paused", "1 while the monitor of the rack is paused.", "rack")
	rackAlarm = figures.Gauge("rackpower_rack_alarms", "Alarms of the rack's agent by kind.", "rack", "kind")

	opsOpen = figures.Gauge("rackpower_operations_open",
		"Operations that have not ended, by action and stage: taken by central, accepted by the agent, or running.",
		"action", "stage")
	opsOldest = figures.Gauge("rackpower_operation_oldest_open_seconds", "Age of the oldest operation that has not ended; 0: none.")

	opsAsked   = figures.Counter("rackpower_operations_asked_total", "Operations that were asked for, by action.", "action")
	opsEnded   = figures.Counter("rackpower_operations_ended_total", "Operations that ended, by action and outcome.", "action", "outcome")
	opAccepted = figures.Histogram("rackpower_operation_accept_seconds",
		"Time from when an operation was asked for until central knew it accepted.")
	opTook = figures.Histogram("rackpower_operation_duration_seconds",
		"Time from when an operation was asked for until its effect was read, of those that changed something and succeeded.", "action")

	approvals      = figures.Gauge("rackpower_approvals_waiting", "Plans that await the approval of a second person.")
	approvalOldest = figures.Gauge("rackpower_approval_oldest_waiting_seconds", "Age of the oldest plan that awaits an approval; 0: none.")

	contradicted = figures.Counter("rackpower_contradictions_total", "Reports of another end of an operation than the one that central has.")
	itemsSkipped = figures.Counter("rackpower_central_report_items_skipped_total", "Items of reports that could not be stored.")

	commitTook   = figures.Histogram("rackpower_central_database_commit_seconds", "Time that a transaction took, with its flush to the disk.")
	commitJobs   = figures.Histogram("rackpower_central_database_commit_jobs", "Changes that one transaction made durable together.")
	commitFailed = figures.Counter("rackpower_central_database_commit_failures_total", "Transactions that failed.")
	commitWaits  = figures.Gauge("rackpower_central_database_disk_wait_seconds",
		"How long the disk has not answered what is just being written; 0: nothing waits for it.")
	jobsWaiting  = figures.Gauge("rackpower_central_database_jobs_waiting", "Changes that wait for the writer of the database.")
	databaseSize = figures.Gauge("rackpower_central_database_size_bytes", "Size of the files of the database.", "file")
	standbys     = figures.Gauge("rackpower_central_standbys", "Other centrals that stand by on the same database; none can on SQLite.")
	databaseFree = figures.Gauge("rackpower_central_database_free_bytes", "Room that its file system has left.")

	httpRequests    = figures.Counter("rackpower_central_http_requests_total", "Requests by route and status.", "route", "code")
	requestsWaiting = figures.Gauge("rackpower_central_watches", "Requests of users that wait for news.")

	certificateEnds = figures.Gauge("rackpower_central_certificate_expiry_timestamp_seconds",
		"When the certificate that central serves with ends.")

	databaseUp = figures.Gauge("rackpower_central_database_up", "1 if the database could be read for this scrape.")
)

// Metrics lists what /metrics of central may have.
func Metrics() metrics.Set { return slices.Concat(prom.Common(), figures, webhook.Metrics()) }

// metricsWithin bounds how long a scrape waits for the database.
const metricsWithin = 5 * time.Second

func (c *Central) metricsHandler() http.HandlerFunc {
	return prom.Handler("central", c.cfg.Version, c.collect).ServeHTTP
}

// collect reads all that is shown from what is there anyway.
func (c *Central) collect(s metrics.Sink) {
	now := c.cfg.Now()
	c.numbers.collect(s)
	s.Value(contradicted, float64(c.contradictions.Load()))
	s.Value(itemsSkipped, float64(c.skipped.Load()))
	s.Value(requestsWaiting, float64(c.limits.waiting()))
	s.Value(jobsWaiting, float64(c.store.Waiting()))
	s.Value(commitWaits, c.DiskWait().Seconds())
	if disk, err := c.store.DiskFigures(); err == nil {
		s.Value(databaseSize, float64(disk.Database), "database")
		s.Value(databaseSize, float64(disk.WAL), "wal")
		if disk.Free >= 0 {
			s.Value(databaseFree, float64(disk.Free))
		}
	}
	if n, err := c.Standbys(context.Background()); err == nil {
		s.Value(standbys, float64(max(n, 0)))
	}
	if c.tls != nil {
		if cert, err := c.tls.certificate(nil); err == nil && cert.Leaf != nil {
			s.Value(certificateEnds, seconds(cert.Leaf.NotAfter))
		}
	}
	if g, ok := c.gossip.(metrics.Collector); ok {
		g.Collect(s)
	}
	if c.webhook != nil {
		c.webhook.Collect(s)
	}
	c.backups.collect(s)
	err := c.collectStored(s, now)
	s.Value(databaseUp, metrics.Bool(err == nil))
	if err != nil {
		c.log.Error("cannot read what the metrics show", "err", err)
	}
}

// collectStored reads what is in the database, from one snapshot.
func (c *Central) collectStored(s metrics.Sink, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.Background(), metricsWithin)
	defer cancel()
	return c.store.View(ctx, func(tx *store.Tx) error {
		nodes, err := tx.NodeFigures(now)
		if err != nil {
			return err
		}
		ops, err := tx.OpFigures()
		if err != nil {
			return err
		}
		plans, oldest, err := tx.AwaitingFigures()
		if err != nil {
			return err
		}
		agents, err := tx.Agents()
		if err != nil {
			return err
		}
		for _, a := range agents {
			if err := c.collectRack(s, tx, a, now); err != nil {
				return err
			}
		}
		collectNodes(s, nodes)
		collectOps(s, ops, now)
		s.Value(approvals, float64(plans))
		s.Value(approvalOldest, age(oldest, now))
		return nil
	})
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

func (c *Central) collectRack(s metrics.Sink, tx *store.Tx, a store.Agent, now time.Time) error {
	r, err := c.showRack(tx, a, nil, 0) // its settings are not shown
	if err != nil {
		return err
	}
	s.Value(agentUp, metrics.Bool(r.AgentState.State == api.AgentAlive), r.Name)
	s.Value(agentSeen, seconds(r.AgentState.LastSeen), r.Name)
	s.Value(agentClock, c.sessions.of(r.Name).clock().Seconds(), r.Name)
	s.Value(rackBrake, metrics.Bool(r.State.Brake != nil), r.Name)
	s.Value(rackPause, metrics.Bool(r.Settings.Pause.Active(now)), r.Name)
	for _, alarm := range r.State.Alarms {
		s.Value(rackAlarm, 1, r.Name, alarm.Kind)
	}
	return nil
}

func collectOps(s metrics.Sink, all []store.OpFigures, now time.Time) {
	var oldest time.Time
	for _, f := range all {
		s.Value(opsOpen, float64(f.Ops), string(f.Action), f.Stage.String())
		if oldest.IsZero() || f.Oldest.Before(oldest) {
			oldest = f.Oldest
		}
	}
	s.Value(opsOldest, age(oldest, now))
}

// age is how long ago a time was, 0 for none.
func age(t, now time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(now.Sub(t).Seconds(), 0)
}

// seconds is a time as Prometheus has it, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
