package cmd_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// usage is what the daemons of a soak take, sampled once a second.
type usage struct {
	mu      sync.Mutex
	samples map[string][]int64 // by daemon and what
}

// What is sampled of a daemon, with what it may grow by from the second quarter of a soak to the
// last: a tenth besides. A restart begins anew, so growth shows where daemons are spared.
var usageKinds = []struct {
	what  string
	slack int64
	of    func(s *soak, d *daemon) (int64, bool)
}{
	{"memory, KB", 8 << 10, func(_ *soak, d *daemon) (int64, bool) {
		for line := range strings.Lines(procFile(d, "status")) {
			var kb int64
			if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
				return kb, true
			}
		}
		return 0, false
	}},
	{"file descriptors", 20, func(_ *soak, d *daemon) (int64, bool) {
		all, err := os.ReadDir(filepath.Join(procDir(d), "fd"))
		return int64(len(all)), err == nil
	}},
	{"journals, or the database's log, KB", 4 << 10, func(s *soak, d *daemon) (int64, bool) {
		dir := filepath.Join(s.dir, d.name)
		if d.name == "central" {
			info, err := os.Stat(filepath.Join(dir, "central.db-wal"))
			if err != nil {
				return 0, false
			}
			return info.Size() >> 10, true
		}
		var size int64
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Name() == "filler" {
				return nil // a file that has just gone
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				size += info.Size()
			}
			return nil
		})
		return size >> 10, true
	}},
}

func procDir(d *daemon) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil || d.cmd.Process == nil {
		return "/nowhere"
	}
	return fmt.Sprintf("/proc/%d", d.cmd.Process.Pid)
}

func procFile(d *daemon, name string) string {
	text, err := os.ReadFile(filepath.Join(procDir(d), name))
	if err != nil {
		return ""
	}
	return string(text)
}

// sample samples all daemons until ctx ends.
func (u *usage) sample(ctx context.Context, s *soak) {
	for ctx.Err() == nil {
		for _, d := range s.daemons {
			for _, kind := range usageKinds {
				if n, ok := kind.of(s, d); ok {
					u.mu.Lock()
					key := d.name + ": " + kind.what
					u.samples[key] = append(u.samples[key], n)
					u.mu.Unlock()
				}
			}
		}
		pauseFor(ctx, time.Second)
	}
}

// most lists the highest samples: of the second quarter of the time, of the last, and of all.
func (u *usage) most() (keys []string, most func(key string) (second, last, all int64)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.samples)), func(key string) (second, last, all int64) {
		list := u.samples[key]
		quarter := len(list) / 4
		if quarter == 0 {
			return 0, 0, slices.Max(list)
		}
		return slices.Max(list[quarter : 2*quarter]), slices.Max(list[3*quarter:]), slices.Max(list)
	}
}

// growing says what was still growing at the end.
func (u *usage) growing() (all []string) {
	keys, most := u.most()
	for _, key := range keys {
		second, last, _ := most(key)
		for _, kind := range usageKinds {
			if strings.HasSuffix(key, kind.what) && last > second+second/10+kind.slack {
				all = append(all, fmt.Sprintf("%s: %d in the second quarter, %d in the last", key, second, last))
			}
		}
	}
	return all
}
