package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/cmd/settings"
)

// remoteCentral is a central over TLS that knows alice by a token, or by a certificate.
type remoteCentral struct {
	t     *testing.T
	ca    *auth.CA
	url   string
	token string
	life  time.Duration // of certificates
	via   []string      // how requests were known
}

func newRemoteCentral(t *testing.T) *remoteCentral {
	t.Helper()
	ca, err := auth.OpenCA(t.TempDir(), "lab", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &remoteCentral{t: t, ca: ca, token: auth.NewToken(), life: auth.UserLife}
	cert, err := ca.Server([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/whoami", c.known(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, api.User{Name: "alice", Role: "operator"})
	}))
	mux.HandleFunc("GET /v1/users", c.known(func(w http.ResponseWriter, _ *http.Request) {
		at := time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)
		reply(w, []api.User{
			{Name: "alice", Role: "operator", Nodes: "@r1", Certificates: []api.UserCertificate{{Serial: "ab", NotAfter: at}, {Serial: "cd", NotAfter: at}}},
			{Name: "bob", Role: "viewer", HasToken: true, ExpiresAt: &at, UsedAt: &at},
		})
	}))
	mux.HandleFunc("POST /v1/users/{name}/certificate", c.known(func(w http.ResponseWriter, r *http.Request) {
		var in api.CertifyUser
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		text, leaf, err := ca.SignUser(r.PathValue("name"), []byte(in.Request), time.Now().Add(-time.Hour), time.Now().Add(c.life))
		if err != nil {
			t.Error(err)
			return
		}
		reply(w, api.UserCertificate{User: r.PathValue("name"), Serial: auth.Serial(leaf), NotAfter: leaf.NotAfter, Certificate: string(text)})
	}))
	srv := httptest.NewUnstartedServer(mux)
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c.url = srv.URL
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("RACKPOWER_CENTRAL", "")
	os.Unsetenv("RACKPOWER_CENTRAL")
	return c
}

func (c *remoteCentral) known(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") == "Bearer "+c.token:
			c.via = append(c.via, "token")
		case len(r.TLS.PeerCertificates) > 0:
			c.via = append(c.via, "certificate")
		default:
			api.Problemf(api.CodeLogin, "who asks is not known: log in (rackpower login)").Write(w)
			return
		}
		h(w, r)
	}
}

func (c *remoteCentral) run(args string, stdin ...string) ran {
	c.t.Helper()
	var out, errs bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter, app.Reader = &out, &errs, strings.NewReader(strings.Join(stdin, "\n"))
	exit := settings.RunContext(c.t.Context(), app, append([]string{"rackpower"}, append(strings.Fields(args), "--config", "")...))
	return ran{exit, out.String(), errs.String()}
}

// TestACertificateTakesThePlaceOfTheToken logs in, gets a certificate and asks with it.
func TestACertificateTakesThePlaceOfTheToken(t *testing.T) {
	c := newRemoteCentral(t)
	expect(t, "before", c.run("user cert alice --central "+c.url), 5, "", "nobody is logged in at")
	expect(t, "login", c.run("login "+c.url+" --ca-hash "+c.ca.Hash(), c.token), 0, "logged in", "")
	expect(t, "another's", c.run("user cert bob"), 2, "", "profile default is alice's: --out FILE for another user")
	expect(t, "cert", c.run("user cert alice"), 0, "alice has a certificate until ", "")
	profile, _, err := settings.LoadProfile(settings.DefaultProfile)
	if err != nil || profile.Token != "" || profile.Certificate == "" || profile.Key == "" {
		t.Errorf("%+v, %v", profile, err)
	}
	c.via = nil
	expect(t, "users", c.run("user list"), 0, "alice", "")
	c.life = 24 * time.Hour // the next one ends soon
	expect(t, "renewed", c.run("user cert alice"), 0, "alice has a certificate until ", "")
	if strings.Join(c.via, " ") != "certificate certificate" {
		t.Errorf("known by %v", c.via)
	}
	expect(t, "no hurry", c.run("user list"), 0, "alice", "")
	c.life = time.Minute
	expect(t, "renewed", c.run("user cert alice"), 0, "alice has a certificate until ", "")
	expect(t, "it expires", c.run("user list"), 0, "alice", "rackpower user cert alice renews it\n")

	path := filepath.Join(t.TempDir(), "robot.pem")
	expect(t, "to a file", c.run("user cert robot --out "+path), 0, "kept in "+path, "")
	expect(t, "to the file again", c.run("user cert robot --out "+path), 2, "", "exists")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(text, text); err != nil {
		t.Error(err)
	}
	expect(t, "nobody named", c.run("user cert"), 2, "", "NAME is missing")
}

func TestTheListOfUsersHasTheirCertificates(t *testing.T) {
	c := newRemoteCentral(t)
	expect(t, "login", c.run("login "+c.url+" --ca-hash "+c.ca.Hash(), c.token), 0, "logged in", "")
	got := c.run("user list -o wide")
	if got.exit != 0 || !strings.Contains(got.out, "ab,cd") {
		t.Errorf("%+v", got)
	}
	got = c.run("user list")
	for line := range strings.Lines(got.out) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}
