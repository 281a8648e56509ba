package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"path/filepath"
	"sync"
	"time"
)

// highWater is how far a journal is known to have come. It is in a file of its own
// beside the journal (Config.Mark), so that a journal that was put back from a copy,
// or whose tail is gone, is told from the newest one:
//
//	8 hex digits of CRC32C, a space, this as JSON, a line feed, spaces up to 512 bytes
//
// It is written, and flushed, when a segment has begun, a second after records were
// written at the latest (markEvery), and by Close. What was written within the last
// second before the process ended may therefore be missing without a trace here.
type highWater struct {
	ID      string `json:"id"`
	Epoch   uint64 `json:"epoch"`
	Segment uint64 `json:"segment"`
	LSN     uint64 `json:"lsn"`
	// Identity is that of the segment's file, Boot that of the run of the machine; empty:
	// not known. A copy has another identity than the file that it was made from.
	Identity string `json:"file,omitempty"`
	Boot     string `json:"boot,omitempty"`
}

const (
	markFileSize = 512
	// markEvery is how often the mark file is brought up to date at most.
	markEvery = time.Second
)

// MarkSuffix follows the path of a journal's directory in that of its mark file.
const MarkSuffix = ".mark"

// markPath is the mark file of the journal in dir. It is outside, so that it does not
// go back with it.
func markPath(dir string) string { return filepath.Clean(dir) + MarkSuffix }

// errMark: the mark file is there and cannot be read.
var errMark = errors.New("the mark file cannot be read")

func (m highWater) encode() []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
	return append(line, bytes.Repeat([]byte{' '}, max(0, markFileSize-len(line)))...)
}

func decodeMark(data []byte) (m highWater, err error) {
	line, _, ok := bytes.Cut(data, []byte{'\n'})
	sum, text, spaced := bytes.Cut(line, []byte{' '})
	if !ok || !spaced || fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) != string(sum) {
		return m, errMark
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return highWater{}, errMark
	}
	return m, nil
}

// readMark reads a mark file; ok is false where there is none.
func readMark(fsys FS, path string) (m highWater, ok bool, err error) {
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("cannot read %s: %w", path, err)
	}
	defer f.Close()
	buf := make([]byte, markFileSize)
	n, _ := f.ReadAt(buf, 0)
	m, err = decodeMark(buf[:n])
	return m, true, err
}

// identifier is a disk that tells files apart: a copy of a file has another identity.
// It is "" where the disk cannot say.
type identifier interface {
	Identity(name string) (string, error)
}

// identity is that of the file of this name, "" where the disk cannot say.
func identity(fsys FS, name string) (string, error) {
	if d, ok := fsys.(identifier); ok {
		return d.Identity(name)
	}
	return "", nil
}

// compare holds what was found in a directory against the mark beside it.
func (j *Journal) compare(st *state, rec *Recovery) error {
	rec.FoundLSN = st.lsn
	if !j.cfg.Mark {
		return nil
	}
	m, ok, err := readMark(j.cfg.FS, markPath(j.cfg.Dir))
	switch {
	case errors.Is(err, errMark):
		rec.Copied = fmt.Sprintf("%s, which says how far the journal had come, cannot be read", markPath(j.cfg.Dir))
	case err != nil:
		return err
	case !ok && st.marked:
		rec.Copied = fmt.Sprintf("%s, which says how far the journal had come, is gone", markPath(j.cfg.Dir))
	case ok:
		m.against(j, st, rec)
	}
	return nil
}

// against notes what the mark says about the journal that was found.
func (m highWater) against(j *Journal, st *state, rec *Recovery) {
	id := ""
	if !rec.New {
		id = st.id.String()
	}
	switch {
	case id == "":
		rec.WentBack = fmt.Sprintf("there is no journal in %s any more, and there was one (record %d of epoch %d)", j.cfg.Dir, m.LSN, m.Epoch)
	case id != m.ID:
		rec.WentBack = fmt.Sprintf("the journal in %s is another one than was there (%s, was %s)", j.cfg.Dir, id, m.ID)
	case st.epoch < m.Epoch || st.number < m.Segment:
		rec.LostBelow = allLost
		rec.WentBack = fmt.Sprintf("the journal in %s is older than it was (record %d of epoch %d, was %d of %d): put back from a copy?",
			j.cfg.Dir, st.lsn, st.epoch, m.LSN, m.Epoch)
	case st.lsn < m.LSN:
		rec.add(Damage{
			File: segmentName(st.number), Reason: fmt.Sprintf("records up to %d were written, and the last that is there is %d", m.LSN,
				st.lsn), below: allLost,
		})
	case rec.TornBytes > 0 && m.Boot != "" && m.Boot == j.cfg.Boot && !rec.cutAtPage:
		// Without a loss of power what was written is all there.
		rec.add(Damage{
			File: segmentName(st.number), Length: rec.TornBytes, below: allLost,
			Reason: "the end cannot be read, and the machine has been up since it was written",
		})
	}
	st.lsn = max(st.lsn, m.lsnOf(id)) // numbers of records that were lost are not given again
	st.epoch = max(st.epoch, m.epochOf(id))
	if st.number != m.Segment || m.Identity == "" || rec.WentBack != "" || rec.New {
		return
	}
	now, err := identity(j.cfg.FS, filepath.Join(j.cfg.Dir, segmentName(st.number)))
	if err == nil && now != "" && now != m.Identity {
		rec.Copied = fmt.Sprintf("%s in %s is not the file that was there: a copy, which may be older", segmentName(st.number), j.cfg.Dir)
	}
}

