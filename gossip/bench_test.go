package gossip

import (
	"fmt"
	"testing"

	"rackpower/power"
)

// hall makes the table of n agents of 40 nodes.
func hall(n int) *table {
	t := newTable()
	for i := range n {
		o := &own{epoch: 1}
		o.take(rack(agentName(i), 40, power.On), now)
		b, _ := o.plan(now, agentName(i), testRest, testGap)
		for _, m := range b.messages {
			t.merge(m, now)
		}
	}
	return t
}

// BenchmarkDecodeMerge is what an event costs beyond Serf, new or known.
func BenchmarkDecodeMerge(b *testing.B) {
	t := hall(100)
	data := powerOf(agentName(7), 1, 1, 2, rack(agentName(7), 40, power.Off)...).encode()
	b.ReportMetric(float64(len(data)), "bytes")
	for b.Loop() {
		m, err := decode(data)
		if err != nil {
			b.Fatal(err)
		}
		t.merge(m, now)
	}
}

// BenchmarkCompare is what the digests of an exchange cost when one record of all
// differs.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			one, two := hall(n), hall(n)
			one.merge(powerOf(agentName(7), 1, 1, 2, rack(agentName(7), 40, power.Off)...), now)
			size := 0
			for b.Loop() {
				digest := encodeDigest(crowd{}, two.briefs(now))
				size = len(digest)
				f, err := decodeFrame(digest)
				if err != nil {
					b.Fatal(err)
				}
				if items, _ := one.lacking(f.briefs, now); len(items) != 1 {
					b.Fatal(len(items))
				}
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// BenchmarkPeers is what showing a fleet of 4,000 nodes costs.
func BenchmarkPeers(b *testing.B) {
	t := hall(100)
	for b.Loop() {
		if len(t.peers(now)) != 100 {
			b.Fatal("agents are missing")
		}
	}
}

// TestAKnownRecordAllocatesLittle: most of what a member hears it knows already.
func TestAKnownRecordAllocatesLittle(t *testing.T) {
	known := hall(100)
	data := powerOf(agentName(7), 1, 1, 2, rack(agentName(7), 40, power.Off)...).encode()
	n := testing.AllocsPerRun(100, func() {
		m, err := decode(data)
		if err != nil {
			t.Fatal(err)
		}
		known.merge(m, now)
	})
	if n > 16 {
		t.Errorf("%v allocations for a record of 40 nodes that is known, at most 16 are meant to be", n)
	}
}
