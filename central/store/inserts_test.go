package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"rackpower/central/api"
)

// TestEntriesOfJobsThatFailAreNotWritten has jobs of one transaction add to the audit log, more and less than one
// statement takes, read it, and fail, within savepoints of their own too.
func TestEntriesOfJobsThatFailAreNotWritten(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	failed := errors.New("failed")
	var want []string
	add := func(tx *Tx, keep bool, n int, what string) error {
		for i := range n {
			e := api.AuditEntry{At: time.Unix(1, 0), Who: "x", What: fmt.Sprint(what, i)}
			if err := tx.AddAudit(e); err != nil {
				return err
			}
			if keep {
				want = append(want, e.What)
			}
		}
		return nil
	}
	var jobs []*job
	for _, fn := range []func(*Tx) error{
		func(tx *Tx) error { return add(tx, true, 3, "a") },
		func(tx *Tx) error { return errors.Join(add(tx, false, 40, "b"), failed) },
		func(tx *Tx) error {
			all, err := tx.AuditAfter(AuditFilter{}, 0, 100)
			if len(all) != 3 {
				t.Errorf("a job sees %d entries of those before, want 3", len(all))
			}
			return errors.Join(err, add(tx, false, 5, "c"), failed) // what was read for it was there
		},
		func(tx *Tx) error {
			err := tx.Try(func() error {
				_, err := tx.LastAudit()
				return errors.Join(err, add(tx, false, 33, "d"), failed)
			})
			if !errors.Is(err, failed) {
				t.Error(err)
			}
			return errors.Join(add(tx, true, 70, "e"), tx.Try(func() error { return add(tx, true, 2, "f") }))
		},
		func(tx *Tx) error { return add(tx, true, 1, "g") },
	} {
		jobs = append(jobs, &job{fn: fn, done: make(chan struct{})})
	}
	s.inOneTransaction(jobs)
	var got []string
	err := s.View(context.Background(), func(tx *Tx) error {
		all, err := tx.AuditAfter(AuditFilter{}, 0, 1000)
		for _, e := range all {
			got = append(got, e.What)
		}
		return err
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\ngot  %q\nwant %q", err, got, want)
	}
	if check, err := s.VerifyAudit(context.Background(), ""); err != nil || check.Wrong != 0 {
		t.Errorf("%+v, %v", check, err)
	}
}

// inOneTransaction has the writer find all of the jobs at once.
func (s *Store) inOneTransaction(jobs []*job) {
	began, release := make(chan struct{}), make(chan struct{})
	first := &job{done: make(chan struct{}), fn: func(*Tx) error {
		close(began)
		<-release
		return nil
	}}
	s.jobs <- first
	<-began
	for _, j := range jobs {
		s.jobs <- j
	}
	close(release)
	for _, j := range jobs {
		<-j.done
	}
}
