package cmd_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// Targets are those of the present aim; BENCHMARKS.md says which are missed and why.
var benchGroups = []benchGroup{
	{name: "one", rows: []string{"status NODE --fresh", "on NODE, on already", "reset NODE"}, run: benchOne},
	{name: "all", rows: eachSize("status all, %d", "status all at rack, %d", "on all, %d", "off all, %d", "2,000 accepted"), run: benchAll},
	{name: "sessions", rows: append(eachSize("status all, %d, log-ins"), "slow BMCs, log-ins", "slow BMCs, sessions"), run: benchSessions},
	{name: "faults", rows: []string{"5 % hung, read the rest", "5 % hung, on for the rest", "1 % lost, status all"}, run: benchFaults},
	{name: "start", rows: []string{"kill -9 to serving, 1000", "kill -9 to serving, 5000"}, run: benchStart},
	{name: "rest", rows: []string{"at rest, 1000", "at rest, 5000", "memory, 1000", "memory, 5000"}, run: benchRest},
	{name: "central", rows: []string{"central"}, run: benchCentral},
	{name: "growth", rows: []string{"growth"}, run: benchGrowth, apart: true},
}

func eachSize(rows ...string) (list []string) {
	for _, row := range rows {
		for _, size := range []int{300, 2000} {
			list = append(list, strings.Replace(row, "%d", strconv.Itoa(size), 1))
		}
	}
	return list
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

// benchAll is the same with all nodes of a rack, over sessions that are kept.
func benchAll(b *bench, t *testing.T) {
	for _, size := range []int{300, 2000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := b.newFleet(t, size, "off")
			f.mustRun("status", "all", "--fresh")
			target := func(small, large float64) float64 {
				if size == 300 {
					return small
				}
				return large
			}
			ipmipower := f.ipmipower(size, says(": off", size), "--stat")
			b.measure(benchRow{
				name: fmt.Sprintf("status all, %d", size), unit: "ms", ours: f.client(says("  off ", size), "status", "all", "--fresh"),
				baselines: []baseline{ipmipower.within(0.2, 0), f.powerman(0.2)},
			}, benchRow{
				name: fmt.Sprintf("status all at rack, %d", size), unit: "ms",
				ours:      f.client(says("  off ", size), "local", "status", "--fresh"),
				baselines: []baseline{f.rawUDP().within(1.5, 0), ipmipower},
			})
			b.measure(benchRow{
				name: fmt.Sprintf("on all, %d", size), unit: "ms", before: f.turned(power.Off), atMost: target(2300, 2800),
				ours:      f.switched(power.On, "on", "all"),
				baselines: []baseline{f.ipmipower(size, says(": ok", size), "--on", "--wait-until-on")},
			}, benchRow{
				name: fmt.Sprintf("off all, %d", size), unit: "ms", before: f.turned(power.On), atMost: target(3300, 3800),
				ours:      f.switched(power.Off, "off", "all", "--yes"),
				baselines: []baseline{f.ipmipower(size, says(": ok", size), "--off", "--wait-until-off")},
			})
			if size < 2000 {
				return
			}
			b.measure(benchRow{
				name: "2,000 accepted", unit: "ms", atMost: 200,
				ours:      f.client(func(string) error { return nil }, "on", "all", "--wait", "accepted", "-o", "name"),
				before:    func() { f.turned(power.On)(); f.quiet() },
				baselines: []baseline{f.flushes(size), f.insertions(size)},
			})
		})
	}
}

// switched is client for a command after which all nodes are in a state, as the BMCs see it.
func (f *fleet) switched(want power.State, args ...string) func() figure {
	run := f.client(func(string) error { return nil }, args...)
	return func() figure {
		f.t.Helper()
		took := run()
		f.are(want)
		return took
	}
}

// quiet waits until nothing is outstanding at the agent.
func (f *fleet) quiet() {
	f.t.Helper()
	f.until(time.Minute, "nothing is outstanding", func() bool {
		found, err := f.agent.QueryOps(f.t.Context(), api.QueryOps{Outstanding: true})
		return err == nil && len(found.Ops) == 0
	})
}

