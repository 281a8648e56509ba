package api

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"rackpower/power"
)

// Cluster is what central and an agent need of the gossip cluster that they are
// members of. All methods may be called by many goroutines.
type Cluster interface {
	// Members lists the cluster, this member among it.
	Members() []Member
	// Peers is the power of the whole fleet as known from gossip.
	Peers() []PeerNode
	// Addr is the address that others may join, "host:port".
	Addr() string
	// Join asks to join at the addresses, in the background.
	Join(addrs ...string) error
	// Ping asks a member for a sign of life.
	Ping(ctx context.Context, name string) (time.Duration, error)
	// Who says who owns a node and who can reach its BMC. bmc is its address
	// ("host:port") where it is known, so that agents that do not have the node can try.
	// owner is the agent that the node is assigned to, "" where that is not known: it
	// comes first among the owners.
	Who(ctx context.Context, node, bmc, owner string) (Who, error)
	// Keys lists the gossip keys of all members.
	Keys(ctx context.Context) (GossipKeys, error)
	// ChangeKeys installs, uses or removes a key on all members.
	ChangeKeys(ctx context.Context, in ChangeKeys) error
	// Ring lists the keys of this member in base64, the one in use first.
	Ring() []string
}

// PeerNode is a node's power as gossip knows it.
type PeerNode struct {
	Node        string `json:"node"`
	Owner       string `json:"owner"`
	OwnerStatus string `json:"owner_status"`
	// OwnerSinceMS is for how long the owner has had its status, as far as known.
	OwnerSinceMS int64        `json:"owner_since_ms"`
	State        power.State  `json:"state"`
	Reach        power.Reach  `json:"reach"`
	AgeMS        int64        `json:"age_ms"` // since the state was read; -1: never
	RecordMS     int64        `json:"record_age_ms"`
	Op           power.Action `json:"op,omitempty"`
	// AlsoClaimedBy are the other members that tell of the node as theirs.
	AlsoClaimedBy []string `json:"also_claimed_by,omitempty"`
}

// Ping is the body of POST /v1/gossip/ping; Pong its answer.
type Ping struct {
	Name string `json:"name"`
}

// Pong is a member's sign of life.
type Pong struct {
	Name  string  `json:"name"`
	RTTMS float64 `json:"rtt_ms"` // by gossip, which takes some rounds
}

// Who says who owns a node and who can reach its BMC: the answer of
// GET /v1/gossip/who?node=N.
type Who struct {
	Node   string     `json:"node"`
	Owners []PeerNode `json:"owners"` // best first; more than one after a move
	// Reach lists the agents that say that they can reach the BMC.
	Reach []WhoReach `json:"reach"`
	// Tried is the BMC's address that agents without the node were asked to try; empty:
	// it is not known here, so only the owner could tell.
	Tried    string `json:"tried,omitempty"`
	Asked    int    `json:"asked"`
	Answered int    `json:"answered"`
	Message  string `json:"message"` // the sum of it, for people
}

// WhoReach is an agent that can reach a BMC.
type WhoReach struct {
	Agent string `json:"agent"`
	How   string `json:"how"`
}

// GossipKeys is the answer of GET /v1/gossip/keys.
type GossipKeys struct {
	Keys     []GossipKey       `json:"keys"`
	Members  int               `json:"members"`
	Answered int               `json:"answered"`
	Problems map[string]string `json:"problems,omitempty"`
}

// GossipKey says how many members have a key. The key itself is not shown.
type GossipKey struct {
	ID      string `json:"id"` // first digits of its SHA-256
	Members int    `json:"members"`
	Primary int    `json:"primary"` // members that send with it
}

// What ChangeKeys does with a key.
const (
	KeyInstall = "install" // members accept it beside those that they have
	KeyUse     = "use"     // members send with it
	KeyRemove  = "remove"  // members forget it
)

// ChangeKeys is the body of POST /v1/gossip/keys. Use and remove take the key or
// its id.
type ChangeKeys struct {
	Action string `json:"action"`
	Key    string `json:"key,omitempty"` // base64
	ID     string `json:"id,omitempty"`
}

// Enrolled is the answer of POST /v1/agents/{name}/enrol: what an agent needs to
// gossip beyond its machine.
type Enrolled struct {
	Database // whose word this is
	// Keys are the cluster's keys in base64, the one in use first; empty: gossip is
	// not encrypted.
	Keys []string `json:"keys"`
	Join string   `json:"join,omitempty"` // central's own gossip address
}

// Peers is the power of the whole fleet as gossip knows it.
func (c *Client) Peers(ctx context.Context) ([]PeerNode, error) {
	return list[PeerNode](ctx, c, "/v1/peers")
}

// Ping asks a member of the gossip cluster for a sign of life.
func (c *Client) Ping(ctx context.Context, name string) (Pong, error) {
	return waiting[Pong](ctx, c, gossipWait, http.MethodPost, "/v1/gossip/ping", Ping{Name: name})
}

// Who says who owns a node and who can reach its BMC.
func (c *Client) Who(ctx context.Context, node string) (Who, error) {
	return waiting[Who](ctx, c, gossipWait, http.MethodGet, "/v1/gossip/who?node="+url.QueryEscape(node), nil)
}

// GossipKeys lists the gossip keys of all members.
func (c *Client) GossipKeys(ctx context.Context) (GossipKeys, error) {
	return waiting[GossipKeys](ctx, c, gossipWait, http.MethodGet, "/v1/gossip/keys", nil)
}

