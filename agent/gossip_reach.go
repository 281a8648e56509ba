package agent

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/power"
)

// reachWithin bounds the look at a BMC that another member asks for.
const reachWithin = time.Second

// gossiper is the agent's part in the gossip cluster, if it is a member of one.
type gossiper struct {
	cluster atomic.Pointer[Gossip] // see Agent.SetGossip
	dirty   chan struct{}          // a token: something changed that gossip tells
}

// member is the cluster, nil while there is none.
func (g *gossiper) member() Gossip {
	if c := g.cluster.Load(); c != nil {
		return *c
	}
	return nil
}

// asked is member for those who only ask: nil stays nil.
func (g *gossiper) asked() api.Cluster {
	if c := g.member(); c != nil {
		return c
	}
	return nil
}

// addr is where others join this agent's gossip, "" while there is none.
func (g *gossiper) addr() string {
	if c := g.member(); c != nil {
		return c.Addr()
	}
	return ""
}

// changed tells gossip, soon, that something moved.
func (g *gossiper) changed() { poke(g.dirty) }

// run publishes the rack's power whenever it changed, at most a few times a second, until
// ctx ends.
func (g *gossiper) run(ctx context.Context, nodes func() []NodeView) {
	for {
		if c := g.member(); c != nil {
			c.SetNodes(nodes())
		}
		if backoff.Sleep(ctx, 250*time.Millisecond) != nil {
			return
		}
		select {
		case <-g.dirty:
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// CanReach answers another member's question whether this agent can reach the BMC of
// a node: "NODE", or "NODE ADDRESS" where the asker knows it: HOST:PORT of IPMI, or a URL. Of its own
// nodes, and of nodes behind the BMC of one, it says what the last reading was; any
// other BMC it asks for a sign of life, which needs no password. It takes a second at
// most.
func (a *Agent) CanReach(question string) (how string, ok bool) {
	node, addr, _ := strings.Cut(question, " ")
	if _, mine := a.assigned.get(node); mine {
		return a.readings.lastRead(node)
	}
	if !strings.Contains(addr, "://") {
		addr = power.SchemeIPMI + "://" + addr
	}
	ep, err := power.ParseEndpoint(addr)
	if err != nil || a.cfg.Probe == nil {
		return "", false
	}
	if mine := a.addresses.nodeAt(ep); mine != "" { // there is no second way to a BMC
		return a.readings.lastRead(mine)
	}
	ctx, cancel := context.WithTimeout(a.ctx, reachWithin)
	defer cancel()
	began := time.Now()
	if a.cfg.Probe(ctx, ep) != nil {
		return "", false
	}
	return "it answered a probe in " + time.Since(began).Round(100*time.Microsecond).String(), true
}

// lastRead says what the last reading of a node was.
func (r *readings) lastRead(node string) (how string, ok bool) {
	last := r.get(node)
	return "read " + power.Ago(time.Since(last.ObservedAt)) + " ago", last.Reach == power.ReachOK
}
