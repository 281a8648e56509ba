package journal_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

// small is a closed journal: a snapshot of one record, then ten groups.
func small(t *testing.T, end func(*journal.Journal)) (disk *faultfs.FS, want []journal.Record, ends []int64) {
	disk = faultfs.New()
	j := open(t, config(disk))
	appendAll(t, j, add("old", "snapshot"))
	mustClose(t, j)
	j = open(t, config(disk))
	for i := range 10 {
		appendAll(t, j, add(fmt.Sprint("k", i), "first"), add(fmt.Sprint("k", i), "second"))
		ends = append(ends, used(t, disk))
	}
	want = j.Live()
	end(j)
	return disk.Restart(), want, ends
}

// used is how far the newest segment is written.
func used(t *testing.T, disk *faultfs.FS) int64 {
	t.Helper()
	rep, err := journal.Verify(dir, disk)
	if err != nil {
		t.Fatal(err)
	}
	return rep.Segments[len(rep.Segments)-1].Used
}

// The end is cut at every byte: the bytes behind are zeros, or random, as an
// unfinished write leaves them. What was complete is there, the rest is cut
// without an alarm.
func TestTornTailAtEveryByte(t *testing.T) {
	disk, want, ends := small(t, func(*journal.Journal) {})
	name := newest(t, disk)
	data, _ := disk.Data(name)
	start := ends[len(ends)-2] // the last batch was in flight
	for cut := start; cut < ends[len(ends)-1]; cut++ {
		for what, fill := range map[string]byte{"zeros": 0, "rubbish": 0xA5} {
			torn := slices.Clone(data)
			for i := cut; i < ends[len(ends)-1]; i++ {
				torn[i] = fill
			}
			if slices.Equal(torn, data) {
				continue // only padding is cut
			}
			disk.SetData(name, torn)
			next := disk.Restart()
			j := open(t, config(next))
			rec := j.Recovery()
			if rec.Damaged() || rec.Clean || len(rec.Kept) > 0 {
				t.Fatalf("%s from %d: %+v, want a torn tail", what, cut, rec)
			}
			if err := sameRecords(j.Live(), want[:len(want)-2]); err != nil {
				t.Fatalf("%s from %d: %v", what, cut, err)
			}
			// A frame begins with its checksum, of which the first bytes may be zeros.
			left := slices.ContainsFunc(torn[start:ends[len(ends)-1]], func(b byte) bool { return b != 0 })
			if torn := rec.TornBytes > 0; torn != left {
				t.Fatalf("%s from %d: %d torn bytes", what, cut, rec.TornBytes)
			}
			if got := appendAll(t, j, add("next", "")); got != j.LSN() || got != want[len(want)-1].LSN-1 {
				t.Fatalf("next LSN %d", got)
			}
		}
	}
}

// Of a file that is too short everything before the cut is salvaged.
func TestTruncatedAtEveryByte(t *testing.T) {
	disk, want, ends := small(t, func(*journal.Journal) {})
	name := newest(t, disk)
	data, _ := disk.Data(name)
	for cut := int64(0); cut < ends[9]; cut += 3 {
		disk.SetData(name, data[:cut])
		j := open(t, config(disk.Restart()))
		n := len(j.Live())
		if err := sameRecords(j.Live(), want[:n]); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if cut >= journal.DataStart && cut < ends[0] && n < 1 || cut > ends[5] && n < 11 {
			t.Fatalf("cut at %d: only %v", cut, texts(j.Live()))
		}
	}
}

// What the header vouches for is damage when it is gone, with no frame behind it.
func TestLostSnapshotIsNoTornTail(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	appendAll(t, j, put("a", "1"))
	appendAll(t, j, put("b", "1"))
	mustClose(t, j)
	open(t, config(disk)) // a snapshot of two, and nothing behind it
	disk = disk.Restart()
	name := newest(t, disk)
	data, _ := disk.Data(name)
	clear(data[journal.DataStart+10:])
	disk.SetData(name, data)
	j = open(t, config(disk))
	if rec := j.Recovery(); !rec.Damaged() || rec.TornBytes > 0 {
		t.Errorf("%+v", rec)
	}
	wantLive(t, j, "a=1", "b=1") // from the segment before
	rep, err := journal.Verify(dir, disk)
	if err != nil || len(rep.Kept) != 1 || len(rep.Damage()) != 0 {
		t.Errorf("a file put aside counts no more: %v %+v", err, rep)
	}
}

// Every single bit of a closed journal is flipped. No bit may cost a record
// without an alarm, nor bring a wrong record; and what does not stand in the
// flipped frame stays.
func TestEverySingleFlippedBit(t *testing.T) {
	closings := map[string]func(*journal.Journal){
		"closed": func(j *journal.Journal) { _ = j.Close() },
		"marked": func(j *journal.Journal) { journal.Mark(j) },
	}
	for how, end := range closings {
		t.Run(how, func(t *testing.T) {
			disk, want, _ := small(t, end)
			name, to := newest(t, disk), used(t, disk)+64
			counts := map[string]int{}
			step := map[string]int64{"closed": 1, "marked": 3}[how] * pace
			for bit := int64(0); bit < to*8; bit += step {
				disk.Flip(name, bit)
				counts[flipped(t, disk, want, name, bit)]++
				disk.Flip(name, bit)
			}
			t.Logf("every bit of %d bytes, in steps of %d: %v", to, step, counts)
			if counts["lost"] > 0 || counts["detected"] == 0 {
				t.Errorf("%v", counts)
			}
		})
	}
}

