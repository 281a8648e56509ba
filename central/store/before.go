package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keptBefore is how many copies of before a migration are kept, each of another schema.
const keptBefore = 3

// beforeName is the copy that is kept of a database before it leaves a schema.
func beforeName(path string, schema int64) string {
	return path + schemaSuffix + strconv.FormatInt(schema, 10)
}

const schemaSuffix = ".schema-"

// keepBefore copies a database that is about to be migrated to a file beside it, which is a backup
// as Backup makes it, and removes all but the newest of such copies. Without room for it the error
// is ErrNoRoom. A database with passwords in plain, of before they were sealed, is not copied: they
// would stay there.
func (e *sqlite) keepBefore(ctx context.Context, c *sql.Conn) error {
	schema, err := schemaOf(ctx, c)
	if err != nil || schema == 0 || schema >= Schema {
		return err
	}
	if plain, err := mayHoldPlain(ctx, c, schema); err != nil {
		return err
	} else if plain {
		e.log.Warn("no copy of the database is kept before it is migrated: its passwords are in plain", "from", schema, "to", Schema)
		return nil
	}
	to := beforeName(e.cfg.Path, schema)
	e.log.Info("the database is copied before it is migrated", "from", schema, "to", Schema, "copy", to)
	if err := e.roomFor(ctx, c, to); err != nil {
		return err
	}
	temp := to + ".new" // a name of its own, that one which was cut off left, too
	removeDatabase(temp)
	defer removeDatabase(temp)
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), ownAs(e.cfg.Path, temp))
	}
	if err == nil {
		err = disk(copyDatabase(ctx, e.cfg.Path, temp))
	}
	if err == nil {
		_, err = finishCopy(ctx, temp, false)
	}
	if err == nil {
		err = errors.Join(os.Rename(temp, to), syncDir(filepath.Dir(to)))
	}
	if err != nil {
		return fmt.Errorf("cannot copy the database before it is migrated: %w", err)
	}
	e.pruneBefore(to)
	return nil
}

// free is how many bytes a directory has room for; tests have less.
var free = func(dir string) (uint64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return st.Bavail * uint64(st.Bsize), err //nolint:gosec // sizes are positive
}

// Free is how many bytes are free in a directory for who runs this.
func Free(dir string) (uint64, error) { return free(dir) }

// roomFor fails without room for a copy of the database, in place of the one of that name.
func (e *sqlite) roomFor(ctx context.Context, c *sql.Conn, to string) error {
	var need uint64
	err := c.QueryRowContext(ctx, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").Scan(&need)
	if err != nil {
		return fmt.Errorf("cannot read the size of the database: %w", disk(err))
	}
	there, err := free(filepath.Dir(to))
	if err != nil {
		return fmt.Errorf("cannot look for room for a copy of the database: %w", err)
	}
	if there < need {
		return fmt.Errorf("%w in %s: one is kept before it is migrated, and needs %d MiB of which %d are free; make room and start central again",
			ErrNoRoom, filepath.Dir(to), need>>20+1, there>>20)
	}
	return nil
}

// pruneBefore removes the oldest copies, but for this one. One that cannot be removed does no harm.
func (e *sqlite) pruneBefore(newest string) {
	type file struct {
		name string
		at   time.Time
	}
	var older []file
	dir, base := filepath.Split(e.cfg.Path)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	for _, e := range entries {
		schema, ours := strings.CutPrefix(e.Name(), base+schemaSuffix)
		name := filepath.Join(dir, e.Name())
		if _, wrong := strconv.ParseUint(schema, 10, 31); !ours || wrong != nil || e.Name() == filepath.Base(newest) {
			continue
		}
		if info, err := e.Info(); err == nil {
			older = append(older, file{name, info.ModTime()})
		}
	}
	slices.SortFunc(older, func(a, b file) int { return b.at.Compare(a.at) })
	for _, f := range older[min(keptBefore-1, len(older)):] {
		err = errors.Join(err, os.Remove(f.name))
	}
	if err != nil {
		e.log.Warn("older copies of the database stay", "err", err)
	}
}

// sealedSchema is the version since which passwords are sealed.
const sealedSchema = 16

// mayHoldPlain reports whether passwords may be in plain in the file, be it in pages that are free.
func mayHoldPlain(ctx context.Context, c *sql.Conn, schema int64) (plain bool, err error) {
	if schema < sealedSchema {
		return true, nil
	}
	if err := c.QueryRowContext(ctx, "SELECT plain FROM meta").Scan(&plain); err != nil {
		return false, fmt.Errorf("cannot read meta data: %w", disk(err))
	}
	return plain, nil
}
