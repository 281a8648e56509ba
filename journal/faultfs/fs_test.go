package faultfs

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"

	"rackpower/journal"
)

func never(int) int { return 0 }

// always keeps everything: mode 1 of 4, and yes to every change.
func always(n int) int { return min(1, n-1) }

func write(t *testing.T, f journal.File, off int64, data string) {
	t.Helper()
	if _, err := f.WriteAt([]byte(data), off); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d *FS, name string) journal.File {
	t.Helper()
	f, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantData(t *testing.T, d *FS, name, want string) {
	t.Helper()
	got, ok := d.Data(name)
	if !ok || string(bytes.TrimRight(got, "\x00")) != want {
		t.Fatalf("%s holds %q (there: %v), want %q", name, got, ok, want)
	}
}

func TestOnlyFlushedDataSurvives(t *testing.T) {
	d := New()
	f := create(t, d, "/d/a")
	write(t, f, 0, "one")
	must(t, f.Sync())
	must(t, d.SyncDir("/d"))
	write(t, f, 3, "two")
	wantData(t, d, "/d/a", "onetwo")
	killed := d.Restart()
	wantData(t, killed, "/d/a", "onetwo")
	wantData(t, killed.PowerLoss(512, never), "/d/a", "one")
	wantData(t, killed.PowerLoss(512, always), "/d/a", "onetwo")
}

func TestSectorsSurviveOneByOne(t *testing.T) {
	d := New()
	f := create(t, d, "/d/a")
	write(t, f, 0, string(make([]byte, 1024)))
	must(t, f.Sync())
	must(t, d.SyncDir("/d"))
	write(t, f, 510, "abcd") // two bytes in each of two sectors
	answers := []int{2, 0, 1}
	lost := d.PowerLoss(512, func(int) int { a := answers[0]; answers = answers[1:]; return a })
	got, _ := lost.Data("/d/a")
	if string(got[510:514]) != "\x00\x00cd" {
		t.Fatalf("%q", got[510:514])
	}
	answers = []int{2, 1}
	lost = d.PowerLoss(4096, func(int) int { a := answers[0]; answers = answers[1:]; return a })
	if got, _ = lost.Data("/d/a"); string(got[510:514]) != "abcd" {
		t.Fatalf("one unit of 4096 was torn: %q", got[510:514])
	}
}

func TestFailedSyncForgetsWhatItDidNotWrite(t *testing.T) {
	d := New()
	f := create(t, d, "/d/a")
	must(t, d.SyncDir("/d"))
	write(t, f, 0, "data")
	d.FailCall(1, ErrIO)
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Fatalf("got %v", err)
	}
	must(t, f.Sync()) // succeeds and carries nothing
	wantData(t, d, "/d/a", "data")
	wantData(t, d.PowerLoss(512, always), "/d/a", "")
}

func TestNamesSurviveSyncDirOnly(t *testing.T) {
	d := New()
	f := create(t, d, "/d/a")
	write(t, f, 0, "x")
	must(t, f.Sync())
	if _, ok := d.PowerLoss(512, never).Data("/d/a"); ok {
		t.Error("a name survived without SyncDir")
	}
	d = d.Restart()
	must(t, d.SyncDir("/d"))
	must(t, d.Rename("/d/a", "/d/b"))
	wantData(t, d, "/d/b", "x")
	lost := d.PowerLoss(512, never)
	wantData(t, lost, "/d/a", "x")
	if _, err := lost.Open("/d/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	wantData(t, d.PowerLoss(512, always), "/d/b", "x")
}

func TestFullDiskTakesWhatFits(t *testing.T) {
	d := New()
	d.SetCapacity(6)
	f := create(t, d, "/d/a")
	n, err := f.WriteAt([]byte("12345678"), 0)
	if n != 6 || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%d %v", n, err)
	}
	write(t, f, 0, "abcdef") // in place
	must(t, d.Remove("/d/a"))
	write(t, create(t, d, "/d/b"), 0, "123456")
}

func TestPowerOffWithinACall(t *testing.T) {
	d := New()
	f := create(t, d, "/d/a")
	must(t, d.SyncDir("/d"))
	d.PowerOffAt(1)
	if _, err := f.WriteAt([]byte("data"), 0); !errors.Is(err, ErrPower) {
		t.Fatalf("got %v", err)
	}
	if err := f.Sync(); !errors.Is(err, ErrPower) {
		t.Fatalf("got %v", err)
	}
	wantData(t, d.PowerLoss(512, always), "/d/a", "data")
	wantData(t, d.PowerLoss(512, never), "/d/a", "")
}

func TestTornWrite(t *testing.T) {
	d := New()
	f := create(t, d, "/d/a")
	d.OnCall(func(c Call) Fault { return Fault{Err: ErrIO, Bytes: 2} })
	if n, err := f.WriteAt([]byte("data"), 0); n != 2 || !errors.Is(err, unix.EIO) {
		t.Fatalf("%d %v", n, err)
	}
	wantData(t, d, "/d/a", "da")
}

func TestLocksEndWithTheProcess(t *testing.T) {
	d := New()
	l, err := d.Lock("/d/LOCK")
	must(t, err)
	if _, err := d.Lock("/d/LOCK"); !errors.Is(err, journal.ErrLocked) {
		t.Fatalf("got %v", err)
	}
	must(t, l.Close())
	_, err = d.Lock("/d/LOCK")
	must(t, err)
	_, err = d.Restart().Lock("/d/LOCK")
	must(t, err)
}

func TestReadOnlyDiskRefusesChanges(t *testing.T) {
	d := New()
	write(t, create(t, d, "/d/a"), 0, "x")
	d.SetReadOnly(true)
	_, err := d.Create("/d/b")
	for _, err := range []error{err, d.Remove("/d/a"), d.Rename("/d/a", "/d/b"), d.SyncDir("/d")} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("got %v", err)
		}
	}
	f, err := d.Open("/d/a")
	must(t, err)
	if n, err := f.ReadAt(make([]byte, 1), 0); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}
