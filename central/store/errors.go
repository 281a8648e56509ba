package store

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
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
	// ErrDisk means that the disk is full or failing, that the server is not there, or that somebody else
	// holds the database: what was asked is not durable and may be asked again.
	ErrDisk = errors.New("cannot write to the disk")
	// ErrNotDurable means that the database server is set to lose what it said was committed.
	ErrNotDurable = errors.New("the database server may lose what it commits")
	// ErrTakenOver means that another process has taken the database over: this one may not write
	// any more, and has to end.
	ErrTakenOver = errors.New("another process has taken the database over")
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

// disk marks the errors of SQLite, and of PostgreSQL, that speak of the disk or of the way to it.
func disk(err error) error {
	var lite sqlite3.Error
	var pg *pgconn.PgError
	var network net.Error
	kind := error(nil)
	switch {
	case err == nil:
	case errors.As(err, &lite):
		switch lite.Code {
		case sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrBusy:
			kind = ErrDisk
		case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
			kind = ErrCorrupt
		}
	case errors.As(err, &pg):
		kind = kindOf(pg.Code)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, errLost):
		kind = ErrDisk
	}
	if kind == nil || errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// kindOf is what kind of error a SQLSTATE of PostgreSQL is.
func kindOf(state string) error {
	switch state {
	case "XX001", "XX002": // a damaged table or index
		return ErrCorrupt
	case "25006", "40001", "40P01", "55P03": // a standby; others were in the way
		return ErrDisk
	}
	switch state[:min(2, len(state))] {
	case "08", "53", "57", "58": // the connection, resources, somebody stopped it, the system
		return ErrDisk
	}
	return nil
}
