package journal

import "errors"

// What a caller may have to tell apart. All are wrapped in a sentence.
var (
	// ErrLocked: another process, or another Journal in this one, has the directory.
	ErrLocked = errors.New("journal is locked")
	// ErrOwner: the directory belongs to an agent of another name.
	ErrOwner = errors.New("journal belongs to another owner")
	// ErrVersion: a newer program wrote the directory; nothing was touched.
	ErrVersion = errors.New("journal format is newer than this program")
	// ErrFull: there is no room for a new segment. Only this Append failed;
	// appending goes on as soon as there is room.
	ErrFull = errors.New("no room for the journal")
	// ErrStopped: a write or flush failed and no new segment could be had. The
	// journal takes nothing more until it is opened again. Whether the entries
	// of the failed Append are durable is not known.
	ErrStopped = errors.New("journal has stopped")
	// ErrRemoved: files of the open journal were removed or replaced. It takes nothing
	// more; what it acknowledged may be gone with the files.
	ErrRemoved = errors.New("files of the journal were removed or replaced")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge: a key, payload or group is above the limits of the format.
	ErrTooLarge = errors.New("entry is too large")
)
