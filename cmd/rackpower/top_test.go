package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/term"
	"rackpower/power"
)

// busy is a site of two racks where much is the matter.
func busy(now time.Time) overview {
	o := overview{at: now, nodes: hall(40, power.On)}
	o.racks = []api.Rack{{Name: "r1", Agent: "r1", Nodes: 40}, {Name: "r2", Agent: "r2", Nodes: 1}}
	o.racks[0].AgentState.State = api.AgentAlive
	o.racks[1].AgentState = api.AgentPresence{State: api.AgentFailed, Since: now.Add(-40 * time.Second)}
	o.nodes[3].Drift, o.nodes[4].State = true, power.Off
	other := o.nodes[0]
	other.Name, other.Rack, other.State = "r2n01", "r2", power.Unknown
	o.nodes = append(o.nodes, other)
	for i := range 12 {
		o.ops = append(o.ops, api.Op{
			Node: o.nodes[i].Name, Action: power.ActCycle, AskedBy: "bob", AskedAt: now.Add(-5 * time.Second), Phase: "running: waiting for off",
		})
		o.attention = append(o.attention, api.Attention{
			Severity: api.SeverityWarning, Message: fmt.Sprintf("node r1n%02d differs from what is desired of it, and the fleet brake holds", i),
			Since: now.Add(-3 * time.Minute), Run: []string{"rackpower brake show r1"},
		})
	}
	o.ops = append(o.ops, api.Op{Node: "r2n01", Action: power.ActOn, AskedBy: "eve", AskedAt: now.Add(-time.Minute)})
	o.attention[0].Severity = api.SeverityCritical
	return o
}

func TestTopHasTheMostPressingFirst(t *testing.T) {
	now := time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)
	v := view{printer.Printer{Format: "table", Clock: printer.Clock{Now: func() time.Time { return now }, Zone: time.UTC}}}
	got := strings.Join(v.picture(busy(now), 80, 20), "\n")
	want := `41 nodes: 39 on, 1 off, 1 unknown; 1 in drift                          14:00:00
RACKS
  r2       0 on     0 off     1 unknown  agent failed 40 s ago, as gossip says
  r1      39 on     1 off  1 in trouble
ATTENTION
  critical 3 min: node r1n00 differs from what is desired of it, and the fleet
           brake holds
           rackpower brake show r1
  warning  3 min: node r1n01 differs from what is desired of it, and the fleet
           brake holds
           rackpower brake show r1
  warning  3 min: node r1n02 differs from what is desired of it, and the fleet
           brake holds
           rackpower brake show r1
  9 more
OPERATIONS
  r2n01 on by eve, 60 s ago: taken
  r1n[01-12] cycle by bob, 5 s ago: running: waiting for off`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	quiet := strings.Join(v.picture(overview{at: now, racks: busy(now).racks[:1], nodes: hall(2, power.On)}, 80, 24), "\n")
	if !strings.Contains(quiet, "ATTENTION\n  nothing wants attention\n\nOPERATIONS\n  none is under way") {
		t.Errorf("\n%s", quiet)
	}
}

// TestTopFitsAnyTerminal draws any site on terminals of any size.
func TestTopFitsAnyTerminal(t *testing.T) {
	now := time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)
	v := view{printer.Printer{Format: "table", Clock: printer.Clock{Now: func() time.Time { return now }, Zone: time.UTC}}}
	rapid.Check(t, func(t *rapid.T) {
		o := busy(now)
		racks := o.racks
		o.racks = nil
		for range rapid.IntRange(0, 50).Draw(t, "racks") {
			o.racks = append(o.racks, racks...)
		}
		o.attention = o.attention[:rapid.IntRange(0, 12).Draw(t, "attention")]
		o.ops = o.ops[:rapid.IntRange(0, 13).Draw(t, "ops")]
		if rapid.Bool().Draw(t, "away") {
			o.wrong = "central is not there\x1b[31m"
		}
		columns, lines := rapid.IntRange(1, 200).Draw(t, "columns"), rapid.IntRange(1, 60).Draw(t, "lines")
		got := v.picture(o, columns, lines)
		if len(got) > lines {
			t.Fatalf("%d lines on a terminal of %d:\n%s", len(got), lines, strings.Join(got, "\n"))
		}
		for _, line := range got {
			if w := term.Width(line); w >= columns && w > 0 || strings.ContainsRune(line, 27) {
				t.Fatalf("%d columns on a terminal of %d: %q", w, columns, line)
			}
		}
		for _, title := range []string{"RACKS", "ATTENTION", "OPERATIONS"} {
			if columns > 20 && lines > 8 && !slices.Contains(got, title) {
				t.Fatalf("no %s on %dx%d:\n%s", title, columns, lines, strings.Join(got, "\n"))
			}
		}
	})
}

