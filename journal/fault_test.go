package journal_test

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

// script is a workload of n groups over few keys; long payloads make segments of
// 16 KiB rotate.
func script(n int) [][]journal.Entry {
	rng := rand.New(rand.NewSource(int64(n)))
	var groups [][]journal.Entry
	for i := range n {
		var g []journal.Entry
		for k := range 1 + rng.Intn(3) {
			key := fmt.Sprint("k", rng.Intn(5))
			switch rng.Intn(4) {
			case 0:
				g = append(g, add(key, fmt.Sprint(i, ".", k)))
			case 1:
				g = append(g, drop(key))
			default:
				g = append(g, put(key, fmt.Sprint(i, ".", k, strings.Repeat("x", rng.Intn(900)))))
			}
		}
		groups = append(groups, g)
	}
	return groups
}

// outcome is what a run of a script left: acked is certain, maybe is the group
// whose Append failed in a way that leaves it open.
type outcome struct {
	acked *model
	maybe []journal.Entry
}

func (o outcome) check(got []string) error {
	if slices.Equal(got, o.acked.live()) || o.maybe != nil && slices.Equal(got, o.acked.with(o.maybe).live()) {
		return nil
	}
	return fmt.Errorf("recovered %.300v\nacknowledged %.300v\nand perhaps %.300v", got, o.acked.live(), o.maybe)
}

// run opens the journal, appends groups until it stops, and says what is owed.
func run(fsys journal.FS, before *model, groups [][]journal.Entry) (outcome, *journal.Journal) {
	o := outcome{acked: before}
	j, err := journal.Open(config(fsys))
	if err != nil {
		return o, nil
	}
	journal.Restock(j)
	for _, g := range groups {
		_, err := j.Append(g...)
		switch {
		case err == nil:
			o.acked = o.acked.with(g)
		case errors.Is(err, journal.ErrStopped) || isPower(err):
			o.maybe = g
			return o, j
		}
		journal.Restock(j)
	}
	return o, j
}

// Every call to the disk fails once, for a flush also with a restart and a loss
// of power behind it. Nothing acknowledged may be missing.
func TestEachCallFailsOnce(t *testing.T) {
	groups := script(60)
	clean := faultfs.New()
	_, j := run(clean, &model{}, groups)
	mustClose(t, j)
	for n := 1; n <= clean.Calls(); n++ {
		for name, fault := range map[string]error{"EIO": faultfs.ErrIO, "ENOSPC": faultfs.ErrFull} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				disk := faultfs.New()
				disk.FailCall(n, fault)
				o, j := run(disk, &model{}, groups)
				calls := disk.Log()
				call := calls[min(n, len(calls))-1]
				if j != nil {
					if j.Err() == nil {
						if err := o.check(texts(j.Live())); err != nil {
							t.Fatalf("live after %+v: %v", call, err)
						}
					}
					_ = j.Close()
				}
				rng := rand.New(rand.NewSource(int64(n)))
				lost := disk.PowerLoss(512, rng.Intn)
				restarted := disk.Restart()
				for what, fsys := range map[string]*faultfs.FS{"power loss": lost, "restart": restarted} {
					j := open(t, config(fsys))
					if err := o.check(texts(j.Live())); err != nil {
						t.Fatalf("%s after %+v: %v", what, call, err)
					}
					if j.Recovery().Damaged() {
						t.Fatalf("%s after %+v: false damage %v", what, call, j.Recovery().Damage)
					}
				}
			})
		}
	}
}

// A failed flush, then a restart that reads the page cache, then a loss of
// power: the history that cost other logs acknowledged records.
func TestFailedFlushThenRestartThenPowerLoss(t *testing.T) {
	first, second := script(25), script(30)
	clean := faultfs.New()
	_, j := run(clean, &model{}, first)
	mustClose(t, j)
	for n, call := range clean.Log() {
		if call.Op != faultfs.OpSync && call.Op != faultfs.OpSyncDir {
			continue
		}
		for seed := range 6 {
			disk := faultfs.New()
			// From the n-th flush on nothing is ever flushed: the process stops.
			disk.OnCall(func(c faultfs.Call) faultfs.Fault {
				if c.N > n && (c.Op == faultfs.OpSync || c.Op == faultfs.OpSyncDir) {
					return faultfs.Fault{Err: faultfs.ErrIO}
				}
				return faultfs.Fault{}
			})
			o, j := run(disk, &model{}, first)
			if j != nil {
				_ = j.Close()
			}
			disk = disk.Restart()
			j = open(t, config(disk))
			got := texts(j.Live())
			if err := o.check(got); err != nil {
				t.Fatalf("restart after call %d: %v", n, err)
			}
			_ = j.Close()
			// What the restarted process saw is now owed.
			base := o.acked
			if !slices.Equal(got, base.live()) {
				base = base.with(o.maybe)
			}
			disk = disk.Restart()
			rng := rand.New(rand.NewSource(int64(seed)))
			disk.PowerOffAt(8 + rng.Intn(60))
			o, _ = run(disk, base, second)
			for range 4 {
				disk := disk.PowerLoss([]int64{512, 4096}[rng.Intn(2)], rng.Intn)
				j = open(t, config(disk))
				if err := o.check(texts(j.Live())); err != nil {
					t.Fatalf("power loss after restart after failed flush %d: %v", n, err)
				}
				if j.Recovery().Damaged() {
					t.Fatalf("false damage: %v", j.Recovery().Damage)
				}
			}
		}
	}
}

