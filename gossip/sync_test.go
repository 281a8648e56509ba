package gossip

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// deaf makes a member that hears no events, so that exchanges alone tell it.
func deaf(c *Config) { c.tuning.deaf, c.Sync = true, 300*time.Millisecond }

func TestExchangesAloneTellEverything(t *testing.T) {
	t.Parallel()
	all := team(t, 4, deaf)
	for i, c := range all {
		c.SetNodes(rack(c.cfg.Name, 40*(i+1), power.On))
	}
	check := func(state power.State) {
		t.Helper()
		for _, c := range all {
			for i, of := range all {
				eventually(t, c.cfg.Name+" knows "+of.cfg.Name, func() bool { return sees(c, of.cfg.Name, 40*(i+1), state) })
			}
		}
	}
	check(power.On)
	for i, c := range all {
		c.SetNodes(rack(c.cfg.Name, 40*(i+1), power.Off))
	}
	check(power.Off)
	eventually(t, "all are at rest", func() bool {
		return !slices.ContainsFunc(all, func(c *Cluster) bool { return c.Stats().Behind })
	})
	if s := all[0].Stats(); s.Exchanges == 0 || s.ExchangeBytes == 0 {
		t.Errorf("%+v", s)
	}
}

// TestANewcomerLearnsWhatWasBefore has one come after an agent failed and another
// left, and long after the last publication.
func TestANewcomerLearnsWhatWasBefore(t *testing.T) {
	t.Parallel()
	all := team(t, 4, func(c *Config) { c.Announce = time.Hour })
	nodes := map[string]int{"r0": 40, "r1": 40, "r2": 40, "r3": 450} // r3's record has three parts
	for name, n := range nodes {
		mustFind(all, name).SetNodes(rack(name, n, power.On))
	}
	for name, n := range nodes {
		eventually(t, "r0 knows "+name, func() bool { return sees(all[0], name, n, power.On) })
		eventually(t, "r1 knows "+name, func() bool { return sees(all[1], name, n, power.On) })
	}
	crash(all[2])
	if err := all[3].Close(); err != nil {
		t.Error(err)
	}
	gone := func(c *Cluster, name string) bool {
		p := peer(c, name) // a leave whose messages are lost is a failure to those who wait for them
		return (p.Status == StatusFailed || p.Status == StatusLeft && name == "r3") && p.StatusAge > time.Second
	}
	for _, c := range all[:2] { // a member that did not see it yet could tell the newcomer that they are alive
		eventually(t, "r2 failed and r3 left", func() bool { return gone(c, "r2") && gone(c, "r3") })
	}
	left := peer(all[0], "r3").Status
	if peer(all[1], "r3").Status == StatusLeft {
		left = StatusLeft
	}
	began := time.Now()
	late := start(t, "late", joining(all[1]))
	eventually(t, "late knows all", func() bool {
		for name, n := range nodes {
			if !sees(late, name, n, power.On) {
				return false
			}
		}
		return true
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
	for name, want := range map[string]string{"r2": StatusFailed, "r3": left} {
		eventually(t, name+" is told of", func() bool { return peer(late, name).Status == want })
		eventually(t, name+" is among the members", func() bool { m, _ := late.member(name); return m.Status == want })
		got := peer(late, name)
		if got.Status != want || got.StatusAge < time.Second || got.Age < time.Second || got.Nodes[0].Age < time.Second {
			t.Errorf("%s: %s for %v, record of %v", name, got.Status, got.StatusAge, got.Age)
		}
	}
	if m, ok := all[0].member("r2"); !ok || m.Status != StatusFailed || m.StatusAge < time.Second {
		t.Errorf("%+v", m)
	}
}

func mustFind(all []*Cluster, name string) *Cluster {
	i := slices.IndexFunc(all, func(c *Cluster) bool { return c.cfg.Name == name })
	return all[i]
}

// TestTheGoneAreForgottenInTheEnd has tombstones of two seconds; exchanges do not
// bring the record back.
func TestTheGoneAreForgottenInTheEnd(t *testing.T) {
	t.Parallel()
	all := team(t, 4, func(c *Config) {
		c.tuning.tombstone, c.tuning.reap, c.Sync = 2*time.Second, 100*time.Millisecond, 100*time.Millisecond
	})
	all[3].SetNodes(rack("r3", 3, power.On))
	for _, c := range all {
		eventually(t, "r3 is known", func() bool { return sees(c, "r3", 3, power.On) })
	}
	crash(all[3])
	for _, c := range all[:3] {
		eventually(t, "r3 is forgotten", func() bool { return peer(c, "r3").Name == "" })
		eventually(t, "r3 is no member", func() bool { _, ok := c.member("r3"); return !ok })
	}
	late := start(t, "late", joining(all[0]))
	eventually(t, "late has compared", func() bool { return late.Stats().Exchanges >= 3 })
	if p := peer(late, "r3"); p.Name != "" || peer(all[0], "r3").Name != "" {
		t.Errorf("r3 came back: %+v", p)
	}
}

// TestARepeatedEventIsNotNew has Serf repeat an event of an agent that is gone: its record
// would look just sent.
func TestARepeatedEventIsNotNew(t *testing.T) {
	t.Parallel()
	c := start(t, "late")
	old := message{kind: kindPower, agent: "r3", epoch: 1, since: 1, seq: 1}
	if err := c.serf.UserEvent(eventName, old.encode(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event is heard", func() bool { return c.Stats().Received == 1 })
	if p := peer(c, "r3"); p.Name != "" {
		t.Errorf("shown: %+v", p)
	}
	c.receive(old.encode(), time.Now().Add(-time.Hour))
	if p := peer(c, "r3"); p.Name == "" || p.Age < time.Hour {
		t.Errorf("an exchange says how old it is: %+v", p)
	}
}

// TestAnOlderSelfNeverWins restarts an agent that lost the last part of its
// journal; its old record comes back to it and to others by exchanges.
func TestAnOlderSelfNeverWins(t *testing.T) {
	t.Parallel()
	all := team(t, 3, deaf, epoch(5))
	all[2].SetNodes(rack("r2", 8, power.On))
	eventually(t, "r2 is known", func() bool { return sees(all[0], "r2", 8, power.On) && sees(all[1], "r2", 8, power.On) })
	crash(all[2])
	again := start(t, "r2", deaf, epoch(3), joining(all[0]))
	again.SetNodes(rack("r2", 8, power.Off))
	for _, c := range append(all[:2:2], again) {
		eventually(t, "the new run is believed", func() bool { return sees(c, "r2", 8, power.Off) && peer(c, "r2").Epoch == 6 })
	}
}

func small(c *Config) {
	c.tuning.probe, c.tuning.reconnect = 300*time.Millisecond, 500*time.Millisecond
	c.Sync = time.Second
}

func TestNothingIsMissingAfterLoss(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 12, 40, small)
	await(t, 20*time.Second, "whole", func() bool { return f.whole() && f.missing(power.On) == 0 })
	f.wire.loss.Store(300)
	for i := range f.agents {
		f.flip(i, power.Off)
	}
	await(t, 20*time.Second, "all know all in spite of 30 % loss", func() bool { return f.missing(power.Off) == 0 })
	f.wire.loss.Store(0)
	await(t, 20*time.Second, "views are equal", f.equal)
}

func TestAPartitionHeals(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 8, 40, small)
	await(t, 20*time.Second, "whole", func() bool { return f.whole() && f.missing(power.On) == 0 })
	f.halves()
	await(t, 30*time.Second, "two halves", func() bool {
		return !slices.ContainsFunc(f.agents, func(c *Cluster) bool { return alive(c) != 4 })
	})
	for i := range f.agents {
		f.flip(i, power.Off)
	}
	await(t, 20*time.Second, "each half knows itself", func() bool { return f.missing(power.Off) == 32 })
	f.wire.part(nil)
	await(t, 20*time.Second, "all know all", func() bool { return f.missing(power.Off) == 0 && f.whole() })
	await(t, 20*time.Second, "views are equal", f.equal)
}

func TestHalfOfTheAgentsRestartAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 10, 40, small)
	await(t, 20*time.Second, "whole", func() bool { return f.whole() && f.missing(power.On) == 0 })
	f.restart([]int{1, 3, 5, 7, 9}, 2)
	await(t, 20*time.Second, "all know all", func() bool { return f.missing(power.On) == 0 && f.whole() })
	for _, c := range f.agents {
		if n := len(c.Peers()); n != 10 {
			t.Errorf("%d peers", n)
		}
	}
}

