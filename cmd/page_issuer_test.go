package cmd_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rackpower/central/oidc/oidctest"
)

// TestALogInAtAnIssuerInABrowser: a person is sent to the issuer, says no, then yes, is where the
// log-in began, and logs out; with the page's script and without.
func TestALogInAtAnIssuerInABrowser(t *testing.T) {
	issuer := oidctest.New(t)
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.overTLS()
	secret := filepath.Join(s.dir, "client.secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer.Secret, issuer.Redirect = "s3cret", "https://"+s.tls+"/ui/login/back"
	issuer.Users = map[string][]string{"alice": {"ops"}, "gus": {"guests"}}
	s.serves = []string{
		"--oidc-issuer", issuer.URL, "--oidc-audience", oidctest.ClientID, "--oidc-ca", issuer.CAFile(), "--oidc-role", "ops=operator",
		"--oidc-client-secret-file", secret, "--public-url", "https://" + s.tls + "/",
	}
	s.startCentral()
	s.until(20*time.Second, "central answers", s.answers)
	browser := s.startBrowser(issuer.PublicKey())
	for _, name := range []string{"alice", "alice without a script"} {
		b := s.tab(browser, name)
		if name != "alice" {
			b.withoutScript()
		}
		b.open("/ui/attention")
		at := func(user string) {
			t.Helper()
			b.tabTo(`a.button[href*="/ui/login/issuer"]`)
			b.press(kb.Enter)
			b.sees("Who are you?")
			b.tabTo(`button[value="` + user + `"]`)
			b.press(kb.Enter)
		}
		at("")
		b.sees("did not log you in: it says: access_denied", "Log in at")
		at("gus")
		b.sees("no group of gus has a role here", "--oidc-role", "Log in at")
		at("alice")
		b.sees("Nothing wants a person", "alice, operator")
		if path := b.at(); path != "/ui/attention" {
			t.Errorf("the log-in began at /ui/attention, and led to %s", path)
		}
		b.tabTo(`form[action="/ui/logout"] button`)
		b.press(kb.Enter)
		b.sees("Log in at")
		b.open("/ui/")
		b.sees("Log in at")
		b.run(chromedp.WaitVisible(chromedp.CSS("input[name=token]")))
		b.blameless("status of 401|/favicon.ico")
	}
}
