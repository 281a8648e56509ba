package gossip

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/serf/serf"

	"rackpower/power"
)

// Statuses of members.
const (
	StatusAlive   = "alive"
	StatusLeaving = "leaving"
	StatusLeft    = "left"    // ended on purpose
	StatusFailed  = "failed"  // stopped answering
	StatusUnknown = "unknown" // no member of that name is known
)

// Member is a member of the cluster as this one sees it.
type Member struct {
	Name   string
	Addr   string // IP; empty: not known
	Port   int
	Status string
	// StatusAge is since when this member has seen the status; 0 when it has just
	// come or is not known.
	StatusAge time.Duration
	Tags      map[string]string // role, rack, version; rp: the version of exchanges
}

// NodePower is what an agent says of one of its nodes.
type NodePower struct {
	Name  string
	State power.State
	Reach power.Reach
	// Age is the time since State was last truly read, told in whole seconds;
	// negative: never read.
	Age time.Duration
	Op  power.Action // under way; empty: none
}

// Peer is the newest record of an agent.
type Peer struct {
	Name   string
	Epoch  uint64 // run of the agent
	Seq    uint64 // of the record within the run
	Status string // of the agent as a member
	// StatusAge is since when it is that, as far as known: "failed 40 s ago".
	StatusAge time.Duration
	// Age is the time since the agent sent the newest part of the record.
	Age time.Duration
	// Nodes is sorted by name. The ages are those of the record plus Age.
	Nodes []NodePower
	// Unnamed counts nodes that are left out because their names, or their part of
	// the record, did not come yet.
	Unnamed int
}

func memberOf(m serf.Member) Member {
	status := StatusUnknown
	switch m.Status {
	case serf.StatusAlive:
		status = StatusAlive
	case serf.StatusLeaving:
		status = StatusLeaving
	case serf.StatusLeft:
		status = StatusLeft
	case serf.StatusFailed:
		status = StatusFailed
	}
	return Member{Name: m.Name, Addr: m.Addr.String(), Port: int(m.Port), Status: status, Tags: m.Tags}
}

func (m Member) hostPort() string { return net.JoinHostPort(m.Addr, strconv.Itoa(m.Port)) }

func sortMembers(all []Member) {
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
}