// flipped reads a journal with one wrong bit by Read, and each 97th time by Open.
func flipped(t *testing.T, disk *faultfs.FS, want []journal.Record, name string, bit int64) string {
	recs, rep, err := journal.Read(dir, disk)
	if err != nil {
		t.Fatalf("bit %d: %v", bit, err)
	}
	for _, r := range recs {
		if !slices.ContainsFunc(want, func(w journal.Record) bool {
			return sameRecord(w, r)
		}) {
			t.Fatalf("bit %d: wrong record %+v", bit, r)
		}
	}
	damaged := len(rep.Damage()) > 0
	if len(recs) < len(want)-1 {
		t.Fatalf("bit %d: %d of %d records lost", bit, len(want)-len(recs), len(want))
	}
	if bit%97 == 0 && damaged {
		disk := disk.Clone()
		alarms := 0
		cfg := config(disk)
		cfg.OnAlarm = func(a journal.Alarm) {
			if a.Kind == journal.AlarmDamage {
				alarms++
			}
		}
		j := open(t, cfg)
		rec := j.Recovery()
		if _, kept := disk.Data(name + ".damaged"); !kept || alarms != 1 || !rec.Damaged() || rec.Clean || len(rec.Kept) != 1 ||
			rec.Salvaged == 0 {
			t.Fatalf("bit %d: kept %v, %d alarms, %+v", bit, kept, alarms, rec)
		}
	}
	switch {
	case damaged:
		return "detected"
	case len(recs) < len(want):
		return "lost"
	default:
		return "harmless"
	}
}

// Both copies of the newest header are gone: the segment before stands in.
func TestLostHeaderFallsBackOnTheSegmentBefore(t *testing.T) {
	disk, _, _ := small(t, func(j *journal.Journal) { _ = j.Close() })
	_, before, err := journal.Read(dir, disk)
	if err != nil {
		t.Fatal(err)
	}
	name := newest(t, disk)
	data, _ := disk.Data(name)
	clear(data[:journal.DataStart])
	disk.SetData(name, data)
	j := open(t, config(disk))
	wantLive(t, j, "old=snapshot")
	if !j.Recovery().Damaged() || j.ID() != before.ID || j.Epoch() != before.Epoch+1 || j.Owner() != "r1" {
		t.Errorf("id %s epoch %d, was %s %d; %+v", j.ID(), j.Epoch(), before.ID, before.Epoch, j.Recovery())
	}
}

// A hole in the snapshot is filled from the segment before.
func TestDamagedSnapshotIsRebuilt(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	for i := range 20 {
		appendAll(t, j, put(fmt.Sprint("n", i%10), strings.Repeat("x", 50)+fmt.Sprint(i)))
	}
	mustClose(t, j)
	j = open(t, config(disk))
	appendAll(t, j, drop("n3"), put("n4", "new"))
	want := j.Live()
	disk = disk.Restart()
	name := newest(t, disk)
	data, _ := disk.Data(name)
	copy(data[journal.DataStart+200:], strings.Repeat("?", 300))
	disk.SetData(name, data)
	j = open(t, config(disk))
	if err := sameRecords(j.Live(), want); err != nil {
		t.Fatal(err)
	}
	if !j.Recovery().Damaged() {
		t.Error("no damage reported")
	}
}

// A crash between putting the damaged file aside and the new segment must not
// make the next opening forget the damage.
func TestCrashWhileDamageIsPutAside(t *testing.T) {
	broken, _, ends := small(t, func(j *journal.Journal) { _ = j.Close() })
	broken.Flip(newest(t, broken), ends[2]*8+77)
	recs, _, err := journal.Read(dir, broken)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		disk := broken.Restart()
		disk.PowerOffAt(n)
		_, err := journal.Open(config(disk))
		if err == nil {
			break
		}
		for choice := range 2 {
			disk := disk.PowerLoss(512, func(int) int { return choice })
			j := open(t, config(disk))
			if err := sameRecords(j.Live(), recs); err != nil {
				t.Fatalf("power off at call %d: %v", n, err)
			}
			if rec := j.Recovery(); !rec.Damaged() && len(rec.Kept) == 0 {
				t.Fatalf("power off at call %d: damage forgotten: %+v", n, rec)
			}
			mustClose(t, j)
		}
	}
}

func TestVerifyReports(t *testing.T) {
	disk, _, ends := small(t, func(j *journal.Journal) { _ = j.Close() })
	rep, err := journal.Verify(dir, disk)
	if err != nil || len(rep.Segments) != 2 || len(rep.Damage()) != 0 || !rep.Segments[1].Closed {
		t.Fatalf("%v %+v", err, rep)
	}
	disk.Flip(newest(t, disk), ends[4]*8+300)
	rep, err = journal.Verify(dir, disk)
	if err != nil {
		t.Fatal(err)
	}
	d := rep.Damage()
	if len(d) != 1 || d[0].File != filepath.Base(newest(t, disk)) || d[0].Offset != ends[4] || rep.Segments[1].Salvaged != 20 {
		t.Errorf("%v %+v", d, rep.Segments[1])
	}
}
