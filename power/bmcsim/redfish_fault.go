package bmcsim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RedfishFault is a change to how a BMC behaves over Redfish; what is nil stays as it is.
// The package's README says what each does.
type RedfishFault struct {
	SessionLimit   *int      `json:"session_limit,omitempty"`
	SessionIdle    *Duration `json:"session_idle,omitempty"`
	DropSessions   *bool     `json:"drop_sessions,omitempty"` // now; one-way
	State          *string   `json:"state,omitempty"`
	Transitional   *bool     `json:"transitional,omitempty"`
	Refuse         *Refusal  `json:"refuse,omitempty"`
	CutReused      *int      `json:"cut_reused,omitempty"`
	NoKeepAlive    *bool     `json:"no_keep_alive,omitempty"`
	KeepAlive      *Duration `json:"keep_alive,omitempty"`
	ETag           *string   `json:"etag,omitempty"`
	IgnoreBoot     *bool     `json:"ignore_boot,omitempty"`
	Redirect       *string   `json:"redirect,omitempty"`
	Drip           *Duration `json:"drip,omitempty"`
	Endless        *bool     `json:"endless,omitempty"`
	Nested         *int      `json:"nested,omitempty"`
	Task           *bool     `json:"task,omitempty"`
	SystemsEmpty   *Duration `json:"systems_empty,omitempty"`
	ClockSkew      *int      `json:"clock_skew,omitempty"` // seconds
	TLS12          *bool     `json:"tls12,omitempty"`
	NewCertificate *bool     `json:"new_certificate,omitempty"` // now; one-way
	Closed         *bool     `json:"closed,omitempty"`
}

// Refusal answers requests with an error.
type Refusal struct {
	Method     string    `json:"method,omitempty"` // empty: any
	Path       string    `json:"path,omitempty"`   // what the path contains
	Status     int       `json:"status"`
	RetryAfter *Duration `json:"retry_after,omitempty"` // the header of that name
	ID         string    `json:"id,omitempty"`          // of the message
	Text       string    `json:"text,omitempty"`
	HTML       bool      `json:"html,omitempty"`     // the body is HTML
	Executed   bool      `json:"executed,omitempty"` // the request is carried out all the same
	Times      int       `json:"times"`              // so many requests; 0: no more
}

// ETags of what can be changed, and what If-Match has to be for that.
const (
	etagNone     = "none"     // there are none, and If-Match is not looked at
	etagStrong   = "strong"   // the tag, * or nothing
	etagWeak     = "weak"     // tags are weak; If-Match takes the tag without its W/, * or nothing
	etagRequired = "required" // the tag or *: without, the request is refused
	etagStar     = "star"     // * alone
	etagRefused  = "refused"  // nothing alone
)

var etags = []string{etagNone, etagStrong, etagWeak, etagRequired, etagStar, etagRefused}

// Values of RedfishFault.State beside those of PowerState.
const (
	stateNull    = "null"
	stateMissing = "missing"
)

// webFaults are how the Redfish service of a BMC misbehaves; the lock of the BMC guards them.
type webFaults struct {
	limit        int
	idle         time.Duration
	state        string
	transitional bool
	refuse       Refusal
	cutReused    int
	noKeepAlive  bool
	keepAlive    time.Duration
	etag         string
	ignoreBoot   bool
	redirect     string
	drip         time.Duration
	endless      bool
	nested       int
	task         bool
	systemsEmpty time.Duration
	tls12        bool
	closed       bool
}

func (f *RedfishFault) settings(w *redfish) {
	s := &w.faults
	put(&s.limit, f.SessionLimit)
	put((*Duration)(&s.idle), f.SessionIdle)
	put(&s.state, f.State)
	put(&s.transitional, f.Transitional)
	put(&s.refuse, f.Refuse)
	put(&s.cutReused, f.CutReused)
	put(&s.noKeepAlive, f.NoKeepAlive)
	put((*Duration)(&s.keepAlive), f.KeepAlive)
	put(&s.etag, f.ETag)
	put(&s.ignoreBoot, f.IgnoreBoot)
	put(&s.redirect, f.Redirect)
	put((*Duration)(&s.drip), f.Drip)
	put(&s.endless, f.Endless)
	put(&s.nested, f.Nested)
	put(&s.task, f.Task)
	put((*Duration)(&s.systemsEmpty), f.SystemsEmpty)
	if f.ClockSkew != nil { // IPMI shows the same clock
		w.b.faults.skew = time.Duration(*f.ClockSkew) * time.Second
	}
	put(&s.tls12, f.TLS12)
	put(&s.closed, f.Closed)
	if f.Closed != nil && *f.Closed {
		w.endConns(false)
	}
	if f.DropSessions != nil && *f.DropSessions {
		clear(w.sessions)
	}
	if f.NewCertificate != nil && *f.NewCertificate {
		w.certNumber++
		w.cert = nil
	}
}

