package journal

import (
	"fmt"
	"math/rand"
	"testing"
)

// count and bytes decide where a batch goes and what a snapshot announces.
func TestLiveSetCountsWhatItHolds(t *testing.T) {
	l, rng := newLiveSet(), rand.New(rand.NewSource(1))
	for lsn := uint64(1); lsn < 2000; lsn++ {
		l.apply(Record{LSN: lsn, Entry: Entry{
			Op: Op(1 + rng.Intn(3)), Key: fmt.Sprint("k", rng.Intn(4)), Payload: make([]byte, rng.Intn(50)),
		}})
		var bytes int64
		all := l.sorted()
		for i, r := range all {
			bytes += recordSize(r)
			if i > 0 && all[i-1].LSN >= r.LSN {
				t.Fatalf("LSN %d before %d", all[i-1].LSN, r.LSN)
			}
		}
		if l.count != len(all) || l.bytes != bytes {
			t.Fatalf("count %d bytes %d, holds %d and %d", l.count, l.bytes, len(all), bytes)
		}
	}
}

// A snapshot laid over what an older segment left fills its gaps, in order.
func TestSnapshotOverOlderBase(t *testing.T) {
	l := newLiveSet()
	snap := func(lsn uint64, op Op) {
		l.applySnapshot(frame{lsn: lsn, op: op, typ: frameSnapshot}, []byte("k"), nil)
	}
	l.apply(Record{LSN: 1, Entry: Entry{Op: Add, Key: "k"}})
	l.apply(Record{LSN: 4, Entry: Entry{Op: Add, Key: "k"}})
	for _, lsn := range []uint64{1, 2, 4, 5} {
		snap(lsn, Add)
	}
	var got []uint64
	for _, r := range l.sorted() {
		got = append(got, r.LSN)
	}
	if fmt.Sprint(got) != "[1 2 4 5]" || l.count != 4 {
		t.Fatalf("%v, count %d", got, l.count)
	}
	snap(3, Put) // ends 1 and 2
	if got := len(l.sorted()); got != 3 || l.count != 3 {
		t.Fatalf("%d live, count %d", got, l.count)
	}
}
