package central

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/oidc"
	"rackpower/central/oidc/oidctest"
)

// withIssuer is a central to whose page people come by an issuer.
func withIssuer(t *testing.T, secret string, log ...io.Writer) (*running, *oidctest.Issuer, *movable) {
	t.Helper()
	issuer, clock := oidctest.New(t), new(movable)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	public := "https://" + l.Addr().String()
	l.Close()
	issuer.Secret, issuer.Redirect = secret, public+"/ui/login/back"
	issuer.Users = map[string][]string{"alice": {"ops"}, "vera": {"staff"}, "gus": {"guests"}}
	verifier, err := oidc.New(oidc.Config{
		Issuer: issuer.URL, Audience: oidctest.ClientID, CAFile: issuer.CAFile(), Secret: secret, Scopes: []string{"profile"}, Now: clock.now,
		Grants: []oidc.Grant{{Group: "ops", Role: auth.Operator}, {Group: "staff", Role: auth.Viewer, Nodes: "@r2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, Config{
		TLS: TLSConfig{Listen: strings.TrimPrefix(public, "https://"), Names: []string{"127.0.0.1"}, Site: "lab"}, Now: clock.now,
		Login: verifier, Issuer: verifier, PublicURL: public,
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(log...), nil)),
	})
	return r, issuer, clock
}

// person is a browser that trusts central and the issuer. It goes where it is sent, but not back
// to central by itself where stop is set.
func (r *running) person(t *testing.T, issuer *oidctest.Issuer) (b *browser, stop *bool) {
	t.Helper()
	b = r.browser(t)
	jar, _ := cookiejar.New(nil)
	roots := r.c.tls.ca.Pool()
	cert, err := x509.ParseCertificate(issuer.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	stop = new(bool)
	b.http = &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if *stop && req.URL.Path == "/ui/login/back" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return b, stop
}

// begins goes to the issuer, and is the form there.
func (b *browser) begins(next string) (form string) {
	b.t.Helper()
	resp := b.get("/ui/login/issuer?next=" + url.QueryEscape(next))
	if b.at != "/auth" || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s at %s\n%s", resp.Status, b.at, b.last)
	}
	return resp.Request.URL.String()
}

// as logs in at the issuer; the answer is that of central, or of the issuer that leads back.
func (b *browser) as(form, user string) *http.Response {
	b.t.Helper()
	body := strings.NewReader(url.Values{"user": {user}}.Encode())
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, form, body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(req)
}

func (b *browser) loggedIn() bool { return b.get("/ui/").StatusCode == http.StatusOK }

func TestALogInAtTheIssuer(t *testing.T) {
	for _, secret := range []string{"", "s3 cret&"} {
		r, issuer, clock := withIssuer(t, secret)
		if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{
			{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"}, {Name: "n2", Rack: "r2", BMC: "ipmi://admin@192.0.2.2"},
		}}); err != nil {
			t.Fatal(err)
		}
		b, _ := r.person(t, issuer)
		if resp := b.get("/ui/racks/r1"); resp.StatusCode != http.StatusUnauthorized ||
			!strings.Contains(b.last, r.url()+`/ui/login/issuer?next=%2Fui%2Fracks%2Fr1"`) || !strings.Contains(b.last, "Log in at "+issuer.URL[8:]) {
			t.Fatalf("%s\n%s", resp.Status, b.last)
		}
		resp := b.as(b.begins("/ui/racks/r1"), "alice")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Refresh") != "0; url=/ui/racks/r1" || !strings.Contains(b.last, "Logged in") {
			t.Fatalf("%s at %s: %q\n%s", resp.Status, b.at, resp.Header.Get("Refresh"), b.last)
		}
		if b.get("/ui/racks/r1"); !strings.Contains(b.last, "alice, operator") || !strings.Contains(b.last, "n1") {
			t.Errorf("%s", b.last)
		}
		form := b.form()
		b.post("/ui/logout", "", form)
		if b.loggedIn() {
			t.Error("the log-out did not end the session")
		}
		// The role and the scope are those of the groups, as for a token that is pasted.
		b.as(b.begins("/ui/"), "vera")
		if b.get("/ui/nodes/n2"); !strings.Contains(b.last, "vera, viewer of @r2") {
			t.Errorf("%s", b.last)
		}
		if resp := b.get("/ui/nodes/n1"); resp.StatusCode < 400 {
			t.Errorf("a node beyond the scope: %s", resp.Status)
		}
		clock.later(59 * time.Minute)
		if !b.loggedIn() {
			t.Error("the session ended before its token")
		}
		clock.later(2 * time.Minute)
		if b.loggedIn() {
			t.Error("the session outlived its token")
		}
	}
}

