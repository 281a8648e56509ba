package central

import (
	"sync"
	"time"
)

// maxRemembered bounds what is remembered of addresses.
const maxRemembered = 10_000

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
