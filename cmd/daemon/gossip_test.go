package daemon

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/gossip"
	"rackpower/power"
)

// flagged is a context in which the flags have these values.
func flagged(t *testing.T, values map[string]string) *cli.Context {
	t.Helper()
	set := flag.NewFlagSet("test", flag.ContinueOnError)
	for _, f := range GossipFlags() {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range values {
		if err := set.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return cli.NewContext(cli.NewApp(), set, nil)
}

func written(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGossipKeysFromFileAndCredential(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	dir, key, other := t.TempDir(), gossip.NewKey(), gossip.NewKey()
	read := func(values map[string]string) (gossip.Config, error) {
		var cfg gossip.Config
		return cfg, GossipKeys(flagged(t, values), &cfg, "/data")
	}
	cfg, err := read(nil)
	if err != nil || cfg.Key != nil || cfg.KeyringFile != "/data/"+KeyringName || cfg.RPCToken != "" {
		t.Errorf("%+v, %v", cfg, err)
	}
	file := written(t, dir, "key", key.Reveal()+"\n")
	token := written(t, dir, "token", " open sesame\n")
	cfg, err = read(map[string]string{"gossip-key-file": file, "serf-rpc": "127.0.0.1:7373", "serf-rpc-token-file": token})
	if err != nil || cfg.Key.ID() != key.ID() || cfg.RPC != "127.0.0.1:7373" || cfg.RPCToken != "open sesame" {
		t.Errorf("%+v, %v", cfg, err)
	}
	creds := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", creds)
	if cfg, err = read(nil); err != nil || cfg.Key != nil {
		t.Errorf("no such credential: %+v, %v", cfg, err)
	}
	written(t, creds, "gossip-key", other.Reveal())
	if cfg, err = read(nil); err != nil || cfg.Key.ID() != other.ID() {
		t.Errorf("the credential: %+v, %v", cfg, err)
	}
	if cfg, err = read(map[string]string{"gossip-key-file": file}); err != nil || cfg.Key.ID() != key.ID() {
		t.Errorf("the flag goes before: %+v, %v", cfg, err)
	}
	for what, values := range map[string]map[string]string{
		"no such file":     {"gossip-key-file": filepath.Join(dir, "none")},
		"is empty":         {"gossip-key-file": written(t, dir, "empty", " \n")},
		"not base64":       {"gossip-key-file": written(t, dir, "bad", "hush!")},
		"of 3 bytes":       {"gossip-key-file": written(t, dir, "short", "aGVs")},
		"Serf's RPC":       {"serf-rpc-token-file": filepath.Join(dir, "none")},
		"/empty is empty":  {"serf-rpc-token-file": filepath.Join(dir, "empty")},
		"want 16, 24 or 3": {"gossip-key-file": filepath.Join(dir, "short")},
	} {
		if _, err := read(values); settings.CodeOf(err) != settings.ExitUsage || !strings.Contains(err.Error(), what) ||
			strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// pair is two members with a key, of which the first has nodes.
func pair(t *testing.T) (a, b Cluster) {
	t.Helper()
	key := gossip.NewKey()
	member := func(name string, join ...string) Cluster {
		c, err := gossip.New(gossip.Config{
			Name: name, Rack: name, Bind: "127.0.0.1:0", Key: key, Join: join,
			CanReach: func(q string) (string, bool) { return "asked " + q, name == "b" },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return Cluster{c}
	}
	a = member("a")
	b = member("b", a.Addr())
	a.SetNodes([]gossip.NodePower{
		{Name: "n1", State: power.On, Reach: power.ReachOK, Age: 3 * time.Second},
		{Name: "n2", Age: -1, Op: power.ActCycle},
	})
	soon(t, "b knows a's nodes", func() bool { return len(b.Peers()) == 2 && len(a.Members()) == 2 })
	return a, b
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestClusterIsShown(t *testing.T) {
	_, b := pair(t)
	m := b.Members()
	if len(m) != 2 || m[0].Name != "a" || m[0].Status != "alive" || m[0].Addr != "127.0.0.1" || m[0].Port == 0 || m[0].Tags["rack"] != "a" {
		t.Errorf("%+v", m)
	}
	p := b.Peers()
	if p[0].Node != "n1" || p[0].State != power.On || p[0].AgeMS < 3000 || p[0].Owner != "a" || p[0].OwnerStatus != "alive" {
		t.Errorf("%+v", p[0])
	}
	if p[1].AgeMS != -1 || p[1].Op != power.ActCycle || p[1].State != power.Unknown {
		t.Errorf("%+v", p[1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w, err := b.Who(ctx, "n1", "10.0.0.1:623", "")
	if err != nil || len(w.Owners) != 1 || len(w.Reach) != 1 || w.Reach[0].How != "asked n1 10.0.0.1:623" || w.Answered != 2 ||
		w.Message != "n1 is agent a's (alive); its BMC can be reached by b" {
		t.Errorf("%+v, %v", w, err)
	}
}

func TestSaysWho(t *testing.T) {
	for want, w := range map[string]api.Who{
		"no agent is known to have node x; no agent that answered has it, and its BMC's address is not known here: ask central or its owner": {},
		"no agent is known to have node x; none of the 3 members that answered " +
			"can reach its BMC at h:623": {Tried: "h:623", Answered: 3},
		"x is agent r1's (failed); none of the 2 members that answered said that it reaches its BMC, and those that do not have the node do " +
			"not know its address: ask central, or agent r1": {
			Owners: []api.PeerNode{{Owner: "r1", OwnerStatus: "failed"}}, Answered: 2,
		},
		"x is agent r1's (alive), and agent r2 (failed) says it has it too; its BMC can be reached by r1": {
			Owners: []api.PeerNode{{Owner: "r1", OwnerStatus: "alive"}, {Owner: "r2", OwnerStatus: "failed"}}, Reach: []api.WhoReach{{Agent: "r1"}},
		},
		"x is agent r1's (failed); its BMC can be reached by r[2-3]": {
			Owners: []api.PeerNode{{Owner: "r1", OwnerStatus: "failed"}}, Reach: []api.WhoReach{{Agent: "r2"}, {Agent: "r3"}},
		},
	} {
		w.Node = "x"
		if got := saysWho(w); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestClusterChangesKeys(t *testing.T) {
	a, b := pair(t)
	before, next := a.Ring()[0], gossip.NewKey()
	ctx := t.Context()
	must := func(in api.ChangeKeys) {
		t.Helper()
		if err := b.ChangeKeys(ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	for says, in := range map[string]api.ChangeKeys{
		"no key is named":           {Action: api.KeyUse},
		"no member has a key":       {Action: api.KeyUse, ID: "00000000"},
		"not base64":                {Action: api.KeyInstall, Key: "hush!"},
		"do not have it":            {Action: api.KeyUse, Key: next.Reveal()},
		"send with it; use another": {Action: api.KeyRemove, Key: before},
	} {
		if err := b.ChangeKeys(ctx, in); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", says, err)
		}
	}
	must(api.ChangeKeys{Action: api.KeyInstall, Key: next.Reveal()})
	must(api.ChangeKeys{Action: api.KeyUse, ID: strings.ToUpper(next.ID())})
	must(api.ChangeKeys{Action: api.KeyRemove, Key: before})
	keys, err := a.Keys(ctx)
	if err != nil || len(keys.Keys) != 1 || keys.Keys[0].ID != next.ID() || keys.Keys[0].Primary != 2 || keys.Members != 2 {
		t.Errorf("%+v, %v", keys, err)
	}
	if ring := a.Ring(); len(ring) != 1 || ring[0] != next.Reveal() {
		t.Error("the ring is another")
	}
}

// TestAdoptedKeysBringAMemberBack has a member keep an old key that nobody accepts.
func TestAdoptedKeysBringAMemberBack(t *testing.T) {
	a, _ := pair(t)
	file := filepath.Join(t.TempDir(), KeyringName)
	c, err := gossip.New(gossip.Config{Name: "late", Bind: "127.0.0.1:0", Key: gossip.NewKey(), Join: []string{a.Addr()}, KeyringFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	late := Cluster{c}
	soon(t, "it is refused", func() bool { return c.Stats().ForeignKey > 0 })
	keys := a.Cluster.Ring()
	if changed, err := c.Adopt(keys); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if changed, err := c.Adopt(keys); err != nil || changed {
		t.Fatal("twice:", changed, err)
	}
	soon(t, "it is a member", func() bool { return len(late.Members()) == 3 && len(late.Peers()) == 2 })
	if raw, err := os.ReadFile(file); err != nil || !strings.Contains(string(raw), keys[0].Reveal()) || late.Ring()[0] != keys[0].Reveal() {
		t.Errorf("not kept: %v", err)
	}
	if _, err := c.Adopt([]gossip.Key{gossip.Key("short")}); err == nil {
		t.Error("a key of 5 bytes was taken")
	}
}
