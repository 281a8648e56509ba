package main

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestWatchShowsEventsAsTheyHappen(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	now := time.Now()
	f.happen(api.AuditEntry{At: now.Add(-2 * time.Hour), Who: "bob", What: "asked", Node: "r1n01"},
		api.AuditEntry{At: now.Add(-time.Minute), Who: "bob", What: "hold", Node: "r1n01", Why: "DIMM"})
	fault := func() {
		f.happen(api.AuditEntry{At: now, Who: "monitor", What: "fault", Node: "r1n01", Detail: "3 corrections failed\x1b[2J"},
			api.AuditEntry{At: now, Who: "agent r1", What: "brake", Detail: "rack r1"})
	}
	expectExactly(t, "watch", f.watching(t, "watch", fault), 0, `TIME  r1n01   fault      monitor   3 corrections failed\x1b[2J
TIME  -       brake      agent r1  rack r1
`)
	got := f.watching(t, "watch --since 1h -o json", fault)
	if lines := strings.Split(strings.TrimSpace(got.out), "\n"); got.exit != 0 || len(lines) != 5 ||
		!strings.Contains(lines[0], `"what":"hold"`) || !strings.Contains(lines[4], `"id":6`) {
		t.Errorf("%+v", got)
	}
	if got := f.watching(t, "watch --limit 2 -o name", func() {}); got.out != "5\n6\n" || got.exit != 0 || got.errs != "" {
		t.Errorf("%+v", got)
	}
}

func TestWatchTellsOfManyNodesInOneLine(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	entry := func(node, what string) api.AuditEntry {
		return api.AuditEntry{At: at, Who: "bob", What: what, Node: node, Op: node}
	}
	later := entry("n1", "asked")
	later.At = at.Add(time.Second)
	var got []string
	for _, ev := range together([]api.AuditEntry{
		entry("n1", "asked"), entry("n2", "asked"), entry("n1", "ended"), entry("n1", "asked"), entry("", "brake"), entry("",
			"brake"), entry("n3", "asked"), entry("n2", "ended"), later,
	}) {
		got = append(got, strings.Join(ev.nodes, ",")+" "+ev.What)
	}
	if want := "n1,n2,n3 asked|n1,n2 ended|n1 asked| brake| brake|n1 asked"; strings.Join(got, "|") != want {
		t.Errorf("%q", got)
	}
}

func TestWatchGoesOnWhenCentralIsBack(t *testing.T) {
	f := newFake(t)
	f.happen(api.AuditEntry{What: "asked"})
	f.away = 3
	got := f.watching(t, "watch", func() { f.happen(api.AuditEntry{At: time.Now(), Who: "bob", What: "hold", Node: "r1n01"}) })
	if got.exit != 0 || got.out != "TIME  r1n01   hold       bob\n" || got.errs != "central is stopping; trying again\ncentral is back\n" {
		t.Errorf("%+v", got)
	}
	if got := f.run("watch --central unix:///nonexistent/c.sock"); got.exit != 3 {
		t.Errorf("never there: %+v", got)
	}
}

// happen adds to the trail.
func (f *fake) happen(entries ...api.AuditEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		e.ID = int64(len(f.trail) + 1)
		f.trail = append(f.trail, e)
	}
}

// watching runs a watch. Something happens once it waits for news, and it is
// interrupted when all of that has been shown.
func (f *fake) watching(t *testing.T, args string, meanwhile func()) ran {
	t.Helper()
	old := watchAgain
	watchAgain = 10 * time.Millisecond
	defer func() { watchAgain = old }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var polls atomic.Int32
	f.polled = func(all bool) {
		if polls.Add(1) == 1 {
			meanwhile()
		} else if all {
			cancel()
		}
	}
	return f.runContext(ctx, strings.Fields(args)).timeless()
}
