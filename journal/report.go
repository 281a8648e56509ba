package journal

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Position says where a record is.
type Position struct {
	File    string `json:"file"` // name within the directory
	Segment uint64 `json:"segment"`
	Epoch   uint64 `json:"epoch"` // of the segment
	Offset  int64  `json:"offset"`
	// Snapshot: the record was carried over from an older segment, in which it
	// may have been seen already.
	Snapshot bool `json:"snapshot,omitempty"`
}

// Damage is a part of a file that was flushed once and cannot be read now.
type Damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Reason string `json:"reason"`
	// below: records with a smaller LSN may be lost with this part; 0: none is.
	below uint64
}

// allLost is a below that no record is above.
const allLost = math.MaxUint64

// String says where and what.
func (d Damage) String() string {
	return fmt.Sprintf("%s: %d bytes at %d: %s", d.File, d.Length, d.Offset, d.Reason)
}

// SegmentReport is what reading one file found.
type SegmentReport struct {
	File     string    `json:"file"`
	Number   uint64    `json:"number"`
	Epoch    uint64    `json:"epoch"`
	Created  time.Time `json:"created"`
	FirstLSN uint64    `json:"first_lsn"`
	// LastLSN is FirstLSN-1 when the segment has only a snapshot.
	LastLSN  uint64 `json:"last_lsn"`
	Snapshot int    `json:"snapshot"` // records carried over
	Records  int    `json:"records"`  // records appended
	Used     int64  `json:"used"`     // bytes
	Size     int64  `json:"size"`     // bytes
	// TornBytes follow Used: a write that was cut off, never acknowledged.
	TornBytes int64 `json:"torn_bytes,omitempty"`
	// Closed: the last thing written is the mark of a Close.
	Closed bool     `json:"closed"`
	Damage []Damage `json:"damage,omitempty"`
	// Salvaged counts the records that verified although the file is damaged.
	Salvaged int `json:"salvaged,omitempty"`
}

// Report is what reading a directory found.
type Report struct {
	ID       string          `json:"id"`
	Owner    string          `json:"owner"`
	Epoch    uint64          `json:"epoch"`
	LSN      uint64          `json:"lsn"` // last record found
	Live     int             `json:"live"`
	Segments []SegmentReport `json:"segments"`
	// Missing are segments that are not there although one before and one behind them are,
	// and records that the mark file beside the journal knows of.
	Missing []Damage `json:"missing,omitempty"`
	// Kept are damaged files that earlier openings put aside.
	Kept []string `json:"kept,omitempty"`
}

// Damage lists the damage of all segments, missing ones included.
func (r Report) Damage() []Damage {
	all := slices.Clone(r.Missing)
	for _, s := range r.Segments {
		all = append(all, s.Damage...)
	}
	return all
}

// Recovery is what Open found in the directory and did with it.
type Recovery struct {
	// New: there was no journal in the directory.
	New bool `json:"new"`
	// Clean: the last writer closed the journal and nothing is wrong with it.
	Clean bool `json:"clean"`
	// TornBytes were cut off the end: a write that was never acknowledged.
	TornBytes int64 `json:"torn_bytes"`
	// Damage: acknowledged records may be lost. What Live returns is then not to
	// be acted on before the world has been looked at.
	Damage []Damage `json:"damage,omitempty"`
	// LostBelow: with the damage, records with a smaller LSN may be lost; 0: none is.
	LostBelow uint64 `json:"-"`
	// WentBack says what shows that these are files of an older state, put back from a
	// copy, or that files were taken away; empty: nothing does. Records that were flushed
	// are then lost, and their LSNs may be given again.
	WentBack string `json:"went_back,omitempty"`
	// FoundLSN is that of the newest record that was found. Journal.LSN may begin higher.
	FoundLSN uint64 `json:"found_lsn"`
	// Copied says what leaves it open whether these are the files that the last writer
	// left, or a copy, which may be older; empty: they are.
	Copied string `json:"copied,omitempty"`
	// Salvaged records verified although their file is damaged.
	Salvaged int `json:"salvaged"`
	// Kept are the damaged files in the directory, put aside now or earlier.
	Kept []string `json:"kept,omitempty"`
	// Replayed records were read, Live of them are live.
	Replayed int           `json:"replayed"`
	Live     int           `json:"live"`
	Took     time.Duration `json:"took"`
	// cutAtPage: what is cut off ends at the end of a page, as the write of a process that
	// was killed in the middle of it may.
	cutAtPage bool
}

// Damaged reports whether anything that had been flushed could not be read.
func (r Recovery) Damaged() bool { return len(r.Damage) > 0 }
