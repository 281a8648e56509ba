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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/power"
)

// FileName is the name of the database within central's data directory.
const FileName = "central.db"

// Config says which database to open and how.
type Config struct {
	// Path of the database file; it is made, with mode 0600, if it is missing.
	Path string
	// CheckBelow is the size in bytes up to which the database is checked when it
	// is opened; negative: never. 0: DefaultCheckBelow.
	CheckBelow int64
	// MaxBatch bounds the jobs of one transaction. 0: DefaultMaxBatch.
	MaxBatch int
	// KeyFile has the keys that seal passwords, see package seal, where they are kept
	// elsewhere: it is never written. "": seal.key beside the database, which is made.
	KeyFile string
	Log     *slog.Logger // nil: slog.Default()
	// Audited is called by the writer after each commit that may have added to the
	// audit log; nil: nobody cares. It must not wait for the store.
	Audited func()
	// Committed is called by the writer after each transaction: how long it took, how many jobs
	// it held and whether it failed; nil: nobody cares. It must not wait for the store.
	Committed func(took time.Duration, jobs int, err error)
	// Touched is called by the writer after a commit with the nodes whose rows, or
	// operations, the job changed, perhaps several times each; nil: nobody cares. What is
	// read again as it was before, only later, is no change. It must not wait for the store.
	Touched func(nodes []string)

	maxPages int64 // tests: a disk that is full at so many pages
}

// Defaults of Config.
const (
	DefaultCheckBelow = 256 << 20
	DefaultMaxBatch   = 256
	readers           = 4
)

// Store is an open database. All its methods may be called by many goroutines.
type Store struct {
	cfg    Config
	log    *slog.Logger
	lock   *os.File
	db     *sql.DB // writer
	ro     *sql.DB // readers
	writer *conn   // owned by the writer goroutine
	files  files   // likewise
	// toldGone: the log says that the files are gone; likewise.
	toldGone bool
	ring     atomic.Pointer[seal.Ring] // keys of passwords
	rotating sync.Mutex                // held while the key is changed
	damaged  sync.Map                  // what does not open and the log tells of
	views    chan *conn
	opened   int // connections that views holds when nobody reads

	database   atomic.Pointer[api.Database]
	generation int64
	clock      power.Clock
	rev        int64  // owned by the writer goroutine
	savedSeq   uint64 // likewise: what meta holds
	savedRev   atomic.Int64
	head       *auditLink // likewise: the end of the audit log; nil: as the database has it
	audited    bool       // by the open transaction: the audit log may have grown
	wrote      bool       // by the open transaction: a sequence merely seen is not worth a flush

	mu     sync.RWMutex // held for reading while a job is being queued
	closed bool
	jobs   chan *job
	done   chan struct{} // closed when the writer goroutine has ended
}

// Open opens the database, makes or migrates it, and checks it. Before it migrates it keeps a copy.
// It fails with ErrInUse, ErrNewer, ErrForeign, ErrCorrupt or ErrNoRoom where these apply.
func Open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.MaxBatch <= 0 {
		cfg.MaxBatch = DefaultMaxBatch
	}
	if cfg.CheckBelow == 0 {
		cfg.CheckBelow = DefaultCheckBelow
	}
	s := &Store{cfg: cfg, log: cfg.Log, jobs: make(chan *job, cfg.MaxBatch), done: make(chan struct{}), views: make(chan *conn, readers)}
	if err := s.open(); err != nil {
		s.release()
		return nil, err
	}
	go s.write()
	return s, nil
}

// open takes the lock, looks whether the database is one of ours, and opens it.
func (s *Store) open() (err error) {
	if s.lock, err = lockFile(s.cfg.Path); err != nil {
		return err
	}
	if _, err = peek(s.cfg.Path); err != nil {
		return err
	}
	if err = s.openWriter(); err != nil {
		return err
	}
	if err := s.openReaders(); err != nil {
		return err
	}
	return s.files.stay()
}

