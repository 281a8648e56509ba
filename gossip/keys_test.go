package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/power"
)

func withKey(k Key) func(*Config) { return func(c *Config) { c.Key = k } }

func TestParseKey(t *testing.T) {
	k := NewKey()
	if got, err := ParseKey(" " + k.Reveal() + "\n"); err != nil || !bytes.Equal(got, k) {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"", "%%%", "c2hvcnQ=", k.Reveal() + "AAAA"} {
		if got, err := ParseKey(text); err == nil || got != nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if len(k.ID()) != 8 || NewKey().ID() == k.ID() {
		t.Errorf("ID %q", k.ID())
	}
}

// primaries tells the IDs of the keys that members send with.
func primaries(all []*Cluster) []string {
	var ids []string
	for _, c := range all {
		ids = append(ids, c.primary().ID())
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func TestMembersThatDoNotAnswerAboutKeysAreCounted(t *testing.T) {
	lost := errors.New("2/3 nodes reported success")
	if err := (KeyReport{Members: 3, Answered: 2}).why(lost); err == nil ||
		err.Error() != "1 of 3 members did not answer; it may be repeated" {
		t.Errorf("%v", err)
	}
	if err := (KeyReport{Members: 3, Answered: 3, Problems: map[string]string{"r2": "no such key"}}).why(lost); !errors.Is(err, lost) ||
		!strings.HasSuffix(err.Error(), "; r2: no such key") {
		t.Errorf("%v", err)
	}
	if err := (KeyReport{Members: 3, Answered: 3}).why(nil); err != nil {
		t.Errorf("%v", err)
	}
}

// TestKeysRotateWithoutAGap changes the key of a cluster while records flow, and
// has a member come with each of the two keys at the right time.
func TestKeysRotateWithoutAGap(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	before, after := NewKey(), NewKey()
	all := team(t, 4, withKey(before))
	for _, c := range all {
		c.SetNodes(rack(c.cfg.Name, 5, power.On))
	}
	if err := all[0].UseKey(ctx, after); err == nil || !strings.Contains(err.Error(), "install it first") {
		t.Errorf("a key was used that nobody has: %v", err)
	}
	if err := all[0].InstallKey(ctx, after); err != nil {
		t.Fatal(err)
	}
	report, err := all[1].Keys(ctx)
	if err != nil || len(report.Keys) != 2 || report.of(before).Primary != 4 || report.of(after).Members != 4 {
		t.Errorf("%v: %+v", err, report)
	}
	if err := all[2].RemoveKey(ctx, before); err == nil || !strings.Contains(err.Error(), "send with it") {
		t.Errorf("the key in use was removed: %v", err)
	}
	if err := all[1].UseKey(ctx, after); err != nil {
		t.Fatal(err)
	}
	if got := primaries(all); !slices.Equal(got, []string{after.ID()}) {
		t.Errorf("in use: %v", got)
	}
	all[3].SetNodes(rack("r3", 5, power.Off))
	for _, c := range all {
		eventually(t, "the change is known", func() bool { return sees(c, "r3", 5, power.Off) })
	}
	if err := all[2].RemoveKey(ctx, before); err != nil {
		t.Fatal(err)
	}
	late := start(t, "late", withKey(after), joining(all[0]))
	eventually(t, "late knows all", func() bool { return sees(late, "r3", 5, power.Off) && alive(late) == 5 })
	old := start(t, "old", withKey(before))
	if err := old.Join(all[0].Addr()); !errors.Is(err, ErrForeignKey) {
		t.Errorf("with the removed key: %v", err)
	}
}

// TestARestartUsesTheNewestRing also has the file torn, as by a crash.
func TestARestartUsesTheNewestRing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "keys")
	var mu sync.Mutex
	var told [][]Key
	before, after := NewKey(), NewKey()
	with := func(c *Config) {
		c.Key, c.KeyringFile, c.Sync = before, file, 100*time.Millisecond
		c.OnKeys = func(keys []Key) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, keys)
		}
	}
	c := start(t, "a", with)
	for _, change := range []func(context.Context, Key) error{c.InstallKey, c.UseKey} {
		if err := change(ctx, after); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "OnKeys is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) > 1 && bytes.Equal(told[len(told)-1][0], after) && len(told[len(told)-1]) == 2
	})
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	eventually(t, "the copy is kept", func() bool {
		keys, err := readRing(file + ringCopy)
		return err == nil && bytes.Equal(keys[0], after)
	})
	crash(c)
	if err := os.WriteFile(file, []byte("[\n  \"dG9y"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, "a", with)
	if got := primaries([]*Cluster{again}); got[0] != after.ID() {
		t.Errorf("in use: %v, want %s", got, after.ID())
	}
	crash(again)
	for _, path := range []string{file, file + ringCopy} {
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(Config{Name: "a", Bind: "127.0.0.1:0", KeyringFile: file}); err == nil {
		t.Error("gossip began without the keys it was told of")
	}
}

// TestAForeignKeyIsRefusedAndSaid looks at both sides, for exchanges and for what
// Serf itself sends.
func TestAForeignKeyIsRefusedAndSaid(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	logged := func() string {
		mu.Lock()
		defer mu.Unlock()
		return out.String()
	}
	secret := NewKey()
	a := start(t, "a", withKey(secret), func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for name, c := range map[string]struct {
		key  Key
		want error
	}{"other": {NewKey(), ErrForeignKey}, "plain": {nil, ErrPlain}} {
		c1 := start(t, name, withKey(c.key))
		if err := c1.Join(a.Addr()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "refused") ||
			!strings.Contains(err.Error(), a.Addr()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Serf's stream and the exchange of each are counted.
	eventually(t, "both are counted", func() bool { s := a.Stats(); return s.ForeignKey >= 2 && s.Plain >= 2 })
	if _, err := a.transport.WriteTo(bytes.Repeat([]byte{1}, 60), a.Addr()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a packet is counted", func() bool { return a.Stats().ForeignKey >= 3 })
	if got := logged(); strings.Count(got, "level=WARN msg=\"refused: 127.0.0.1") != 1 {
		t.Errorf("want one line a minute and source:\n%s", got)
	}
	if got := logged(); strings.Contains(got, secret.Reveal()) {
		t.Error("the key shows")
	}
	plain := start(t, "p")
	sealed := start(t, "s", withKey(secret))
	if err := sealed.Join(plain.Addr()); !errors.Is(err, ErrPlain) {
		t.Errorf("%v", err)
	}
}

type lockedWriter struct {
	mu  *sync.Mutex
	out *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

func TestAnUnencryptedClusterHasNoKeys(t *testing.T) {
	t.Parallel()
	if _, err := start(t, "a").Keys(context.Background()); !errors.Is(err, ErrNotEncrypted) {
		t.Error(err)
	}
}

// TestARemovedKeyDoesNotComeBack has a member that was away while the key was changed:
// once it is back with the new one, the old one opens no door.
func TestARemovedKeyDoesNotComeBack(t *testing.T) {
	t.Parallel()
	before, after := NewKey(), NewKey()
	file := filepath.Join(t.TempDir(), "keys")
	a := start(t, "a", withKey(after))
	late := start(t, "late", withKey(before), joining(a), func(c *Config) { c.KeyringFile, c.Sync = file, 100*time.Millisecond })
	eventually(t, "it is refused", func() bool { return late.Stats().ForeignKey > 0 })
	if changed, err := late.Adopt([]Key{after}); err != nil || !changed {
		t.Fatal(changed, err)
	}
	eventually(t, "it is back", func() bool { return alive(a) == 2 && alive(late) == 2 })
	eventually(t, "it has the new key only", func() bool { return len(late.Ring()) == 1 && bytes.Equal(late.Ring()[0], after) })
	if err := start(t, "thief", withKey(before)).Join(late.Addr()); !errors.Is(err, ErrForeignKey) {
		t.Errorf("with the removed key: %v", err)
	}
	for _, path := range []string{file, file + ringCopy} {
		eventually(t, "the file is the same", func() bool {
			keys, err := readRing(path)
			return err == nil && len(keys) == 1 && bytes.Equal(keys[0], after)
		})
	}
}

// TestStrangersOfLongAgoSilenceNobody has as many sources been turned away as are
// remembered.
func TestStrangersOfLongAgoSilenceNobody(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	c := start(t, "a", func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil)) })
	c.mu.Lock()
	for i := range maxWarned {
		c.warned[fmt.Sprint("old", i)] = time.Now().Add(-time.Hour)
	}
	c.mu.Unlock()
	for range 2 {
		c.turnAway("192.0.2.7:1234", ErrForeignKey)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(out.String(), "refused: 192.0.2.7"); n != 1 {
		t.Errorf("said %d times", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.warned) > maxWarned {
		t.Errorf("%d sources are remembered", len(c.warned))
	}
}
