package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// spareRetry is how long after a spare could not be made it is tried again.
const spareRetry = 5 * time.Second

// installTries is how many files are tried for a new segment.
const installTries = 2

// segmentPool holds the files beside the current segment: the spare, made and flushed
// in advance so that a full disk is known one segment ahead, and the compacted
// segments.
type segmentPool struct {
	cfg Config
	// wake asks the background to restock.
	wake chan struct{}
	// liveBytes is how long a snapshot would be now.
	liveBytes atomic.Int64

	mu      sync.Mutex
	spare   File     // nil: there is none
	size    int64    // of the spare: zeros, flushed
	history []string // compacted segments, oldest first
	retired []File
	full    bool // AlarmFull was raised last
	removed bool // a removal is not flushed yet
}

func newSegmentPool(cfg Config) *segmentPool {
	return &segmentPool{cfg: cfg, wake: make(chan struct{}, 1)}
}

// unsureError: what is on disk is not known. Nothing may be appended any more
// to the segment that was current.
type unsureError struct{ err error }

func (e *unsureError) Error() string { return e.err.Error() }
func (e *unsureError) Unwrap() error { return e.err }

func (s *segmentPool) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

// kick asks for a new spare soon.
func (s *segmentPool) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// install makes a durable segment of size bytes that begins with content. It takes
// the spare, or a new file. On a full disk the history goes, oldest first; then the
// segment gets shorter, down to its content and two marks, before the append fails.
func (s *segmentPool) install(name string, content []byte, size int64) (File, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.kick()
	least := shortest(content)
	if s.full && s.spare == nil {
		size = shorter(size, least) // a long one would leave no room for the next
	}
	for try := 1; ; try++ {
		f, have, err := s.take()
		if err == nil {
			have, err = fill(f, content, have, size)
		}
		if err == nil {
			return s.publish(f, name, have)
		}
		s.discard(f)
		switch {
		case isFull(err) && s.dropOldest():
			try = 0
		case isFull(err) && size > least:
			try, size = 0, shorter(size, least)
		case isFull(err) || try >= installTries:
			return nil, 0, err
		}
	}
}

// shortest is how long a segment with this content must be.
func shortest(content []byte) int64 { return pages(int64(len(content)) + 2*markSize) }

// shorter takes three quarters of what is not needed off a length.
func shorter(size, least int64) int64 {
	return max(least, pages(least+(size-least)/4-pageSize))
}

// take returns the spare, or an open file of unknown content (have is 0).
func (s *segmentPool) take() (f File, have int64, err error) {
	if s.spare != nil {
		f, have, s.spare = s.spare, s.size, nil
		return f, have, nil
	}
	f, err = s.cfg.FS.Create(s.path(spareName))
	return f, 0, err
}

// publish gives a finished file its name.
func (s *segmentPool) publish(f File, name string, size int64) (File, int64, error) {
	if err := s.cfg.FS.Rename(s.path(spareName), s.path(name)); err != nil {
		s.discard(f)
		if isFull(err) {
			return nil, 0, err
		}
		return nil, 0, &unsureError{err}
	}
	if err := s.cfg.FS.SyncDir(s.cfg.Dir); err != nil {
		return nil, 0, &unsureError{errors.Join(err, f.Close())}
	}
	return f, size, nil
}

// discard closes and removes what was to become a segment.
func (s *segmentPool) discard(f File) {
	if f == nil {
		return
	}
	_ = f.Close()
	_ = s.cfg.FS.Remove(s.path(spareName))
}

// fill writes content and then zeros up to size, and flushes. Behind content
// the first have bytes are zero already. A file that was long enough for content
// before, and finds no room to grow, is taken as long as it is. fill returns the
// file's length.
func fill(f File, content []byte, have, size int64) (int64, error) {
	length, err := f.Size()
	if err != nil {
		return 0, err
	}
	size = max(size, length)
	reached, err := write(f, content, have, size)
	if isFull(err) && len(content) > 0 && length >= shortest(content) && reached >= length {
		size = reached
		_, err = write(f, content, size, size)
	}
	if err != nil {
		return 0, err
	}
	return size, f.Sync()
}

// write does what fill does, without the flush. It returns how far it came.
func write(f File, content []byte, have, size int64) (int64, error) {
	if len(content) > 0 {
		stampSize(content, size)
		if _, err := f.WriteAt(content, 0); err != nil {
			return 0, err
		}
	}
	off := max(have, int64(len(content)))
	for off < size {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
		off += int64(n)
		if err != nil {
			return off, err
		}
	}
	return off, nil
}

