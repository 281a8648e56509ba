package central

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// BenchmarkWatchOf10000Nodes has ten nodes of 10,000 change, and waits until all who read GET
// /v1/watch know of it: nobody, then 200 with a connection each who read all nodes, then 200 of
// whom each reads one rack of 100. Both sides are in the figures.
func BenchmarkWatchOf10000Nodes(b *testing.B) {
	const racks, ofRack = 100, 100
	r, _ := onTLS(b)
	for i := range racks {
		var specs []api.NodeSpec
		for n := range ofRack {
			specs = append(specs, api.NodeSpec{
				Name: fmt.Sprintf("r%dn%d", i, n), Rack: fmt.Sprintf("r%d", i), BMC: fmt.Sprintf("ipmi://x@bmc-%d-%d", i, n),
			})
		}
		if _, err := r.AddNodes(b.Context(), api.AddNodes{Nodes: specs}); err != nil {
			b.Fatal(err)
		}
	}
	out, err := r.AddUser(b.Context(), api.AddUser{Name: "alice", Role: "viewer"})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		readers int
		nodes   func(i int) string
	}{
		{"nobody", 0, nil},
		{"200 of all", 200, func(int) string { return "all" }},
		{"200 of a rack", 200, func(i int) string { return fmt.Sprintf("@r%d", i%racks) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			heap, idle := inUse(), busy(b)
			last := make([]atomic.Int64, c.readers) // the round that each was told of
			var ready atomic.Int64
			for i := range c.readers {
				client, err := api.NewClient(r.url())
				if err != nil {
					b.Fatal(err)
				}
				defer client.Close()
				client.Secure(auth.Pinned(r.c.tls.ca.Hash(), nil), out.Token)
				go func() {
					in := api.Watch{Nodes: c.nodes(i), Kinds: []string{api.EventNode}}
					for ctx.Err() == nil { // one that was refused, or that ended, goes on
						_ = client.Watch(ctx, in, func(e api.Event) error {
							if in.After == "" {
								ready.Add(1)
							}
							in.After = e.ID
							var round int64
							if e.Node.Hold != nil {
								_, _ = fmt.Sscan(e.Node.Hold.Reason, &round)
								last[i].Store(max(last[i].Load(), round))
							}
							return nil
						})
					}
				}()
			}
			for ready.Load() < int64(c.readers) {
				time.Sleep(time.Millisecond)
			}
			perReader := func(since time.Duration) float64 {
				return float64((busy(b) - since).Microseconds()) / float64(max(1, c.readers)) / float64(b.N)
			}
			began, memory := busy(b)-idle, inUse()-heap
			before := busy(b)
			b.ResetTimer()
			for round := range b.N {
				var names []string // one of each rack in ten
				first := rand.IntN(racks)
				for k := range 10 {
					names = append(names, fmt.Sprintf("r%dn%d", (first+k*10)%racks, rand.IntN(ofRack)))
				}
				hold := api.SetHold{Names: names, Want: power.HandsOff, Reason: fmt.Sprint(round + 1)}
				if _, err := r.SetHold(ctx, hold); err != nil {
					b.Fatal(err)
				}
				for told := false; !told; time.Sleep(time.Millisecond) {
					told = true
					for i := range last {
						if c.name == "200 of a rack" && (i%racks-first+racks)%10 != 0 {
							continue // none of its nodes changed
						}
						told = told && last[i].Load() >= int64(round+1)
					}
				}
			}
			b.StopTimer()
			b.ReportMetric(perReader(before), "cpu-µs/reader/op")
			if c.readers > 0 {
				b.ReportMetric(float64(began.Microseconds())/float64(c.readers), "cpu-µs/begun")
				b.ReportMetric(memory/1024/float64(c.readers), "KiB/reader")
			}
		})
	}
}
