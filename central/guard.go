package central

import (
	"sync"
	"time"
)

// maxRemembered bounds what is remembered of addresses and of refusals.
const maxRemembered = 10_000

// recently says of many keys whether something was done for them a short while ago.
type recently struct {
	mu sync.Mutex
	at map[string]time.Time
}

// due reports whether nothing was done for the key within the time, and notes that it is
// done now.
func (r *recently) due(key string, now time.Time, within time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.at[key]; ok && now.Sub(last) < within && !now.Before(last) {
		return false
	}
	if r.at == nil || len(r.at) >= maxRemembered {
		r.at = map[string]time.Time{}
	}
	r.at[key] = now
	return true
}

// Logins from one address that fail: freeGuesses within guessWindow are answered at once,
// then one every guessPause.
const (
	freeGuesses = 10
	guessWindow = time.Minute
	guessPause  = 5 * time.Second
)

// guesses slows down who guesses tokens, by address. Tokens have 256 bits: this is for
// the load and the noise, not against success.
type guesses struct {
	mu   sync.Mutex
	from map[string]*guessed
}

type guessed struct {
	count int
	since time.Time
	last  time.Time
}

// wait is how long an address has to wait before it is told again what was wrong with a
// login.
func (g *guesses) wait(address string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.from[address]
	if f == nil || f.count < freeGuesses || now.Sub(f.since) >= guessWindow {
		return 0
	}
	return max(guessPause-now.Sub(f.last), 0)
}

func (g *guesses) failed(address string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.from[address]
	if f == nil || now.Sub(f.since) >= guessWindow {
		if g.from == nil || len(g.from) >= maxRemembered {
			g.from = map[string]*guessed{}
		}
		f = &guessed{since: now}
		g.from[address] = f
	}
	f.count, f.last = f.count+1, now
}
