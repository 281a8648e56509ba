package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// files are the database and its log as they were opened. A file that was removed, or
// replaced by another, is still written to without an error, and all of it is lost. It
// belongs to the writer's goroutine.
type files struct {
	path string
	was  [2]fs.FileInfo // nil: not seen yet
	gone error
}

// stay checks that they are still there under their names. Once they are not, the
// error, which wraps ErrRemoved, stays.
func (f *files) stay() error {
	if f.gone != nil {
		return f.gone
	}
	for i, path := range []string{f.path, f.path + "-wal"} {
		now, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && f.was[i] != nil:
			f.gone = fmt.Errorf("%w: %s is gone: stop central, see who removed it, and put it or a backup back (rackpower-central restore)",
				ErrRemoved, path)
			return f.gone
		case err != nil:
		case f.was[i] == nil:
			f.was[i] = now
		case !os.SameFile(f.was[i], now):
			f.gone = fmt.Errorf("%w: %s is another file than it was: stop central, and see which of the two is to stay", ErrRemoved, path)
			return f.gone
		}
	}
	return nil
}