// ChangeKeys changes the gossip keys of all members.
func (c *Client) ChangeKeys(ctx context.Context, in ChangeKeys) (GossipKeys, error) {
	return waiting[GossipKeys](ctx, c, gossipWait, http.MethodPost, "/v1/gossip/keys", in)
}

// Enrol asks central for what an agent needs to gossip.
func (c *Client) Enrol(ctx context.Context, agent string) (Enrolled, error) {
	return call[Enrolled](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/enrol", struct{}{})
}

// GossipAddr reads an address at which a peer says that it gossips: an IP and a port.
// Names are not looked up for a peer.
func GossipAddr(addr string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return at, errors.New("it is no IP address of a host, with a port")
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

// noCluster is the answer of a process that gossips with nobody.
func noCluster(c Cluster) error {
	if c != nil {
		return nil
	}
	return Problemf(CodeUnavailable, "this process runs without gossip (--gossip)")
}

// AnswerMembers serves GET /v1/members. c may be nil: no gossip.
func AnswerMembers(c Cluster) ([]Member, error) {
	if err := noCluster(c); err != nil {
		return nil, err
	}
	return c.Members(), nil
}

// AnswerPeers serves GET /v1/peers. owner says to which agent a node is assigned, ""
// where that is not known.
func AnswerPeers(c Cluster, owner func(node string) string) ([]PeerNode, error) {
	if err := noCluster(c); err != nil {
		return nil, err
	}
	return OnePerNode(c.Peers(), owner), nil
}

// OnePerNode leaves one row for each node, and names the other members that tell of it.
// Where the owner is known its word alone counts: without it nothing is known of the node.
// Else an agent that is alive comes before one that is gone, then the record that came
// last, then the name.
func OnePerNode(rows []PeerNode, owner func(node string) string) []PeerNode {
	of := map[string][]PeerNode{}
	status := map[string]PeerNode{}
	for _, p := range rows {
		of[p.Node] = append(of[p.Node], p)
		status[p.Owner] = PeerNode{OwnerStatus: p.OwnerStatus, OwnerSinceMS: p.OwnerSinceMS}
	}
	one := make([]PeerNode, 0, len(of))
	for _, node := range slices.Sorted(maps.Keys(of)) {
		all, known := of[node], owner(node)
		slices.SortStableFunc(all, func(a, b PeerNode) int { return comparePeers(a, b, known) })
		p := all[0]
		if known != "" && p.Owner != known {
			p = PeerNode{
				Node: node, Owner: known, OwnerStatus: cmp.Or(status[known].OwnerStatus, memberUnknown), OwnerSinceMS: status[known].OwnerSinceMS,
				State: power.Unknown, Reach: power.ReachNever, AgeMS: -1, RecordMS: -1,
			}
		}
		for _, other := range all {
			if other.Owner != p.Owner {
				p.AlsoClaimedBy = append(p.AlsoClaimedBy, other.Owner)
			}
		}
		one = append(one, p)
	}
	return one
}

// Statuses of members that count here.
const (
	memberAlive   = "alive"
	memberUnknown = "unknown"
)

// comparePeers orders those who tell of one node, the best first.
func comparePeers(a, b PeerNode, owner string) int {
	last := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(last(a.Owner == owner), last(b.Owner == owner)),
		cmp.Compare(last(a.OwnerStatus == memberAlive), last(b.OwnerStatus == memberAlive)),
		cmp.Compare(a.RecordMS, b.RecordMS), cmp.Compare(a.Owner, b.Owner),
	)
}

// AnswerPing serves POST /v1/gossip/ping.
func AnswerPing(ctx context.Context, c Cluster, in Ping) (Pong, error) {
	if err := noCluster(c); err != nil {
		return Pong{}, err
	}
	took, err := c.Ping(ctx, in.Name)
	if err != nil {
		return Pong{}, Problemf(CodeRefused, "%v", err)
	}
	return Pong{Name: in.Name, RTTMS: float64(took.Microseconds()) / 1000}, nil
}

// AnswerWho serves GET /v1/gossip/who. bmc is the address of the node's BMC, where
// the one who answers knows it, owner as of Cluster.Who.
func AnswerWho(ctx context.Context, c Cluster, node, bmc, owner string) (Who, error) {
	if err := noCluster(c); err != nil {
		return Who{}, err
	}
	if node == "" {
		return Who{}, Problemf(CodeBadRequest, "no node is named")
	}
	w, err := c.Who(ctx, node, bmc, owner)
	if err != nil {
		return w, Problemf(CodeUnavailable, "%v", err)
	}
	return w, nil
}

// AnswerKeys serves GET /v1/gossip/keys.
func AnswerKeys(ctx context.Context, c Cluster) (GossipKeys, error) {
	if err := noCluster(c); err != nil {
		return GossipKeys{}, err
	}
	keys, err := c.Keys(ctx)
	if err != nil && len(keys.Keys) == 0 {
		return keys, Problemf(CodeRefused, "%v", err)
	}
	return keys, nil
}

// AnswerChangeKeys serves POST /v1/gossip/keys.
func AnswerChangeKeys(ctx context.Context, c Cluster, in ChangeKeys) (GossipKeys, error) {
	if err := noCluster(c); err != nil {
		return GossipKeys{}, err
	}
	if err := c.ChangeKeys(ctx, in); err != nil {
		return GossipKeys{}, Problemf(CodeRefused, "%v", err)
	}
	keys, err := AnswerKeys(ctx, c)
	if err != nil {
		keys.Keys = []GossipKey{} // the change is made, even if nobody can list the keys
	}
	return keys, nil
}
