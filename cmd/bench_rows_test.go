package cmd_test

import (
	"testing"

	"rackpower/power"
)

// Targets are those of the present aim; BENCHMARKS.md says which are missed and why.
var benchGroups = []benchGroup{
	{"one", []string{"status NODE --fresh", "on NODE, on already", "reset NODE"}, benchOne},
}

// benchOne is what people and scripts do with one node.
func benchOne(b *bench, t *testing.T) {
	f := b.newFleet(t, 300, "off")
	f.mustRun("status", "all", "--fresh") // sessions are open
	node := f.name(0)
	b.measure(benchRow{
		name: "status NODE --fresh", unit: "ms", ours: f.client(says(node+"  off", 1), "status", node, "--fresh"), atMost: 25,
		baselines: []baseline{f.ipmipower(1, says(": off", 1), "--stat"), f.ipmitool(says("is off", 1), "power", "status")},
	})
	f.turned(power.On)()
	b.measure(benchRow{
		name: "on NODE, on already", unit: "ms", ours: f.client(says(node+" on", 1), "on", node), atMost: 35, p99: 60,
		runs:      max(100, b.runs), // for the 99th of 100
		baselines: []baseline{f.ipmipower(1, says(": ok", 1), "--on", "--wait-until-on")},
	})
	b.measure(benchRow{
		name: "reset NODE", unit: "ms", ours: f.client(says(node+" ", 1), "reset", node), atMost: 60,
		baselines: []baseline{f.ipmipower(1, says(": ok", 1), "--reset")},
	})
}
