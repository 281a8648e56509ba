package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
)

// verified is what a check of the audit log finds; wrong is the entry that must not fit.
func verified(t testing.TB, s *Store, wrong int64) api.AuditCheck {
	t.Helper()
	check, err := s.VerifyAudit(context.Background(), "")
	if err != nil || check.Wrong != wrong {
		t.Fatalf("want entry %d to be wrong: %s, %v", wrong, check, err)
	}
	return check
}

// addEntries appends n entries, each by a job of its own.
func addEntries(t testing.TB, s *Store, at time.Time, n int) {
	t.Helper()
	for i := range n {
		mustWrite(t, s, func(tx *Tx) error { return tx.AddAudit(entryOf(at, i)) })
	}
}

func entryOf(at time.Time, i int) api.AuditEntry {
	return api.AuditEntry{
		At: at, HappenedAt: at.Add(-time.Minute), Who: "me", What: "asked", Node: fmt.Sprintf("n%d", i), Op: "op", Why: "why", Outcome: "out",
		Detail: "detail", Via: "token", Address: "192.0.2.1",
	}
}

// tamper changes the database by other means than the program.
func tamper(t testing.TB, path string, statements ...string) {
	t.Helper()
	err := withConn(context.Background(), path, false, func(c *sql.Conn) error {
		for _, s := range append([]string{
			`DROP TRIGGER IF EXISTS audit_append_only`, `DROP TRIGGER IF EXISTS audit_pruned_from_the_start`,
		}, statements...) {
			if _, err := c.ExecContext(context.Background(), s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestChangesOfTheAuditLogAreFound changes one of five entries by SQL, in each way that
// there is, and looks which one is named.
func TestChangesOfTheAuditLogAreFound(t *testing.T) {
	onFiles(t)
	again := func(id int) string { // what a careful forger writes
		e := entryOf(time.Unix(0, 1700000000000000000), id-1)
		e.ID, e.Detail = int64(id), "forged"
		return fmt.Sprintf(`UPDATE audit SET detail = 'forged', hash = '%s' WHERE id = %d`, e.Sum("BEFORE"), id)
	}
	cases := map[string]struct {
		sql   string
		wrong int64
	}{
		"at":                        {`UPDATE audit SET at = at + 1 WHERE id = 3`, 3},
		"happened":                  {`UPDATE audit SET happened = happened + 1 WHERE id = 3`, 3},
		"who":                       {`UPDATE audit SET who = 'you' WHERE id = 3`, 3},
		"what":                      {`UPDATE audit SET what = 'x' WHERE id = 3`, 3},
		"node":                      {`UPDATE audit SET node = 'x' WHERE id = 3`, 3},
		"op":                        {`UPDATE audit SET op = 'x' WHERE id = 3`, 3},
		"why":                       {`UPDATE audit SET why = 'x' WHERE id = 3`, 3},
		"outcome":                   {`UPDATE audit SET outcome = 'x' WHERE id = 3`, 3},
		"detail":                    {`UPDATE audit SET detail = '' WHERE id = 3`, 3},
		"via":                       {`UPDATE audit SET via = 'socket' WHERE id = 3`, 3},
		"address":                   {`UPDATE audit SET address = 'x' WHERE id = 3`, 3},
		"hash":                      {`UPDATE audit SET hash = '' WHERE id = 3`, 3},
		"a boundary between fields": {`UPDATE audit SET via = 'token1', address = '92.0.2.1' WHERE id = 3`, 3},
		"one with its hash":         {again(3), 3},
		"the first is removed":      {`DELETE FROM audit WHERE id = 1`, 2},
		"one is removed":            {`DELETE FROM audit WHERE id = 3`, 4},
		"one is removed, the others move up": {
			`DELETE FROM audit WHERE id = 3; UPDATE audit SET id = 3 WHERE id = 4; UPDATE audit SET id = 4 WHERE id = 5`, 3,
		},
		"two change places": {
			`UPDATE audit SET id = 9 WHERE id = 3; UPDATE audit SET id = 3 WHERE id = 4; UPDATE audit SET id = 4 WHERE id = 9`, 3,
		},
		"one is put in": {`INSERT INTO audit SELECT 9, at, who, what, node, op, why, outcome, detail, happened, via, address, hash
			FROM audit WHERE id = 5`, 9},
		"the anchor is moved": {`UPDATE audit_anchor SET id = 2`, 3},
		// What a chain alone cannot show: a head that is kept elsewhere can.
		"the end is cut off": {`DELETE FROM audit WHERE id > 3`, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			s := mustOpen(t, Config{Path: path})
			addEntries(t, s, time.Unix(0, 1700000000000000000), 5)
			head := verified(t, s, 0)
			if head.Entries != 5 || head.First != 1 || head.Last != 5 {
				t.Errorf("%+v", head)
			}
			tamper(t, path, c.sql)
			check := verified(t, s, c.wrong)
			if c.wrong == 0 && check.Head == head.Head {
				t.Error("the head is the same")
			}
			if c.wrong > 0 && check.Last >= c.wrong {
				t.Errorf("%+v", check)
			}
			s.Close()
			_, err := Check(t.Context(), path)
			if errors.Is(err, ErrAltered) != (c.wrong > 0) || err != nil && !strings.Contains(err.Error(), fmt.Sprintf("entry %d does", c.wrong)) {
				t.Error(err)
			}
		})
	}
}

func TestTheAuditLogIsAppendOnly(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	addEntries(t, s, time.Now(), 3)
	for _, statement := range []string{`DELETE FROM audit WHERE id = 2`, `UPDATE audit SET who = 'x' WHERE id = 2`} {
		err := withConn(t.Context(), path, false, func(c *sql.Conn) error {
			_, err := c.ExecContext(t.Context(), statement)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

// TestTheChainGoesOn over restarts, pruning, a backup and its restore.
func TestTheChainGoesOn(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	old, now := time.Now().Add(-time.Hour), time.Now()
	const many = 2*verifyPage + 10
	mustWrite(t, s, func(tx *Tx) error {
		for i := range many {
			if err := tx.AddAudit(entryOf(old, i)); err != nil {
				return err
			}
		}
		return nil
	})
	addEntries(t, s, now, 3)
	s.Close()
	s = mustOpen(t, Config{Path: path})
	addEntries(t, s, now, 1)
	if check := verified(t, s, 0); check.Entries != many+4 {
		t.Error(check)
	}
	for done := false; !done; {
		mustWrite(t, s, func(tx *Tx) (err error) {
			_, done, err = tx.Prune(now.Add(-time.Minute), 600, 0)
			return err
		})
		verified(t, s, 0)
	}
	if check := verified(t, s, 0); check.Entries != 4 || check.First != many+1 {
		t.Error(check)
	}
	backup := filepath.Join(t.TempDir(), "b.db")
	if _, err := Backup(t.Context(), path, backup); err != nil {
		t.Fatal(err)
	}
	addEntries(t, s, now, 5)
	s.Close()
	if _, _, err := Restore(t.Context(), backup, path, ""); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Path: path})
	addEntries(t, s, now, 1)
	mustWrite(t, s, func(tx *Tx) error { return tx.Renew(now) })
	addEntries(t, s, now, 1)
	if check := verified(t, s, 0); check.Entries != 4+1+1+1+1 || check.Last < 2*restoredRevs {
		t.Error(check)
	}
	if _, err := Check(t.Context(), path); err != nil {
		t.Error(err)
	}
}

// TestAnUnhashedLogIsChainedFromItsEndOn reads a database of before there were hashes.
func TestAnUnhashedLogIsChainedFromItsEndOn(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	err := withConn(t.Context(), path, false, func(c *sql.Conn) error {
		if err := steps(t.Context(), c, 0, chainSchema-1); err != nil {
			return err
		}
		_, err := c.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5)
			INSERT INTO audit (id, at, who, what, node, op, why, outcome, detail) SELECT i, i, 'me', 'x', '', '', '', '', '' FROM n`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), path); err != nil {
		t.Errorf("before it is migrated: %v", err)
	}
	s := mustOpen(t, Config{Path: path})
	mustView(t, s, func(tx *Tx) error {
		all, err := tx.Audit(AuditFilter{}, 10)
		if len(all) != 6 || all[5].What != "audit-chain" || all[5].ID != 6 || all[4].Hash != "" || all[5].Before != "" {
			t.Errorf("%+v", all)
		}
		return err
	})
	if check := verified(t, s, 0); check.Unhashed != 5 || check.Entries != 1 || check.First != 6 {
		t.Errorf("%+v", check)
	}
	addEntries(t, s, time.Now(), 1)
	for done, chunk := false, 3; !done; { // first a part of those without hashes
		mustWrite(t, s, func(tx *Tx) (err error) {
			_, done, err = tx.Prune(time.Now().Add(time.Minute), chunk, 0)
			return err
		})
		verified(t, s, 0)
	}
	if check := verified(t, s, 0); check.Unhashed != 0 || check.Entries != 1 || check.First != 7 {
		t.Errorf("%+v", check)
	}
}

// TestTheChainFitsWhateverHappens: entries, jobs and parts of jobs that fail, pruning,
// restarts and restores in any order. Nothing else than pruning makes the chain shorter.
func TestTheChainFitsWhateverHappens(t *testing.T) {
	onFiles(t)
	failure := errors.New("failure")
	path := newPath(t)
	mustOpen(t, Config{Path: path}).Close()
	empty, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		if err := os.WriteFile(path, empty, 0o600); err != nil {
			rt.Fatal(err)
		}
		s, err := Open(Config{Path: path, Log: quiet(), CheckBelow: -1})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		start, want, text := time.Unix(1700000000, 0), 0, rapid.String()
		now := start
		add := func(tx *Tx) error {
			return tx.AddAudit(api.AuditEntry{At: now, Who: text.Draw(rt, "who"), What: "x", Detail: text.Draw(rt, "detail")})
		}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-2, 5).Draw(rt, "clock")) * time.Hour)
			switch rapid.SampledFrom([]string{"add", "add", "fail", "panic", "part", "prune", "reopen"}).Draw(rt, "step") {
			case "add":
				err = s.Write(t.Context(), func(tx *Tx) error { return errors.Join(add(tx), add(tx)) })
				want += 2
			case "fail":
				if err = s.Write(t.Context(), func(tx *Tx) error { return errors.Join(add(tx), failure) }); errors.Is(err, failure) {
					err = nil
				}
			case "panic":
				_ = s.Write(t.Context(), func(tx *Tx) error { _ = add(tx); panic("x") })
			case "part":
				err = s.Write(t.Context(), func(tx *Tx) error {
					_ = tx.Try(func() error { return errors.Join(add(tx), failure) })
					return errors.Join(add(tx), tx.Try(func() error { return add(tx) }))
				})
				want += 2
			case "prune":
				err = s.Write(t.Context(), func(tx *Tx) error {
					_, _, err := tx.Prune(now.Add(-3*time.Hour), rapid.IntRange(1, 5).Draw(rt, "chunk"), 0)
					return err
				})
			case "reopen":
				s.Close()
				if s, err = Open(Config{Path: path, Log: quiet(), CheckBelow: -1}); err != nil {
					rt.Fatal(err)
				}
			}
			if err != nil {
				rt.Fatal(err)
			}
			check, err := s.VerifyAudit(t.Context(), "")
			if err != nil || check.Wrong != 0 || check.Last != int64(want) || want > 0 && check.Entries != int(check.Last-check.First)+1 {
				rt.Fatalf("%+v, %v; want %d", check, err, want)
			}
		}
	})
}

// TestFiltersOfTheAuditLogAreIndexed looks at what SQLite makes of each question.
func TestFiltersOfTheAuditLogAreIndexed(t *testing.T) {
	onFiles(t)
	s := mustOpen(t, Config{Path: newPath(t)})
	now := time.Now()
	for name, c := range map[string]struct {
		filter AuditFilter
		after  int64
		want   string
	}{
		"newest":         {AuditFilter{}, -1, "SCAN audit"}, // from the end, as many as are asked for
		"behind an id":   {AuditFilter{Who: "bob"}, 7, "SEARCH audit USING INTEGER PRIMARY KEY (rowid>?)"},
		"since":          {AuditFilter{Since: now, Who: "bob", What: "x"}, -1, "SEARCH audit USING INDEX audit_at (at>?)"},
		"since, until":   {AuditFilter{Since: now, Until: now}, -1, "SEARCH audit USING INDEX audit_at (at>? AND at<?)"},
		"nodes":          {AuditFilter{Nodes: []string{"n"}}, -1, "SEARCH audit USING INDEX audit_node (node=?)"},
		"nodes, behind":  {AuditFilter{Nodes: []string{"n"}}, 7, "SEARCH audit USING INTEGER PRIMARY KEY (rowid>?)"},
		"hash before it": {AuditFilter{}, 7, "SEARCH b USING INTEGER PRIMARY KEY (rowid<?)"},
	} {
		mustView(t, s, func(tx *Tx) error {
			query, args := c.filter.query(c.after, 10)
			plan := ""
			err := tx.each(func(r *sql.Rows) error {
				var id, parent, unused int
				var detail string
				err := r.Scan(&id, &parent, &unused, &detail)
				plan += detail + "\n"
				return err
			}, "EXPLAIN QUERY PLAN "+query, args...)
			if !strings.Contains(plan, c.want) {
				t.Errorf("%s: want %s, got\n%s", name, c.want, plan)
			}
			return err
		})
	}
}

// BenchmarkAddAudit is a job with one entry, without the commit's flush being counted on.
func BenchmarkAddAudit(b *testing.B) {
	s := mustOpen(b, Config{Path: newPath(b)})
	at := time.Now()
	mustWrite(b, s, func(tx *Tx) error {
		b.ResetTimer()
		for i := range b.N {
			if err := tx.AddAudit(entryOf(at, i)); err != nil {
				return err
			}
		}
		b.StopTimer()
		return nil
	})
}
