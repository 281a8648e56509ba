package auth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRolesInclude(t *testing.T) {
	for _, c := range []struct {
		has, least Role
		want       bool
	}{
		{Viewer, Viewer, true},
		{Viewer, Operator, false},
		{Operator, Viewer, true},
		{Operator, Admin, false},
		{Admin, Operator, true},
		{"", Viewer, false},
		{"root", Viewer, false},
		{Admin, "", false},
		{"", "", false},
	} {
		if got := c.has.Includes(c.least); got != c.want {
			t.Errorf("%q includes %q: %v", c.has, c.least, got)
		}
	}
	if _, err := ParseRole("Admin"); err == nil {
		t.Error("Admin was taken for admin")
	}
}

func TestWhoMaySpeakForOthers(t *testing.T) {
	alice := Principal{Name: "alice"}
	for named, want := range map[string]string{"": "alice", "alice": "alice", " alice ": "alice"} {
		if got, err := alice.For(named); err != nil || got != want {
			t.Errorf("%q: %q, %v", named, got, err)
		}
	}
	if got, err := alice.For("bob"); err == nil {
		t.Errorf("alice spoke for bob: %q", got)
	}
	alice.Speaks = true
	if got, err := alice.For("bob"); err != nil || got != "alice for bob" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTokens(t *testing.T) {
	a, b := NewToken(), NewToken()
	if a == b || !IsToken(a) || HashToken(a) == HashToken(b) || len(HashToken(a)) != 64 {
		t.Errorf("%q, %q", a, b)
	}
	for _, text := range []string{"", "rpt_", a[4:], a + "x", a[:len(a)-1], "rpe_" + a[4:], " " + a} {
		if IsToken(text) {
			t.Errorf("%q was taken for a token", text)
		}
	}
}

func FuzzParseEnrolment(f *testing.F) {
	hash := hashPrefix + strings.Repeat("ab", 32)
	f.Add(NewEnrolment("r1", hash).String())
	f.Add("rpe_..")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEnrolment(text)
		if err != nil {
			if len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("the error shows what was read: %v", err)
			}
			return
		}
		if again, err := ParseEnrolment(e.String()); err != nil || again != e {
			t.Errorf("%+v, %+v, %v", e, again, err)
		}
	})
}

