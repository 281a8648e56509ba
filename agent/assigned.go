package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// assigned is what central assigned to this agent, kept in a log of its own so
// that a restart enforces it at once, central or not. It holds BMC passwords,
// which is why it is not in the journal of operations that people dump.
type assigned struct {
	log appender

	mu    sync.Mutex
	nodes map[string]assignedNode
	sync  syncRecord
}

type assignedNode struct {
	api.AssignedNode
	desiredAt time.Time // when the desire last changed, in this process
}

const (
	nodePrefix = "node/"
	syncKey    = "sync"
)

func loadAssigned(log appender, live []journal.Record) (*assigned, error) {
	s := &assigned{log: log, nodes: map[string]assignedNode{}}
	for _, r := range live {
		var err error
		switch r.Kind {
		case kindNode:
			var n api.AssignedNode
			err = json.Unmarshal(r.Payload, &n)
			s.nodes[n.Name] = assignedNode{AssignedNode: n}
		case kindSync:
			err = json.Unmarshal(r.Payload, &s.sync)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read assignment record %d: %w", r.LSN, err)
		}
	}
	return s, nil
}

// apply makes an assignment durable and current. It returns the names of the
// nodes whose desired state or BMC changed, and of those that are gone.
func (s *assigned) apply(a api.Assignment, centralID string, now time.Time) (changed, gone []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[string]bool{}
	var entries []journal.Entry
	for _, n := range a.Nodes {
		keep[n.Name] = true
		if s.nodes[n.Name].AssignedNode != n {
			entries = append(entries, entry(journal.Put, kindNode, nodePrefix+n.Name, n))
			changed = append(changed, n.Name)
		}
	}
	gone = s.gone(a, keep)
	for _, name := range gone {
		entries = append(entries, entry(journal.Drop, kindNode, nodePrefix+name, nil))
	}
	at := syncRecord{CentralID: centralID, Rev: a.Rev}
	if len(entries) == 0 && at == s.sync {
		return nil, nil, nil
	}
	entries = append(entries, entry(journal.Put, kindSync, syncKey, at))
	if _, err := s.log.Append(entries...); err != nil {
		return nil, nil, fmt.Errorf("cannot keep the assignment: %w", err)
	}
	for _, n := range a.Nodes {
		s.put(n, now)
	}
	for _, name := range gone {
		delete(s.nodes, name)
	}
	s.sync = at
	return changed, gone, nil
}

func (s *assigned) gone(a api.Assignment, keep map[string]bool) []string {
	var gone []string
	for _, name := range a.Removed {
		if _, ok := s.nodes[name]; ok && !keep[name] {
			gone = append(gone, name)
		}
	}
	if a.Full {
		for name := range s.nodes {
			if !keep[name] && !slices.Contains(gone, name) {
				gone = append(gone, name)
			}
		}
	}
	return gone
}

func (s *assigned) put(n api.AssignedNode, now time.Time) {
	old := s.nodes[n.Name]
	at := old.desiredAt
	if old.Desired != n.Desired {
		at = now
	}
	s.nodes[n.Name] = assignedNode{AssignedNode: n, desiredAt: at}
}

func (s *assigned) get(name string) (assignedNode, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[name]
	return n, ok
}

func (s *assigned) all() []assignedNode {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]assignedNode, 0, len(s.nodes))
	for _, n := range s.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b assignedNode) int { return compareNames(a.Name, b.Name) })
	return list
}

func (s *assigned) position() syncRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sync
}

// wants reports whether the desired state of now is the one that the operation
// leads to.
func (a *Agent) wants(op power.Op) bool {
	n, ok := a.assigned.get(op.Node)
	return ok && n.Desired.Enforces() && n.Desired.State() == op.Action.Final()
}

// endpoint is where a node's BMC is, with the credentials of now.
func (a *Agent) endpoint(node string) (power.Endpoint, error) {
	n, ok := a.assigned.get(node)
	if !ok {
		return power.Endpoint{}, fail(power.ReasonNoNode, "node %s is not assigned to agent %s any more", node, a.cfg.Name)
	}
	if n.BMC == "" {
		return power.Endpoint{}, fail(power.ReasonConfigless, "no BMC is known for node %s", node)
	}
	ep, err := power.ParseEndpoint(n.BMC)
	if err != nil {
		return power.Endpoint{}, fail(power.ReasonConfigless, "%v", err)
	}
	ep.Password = power.Secret(n.Password)
	return ep, nil
}
