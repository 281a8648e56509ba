package limiter

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// naiveDomain is the reference model of domain: it looks at everything that ever happened.
type naiveDomain struct {
	limit   api.DomainLimit
	grants  []time.Time
	leaves  []time.Time
	waiting map[string]power.Seq
	arrived map[string]int
	flying  map[string]bool
}

func (n *naiveDomain) grant(now time.Time) (got []string) {
	gap := time.Duration(0)
	if n.limit.Rate > 0 {
		gap = time.Duration(float64(time.Second) / n.limit.Rate)
	}
	for {
		if len(n.waiting) == 0 || n.limit.Concurrent > 0 && len(n.flying) >= n.limit.Concurrent {
			return got
		}
		for _, at := range n.grants {
			if now.Sub(at) < gap {
				return got
			}
		}
		for _, at := range n.leaves {
			if gap > 0 && at.After(now) {
				return got
			}
		}
		first := slices.MinFunc(slices.Collect(maps.Keys(n.waiting)), func(a, b string) int {
			if n.waiting[a] != n.waiting[b] {
				return int(n.waiting[a]) - int(n.waiting[b])
			}
			return n.arrived[a] - n.arrived[b]
		})
		delete(n.waiting, first)
		n.flying[first] = true
		n.grants = append(n.grants, now)
		got = append(got, first)
	}
}

// mostIn checks that no window of time holds more than rate times its length, and one.
func mostIn(times []time.Time, rate float64) error {
	for i := range times {
		for j := i + 1; j < len(times); j++ {
			window := times[j].Sub(times[i])
			if got := float64(j - i); got > rate*window.Seconds()+1e-6 {
				return fmt.Errorf("%d within %s, at most %.1f a second may", j-i+1, window, rate)
			}
		}
	}
	return nil
}

// TestDomainAgainstItsTwin: first come, first served; in any window of time never
// more than the rate allows, never more than Concurrent at once, and nobody who
// could have a slot is left waiting.
func TestDomainAgainstItsTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1_000_000, 0)
		limit := api.DomainLimit{
			Name: "d", Rate: rapid.SampledFrom([]float64{0, 0.5, 1, 4, 10}).Draw(t, "rate"),
			Concurrent: rapid.SampledFrom([]int{0, 1, 3, 10}).Draw(t, "concurrent"),
		}
		d := newDomain(limit, start)
		n := &naiveDomain{
			limit: limit, grants: []time.Time{start}, leaves: []time.Time{start}, waiting: map[string]power.Seq{},
			arrived: map[string]int{}, flying: map[string]bool{},
		}
		places := map[string]*waiter{}
		now, ops := start, 0
		var granted, left []time.Time
		grant := func() (next time.Time) {
			got, next := d.grant(now)
			var names []string
			for _, p := range got {
				names = append(names, p.op)
				granted = append(granted, now)
			}
			if want := n.grant(now); !slices.Equal(names, want) {
				t.Fatalf("at %s: granted %v, want %v", now.Sub(start), names, want)
			}
			if limit.Concurrent > 0 && len(d.inFlight) > limit.Concurrent {
				t.Fatalf("%d in flight of %d", len(d.inFlight), limit.Concurrent)
			}
			return next
		}
		pick := func(set []string) string {
			slices.Sort(set)
			return rapid.SampledFrom(set).Draw(t, "op")
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { grant() },
			"join": func(t *rapid.T) {
				ops++
				p := &waiter{op: fmt.Sprint("op", ops), rank: power.Seq(rapid.IntRange(1, 20).Draw(t, "rank"))}
				d.join(p)
				places[p.op], n.waiting[p.op], n.arrived[p.op] = p, p.rank, ops
			},
			"leave": func(t *rapid.T) {
				if len(n.waiting) == 0 {
					t.Skip("nobody waits")
				}
				op := pick(slices.Collect(maps.Keys(n.waiting)))
				if !d.leave(places[op]) {
					t.Fatalf("%s is not in the line", op)
				}
				delete(n.waiting, op)
			},
			"release": func(t *rapid.T) {
				if len(n.flying) == 0 {
					t.Skip("none in flight")
				}
				op := pick(slices.Collect(maps.Keys(n.flying)))
				if !d.release(op, now) || d.release(op, now) {
					t.Fatalf("%s has not one slot", op)
				}
				delete(n.flying, op)
			},
			"command": func(t *rapid.T) {
				at := d.leaveAt(now)
				if at.Before(now) {
					t.Fatalf("may leave at %s, it is %s", at, now)
				}
				n.leaves, left = append(n.leaves, at), append(left, at)
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond)
			},
			"until due": func(t *rapid.T) {
				next := grant()
				if next.IsZero() {
					if len(n.waiting) > 0 && !d.full() {
						t.Fatal("some wait, some may go, and nobody is to be woken")
					}
					t.Skip("nothing is due")
				}
				before := len(granted)
				now = next
				grant()
				if len(granted) == before {
					t.Fatalf("nothing was granted when it was due")
				}
			},
		})
		for _, times := range [][]time.Time{granted, left} {
			if limit.Rate == 0 {
				continue
			}
			if err := mostIn(append([]time.Time{start}, times...), limit.Rate); err != nil {
				t.Fatal(err)
			}
		}
		for i := 0; len(n.waiting) > 0; i++ { // nothing starves
			for op := range n.flying {
				d.release(op, now)
				delete(n.flying, op)
			}
			if i > 10*ops {
				t.Fatalf("%d still wait", len(n.waiting))
			}
			if next := grant(); !next.IsZero() {
				now = next
			}
		}
	})
}

// TestRateIsRaisedAfterAMistake: what was spaced by a rate that nobody meant holds up
// nothing after that.
func TestRateIsRaisedAfterAMistake(t *testing.T) {
	d := newDomain(api.DomainLimit{Name: "d", Rate: 0.001}, time.Unix(1_000_000, 0))
	now := d.granted.Add(time.Hour)
	for range 3 {
		d.leaveAt(now) // sent, and sent again twice
	}
	d.setLimit(api.DomainLimit{Name: "d", Rate: 10}, now)
	d.join(&waiter{op: "x"})
	if got, next := d.grant(now.Add(time.Second)); len(got) != 1 {
		t.Fatalf("the next slot is handed out in %s", next.Sub(now))
	}
}
