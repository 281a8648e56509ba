package agent

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power/powertest"
)

// oldDisk has the files of November 2026, on a disk in memory.
func oldDisk(t *testing.T) *faultfs.FS {
	t.Helper()
	disk := faultfs.New()
	root := "testdata/files-2026-11"
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		disk.SetData("/agent"+strings.TrimPrefix(path, root), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func startOnDisk(t *testing.T, disk *faultfs.FS) (*Agent, error) {
	t.Helper()
	a, err := New(Config{
		Name: "r1", Dir: "/agent", Dial: powertest.NewFake().Dial, Central: unreachable(t), Monitor: MonitorOff,
		tuneLog: func(c *journal.Config) { c.FS, c.SegmentSize, c.MarkAfter = disk, 16<<10, -1 },
	})
	if err == nil {
		t.Cleanup(func() { a.Close() })
	}
	return a, err
}

// onDisk names the files that hold a text.
func onDisk(t *testing.T, disk *faultfs.FS, text string) (files []string) {
	t.Helper()
	for _, dir := range []string{"/agent", "/agent/assigned", "/agent/journal"} {
		names, err := disk.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if data, _ := disk.Data(dir + "/" + name); bytes.Contains(data, []byte(text)) {
				files = append(files, dir+"/"+name)
			}
		}
	}
	return files
}

const oldPassword = `"password":"secret"`

// TestNoRoomForTheFirstKey: the agent goes on with what it has, seals nothing with a key that
// a crash would lose, writes no new password, and makes all good once there is room.
func TestNoRoomForTheFirstKey(t *testing.T) {
	disk := oldDisk(t)
	full := func(c faultfs.Call) faultfs.Fault {
		if strings.HasPrefix(c.Name, seal.FileName) && c.Op != faultfs.OpRemove {
			return faultfs.Fault{Err: faultfs.ErrFull}
		}
		return faultfs.Fault{}
	}
	disk.OnCall(full)
	a, err := startOnDisk(t, disk)
	if err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, a)
	at, nodes := a.assigned.position(), len(a.assigned.all())
	alarmed := func(a *Agent) string {
		for _, al := range a.alarms.list() {
			if al.Kind == api.AlarmNotSealed {
				return al.Message + ": " + al.Remedy
			}
		}
		return ""
	}
	if text := alarmed(a); !strings.Contains(text, "/agent/seal.key") || !strings.Contains(text, "make room in /agent") {
		t.Errorf("%q", text)
	}
	add := func(a *Agent, name, password string) error {
		next := a.assigned.position()
		_, _, err := a.assigned.apply(api.Assignment{
			Rev: next.Rev + 1, Nodes: []api.AssignedNode{{Name: name, BMC: "ipmi://admin@" + name, Password: password}},
		}, next.Database)
		return err
	}
	if err := add(a, "new", "another-secret"); err == nil || api.CodeOf(err) != "" { // with a code the session would end
		t.Errorf("%v", err)
	}
	if a.assigned.position() != at || len(a.assigned.all()) != nodes {
		t.Errorf("%+v, %d nodes", a.assigned.position(), len(a.assigned.all()))
	}
	if files := onDisk(t, disk, "another-secret"); len(files) > 0 {
		t.Errorf("the new password is in %s", files)
	}
	if err := add(a, "plain", ""); err != nil {
		t.Errorf("a node without a password: %v", err)
	}
	a.Close()

	disk = disk.Restart() // killed: all is as it was
	disk.OnCall(full)
	if a, err = startOnDisk(t, disk); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, a)
	disk.OnCall(nil)
	if err := add(a, "new", "another-secret"); err != nil {
		t.Error(err)
	}
	if !a.trySeal() || alarmed(a) != "" {
		t.Errorf("%q", alarmed(a))
	}
	for _, secret := range []string{oldPassword, "another-secret"} {
		if files := onDisk(t, disk, secret); len(files) > 0 {
			t.Errorf("%s is in %s", secret, files)
		}
	}
	a.Close()
	if a, err = startOnDisk(t, disk.Restart()); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, a)
	if got := secretsOf(a)["new"][0]; got != "another-secret" || alarmed(a) != "" {
		t.Errorf("%q, %q", got, alarmed(a))
	}
}

// TestAFullDiskAtTheUpgrade: with whatever room the logs can be opened in, the agent starts
// and has all; with room, the next start seals all.
func TestAFullDiskAtTheUpgrade(t *testing.T) {
	began := 0
	for room := int64(0); room <= 128<<10; room += 2 << 10 {
		disk := oldDisk(t)
		disk.SetCapacity(disk.Used() + room)
		a, err := startOnDisk(t, disk)
		if err != nil && strings.HasPrefix(err.Error(), "cannot open the ") {
			continue // a log: no room for the segment that each opening begins
		}
		began++
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			if err != nil {
				t.Fatal(err)
			}
			wantSecrets(t, a)
			a.Close()
			disk = disk.Restart()
			disk.SetCapacity(0)
			if a, err = startOnDisk(t, disk); err != nil {
				t.Fatal(err)
			}
			wantSecrets(t, a)
			if files := onDisk(t, disk, oldPassword); len(files) > 0 {
				t.Errorf("plain in %s", files)
			}
			if a.alarms.active(api.AlarmNotSealed) {
				t.Errorf("%+v", a.alarms.list())
			}
		})
	}
	if began < 10 {
		t.Errorf("%d agents started", began)
	}
}

// TestSealingIsFinishedAfterACrash: wherever the process ends while it seals, the next start
// leaves no password in plain, in no segment of before either.
func TestSealingIsFinishedAfterACrash(t *testing.T) {
	calls := 0
	for n := 0; n <= calls; n++ {
		disk := oldDisk(t)
		if n > 0 {
			disk.PowerOffAt(n)
		}
		a, err := startOnDisk(t, disk)
		if n == 0 {
			calls = disk.Calls()
		}
		if err == nil {
			a.Close()
		}
		disk = disk.Restart()
		if a, err = startOnDisk(t, disk); err != nil {
			t.Fatalf("after the end within call %d: %v", n, err)
		}
		wantSecrets(t, a)
		if files := onDisk(t, disk, oldPassword); len(files) > 0 {
			t.Errorf("after the end within call %d: plain in %s", n, files)
		}
		a.Close()
	}
}
