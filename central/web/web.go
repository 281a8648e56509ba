package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/oidc"
)

// Config is what the page needs of central.
type Config struct {
	API     http.Handler // central's routes; the page asks nothing else
	Site    string       // name of the site
	Version string
	Log     *slog.Logger
	Now     func() time.Time
	// Issuer logs people in who come by their browser to PublicURL; nil: it does not.
	Issuer    *oidc.Verifier
	PublicURL string
}

// Prefix is where the page lies.
const Prefix = "/ui/"

// policy lets nothing in that central does not serve by itself, and no script or style within
// a page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// maxForm bounds the body of a form.
const maxForm = 1 << 20

//go:embed static
var staticFiles embed.FS

//go:embed templates
var templateFiles embed.FS

// Page serves everything below Prefix.
type Page struct {
	cfg      Config
	sessions *sessions
	attempts *attempts
	refusals httpserver.Recently // of log-ins at the issuer that the log tells of
	pages    map[string]*template.Template
	mux      *http.ServeMux
	foreign  *http.CrossOriginProtection
	counting sync.Mutex // held by the page that counts
	static   map[string]file
}

// file is one that every browser gets, under a name that changes with what is in it.
type file struct {
	data []byte
	kind string
	hash string
}

// New makes the page.
func New(cfg Config) *Page {
	p := &Page{
		cfg: cfg, sessions: &sessions{now: cfg.Now, m: map[[sha256.Size]byte]*session{}}, foreign: http.NewCrossOriginProtection(),
		static: map[string]file{}, attempts: &attempts{now: cfg.Now, m: map[[sha256.Size]byte]attempt{}},
	}
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"} {
		data, err := staticFiles.ReadFile("static/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum := sha256.Sum256(data)
		p.static[name] = file{data, kind, hex.EncodeToString(sum[:8])}
	}
	p.pages = p.parse()
	p.mux = p.routes()
	return p
}

// parse reads the templates: each page with the frame around it.
func (p *Page) parse() map[string]*template.Template {
	frame := template.Must(template.New("frame").Funcs(p.functions()).ParseFS(templateFiles, "templates/frame.html", "templates/parts.html"))
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		panic(err)
	}
	pages := map[string]*template.Template{}
	for _, name := range names {
		short := strings.TrimSuffix(path.Base(name), ".html")
		if short != "frame" && short != "parts" {
			pages[short] = template.Must(template.Must(frame.Clone()).ParseFS(templateFiles, name))
		}
	}
	return pages
}

func (p *Page) routes() *http.ServeMux {
	mux := http.NewServeMux()
	see := func(pattern string, f func(*visit) error) { mux.HandleFunc("GET "+Prefix+pattern, p.visit(f)) }
	do := func(pattern string, f func(*visit) error) { mux.HandleFunc("POST "+Prefix+pattern, p.visit(f)) }
	mux.HandleFunc("GET "+Prefix+"static/{name}", p.serveStatic)
	mux.HandleFunc("GET "+Prefix+"login", p.showLogin)
	mux.HandleFunc("POST "+Prefix+"login", p.login)
	if p.cfg.Issuer != nil {
		mux.HandleFunc("GET "+loginAway, p.toIssuer)
		mux.HandleFunc("GET "+loginBack, p.fromIssuer)
	}
	do("logout", p.logout)
	see("{$}", p.showSite)
	see("heads", p.showHeads)
	see("attention", p.showAttention)
	see("racks/{name}", p.showRack)
	see("racks/{name}/brake", p.showBrake)
	see("nodes/{name}", p.showNode)
	see("ops", p.showOps)
	see("domains", p.showDomains)
	see("approvals", p.showApprovals)
	see("plans/{id}", p.showPlan)
	see("live", p.live)
	see("find", p.find)
	do("change", p.change)
	do("plans/{id}/apply", p.applyPlan)
	do("approvals/{id}", p.decide)
	do("retry", p.retry)
	do("ops/{id}/cancel", p.cancel)
	do("racks/{name}/pause", p.pause)
	do("racks/{name}/brake", p.releaseBrake)
	do("agents/{name}/ack", p.ack)
	mux.HandleFunc(Prefix, p.visit(func(v *visit) error {
		return api.Problemf(api.CodeNotFound, "there is no page %s", v.r.URL.Path)
	}))
	return mux
}

// ServeHTTP is http.Handler's.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	}
	if err := p.foreign.Check(r); err != nil {
		p.fail(w, r, nil, api.Problemf(api.CodeForbidden, "this form came from a page of another site, and nothing was done"))
		return
	}
	p.mux.ServeHTTP(w, r)
}

