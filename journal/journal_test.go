package journal_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

func TestLiveSet(t *testing.T) {
	j := open(t, config(faultfs.New()))
	appendAll(t, j, add("a", "1"))
	appendAll(t, j, add("b", "1"))
	appendAll(t, j, add("a", "2"))
	wantLive(t, j, "a=1", "b=1", "a=2")
	appendAll(t, j, put("a", "3"))
	wantLive(t, j, "b=1", "a=3")
	appendAll(t, j, add("a", "4"), drop("b"))
	wantLive(t, j, "a=3", "a=4")
	if got := appendAll(t, j, drop("a")); got != 7 || j.LSN() != 7 {
		t.Fatalf("LSN %d, LSN() %d, want 7", got, j.LSN())
	}
	wantLive(t, j)
}

func TestReopenKeepsRecordsAsTheyWere(t *testing.T) {
	disk := faultfs.New()
	cfg := config(disk)
	at := time.Date(2014, 5, 6, 7, 8, 9, 10, time.UTC)
	cfg.Now = func() time.Time { at = at.Add(time.Second); return at }
	j := open(t, cfg)
	appendAll(t, j, add("n1", "accepted"), add("n1", "started"))
	appendAll(t, j, put("n2", ""))
	appendAll(t, j, add("gone", "x"))
	appendAll(t, j, drop("gone"))
	want, id := j.Live(), j.ID()
	for epoch := uint64(1); epoch < 6; epoch++ {
		if j.Epoch() != epoch || j.ID() != id || j.LSN() != 5 {
			t.Fatalf("epoch %d id %s lsn %d, want %d %s 5", j.Epoch(), j.ID(), j.LSN(), epoch, id)
		}
		mustClose(t, j)
		j = open(t, cfg)
		if rec := j.Recovery(); !rec.Clean || rec.New || rec.Damaged() || rec.TornBytes != 0 || rec.Live != 3 {
			t.Fatalf("recovery %+v, want clean with 3 live", rec)
		}
		if err := sameRecords(j.Live(), want); err != nil {
			t.Fatal(err)
		}
	}
	if got := appendAll(t, j, drop("n1")); got != 6 {
		t.Fatalf("LSN after five openings is %d, want 6", got)
	}
}

func TestWhatAppendRefuses(t *testing.T) {
	j := open(t, config(faultfs.New()))
	for _, e := range []journal.Entry{{Op: journal.Add}, {Op: 9, Key: "k"}, {Key: "k"}} {
		if _, err := j.Append(add("good", ""), e); err == nil {
			t.Errorf("%+v was taken", e)
		}
	}
	if _, err := j.Append(); err == nil {
		t.Error("no entries were taken")
	}
	_, err := j.Append(add(strings.Repeat("k", journal.MaxKey+1), ""))
	wantErr(t, err, journal.ErrTooLarge)
	_, err = j.Append(add("k", string(make([]byte, journal.MaxPayload+1))))
	wantErr(t, err, journal.ErrTooLarge)
	wantLive(t, j)
	mustClose(t, j)
	mustClose(t, j)
	_, err = j.Append(add("k", ""))
	wantErr(t, err, journal.ErrClosed)
	wantErr(t, j.Err(), journal.ErrClosed)
}

func TestPayloadsAreCopied(t *testing.T) {
	j := open(t, config(faultfs.New()))
	e := add("k", "good")
	appendAll(t, j, e)
	copy(e.Payload, "evil")
	copy(j.Live()[0].Payload, "evil")
	wantLive(t, j, "k=good")
}

func TestOwner(t *testing.T) {
	disk := faultfs.New()
	mustClose(t, open(t, config(disk)))
	cfg := config(disk)
	cfg.Owner = "r2"
	_, err := journal.Open(cfg)
	wantErr(t, err, journal.ErrOwner)
	if !strings.Contains(err.Error(), `"r1"`) || !strings.Contains(err.Error(), `"r2"`) {
		t.Errorf("error names not both: %v", err)
	}
	cfg.Owner = ""
	j := open(t, cfg)
	if j.Owner() != "r1" || j.Epoch() != 2 {
		t.Errorf("owner %q epoch %d, want r1 2: the refused opening must not count", j.Owner(), j.Epoch())
	}
}

