package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/power"
)

// through sends a frame over the wire.
func through(t rapid.TB, raw []byte) frame {
	f, err := decodeFrame(raw)
	if err != nil {
		t.Fatalf("%v: %x", err, raw)
	}
	return f
}

// swap makes an exchange of two tables and says whether one of them learned.
func swap(t rapid.TB, a, b *table) (learned bool) {
	left := through(t, encodeDigest(crowd{}, a.briefs(now))).briefs
	right := through(t, encodeDigest(crowd{}, b.briefs(now))).briefs
	toB, moreB := a.lacking(right, now)
	toA, moreA := b.lacking(left, now)
	if moreA || moreB {
		t.Fatalf("cut off")
	}
	for table, items := range map[*table][]item{a: toA, b: toB} {
		for _, it := range through(t, encodeDelta(items, false, false)).items {
			m, err := decode(it.data)
			if err != nil {
				t.Fatalf("%v: %x", err, it.data)
			}
			learned = table.merge(m, now) >= agesNew || learned
		}
	}
	return learned
}

// TestAnyLossThenExchangesSameResult has messages lost, repeated and put out of
// order on their way to some members; exchanges make all tables equal to that of
// one who got everything.
func TestAnyLossThenExchangesSameResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOfN(rapid.Custom(drawMessage), 1, 12).Draw(t, "messages")
		tables := []*table{tell(messages...)}
		for range rapid.IntRange(1, 3).Draw(t, "members") {
			tables = append(tables, tell(rapid.SliceOf(rapid.SampledFrom(messages)).Draw(t, "got")...))
		}
		for range 2 {
			for i, a := range tables {
				for _, b := range tables[:i] {
					swap(t, a, b)
				}
			}
		}
		want := tables[0].briefs(now)
		for i, other := range tables[1:] {
			if got := other.briefs(now); !reflect.DeepEqual(got, want) {
				t.Fatalf("member %d has\n%+v\nand not\n%+v", i+1, got, want)
			}
			if swap(t, tables[0], other) {
				t.Fatalf("member %d learned something from its equal", i+1)
			}
			for name, e := range tables[0].agents {
				if e.newest == nil || e.named(e.newest) == nil {
					continue
				}
				if got, want := other.agents[name].peer(now), e.peer(now); !reflect.DeepEqual(got, want) {
					t.Fatalf("member %d shows\n%+v\nand not\n%+v", i+1, got, want)
				}
			}
		}
	})
}

// TestOnlyWhatDiffersIsSent counts what an exchange carries.
func TestOnlyWhatDiffersIsSent(t *testing.T) {
	const agents = 100
	var all []message
	for i := range agents {
		agent := fmt.Sprintf("rack%03d", i)
		nodes := rack(agent, 40, power.On)
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Name
		}
		m := powerOf(agent, 3, 1, 7, nodes...)
		all = append(append(all, nameMessages(agent, names, m.digest)...), m)
	}
	a, b := tell(all...), tell(all...)
	if sumOf(a.briefs(now)) != sumOf(b.briefs(now)) {
		t.Error("equal tables with different sums")
	}
	items := func(from, to *table) int {
		got, _ := from.lacking(to.briefs(now), now)
		return len(got)
	}
	if n := items(a, b) + items(b, a); n != 0 {
		t.Errorf("%d items between equals", n)
	}
	a.merge(powerOf("rack007", 3, 1, 8, rack("rack007", 40, power.Off)...), now)
	if sumOf(a.briefs(now)) == sumOf(b.briefs(now)) {
		t.Error("different tables with equal sums")
	}
	if n, m := items(a, b), items(b, a); n != 1 || m != 0 {
		t.Errorf("%d and %d items for one change", n, m)
	}
	if n := items(a, newTable()); n != 2*agents {
		t.Errorf("%d items for a newcomer", n)
	}
	if size := len(encodeDigest(crowd{}, a.briefs(now))); size > 40*agents {
		t.Errorf("a digest of %d bytes", size)
	}
}

