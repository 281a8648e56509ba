package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"rackpower/power"
)

// job is one function that wants to write.
type job struct {
	fn      func(*Tx) error
	asker   Asker
	keyed   *Keyed
	claimed atomic.Bool // by the writer, or by a caller that gave up before
	hooks   []func()
	about   []string
	err     error
	done    chan struct{}
}

// Write runs fn within a transaction and returns when it is durable, or undone.
// fn runs on the writer's goroutine, alone, and must not wait for anything; its
// error is returned as it is. Once fn has begun, the end of ctx is ignored.
// After an ErrDisk it is unknown what a crash would leave of it.
func (s *Store) Write(ctx context.Context, fn func(*Tx) error) error {
	j := &job{fn: fn, asker: AskerOf(ctx), keyed: keyOf(ctx), done: make(chan struct{})}
	if err := s.queue(ctx, j); err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.claimed.CompareAndSwap(false, true) {
			return context.Cause(ctx)
		}
		<-j.done
	}
	return j.err
}

func (s *Store) queue(ctx context.Context, j *job) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	select {
	case s.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write is the writer's goroutine.
func (s *Store) write() {
	defer close(s.done)
	batch := make([]*job, 0, s.cfg.MaxBatch)
	for j := range s.jobs {
		batch = s.gather(append(batch[:0], j))
		began := time.Now()
		err := s.commit(batch)
		if s.cfg.Committed != nil {
			s.cfg.Committed(time.Since(began), len(batch), err)
		}
		if err != nil && !(errors.Is(err, ErrRemoved) && s.toldGone) {
			s.toldGone = errors.Is(err, ErrRemoved) // once is enough
			s.log.Error("cannot commit", "jobs", len(batch), "err", err)
		}
		for _, j := range batch {
			for _, hook := range j.hooks {
				hook()
			}
			if len(j.about) > 0 {
				s.cfg.Touched(j.about)
			}
			close(j.done)
		}
		if err == nil && s.audited && s.cfg.Audited != nil {
			s.cfg.Audited()
		}
		clear(batch)
	}
}

// waitsForDisk notes that the writer waits for the database's disk, or server, until the end.
func (s *Store) waitsForDisk() (end func()) {
	s.diskSince.Store(time.Now().UnixNano())
	return func() { s.diskSince.Store(0) }
}

// DiskWait is how long the writer has waited for the disk in which it is just now; 0: it does
// not wait. Nothing can be written meanwhile, which no restart mends. It waits for nothing.
func (s *Store) DiskWait() time.Duration {
	since := s.diskSince.Load()
	if since == 0 {
		return 0
	}
	return max(time.Since(time.Unix(0, since)), 1)
}

// gather adds what is waiting already.
func (s *Store) gather(batch []*job) []*job {
	for len(batch) < s.cfg.MaxBatch {
		select {
		case j, ok := <-s.jobs:
			if !ok {
				return batch
			}
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

// commit runs the jobs of a batch in one transaction. Its error has been given
// to every job.
func (s *Store) commit(batch []*job) error {
	err := s.run(batch)
	if err == nil {
		return nil
	}
	s.head = nil
	s.writer.forget()
	if !s.writer.idle() {
		_, _ = s.writer.exec("ROLLBACK")
	}
	for _, j := range batch {
		j.hooks, j.about = nil, nil
		if j.err == nil {
			j.err = err
		}
	}
	return err
}

func (s *Store) run(batch []*job) error {
	s.wrote, s.audited = false, false
	if err := s.begin(); err != nil {
		return fmt.Errorf("cannot begin to write: %w", err)
	}
	for _, j := range batch {
		if !j.claimed.CompareAndSwap(false, true) {
			continue // its caller has gone
		}
		if err := s.runOne(j); err != nil {
			return err
		}
	}
	if err := s.audits.insert(s.writer); err != nil {
		return err
	}
	seq, rev := uint64(s.clock.Max()), s.rev
	news := s.wrote && (seq != s.savedSeq || rev != s.savedRev.Load())
	if news {
		if _, err := s.writer.exec("UPDATE meta SET seq = $1, rev = $2", int64(seq), rev); err != nil {
			return err
		}
	}
	done := s.waitsForDisk()
	_, err := s.writer.exec("COMMIT")
	done()
	if err != nil {
		return fmt.Errorf("cannot commit: %w", err)
	}
	if news {
		s.savedSeq = seq
		s.savedRev.Store(rev)
	}
	return nil
}

// begin begins a transaction of the writer. After the connection was lost, what is known of the
// database is read again.
func (s *Store) begin() error {
	if err := s.engine.stay(); err != nil {
		return err
	}
	done := s.waitsForDisk()
	renewed, err := s.writer.begin(s.engine.begin())
	done()
	if err == nil && renewed {
		s.renewals.Add(1)
		err = s.catchUp()
	}
	return err
}

// catchUp reads how far the sequences are: a commit whose end was not heard of may have been one.
func (s *Store) catchUp() error {
	var seq, rev int64
	tx := &Tx{c: s.writer, s: s}
	if err := tx.row(`SELECT seq, rev FROM meta`).Scan(&seq, &rev); err != nil {
		return fmt.Errorf("cannot read meta data: %w", disk(err))
	}
	s.clock.Load(power.Seq(seq))
	s.rev, s.head = max(s.rev, rev), nil
	return nil
}

// runOne runs a job within its savepoint. It returns an error when the whole
// transaction is lost.
func (s *Store) runOne(j *job) error {
	if _, err := s.writer.exec("SAVEPOINT job"); err != nil {
		return err
	}
	tx, adding := &Tx{c: s.writer, s: s, asker: j.asker}, s.writer.mark()
	if j.keyed != nil {
		j.err = tx.claim(j.keyed)
	}
	if j.err == nil {
		j.err = s.call(j.fn, tx)
	}
	if j.err == nil {
		j.err = s.newOps.insert(s.writer) // what is wrong with them is this job's error
	}
	if j.err == nil {
		j.hooks, j.about = tx.hooks, tx.about
		s.writer.released(adding)
	} else {
		j.err, s.head = disk(j.err), nil
		s.writer.backTo(adding)
		if s.writer.idle() {
			return fmt.Errorf("the transaction was given up: %w", j.err)
		}
		if _, err := s.writer.exec("ROLLBACK TO job"); err != nil {
			return err
		}
	}
	_, err := s.writer.exec("RELEASE job")
	return err
}

// call turns a panic of a job into its error: it must not take others along.
func (s *Store) call(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a job panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return fn(tx)
}