func TestTopOnATerminal(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	f.racks = []api.Rack{{Name: "r1", Agent: "r1", Nodes: 3}}
	f.attention = []api.Attention{{Severity: api.SeverityCritical, Message: "rack r1 is on fire"}}
	expect(t, "without a terminal", f.run("top"), 2, "", "it needs a terminal, to draw on and to read keys from: rackpower status")
	expect(t, "for programs", f.run("top -o json"), 2, "", "are for programs")
	expect(t, "too often", f.run("top --interval 1ms"), 2, "", "--interval: 1ms is less than 100ms")

	for name, end := range map[string]func(*terminal, context.CancelCauseFunc){
		"by q":        func(tt *terminal, _ context.CancelCauseFunc) { _, _ = tt.keys.WriteString("xq") },
		"by Ctrl-C":   func(tt *terminal, _ context.CancelCauseFunc) { _, _ = tt.keys.Write([]byte{3}) },
		"by a signal": func(_ *terminal, cancel context.CancelCauseFunc) { cancel(errors.New("a signal")) },
	} {
		t.Run(name, func(t *testing.T) {
			tt := newTerminal(t, 80, 24)
			f.screen = tt.screen
			before, err := unix.IoctlGetTermios(int(tt.screen.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			done := make(chan ran)
			go func() { done <- f.runContext(ctx, []string{"top", "--interval", "100ms", "--no-color"}) }()
			waitFor(t, func() bool { return strings.Contains(tt.written(), "rack r1 is on fire") })
			f.mu.Lock()
			f.nodes[0].State = power.Off
			f.mu.Unlock()
			waitFor(t, func() bool { return strings.Contains(tt.written(), "3 nodes: 2 on, 1 off") })
			end(tt, cancel)
			if got := <-done; got.exit != 0 || got.errs != "" {
				t.Errorf("%+v", got)
			}
			after, err := unix.IoctlGetTermios(int(tt.screen.Fd()), unix.TCGETS)
			if err != nil || !reflect.DeepEqual(after, before) {
				t.Errorf("the terminal is not as it was: %+v, %v", after, err)
			}
			waitFor(t, func() bool { return strings.HasSuffix(tt.written(), "\x1b[?25h\x1b[?1049l") })
			f.mu.Lock()
			f.nodes[0].State = power.On
			f.mu.Unlock()
		})
	}
}

func TestTopSaysThatCentralIsAway(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	tt := newTerminal(t, 80, 24)
	f.screen = tt.screen
	f.seen = func(look int) {
		if look > 1 {
			panic(http.ErrAbortHandler)
		}
	}
	done := make(chan ran)
	go func() { done <- f.runContext(t.Context(), []string{"top", "--interval", "10h", "--no-color"}) }()
	waitFor(t, func() bool { return strings.Contains(tt.written(), "3 nodes: 3 on") })
	f.happens <- struct{}{}
	waitFor(t, func() bool { return strings.Contains(tt.written(), "no news for ") })
	if !strings.Contains(tt.written(), "3 nodes: 3 on") {
		t.Error("what was known is not shown any more")
	}
	_, _ = tt.keys.WriteString("q")
	if got := <-done; got.exit != 0 || got.errs != "" {
		t.Errorf("%+v", got)
	}
}

// TestTopAsksWhenSomethingHappens has an interval that is longer than the test.
func TestTopAsksWhenSomethingHappens(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	tt := newTerminal(t, 80, 24)
	f.screen = tt.screen
	done := make(chan ran)
	go func() { done <- f.runContext(t.Context(), []string{"top", "--interval", "10h", "--no-color"}) }()
	waitFor(t, func() bool { return strings.Contains(tt.written(), "3 nodes: 3 on") })
	f.mu.Lock()
	f.nodes[0].State = power.Off
	f.mu.Unlock()
	f.happens <- struct{}{}
	waitFor(t, func() bool { return strings.Contains(tt.written(), "3 nodes: 2 on, 1 off") })
	tt.resize(60, 10)
	f.mu.Lock()
	f.nodes[1].State = power.Off
	f.mu.Unlock()
	_, _ = tt.keys.WriteString(" ")
	waitFor(t, func() bool { return strings.Contains(tt.written(), "3 nodes: 1 on, 2 off") })
	_, _ = tt.keys.WriteString("q")
	if got := <-done; got.exit != 0 || got.errs != "" {
		t.Errorf("%+v", got)
	}
}
