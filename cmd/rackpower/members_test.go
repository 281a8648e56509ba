package main

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
)

// talk is a member of a cluster, of which the fields are what it says.
type talk struct {
	*fake
	mu      sync.Mutex
	members []api.Member
	peers   []api.PeerNode
	who     api.Who
	keys    api.GossipKeys
	problem *api.Problem
	asked   []api.ChangeKeys
	looks   int
	looked  func(look int) // may change the fields
}

func newTalk(t *testing.T) *talk {
	m := &talk{fake: newFake(t)}
	mux := http.NewServeMux()
	answer := func(pattern string, what func(*http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.looks++; m.looked != nil {
				m.looked(m.looks)
			}
			v := what(r)
			if m.problem != nil {
				m.problem.Write(w)
				return
			}
			reply(w, v)
		})
	}
	answer("GET /v1/members", func(*http.Request) any { return m.members })
	answer("GET /v1/peers", func(*http.Request) any { return m.peers })
	answer("GET /v1/gossip/who", func(r *http.Request) any { w := m.who; w.Node = r.URL.Query().Get("node"); return w })
	answer("GET /v1/gossip/keys", func(*http.Request) any { return m.keys })
	answer("POST /v1/gossip/ping", func(r *http.Request) any {
		var in api.Ping
		_ = json.NewDecoder(r.Body).Decode(&in)
		return api.Pong{Name: in.Name, RTTMS: 12.345}
	})
	answer("POST /v1/gossip/keys", func(r *http.Request) any {
		var in api.ChangeKeys
		_ = json.NewDecoder(r.Body).Decode(&in)
		m.asked = append(m.asked, in)
		return m.keys
	})
	m.url = serveUnix(t, mux)
	return m
}

func three() []api.Member {
	agent := func(name, rack string) map[string]string {
		return map[string]string{"role": "agent", "rack": rack, "version": "v1"}
	}
	return []api.Member{
		{
			Name: "central", Addr: "10.0.0.1", Port: 7946, Status: "alive", SinceMS: 5000,
			Tags: map[string]string{"role": "central", "version": "v1"},
		},
		{Name: "r10", Addr: "10.0.0.20", Port: 7946, Status: "failed", SinceMS: 40_000, Tags: agent("r10", "r10")},
		{Name: "r2", Addr: "10.0.0.12", Port: 7946, Status: "alive", SinceMS: 5000, Tags: agent("r2", "r2")},
		{Name: "r3", Status: "left", SinceMS: 7_200_000, Tags: map[string]string{"role": "agent"}},
	}
}

func TestMembers(t *testing.T) {
	m := newTalk(t)
	m.members = three()
	want := `MEMBER   ADDRESS    PORT  STATUS            TAGS
central  10.0.0.1   7946  alive             role=central version=v1
r2       10.0.0.12  7946  alive             rack=r2 role=agent version=v1
r3       -          -     left 2 h ago      role=agent
r10      10.0.0.20  7946  failed 40 s ago   rack=r10 role=agent version=v1
`
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if got := m.run("members"); squeeze(got.out) != squeeze(want) || got.exit != 0 {
		t.Errorf("%d\n%s%s", got.exit, got.out, got.errs)
	}
	for args, want := range map[string]string{
		"--status failed":                "r10\n",
		"--status alive --role agent":    "r2\n",
		"--rack r2":                      "r2\n",
		"--tag version=v1 --tag rack=r2": "r2\n",
		"--role central":                 "central\n",
		"--role tourist":                 "",
	} {
		if got := m.run("members -o name " + args); got.exit != 0 || got.out != want {
			t.Errorf("%s: %d %q %s", args, got.exit, got.out, got.errs)
		}
	}
	expect(t, "status", m.run("members --status dead"), settings.ExitUsage, "", `unknown "dead": want alive, leaving, left, failed`)
	expect(t, "tag", m.run("members --tag rack"), settings.ExitUsage, "", "not KEY=VALUE")
	expect(t, "none", m.run("members --role tourist -o json"), 0, "[]\n", "")
	expect(t, "none", m.run("members --role tourist"), 0, "", "no member matches")
	m.problem = api.Problemf(api.CodeUnavailable, "this process runs without gossip (--gossip)")
	expect(t, "without gossip", m.run("members"), settings.ExitUnreachable, "", "runs without gossip")
}