// After a failed flush the journal goes on in a new segment and says so.
func TestFailedFlushTakesANewSegment(t *testing.T) {
	disk := faultfs.New()
	cfg := config(disk)
	var alarms []journal.AlarmKind
	cfg.OnAlarm = func(a journal.Alarm) { alarms = append(alarms, a.Kind) }
	j := open(t, cfg)
	appendAll(t, j, add("a", "1"))
	bad := newest(t, disk)
	disk.FailCall(2, faultfs.ErrIO)
	appendAll(t, j, add("b", "1"))
	appendAll(t, j, add("c", "1"))
	if newest(t, disk) == bad {
		t.Fatal("the file with the failed flush is still in use")
	}
	if !slices.Contains(alarms, journal.AlarmWrite) {
		t.Errorf("alarms %v lack %v", alarms, journal.AlarmWrite)
	}
	wantLive(t, j, "a=1", "b=1", "c=1")
	wantLive(t, open(t, config(disk.PowerLoss(512, func(int) int { return 0 }))), "a=1", "b=1", "c=1")
}

func TestFailStop(t *testing.T) {
	disk := faultfs.New()
	cfg := config(disk)
	var alarms []journal.AlarmKind
	cfg.OnAlarm = func(a journal.Alarm) { alarms = append(alarms, a.Kind) }
	j := open(t, cfg)
	appendAll(t, j, add("a", "1"))
	disk.OnCall(func(c faultfs.Call) faultfs.Fault { return faultfs.Fault{Err: faultfs.ErrIO} })
	_, err := j.Append(add("b", "1"))
	wantErr(t, err, journal.ErrStopped)
	wantErr(t, err, faultfs.ErrIO)
	disk.OnCall(nil)
	_, err = j.Append(add("c", "1"))
	wantErr(t, err, journal.ErrStopped)
	wantErr(t, j.Err(), journal.ErrStopped)
	wantErr(t, j.Close(), journal.ErrStopped)
	if !slices.Contains(alarms, journal.AlarmStopped) {
		t.Errorf("alarms %v", alarms)
	}
	wantLive(t, open(t, config(disk.PowerLoss(512, func(int) int { return 0 }))), "a=1")
}

// The disk gets full at every size; appends fail with ErrFull and leave nothing
// behind, never stop, and go on when there is room.
func TestFullDiskThenRoomAgain(t *testing.T) {
	groups, total := script(50), 0
	for extra := int64(0); extra < 60<<10; extra += 1100 {
		disk := faultfs.New()
		var alarms []journal.AlarmKind
		var mu sync.Mutex
		cfg := config(disk)
		cfg.KeepSegments = int(extra/1100%2) - 1 // none, or the default
		cfg.OnAlarm = func(a journal.Alarm) {
			mu.Lock()
			defer mu.Unlock()
			alarms = append(alarms, a.Kind)
		}
		disk.SetCapacity(extra)
		j, err := journal.Open(cfg)
		if err != nil {
			wantErr(t, err, journal.ErrFull)
			disk.SetCapacity(0)
			j = open(t, cfg)
			disk.SetCapacity(disk.Used() + extra)
		}
		journal.Restock(j)
		model, failed := &model{}, 0
		for i, g := range groups {
			if i == 40 {
				disk.SetCapacity(0)
				journal.Restock(j)
			}
			lsn := j.LSN()
			_, err := j.Append(g...)
			if err == nil {
				model = model.with(g)
			} else if failed++; !errors.Is(err, journal.ErrFull) || i >= 40 || j.LSN() != lsn || j.Err() != nil {
				t.Fatalf("extra %d, group %d: %v, LSN %d to %d, %v", extra, i, err, lsn, j.LSN(), j.Err())
			}
			if err := (outcome{acked: model}).check(texts(j.Live())); err != nil {
				t.Fatalf("extra %d, group %d: %v", extra, i, err)
			}
			journal.Restock(j)
		}
		total += failed
		mustClose(t, j)
		mu.Lock()
		if failed > 0 && (!slices.Contains(alarms, journal.AlarmFull) || !slices.Contains(alarms, journal.AlarmRoom)) {
			t.Errorf("extra %d: %d appends failed, alarms %v", extra, failed, alarms)
		}
		mu.Unlock()
		disk = disk.PowerLoss(4096, func(int) int { return 0 })
		j = open(t, config(disk))
		if err := (outcome{acked: model}).check(texts(j.Live())); err != nil {
			t.Fatalf("extra %d, after power loss: %v", extra, err)
		}
	}
	if total < 100 {
		t.Errorf("only %d appends met a full disk", total)
	}
}

