package httpserver

import (
	"sync"
	"time"
)

// maxRecent bounds what is remembered of what was done lately.
const maxRecent = 10_000

// Recently says of many keys whether something was done for them a short while ago: what
// anybody can cause, and the log tells of, is not told each time. The zero value is ready.
type Recently struct {
	mu sync.Mutex
	at map[string]*since
}

// since is when something was done for a key, and how often it was not since then.
type since struct {
	time.Time
	left int
}

// Due reports whether nothing was done for the key within the time, and notes that it is
// done now.
func (r *Recently) Due(key string, now time.Time, within time.Duration) bool {
	_, due := r.Count(key, now, within)
	return due
}

// Count is Due that also says, when it is, how often it was not since the time before.
func (r *Recently) Count(key string, now time.Time, within time.Duration) (left int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.at[key]
	switch {
	case known && now.Sub(last.Time) < within && !now.Before(last.Time):
		last.left++
		return 0, false
	case known:
		left = last.left
	case r.at == nil || len(r.at) >= maxRecent:
		r.at = map[string]*since{}
	}
	r.at[key] = &since{Time: now}
	return left, true
}
