package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
	"rackpower/power"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), FileName) }

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = quiet()
	}
	if pgtest.Wanted() {
		cfg.Database = databaseOf(t, cfg.Path)
	}
	s, err := Open(cfg)
	for cfg.Database != "" && errors.Is(err, ErrInUse) { // the server sees the end of a process that was killed a little later
		time.Sleep(time.Millisecond)
		s, err = Open(cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustWrite(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.Write(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func mustView(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func opOf(id, agent, node string) *Op {
	now := time.Now().UTC()
	return &Op{Op: api.Op{
		ID: id, Node: node, Rack: agent, Action: power.ActOn, AskedBy: "t", Origin: power.FromCentral, AskedAt: now,
		Deadline: now.Add(time.Minute), Options: power.Options{IfBusy: power.Supersede}, Phase: api.PhaseTaken,
	}}
}

// putOp adds an operation as central takes one.
func putOp(s *Store, id, agent, node string) error {
	return s.Write(context.Background(), func(tx *Tx) error {
		o := opOf(id, agent, node)
		o.Seq, o.Cursor = tx.NextSeq(o.AskedAt), tx.NextRev()
		return tx.AddOp(o)
	})
}

func withAgent(t testing.TB, s *Store, name string) {
	t.Helper()
	mustWrite(t, s, func(tx *Tx) error { return tx.EnsureAgent(name) })
}

func opIDs(t testing.TB, s *Store) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	mustView(t, s, func(tx *Tx) error {
		all, err := tx.FindOps(api.QueryOps{Limit: 1 << 30})
		for _, o := range all {
			ids[o.ID] = true
		}
		return err
	})
	return ids
}

// TestAFailingJobUndoesOnlyItself holds the writer up, so that the jobs after it
// share one transaction for certain.
func TestAFailingJobUndoesOnlyItself(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	hold, held := make(chan struct{}), make(chan struct{})
	go s.Write(context.Background(), func(*Tx) error { close(held); <-hold; return nil })
	<-held
	own := errors.New("own")
	kinds := []func(*Tx) error{
		func(*Tx) error { return nil },
		func(*Tx) error { return own },
		func(*Tx) error { panic("oh") },
	}
	errs := make([]error, 30)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Write(context.Background(), func(tx *Tx) error {
				if err := tx.AddOp(opOf(fmt.Sprint(i), "r1", "n")); err != nil {
					return err
				}
				return kinds[i%3](tx)
			})
		})
	}
	for len(s.jobs) < len(errs) {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	ids := opIDs(t, s)
	for i, err := range errs {
		switch {
		case i%3 == 0 && err != nil, i%3 == 1 && !errors.Is(err, own), i%3 == 2 && (err == nil || !strings.Contains(err.Error(), "oh")):
			t.Errorf("job %d got %v", i, err)
		case ids[fmt.Sprint(i)] != (i%3 == 0):
			t.Errorf("job %d: stored is %v", i, ids[fmt.Sprint(i)])
		}
	}
}

// TestAnswersComeAfterTheCommit looks from another connection when Write returns
// and when the hook runs.
func TestAnswersComeAfterTheCommit(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	count := func() (n int) {
		mustView(t, s, func(tx *Tx) error { return tx.row("SELECT count(*) FROM ops").Scan(&n) })
		return n
	}
	inJob, inHook := -1, -1
	mustWrite(t, s, func(tx *Tx) error {
		err := tx.AddOp(opOf("a", "r1", "n"))
		inJob = count()
		tx.OnCommit(func() { inHook = count() })
		return err
	})
	if inJob != 0 || inHook != 1 || count() != 1 {
		t.Errorf("seen within the job %d, in the hook %d, after it %d; want 0, 1, 1", inJob, inHook, count())
	}
	called := false
	_ = s.Write(context.Background(), func(tx *Tx) error { tx.OnCommit(func() { called = true }); return errors.New("no") })
	if called {
		t.Error("the hook of a failed job ran")
	}
}

func TestACallerMayGiveUpBeforeItsJobBegins(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	hold, held := make(chan struct{}), make(chan struct{})
	go s.Write(context.Background(), func(*Tx) error { close(held); <-hold; return nil })
	<-held
	ctx, cancel := context.WithCancel(context.Background())
	ran := false
	got := make(chan error)
	go func() { got <- s.Write(ctx, func(*Tx) error { ran = true; return nil }) }()
	for len(s.jobs) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
	s.Close()
	if ran {
		t.Error("the job ran after its caller had been told that it did not")
	}
	if err := s.Write(context.Background(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := s.View(context.Background(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestEveryConnectionHasTheSettings(t *testing.T) {
	onFiles(t)
	s := mustOpen(t, Config{Path: newPath(t)})
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "wal_autocheckpoint": "1000"}
	look := func(tx *Tx) error {
		for pragma, want := range want {
			var got string
			if err := tx.row("PRAGMA " + pragma).Scan(&got); err != nil {
				return err
			}
			if got != want {
				t.Errorf("%s is %s, want %s", pragma, got, want)
			}
		}
		return nil
	}
	mustWrite(t, s, look)
	for range readers {
		mustView(t, s, func(tx *Tx) error {
			var readOnly string
			if err := tx.row("PRAGMA query_only").Scan(&readOnly); err != nil || readOnly != "1" {
				t.Errorf("a view can write: query_only %s, %v", readOnly, err)
			}
			return nil
		})
	}
	err := s.Write(context.Background(), func(tx *Tx) error { return tx.AddOp(opOf("x", "nobody", "n")) })
	if err == nil {
		t.Error("an operation of an agent that does not exist was stored")
	}
	err = s.Write(context.Background(), func(tx *Tx) error {
		if err := tx.AddAudit(api.AuditEntry{What: "x"}); err != nil {
			return nil
		}
		_, err := tx.exec("UPDATE audit SET who = 'somebody else'")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "append-only") {
		t.Errorf("the audit log could be changed: %v", err)
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", suffix, info.Mode().Perm())
		}
	}
}

func TestASecondOneIsRefused(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	_, err := Open(Config{Path: path, Log: quiet()})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("a second opening: %v", err)
	}
	if _, _, err := Restore(context.Background(), path, path, ""); !errors.Is(err, ErrInUse) {
		t.Fatalf("a restore beneath an open database: %v", err)
	}
	s.Close()
	mustOpen(t, Config{Path: path})
}

func TestSequencesAndRevisionsOnlyGrow(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	ahead := power.Seq(0).Next(time.Now().Add(30 * time.Minute))
	for seq, want := range map[power.Seq]bool{ahead: true, power.Seq(0).Next(time.Now().Add(2 * power.MaxAhead)): false, 1 << 63: false} {
		if got := s.MergeSeq(seq, time.Now()); got != want {
			t.Errorf("sequence %d followed: %v", seq, got)
		}
	}
	if err := putOp(s, "a", "r1", "n"); err != nil {
		t.Fatal(err)
	}
	first := s.Seq(time.Now())
	if first <= ahead || first > ahead+10 {
		t.Errorf("sequence %d after one of %d was seen", first, ahead)
	}
	s.Close()
	s = mustOpen(t, Config{Path: path})
	if err := putOp(s, "b", "r1", "n"); err != nil {
		t.Fatal(err)
	}
	mustView(t, s, func(tx *Tx) error {
		a, _, _ := tx.Op("a")
		b, _, err := tx.Op("b")
		if b.Seq <= a.Seq || b.Rev <= a.Rev || b.Cursor <= a.Cursor {
			t.Errorf("after a restart seq %d, rev %d came after %d, %d", b.Seq, b.Rev, a.Seq, a.Rev)
		}
		return err
	})
}

func TestOpsComeBackAsTheyWent(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	at := time.Now().UTC().Truncate(time.Nanosecond)
	want := Op{Op: api.Op{
		ID: "id", Node: "n", Rack: "r1", Action: power.ActSoftOff, Seq: 77, AskedBy: "me", Origin: power.FromLocal, Reason: "because",
		AskedAt:   at,
		StartedAt: &at, EndedAt: &at, Outcome: power.Failed, Detail: "detail", Already: true, SupersededBy: "s", Joined: "j", Attempts: 3,
		Verdict: power.VerdictStart, Why: power.ReasonAuth, Message: "says", Phase: api.PhaseEnded, State: power.Off,
		Deadline: at.Add(time.Second),
		Options:  power.Options{IfBusy: power.Queue, Boot: power.BootPXE, Grace: time.Minute, Limit: 800}, CancelBy: "c", NoEscalate: true,
		Confirmed: true,
	}, Cursor: 5, Delivered: true, JournalID: "jj", LSN: 1 << 62, CancelReason: "cr", CancelCursor: 6, Handed: "r0"}
	mustWrite(t, s, func(tx *Tx) error { return tx.AddOp(&want) })
	if missing := unset(reflect.ValueOf(want)); !slices.Equal(missing, []string{"AgentNote"}) { // which is not stored
		t.Errorf("fields that this test does not set: %v", missing)
	}
	compare := func() {
		t.Helper()
		mustView(t, s, func(tx *Tx) error {
			got, found, err := tx.Op("id")
			if a, b := fmt.Sprintf("%+v", deref(got)), fmt.Sprintf("%+v", deref(want)); !found || a != b {
				t.Errorf("got  %s\nwant %s", a, b)
			}
			return err
		})
	}
	compare()
	later := at.Add(time.Hour)
	want.StartedAt, want.EndedAt, want.Outcome, want.Detail, want.Already, want.SupersededBy = &later, nil, power.Expired, "d2", false, "s2"
	want.Joined, want.Attempts, want.Verdict, want.Why, want.Message, want.Phase = "j2", 4, power.VerdictJoin, power.ReasonBusy, "says2",
		"running: x"
	want.State, want.CancelBy, want.Delivered, want.JournalID, want.LSN, want.CancelReason, want.CancelCursor = power.On, "c2", false, "k", 2,
		"cr2", 9
	mustWrite(t, s, func(tx *Tx) error { return tx.SaveOp(&want) })
	compare()
}

// unset lists the fields of a structure that are zero.
func unset(v reflect.Value) (names []string) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.IsZero():
			names = append(names, v.Type().Field(i).Name)
		case f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[time.Time]():
			names = append(names, unset(f)...)
		}
	}
	return names
}

func deref(o Op) any {
	var started, ended time.Time
	if o.StartedAt != nil {
		started = *o.StartedAt
	}
	if o.EndedAt != nil {
		ended = *o.EndedAt
	}
	o.StartedAt, o.EndedAt = nil, nil
	return []any{o, started, ended}
}

func TestNewestReadingCounts(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	withAgent(t, s, "r2")
	mustWrite(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutNode(Node{Name: "a", Rack: "r1", Agent: "r1", Rev: 2}),
			tx.PutNode(Node{Name: "b", Rack: "r2", Agent: "r2", Rev: 2}))
	})
	at := time.Now().UTC()
	mustWrite(t, s, func(tx *Tx) error {
		return tx.Observe(Node{Name: "a", Reading: power.Seen(power.On, at), Monitor: api.NodeMonitor{Matched: true}, Matched: true})
	})
	seen := func(at time.Time, state power.State, matched bool) api.NodeReading {
		return api.NodeReading{Node: "a", Reading: power.Seen(state, at), Monitor: api.NodeMonitor{Matched: matched}}
	}
	refresh := func(agent string, r api.NodeReading) (done bool) {
		mustWrite(t, s, func(tx *Tx) (err error) { done, err = tx.Refresh(agent, r); return err })
		return done
	}
	next := at.Add(time.Second)
	for what, c := range map[string]struct {
		agent string
		api.NodeReading
	}{
		"older":         {"r1", seen(at.Add(-time.Second), power.On, true)},
		"the same time": {"r1", seen(at, power.On, true)},
		"another state": {"r1", seen(next, power.Off, true)},
		"another word":  {"r1", seen(next, power.On, false)},
		"another agent": {"r2", seen(next, power.On, true)},
	} {
		if refresh(c.agent, c.NodeReading) {
			t.Errorf("%s: taken as no news", what)
		}
	}
	if !refresh("r1", seen(next, power.On, true)) {
		t.Error("a later equal reading is taken as news")
	}
	mustView(t, s, func(tx *Tx) error {
		a, _, err := tx.Node("a")
		if a.State != power.On || !a.TriedAt.Equal(next) || !a.ObservedAt.Equal(next) || a.Reach != power.ReachOK || !a.Matched {
			t.Errorf("a is %+v", a)
		}
		return err
	})
}

