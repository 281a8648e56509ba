package web

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"rackpower/central/auth"
	"rackpower/central/oidc"
)

// Where the browser is sent away to the issuer, and where it comes back.
const (
	loginAway = Prefix + "login/issuer"
	loginBack = Prefix + "login/back"
)

// Bounds of log-ins at the issuer that were begun. Of too many the oldest make way: first those
// from the same address.
const (
	attemptLife   = 10 * time.Minute
	maxAttempts   = 10_000
	maxOfAddress  = 100
	attemptCookie = "__Host-rackpower-login"
)

// attempt is a log-in at the issuer that was begun in a browser.
type attempt struct {
	oidc.Attempt
	next    string
	address string
	until   time.Time
}

// attempts are those that are awaited, by the hash of the cookie of their browser.
type attempts struct {
	now func() time.Time

	mu sync.Mutex
	m  map[[sha256.Size]byte]attempt
}

// begin notes an attempt and gives the cookie for its browser.
func (as *attempts) begin(a attempt) (cookie string) {
	now := as.now()
	a.until = now.Add(attemptLife)
	cookie = rand.Text()
	as.mu.Lock()
	defer as.mu.Unlock()
	var oldest, ofAddress [sha256.Size]byte
	n, sooner := 0, func(key, than [sha256.Size]byte) bool {
		other, known := as.m[than]
		return !known || as.m[key].until.Before(other.until)
	}
	for key, other := range as.m {
		if !now.Before(other.until) {
			delete(as.m, key)
			continue
		}
		if sooner(key, oldest) {
			oldest = key
		}
		if other.address == a.address {
			if n++; sooner(key, ofAddress) {
				ofAddress = key
			}
		}
	}
	if n >= maxOfAddress {
		delete(as.m, ofAddress)
	} else if len(as.m) >= maxAttempts {
		delete(as.m, oldest)
	}
	as.m[sha256.Sum256([]byte(cookie))] = a
	return cookie
}

// take is the attempt of a browser that comes back with its state, once. One that another state
// is sent for goes on being awaited.
func (as *attempts) take(cookie, state string) (a attempt, ok bool) {
	key := sha256.Sum256([]byte(cookie))
	as.mu.Lock()
	defer as.mu.Unlock()
	a, ok = as.m[key]
	if !ok || subtle.ConstantTimeCompare([]byte(state), []byte(a.State)) != 1 || !as.now().Before(a.until) {
		return attempt{}, false
	}
	delete(as.m, key)
	return a, true
}

// setAttemptCookie gives a browser its cookie, or with "" takes it away. It comes back from a
// page of the issuer, so that it cannot be as strict as that of a session.
func setAttemptCookie(w http.ResponseWriter, value string) {
	c := &http.Cookie{
		Name: attemptCookie, Value: value, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(attemptLife / time.Second),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// toIssuer sends a browser to the issuer.
func (p *Page) toIssuer(w http.ResponseWriter, r *http.Request) {
	next := within(r.URL.Query().Get("next"))
	address, begun, err := p.cfg.Issuer.Begin(p.cfg.PublicURL + loginBack)
	if err != nil {
		p.refuseLogin(w, r, err, next)
		return
	}
	setAttemptCookie(w, p.attempts.begin(attempt{Attempt: begun, next: next, address: addressOf(r)}))
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// addressOf is where a browser asks from.
func addressOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// fromIssuer takes a browser that comes back, and begins a session as for a token that was
// given. The page that answers leads on by itself: where the issuer's page leads to by a
// redirect, the browser brings no strict cookie.
func (p *Page) fromIssuer(w http.ResponseWriter, r *http.Request) {
	cookie, _ := r.Cookie(attemptCookie)
	q := r.URL.Query()
	if cookie == nil {
		cookie = new(http.Cookie)
	}
	a, ok := p.attempts.take(cookie.Value, q.Get("state"))
	if !ok {
		p.askLogin(w, r, http.StatusUnauthorized, "This log-in was not begun in this browser, was begun more than 10 minutes ago, or is over: "+
			"nothing was done. Log in again.", Prefix)
		return
	}
	setAttemptCookie(w, "")
	if why := q.Get("error"); why != "" {
		said := strings.TrimSpace(fmt.Sprintf("%.60s %.200s", why, q.Get("error_description")))
		p.refuseLogin(w, r, fmt.Errorf("it says: %s", said), a.next)
		return
	}
	token, err := p.cfg.Issuer.Finish(r.Context(), a.Attempt, q.Get("code"))
	if err != nil {
		p.refuseLogin(w, r, err, a.next)
		return
	}
	if p.enter(w, r, token, a.next) {
		w.Header().Set("Refresh", "0; url="+a.next)
		out := p.view(nil, "Logged in", "")
		out.Data = asked{Next: a.next, In: true}
		if err := p.render(w, http.StatusOK, "login", out); err != nil {
			p.cfg.Log.Error("page failed", "path", r.URL.Path, "err", err)
		}
	}
}

// refuseLogin says why the issuer logged nobody in, and what to do.
func (p *Page) refuseLogin(w http.ResponseWriter, r *http.Request, err error, next string) {
	address := addressOf(r)
	if more, due := p.refusals.Count(address, p.cfg.Now(), time.Minute); due {
		p.cfg.Log.Warn("no log-in at the issuer", "address", address, "reason", err, "more_since_last", more)
	}
	if errors.Is(err, auth.ErrNoIssuer) {
		p.askLogin(w, r, http.StatusServiceUnavailable, p.cfg.Issuer.Name()+" is not reachable from central, so nobody can log in there. "+
			"Try again in a moment, or log in with a token of central's own.", next)
		return
	}
	p.askLogin(w, r, http.StatusUnauthorized, fmt.Sprintf("%s did not log you in: %v. Log in again; if that does not help, tell who looks "+
		"after central.", p.cfg.Issuer.Name(), err), next)
}

// issuerLink is where the log-in page leads to the issuer, at the address that the browser comes
// back to; "": there is no issuer.
func (p *Page) issuerLink(next string) string {
	if p.cfg.Issuer == nil {
		return ""
	}
	return p.cfg.PublicURL + loginAway + "?next=" + url.QueryEscape(cmp.Or(next, Prefix))
}
