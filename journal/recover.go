package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/uuid"
)

// segmentFile is a segment in a directory.
type segmentFile struct {
	number  uint64
	name    string
	damaged bool // put aside by an opening that did not get to its own segment
}

// listing is what a directory holds, by kind.
type listing struct {
	segments []segmentFile // oldest first; damaged ones only where they are still needed
	kept     []string      // all damaged files put aside
	spare    bool
}

// list reads a directory. A missing one is empty.
func list(fsys FS, dir string) (listing, error) {
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return listing{}, nil
	}
	if err != nil {
		return listing{}, fmt.Errorf("cannot list journal %s: %w", dir, err)
	}
	var l listing
	for _, name := range names {
		l.spare = l.spare || name == spareName
		if number, damaged, ok := parseSegmentName(name); ok {
			l.segments = append(l.segments, segmentFile{number, name, damaged})
			if damaged {
				l.kept = append(l.kept, name)
			}
		}
	}
	slices.SortFunc(l.segments, func(a, b segmentFile) int {
		if a.number != b.number {
			return int(int64(a.number - b.number))
		}
		return map[bool]int{true: -1, false: 1}[a.damaged]
	})
	return l, nil
}

// state is what the segments of a directory add up to.
type state struct {
	id     uuid.UUID
	owner  string
	epoch  uint64
	number uint64 // of the newest segment
	lsn    uint64
	live   *liveSet
	report []SegmentReport // of the segments that were needed, newest first
	marked bool            // the newest was written together with a mark file
}

// recoverState rebuilds the live set. The newest segment is enough, since each
// begins with a snapshot; the one before is asked only where that snapshot, or
// the header, is damaged.
func recoverState(fsys FS, dir string, segments []segmentFile) (state, error) {
	if len(segments) == 0 {
		return state{live: newLiveSet()}, nil
	}
	newest := segments[len(segments)-1]
	st := state{number: newest.number, live: newLiveSet()}
	head, rep, err := readSegment(fsys, dir, newest.name, func(f frame, key, payload []byte, _ int64) error {
		st.live.applyFrame(f, key, payload)
		return nil
	})
	if err != nil {
		return state{}, err
	}
	st.report = []SegmentReport{rep}
	if head.number != 0 {
		st.id, st.owner, st.epoch, st.lsn, st.marked = head.id, head.owner, head.epoch, rep.LastLSN, head.marked
	}
	if head.number != 0 && uint64(rep.Snapshot) == head.snapshotCount {
		return st, nil
	}
	return st.onOlder(fsys, dir, segments[:len(segments)-1], head)
}

// onOlder rebuilds the state of a damaged segment on top of the one before it.
func (st state) onOlder(fsys FS, dir string, older []segmentFile, head header) (state, error) {
	base, err := recoverState(fsys, dir, older)
	if err != nil {
		return state{}, err
	}
	if head.number == 0 {
		// At most one opening made each segment that cannot be asked.
		st.id, st.owner, st.marked = base.id, base.owner, base.marked
		st.epoch = base.epoch + st.number - base.number
		st.lsn, st.live = base.lsn, base.live
		st.report = append(st.report, base.report...)
		return st, nil
	}
	newest := st.report[0].File
	_, _, err = readSegment(fsys, dir, newest, func(f frame, key, payload []byte, _ int64) error {
		if f.typ == frameSnapshot {
			base.live.applySnapshot(f, key, payload)
		} else {
			base.live.applyFrame(f, key, payload)
		}
		return nil
	})
	if err != nil {
		return state{}, err
	}
	st.live = base.live
	st.lsn = max(st.lsn, base.lsn)
	st.report = append(st.report, base.report...)
	return st, nil
}

// recovery sums up for the caller of Open.
func (st state) recovery() Recovery {
	rec := Recovery{New: len(st.report) == 0, Live: st.live.count}
	for i, s := range st.report {
		for _, d := range s.Damage {
			rec.add(d)
		}
		rec.Replayed += s.Snapshot + s.Records
		rec.Salvaged += s.Salvaged
		if i == 0 {
			rec.TornBytes = s.TornBytes
			rec.cutAtPage = (s.Used+s.TornBytes)%pageSize == 0
			rec.Clean = s.Closed
		}
	}
	rec.Clean = rec.New || rec.Clean && len(rec.Damage) == 0
	return rec
}

// add notes damage.
func (r *Recovery) add(d Damage) {
	r.Damage = append(r.Damage, d)
	r.LostBelow = max(r.LostBelow, d.below)
	r.Clean = false
}
