package agent

import (
	"slices"
	"time"

	"rackpower/central/api"
)

// explainOps is how many ended operations an explanation tells of.
const explainOps = 3

// explain says why a node is as it is; false: it is not assigned here.
func (v *rackView) explain(name string, now time.Time) (api.Explanation, bool) {
	n, ok := v.assigned.get(name)
	if !ok {
		return api.Explanation{}, false
	}
	e := api.Explanation{
		Node: name, Agent: v.name, At: now, Status: n.Status, Desired: n.desired(now), DesiredFrom: n.from(now), Hold: api.ShowHold(n.hold,
			now),
		Reading: v.readings.get(name), Monitor: v.readings.made(name), Ops: v.opsOf(name), BMC: v.prober.bmcState(name), Domain: v.domainOf(name),
		Rack: v.rack(), Protected: api.ShowProtection(n.Protected), MissingCredentials: v.assigned.lacks(name),
	}
	var since time.Time
	e.RecentReadings = append([]api.ReadingRun{}, v.readings.history(name)...)
	e.RecentDecisions, since, e.Next = v.monitor.Decisions(name, now)
	if e.BMC != nil && e.BMC.BreakerOpen != "" {
		e.Next = e.BMC.NextProbe // it is not in the rounds
	}
	e.Message = e.Summary(since)
	return e, true
}

// opsOf are the outstanding operations on a node, and the newest that ended.
func (v *rackView) opsOf(name string) []api.Op {
	ops := []api.Op{}
	reports, _, _ := v.outbox.after(0)
	reports = slices.DeleteFunc(reports, func(r api.OpReport) bool { return r.Op.Node != name })
	ended := 0
	for i := len(reports) - 1; i >= 0; i-- {
		if reports[i].End != nil {
			if ended++; ended > explainOps {
				continue
			}
		}
		ops = append(ops, opOf(reports[i], v.name))
	}
	slices.Reverse(ops)
	return ops
}
