package agent

import (
	"cmp"
	"sync"

	"rackpower/central/api"
	"rackpower/power"
)

// While the credentials of nodes are being replaced, a node has two: those that it uses, and
// others that its BMC may take instead. Where the BMC refuses the former, the latter are tried
// once, and used if they are taken. Central learns it and has them for the node's own.

// switched are the nodes that use the others of their two credentials, by what they had then:
// what central gives anew counts.
type switched struct {
	mu    sync.RWMutex
	nodes map[string]api.AssignedNode
	told  map[string]string // to central: the others that the node uses
}

// pair is what of a node its two credentials are.
func pair(n api.AssignedNode) api.AssignedNode {
	return api.AssignedNode{
		BMC: n.BMC, Password: n.Password, KG: n.KG, Other: n.Other, OtherUser: n.OtherUser, OtherPassword: n.OtherPassword, OtherKG: n.OtherKG,
	}
}

func (s *switched) uses(n api.AssignedNode) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	was, is := s.nodes[n.Name]
	return is && was == pair(n)
}

// change has a node use the others.
func (s *switched) change(n api.AssignedNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes, s.told = map[string]api.AssignedNode{}, map[string]string{}
	}
	s.nodes[n.Name] = pair(n)
	delete(s.told, n.Name)
}

// news reports, once, that the node uses the others: they were taken.
func (s *switched) news(n api.AssignedNode) bool {
	if n.Other == "" || !s.uses(n) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[n.Name] == n.Other {
		return false
	}
	s.told[n.Name] = n.Other
	return true
}

// logins are the endpoints of a node with the credentials that it uses and with the others;
// more is false where there are no others.
func (s *assigned) logins(n api.AssignedNode, ep power.Endpoint) (now, other power.Endpoint, more bool, err error) {
	own, err := s.ownLogin(n, &ep)
	if err != nil || own || n.Other == "" {
		return ep, ep, false, err
	}
	other = ep
	other.User, other.Password, other.KG = n.OtherUser, power.Secret(n.OtherPassword), cmp.Or(power.Secret(n.OtherKG), ep.KG)
	if s.switched.uses(n) {
		return other, ep, true, nil
	}
	return ep, other, true, nil
}

// other is the node's BMC with the credentials that the node does not use.
func (s *assigned) other(node string) (ep power.Endpoint, ok bool) {
	n, known := s.get(node)
	if !known || n.Other == "" {
		return ep, false
	}
	ep, err := power.ParseEndpoint(n.BMC)
	if err != nil {
		return ep, false
	}
	ep.Password, ep.KG = power.Secret(n.Password), power.Secret(n.KG)
	_, other, more, err := s.logins(n.AssignedNode, ep)
	return other, more && err == nil
}

// changedTo is the node's BMC with the credentials that it uses now, if they are others than
// those that were tried.
func (s *assigned) changedTo(node string, tried power.Endpoint) (now power.Endpoint, changed bool) {
	n, _ := s.get(node)
	now, err := s.endpoint(node)
	return now, err == nil && n.Other != "" && now != tried && now.Key() == tried.Key()
}

// refusedLogIn has the nodes that log in so use their other credentials, unless the BMC has
// refused these as well: then none are tried any more.
func (a *Agent) refusedLogIn(ep power.Endpoint) {
	for _, n := range a.assigned.all() {
		if n.Other == "" {
			continue
		}
		now, err := a.assigned.endpoint(n.Name)
		if err != nil || now != ep {
			continue
		}
		other, ok := a.assigned.other(n.Name)
		switch {
		case !ok:
		case a.bmcs.MayTry(other, ep):
			back := a.assigned.switched.uses(n.AssignedNode)
			a.logger.Info("the BMC refused the credentials, its others are tried", "node", n.Name, "bmc", ep.Key())
			if back {
				a.assigned.switched.back(n.Name)
			} else {
				a.assigned.switched.change(n.AssignedNode)
			}
		default:
			a.bmcs.GiveUp(ep)
		}
	}
}

// back has a node use what central gave for its own.
func (s *switched) back(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, node)
	delete(s.told, node)
}

// taken notes that a BMC let the node in: that it refused the others of the same user, in a test,
// does not count towards a lock any more. Central learns where it is the others that were taken.
func (a *Agent) taken(node string, ep power.Endpoint) {
	n, ok := a.assigned.get(node)
	if !ok || n.Other == "" {
		return
	}
	if other, ok := a.assigned.other(node); ok && other.User == ep.User && !a.assigned.switched.uses(n.AssignedNode) {
		a.bmcs.Pardon(other)
	}
	if a.assigned.switched.news(n.AssignedNode) {
		a.tester.took(n.AssignedNode)
	}
}