// benchSessions is status all with a log-in at each BMC, and BMCs that are far away.
func benchSessions(b *bench, t *testing.T) {
	small, large, slow := b.newFleet(t, 300, "off"), b.newFleet(t, 2000, "off"), b.newFleet(t, 300, "off")
	rows := []benchRow{}
	for _, f := range []*fleet{small, large} {
		rows = append(rows, benchRow{
			name: fmt.Sprintf("status all, %d, log-ins", f.size), unit: "ms", first: f.sessionsEnd,
			ours:      f.client(says("  off ", f.size), "local", "status", "--fresh"),
			baselines: []baseline{f.ipmipower(f.size, says(": off", f.size), "--stat").within(0.7, 0.5)},
		})
	}
	const delay = 20 * time.Millisecond // each way and back: a log-in takes five times as long
	read := slow.client(says("  off ", slow.size), "local", "status", "--fresh")
	near := func() (took float64, packets int) {
		before := slow.datagrams()
		took = read().value
		return took, slow.datagrams() - before
	}
	// What no client can do without: the packets of one BMC one after the other, and what
	// the same takes with BMCs that are near.
	ideal := func() baseline {
		took, packets := near()
		return baseline{name: power.Count(packets, "packet"), times: 1.3, run: func() figure {
			return figure{value: float64(packets)*float64(delay)/1e6 + took}
		}}
	}
	loggedIn, kept := ideal(), ideal()
	wait := bmcsim.Duration(delay)
	slow.fault("", bmcsim.Fault{Delay: &wait})
	b.measure(append(rows, benchRow{
		name: "slow BMCs, log-ins", unit: "ms", first: slow.sessionsEnd, ours: read, baselines: []baseline{loggedIn},
	})...)
	b.measure(benchRow{name: "slow BMCs, sessions", unit: "ms", ours: read, baselines: []baseline{kept}})
}

// datagrams is how many reached the first BMC.
func (f *fleet) datagrams() int {
	f.t.Helper()
	return f.views()[0].Datagrams
}

// benchFaults is what BMCs that do not answer, and lost packets, cost the others.
func benchFaults(b *bench, t *testing.T) {
	healthy, hung := b.newFleet(t, 300, "off"), b.newFleet(t, 300, "off")
	for _, f := range []*fleet{healthy, hung} {
		f.mustRun("status", "all", "--fresh")
	}
	mute := true
	for i := range 15 { // 5 %
		hung.fault(hung.name(i), bmcsim.Fault{Mute: &mute})
	}
	rest := fmt.Sprintf("n[00016-%05d]", hung.size)
	var reads sync.WaitGroup
	defer reads.Wait()
	// beside has every node read by somebody else, those that hang too, while the healthy
	// are asked for.
	beside := func(f *fleet, run func() figure) func() figure {
		return func() figure {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			var names []string
			for i := range f.size {
				names = append(names, f.name(i))
			}
			reads.Go(func() {
				defer cancel()
				_, _ = f.agent.ReadNodes(ctx, api.ReadNodes{Names: names, Wait: 5 * time.Second})
			})
			return run()
		}
	}
	status := func(f *fleet) func() figure {
		return beside(f, f.client(func(out string) error {
			if n := strings.Count(out, "  off ") + strings.Count(out, "  on "); n != 285 {
				return fmt.Errorf("%d nodes were read", n)
			}
			return nil
		}, "local", "status", rest, "--fresh"))
	}
	b.measure(benchRow{
		name: "5 % hung, read the rest", unit: "ms", ours: status(hung),
		baselines: []baseline{{name: "none hung", times: 1.2, run: status(healthy)}},
	})
	on := func(f *fleet) func() figure {
		return beside(f, f.client(says("on", 1), "local", "on", rest, "--yes"))
	}
	b.measure(benchRow{
		name: "5 % hung, on for the rest", unit: "ms", before: func() { healthy.turned(power.Off)(); hung.turned(power.Off)() }, ours: on(hung),
		baselines: []baseline{{name: "none hung", times: 1.2, run: on(healthy)}},
	})
	lost := 0.01
	lossy := b.newFleet(t, 300, "off")
	all := func(f *fleet) func() figure {
		return f.client(says("\nn00", f.size), "local", "status", "--fresh")
	}
	all(lossy)()
	lossy.fault("", bmcsim.Fault{LossRx: &lost, LossTx: &lost})
	b.measure(benchRow{
		name: "1 % lost, status all", unit: "ms", ours: all(lossy),
		baselines: []baseline{{name: "none lost", run: all(healthy)}, lossy.ipmipower(lossy.size, says(": o", lossy.size), "--stat")},
	})
}