// view is the fault that makes the service as it is.
func (w *redfish) view() *RedfishFault {
	s := w.faults
	return &RedfishFault{
		SessionLimit: &s.limit, SessionIdle: (*Duration)(&s.idle), State: &s.state, Transitional: &s.transitional, Refuse: &s.refuse,
		CutReused: &s.cutReused, NoKeepAlive: &s.noKeepAlive, KeepAlive: (*Duration)(&s.keepAlive), ETag: &s.etag,
		IgnoreBoot: &s.ignoreBoot, Redirect: &s.redirect, Drip: (*Duration)(&s.drip), Endless: &s.endless, Nested: &s.nested,
		Task: &s.task, SystemsEmpty: (*Duration)(&s.systemsEmpty),
		ClockSkew: new(int(w.b.faults.skew / time.Second)), TLS12: &s.tls12, Closed: &s.closed,
	}
}

// maxNested bounds how deep an answer goes.
const maxNested = 1 << 20

func (f *RedfishFault) validate() error {
	if f == nil {
		return nil
	}
	for name, n := range map[string]*int{"session_limit": f.SessionLimit, "cut_reused": f.CutReused, "nested": f.Nested} {
		if n != nil && (*n < 0 || *n > maxNested) {
			return fmt.Errorf("%s is %d: want 0 to %d", name, *n, maxNested)
		}
	}
	if f.ETag != nil && !slices.Contains(etags, *f.ETag) {
		return fmt.Errorf("etag is %q: want one of %s", *f.ETag, strings.Join(etags, ", "))
	}
	if f.Redirect != nil {
		if _, err := url.Parse(*f.Redirect); err != nil {
			return fmt.Errorf("redirect is no URL")
		}
	}
	if r := f.Refuse; r != nil && (r.Times < 0 || r.Times > 0 && (r.Status < 400 || r.Status > 599)) {
		return fmt.Errorf("refuse has status %d and times %d: want 400 to 599, and 0 or more", r.Status, r.Times)
	}
	return nil
}

// refusal returns how a request is refused, nil if it is not.
func (s *webFaults) refusal(method, path string) *Refusal {
	r := s.refuse
	if r.Times == 0 || r.Method != "" && r.Method != method || !strings.Contains(path, r.Path) {
		return nil
	}
	s.refuse.Times--
	return &r
}

func (r *Refusal) answer() *webAnswer {
	id, text := r.ID, r.Text
	if id == "" {
		id = "Base.1.8.GeneralError"
	}
	if text == "" {
		text = http.StatusText(r.Status)
	}
	ans := &webAnswer{status: r.Status, body: errorBody(id, text)}
	if r.HTML {
		ans.body = nil
		ans.html = "<!DOCTYPE html>\n<html><head><title>" + strconv.Itoa(r.Status) + "</title></head><body><h1>" + text + "</h1></body></html>\n"
	}
	if r.RetryAfter != nil {
		ans.header = map[string]string{"Retry-After": strconv.Itoa(int(time.Duration(*r.RetryAfter) / time.Second))}
	}
	return ans
}

// code is the completion code that says the same.
func (r *Refusal) code() byte {
	switch r.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return codeBusy
	case http.StatusConflict:
		return codeWrongState
	case http.StatusForbidden, http.StatusUnauthorized:
		return codePrivilege
	}
	return codeUnspecified
}

// arrived returns the path that is asked for, or sends the request elsewhere.
func (c *webCall) arrived() (string, *webAnswer) {
	path, to := c.r.URL.Path, c.w.faults.redirect
	if to == "" {
		return path, nil
	}
	if strings.HasPrefix(to, "/") && to != "/" { // what has come by it is served
		if rest, ok := strings.CutPrefix(path, strings.TrimRight(to, "/")+"/"); ok {
			return "/" + rest, nil
		}
	}
	return "", &webAnswer{
		status: http.StatusPermanentRedirect, header: map[string]string{"Location": strings.TrimRight(to, "/") + path},
	}
}

// spoil does to an answer what faults do.
func (c *webCall) spoil(ans *webAnswer) {
	s := &c.w.faults
	if d := c.b.faults.delay; d > 0 {
		ready := make(chan struct{})
		ans.wait = ready
		c.b.agenda.add(c.now.Add(d), kindReply, func() { close(ready) })
	}
	ans.close = s.noKeepAlive
	ans.drip = s.drip
	if c.r.Method != http.MethodGet {
		return
	}
	ans.endless, ans.nested = s.endless, s.nested
}

// withNested adds arrays to an object in JSON, each within the other.
func withNested(text []byte, deep int) []byte {
	if deep == 0 || len(text) < len(`{"":0}`) {
		return text
	}
	return []byte(`{"Nested":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "," + string(text[1:]))
}

// powerState is the PowerState that the BMC reports, or stateNull or stateMissing.
func (w *redfish) powerState() string {
	n := &w.b.node
	switch {
	case w.faults.state != "":
		return w.faults.state
	case w.faults.transitional && n.target && !n.on:
		return "PoweringOn"
	case w.faults.transitional && !n.target && n.on:
		return "PoweringOff"
	case n.shown:
		return "On"
	}
	return "Off"
}

// restart forgets what a BMC forgets when it restarts.
func (w *redfish) restart() {
	clear(w.sessions)
	w.endConns(false)
	w.emptyUntil = w.b.silent.Add(w.faults.systemsEmpty)
}
