package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// sqlite is the engine of one file.
type sqlite struct {
	cfg    *Config
	log    *slog.Logger
	lock   *os.File
	db, ro *sql.DB // of the writer, and of views
	files  files   // owned by the writer goroutine
}

func (e *sqlite) name() string { return e.cfg.Path }

// write takes the lock, looks whether the database is one of ours, and opens it.
func (e *sqlite) write(ctx context.Context) (c *sql.Conn, err error) {
	if e.lock, err = lockFile(e.cfg.Path); err != nil {
		return nil, err
	}
	if _, err = peek(e.cfg.Path); err != nil {
		return nil, err
	}
	// SQLite makes -wal and -shm with the mode of the database itself.
	if _, err := os.Stat(e.cfg.Path); errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("a new database is made; if there should be one, stop central and see whether its volume is mounted", "path", e.cfg.Path)
	}
	f, err := os.OpenFile(e.cfg.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make database: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("cannot make database: %w", err)
	}
	if e.db, err = sql.Open("sqlite3", dsn(e.cfg.Path, false)); err != nil {
		return nil, err
	}
	e.db.SetMaxOpenConns(1)
	if c, err = e.db.Conn(ctx); err != nil {
		return nil, fmt.Errorf("cannot open database %s: %w", e.cfg.Path, disk(err))
	}
	e.files.path = e.cfg.Path
	if err = e.prepare(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// prepare checks the database and migrates it.
func (e *sqlite) prepare(ctx context.Context, c *sql.Conn) error {
	if err := e.check(ctx, c); err != nil {
		return err
	}
	if err := e.keepBefore(ctx, c); err != nil {
		return err
	}
	if err := migrate(ctx, c, e.log); err != nil {
		return err
	}
	if e.cfg.maxPages > 0 {
		if _, err := c.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", e.cfg.maxPages)); err != nil {
			return err
		}
	}
	return nil
}

// writeAgain is not needed: a file is not lost.
func (e *sqlite) writeAgain(context.Context) (*sql.Conn, error) { return nil, errLost }

func (e *sqlite) read(ctx context.Context) (c *sql.Conn, err error) {
	if e.ro == nil {
		if e.ro, err = sql.Open("sqlite3", dsn(e.cfg.Path, true)); err != nil {
			return nil, err
		}
	}
	if c, err = e.ro.Conn(ctx); err != nil {
		return nil, fmt.Errorf("cannot open database %s for reading: %w", e.cfg.Path, disk(err))
	}
	return c, nil
}

func (e *sqlite) stay() error                    { return e.files.stay() }
func (e *sqlite) begin() string                  { return "BEGIN IMMEDIATE" }
func (e *sqlite) view() string                   { return "BEGIN" }
func (e *sqlite) text(query string) string       { return query }
func (e *sqlite) bind(args []any) ([]any, error) { return args, nil }
func (e *sqlite) lost(*sql.Conn, error) bool     { return false }

// idle asks SQLite, which ends a transaction by itself when the disk is full or fails.
func (e *sqlite) idle(c *sql.Conn) bool {
	idle := true
	_ = c.Raw(func(raw any) error {
		if sc, ok := raw.(*sqlite3.SQLiteConn); ok {
			idle = sc.AutoCommit()
		}
		return nil
	})
	return idle
}

func (e *sqlite) has(ctx context.Context, c *sql.Conn, table, column string) (here bool, err error) {
	err = c.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pragma_table_info($1) WHERE name = $2)`, table, column).Scan(&here)
	return here, err
}

// wipe rewrites the file: pages that are free, and the log, still hold what was there.
func (e *sqlite) wipe(ctx context.Context, c *sql.Conn) error {
	if _, err := c.ExecContext(ctx, "VACUUM"); err != nil {
		return err
	}
	return e.flush(ctx)
}

// flush takes all out of the write-ahead log. Whoever reads the database at that moment
// prevents it.
func (e *sqlite) flush(ctx context.Context) error {
	return withConn(ctx, e.cfg.Path, false, func(c *sql.Conn) error {
		var busy, log, moved int
		if err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &moved); err != nil {
			return disk(err)
		}
		if busy != 0 {
			return errors.New("somebody else reads the database")
		}
		return nil
	})
}

// figures looks at the files.
func (e *sqlite) figures() (f DiskFigures, err error) {
	info, err := os.Stat(e.cfg.Path)
	if err != nil {
		return f, err
	}
	f.Database = info.Size()
	if info, err := os.Stat(e.cfg.Path + "-wal"); err == nil { // there is none before the first change
		f.WAL = info.Size()
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(e.cfg.Path, &fs); err != nil {
		return f, err
	}
	f.Free = int64(fs.Bavail) * fs.Bsize
	return f, nil
}

func (e *sqlite) close() {
	if e.ro != nil {
		e.ro.Close()
	}
	if e.db != nil {
		e.db.Close()
	}
	if e.lock != nil {
		e.lock.Close()
	}
}

// check runs quick_check, unless the database is too big for that at a start.
func (e *sqlite) check(ctx context.Context, c *sql.Conn) error {
	info, err := os.Stat(e.cfg.Path)
	if err != nil {
		return fmt.Errorf("cannot look at database: %w", err)
	}
	if info.Size() > e.cfg.CheckBelow {
		e.log.Info("database not checked at this start", "bytes", info.Size(), "limit", e.cfg.CheckBelow)
		return nil
	}
	return sound(ctx, c, "quick_check")
}

// sound runs quick_check or integrity_check.
func sound(ctx context.Context, c *sql.Conn, pragma string) error {
	var word string
	if err := c.QueryRowContext(ctx, "PRAGMA "+pragma+"(1)").Scan(&word); err != nil {
		return fmt.Errorf("cannot check database: %w", disk(err))
	}
	if word != "ok" {
		return fmt.Errorf("%w: %s: restore a backup", ErrCorrupt, word)
	}
	return nil
}

// dsn carries every setting, so that no connection can lack one.
func dsn(path string, readOnly bool) string {
	q := url.Values{}
	q.Set("_busy_timeout", "10000")
	q.Set("_foreign_keys", "1")
	q.Set("_mutex", "no") // one goroutine at a time has a connection
	if readOnly {
		q.Set("mode", "ro")
		q.Set("_query_only", "1")
	} else {
		q.Set("_journal_mode", "WAL")
		q.Set("_synchronous", "FULL")
		q.Set("_secure_delete", "on") // what was sealed with a key of before is gone with it
		q.Set("_txlock", "immediate")
		q.Set("mode", "rwc")
		q.Set("_cache_size", "-16384") // KiB
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	if !filepath.IsAbs(path) {
		u = url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: q.Encode()}
	}
	return u.String()
}

// lockFile takes the lock that goes with a database file, for writing. The
// kernel lets go of it when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock database: %w", err)
	}
	if err := ownAs(filepath.Dir(path), path+".lock"); err != nil {
		f.Close()
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w: is another rackpower-central running on it?", path, ErrInUse)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return f, nil
}
