package agent

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
)

// leaseClock is a machine's clock that a test moves.
type leaseClock struct {
	boot time.Duration
	wall time.Time
}

func (c *leaseClock) read() (time.Duration, time.Time) { return c.boot, c.wall }

func (c *leaseClock) passes(d time.Duration) { c.boot, c.wall = c.boot+d, c.wall.Add(d) }

func newLeaseholder() (*leaseholder, *leaseClock) {
	c := &leaseClock{time.Hour, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	return &leaseholder{clock: c.read}, c
}

// TestALeaseEnds counted from when the poll was sent, and when the wall clock is set.
func TestALeaseEnds(t *testing.T) {
	const lasts = 12 * time.Second
	h, c := newLeaseholder()
	if h.why() == "" {
		t.Fatal("a lease that nobody gave")
	}
	sent := h.now()
	c.passes(3 * time.Second) // the answer was on its way
	if !h.give(sent, lasts, nil) || h.why() != "" || h.remains() != 9*time.Second {
		t.Fatalf("%q, %s left", h.why(), h.remains())
	}
	c.passes(9*time.Second - time.Millisecond)
	if h.why() != "" {
		t.Error("it ended too early")
	}
	c.passes(time.Millisecond)
	if h.why() == "" {
		t.Error("it did not end")
	}
	h.give(sent, lasts, nil) // which comes late
	if h.why() == "" {
		t.Error("an answer that came too late gave a lease")
	}

	h.give(h.now(), lasts, nil)
	c.passes(lasts - time.Second)
	if h.give(h.now(), lasts, nil) || h.remains() != lasts { // it goes on, so nobody waited for it
		t.Errorf("renewed, %s are left", h.remains())
	}
	c.boot += time.Minute // the machine slept; its wall clock goes on with it
	c.wall = c.wall.Add(time.Minute)
	if h.why() == "" {
		t.Error("it lasts over a sleep")
	}

	for _, step := range []time.Duration{time.Second, -time.Second, -24 * time.Hour} {
		h, c := newLeaseholder()
		h.give(h.now(), lasts, nil)
		c.wall = c.wall.Add(step)
		if !strings.Contains(h.why(), "was set") {
			t.Errorf("set by %s: %q", step, h.why())
		}
		c.wall = c.wall.Add(-step)
		if h.why() == "" {
			t.Errorf("set by %s and back: it goes on", step)
		}
		if !h.give(h.now(), lasts, nil) || h.why() != "" {
			t.Errorf("set by %s: no new lease: %q", step, h.why())
		}
		h, c = newLeaseholder()
		sent := h.now()
		c.wall = c.wall.Add(step)
		h.give(sent, lasts, nil)
		if h.why() == "" {
			t.Errorf("set by %s while the answer was on its way", step)
		}
	}
	h, c = newLeaseholder()
	h.give(h.now(), lasts, nil)
	c.boot += 10 * time.Second
	c.wall = c.wall.Add(10*time.Second + 5*time.Millisecond) // it is slewed
	if h.why() != "" {
		t.Errorf("a clock that is slewed: %q", h.why())
	}
}

// TestClocksAreCompared: no lease counts while central's clock and this one go at different speeds,
// however long messages take.
func TestClocksAreCompared(t *testing.T) {
	const lasts = 12 * time.Second
	for _, v := range []struct {
		theirs float64 // how fast central's clock goes
		differ bool
	}{{1, false}, {1.0005, false}, {0.9995, false}, {1.01, true}, {0.99, true}} {
		h, c := newLeaseholder()
		at := time.Duration(0)
		passes := func(d time.Duration) {
			c.passes(d)
			at += time.Duration(float64(d) * v.theirs)
		}
		differed := false
		for i := range 200 {
			sent := h.now()
			passes(time.Duration(i%7) * 20 * time.Millisecond)
			came := at
			passes(3 * time.Second)
			said := api.CentralClock{Start: "x", At: at, Held: at - came}
			passes(time.Duration(i%5) * 300 * time.Millisecond)
			h.give(sent, lasts, &said)
			differed = differed || h.differs() != "" && h.why() != ""
		}
		if differed != v.differ {
			t.Errorf("central's clock goes %.4f times as fast: differed %t, want %t", v.theirs, differed, v.differ)
		}
	}
	h, c := newLeaseholder()
	h.drift.differ = "they did"
	for range 30 {
		c.passes(3 * time.Second)
		h.give(h.now(), lasts, &api.CentralClock{Start: "x", At: c.boot})
	}
	if h.differs() != "" || h.why() != "" {
		t.Errorf("they agree again: %q, %q", h.differs(), h.why())
	}
}
