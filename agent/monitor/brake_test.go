package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// drawWatched draws a node of every kind that the judge tells apart.
func drawWatched(rt *rapid.T, i int, now time.Time) watched {
	state := func(label string) power.State {
		return rapid.SampledFrom([]power.State{power.On, power.Off, power.Unknown}).Draw(rt, label)
	}
	ago := func(label string) time.Time {
		return now.Add(-time.Duration(rapid.IntRange(0, 90).Draw(rt, label)) * 10 * time.Second)
	}
	n := watched{Node: fmt.Sprintf("n%02d", i), From: "status", Busy: rapid.Bool().Draw(rt, "busy") && rapid.Bool().Draw(rt, "busy2")}
	n.Memory = Memory{
		Desired: rapid.SampledFrom([]power.Desired{
			{Want: power.WantOff},
			{Want: power.WantOn},
			{Want: power.HandsOff},
			{Want: power.HandsOff, Expected: power.On},
			{Want: power.WantOff, NoCut: true},
			{Want: power.WantOff, Debounced: true},
		}).Draw(rt,
			"desired"),
		Since:     ago("since"),
		Matched:   rapid.Bool().Draw(rt, "matched"),
		Confirmed: rapid.IntRange(0, 4).Draw(rt, "confirmed") == 0,
		Released:  rapid.IntRange(0, 4).Draw(rt, "released") == 0,
		LastOn:    rapid.Bool().Draw(rt, "last on"),
	}
	if rapid.IntRange(0, 9).Draw(rt, "shared") == 0 {
		n.SharedWith = "another"
	}
	n.Elsewhere = n.Busy && rapid.Bool().Draw(rt, "elsewhere")
	n.Cutting = n.Busy && rapid.Bool().Draw(rt, "cutting")
	if rapid.IntRange(0, 4).Draw(rt, "fault") == 0 {
		n.Memory.Fault, n.Memory.NextTry = "x", now.Add(time.Duration(rapid.IntRange(-3, 3).Draw(rt, "try"))*time.Second)
	}
	if rapid.IntRange(0, 3).Draw(rt, "cut") == 0 {
		n.Memory.CutAt = ago("cutAt")
	}
	if rapid.IntRange(0, 5).Draw(rt, "tried") > 0 {
		n.Reading = power.Seen(state("state"), ago("observed"))
		if rapid.IntRange(0, 4).Draw(rt, "reach") == 0 {
			n.Reading = n.Reading.Failed(power.ReachUnreachable, now)
		}
		if rapid.IntRange(0, 4).Draw(rt, "since start") == 0 {
			n.Reading = power.Reading{}.Failed(power.ReachUnreachable, now)
		}
	} else {
		n.Reading = power.Reading{State: power.Unknown, Reach: power.ReachNever}
	}
	if n.Memory.Matched {
		n.Memory.Differs = ago("differs")
	}
	n.Run = run{State: n.Reading.State, First: ago("first"), Last: now}
	n.Changed = ago("changed")
	n.CameBack = rapid.IntRange(0, 4).Draw(rt, "back") == 0
	return n
}

func TestBrakeSaysOnlyWhatIsSo(t *testing.T) {
	t8 := tally{Of: 40, Bounds: brakeBounds{Percent: 20, Above: 5}}
	names := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("n%02d", i+1))
		}
		return list
	}
	for _, c := range []struct {
		kind          string
		nodes, recent int
		says          string
	}{
		{BrakeCut, 9, 0, "9 of 40 nodes would be powered off at once, and nobody confirmed it (more than 20 % and more than 5): n[01-09]. "},
		{BrakeCut, 6, 3, "6 of 40 nodes would be powered off at once, and nobody confirmed it (with 3 that were a moment ago more than 20 % " +
			"and more than 5): "},
		{BrakeCut, 5, 0, "5 of 40 nodes would be powered off at once, and nobody confirmed it (fewer than there were: it began to hold at more " +
			"than 20 % and more than 5): "},
		{BrakeDrift, 9, 0, "9 of 40 nodes left their desired state at once (more than 20 % and more than 5): "},
		{BrakeDrift, 2, 30, "2 of 40 nodes left their desired state at once (fewer than there were: it began to hold at more " +
			"than 20 % and more than 5): n[01-02]. "},
	} {
		t8.Recent = c.recent
		if b := t8.brake(api.Brake{Kind: c.kind}, names(c.nodes)); !strings.HasPrefix(b.Message, c.says) {
			t.Errorf("%d nodes and %d a moment ago: %s", c.nodes, c.recent, b.Message)
		}
	}
}
