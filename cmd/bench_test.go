package cmd_test

// The figures of make bench: whole processes on loopback, each beside a baseline of the same
// run. BENCH is a regular expression that chooses rows by their names, RUNS how often each
// is measured (5). What a machine lacks for a row is left out and said. BENCHMARKS.md has the
// method.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bench is one run of make bench.
type bench struct {
	began time.Time
	only  *regexp.Regexp
	runs  int
	lines []benchLine
	left  []string // what is left out, and why
}

// figure is one measurement: a value in the unit of its row, and the processor time of
// everything that took part but the simulated BMCs. A cpu of 0 is not measured.
type figure struct {
	value float64
	cpu   time.Duration
}

// benchRow is something that is measured again and again, with its baselines in turn. Runs
// that fail end the group with t.Fatal.
type benchRow struct {
	name, unit string
	runs       int    // 0: as many as asked for
	before     func() // each run of ours and of a baseline; not measured
	first      func() // before that, of ours alone
	ours       func() figure
	baselines  []baseline
	atMost     float64 // target of the median, in unit; 0: none
	p99        float64 // target of what 1 % of the runs exceed; 0: not shown
}

// baseline is another way to the same end.
type baseline struct {
	name     string
	run      func() figure // nil: not on this machine; name says why
	times    float64       // target: at most so many times its median; 0: none
	cpuTimes float64       // and so many times its processor time
}

// within is the baseline with a target.
func (b baseline) within(times, cpuTimes float64) baseline {
	b.times, b.cpuTimes = times, cpuTimes
	return b
}

func TestBench(t *testing.T) {
	if os.Getenv("RACKPOWER_BENCH") == "" {
		t.Skip("LEFT OUT: takes minutes and both cores; make bench runs it")
	}
	b := &bench{began: time.Now(), runs: 5}
	var err error
	if b.only, err = regexp.Compile(os.Getenv("BENCH")); err != nil {
		t.Fatalf("BENCH: %v", err)
	}
	if text := os.Getenv("RUNS"); text != "" {
		if b.runs, err = strconv.Atoi(text); err != nil || b.runs < 1 {
			t.Fatalf("RUNS: %q is not a number of runs", text)
		}
	}
	machine := platformNow()
	for _, g := range benchGroups {
		if b.wants(g.rows...) && (!g.apart || os.Getenv("BENCH") != "") {
			t.Run(g.name, func(t *testing.T) { g.run(b, t) })
		}
	}
	b.print(os.Stdout, machine)
	if path := os.Getenv("RACKPOWER_BENCH_JSON"); path != "" {
		if err := b.save(path, machine); err != nil {
			t.Fatal(err)
		}
	}
}

// benchGroup is rows that share their processes.
type benchGroup struct {
	name string
	rows []string // all that it may measure: it is not begun if none is wanted
	run  func(b *bench, t *testing.T)
	// apart says that it is only begun when BENCH asks for it.
	apart bool
}

func (b *bench) wants(rows ...string) bool {
	for _, row := range rows {
		if b.only.MatchString(row) {
			return true
		}
	}
	return false
}

// say is progress, on standard error.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) leave(what, why string) {
	b.left = append(b.left, what+": "+why)
	b.say("LEFT OUT: %s: %s", what, why)
}

// measure measures rows, those that are wanted: each with its baselines in turn, run by run.
func (b *bench) measure(rows ...benchRow) {
	rows = slices.DeleteFunc(rows, func(r benchRow) bool { return !b.wants(r.name) })
	ours, others := make([]series, len(rows)), make([][]series, len(rows))
	runs := b.runs
	for i, r := range rows {
		others[i] = make([]series, len(r.baselines))
		runs = max(runs, r.runs)
	}
	for range runs {
		for i, r := range rows {
			one := func(to *series, run func() figure) {
				if run == nil {
					return
				}
				if r.before != nil {
					r.before()
				}
				to.add(run())
			}
			if r.first != nil {
				r.first()
			}
			one(&ours[i], r.ours)
			for k, other := range r.baselines {
				one(&others[i][k], other.run)
			}
		}
	}
	for i, r := range rows {
		b.add(r, ours[i], others[i])
	}
}

// add notes what was measured of a row.
func (b *bench) add(r benchRow, ours series, others []series) {
	line := benchLine{Row: r.name, Unit: r.unit, Ours: ours, AtMost: r.atMost, Quantile: 0.5}
	var cpu []benchLine
	shown := false
	for i, other := range r.baselines {
		if len(others[i].Values) == 0 {
			b.leave(r.name, other.name)
			continue
		}
		next := line
		next.Baseline, next.Other, next.Times = other.name, &others[i], other.times
		b.lines = append(b.lines, next)
		line.AtMost, shown = 0, true // is held against once
		if other.cpuTimes > 0 {
			cpu = append(cpu, benchLine{
				Row: r.name + ", CPU", Unit: "ms", Ours: series{Values: ours.CPU}, Quantile: 0.5, Baseline: other.name,
				Other: &series{Values: others[i].CPU}, Times: other.cpuTimes,
			})
		}
	}
	if !shown {
		b.lines = append(b.lines, line)
	}
	b.lines = append(b.lines, cpu...)
	if r.p99 > 0 {
		b.lines = append(b.lines, benchLine{Row: r.name + ", p99", Unit: r.unit, Ours: ours, AtMost: r.p99, Quantile: 0.99})
	}
	b.say("%s: %s", r.name, amount(ours.quantile(0.5), r.unit))
}

// cpuOf is the processor time that running processes have used so far: that of all their
// threads, to the nanosecond, where the kernel says so.
func cpuOf(pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it ended
			}
			if fields := strings.Fields(string(text)); len(fields) > 0 {
				n, _ := strconv.ParseInt(fields[0], 10, 64)
				sum += time.Duration(n)
			}
		}
	}
	return sum
}
