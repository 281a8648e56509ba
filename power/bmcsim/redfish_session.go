package bmcsim

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// webSession is one session of the SessionService.
type webSession struct {
	id, token string
	created   time.Time
	used      time.Time
}

const sessionsPath = "SessionService/Sessions"

// evict drops the sessions that were idle for too long.
func (w *redfish) evict(now time.Time) {
	for id, s := range w.sessions {
		if now.Sub(s.used) > w.faults.idle {
			delete(w.sessions, id)
		}
	}
}

// login is POST to the collection of sessions.
func (c *webCall) login() *webAnswer {
	w, b := c.w, c.b
	var in struct{ UserName, Password string }
	if err := json.Unmarshal(c.body, &in); err != nil {
		return malformed()
	}
	if !b.knows(in.UserName, in.Password) {
		b.counts.AuthFailures++
		return refused(http.StatusUnauthorized, "InsufficientPrivilege", "The user name or the password is wrong.")
	}
	w.evict(c.now)
	if len(w.sessions) >= w.faults.limit {
		return &webAnswer{
			status: http.StatusServiceUnavailable,
			body:   errorBody("IDRAC.2.8.RAC0218", "The maximum number of user sessions is reached."),
		}
	}
	w.lastSession++
	s := &webSession{id: strconv.Itoa(w.lastSession), token: rand.Text(), created: c.now, used: c.now}
	if w.sessions == nil {
		w.sessions = make(map[string]*webSession, 2)
	}
	w.sessions[s.id] = s
	b.counts.Opened++
	return &webAnswer{
		status: http.StatusCreated, body: c.session(s),
		header: map[string]string{"X-Auth-Token": s.token, "Location": root + sessionsPath + "/" + s.id},
	}
}

func (b *BMC) knows(user, password string) bool {
	return user == b.user && subtle.ConstantTimeCompare([]byte(password), []byte(b.password)) == 1 &&
		b.faults.rakp2Status == 0 && b.faults.rakp4Status == 0
}

// authenticate says who asks, or how he is refused.
func (c *webCall) authenticate() *webAnswer {
	c.w.evict(c.now)
	if token := c.r.Header.Get("X-Auth-Token"); token != "" {
		for _, s := range c.w.sessions {
			if subtle.ConstantTimeCompare([]byte(s.token), []byte(token)) == 1 {
				s.used = c.now
				c.from = fmt.Sprintf("session %s@%s", s.id, c.from)
				return nil
			}
		}
		return refused(http.StatusUnauthorized, "NoValidSession", "There is no such session.")
	}
	user, password, ok := c.r.BasicAuth()
	switch {
	case ok && c.b.knows(user, password):
		c.from = "basic@" + c.from
		return nil
	case ok:
		c.b.counts.AuthFailures++
	}
	ans := refused(http.StatusUnauthorized, "NoValidSession", "This needs a session, or a user and a password.")
	ans.header = map[string]string{"WWW-Authenticate": `Basic realm="simulated BMC"`}
	return ans
}

// sessionsNow are the IDs of the sessions in order of creation.
func (w *redfish) sessionsNow() []string {
	all := make([]*webSession, 0, len(w.sessions))
	for _, s := range w.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *webSession) int { return a.created.Compare(b.created) })
	ids := make([]string, len(all))
	for i, s := range all {
		ids[i] = s.id
	}
	return ids
}

func (c *webCall) session(s *webSession) object {
	return object{
		"@odata.id": root + sessionsPath + "/" + s.id, "@odata.type": "#Session.v1_3_0.Session", "Id": s.id,
		"Name": "User Session", "UserName": c.b.user, "CreatedTime": s.created.UTC().Format(time.RFC3339),
	}
}

// logout is DELETE of a session.
func (c *webCall) logout(id string) *webAnswer {
	if c.w.sessions[id] == nil {
		return notFound(c.path)
	}
	delete(c.w.sessions, id)
	c.b.counts.Closed++
	return &webAnswer{status: http.StatusNoContent}
}
