package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"rackpower/central/api"
)

// Summary says what a database holds.
type Summary struct {
	ID            string
	Generation    int64
	Schema        int64
	Nodes, Agents int
	Ops, Open     int // operations, and those that have not ended
	Audit         int
}

// Backup copies the database at path into a new file, as it is at one moment;
// whoever has it open may go on writing meanwhile. The copy is checked, durable
// and complete when it gets its name; an existing file is not overwritten.
func Backup(ctx context.Context, path, to string) (sum Summary, err error) {
	if version, err := peek(path); err != nil {
		return sum, err
	} else if version == 0 {
		return sum, fmt.Errorf("cannot back up %s: there is no database", path)
	}
	if _, err := os.Lstat(to); err == nil {
		return sum, fmt.Errorf("cannot back up to %s: %w", to, fs.ErrExist)
	}
	temp, err := tempBeside(to)
	if err != nil {
		return sum, fmt.Errorf("cannot back up to %s: %w", to, err)
	}
	defer removeDatabase(temp)
	if err := copyDatabase(ctx, path, temp); err != nil {
		return sum, fmt.Errorf("cannot back up %s: %w", path, disk(err))
	}
	if sum, err = finishCopy(ctx, temp, false); err != nil {
		return sum, fmt.Errorf("cannot back up %s: %w", path, err)
	}
	if err := place(temp, to); err != nil {
		return sum, fmt.Errorf("cannot back up to %s: %w", to, err)
	}
	return sum, syncDir(filepath.Dir(to))
}

// Restore puts a backup in the place of the database at path, which must not be
// open; what was there is kept beside it under the name that is returned ("" if
// there was nothing). The restored database keeps its id and has a new incarnation,
// so that agents take their whole assignment anew, and tell again what they told
// after the backup; sessions are void; and what had been taken at the time of the
// backup counts as delivered, because it may have been since. Agents refuse what
// they have carried out already. keyFile is Config.KeyFile; without the keys of the
// backup's passwords it is ErrNoKey and nothing is changed.
func Restore(ctx context.Context, backup, path, keyFile string) (sum Summary, kept string, err error) {
	if version, err := peek(backup); err != nil {
		return sum, "", err
	} else if version == 0 {
		return sum, "", fmt.Errorf("cannot restore %s: there is no database in it", backup)
	}
	lock, err := lockFile(path)
	if err != nil {
		return sum, "", err
	}
	defer lock.Close()
	temp, err := tempBeside(path)
	if err != nil {
		return sum, "", fmt.Errorf("cannot restore to %s: %w", path, err)
	}
	defer removeDatabase(temp)
	if err := copyDatabase(ctx, backup, temp); err != nil {
		return sum, "", fmt.Errorf("cannot restore %s: %w", backup, disk(err))
	}
	if sum, err = finishCopy(ctx, temp, true); err != nil {
		return sum, "", fmt.Errorf("cannot restore %s: %w", backup, err)
	}
	err = withConn(ctx, temp, true, func(c *sql.Conn) error {
		_, _, err := readKeys(ctx, &sqlite{}, c, keyFile, filepath.Dir(path))
		return err
	})
	if err != nil {
		return sum, "", fmt.Errorf("cannot restore %s: %w", backup, err)
	}
	like := path
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		like = filepath.Dir(path)
	}
	if err := ownAs(like, temp); err != nil {
		return sum, "", err
	}
	if kept, err = setAside(ctx, path); err != nil {
		return sum, "", fmt.Errorf("cannot restore to %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return sum, kept, fmt.Errorf("cannot restore to %s: %w", path, err)
	}
	return sum, kept, syncDir(filepath.Dir(path))
}

// Check reads the whole database, whoever has it open, and says what it holds.
// Damage is ErrCorrupt, an audit log whose hashes do not fit ErrAltered.
func Check(ctx context.Context, path string) (sum Summary, err error) {
	version, err := peek(path)
	if err != nil {
		return sum, err
	}
	if version == 0 {
		return sum, fmt.Errorf("cannot check %s: there is no database", path)
	}
	err = withConn(ctx, path, true, func(c *sql.Conn) error {
		if err := sound(ctx, c, "integrity_check"); err != nil {
			return err
		}
		if err := foreignKeys(ctx, c); err != nil {
			return err
		}
		if sum, err = summarise(ctx, c, version); err != nil || version < chainSchema {
			return err
		}
		return soundAudit(ctx, newConn(&sqlite{}, c, nil))
	})
	return sum, err
}

