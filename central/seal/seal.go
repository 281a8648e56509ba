// Package seal encrypts short secrets, passwords of BMCs, for where they are stored:
// AES-256-GCM with random nonces, bound to what they are for and whose they are, so that a
// sealed value that is put in another's place does not open.
//
// A sealed value is text:
//
//	seal1:KEYID:BASE64(nonce, ciphertext, tag)
//
// A Ring has the keys. The first one seals; all of them open, so that a key can be changed
// while values are sealed with the one before.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// FileName is the name of the file of keys within a data directory.
const FileName = "seal.key"

// OldSuffix is what the name of the file has that holds the keys of before.
const OldSuffix = ".old"

// ErrNoKey means that a value is sealed with a key that is not there.
var ErrNoKey = errors.New("key missing")

const (
	version   = "seal1:"
	idSize    = 8
	prefix    = len(version) + idSize + 1
	nonceSize = 12
	tagSize   = 16
)

var encoding = base64.RawStdEncoding.Strict()

// MinLength is the least length of a sealed value. What is not sealed and may be stored in
// its place (passwords, K_g) is shorter.
var MinLength = prefix + encoding.EncodedLen(nonceSize+tagSize)

// Key is a key. It is never printed: see ID.
type Key struct{ bytes [32]byte }

// NewKey makes a random key.
func NewKey() Key {
	var k Key
	_, _ = rand.Read(k.bytes[:]) // does not fail
	return k
}

// ID names the key without telling anything of it.
func (k Key) ID() string {
	sum := sha256.Sum256(append([]byte("rackpower seal key "), k.bytes[:]...))
	return hex.EncodeToString(sum[:idSize/2])
}

// String is the id.
func (k Key) String() string { return "key " + k.ID() }

// GoString is the id.
func (k Key) GoString() string { return k.String() }

// Ring has keys by their ids. It is never changed.
type Ring struct {
	keys []Key
	by   map[string]cipher.AEAD
}

// NewRing makes a ring of keys. The first one seals.
func NewRing(first Key, more ...Key) *Ring {
	r := &Ring{by: map[string]cipher.AEAD{}}
	for _, k := range append([]Key{first}, more...) {
		if r.Has(k.ID()) {
			continue
		}
		block, err := aes.NewCipher(k.bytes[:])
		if err != nil {
			panic(err) // 32 bytes are a key
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			panic(err)
		}
		r.keys, r.by[k.ID()] = append(r.keys, k), aead
	}
	return r
}

// Key is the one that seals.
func (r *Ring) Key() Key { return r.keys[0] }

// Keys are all of them.
func (r *Ring) Keys() []Key { return slices.Clone(r.keys) }

// Others are the keys that only open.
func (r *Ring) Others() []Key { return slices.Clone(r.keys[1:]) }

// Has reports whether the ring has the key of that id.
func (r *Ring) Has(id string) bool { return r.by[id] != nil }

// With is a ring with one more key, which seals.
func (r *Ring) With(k Key) *Ring { return NewRing(k, r.keys...) }

// Prefix is what values begin with that the ring's first key sealed.
func (r *Ring) Prefix() string { return version + r.Key().ID() + ":" }

// bound is the associated data of a value.
func bound(purpose, name string) []byte { return []byte(purpose + "\x00" + name) }

// Seal encrypts a value; name says whose it is. The empty one stays as it is.
func (r *Ring) Seal(plain, purpose, name string) string {
	if plain == "" {
		return ""
	}
	box := make([]byte, nonceSize, nonceSize+len(plain)+tagSize)
	_, _ = rand.Read(box)
	box = r.by[r.Key().ID()].Seal(box, box, []byte(plain), bound(purpose, name))
	return r.Prefix() + encoding.EncodeToString(box)
}

// Open decrypts what Seal made for the same purpose and name.
func (r *Ring) Open(text, purpose, name string) (string, error) {
	if text == "" {
		return "", nil
	}
	id, sealed := KeyOf(text)
	if !sealed {
		return "", errors.New("it is not sealed")
	}
	if aead := r.by[id]; aead != nil {
		if plain, opens := open(aead, text, purpose, name); opens {
			return plain, nil
		}
		return "", fmt.Errorf("it does not open with key %s: it is damaged, or was put in another's place", id)
	}
	for _, aead := range r.by { // the id may be what is damaged
		if plain, opens := open(aead, text, purpose, name); opens {
			return plain, nil
		}
	}
	return "", fmt.Errorf("%w: it is sealed with key %s", ErrNoKey, id)
}

func open(aead cipher.AEAD, text, purpose, name string) (plain string, opens bool) {
	box, err := encoding.DecodeString(text[prefix:])
	if err != nil || len(box) < nonceSize+tagSize {
		return "", false
	}
	data, err := aead.Open(nil, box[:nonceSize], box[nonceSize:], bound(purpose, name))
	return string(data), err == nil
}

// Relabel has a value that is damaged say that it is sealed with the ring's first key, with
// which it does not open either.
func Relabel(text string, r *Ring) string {
	if _, sealed := KeyOf(text); !sealed {
		return text
	}
	return r.Prefix() + text[prefix:]
}

// KeyOf is the id of the key that a value is sealed with; sealed is false for one that is
// not sealed.
func KeyOf(text string) (id string, sealed bool) {
	if len(text) < MinLength || !strings.HasPrefix(text, version) || text[prefix-1] != ':' {
		return "", false
	}
	return text[len(version) : prefix-1], true
}

// ReadFile reads a file of keys: each is 32 bytes in Base64 on a line of its own. The first
// one seals. A key that is alone may also be the 32 bytes as they are.
func ReadFile(path string) (*Ring, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ring, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return ring, nil
}

// Parse reads the text of a file of keys.
func Parse(text []byte) (*Ring, error) {
	keys, err := parse(text)
	if err != nil {
		return nil, err
	}
	return NewRing(keys[0], keys[1:]...), nil
}

// Text is the text of a file of the ring's keys.
func (r *Ring) Text() []byte {
	text := "# Keys that seal passwords, one a line. The first one seals. Without them no password opens.\n"
	for _, k := range r.keys {
		text += base64.StdEncoding.EncodeToString(k.bytes[:]) + "\n"
	}
	return []byte(text)
}

func parse(text []byte) ([]Key, error) {
	var k Key
	if len(text) == len(k.bytes) {
		copy(k.bytes[:], text)
		return []Key{k}, nil
	}
	var keys []Key
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != len(k.bytes) {
			return nil, fmt.Errorf("line %d is no key: want 32 bytes in Base64 (openssl rand -base64 32)", i+1)
		}
		copy(k.bytes[:], raw)
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}

// WriteFile writes the ring's keys to a file with mode 0600, durable when it returns. A
// process that ends meanwhile leaves the file of before.
func (r *Ring) WriteFile(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(r.Text())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
