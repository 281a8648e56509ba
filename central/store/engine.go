package store

import (
	"context"
	"database/sql"
	"errors"
)

// engine is a database that the store runs on: what it does beside SQL that all of them know.
type engine interface {
	// write opens the database for the writer, makes or migrates it, and checks it.
	write(ctx context.Context) (*sql.Conn, error)
	// writeAgain connects the writer anew after its connection was lost; what it then finds may be
	// what another process left.
	writeAgain(ctx context.Context) (*sql.Conn, error)
	// read opens a connection for views.
	read(ctx context.Context) (*sql.Conn, error)
	// stay is asked before the writer begins: an error means that nothing may be written any more.
	stay() error
	// begin and view are the statements that begin to write and to read.
	begin() string
	view() string
	// text is the store's SQL as the engine takes it, and bind its arguments, which may be changed in place.
	text(query string) string
	bind(args []any) ([]any, error)
	// idle reports whether no transaction is open; lost, that the connection is gone, or is about to be as
	// the error says that its last use had; nil: none.
	idle(c *sql.Conn) bool
	lost(c *sql.Conn, last error) bool
	// has reports whether a table has a column.
	has(ctx context.Context, c *sql.Conn, table, column string) (bool, error)
	// wipe removes what rows had before they were changed from all that is stored.
	wipe(ctx context.Context, c *sql.Conn) error
	// flush has what is stored no longer hold what rows had before, as far as that is cheap.
	flush(ctx context.Context) error
	figures() (DiskFigures, error)
	// name is the database for messages.
	name() string
	close()
}

// conn is one connection with its prepared statements. One goroutine at a time.
type conn struct {
	e     engine
	c     *sql.Conn
	stmts map[string]*sql.Stmt
	again func(context.Context) (*sql.Conn, error) // connects anew after the connection was lost; nil: it cannot be
	// adding has rows that are to be inserted; nil: the connection only reads.
	adding []*inserts

	renewals int64 // Store.renewals when it connected
}

func newConn(e engine, c *sql.Conn, again func(context.Context) (*sql.Conn, error)) *conn {
	return &conn{e: e, c: c, stmts: map[string]*sql.Stmt{}, again: again}
}

// begin begins a transaction, on another connection where this one is lost. renewed says so.
func (c *conn) begin(query string) (renewed bool, err error) {
	if !c.e.lost(c.c, nil) {
		if _, err = c.exec(query); err == nil || !c.e.lost(c.c, err) {
			return false, err
		}
	}
	if c.again == nil {
		return false, err
	}
	c.close()
	next, err := c.again(context.Background())
	if err != nil {
		return false, err
	}
	c.c = next
	_, err = c.exec(query)
	return true, err
}

// idle reports whether no transaction is open: an engine may end one by itself when the disk is
// full or fails, and does when the connection is lost.
func (c *conn) idle() bool { return c.e.idle(c.c) }

// close gives the connection up: a transaction that begins later is on another one.
func (c *conn) close() {
	for _, s := range c.stmts {
		_ = s.Close()
	}
	clear(c.stmts)
	_ = c.c.Close()
}

// errLost is the error of a connection that is gone.
var errLost = errors.New("the connection to the database is lost")
