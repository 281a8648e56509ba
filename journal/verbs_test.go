package journal_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

const dir = "/j"

// config is a small journal on a disk in memory.
func config(fsys journal.FS) journal.Config {
	return journal.Config{Dir: dir, FS: fsys, SegmentSize: 16 << 10, MarkAfter: -1, Owner: "r1"}
}

func open(t testing.TB, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	journal.Restock(j)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func add(key, payload string) journal.Entry {
	return journal.Entry{Op: journal.Add, Kind: 7, Key: key, Payload: []byte(payload)}
}

func put(key, payload string) journal.Entry {
	return journal.Entry{Op: journal.Put, Kind: 8, Key: key, Payload: []byte(payload)}
}

func drop(key string) journal.Entry { return journal.Entry{Op: journal.Drop, Kind: 9, Key: key} }

func appendAll(t testing.TB, j *journal.Journal, entries ...journal.Entry) uint64 {
	t.Helper()
	lsn, err := j.Append(entries...)
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	journal.Restock(j)
	return lsn
}

func mustClose(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// texts writes records as "key=payload", in order.
func texts(recs []journal.Record) []string {
	out := []string{}
	for _, r := range recs {
		out = append(out, r.Key+"="+string(r.Payload))
	}
	return out
}

func wantLive(t testing.TB, j *journal.Journal, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if got := texts(j.Live()); !slices.Equal(got, want) {
		t.Fatalf("live: got %v, want %v", got, want)
	}
}

// model is the naive model: it keeps every record and works the live set out
// anew each time.
type model struct{ groups [][]journal.Entry }

func (m *model) live() []string {
	var recs []journal.Entry
	for _, g := range m.groups {
		for _, e := range g {
			if e.Op != journal.Add {
				recs = slices.DeleteFunc(recs, func(o journal.Entry) bool { return o.Key == e.Key })
			}
			if e.Op != journal.Drop {
				recs = append(recs, e)
			}
		}
	}
	out := []string{}
	for _, e := range recs {
		out = append(out, e.Key+"="+string(e.Payload))
	}
	return out
}

// with is the model after one group more.
func (m *model) with(g []journal.Entry) *model {
	return &model{groups: append(slices.Clone(m.groups), g)}
}

// sameRecords compares everything, LSN and time too.
func sameRecords(a, b []journal.Record) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d records: %v and %v", len(a), len(b), texts(a), texts(b))
	}
	for i := range a {
		if !sameRecord(a[i], b[i]) {
			return fmt.Errorf("record %d: %+v and %+v", i, a[i], b[i])
		}
	}
	return nil
}

func sameRecord(a, b journal.Record) bool {
	return a.LSN == b.LSN && a.Time.Equal(b.Time) && a.Op == b.Op && a.Kind == b.Kind && a.Key == b.Key &&
		string(a.Payload) == string(b.Payload)
}

// newest returns the path of the newest segment.
func newest(t testing.TB, fsys *faultfs.FS) string {
	t.Helper()
	names, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) != ".jnl" })
	if len(names) == 0 {
		t.Fatal("no segment")
	}
	return filepath.Join(dir, names[len(names)-1])
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func isPower(err error) bool { return errors.Is(err, faultfs.ErrPower) }
