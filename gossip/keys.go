package gossip

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/serf/serf"
)

// ErrNotEncrypted says that a cluster without a key has no keys to change.
var ErrNotEncrypted = errors.New("gossip is not encrypted: its members were started without a key (--gossip-key-file)")

// Key encrypts gossip: 16, 24 or 32 bytes, the same for all members. It never
// shows itself; Reveal does.
type Key []byte

// NewKey makes a key of 32 random bytes.
func NewKey() Key {
	k := make(Key, 32)
	rand.Read(k)
	return k
}

// ParseKey reads a key as Reveal writes it, and as Serf's tools do: base64 of 16,
// 24 or 32 bytes, with or without white space around it. Its errors do not quote
// the text.
func ParseKey(text string) (Key, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("cannot read the gossip key: it is not base64")
	}
	if err := Key(raw).valid(); err != nil {
		return nil, err
	}
	return raw, nil
}

func (k Key) valid() error {
	switch len(k) {
	case 16, 24, 32:
		return nil
	}
	return fmt.Errorf("cannot gossip with a key of %d bytes: want 16, 24 or 32", len(k))
}

// Reveal writes the key in base64: for files of keys and for other members only.
func (k Key) Reveal() string { return base64.StdEncoding.EncodeToString(k) }

// ID names the key without showing it: the first 8 digits of its SHA-256.
func (k Key) ID() string {
	sum := sha256.Sum256(k)
	return hex.EncodeToString(sum[:4])
}

// String hides the key.
func (Key) String() string { return "redacted" }

// GoString hides the key.
func (Key) GoString() string { return "redacted" }

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue("redacted") }

// MarshalText hides the key.
func (Key) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// HasKey reports whether there is a key, in the keyring file or given.
func (c Config) HasKey() bool {
	keys, err := c.ring()
	return err != nil || len(keys) > 0 // keys that cannot be read are not replaced
}

