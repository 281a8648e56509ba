package bmcsim

import "time"

// kind says what an item of the agenda belongs to, so that a kind can be dropped.
type kind int

const (
	kindReply  kind = iota // an answer held back
	kindPower              // the node changes its power
	kindSystem             // the node's system has shut down
	kindBack               // the node comes back by itself
	kindShown              // the BMC reports what the power has become
	kindBMC                // the BMC does something to itself
)

type item struct {
	at   time.Time
	kind kind
	do   func()
}

// agenda holds what a BMC will do later, in order of time, equal times in order
// of entry. It has one timer however much it holds. All of it, the functions
// included, runs under the lock of its BMC.
type agenda struct {
	items []item
	timer *time.Timer
	wake  func() // called by the timer, without the lock
}

func (a *agenda) add(at time.Time, k kind, do func()) {
	i := len(a.items)
	for i > 0 && a.items[i-1].at.After(at) {
		i--
	}
	a.items = append(a.items, item{})
	copy(a.items[i+1:], a.items[i:])
	a.items[i] = item{at: at, kind: k, do: do}
}

func (a *agenda) drop(k kind) {
	kept := a.items[:0]
	for _, it := range a.items {
		if it.kind != k {
			kept = append(kept, it)
		}
	}
	clear(a.items[len(kept):])
	a.items = kept
}

// last returns the time of the latest item of kind k, zero if there is none.
func (a *agenda) last(k kind) time.Time {
	for i := len(a.items) - 1; i >= 0; i-- {
		if a.items[i].kind == k {
			return a.items[i].at
		}
	}
	return time.Time{}
}

// run does what is due at now, and sets the timer for the rest.
func (a *agenda) run(now time.Time) {
	for len(a.items) > 0 && !a.items[0].at.After(now) {
		it := a.items[0]
		a.items = append(a.items[:0], a.items[1:]...)
		it.do()
	}
	if len(a.items) == 0 {
		return
	}
	wait := max(time.Until(a.items[0].at), 0)
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, a.wake)
	} else {
		a.timer.Reset(wait)
	}
}

func (a *agenda) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.items = nil
}
