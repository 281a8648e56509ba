package agent

import (
	"net/http"
	"slices"
	"time"

	"rackpower/central/api"
)

// explainOps is how many ended operations an explanation tells of.
const explainOps = 3

// explain says why a node is as it is; false: it is not assigned here.
func (a *Agent) explain(name string, now time.Time) (api.Explanation, bool) {
	n, ok := a.assigned.get(name)
	if !ok {
		return api.Explanation{}, false
	}
	e := api.Explanation{
		Node: name, Agent: a.cfg.Name, At: now, Status: n.Status, Desired: n.desired(now), DesiredFrom: n.from(now), Hold: api.ShowHold(n.hold,
			now),
		Reading: a.readings.get(name), Monitor: a.readings.made(name), Ops: a.opsOf(name), BMC: a.prober.bmcState(name), Domain: a.domainOf(name),
		Rack: a.rackState(),
	}
	var since time.Time
	e.RecentReadings = append([]api.ReadingRun{}, a.readings.history(name)...)
	e.RecentDecisions, since, e.Next = a.monitor.rings(name, now)
	if e.BMC != nil && e.BMC.BreakerOpen != "" {
		e.Next = e.BMC.NextProbe // it is not in the rounds
	}
	e.Message = e.Summary(since)
	return e, true
}

// opsOf are the outstanding operations on a node, and the newest that ended.
func (a *Agent) opsOf(name string) []api.Op {
	ops := []api.Op{}
	reports, _, _ := a.outbox.after(0)
	reports = slices.DeleteFunc(reports, func(r api.OpReport) bool { return r.Op.Node != name })
	ended := 0
	for i := len(reports) - 1; i >= 0; i-- {
		if reports[i].End != nil {
			if ended++; ended > explainOps {
				continue
			}
		}
		ops = append(ops, opOf(reports[i], a.cfg.Name))
	}
	slices.Reverse(ops)
	return ops
}

// rings are the runs of decisions that are kept of a node, since when it is desired as
// it is, and when it is read next.
func (m *monitor) rings(name string, now time.Time) (decided []api.Decision, since, next time.Time) {
	n := m.shown.Load().nodes[name]
	decided, since, next = append([]api.Decision{}, n.decided...), n.since, n.next
	if s := m.timetable(); s != nil {
		if round := s.Next(now); next.IsZero() || round.Before(next) {
			next = round
		}
	}
	return decided, since, next
}

func (a *Agent) ctlExplain(r *http.Request) (api.Explanation, error) {
	e, ok := a.explain(r.PathValue("name"), time.Now())
	if !ok {
		return e, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", r.PathValue("name"), a.cfg.Name)
	}
	return e, nil
}
