package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"rackpower/central/seal"
	"rackpower/power"
)

// What is sealed, see seal.Ring.
const (
	sealedPassword = "password"
	sealedKG       = "kg"
)

// sealedColumns are where sealed values are. The purpose of each is the column's name, and
// the name that they are bound to is the row's.
var sealedColumns = []struct{ table, column string }{
	{"nodes", sealedPassword},
	{"nodes", sealedKG},
	{"credentials", sealedOwnPassword},
	{"credentials", sealedOwnKG},
	{"credentials", sealedNextPassword},
	{"credentials", sealedNextKG},
}

// sealStep is called after each chunk of a column, keyStep after each file of keys that was
// written; tests have them fail.
var sealStep, keyStep func(string) error

// sealChunk is how many values are sealed in one transaction.
const sealChunk = 500

func (t *Tx) seal(plain power.Secret, purpose, name string) string {
	return t.s.ring.Load().Seal(string(plain), purpose, name)
}

// open makes a value plain. One that does not open is returned, and the value is empty: it is
// of one row only, and the others must not suffer from it.
func (t *Tx) open(value *power.Secret, purpose, name string) (damaged string) {
	plain, err := t.s.ring.Load().Open(string(*value), purpose, name)
	if err != nil {
		damaged = string(*value)
		if _, said := t.s.damaged.LoadOrStore(purpose+" "+name, true); !said {
			t.s.log.Error("a sealed value does not open: set it anew", "of", name, "what", purpose, "err", err)
		}
	}
	*value = power.Secret(plain)
	return damaged
}

// readKeys reads the keys and checks that there is none missing. ring is nil where there
// is none and none is needed. file is empty for the database's own file, in dir.
func readKeys(ctx context.Context, e engine, c *sql.Conn, file, dir string) (ring *seal.Ring, used map[string]bool, err error) {
	path, own := file, file == ""
	if own {
		path = filepath.Join(dir, seal.FileName)
	}
	ring, err = seal.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && own:
		ring = nil
	case err != nil:
		return nil, nil, fmt.Errorf("cannot read the key that seals passwords: %w", err)
	}
	if used, err = keysUsed(ctx, e, c, ring); err != nil {
		return nil, nil, err
	}
	missing := missingKeys(ring, used)
	if own && ring != nil && len(missing) > 0 { // a backup of before the key was changed
		if old, err := seal.ReadFile(path + seal.OldSuffix); err == nil {
			ring = seal.NewRing(ring.Key(), slices.Concat(ring.Others(), old.Keys())...)
			missing = missingKeys(ring, used)
		}
	}
	if len(missing) > 0 {
		return nil, nil, fmt.Errorf("%w: they are sealed with key %s, which is not in %s: put the file of that key there (a line of it "+
			"that is added opens and does not seal), or name it with --seal-key-file or the systemd credential seal-key",
			ErrNoKey, strings.Join(missing, ", "), path)
	}
	return ring, used, nil
}

func missingKeys(ring *seal.Ring, used map[string]bool) (missing []string) {
	for _, id := range slices.Sorted(maps.Keys(used)) {
		if ring == nil || !ring.Has(id) {
			missing = append(missing, id)
		}
	}
	return missing
}

// keysUsed are the ids of the keys that values are sealed with. A value that names a key which
// the ring has not, and opens with one that it has, is damaged there and needs no other.
func keysUsed(ctx context.Context, e engine, c *sql.Conn, ring *seal.Ring) (map[string]bool, error) {
	used := map[string]bool{}
	for _, at := range sealedColumns {
		here, err := e.has(ctx, c, at.table, at.column)
		if err != nil {
			return nil, fmt.Errorf("cannot read sealed values: %w", disk(err))
		}
		if !here { // a backup of before
			continue
		}
		if err := keysUsedIn(ctx, c, ring, at.table, at.column, used); err != nil {
			return nil, fmt.Errorf("cannot read sealed values: %w", disk(err))
		}
	}
	return used, nil
}