// CheckServer is Check for a database on PostgreSQL, whose server checks its own files.
func CheckServer(ctx context.Context, database string) (sum Summary, err error) {
	e, err := newPostgres(database, appName, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return sum, err
	}
	defer e.close()
	c, err := e.read(ctx)
	if err != nil {
		return sum, err
	}
	defer c.Close()
	version, err := e.version(ctx, c)
	switch {
	case err != nil:
		return sum, err
	case version == 0:
		return sum, fmt.Errorf("cannot check %s: there is no database of central in it", e.at)
	case version > Schema:
		return sum, fmt.Errorf("%w: %s has schema %d, this program knows %d", ErrNewer, e.at, version, Schema)
	}
	if sum, err = summarise(ctx, c, version); err != nil {
		return sum, err
	}
	return sum, soundAudit(ctx, newConn(e, c, nil))
}

// soundAudit checks the hashes of the audit log.
func soundAudit(ctx context.Context, c *conn) error {
	check, err := verifyAudit("", func(f func(*Tx) error) error {
		if _, err := c.begin(c.e.view()); err != nil {
			return err
		}
		defer c.exec("ROLLBACK")
		return cmp.Or(ctx.Err(), f(&Tx{c: c}))
	})
	if err == nil && check.Wrong != 0 {
		err = fmt.Errorf("%w: %s", ErrAltered, check)
	}
	return err
}

func foreignKeys(ctx context.Context, c *sql.Conn) error {
	var table string
	var rest [3]any
	err := c.QueryRowContext(ctx, "PRAGMA foreign_key_check").Scan(&table, &rest[0], &rest[1], &rest[2])
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot check database: %w", disk(err))
	}
	return fmt.Errorf("%w: a row of %s belongs to nothing: restore a backup", ErrCorrupt, table)
}

// summarise reads what a database of a schema holds.
func summarise(ctx context.Context, c *sql.Conn, schema int64) (sum Summary, err error) {
	sum.Schema = schema
	err = c.QueryRowContext(ctx, `SELECT id, generation, (SELECT count(*) FROM nodes),
		(SELECT count(*) FROM agents), (SELECT count(*) FROM ops), (SELECT count(*) FROM ops WHERE stage < 4), (SELECT count(*) FROM audit) FROM meta`).
		Scan(&sum.ID, &sum.Generation, &sum.Nodes, &sum.Agents, &sum.Ops, &sum.Open, &sum.Audit)
	if err != nil {
		return sum, fmt.Errorf("cannot read database: %w", disk(err))
	}
	return sum, nil
}

// withConn opens a database for one function, without the lock.
func withConn(ctx context.Context, path string, readOnly bool, f func(*sql.Conn) error) error {
	db, err := sql.Open("sqlite3", dsn(path, readOnly))
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("cannot open database %s: %w", path, disk(err))
	}
	defer c.Close()
	return f(c)
}

// copyDatabase uses SQLite's online backup in one step: one snapshot, that
// writers do not disturb.
func copyDatabase(ctx context.Context, from, to string) error {
	return withConn(ctx, from, true, func(src *sql.Conn) error {
		return withConn(ctx, to, false, func(dst *sql.Conn) error {
			return dst.Raw(func(d any) error {
				return src.Raw(func(s any) error {
					b, err := d.(*sqlite3.SQLiteConn).Backup("main", s.(*sqlite3.SQLiteConn), "main")
					if err != nil {
						return err
					}
					_, err = b.Step(-1)
					return errors.Join(err, b.Finish())
				})
			})
		})
	})
}

// restoredRevs is how far a restore raises the revisions and cursors of
// operations: beyond all that were given out since the backup.
const restoredRevs = 1 << 32

