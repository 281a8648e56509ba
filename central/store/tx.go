package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"rackpower/power"
)

func (c *conn) prepare(query string) (*sql.Stmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	if !ascending(query) {
		return nil, fmt.Errorf("cannot prepare %q: its parameters do not first appear in ascending order", query)
	}
	s, err := c.c.PrepareContext(context.Background(), c.e.text(query))
	if err != nil {
		return nil, disk(fmt.Errorf("cannot prepare %q: %w", query, err))
	}
	c.stmts[query] = s
	return s, nil
}

var parameter = regexp.MustCompile(`\$(\d+)`)

// ascending reports whether $1 first appears before $2, and so on. To SQLite
// these are names, which it numbers as they appear, whatever they say.
func ascending(query string) bool {
	most := 0
	for _, m := range parameter.FindAllStringSubmatch(query, -1) {
		n, _ := strconv.Atoi(m[1])
		if n > most+1 {
			return false
		}
		most = max(most, n)
	}
	return true
}

// statement is a prepared query with its arguments as the engine takes them. What it may look at is
// inserted before.
func (c *conn) statement(query string, args []any) (*sql.Stmt, []any, error) {
	for _, in := range c.adding {
		if in.concern(query) {
			if err := in.insert(c); err != nil {
				return nil, nil, err
			}
		}
	}
	s, err := c.prepare(query)
	if err == nil {
		args, err = c.e.bind(args)
	}
	return s, args, err
}

func (c *conn) exec(query string, args ...any) (int64, error) {
	s, args, err := c.statement(query, args)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, disk(err)
	}
	return res.RowsAffected()
}

// Tx is what jobs and views work with. It is valid within the function that it
// was given to.
type Tx struct {
	c     *conn
	s     *Store
	asker Asker
	hooks []func()
	about []string // nodes whose rows, or operations, the job changed
}

// touched notes that a node's row, or an operation on it, is another now.
func (t *Tx) touched(node string) {
	if t.s.cfg.Touched != nil {
		t.about = append(t.about, node)
	}
}

// OnCommit has f run after the commit, by the writer, in the order of the
// commits, before the job's caller gets its answer. f must not wait for the
// store. It does not run when the job fails.
func (t *Tx) OnCommit(f func()) { t.hooks = append(t.hooks, f) }

// NextSeq gives the sequence for a request that enters at now. Its high water
// is written in the same transaction.
func (t *Tx) NextSeq(now time.Time) power.Seq { return t.s.clock.Next(now) }

// Try runs f so that its error undoes what it did and nothing else of the job.
func (t *Tx) Try(f func() error) error {
	if _, err := t.c.exec("SAVEPOINT item"); err != nil {
		return err
	}
	hooks, about, adding := len(t.hooks), len(t.about), t.c.mark()
	err := f()
	if err == nil {
		err = t.s.newOps.insert(t.c)
	}
	if err == nil {
		t.c.released(adding)
		_, err = t.c.exec("RELEASE item")
		return err
	}
	t.hooks, t.about, t.s.head = t.hooks[:hooks], t.about[:about], nil
	t.c.backTo(adding)
	if t.c.idle() {
		return fmt.Errorf("%w: the transaction was given up: %w", ErrDisk, err)
	}
	_, undone := t.c.exec("ROLLBACK TO item")
	_, released := t.c.exec("RELEASE item")
	if wrong := errors.Join(undone, released); wrong != nil {
		return errors.Join(err, wrong)
	}
	return err
}

var errUndone = errors.New("undone on purpose")

// Undone runs f and undoes what it did, to see what would be.
func (t *Tx) Undone(f func() error) error {
	var wrong error
	err := t.Try(func() error {
		wrong = f()
		return errUndone
	})
	if err == errUndone { //nolint:errorlint // joined to another error it was not undone
		return wrong
	}
	return errors.Join(wrong, err)
}

// NextRev gives the next revision of operations. Revisions grow in the order of
// the commits; some may be missing.
func (t *Tx) NextRev() int64 {
	t.s.rev++
	return t.s.rev
}

func (t *Tx) exec(query string, args ...any) (int64, error) {
	n, err := t.c.exec(query, args...)
	if n > 0 {
		t.s.wrote = true
	}
	return n, err
}

// row reads the first row of the answer; without one its Scan returns
// sql.ErrNoRows.
func (t *Tx) row(query string, args ...any) scanner {
	s, args, err := t.c.statement(query, args)
	if err != nil {
		return failed{err}
	}
	return oneRow{s.QueryRowContext(context.Background(), args...)}
}

type scanner interface{ Scan(...any) error }

type oneRow struct{ *sql.Row }

func (r oneRow) Scan(dest ...any) error { return disk(r.Row.Scan(dest...)) }

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

// each calls scan for every row of the answer.
func (t *Tx) each(scan func(*sql.Rows) error, query string, args ...any) error {
	s, args, err := t.c.statement(query, args)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return disk(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return disk(rows.Err())
}

// nanos is how times are stored; the zero time is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeAt(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// storedTime is a time as a column holds it.
type storedTime time.Time

// Value is driver.Valuer's.
func (t *storedTime) Value() (driver.Value, error) { return nanos(time.Time(*t)), nil }

// Scan is sql.Scanner's.
func (t *storedTime) Scan(column any) error {
	n, err := integer(column)
	*t = storedTime(timeAt(n))
	return err
}

// optionalTime is a time that may be missing, which is 0 in a column.
type optionalTime struct{ t **time.Time }

// Value is driver.Valuer's.
func (o optionalTime) Value() (driver.Value, error) {
	if *o.t == nil {
		return int64(0), nil
	}
	return nanos(**o.t), nil
}

// Scan is sql.Scanner's.
func (o optionalTime) Scan(column any) error {
	n, err := integer(column)
	if *o.t = nil; n != 0 {
		at := timeAt(n)
		*o.t = &at
	}
	return err
}

// storedUint is a number of 64 bits without a sign. SQLite has none: it keeps the bits.
type storedUint uint64

// Value is driver.Valuer's.
func (u *storedUint) Value() (driver.Value, error) { return int64(*u), nil }

// Scan is sql.Scanner's.
func (u *storedUint) Scan(column any) error {
	n, err := integer(column)
	*u = storedUint(n)
	return err
}

func integer(column any) (int64, error) {
	n, ok := column.(int64)
	if !ok {
		return 0, fmt.Errorf("want an integer, got %T", column)
	}
	return n, nil
}