func (s *Store) openWriter() error {
	ctx := context.Background()
	// SQLite makes -wal and -shm with the mode of the database itself.
	if _, err := os.Stat(s.cfg.Path); errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("a new database is made; if there should be one, stop central and see whether its volume is mounted", "path", s.cfg.Path)
	}
	f, err := os.OpenFile(s.cfg.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make database: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return fmt.Errorf("cannot make database: %w", err)
	}
	if s.db, err = sql.Open("sqlite3", dsn(s.cfg.Path, false)); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(1)
	c, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("cannot open database %s: %w", s.cfg.Path, disk(err))
	}
	s.writer = &conn{c: c, stmts: map[string]*sql.Stmt{}}
	s.files.path = s.cfg.Path
	if err := s.check(ctx, c); err != nil {
		return err
	}
	if err := s.keepBefore(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, c, s.log); err != nil {
		return err
	}
	if err := s.openKeys(ctx); err != nil {
		return err
	}
	if s.cfg.maxPages > 0 {
		if _, err := c.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", s.cfg.maxPages)); err != nil {
			return err
		}
	}
	var seq int64
	var db api.Database
	err = c.QueryRowContext(ctx, "SELECT id, incarnation, generation, seq, rev FROM meta").
		Scan(&db.CentralID, &db.Incarnation, &s.generation, &seq, &s.rev)
	if err != nil {
		return fmt.Errorf("cannot read meta data of %s: %w", s.cfg.Path, disk(err))
	}
	s.clock.Load(power.Seq(seq))
	s.savedSeq = uint64(seq)
	s.savedRev.Store(s.rev)
	s.database.Store(&db)
	return nil
}

// check runs quick_check, unless the database is too big for that at a start.
func (s *Store) check(ctx context.Context, c *sql.Conn) error {
	info, err := os.Stat(s.cfg.Path)
	if err != nil {
		return fmt.Errorf("cannot look at database: %w", err)
	}
	if info.Size() > s.cfg.CheckBelow {
		s.log.Info("database not checked at this start", "bytes", info.Size(), "limit", s.cfg.CheckBelow)
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

func (s *Store) openReaders() error {
	var err error
	if s.ro, err = sql.Open("sqlite3", dsn(s.cfg.Path, true)); err != nil {
		return err
	}
	s.ro.SetMaxOpenConns(readers)
	for range readers {
		c, err := s.ro.Conn(context.Background())
		if err != nil {
			return fmt.Errorf("cannot open database %s for reading: %w", s.cfg.Path, disk(err))
		}
		s.views <- &conn{c: c, stmts: map[string]*sql.Stmt{}}
		s.opened++
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

// ID names the database, restored or not.
func (s *Store) ID() string { return s.Database().CentralID }

// Database is the state that the database is in: a restore makes another of it.
func (s *Store) Database() api.Database { return *s.database.Load() }

// Rev is the highest revision of operations that is durable.
func (s *Store) Rev() int64 { return s.savedRev.Load() }

// Generation is 1 more than the number of times the database was restored.
func (s *Store) Generation() int64 { return s.generation }

// Seq is the largest sequence given or followed so far.
func (s *Store) Seq(now time.Time) power.Seq { return s.clock.Now(now) }

// SeqAside is a sequence that the database followed and that is too far ahead of the
// clock now, 0 for none.
func (s *Store) SeqAside(now time.Time) power.Seq { return s.clock.Aside(now) }

// MergeSeq follows a sequence seen elsewhere, and reports false for one that is too far
// ahead of the clock. It becomes durable with the next commit that changes something.
func (s *Store) MergeSeq(seen power.Seq, now time.Time) bool { return s.clock.Merge(seen, now) }

// View runs fn on a snapshot. fn may read for as long as it likes without
// holding up writers; there are four places for views.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	var c *conn
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.done:
		return ErrClosed
	case c = <-s.views:
	}
	defer func() { s.views <- c }()
	if _, err := c.exec("BEGIN"); err != nil {
		return fmt.Errorf("cannot begin to read: %w", err)
	}
	defer c.exec("ROLLBACK")
	return fn(&Tx{c: c, s: s, asker: AskerOf(ctx)})
}

// Close ends the writer after what is queued, waits for views, and closes the
// database. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		<-s.done
		return nil
	}
	close(s.jobs)
	<-s.done
	s.release()
	return nil
}

// release closes what is open, in reverse order.
func (s *Store) release() {
	if s.ro != nil {
		for range s.opened {
			c := <-s.views
			c.close()
		}
		s.ro.Close()
	}
	if s.writer != nil {
		s.writer.close()
	}
	if s.db != nil {
		s.db.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}
