package journal

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// maxBatch is about how many bytes one flush makes durable at most.
const maxBatch = 1 << 20

// markSize is what a mark takes on disk; appends leave room for two, one of
// them the closing one.
var markSize = int64(frameSize(0, 0))

// request is one Append that waits, or a mark.
type request struct {
	typ     frameType
	entries []Entry
	size    int64 // bytes on disk
	// turn says false when the request is done, true when its goroutine is to
	// lead the next commit.
	turn chan bool
	lsn  uint64
	err  error
	// renew: it begins a new segment, whether it fits into the current one or not.
	renew bool
}

func newRequest(typ frameType, entries []Entry) *request {
	r := &request{typ: typ, entries: entries, turn: make(chan bool, 1)}
	if typ != frameRecord {
		r.size = markSize
	}
	for _, e := range entries {
		r.size += int64(frameSize(len(e.Key), len(e.Payload)))
	}
	return r
}

// batch is what one flush makes durable.
type batch struct {
	requests []*request
	size     int64
	// rotate: it does not fit into the current segment, or is to renew it.
	rotate bool
}

func (b batch) records() (n int) {
	for _, r := range b.requests {
		n += len(r.entries)
	}
	return n
}

// Append writes the entries and returns when they are durable, with the LSN of
// the last one; the others have the numbers before it. After a crash either all
// entries of one call are found or none. Calls that wait at the same time share
// a flush. The caller may use the payloads again at once.
//
// Of the errors, ErrFull passes by itself, ErrTooLarge does not concern others,
// and after ErrStopped or ErrClosed nothing more is taken. After ErrStopped it
// is not known whether this call's entries are durable; after any other error
// they are not.
func (j *Journal) Append(entries ...Entry) (lsn uint64, err error) {
	if len(entries) == 0 {
		return 0, fmt.Errorf("cannot append: no entries")
	}
	own := make([]Entry, len(entries))
	for i, e := range entries {
		if err := e.check(); err != nil {
			return 0, err
		}
		e.Payload = bytes.Clone(e.Payload)
		own[i] = e
	}
	r := newRequest(frameRecord, own)
	if r.size > MaxGroup {
		return 0, fmt.Errorf("cannot append: %w: %d bytes at once, at most %d", ErrTooLarge, r.size, MaxGroup)
	}
	if err := j.submit(r); err != nil {
		return 0, err
	}
	return r.lsn, nil
}

// Renew writes what is live into a new segment and removes all segments before it: nothing is
// left on disk of records that were replaced or dropped. Where it fails, the next call of
// Renew goes on. What was put aside as damaged stays.
func (j *Journal) Renew() error {
	r := newRequest(frameRecord, nil)
	r.renew = true
	if err := j.submit(r); err != nil {
		return err
	}
	return j.pool.dropHistory()
}