// benchStart kills an agent and starts it again.
func benchStart(b *bench, t *testing.T) {
	for size, atMost := range map[int]float64{1000: 50, 5000: 150} {
		name := fmt.Sprintf("kill -9 to serving, %d", size)
		if !b.wants(name) {
			continue
		}
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := b.newFleet(t, size, "@every 60s")
			f.mustRun("local", "status", "--fresh", "--timeout", "60s", "--socket", f.agentSocket("r1"))
			b.measure(benchRow{
				name: name, unit: "ms", atMost: atMost,
				before: func() { f.kill("r1") },
				ours: func() figure {
					began := time.Now()
					f.startMonitor("r1", "@every 60s")
					for {
						info, err := f.agent.Info(t.Context())
						if err == nil && info.Nodes == size {
							return figure{value: float64(time.Since(began)) / 1e6, cpu: cpuOf(f.pid("r1"))}
						}
						if time.Since(began) > time.Minute {
							t.Fatal("the agent does not serve")
						}
						time.Sleep(time.Millisecond)
					}
				},
				baselines: []baseline{{name: "version", run: f.client(says("rackpower", 1), "version")}},
			})
		})
	}
}

// benchRest is what an agent takes that nobody asks anything, over whole rounds of readings.
func benchRest(b *bench, t *testing.T) {
	const round = time.Minute
	sizes := map[int]struct{ cpu, memory float64 }{1000: {1, 40}, 5000: {5, 120}}
	fleets := map[int]*fleet{}
	for size := range sizes {
		if b.wants(fmt.Sprintf("at rest, %d", size), fmt.Sprintf("memory, %d", size)) {
			fleets[size] = b.newFleet(t, size, "@every 60s")
		}
	}
	time.Sleep(round) // the first readings, and what a start leaves behind
	cpu, memory := map[int]*series{}, map[int]*series{}
	for range min(b.runs, 3) { // each is an average over a minute
		before := map[int]time.Duration{}
		for size, f := range fleets {
			before[size] = cpuOf(f.pid("r1"))
		}
		began := time.Now()
		time.Sleep(round)
		took := time.Since(began)
		for size, f := range fleets {
			if cpu[size] == nil {
				cpu[size], memory[size] = &series{}, &series{}
			}
			cpu[size].add(figure{value: 100 * float64(cpuOf(f.pid("r1"))-before[size]) / float64(took)})
			memory[size].add(figure{value: resident(f.pid("r1"))})
		}
	}
	for size, f := range fleets {
		const part = 1000 // ipmipower does not do 5,000 at once
		other := f.ipmipower(part, says(": off", part), "--stat")
		var others series
		if other.run != nil {
			others.add(figure{value: 100 * float64(other.run().cpu) / float64(round) * float64(size) / part})
		}
		b.add(benchRow{name: fmt.Sprintf("at rest, %d", size), unit: "%", atMost: sizes[size].cpu, baselines: []baseline{other}}, *cpu[size],
			[]series{others})
		b.add(benchRow{name: fmt.Sprintf("memory, %d", size), unit: "MB", atMost: sizes[size].memory}, *memory[size], nil)
	}
}

func (f *fleet) pid(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[name].Process.Pid
}

// resident is the memory of a process in MB.
func resident(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		pages, _ := strconv.ParseFloat(fields[1], 64)
		return pages * float64(os.Getpagesize()) / 1e6
	}
	return 0
}
