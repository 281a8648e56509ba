package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
)

const (
	crashEnv         = "RACKPOWER_TEST_STORE_CRASH"
	crashDatabaseEnv = "RACKPOWER_TEST_STORE_CRASH_DATABASE"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		stream(path)
		return
	}
	os.Exit(pgtest.Main(m))
}

// stream writes operations from many goroutines and says which were acknowledged,
// until it is killed.
func stream(path string) {
	s, err := Open(Config{Path: path, Database: os.Getenv(crashDatabaseEnv), Log: quiet()})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	if err := s.Write(context.Background(), func(tx *Tx) error { return tx.EnsureAgent("r1") }); err != nil {
		os.Exit(1)
	}
	var mu sync.Mutex
	run := fmt.Sprint(os.Getpid(), "-", time.Now().UnixNano())
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%s-%d-%d", run, w, i)
				if err := putOp(s, id, "r1", "n"); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				mu.Lock()
				os.Stdout.WriteString("acked " + id + "\n")
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestWhatWasAcknowledgedSurvivesKill kills a real process in the middle of its
// work, again and again on the same database.
func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	path := newPath(t)
	acked := map[string]bool{}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+path)
		if pgtest.Wanted() {
			cmd.Env = append(cmd.Env, crashDatabaseEnv+"="+databaseOf(t, path))
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n, killAt := 0, 50+round*173
		for lines := bufio.NewScanner(out); lines.Scan(); {
			id, ok := strings.CutPrefix(lines.Text(), "acked ")
			if !ok {
				t.Fatalf("the process says %q", lines.Text())
			}
			acked[id] = true
			if n++; n == killAt {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if n < killAt {
			t.Fatalf("the process ended by itself after %d", n)
		}
		if !pgtest.Wanted() {
			if _, err := Check(context.Background(), path); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		s := mustOpen(t, Config{Path: path})
		ids := opIDs(t, s)
		for id := range acked {
			if !ids[id] {
				t.Fatalf("round %d: %s was acknowledged and is lost", round, id)
			}
		}
		mustView(t, s, func(tx *Tx) error {
			rev, err := tx.Rev()
			ops, _ := tx.FindOps(api.QueryOps{AfterRev: rev, Limit: 10})
			if len(ops) > 0 || rev == 0 {
				t.Errorf("round %d: %d operations above the revision %d that is stored", round, len(ops), rev)
			}
			return err
		})
		s.Close()
	}
	t.Logf("%d acknowledged operations over %d kills", len(acked), rounds)
}
