package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proofDefault is how many histories are played where nobody says.
const proofDefault = 400

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

// TestProof plays random histories (PROOF_HISTORIES of them from PROOF_SEED, for at
// most PROOF_TIME) and holds each against the model. One that breaks a rule is shrunk
// and printed as a transcript, which TestProofTranscripts replays.
func TestProof(t *testing.T) {
	seed := envNumber(t, "PROOF_SEED", 1)
	histories := envNumber(t, "PROOF_HISTORIES", proofDefault)
	var limit time.Duration
	if text := os.Getenv("PROOF_TIME"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	var next, played atomic.Uint64
	var failed atomic.Bool
	var once sync.Once
	t.Run("histories", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for !failed.Load() && (limit == 0 || time.Since(began) < limit) {
					n := next.Add(1)
					if n > histories {
						return
					}
					script := drawProofScript(seed, n)
					if broken, _ := playProof(t, script, false); broken != "" {
						failed.Store(true)
						once.Do(func() { t.Error(explainProof(t, fmt.Sprintf("history %d of seed %d", n, seed), script, broken)) })
						return
					}
					if p := played.Add(1); p%10000 == 0 {
						fmt.Printf("proof: %d histories in %s, %.0f/s\n", p, time.Since(began).Round(time.Second), float64(p)/time.Since(began).Seconds())
					}
				}
			})
		}
	})
	took := time.Since(began)
	fmt.Printf("proof: seed %d, %d histories in %s, %.0f/s\n", seed, played.Load(), took.Round(10*time.Millisecond), float64(played.Load())/took.Seconds())
}

// explainProof shrinks a script that broke a rule and tells its story. The smaller
// script must break the same rule.
func explainProof(t *testing.T, what string, s proofScript, broken string) string {
	rule := ruleOf(broken)
	tries := int(envNumber(t, "PROOF_SHRINK", 1500))
	small := shrinkProofScript(s, tries, func(c proofScript) bool {
		for range 2 { // what runs at the same instant may run in another order
			if b, _ := playProof(t, c, false); b != "" && ruleOf(b) == rule {
				return true
			}
		}
		return false
	})
	story := ""
	for range 20 {
		b, told := playProof(t, small, true)
		story = told
		if b != "" {
			broken = b
			break
		}
	}
	if file := os.Getenv("PROOF_OUT"); file != "" {
		_ = os.WriteFile(file, []byte(fmt.Sprintf("# %s\n%s%s\n", strings.ReplaceAll(broken, "\n", "\n# "), small, story)), 0o644)
	}
	return fmt.Sprintf("%s broke a rule after %d histories' worth of luck:\n%s\n\nReplay: put these lines into a file of testdata/proof.\n# %s\n%s%s", what, 1, broken, strings.ReplaceAll(broken, "\n", "\n# "), small, story)
}

func ruleOf(broken string) string {
	words := strings.SplitN(broken, "s ", 2) // "at 1.234s RULE: ..."
	if len(words) < 2 {
		return broken
	}
	rule, _, _ := strings.Cut(words[1], ":")
	return rule
}

// TestProofTranscripts replays the histories kept in testdata/proof, and the one
// that PROOF_REPLAY names, with its story.
func TestProofTranscripts(t *testing.T) {
	if file := os.Getenv("PROOF_REPLAY"); file != "" {
		broken, story := playProof(t, readProofScript(t, file), true)
		t.Logf("%s\n%s", file, story)
		if broken != "" {
			t.Error(broken)
		}
		return
	}
	files, err := filepath.Glob("testdata/proof/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script := readProofScript(t, file)
			for range 3 {
				if broken, story := playProof(t, script, true); broken != "" {
					t.Fatalf("%s\n%s%s", broken, script, story)
				}
			}
		})
	}
}
