package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Journal is an open journal. All methods may be called from any goroutine.
type Journal struct {
	cfg   Config
	lock  io.Closer
	id    uuid.UUID
	owner string
	epoch uint64
	rec   Recovery
	pool  *segmentPool
	marks *marker
	water markFile
	// place is where appends go; lockIdentity is that of the LOCK file.
	place        atomic.Pointer[place]
	lockIdentity string

	// lsn is that of the last durable record; written by the leader only.
	lsn atomic.Uint64

	// mu guards what follows.
	mu      sync.Mutex
	queue   []*request // waiting, in the order of their arrival
	leading bool       // some goroutine commits at the moment
	closed  bool
	stopped error
	// live is changed only by the leader and under mu, so the leader may read
	// it without.
	live *liveSet

	// What follows belongs to the leader.
	cur    *segment
	number uint64 // of the newest segment ever begun
	buf    []byte
	stamp  time.Time // of the records in buf

	closing sync.Once
	quit    chan struct{} // closed by close
	done    chan struct{} // closed when the background has ended
}

// segment is the file that takes the appends.
type segment struct {
	file File
	name string
	salt uint32
	size int64
	off  int64 // where the next frame goes; all before is durable
}

// Open takes the directory, reads what is in it, and begins a fresh segment: a
// segment of an earlier opening is never appended to. It returns when the new
// segment is durable. Errors to tell apart: ErrLocked, ErrOwner, ErrVersion,
// ErrFull.
func Open(cfg Config) (*Journal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("cannot make journal directory: %w", err)
	}
	lock, err := cfg.FS.Lock(filepath.Join(cfg.Dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("cannot open journal %s: %w", cfg.Dir, err)
	}
	lockIdentity, _ := identity(cfg.FS, filepath.Join(cfg.Dir, lockName))
	j := &Journal{cfg: cfg, lock: lock, lockIdentity: lockIdentity, quit: make(chan struct{}), done: make(chan struct{})}
	j.place.Store(new(place))
	j.pool = newSegmentPool(cfg)
	j.marks = newMarker(cfg.MarkAfter)
	if err := j.recover(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	go j.background()
	return j, nil
}

// recover reads the directory and begins the segment of this opening.
func (j *Journal) recover() error {
	began := time.Now()
	l, err := list(j.cfg.FS, j.cfg.Dir)
	if err != nil {
		return err
	}
	if err := checkVersions(j.cfg.FS, j.cfg.Dir, l.segments); err != nil {
		return err
	}
	st, err := recoverState(j.cfg.FS, j.cfg.Dir, l.segments)
	if err != nil {
		return err
	}
	j.rec = st.recovery()
	j.rec.Kept = l.kept
	for _, d := range gaps(l.segments) {
		j.rec.add(d)
	}
	if err := j.compare(&st, &j.rec); err != nil {
		return err
	}
	if err := j.adopt(st); err != nil {
		return err
	}
	if err := j.putAside(l.segments); err != nil {
		return err
	}
	j.pool.history = olderThan(l.segments, st.number, j.rec.Damaged())
	// A writer that died may have left a name that a loss of power takes back. Were the next
	// segment's durable without it, that would be a gap.
	if err := j.cfg.FS.SyncDir(j.cfg.Dir); err != nil {
		return fmt.Errorf("cannot open journal %s: %w", j.cfg.Dir, fullAs(err))
	}
	b := j.firstBatch()
	if err := j.rotate(b); err != nil {
		return fmt.Errorf("cannot open journal %s: %w", j.cfg.Dir, fullAs(err))
	}
	j.took(b)
	if err := j.openMark(); err != nil {
		return err
	}
	j.pool.history = segmentNames(l.segments, j.rec.Kept)
	j.rec.Took = time.Since(began)
	j.announce()
	return nil
}

// firstBatch is what the caller has made durable together with the opening's segment.
func (j *Journal) firstBatch() batch {
	var b batch
	if j.cfg.OnOpen == nil {
		return b
	}
	if entries := j.cfg.OnOpen(j.rec, j.live.sorted()); len(entries) > 0 {
		r := newRequest(frameRecord, entries)
		b.requests, b.size = []*request{r}, r.size
	}
	return b
}

// took makes the records of the opening's own batch current.
func (j *Journal) took(b batch) {
	for _, r := range b.requests {
		j.applyRequest(r)
		j.lsn.Store(r.lsn)
	}
}

// adopt takes over identity and live set.
func (j *Journal) adopt(st state) error {
	want := j.cfg.Owner
	if want != "" && st.owner != "" && st.owner != want {
		return fmt.Errorf("cannot open journal %s: %w: it belongs to %q, this is %q", j.cfg.Dir, ErrOwner, st.owner, want)
	}
	j.owner = want
	if want == "" {
		j.owner = st.owner
	}
	j.id = st.id
	if j.id == uuid.Nil {
		id, err := uuid.NewRandom()
		if err != nil {
			return fmt.Errorf("cannot name journal %s: %w", j.cfg.Dir, err)
		}
		j.id = id
	}
	j.epoch, j.number, j.live = st.epoch+1, st.number, st.live
	j.lsn.Store(st.lsn)
	return nil
}

// putAside renames the damaged files, so that no compaction removes them. A
// crash before the new segment is there finds them under their new name.
func (j *Journal) putAside(segments []segmentFile) error {
	renamed := map[string]bool{}
	for _, d := range j.rec.Damage {
		if renamed[d.File] || isAside(segments, d.File) || !isThere(segments, d.File) {
			continue
		}
		from := filepath.Join(j.cfg.Dir, d.File)
		if err := j.cfg.FS.Rename(from, from+damagedSuffix); err != nil {
			return fmt.Errorf("cannot put damaged segment aside: %w", err)
		}
		renamed[d.File] = true
		j.rec.Kept = append(j.rec.Kept, d.File+damagedSuffix)
	}
	if missing := gaps(segments); len(missing) > 0 {
		// What is before a gap is history that is not whole: it says so once.
		last := missing[len(missing)-1].File
		for _, seg := range segments {
			if seg.damaged || seg.name >= last || renamed[seg.name] {
				continue
			}
			from := filepath.Join(j.cfg.Dir, seg.name)
			if err := j.cfg.FS.Rename(from, from+damagedSuffix); err != nil {
				return fmt.Errorf("cannot put segment aside: %w", err)
			}
			renamed[seg.name] = true
			j.rec.Kept = append(j.rec.Kept, seg.name+damagedSuffix)
		}
	}
	if len(renamed) == 0 {
		return nil
	}
	if err := j.cfg.FS.SyncDir(j.cfg.Dir); err != nil {
		return fmt.Errorf("cannot put damaged segment aside: %w", err)
	}
	return nil
}

func (j *Journal) announce() {
	j.cfg.Logger.Info("journal opened", "dir", j.cfg.Dir, "epoch", j.epoch, "lsn", j.lsn.Load(), "live", j.rec.Live,
		"clean", j.rec.Clean, "torn_bytes", j.rec.TornBytes, "took", j.rec.Took)
	if j.rec.Damaged() {
		j.alarm(AlarmDamage, fmt.Sprintf("journal %s is damaged (%v, %d places); %d records salvaged, kept as %v",
			j.cfg.Dir, j.rec.Damage[0], len(j.rec.Damage), j.rec.Salvaged, j.rec.Kept), nil)
	}
	if j.rec.WentBack != "" {
		j.alarm(AlarmBack, j.rec.WentBack, nil)
	}
	if j.rec.Copied != "" {
		j.cfg.Logger.Warn("journal may be a copy", "dir", j.cfg.Dir, "reason", j.rec.Copied)
	}
}

func (j *Journal) alarm(kind AlarmKind, text string, err error) {
	j.cfg.Logger.Error("journal alarm", "kind", kind, "text", text, "err", err)
	j.cfg.OnAlarm(Alarm{Kind: kind, Text: text, Err: err})
}

// Live returns the live records in LSN order. They belong to the caller.
func (j *Journal) Live() []Record {
	j.mu.Lock()
	all := j.live.sorted()
	j.mu.Unlock()
	// A payload is never written to once it is in the live set.
	for i := range all {
		all[i].Payload = append([]byte(nil), all[i].Payload...)
	}
	return all
}

// ID is the name that the journal got when its directory was first opened.
func (j *Journal) ID() string { return j.id.String() }

// Owner is the name of the agent that the directory belongs to.
func (j *Journal) Owner() string { return j.owner }

// Epoch is how many times the journal was opened, this time included.
func (j *Journal) Epoch() uint64 { return j.epoch }

// LSN is that of the last durable record, 0 before the first.
func (j *Journal) LSN() uint64 { return j.lsn.Load() }

// Recovery is what Open found.
func (j *Journal) Recovery() Recovery { return j.rec }

// Err is nil while the journal takes entries, and wraps ErrStopped or ErrClosed
// once it takes none for good.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refusal()
}

