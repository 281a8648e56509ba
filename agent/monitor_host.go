package agent

import (
	"context"
	"reflect"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// host is the agent as the monitor sees it.
type host struct {
	a    *Agent
	told api.RackState // by passed
}

func (h *host) nodes() []assignedNode { return h.a.assigned.all() }

func (h *host) facts(node string, want power.State) facts { return h.a.lane(node).facts(want) }

func (h *host) reading(node string) power.Reading { return h.a.readings.get(node) }

func (h *host) leftAlone(node string) (breakerOpen, sharedWith string) {
	if b := h.a.prober.bmcState(node); b != nil {
		return b.BreakerOpen, b.SharedWith
	}
	return "", ""
}

func (h *host) holds(now time.Time) string { return h.a.holdsMonitor(now) }

func (h *host) show(node string, m api.NodeMonitor) { h.a.readings.setMonitor(node, m) }

func (h *host) save(memories map[string]memory, brake *api.Brake) error {
	return h.a.assigned.remember(memories, brake)
}

func (h *host) readAll(ctx context.Context, spread time.Duration) {
	h.a.poller.round(ctx, h.a.assigned.names(), spread)
}

func (h *host) readSoon(nodes []string) { h.a.poller.readSoon(nodes) }

func (h *host) retryBMC(node string) { h.a.prober.retryBMC(node) }

func (h *host) submit(op power.Op) (api.OpReport, error) { return h.a.Submit(op) }

func (h *host) dropUnwanted(nodes []assignedNode) {
	for _, n := range nodes {
		h.a.lane(n.Name).dropUnwanted()
	}
}

func (h *host) passed() {
	state := h.a.view.rack()
	state.Alarms = nil // central is told of them when they change
	if !reflect.DeepEqual(state, h.told) {
		h.told = state
		h.a.tellRack()
	}
}

// facts are what the monitor goes by.
func (l *lane) facts(want power.State) (f facts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.tasks {
		final := t.op.Action.Final()
		f.elsewhere = f.elsewhere || final != power.Unknown && final != want
		f.cutting = f.cutting || final == power.Off && t.op.Origin == power.FromMonitor
	}
	f.busy, f.changed = len(l.tasks) > 0, l.ended
	return f
}