// A restart on a disk that is full to the last byte finds its spare.
func TestOpenOnAFullDisk(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	appendAll(t, j, add("a", "1"))
	mustClose(t, j)
	disk.SetCapacity(disk.Used())
	for range 10 {
		j = open(t, config(disk))
		appendAll(t, j, put("n", "1"))
		mustClose(t, j)
	}
	wantLive(t, open(t, config(disk)), "a=1", "n=1")
}

// The random model: power losses, kills, failing calls and full disks in any
// order, compared with a naive model after each.
func TestPowerLossAgainstTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		disk, model := faultfs.New(), &model{}
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		groups := script(rapid.IntRange(5, 40).Draw(rt, "groups"))
		for range rapid.IntRange(1, 4).Draw(rt, "lives") {
			n := rapid.IntRange(1, 80).Draw(rt, "call")
			switch rapid.SampledFrom([]string{"power", "fail", "flush", "full"}).Draw(rt, "fault") {
			case "power":
				disk.PowerOffAt(n)
			case "fail":
				disk.FailCall(n, faultfs.ErrIO)
			case "flush":
				at := disk.Calls() + n
				disk.OnCall(func(c faultfs.Call) faultfs.Fault {
					if c.N >= at && c.Op == faultfs.OpSync {
						return faultfs.Fault{Err: faultfs.ErrIO}
					}
					return faultfs.Fault{}
				})
			case "full":
				disk.SetCapacity(disk.Used() + int64(n)*1000)
			}
			o, j := run(disk, model, groups)
			if j != nil && rapid.Bool().Draw(rt, "close") {
				_ = j.Close()
			}
			if rapid.Bool().Draw(rt, "kill") {
				disk = disk.Restart()
			} else {
				disk = disk.PowerLoss(rapid.SampledFrom([]int64{512, 4096}).Draw(rt, "unit"), choose)
			}
			disk.SetCapacity(0)
			j, err := journal.Open(config(disk))
			if err != nil {
				rt.Fatalf("cannot open: %v", err)
			}
			got := texts(j.Live())
			if err := o.check(got); err != nil {
				rt.Fatal(err)
			}
			if j.Recovery().Damaged() {
				rt.Fatalf("false damage %v", j.Recovery().Damage)
			}
			if model = o.acked; !slices.Equal(got, model.live()) {
				model = model.with(o.maybe)
			}
			_ = j.Close()
			disk = disk.Restart()
		}
	})
}

// Power goes under concurrent writers. Of each writer's chain all that was
// acknowledged is there, at most one more, and no half group.
func TestPowerLossUnderConcurrentWriters(t *testing.T) {
	for n := 1; n < 120; n += 3 {
		disk := faultfs.New()
		j := open(t, config(disk))
		disk.PowerOffAt(n)
		const writers = 6
		var acked [writers]int
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprint("w", w)
					if _, err := j.Append(add(key, fmt.Sprint(i)), add(key, strings.Repeat("x", 300)), add(key, "end")); err != nil {
						return
					}
					acked[w] = i + 1
				}
			})
		}
		wg.Wait()
		_ = j.Close()
		rng := rand.New(rand.NewSource(int64(n)))
		for range 3 {
			j := open(t, config(disk.PowerLoss([]int64{512, 4096}[rng.Intn(2)], rng.Intn)))
			got := map[string][]string{}
			for _, r := range j.Live() {
				got[r.Key] = append(got[r.Key], string(r.Payload))
			}
			for w := range writers {
				have := got[fmt.Sprint("w", w)]
				if len(have)%3 != 0 || len(have)/3 < acked[w] || len(have)/3 > acked[w]+1 {
					t.Fatalf("writer %d: %d records recovered, %d groups of 3 acknowledged", w, len(have), acked[w])
				}
				for i := 0; i < len(have); i += 3 {
					if have[i] != fmt.Sprint(i/3) {
						t.Fatalf("writer %d: group %d begins with %q", w, i/3, have[i])
					}
				}
			}
		}
	}
}
