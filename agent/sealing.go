package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/internal/backoff"
	"rackpower/internal/lock"
	"rackpower/journal"
)

// sealKeys are the keys that seal passwords in the assignment's log. The first ones are made
// here, and may not be in their file yet, on a full disk: nothing is sealed with them until
// they are, or it would not open after a crash.
type sealKeys struct {
	ring *seal.Ring
	fs   journal.FS
	path string

	mu      lock.Mutex[lock.Sealing]
	written bool
}

// openKeys reads the keys from their file. Where there is none yet, it makes the first ones,
// which save writes.
func openKeys(cfg Config, disk journal.FS) (*sealKeys, error) {
	if cfg.ring != nil {
		return &sealKeys{ring: cfg.ring, written: true}, nil
	}
	k := &sealKeys{fs: disk, path: cfg.SealKeyFile, written: true}
	if k.path == "" {
		k.path = filepath.Join(cfg.Dir, seal.FileName)
	}
	text, err := readAll(k)
	if err == nil {
		k.ring, err = seal.Parse(text)
	}
	if errors.Is(err, fs.ErrNotExist) && cfg.SealKeyFile == "" {
		k.ring, k.written, err = seal.NewRing(seal.NewKey()), false, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the keys that seal passwords, %s: %w", k.path, err)
	}
	return k, nil
}

func readAll(k *sealKeys) ([]byte, error) {
	f, err := k.fs.Open(k.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	text := make([]byte, size)
	if n, err := f.ReadAt(text, 0); n < len(text) {
		return nil, err
	}
	return text, nil
}

// save has the keys in their file when it returns nil.
func (k *sealKeys) save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.written {
		return nil
	}
	if err := k.write(); err != nil {
		return fmt.Errorf("cannot write the key that seals passwords, %s: %w", k.path, err)
	}
	k.written = true
	return nil
}

func (k *sealKeys) write() error {
	text, temp := k.ring.Text(), k.path+".new"
	_ = k.fs.Remove(temp) // of a process that ended meanwhile
	f, err := k.fs.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = k.fs.Rename(temp, k.path)
	}
	if err != nil {
		_ = k.fs.Remove(temp) // what fits of it takes room
		return err
	}
	return k.fs.SyncDir(filepath.Dir(k.path))
}

// The purposes of what is sealed.
const (
	sealedPassword = "password"
	sealedKG       = "kg"
	sealedOther    = "other-password"
	sealedOtherKG  = "other-kg"
)

// secret is one of a node, and the purpose that it is sealed for.
type secret struct {
	value   *string
	purpose string
}

func sealedOf(n *api.AssignedNode) []secret {
	return []secret{
		{&n.Password, sealedPassword}, {&n.KG, sealedKG}, {&n.OtherPassword, sealedOther}, {&n.OtherKG, sealedOtherKG},
	}
}

// sealedNode is the record of a node. Its passwords may be sealed once the keys are saved.
func (k *sealKeys) sealedNode(n api.AssignedNode) (journal.Entry, error) {
	for _, v := range sealedOf(&n) {
		if *v.value == "" {
			continue
		}
		if err := k.save(); err != nil {
			return journal.Entry{}, err
		}
		*v.value = k.ring.Seal(*v.value, v.purpose, n.Name)
	}
	kind := kindNode
	if n.Epoch > 0 {
		kind = kindLeased
	}
	return entry(journal.Put, kind, nodePrefix+n.Name, n), nil
}

// openNode makes plain what is sealed. A log of before has it plain.
func openNode(ring *seal.Ring, n *api.AssignedNode) error {
	for _, v := range sealedOf(n) {
		if _, sealed := seal.KeyOf(*v.value); !sealed {
			continue
		}
		plain, err := ring.Open(*v.value, v.purpose, n.Name)
		if err != nil {
			return fmt.Errorf("cannot open the %s of node %s: %w", v.purpose, n.Name, err)
		}
		*v.value = plain
	}
	return nil
}

// resealed are new records of the nodes whose passwords are not sealed with the first key;
// plain reports that some were not sealed at all.
func (k *sealKeys) resealed(live []journal.Record) (entries []journal.Entry, plain bool, err error) {
	for _, r := range live {
		var n api.AssignedNode
		if r.Kind != kindNode && r.Kind != kindLeased || json.Unmarshal(r.Payload, &n) != nil { // loadAssigned says so
			continue
		}
		current := true
		for _, v := range sealedOf(&n) {
			text := *v.value
			_, sealed := seal.KeyOf(text)
			plain = plain || text != "" && !sealed
			current = current && (text == "" || sealed && strings.HasPrefix(text, k.ring.Prefix()))
		}
		if current || openNode(k.ring, &n) != nil {
			continue
		}
		e, err := k.sealedNode(n)
		if err != nil {
			return nil, plain, err
		}
		entries = append(entries, e)
	}
	return entries, plain, nil
}

// sealLog seals what is not sealed with the first key in the assignment's log, and has
// nothing left of what was plain. What ends it early, an error or the end of the process, is
// made good by the next call: the alarm is in the log until the segments of before are gone.
func (a *Agent) sealLog() error {
	s := a.assigned
	s.mu.Lock()
	defer s.mu.Unlock()
	live := a.assignLg.Live()
	entries, plain, err := s.keys.resealed(live)
	alarm := alarmAt(api.Alarm{Kind: api.AlarmNotSealed, Message: "segments of before may hold passwords in plain"}, time.Now())
	mark := alarmEntry(alarm)
	begun := slices.ContainsFunc(live, func(r journal.Record) bool { return r.Key == mark.Key })
	if err == nil && len(entries) > 0 {
		var rest []journal.Entry
		if plain && !begun {
			rest = append(rest, mark)
		}
		err = s.appendNodes(entries, rest)
	}
	if err == nil && (plain || begun) {
		if err = a.assignLg.Renew(); err == nil {
			_, err = a.assignLg.Append(entry(journal.Drop, kindAlarm, mark.Key, nil))
		}
	}
	if err != nil {
		return fmt.Errorf("passwords in %s are not sealed yet: %w", filepath.Join(a.cfg.Dir, assignedDir), err)
	}
	return nil
}

// trySeal seals what is not, or raises an alarm. All but new passwords goes on without.
func (a *Agent) trySeal() bool {
	err := a.sealLog()
	if err == nil {
		err = a.assigned.keys.save()
	}
	if err == nil {
		a.alarms.clear(api.AlarmNotSealed)
		return true
	}
	a.alarms.raise(api.Alarm{
		Kind: api.AlarmNotSealed, Message: fmt.Sprintf("%v; new passwords are not taken from central until they can be sealed", err),
		Remedy: "make room in " + a.cfg.Dir,
	})
	return false
}

// sealEvery is how often it is tried again.
const sealEvery = 10 * time.Second

// keepSealing tries again until all is sealed.
func (a *Agent) keepSealing(ctx context.Context) {
	for a.alarms.active(api.AlarmNotSealed) {
		if backoff.Sleep(ctx, sealEvery) != nil || a.trySeal() {
			return
		}
	}
}