func keysUsedIn(ctx context.Context, c *sql.Conn, ring *seal.Ring, table, column string, used map[string]bool) error {
	rows, err := c.QueryContext(ctx, `SELECT name, `+column+` FROM `+table+` WHERE `+column+` <> ''`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		id, sealed := seal.KeyOf(text)
		if !sealed || used[id] {
			continue
		}
		if ring != nil && !ring.Has(id) {
			if _, err := ring.Open(text, column, name); err == nil {
				continue
			}
		}
		used[id] = true
	}
	return rows.Err()
}

// openKeys reads the keys, or makes the first one, and seals with the ring's first key
// what is plain (a database of before) or sealed with another key.
func (s *Store) openKeys(ctx context.Context) error {
	ring, _, err := readKeys(ctx, s.engine, s.writer.c, s.cfg.KeyFile, filepath.Dir(s.cfg.Path))
	if err != nil {
		return err
	}
	if ring == nil {
		ring = seal.NewRing(seal.NewKey())
		path := s.keyPath()
		if err := s.writeKeys(ring, path); err != nil {
			return err
		}
		s.log.Info("a key that seals passwords was made: keep a copy of it, apart from backups of the database", "file", path, "key",
			ring.Key().ID())
	}
	s.ring.Store(ring)
	if err := s.sealAll(s.alone); err != nil {
		return fmt.Errorf("cannot seal passwords: %w", err)
	}
	return errors.Join(s.wipePlain(ctx), s.dropKeys(ctx))
}

// alone runs a transaction before the writer's goroutine does.
func (s *Store) alone(fn func(*Tx) error) error {
	if _, err := s.writer.begin(s.engine.begin()); err != nil {
		return err
	}
	err := fn(&Tx{c: s.writer, s: s})
	if err == nil {
		_, err = s.writer.exec("COMMIT")
	}
	if err != nil && !s.writer.idle() {
		_, _ = s.writer.exec("ROLLBACK")
	}
	return err
}

