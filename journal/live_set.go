package journal

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// liveSet is what the records so far have left alive.
//
// Invariant: within a key the records are in LSN order; bytes is the sum of
// their frames.
type liveSet struct {
	keys  map[string]*keyRecords
	count int
	bytes int64
}

type keyRecords struct {
	key  string
	recs []Record
}

func newLiveSet() *liveSet { return &liveSet{keys: map[string]*keyRecords{}} }

// apply takes a record that is newer than all before.
func (l *liveSet) apply(r Record) {
	switch r.Op {
	case Drop:
		l.clear(l.keys[r.Key])
		delete(l.keys, r.Key)
	case Put, Add:
		l.insert(l.key(r.Key), r)
	}
}

// applyFrame is apply for a frame whose key and payload are only borrowed.
func (l *liveSet) applyFrame(f frame, key, payload []byte) {
	k := l.keys[string(key)]
	if f.op == Drop {
		l.clear(k)
		delete(l.keys, string(key))
		return
	}
	if k == nil {
		k = l.key(string(key))
	}
	l.insert(k, Record{
		LSN: f.lsn, Time: time.Unix(0, f.time),
		Entry: Entry{Op: f.op, Kind: f.kind, Key: k.key, Payload: bytes.Clone(payload)},
	})
}

// applySnapshot takes a record of a snapshot. On top of another base, which
// happens only when the snapshot is damaged, it fills in what the base lacks.
func (l *liveSet) applySnapshot(f frame, key, payload []byte) {
	k := l.keys[string(key)]
	if k == nil || len(k.recs) == 0 || k.recs[len(k.recs)-1].LSN < f.lsn {
		l.applyFrame(f, key, payload)
		return
	}
	at, found := slices.BinarySearchFunc(k.recs, f.lsn, func(r Record, lsn uint64) int { return cmp.Compare(r.LSN, lsn) })
	if found {
		return
	}
	newer := slices.Clone(k.recs[at:])
	l.clear(&keyRecords{recs: newer})
	k.recs = k.recs[:at]
	l.applyFrame(f, key, payload)
	for _, r := range newer {
		l.insert(k, r)
	}
}

func (l *liveSet) insert(k *keyRecords, r Record) {
	if r.Op == Put {
		l.clear(k)
	}
	k.recs = append(k.recs, r)
	l.count++
	l.bytes += recordSize(r)
}

func (l *liveSet) key(name string) *keyRecords {
	k := l.keys[name]
	if k == nil {
		k = &keyRecords{key: name}
		l.keys[name] = k
	}
	return k
}

func (l *liveSet) clear(k *keyRecords) {
	if k == nil {
		return
	}
	for _, r := range k.recs {
		l.bytes -= recordSize(r)
	}
	l.count -= len(k.recs)
	k.recs = k.recs[:0]
}

// sorted returns the live records in LSN order.
func (l *liveSet) sorted() []Record {
	all := make([]Record, 0, l.count)
	for _, k := range l.keys {
		all = append(all, k.recs...)
	}
	slices.SortFunc(all, func(a, b Record) int { return cmp.Compare(a.LSN, b.LSN) })
	return all
}

func recordSize(r Record) int64 { return int64(frameSize(len(r.Key), len(r.Payload))) }
