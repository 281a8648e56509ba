package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// impatient has wait look at once.
func impatient(t *testing.T) {
	old := waitEvery
	waitEvery = time.Millisecond
	t.Cleanup(func() { waitEvery = old })
}

func TestWaitEndsWhenAllAreSo(t *testing.T) {
	impatient(t)
	f := newFake(t, hall(4, power.Off)...)
	f.nodes[1].State = power.On
	f.seen = func(look int) {
		if look > 3 {
			f.nodes[1].State = power.Off
		}
	}
	expect(t, "off", f.run("wait r1n[01-04] --for off"), 0, "r1n[01-04] off\n", "")
	if len(f.selects) != 4 || f.selects[3] != "r1n[01-04]" {
		t.Errorf("asked for %q", f.selects)
	}
	expect(t, "what is so", f.run("wait @state:off --for off -o name"), 0, "r1n01\nr1n02\nr1n03\nr1n04\n", "")
}

func TestWaitNamesWhatHasNotCome(t *testing.T) {
	impatient(t)
	f := newFake(t, hall(3, power.Off)...)
	f.nodes[1].State, f.nodes[1].Op = power.On, &api.OpBrief{ID: "1", Action: power.ActOff, AskedBy: "bob", Phase: "running"}
	f.nodes[1].Pending = true
	got := f.run("wait all --for settled --timeout 50ms")
	expect(t, "settled", got, 4, "r1n[01,03] off\nr1n02 not settled: on, pending, off by bob: running\n", "1 of 3 nodes not settled: r1n02")
	f.nodes[2].Stale = true
	expect(t, "stale", f.run("wait all --for off --timeout 50ms"), 4, "r1n03 not off: off (stale)", "2 of 3 nodes not off: r1n[02-03]")
	expect(t, "quiet", f.run("wait all --for off --timeout 50ms -q"), 4, "", "2 of 3 nodes not off: r1n[02-03]")
	for args, errs := range map[string]string{
		"wait all":              "--for is missing",
		"wait all --for up":     `--for: unknown "up": want on, off or settled`,
		"wait --for on":         "NODES is missing",
		"wait r9n01 --for on":   "no such node: r9n01",
		"wait r1n* --for=off x": "no such node: x",
	} {
		expect(t, args, f.run(args), 2, "", errs)
	}
}

func TestCancelEndsWhatIsOutstanding(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	for id, node := range map[string]string{"1": "r1n01", "2": "r1n02", "3": "r1n02", "4": "r1n03"} {
		f.know(api.Op{ID: id, Node: node, Action: power.ActCycle, Phase: "waiting"})
	}
	ends(0, power.Succeeded)(f.ops["3"], 0)
	expect(t, "cancel", f.run("cancel r1n[01-02] --reason enough"), 0, "r1n[01-02] cycle ends at its next safe point (waiting)\n", "")
	if slices.Sort(f.cancels); strings.Join(f.cancels, "") != "12" {
		t.Errorf("cancelled %q", f.cancels)
	}
	f.ops = map[string]*api.Op{}
	expect(t, "nothing", f.run("cancel all"), 0, "nothing is outstanding\n", "")
	expect(t, "nothing, for programs", f.run("cancel all -o json"), 0, "[]\n", "")
	expect(t, "no node", f.run("cancel @state:unknown"), 2, "", `no node matches "@state:unknown"`)
	expect(t, "all by accident", f.run("cancel"), 2, "", "NODES is missing")
}

func TestNodesAreExcludedAndReadFromStdin(t *testing.T) {
	f := newFake(t, hall(5, power.On)...)
	f.nodes[4].Name, f.nodes[4].Rack = "db", "r2"
	for _, c := range []struct {
		args, stdin string
		names       string
	}{
		{"status --exclude r1n[01,03]", "", "r1n02 r1n04 db"},
		{"status --exclude r1n01 --exclude r1n*2,db", "", "r1n03 r1n04"},
		{"status r1n[01-03] db --exclude=@r2", "", "r1n01 r1n02 r1n03"},
		{"status !r1n01 --exclude @r2", "", "r1n02 r1n03 r1n04"},
		{"status -", "r1n01\n r1n02 db\n", "r1n01 r1n02 db"},
		{"status - r1n04", "@r2,r1n[01-02]\r\n!r1n01", "r1n02 r1n04 db"},
		{"status - --exclude r1n02", "all", "r1n01 r1n03 r1n04 db"},
		{"status r1n0?&!*[2-4]", "", "r1n01"},
	} {
		got := f.run(c.args+" -o name", c.stdin)
		want := strings.Fields(c.names)
		have := strings.Fields(got.out)
		slices.Sort(want)
		slices.Sort(have)
		if got.exit != 0 || !slices.Equal(have, want) {
			t.Errorf("%s with %q: status %d, %q, want %q: %s", c.args, c.stdin, got.exit, have, want, got.errs)
		}
	}
	f.becomes = ends(0, power.Succeeded)
	expect(t, "a verb", f.run("on - --exclude r1n04", "r1n04 r1n01"), 0, "r1n01 on", "")
	for args, errs := range map[string]string{
		"off -":                     "NODES: stdin names no node",
		"off - -":                   "- is given twice",
		"off all --exclude=":        "--exclude is empty",
		"off all --exclude r1n01,":  "--exclude is empty",
		"off all --exclude r1n09":   "no such node: r1n09",
		"off all --exclude x*":      `no node matches "x*"`,
		"off all --exclude all":     "no node matches",
		"op show 1 --exclude r1n01": "unknown flag --exclude",
	} {
		expect(t, args, f.run(args, " \n"), 2, "", errs)
	}
	if n := len(f.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}
