package journal

import (
	"sync/atomic"
	"time"
)

// marker knows when a mark is due.
type marker struct {
	after time.Duration
	start time.Time
	last  atomic.Int64 // when the last record was written, from start
	armed atomic.Bool  // the background waits to write a mark
	wake  chan struct{}
}

func newMarker(after time.Duration) *marker {
	return &marker{after: after, start: time.Now(), wake: make(chan struct{}, 1)}
}

// touch notes that a record was written.
func (m *marker) touch() {
	if m.after < 0 {
		return
	}
	m.last.Store(int64(time.Since(m.start)))
	if m.armed.CompareAndSwap(false, true) {
		m.wake <- struct{}{}
	}
}

// due is how long to wait for the mark, at most 0 when it must be written.
func (m *marker) due() time.Duration {
	return time.Duration(m.last.Load()) + m.after - time.Since(m.start)
}

// background makes spares, removes history and writes marks until quit.
func (j *Journal) background() {
	defer close(j.done)
	mark, retry := stoppedTimer(), stoppedTimer()
	look := time.NewTicker(markEvery)
	defer look.Stop()
	defer mark.Stop()
	defer retry.Stop()
	for {
		select {
		case <-j.quit:
			return
		case <-j.pool.wake:
			j.restock(retry)
		case <-retry.C:
			j.restock(retry)
		case <-j.marks.wake:
			mark.Reset(j.marks.after)
		case <-mark.C:
			j.mark(mark)
		case <-look.C:
			j.lookAfter()
		}
	}
}

// lookAfter notices files that are gone, and brings the mark file up to date.
func (j *Journal) lookAfter() {
	if j.Err() != nil {
		return
	}
	if err := j.stay(); err != nil {
		_ = j.stop(err)
		return
	}
	_ = j.saveMark() // raises its own alarm
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (j *Journal) restock(retry *time.Timer) {
	if !j.pool.restock() {
		retry.Reset(spareRetry)
	}
}

// mark writes a mark when the last record is old enough. A mark that fails has
// had its consequences in commit.
func (j *Journal) mark(t *time.Timer) {
	if wait := j.marks.due(); wait > 0 {
		t.Reset(wait)
		return
	}
	j.marks.armed.Store(false)
	_ = j.submit(newRequest(frameMark, nil))
}