func TestANewerDatabaseIsLeftAlone(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	mustOpen(t, Config{Path: path}).Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(raw[60:], uint32(Schema+1))
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Path: path, Log: quiet()})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "newer rackpower-central") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	for what, f := range map[string]func() error{
		"check":   func() error { _, err := Check(context.Background(), path); return err },
		"backup":  func() error { _, err := Backup(context.Background(), path, path+".b"); return err },
		"restore": func() error { _, _, err := Restore(context.Background(), path, path+".r", ""); return err },
	} {
		if err := f(); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", what, err)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(raw, after) {
		t.Errorf("the file was changed (%v)", err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(path + suffix); err == nil {
			t.Errorf("%s was made", suffix)
		}
	}
}

func TestForeignFilesAreRefused(t *testing.T) {
	for name, content := range map[string][]byte{
		"text":  []byte("hello"),
		"long":  bytes.Repeat([]byte("x"), 5000),
		"other": append([]byte("SQLite format 3\x00"), bytes.Repeat([]byte{1}, 5000)...),
	} {
		path := newPath(t)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Path: path, Log: quiet()}); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, content) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	for i := range 300 {
		if err := putOp(s, fmt.Sprintf("op-%05d", i), "r1", "n"); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(raw) / 2; i < len(raw)/2+8192; i++ {
		raw[i] ^= 0x5a
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Path: path, Log: quiet()}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("opening: %v", err)
	}
	if _, err := Check(context.Background(), path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("check: %v", err)
	}
	if _, err := Backup(context.Background(), path, path+".b"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("backup: %v", err)
	}
}

