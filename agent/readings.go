package agent

import (
	"slices"
	"time"

	"rackpower/agent/bmcpool"
	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/internal/metrics"
	"rackpower/power"
)

// keepRuns is how many runs of equal readings are remembered of a node.
const keepRuns = 20

// readings holds the newest readings of each node, what the monitor makes of it, and
// which of them central and gossip have not been told.
type readings struct {
	mu      lock.Mutex[lock.Readings]
	nodes   map[string]power.Reading
	runs    map[string][]api.ReadingRun // the newest keepRuns, newest last
	monitor map[string]api.NodeMonitor
	speaks  map[string]*api.FoundBMC // of nodes whose address leaves the protocol open
	dirty   map[string]bool
	awaited map[string]bool // nodes of which central waits for a reading
	bell    bell
	calm    chan struct{}  // a token: there are readings that found what was known
	count   metrics.Counts // of all that were taken, by reach
	moved   func()         // called, without the lock, when a state or reach changed
}

func newReadings(moved func()) *readings {
	return &readings{
		nodes: map[string]power.Reading{}, runs: map[string][]api.ReadingRun{}, monitor: map[string]api.NodeMonitor{},
		speaks: map[string]*api.FoundBMC{}, dirty: map[string]bool{}, awaited: map[string]bool{}, bell: newBell(), moved: moved,
		calm: make(chan struct{}, 1),
	}
}

// saw takes a successful reading.
func (r *readings) saw(node string, seen power.Reading) {
	r.set(node, seen.ObservedAt, "", func(power.Reading) power.Reading { return seen })
}

// failed takes a reading that did not succeed, and why: the last state stays.
func (r *readings) failed(node string, reach power.Reach, says string) {
	now := time.Now()
	r.set(node, now, says, func(old power.Reading) power.Reading { return old.Failed(reach, now) })
}

// found notes which protocol the node's BMC turned out to speak, where its address leaves that
// open. It travels with the reading.
func (r *readings) found(node string, seen bmcpool.Seen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.speaks, node)
	if seen.Found.Scheme != "" {
		seen.Found.User = ""
		r.speaks[node] = &api.FoundBMC{BMC: seen.Found.String(), Why: seen.Why}
	}
}

func (r *readings) set(node string, at time.Time, says string, change func(power.Reading) power.Reading) {
	r.mu.Lock()
	old := r.nodes[node]
	now := change(old)
	r.nodes[node] = now
	r.runs[node] = extend(r.runs[node], api.ReadingRun{State: now.State, Reach: now.Reach, First: at, Last: at, Times: 1, Message: says})
	r.dirty[node] = true
	waits := r.awaited[node]
	delete(r.awaited, node)
	r.mu.Unlock()
	r.count.Add(1, string(now.Reach))
	news := old.State != now.State || old.Reach != now.Reach
	if news || waits {
		r.bell.ring(waits)
	} else {
		poke(r.calm)
	}
	if news {
		r.moved()
	}
}

// extend adds a reading to the runs: to the newest one when it is equal.
func extend(runs []api.ReadingRun, seen api.ReadingRun) []api.ReadingRun {
	if n := len(runs); n > 0 && runs[n-1].State == seen.State && runs[n-1].Reach == seen.Reach {
		last := &runs[n-1]
		last.Last, last.Message = seen.Last, seen.Message
		last.Times++
		return runs
	}
	if len(runs) == keepRuns {
		copy(runs, runs[1:])
		runs = runs[:keepRuns-1]
	}
	return append(runs, seen)
}

// await has the next reading of each of the nodes told at once.
func (r *readings) await(nodes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, node := range nodes {
		r.awaited[node] = true
	}
}

// run is the newest run of equal readings of a node: what was seen, since when, how
// often. Its Times is 0 when the node was never read.
func (r *readings) run(node string) api.ReadingRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	if runs := r.runs[node]; len(runs) > 0 {
		return runs[len(runs)-1]
	}
	return api.ReadingRun{State: power.Unknown, Reach: power.ReachNever}
}

// history is the newest runs of equal readings of a node, newest last.
func (r *readings) history(node string) []api.ReadingRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.runs[node])
}

// setMonitor notes what the monitor makes of a node; it travels with the reading.
func (r *readings) setMonitor(node string, m api.NodeMonitor) {
	r.mu.Lock()
	news := r.monitor[node] != m
	if news {
		r.monitor[node], r.dirty[node] = m, true
	}
	r.mu.Unlock()
	if news {
		r.bell.ring(false)
	}
}

// made is what the monitor makes of a node.
func (r *readings) made(node string) api.NodeMonitor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.monitor[node]
}

func (r *readings) get(node string) power.Reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.getLocked(node)
}

func (r *readings) getLocked(node string) power.Reading {
	if reading, ok := r.nodes[node]; ok {
		return reading
	}
	return power.Reading{State: power.Unknown, Reach: power.ReachNever}
}

// take returns up to limit untold readings and counts them as told.
func (r *readings) take(limit int) []api.NodeReading {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []api.NodeReading
	for node := range r.dirty {
		if len(list) == limit {
			break
		}
		list = append(list, api.NodeReading{Node: node, Reading: r.getLocked(node), Monitor: r.monitor[node], Found: r.speaks[node]})
		delete(r.dirty, node)
	}
	return list
}

// untold takes back what take gave: central did not get it.
func (r *readings) untold(list []api.NodeReading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reading := range list {
		r.dirty[reading.Node] = true
	}
}

func (r *readings) allUntold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for node := range r.nodes {
		r.dirty[node] = true
	}
}

func (r *readings) untoldCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirty)
}

func (r *readings) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.nodes, node)
	delete(r.runs, node)
	delete(r.monitor, node)
	delete(r.speaks, node)
	delete(r.dirty, node)
	delete(r.awaited, node)
}