// finishCopy makes one file of a copied database, checks it and, for a restore,
// gives it a new identity. Then it is durable.
func finishCopy(ctx context.Context, path string, restored bool) (sum Summary, err error) {
	err = withConn(ctx, path, false, func(c *sql.Conn) error {
		if err := sound(ctx, c, "integrity_check"); err != nil {
			return err
		}
		if restored {
			if err := renew(ctx, c, time.Now()); err != nil {
				return err
			}
		}
		schema, err := schemaOf(ctx, c)
		if err == nil {
			sum, err = summarise(ctx, c, schema)
		}
		if err != nil {
			return err
		}
		_, err = c.ExecContext(ctx, "PRAGMA journal_mode = DELETE")
		return disk(err)
	})
	if err != nil {
		return sum, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	return sum, f.Sync()
}

// renew migrates a restored database and makes another incarnation of it.
func renew(ctx context.Context, c *sql.Conn, now time.Time) error {
	if err := migrate(ctx, c, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return disk(err)
	}
	defer tx.Rollback()
	for _, step := range renewal(now) {
		if _, err := tx.ExecContext(ctx, step.query, step.args...); err != nil {
			return disk(err)
		}
	}
	var last auditLink
	if err := tx.QueryRowContext(ctx, sqlAuditHead).Scan(&last.id, &last.hash); err != nil {
		return disk(err)
	}
	_, args := restoreEntry(last, now)
	if _, err := tx.ExecContext(ctx, sqlAddAudit, args...); err != nil {
		return disk(err)
	}
	return disk(tx.Commit())
}

// Renew makes another incarnation of an open database that turned out to be an old
// copy of itself, as Restore does.
func (t *Tx) Renew(now time.Time) error {
	for _, step := range renewal(now) {
		if _, err := t.exec(step.query, step.args...); err != nil {
			return fmt.Errorf("cannot make another incarnation of the database: %w", err)
		}
	}
	if err := t.appendAudit(func(last auditLink) (auditLink, []any) { return restoreEntry(last, now) }); err != nil {
		return err
	}
	var next api.Database
	if err := t.row(`SELECT id, incarnation FROM meta`).Scan(&next.CentralID, &next.Incarnation); err != nil {
		return fmt.Errorf("cannot read meta data: %w", disk(err))
	}
	t.s.rev += restoredRevs
	t.OnCommit(func() { t.s.database.Store(&next) })
	return nil
}

type statement struct {
	query string
	args  []any
}

// renewal is what makes another incarnation of a database.
func renewal(now time.Time) []statement {
	return []statement{
		{
			`UPDATE meta SET incarnation = max(incarnation + 1, $1), generation = generation + 1, rev = rev + $2, restored_at = $3,
				restored_of = coalesce((SELECT at FROM audit ORDER BY id DESC LIMIT 1), 0)`,
			[]any{now.UnixMilli(), restoredRevs, nanos(now)},
		},
		{`DELETE FROM enforced`, nil},
		{`UPDATE agents SET session = '', restored = CASE name WHEN '' THEN 0 ELSE 1 END`, nil},
		// What a person confirmed, planned or asked to be approved was about the changes of then.
		{`UPDATE plans SET state = 'expired' WHERE state IN ('planned', 'awaiting')`, nil},
		{`UPDATE nodes SET confirmed = 0`, nil},
		{`UPDATE ops SET delivered = 1, rev = rev + $1, cursor = CASE cursor WHEN 0 THEN 0 ELSE cursor + $1 END,
			cancel_cursor = CASE cancel_cursor WHEN 0 THEN 0 ELSE cancel_cursor + $1 END WHERE stage < 4`, []any{restoredRevs}},
	}
}

// restoreEntry is what the audit log says of another incarnation. Whoever follows it has
// seen ids that the backup does not know.
func restoreEntry(last auditLink, now time.Time) (auditLink, []any) {
	return chained(api.AuditEntry{
		ID: last.id + restoredRevs, At: now, Who: "central", What: "restore", Detail: "the database was restored from a backup",
	}, last.hash)
}

// setAside gives the database at path a second name, under which it stays when
// another takes its place: there is a database under the first name all the time.
func setAside(ctx context.Context, path string) (kept string, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", removeSidecars(path)
	}
	// Opened and closed once, it has all of its log within itself. If it cannot be
	// opened, that may be why somebody restores: then it is kept as it lies there.
	_ = withConn(ctx, path, false, func(c *sql.Conn) error {
		_, err := c.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
		return err
	})
	kept = path + ".before-restore-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+suffix, kept+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return kept, place(path, kept)
}

// link is os.Link; tests have it fail.
var link = os.Link

// place gives the file a second name that is not taken. Volumes without hard links (vfat,
// some network file systems) give it another one instead.
func place(from, to string) error {
	err := link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// A name that was taken meanwhile is not overwritten where the volume can tell.
	if err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, fs.ErrExist)
	}
	return os.Rename(from, to)
}

// removeSidecars removes a log without its database.
func removeSidecars(path string) error {
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func tempBeside(path string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

func removeDatabase(path string) {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		_ = os.Remove(path + suffix)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make the name of a file durable in %s: %w", dir, err)
	}
	return nil
}