// TestLogInsThatAreRefused: each says why and what to do, and leaves nobody logged in.
func TestLogInsThatAreRefused(t *testing.T) {
	log := new(logged)
	r, issuer, clock := withIssuer(t, "secret", log)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := issuer.Key
	for name, c := range map[string]struct {
		user   string
		tamper map[string]any
		key    *ecdsa.PrivateKey
		says   string
	}{
		"denied":           {user: "", says: "it says: access_denied the person said no"},
		"no role":          {user: "gus", says: "no group of gus has a role here"},
		"another nonce":    {user: "alice", tamper: map[string]any{"nonce": "A7MTDNLKPOUKJQYCQYWNXMWFYX"}, says: "of another log-in"},
		"no nonce":         {user: "alice", tamper: map[string]any{"nonce": nil}, says: "of another log-in"},
		"another issuer":   {user: "alice", tamper: map[string]any{"iss": "https://evil.example"}, says: "does not hold"},
		"another audience": {user: "alice", tamper: map[string]any{"aud": "wiki"}, says: "does not hold"},
		"expired":          {user: "alice", tamper: map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}, says: "does not hold"},
		"another key":      {user: "alice", key: stranger, says: "does not hold"},
	} {
		b, _ := r.person(t, issuer)
		issuer.Change(func() { issuer.Tamper, issuer.Key = c.tamper, cmp.Or(c.key, own) })
		b.as(b.begins("/ui/"), c.user)
		if !strings.Contains(b.last, c.says) || !strings.Contains(b.last, "Log in at") || b.loggedIn() {
			t.Errorf("%s: at %s\n%s", name, b.at, b.last)
		}
	}
	issuer.Change(func() { issuer.Tamper, issuer.Key = nil, own })
	if n := strings.Count(log.String(), "no log-in at the issuer"); n != 1 {
		t.Errorf("the log tells %d times of log-ins that were refused within a minute, from one address", n)
	}

	b, _ := r.person(t, issuer)
	form := b.begins("/ui/")
	clock.later(11 * time.Minute)
	if b.as(form, "alice"); !strings.Contains(b.last, "more than 10 minutes ago") || b.loggedIn() {
		t.Errorf("late: %s", b.last)
	}
	form = b.begins("/ui/")
	issuer.Change(func() { issuer.Secret = "changed" })
	if b.as(form, "alice"); !strings.Contains(b.last, "does not take the client rackpower or its secret") || b.loggedIn() {
		t.Errorf("another secret: %s", b.last)
	}
	issuer.Change(func() { issuer.Secret = "secret" })
	b, stop := r.person(t, issuer)
	*stop = true
	back := b.as(b.begins("/ui/"), "alice").Header.Get("Location")
	issuer.Close()
	if resp := b.get(strings.TrimPrefix(back, b.base)); resp.StatusCode != http.StatusServiceUnavailable ||
		!strings.Contains(b.last, "is not reachable from central") || b.loggedIn() {
		t.Errorf("the issuer is away: %s\n%s", resp.Status, b.last)
	}
}

