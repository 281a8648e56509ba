package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
	"rackpower/power"
)

// databases are the databases on PostgreSQL that take the place of files.
var databases sync.Map

// databaseOf is the same database for the same path.
func databaseOf(t testing.TB, path string) string {
	if url, ok := databases.Load(path); ok {
		return url.(string)
	}
	url := pgtest.URL(t)
	databases.Store(path, url)
	return url
}

// onFiles leaves a test out that is about SQLite's files.
func onFiles(t testing.TB) {
	t.Helper()
	if pgtest.Wanted() {
		t.Skip("about SQLite's files")
	}
}

func openPostgres(t testing.TB) *Store { return mustOpenAt(t, pgtest.URL(t)) }

// TestPostgresKnowsEveryStatement prepares what the package's SQL says.
func TestPostgresKnowsEveryStatement(t *testing.T) {
	s := openPostgres(t)
	bare := regexp.MustCompile(`(?i)[^"a-z_.]user[^"a-z_(]`)
	seen := 0
	for _, query := range statements(t) {
		seen++
		if bare.MatchString(" " + query + " ") {
			t.Errorf("user without quotes is who is connected, to PostgreSQL: %s", query)
		}
		if _, err := s.writer.c.PrepareContext(context.Background(), s.engine.text(query)); err != nil {
			t.Errorf("%v\n\t%s", err, query)
		}
	}
	mustView(t, s, func(tx *Tx) error {
		now := time.Now()
		for _, q := range []api.QueryOps{
			{},
			{AfterRev: 1},
			{IDs: []string{"a"}, Nodes: []string{"b"}, Since: now, Outstanding: true},
			{Before: api.OpPlace(api.Op{ID: "a", Seq: 7})},
		} {
			if _, err := tx.FindOps(q); err != nil {
				t.Errorf("%+v: %v", q, err)
			}
		}
		return nil
	})
	if seen < 150 {
		t.Errorf("only %d statements were found", seen)
	}
}

