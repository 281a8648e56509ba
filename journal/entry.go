package journal

import (
	"fmt"
	"time"
)

// Op says how an entry changes the live set. The numbers are on disk.
type Op uint8

// The operations.
const (
	// Add appends the record to the live records of its key.
	Add Op = 1
	// Put makes the record the only live record of its key.
	Put Op = 2
	// Drop ends the live records of its key; the record itself is history only.
	Drop Op = 3
)

// String returns "add", "put" or "drop".
func (o Op) String() string {
	switch o {
	case Add:
		return "add"
	case Put:
		return "put"
	case Drop:
		return "drop"
	default:
		return fmt.Sprintf("op(%d)", uint8(o))
	}
}

// Kind is the caller's own number for the meaning of a payload; it is on disk
// and opaque here.
type Kind uint8

// Entry is what a caller appends.
type Entry struct {
	Op   Op
	Kind Kind
	// Key names the thing that the entry is about: 1 to MaxKey bytes.
	Key string
	// Payload is at most MaxPayload bytes and may be empty.
	Payload []byte
}

// Record is an entry that is in the journal.
type Record struct {
	// LSN numbers the records from 1, in the order in which they were written.
	// It stays with the record through every compaction.
	LSN uint64
	// Time is when the record was written, to the nanosecond.
	Time time.Time
	Entry
}

// The limits of the format.
const (
	MaxKey     = 1<<16 - 1
	MaxPayload = 16 << 20
	// MaxGroup bounds the bytes on disk of one Append.
	MaxGroup = 64 << 20
)

func (e Entry) check() error {
	switch {
	case e.Op != Add && e.Op != Put && e.Op != Drop:
		return fmt.Errorf("cannot append: %v is not an operation", e.Op)
	case e.Key == "":
		return fmt.Errorf("cannot append: an entry needs a key")
	case len(e.Key) > MaxKey:
		return fmt.Errorf("cannot append: %w: key of %d bytes, at most %d", ErrTooLarge, len(e.Key), MaxKey)
	case len(e.Payload) > MaxPayload:
		return fmt.Errorf("cannot append %q: %w: payload of %d bytes, at most %d", e.Key, ErrTooLarge, len(e.Payload), MaxPayload)
	}
	return nil
}
