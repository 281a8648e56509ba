package gossip

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/power"
)

func powerOf(agent string, epoch, since, seq uint64, nodes ...NodePower) message {
	names := make([]string, len(nodes))
	cells := make([]cell, len(nodes))
	for i, n := range nodes {
		names[i], cells[i] = n.Name, seal(n)
	}
	return message{
		kind: kindPower, agent: agent, total: len(nodes), digest: digestOf(names), epoch: epoch, since: since, seq: seq,
		cells: cells,
	}
}

// TestFormatIsForEver holds the bytes of both kinds of message: other versions
// read them.
func TestFormatIsForEver(t *testing.T) {
	nodes := []NodePower{
		{Name: "n1", State: power.On, Reach: power.ReachOK, Age: 7 * time.Second},
		{Name: "n2", State: power.Off, Reach: power.ReachAuthFailed, Age: 300 * time.Second, Op: power.ActCycle},
		{Name: "nn", State: power.Unknown, Reach: power.ReachNever, Age: -1},
	}
	m := powerOf("r1", 3, 5, 300, nodes...)
	names := nameMessages("r1", []string{"n1", "n2", "nn"}, m.digest)
	for _, c := range []struct {
		m    message
		want string
	}{
		{m, "01 01 027231 03 " + fmt.Sprintf("%016x", m.digest) + " 03 05 ac02 00 0608 8dad02 0000"},
		{names[0], "01 02 027231 03 " + fmt.Sprintf("%016x", m.digest) + " 00 03 00026e31 010132 01016e"},
	} {
		got := c.m.encode()
		if want := strings.ReplaceAll(c.want, " ", ""); hex.EncodeToString(got) != want {
			t.Errorf("got  %x\nwant %s", got, want)
		}
		if back, err := decode(got); err != nil || !reflect.DeepEqual(back, c.m) {
			t.Errorf("%v: got %+v, want %+v", err, back, c.m)
		}
	}
	if m.digest != 0x58d82a7d3e54d0c4 {
		t.Errorf("digest %#x", m.digest)
	}
}

func TestEveryNodePowerFitsACell(t *testing.T) {
	for _, state := range cellStates {
		for _, reach := range cellReaches {
			for _, op := range cellOps {
				for _, age := range []time.Duration{-1, 0, time.Second, time.Hour, maxAge * time.Second} {
					n := NodePower{State: state, Reach: reach, Op: op, Age: age}
					if got, ok := seal(n).open(); !ok || got != n {
						t.Errorf("got %+v, want %+v", got, n)
					}
				}
			}
		}
	}
	if got, _ := seal(NodePower{State: power.On, Reach: power.ReachOK, Age: 1000 * 24 * time.Hour}).open(); got.Age != maxAge*time.Second {
		t.Errorf("an overlong age became %v", got.Age)
	}
}

// TestEveryActionHasANumber fails when power learns a word that cells cannot say.
func TestEveryActionHasANumber(t *testing.T) {
	for _, a := range power.Actions {
		if a != power.ActCap && !slices.Contains(cellOps, a) {
			t.Errorf("no number for %s", a)
		}
	}
}