func testCA(t *testing.T, dir, site string) *CA {
	t.Helper()
	ca, err := OpenCA(dir, site, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testRequest(t *testing.T, name string) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	request, err := NewRequest(signer, name)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func TestACAStays(t *testing.T) {
	dir := t.TempDir()
	ca := testCA(t, dir, "lab")
	info, err := os.Stat(filepath.Join(dir, CAKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	again := testCA(t, dir, "another name")
	if again.Hash() != ca.Hash() || again.Site() != "lab" {
		t.Errorf("%s %s, want %s lab", again.Hash(), again.Site(), ca.Hash())
	}
	if err := os.Remove(filepath.Join(dir, CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(dir, "lab", nil, time.Now()); err == nil || !strings.Contains(err.Error(), "key of the site's CA") {
		t.Errorf("without its key: %v", err)
	}
	other, _ := NewKey()
	if _, err := OpenCA(dir, "lab", other, time.Now()); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("with another key: %v", err)
	}
}

// TestAStartThatEndedWithinTheMaking leaves a key without a certificate.
func TestAStartThatEndedWithinTheMaking(t *testing.T) {
	dir := t.TempDir()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, CAKeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	testCA(t, dir, "lab")
	if after, _ := os.ReadFile(filepath.Join(dir, CAKeyFile)); string(after) != string(key) {
		t.Error("the key was replaced")
	}
}

func TestAnExternalKeyIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	key, _ := NewKey()
	if _, err := OpenCA(dir, "lab", key, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, CAKeyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestTheRequestOnlyBringsItsKey has a request claim names and rights.
func TestTheRequestOnlyBringsItsKey(t *testing.T) {
	ca := testCA(t, t.TempDir(), "lab")
	from := time.Now().Truncate(time.Second)
	text, leaf, err := ca.SignAgent("r1", testRequest(t, "r2"), from)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.IsCA || len(leaf.DNSNames) > 0 || leaf.Subject.CommonName != "agent r1" || !leaf.NotAfter.Equal(from.Add(AgentLife).UTC()) {
		t.Errorf("%+v", leaf.Subject)
	}
	if kind, name, err := Identity(leaf, "lab"); err != nil || kind != Agent || name != "r1" {
		t.Errorf("%s %s, %v", kind, name, err)
	}
	if _, _, err := Identity(leaf, "other"); err == nil {
		t.Error("it is good for another site")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("an agent may pass for central")
	}
	if c, err := ParseCert(text); err != nil || Serial(c) != Serial(leaf) {
		t.Errorf("%v", err)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	ca := testCA(t, t.TempDir(), "lab")
	good := testRequest(t, "r1")
	block, _ := pem.Decode(good)
	broken := append([]byte{}, block.Bytes...)
	broken[len(broken)-1] ^= 1
	for name, request := range map[string][]byte{
		"empty": nil, "no PEM": []byte("hello"), "a certificate": ca.Cert(), "two": append(append([]byte{}, good...), good...),
		"a broken signature": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: broken}),
		"cut":                pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: block.Bytes[:40]}),
	} {
		if _, _, err := ca.SignAgent("r1", request, time.Now()); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func FuzzSignAgent(f *testing.F) {
	ca, err := OpenCA(f.TempDir(), "lab", nil, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	key, _ := NewKey()
	signer, _ := ParseKey(key)
	request, _ := NewRequest(signer, "r1")
	f.Add(request)
	f.Fuzz(func(t *testing.T, request []byte) {
		if _, leaf, err := ca.SignAgent("r1", request, time.Now()); err == nil {
			if _, name, err := Identity(leaf, "lab"); err != nil || name != "r1" {
				t.Errorf("%s, %v", name, err)
			}
		}
	})
}

// TestAServerIsKnownByTheHashOfItsCA connects to servers of this site, of another, and to
// one that shows the CA of this site beside a certificate of its own.
func TestAServerIsKnownByTheHashOfItsCA(t *testing.T) {
	ours, theirs := testCA(t, t.TempDir(), "lab"), testCA(t, t.TempDir(), "lab")
	good, err := ours.Server([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := theirs.Server([]string{"localhost"}, time.Now())
	posing := *foreign
	posing.Certificate = [][]byte{foreign.Certificate[0], good.Certificate[1]}
	elsewhere, _ := ours.Server([]string{"elsewhere"}, time.Now())
	expired, _ := ours.Server([]string{"localhost"}, time.Now().Add(-serverLife-2*skew))
	for name, c := range map[string]struct {
		cert *tls.Certificate
		ok   bool
	}{
		"ours": {good, true}, "another site": {foreign, false}, "posing": {&posing, false}, "another name": {elsewhere, false},
		"expired": {expired, false},
	} {
		t.Run(name, func(t *testing.T) {
			var seen *x509.Certificate
			err := shakeHands(t, c.cert, Pinned(ours.Hash(), func(ca *x509.Certificate) { seen = ca }))
			if (err == nil) != c.ok || (seen != nil) != c.ok {
				t.Errorf("pinned: %v, seen %v", err, seen != nil)
			}
			trusting, err := Trusting(ours.Cert())
			if err != nil {
				t.Fatal(err)
			}
			if err := shakeHands(t, c.cert, trusting); (err == nil) != c.ok {
				t.Errorf("trusting: %v", err)
			}
		})
	}
}

func shakeHands(t *testing.T, cert *tls.Certificate, client *tls.Config) error {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { _ = tls.Server(far, &tls.Config{Certificates: []tls.Certificate{*cert}}).Handshake() }()
	cfg := client.Clone()
	cfg.ServerName = "localhost"
	return tls.Client(near, cfg).Handshake()
}