// TestALargeDeltaIsCutAndGoesOn brings 300 agents of 999 nodes over in pieces.
func TestALargeDeltaIsCutAndGoesOn(t *testing.T) {
	a, b := newTable(), newTable()
	for i := range 300 {
		agent := fmt.Sprintf("rack%03d", i)
		nodes := rack(agent, 999, power.On)
		o := &own{epoch: 1}
		o.take(nodes, now)
		plan, _ := o.plan(now, agent, time.Second, time.Second)
		for _, m := range plan.messages {
			a.merge(m, now)
		}
	}
	rounds := 0
	for more := true; more; rounds++ {
		var items []item
		items, more = a.lacking(b.briefs(now), now)
		if size := len(encodeDelta(items, more, false)); size > maxDelta+1000 {
			t.Fatalf("a delta of %d bytes", size)
		}
		for _, it := range items {
			m, err := decode(it.data)
			if err != nil {
				t.Fatal(err)
			}
			b.merge(m, now)
		}
	}
	if sumOf(a.briefs(now)) != sumOf(b.briefs(now)) || rounds < 2 || rounds > 40 {
		t.Errorf("%d rounds", rounds)
	}
}

func TestAgesTravelWithTheRecord(t *testing.T) {
	a := tell(powerOf("r1", 1, 1, 1, rack("r1", 2, power.On)...))
	later := now.Add(40 * time.Second)
	items, _ := a.lacking(nil, later)
	if len(items) != 1 || items[0].held != 40*time.Second {
		t.Fatalf("%+v", items)
	}
	b := newTable()
	m, _ := decode(items[0].data)
	b.merge(m, later) // by an event that lay in a buffer
	if got := b.peers(later)[0].Age; got != 0 {
		t.Errorf("age %v", got)
	}
	if b.merge(m, later.Add(-items[0].held)) != noNews || b.peers(later)[0].Age != 40*time.Second {
		t.Errorf("age %v", b.peers(later)[0].Age)
	}
	c := tell()
	c.merge(m, later)
	c.date(a.briefs(later)[0], later)
	if got := c.peers(later)[0].Age; got != 40*time.Second {
		t.Errorf("age %v from a brief", got)
	}
}

func TestExpire(t *testing.T) {
	table := tell(powerOf("here", 1, 1, 1), powerOf("gone", 1, 1, 1))
	table.expire(now.Add(time.Hour), 2*time.Hour, func(string) bool { return false })
	if len(table.agents) != 2 {
		t.Error("forgotten too soon")
	}
	table.expire(now.Add(3*time.Hour), 2*time.Hour, func(agent string) bool { return agent == "here" })
	if len(table.agents) != 1 || table.agents["here"] == nil {
		t.Errorf("%v", table.agents)
	}
}

func TestFramesAreRefused(t *testing.T) {
	brief := func(change func(*brief2)) []byte {
		b := brief2{agent: "r1", epoch: 1, since: 1, seqs: []uint64{1}}
		change(&b)
		return encodeDigest(crowd{}, []brief2{b})
	}
	good := encodeDigest(crowd{3, 9}, tell(powerOf("r1", 1, 1, 1), powerOf("r2", 1, 1, 1)).briefs(now))
	for what, raw := range map[string][]byte{
		"nothing":            nil,
		"another kind":       {9},
		"a short hello":      {frameHello, 0, 1},
		"a byte too many":    append(encodeSame(crowd{1, 2}), 0),
		"too many parts":     brief(func(b *brief2) { b.seqs = make([]uint64, 26) }),
		"no such status":     brief(func(b *brief2) { b.status = 5 }),
		"an absurd age":      append(encodeDelta(nil, false, false), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0),
		"an oversized item":  encodeDelta([]item{{data: make([]byte, maxPayload+1)}}, false, false),
		"agents twice":       encodeDigest(crowd{}, []brief2{{agent: "a"}, {agent: "a"}}),
		"agents in disorder": encodeDigest(crowd{}, []brief2{{agent: "b"}, {agent: "a"}}),
		"an overlong agent":  brief(func(b *brief2) { b.agent = strings.Repeat("a", maxMember+1) }),
	} {
		if f, err := decodeFrame(raw); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v, %+v", what, err, f)
		}
	}
	for n := range len(good) {
		if _, err := decodeFrame(good[:n]); err == nil {
			t.Errorf("the first %d bytes were taken for a frame", n)
		}
	}
}

