package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	segmentSuffix = ".jnl"
	damagedSuffix = ".damaged"
	spareName     = "spare"
)

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

// parseSegmentName reads "%016x.jnl", or the same with ".damaged" behind it.
func parseSegmentName(name string) (number uint64, damaged, ok bool) {
	name, damaged = strings.CutSuffix(name, damagedSuffix)
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false, false
	}
	number, err := strconv.ParseUint(hex, 16, 64)
	return number, damaged, err == nil
}

// visitor is told of every record of a segment, in order. Key and payload are
// borrowed.
type visitor func(f frame, key, payload []byte, off int64) error

// segmentReader walks through the frames of one file.
type segmentReader struct {
	win    readWindow
	name   string
	head   header
	report SegmentReport
	visit  visitor
	// group holds the frames of a group that is not complete yet.
	group []heldFrame
	seen  uint64 // LSN of the newest record found
	holes int    // of the report's damage, how many are not bounded by a frame behind them
	last  uint64 // LSN of the newest record delivered
}

type heldFrame struct {
	f            frame
	key, payload []byte
	off          int64
}

// readSegment reads a file and tells visit of every record that was durable, or
// may have been. Only errors of visit and ErrVersion end it early; everything
// that is wrong with the file is in the report. The header is its zero value
// when neither copy can be read.
func readSegment(fsys FS, dir, name string, visit visitor) (header, SegmentReport, error) {
	number, _, _ := parseSegmentName(name)
	r := segmentReader{name: name, visit: visit, report: SegmentReport{File: name, Number: number}}
	f, err := fsys.Open(filepath.Join(dir, name))
	if err != nil {
		return header{}, r.report, fmt.Errorf("cannot read journal segment: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return header{}, r.report, fmt.Errorf("cannot read journal segment: %w", err)
	}
	r.report.Size = size
	head, copies, err := readHeader(f)
	switch {
	case errors.Is(err, ErrVersion):
		return header{}, r.report, fmt.Errorf("cannot read journal segment %s: %w", name, err)
	case err != nil:
		r.damage(0, dataStart, "no readable header", allLost)
		return header{}, r.report, nil
	case copies == 1:
		r.damage(0, dataStart, "one of two copies of the header is unreadable", 0)
	case head.number != number:
		r.damage(0, dataStart, fmt.Sprintf("the header says segment %d", head.number), allLost)
	}
	r.win = readWindow{file: f, size: size}
	r.head, r.seen, r.last = head, head.firstLSN-1, head.firstLSN-1
	r.report.Epoch, r.report.Created = head.epoch, head.time
	r.report.FirstLSN = head.firstLSN
	err = r.walk()
	if size < head.size && err == nil {
		below := uint64(allLost)
		if r.report.Closed {
			below = 0 // nothing stood behind
		}
		r.damage(size, head.size-size, fmt.Sprintf("the file ends at %d of the %d bytes that it was made with", size, head.size), below)
	}
	r.report.LastLSN = r.last
	if len(r.report.Damage) > 0 {
		r.report.Salvaged = r.report.Snapshot + r.report.Records
	}
	return head, r.report, err
}

// walk goes from frame to frame. Where none verifies, what follows decides: a
// frame behind the hole that was written after the hole had been flushed makes
// it damage; otherwise it is the torn end of the last write.
func (r *segmentReader) walk() error {
	off := int64(dataStart)
	for {
		f, key, payload, size, err := r.win.frame(off, r.head.salt)
		if err == nil && r.inOrder(f, off) {
			if err := r.take(f, key, payload, off); err != nil {
				return err
			}
			off += int64(size)
			continue
		}
		next, witnessed := r.probe(off)
		if !witnessed && r.win.err == nil {
			r.tear(off)
			return nil
		}
		r.damage(off, max(next-off, 0), reason(r.win.err, err), allLost)
		r.win.err = nil
		if err := r.release(); err != nil {
			return err
		}
		if next >= r.win.size {
			r.report.Used = r.win.size
			return nil
		}
		off = next
	}
}

func reason(readErr, frameErr error) string {
	switch {
	case readErr != nil:
		return readErr.Error()
	case frameErr != nil:
		return frameErr.Error()
	default:
		return "frame out of order"
	}
}

// inOrder reports whether a frame can stand at off. It keeps what a caller put
// into a payload from being taken for a frame, beside the checksum.
func (r *segmentReader) inOrder(f frame, off int64) bool {
	if int64(f.durable) > off {
		return false
	}
	switch f.typ {
	case frameSnapshot:
		return off < int64(r.head.snapshotEnd) && f.lsn < r.head.firstLSN
	case frameRecord:
		return off >= int64(r.head.snapshotEnd) && f.lsn > r.seen
	default:
		return off >= int64(r.head.snapshotEnd) && f.lsn >= r.seen
	}
}

// take delivers a frame, or holds it until its group is complete.
func (r *segmentReader) take(f frame, key, payload []byte, off int64) error {
	r.report.Closed = f.typ == frameClose
	r.bound(f)
	switch f.typ {
	case frameSnapshot:
		r.report.Snapshot++
		return r.visit(f, key, payload, off)
	case frameMark, frameClose:
		return nil
	}
	r.seen = f.lsn
	if f.more {
		r.group = append(r.group, heldFrame{f, append([]byte(nil), key...), append([]byte(nil), payload...), off})
		return nil
	}
	if err := r.release(); err != nil {
		return err
	}
	r.report.Records++
	r.last = f.lsn
	return r.visit(f, key, payload, off)
}

// release delivers the frames held.
func (r *segmentReader) release() error {
	for _, h := range r.group {
		r.report.Records++
		r.last = h.f.lsn
		if err := r.visit(h.f, h.key, h.payload, h.off); err != nil {
			return err
		}
	}
	r.group = r.group[:0]
	return nil
}

// tear ends the segment at off, or where the group begins that off cuts.
func (r *segmentReader) tear(off int64) {
	if len(r.group) > 0 {
		off = r.group[0].off
		r.group = r.group[:0]
	}
	r.report.Used = off
	end := off
	for next := r.win.nextNonZero(off); next < r.win.size; next = r.win.nextNonZero(end) {
		end = next + frameAlign
	}
	r.report.TornBytes = end - off
	if r.report.TornBytes > 0 {
		r.report.Closed = false
	}
}

// probe looks behind a hole at off. It returns where the next frame is, or the
// end of the file, and whether the hole had been flushed before that frame (or
// any frame after it) was written.
func (r *segmentReader) probe(off int64) (next int64, witnessed bool) {
	saved := r.seen
	defer func() { r.seen = saved }()
	witnessed = off < int64(r.head.durable)
	next = r.win.size
	for at := r.win.nextNonZero(off); at < r.win.size; at = r.win.nextNonZero(at) {
		f, _, _, size, err := r.win.frame(at, r.head.salt)
		if err != nil || !r.inOrder(f, at) || at == off {
			at += frameAlign
			continue
		}
		next = min(next, at)
		if witnessed || int64(f.durable) > off {
			return next, true
		}
		if f.typ == frameRecord {
			r.seen = f.lsn
		}
		at += int64(size)
	}
	return next, witnessed
}

// bound notes that what is lost in the damage so far was older than a frame behind it.
func (r *segmentReader) bound(f frame) {
	for ; r.holes > 0; r.holes-- {
		d := &r.report.Damage[len(r.report.Damage)-r.holes]
		switch f.typ {
		case frameSnapshot:
			d.below = r.head.firstLSN
		case frameRecord:
			d.below = max(f.lsn, r.head.firstLSN)
		default:
			d.below = f.lsn + 1
		}
	}
}

func (r *segmentReader) damage(off, n int64, why string, below uint64) {
	r.report.Damage = append(r.report.Damage, Damage{File: r.name, Offset: off, Length: n, Reason: why, below: below})
	if off >= dataStart && below == allLost {
		r.holes++
	}
}