// TestMembersWhoMissedEachOtherMeet hides the coming of a member from another.
func TestMembersWhoMissedEachOtherMeet(t *testing.T) {
	t.Parallel()
	c := team(t, 3, func(c *Config) { c.tuning.noSync = true })[0]
	for range 2 {
		if !c.compare(mustMember(t, c, "r1"), crowd{7, 7}) {
			t.Error("another set of members is no reason to hurry")
		}
	}
	if c.Stats().Mends == 0 {
		t.Error("nothing was done about it")
	}
	for range apartLimit {
		c.compare(mustMember(t, c, "r1"), crowd{7, 7})
	}
	if c.compare(mustMember(t, c, "r1"), crowd{7, 7}) {
		t.Error("it is a reason for ever")
	}
	if c.compare(mustMember(t, c, "r1"), c.crowd()) || c.crowd().alive != 3 {
		t.Error("an equal set is a reason")
	}
}

func mustMember(t *testing.T, c *Cluster, name string) Member {
	t.Helper()
	m, ok := c.member(name)
	if !ok {
		t.Fatalf("no member %s", name)
	}
	return m
}

// TestAMemberGoneMadDoesNoHarm has one with the key say what no agent says, by
// events and by exchanges.
func TestAMemberGoneMadDoesNoHarm(t *testing.T) {
	t.Parallel()
	all := team(t, 2, withKey(fleetKey))
	all[0].SetNodes(rack("r0", 3, power.On))
	eventually(t, "r0 is known", func() bool { return sees(all[1], "r0", 3, power.On) })
	absurd := powerOf("r0", 1<<62, 1, 1, rack("r0", 3, power.Off)...)
	bad := message{kind: kindPower, agent: "\xff\xfe", epoch: 1, since: 1, seq: 1}
	long := message{kind: kindPower, agent: strings.Repeat("x", maxMember+1), epoch: 1, since: 1, seq: 1}
	control := message{kind: kindNames, agent: "r0", total: 1, names: []string{"a\x1b[2J"}}
	for _, m := range []message{absurd, bad, long, control} {
		if err := all[1].serf.UserEvent(eventName, m.encode(), false); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are counted", func() bool { s := all[0].Stats(); return s.Absurd >= 1 && s.Malformed >= 3 })
	for what, raw := range map[string][]byte{
		"a frame of another kind": encodeDelta(nil, false, false),
		"noise":                   []byte("hello"),
		"too much":                make([]byte, maxFirstFrame+1),
	} {
		conn, err := net.Dial("tcp", all[0].Addr())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if ch, err := call(conn, fleetKey, raw); err == nil {
			if f, err := expect(ch, frameSame, frameDigest); err == nil {
				t.Errorf("%s: answered with %+v", what, f)
			}
		}
		conn.Close()
	}
	// An exchange that begins well and goes on with nonsense.
	conn, err := net.Dial("tcp", all[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	ch, err := call(conn, fleetKey, encodeHello(true, 0, crowd{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := expect(ch, frameDigest); err != nil {
		t.Fatal(err)
	}
	ch.send(encodeDigest(crowd{}, []brief{{agent: "r0", epoch: 1 << 62, since: 1, seqs: []uint64{9}, status: 4, statusAge: time.Hour}}))
	ch.send(encodeDelta([]item{{0, absurd.encode()}, {maxHeld * time.Second, bad.encode()}, {0, []byte("x")}}, false, false))
	if _, err := expect(ch, frameDelta); err != nil {
		t.Error(err)
	}
	for _, c := range all {
		if p := peer(c, "r0"); !sees(c, "r0", 3, power.On) || p.Status != StatusAlive || p.Epoch != 1 || len(c.Peers()) != 1 {
			t.Errorf("%s shows %+v", c.cfg.Name, c.Peers())
		}
	}
}

// TestTooManyAgentsAreCounted fills the table by exchanges.
func TestTooManyAgentsAreCounted(t *testing.T) {
	t.Parallel()
	c := start(t, "a")
	for i := range maxAgents + 5 {
		m := message{kind: kindPower, agent: fmt.Sprintf("x%d", i), epoch: 1, since: 1, seq: 1}
		c.receive(m.encode(), time.Now())
	}
	if got := c.Stats().NoRoom; got != 5 {
		t.Errorf("%d counted", got)
	}
}

// TestStreamsAreBounded opens streams that say nothing.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	all := team(t, 2)
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for range maxStreams + 20 {
		conn, err := net.Dial("tcp", all[0].Addr())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	eventually(t, "the rest is closed", func() bool { return all[0].Stats().Dropped >= 15 })
	eventually(t, "the silent ones are given up", func() bool {
		_, err := all[1].exchangeWith(all[0].Addr(), true)
		return err == nil
	})
}

// TestStreamsOfSerfAreBounded has a stranger open more streams of Serf's than are read at
// once, each of which promises a state of 16 MiB: the rest is closed, none may send as much,
// and when they are gone, members join as ever.
func TestStreamsOfSerfAreBounded(t *testing.T) {
	t.Parallel()
	a := start(t, "a", withKey(NewKey()))
	const encrypted = 10 // encryptMsg of memberlist, then the length
	promise := []byte{encrypted, 1, 0, 0, 0}
	var conns []net.Conn
	for range maxSerfStreams + 10 {
		conn, err := net.Dial("tcp", a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(promise); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	eventually(t, "the rest is closed", func() bool { return a.Stats().Dropped >= 10 })
	sent, chunk := 0, make([]byte, 1<<20)
	for sent < 16<<20 {
		conns[0].SetWriteDeadline(time.Now().Add(5 * time.Second))
		n, err := conns[0].Write(chunk)
		if sent += n; err != nil {
			break
		}
	}
	if sent >= 16<<20 {
		t.Errorf("all of %d bytes were taken from a stranger", sent)
	}
	for _, conn := range conns {
		conn.Close()
	}
	b := start(t, "b", withKey(a.cfg.Key))
	eventually(t, "a member joins", func() bool { return b.Join(a.Addr()) == nil })
}

// TestAddressesToJoinAreBounded names more addresses than are remembered: those of the
// configuration stay.
func TestAddressesToJoinAreBounded(t *testing.T) {
	t.Parallel()
	a := start(t, "a", func(c *Config) { c.Join = []string{"127.0.0.1:1"} })
	for i := range maxSeeds + 50 {
		if err := a.Seed(fmt.Sprintf("127.0.0.1:%d", i+2)); err != nil {
			t.Fatal(err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, first := a.seeds["127.0.0.1:1"]
	_, last := a.seeds[fmt.Sprintf("127.0.0.1:%d", maxSeeds+51)]
	if len(a.seeds) != maxSeeds+1 || !first || !last {
		t.Errorf("%d addresses, the configuration's %t, the newest %t", len(a.seeds), first, last)
	}
}

// TestASecondaryKeyIsTaken: an exchange sealed with a secondary key is
// taken, as while a cluster changes its key.
func TestASecondaryKeyIsTaken(t *testing.T) {
	t.Parallel()
	old, young := NewKey(), NewKey()
	a := start(t, "a", withKey(old), func(c *Config) { c.OtherKeys = []Key{young} })
	b := start(t, "b", withKey(young), func(c *Config) { c.OtherKeys = []Key{old} })
	if err := b.Join(a.Addr()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.exchangeWith(a.Addr(), true); err != nil {
		t.Error(err)
	}
}

func TestChannelsSealWhatTheyCarry(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	secret := []byte("what every node's power is")
	var seen bytes.Buffer
	done := make(chan error, 1)
	go func() {
		ch, first, err := answer(right, []Key{NewKey(), fleetKey})
		if err == nil && !bytes.Equal(first, secret) {
			err = fmt.Errorf("first frame %q", first)
		}
		if err == nil {
			err = ch.send(secret)
		}
		done <- err
	}()
	ch, err := call(spy{left, &seen}, fleetKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ch.receive()
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%q %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if bytes.Contains(seen.Bytes(), secret[:8]) {
		t.Error("a frame went in plain text")
	}
}

// spy keeps what goes over a stream.
type spy struct {
	net.Conn
	seen *bytes.Buffer
}

func (s spy) Write(b []byte) (int, error) { s.seen.Write(b); return s.Conn.Write(b) }
func (s spy) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.seen.Write(b[:n])
	return n, err
}

func TestCloseEndsExchanges(t *testing.T) {
	t.Parallel()
	all := team(t, 2)
	conn, err := net.Dial("tcp", all[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte(exchangeMagic)) // and nothing else
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- all[0].Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("Close hangs")
	}
}
