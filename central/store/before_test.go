package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ofSchema makes a database of an earlier schema; sealed: without passwords in plain.
func ofSchema(t *testing.T, schema int64, sealed bool) string {
	t.Helper()
	path := newPath(t)
	err := withConn(t.Context(), path, false, func(c *sql.Conn) error {
		if err := steps(t.Context(), c, 0, schema); err != nil {
			return err
		}
		_, err := c.ExecContext(t.Context(), `INSERT INTO agents (name) VALUES ('r1')`)
		if err == nil && sealed {
			_, err = c.ExecContext(t.Context(), `UPDATE meta SET plain = 0`)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// filesOf are the names of the files beside a database that begin with its name, but for those of SQLite.
func filesOf(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".schema-") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestACopyIsKeptBeforeAMigration: it is a backup that the program of before restores, and the
// newest few stay.
func TestACopyIsKeptBeforeAMigration(t *testing.T) {
	onFiles(t)
	path := ofSchema(t, Schema-1, true)
	copied := beforeName(path, Schema-1)
	if err := os.WriteFile(copied+".new", []byte("of a start that was cut off"), 0o644); err != nil {
		t.Fatal(err)
	}
	whole, err := Check(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Base(path)
	for i, schema := range []int64{20, 21, 22, 23} { // 21 is the oldest
		name := beforeName(path, schema)
		at := time.Now().Add(-time.Duration([]int{3, 4, 2, 1}[i]) * time.Hour)
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, Config{Path: path})
	if agents := mustAgents(t, s); len(agents) != 1 {
		t.Errorf("migrated: %v", agents)
	}
	s.Close()
	want := []string{base + ".schema-22", base + ".schema-23", filepath.Base(copied)}
	if got := filesOf(t, path); !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if sum, err := Check(t.Context(), copied); err != nil || sum != whole || sum.Schema != Schema-1 {
		t.Errorf("the copy: %+v, %v", sum, err)
	}
	if sum, _, err := Restore(t.Context(), copied, path, ""); err != nil || sum.Schema != Schema || sum.ID != whole.ID {
		t.Errorf("the copy restored: %+v, %v", sum, err)
	}
	before := filesOf(t, path)
	mustOpen(t, Config{Path: path}).Close()
	if got := filesOf(t, path); !slices.Equal(got, before) {
		t.Errorf("a start without a migration keeps %v", got)
	}
}

func mustAgents(t *testing.T, s *Store) (agents []Agent) {
	t.Helper()
	mustView(t, s, func(tx *Tx) (err error) {
		agents, err = tx.Agents()
		return err
	})
	return agents
}

// TestNoCopyKeepsPasswordsInPlain: not of a database of before they were sealed, nor of one whose
// free pages may have some.
func TestNoCopyKeepsPasswordsInPlain(t *testing.T) {
	for _, schema := range []int64{sealedSchema - 1, sealedSchema, Schema - 1} {
		path := ofSchema(t, schema, false)
		mustOpen(t, Config{Path: path}).Close()
		if got := filesOf(t, path); len(got) > 0 {
			t.Errorf("schema %d: kept %v", schema, got)
		}
	}
}

// TestWithoutRoomForACopyNothingIsMigrated, nor after an error on the way, and nothing is left behind.
func TestWithoutRoomForACopyNothingIsMigrated(t *testing.T) {
	path := ofSchema(t, Schema-1, true)
	same := func(what string) {
		t.Helper()
		if version, err := peek(path); err != nil || version != Schema-1 {
			t.Errorf("%s: schema %d, %v", what, version, err)
		}
		if got := filesOf(t, path); len(got) > 0 {
			t.Errorf("%s: left %v", what, got)
		}
	}
	all := free
	defer func() { free = all }()
	free = func(string) (uint64, error) { return 4096, nil }
	_, err := Open(Config{Path: path, Log: quiet()})
	if !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("without room: %v", err)
	}
	same("without room")
	free = all
	dir := beforeName(path, Schema-1)
	if err := os.Mkdir(dir, 0o700); err != nil { // a file cannot take its place
		t.Fatal(err)
	}
	if _, err := Open(Config{Path: path, Log: quiet()}); err == nil {
		t.Error("without a name for the copy it was migrated")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	same("without a name")
	mustOpen(t, Config{Path: path})
}

// TestAMigrationIsWhollyOrNotMade: one whose 28th step fails leaves the schema of before.
func TestAMigrationIsWhollyOrNotMade(t *testing.T) {
	path := ofSchema(t, 20, true)
	err := withConn(t.Context(), path, false, func(c *sql.Conn) error {
		_, err := c.ExecContext(t.Context(), "CREATE TABLE idempotent (x)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Path: path, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "from schema 20, which it stays at") {
		t.Errorf("%v", err)
	}
	err = withConn(t.Context(), path, true, func(c *sql.Conn) error {
		schema, err := schemaOf(context.Background(), c)
		if schema != 20 {
			t.Errorf("schema %d", schema)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
