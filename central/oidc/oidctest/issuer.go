// Package oidctest is a small OpenID Connect issuer for tests: discovery, keys (ES256), a page
// where a person logs in, and the endpoint for tokens, by the authorization code flow with PKCE
// (OpenID Connect Core 1.0, section 3.1; RFC 7636). It is as strict as those ask for, and gives
// false tokens where a test wants some.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"html/template"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// ClientID is the client that tokens are for.
const ClientID = "rackpower"

// Issuer runs until its test ends. It may be used concurrently.
type Issuer struct {
	URL string
	// Key signs tokens. Secret is the client's; "": it is a public one. Redirect is where it may be
	// sent back to. Users are those who may log in, with their groups. Tamper are other claims for
	// tokens; nil removes one. After the first request they are set in Change.
	Key              *ecdsa.PrivateKey
	Secret, Redirect string
	Users            map[string][]string
	Tamper           map[string]any

	t         testing.TB
	srv       *httptest.Server
	published ecdsa.PublicKey

	mu    sync.Mutex
	codes map[string]grant
	asked int
}

// grant is what a code stands for.
type grant struct {
	user, nonce, challenge, redirect string
}

// New starts an issuer.
func New(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{t: t, Key: key, published: key.PublicKey, codes: map[string]grant{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("GET /auth", i.showLogin)
	mux.HandleFunc("POST /auth", i.login)
	mux.HandleFunc("POST /token", i.token)
	i.srv = httptest.NewTLSServer(mux)
	i.URL = i.srv.URL
	t.Cleanup(i.srv.Close)
	return i
}

// Close stops it before its test ends.
func (i *Issuer) Close() { i.srv.Close() }

// Certificate is that of its server, in DER.
func (i *Issuer) Certificate() []byte { return i.srv.Certificate().Raw }

// PublicKey is the key of its server's certificate, as the certificate has it.
func (i *Issuer) PublicKey() []byte { return i.srv.Certificate().RawSubjectPublicKeyInfo }

// CAFile writes the certificate into a file, in PEM.
func (i *Issuer) CAFile() string {
	i.t.Helper()
	path := filepath.Join(i.t.TempDir(), "issuer.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate()})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// Change runs f while no token is made.
func (i *Issuer) Change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

// Asked is how often it was asked for a token.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// Claims are those of a good token of alice, with others in place of some; nil removes one.
func (i *Issuer) Claims(other map[string]any) map[string]any {
	all := map[string]any{
		"iss": i.URL, "aud": ClientID, "sub": "4711", "preferred_username": "alice", "groups": []string{"staff", "ops"},
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}
	maps.Copy(all, other)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// Sign makes a token (RFC 7515, ES256) with a key.
func Sign(t testing.TB, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	text := EncodeJSON(map[string]string{"alg": "ES256", "kid": "k1"}) + "." + EncodeJSON(claims)
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

// EncodeJSON is a part of a token.
func EncodeJSON(v any) string {
	raw, _ := json.Marshal(v)
	return encode(raw)
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
		"id_token_signing_alg_values_supported": []string{"ES256"}, "response_types_supported": []string{"code"},
		"subject_types_supported": []string{"public"}, "token_endpoint_auth_methods_supported": []string{"client_secret_basic", "none"},
		"code_challenge_methods_supported": []string{"S256"},
	})
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	point, err := i.published.Bytes()
	if err != nil {
		i.t.Error(err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256", "x": encode(point[1:33]), "y": encode(point[33:]),
	}}})
}

// right reports whether a browser was sent here as it should be. One that was not is never sent
// back: where to is not known.
func (i *Issuer) right(w http.ResponseWriter, q url.Values) bool {
	wants := map[string]string{
		"response_type": "code", "client_id": ClientID, "redirect_uri": i.Redirect, "code_challenge_method": "S256",
	}
	for name, want := range wants {
		if got := q.Get(name); got != want {
			http.Error(w, name+" is "+got+" and not "+want, http.StatusBadRequest)
			return false
		}
	}
	if len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 22 || len(q.Get("nonce")) < 22 {
		http.Error(w, "code_challenge, state or nonce is missing or short", http.StatusBadRequest)
		return false
	}
	return true
}

var loginPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><title>issuer</title>
<h1>Who are you?</h1><form method="post" action="/auth?{{.Query}}">
{{range $name, $_ := .Users}}<button name="user" value="{{$name}}">{{$name}}</button> {{end}}
<button name="user" value="">deny</button></form></html>`))

func (i *Issuer) showLogin(w http.ResponseWriter, r *http.Request) {
	if i.right(w, r.URL.Query()) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = loginPage.Execute(w, map[string]any{"Query": template.URL(r.URL.RawQuery), "Users": i.Users}) //nolint:gosec // a test's own
	}
}

func (i *Issuer) login(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !i.right(w, q) {
		return
	}
	user := r.PostFormValue("user")
	back := url.Values{"state": {q.Get("state")}}
	if _, known := i.Users[user]; known {
		code := rand.Text()
		i.mu.Lock()
		i.codes[code] = grant{user, q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri")}
		i.mu.Unlock()
		back.Set("code", code)
	} else {
		back.Set("error", "access_denied")
		back.Set("error_description", "the person said no")
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	id, secret, basic := r.BasicAuth()
	if !basic {
		id = r.PostFormValue("client_id")
	}
	if plain, err := url.QueryUnescape(secret); err == nil && basic { // RFC 6749, section 2.3.1
		secret = plain
	}
	if id != ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(i.Secret)) != 1 {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	code := r.PostFormValue("code")
	g, known := i.codes[code]
	delete(i.codes, code) // once
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !known || r.PostFormValue("grant_type") != "authorization_code" || g.redirect != r.PostFormValue("redirect_uri") ||
		g.challenge != encode(sum[:]) {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	claims := i.Claims(map[string]any{"preferred_username": g.user, "groups": i.Users[g.user], "nonce": g.nonce})
	for name, value := range i.Tamper {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300, "id_token": Sign(i.t, i.Key, claims),
	})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
