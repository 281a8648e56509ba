package agent

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/powertest"
)

func benchAgent(b *testing.B, dir string, nodes int) *Agent {
	b.Helper()
	a, err := New(Config{
		Name: "r1", Dir: dir, Dial: powertest.NewFake().Dial, Monitor: MonitorOff, Logger: slog.New(slog.DiscardHandler),
		Timing: Timing{FirstLook: time.Millisecond},
	})
	if err != nil {
		b.Fatal(err)
	}
	var list []api.AssignedNode
	for i := range nodes {
		list = append(list, api.AssignedNode{Name: fmt.Sprintf("n%05d", i), BMC: fmt.Sprintf("ipmi://admin@bmc%d", i), Password: "x", Desired: power.Desired{Want: power.HandsOff}})
	}
	if err := a.apply(api.Assignment{Nodes: list, Rev: 1}, "central"); err != nil {
		b.Fatal(err)
	}
	return a
}

// BenchmarkStart1000 opens an agent with 1,000 nodes and an operation outstanding
// on each.
func BenchmarkStart1000(b *testing.B) {
	dir := b.TempDir()
	a := benchAgent(b, dir, 1000)
	for i := range 1000 {
		if _, err := a.Submit(power.Op{ID: fmt.Sprint(i), Node: fmt.Sprintf("n%05d", i), Action: power.ActOn, AskedBy: "b"}); err != nil {
			b.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		a, err := New(a.cfg)
		if err != nil {
			b.Fatal(err)
		}
		if got := len(a.outbox.unacknowledged()); got != 1000 {
			b.Fatalf("%d outstanding", got)
		}
		b.StopTimer()
		_ = a.Close()
		b.StartTimer()
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
					_, err = a.Submit(power.Op{ID: fmt.Sprint(n), Node: fmt.Sprintf("n%05d", n%1000), Action: power.ActOn, AskedBy: "b", IfBusy: power.Supersede})
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
			for _, n := range a.nodeNames() {
				a.readings.saw(n, power.Seen(power.Off, now))
			}
			a.monitor.pass(now)
			b.ResetTimer()
			for b.Loop() {
				a.monitor.pass(now)
			}
		})
	}
}
