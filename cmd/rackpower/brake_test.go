package main

import (
	"encoding/json"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestBrake(t *testing.T) {
	nobodyToAsk(t)
	f := newFake(t, hall(40, power.On)...)
	f.racks = []api.Rack{{Name: "r1"}, {Name: "r2"}}
	expect(t, "none", f.run("brake show"), 0, "no brake holds\n", "")
	expect(t, "none", f.run("brake show -o json"), 0, "[]\n", "")
	expect(t, "none", f.run("brake release --reason x"), 0, "no brake holds: there is nothing to release\n", "")
	f.brakes = []api.RackBrake{{Rack: "r1", Brake: *cutBrake(time.Now())}}
	want := `rack:          r1
message:       30 of 40 nodes would be powered off at once
kind:          cut: too many would lose power at once
since:         TIME
nodes:         r1n[01-30] (30 of 40)
to release:    `
	expectExactly(t, "show", f.run("brake show"), 0, want+"rackpower brake release r1 --reason TEXT\n")
	expectExactly(t, "show", f.run("local brake show"), 0, want+"rackpower local brake release\n")
	expect(t, "other rack", f.run("brake show r2"), 0, "no brake holds\n", "")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(f.run("brake show -o json").out), &rows); err != nil || rows[0]["rack"] != "r1" ||
		rows[0]["kind"] != "cut" {
		t.Errorf("%v %v", err, rows)
	}
	expect(t, "many", f.run("brake release r1 --reason x"), 2, "", "30 nodes will lose power: r1n[01-30]; nothing was done: confirm with --yes")
	expect(t, "many", f.run("local brake release"), 2, "", "30 nodes will lose power: r1n[01-30]; nothing was done: confirm with --yes")
	expect(t, "--yes", f.run("brake release --reason x --yes"), 0, "rack r1: released; the monitor corrects r1n[01-30]\n", "")
	expect(t, "local", f.run("local brake release --yes"), 0, "rack r1: released; the monitor corrects r1n[01-30]\n", "")
	if r := f.releases; len(r) != 2 || len(r[0].Racks) != 1 || r[0].Racks[0] != "r1" || r[0].Reason != "x" || len(r[1].Racks) != 0 ||
		r[1].AskedBy != "tester" {
		t.Errorf("%+v", r)
	}
	f.brakes[0].Kind = "drift"
	for i := range f.nodes {
		f.nodes[i].Desired = power.WantOn
	}
	expect(t, "drift", f.run("brake release r1 --reason x"), 0, "rack r1: released", "") // all of them are turned on
}
