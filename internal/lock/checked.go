//go:build lockrank

package lock

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Mutex is a mutex of rank R. Its zero value is unlocked.
type Mutex[R Ranked] struct{ mu sync.Mutex }

// Lock locks m. It panics where its goroutine holds a lock of the same or a higher rank.
func (m *Mutex[R]) Lock() {
	var r R
	id := goroutine()
	held.Lock()
	for _, h := range held.by[id] {
		if h.rank() >= r.rank() {
			held.Unlock()
			panic(fmt.Sprintf("%T is locked while %T is held", r, h))
		}
	}
	held.by[id] = append(held.by[id], r)
	held.Unlock()
	m.mu.Lock()
}

// Unlock unlocks m, which its goroutine has locked.
func (m *Mutex[R]) Unlock() {
	var r R
	id := goroutine()
	held.Lock()
	at := slices.Index(held.by[id], Ranked(r))
	if at < 0 {
		held.Unlock()
		panic(fmt.Sprintf("%T is unlocked by a goroutine that does not hold it", r))
	}
	held.by[id] = slices.Delete(held.by[id], at, at+1)
	if len(held.by[id]) == 0 {
		delete(held.by, id)
	}
	held.Unlock()
	m.mu.Unlock()
}

// held is the locks of each goroutine.
var held = struct {
	sync.Mutex
	by map[string][]Ranked
}{by: map[string][]Ranked{}}

// goroutine is the number of the running goroutine, which only its stack says.
func goroutine() string {
	var buf [64]byte
	_, rest, _ := bytes.Cut(buf[:runtime.Stack(buf[:], false)], []byte(" "))
	id, _, _ := bytes.Cut(rest, []byte(" "))
	return string(id)
}
