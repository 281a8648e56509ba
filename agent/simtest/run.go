package simtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/journal/faultfs"
)

// EnvNumber is the number in an environment variable.
func EnvNumber(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: want a number", name, text)
	}
	return n
}

// Run is a number of histories of one kind.
type Run struct {
	Name      string
	Histories uint64 // where nobody says
	Draw      func(seed, n uint64) Script
	Play      Play
	Meets     []string // what must have been met
	MeetsFrom uint64   // by so many histories
}

// Play plays a history. The trace of all that happened is written where it is verbose.
type Play func(t *testing.T, s Script, verbose bool) Result

// Result is what became of a history.
type Result struct {
	Broken string         // the rules that were broken; empty: none
	Trace  string         // what happened, line by line, if it was traced
	Fatal  []faultfs.Call // the calls of the disk within which the agent died
	Met    map[string]int
}

// Test plays the histories (PROOF_HISTORIES of them from PROOF_SEED, for at most
// PROOF_TIME). One that breaks a rule is shrunk and printed as a transcript, which
// Transcripts replays.
func (r Run) Test(t *testing.T) {
	seed := EnvNumber(t, "PROOF_SEED", 1)
	histories := EnvNumber(t, "PROOF_HISTORIES", r.Histories)
	var limit time.Duration
	if text := os.Getenv("PROOF_TIME"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		limit /= time.Duration(EnvNumber(t, "PROOF_SHARE", 1))
	}
	began := time.Now()
	var next, Result atomic.Uint64
	var failed atomic.Bool
	var once sync.Once
	var mu sync.Mutex
	met := map[string]int{}
	t.Run("histories", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for !failed.Load() && (limit == 0 || time.Since(began) < limit) {
					n := next.Add(1)
					if n > histories {
						return
					}
					script := r.Draw(seed, n)
					p := r.Play(t, script, false)
					mu.Lock()
					for what, n := range p.Met {
						met[what] += n
					}
					mu.Unlock()
					if p.Broken != "" {
						failed.Store(true)
						once.Do(func() { t.Error(Explain(t, r.Play, fmt.Sprintf("history %d of seed %d", n, seed), script, p.Broken)) })
						return
					}
					if p := Result.Add(1); p%10000 == 0 {
						fmt.Printf("%s: %d histories in %s, %.0f/s\n", r.Name, p, time.Since(began).Round(time.Second),
							float64(p)/time.Since(began).Seconds())
					}
				}
			})
		}
	})
	took := time.Since(began)
	for _, what := range slices.Sorted(maps.Keys(met)) {
		t.Logf("%8d %s", met[what], what)
	}
	for _, what := range r.Meets {
		if met[what] == 0 && Result.Load() >= r.MeetsFrom {
			t.Errorf("no history met %q", what)
		}
	}
	fmt.Printf("%s: seed %d, %d histories in %s, %.0f/s\n", r.Name, seed, Result.Load(), took.Round(10*time.Millisecond),
		float64(Result.Load())/took.Seconds())
}

// Explain shrinks a script that broke a rule and tells its trace. The smaller
// script must break the same rule.
func Explain(t *testing.T, play Play, what string, s Script, broken string) string {
	rule := ruleOf(broken)
	tries := int(EnvNumber(t, "PROOF_SHRINK", 1500))
	small := shrink(s, tries, func(c Script) bool {
		for range 2 { // what runs at the same instant may run in another order
			if p := play(t, c, false); p.Broken != "" && ruleOf(p.Broken) == rule {
				return true
			}
		}
		return false
	})
	trace := ""
	for range 20 {
		p := play(t, small, true)
		trace = p.Trace
		if p.Broken != "" {
			broken = p.Broken
			break
		}
	}
	if file := os.Getenv("PROOF_OUT"); file != "" {
		_ = os.WriteFile(file, []byte(fmt.Sprintf("# %s\n%s%s\n", strings.ReplaceAll(broken, "\n", "\n# "), small, trace)), 0o644)
	}
	return fmt.Sprintf("%s broke a rule:\n%s\n\nReplay: put these lines into a file of testdata/sim.\n# %s\n%s%s", what, broken,
		strings.ReplaceAll(broken, "\n", "\n# "), small, trace)
}

func ruleOf(broken string) string {
	words := strings.SplitN(broken, "s ", 2) // "at 1.234s RULE: ..."
	if len(words) < 2 {
		return broken
	}
	rule, _, _ := strings.Cut(words[1], ":")
	return rule
}

// Transcripts replays the histories kept in dir, or the one that PROOF_REPLAY names, with
// its trace.
func Transcripts(t *testing.T, dir string, play Play) {
	if file := os.Getenv("PROOF_REPLAY"); file != "" {
		p := play(t, read(t, file), true)
		t.Logf("%s\n%s", file, p.Trace)
		if p.Broken != "" {
			t.Error(p.Broken)
		}
		return
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script := read(t, file)
			for range 3 {
				if p := play(t, script, true); p.Broken != "" {
					t.Fatalf("%s\n%s%s", p.Broken, script, p.Trace)
				}
			}
		})
	}
}

// CrashEverywhere plays the histories that crash makes, for every call and every way.
func CrashEverywhere(t *testing.T, play Play, stride int, crash func(args ...string) Script) {
	losses := []string{"power=0", "power=2"}
	if stride < 500 {
		losses = append(losses, "power=1", "power=3")
	}
	n, deaths := 1, 0
	crashed := func(args ...string) (Result, bool) {
		s := crash(append([]string{fmt.Sprintf("n=%d", n)}, args...)...)
		p := play(t, s, false)
		if p.Broken != "" {
			t.Error(Explain(t, play, "this history", s, p.Broken))
		}
		deaths += len(p.Fatal)
		return p, p.Broken == ""
	}
	for ; ; n++ {
		first, ok := crashed("byte=0")
		if !ok {
			return
		}
		if len(first.Fatal) == 0 {
			break
		}
		for _, loss := range losses {
			ways := []string{"keep=0", "keep=1000"}
			if size := first.Fatal[0].Size; first.Fatal[0].Op == faultfs.OpWrite {
				ways = []string{fmt.Sprintf("byte=%d", size), fmt.Sprintf("byte=%d", size-1)}
				for at := 1; at < size; at += stride {
					ways = append(ways, fmt.Sprintf("byte=%d", at))
				}
			}
			for _, way := range ways {
				if _, ok := crashed(way, loss); !ok {
					return
				}
			}
		}
	}
	t.Logf("%d calls, %d deaths", n-1, deaths)
}

func read(t *testing.T, name string) Script {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}
