package journal

import (
	"fmt"
	"log/slog"
	"time"
)

// Config says how a journal is opened.
type Config struct {
	// Dir is the directory; it is made when it is missing.
	Dir string
	// FS is the disk; nil is the real one.
	FS FS
	// SegmentSize is the length of a segment in bytes; default 4 MiB. A large
	// live set makes larger ones.
	SegmentSize int64
	// KeepSegments is how many compacted segments are kept as history and as a
	// second source after damage; 0 is the default of 3, below 0 none.
	KeepSegments int
	// Owner is the name of the agent that the directory belongs to, at most 255
	// bytes. Another's directory is refused with ErrOwner. Empty takes any.
	Owner string
	// Logger hears of openings, rotations and alarms; nil: nobody.
	Logger *slog.Logger
	// Now is the clock that stamps records; nil is time.Now.
	Now func() time.Time
	// MarkAfter is how long after the last record a mark is written, so that the
	// record's own loss would be noticed; default 1 s, below 0 never.
	MarkAfter time.Duration
	// OnAlarm hears of what an operator must know. It is called from any
	// goroutine, also during Open and within Append; it must not block nor call
	// the journal.
	OnAlarm func(Alarm)
	// OnFlush hears of each batch that was written and flushed, or was not: how long that took,
	// with a new segment where one was begun, how many records and bytes it held, and what went
	// wrong. It is called within Append, and must neither block nor call the journal. nil: nobody.
	OnFlush func(took time.Duration, records int, bytes int64, err error)
	// Mark keeps a file beside Dir (its path and ".mark") that says how far the journal has
	// come, so that the next Open notices when Dir, or a part of it, is older than that
	// (Recovery.WentBack, Recovery.Copied).
	Mark bool
	// Boot names the present run of the machine; empty: not known. While it is the same
	// there was no loss of power, and no write is torn. Only used with Mark.
	Boot string
	// OnOpen, where it is set, is told what Open found, before anything is changed, and
	// returns what must be durable together with the segment of this opening: after a
	// crash either all that follows from the damage is there or the damage is found again.
	OnOpen func(found Recovery, live []Record) []Entry
}

// The defaults.
const (
	DefaultSegmentSize  = 4 << 20
	DefaultKeepSegments = 3
	DefaultMarkAfter    = time.Second
	minSegmentSize      = 16 << 10
	maxSegmentSize      = 1 << 30
)

// Validate reports what cannot be opened, whatever the directory holds.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("cannot open a journal without a directory")
	case len(c.Owner) > maxOwner:
		return fmt.Errorf("cannot open journal %s: owner of %d bytes, at most %d", c.Dir, len(c.Owner), maxOwner)
	case c.SegmentSize != 0 && (c.SegmentSize < minSegmentSize || c.SegmentSize > maxSegmentSize):
		return fmt.Errorf("cannot open journal %s: segments of %d bytes, want %d to %d", c.Dir, c.SegmentSize, minSegmentSize, maxSegmentSize)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = Disk()
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = DefaultSegmentSize
	}
	switch {
	case c.KeepSegments == 0:
		c.KeepSegments = DefaultKeepSegments
	case c.KeepSegments < 0:
		c.KeepSegments = 0
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MarkAfter == 0 {
		c.MarkAfter = DefaultMarkAfter
	}
	if c.OnAlarm == nil {
		c.OnAlarm = func(Alarm) {}
	}
	return c
}

// AlarmKind names what happened.
type AlarmKind string

// The alarms.
const (
	// AlarmDamage: something that had been flushed cannot be read.
	AlarmDamage AlarmKind = "damage"
	// AlarmWrite: a write or flush failed; a new segment took over.
	AlarmWrite AlarmKind = "write-failed"
	// AlarmFull: no room for a new segment. Appends go on until the current one
	// is used up, and fail from then on.
	AlarmFull AlarmKind = "disk-full"
	// AlarmRoom: there is room again after AlarmFull.
	AlarmRoom AlarmKind = "disk-room"
	// AlarmStopped: the journal takes nothing more.
	AlarmStopped AlarmKind = "stopped"
	// AlarmBack: these are files of an older state, or files are gone.
	AlarmBack AlarmKind = "went-back"
	// AlarmRemoved: files were removed or replaced under the open journal, which takes
	// nothing more.
	AlarmRemoved AlarmKind = "files-removed"
)

// Alarm is something that an operator must know.
type Alarm struct {
	Kind AlarmKind
	Text string // a sentence with file, offset or cause
	Err  error  // the cause; nil for AlarmDamage and AlarmRoom
}
