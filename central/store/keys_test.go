package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/central/seal"
	"rackpower/power"
)

const (
	plainPassword = "pw-Qd7xkZ2m"
	plainKG       = "kg-W3hu8TpL"
)

// holdsPlain names the files beneath a directory that have a password in plain.
func holdsPlain(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(plainPassword)) || bytes.Contains(raw, []byte(plainKG)) {
			files = append(files, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func nodeName(i int) string { return fmt.Sprintf("n%04d", i) }

// withPasswords adds an agent and its nodes.
func withPasswords(t *testing.T, s *Store, nodes int) {
	t.Helper()
	mustWrite(t, s, func(tx *Tx) error {
		err := tx.EnsureAgent("r1")
		for i := range nodes {
			n := Node{Name: nodeName(i), Rack: "r1", Agent: "r1", BMC: "ipmi://u@192.0.2.2", Password: plainPassword}
			n.KG = plainKG
			err = errors.Join(err, tx.PutNode(n))
		}
		return err
	})
}

func mustHavePasswords(t *testing.T, s *Store, nodes int) {
	t.Helper()
	mustView(t, s, func(tx *Tx) error {
		all, err := tx.Nodes()
		if len(all) != nodes {
			t.Errorf("%d nodes, not %d", len(all), nodes)
		}
		for _, n := range all {
			if n.Password != plainPassword || n.KG != plainKG {
				t.Errorf("node %s has %q, %q", n.Name, string(n.Password), string(n.KG))
			}
		}
		return err
	})
}

func TestPasswordsAreNowhereInPlain(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withPasswords(t, s, 3)
	if _, err := Backup(t.Context(), path, path+".backup"); err != nil {
		t.Fatal(err)
	}
	if files := holdsPlain(t, filepath.Dir(path)); len(files) != 0 {
		t.Errorf("in plain: %v", files)
	}
	mustHavePasswords(t, s, 3)
	s.Close()
	mustHavePasswords(t, mustOpen(t, Config{Path: path}), 3)
}

// oldDatabase is one of schema 15 with passwords in plain, some of them in pages that are
// free by now.
func oldDatabase(t *testing.T, nodes int) (path string) {
	t.Helper()
	path = newPath(t)
	err := withConn(t.Context(), path, false, func(c *sql.Conn) error {
		if err := steps(t.Context(), c, 0, 15); err != nil {
			return err
		}
		_, err := c.ExecContext(t.Context(), `PRAGMA secure_delete = OFF; INSERT INTO agents (name) VALUES ('r1')`)
		for i := range 2 * nodes {
			if err != nil {
				return err
			}
			_, err = c.ExecContext(t.Context(), `INSERT INTO nodes (name, rack, agent, bmc, password, domain, status, confirmed, rev, kg)
				VALUES ($1, 'r1', 'r1', 'ipmi://u@192.0.2.2', $2, '', '', 0, 1, $3)`, nodeName(i), plainPassword, plainKG)
		}
		if err == nil {
			_, err = c.ExecContext(t.Context(), `DELETE FROM nodes WHERE name >= $1`, nodeName(nodes))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPasswordsOfBeforeAreSealedAtTheFirstStart(t *testing.T) {
	onFiles(t)
	nodes := sealChunk + 7
	path := oldDatabase(t, nodes)
	if len(holdsPlain(t, filepath.Dir(path))) == 0 {
		t.Fatal("there is nothing to seal")
	}
	s := mustOpen(t, Config{Path: path})
	if files := holdsPlain(t, filepath.Dir(path)); len(files) != 0 {
		t.Errorf("in plain: %v", files)
	}
	mustHavePasswords(t, s, nodes)
}

// A start that ends between two chunks is continued by the next.
func TestASealingThatEndsEarlyIsContinued(t *testing.T) {
	onFiles(t)
	nodes := sealChunk + 7
	path := oldDatabase(t, nodes)
	killed := errors.New("killed")
	sealStep = func(column string) error {
		if column == sealedPassword {
			return killed
		}
		return nil
	}
	defer func() { sealStep = nil }()
	if _, err := Open(Config{Path: path, Log: quiet()}); !errors.Is(err, killed) {
		t.Fatalf("%v", err)
	}
	sealStep = nil
	mustHavePasswords(t, mustOpen(t, Config{Path: path}), nodes)
	if files := holdsPlain(t, filepath.Dir(path)); len(files) != 0 {
		t.Errorf("in plain: %v", files)
	}
}

func TestWithoutItsKeyADatabaseIsNotOpened(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withPasswords(t, s, 1)
	id := s.ring.Load().Key().ID()
	s.Close()
	backup := path + ".backup"
	if _, err := Backup(t.Context(), path, backup); err != nil {
		t.Fatal(err)
	}
	key, kept := filepath.Join(filepath.Dir(path), seal.FileName), filepath.Join(t.TempDir(), "kept")
	if err := os.Rename(key, kept); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := seal.NewRing(seal.NewKey()).WriteFile(other); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	restored := newPath(t)
	for _, keyFile := range []string{"", other} {
		_, err := Open(Config{Path: path, KeyFile: keyFile, Log: quiet()})
		if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), id) {
			t.Errorf("open with %q: %v", keyFile, err)
		}
		_, _, err = Restore(context.Background(), backup, restored, keyFile)
		if _, there := os.Stat(restored); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), id) || there == nil {
			t.Errorf("restore with %q: %v", keyFile, err)
		}
	}
	if _, err := os.Stat(key); err == nil {
		t.Error("a new key was made")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database was changed, %v", err)
	}
	if _, _, err := Restore(context.Background(), backup, restored, kept); err != nil {
		t.Error(err)
	}
	mustHavePasswords(t, mustOpen(t, Config{Path: restored, KeyFile: kept}), 1)
	if err := os.Rename(kept, key); err != nil {
		t.Fatal(err)
	}
	mustHavePasswords(t, mustOpen(t, Config{Path: path}), 1)
}

// The first key of a file from outside seals, from the start on that finds it.
func TestAKeyFromOutsideIsChangedByAStart(t *testing.T) {
	path, file := newPath(t), filepath.Join(t.TempDir(), "key")
	first, second := seal.NewKey(), seal.NewKey()
	ring := seal.NewRing(first)
	if err := ring.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Path: path, KeyFile: file})
	withPasswords(t, s, sealChunk+1)
	s.Close()
	if err := ring.With(second).WriteFile(file); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Config{Path: path, KeyFile: file}).Close()
	if err := seal.NewRing(second).WriteFile(file); err != nil {
		t.Fatal(err)
	}
	mustHavePasswords(t, mustOpen(t, Config{Path: path, KeyFile: file}), sealChunk+1)
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), seal.FileName)); err == nil {
		t.Error("a key was made beside the one from outside")
	}
}

