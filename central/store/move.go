package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"
	"strings"
	"time"

	"rackpower/power"
)

// ErrNotEmpty means that a database that another one is to be moved to has something in it.
var ErrNotEmpty = errors.New("the database is not empty")

// table is one as both engines have it.
type table struct {
	name          string
	columns, keys []string // quoted; keys are those of the primary key, in its order
}

// moved is what was read of a table.
type moved struct {
	rows int
	sum  [sha256.Size]byte
}

// movedValues bounds the values of one INSERT.
const movedValues = 2000

// Move copies all that a database holds into another one, which must be new, in one transaction, and
// compares both before it commits: each table by the number of its rows and the SHA-256 of all that they
// hold. The copy has the id of the database that it is of, and another incarnation, as a restored one: agents
// go on with it. Both stay open, and the first one is not changed. The keys that seal passwords have to be
// the same for both.
func Move(ctx context.Context, from, to *Store, now time.Time) (sum Summary, err error) {
	tables, err := tablesOf(ctx, from, to)
	if err != nil {
		return sum, err
	}
	err = from.View(ctx, func(src *Tx) error {
		return to.Write(ctx, func(dst *Tx) error { return dst.takeAll(ctx, src, tables, now) })
	})
	if err != nil {
		return sum, fmt.Errorf("cannot move %s to %s: %w", from.engine.name(), to.engine.name(), err)
	}
	err = to.View(ctx, func(t *Tx) error {
		sum, err = summarise(ctx, t.c.c, Schema)
		return err
	})
	return sum, err
}

// tablesOf reads which tables there are from the one of both that is SQLite, in the order in which they
// were made: what a table refers to comes before it.
func tablesOf(ctx context.Context, stores ...*Store) (all []table, err error) {
	at := slices.IndexFunc(stores, func(s *Store) bool { _, is := s.engine.(*sqlite); return is })
	if at < 0 {
		return nil, errors.New("one of both databases has to be SQLite's")
	}
	err = stores[at].View(ctx, func(t *Tx) error {
		err := t.each(func(r *sql.Rows) error {
			var table table
			err := r.Scan(&table.name)
			all = append(all, table)
			return err
		}, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY rowid`)
		for i := range all {
			if err == nil {
				err = all[i].describe(t)
			}
		}
		return err
	})
	return all, err
}

func (of *table) describe(t *Tx) error {
	key := map[int]string{}
	err := t.each(func(r *sql.Rows) error {
		var name string
		var place int
		err := r.Scan(&name, &place)
		of.columns = append(of.columns, `"`+name+`"`)
		if place > 0 {
			key[place] = `"` + name + `"`
		}
		return err
	}, `SELECT name, pk FROM pragma_table_info($1) ORDER BY cid`, of.name)
	for i := range len(key) {
		of.keys = append(of.keys, key[i+1])
	}
	return err
}

// takeAll is Move's job.
func (t *Tx) takeAll(ctx context.Context, src *Tx, tables []table, now time.Time) error {
	for _, one := range []string{"nodes", "ops", "audit", "users"} {
		var some bool
		if err := t.row(`SELECT EXISTS (SELECT 1 FROM ` + one + `)`).Scan(&some); err != nil {
			return err
		} else if some {
			return fmt.Errorf("%w: it has %s", ErrNotEmpty, one)
		}
	}
	for _, of := range slices.Backward(tables) {
		if _, err := t.exec(`DELETE FROM ` + of.name); err != nil {
			return fmt.Errorf("table %s: %w", of.name, err)
		}
	}
	for _, of := range tables {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		was, err := t.take(src, of)
		if err != nil {
			return fmt.Errorf("table %s: %w", of.name, err)
		}
		is, err := t.digest(of, nil)
		if err != nil {
			return fmt.Errorf("table %s: %w", of.name, err)
		}
		if was != is {
			return fmt.Errorf("table %s differs: %d rows with SHA-256 %x were read, %d with %x were stored", of.name, was.rows, was.sum, is.rows,
				is.sum)
		}
	}
	var seq int64
	if err := t.row(`SELECT seq, rev FROM meta`).Scan(&seq, &t.s.rev); err != nil {
		return fmt.Errorf("cannot read meta data: %w", disk(err))
	}
	t.s.clock.Load(power.Seq(seq))
	t.s.head = nil
	return t.Renew(now)
}

// take copies a table, and says what was read.
func (t *Tx) take(src *Tx, of table) (moved, error) {
	var values []any
	store := func() error {
		if len(values) == 0 {
			return nil
		}
		one := len(of.columns)
		rows := make([]string, len(values)/one)
		for i := range rows {
			places := make([]string, one)
			for j := range places {
				places[j] = fmt.Sprintf("$%d", i*one+j+1)
			}
			rows[i] = "(" + strings.Join(places, ", ") + ")"
		}
		_, err := t.exec(`INSERT INTO `+of.name+` (`+strings.Join(of.columns, ", ")+`) VALUES `+strings.Join(rows, ", "), values...)
		values = values[:0]
		return err
	}
	was, err := src.digest(of, func(row []any) error {
		values = append(values, row...)
		if len(values)+len(row) <= movedValues {
			return nil
		}
		return store()
	})
	if err == nil {
		err = store()
	}
	return was, err
}

// digest reads a table in the order of its key, and calls f, if it is not nil, with each row.
func (t *Tx) digest(of table, f func([]any) error) (got moved, err error) {
	h := sha256.New()
	row, into := make([]any, len(of.columns)), make([]any, len(of.columns))
	for i := range row {
		into[i] = &row[i]
	}
	err = t.each(func(r *sql.Rows) error {
		if err := r.Scan(into...); err != nil {
			return err
		}
		got.rows++
		for _, v := range row {
			if err := mix(h, v); err != nil {
				return err
			}
		}
		if f == nil {
			return nil
		}
		return f(row)
	}, `SELECT `+strings.Join(of.columns, ", ")+` FROM `+of.name+` ORDER BY `+strings.Join(of.keys, ", "))
	h.Sum(got.sum[:0])
	return got, err
}

// mix adds a value of a row, such that no two rows of different values are alike.
func mix(h hash.Hash, v any) error {
	number := func(kind byte, n uint64) { h.Write(binary.BigEndian.AppendUint64([]byte{kind}, n)) }
	switch v := v.(type) {
	case nil:
		number('0', 0)
	case int64:
		number('i', uint64(v))
	case float64:
		number('f', math.Float64bits(v))
	case string:
		number('t', uint64(len(v)))
		h.Write([]byte(v))
	case []byte:
		number('b', uint64(len(v)))
		h.Write(v)
	default:
		return fmt.Errorf("a value is %T", v)
	}
	return nil
}
