package agentd

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/gossip"
)

// TestAgentsThatWereAwayTogetherGetTheKey has two agents that know each other come
// back with the key of before: neither is alone, and both are cut off.
func TestAgentsThatWereAwayTogetherGetTheKey(t *testing.T) {
	t.Parallel()
	before, after := gossip.NewKey(), gossip.NewKey()
	member := func(name, role string, key gossip.Key, join ...string) *gossip.Cluster {
		t.Helper()
		c, err := gossip.New(gossip.Config{Name: name, Role: role, Bind: "127.0.0.1:0", Key: key, Join: join})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	central := member("central", gossip.RoleCentral, after)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Enrolled{Keys: []string{after.Reveal()}, Join: central.Addr()})
	}))
	t.Cleanup(srv.Close)
	client, err := api.NewClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r1 := member("r1", gossip.RoleAgent, before, central.Addr())
	r2 := member("r2", gossip.RoleAgent, before, central.Addr(), r1.Addr())
	for end := time.Now().Add(10 * time.Second); len(others(r1))*len(others(r2)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the two do not see each other")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	t.Cleanup(func() { cancel(); parts.Wait() })
	d := &service{logger: slog.New(slog.DiscardHandler)}
	parts.Go(func() { d.freshKeys(ctx, "r1", r1, everyCentral, client) })
	parts.Go(func() { d.freshKeys(ctx, "r2", r2, everyCentral, client) })
	for end := time.Now().Add(60 * time.Second); len(others(r1)) != 2 || len(others(r2)) != 2 ||
		len(others(central)) != 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("r1 sees %v, r2 %v, central %v", others(r1), others(r2), others(central))
		}
	}
}

// everyCentral trusts all.
func everyCentral(api.Database) bool { return true }
