package agent

import (
	"context"
	"reflect"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/power"
)

// host is the agent as the monitor sees it.
type host struct {
	a    *Agent
	told api.RackState // by passed
}

func (h *host) Nodes(now time.Time) []monitor.Node {
	all := h.a.assigned.all()
	nodes := make([]monitor.Node, len(all))
	for i, n := range all {
		nodes[i] = monitor.Node{
			Name: n.Name, Desired: n.desired(now), From: n.from(now), Protected: n.Protected.Text(), Retry: n.Retry,
			Source: func(before string) (string, bool) { return n.source(now, before) },
		}
		if n.hold.Active(now) {
			nodes[i].HoldUntil = n.hold.Until
		}
	}
	return nodes
}

func (h *host) Facts(node string, want power.State) monitor.Facts { return h.a.lane(node).facts(want) }

func (h *host) Reading(node string) power.Reading { return h.a.readings.get(node) }

func (h *host) LeftAlone(node string) (breakerOpen, sharedWith string) {
	if b := h.a.prober.bmcState(node); b != nil {
		return b.BreakerOpen, b.SharedWith
	}
	return "", ""
}

func (h *host) Holds(now time.Time) string { return h.a.holdsMonitor(now) }

func (h *host) Show(node string, m api.NodeMonitor) { h.a.readings.setMonitor(node, m) }

func (h *host) Save(memories map[string]monitor.Memory, brake *api.Brake) error {
	return h.a.assigned.remember(memories, brake)
}

func (h *host) ReadAll(ctx context.Context, spread time.Duration) {
	began := time.Now()
	h.a.poller.round(ctx, h.a.assigned.names(), spread)
	h.a.numbers.rounds.Time(time.Since(began))
}

func (h *host) ReadSoon(nodes []string) { h.a.poller.readSoon(nodes) }

func (h *host) RetryBMC(node string) { h.a.prober.retryBMC(node) }

func (h *host) Submit(op power.Op) (api.OpReport, error) { return h.a.Submit(op) }

func (h *host) DropUnwanted(nodes []monitor.Node) {
	for _, n := range nodes {
		h.a.lane(n.Name).dropUnwanted()
	}
}

func (h *host) Passed() {
	state := h.a.view.rack()
	state.Alarms = nil // central is told of them when they change
	if !reflect.DeepEqual(state, h.told) {
		h.told = state
		h.a.tellRack()
	}
}

// facts are what the monitor goes by.
func (l *lane) facts(want power.State) (f monitor.Facts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.tasks {
		final := t.op.Action.Final()
		f.Elsewhere = f.Elsewhere || final != power.Unknown && final != want
		f.Cutting = f.Cutting || final == power.Off && t.op.Origin == power.FromMonitor
	}
	f.NoLease = l.a.mayNot(l.node) != ""
	f.Busy, f.Changed = len(l.tasks) > 0, l.ended
	return f
}

// poke leaves a token.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
