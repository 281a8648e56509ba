package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rackpower/central/api"
	"rackpower/gossip"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Cluster shows a gossip cluster as central and the agent want it.
type Cluster struct{ *gossip.Cluster }

var _ api.Cluster = Cluster{}

// Members lists the cluster.
func (g Cluster) Members() []api.Member {
	list := []api.Member{}
	for _, m := range g.Cluster.Members() {
		list = append(list, api.Member{
			Name: m.Name, Addr: m.Addr, Port: m.Port, Status: m.Status, SinceMS: m.StatusAge.Milliseconds(),
			Tags: m.Tags,
		})
	}
	return list
}

// Peers is the power of the whole fleet.
func (g Cluster) Peers() []api.PeerNode {
	nodes := []api.PeerNode{}
	for _, p := range g.Cluster.Peers() {
		nodes = append(nodes, peerNodes(p)...)
	}
	return nodes
}

func peerNodes(p gossip.Peer) []api.PeerNode {
	nodes := make([]api.PeerNode, len(p.Nodes))
	for i, n := range p.Nodes {
		nodes[i] = api.PeerNode{
			Node: n.Name, Owner: p.Name, OwnerStatus: p.Status, OwnerSinceMS: p.StatusAge.Milliseconds(), State: n.State, Reach: n.Reach,
			AgeMS: -1, RecordMS: p.Age.Milliseconds(), Op: n.Op,
		}
		if n.Age >= 0 {
			nodes[i].AgeMS = n.Age.Milliseconds()
		}
	}
	return nodes
}

// Join asks to join in the background.
func (g Cluster) Join(addrs ...string) error { return g.Seed(addrs...) }

// Who says who owns a node and who can reach its BMC.
func (g Cluster) Who(ctx context.Context, node, bmc, owner string) (api.Who, error) {
	w, err := g.Cluster.Who(ctx, node, bmc)
	out := api.Who{Node: node, Owners: []api.PeerNode{}, Reach: []api.WhoReach{}, Tried: bmc, Asked: w.Asked, Answered: w.Answered}
	for _, p := range w.Owners {
		out.Owners = append(out.Owners, peerNodes(p)...)
	}
	out.Owners = ownerFirst(out.Owners, node, owner)
	for _, r := range w.Reach {
		out.Reach = append(out.Reach, api.WhoReach{Agent: r.Agent, How: r.Reach})
	}
	out.Message = saysWho(out)
	return out, err
}

// ownerFirst has the agent that the node is assigned to, where that is known, come before
// others that tell of the node.
func ownerFirst(all []api.PeerNode, node, owner string) []api.PeerNode {
	if owner == "" || len(all) == 0 {
		return all
	}
	first := api.PeerNode{
		Node: node, Owner: owner, OwnerStatus: gossip.StatusUnknown, State: power.Unknown, Reach: power.ReachNever,
		AgeMS: -1, RecordMS: -1,
	}
	if i := slices.IndexFunc(all, func(p api.PeerNode) bool { return p.Owner == owner }); i >= 0 {
		first = all[i]
		all = slices.Delete(all, i, i+1)
	}
	return slices.Insert(all, 0, first)
}

// saysWho is the sum of the answers, for people.
func saysWho(w api.Who) string {
	owner := "no agent is known to have node " + w.Node
	if len(w.Owners) > 0 {
		o := w.Owners[0]
		owner = fmt.Sprintf("%s is agent %s's (%s)", w.Node, o.Owner, o.OwnerStatus)
		for _, other := range w.Owners[1:] {
			owner += fmt.Sprintf(", and agent %s (%s) says it has it too", other.Owner, other.OwnerStatus)
		}
	}
	var can []string
	for _, r := range w.Reach {
		can = append(can, r.Agent)
	}
	switch {
	case len(can) > 0:
		return fmt.Sprintf("%s; its BMC can be reached by %s", owner, noderange.Fold(can))
	case w.Tried == "" && len(w.Owners) > 0:
		return fmt.Sprintf("%s; none of the %d members that answered said that it reaches its BMC, and those that do not have the node do not "+
			"know its address: ask central, or agent %s",
			owner, w.Answered, w.Owners[0].Owner)
	case w.Tried == "":
		return owner + "; no agent that answered has it, and its BMC's address is not known here: ask central or its owner"
	default:
		return fmt.Sprintf("%s; none of the %d members that answered can reach its BMC at %s", owner, w.Answered, w.Tried)
	}
}

// Keys lists the gossip keys of all members.
func (g Cluster) Keys(ctx context.Context) (api.GossipKeys, error) {
	report, err := g.Cluster.Keys(ctx)
	out := api.GossipKeys{Keys: []api.GossipKey{}, Members: report.Members, Answered: report.Answered, Problems: report.Problems}
	for _, k := range report.Keys {
		out.Keys = append(out.Keys, api.GossipKey{ID: k.ID, Members: k.Members, Primary: k.Primary})
	}
	return out, err
}

// ChangeKeys installs, uses or removes a key on all members.
func (g Cluster) ChangeKeys(ctx context.Context, in api.ChangeKeys) error {
	key, err := g.key(ctx, in)
	if err != nil {
		return err
	}
	switch in.Action {
	case api.KeyInstall:
		return g.InstallKey(ctx, key)
	case api.KeyUse:
		return g.UseKey(ctx, key)
	default:
		return g.RemoveKey(ctx, key)
	}
}

// key finds the key that is meant: given whole, or by its id when a member has it.
func (g Cluster) key(ctx context.Context, in api.ChangeKeys) (gossip.Key, error) {
	if in.Key != "" {
		return gossip.ParseKey(in.Key)
	}
	if in.ID == "" {
		return nil, errors.New("no key is named: give its id, or the key itself")
	}
	report, err := g.Cluster.Keys(ctx)
	for _, k := range report.Keys {
		if strings.EqualFold(k.ID, in.ID) {
			return k.Key, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("no member has a key with the id %s", in.ID)
}

// Ring lists the keys of this member in base64, the one in use first.
func (g Cluster) Ring() []string {
	var texts []string
	for _, k := range g.Cluster.Ring() {
		texts = append(texts, k.Reveal())
	}
	return texts
}