// TestAKeyIDThatIsDamaged costs nothing: the value opens with a key that is there, and the next
// start seals it anew. One that opens with none needs a key that is missing.
func TestAKeyIDThatIsDamaged(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withPasswords(t, s, 3)
	damage := func(from int) {
		t.Helper()
		mustWrite(t, s, func(tx *Tx) error {
			_, err := tx.exec(`UPDATE nodes SET password = substr(password, 1, $1 - 1) || '?' || substr(password, $1 + 1) WHERE name = $2`, from,
				nodeName(1))
			return err
		})
	}
	id := strings.Index(s.ring.Load().Prefix(), s.ring.Load().Key().ID()) + 1
	damage(id)
	mustHavePasswords(t, s, 3)
	s.Close()
	s = mustOpen(t, Config{Path: path})
	mustHavePasswords(t, s, 3)
	damage(id + 1)
	if _, err := s.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustHavePasswords(t, s, 3)
	damage(id)
	damage(len(s.ring.Load().Prefix()) + 20)
	s.Close()
	if _, err := Open(Config{Path: path}); !errors.Is(err, ErrNoKey) {
		t.Errorf("what opens with no key that is there: %v", err)
	}
}

// TestAPasswordOfAnotherNodeDoesNotOpen, and costs no other node anything: not when nodes are
// listed or written, when the key is changed, or at a start.
func TestAPasswordOfAnotherNodeDoesNotOpen(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	withPasswords(t, s, 2)
	mustWrite(t, s, func(tx *Tx) error {
		_, err := tx.exec(`UPDATE nodes SET password = (SELECT password FROM nodes WHERE name = $1) WHERE name = $2`, nodeName(1), nodeName(0))
		return err
	})
	check := func(what string) {
		t.Helper()
		mustView(t, s, func(tx *Tx) error {
			all, err := tx.Nodes()
			if err != nil || len(all) != 2 {
				t.Fatalf("%s: %d nodes, %v", what, len(all), err)
			}
			if n := all[0]; n.Damaged() != "password" || n.Password != "" || n.KG != plainKG {
				t.Errorf("%s: %q, %q, %q", what, n.Damaged(), string(n.Password), string(n.KG))
			}
			if n := all[1]; n.Damaged() != "" || n.Password != plainPassword {
				t.Errorf("%s: %q, %q", what, n.Damaged(), string(n.Password))
			}
			return nil
		})
	}
	check("listed")
	mustWrite(t, s, func(tx *Tx) error {
		n, _, err := tx.Node(nodeName(0))
		n.Status = power.StatusReady
		return errors.Join(err, tx.PutNode(n))
	})
	check("written")
	if _, err := s.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after a change of the key")
	s.Close()
	s = mustOpen(t, Config{Path: path})
	check("after a start")
	mustWrite(t, s, func(tx *Tx) error {
		n, _, err := tx.Node(nodeName(0))
		n.Password, n.DamagedPassword = plainPassword, ""
		return errors.Join(err, tx.PutNode(n))
	})
	mustHavePasswords(t, s, 2)
}

