package journal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

// onDisk is a small journal with a mark on the real disk.
func onDisk(path string) journal.Config {
	return journal.Config{Dir: path, SegmentSize: 16 << 10, MarkAfter: -1, Owner: "r1", Mark: true}
}

func marked(disk journal.FS) journal.Config {
	cfg := config(disk)
	cfg.Mark = true
	return cfg
}

// TestAJournalAsItWasLeftIsNoCopy has clean ends and kills, on both disks.
func TestAJournalAsItWasLeftIsNoCopy(t *testing.T) {
	real := onDisk(filepath.Join(t.TempDir(), "j"))
	disk := faultfs.New()
	for i := range 6 {
		for _, cfg := range []journal.Config{real, marked(disk)} {
			j := open(t, cfg)
			if rec := j.Recovery(); rec.Damaged() || rec.WentBack != "" || rec.Copied != "" || rec.LostBelow != 0 {
				t.Fatalf("%+v", rec)
			}
			for k := range 80 * i {
				appendAll(t, j, put(fmt.Sprint("k", k%9), strings.Repeat("x", 200)))
			}
			mustClose(t, j)
		}
		if i == 3 {
			disk = disk.Restart()
		}
	}
}

// TestAnOlderJournalIsTold puts parts of a journal back, or takes them away.
func TestAnOlderJournalIsTold(t *testing.T) {
	copyDir := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	last := func(t *testing.T, dir string) string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, "*.jnl"))
		if err != nil || len(all) == 0 {
			t.Fatal(err, all)
		}
		return all[len(all)-1]
	}
	type damage func(t *testing.T, dir, before, after string)
	for name, tt := range map[string]struct {
		do   damage
		want func(journal.Recovery) bool
	}{
		"the directory of two starts before": {func(t *testing.T, dir, before, _ string) {
			must(t, os.RemoveAll(dir))
			copyDir(t, before, dir)
		}, func(r journal.Recovery) bool { return r.WentBack != "" && r.LostBelow > 100 }},
		"a copy of the newest": {func(t *testing.T, dir, _, after string) {
			must(t, os.RemoveAll(dir))
			copyDir(t, after, dir)
		}, func(r journal.Recovery) bool { return r.Copied != "" && r.WentBack == "" && !r.Damaged() }},
		"no directory": {func(t *testing.T, dir, _, _ string) {
			must(t, os.RemoveAll(dir))
		}, func(r journal.Recovery) bool { return r.WentBack != "" && r.New }},
		"the newest segment removed": {func(t *testing.T, dir, _, _ string) {
			must(t, os.Remove(last(t, dir)))
		}, func(r journal.Recovery) bool { return r.WentBack != "" }},
		"the newest segment's tail zeroed": {func(t *testing.T, dir, _, _ string) {
			data, err := os.ReadFile(last(t, dir))
			must(t, err)
			clear(data[journal.DataStart+1000:])
			f, err := os.OpenFile(last(t, dir), os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(data, 0)
			must(t, errors.Join(err, f.Close()))
		}, func(r journal.Recovery) bool { return r.Damaged() && r.LostBelow > 100 }},
		"the newest segment truncated behind its frames": {func(t *testing.T, dir, _, _ string) {
			must(t, os.Truncate(last(t, dir), 15<<10))
		}, func(r journal.Recovery) bool { return r.Damaged() }},
		"the mark removed": {func(t *testing.T, dir, _, _ string) {
			must(t, os.Remove(dir+".mark"))
		}, func(r journal.Recovery) bool { return r.Copied != "" }},
		"the mark flipped": {func(t *testing.T, dir, _, _ string) {
			data, err := os.ReadFile(dir + ".mark")
			must(t, err)
			data[30] ^= 4
			must(t, os.WriteFile(dir+".mark", data, 0o600))
		}, func(r journal.Recovery) bool { return r.Copied != "" }},
		"a segment between removed": {func(t *testing.T, dir, _, _ string) {
			all, _ := filepath.Glob(filepath.Join(dir, "*.jnl"))
			must(t, os.Remove(all[len(all)-2]))
		}, func(r journal.Recovery) bool { return r.Damaged() && r.LostBelow == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "j")
			before, after := dir+"-before", dir+"-after"
			for i := range 4 {
				j := open(t, onDisk(dir))
				for k := range 20 {
					appendAll(t, j, put(fmt.Sprint("k", k%9), strings.Repeat("x", 100)))
				}
				if i == 1 {
					copyDir(t, dir, before)
				}
				mustClose(t, j)
			}
			copyDir(t, dir, after)
			tt.do(t, dir, before, after)
			j := open(t, onDisk(dir))
			if rec := j.Recovery(); !tt.want(rec) {
				t.Errorf("%+v", rec)
			}
			if rec := j.Recovery(); !rec.New && j.LSN() < 80 {
				t.Errorf("numbers of lost records are given again: %d", j.LSN())
			}
			mustClose(t, j)
			if rec := open(t, onDisk(dir)).Recovery(); rec.Damaged() || rec.WentBack != "" || rec.Copied != "" {
				t.Errorf("said once more by the next start: %+v", rec)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestEveryTruncationIsTold cuts a closed segment, and one that was killed, at every
// 64th byte, for a journal without a mark.
func TestEveryTruncationIsTold(t *testing.T) {
	for _, closed := range []bool{false, true} {
		disk, _, _ := small(t, func(j *journal.Journal) {
			if closed {
				_ = j.Close()
			}
		})
		name := newest(t, disk)
		data, _ := disk.Data(name)
		for cut := 0; cut < len(data); cut += 64 {
			disk.SetData(name, data[:cut])
			rep, err := journal.Verify(dir, disk)
			if err != nil || len(rep.Damage()) == 0 {
				t.Fatalf("closed %t, cut at %d: %v, %+v", closed, cut, err, rep)
			}
		}
	}
}

// TestABadEndIsDamageWhileTheMachineIsUp flips bits in the last record, which nothing
// behind it witnesses: without a loss of power no write is torn.
func TestABadEndIsDamageWhileTheMachineIsUp(t *testing.T) {
	for _, boot := range []string{"same", "other"} {
		disk := faultfs.New()
		cfg := marked(disk)
		cfg.Boot = "same"
		j := open(t, cfg)
		appendAll(t, j, add("a", "1"))
		at := used(t, disk)
		appendAll(t, j, add("b", strings.Repeat("2", 100)))
		disk = disk.Restart()
		disk.Flip(newest(t, disk), (at+60)*8)
		cfg.FS, cfg.Boot = disk, boot
		j = open(t, cfg)
		if rec := j.Recovery(); rec.Damaged() != (boot == "same") || rec.Damaged() && rec.LostBelow <= 2 {
			t.Errorf("%s run of the machine: %+v", boot, rec)
		}
	}
}

// TestWhatFollowsFromDamageIsDurableWithIt crashes at each call of an opening.
func TestWhatFollowsFromDamageIsDurableWithIt(t *testing.T) {
	broken, _, ends := small(t, func(j *journal.Journal) { _ = j.Close() })
	broken.Flip(newest(t, broken), ends[2]*8+77)
	heed := func(rec journal.Recovery, live []journal.Record) []journal.Entry {
		if !rec.Damaged() || len(live) == 0 {
			return nil
		}
		return []journal.Entry{put("heeded", fmt.Sprint(rec.LostBelow))}
	}
	for n := 1; ; n++ {
		disk := broken.Restart()
		disk.PowerOffAt(n)
		cfg := config(disk)
		cfg.OnOpen = heed
		_, err := journal.Open(cfg)
		for choice := range 2 {
			cfg.FS = disk.PowerLoss(512, func(int) int { return choice })
			j := open(t, cfg)
			if all := texts(j.Live()); !strings.HasPrefix(all[len(all)-1], "heeded=") {
				t.Fatalf("power off at call %d: %v", n, all)
			}
			mustClose(t, j)
		}
		if err == nil {
			break
		}
	}
}

// TestRemovedFilesStopTheJournal removes or replaces files under an open journal.
func TestRemovedFilesStopTheJournal(t *testing.T) {
	for name, do := range map[string]func(dir string) error{
		"the directory":       os.RemoveAll,
		"the directory moved": func(dir string) error { return os.Rename(dir, dir+"-old") },
		"the lock":            func(dir string) error { return os.Remove(filepath.Join(dir, "LOCK")) },
		"the segment replaced": func(dir string) error {
			all, err := filepath.Glob(filepath.Join(dir, "*.jnl"))
			data, readErr := os.ReadFile(all[len(all)-1])
			return errors.Join(err, readErr, os.Remove(all[len(all)-1]), os.WriteFile(all[len(all)-1], data, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, byRotation := range []bool{false, true} {
				cfg := onDisk(filepath.Join(t.TempDir(), "j"))
				var alarms []journal.AlarmKind
				cfg.OnAlarm = func(a journal.Alarm) { alarms = append(alarms, a.Kind) }
				j := open(t, cfg)
				appendAll(t, j, put("a", "1"))
				must(t, do(cfg.Dir))
				var err error
				if !byRotation {
					journal.LookAfter(j)
					_, err = j.Append(put("a", "2"))
				}
				for range 200 { // the next segment at the latest
					if err == nil {
						_, err = j.Append(put("a", strings.Repeat("x", 200)))
					}
				}
				if !errors.Is(err, journal.ErrRemoved) || !errors.Is(j.Err(), journal.ErrRemoved) || len(alarms) != 1 ||
					alarms[0] != journal.AlarmRemoved {
					t.Errorf("%v, %v, %v", err, j.Err(), alarms)
				}
				if name == "the lock" {
					if _, err := journal.Open(cfg); !errors.Is(err, journal.ErrLocked) {
						t.Errorf("a second writer: %v", err)
					}
				}
				_ = j.Close()
			}
		})
	}
}

func FuzzDecodeMark(f *testing.F) {
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if again, err := journal.DecodeMark(data); err == nil {
			if twice, err := journal.DecodeMark(again); err != nil || string(twice) != string(again) {
				t.Errorf("%q: %q, %v", again, twice, err)
			}
		}
	})
}
