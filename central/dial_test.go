package central

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/central/httpserver"
)

// TestWhereCentralDials: whatever an agent names, central gossips only with addresses of
// the host that the connection comes from, and with those that gossip has as the agent's.
func TestWhereCentralDials(t *testing.T) {
	s, _ := gossiping(t) // r1 is a member at 192.0.2.7:7946
	s.c.interfaceAddrs = func() ([]net.Addr, error) {
		return []net.Addr{
			&net.IPNet{IP: net.IPv4(10, 1, 1, 1), Mask: net.CIDRMask(24, 32)},
			&net.IPNet{IP: net.ParseIP("fd00::1"), Mask: net.CIDRMask(64, 128)},
		}, nil
	}
	const unix = ""
	for _, c := range []struct {
		from, addr string
		ok         bool
	}{
		{unix, "", true},
		{unix, "127.0.0.1:7946", true},
		{unix, "127.9.9.9:7946", true},
		{unix, "[::1]:7946", true},
		{unix, "[::ffff:127.0.0.1]:7946", true},
		{unix, "10.1.1.1:7946", true},
		{unix, "[fd00::1]:7946", true},
		{unix, "10.1.1.2:7946", false}, // behind a tunnel
		{unix, "[fd00::2]:7946", false},
		{unix, "192.0.2.7:7946", true}, // a member, and this agent
		{unix, "192.0.2.7:22", false},
		{unix, "localhost:7946", false},
		{unix, "evil.example:7946", false},
		{unix, "169.254.169.254:80", false},
		{unix, "0.0.0.0:7946", false},
		{unix, "[::]:7946", false},
		{unix, "224.0.0.1:7946", false},
		{unix, "10.1.1.1:0", false},
		{unix, "10.1.1.1", false},
		{unix, "10.1.1.1:7946 ", false},
		{unix, "010.1.1.1:7946", false},
		{"127.0.0.1:40000", "10.1.1.1:7946", true},
		{"127.0.0.1:40000", "10.9.9.9:7946", false},
		{"10.1.1.5:40000", "10.1.1.5:7946", true},
		{"10.1.1.5:40000", "10.1.1.5:22", true}, // its own host is its own business
		{"[::ffff:10.1.1.5]:40000", "10.1.1.5:7946", true},
		{"10.1.1.5:40000", "10.1.1.6:7946", false},
		{"10.1.1.5:40000", "127.0.0.1:7946", false},
		{"10.1.1.5:40000", "10.1.1.1:7946", false}, // central's own, from elsewhere
		{"10.1.1.5:40000", "192.0.2.7:7946", true},
		{"[fd00::5]:40000", "[fd00::5]:7946", true},
		{"[fe80::5%eth0]:40000", "[fe80::5%eth1]:7946", false},
		{"somewhere", "10.1.1.1:7946", false},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		if r.RemoteAddr = c.from; c.from == unix {
			r = r.WithContext(httpserver.WithPeer(t.Context(), new(net.UnixConn)))
		}
		if err := s.c.mayDial(r, "r1", c.addr); (err == nil) != c.ok {
			t.Errorf("from %q to %q: %v", c.from, c.addr, err)
		}
	}
	r, _ := http.NewRequestWithContext(httpserver.WithPeer(t.Context(), new(net.UnixConn)), http.MethodPost, "/", nil)
	if s.c.mayDial(r, "r2", "192.0.2.7:7946") == nil {
		t.Error("r2 named the address of r1")
	}
}

// TestAHelloMakesCentralDialNowhere: an address that is not the agent's is not joined, now
// or after a restart; agent and audit log are told why, once.
func TestAHelloMakesCentralDialNowhere(t *testing.T) {
	s, _ := gossiping(t)
	s.nodes("a")
	r := &rack{s: s, name: "r9", run: "run-r9", journal: "journal-r9", epoch: 1, lsn: 10, gossip: "198.51.100.7:22"}
	for range 3 {
		r.mustHello()
		if !strings.Contains(r.w.GossipRefused, "198.51.100.7:22") {
			t.Fatalf("%+v", r.w)
		}
	}
	s.restart()
	g := new(keyedGossip)
	if err := s.c.UseGossip(g); err != nil || len(g.seeded) > 0 {
		t.Fatalf("%v, joined %v", err, g.seeded)
	}
	if lines := s.entries("", auditDisowned); len(lines) != 1 || !strings.Contains(lines[0], "198.51.100.7:22") {
		t.Errorf("%q", lines)
	}
	if a := s.agent("r9"); a.Address != "" {
		t.Errorf("%+v", a)
	}
	r.gossip = "127.0.0.1:7946"
	r.mustHello()
	if r.w.GossipRefused != "" || !slices.Equal(g.seeded, []string{r.gossip}) {
		t.Errorf("joined %v, %+v", g.seeded, r.w)
	}
}

// toldGossip is a cluster whose members tell of nodes.
type toldGossip struct {
	fakeGossip
	rows []api.PeerNode
}

func (g *toldGossip) Peers() []api.PeerNode { return g.rows }

// TestPeersAreOfTheirOwnAgents: a member that tells of another rack's node does not show
// it, and is named.
func TestPeersAreOfTheirOwnAgents(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	g := &toldGossip{rows: []api.PeerNode{
		{Node: "a", Owner: "r1", OwnerStatus: "failed", State: "on", RecordMS: 60_000},
		{Node: "a", Owner: "r2", OwnerStatus: "alive", State: "off"},
		{Node: "b", Owner: "r2", OwnerStatus: "alive", State: "off"},
		{Node: "c", Owner: "r2", OwnerStatus: "alive", State: "off"},
	}}
	if err := s.c.UseGossip(g); err != nil {
		t.Fatal(err)
	}
	got, err := s.Peers(t.Context())
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, want := range []struct{ node, owner, state, told string }{
		{"a", "r1", "on", "r2"},
		{"b", "r1", "unknown", "r2"},
		{"c", "r2", "off", ""},
	} {
		p := got[i]
		if p.Node != want.node || p.Owner != want.owner || string(p.State) != want.state || strings.Join(p.AlsoClaimedBy, ",") != want.told {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
}
