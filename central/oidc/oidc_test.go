package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/auth"
)

// issuer is a small OpenID Connect issuer with one key (ES256).
type issuer struct {
	t   *testing.T
	srv *httptest.Server
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.srv.URL, "jwks_uri": i.srv.URL + "/keys", "authorization_endpoint": i.srv.URL + "/auth", "token_endpoint": i.srv.URL +
				"/token",
			"id_token_signing_alg_values_supported": []string{"ES256"}, "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		point, err := i.key.PublicKey.Bytes()
		if err != nil {
			t.Error(err)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
			"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256", "x": encode(point[1:33]), "y": encode(point[33:]),
		}}})
	})
	i.srv = httptest.NewTLSServer(mux)
	t.Cleanup(i.srv.Close)
	return i
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func encodeJSON(v any) string {
	raw, _ := json.Marshal(v)
	return encode(raw)
}

// sign makes a token (RFC 7515, ES256) with a key.
func sign(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	text := encodeJSON(map[string]string{"alg": "ES256", "kid": "k1"}) + "." + encodeJSON(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 64)
	r.FillBytes(raw[:32])
	s.FillBytes(raw[32:])
	return text + "." + encode(raw)
}

// claims of a good token, with others in place of some; nil removes one.
func (i *issuer) claims(other map[string]any) map[string]any {
	all := map[string]any{
		"iss": i.srv.URL, "aud": "rackpower", "sub": "4711", "preferred_username": "alice", "groups": []string{"staff", "ops"},
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}
	maps.Copy(all, other)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

func (i *issuer) config() Config {
	path := filepath.Join(i.t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.srv.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		i.t.Fatal(err)
	}
	return Config{Issuer: i.srv.URL, Audience: "rackpower", CAFile: path, Grants: []Grant{
		{Group: "staff", Role: auth.Viewer},
		{Group: "ops", Role: auth.Operator, Nodes: "@r1"},
		{
			Group: "ops2", Role: auth.Operator,
			Nodes: "@r2",
		},
		{Group: "boss", Role: auth.Admin},
		{Group: "allops", Role: auth.Operator},
	}}
}

func TestTokensOfAnIssuer(t *testing.T) {
	i := newIssuer(t)
	v, err := New(i.config())
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	unsigned := encodeJSON(map[string]string{"alg": "none"}) + "." + encodeJSON(i.claims(nil)) + "."
	for name, c := range map[string]struct {
		token string
		role  auth.Role
		scope string
		fails string
	}{
		"good":             {sign(t, i.key, i.claims(nil)), auth.Operator, "@r1", ""},
		"viewer":           {sign(t, i.key, i.claims(map[string]any{"groups": "staff"})), auth.Viewer, "", ""},
		"two scopes":       {sign(t, i.key, i.claims(map[string]any{"groups": []string{"ops", "ops2"}})), auth.Operator, "@r1,@r2", ""},
		"everywhere":       {sign(t, i.key, i.claims(map[string]any{"groups": []string{"ops", "allops"}})), auth.Operator, "", ""},
		"the highest":      {sign(t, i.key, i.claims(map[string]any{"groups": []string{"ops", "boss", "staff"}})), auth.Admin, "", ""},
		"no group":         {sign(t, i.key, i.claims(map[string]any{"groups": []string{"guests"}})), "", "", "no group of alice"},
		"groups missing":   {sign(t, i.key, i.claims(map[string]any{"groups": nil})), "", "", "no group of alice"},
		"groups a number":  {sign(t, i.key, i.claims(map[string]any{"groups": 7})), "", "", "no group of alice"},
		"no name":          {sign(t, i.key, i.claims(map[string]any{"preferred_username": nil})), "", "", "names no user"},
		"another audience": {sign(t, i.key, i.claims(map[string]any{"aud": "wiki"})), "", "", "audience"},
		"another issuer":   {sign(t, i.key, i.claims(map[string]any{"iss": "https://evil"})), "", "", "issue"},
		"expired":          {sign(t, i.key, i.claims(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})), "", "", "expired"},
		"another key":      {sign(t, stranger, i.claims(nil)), "", "", "signature"},
		"unsigned":         {unsigned, "", "", ""},
		"cut":              {sign(t, i.key, i.claims(nil))[:60], "", "", ""},
		"empty":            {"", "", "", ""},
	} {
		p, err := v.Verify(t.Context(), c.token)
		if c.role == "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) || errors.Is(err, auth.ErrNoIssuer) {
				t.Errorf("%s: %+v, %v, want %q", name, p, err, c.fails)
			}
			continue
		}
		if err != nil || p.Role != c.role || p.Scope != c.scope || p.Name != "alice" || p.Method != auth.ByOIDC || p.Speaks || p.Own {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestAnIssuerThatIsAway(t *testing.T) {
	i := newIssuer(t)
	cfg := i.config()
	i.srv.Close()
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := v.Verify(t.Context(), "a.b.c"); !errors.Is(err, auth.ErrNoIssuer) {
			t.Errorf("%v", err)
		}
	}
}

func TestConfigurationsThatMakeNoSense(t *testing.T) {
	good := newIssuer(t).config()
	for name, change := range map[string]func(*Config){
		"http": func(c *Config) { c.Issuer = "http://x" }, "no audience": func(c *Config) { c.Audience = "" },
		"no grants": func(c *Config) { c.Grants = nil }, "no CA": func(c *Config) { c.CAFile = "/nonexistent" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for text, want := range map[string]Grant{
		"ops=operator:@r1": {"ops", auth.Operator, "@r1"}, "a b=viewer": {"a b", auth.Viewer, ""}, "x=root": {}, "x": {}, "=admin": {},
		"x=admin:[": {},
	} {
		if got, err := ParseGrant(text); (err == nil) != (want != Grant{}) || err == nil && got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}
