package power

import (
	"sync"
	"time"
)

// MaxAhead is how far a sequence may lie ahead of the clock of the receiver. What is
// further ahead was drawn by a clock that is wrong, or by nobody.
const MaxAhead = time.Hour

// Ahead reports whether the sequence is too far ahead of the clock to be followed.
func (s Seq) Ahead(now time.Time) bool {
	return s>>seqCounterBits > seqAt(now.Add(MaxAhead))>>seqCounterBits
}

// Clock is a hybrid logical clock: the largest sequence given or followed so far. One
// that is too far ahead of the wall clock is not followed: it would stand above all that
// comes until that time. One that was followed before the wall clock was set back is put
// aside, and counts again when the wall clock comes close to it. The zero value is a
// clock that has seen nothing. It is safe for many goroutines.
type Clock struct {
	mu    sync.Mutex
	max   Seq
	aside Seq // larger than max, and too far ahead; 0: none
}

// Next gives the sequence for a request that enters at now.
func (c *Clock) Next(now time.Time) Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(now)
	c.max = c.max.Next(now)
	return c.max
}

// Merge follows a sequence that was seen elsewhere. It reports false when that is too
// far ahead, and nothing changed.
func (c *Clock) Merge(s Seq, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(now)
	if s.Ahead(now) {
		return false
	}
	c.max = max(c.max, s)
	return true
}

// Load takes a sequence that this clock had followed before a restart, whatever the
// wall clock says now.
func (c *Clock) Load(s Seq) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = max(c.max, s)
}

// Now is the largest sequence that is followed.
func (c *Clock) Now(now time.Time) Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(now)
	return c.max
}

// Max is what must be kept over a restart, for Load.
func (c *Clock) Max() Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.max
}

// Aside is a sequence that was followed and is too far ahead now, 0 for none.
func (c *Clock) Aside(now time.Time) Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(now)
	return c.aside
}

// look puts aside what is too far ahead, and takes back what is so no longer. What
// comes next lies above what was given until now, by the wall clock.
func (c *Clock) look(now time.Time) {
	if c.max.Ahead(now) {
		c.aside, c.max = max(c.aside, c.max), seqAt(now)
	}
	if c.aside != 0 && !c.aside.Ahead(now) {
		c.max, c.aside = max(c.max, c.aside), 0
	}
}
