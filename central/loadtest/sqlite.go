package loadtest

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"time"

	_ "rackpower/central/store" // which brings the driver
)

// plain is a database with a table of operations and a log, written as durably as central's, by
// nothing but SQLite.
type plain struct {
	db          *sql.DB
	op, log, up *sql.Stmt
}

func openPlain(dir string) (*plain, error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "plain.db")+"?_journal_mode=WAL&_synchronous=FULL&_secure_delete=on")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	p := &plain{db: db}
	if _, err = db.Exec(`CREATE TABLE ops (id TEXT PRIMARY KEY, node TEXT, seq INTEGER, body TEXT, stage INTEGER);
		CREATE INDEX ops_node ON ops (node, seq); CREATE TABLE log (id INTEGER PRIMARY KEY, at INTEGER, node TEXT, body TEXT);
		CREATE INDEX log_node ON log (node, id)`); err == nil {
		p.op, err = db.Prepare("INSERT INTO ops VALUES ($1, $2, $3, $4, 1)")
	}
	if err == nil {
		p.log, err = db.Prepare("INSERT INTO log (at, node, body) VALUES ($1, $2, $3)")
	}
	if err == nil {
		p.up, err = db.Prepare("UPDATE ops SET stage = $1 WHERE id = $2")
	}
	return p, err
}

func (p *plain) close() { _ = p.db.Close() }

const fewWords = "on, asked by root, taken by central, accepted by its agent, started, succeeded after 1 attempt, no reason was given"

// ops stores so many operations with their entries of the log, each from its request to its end
// in three transactions of so many at once. It returns how many there were a second.
func (p *plain) ops(ctx context.Context, n, atOnce int) (float64, error) {
	began := time.Now()
	for from := 0; from < n; from += atOnce {
		for stage := range 3 { // taken, accepted, ended
			tx, err := p.db.BeginTx(ctx, nil)
			if err != nil {
				return 0, err
			}
			for i := from; i < from+atOnce; i++ {
				id, node := fmt.Sprintf("0190%08d-%d", i, atOnce), fmt.Sprintf("r%04dn%02d", i/40, i%40)
				if stage == 0 {
					_, err = tx.Stmt(p.op).Exec(id, node, i, fewWords)
				} else {
					_, err = tx.Stmt(p.up).Exec(stage+1, id)
				}
				if err == nil {
					_, err = tx.Stmt(p.log).Exec(time.Now().UnixNano(), node, fewWords)
				}
				if err != nil {
					return 0, err
				}
			}
			if err := tx.Commit(); err != nil {
				return 0, err
			}
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// nodes stores so many rows and entries of the log in one transaction, and reads the rows.
func (p *plain) nodes(ctx context.Context, n int) (write, read time.Duration, err error) {
	began := time.Now()
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	for i := range n {
		node := fmt.Sprintf("node-%d", i)
		if _, err = tx.Stmt(p.op).Exec(node, node, i, fewWords); err == nil {
			_, err = tx.Stmt(p.log).Exec(time.Now().UnixNano(), node, fewWords)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if err := tx.Commit(); err != nil {
		return 0, 0, err
	}
	write, began = time.Since(began), time.Now()
	rows, err := p.db.QueryContext(ctx, "SELECT id, node, seq, body, stage FROM ops WHERE id >= 'node-'")
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, node, body string
		var seq, stage int64
		if err := rows.Scan(&id, &node, &seq, &body, &stage); err != nil {
			return 0, 0, err
		}
	}
	return write, time.Since(began), rows.Err()
}
