package central

import (
	"testing"
	"time"

	"rackpower/central/api"
)

func TestOnlyThoseAreWokenWhoWaitForTheNode(t *testing.T) {
	w := newWaiting()
	ab, c := w.await([]string{"a", "b", "b"}), w.await([]string{"c"})
	woken := func(x *wait) bool {
		select {
		case <-x.token:
			return true
		default:
			return false
		}
	}
	w.tell([]string{"b", "a", "d"})
	if !woken(ab) || woken(ab) || woken(c) {
		t.Error("news of a and b: want who waits for them woken, once")
	}
	w.read([]api.NodeReading{{Node: "c"}})
	if woken(ab) || !woken(c) {
		t.Error("a reading of c: want who waits for it woken")
	}
	ab.leave()
	w.tell([]string{"a", "b"})
	if woken(ab) || len(w.by) != 1 {
		t.Errorf("who has left is woken, or still known: %v", w.by)
	}
	if c.pause >= time.Millisecond {
		t.Errorf("who waits for one node looks after %s", c.pause)
	}
}
