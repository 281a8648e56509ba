package central

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/internal/backoff"
	"rackpower/internal/metrics"
	"rackpower/power"
)

// BackupConfig says when central backs its database up by itself, and which backups stay.
type BackupConfig struct {
	Dir   string        // "": the directory backups in Config.Data
	Every time.Duration // 0: never
	// Of each of the newest so many hours, days and weeks (in UTC, from Monday on) that have a
	// backup, the newest one stays.
	Hourly, Daily, Weekly int
}

// DefaultBackups are those of the last day, week and month.
var DefaultBackups = BackupConfig{Every: time.Hour, Hourly: 24, Daily: 7, Weekly: 4}

// BackupDir is where the backups lie that central with the data directory makes by itself.
func BackupDir(data string) string { return filepath.Join(data, "backups") }

func (c BackupConfig) validate() error {
	switch {
	case c.Every == 0:
		return nil
	case c.Every < time.Minute:
		return fmt.Errorf("--backup-every: %s is less than a minute", c.Every)
	case c.Hourly < 0 || c.Daily < 0 || c.Weekly < 0:
		return errors.New("a number of backups to keep is negative")
	case c.Hourly+c.Daily+c.Weekly == 0:
		return errors.New("no backup is to be kept: --backup-every 0 makes none")
	}
	return nil
}

const (
	backupPrefix = "central-"
	backupSuffix = ".db"
	backupTime   = "20060102T150405Z"
	// firstBackup is how long after the start one that is due is made: central has other things
	// to do first.
	firstBackup = 10 * time.Second
	// backupAgain is when one that failed is tried again.
	backupAgain = 5 * time.Minute
)

// BackupFile is a backup in a directory, as its name says.
type BackupFile struct {
	Path string
	At   time.Time // when it was made; zero: the name does not tell, and it is never removed
	Size int64     // bytes
}

// BackupFiles lists the backups in a directory, the newest first. Without a directory there are none.
func BackupFiles(dir string) ([]BackupFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []BackupFile
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), backupSuffix) {
			continue
		}
		f := BackupFile{Path: filepath.Join(dir, e.Name()), Size: info.Size()}
		text := strings.TrimSuffix(strings.TrimPrefix(e.Name(), backupPrefix), backupSuffix)
		if at, err := time.Parse(backupTime, text); err == nil && backupName(at) == e.Name() {
			f.At = at
		}
		list = append(list, f)
	}
	slices.SortStableFunc(list, func(a, b BackupFile) int { return b.At.Compare(a.At) })
	return list, nil
}

func backupName(at time.Time) string {
	return backupPrefix + at.UTC().Format(backupTime) + backupSuffix
}

