package store

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// inserts are rows that wait to be inserted into a table, many by one statement. They are there before any
// other statement that names the table. One goroutine at a time.
type inserts struct {
	into     string // INSERT INTO ... VALUES
	table    *regexp.Regexp
	columns  int
	rows     []any           // the values of one after the other
	inserted int             // how many of rows are in the database, unless it goes back to a savepoint
	keep     int             // how many of rows are of before the innermost savepoint
	named    map[string]bool // by statement: whether it names the table
	texts    map[int]string  // by the number of rows
}

func newInserts(table, columns string) *inserts {
	return &inserts{
		into: fmt.Sprintf("INSERT INTO %s (%s) VALUES ", table, columns), table: regexp.MustCompile(`\b` + table + `\b`),
		columns: strings.Count(columns, ",") + 1, named: map[string]bool{}, texts: map[int]string{},
	}
}

// insertAtOnce are how many rows a statement has: each is prepared once.
var insertAtOnce = []int{32, 8, 1}

// add notes a row, whose values must not change any more. Where enough of them wait they are inserted.
func (in *inserts) add(c *conn, values ...any) error {
	in.rows = append(in.rows, values...)
	if in.waiting() < insertAtOnce[0] {
		return nil
	}
	return in.insert(c)
}

func (in *inserts) waiting() int { return (len(in.rows) - in.inserted) / in.columns }

// insert inserts what waits.
func (in *inserts) insert(c *conn) error {
	for _, n := range insertAtOnce {
		for in.waiting() >= n {
			if err := in.some(c, n); err != nil {
				return err
			}
		}
	}
	// What was noted behind the savepoint is gone with it.
	clear(in.rows[in.keep:])
	in.rows, in.inserted = in.rows[:in.keep], in.keep
	return nil
}

// some inserts the first n rows that wait. As those of a query their values go to SQLite in one call.
func (in *inserts) some(c *conn, n int) error {
	s, err := c.prepare(in.text(n))
	if err != nil {
		return err
	}
	end := in.inserted + n*in.columns
	args, err := c.e.bind(in.rows[in.inserted:end])
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err == nil {
		defer rows.Close()
		for rows.Next() { // it has no rows, but its error comes here
		}
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("cannot insert rows: %w", disk(err))
	}
	in.inserted = end
	return nil
}

func (in *inserts) text(n int) string {
	if text, known := in.texts[n]; known {
		return text
	}
	rows := make([]string, n)
	for i := range rows {
		values := make([]string, in.columns)
		for k := range values {
			values[k] = fmt.Sprintf("$%d", i*in.columns+k+1)
		}
		rows[i] = "(" + strings.Join(values, ", ") + ")"
	}
	in.texts[n] = in.into + strings.Join(rows, ", ")
	return in.texts[n]
}

// concern reports whether a statement names the table while rows of it wait.
func (in *inserts) concern(query string) bool {
	if len(in.rows) == in.inserted {
		return false
	}
	named, known := in.named[query]
	if !known {
		named = in.table.MatchString(query)
		in.named[query] = named
	}
	return named
}

// position is how far inserts are.
type position struct{ noted, inserted, keep int }

// mark begins a savepoint of what waits; released or backTo ends it.
func (c *conn) mark() []position {
	all := make([]position, len(c.adding))
	for i, in := range c.adding {
		all[i] = position{len(in.rows), in.inserted, in.keep}
		in.keep = len(in.rows)
	}
	return all
}

func (c *conn) released(all []position) {
	for i, p := range all {
		c.adding[i].keep = p.keep
	}
}

// backTo has what waits be as it was, as the database is.
func (c *conn) backTo(all []position) {
	for i, p := range all {
		in := c.adding[i]
		clear(in.rows[p.noted:])
		in.rows, in.inserted, in.keep = in.rows[:p.noted], p.inserted, p.keep
	}
}

// forget drops what waits: the transaction is undone.
func (c *conn) forget() { c.backTo(make([]position, len(c.adding))) }
