package journal_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/journal"
)

// Environment variables that make the test binary a writer.
const (
	envDir  = "JOURNAL_TEST_WRITER_DIR"
	envBase = "JOURNAL_TEST_WRITER_BASE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		os.Exit(writer(dir, os.Getenv(envBase)))
	}
	os.Exit(m.Run())
}

// writer appends until it is killed and prints each acknowledged group.
func writer(dir, base string) int {
	j, err := journal.Open(journal.Config{Dir: dir, Owner: "r1", SegmentSize: 64 << 10})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("open", j.Epoch())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprint(base, ".", w, ".", i)
				if _, err := j.Append(put(fmt.Sprint("last", w), id), add("log"+base, id), add("log"+base, strings.Repeat("x", i%50))); err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Println("acked", id)
			}
		})
	}
	wg.Wait()
	return 1
}

func startWriter(t *testing.T, dir, base string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envDir+"="+dir, envBase+"="+base)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// A real writer is killed at a random moment, again and again; each time every
// group that it acknowledged is found, whole.
func TestKillNine(t *testing.T) {
	kills := 30
	if testing.Short() {
		kills = 5
	}
	dir := filepath.Join(t.TempDir(), "j")
	rng := rand.New(rand.NewSource(1))
	total, openings := 0, 0
	for k := range kills {
		base := strconv.Itoa(k)
		acked := killWriter(t, dir, base, 1+rng.Intn(300))
		total += len(acked)
		found, err := liveLog(dir, base)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range acked {
			if !found[id] {
				t.Fatalf("kill %d: %s was acknowledged and is not there", k, id)
			}
		}
		if k%2 == 0 {
			continue // the next writer opens what the kill left
		}
		j, err := journal.Open(journal.Config{Dir: dir, Owner: "r1"})
		if err != nil {
			t.Fatal(err)
		}
		openings++
		if rec := j.Recovery(); rec.Damaged() || j.Epoch() != uint64(k+1+openings) {
			t.Fatalf("kill %d: epoch %d, %+v", k, j.Epoch(), rec)
		}
		appendAll(t, j, drop("log"+base), drop("log"+strconv.Itoa(k-1)))
		mustClose(t, j)
	}
	t.Logf("%d kills, %d groups acknowledged", kills, total)
}

// killWriter kills a writer after it acknowledged about n groups and returns all
// that it did acknowledge.
func killWriter(t *testing.T, dir, base string, n int) (acked []string) {
	t.Helper()
	cmd, out := startWriter(t, dir, base)
	limit := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "error":
			t.Errorf("writer: %s", rest)
		case "acked":
			acked = append(acked, rest)
		}
		if len(acked) == n {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if len(acked) < n {
		t.Fatalf("writer ended after %d groups", len(acked))
	}
	return acked
}

// liveLog returns the groups of a writer, and fails on a group that is not whole.
func liveLog(dir, base string) (map[string]bool, error) {
	recs, _, err := journal.Read(dir, nil)
	if err != nil {
		return nil, err
	}
	found, open := map[string]bool{}, ""
	for _, r := range recs {
		if r.Key != "log"+base {
			continue
		}
		if open == "" {
			open = string(r.Payload)
			found[open] = true
		} else {
			open = ""
		}
	}
	if open != "" {
		return nil, fmt.Errorf("group %s is not whole", open)
	}
	return found, nil
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	cmd, out := startWriter(t, dir, "0")
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "open") {
		t.Fatalf("writer says %q", lines.Text())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	_, err := journal.Open(journal.Config{Dir: dir})
	wantErr(t, err, journal.ErrLocked)
	if s := err.Error(); !strings.Contains(s, dir) || !strings.Contains(s, fmt.Sprint("process ", cmd.Process.Pid)) {
		t.Errorf("error names not directory and process: %s", s)
	}
}

func TestSecondJournalInOneProcessIsRefused(t *testing.T) {
	cfg := journal.Config{Dir: filepath.Join(t.TempDir(), "a", "b", "j")}
	j := open(t, cfg)
	_, err := journal.Open(cfg)
	wantErr(t, err, journal.ErrLocked)
	mustClose(t, j)
	mustClose(t, open(t, cfg))
}

func TestRealReadOnlyDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	j := open(t, journal.Config{Dir: dir})
	appendAll(t, j, add("a", "1"))
	mustClose(t, j)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := journal.Verify(dir, nil)
	if err != nil || rep.Live != 1 {
		t.Fatalf("%+v %v", rep, err)
	}
	after, err := os.ReadDir(dir)
	if err != nil || len(after) != len(before) {
		t.Errorf("%v became %v", before, after)
	}
	if _, err := journal.Verify(filepath.Join(dir, "none"), nil); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
