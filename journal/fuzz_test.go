package journal_test

import (
	"bytes"
	"testing"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

// FuzzScan puts any bytes in the place of the newest segment: neither reading
// nor opening may panic, hang, or lose what stands in an older segment.
func FuzzScan(f *testing.F) {
	disk := faultfs.New()
	j := open(f, config(disk))
	appendAll(f, j, add("a", "1"), put("b", "2"))
	mustClose(f, j)
	j = open(f, config(disk))
	appendAll(f, j, drop("a"), add("c", "3"))
	mustClose(f, j)
	name := newest(f, disk)
	good, _ := disk.Data(name)
	f.Add(good[:10<<10])
	f.Add(good[:journal.DataStart+40])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{40, 0, 0, 0}, 3000))
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := disk.Restart()
		disk.SetData(name, data)
		if _, err := journal.Verify(dir, disk); err != nil {
			return // a newer version by its own word
		}
		recs, _, err := journal.Read(dir, disk)
		if err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(config(disk))
		if err != nil {
			return
		}
		if err := sameRecords(j.Live(), recs); err != nil {
			t.Fatalf("Open and Read differ: %v", err)
		}
		_ = j.Close()
	})
}
