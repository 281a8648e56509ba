package agentd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rackpower/gossip"
)

func loopMember(t *testing.T, name string) *gossip.Cluster {
	t.Helper()
	c, err := gossip.New(gossip.Config{Name: name, Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestKnownMembersAreFoundAgain has a member know another from the file alone.
func TestKnownMembersAreFoundAgain(t *testing.T) {
	d, dir := &service{logger: slog.New(slog.DiscardHandler)}, t.TempDir()
	path := filepath.Join(dir, membersName)
	a, b := loopMember(t, "a"), loopMember(t, "b")
	d.seedKnown(dir, b) // no file
	for _, bad := range []string{"", "{", `["nonsense","192.0.2.1:7946"]`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		d.seedKnown(dir, b)
	}
	if err := writeKnown(path, []string{a.Addr()}); err != nil {
		t.Fatal(err)
	}
	d.seedKnown(dir, b)
	for end := time.Now().Add(10 * time.Second); len(others(b)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not found")
		}
	}
	os.Remove(path)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); d.keepKnown(ctx, dir, b) }()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if raw, err := os.ReadFile(path); err == nil && string(raw) == `["`+a.Addr()+`"]` {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it was not kept")
		}
	}
	cancel()
	<-ended
}