// TestAttacksOnALogIn: what another browser began, what was used, and what nobody began is of no
// use, and costs whoever it was meant for nothing.
func TestAttacksOnALogIn(t *testing.T) {
	r, issuer, _ := withIssuer(t, "secret")
	victim, stop := r.person(t, issuer)
	attacker, stopped := r.person(t, issuer)
	*stop, *stopped = true, true
	back := func(b *browser, user string) string {
		t.Helper()
		return strings.TrimPrefix(b.as(b.begins("/ui/"), user).Header.Get("Location"), b.base)
	}
	theirs, mine := back(attacker, "vera"), back(victim, "alice")
	asked := issuer.Asked()
	refused := func(what string, b *browser, path string) {
		t.Helper()
		resp := b.get(path)
		if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(b.last, "was not begun in this browser") || b.loggedIn() {
			t.Errorf("%s: %s\n%s", what, resp.Status, b.last)
		}
	}
	code := func(path string) string {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		return u.Query().Get("code")
	}
	// The attacker has the victim open a log-in of the attacker's own.
	refused("a log-in of another browser", victim, theirs)
	refused("no state", victim, "/ui/login/back?code="+code(theirs))
	refused("an error without a state", victim, "/ui/login/back?error=access_denied")
	bare, _ := r.person(t, issuer)
	refused("a browser that began nothing", bare, mine)
	if n := issuer.Asked(); n != asked {
		t.Errorf("the issuer was asked %d times for what nobody began", n-asked)
	}
	// The attacker has learnt the victim's code, and gives it for an own log-in: PKCE, and the nonce.
	if attacker.get(strings.Replace(theirs, code(theirs), code(mine), 1)); attacker.loggedIn() {
		t.Error("the code of another browser was taken")
	}
	// That used up the code; the victim's state still holds, and says what is wrong.
	if victim.get(mine); !strings.Contains(victim.last, "gave no token") || victim.loggedIn() {
		t.Errorf("%s", victim.last)
	}
	mine = back(victim, "alice")
	base, _ := url.Parse(victim.base)
	kept := victim.http.Jar.Cookies(base)
	if resp := victim.get(mine); resp.StatusCode != http.StatusOK || !victim.loggedIn() {
		t.Fatalf("the victim's own: %s\n%s", resp.Status, victim.last)
	}
	refused("a replay", bare, mine)
	asked = issuer.Asked()
	victim.http.Jar.SetCookies(base, kept) // that of the log-in, which the answer took away
	if resp := victim.get(mine); resp.StatusCode != http.StatusUnauthorized || issuer.Asked() != asked {
		t.Errorf("a replay in the same browser: %s", resp.Status)
	}
}

// TestALogInLeadsNowhereElse: neither by next, nor by a form of another site.
func TestALogInLeadsNowhereElse(t *testing.T) {
	r, issuer, _ := withIssuer(t, "")
	for _, next := range []string{"https://evil.example/", "//evil.example", `/ui/\evil`, "/v1/nodes", "/ui/login/issuer", "/ui/x\r\nSet-Cookie: a=b"} {
		b, _ := r.person(t, issuer)
		if resp := b.as(b.begins(next), "alice"); resp.Header.Get("Refresh") != "0; url=/ui/" {
			t.Errorf("%q leads to %q", next, resp.Header.Get("Refresh"))
		}
	}
	b, _ := r.person(t, issuer)
	if resp := b.post("/ui/login/issuer", "https://evil.example", nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site: %s", resp.Status)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, b.base+"/ui/login/issuer", http.NoBody)
	resp, err := b.http.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cookie := resp.Header.Get("Set-Cookie")
	for _, part := range []string{"__Host-rackpower-login=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie %q lacks %q", cookie, part)
		}
	}
	if to := resp.Header.Get("Location"); !strings.HasPrefix(to, issuer.URL+"/auth?") || !strings.Contains(to, "code_challenge_method=S256") {
		t.Errorf("leads to %s", to)
	}
}

// TestManyLogInsThatNobodyEnds: those from one address make way for each other, and leave the
// ones from other addresses alone.
func TestManyLogInsThatNobodyEnds(t *testing.T) {
	r, issuer, _ := withIssuer(t, "")
	first, stop := r.person(t, issuer)
	*stop = true
	form := first.begins("/ui/")
	handler := r.c.Handler()
	begin := func(address string) {
		req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "/ui/login/issuer", http.NoBody)
		req.RemoteAddr = address
		handler.ServeHTTP(new(discard), req)
	}
	for range 300 {
		begin("192.0.2.7:1")
	}
	*stop = false
	if first.as(form, "alice"); !first.loggedIn() {
		t.Errorf("others crowded out a log-in: %s", first.last)
	}
	form = first.begins("/ui/")
	for range 100 {
		begin("127.0.0.1:1")
	}
	if first.as(form, "alice"); !strings.Contains(first.last, "was not begun in this browser") {
		t.Errorf("more than 100 log-ins of an address are kept: %s", first.last)
	}
}

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// discard is an http.ResponseWriter that keeps nothing.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header {
	if d.h == nil {
		d.h = http.Header{}
	}
	return d.h
}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