// TestADiskThatFailsLosesNoConnection: a transaction that cannot begin is begun on the same connection next time, for a
// file has no other one.
func TestADiskThatFailsLosesNoConnection(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	err := s.Write(t.Context(), func(tx *Tx) error {
		var is int
		return tx.row("PRAGMA busy_timeout = 1").Scan(&is)
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite3", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 2 {
		holds, err := other.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if err := putOp(s, "one", "r1", "n"); !errors.Is(err, ErrDisk) {
			t.Errorf("a transaction that cannot begin: %v", err)
		}
		if err := holds.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
	if err := putOp(s, "two", "r1", "n"); err != nil {
		t.Errorf("it can begin again: %v", err)
	}
}

// TestAFullDiskSurfaces fills the database up to a bound; what was answered with
// nil is there, and it works again when there is room.
func TestAFullDiskSurfaces(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	mustOpen(t, Config{Path: path}).Close()
	s := mustOpen(t, Config{Path: path, maxPages: 40})
	withAgent(t, s, "r1")
	acked := map[string]bool{}
	var full error
	for i := 0; full == nil; i++ {
		id := fmt.Sprintf("op-%05d", i)
		if full = putOp(s, id, "r1", "n"); full == nil {
			acked[id] = true
		}
		if i > 10000 {
			t.Fatal("the disk never was full")
		}
	}
	if !errors.Is(full, ErrDisk) {
		t.Errorf("a full disk gives %v", full)
	}
	if got := opIDs(t, s); len(got) != len(acked) {
		t.Errorf("%d operations are stored, %d were acknowledged", len(got), len(acked))
	}
	if err := s.Write(context.Background(), func(*Tx) error { return nil }); err != nil {
		t.Errorf("the writer is stuck: %v", err)
	}
	s.Close()
	s = mustOpen(t, Config{Path: path})
	if err := putOp(s, "more", "r1", "n"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestBackupWhileWriting(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	for i := range 50 {
		if err := putOp(s, fmt.Sprintf("before-%d", i), "r1", "n"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := putOp(s, fmt.Sprintf("during-%d", i), "r1", "n"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	backup := filepath.Join(t.TempDir(), "b.db")
	sum, err := Backup(context.Background(), path, backup)
	cancel()
	wg.Wait()
	if err != nil || sum.Ops < 50 || sum.ID != s.ID() {
		t.Fatalf("%+v, %v", sum, err)
	}
	if _, err := Backup(context.Background(), path, backup); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if info, _ := os.Stat(backup); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(backup), "*")); len(files) != 1 {
		t.Errorf("more than the backup is left: %v", files)
	}
	again, err := Check(context.Background(), backup)
	if err != nil || again != sum {
		t.Errorf("check says %+v, %v; backup said %+v", again, err, sum)
	}
}

// TestBackupWithoutHardLinks is on a volume that has none, as vfat has none.
func TestBackupWithoutHardLinks(t *testing.T) {
	onFiles(t)
	defer func() { link = os.Link }()
	link = func(from, to string) error { return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM} }
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	if err := putOp(s, "a", "r1", "n"); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "b.db")
	if _, err := Backup(context.Background(), path, backup); err != nil {
		t.Fatal(err)
	}
	if err := place(path, backup); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	s.Close()
	_, kept, err := Restore(context.Background(), backup, path, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, kept, backup} {
		if sum, err := Check(context.Background(), file); err != nil || sum.Ops != 1 {
			t.Errorf("%s: %+v, %v", file, sum, err)
		}
	}
}

func TestRestoreMakesAnotherIncarnation(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withAgent(t, s, "r1")
	mustWrite(t, s, func(tx *Tx) error { return tx.SaveAgent(Agent{Name: "r1", Session: "old", JournalID: "j"}) })
	if err := putOp(s, "a", "r1", "n"); err != nil {
		t.Fatal(err)
	}
	states := []api.PlanState{api.PlanMade, api.PlanAwaiting, api.PlanApplied}
	mustWrite(t, s, func(tx *Tx) (err error) {
		for _, state := range states {
			err = errors.Join(err, tx.PutPlan(Plan{Plan: api.Plan{ID: string(state), State: state}, Principal: "alice"}))
		}
		return err
	})
	backup := filepath.Join(t.TempDir(), "b.db")
	if _, err := Backup(context.Background(), path, backup); err != nil {
		t.Fatal(err)
	}
	if err := putOp(s, "b", "r1", "n"); err != nil {
		t.Fatal(err)
	}
	was, late := s.Database(), Op{}
	mustView(t, s, func(tx *Tx) (err error) { late, _, err = tx.Op("b"); return err })
	s.Close()
	_, kept, err := Restore(context.Background(), backup, path, "")
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Path: path})
	if now := s.Database(); now.CentralID != was.CentralID || now.Incarnation <= was.Incarnation || s.Generation() != 2 {
		t.Errorf("%+v, was %+v; generation %d", now, was, s.Generation())
	}
	mustView(t, s, func(tx *Tx) error {
		a, _, _ := tx.Op("a")
		r1, _, _ := tx.Agent("r1")
		for i, want := range []api.PlanState{api.PlanExpired, api.PlanExpired, api.PlanApplied} {
			if p, found, err := tx.Plan(string(states[i])); err != nil || !found || p.State != want || p.Principal != "alice" {
				t.Errorf("plan that was %s: %+v, %v", states[i], p, err)
			}
		}
		_, found, err := tx.Op("b")
		if !a.Delivered || a.Cursor <= late.Cursor || r1.Session != "" || r1.JournalID != "j" || found {
			t.Errorf("restored: %+v, %+v, later one found: %v", a, r1, found)
		}
		return err
	})
	if err := putOp(s, "c", "r1", "n"); err != nil {
		t.Fatal(err)
	}
	mustView(t, s, func(tx *Tx) error {
		c, _, err := tx.Op("c")
		if c.Rev <= late.Rev || c.Cursor <= late.Cursor {
			t.Errorf("revision %d is given out a second time (was at %d)", c.Rev, late.Rev)
		}
		return err
	})
	if sum, err := Check(context.Background(), kept); err != nil || sum.Ops != 2 || sum.ID != was.CentralID {
		t.Errorf("kept: %+v, %v", sum, err)
	}
}

func TestPruneGoesInChunks(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	now := time.Now()
	mustWrite(t, s, func(tx *Tx) error {
		for i := range 100 {
			o := opOf(fmt.Sprintf("%03d", i), "r1", "n")
			at := now.Add(-time.Duration(100-i) * time.Hour)
			o.Seq, o.AskedAt = tx.NextSeq(now), at
			if i%10 != 0 { // every tenth is still outstanding
				o.Phase, o.EndedAt, o.Outcome = api.PhaseEnded, &at, power.Succeeded
			}
			if err := errors.Join(tx.AddOp(o), tx.AddAudit(api.AuditEntry{At: at, What: "x", Node: "n"})); err != nil {
				return err
			}
		}
		return errors.Join(tx.PutNode(Node{Name: "m", Rack: "r1", Agent: "r1", Rev: 7}), tx.Entomb("r1", "gone", 9, now.Add(-80*time.Hour),
			false), tx.Entomb("r1", "late", 12, now, true))
	})
	rounds := 0
	for from, done := int64(0), false; !done; rounds++ {
		mustWrite(t, s, func(tx *Tx) (err error) {
			from, done, err = tx.Prune(now.Add(-50*time.Hour-time.Minute), 7, from)
			return err
		})
	}
	if rounds < 5 {
		t.Errorf("done in %d rounds", rounds)
	}
	mustView(t, s, func(tx *Tx) error {
		ops, _ := tx.FindOps(api.QueryOps{Limit: 1000})
		audit, _ := tx.Audit(AuditFilter{}, 1000)
		gone, _, _ := tx.RemovedSince("r1", 0)
		r1, _, err := tx.Agent("r1")
		if len(ops) != 55 || len(audit) != 50 { // 50 newer ones and 5 older that are outstanding
			t.Errorf("%d operations and %d entries are left", len(ops), len(audit))
		}
		if len(gone) != 1 || gone[0] != "late" || r1.Floor != 9 {
			t.Errorf("tombstones %v, floor %d", gone, r1.Floor)
		}
		return err
	})
}

// TestPruneGoesByWhatIsCertain has a rack whose clock is decades behind: what it
// says of times takes nothing with it that is new.
func TestPruneGoesByWhatIsCertain(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	now, longAgo := time.Now(), time.Unix(1, 0)
	mustWrite(t, s, func(tx *Tx) error {
		o := opOf("ended", "r1", "n")
		o.Seq, o.Phase, o.EndedAt, o.Outcome = tx.NextSeq(now), api.PhaseEnded, &longAgo, power.Succeeded
		return errors.Join(tx.AddOp(o), tx.AddAudit(api.AuditEntry{At: now, What: "new"}),
			tx.AddAudit(api.AuditEntry{At: longAgo, What: "old"}), tx.AddAudit(api.AuditEntry{At: now, What: "newer"}))
	})
	mustWrite(t, s, func(tx *Tx) error {
		_, _, err := tx.Prune(now.Add(-time.Hour), 100, 0)
		return err
	})
	mustView(t, s, func(tx *Tx) error {
		audit, err := tx.Audit(AuditFilter{}, 10)
		if len(audit) != 3 || audit[0].What != "new" { // only what is at the start is removed
			t.Errorf("left of the audit log: %+v", audit)
		}
		if _, found, _ := tx.Op("ended"); !found {
			t.Error("an operation that was asked just now is gone")
		}
		return err
	})
}

// TestPruneGoesOnBehindTheFuture has a clock that was far ahead for a while, and much
// noted by it. It is right again for longer than history is kept.
func TestPruneGoesOnBehindTheFuture(t *testing.T) {
	s := mustOpen(t, Config{Path: newPath(t)})
	withAgent(t, s, "r1")
	now := time.Now()
	mustWrite(t, s, func(tx *Tx) error {
		for i := range 60 {
			at := now.Add(10 * 365 * 24 * time.Hour)
			if i >= 30 {
				at = now.Add(time.Duration(i-90) * time.Hour)
			}
			o := opOf(fmt.Sprintf("%03d", i), "r1", "n")
			o.Seq, o.Phase, o.AskedAt, o.EndedAt, o.Outcome = tx.NextSeq(now), api.PhaseEnded, at, &at, power.Succeeded
			if err := errors.Join(tx.AddOp(o), tx.AddAudit(api.AuditEntry{At: at, What: "x", Node: "n"})); err != nil {
				return err
			}
		}
		return tx.AddAudit(api.AuditEntry{At: now, What: "newest"})
	})
	for from, done := int64(0), false; !done; {
		mustWrite(t, s, func(tx *Tx) (err error) {
			from, done, err = tx.Prune(now.Add(-50*time.Hour-time.Minute), 7, from)
			return err
		})
	}
	mustView(t, s, func(tx *Tx) error {
		ops, _ := tx.FindOps(api.QueryOps{Limit: 1000})
		audit, err := tx.Audit(AuditFilter{}, 1000)
		if len(ops) != 30+20 || len(audit) != 20+1 { // the entries of the clock that was ahead have gone with those behind them
			t.Errorf("%d operations and %d entries are left", len(ops), len(audit))
		}
		return err
	})
}