// TestMembersWatch shows what changes, over a time in which nobody answers.
func TestMembersWatch(t *testing.T) {
	m := newTalk(t)
	m.members = three()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.looked = func(look int) {
		switch look {
		case 2:
			m.members[2].Status = "failed"
		case 3:
			m.problem = api.Problemf(api.CodeUnavailable, "stopping")
		case 4:
			m.problem, m.members = nil, append(m.members, api.Member{Name: "r4", Addr: "10.0.0.14", Port: 7946, Status: "alive"})
		case 6:
			cancel()
		}
	}
	got := m.runContext(ctx, []string{"members", "--watch", "--config", ""})
	for _, want := range []string{"r2 failed (10.0.0.12:7946)", "r4 alive (10.0.0.14:7946)"} {
		if strings.Count(got.out, want) != 1 {
			t.Errorf("%q is not there once: %d\n%s%s", want, got.exit, got.out, got.errs)
		}
	}
	if got.exit != 0 || strings.Contains(got.out, "central alive") {
		t.Errorf("%d\n%s%s", got.exit, got.out, got.errs)
	}
}

// TestMembersWatchOfAStatus shows those who come to have it, and those who had it.
func TestMembersWatchOfAStatus(t *testing.T) {
	m := newTalk(t)
	m.members = three()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.looked = func(look int) {
		switch look {
		case 2:
			m.members[1].Status = "alive" // was failed
			m.members[0].Status = "left"  // neither
		case 3:
			m.members[2].Status = "failed"
		case 4:
			cancel()
		}
	}
	got := m.runContext(ctx, []string{"members", "--watch", "--status", "failed", "-o", "jsonl", "--config", ""})
	if !strings.Contains(got.out, `"r10"`) || !strings.Contains(got.out, `"r2"`) || strings.Contains(got.out, `"central"`) {
		t.Errorf("%d\n%s%s", got.exit, got.out, got.errs)
	}
}

func TestPing(t *testing.T) {
	m := newTalk(t)
	expect(t, "ping", m.run("ping r2 --count 2"), 0, "r2 answered after 12.3 ms\nr2 answered after 12.3 ms\n", "")
	if got := m.run("ping r2 -o json"); !strings.Contains(got.out, `"rtt_ms": 12.345`) {
		t.Errorf("%+v", got)
	}
	expect(t, "nobody", m.run("ping"), settings.ExitUsage, "", "AGENT")
	expect(t, "count", m.run("ping r2 --count 0"), settings.ExitUsage, "", "--count")
	m.problem = api.Problemf(api.CodeRefused, "r2 did not answer")
	expect(t, "silence", m.run("ping r2"), settings.ExitFailed, "", "r2 did not answer")
}

func TestTheAgentIsAskedUnlessCentralIsNamed(t *testing.T) {
	m := newTalk(t)
	m.members = three()
	nobody := "unix://" + filepath.Join(t.TempDir(), "none")
	expect(t, "central", m.run("members -o name --central "+nobody), settings.ExitUnreachable, "", "central at")
	expect(t, "the socket", m.run("members -o name --role central --socket "+m.url+" --central "+nobody), 0, "central\n", "")
	expect(t, "no agent", m.run("members --socket "+nobody), settings.ExitUnreachable, "", "the agent at")
}

// TestNamesOfStrangersAreNotObeyed has members whose names a terminal would obey: any
// user of a machine can bring one into a cluster without a key.
func TestNamesOfStrangersAreNotObeyed(t *testing.T) {
	const evil = "r9\x1b[2J"
	m := newTalk(t)
	m.members = []api.Member{{Name: evil, Status: "failed", SinceMS: 1000}}
	m.peers = []api.PeerNode{{Node: evil, Owner: evil, OwnerStatus: "failed", State: power.On}}
	m.who = api.Who{Owners: m.peers, Reach: []api.WhoReach{{Agent: evil, How: evil}}, Message: evil}
	m.keys = api.GossipKeys{Keys: []api.GossipKey{{ID: evil}}, Problems: map[string]string{evil: evil}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.looked = func(look int) {
		switch look {
		case 2:
			m.members[0].Status = "alive"
		case 3:
			cancel()
		}
	}
	runs := map[string]ran{"watch": m.runContext(ctx, []string{"members", "--watch", "--config", ""})}
	m.looked, m.members[0].Status = nil, "failed"
	for _, args := range []string{"members", "peers", "peers --who r1n01", "gossip keys list", "gossip keys use 0badcafe"} {
		runs[args] = m.run(args)
	}
	for args, got := range runs {
		if strings.Contains(got.out+got.errs, "\x1b[2J") || !strings.Contains(got.out+got.errs, `r9\x1b[2J`) {
			t.Errorf("%s: %q %q", args, got.out, got.errs)
		}
	}
}
