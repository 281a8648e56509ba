package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASealedValueOpensInItsPlaceOnly(t *testing.T) {
	r := NewRing(NewKey())
	text := r.Seal("secret", "password", "n1")
	if strings.Contains(text, "secret") || len(text) < MinLength || !strings.HasPrefix(text, r.Prefix()) {
		t.Errorf("%q", text)
	}
	if text == r.Seal("secret", "password", "n1") {
		t.Error("the same value twice has the same text")
	}
	if got, err := r.Open(text, "password", "n1"); err != nil || got != "secret" {
		t.Errorf("%q, %v", got, err)
	}
	for _, at := range [][2]string{{"kg", "n1"}, {"password", "n2"}} {
		if got, err := r.Open(text, at[0], at[1]); err == nil {
			t.Errorf("it opens as the %s of %s: %q", at[0], at[1], got)
		}
	}
	for i := range text {
		damaged := []byte(text)
		damaged[i] ^= 1
		got, err := r.Open(string(damaged), "password", "n1")
		if ofID := i >= len(version) && i < prefix-1; (err == nil) != ofID || ofID && got != "secret" {
			t.Errorf("with byte %d damaged: %q, %v", i, got, err)
		}
	}
	if got, err := r.Open(r.Seal("", "password", "n1"), "password", "n1"); got != "" || err != nil {
		t.Errorf("an empty one: %q, %v", got, err)
	}
}

func TestKeysThatDoNotSealStillOpen(t *testing.T) {
	before := NewRing(NewKey())
	text := before.Seal("secret", "password", "n1")
	after := before.With(NewKey())
	if got, err := after.Open(text, "password", "n1"); err != nil || got != "secret" {
		t.Errorf("%q, %v", got, err)
	}
	if id, _ := KeyOf(after.Seal("x", "password", "n1")); id != after.Key().ID() || id == before.Key().ID() {
		t.Errorf("sealed with %s", id)
	}
	_, err := NewRing(NewKey()).Open(text, "password", "n1")
	if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), before.Key().ID()) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNotSealed(t *testing.T) {
	for _, text := range []string{"", "secret", "seal1:", "seal1:0123456:aaaaa", "0x" + strings.Repeat("ab", 20)} {
		if id, sealed := KeyOf(text); sealed {
			t.Errorf("%q is sealed with %s", text, id)
		}
	}
	if _, err := NewRing(NewKey()).Open("secret", "password", "n1"); err == nil {
		t.Error("a plain value opens")
	}
}

func TestFilesOfKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	if _, err := ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	r := NewRing(NewKey(), NewKey())
	if err := r.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got, err := ReadFile(path); err != nil || got.Key() != r.Key() || len(got.Others()) != 1 || got.Others()[0] != r.Others()[0] {
		t.Errorf("%v, %v", got, err)
	}
	raw := bytes.Repeat([]byte{7}, 32)
	for text, ok := range map[string]bool{
		string(raw): true, base64.StdEncoding.EncodeToString(raw): true, "": false, "# none\n": false, "short\n": false,
		base64.StdEncoding.EncodeToString(raw[1:]): false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path)
		if ok != (err == nil) || ok && got.Key().bytes != [32]byte(raw) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("the error shows what is in the file: %v", err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", r.Key(), r.Key(), r.Key(), r.Key()); strings.Contains(text, "bytes") ||
		strings.Count(text, r.Key().ID()) != 4 {
		t.Errorf("%s", text)
	}
}