// brief2 is brief, where a test has a variable of that name.
type brief2 = brief

// FuzzFrame feeds frames of a member gone mad to a table.
func FuzzFrame(f *testing.F) {
	seed := tell(powerOf("r1", 1, 1, 1, rack("r1", 3, power.On)...), powerOf("r2", 7, 3, 9, rack("r2", 250, power.On)...))
	items, _ := seed.lacking(nil, now)
	f.Add(encodeHello(true, 7, crowd{1, 2}))
	f.Add(encodeSame(crowd{1, 2}))
	f.Add(encodeDigest(crowd{1, 2}, seed.briefs(now)))
	f.Add(encodeDelta(items, true, true))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := decodeFrame(raw)
		if err != nil {
			return
		}
		if got.kind == frameDigest {
			again, err := decodeFrame(encodeDigest(got.crowd, got.briefs))
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%v: got %+v, want %+v", err, again, got)
			}
		}
		mine := tell(powerOf("r1", 1, 1, 1, rack("r1", 3, power.Off)...), powerOf("r2", 7, 3, 9, rack("r2", 250, power.On)...))
		for _, b := range got.briefs {
			mine.date(b, now)
		}
		if _, more := mine.lacking(got.briefs, now); more {
			t.Fatal("more than a small table has")
		}
		for _, it := range got.items {
			if m, err := decode(it.data); err == nil {
				mine.merge(m, now.Add(-it.held))
			}
		}
		swap(t, mine, seed)
		mine.peers(now)
	})
}

// duplex is a stream whose two directions are buffers.
type duplex struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (d *duplex) Read(b []byte) (int, error)  { return d.in.Read(b) }
func (d *duplex) Write(b []byte) (int, error) { return d.out.Write(b) }

// FuzzAnswer feeds the begins of streams, before and behind the seal.
func FuzzAnswer(f *testing.F) {
	for _, key := range []Key{nil, fleetKey} {
		d := &duplex{in: bytes.NewReader(nil)}
		call(d, key, encodeHello(true, 1, crowd{}))
		f.Add(d.out.Bytes(), key != nil)
	}
	f.Fuzz(func(t *testing.T, raw []byte, sealed bool) {
		var keys []Key
		if sealed {
			keys = []Key{NewKey(), fleetKey}
		}
		d := &duplex{in: bytes.NewReader(raw)}
		ch, first, err := answer(d, keys)
		if err != nil {
			return
		}
		decodeFrame(first)
		for {
			if _, err := expect(ch, frameDigest, frameDelta); err != nil {
				return
			}
		}
	})
}

// TestTwoRunsOfOneEpochMeet has two members hold different records of one version,
// or of two lists of nodes: no honest agent sends such, but two runs of one with a
// journal that went back may. All come to hold the same.
func TestTwoRunsOfOneEpochMeet(t *testing.T) {
	on := powerOf("r1", 1, 1, 4, rack("r1", 250, power.On)[:200]...)
	off := powerOf("r1", 1, 1, 4, rack("r1", 250, power.Off)[:200]...)
	pairs := [][2]message{{on, off}}
	for n := range 8 { // some have a lower digest, some a higher one
		other := powerOf("r1", 1, 1, 3, rack("r1", n, power.Off)...)
		pairs = append(pairs, [2]message{on, other}, [2]message{other, off})
	}
	for _, pair := range pairs {
		a, b := tell(pair[0]), tell(pair[1])
		swap(t, a, b)
		if got, want := a.briefs(now), b.briefs(now); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v and %+v", got, want)
		}
		if swap(t, a, b) {
			t.Error("they do not come to an end")
		}
	}
}
