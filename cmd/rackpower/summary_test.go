package main

import (
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

func TestSummaryFoldsWhatIsAlike(t *testing.T) {
	f := newFake(t, hall(40, power.On)...)
	f.nodes[38].State = power.Off
	for i := range 2 {
		n := &f.nodes[i]
		n.Drift, n.Waits, n.WaitsUntil = true, power.ReasonBrake, time.Now().Add(time.Duration(i)*time.Minute)
	}
	f.nodes[5].Fault, f.nodes[5].Drift = "3 corrections failed", true
	f.nodes[6].Stale, f.nodes[6].Reach = true, power.ReachUnreachable
	want := `r1n[01-02] on, drift: brake
r1n[03-05,08-38,40] on
r1n06 on, fault: 3 corrections failed
r1n07 on (stale), unreachable
r1n39 off
40 nodes: 39 on, 1 off; 1 in fault, 2 in drift, 1 stale
`
	expectExactly(t, "summary", f.run("status --summary"), 0, want)
	expectExactly(t, "of some", f.run("status -s r1n[01-02]"), 0, "r1n[01-02] on, drift: brake\n2 nodes: 2 on; 2 in drift\n")
	expect(t, "for programs", f.run("status --summary -o jsonl @r1&r1n39"), 0, `{"nodes":"r1n39","count":1,"what":"off"}`+"\n", "")
	expect(t, "both", f.run("status --summary --long"), 2, "", "exclude each other")
	if got := f.run("status"); strings.Count(got.out, "\n") != 41 {
		t.Errorf("it is folded without a terminal:\n%s", got.out)
	}
	f.clock.Zone = time.UTC
	screen := newTerminal(t, 80, 24)
	f.screen = screen.screen
	if got := f.run("status --no-color"); got.exit != 0 {
		t.Fatal(got)
	}
	waitFor(t, func() bool { return strings.Contains(screen.written(), "for each\r\n") })
	if got := strings.ReplaceAll(screen.written(), "\r", ""); got != want+"--long shows a line for each\n" {
		t.Errorf("on a terminal:\n%s", got)
	}
	f.run("status --no-color --long")
	waitFor(t, func() bool { return strings.Contains(screen.written(), "\nr1n40  on ") })
	before := len(screen.written())
	f.run("status --no-color r1n[01-20]")
	waitFor(t, func() bool { return strings.Contains(screen.written()[before:], "\nr1n20  on ") })
}

// waitFor waits until something is so.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about")
		}
	}
}

func TestManyUnevenNodesAreBrokenAtCommas(t *testing.T) {
	f := newFake(t, hall(99, power.On)...)
	for i := range f.nodes {
		if i%2 == 0 {
			f.nodes[i].State = power.Off
		}
	}
	screen := newTerminal(t, 60, 24)
	f.screen = screen.screen
	f.run("status --no-color")
	waitFor(t, func() bool { return strings.Contains(screen.written(), "99 nodes: 49 on, 50 off\r\n") })
	for _, line := range strings.Split(screen.written(), "\r\n") {
		if len(line) > 60 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

func TestGoTemplate(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	got := f.runContext(t.Context(), []string{"status", "-o", "go-template={{range .}}{{.name}}={{.state}} {{end}}"})
	expect(t, "status", got, 0, "r1n01=on r1n02=on ", "")
	expect(t, "none", f.run("status @state:off -o go-template={{len_.}}"), 2, "", "function \"len_\" not defined")
	expect(t, "none", f.run("status @state:off -o go-template={{len}}"), 1, "", "len")
	expect(t, "bad", f.run("status -o go-template={{.name"), 2, "", "unclosed action")
	expect(t, "other", f.run("status -o templates"), 2, "", "name, go-template=TEXT")
}