func TestNewerFormatIsRefusedUntouched(t *testing.T) {
	disk := faultfs.New()
	mustClose(t, open(t, config(disk)))
	name := newest(t, disk)
	data, _ := disk.Data(name)
	disk.SetData(name, journal.WithVersion(data, 2))
	calls := disk.Calls()
	_, err := journal.Open(config(disk))
	wantErr(t, err, journal.ErrVersion)
	if !strings.Contains(err.Error(), "version 2, this program knows 1") {
		t.Errorf("unclear: %v", err)
	}
	if disk.Calls() != calls {
		t.Errorf("the directory was changed: %v", disk.Log()[calls:])
	}
	_, err = journal.Verify(dir, disk)
	wantErr(t, err, journal.ErrVersion)
}

// Segments of 16 KiB, so that the records rotate hundreds of times.
func TestRotationUnderLoad(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	const writers, each = 8, 150
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := j.Append(put(fmt.Sprint("w", w), strings.Repeat("x", 400)+fmt.Sprint(i)), add(fmt.Sprint("all", w), "")); err != nil {
					t.Error(err)
				}
				if i%10 == 9 {
					if _, err := j.Append(drop(fmt.Sprint("all", w))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if j.LSN() != writers*(each*2+each/10) {
		t.Errorf("LSN %d", j.LSN())
	}
	want := j.Live()
	if len(want) != writers {
		t.Fatalf("%d live, want %d", len(want), writers)
	}
	journal.Restock(j)
	if n := len(segments(t, disk)); n > 1+journal.DefaultKeepSegments {
		t.Errorf("%d segments left", n)
	}
	mustClose(t, j)
	j = open(t, config(disk))
	if err := sameRecords(j.Live(), want); err != nil {
		t.Fatal(err)
	}
	rep, err := journal.Verify(dir, disk)
	if err != nil || len(rep.Damage()) > 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
}

// A live set above the segment size must not rotate at every append.
func TestLargeLiveSetRotatesRarely(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	for i := range 200 {
		appendAll(t, j, put(fmt.Sprint(i), strings.Repeat("x", 500)))
	}
	before := len(renames(disk))
	for i := range 200 {
		appendAll(t, j, put(fmt.Sprint(i), strings.Repeat("y", 500)))
	}
	if n := len(renames(disk)) - before; n > 3 {
		t.Errorf("%d rotations for twice the live set, want at most 3", n)
	}
}

func TestGroupLargerThanSegment(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	appendAll(t, j, add("small", "1"))
	var group []journal.Entry
	for i := range 100 {
		group = append(group, add("big", fmt.Sprint(strings.Repeat("x", 1000), i)))
	}
	appendAll(t, j, group...)
	want := j.Live()
	next := disk.Restart()
	if err := sameRecords(open(t, config(next)).Live(), want); err != nil {
		t.Fatal(err)
	}
}

func TestMarkIsWrittenASecondAfterTheLastRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := faultfs.New()
		cfg := config(disk)
		cfg.MarkAfter = 0
		j := open(t, cfg)
		synctest.Wait()
		began := disk.Calls()
		for range 4 {
			appendAll(t, j, add("k", "v"))
			time.Sleep(400 * time.Millisecond)
		}
		if n := disk.Calls() - began; n != 8 {
			t.Errorf("%d calls for 4 appends, want 8: no mark yet", n)
		}
		time.Sleep(700 * time.Millisecond)
		synctest.Wait()
		if n := disk.Calls() - began; n != 10 {
			t.Errorf("%d calls with the mark, want 10", n)
		}
		time.Sleep(time.Hour)
		if n := disk.Calls() - began; n != 10 {
			t.Errorf("%d calls after an idle hour, want 10", n)
		}
		mustClose(t, j)
	})
}

