package cmd_test

import (
	"fmt"
	"testing"
	"time"

	"rackpower/central/loadtest"
)

// benchGrowth shows what a node costs an agent, and an agent with its nodes central, from few
// to many: a cost that grows with the size of the fleet shows as a line that rises.
func benchGrowth(b *bench, t *testing.T) {
	plot := func(plot, unit string, x int, values ...float64) {
		s := series{Values: values}
		b.lines = append(b.lines, benchLine{
			Row: fmt.Sprintf("growth: %s, %d", plot, x), Unit: unit, Ours: s, Quantile: 0.5, Plot: plot, X: float64(x),
		})
		b.say("%s, %d: %s", plot, x, amount(s.median(), unit))
	}
	for _, nodes := range []int{10, 50, 250, 1000, 2500, 5000} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			f := b.newFleet(t, nodes, "off")
			pid := f.pid("r1")
			round := f.client(says("  off ", nodes), "local", "status", "--fresh", "--timeout", "60s")
			round() // sessions are open
			each := float64(nodes)
			var took, cpu, memory series
			for range b.runs {
				before := cpuOf(pid)
				took.add(figure{value: 1000 * round().value / each})
				cpu.add(figure{value: float64(cpuOf(pid)-before) / 1000 / each})
				memory.add(figure{value: 1000 * resident(pid)})
			}
			plot("agent, time of a round per node", "us", nodes, took.Values...)
			plot("agent, CPU of a round per node", "us", nodes, cpu.Values...)
			plot("agent, memory", "KB", nodes, memory.Values...)
		})
	}
	for _, agents := range []int{10, 100, 500, 1000, 2500} {
		t.Run(fmt.Sprintf("%d agents", agents), func(t *testing.T) {
			b.say("central with %d agents of 40 nodes each", agents)
			size := loadtest.Size{Agents: agents, NodesEach: 40}
			for _, r := range measureCentral(t, loadtest.Plan{Size: size, Only: "steady", Lasts: 10 * time.Second, Repeat: 1}) {
				switch r.Unit {
				case "% of a core":
					plot("central, CPU a second per agent", "us", agents, 10_000*r.Value/float64(agents))
				case "MB":
					plot("central, memory", r.Unit, agents, r.Value)
				case "ms":
					plot("central, p99 of an answer", r.Unit, agents, r.Value)
				}
			}
		})
	}
}