// refusal is Err under mu.
func (j *Journal) refusal() error {
	if j.stopped != nil {
		return j.stopped
	}
	if j.closed {
		return ErrClosed
	}
	return nil
}

// Close waits for the appends under way, writes the closing mark, and gives the
// directory back. A second call waits for the first and does nothing. After a
// stop Close returns why the journal stopped.
func (j *Journal) Close() error {
	var err error
	j.closing.Do(func() { err = j.close() })
	return err
}

func (j *Journal) close() error {
	err := j.submit(newRequest(frameClose, nil))
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	close(j.quit)
	<-j.done
	return errors.Join(err, j.closeMark(), j.pool.close(), j.cur.file.Close(), j.lock.Close())
}

// checkVersions refuses a directory in which a newer program has written.
func checkVersions(fsys FS, dir string, segments []segmentFile) error {
	for _, seg := range segments {
		f, err := fsys.Open(filepath.Join(dir, seg.name))
		if err != nil {
			return fmt.Errorf("cannot open journal segment: %w", err)
		}
		_, _, err = readHeader(f)
		f.Close()
		if errors.Is(err, ErrVersion) {
			return fmt.Errorf("cannot open journal segment %s: %w", seg.name, err)
		}
	}
	return nil
}

// fullAs lets callers tell a full disk by ErrFull.
func fullAs(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
