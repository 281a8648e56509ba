package web

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// Bounds of sessions. One that is not used ends, and so does one that is used for long; a page
// that is open and live is in use.
const (
	sessionIdle = 2 * time.Hour
	sessionLife = 12 * time.Hour
	maxSessions = 1000 // of all: the one that was used least lately makes way
	maxOfUser   = 20   // likewise
)

// session is a person at a browser.
type session struct {
	token string // of the API
	user  api.User
	csrf  string // what the forms of this session carry
	began time.Time
	until time.Time // when the token ends; zero: not before the session

	used  time.Time // under the lock of sessions
	flash string    // likewise: what the next page says
}

func (s *session) may(least auth.Role) bool { return auth.Role(s.user.Role).Includes(least) }

// onSite reports whether the role is for all nodes.
func (s *session) onSite() bool { return s.user.Nodes == "" || s.user.Nodes == "all" }

// sessions are those that are open, by the hash of their cookie. A restart of central ends
// them all.
type sessions struct {
	now func() time.Time

	mu sync.Mutex
	m  map[[sha256.Size]byte]*session
}

func (ss *sessions) begin(token string, user api.User, until time.Time) (cookie string, s *session) {
	now := ss.now()
	s = &session{token: token, user: user, csrf: rand.Text(), began: now, used: now, until: until}
	cookie = rand.Text() + rand.Text()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.makeRoom(user.Name, now)
	ss.m[sha256.Sum256([]byte(cookie))] = s
	return cookie, s
}

// makeRoom ends those whose time is over, and of too many the ones that were used least lately.
func (ss *sessions) makeRoom(user string, now time.Time) {
	type open struct {
		key [sha256.Size]byte
		*session
	}
	var all, own []open
	for key, s := range ss.m {
		switch {
		case s.over(now):
			delete(ss.m, key)
		case s.user.Name == user:
			own = append(own, open{key, s})
			fallthrough
		default:
			all = append(all, open{key, s})
		}
	}
	for _, list := range []struct {
		of   []open
		most int
	}{{own, maxOfUser}, {all, maxSessions}} {
		if len(list.of) >= list.most {
			oldest := slices.MinFunc(list.of, func(a, b open) int { return cmp.Compare(a.used.UnixNano(), b.used.UnixNano()) })
			delete(ss.m, oldest.key)
		}
	}
}

func (s *session) over(now time.Time) bool {
	return now.Sub(s.used) >= sessionIdle || now.Sub(s.began) >= sessionLife || !s.until.IsZero() && !now.Before(s.until)
}

// of finds the session of a request, nil where there is none, and notes that it is used.
func (ss *sessions) of(r *http.Request) *session {
	cookie, err := r.Cookie(cookieName(r))
	if err != nil {
		return nil
	}
	key := sha256.Sum256([]byte(cookie.Value))
	now := ss.now()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.m[key]
	if s == nil || s.over(now) {
		delete(ss.m, key)
		return nil
	}
	s.used = now
	return s
}

// end ends a session.
func (ss *sessions) end(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for key, other := range ss.m {
		if other == s {
			delete(ss.m, key)
		}
	}
}

// inUse reports whether a session is still open, and notes that it is used: a live page asks.
func (ss *sessions) inUse(s *session) bool {
	now := ss.now()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, other := range ss.m {
		if other == s {
			s.used = now
			return !s.over(now)
		}
	}
	return false
}

// say has the next page of a session say something once.
func (ss *sessions) say(s *session, text string) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.flash = text
}

func (ss *sessions) said(s *session) (text string) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	text, s.flash = s.flash, ""
	return text
}

// genuine reports whether a form is one that this session was given.
func (s *session) genuine(csrf string) bool {
	return subtle.ConstantTimeCompare([]byte(csrf), []byte(s.csrf)) == 1
}

// cookieName is that of a cookie which browsers keep to this very host, and take over TLS only.
// At the unix socket, which a browser reaches through a tunnel, there is no TLS.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-rackpower"
	}
	return "rackpower"
}

func setCookie(w http.ResponseWriter, r *http.Request, value string) {
	c := &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}
