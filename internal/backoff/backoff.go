// Package backoff waits: for a time that the end of a context cuts short, and for pauses
// that double while something fails.
package backoff

import (
	"cmp"
	"context"
	"time"
)

// Sleep waits for d. It returns the cause when ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Doubling is pauses of which each is twice as long as the one before, up to Most. Who
// shares something with many others adds jitter.
type Doubling struct {
	First, Most time.Duration
	next        time.Duration
}

// Next is the pause to make now.
func (d *Doubling) Next() time.Duration {
	pause := cmp.Or(d.next, d.First)
	d.next = min(2*pause, d.Most)
	return pause
}

// Reset begins again with the first pause.
func (d *Doubling) Reset() { d.next = 0 }
