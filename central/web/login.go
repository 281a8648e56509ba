package web

import (
	"net/http"
	"strings"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// asked is what the page of the log-in shows.
type asked struct {
	Why    string
	Next   string
	Away   string // leads to the issuer; "": there is none
	Issuer string
	In     bool // it is done: go on to Next
}

func (p *Page) showLogin(w http.ResponseWriter, r *http.Request) {
	p.askLogin(w, r, http.StatusOK, "", r.URL.Query().Get("next"))
}

func (p *Page) askLogin(w http.ResponseWriter, r *http.Request, status int, why, next string) {
	out := p.view(nil, "Log in", "")
	in := asked{Why: why, Next: within(next)}
	if in.Away = p.issuerLink(in.Next); in.Away != "" {
		in.Issuer = p.cfg.Issuer.Name()
	}
	out.Data = in
	if err := p.render(w, status, "login", out); err != nil {
		p.cfg.Log.Error("page failed", "path", r.URL.Path, "err", err)
	}
}

// within is an address of this page, and no other, to go on to.
func within(next string) string {
	if !strings.HasPrefix(next, Prefix) || strings.HasPrefix(next, Prefix+"login") || strings.HasPrefix(next, Prefix+"live") ||
		strings.ContainsAny(next, "\\\r\n") {
		return Prefix
	}
	return next
}

// login begins a session for a token, if the API knows whom it is for.
func (p *Page) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.fail(w, r, nil, api.Problemf(api.CodeBadRequest, "cannot read the form: %v", err))
		return
	}
	token, next := strings.TrimSpace(r.PostForm.Get("token")), within(r.PostForm.Get("next"))
	if !auth.IsToken(token) && !auth.IsJWT(token) {
		p.askLogin(w, r, http.StatusUnauthorized,
			"That is no token: one begins with rpt_, and an admin makes it with rackpower user add or rotate.", next)
		return
	}
	if p.enter(w, r, token, next) {
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

// enter begins the session of whom the API says that a token is for; else it answers why not.
func (p *Page) enter(w http.ResponseWriter, r *http.Request, token, next string) bool {
	user, err := p.client(r, token).WhoAmI(r.Context())
	switch code := api.CodeOf(err); {
	case code == api.CodeLogin || code == api.CodeForbidden || code == api.CodeTooMany:
		p.askLogin(w, r, http.StatusUnauthorized, err.Error(), next)
		return false
	case err != nil:
		p.fail(w, r, nil, err)
		return false
	}
	if old := p.sessions.of(r); old != nil {
		p.sessions.end(old)
	}
	cookie, _ := p.sessions.begin(token, user, moment(user.ExpiresAt))
	setCookie(w, r, cookie)
	return true
}

func (p *Page) logout(v *visit) error {
	p.sessions.end(v.s)
	setCookie(v.w, v.r, "")
	http.Redirect(v.w, v.r, Prefix+"login", http.StatusSeeOther)
	return nil
}
