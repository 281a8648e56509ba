package gossip

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

func TestPing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	all := team(t, 3)
	for _, name := range []string{"r0", "r1", "r2"} {
		if took, err := all[0].Ping(ctx, name); err != nil || took <= 0 || took > 3*time.Second {
			t.Errorf("%s: %v %v", name, took, err)
		}
	}
	if _, err := all[0].Ping(ctx, "nobody"); !errors.Is(err, ErrNoMember) {
		t.Error(err)
	}
	crash(all[2])
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if took, err := all[0].Ping(short, "r2"); err == nil {
		t.Errorf("a dead member answered after %v", took)
	}
	eventually(t, "r2 failed", func() bool { m, _ := all[0].member("r2"); return m.Status == StatusFailed })
	if _, err := all[0].Ping(ctx, "r2"); err == nil || !strings.Contains(err.Error(), "failed") || !strings.HasSuffix(err.Error(), " s ago") {
		t.Error(err)
	}
}

func TestWho(t *testing.T) {
	t.Parallel()
	reach := map[string]string{"r1": "ok", "r2": "auth-failed", "r3": strings.Repeat("x", 99)}
	all := team(t, 4, func(c *Config) {
		if text := reach[c.Name]; text != "" {
			c.CanReach = func(node string) (string, bool) { return text, node == "r1n002" }
		}
	})
	all[1].SetNodes(rack("r1", 3, power.On))
	eventually(t, "r1 is known", func() bool { return sees(all[0], "r1", 3, power.On) })
	w, err := all[0].Who(context.Background(), "r1n002", "")
	if err != nil || w.Asked != 4 || w.Answered != 4 || len(w.Reach) != 2 {
		t.Fatalf("%v: %+v", err, w)
	}
	if w.Reach[0].Agent != "r1" || w.Reach[0].Reach != "ok" || w.Reach[1].Reach != "auth-failed" {
		t.Errorf("%+v", w.Reach)
	}
	if len(w.Owners) != 1 || w.Owners[0].Name != "r1" || len(w.Owners[0].Nodes) != 1 || w.Owners[0].Nodes[0].Name != "r1n002" {
		t.Errorf("%+v", w.Owners)
	}
	if w, err := all[0].Who(context.Background(), "r9n001", ""); err != nil || len(w.Owners)+len(w.Reach) != 0 {
		t.Errorf("%v: %+v", err, w)
	}
	if _, err := all[0].Who(context.Background(), "\x00", ""); err == nil {
		t.Error("an impossible name was asked for")
	}
}

// TestWhoEndsThoughOneIsSilent has one agent wait for ever.
func TestWhoEndsThoughOneIsSilent(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	defer close(hold)
	all := team(t, 2, func(c *Config) {
		if c.Name == "r1" {
			c.CanReach = func(string) (string, bool) { <-hold; return "", false }
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if w, err := all[0].Who(ctx, "n", ""); err != nil || w.Answered != 1 || w.Asked != 2 {
		t.Errorf("%v: %+v", err, w)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	all := team(t, 3)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	heard := make(chan string, 64)
	ended := make(chan error, 1)
	go func() {
		ended <- all[0].Watch(ctx, func(m Member) error { heard <- m.Name + " " + m.Status; return nil })
	}()
	wait := func(want ...string) {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for len(want) > 0 {
			select {
			case got := <-heard:
				want = slices.DeleteFunc(want, func(s string) bool { return s == got })
			case <-timeout:
				t.Fatalf("did not hear of %v", want)
			}
		}
	}
	wait("r0 alive", "r1 alive", "r2 alive")
	crash(all[2])
	wait("r2 failed")
	start(t, "r3", joining(all[0]))
	wait("r3 alive")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := all[0].Watch(context.Background(), func(Member) error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if len(all[0].watchers) != 0 {
		t.Error("a watcher stays")
	}
}

func TestAWatcherIsBounded(t *testing.T) {
	w := newWatcher()
	for range maxWaiting + 3 {
		w.put(Member{})
	}
	if len(w.waiting) != maxWaiting || w.lost != 3 {
		t.Errorf("%d wait, %d lost", len(w.waiting), w.lost)
	}
}