// retire takes the segment that was current into the history.
func (s *segmentPool) retire(old *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = append(s.history, old.name)
	s.retired = append(s.retired, old.file)
	s.kick()
}

// restock makes a spare and removes history that is not kept. It reports
// whether a spare is there.
func (s *segmentPool) restock() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeRetired()
	for len(s.history) > s.cfg.KeepSegments && s.dropOldest() {
	}
	if s.spare != nil {
		return true
	}
	size := targetSize(s.cfg.SegmentSize, s.liveBytes.Load(), 0)
	f, err := s.cfg.FS.Create(s.path(spareName))
	if err == nil {
		size, err = fill(f, nil, 0, size)
	}
	if err != nil {
		s.discard(f)
		s.noteFull(err)
		return false
	}
	s.spare, s.size = f, size
	if s.full {
		s.full = false
		s.cfg.Logger.Info("journal has room again", "dir", s.cfg.Dir)
		s.cfg.OnAlarm(Alarm{Kind: AlarmRoom, Text: "there is room for the journal again"})
	}
	return true
}

// reportFull raises AlarmFull, once until there is room.
func (s *segmentPool) reportFull(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteFull(err)
}

func (s *segmentPool) noteFull(err error) {
	if !isFull(err) {
		s.cfg.Logger.Warn("cannot make a spare journal segment", "dir", s.cfg.Dir, "err", err)
		return
	}
	if s.full {
		return
	}
	s.full = true
	text := fmt.Sprintf("no room for a further journal segment in %s", s.cfg.Dir)
	s.cfg.Logger.Error("journal alarm", "kind", AlarmFull, "text", text, "err", err)
	s.cfg.OnAlarm(Alarm{Kind: AlarmFull, Text: text, Err: err})
}

// dropOldest removes the oldest compacted segment, if there is one. One removal is
// durable before the next: segments never go in another order, and one that is missing
// between two was removed by somebody else.
func (s *segmentPool) dropOldest() bool {
	if len(s.history) == 0 || !s.flushRemoved() {
		return false
	}
	s.closeRetired()
	name := s.history[0]
	if err := s.cfg.FS.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Logger.Warn("cannot remove compacted journal segment", "segment", name, "err", err)
		return false
	}
	s.history, s.removed = s.history[1:], true
	return true
}

// dropHistory removes all compacted segments.
func (s *segmentPool) dropHistory() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.history) > 0 {
		if !s.dropOldest() {
			return fmt.Errorf("cannot remove compacted journal segment %s", s.history[0])
		}
	}
	if !s.flushRemoved() {
		return fmt.Errorf("cannot flush the journal's directory %s", s.cfg.Dir)
	}
	return nil
}

// flushRemoved makes the removal before durable.
func (s *segmentPool) flushRemoved() bool {
	if !s.removed {
		return true
	}
	if err := s.cfg.FS.SyncDir(s.cfg.Dir); err != nil {
		s.cfg.Logger.Warn("cannot flush the journal's directory", "dir", s.cfg.Dir, "err", err)
		return false
	}
	s.removed = false
	return true
}

func (s *segmentPool) closeRetired() {
	for _, f := range s.retired {
		if err := f.Close(); err != nil {
			s.cfg.Logger.Warn("cannot close compacted journal segment", "err", err)
		}
	}
	s.retired = nil
}

func (s *segmentPool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeRetired()
	if s.spare == nil {
		return nil
	}
	f := s.spare
	s.spare = nil
	return f.Close()
}

// olderThan returns the segments that a full disk may cost before the new
// segment is: none when they may still be needed.
func olderThan(segments []segmentFile, newest uint64, damaged bool) []string {
	var names []string
	for _, seg := range segments {
		if !damaged && !seg.damaged && seg.number < newest {
			names = append(names, seg.name)
		}
	}
	return names
}

// segmentNames returns the segments that are history now. Files put aside are
// nobody's to remove.
func segmentNames(segments []segmentFile, kept []string) []string {
	var names []string
	for _, seg := range segments {
		if !seg.damaged && !slices.Contains(kept, seg.name+damagedSuffix) {
			names = append(names, seg.name)
		}
	}
	return names
}

func isThere(segments []segmentFile, name string) bool {
	return slices.ContainsFunc(segments, func(s segmentFile) bool { return s.name == name })
}

func isAside(segments []segmentFile, name string) bool {
	return slices.ContainsFunc(segments, func(s segmentFile) bool { return s.name == name && s.damaged })
}