// TestSchemasAreTheSame compares tables, columns and indexes of both engines.
func TestSchemasAreTheSame(t *testing.T) {
	pg := schemaOfPostgres(t, openPostgres(t))
	path := newPath(t)
	f, err := Open(Config{Path: path, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lite := schemaOfSQLite(t, f)
	for _, line := range lite {
		if !slices.Contains(pg, line) {
			t.Errorf("PostgreSQL lacks %s", line)
		}
	}
	for _, line := range pg {
		if !slices.Contains(lite, line) {
			t.Errorf("only PostgreSQL has %s", line)
		}
	}
	if len(lite) < 200 {
		t.Errorf("only %d lines", len(lite))
	}
}

func lines(t *testing.T, c *sql.Conn, query string) (all []string) {
	t.Helper()
	rows, err := c.QueryContext(context.Background(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.Join(strings.Fields(strings.NewReplacer("(", " ", ")", " ", `"`, "", "::text", "").Replace(line)), " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func schemaOfSQLite(t *testing.T, s *Store) []string {
	columns := lines(t, s.writer.c, `SELECT m.name || '.' || c.name || ' ' || CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'TEXT' THEN 'text'
		WHEN 'REAL' THEN 'double precision' ELSE 'bytea' END || ' ' || (c."notnull" OR c.pk > 0) || ' ' || coalesce(c.dflt_value, '-')
		|| ' ' || c.pk
		FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'`)
	keys := lines(t, s.writer.c, `SELECT m.name || '.' || k."from" || ' to ' || k."table" || '.' || k."to" || ' ' || k.on_delete
		FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) k WHERE m.type = 'table'`)
	indexes := lines(t, s.writer.c, `SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL`)
	return slices.Concat(columns, keys, indexes)
}

func schemaOfPostgres(t *testing.T, s *Store) []string {
	columns := lines(t, s.writer.c, `SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' ||
		CASE WHEN a.attnotnull THEN 1 ELSE 0 END || ' ' ||
		coalesce(trim(BOTH '()' FROM regexp_replace(pg_get_expr(d.adbin, d.adrelid), '''(-\d+)''::\w+', '\1')), '-')
		|| ' ' || coalesce(array_position(p.conkey, a.attnum), 0)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		LEFT JOIN pg_constraint p ON p.conrelid = c.oid AND p.contype = 'p'
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname <> 'rackpower_schema'`)
	keys := lines(t, s.writer.c, `SELECT c.relname || '.' || a.attname || ' to ' || f.relname || '.' || b.attname || ' ' ||
		CASE k.confdeltype WHEN 'c' THEN 'CASCADE' ELSE 'NO ACTION' END
		FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1] JOIN pg_attribute b ON b.attrelid = f.oid AND b.attnum = k.confkey[1]
		WHERE k.contype = 'f' AND k.connamespace = current_schema()::regnamespace`)
	indexes := lines(t, s.writer.c, `SELECT replace(replace(pg_get_indexdef(i.indexrelid), ' USING btree', ''), quote_ident(current_schema()) || '.', '')
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND NOT i.indisprimary`)
	return slices.Concat(columns, keys, indexes)
}

func TestAServerThatLosesCommitsIsRefused(t *testing.T) {
	url := pgtest.URL(t)
	_, err := Open(Config{Path: newPath(t), Database: url + "&synchronous_commit=off", Log: quiet()})
	if !errors.Is(err, ErrNotDurable) || !strings.Contains(err.Error(), "synchronous_commit") {
		t.Errorf("synchronous_commit off: %v", err)
	}
	for _, name := range []string{"fsync", "full_page_writes"} {
		server, err := pgtest.Start(name + "=off")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(Config{Path: newPath(t), Database: server.URL(), Log: quiet()})
		server.Remove()
		if !errors.Is(err, ErrNotDurable) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s off: %v", name, err)
		}
	}
}

// TestOneHasADatabaseOnPostgres has a second one refused until the first has ended.
func TestOneHasADatabaseOnPostgres(t *testing.T) {
	cfg := Config{Path: newPath(t), Database: pgtest.URL(t), Log: quiet()}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	s.Close()
	if s, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// statements reads the SQL out of the package's files, and adds what is made when it is needed.
func statements(t *testing.T) (all []string) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	values := map[string]ast.Expr{}
	for _, name := range names {
		switch name {
		case "sqlite.go", "postgres.go", "backup.go", "before.go", "migrate.go", "move.go": // not for both engines
			continue
		}
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == len(spec.Names) {
				for i, name := range spec.Names {
					values[name.Name] = spec.Values[i]
				}
			}
			return true
		})
	}
	begins := regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s`)
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := textOfExpr(e, values)
			if ok && begins.MatchString(text) && !strings.Contains(text, "%") {
				all = append(all, text)
			}
			_, sum := e.(*ast.BinaryExpr) // one that is not constant is made when it is needed
			return !ok && !sum
		})
	}
	audit := func(f AuditFilter, id int64) {
		query, _ := f.query(id, 1)
		all = append(all, query)
	}
	now := time.Now()
	audit(AuditFilter{}, -1)
	audit(AuditFilter{Since: now}, -1)
	for _, id := range []int64{-1, 7} {
		audit(AuditFilter{Nodes: []string{"a"}, Who: "b", What: "c", Since: now, Until: now, Before: 1}, id)
	}
	for _, steps := range renewal(now) {
		all = append(all, steps.query)
	}
	for _, in := range []*inserts{newInserts("ops", opColumns+", stage"), newInserts("audit", auditStored)} {
		for _, n := range insertAtOnce {
			all = append(all, in.text(n))
		}
	}
	return append(all, sqlPutNode, sqlSaveOp)
}

// textOfExpr is a string that is made of constants.
func textOfExpr(e ast.Expr, values map[string]ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		if e.Name == "opColumns" {
			return opColumns, true
		}
		value, ok := values[e.Name]
		if !ok {
			return "", false
		}
		return textOfExpr(value, values)
	case *ast.BinaryExpr:
		x, okX := textOfExpr(e.X, values)
		y, okY := textOfExpr(e.Y, values)
		return x + y, okX && okY && e.Op == token.ADD
	}
	return "", false
}

// TestTheServerIsKilled kills the server while operations are taken, again and again: what was
// acknowledged is there, and the store goes on by itself when the server is back.
func TestTheServerIsKilled(t *testing.T) {
	server, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrMissing) {
		t.Skip("LEFT OUT: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Remove)
	s := mustOpenAt(t, server.URL())
	withAgent(t, s, "r1")
	var mu sync.Mutex
	acked := map[string]bool{}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	end := make(chan struct{})
	var askers sync.WaitGroup
	for w := range 8 {
		askers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d", w, i)
				switch err := putOp(s, id, "r1", "n"); {
				case err == nil:
					mu.Lock()
					acked[id] = true
					mu.Unlock()
				case !errors.Is(err, ErrDisk):
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	askers.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.CountNodes(); return err })
			if err != nil && !errors.Is(err, ErrDisk) {
				t.Errorf("a view: %v", err)
			}
		}
	})
	for round := range 3 {
		for n := count(); count() < n+50; {
			time.Sleep(time.Millisecond)
		}
		server.Kill()
		if err := server.Restart(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	for n := count(); count() < n+50; {
		time.Sleep(time.Millisecond)
	}
	close(end)
	askers.Wait()
	ids := opIDs(t, s)
	for id := range acked {
		if !ids[id] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	seen := map[int64]string{}
	mustView(t, s, func(tx *Tx) error {
		ops, err := tx.FindOps(api.QueryOps{Limit: 1 << 30})
		for _, o := range ops {
			if was, twice := seen[o.Rev]; twice {
				t.Errorf("%s and %s have revision %d", was, o.ID, o.Rev)
			}
			seen[o.Rev] = o.ID
		}
		return err
	})
}

func mustOpenAt(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(Config{Path: newPath(t), Database: url, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestWhoLostADatabaseWritesNoMore ends the connection of one that writes: it takes the lock again,
// unless another one had it meanwhile.
func TestWhoLostADatabaseWritesNoMore(t *testing.T) {
	url := pgtest.URL(t)
	s := mustOpenAt(t, url)
	withAgent(t, s, "r1")
	cut(t, s)
	if err := putOp(s, "a", "r1", "n"); err != nil {
		t.Errorf("after the connection was lost: %v", err)
	}
	cut(t, s)
	next := mustOpenAt(t, url)
	if err := putOp(s, "b", "r1", "n"); !errors.Is(err, ErrTakenOver) {
		t.Errorf("while another one has it: %v", err)
	}
	next.Close()
	if err := putOp(s, "b", "r1", "n"); !errors.Is(err, ErrTakenOver) {
		t.Errorf("after another one had it: %v", err)
	}
	if err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.Rev(); return err }); err != nil {
		t.Errorf("reading: %v", err)
	}
}

// cut ends the connection of the writer at the server, and returns when the server has let go of the lock.
func cut(t *testing.T, s *Store) {
	t.Helper()
	pid := raw(s.writer.c).PgConn().PID()
	mustView(t, s, func(tx *Tx) error {
		_, err := tx.c.c.ExecContext(t.Context(), fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)", pid))
		return err
	})
}

// TestMoveThereAndBack moves a database to PostgreSQL and back: every row is the same, but for what
// tells agents of another incarnation.
func TestMoveThereAndBack(t *testing.T) {
	dir := t.TempDir()
	open := func(path, database string) *Store {
		t.Helper()
		s, err := Open(Config{Path: filepath.Join(dir, path), Database: database, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	first := open("a.db", "")
	fill(t, first)
	before := first.Database()
	last := lastSeq(t, first)
	second := open("a.db", pgtest.URL(t))
	sum, err := Move(t.Context(), first, second, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	db := second.Database()
	if db.CentralID != before.CentralID || db.Incarnation <= before.Incarnation || sum.Generation != 2 || sum.Nodes != 3000 {
		t.Errorf("moved: %+v, %+v", db, sum)
	}
	if err := putOp(second, "later", "r1", "n1"); err != nil || lastSeq(t, second) <= last {
		t.Errorf("an operation after the move: %v", err)
	}
	third := open("b.db", "")
	if _, err := Move(t.Context(), second, third, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{second, third} {
		if check, err := s.VerifyAudit(t.Context(), ""); err != nil || check.Wrong != 0 {
			t.Errorf("audit log: %+v, %v", check, err)
		}
		mustView(t, s, func(tx *Tx) error {
			n, _, err := tx.Node("n7")
			if n.Password != "secret7" || string(n.Labels) != "gpu" {
				t.Errorf("node: %+v", n)
			}
			return err
		})
	}
	if _, err := Move(t.Context(), first, second, time.Now()); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("onto a database in use: %v", err)
	}
}

func lastSeq(t *testing.T, s *Store) (seq int64) {
	t.Helper()
	mustView(t, s, func(tx *Tx) error { return tx.row("SELECT max(seq) FROM ops").Scan(&seq) })
	return seq
}

// fill stores something in most tables.
func fill(t *testing.T, s *Store) {
	t.Helper()
	now := time.Now()
	mustWrite(t, s, func(tx *Tx) error {
		err := errors.Join(tx.EnsureAgent("r1"), tx.PutUser(User{Name: "u", Role: "admin", CreatedAt: now}), tx.AddToken("h", "u", now, now),
			tx.SetDomain(api.DomainLimit{Name: "d", Rate: 0.1, Concurrent: 3}), tx.SaveMachine("r1", "host"),
			tx.PutCredentials(Credentials{Name: "c", User: "x", Password: "shared"}), tx.PutSchedule(Schedule{Schedule: api.Schedule{Name: "s"}}))
		for i := range 3000 {
			n := Node{Name: fmt.Sprintf("n%d", i), Rack: "r1", Agent: "r1", BMC: fmt.Sprintf("ipmi://u@192.0.2.%d", i), Labels: "gpu"}
			n.Password = power.Secret(fmt.Sprintf("secret%d", i))
			err = errors.Join(err, tx.PutNode(n), tx.AddAudit(api.AuditEntry{At: now, Who: "t", What: "x", Detail: "a\x00b\xff\u00e9"}))
		}
		return err
	})
	for i := range 20 {
		if err := putOp(s, fmt.Sprint("op", i), "r1", "n1"); err != nil {
			t.Fatal(err)
		}
	}
	ctx := WithKey(t.Context(), &Keyed{Who: "u", Key: "k", Request: "r", At: now})
	if err := s.Write(ctx, func(tx *Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, func(tx *Tx) error {
		return tx.Answered(Keyed{Who: "u", Key: "k", Request: "r", Status: 200, Answer: []byte{0, 1, 255}})
	})
}
