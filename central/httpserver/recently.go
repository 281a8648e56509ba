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
	at map[string]time.Time
}

// Due reports whether nothing was done for the key within the time, and notes that it is
// done now.
func (r *Recently) Due(key string, now time.Time, within time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.at[key]; ok && now.Sub(last) < within && !now.Before(last) {
		return false
	}
	if r.at == nil || len(r.at) >= maxRecent {
		r.at = map[string]time.Time{}
	}
	r.at[key] = now
	return true
}