// TestMessagesStayWithinAPacket tries the worst: the longest names, nothing shared.
func TestMessagesStayWithinAPacket(t *testing.T) {
	agent := strings.Repeat("a", 128)
	names := make([]string, 300)
	for i := range names {
		names[i] = fmt.Sprintf("%03d", i) + strings.Repeat("x", maxName-3)
	}
	found := []string{}
	for _, m := range nameMessages(agent, names, digestOf(names)) {
		data := m.encode()
		back, err := decode(data)
		if err != nil || len(data) > maxPayload || back.first != len(found) {
			t.Fatalf("%d bytes, first %d of %d: %v", len(data), back.first, len(found), err)
		}
		found = append(found, back.names...)
	}
	if !slices.Equal(found, names) {
		t.Error("names were lost on the way")
	}
	full := message{
		kind: kindPower, agent: agent, total: maxNodes, epoch: 1<<63 - 1, since: 1, seq: maxSeq, part: 24,
		cells: make([]cell, partSize),
	}
	for i := range full.cells {
		full.cells[i].age = maxAge + 1
	}
	if data := full.encode(); len(data) > maxPayload {
		t.Errorf("a full part has %d bytes", len(data))
	} else if _, err := decode(data); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := powerOf("r1", 3, 5, 300, rack("r1", 3, power.On)...)
	with := func(change func(*message)) []byte {
		m := good
		m.cells = slices.Clone(good.cells)
		change(&m)
		return m.encode()
	}
	named := func(names ...string) []byte {
		return message{kind: kindNames, agent: "r1", total: 3, names: names}.encode()
	}
	for what, data := range map[string][]byte{
		"nothing":             nil,
		"another format":      append([]byte{formatVersion + 1}, good.encode()[1:]...),
		"another kind":        with(func(m *message) { m.kind = 3 }),
		"no agent":            with(func(m *message) { m.agent = "" }),
		"too many nodes":      with(func(m *message) { m.total = maxNodes + 1 }),
		"a cell too few":      with(func(m *message) { m.cells = m.cells[:2] }),
		"a cell too many":     with(func(m *message) { m.cells = append(m.cells, cell{}) }),
		"a part too far":      with(func(m *message) { m.part = 1 }),
		"no such state":       with(func(m *message) { m.cells[1].code = 3 }),
		"an age out of bound": with(func(m *message) { m.cells[1].age = maxAge + 2 }),
		"since after seq":     with(func(m *message) { m.since = 301 }),
		"no names":            named(),
		"an empty name":       named("", "a"),
		"a name twice":        named("a", "a"),
		"names out of order":  named("b", "a"),
		"a name too many":     named("a", "b", "c", "d"),
		"a name too long":     named(strings.Repeat("a", maxName+1)),
	} {
		if m, err := decode(data); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v, %+v", what, err, m)
		}
	}
	for n := range len(good.encode()) {
		if _, err := decode(good.encode()[:n]); err == nil {
			t.Errorf("the first %d bytes were taken for a message", n)
		}
	}
	if _, err := decode(make([]byte, maxPayload+1)); !errors.Is(err, errOversized) {
		t.Errorf("oversized: %v", err)
	}
}

func TestAnyRecordSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		back, err := decode(m.encode())
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%v: got %+v, want %+v", err, back, m)
		}
	})
}

// drawMessage draws a message that an honest agent may send. Few agents, epochs
// and lists, so that they meet.
func drawMessage(t *rapid.T) message {
	agent := rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "agent")
	names := make([]string, rapid.SampledFrom([]int{1, 2, 250}).Draw(t, "nodes"))
	for i := range names {
		names[i] = fmt.Sprintf("%sn%03d", agent, i)
	}
	if rapid.Bool().Draw(t, "list") {
		parts := nameMessages(agent, names, digestOf(names))
		return rapid.SampledFrom(parts).Draw(t, "names")
	}
	m := message{kind: kindPower, agent: agent, total: len(names), digest: digestOf(names)}
	m.epoch = rapid.Uint64Range(1, 2).Draw(t, "epoch")
	m.since = rapid.Uint64Range(1, 3).Draw(t, "since")
	m.seq = m.since + rapid.Uint64Range(0, 3).Draw(t, "seq")
	m.part = rapid.IntRange(0, (len(names)-1)/partSize).Draw(t, "part")
	m.cells = make([]cell, partLen(len(names), m.part))
	for i := range m.cells {
		m.cells[i] = seal(NodePower{State: power.On, Reach: power.ReachOK, Age: time.Duration(m.seq) * time.Second})
	}
	if rapid.Bool().Draw(t, "off") {
		m.cells[0] = seal(NodePower{State: power.Off, Reach: power.ReachOK})
	}
	return m
}

func FuzzDecode(f *testing.F) {
	m := powerOf("r1", 3, 5, 300, rack("r1", 40, power.On)...)
	f.Add(m.encode())
	f.Add(nameMessages("r1", []string{"n1", "n2", "nn"}, 7)[0].encode())
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		again, err := decode(m.encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%v: got %+v, want %+v", err, again, m)
		}
		table := newTable()
		table.merge(m, time.Now())
		table.merge(m, time.Now())
		table.peers(time.Now())
	})
}
