package agent

import (
	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/power"
)

// ids knows what the ids of the operations in all lanes stand for, so that one id
// never stands for two of them. A lane claims an id before it accepts a request, and
// lets go of it when it has forgotten the operation.
type ids struct {
	mu lock.Mutex[lock.IDs]
	m  map[string]power.Op // only what identifies it
}

func newIDs() *ids { return &ids{m: map[string]power.Op{}} }

// claim notes what the id stands for. It fails when it stands for something else already.
func (s *ids) claim(op power.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.m[op.ID]; ok && !known.Is(op) {
		return idUsed(op.ID, known)
	}
	s.m[op.ID] = power.Op{ID: op.ID, Node: op.Node, Action: op.Action}
	return nil
}

// find returns what the id stands for.
func (s *ids) find(id string) (power.Op, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op, ok := s.m[id]
	return op, ok
}

// release forgets an id that is no operation of the node any more.
func (s *ids) release(id, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[id].Node == node {
		delete(s.m, id)
	}
}

// idUsed refuses a request whose id stands for another operation.
func idUsed(id string, known power.Op) error {
	return api.Problemf(api.CodeBadRequest, "operation %s is %s of node %s here, which is something else: ask again with an id of its own", id,
		known.Action, known.Node)
}

// usedOtherwise refuses a request whose id stands for another operation anywhere on this agent.
func (a *Agent) usedOtherwise(op power.Op) error {
	if known, ok := a.ids.find(op.ID); ok && !known.Is(op) {
		return idUsed(op.ID, known)
	}
	if r, ok := a.outbox.find(op.ID); ok && !r.Op.Is(op) {
		return idUsed(op.ID, r.Op)
	}
	return nil
}