// lsnOf and epochOf are those of the mark, 0 where it is of another journal.
func (m highWater) lsnOf(id string) uint64 {
	if id != m.ID {
		return 0
	}
	return m.LSN
}

func (m highWater) epochOf(id string) uint64 {
	if id != m.ID {
		return 0
	}
	return m.Epoch
}

// markFile brings the mark file up to date.
type markFile struct {
	mu     sync.Mutex
	file   File
	last   highWater
	failed bool // the last write did
}

// openMark makes the mark file of this opening, durably. The new segment is durable.
func (j *Journal) openMark() error {
	if !j.cfg.Mark {
		return nil
	}
	f, err := j.cfg.FS.Create(markPath(j.cfg.Dir))
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", markPath(j.cfg.Dir), fullAs(err))
	}
	j.water.file = f
	if err := j.saveMark(); err != nil {
		return errors.Join(fmt.Errorf("cannot write %s: %w", markPath(j.cfg.Dir), fullAs(err)), f.Close())
	}
	if err := j.cfg.FS.SyncDir(filepath.Dir(markPath(j.cfg.Dir))); err != nil {
		return errors.Join(fmt.Errorf("cannot make %s durable: %w", markPath(j.cfg.Dir), err), f.Close())
	}
	return nil
}

// saveMark writes how far the journal has come, if that is news. What it says is
// durable in the journal.
func (j *Journal) saveMark() error {
	w := &j.water
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	at := j.place.Load()
	m := highWater{ID: j.id.String(), Epoch: j.epoch, Segment: at.number, LSN: j.lsn.Load(), Identity: at.identity, Boot: j.cfg.Boot}
	if m == w.last {
		return nil
	}
	_, err := w.file.WriteAt(m.encode(), 0)
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		if !w.failed {
			j.alarm(AlarmWrite, fmt.Sprintf("cannot write %s: a journal that is put back from a copy may not be noticed", markPath(j.cfg.Dir)), err)
		}
		w.failed = true
		return err
	}
	w.last, w.failed = m, false
	return nil
}

func (j *Journal) closeMark() error {
	err := j.saveMark()
	w := &j.water
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return errors.Join(err, f.Close())
}

// place is which file takes the appends.
type place struct {
	number   uint64
	name     string
	identity string
}

// stay checks that the files of the journal are still there under their names: that
// nobody removed or replaced them, so that what is written to them would be lost. The
// error wraps ErrRemoved.
func (j *Journal) stay() error {
	at := j.place.Load()
	for name, was := range map[string]string{at.name: at.identity, lockName: j.lockIdentity} {
		if was == "" || name == "" {
			continue
		}
		path := filepath.Join(j.cfg.Dir, name)
		switch now, err := identity(j.cfg.FS, path); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %s is gone", ErrRemoved, path)
		case err != nil:
			continue // that says nothing; a write will tell
		case now != was:
			return fmt.Errorf("%w: %s is another file than it was", ErrRemoved, path)
		}
	}
	return nil
}

// gaps are the segments that are missing between two that are there. Those before a gap
// cannot have been compacted away, or the ones behind it were removed.
func gaps(segments []segmentFile) []Damage {
	var all []Damage
	for i := 1; i < len(segments); i++ {
		before, next := segments[i-1], segments[i]
		if next.number <= before.number+1 || before.damaged || before.number == math.MaxUint64 {
			continue
		}
		name := segmentName(before.number + 1)
		why := fmt.Sprintf("it is missing between %s and %s", before.name, next.name)
		if next.number > before.number+2 {
			why = fmt.Sprintf("%d segments from it on are missing between %s and %s", next.number-before.number-1, before.name, next.name)
		}
		all = append(all, Damage{File: name, Reason: why})
	}
	return all
}