// submit waits until a request is durable. The first to come leads: it commits
// whatever has arrived, its own request first, and passes the lead on.
func (j *Journal) submit(r *request) error {
	j.mu.Lock()
	if err := j.refusal(); err != nil {
		j.mu.Unlock()
		return err
	}
	if r.typ == frameClose {
		j.closed = true
	}
	j.queue = append(j.queue, r)
	if j.leading {
		j.mu.Unlock()
		if lead := <-r.turn; !lead {
			return r.err
		}
		j.mu.Lock()
	}
	j.leading = true
	b := j.take()
	j.mu.Unlock()

	began := time.Now()
	err := j.commit(b)
	if j.cfg.OnFlush != nil {
		j.cfg.OnFlush(time.Since(began), b.records(), b.size, err)
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	j.finish(b, err)
	j.passOn()
	return r.err
}

// take cuts the next batch off the queue. It holds at least the first request.
func (j *Journal) take() batch {
	var b batch
	room := j.cur.size - j.cur.off
	if first := j.queue[0]; first.renew || first.typ == frameRecord && first.size > room-2*markSize {
		b.rotate = true
	}
	for _, r := range j.queue {
		if len(b.requests) > 0 && (r.renew || b.size+r.size > maxBatch) {
			break
		}
		left := room - b.size - r.size
		if !b.rotate && r.typ == frameRecord && left < 2*markSize {
			break
		}
		b.requests = append(b.requests, r)
		if b.rotate || left >= 0 {
			b.size += r.size
		} else {
			r.size = 0 // a mark that has no room is left out
		}
	}
	n := copy(j.queue, j.queue[len(b.requests):])
	clear(j.queue[n:])
	j.queue = j.queue[:n]
	return b
}

// commit makes a batch durable, in the current segment or in a new one.
func (j *Journal) commit(b batch) error {
	if b.size == 0 && !b.rotate {
		return nil
	}
	var failed error
	if !b.rotate {
		if failed = j.extend(b); failed == nil {
			return nil
		}
		j.alarm(AlarmWrite, fmt.Sprintf("cannot write %s, a new segment takes over", j.cur.name), failed)
	}
	err := j.rotate(b)
	var unsure *unsureError
	switch {
	case err == nil:
		return nil
	case failed != nil || errors.As(err, &unsure):
		return j.stop(errors.Join(failed, err))
	case isFull(err):
		j.pool.reportFull(err)
		j.pool.kick()
		return fmt.Errorf("cannot append: %w: %w", ErrFull, err)
	default:
		j.alarm(AlarmWrite, "cannot begin a new segment", err)
		return fmt.Errorf("cannot append: no new segment: %w", err)
	}
}

// extend writes a batch behind the content of the current segment: one write,
// one flush.
func (j *Journal) extend(b batch) error {
	j.buf = j.encode(j.buf[:0], b, j.cur.salt, j.cur.off, uint32(j.cur.off))
	if _, err := j.cur.file.WriteAt(j.buf, j.cur.off); err != nil {
		return err
	}
	if err := j.cur.file.Sync(); err != nil {
		return err
	}
	j.cur.off += int64(len(j.buf))
	return nil
}

// encode appends the frames of a batch, the first of which will stand at off,
// to dst, and stamps the requests with their LSN.
func (j *Journal) encode(dst []byte, b batch, salt uint32, off int64, durable uint32) []byte {
	start := int64(len(dst))
	f := frame{lsn: j.lsn.Load(), time: j.cfg.Now().UnixNano(), durable: durable}
	for _, r := range b.requests {
		f.typ, f.more, f.op, f.kind = r.typ, false, 0, 0
		if r.typ != frameRecord && r.size > 0 {
			dst = appendFrame(dst, frameSeed(salt, off+int64(len(dst))-start), f, "", nil)
		}
		for i, e := range r.entries {
			f.lsn++
			f.op, f.kind, f.more = e.Op, e.Kind, i < len(r.entries)-1
			dst = appendFrame(dst, frameSeed(salt, off+int64(len(dst))-start), f, e.Key, e.Payload)
		}
		r.lsn = f.lsn
	}
	j.stamp = time.Unix(0, f.time)
	return dst
}

// finish gives every request of a batch its answer. Under mu, and in LSN order,
// so that a snapshot never lacks a record that was acknowledged.
func (j *Journal) finish(b batch, err error) {
	for _, r := range b.requests {
		r.err = err
		if err == nil && r.typ == frameRecord {
			j.applyRequest(r)
		}
	}
	if err == nil && len(b.requests) > 0 {
		j.lsn.Store(max(j.lsn.Load(), b.requests[len(b.requests)-1].lsn))
		j.pool.liveBytes.Store(j.live.bytes)
	}
	for _, r := range b.requests {
		r.turn <- false
	}
}

func (j *Journal) applyRequest(r *request) {
	first := r.lsn - uint64(len(r.entries)) + 1
	for i, e := range r.entries {
		j.live.apply(Record{LSN: first + uint64(i), Time: j.stamp, Entry: e})
	}
	j.marks.touch()
}

// passOn makes the next in the queue lead. After a stop there is nobody left to.
func (j *Journal) passOn() {
	if j.stopped != nil {
		for _, r := range j.queue {
			r.err = j.stopped
			r.turn <- false
		}
		j.queue = nil
	}
	j.leading = len(j.queue) > 0
	if j.leading {
		j.queue[0].turn <- true
	}
}

// stop ends all appending for good.
func (j *Journal) stop(cause error) error {
	err := fmt.Errorf("cannot append: %w: %w", ErrStopped, cause)
	if errors.Is(cause, ErrRemoved) {
		err = fmt.Errorf("cannot append: %w", cause)
	}
	j.mu.Lock()
	first := j.stopped == nil
	if first {
		j.stopped = err
	}
	j.mu.Unlock()
	if errors.Is(cause, ErrRemoved) {
		if first {
			j.alarm(AlarmRemoved, fmt.Sprintf("files of the journal in %s were removed or replaced: it takes nothing more", j.cfg.Dir), cause)
		}
		return err
	}
	j.alarm(AlarmStopped, "the journal takes nothing more until it is opened again", cause)
	return err
}
