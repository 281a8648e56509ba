package journal_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

// snapshotSize is what a new segment with these records takes at least.
func snapshotSize(recs []journal.Record, more ...journal.Entry) (n int64) {
	frame := func(e journal.Entry) int64 { return int64(36+len(e.Key)+len(e.Payload)+7) &^ 7 }
	for _, r := range recs {
		n += frame(r.Entry)
	}
	for _, e := range more {
		n += frame(e)
	}
	return journal.DataStart + n
}

// current is how long the newest segment and LOCK are.
func current(t *testing.T, disk *faultfs.FS) int64 {
	data, _ := disk.Data(newest(t, disk))
	return int64(len(data)) + 16
}

// On a disk of less than three times the live set, appends fail only while there is no
// room for a snapshot and what is appended. They go on by themselves after that, and
// nothing is missing after a loss of power.
func TestASmallDiskIsFullOnlyWhileASnapshotHasNoRoom(t *testing.T) {
	const slack = 3 * 4096 // whole pages, and marks
	rapid.Check(t, func(rt *rapid.T) {
		disk := faultfs.New()
		cfg := config(disk)
		cfg.KeepSegments = rapid.IntRange(-1, 2).Draw(rt, "kept segments")
		j, err := journal.Open(cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = j.Close() }()
		model := &model{}
		add := func(i int) error {
			e := put(fmt.Sprint("k", i), strings.Repeat("x", 1000))
			before := snapshotSize(j.Live(), e)
			_, err := j.Append(e)
			if err == nil {
				model = model.with([]journal.Entry{e})
			} else if room := disk.Room(); room >= before+slack {
				rt.Fatalf("append %d: %v, with %d bytes free for %d", i, err, room, before)
			}
			if rapid.Bool().Draw(rt, "restock") {
				journal.Restock(j)
			}
			return err
		}
		live := rapid.IntRange(15, 35).Draw(rt, "live")
		for i := range live {
			if err := add(i); err != nil {
				rt.Fatal(err)
			}
		}
		// Others fill the disk, until nothing more can be appended.
		disk.SetCapacity(current(t, disk))
		for i := 0; add(i%live) == nil; i++ {
			disk.SetCapacity(current(t, disk))
		}
		// The smallest room in which the journal can go on, and up to two live sets more.
		need := snapshotSize(j.Live(), put("k0", strings.Repeat("x", 1000))) + slack
		disk.SetCapacity(current(t, disk) + need + int64(rapid.IntRange(0, live*2000).Draw(rt, "more")))
		for i := range 2 * live {
			if err := add(i % live); err != nil {
				rt.Fatalf("append %d of as many live records as before: %v; %d bytes free for %d", i, err, disk.Room(), need)
			}
		}
		_ = j.Close()
		disk = disk.PowerLoss(512, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "survives") })
		disk.SetCapacity(current(t, disk) + need)
		j, err = journal.Open(config(disk))
		if err != nil {
			rt.Fatalf("cannot open with room for a snapshot: %v", err)
		}
		if err := (outcome{acked: model}).check(texts(j.Live())); err != nil {
			rt.Fatal(err)
		}
		if j.Recovery().Damaged() {
			rt.Fatalf("false damage %v", j.Recovery().Damage)
		}
		if _, err := j.Append(put("k0", "again")); err != nil {
			rt.Fatal(err)
		}
	})
}
