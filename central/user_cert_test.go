package central

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// certified is a key and the certificate that a client gets for a user.
func certified(t *testing.T, c *api.Client, user string, ttl time.Duration) (*tls.Certificate, api.UserCertificate, error) {
	t.Helper()
	var out api.UserCertificate
	pair, err := keyPair(t, func(request string) (string, error) {
		var err error
		out, err = c.CertifyUser(t.Context(), user, api.CertifyUser{Request: request, TTL: ttl})
		return out.Certificate, err
	})
	return pair, out, err
}

// TestAUserHasACertificate uses it instead of the token, until it expires.
func TestAUserHasACertificate(t *testing.T) {
	r, clock := onTLS(t)
	alice := r.as(t, "alice", api.AddUser{Role: "operator", Nodes: "@ra"})
	pair, out, err := certified(t, alice, "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(pair.Certificate[0])
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "rackpower://lab/user/alice" || leaf.IsCA || !out.NotAfter.Equal(leaf.NotAfter) ||
		leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Hour) != auth.UserLife {
		t.Errorf("%v, %s, %+v", leaf.URIs, leaf.NotAfter.Sub(leaf.NotBefore), out)
	}
	holder := r.remote(t, "", pair)
	if me, err := holder.WhoAmI(t.Context()); err != nil || me.Name != "alice" || me.Role != "operator" || me.Nodes != "@ra" ||
		me.Via != "certificate" {
		t.Errorf("%+v, %v", me, err)
	}
	_, err = holder.Users(t.Context())
	wantCode(t, err, api.CodeForbidden)
	_, err = holder.Hello(t.Context(), "alice", api.Hello{JournalID: "j", Epoch: 1})
	wantCode(t, err, api.CodeForbidden)
	users, err := r.Users(t.Context())
	if err != nil || len(users) != 1 || len(users[0].Certificates) != 1 || users[0].Certificates[0].Serial != out.Serial ||
		users[0].Certificates[0].UsedAt == nil {
		t.Errorf("%+v, %v", users, err)
	}
	entries, err := r.FindAudit(t.Context(), api.AuditQuery{What: "access-refused", Limit: 100})
	if err != nil || len(entries) == 0 || entries[0].Who != "alice" || entries[0].Via != "certificate" {
		t.Errorf("%+v, %v", entries, err)
	}
	clock.later(auth.UserLife / 2)
	next, _, err := certified(t, holder, "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	clock.later(auth.UserLife/2 + time.Minute)
	_, err = holder.WhoAmI(t.Context())
	wantCode(t, err, api.CodeLogin)
	if err == nil || !strings.Contains(err.Error(), "expired at") || !strings.Contains(err.Error(), "rackpower user cert alice") {
		t.Errorf("%v", err)
	}
	if _, err := r.remote(t, "", next).WhoAmI(t.Context()); err != nil {
		t.Errorf("renewed: %v", err)
	}
}

// TestWhoMayHaveWhichCertificate asks for those of others, for too long, and beyond the
// token that it was asked for with.
func TestWhoMayHaveWhichCertificate(t *testing.T) {
	r, _ := onTLS(t)
	alice := r.as(t, "alice", api.AddUser{Role: "operator"})
	r.as(t, "bob", api.AddUser{Role: "admin"})
	someAdmin := r.as(t, "anna", api.AddUser{Role: "admin", Nodes: "@ra"})
	for _, c := range []*api.Client{alice, someAdmin} {
		_, _, err := certified(t, c, "bob", 0)
		wantCode(t, err, api.CodeForbidden)
	}
	_, _, err := certified(t, r.enrolled(t, "alice"), "alice", 0) // an agent of the same name
	wantCode(t, err, api.CodeForbidden)
	_, _, err = certified(t, alice, "alice", maxUserLife+time.Hour)
	wantCode(t, err, api.CodeBadRequest)
	_, err = alice.CertifyUser(t.Context(), "alice", api.CertifyUser{Request: "x"})
	wantCode(t, err, api.CodeBadRequest)
	_, _, err = certified(t, r.Client, "nobody", 0)
	wantCode(t, err, api.CodeNotFound)
	if _, _, err := certified(t, r.Client, "alice", 0); err != nil {
		t.Errorf("by an admin: %v", err)
	}
	short := r.as(t, "sam", api.AddUser{Role: "viewer", TTL: time.Hour})
	pair, out, err := certified(t, short, "sam", 0)
	if err != nil || time.Until(out.NotAfter) > time.Hour {
		t.Errorf("%+v, %v", out, err)
	}
	if _, again, err := certified(t, r.remote(t, "", pair), "sam", 0); err != nil || again.NotAfter.After(out.NotAfter) {
		t.Errorf("renewed beyond the token: %+v, %v", again, err)
	}
}

// TestARevocationEndsWhatAUserHasOpen: token and certificate hold no longer at once, an open
// watch included, whichever way the rights are taken.
func TestARevocationEndsWhatAUserHasOpen(t *testing.T) {
	r, _ := onTLS(t)
	ctx := context.Background()
	for name, revoke := range map[string]func(serial string) error{
		"rotate": func(string) error { _, err := r.RotateToken(ctx, "rotate", api.RotateToken{}); return err },
		"revoke": func(string) error {
			_, err := r.RotateToken(ctx, "revoke", api.RotateToken{RevokeOnly: true})
			return err
		},
		"one": func(serial string) error {
			_, err := r.RotateToken(ctx, "one", api.RotateToken{RevokeOnly: true, Certificate: serial})
			return err
		},
		"rm": func(string) error { _, err := r.RemoveUser(ctx, "rm", api.RemoveUser{}); return err },
	} {
		pair, out, err := certified(t, r.as(t, name, api.AddUser{Role: "viewer"}), name, 0)
		if err != nil {
			t.Fatal(err)
		}
		holder := r.remote(t, "", pair)
		ended := make(chan error, 1)
		go func() { _, err := holder.AuditAfter(ctx, "", 1<<40, time.Minute); ended <- err }()
		until(t, "the watch waits", func() bool {
			r.c.limits.mu.Lock()
			defer r.c.limits.mu.Unlock()
			u := r.c.limits.of["user "+name]
			return u != nil && u.nWaits == 1
		})
		if err := revoke(out.Serial); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		select {
		case err := <-ended:
			wantCode(t, err, api.CodeLogin)
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the watch goes on", name)
		}
		_, err = holder.WhoAmI(ctx)
		wantCode(t, err, api.CodeLogin)
		if name == "rm" { // one who comes later with the name is another
			r.as(t, name, api.AddUser{Role: "admin"})
			_, err = holder.WhoAmI(ctx)
			wantCode(t, err, api.CodeLogin)
		}
	}
	// Who revokes its own gets the answer.
	admin := r.as(t, "admin", api.AddUser{Role: "admin"})
	if out, err := admin.RotateToken(ctx, "admin", api.RotateToken{}); err != nil || out.Token == "" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := r.RotateToken(ctx, "one", api.RotateToken{RevokeOnly: true, Certificate: "abc"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("%v", err)
	}
}

// TestACertificateThatCentralDoesNotKnow: another CA's, and one that this CA did not note.
func TestACertificateThatCentralDoesNotKnow(t *testing.T) {
	r, _ := onTLS(t)
	r.as(t, "alice", api.AddUser{Role: "admin"})
	theirs, err := auth.OpenCA(t.TempDir(), "lab", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for what, ca := range map[string]*auth.CA{"another CA": theirs, "not noted": r.c.tls.ca} {
		pair, err := keyPair(t, func(request string) (string, error) {
			text, _, err := ca.SignUser("alice", []byte(request), time.Now().Add(-time.Second), time.Now().Add(time.Hour))
			return string(text), err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = r.remote(t, "", pair).WhoAmI(t.Context()); api.CodeOf(err) != api.CodeLogin {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCurlHasACertificate asks as another program would.
func TestCurlHasACertificate(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("LEFT OUT: no curl")
	}
	r, _ := onTLS(t)
	alice := r.as(t, "alice", api.AddUser{Role: "viewer"})
	key, _ := auth.NewKey()
	signer, _ := auth.ParseKey(key)
	request, err := auth.NewRequest(signer, "x")
	if err != nil {
		t.Fatal(err)
	}
	out, err := alice.CertifyUser(t.Context(), "alice", api.CertifyUser{Request: string(request)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, cert, private := file("ca", string(r.c.tls.ca.Cert())), file("cert", out.Certificate), file("key", string(key))
	both := file("both", string(key)+out.Certificate)
	for _, args := range [][]string{{"--cert", cert, "--key", private}, {"--cert", both}} {
		args = append(args, "-sS", "--cacert", ca, r.url()+"/v1/whoami")
		text, err := exec.CommandContext(t.Context(), curl, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(text), `"name":"alice"`) || !strings.Contains(string(text), `"via":"certificate"`) {
			t.Errorf("%v: %s, %v", args[:2], text, err)
		}
	}
}
