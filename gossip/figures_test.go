package gossip

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"rackpower/power"
)

// TestFigures measures what the README says, at full size. It asserts the targets
// and prints the figures:
//
//	RACKPOWER_FIGURES=1 go test ./gossip -run TestFigures -v -timeout 20m
//
// RACKPOWER_FIGURES_N sets the number of agents (100).
func TestFigures(t *testing.T) {
	if os.Getenv("RACKPOWER_FIGURES") == "" {
		t.Skip("LEFT OUT: takes minutes and both cores; set RACKPOWER_FIGURES=1")
	}
	debug.SetGCPercent(400) // a hundred agents share one heap
	n := 100
	if text := os.Getenv("RACKPOWER_FIGURES_N"); text != "" {
		n, _ = strconv.Atoi(text)
	}
	began := time.Now()
	f := newFleet(t, n, 40, nil)
	t.Logf("%d agents made in %.2f s", n, time.Since(began).Seconds())
	say := func(format string, args ...any) { t.Helper(); t.Logf(format, args...) }
	await(t, time.Minute, "all members", f.whole)
	say("started at once: all members seen by all after %s", sec(time.Since(began)))
	await(t, time.Minute, "all records", func() bool { return f.missing(power.On) == 0 })
	say("   all records everywhere after %s", sec(time.Since(began)))
	rounds := math.Log(float64(n)) / math.Log(4)
	say("theory: %.1f rounds of 100 ms = %.2f s", rounds, rounds/10)
	f.settle()
	t.Run("one", func(t *testing.T) { f.figuresOne(t, time.Second, "") })
	t.Run("all", func(t *testing.T) { f.figuresAll(t, 2*time.Second, 4*time.Second, "") })
	t.Run("rest", f.figuresRest)
	t.Run("loss", func(t *testing.T) {
		f.wire.loss.Store(100)
		defer f.wire.loss.Store(0)
		f.figuresOne(t, 10*time.Second, "10 % loss, ")
		f.figuresAll(t, 10*time.Second, 10*time.Second, "10 % loss, ")
	})
	f.settle()
	t.Run("partition", f.figuresPartition)
	f.settle()
	t.Run("restart", f.figuresRestart)
	f.settle()
	t.Run("failure", f.figuresFailure)
}

// settle waits until all is equal and nobody hurries.
func (f *fleet) settle() {
	await(f.t, time.Minute, "rest", func() bool {
		for _, c := range f.agents {
			if c.behind.Load() {
				return false
			}
		}
		return f.whole()
	})
}

func (f *fleet) figuresOne(t *testing.T, bound time.Duration, what string) {
	var half, most, all []time.Duration
	missing := 0
	for round := range 30 {
		i := round * 7 % len(f.agents)
		f.flip(i, power.Off)
		s := f.spread([]int{i}, power.Off, 10*time.Second)
		missing += s.missing()
		half, most, all = append(half, s.at(50)), append(most, s.at(99)), append(all, s.at(100))
		f.flip(i, power.On)
		missing += f.spread([]int{i}, power.On, 10*time.Second).missing()
		time.Sleep(2100 * time.Millisecond) // the pace of one agent among 100
	}
	t.Logf("%sone change, 30 times: 50 / 99 / 100 %% of agents: median %s / %s / %s, worst %s; %d missing", what,
		sec(median(half)), sec(median(most)), sec(median(all)), sec(slices.Max(all)), missing)
	if median(most) > bound || missing > 0 {
		t.Errorf("99 %% after %v, want %v; %d missing", median(most), bound, missing)
	}
}

func (f *fleet) figuresAll(t *testing.T, most, all time.Duration, what string) {
	state := power.On
	for range 5 {
		time.Sleep(4100 * time.Millisecond)
		state = map[power.State]power.State{power.On: power.Off, power.Off: power.On}[state]
		for i := range f.agents {
			f.flip(i, state)
		}
		s := f.spread(f.all(), state, 20*time.Second)
		t.Logf("%sall racks flip: 50 / 99 / 100 %% of pairs %s / %s / %s; %d missing", what, sec(s.at(50)), sec(s.at(99)), sec(s.at(100)),
			s.missing())
		if s.at(99) > most || s.at(100) > all {
			t.Errorf("want 99 %% in %v, all in %v", most, all)
		}
	}
	time.Sleep(4100 * time.Millisecond)
	for i := range f.agents {
		f.flip(i, power.On)
	}
	f.spread(f.all(), power.On, 20*time.Second)
}

