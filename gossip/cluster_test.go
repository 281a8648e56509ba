package gossip

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/power"
)

func TestMembersAreSeen(t *testing.T) {
	t.Parallel()
	all := team(t, 4)
	members := all[3].Members()
	if len(members) != 4 || members[1].Name != "r1" || members[1].hostPort() != all[1].Addr() {
		t.Fatalf("%+v", members)
	}
	if got := members[1].Tags; got["role"] != RoleAgent || got["rack"] != "r1" || got["version"] != "1.2.3" {
		t.Errorf("tags %v", got)
	}
}

func TestRecordsSpreadToAll(t *testing.T) {
	t.Parallel()
	all := team(t, 5)
	for i, c := range all {
		c.SetNodes(rack(c.cfg.Name, 40*i, power.On)) // r0 has none
	}
	for _, c := range all {
		for i, of := range all {
			eventually(t, c.cfg.Name+" knows "+of.cfg.Name, func() bool {
				return sees(c, of.cfg.Name, 40*i, power.On) && peer(c, of.cfg.Name).Seq > 0
			})
		}
	}
	nodes := rack("r1", 40, power.On)
	nodes[6] = NodePower{Name: "r1n007", State: power.Off, Reach: power.ReachUnreachable, Age: 90 * time.Second, Op: power.ActCycle}
	nodes[7] = NodePower{Name: "r1n008", State: power.Unknown, Reach: power.ReachNever, Age: -1}
	all[1].SetNodes(nodes)
	eventually(t, "the change is known", func() bool { return peer(all[4], "r1").Nodes[6].Op == power.ActCycle })
	p := peer(all[4], "r1")
	got := p.Nodes[6]
	if got.Age < 90*time.Second || got.Age > 120*time.Second {
		t.Errorf("age %v", got.Age)
	}
	got.Age = 90 * time.Second
	if got != nodes[6] || p.Nodes[7] != nodes[7] || p.Nodes[5].State != power.On || p.Status != StatusAlive {
		t.Errorf("%+v", p)
	}
}

func TestMoreNodesThanOneMessageHolds(t *testing.T) {
	t.Parallel()
	all := team(t, 2)
	all[0].SetNodes(rack("r0", 1000, power.On))
	eventually(t, "a thousand nodes", func() bool { return sees(all[1], "r0", 1000, power.On) })
	all[0].SetNodes(rack("r0", 1000, power.Off)[:990]) // the list changes too
	eventually(t, "ten nodes less", func() bool { return sees(all[1], "r0", 990, power.Off) })
}

func TestJoinGoesOnUntilSomebodyAnswers(t *testing.T) {
	t.Parallel()
	first := start(t, "a")
	addr := first.Addr()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	late := start(t, "b", func(c *Config) { c.Join = []string{addr} })
	if err := late.Join(addr); err == nil {
		t.Error("nobody was there, and Join did not say so")
	}
	start(t, "a", epoch(2), func(c *Config) { c.Bind = addr })
	eventually(t, "b joined", func() bool { return alive(late) == 2 })
}

func TestSeedAndJoin(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
	if err := a.Join(b.Addr()); err != nil || alive(a) != 2 {
		t.Errorf("%v, %d members", err, alive(a))
	}
	if err := c.Seed(b.Addr()); err != nil {
		t.Error(err)
	}
	eventually(t, "c is in", func() bool { return alive(c) == 3 })
}

// TestSplitHalvesMeet has two clusters, whole in themselves, told of each other.
func TestSplitHalvesMeet(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	start(t, "b", joining(a))
	c := start(t, "c")
	d := start(t, "d", joining(c))
	eventually(t, "two pairs", func() bool { return alive(a) == 2 && alive(d) == 2 })
	if err := d.Seed(a.Addr()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one cluster", func() bool { return alive(a) == 4 && alive(c) == 4 })
}

func TestRestartWithAHigherEpochWins(t *testing.T) {
	t.Parallel()
	all := team(t, 3)
	all[2].SetNodes(rack("r2", 8, power.On))
	for range 5 {
		all[2].SetNodes(rack("r2", 8, power.Off))
		all[2].SetNodes(rack("r2", 8, power.On))
	}
	eventually(t, "r0 knows r2", func() bool { return sees(all[0], "r2", 8, power.On) })
	all[2].Close()
	again := start(t, "r2", epoch(2), joining(all[0]))
	again.SetNodes(rack("r2", 9, power.Off))
	for _, c := range all[:2] {
		eventually(t, "the new run is believed", func() bool { return sees(c, "r2", 9, power.Off) && peer(c, "r2").Epoch == 2 })
	}
}

// TestLostJournalIsOvercome restarts an agent with an epoch that is too low.
func TestLostJournalIsOvercome(t *testing.T) {
	t.Parallel()
	all := team(t, 3, epoch(7))
	all[2].SetNodes(rack("r2", 8, power.On))
	eventually(t, "r0 knows r2", func() bool { return sees(all[0], "r2", 8, power.On) })
	all[2].Close()
	again := start(t, "r2", epoch(1), joining(all[0]))
	again.SetNodes(rack("r2", 8, power.Off))
	eventually(t, "the new run is believed", func() bool { return sees(all[0], "r2", 8, power.Off) && peer(all[0], "r2").Epoch == 8 })
}

func TestNewcomerLearnsOfAll(t *testing.T) {
	t.Parallel()
	all := team(t, 3)
	for _, c := range all {
		c.SetNodes(rack(c.cfg.Name, 60, power.On))
	}
	late := start(t, "late", joining(all[1]))
	for _, c := range all {
		eventually(t, "late knows "+c.cfg.Name, func() bool { return sees(late, c.cfg.Name, 60, power.On) })
	}
}

// TestMissedMessagesAreHealed drops the first messages of each kind.
func TestMissedMessagesAreHealed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	dropped := map[byte]int{}
	a := start(t, "a", func(c *Config) { c.Announce = 300 * time.Millisecond })
	b := start(t, "b", joining(a), func(c *Config) {
		c.tuning.drop = func(m message) bool {
			mu.Lock()
			defer mu.Unlock()
			dropped[m.kind]++
			return m.agent == "a" && dropped[m.kind] <= 2
		}
	})
	eventually(t, "two members", func() bool { return alive(a) == 2 && alive(b) == 2 })
	a.SetNodes(rack("a", 20, power.On))
	eventually(t, "b knows a", func() bool { return sees(b, "a", 20, power.On) })
}

