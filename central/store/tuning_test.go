package store

import (
	"database/sql"
	"strings"
	"testing"
)

// TestPlansGoByTheirText: with QPSG what is bound to a parameter changes no plan. Without it a prefix that is
// bound to LIKE is looked for in the index.
func TestPlansGoByTheirText(t *testing.T) {
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE t (name TEXT, other TEXT); CREATE INDEX t_name ON t (name COLLATE NOCASE)"); err != nil {
		t.Fatal(err)
	}
	var id, parent, unused int
	var plan string
	row := db.QueryRow("EXPLAIN QUERY PLAN SELECT other FROM t WHERE name LIKE $1", "a%")
	if err := row.Scan(&id, &parent, &unused, &plan); err != nil || !strings.HasPrefix(plan, "SCAN") {
		t.Errorf("%q, %v: the plan goes by what is bound, so each statement is planned each time", plan, err)
	}
}
