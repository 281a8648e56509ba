package central

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/central/store"
)

// staysNaively asks of each time alone: is it the newest of its hour, and are there fewer than n
// hours with a backup that are newer; and so for days, weeks, and all time.
func staysNaively(c BackupConfig, times []time.Time, at time.Time) bool {
	week := func(t time.Time) time.Time { // its Monday
		day := t.Truncate(24 * time.Hour)
		return day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	}
	for _, rule := range []struct {
		n     int
		start func(time.Time) time.Time
	}{
		{1, func(time.Time) time.Time { return time.Time{} }},
		{c.Hourly, func(t time.Time) time.Time { return t.Truncate(time.Hour) }},
		{c.Daily, func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) }},
		{c.Weekly, week},
	} {
		newest, newer := true, map[time.Time]bool{}
		for _, other := range times {
			switch {
			case !other.After(at):
			case rule.start(other).Equal(rule.start(at)):
				newest = false
			default:
				newer[rule.start(other)] = true
			}
		}
		if newest && len(newer) < rule.n {
			return true
		}
	}
	return false
}

func TestWhichBackupsStay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		small := rapid.IntRange(0, 5)
		c := BackupConfig{Hourly: small.Draw(t, "hourly"), Daily: small.Draw(t, "daily"), Weekly: small.Draw(t, "weekly")}
		var times []time.Time
		at := time.Date(2026, 12, 30, 0, 0, 0, 0, time.UTC)
		for _, d := range rapid.SliceOfN(rapid.IntRange(1, 40*3600), 0, 60).Draw(t, "seconds between") {
			at = at.Add(-time.Duration(d) * time.Second)
			times = append(times, at)
		}
		stay := c.keeps(times)
		for _, at := range times {
			if want := staysNaively(c, times, at); stay[at] != want {
				t.Errorf("%+v: %s of %v stays: %v, want %v", c, at, times, stay[at], want)
			}
		}
	})
}

// TestBackupsAreMadeAndRemoved goes through ten days of them, with a file of somebody else beside.
func TestBackupsAreMadeAndRemoved(t *testing.T) {
	onFiles(t)
	s := newSite(t)
	s.nodes("a")
	b := s.c.backups
	b.cfg = BackupConfig{Dir: filepath.Join(t.TempDir(), "made", "here"), Every: time.Hour, Hourly: 3, Daily: 2, Weekly: 1}
	if err := os.MkdirAll(b.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(b.cfg.Dir, "."+backupName(s.clock())+".123") // of a process that died
	if err := os.WriteFile(cut, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(b.cfg.Dir, "monday.db")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		s.later(6 * time.Hour)
		if err := b.make(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(cut); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a death left of a backup stays: %v", err)
	}
	files, err := BackupFiles(b.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var ours []BackupFile
	for _, f := range files {
		if !f.At.IsZero() {
			ours = append(ours, f)
		}
	}
	// Three hours, the newest of which are that of two days or one, and that of the week.
	if len(ours) < 3 || len(ours) > 5 || len(files) != len(ours)+1 || files[len(files)-1].Path != foreign {
		t.Errorf("%d backups: %+v", len(ours), files)
	}
	if !ours[0].At.Equal(s.clock().UTC().Truncate(time.Second)) {
		t.Errorf("the newest is of %s, now it is %s", ours[0].At, s.clock())
	}
	for _, f := range ours {
		if sum, err := store.Check(t.Context(), f.Path); err != nil || sum.Nodes != 1 || f.Size == 0 {
			t.Errorf("%s: %+v, %v", f.Path, sum, err)
		}
	}
}

// TestABackupThatFailsIsShown until one is made, and is tried again soon.
func TestABackupThatFailsIsShown(t *testing.T) {
	onFiles(t)
	s := newSite(t)
	b := s.c.backups
	file := filepath.Join(t.TempDir(), "a-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.cfg = BackupConfig{Dir: filepath.Join(file, "below"), Every: time.Hour, Hourly: 3}
	shown := func() (items []api.Attention) {
		all, err := s.Attention(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all, func(x api.Attention) bool { return x.Kind != api.AttentionBackup })
	}
	began := s.clock()
	if wait := b.wait(began, began); wait != firstBackup {
		t.Errorf("the first one after %v", wait)
	}
	for range 2 {
		b.note(b.make(t.Context()))
		s.later(time.Minute)
	}
	items := shown()
	if len(items) != 1 || !items[0].Since.Equal(began) || !strings.Contains(items[0].Message, "there is none") || len(items[0].Run) == 0 {
		t.Errorf("%+v", items)
	}
	if wait := b.wait(began, s.clock()); wait != backupAgain {
		t.Errorf("again after %v", wait)
	}
	b.cfg.Dir = t.TempDir()
	err := b.make(t.Context())
	b.note(err)
	if items := shown(); err != nil || len(items) > 0 {
		t.Errorf("%v, %+v", err, items)
	}
	now := s.clock()
	if wait := b.wait(began.Add(-2*time.Hour), now.Add(20*time.Minute)); wait != 40*time.Minute {
		t.Errorf("the next one after %v", wait)
	}
	if wait := b.wait(began.Add(-2*time.Hour), now.Add(-30*time.Hour)); wait != time.Hour { // the clock was put back
		t.Errorf("the next one after %v", wait)
	}
}

func TestBackupConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  BackupConfig
		says string
	}{
		{BackupConfig{}, ""},
		{DefaultBackups, ""},
		{BackupConfig{Every: time.Second, Hourly: 1}, "less than a minute"},
		{BackupConfig{Every: -time.Hour, Hourly: 1}, "less than a minute"},
		{BackupConfig{Every: time.Hour, Daily: -1, Hourly: 2}, "negative"},
		{BackupConfig{Every: time.Hour}, "--backup-every 0"},
	} {
		err := c.cfg.validate()
		if got := cmp.Or(err, errors.New("")).Error(); (err == nil) != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