func TestFailedAgentKeepsItsLastRecord(t *testing.T) {
	t.Parallel()
	all := team(t, 4)
	var mu sync.Mutex
	var heard []string
	watcher := start(t, "w", joining(all[0]), func(c *Config) {
		c.Role, c.Rack = RoleCentral, ""
		c.OnMember = func(m Member) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, m.Name+" "+m.Status)
		}
	})
	all[3].SetNodes(rack("r3", 5, power.Off))
	eventually(t, "r3 is known", func() bool { return sees(watcher, "r3", 5, power.Off) })
	crash(all[3])
	eventually(t, "r3 is seen to have failed", func() bool { return peer(watcher, "r3").Status == StatusFailed })
	p := peer(watcher, "r3")
	if !sees(watcher, "r3", 5, power.Off) || p.Age <= 0 {
		t.Errorf("%+v", p)
	}
	eventually(t, "the age grows", func() bool {
		return peer(watcher, "r3").Age > p.Age && peer(watcher, "r3").Nodes[0].Age > p.Nodes[0].Age
	})
	eventually(t, "OnMember heard of it", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.HasSuffix(strings.Join(heard, ","), "r3 failed") && strings.Contains(strings.Join(heard, ","), "r3 alive")
	})
}

// crash ends a member without a word.
func crash(c *Cluster) {
	c.closing.Do(func() {
		c.cancel()
		c.serf.Shutdown()
		c.parts.Wait()
		<-c.reader
	})
}

func TestForeignPayloadsAreCountedAndDropped(t *testing.T) {
	t.Parallel()
	all := team(t, 2)
	all[0].SetNodes(rack("r0", 3, power.On))
	eventually(t, "r1 knows r0", func() bool { return sees(all[1], "r0", 3, power.On) })
	for _, payload := range [][]byte{nil, []byte("hello"), {formatVersion + 1, kindPower}} {
		if err := all[0].serf.UserEvent(eventName, payload, false); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all three are counted", func() bool { return all[1].Stats().Malformed == 3 })
	all[1].receive(bytes.Repeat([]byte{1}, maxPayload+1), time.Now())
	if got := all[1].Stats(); got.Oversized != 1 || got.Malformed != 3 {
		t.Errorf("%+v", got)
	}
	if !sees(all[1], "r0", 3, power.On) || len(all[1].Peers()) != 1 {
		t.Errorf("%+v", all[1].Peers())
	}
}

func TestCloseLeaves(t *testing.T) {
	t.Parallel()
	all := team(t, 3)
	began := time.Now()
	if err := all[2].Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := all[2].Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	eventually(t, "r2 is seen to have left", func() bool {
		for _, m := range all[0].Members() {
			if m.Name == "r2" {
				return m.Status == StatusLeft
			}
		}
		return false
	})
	if err := all[2].Join(all[0].Addr()); err == nil {
		t.Error("a closed member joined")
	}
}

func TestEncryptedClusterIsClosedToOthers(t *testing.T) {
	t.Parallel()
	key := func(b byte) func(*Config) { return func(c *Config) { c.Key = bytes.Repeat([]byte{b}, 32) } }
	a := start(t, "a", key(1))
	b := start(t, "b", key(1), joining(a))
	eventually(t, "a and b are together", func() bool { return alive(a) == 2 && alive(b) == 2 })
	for _, outsider := range []*Cluster{start(t, "c", key(2)), start(t, "d")} {
		if err := outsider.Join(a.Addr()); err == nil || alive(a) != 2 {
			t.Errorf("%s came in", outsider.cfg.Name)
		}
	}
}

// TestANameThatCannotBeLookedUpIsNoReasonNotToStart: after an outage of a hall the
// agents may be back before the names are.
func TestANameThatCannotBeLookedUpIsNoReasonNotToStart(t *testing.T) {
	c, err := New(Config{Name: "r1", Role: RoleAgent, Bind: "127.0.0.1:0", Join: []string{"nobody.invalid:7946"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.reachable("nobody.invalid:7946"); err == nil {
		t.Error("a name that cannot be looked up counts as on this machine")
	}
	if err := c.Seed("192.0.2.1:7946"); err == nil {
		t.Error("unencrypted gossip may leave the machine")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