func TestScanSeesHistoryAndSnapshots(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	appendAll(t, j, add("a", "1"))
	appendAll(t, j, add("b", "1"))
	appendAll(t, j, drop("b"))
	mustClose(t, j)
	j = open(t, config(disk))
	appendAll(t, j, add("c", "1"))
	disk.SetReadOnly(true)
	var got []string
	rep, err := journal.Scan(dir, disk, func(r journal.Record, p journal.Position) error {
		got = append(got, fmt.Sprintf("%d:%d %v %s snapshot=%v", p.Segment, r.LSN, r.Op, r.Key, p.Snapshot))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "1:1 add a snapshot=false\n1:2 add b snapshot=false\n1:3 drop b snapshot=false\n2:1 add a snapshot=true\n2:4 add c snapshot=false"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if rep.ID != j.ID() || rep.Owner != "r1" || rep.Epoch != 2 || rep.LSN != 4 || rep.Live != 2 {
		t.Errorf("report %+v", rep)
	}
	recs, _, err := journal.Read(dir, disk)
	if err != nil || sameRecords(recs, j.Live()) != nil {
		t.Errorf("Read: %v %v", texts(recs), err)
	}
	stop := errors.New("enough")
	_, err = journal.Scan(dir, disk, func(journal.Record, journal.Position) error { return stop })
	wantErr(t, err, stop)
}

// What a reader sees beside a writer is never damage, and always in order.
func TestScanWhileTheWriterRuns(t *testing.T) {
	cfg := journal.Config{Dir: filepath.Join(t.TempDir(), "j"), SegmentSize: 32 << 10}
	j := open(t, cfg)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if _, err := j.Append(put(fmt.Sprint(w), strings.Repeat("x", i%700)), add("log", ""), drop("log")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 30 {
		var last uint64
		rep, err := journal.Scan(cfg.Dir, nil, func(r journal.Record, p journal.Position) error {
			if !p.Snapshot && r.LSN <= last {
				t.Errorf("LSN %d behind %d", r.LSN, last)
			}
			last = max(last, r.LSN)
			return nil
		})
		if err != nil || len(rep.Damage()) > 0 {
			t.Errorf("%v %v", err, rep.Damage())
		}
	}
	close(done)
	wg.Wait()
}

// midWrite is a disk on which the first reading of a file catches a writer
// between two batches: part of an earlier one is not seen yet, a later one is.
type midWrite struct {
	journal.FS
	name     string
	from, to int64
	opened   int
}

type midWriteFile struct {
	journal.File
	fs *midWrite
}

func (m *midWrite) Open(name string) (journal.File, error) {
	f, err := m.FS.Open(name)
	if err != nil || name != m.name {
		return f, err
	}
	if m.opened++; m.opened > 1 {
		return f, nil
	}
	return midWriteFile{f, m}, nil
}

func (f midWriteFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	for i := range p[:n] {
		if at := off + int64(i); at >= f.fs.from && at < f.fs.to {
			p[i] = 0
		}
	}
	return n, err
}

func TestReaderThatOvertakesTheWriterReadsAgain(t *testing.T) {
	disk, want, ends := small(t, func(*journal.Journal) {})
	m := &midWrite{FS: disk, name: newest(t, disk), from: ends[3], to: ends[4]}
	rep, err := journal.Verify(dir, m)
	if err != nil || len(rep.Damage()) > 0 || m.opened < 2 {
		t.Errorf("Verify: %v %v, read %d times", err, rep.Damage(), m.opened)
	}
	m.opened = 0
	recs, rep, err := journal.Read(dir, m)
	if err != nil || len(rep.Damage()) > 0 || sameRecords(recs, want) != nil {
		t.Errorf("Read: %v %v", err, rep.Damage())
	}
}

func segments(t *testing.T, disk *faultfs.FS) (names []string) {
	t.Helper()
	all, err := disk.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if strings.HasSuffix(n, ".jnl") {
			names = append(names, n)
		}
	}
	return names
}

func renames(disk *faultfs.FS) (calls []faultfs.Call) {
	for _, c := range disk.Log() {
		if c.Op == faultfs.OpRename {
			calls = append(calls, c)
		}
	}
	return calls
}
