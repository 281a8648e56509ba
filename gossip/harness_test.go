package gossip

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"rackpower/power"
)

// quick makes a cluster of tests settle within a second or two.
func quick() tuning {
	return tuning{
		probe: 100 * time.Millisecond, pushPull: 2 * time.Second, reconnect: 300 * time.Millisecond,
		leave: 300 * time.Millisecond, retry: 50 * time.Millisecond,
	}
}

// start makes a member on loopback. What with changes in its Config comes last.
func start(t *testing.T, name string, with ...func(*Config)) *Cluster {
	t.Helper()
	cfg := Config{
		Name: name, Role: RoleAgent, Rack: name, Version: "1.2.3", Bind: "127.0.0.1:0", Epoch: 1,
		Logger: slog.New(slog.DiscardHandler), tuning: quick(),
	}
	for _, change := range with {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { crash(c) }) // faster than Close, which has its own test
	return c
}

// joining lists the others' addresses in Config.Join.
func joining(others ...*Cluster) func(*Config) {
	return func(c *Config) {
		for _, o := range others {
			c.Join = append(c.Join, o.Addr())
		}
	}
}

func epoch(n uint64) func(*Config) { return func(c *Config) { c.Epoch = n } }

// team starts n members that join the first.
func team(t *testing.T, n int, with ...func(*Config)) []*Cluster {
	t.Helper()
	all := []*Cluster{start(t, "r0", with...)}
	for i := 1; i < n; i++ {
		all = append(all, start(t, fmt.Sprintf("r%d", i), append([]func(*Config){joining(all[0])}, with...)...))
	}
	for _, c := range all {
		eventually(t, c.cfg.Name+" sees all members", func() bool { return alive(c) == n })
	}
	return all
}

func alive(c *Cluster) int {
	n := 0
	for _, m := range c.Members() {
		if m.Status == StatusAlive {
			n++
		}
	}
	return n
}

// eventually waits until the condition holds, and fails when it does not come to.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// rack makes n nodes of an agent, all in one state and just read.
func rack(agent string, n int, state power.State) []NodePower {
	nodes := make([]NodePower, n)
	for i := range nodes {
		nodes[i] = NodePower{Name: fmt.Sprintf("%sn%03d", agent, i+1), State: state, Reach: power.ReachOK}
	}
	return nodes
}

// peer returns what c knows of an agent.
func peer(c *Cluster, agent string) Peer {
	for _, p := range c.Peers() {
		if p.Name == agent {
			return p
		}
	}
	return Peer{}
}

// sees reports whether c shows all n nodes of the agent in the state.
func sees(c *Cluster, agent string, n int, state power.State) bool {
	p := peer(c, agent)
	if len(p.Nodes) != n || p.Unnamed != 0 {
		return false
	}
	for _, node := range p.Nodes {
		if node.State != state {
			return false
		}
	}
	return true
}
