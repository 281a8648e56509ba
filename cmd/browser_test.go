package cmd_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rackpower/central/api"
)

// patience bounds every wait for a page: a loaded machine takes long to start a browser.
const patience = 60 * time.Second

// startBrowser starts chromium, with a profile of its own, that trusts the certificate of the
// site's central, those with other keys, and no more. It ends with the test.
func (s *site) startBrowser(keys ...[]byte) context.Context {
	s.t.Helper()
	const chromium = "/usr/bin/chromium"
	if _, err := os.Stat(chromium); err != nil {
		s.t.Skip("LEFT OUT: the page in a browser: no " + chromium + " (Debian: chromium)")
	}
	trusted := s.keyOfCA()
	for _, key := range keys {
		trusted += "," + keyHash(key)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.UserDataDir(filepath.Join(s.dir, "chromium")), chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("lang", "en-US"),
		chromedp.Flag("ignore-certificate-errors-spki-list", trusted))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // chromium does not start as root with one
	}
	ctx, end := chromedp.NewExecAllocator(s.t.Context(), opts...)
	s.t.Cleanup(end)
	quiet := func(string, ...any) {} // what chromedp does not know of a newer chromium
	ctx, end = chromedp.NewContext(ctx, chromedp.WithErrorf(quiet), chromedp.WithLogf(quiet))
	s.t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil {
		s.t.Fatalf("chromium does not start: %v", err)
	}
	return ctx
}

// keyOfCA is the hash of the public key of central's CA, as chromium wants it.
func (s *site) keyOfCA() string {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only the key is looked at
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	return keyHash(chain[len(chain)-1].RawSubjectPublicKeyInfo)
}

func keyHash(key []byte) string {
	sum := sha256.Sum256(key)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// tab is a window of a person, who shares no cookie with the others.
type tab struct {
	t    testing.TB
	name string
	base string
	ctx  context.Context

	mu     sync.Mutex
	faults []string // what the browser complained of
}

func (s *site) tab(browser context.Context, name string) *tab {
	s.t.Helper()
	ctx, end := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	s.t.Cleanup(end)
	b := &tab{t: s.t, name: name, base: "https://" + s.tls, ctx: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				b.fault("%s %s: %s", e.Entry.Source, e.Entry.URL, e.Entry.Text)
			}
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				text, _ := json.Marshal(e.Args)
				b.fault("console: %s", text)
			}
		case *runtime.EventExceptionThrown:
			b.fault("exception: %+v", e.ExceptionDetails)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (b *tab) fault(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

// blameless fails the test for what the browser complained of: errors of the script, and
// whatever the policy of the page did not let in. What matches but is left out.
func (b *tab) blameless(but string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	allowed := regexp.MustCompile(but)
	for _, fault := range b.faults {
		if but == "" || !allowed.MatchString(fault) {
			b.t.Errorf("the browser of %s complains: %s", b.name, fault)
		}
	}
	b.faults = nil
}

// try runs an action, no longer than patience allows.
func try[T any](b *tab, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, action)
}

// run does what a person does. When it cannot be done, it says what is shown instead.
func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if _, err := try(b, chromedp.Steps(steps...)); err != nil {
		b.fatal("%v", err)
	}
}

// get is what an action finds.
func get[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	out, err := try(b, action)
	if err != nil {
		b.fatal("%v", err)
	}
	return out
}

func (b *tab) fatal(format string, args ...any) {
	b.t.Helper()
	url, _ := try(b, chromedp.Location())
	text, _ := try(b, chromedp.Text(chromedp.CSS("body")))
	b.t.Fatalf("%s at %s: %s\nthe page:\n%s\ncomplaints: %q", b.name, url, fmt.Sprintf(format, args...), text, b.faults)
}

func (b *tab) open(path string) {
	b.t.Helper()
	b.run(chromedp.Navigate(b.base + path))
}

// at is the path of the page that is shown.
func (b *tab) at() string {
	b.t.Helper()
	return strings.TrimPrefix(get(b, chromedp.Location()), b.base)
}

// js is what an expression is on the page. The policy of the page does not apply to it.
func js[T any](b *tab, expr string) T {
	b.t.Helper()
	return get(b, chromedp.Evaluate[T](expr))
}

// sees waits until the page has these texts, without a reload.
func (b *tab) sees(texts ...string) {
	b.t.Helper()
	b.until(fmt.Sprintf("the page says %q", texts), func() bool {
		body, err := try(b, chromedp.Evaluate[string]("document.body.innerText"))
		if err != nil {
			return false // between two pages
		}
		for _, text := range texts {
			if !strings.Contains(body, text) {
				return false
			}
		}
		return true
	})
}

func (b *tab) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.fatal("waited %s in vain until %s", patience, what)
		}
	}
}

// press presses keys.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(keys))
}

// tabTo presses Tab until what the selector means has the focus, as one does who has no mouse.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range 300 {
		if js[bool](b, fmt.Sprintf(`document.activeElement !== null && document.activeElement.matches(%q)`, selector)) {
			return
		}
		b.press(kb.Tab)
	}
	b.fatal("the key Tab does not lead to %s", selector)
}

// logsIn opens the page, is asked for a token, and gives it.
func (b *tab) logsIn(token string) {
	b.t.Helper()
	b.open("/ui/")
	b.run(chromedp.WaitVisible(chromedp.CSS("input[name=token]")))
	b.tabTo(`input[name=token]`)
	b.press(token + kb.Enter)
	b.run(chromedp.WaitVisible(chromedp.CSS("nav")))
}

// withoutScript has the page's own scripts not run.
func (b *tab) withoutScript() {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		b.t.Fatal(err)
	}
}

// user adds a user and returns the token.
func (s *site) user(name, role string) string {
	s.t.Helper()
	out, err := s.client.AddUser(s.t.Context(), api.AddUser{Name: name, Role: role})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Token
}