func (p *Page) serveStatic(w http.ResponseWriter, r *http.Request) {
	f, known := p.static[r.PathValue("name")]
	if !known {
		p.fail(w, r, nil, api.Problemf(api.CodeNotFound, "there is no page %s", r.URL.Path))
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // its address has the hash
	_, _ = w.Write(f.data)
}

// visit is one request of a person who has logged in.
type visit struct {
	p   *Page
	w   http.ResponseWriter
	r   *http.Request
	s   *session
	api *api.Client
	now time.Time

	what  url.Values      // see view.What
	items []api.Attention // see attention
}

// visit has a page served to those who have logged in. A form is taken from a page of this
// session only.
func (p *Page) visit(f func(*visit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := p.sessions.of(r)
		if s == nil {
			p.fail(w, r, nil, api.Problemf(api.CodeLogin, "log in first"))
			return
		}
		v := &visit{p: p, w: w, r: r, s: s, api: p.client(r, s.token), now: p.cfg.Now()}
		var err error
		if r.Method == http.MethodPost {
			err = v.readForm()
		}
		if err == nil {
			err = f(v)
		}
		if err != nil {
			p.fail(w, r, s, err)
		}
	}
}

func (p *Page) client(r *http.Request, token string) *api.Client {
	return api.Inside(inside{api: p.cfg.API, token: token, address: r.RemoteAddr})
}

func (v *visit) readForm() error {
	if err := v.r.ParseForm(); err != nil {
		return api.Problemf(api.CodeBadRequest, "cannot read the form: %v", err)
	}
	if !v.s.genuine(v.r.PostForm.Get("csrf")) {
		return api.Problemf(api.CodeForbidden, "this form is of another log-in, and nothing was done: go back, reload the page, and try again")
	}
	return nil
}

func (v *visit) form(name string) string { return strings.TrimSpace(v.r.PostForm.Get(name)) }

// back sends the browser on after something was done, so that a reload does not do it again.
func (v *visit) back(to, say string) error {
	if say != "" {
		v.p.sessions.say(v.s, say)
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// view is what every page is given.
type view struct {
	Title   string
	Page    string // of the menu
	Site    string
	Version string
	User    api.User
	CSRF    string
	Flash   string
	Now     time.Time
	Live    string // what the script keeps up to date: cells, page, or "" for nothing
	What    string // what of the site the page is of: a query of GET /ui/live
	Style   string
	Script  string
	Counts  counts // zero on pages of nobody
	// Operator and Admin say what the role allows, OnSite that it is for all nodes: what would be
	// refused is not offered.
	Operator, Admin, OnSite bool
	Data                    any
}

func (p *Page) view(s *session, title, page string) view {
	out := view{
		Title: title, Page: page, Site: p.cfg.Site, Version: p.cfg.Version, Now: p.cfg.Now().UTC(),
		Style:  Prefix + "static/style.css?" + p.static["style.css"].hash,
		Script: Prefix + "static/live.js?" + p.static["live.js"].hash,
	}
	if s != nil {
		out.User, out.CSRF = s.user, s.csrf
		out.Operator, out.Admin, out.OnSite = s.may(auth.Operator), s.may(auth.Admin), s.onSite()
	}
	return out
}

// show answers with a page. What the script keeps up to date is live.
func (v *visit) show(name, title, page, live string, data any) error {
	out := v.p.view(v.s, title, page)
	items, err := v.attention()
	if err != nil {
		return err
	}
	out.Counts = countsOf(items)
	out.Live, out.What, out.Data, out.Flash = live, v.what.Encode(), data, v.p.sessions.said(v.s)
	return v.p.render(v.w, http.StatusOK, name, out)
}

func (p *Page) render(w http.ResponseWriter, status int, name string, out view) error {
	var text bytes.Buffer
	if err := p.pages[name].ExecuteTemplate(&text, "frame", out); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
	return nil
}

// answerTime is how long a browser may take to take a page.
const answerTime = 30 * time.Second

// fail answers with what went wrong and what to do about it.
func (p *Page) fail(w http.ResponseWriter, r *http.Request, s *session, err error) {
	if r.Context().Err() != nil {
		return // the browser went on to another page
	}
	var problem *api.Problem
	if !errors.As(err, &problem) {
		p.cfg.Log.Error("page failed", "path", r.URL.Path, "err", err)
		problem = api.Problemf(api.CodeInternal, "central could not make this page; its log says more")
	}
	if problem.Code == api.CodeLogin {
		if s != nil { // the token is not what it was
			p.sessions.end(s)
			setCookie(w, r, "")
		}
		if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") != "cors" && r.Header.Get("Accept") != "text/event-stream" {
			why := problem.Detail
			if _, err := r.Cookie(cookieName(r)); err != nil {
				why = "" // nothing is wrong: nobody has logged in here yet
			}
			p.askLogin(w, r, http.StatusUnauthorized, why, r.URL.RequestURI())
			return
		}
	}
	if after := problem.Seconds(); after != "" {
		w.Header().Set("Retry-After", after)
	}
	out := p.view(s, problem.Title, "")
	out.Data = failure{Problem: problem, Do: remedy(problem), From: r.Header.Get("Referer")}
	if err := p.render(w, problem.Status, "error", out); err != nil {
		p.cfg.Log.Error("page failed", "path", r.URL.Path, "err", err)
	}
}

// failure is what the page of an error shows.
type failure struct {
	*api.Problem
	Do   string
	From string
}

// remedy is what a person can do about a problem.
func remedy(p *api.Problem) string {
	switch p.Code {
	case api.CodeLogin:
		return "Log in again."
	case api.CodeForbidden:
		return "An admin of the site gives roles: rackpower user add NAME --role ROLE --update."
	case api.CodeNotFound:
		return "It may have been removed or renamed, or lie beyond your part of the site."
	case api.CodeUnavailable:
		return "Central is starting, stopping, or short of disk. Reload the page in a moment."
	case api.CodeTooMany, api.CodeQueueFull:
		return "Wait a moment, then reload the page."
	case api.CodeChanged:
		return "Look again at what the change would do now."
	case api.CodeInternal:
		return "Tell who looks after central; its log says more: journalctl -u rackpower-central."
	}
	return "Go back, correct it and try again."
}
