package agent

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

// opsHistories is how many histories are played where nobody says.
const opsHistories = 400

func envNumber(t *testing.T, name string, otherwise uint64) uint64 {
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

// opsMeets is what ten thousand histories must have met, or they prove less than
// they seem to.
var opsMeets = []string{
	"verdict start idle", "verdict join equal", "verdict join satisfied", "verdict hasten grace-over", "verdict follow asks-more",
	"verdict follow cancelling",
	"verdict follow no-final", "verdict supersede conflict", "verdict queue queued", "verdict refuse busy", "verdict refuse stale",
	"verdict refuse desired", "repeat",
	"end succeeded verified", "end succeeded already", "end succeeded acknowledged", "end failed node-off", "end failed not-reached",
	"end failed not-escalated",
	"end failed unreachable", "end failed auth-failed", "end failed bmc-refused", "end failed bmc-busy", "end failed unsupported",
	"end failed privilege",
	"end superseded newer", "end cancelled asked", "end cancelled desired", "end expired deadline", "end indeterminate interrupted",
	"end indeterminate unanswered", "end indeterminate uncertain",
	"unsure and there", "unsure and gone", "resend", "resend after a death", "cycle goes on after a death",
	"death in create", "death in write", "death in sync", "death in rename", "death in syncdir",
	"denied accepted", "denied started", "denied sending", "denied sent", "denied off-seen", "denied ended", "denied cancel",
}

// TestSimOps plays random histories (PROOF_HISTORIES of them from PROOF_SEED, for at
// most PROOF_TIME) and holds each against the model. One that breaks a rule is shrunk
// and printed as a transcript, which TestSimTranscripts replays.
func TestSimOps(t *testing.T) {
	simRun{name: "ops", histories: opsHistories, draw: drawOps, meets: opsMeets, meetsFrom: 10000}.play(t)
}

// simRun is a number of histories of one kind.
type simRun struct {
	name      string
	histories uint64 // where nobody says
	draw      func(seed, n uint64) simScript
	meets     []string // what must have been met
	meetsFrom uint64   // by so many histories
}

func (r simRun) play(t *testing.T) {
	seed := envNumber(t, "PROOF_SEED", 1)
	histories := envNumber(t, "PROOF_HISTORIES", r.histories)
	var limit time.Duration
	if text := os.Getenv("PROOF_TIME"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		limit /= time.Duration(envNumber(t, "PROOF_SHARE", 1))
	}
	began := time.Now()
	var next, played atomic.Uint64
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
					script := r.draw(seed, n)
					p := playSim(t, script, false)
					mu.Lock()
					for what, n := range p.met {
						met[what] += n
					}
					mu.Unlock()
					if p.broken != "" {
						failed.Store(true)
						once.Do(func() { t.Error(explainSim(t, fmt.Sprintf("history %d of seed %d", n, seed), script, p.broken)) })
						return
					}
					if p := played.Add(1); p%10000 == 0 {
						fmt.Printf("%s: %d histories in %s, %.0f/s\n", r.name, p, time.Since(began).Round(time.Second),
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
	for _, what := range r.meets {
		if met[what] == 0 && played.Load() >= r.meetsFrom {
			t.Errorf("no history met %q", what)
		}
	}
	fmt.Printf("%s: seed %d, %d histories in %s, %.0f/s\n", r.name, seed, played.Load(), took.Round(10*time.Millisecond),
		float64(played.Load())/took.Seconds())
}

// explainSim shrinks a script that broke a rule and tells its trace. The smaller
// script must break the same rule.
func explainSim(t *testing.T, what string, s simScript, broken string) string {
	rule := ruleOf(broken)
	tries := int(envNumber(t, "PROOF_SHRINK", 1500))
	small := shrink(s, tries, func(c simScript) bool {
		for range 2 { // what runs at the same instant may run in another order
			if p := playSim(t, c, false); p.broken != "" && ruleOf(p.broken) == rule {
				return true
			}
		}
		return false
	})
	lines := ""
	for range 20 {
		p := playSim(t, small, true)
		lines = p.trace
		if p.broken != "" {
			broken = p.broken
			break
		}
	}
	if file := os.Getenv("PROOF_OUT"); file != "" {
		_ = os.WriteFile(file, []byte(fmt.Sprintf("# %s\n%s%s\n", strings.ReplaceAll(broken, "\n", "\n# "), small, lines)), 0o644)
	}
	return fmt.Sprintf("%s broke a rule:\n%s\n\nReplay: put these lines into a file of testdata/sim.\n# %s\n%s%s", what, broken,
		strings.ReplaceAll(broken, "\n", "\n# "), small, lines)
}

func ruleOf(broken string) string {
	words := strings.SplitN(broken, "s ", 2) // "at 1.234s RULE: ..."
	if len(words) < 2 {
		return broken
	}
	rule, _, _ := strings.Cut(words[1], ":")
	return rule
}

// TestSimTranscripts replays the histories kept in testdata/sim, and the one
// that PROOF_REPLAY names, with its trace.
func TestSimTranscripts(t *testing.T) {
	if file := os.Getenv("PROOF_REPLAY"); file != "" {
		p := playSim(t, readScript(t, file), true)
		t.Logf("%s\n%s", file, p.trace)
		if p.broken != "" {
			t.Error(p.broken)
		}
		return
	}
	files, err := filepath.Glob("testdata/sim/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script := readScript(t, file)
			for range 3 {
				if p := playSim(t, script, true); p.broken != "" {
					t.Fatalf("%s\n%s%s", p.broken, script, p.trace)
				}
			}
		})
	}
}

// opsExamples are short histories for TestSimOpsCrashEverywhere: together they write every
// kind of record.
var opsExamples = map[string]string{
	"cycle": `
		0s hand n1 on
		0s late n1 on=1s off=1s
		0s ask a1 n1 cycle boot=pxe
		1s ask a2 n1 cycle boot=pxe
		20s report n=9`,
	"supersede": `
		0s latency n1 50ms
		0s ask a1 n1 on
		70ms ask a2 n1 off
		0s ask a3 n1 cycle
		0s ask a4 n1 on
		0s ask a5 n1 soft-off
		20s report n=2`,
	"hasten": `
		0s hand n1 on
		0s soft n1 40s
		0s ask a1 n1 soft-off grace=30s
		3s ask a2 n1 off
		1s ask a3 n1 on if_busy=queue
		9s cancel a3
		20s report n=9`,
	"soft-off": `
		0s hand n1 on
		0s deaf n1 true
		0s ask a1 n1 soft-off grace=5s
		20s ask a2 n1 diag`,
	"once": `
		0s hand n1 on
		0s latency n1 100ms
		0s ask a1 n1 reset
		0s ask a2 n1 diag
		0s ask a3 n1 bmc-reset
		0s ask a4 n1 on
		90s report n=2
		1s report n=9`,
	"lost answers": `
		0s hand n1 on
		0s lose n1 n=2
		0s ask a1 n1 off
		0s ask a2 n1 on if_busy=queue
		0s ask a3 n1 reset if_busy=queue
		5s lose n1 n=1`,
	"cancel": `
		0s mute n1
		0s ask a1 n1 cycle
		1s ask a2 n1 off if_busy=queue deadline=2s
		1s cancel a1
		9s wake n1
		0s ask a4 n1 on
		5s report n=1`,
}

// TestSimOpsCrashEverywhere lets the agent die within every call that writes to its
// journal in the life of a few operations: before any byte of a write, after all of
// them, and at steps of PROOF_STRIDE bytes between; by a kill, and by losses of power that
// leave nothing, all or some of what was not flushed. The same in the start after it.
func TestSimOpsCrashEverywhere(t *testing.T) {
	stride := int(envNumber(t, "PROOF_STRIDE", 1000))
	for name, text := range opsExamples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script, err := parseScript(text)
			if err != nil {
				t.Fatal(err)
			}
			everywhere(t, stride, func(args ...string) simScript {
				return append(simScript{{verb: "crash", args: args}}, script...)
			})
			if testing.Short() || t.Failed() {
				return
			}
			everywhere(t, stride*4, func(args ...string) simScript {
				mid := len(script) / 2
				return slices.Concat(simScript{{verb: "start-crash", args: args}}, script[:mid+1],
					simScript{{after: 100 * time.Millisecond, verb: "kill"}}, script[mid+1:])
			})
		})
	}
}

