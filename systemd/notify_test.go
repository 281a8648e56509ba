package systemd

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager stands in for systemd: it collects what is sent to it.
func manager(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	got := make(chan string, 1000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			got <- string(buf[:n])
		}
	}()
	return got
}

func wantMessage(t *testing.T, got <-chan string, want string) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case msg := <-got:
			if msg == want {
				return
			}
		case <-deadline:
			t.Fatalf("%q did not come", want)
		}
	}
}

func TestNotifierTellsTheManager(t *testing.T) {
	got := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	n := New(slog.New(slog.DiscardHandler))
	n.Ready()
	wantMessage(t, got, "READY=1")
	ctx, cancel := context.WithCancel(t.Context())
	var alive atomic.Bool
	alive.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx, alive.Load, func() string { return "3 nodes" })
	}()
	wantMessage(t, got, "STATUS=3 nodes")
	wantMessage(t, got, "WATCHDOG=1")
	alive.Store(false)
	time.Sleep(60 * time.Millisecond) // a tick that had begun
	for len(got) > 0 {
		<-got
	}
	select {
	case msg := <-got:
		if strings.Contains(msg, "WATCHDOG") {
			t.Error("the watchdog was fed by a daemon that is not alive")
		}
	case <-time.After(200 * time.Millisecond):
	}
	cancel()
	<-done
	n.Stopping()
	wantMessage(t, got, "STOPPING=1")
}

func TestNotifierWithoutAManagerIsSilent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := New(slog.New(slog.DiscardHandler))
	n.Ready()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.Run(ctx, func() bool { return true }, func() string { return "" })
	if n.Active() {
		t.Error("active without a manager")
	}
}

func TestWithoutAManagerThereAreNoListeners(t *testing.T) {
	t.Setenv("LISTEN_FDS", "")
	if l, err := Listeners(); len(l) > 0 || err != nil {
		t.Errorf("%v, %v", l, err)
	}
}

func TestWatchdogIsFedOnlyByTheLiving(t *testing.T) {
	got := manager(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	n := New(nil)
	if n.every != 30*time.Millisecond {
		t.Fatalf("interval %v", n.every)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.RunWatchdog(ctx, func() bool { asked <- struct{}{}; return len(asked) <= 2 })
	}()
	wantMessage(t, got, "WATCHDOG=1")
	wantMessage(t, got, "WATCHDOG=1")
	deadline := time.Now().Add(5 * time.Second)
	for len(asked) < 6 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	n.Stopping() // comes after whatever was sent before
	for msg := range got {
		if msg == "STOPPING=1" {
			break
		}
		t.Errorf("%q was sent by a daemon that is not alive", msg)
	}
	if len(asked) < 6 {
		t.Errorf("alive was asked %d times", len(asked))
	}
}

func TestStatusIsOneLineAndSentOnce(t *testing.T) {
	got := manager(t)
	n := New(nil)
	n.Status("%d nodes\nREADY=1", 3)
	n.Status("%d nodes\nREADY=1", 3)
	n.Stopping()
	if msg := <-got; msg != "STATUS=3 nodes READY=1" {
		t.Errorf("%q", msg)
	}
	if msg := <-got; msg != "STOPPING=1" {
		t.Errorf("%q", msg)
	}
}
