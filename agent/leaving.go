package agent

import (
	"slices"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/power"
)

// leaving keeps the operations of nodes that are no longer assigned, or have another BMC
// now, until they have ended: only then has the agent let go.
type leaving struct {
	mu lock.Mutex[lock.Leaving]
	m  map[string][]*task
}

// leave ends, at their next safe point, the operations of nodes that are gone.
func (a *Agent) leave(gone []string, why cancelRecord) {
	for _, node := range gone {
		l := a.lane(node)
		l.mu.Lock()
		a.goes(node, l.tasks)
		for _, t := range slices.Clone(l.tasks) {
			if _, err := l.cancelTask(t, why); err != nil {
				a.logger.Error("cannot end an operation of a node that is gone", "node", node, "op", t.op.ID, "err", err)
			}
		}
		l.mu.Unlock()
	}
}

// otherBMC names the nodes that are about to have another BMC than now.
func (a *Agent) otherBMC(nodes []api.AssignedNode) (names []string) {
	for _, n := range nodes {
		if old, ok := a.assigned.get(n.Name); ok && old.BMC != "" && old.BMC != n.BMC {
			names = append(names, n.Name)
		}
	}
	return names
}

// leaveBMCs holds back nodes that have another BMC now: their operations may be at work on
// the one before, which central may give to another node once this agent has let go.
func (a *Agent) leaveBMCs(nodes []string) {
	for _, node := range nodes {
		l := a.lane(node)
		l.mu.Lock()
		a.goes(node, l.tasks)
		l.mu.Unlock()
	}
}

// goes notes operations that have to end before the node, or its BMC, is let go.
func (a *Agent) goes(node string, tasks []*task) {
	if len(tasks) == 0 {
		return
	}
	a.leaving.mu.Lock()
	defer a.leaving.mu.Unlock()
	if a.leaving.m == nil {
		a.leaving.m = map[string][]*task{}
	}
	for _, t := range tasks {
		if !slices.Contains(a.leaving.m[node], t) {
			a.leaving.m[node] = append(a.leaving.m[node], t)
		}
	}
}

// holdsBack names the nodes that central took away, or gave another BMC, and that the
// agent has not let go of.
func (a *Agent) holdsBack() []string {
	names := slices.Clone(a.assigned.trusts().Kept)
	a.leaving.mu.Lock()
	all := make(map[string][]*task, len(a.leaving.m))
	for node, tasks := range a.leaving.m {
		all[node] = slices.Clone(tasks)
	}
	a.leaving.mu.Unlock()
	for node, tasks := range all {
		l := a.lane(node)
		l.mu.Lock()
		busy := slices.ContainsFunc(tasks, func(t *task) bool { return slices.Contains(l.tasks, t) })
		l.mu.Unlock()
		if busy {
			names = append(names, node)
			continue
		}
		a.leaving.mu.Lock()
		if len(a.leaving.m[node]) == len(tasks) {
			delete(a.leaving.m, node)
		}
		a.leaving.mu.Unlock()
	}
	slices.SortFunc(names, compareNames)
	return slices.Compact(names)
}

// leaveReplayed does the same for operations of before the start whose node is gone.
func (a *Agent) leaveReplayed() {
	for _, l := range a.allLanes() {
		if _, ok := a.assigned.get(l.node); ok {
			continue
		}
		l.mu.Lock()
		a.goes(l.node, l.tasks)
		l.mu.Unlock()
	}
}

// notAssigned refuses a request whose node went away on its way to the lane.
func (l *lane) notAssigned(op power.Op) bool {
	_, ok := l.a.assigned.get(op.Node)
	return !ok
}
