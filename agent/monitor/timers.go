package monitor

import (
	"container/heap"
	"time"

	"rackpower/power"
)

// agenda is what must be looked at later: at most one time for each node and
// reason. The monitor's goroutine owns it.
type agenda struct {
	items agendaHeap
	byKey map[agendaKey]*agendaItem
}

// agendaKey names an item; Node is "" for the rack as a whole.
type agendaKey struct {
	Node string
	Why  power.Reason
}

type agendaItem struct {
	agendaKey
	at    time.Time
	index int // in the heap
}

// set puts the item at a time, wherever it was before; the zero time removes it.
func (a *agenda) set(node string, why power.Reason, at time.Time) {
	key := agendaKey{node, why}
	it := a.byKey[key]
	switch {
	case at.IsZero() && it == nil:
	case at.IsZero():
		heap.Remove(&a.items, it.index)
		delete(a.byKey, key)
	case it == nil:
		if a.byKey == nil {
			a.byKey = map[agendaKey]*agendaItem{}
		}
		it = &agendaItem{agendaKey: key, at: at}
		a.byKey[key] = it
		heap.Push(&a.items, it)
	case !it.at.Equal(at):
		it.at = at
		heap.Fix(&a.items, it.index)
	}
}

// next is when the earliest item is due; false: there is none.
func (a *agenda) next() (time.Time, bool) {
	if len(a.items) == 0 {
		return time.Time{}, false
	}
	return a.items[0].at, true
}

// due takes out what is due at the time now, earliest first.
func (a *agenda) due(now time.Time) []agendaKey {
	var keys []agendaKey
	for len(a.items) > 0 && !a.items[0].at.After(now) {
		it := heap.Pop(&a.items).(*agendaItem)
		delete(a.byKey, it.agendaKey)
		keys = append(keys, it.agendaKey)
	}
	return keys
}

// firsts are the earliest times that nodes are due.
func (a *agenda) firsts() map[string]time.Time {
	first := map[string]time.Time{}
	for _, it := range a.items {
		if at, ok := first[it.Node]; !ok || it.at.Before(at) {
			first[it.Node] = it.at
		}
	}
	return first
}

type agendaHeap []*agendaItem

func (h agendaHeap) Len() int           { return len(h) }
func (h agendaHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h agendaHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *agendaHeap) Push(x any) {
	it := x.(*agendaItem)
	it.index = len(*h)
	*h = append(*h, it)
}

func (h *agendaHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	*h = old[:len(old)-1]
	return it
}
