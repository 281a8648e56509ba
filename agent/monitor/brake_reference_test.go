package monitor

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/power"
)

// brakeFacts is what rules 6 ask of a node for the fleet brake, read off the plain fields. It
// shares no function with the code that it judges.
type brakeFacts struct {
	mine    bool // the monitor's to correct, now or when the operation under way is over
	excused bool // confirmed, released, or in fault and not to be tried yet
	mayCut  bool // it would be turned off if it were on, and nobody confirmed that
	new     bool // not yet seen as it is desired
	unread  bool // nobody looked at it since the start
	on, off bool // as known
	wasOn   bool // not known; before, it was on
	cutting bool // the monitor turned it off within the window, or is about to
	wrong   bool // known, and not as it is desired or expected
	drifts  bool // wrong, though it was right before
}

func brakeFactsOf(n watched, b brakeBounds, now time.Time) brakeFacts {
	m, r, d := n.Memory, n.Reading, n.Memory.Desired
	known := !r.ObservedAt.IsZero() && now.Sub(r.ObservedAt) <= 10*time.Minute
	f := brakeFacts{
		mine:    !n.Busy || n.Elsewhere,
		excused: m.Confirmed || m.Released || m.Fault != "" && m.NextTry.After(now),
		new:     !m.Matched,
		unread:  r.TriedAt.IsZero(),
		on:      known && r.State == power.On,
		off:     known && r.State == power.Off,
		cutting: !m.CutAt.IsZero() && (n.Cutting || now.Sub(m.CutAt) < b.Window),
	}
	f.mayCut = d.Want == power.WantOff && !d.NoCut && f.mine && !f.excused
	switch {
	case known || f.unread:
	case r.ObservedAt.IsZero():
		f.wasOn = m.LastOn
	default:
		f.wasOn = r.State == power.On
	}
	f.wrong = f.off && (d.Want == power.WantOn || d.Expected == power.On) || f.on && d.Want == power.WantOff
	old := d.Want == power.HandsOff && !m.Differs.IsZero() && now.Sub(m.Differs) >= 10*time.Minute
	f.drifts = m.Matched && f.wrong && !n.Busy && !f.excused && !old
	return f
}

// brakeCount is what rules 6 have the nodes add up to.
type brakeCount struct {
	cut, drift                []string
	tooManyCut, tooManyDrifts bool
}

// trips says which brake that trips, "" for none, and for which nodes.
func (c brakeCount) trips() (kind string, names []string) {
	switch {
	case c.tooManyCut:
		return BrakeCut, c.cut
	case c.tooManyDrifts:
		return BrakeDrift, c.drift
	}
	return "", nil
}

// brakeReference counts the nodes.
func brakeReference(now time.Time, b brakeBounds, nodes []watched) brakeCount {
	facts := make([]brakeFacts, len(nodes))
	for i, n := range nodes {
		facts[i] = brakeFactsOf(n, b, now)
	}
	// together says whether the desire of another node, of which is holds, was changed within
	// the window of that of node i.
	together := func(i int, is func(brakeFacts) bool) bool {
		for k, f := range facts {
			if f.mayCut && f.new && is(f) && nodes[k].Memory.Since.Sub(nodes[i].Memory.Since).Abs() <= b.Window {
				return true
			}
		}
		return false
	}
	inSight := func(f brakeFacts) bool { return f.on && !f.unread }
	unread := func(f brakeFacts) bool { return f.unread }
	var cut, drift []string
	before := 0
	for i, f := range facts {
		switch {
		case f.mayCut && f.unread: // nothing is known of it
		case f.mayCut && (f.on || f.new && f.wasOn && together(i, inSight)):
			cut = append(cut, nodes[i].Node)
		case f.mayCut && f.new && f.wasOn && together(i, unread): // it goes with one that may yet turn out to be on
		case f.cutting:
			before++
		}
		if f.drifts {
			drift = append(drift, nodes[i].Node)
		}
	}
	tooMany := func(k int) bool { return k > b.Above && float64(k) > float64(len(nodes))*float64(b.Percent)/100 }
	return brakeCount{cut, drift, len(cut) > 0 && tooMany(len(cut)+before), tooMany(len(drift))}
}

// TestBrakeAgainstReference holds the judge against rules 6, counted plainly.
func TestBrakeAgainstReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		b := brakeBounds{
			Percent: rapid.SampledFrom([]int{1, 20, 50}).Draw(rt, "percent"), Above: rapid.IntRange(0, 6).Draw(rt, "above"),
			Window: time.Minute,
		}
		var nodes []watched
		for i := range rapid.IntRange(1, 25).Draw(rt, "nodes") {
			nodes = append(nodes, drawWatched(rt, i, now))
		}
		wantKind, wantNodes := brakeReference(now, b, nodes).trips()
		tl := judge(now, b, nodes)
		kind, names := tl.trips()
		if kind != wantKind || !slices.Equal(names, wantNodes) {
			rt.Fatalf("judge says %q %v, want %q %v", kind, names, wantKind, wantNodes)
		}
		if kind != "" {
			return
		}
		for _, n := range nodes {
			f := brakeFactsOf(n, b, now)
			if f.excused || !f.wrong || !tl.sure(now, n) {
				continue
			}
			// It is corrected at once: that trips no brake, however the others turn out.
			if f.mayCut {
				if brakeReference(now, b, unreadAreOn(now, b, nodes)).tooManyCut {
					rt.Fatalf("sure of %s, and the brake may trip yet", n.Node)
				}
			}
			if n.Memory.Matched {
				if got := brakeReference(now, b, othersDrift(now, b, n, nodes)); got.tooManyDrifts {
					rt.Fatalf("sure of the drift of %s, and the brake may trip yet: %v", n.Node, got.drift)
				}
			}
		}
	})
}

// unreadAreOn has all that nobody looked at yet turn out to be on.
func unreadAreOn(now time.Time, b brakeBounds, nodes []watched) []watched {
	worst := slices.Clone(nodes)
	for i, n := range worst {
		if f := brakeFactsOf(n, b, now); f.mayCut && f.unread {
			worst[i].Reading = power.Seen(power.On, now)
		}
	}
	return worst
}

// othersDrift has those that were last read before n was seen to differ turn out to differ,
// too. What cannot be read does not count, nor does what nothing is desired of.
func othersDrift(now time.Time, b brakeBounds, n watched, nodes []watched) []watched {
	later := slices.Clone(nodes)
	for i, o := range later {
		f := brakeFactsOf(o, b, now)
		right := map[bool]power.State{true: power.On, false: power.Off}[o.Memory.Desired.Want == power.WantOn ||
			o.Memory.Desired.Expected == power.On]
		nothing := o.Memory.Desired.Want == power.HandsOff && o.Memory.Desired.Expected == ""
		if !o.Memory.Matched || o.Busy || f.excused || f.wrong || nothing || !o.Reading.TriedAt.Before(n.Memory.Differs) ||
			o.Reading.Reach != power.ReachOK && !f.unread {
			continue
		}
		wrong := power.On
		if right == power.On {
			wrong = power.Off
		}
		later[i].Reading, later[i].Memory.Differs = power.Seen(wrong, now), now
	}
	return later
}
