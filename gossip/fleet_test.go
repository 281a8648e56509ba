package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"rackpower/power"
)

// wire is the network between the members of a test: it loses packets, parts the
// cluster and counts bytes.
type wire struct {
	loss atomic.Uint64 // of 1,000 packets
	mu   sync.Mutex
	side map[string]int // address: half of a parted cluster; nil: whole
	out  atomic.Uint64  // bytes sent by all
}

func (w *wire) cut(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.side != nil && w.side[from] != w.side[to]
}

func (w *wire) part(side map[string]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.side = side
}

func (w *wire) lost() bool { return rand.Uint64N(1000) < w.loss.Load() }

// tap is the end of a wire at one member.
type tap struct {
	memberlist.NodeAwareTransport
	w    *wire
	addr string
}

func (t *tap) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if t.w.lost() || t.w.cut(t.addr, to.Addr) {
		return time.Now(), nil
	}
	t.w.out.Add(uint64(len(b)) + 28)
	return t.NodeAwareTransport.WriteToAddress(b, to)
}

func (t *tap) WriteTo(b []byte, to string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: to})
}

func (t *tap) DialTimeout(to string, d time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: to}, d)
}

// DialAddressTimeout fails at a cut. A lost packet of a stream costs time: a second
// for the first one, 200 ms for others.
func (t *tap) DialAddressTimeout(to memberlist.Address, d time.Duration) (net.Conn, error) {
	if t.w.cut(t.addr, to.Addr) {
		return nil, fmt.Errorf("no way from %s to %s", t.addr, to.Addr)
	}
	if t.w.lost() {
		time.Sleep(min(time.Second, d))
	}
	conn, err := t.NodeAwareTransport.DialAddressTimeout(to, d)
	if err != nil {
		return nil, err
	}
	return &tapped{Conn: conn, t: t}, nil
}

// tapped counts both ways at the caller, with the headers of TCP.
type tapped struct {
	net.Conn
	t *tap
}

func (c *tapped) Write(b []byte) (int, error) {
	if c.t.w.lost() {
		time.Sleep(200 * time.Millisecond)
	}
	c.t.w.out.Add(uint64(len(b)) + 40)
	return c.Conn.Write(b)
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.t.w.out.Add(uint64(n) + 40)
	return n, err
}

// fleet is many agents on one wire. Their settings are those of production, but
// for what a test changes.
type fleet struct {
	t      testing.TB
	wire   *wire
	agents []*Cluster
	seeds  []string // addresses of the first three
	nodes  int
	with   func(*Config)
}

var fleetKey = Key(bytes.Repeat([]byte{7}, 32))

// newFleet starts n agents of some nodes each at once; each is told of the first
// three.
func newFleet(t testing.TB, n, nodes int, with func(*Config)) *fleet {
	f := &fleet{t: t, wire: &wire{}, agents: make([]*Cluster, n), nodes: nodes, with: with}
	for i := range min(3, n) {
		f.start(i, 1, nil)
		if f.agents[i] != nil {
			f.seeds = append(f.seeds, f.agents[i].Addr())
		}
	}
	var parts sync.WaitGroup
	for i := min(3, n); i < n; i++ {
		parts.Go(func() { f.start(i, 1, nil) })
	}
	parts.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		var parts sync.WaitGroup
		for _, c := range f.agents {
			parts.Go(func() { crash(c) })
		}
		parts.Wait()
	})
	return f
}

func agentName(i int) string { return fmt.Sprintf("rack%03d", i) }

// start makes agent i, at the address it had if old is not nil.
func (f *fleet) start(i int, epoch uint64, old *Cluster) {
	cfg := Config{
		Name: agentName(i), Rack: agentName(i), Version: "1", Bind: "127.0.0.1:0", Epoch: epoch, Key: fleetKey,
		Logger: slog.New(slog.DiscardHandler),
	}
	cfg.Join = f.seeds
	if old != nil {
		cfg.Bind = old.Addr()
	}
	if f.with != nil {
		f.with(&cfg)
	}
	cfg.tuning.wrap = func(inner memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
		port := inner.(*memberlist.NetTransport).GetAutoBindPort()
		return &tap{NodeAwareTransport: inner, w: f.wire, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	}
	c, err := New(cfg)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.agents[i] = c
	c.SetNodes(rack(agentName(i), f.nodes, power.On))
}

// flip publishes a rack all in one state.
func (f *fleet) flip(i int, state power.State) {
	f.agents[i].SetNodes(rack(agentName(i), f.nodes, state))
}

// knows reports whether c would show the agent's nodes, the first in the state.
func knows(c *Cluster, agent string, state power.State) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.table.agents[agent]
	if e == nil || e.newest == nil || e.named(e.newest) == nil || len(e.newest.parts) != partsOf(e.newest.total) {
		return false
	}
	n, _ := e.newest.parts[0].cells[0].open()
	return n.State == state
}

// missing counts the pairs (one, agent) of which one does not know that the agent's
// nodes are in the state.
func (f *fleet) missing(state power.State) (n int) {
	for _, c := range f.agents {
		for i := range f.agents {
			if !knows(c, agentName(i), state) {
				n++
			}
		}
	}
	return n
}

// spread waits until all know that the agents' nodes are in the state, for at most
// the time, and returns when which part of the pairs did.
func (f *fleet) spread(agents []int, state power.State, within time.Duration) spread {
	began := time.Now()
	type pair struct{ one, of int }
	var open []pair
	for one := range f.agents {
		for _, of := range agents {
			open = append(open, pair{one, of})
		}
	}
	s := spread{pairs: len(open)}
	for len(open) > 0 && time.Since(began) < within {
		open = slices.DeleteFunc(open, func(p pair) bool {
			if !knows(f.agents[p.one], agentName(p.of), state) {
				return false
			}
			s.times = append(s.times, time.Since(began))
			return true
		})
		time.Sleep(5 * time.Millisecond)
	}
	return s
}

// spread is when pairs were informed, in order.
type spread struct {
	pairs int
	times []time.Duration
}

func (s spread) missing() int { return s.pairs - len(s.times) }

// at returns when the percentage of all pairs was reached; an hour stands for never.
func (s spread) at(percent int) time.Duration {
	i := (s.pairs*percent+99)/100 - 1
	if i >= len(s.times) {
		return time.Hour
	}
	return s.times[i]
}

// whole reports whether all see all members alive.
func (f *fleet) whole() bool {
	for _, c := range f.agents {
		if c.serf.NumNodes() < len(f.agents) || alive(c) != len(f.agents) {
			return false
		}
	}
	return true
}

// equal reports whether the views of all are equal, but for ages.
func (f *fleet) equal() bool {
	sum := sumOf(f.agents[0].briefs())
	for _, c := range f.agents[1:] {
		if sumOf(c.briefs()) != sum {
			return false
		}
	}
	return true
}

// await waits until the condition holds and returns how long that took.
func await(t testing.TB, within time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > within {
			t.Errorf("in vain for %v: %s", within, what)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// restart ends agents without a word and starts them again, all at once.
func (f *fleet) restart(which []int, epoch uint64) {
	var parts sync.WaitGroup
	for _, i := range which {
		parts.Go(func() {
			old := f.agents[i]
			crash(old)
			f.start(i, epoch, old)
		})
	}
	parts.Wait()
}

// halves parts the fleet in two.
func (f *fleet) halves() {
	side := map[string]int{}
	for i, c := range f.agents {
		side[c.Addr()] = i % 2
	}
	f.wire.part(side)
}

func (f *fleet) all() []int {
	all := make([]int, len(f.agents))
	for i := range all {
		all[i] = i
	}
	return all
}
