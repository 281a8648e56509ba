package agent

import (
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// readings holds the newest reading of each node, and which of them central and
// gossip have not been told.
type readings struct {
	mu    sync.Mutex
	nodes map[string]power.Reading
	made  map[string]api.NodeMonitor // what the monitor makes of each
	dirty map[string]bool
	news  chan struct{} // holds a token while there is something to tell
	moved func()        // called, without the lock, when a state or reach changed
}

func newReadings(moved func()) *readings {
	return &readings{nodes: map[string]power.Reading{}, made: map[string]api.NodeMonitor{}, dirty: map[string]bool{}, news: make(chan struct{}, 1), moved: moved}
}

// saw takes a successful reading.
func (r *readings) saw(node string, seen power.Reading) {
	r.set(node, func(power.Reading) power.Reading { return seen })
}

// failed takes a reading that did not succeed: the last state stays.
func (r *readings) failed(node string, reach power.Reach) {
	r.set(node, func(old power.Reading) power.Reading { return old.Failed(reach, time.Now()) })
}

func (r *readings) set(node string, change func(power.Reading) power.Reading) {
	r.mu.Lock()
	old := r.nodes[node]
	now := change(old)
	r.nodes[node] = now
	r.dirty[node] = true
	r.mu.Unlock()
	r.tell()
	if old.State != now.State || old.Reach != now.Reach {
		r.moved()
	}
}

func (r *readings) tell() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// setMonitor notes what the monitor makes of the node; it travels with the reading.
func (r *readings) setMonitor(node string, m api.NodeMonitor) {
	r.mu.Lock()
	changed := r.made[node] != m
	if changed {
		r.made[node] = m
		r.dirty[node] = true
	}
	r.mu.Unlock()
	if changed {
		r.tell()
	}
}

func (r *readings) monitor(node string) api.NodeMonitor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made[node]
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
		list = append(list, api.NodeReading{Node: node, Reading: r.getLocked(node), Monitor: r.made[node]})
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
	for node := range r.made {
		r.dirty[node] = true
	}
}

func (r *readings) pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirty) > 0
}

func (r *readings) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.nodes, node)
	delete(r.made, node)
	delete(r.dirty, node)
}
