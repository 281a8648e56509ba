package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the database as this program's (PRAGMA application_id,
// "RPWR"), in the file's header at offset 68.
const applicationID = 0x52505752

// Schema is the version of the schema that this program writes.
var Schema = countMigrations()

// chainSchema is the version since which the audit log has hashes.
const chainSchema = 17

func countMigrations() int64 {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(names) == 0 {
		panic("store: no migrations embedded")
	}
	return int64(len(names))
}

// peek reads schema version and application id from the header of a database
// file (SQLite file format, section 1.3), without SQLite. A file that is
// missing or empty has version 0.
func peek(path string) (version int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot open database: %w", err)
	}
	defer f.Close()
	var head [100]byte
	switch _, err := io.ReadFull(f, head[:]); {
	case errors.Is(err, io.EOF):
		return 0, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return 0, fmt.Errorf("%s: %w", path, ErrForeign)
	case err != nil:
		return 0, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if string(head[:16]) != "SQLite format 3\x00" {
		return 0, fmt.Errorf("%s: %w", path, ErrForeign)
	}
	version = int64(binary.BigEndian.Uint32(head[60:]))
	app := binary.BigEndian.Uint32(head[68:])
	switch {
	case version == 0 && app == 0:
		return 0, nil // opened once, and no migration committed yet
	case app != applicationID:
		return 0, fmt.Errorf("%s: %w", path, ErrForeign)
	case version > Schema:
		return version, fmt.Errorf("%w: %s has schema %d, this program knows %d: run the newer rackpower-central, or restore a backup that "+
			"this one made", ErrNewer, path, version, Schema)
	}
	return version, nil
}

// migrate brings the database to Schema in one transaction: one that fails, or is cut off, leaves
// the database as it was.
func migrate(ctx context.Context, c *sql.Conn, log *slog.Logger) error {
	version, err := schemaOf(ctx, c)
	if err != nil {
		return err
	}
	if version > Schema {
		return fmt.Errorf("%w: schema %d, this program knows %d: run the newer rackpower-central", ErrNewer, version, Schema)
	}
	if version < Schema {
		if err := steps(ctx, c, version, Schema); err != nil {
			return err
		}
		if version > 0 {
			log.Info("the database was migrated: an older rackpower-central does not read it, for that restore the copy or a backup of before",
				"from", version, "to", Schema)
		}
	}
	// The version must stand in the file itself, where peek reads it.
	_, err = c.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

func schemaOf(ctx context.Context, c *sql.Conn) (version int64, err error) {
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("cannot read schema version: %w", disk(err))
	}
	return version, nil
}

// steps goes from one schema to a later one.
func steps(ctx context.Context, c *sql.Conn, from, to int64) error {
	_, err := c.ExecContext(ctx, "BEGIN IMMEDIATE")
	for at := from + 1; at <= to && err == nil; at++ {
		if err = step(ctx, c, at); err != nil {
			err = fmt.Errorf("schema %d: %w", at, disk(err))
		}
	}
	if err == nil {
		_, err = c.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = c.ExecContext(ctx, "ROLLBACK")
		return fmt.Errorf("cannot migrate database from schema %d, which it stays at: %w", from, disk(err))
	}
	return nil
}

func step(ctx context.Context, c *sql.Conn, to int64) error {
	text, err := migrations.ReadFile(fmt.Sprintf("migrations/%04d.sql", to))
	if err != nil {
		return err
	}
	script := fmt.Sprintf("%s; PRAGMA application_id = %d; PRAGMA user_version = %d;", text, applicationID, to)
	if _, err = c.ExecContext(ctx, script); err == nil && to == 1 {
		_, err = c.ExecContext(ctx, `INSERT INTO meta (one, id, generation, created_at, seq, rev) VALUES (1, $1, 1, $2, 0, 0)`,
			newID(), time.Now().UnixNano())
	}
	if err == nil && to == chainSchema {
		err = beginChain(ctx, c, time.Now())
	}
	return err
}

// newID names a database.
func newID() string {
	id, err := uuid.NewRandomFromReader(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return id.String()
}
