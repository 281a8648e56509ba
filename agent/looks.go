package agent

import (
	"time"

	"rackpower/power"
)

// effect is how long a command took to be seen when a node was given it last: the node was
// read as before at one time after it, and as wanted at the other.
type effect struct{ before, seen time.Duration }

// looks says when a node is read after a command. Where it is known how long the command took
// last time, the first reading is at the time that it likely takes, and short steps follow; else
// the steps are a share of the time that has passed. No pause is longer than the longest.
type looks struct {
	known          effect // zero: nothing is
	first, longest time.Duration
	at             time.Duration // after the command, of the last look that showed the old state; 0: there was none
	step           time.Duration
}

// Shares of the time that a command takes: the steps of who does not know it, and the first of
// who does.
const (
	stepShare = 6
	fineShare = 32
)

// next is the pause before the next look, so long after the command.
func (k *looks) next(passed time.Duration) time.Duration {
	pause := max(k.first, passed/stepShare)
	if likely := k.known.before + (k.known.seen-k.known.before)/2; likely > 0 {
		if k.step == 0 && passed < likely {
			return min(likely-passed, k.longest)
		}
		k.step = max(k.step+k.step/2, k.known.seen/fineShare, k.first/8)
		pause = k.step
	}
	return min(pause, k.longest)
}

// missed notes a look that showed the old state, so long after the command.
func (k *looks) missed(passed time.Duration) { k.at = passed }

// learnt is what is known after a look that showed the effect.
func (k *looks) learnt(passed time.Duration) effect {
	before := k.at
	if before == 0 {
		before = min(k.known.before, passed/2)
	}
	return effect{before, passed}
}

// took is how long the effect of a command took on the node when it was seen last.
func (l *lane) took(cmd power.Command) effect {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.effects[cmd]
}

func (l *lane) learn(cmd power.Command, e effect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.effects == nil {
		l.effects = map[power.Command]effect{}
	}
	l.effects[cmd] = e
}
