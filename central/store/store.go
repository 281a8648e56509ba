package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
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
	// Database names a database on PostgreSQL, postgres://USER@HOST/NAME; "": the file at Path. With it
	// only the directory of Path counts: the keys that seal passwords are there.
	Database string
	// CheckBelow is the size in bytes up to which the database is checked when it
	// is opened; negative: never. 0: DefaultCheckBelow.
	CheckBelow int64
	// MaxBatch bounds the jobs of one transaction. 0: DefaultMaxBatch.
	MaxBatch int
	// KeyFile has the keys that seal passwords, see package seal, where they are kept
	// elsewhere: it is never written. "": seal.key beside the database, which is made.
	KeyFile string
	// Serves is a text for others that find the database in use (Serving): how they reach this process.
	// PostgreSQL only.
	Serves string
	Log    *slog.Logger // nil: slog.Default()
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
	engine engine
	writer *conn // owned by the writer goroutine
	// toldGone: the log says that the files are gone; likewise.
	toldGone bool
	ring     atomic.Pointer[seal.Ring] // keys of passwords
	rotating sync.Mutex                // held while the key is changed
	damaged  sync.Map                  // what does not open and the log tells of
	views    chan *conn
	renewals atomic.Int64 // how often the writer connected anew
	opened   int          // connections that views holds when nobody reads

	database   atomic.Pointer[api.Database]
	diskSince  atomic.Int64 // see DiskWait; 0: it does not wait
	generation int64
	clock      power.Clock
	rev        int64  // owned by the writer goroutine
	savedSeq   uint64 // likewise: what meta holds
	savedRev   atomic.Int64
	newOps     *inserts   // likewise: of the open job
	audits     *inserts   // likewise: of the open transaction
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
	var err error
	if s.engine, err = s.engineOf(); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		s.release()
		return nil, err
	}
	go s.write()
	return s, nil
}

func (s *Store) engineOf() (engine, error) {
	if s.cfg.Database != "" {
		return newPostgres(s.cfg.Database, appName, s.cfg.Serves, s.log)
	}
	return &sqlite{cfg: &s.cfg, log: s.log}, nil
}

// open opens the database for the writer, then for views.
func (s *Store) open() error {
	ctx := context.Background()
	c, err := s.engine.write(ctx)
	if err != nil {
		return err
	}
	s.newOps, s.audits = newInserts("ops", opColumns+", stage"), newInserts("audit", auditStored)
	s.writer = newConn(s.engine, c, s.engine.writeAgain)
	s.writer.adding = []*inserts{s.newOps, s.audits}
	if err := s.openKeys(ctx); err != nil {
		return err
	}
	if err := s.readMeta(ctx); err != nil {
		return err
	}
	for range readers {
		c, err := s.engine.read(ctx)
		if err != nil {
			return err
		}
		s.views <- newConn(s.engine, c, s.engine.read)
		s.opened++
	}
	return s.engine.stay()
}

// readMeta reads who the database is and how far its sequences are.
func (s *Store) readMeta(ctx context.Context) error {
	var seq int64
	var db api.Database
	err := s.writer.c.QueryRowContext(ctx, "SELECT id, incarnation, generation, seq, rev FROM meta").
		Scan(&db.CentralID, &db.Incarnation, &s.generation, &seq, &s.rev)
	if err != nil {
		return fmt.Errorf("cannot read meta data of %s: %w", s.engine.name(), disk(err))
	}
	s.clock.Load(power.Seq(seq))
	s.savedSeq = uint64(seq)
	s.savedRev.Store(s.rev)
	s.database.Store(&db)
	return nil
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
	if now := s.renewals.Load(); c.renewals != now { // the writer may be at another server than this one
		c.close()
		c.renewals = now
	}
	if _, err := c.begin(s.engine.view()); err != nil {
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
	for range s.opened {
		c := <-s.views
		c.close()
	}
	if s.writer != nil {
		s.writer.close()
	}
	s.engine.close()
}