func TestTheKeyIsChangedUnderWay(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	nodes := sealChunk + 7
	withPasswords(t, s, nodes)
	backup := path + ".backup"
	if _, err := Backup(t.Context(), path, backup); err != nil {
		t.Fatal(err)
	}
	viewed, done := make(chan struct{}), make(chan error, 1)
	mustView(t, s, func(tx *Tx) error { // begins before and reads after
		if _, err := tx.CountNodes(); err != nil {
			return err
		}
		go func() {
			_, err := s.RotateKey(context.Background())
			close(viewed)
			done <- err
		}()
		<-viewed
		n, _, err := tx.Node(nodeName(0))
		if n.Password != plainPassword {
			t.Errorf("%q", string(n.Password))
		}
		return err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	change, err := s.RotateKey(t.Context())
	if err != nil || change.From == change.To || change.To != s.ring.Load().Key().ID() {
		t.Errorf("%+v, %v", change, err)
	}
	ring, err := seal.ReadFile(s.keyPath())
	if err != nil || len(ring.Others()) != 0 || ring.Key().ID() != change.To {
		t.Errorf("%v", err)
	}
	old, err := seal.ReadFile(change.Kept)
	if err != nil || len(old.Others()) != 1 || !old.Has(change.From) {
		t.Errorf("%v", err)
	}
	mustHavePasswords(t, s, nodes)
	s.Close()
	s = mustOpen(t, Config{Path: path})
	mustHavePasswords(t, s, nodes)
	s.Close()
	if _, _, err := Restore(context.Background(), backup, path, ""); err != nil {
		t.Errorf("the backup of before: %v", err)
	}
	mustHavePasswords(t, mustOpen(t, Config{Path: path}), nodes)
	restored := newPath(t)
	if _, _, err := Restore(context.Background(), backup, restored, change.Kept); err != nil {
		t.Errorf("the backup of before: %v", err)
	}
	if _, err := mustOpen(t, Config{Path: restored, KeyFile: change.Kept}).RotateKey(t.Context()); !errors.Is(err, ErrKeyElsewhere) {
		t.Errorf("%v", err)
	}
}

// What a kill leaves at each step of a rotation opens, has all, and ends with one key.
func TestARotationThatEndsAtAnyStepIsCompletedByTheNextStart(t *testing.T) {
	onFiles(t)
	path := newPath(t)
	s := mustOpen(t, Config{Path: path})
	nodes := sealChunk + 7
	withPasswords(t, s, nodes)
	shared := Credentials{Name: nodeName(0), User: "admin", Password: "shared password", KG: "shared key"}
	mustWrite(t, s, func(tx *Tx) error { return tx.PutCredentials(shared) })
	var left []string
	keep := func(string) error {
		dir := t.TempDir()
		left = append(left, dir)
		return os.CopyFS(dir, os.DirFS(filepath.Dir(path)))
	}
	sealStep, keyStep = keep, keep
	defer func() { sealStep, keyStep = nil, nil }()
	if _, err := s.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealStep, keyStep = nil, nil
	if len(left) != 11 { // 3 files of keys, 2 chunks of each column of nodes, and one of each of credentials
		t.Errorf("%d steps", len(left))
	}
	for i, dir := range left {
		again := mustOpen(t, Config{Path: filepath.Join(dir, FileName)})
		mustHavePasswords(t, again, nodes)
		mustView(t, again, func(tx *Tx) error {
			if got, found, err := tx.Credentials(shared.Name); err != nil || !found || got != shared {
				t.Errorf("step %d: %v, %v", i, found, err)
			}
			return nil
		})
		if ring, err := seal.ReadFile(again.keyPath()); err != nil || len(ring.Others()) != 0 || ring.Key() != s.ring.Load().Key() {
			t.Errorf("step %d: %v, %v", i, ring, err)
		}
		again.Close()
	}
}
