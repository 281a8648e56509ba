package store

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// The errors that callers act on.
var (
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("the database is closed")
	// ErrInUse means that another process has the database open for writing.
	ErrInUse = errors.New("the database is in use by another process")
	// ErrNewer means that the database was written by a newer version of the
	// program. Nothing was changed in it.
	ErrNewer = errors.New("the database is of a newer version")
	// ErrForeign means that the file is no database of this program.
	ErrForeign = errors.New("not a rackpower database")
	// ErrDisk means that the disk is full or failing, or that somebody else holds
	// the database: what was asked is not durable and may be asked again.
	ErrDisk = errors.New("cannot write to the disk")
	// ErrNoRoom means that there is no room for a copy of the database: the one that is kept before
	// it is migrated, or a backup. Nothing was changed.
	ErrNoRoom = errors.New("no room for a copy of the database")
	// ErrRemoved means that the database file was removed or replaced under this process:
	// nothing that is written would be found again.
	ErrRemoved = errors.New("the database was removed or replaced")
	// ErrNoKey means that passwords are sealed with a key that is not there. Nothing was
	// changed.
	ErrNoKey = errors.New("the passwords in the database do not open")
	// ErrCorrupt means that a check found the database damaged.
	ErrCorrupt = errors.New("the database is damaged")
	// ErrAltered means that the audit log is not as it was written.
	ErrAltered = errors.New("the audit log was changed")
)

// disk marks the errors of SQLite that speak of the disk.
func disk(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrBusy:
		return fmt.Errorf("%w: %w", ErrDisk, err)
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
