package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
)

// scanTries bounds how often a segment is read again that looked damaged,
// because a writer may have been at work in it meanwhile.
const scanTries = 4

// Scan tells fn of every record that the directory still holds, segment by
// segment: first each segment's snapshot (Position.Snapshot), then what was
// appended. A record that lived through a compaction is therefore seen in each
// segment it lived in. Record and payload belong to fn. A nil fn only makes the
// report; a nil fsys is the real disk.
//
// Scan takes no lock and writes nothing, so it works beside a running writer, on
// a copy and on a read-only file system. Beside a writer it may see records that
// are not flushed yet. It returns the first error of fn. Damage is no error, it
// is in the report.
func Scan(dir string, fsys FS, fn func(Record, Position) error) (Report, error) {
	if fsys == nil {
		fsys = Disk()
	}
	mark, marked, err := readMark(fsys, markPath(dir)) // first: what it says is in the journal by then
	switch {
	case errors.Is(err, errMark):
		marked = false
	case err != nil:
		return Report{}, err
	}
	l, err := list(fsys, dir)
	for try := 0; err == nil && len(gaps(l.segments)) > 0 && try < scanTries; try++ {
		l, err = list(fsys, dir) // a writer may have been at work meanwhile
	}
	if err != nil {
		return Report{}, err
	}
	rep := Report{Kept: l.kept, Missing: gaps(l.segments)}
	for i, seg := range l.segments {
		if seg.damaged && i < len(l.segments)-1 {
			continue // put aside: no part of the journal any more
		}
		found, err := settle(fsys, dir, seg.name, fn != nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted away since the directory was listed
		}
		if err != nil {
			return rep, err
		}
		rep.add(found.head, found.report)
		if err := found.tell(fn); err != nil {
			return rep, err
		}
	}
	st, _, err := readState(fsys, dir)
	if err != nil {
		return rep, err
	}
	rep.Live = st.live.count
	if lost := len(rep.Segments) == 0 || mark.ID == rep.ID && (mark.LSN > rep.LSN || mark.Epoch > rep.Epoch); marked && lost {
		rep.Missing = append(rep.Missing, Damage{File: segmentName(mark.Segment), Reason: fmt.Sprintf(
			"records up to %d of epoch %d were written, and the last that is there is %d of %d", mark.LSN, mark.Epoch, rep.LSN, rep.Epoch)})
	}
	return rep, nil
}

// Verify reads everything in a directory and reports on it. It is Scan without
// the records.
func Verify(dir string, fsys FS) (Report, error) { return Scan(dir, fsys, nil) }

// Read returns the live records of a directory in LSN order without opening it:
// what Open would find. It takes no lock and writes nothing.
func Read(dir string, fsys FS) ([]Record, Report, error) {
	if fsys == nil {
		fsys = Disk()
	}
	st, l, err := readState(fsys, dir)
	if err != nil {
		return nil, Report{}, err
	}
	rep := Report{Owner: st.owner, Epoch: st.epoch, LSN: st.lsn, Live: st.live.count, Segments: st.report, Kept: l.kept}
	if st.id != uuid.Nil {
		rep.ID = st.id.String()
	}
	return st.live.sorted(), rep, nil
}

// content is one segment, read.
type content struct {
	head    header
	report  SegmentReport
	records []Record
	places  []Position
}

// settle reads a segment, again if it looks damaged, until two readings agree.
// The records are kept only if want is true.
func settle(fsys FS, dir, name string, want bool) (content, error) {
	var c content
	for try := 0; ; try++ {
		before := c.report.Used
		var err error
		if c, err = readContent(fsys, dir, name, want); err != nil {
			return c, err
		}
		if len(c.report.Damage) == 0 || try == scanTries || (try > 0 && before == c.report.Used) {
			return c, nil
		}
	}
}

func readContent(fsys FS, dir, name string, want bool) (content, error) {
	var c content
	var err error
	c.head, c.report, err = readSegment(fsys, dir, name, func(f frame, key, payload []byte, off int64) error {
		if !want {
			return nil
		}
		c.records = append(c.records, Record{
			LSN: f.lsn, Time: time.Unix(0, f.time),
			Entry: Entry{Op: f.op, Kind: f.kind, Key: string(key), Payload: append([]byte(nil), payload...)},
		})
		c.places = append(c.places, Position{File: name, Offset: off, Snapshot: f.typ == frameSnapshot})
		return nil
	})
	for i := range c.places {
		c.places[i].Segment, c.places[i].Epoch = c.report.Number, c.report.Epoch
	}
	return c, err
}

func (c content) tell(fn func(Record, Position) error) error {
	if fn == nil {
		return nil
	}
	for i, r := range c.records {
		if err := fn(r, c.places[i]); err != nil {
			return err
		}
	}
	return nil
}

// readState is recoverState beside a writer that may compact segments away, or
// write, while they are read.
func readState(fsys FS, dir string) (st state, l listing, err error) {
	for try := 0; ; try++ {
		if l, err = list(fsys, dir); err != nil {
			return st, l, err
		}
		before := st
		st, err = recoverState(fsys, dir, l.segments)
		gone := errors.Is(err, fs.ErrNotExist)
		still := !st.recovery().Damaged() || try > 0 && st.number == before.number && st.lsn == before.lsn
		if try == scanTries || !gone && (err != nil || still) {
			return st, l, err
		}
	}
}

func (r *Report) add(head header, seg SegmentReport) {
	r.Segments = append(r.Segments, seg)
	if head.number == 0 {
		return
	}
	r.ID, r.Owner = head.id.String(), head.owner
	r.Epoch = max(r.Epoch, head.epoch)
	r.LSN = max(r.LSN, seg.LastLSN)
}