// keeps returns those of the times, the newest first, whose backups stay: the newest of each of
// the newest so many hours, days and weeks, and the newest of all.
func (c BackupConfig) keeps(times []time.Time) map[time.Time]bool {
	stay := map[time.Time]bool{}
	for _, rule := range []struct {
		n    int
		span func(time.Time) string
	}{
		{1, func(time.Time) string { return "" }},
		{c.Hourly, func(t time.Time) string { return t.Format("2006-01-02T15") }},
		{c.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{c.Weekly, func(t time.Time) string { year, week := t.ISOWeek(); return fmt.Sprint(year, "-", week) }},
	} {
		last, left := "none", rule.n
		for _, at := range times {
			if span := rule.span(at.UTC()); left > 0 && span != last {
				stay[at], last, left = true, span, left-1
			}
		}
	}
	return stay
}

// backups makes them.
type backups struct {
	cfg  BackupConfig
	c    *Central
	made metrics.Counts // by outcome

	mu      sync.Mutex
	last    time.Time // when the newest was made; zero: there is none
	failed  string    // why the latest try failed; "": it did not
	since   time.Time // when the tries began to fail
	nextTry time.Time
}

func newBackups(c *Central) *backups {
	b := &backups{cfg: c.cfg.Backups, c: c}
	if b.cfg.Dir == "" {
		b.cfg.Dir = BackupDir(c.cfg.Data)
	}
	return b
}

// run makes backups until ctx ends. What was made before the start counts.
func (b *backups) run(ctx context.Context) {
	if files, err := BackupFiles(b.cfg.Dir); err == nil && len(files) > 0 {
		b.mu.Lock()
		b.last = files[0].At
		b.mu.Unlock()
	}
	began := b.c.cfg.Now()
	for {
		if backoff.Sleep(ctx, b.wait(began, b.c.cfg.Now())) != nil {
			return
		}
		if err := b.make(ctx); ctx.Err() == nil {
			b.note(err)
		}
	}
}

// wait is how long it is at the time now until the next backup; began is when central did.
func (b *backups) wait(began, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.last.Add(b.cfg.Every)
	switch first := began.Add(firstBackup); {
	case b.failed != "":
		next = now.Add(min(backupAgain, b.cfg.Every))
	case next.Before(first):
		next = first
	case next.After(now.Add(b.cfg.Every)): // the clock was put back
		next = now.Add(b.cfg.Every)
	}
	b.nextTry = next
	return max(next.Sub(now), 0)
}

// make makes a backup, and then removes those that need not stay.
func (b *backups) make(ctx context.Context) error {
	if err := store.MakeDirectory(b.cfg.Dir); err != nil {
		return err
	}
	b.removeUnfinished()
	if err := b.room(); err != nil {
		return err
	}
	began := b.c.cfg.Now()
	to := filepath.Join(b.cfg.Dir, backupName(began))
	sum, err := store.Backup(ctx, DatabasePath(b.c.cfg.Data), to)
	if err != nil {
		return err
	}
	b.c.log.Info("the database was backed up", "file", to, "nodes", sum.Nodes, "ops", sum.Ops, "took", b.c.cfg.Now().Sub(began))
	b.mu.Lock()
	b.last = began
	b.mu.Unlock()
	if err := b.prune(); err != nil {
		b.c.log.Warn("older backups stay", "err", err)
	}
	return nil
}

// removeUnfinished removes what a process that died left of a backup: nobody else makes
// one of that name.
func (b *backups) removeUnfinished() {
	files, err := filepath.Glob(filepath.Join(b.cfg.Dir, "."+backupPrefix+"*"+backupSuffix+".*"))
	for _, file := range files {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		b.c.log.Warn("unfinished backups stay", "err", err)
	}
}

// room fails where a backup would leave no room for the database itself to grow.
func (b *backups) room() error {
	disk, err := b.c.store.DiskFigures()
	if err != nil {
		return err
	}
	free, err := store.Free(b.cfg.Dir)
	if err != nil {
		return err
	}
	if need := uint64(max(2*disk.Database, 0)); free < need {
		return fmt.Errorf("%w in %s: it would need %d MiB, and as many are to stay free; %d are", store.ErrNoRoom, b.cfg.Dir, need>>21+1,
			free>>20)
	}
	return nil
}

func (b *backups) prune() error {
	files, err := BackupFiles(b.cfg.Dir)
	if err != nil {
		return err
	}
	var times []time.Time
	for _, f := range files {
		if !f.At.IsZero() {
			times = append(times, f.At)
		}
	}
	stay := b.cfg.keeps(times)
	var failed error
	for _, f := range files {
		if !f.At.IsZero() && !stay[f.At] {
			failed = errors.Join(failed, os.Remove(f.Path))
		}
	}
	return failed
}

func (b *backups) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.made.Add(1, "made")
		if b.failed != "" {
			b.c.log.Info("the database is backed up again")
		}
		b.failed, b.since = "", time.Time{}
		return
	}
	b.made.Add(1, "failed")
	b.c.log.Error("the database is not backed up", "err", err)
	if b.failed == "" {
		b.since = b.c.cfg.Now()
	}
	b.failed = err.Error()
}

// attention is the item of a backup that failed.
func (b *backups) attention() (item api.Attention, failing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == "" {
		return item, false
	}
	newest := "there is none"
	if !b.last.IsZero() {
		newest = "the newest is of " + power.At(b.last)
	}
	return api.Attention{
		Severity: api.SeverityWarning, Kind: api.AttentionBackup, Since: b.since, Next: b.nextTry,
		Message: fmt.Sprintf("central's database is not backed up (%s): %s", newest, b.failed),
		Do:      "make room, or name another directory (--backup-dir)",
		Run:     []string{"df -h " + b.cfg.Dir, "rackpower-central backup list --data " + b.c.cfg.Data},
	}, true
}

var (
	backupsMade = figures.Counter("rackpower_central_backups_total", "Backups of the database that central tried to make, by outcome.",
		"outcome")
	backupLast = figures.Gauge("rackpower_central_backup_last_timestamp_seconds",
		"When the newest backup of the database was made; 0: there is none.")
)

func (b *backups) collect(s metrics.Sink) {
	if b.cfg.Every == 0 {
		return
	}
	b.made.Collect(s, backupsMade)
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Value(backupLast, seconds(b.last))
}
