package agent

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/powertest"
)

func benchAgent(b *testing.B, dir string, nodes int) *Agent {
	b.Helper()
	return benchAgentOver(b, dir, nodes, powertest.NewFake())
}

func benchAgentOver(b *testing.B, dir string, nodes int, fake *powertest.Fake) *Agent {
	b.Helper()
	a, err := New(Config{
		Name: "r1", Dir: dir, Dial: fake.Dial, Probe: fake.Probe, Monitor: MonitorOff, Logger: slog.New(slog.DiscardHandler),
		Timing: Timing{FirstLook: time.Millisecond},
	})
	if err != nil {
		b.Fatal(err)
	}
	var list []api.AssignedNode
	for i := range nodes {
		list = append(list, api.AssignedNode{
			Name: fmt.Sprintf("n%05d", i), BMC: fmt.Sprintf("ipmi://admin@bmc%d", i), Password: "x",
			Desired: power.Desired{Want: power.HandsOff},
		})
	}
	if err := a.apply(api.Assignment{Nodes: list, Rev: 1}, theCentral); err != nil {
		b.Fatal(err)
	}
	return a
}

// BenchmarkStart opens an agent with nodes whose desired power is known, and with operations
// outstanding on some of them.
func BenchmarkStart(b *testing.B) {
	for _, size := range []struct{ nodes, ops int }{{1000, 0}, {1000, 1000}, {5000, 0}} {
		b.Run(fmt.Sprintf("%dnodes-%dops", size.nodes, size.ops), func(b *testing.B) {
			dir := b.TempDir()
			a := benchAgent(b, dir, size.nodes)
			for i := range size.ops {
				if _, err := a.Submit(power.Op{ID: fmt.Sprint(i), Node: fmt.Sprintf("n%05d", i), Action: power.ActOn, AskedBy: "b"}); err != nil {
					b.Fatal(err)
				}
			}
			a.monitor.Pass(time.Now())
			if err := a.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				a, err := New(a.cfg)
				if err != nil {
					b.Fatal(err)
				}
				if got := len(a.outbox.unacknowledged()); got != size.ops {
					b.Fatalf("%d outstanding", got)
				}
				b.StopTimer()
				_ = a.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkAccept measures acceptances, each durable, beside bare appends to the
// same journal.
func BenchmarkAccept(b *testing.B) {
	for _, bare := range []bool{true, false} {
		b.Run(map[bool]string{true: "bare-append", false: "submit"}[bare], func(b *testing.B) {
			a := benchAgent(b, b.TempDir(), 1000)
			defer a.Close()
			n := 0
			payload := acceptedRecord{Op: power.Op{Node: "n00000", Action: power.ActOn, AskedBy: "b"}.WithDefaults(time.Now())}
			for b.Loop() {
				n++
				var err error
				if bare {
					_, err = a.log.Append(entry(1, kindAccepted, fmt.Sprint(n), payload))
				} else {
					_, err = a.Submit(power.Op{
						ID: fmt.Sprint(n), Node: fmt.Sprintf("n%05d", n%1000), Action: power.ActOn, AskedBy: "b",
						Options: power.Options{IfBusy: power.Supersede},
					})
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPass is one pass of the monitor over a rack whose nodes were all just read
// and are as they should be: what a moment of a round costs.
func BenchmarkPass(b *testing.B) {
	for _, nodes := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			a := benchAgent(b, b.TempDir(), nodes)
			defer a.Close()
			now := time.Now()
			for _, n := range a.assigned.names() {
				a.readings.saw(n, power.Seen(power.Off, now))
			}
			a.monitor.Pass(now)
			b.ResetTimer()
			for b.Loop() {
				a.monitor.Pass(now)
			}
		})
	}
}

// BenchmarkReadingWithHungBMCs reads 1,000 nodes of which 5 % hang, and as many with
// none that does, as a first round and once the hung are known. It reports how long
// the healthy took and how the two compare.
func BenchmarkReadingWithHungBMCs(b *testing.B) {
	const nodes, latency = 1000, 20 * time.Millisecond
	round := func(a *Agent, hung func(i int) bool) time.Duration {
		var names []string
		healthy := map[string]bool{}
		for i := range nodes {
			name := fmt.Sprintf("n%05d", i)
			names, healthy[name] = append(names, name), !hung(i)
		}
		began, last := time.Now(), atomic.Int64{}
		a.poller.readNodes(a.ctx, names, 0, func(name string) {
			if took := time.Since(began); healthy[name] && int64(took) > last.Load() {
				last.Store(int64(took))
			}
		})
		return time.Duration(last.Load())
	}
	measure := func(hung func(i int) bool) (first, steady time.Duration) {
		fake := powertest.NewFake()
		a := benchAgentOver(b, b.TempDir(), nodes, fake)
		defer a.Close()
		for i := range nodes {
			bmc := fake.BMC(fmt.Sprintf("bmc%d", i))
			bmc.SetLatency(latency)
			bmc.SetTimeout(2 * time.Second) // a driver would wait longer
			bmc.SetMute(hung(i))
		}
		first = round(a, hung)
		round(a, hung)
		return first, round(a, hung)
	}
	var first, steady [2]time.Duration
	n := 0
	for b.Loop() {
		n++
		for i, hung := range []func(int) bool{func(int) bool { return false }, func(i int) bool { return i%20 == 7 }} {
			f, s := measure(hung)
			first[i] += f
			steady[i] += s
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(n) }
	b.ReportMetric(ms(first[0]), "first-ms")
	b.ReportMetric(ms(first[1]), "first-hung-ms")
	b.ReportMetric(float64(first[1])/float64(first[0]), "first-ratio")
	b.ReportMetric(ms(steady[0]), "steady-ms")
	b.ReportMetric(ms(steady[1]), "steady-hung-ms")
	b.ReportMetric(float64(steady[1])/float64(steady[0]), "steady-ratio")
	b.ReportMetric(0, "ns/op")
}