// everywhere plays the histories that crash makes, for every call and every way.
func everywhere(t *testing.T, stride int, crash func(args ...string) simScript) {
	losses := []string{"power=0", "power=2"}
	if stride < 500 {
		losses = append(losses, "power=1", "power=3")
	}
	n, deaths := 1, 0
	play := func(args ...string) (played, bool) {
		s := crash(append([]string{fmt.Sprintf("n=%d", n)}, args...)...)
		p := playSim(t, s, false)
		if p.broken != "" {
			t.Error(explainSim(t, "this history", s, p.broken))
		}
		deaths += len(p.fatal)
		return p, p.broken == ""
	}
	for ; ; n++ {
		first, ok := play("byte=0")
		if !ok {
			return
		}
		if len(first.fatal) == 0 {
			break
		}
		for _, loss := range losses {
			ways := []string{"keep=0", "keep=1000"}
			if size := first.fatal[0].Size; first.fatal[0].Op == faultfs.OpWrite {
				ways = []string{fmt.Sprintf("byte=%d", size), fmt.Sprintf("byte=%d", size-1)}
				for at := 1; at < size; at += stride {
					ways = append(ways, fmt.Sprintf("byte=%d", at))
				}
			}
			for _, way := range ways {
				if _, ok := play(way, loss); !ok {
					return
				}
			}
		}
	}
	t.Logf("%d calls, %d deaths", n-1, deaths)
}
