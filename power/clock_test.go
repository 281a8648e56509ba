package power

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSequenceAheadOfTheClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at    Seq
		ahead bool
	}{
		{0, false},
		{seqAt(now), false},
		{seqAt(now.Add(MaxAhead)), false},
		{seqAt(now.Add(MaxAhead)) + 1<<seqCounterBits - 1, false},
		{seqAt(now.Add(MaxAhead + time.Millisecond)), true},
		{1<<63 - 1, true},
		{1 << 63, true},
		{1<<64 - 1, true},
	} {
		if got := c.at.Ahead(now); got != c.ahead {
			t.Errorf("%d ahead of %s: %v", c.at, now, got)
		}
	}
}

// TestClockOverWrongClocks holds the clock against one that remembers everything it saw,
// while the wall clock is set forth and back: what is given is never too far ahead and
// lies above all that is followed. Where something was put aside, what else lay ahead of
// the clock may be forgotten, but for the largest.
func TestClockOverWrongClocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Clock
		var followed []Seq
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-3*int64(time.Hour), 3*int64(time.Hour)).Draw(t, "step")))
			if rapid.IntRange(0, 9).Draw(t, "leap") == 0 {
				now = time.UnixMilli(rapid.Int64Range(0, 4_000_000_000_000).Draw(t, "time"))
			}
			do := rapid.SampledFrom([]string{"next", "merge", "load"}).Draw(t, "do")
			ahead := func(s Seq) bool { return s.Ahead(now) }
			if do != "load" && slices.ContainsFunc(followed, ahead) {
				most := slices.Max(followed)
				followed = slices.DeleteFunc(followed, func(s Seq) bool { return s > seqAt(now) && s != most })
			}
			switch do {
			case "next":
				got := c.Next(now)
				if got.Ahead(now) || got < seqAt(now) {
					t.Fatalf("%d given at %s", got, now)
				}
				for _, s := range followed {
					if !s.Ahead(now) && got <= s {
						t.Fatalf("%d given, %d was followed", got, s)
					}
				}
				followed = append(followed, got)
			case "merge":
				s := Seq(rapid.Uint64().Draw(t, "seq"))
				if rapid.Bool().Draw(t, "near") {
					s = seqAt(now.Add(time.Duration(rapid.Int64Range(-2*int64(time.Hour), 2*int64(time.Hour)).Draw(t, "by"))))
				}
				if ok := c.Merge(s, now); ok == s.Ahead(now) {
					t.Fatalf("merge of %d at %s: %v", s, now, ok)
				} else if ok {
					followed = append(followed, s)
				}
			case "load":
				s := Seq(rapid.Uint64().Draw(t, "seq"))
				c.Load(s)
				followed = append(followed, s)
			}
		}
	})
}
