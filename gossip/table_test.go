package gossip

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/power"
)

// tell merges messages in order, all at one time.
func tell(messages ...message) *table {
	t := newTable()
	for _, m := range messages {
		t.merge(m, now)
	}
	return t
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestAnyOrderAnyRepeatSameResult is what makes gossip safe: what is shown depends
// on what came, not on when and how often.
func TestAnyOrderAnyRepeatSameResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOfN(rapid.Custom(drawMessage), 1, 12).Draw(t, "messages")
		other := rapid.Permutation(messages).Draw(t, "order")
		other = append(other, rapid.SliceOf(rapid.SampledFrom(messages)).Draw(t, "again")...)
		one, two := tell(messages...).peers(now), tell(other...).peers(now)
		if !reflect.DeepEqual(one, two) {
			t.Fatalf("one order shows  %+v\nanother one shows %+v", one, two)
		}
		whole := tell(messages...)
		for _, m := range messages {
			if whole.merge(m, now.Add(time.Hour)) >= agesNew {
				t.Fatalf("news for the second time: %+v", m)
			}
		}
	})
}

func TestNewerWins(t *testing.T) {
	on, off := rack("r1", 3, power.On), rack("r1", 3, power.Off)
	names := nameMessages("r1", []string{"r1n001", "r1n002", "r1n003"}, powerOf("r1", 1, 1, 1, on...).digest)[0]
	for what, c := range map[string]struct {
		older, newer message
	}{
		"sequence": {powerOf("r1", 1, 1, 5, on...), powerOf("r1", 1, 1, 6, off...)},
		"epoch":    {powerOf("r1", 1, 1, 900, on...), powerOf("r1", 2, 1, 1, off...)},
		"list":     {powerOf("r1", 1, 1, 5, on...), powerOf("r1", 1, 6, 6, off...)},
	} {
		for _, table := range []*table{tell(names, c.older, c.newer), tell(c.newer, c.older, names)} {
			got := table.peers(now)[0]
			if len(got.Nodes) != 3 || got.Nodes[0].State != power.Off || got.Epoch != c.newer.epoch || got.Seq != c.newer.seq {
				t.Errorf("%s: %+v", what, got)
			}
		}
	}
}

// TestNamesBelongToTheirRecord changes the list of nodes and has its names come late.
func TestNamesBelongToTheirRecord(t *testing.T) {
	before, after := rack("r1", 3, power.On), rack("r1", 4, power.Off)[1:]
	first, second := powerOf("r1", 1, 1, 1, before...), powerOf("r1", 1, 2, 2, after...)
	list := func(m message, names ...string) message { return nameMessages("r1", names, m.digest)[0] }
	table := tell(first, second)
	if got := table.peers(now)[0]; got.Unnamed != 3 || got.Nodes != nil {
		t.Errorf("without any names: %+v", got)
	}
	table.merge(list(first, "r1n001", "r1n002", "r1n003"), now)
	if got := table.peers(now)[0]; got.Seq != 1 || len(got.Nodes) != 3 || got.Nodes[0].State != power.On {
		t.Errorf("with the old names: %+v", got)
	}
	table.merge(list(second, "x", "y", "z"), now) // not what the digest says
	if got := table.peers(now)[0]; got.Seq != 1 {
		t.Errorf("with wrong names: %+v", got)
	}
	table.merge(list(second, "r1n002", "r1n003", "r1n004"), now)
	if got := table.peers(now)[0]; got.Seq != 2 || got.Nodes[2].Name != "r1n004" || got.Nodes[2].State != power.Off {
		t.Errorf("with the new names: %+v", got)
	}
}

func TestAgesGrowHere(t *testing.T) {
	nodes := []NodePower{
		{Name: "a", State: power.On, Reach: power.ReachOK, Age: 30 * time.Second},
		{Name: "b", State: power.Unknown, Reach: power.ReachNever, Age: -1},
	}
	m := powerOf("r1", 1, 1, 1, nodes...)
	table := tell(m, nameMessages("r1", []string{"a", "b"}, m.digest)[0])
	got := table.peers(now.Add(time.Minute))[0]
	if got.Age != time.Minute || got.Nodes[0].Age != 90*time.Second || got.Nodes[1].Age >= 0 {
		t.Errorf("%+v", got)
	}
}

func TestTableIsBounded(t *testing.T) {
	table := newTable()
	for i := range maxAgents + 10 {
		table.merge(powerOf(string(rune('a'+i%26))+time.Duration(i).String(), 1, 1, 1), now)
	}
	if len(table.agents) != maxAgents {
		t.Errorf("%d agents", len(table.agents))
	}
	e := &entry{}
	for i := range uint64(50) {
		e.list(i, 1)
	}
	if len(e.lists) != keepLists {
		t.Errorf("%d lists of names", len(e.lists))
	}
}