// sealAll seals with the ring's first key what is not, a chunk in each transaction: what
// ends it early is continued by the next.
func (s *Store) sealAll(write func(func(*Tx) error) error) error {
	for _, at := range sealedColumns {
		for after, more := "", true; more; {
			err := write(func(t *Tx) (err error) {
				after, more, err = t.sealSome(at.table, at.column, after)
				return err
			})
			if err == nil && sealStep != nil {
				err = sealStep(at.column)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// sealSome seals the next values after the row of a name.
func (t *Tx) sealSome(table, column, after string) (last string, more bool, err error) {
	type value struct{ name, text string }
	var values []value
	ring := t.s.ring.Load()
	err = t.each(func(r *sql.Rows) error {
		var v value
		err := r.Scan(&v.name, &v.text)
		values = append(values, v)
		return err
	}, `SELECT name, `+column+` FROM `+table+` WHERE name > $1 AND `+column+` <> '' AND
		(substr(`+column+`, 1, length($2)) <> $2 OR length(`+column+`) < $3) ORDER BY name LIMIT $4`,
		after, ring.Prefix(), seal.MinLength, sealChunk)
	if err != nil {
		return "", false, err
	}
	for _, v := range values {
		plain, next := power.Secret(v.text), ""
		if _, sealed := seal.KeyOf(v.text); sealed {
			if damaged := t.open(&plain, column, v.name); damaged != "" {
				next = seal.Relabel(damaged, ring) // it will never open, and must not keep its key in use
			}
		}
		next = cmp.Or(next, t.seal(plain, column, v.name))
		if _, err := t.exec(`UPDATE `+table+` SET `+column+` = $1 WHERE name = $2`, next, v.name); err != nil {
			return "", false, err
		}
		last = v.name
	}
	return last, len(values) == sealChunk, nil
}

// wipePlain rewrites the file once after values that were plain were sealed: pages that are
// free, and the log, still hold them. Where there is no room for that, the next start tries
// again.
func (s *Store) wipePlain(ctx context.Context) error {
	var plain bool
	if err := s.writer.c.QueryRowContext(ctx, "SELECT plain FROM meta").Scan(&plain); err != nil {
		return fmt.Errorf("cannot read meta data: %w", disk(err))
	}
	if !plain {
		return nil
	}
	err := s.engine.wipe(ctx, s.writer.c)
	if err == nil {
		_, err = s.writer.c.ExecContext(ctx, "UPDATE meta SET plain = 0")
	}
	if err != nil {
		s.log.Warn("passwords are sealed, but parts of the database that are not in use may still hold them in plain; the next start tries again",
			"path", s.engine.name(), "err", err)
	}
	return nil
}

// ErrKeyElsewhere means that the keys are not the database's own to change.
var ErrKeyElsewhere = errors.New("the keys that seal passwords are kept elsewhere")

// KeyChange is what RotateKey did.
type KeyChange struct {
	From, To string // ids of the keys
	Kept     string // file that has the key of before, for backups of before
}

// RotateKey makes a new key and seals all with it, while others read and write. The file
// has the new key before anything is sealed with it, and the old one until nothing is: what
// ends it early, the next start or rotation completes.
func (s *Store) RotateKey(ctx context.Context) (KeyChange, error) {
	if s.cfg.KeyFile != "" {
		return KeyChange{}, fmt.Errorf("%w: put the new key into %s, on a line before the others, and restart central", ErrKeyElsewhere,
			s.cfg.KeyFile)
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	before := s.ring.Load()
	after := before.With(seal.NewKey())
	change := KeyChange{From: before.Key().ID(), To: after.Key().ID(), Kept: s.keyPath() + seal.OldSuffix}
	if err := s.writeKeys(after, s.keyPath()); err != nil {
		return KeyChange{}, err
	}
	write := func(fn func(*Tx) error) error { return s.Write(ctx, fn) }
	// By the writer: no transaction is sealed with the key of before after this one.
	if err := write(func(*Tx) error { s.ring.Store(after); return nil }); err != nil {
		return KeyChange{}, err
	}
	if err := s.sealAll(write); err != nil {
		return KeyChange{}, fmt.Errorf("cannot seal passwords: %w", err)
	}
	return change, s.dropKeys(ctx)
}

// dropKeys takes the keys that seal nothing any more out of the database's own file. They
// go to a file beside it, for backups that need them. In memory they stay: a view may have
// begun before.
func (s *Store) dropKeys(ctx context.Context) error {
	ring := s.ring.Load()
	if s.cfg.KeyFile != "" || len(ring.Others()) == 0 {
		return nil
	}
	c, err := s.engine.read(ctx)
	if err != nil {
		return fmt.Errorf("cannot drop keys: %w", err)
	}
	used, err := keysUsed(ctx, s.engine, c, ring)
	err = errors.Join(err, c.Close())
	if err == nil && (len(used) > 1 || len(used) == 1 && !used[ring.Key().ID()]) {
		err = errors.New("keys of before are in use yet")
	}
	if err != nil {
		return fmt.Errorf("cannot drop keys: %w", err)
	}
	_ = s.engine.flush(ctx) // what is not written over yet needs the keys of before
	kept := s.keyPath() + seal.OldSuffix
	all := ring.Others()
	old, err := seal.ReadFile(kept)
	switch {
	case err == nil:
		all = append(all, old.Keys()...)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot keep keys of before: %w", err)
	}
	return errors.Join(s.writeKeys(seal.NewRing(all[0], all[1:]...), kept), s.writeKeys(seal.NewRing(ring.Key()), s.keyPath()))
}

// keyPath is the database's own file of keys.
func (s *Store) keyPath() string { return filepath.Join(filepath.Dir(s.cfg.Path), seal.FileName) }

func (s *Store) writeKeys(ring *seal.Ring, path string) error {
	if err := ring.WriteFile(path); err != nil {
		return err
	}
	if err := ownAs(filepath.Dir(path), path); err != nil {
		return err
	}
	if keyStep != nil {
		return keyStep(path)
	}
	return nil
}