// ring lists the keys that the member starts with, the primary first: those of the
// keyring file, where there is one, else those of the configuration.
func (c Config) ring() ([]Key, error) {
	keys, err := c.ringFile()
	if err != nil {
		return nil, err
	}
	if keys == nil && len(c.Key) > 0 {
		keys = append([]Key{c.Key}, c.OtherKeys...)
	}
	for _, k := range keys {
		if err := k.valid(); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 && len(c.OtherKeys) > 0 {
		return nil, errors.New("cannot gossip with other keys and no key to send with")
	}
	return keys, nil
}

// ringFile reads the keyring file, nil when there is none. Serf writes it in place:
// one that was torn by a crash is read from the copy beside it.
func (c Config) ringFile() ([]Key, error) {
	if c.KeyringFile == "" {
		return nil, nil
	}
	var damage error
	for _, path := range []string{c.KeyringFile, c.KeyringFile + ringCopy} {
		keys, err := readRing(path)
		switch {
		case err == nil:
			return keys, nil
		case !errors.Is(err, fs.ErrNotExist):
			damage = cmp.Or(damage, err)
		}
	}
	if damage != nil && len(c.Key) == 0 {
		return nil, damage
	}
	return nil, nil
}

// ringCopy is what the name of the copy of a keyring file has more.
const ringCopy = ".copy"

func readRing(path string) ([]Key, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the gossip keys: %w", err)
	}
	var texts []string
	if err := json.Unmarshal(raw, &texts); err != nil || len(texts) == 0 {
		return nil, fmt.Errorf("cannot read the gossip keys of %s: it is not a list of keys", path)
	}
	keys := make([]Key, len(texts))
	for i, text := range texts {
		if keys[i], err = ParseKey(text); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return keys, nil
}

// writeRing writes a keyring file so that it is whole at every moment.
func writeRing(path string, keys []Key) error {
	texts := make([]string, len(keys))
	for i, k := range keys {
		texts[i] = k.Reveal()
	}
	raw, err := json.MarshalIndent(texts, "", "  ")
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot keep the gossip keys: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(raw)
	err = cmp.Or(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the gossip keys: %w", err)
	}
	return nil
}

// Ring lists the keys of this member, the one it sends with first; none when gossip
// is not encrypted.
func (c *Cluster) Ring() []Key { return c.keys() }

// keys lists the ring, the primary first; nil when gossip is not encrypted.
func (c *Cluster) keys() []Key {
	if c.ring == nil {
		return nil
	}
	raw := c.ring.GetKeys()
	keys := make([]Key, len(raw))
	for i, k := range raw {
		keys[i] = k
	}
	return keys
}

func (c *Cluster) primary() Key {
	if c.ring == nil {
		return nil
	}
	return c.ring.GetPrimaryKey()
}

// watchKeys keeps and tells what became of the ring since the last call. One
// goroutine calls it.
func (c *Cluster) watchKeys() {
	keys := c.keys()
	if slices.EqualFunc(keys, c.toldKeys, func(a, b Key) bool { return bytes.Equal(a, b) }) {
		return
	}
	c.toldKeys = keys
	if c.cfg.KeyringFile != "" {
		if err := writeRing(c.cfg.KeyringFile+ringCopy, keys); err != nil {
			c.log.Warn(err.Error())
		}
	}
	if c.cfg.OnKeys != nil {
		c.cfg.OnKeys(slices.Clone(keys))
	}
}

// Adopt has this member alone send with the first of the keys, and accept all of them:
// for one that was away while the others changed their key. Its own ones it forgets once
// another member has answered to the new one. It says whether that changed anything.
func (c *Cluster) Adopt(keys []Key) (changed bool, err error) {
	switch {
	case c.ring == nil:
		return false, ErrNotEncrypted
	case len(keys) == 0 || bytes.Equal(keys[0], c.primary()):
		return false, nil
	}
	has := func(list []Key, k Key) bool {
		return slices.ContainsFunc(list, func(l Key) bool { return bytes.Equal(l, k) })
	}
	stale := slices.DeleteFunc(c.keys(), func(k Key) bool { return has(keys, k) })
	for _, k := range keys {
		if err := k.valid(); err != nil {
			return false, err
		}
		if err := c.ring.AddKey(k); err != nil {
			return false, fmt.Errorf("cannot take the gossip key %s: %w", k.ID(), err)
		}
	}
	if err := c.ring.UseKey(keys[0]); err != nil {
		return false, fmt.Errorf("cannot use the gossip key %s: %w", keys[0].ID(), err)
	}
	c.mu.Lock()
	c.stale = stale
	c.mu.Unlock()
	signal(c.wake)
	return true, c.keepRing()
}

// keepRing writes the keyring file, if there is one.
func (c *Cluster) keepRing() error {
	if c.cfg.KeyringFile == "" {
		return nil
	}
	return writeRing(c.cfg.KeyringFile, c.keys())
}

// forgetStale forgets the keys of before Adopt: the others may have removed them because
// somebody else has them.
func (c *Cluster) forgetStale() {
	c.mu.Lock()
	stale := c.stale
	c.stale = nil
	c.mu.Unlock()
	if len(stale) == 0 {
		return
	}
	var errs []error
	for _, k := range stale {
		if err := c.ring.RemoveKey(k); err != nil {
			errs = append(errs, fmt.Errorf("cannot forget the gossip key %s: %w", k.ID(), err))
		}
	}
	if err := errors.Join(append(errs, c.keepRing())...); err != nil {
		c.log.Warn(err.Error())
	}
}

// KeyInfo says how many members have a key.
type KeyInfo struct {
	Key     Key
	ID      string
	Members int // that have it installed
	Primary int // that send with it
}

// KeyReport is what the members say of their keys.
type KeyReport struct {
	Keys     []KeyInfo // sorted by ID
	Members  int       // that were asked
	Answered int
	Problems map[string]string // member: what it says went wrong
}

// Keys asks all members for their keys. It takes as long as the slowest answer, at
// most some seconds; with members that did not answer the report is incomplete and
// there is an error beside it. ctx is looked at between tries.
func (c *Cluster) Keys(ctx context.Context) (KeyReport, error) {
	report, err := c.keyQuery(ctx, func(m *serf.KeyManager, o *serf.KeyRequestOptions) (*serf.KeyResponse, error) {
		return m.ListKeysWithOptions(o)
	})
	if err != nil {
		return report, fmt.Errorf("cannot list the gossip keys: %w", err)
	}
	return report, nil
}

// InstallKey has all members accept the key beside those they have. It may be
// repeated. An error says how many members do not have it yet.
func (c *Cluster) InstallKey(ctx context.Context, key Key) error {
	if err := key.valid(); err != nil {
		return err
	}
	_, err := c.keyQuery(ctx, func(m *serf.KeyManager, o *serf.KeyRequestOptions) (*serf.KeyResponse, error) {
		return m.InstallKeyWithOptions(key.Reveal(), o)
	})
	if err != nil {
		return fmt.Errorf("cannot install the gossip key %s: %w", key.ID(), err)
	}
	return nil
}

// UseKey has all members send with the key. It is refused while a live member does
// not have it, for that one would be cut off.
func (c *Cluster) UseKey(ctx context.Context, key Key) error {
	report, err := c.Keys(ctx)
	if err != nil {
		return err
	}
	if info := report.of(key); info.Members < report.Members {
		return fmt.Errorf("cannot use the gossip key %s: %d of %d members do not have it; install it first",
			key.ID(), report.Members-info.Members, report.Members)
	}
	_, err = c.keyQuery(ctx, func(m *serf.KeyManager, o *serf.KeyRequestOptions) (*serf.KeyResponse, error) {
		return m.UseKeyWithOptions(key.Reveal(), o)
	})
	if err != nil {
		return fmt.Errorf("cannot use the gossip key %s: %w", key.ID(), err)
	}
	return nil
}

// RemoveKey has all members forget the key. It is refused while a member sends
// with it.
func (c *Cluster) RemoveKey(ctx context.Context, key Key) error {
	report, err := c.Keys(ctx)
	if err != nil {
		return err
	}
	if info := report.of(key); info.Primary > 0 {
		return fmt.Errorf("cannot remove the gossip key %s: %d of %d members send with it; use another first",
			key.ID(), info.Primary, report.Members)
	}
	_, err = c.keyQuery(ctx, func(m *serf.KeyManager, o *serf.KeyRequestOptions) (*serf.KeyResponse, error) {
		return m.RemoveKeyWithOptions(key.Reveal(), o)
	})
	if err != nil {
		return fmt.Errorf("cannot remove the gossip key %s: %w", key.ID(), err)
	}
	return nil
}

func (r KeyReport) of(key Key) KeyInfo {
	for _, info := range r.Keys {
		if bytes.Equal(info.Key, key) {
			return info
		}
	}
	return KeyInfo{}
}

// keyTries is how often a key query is sent while members do not answer: each may
// lose its packets, and all of them may be repeated.
const keyTries = 3

// keyRelay is how many other members pass an answer on beside its sender.
const keyRelay = 2

func (c *Cluster) keyQuery(ctx context.Context, ask func(*serf.KeyManager, *serf.KeyRequestOptions) (*serf.KeyResponse, error)) (KeyReport,
	error,
) {
	if c.ring == nil {
		return KeyReport{}, ErrNotEncrypted
	}
	var report KeyReport
	var failed error
	for range keyTries {
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		resp, err := ask(c.serf.KeyManager(), &serf.KeyRequestOptions{RelayFactor: keyRelay})
		report, failed = reportOf(resp), err
		if err == nil || report.Answered == report.Members {
			break
		}
	}
	return report, report.why(failed)
}

// why makes Serf's error, if there is one, an error that one can act on. Serf does not
// say which members did not answer.
func (r KeyReport) why(failed error) error {
	if failed != nil && r.Answered < r.Members {
		failed = fmt.Errorf("%d of %d members did not answer; it may be repeated", r.Members-r.Answered, r.Members)
	}
	for member, problem := range r.Problems {
		if failed == nil {
			return fmt.Errorf("%s: %s", member, problem)
		}
		return fmt.Errorf("%w; %s: %s", failed, member, problem) // one is enough to act on
	}
	return failed
}

func reportOf(resp *serf.KeyResponse) KeyReport {
	r := KeyReport{Members: resp.NumNodes, Answered: resp.NumResp, Problems: resp.Messages}
	for text, members := range resp.Keys {
		if key, err := ParseKey(text); err == nil {
			r.Keys = append(r.Keys, KeyInfo{Key: key, ID: key.ID(), Members: members, Primary: resp.PrimaryKeys[text]})
		}
	}
	slices.SortFunc(r.Keys, func(a, b KeyInfo) int { return cmp.Compare(a.ID, b.ID) })
	return r
}