func (f *fleet) figuresRest(t *testing.T) {
	f.settle()
	time.Sleep(5 * time.Second)
	const span = 60 * time.Second
	bytes, cpu, exchanges := f.wire.out.Load(), cpuTime(), f.exchangeBytes()
	time.Sleep(span)
	perAgent := func(x float64) float64 { return x / float64(len(f.agents)) / span.Seconds() }
	rate := perAgent(float64(f.wire.out.Load() - bytes))
	share := perAgent((cpuTime() - cpu).Seconds()) * 100
	t.Logf("at rest: %.0f bytes/s sent an agent (of these exchanges %.0f), %.3f %% of a core", rate,
		perAgent(float64(f.exchangeBytes()-exchanges))/2, share)
	if rate > 4096 || share > 0.5 {
		t.Error("want under 4,096 bytes/s and 0.5 %")
	}
}

func (f *fleet) exchangeBytes() (sum uint64) {
	for _, c := range f.agents {
		sum += c.exchangeBytes.Load()
	}
	return sum
}

func (f *fleet) figuresPartition(t *testing.T) {
	f.halves()
	parted := time.Now()
	await(t, 2*time.Minute, "two halves", func() bool {
		for _, c := range f.agents {
			if alive(c) > (len(f.agents)+1)/2 {
				return false
			}
		}
		return true
	})
	for i := range f.agents {
		f.flip(i, power.Off)
	}
	time.Sleep(max(time.Until(parted.Add(time.Minute)), 10*time.Second))
	f.wire.part(nil)
	took := await(t, 10*time.Second, "all know all", func() bool { return f.missing(power.Off) == 0 })
	t.Logf("parted for a minute: all records everywhere %s after it was healed", sec(took))
	t.Logf("   all members alive everywhere %s later", sec(await(t, time.Minute, "whole", f.whole)))
	for i := range f.agents {
		f.flip(i, power.On)
	}
	f.spread(f.all(), power.On, 20*time.Second)
}

func (f *fleet) figuresRestart(t *testing.T) {
	var half []int
	for i := range f.agents {
		if i%2 == 1 {
			half = append(half, i)
		}
	}
	began := time.Now()
	f.restart(half, 2)
	made := time.Since(began)
	all := await(t, 10*time.Second, "all know all", func() bool { return f.missing(power.On) == 0 })
	t.Logf("%d of %d restarted at once: made after %s, all records everywhere %s later, all members %s after that",
		len(half), len(f.agents), sec(made), sec(all), sec(await(t, time.Minute, "whole", f.whole)))
}

// figuresFailure ends one agent without a word.
func (f *fleet) figuresFailure(t *testing.T) {
	i := len(f.agents) / 2
	old := f.agents[i]
	crash(old)
	others := slices.DeleteFunc(slices.Clone(f.agents), func(c *Cluster) bool { return c == old })
	took := await(t, time.Minute, "all see the failure", func() bool {
		seen := 0
		for _, c := range others {
			if alive(c) < len(f.agents) {
				seen++
			}
		}
		return seen == len(others)
	})
	began := time.Now()
	f.start(i, 3, old)
	back := await(t, time.Minute, "it knows all", func() bool {
		for j := range f.agents {
			if !knows(f.agents[i], agentName(j), power.On) {
				return false
			}
		}
		return true
	})
	t.Logf("one agent dies: all others see it after %s; started again it has the whole fleet after %s (%s with its start)",
		sec(took), sec(back), sec(time.Since(began)))
}

func sec(d time.Duration) string {
	if d == time.Hour {
		return "never"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
