package central

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
)

// access says who may use a route. Everything is refused by default.
type access struct {
	least auth.Role // "": agents only, by their own name
	// scoped routes look at the scope by themselves; the others change what belongs to the
	// whole site, or show what holds nothing of single nodes.
	scoped bool
	open   bool // for those who are not known yet
	// own says that users may use it for their own name, whatever the role.
	own bool
}

// The kinds of routes.
var (
	sees        = access{least: auth.Viewer, scoped: true}
	seesSite    = access{least: auth.Viewer}
	acts        = access{least: auth.Operator, scoped: true}
	actsOnSite  = access{least: auth.Operator}
	manages     = access{least: auth.Admin, scoped: true}
	managesSite = access{least: auth.Admin}
	isAgent     = access{}

	ownOrManagesSite = access{least: auth.Admin, own: true}

	isAnybody = access{open: true}
)

// guarded serves a route to those who may use it.
func (c *Central) guarded(to access, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, t, err := c.letIn(to, r)
		if err == nil {
			defer t.done()
			r.Body = t.body(r.Body)
			r = r.WithContext(context.WithValue(t.ctx, ticketKey{}, t))
			err = may(p, to, r)
		}
		if err != nil {
			c.refused(r, p, err)
			c.answer(w, nil, err)
			return
		}
		if to.open {
			h(w, r)
			return
		}
		asker := askerOf(p)
		asker.Person = to.least != ""
		h(w, r.WithContext(store.WithAsker(httpserver.WithPrincipal(r.Context(), p), asker)))
	}
}

// letIn finds out who asks, and lets the request in at its turn. Whose rights were changed
// meanwhile is looked at again: from then on a change ends the request.
func (c *Central) letIn(to access, r *http.Request) (p auth.Principal, t *ticket, err error) {
	for {
		before := c.limits.changes()
		if p = (auth.Principal{Address: addressOf(r)}); !to.open {
			p, err = c.authenticate(r)
		}
		if err != nil {
			return p, nil, err
		}
		if t, err = c.limits.admit(r.Context(), p, to, r); err != nil {
			return p, nil, err
		}
		t.refused = func(err error) { c.refused(r, p, err) }
		if c.limits.changes() == before {
			return p, t, nil
		}
		t.done()
	}
}

// ended is the error of a request, or why it was ended.
func ended(r *http.Request, err error) error {
	var p *api.Problem
	if errors.As(context.Cause(r.Context()), &p) {
		return p
	}
	return err
}

// askerOf is a principal as the store knows it.
func askerOf(p auth.Principal) store.Asker {
	asker := store.Asker{Name: p.Name, Via: string(p.Method), Address: p.Address, Scope: p.Scope}
	if p.Kind == auth.Agent {
		asker.Name = "agent " + p.Name
	}
	if p.Everywhere() {
		asker.Scope = ""
	}
	return asker
}

// may says why a principal may not use a route, nil if it may.
func may(p auth.Principal, to access, r *http.Request) error {
	if to.open {
		return nil
	}
	if to.least == "" {
		if p.Kind == auth.Agent && p.Name == r.PathValue("name") || p.Kind == auth.User && p.Method == auth.BySocket && p.Own {
			return nil
		}
		if p.Kind == auth.Agent {
			return api.Problemf(api.CodeForbidden, "not permitted: the certificate is agent %s's, who speaks for itself only", p.Name)
		}
		return api.Problemf(api.CodeForbidden, "not permitted: an agent runs as root or as the user of central, on the socket of central, or "+
			"has a certificate (rackpower agents token)")
	}
	switch {
	case to.own && p.Kind == auth.User && p.Role != "" && p.Name == r.PathValue("name"):
		return nil
	case p.Kind == auth.Agent:
		return api.Problemf(api.CodeForbidden, "not permitted: agent %s reports on its own nodes and asks for nothing else", p.Name)
	case !p.Role.Includes(to.least):
		return api.Problemf(api.CodeForbidden, "not permitted: this needs the role %s, and %s is %s", to.least, p.Name, article(p.Role))
	case !to.scoped && !p.Everywhere():
		return api.Problemf(api.CodeForbidden, "not permitted: this concerns the whole site, and %s is %s of %s only", p.Name, article(p.Role),
			p.Scope)
	}
	return nil
}

func article(r auth.Role) string {
	if r == "" {
		return "nobody here"
	}
	if strings.ContainsRune("aeiou", rune(r[0])) {
		return "an " + string(r)
	}
	return "a " + string(r)
}

// principal finds out who asks: by the user at the other end of a unix socket, else by a
// bearer token or a client certificate.
func (c *Central) principal(r *http.Request) (auth.Principal, error) {
	if httpserver.OnSocket(r.Context()) {
		return c.socketUser(r.Context())
	}
	address := r.RemoteAddr
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	now := c.cfg.Now()
	p, err := c.networkUser(r, now)
	p.Address = address
	return p, c.guessed(address, now, err)
}

// guessed counts a login that failed, and slows down the address that it came from. One that
// succeeds is not held up: agents may share an address with who guesses.
func (c *Central) guessed(address string, now time.Time, err error) error {
	if api.CodeOf(err) != api.CodeLogin {
		return err
	}
	wait := c.guesses.wait(address, now)
	c.guesses.failed(address, now)
	if wait > 0 {
		return api.TooMany(wait, "too many logins from here failed")
	}
	return err
}

func (c *Central) networkUser(r *http.Request, now time.Time) (auth.Principal, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			return c.certificateHolder(r.Context(), r.TLS.PeerCertificates, now)
		}
		return auth.Principal{}, api.Problemf(api.CodeLogin, "who asks is not known: log in (rackpower login)")
	}
	kind, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if c.cfg.Login != nil && strings.EqualFold(kind, "Bearer") && auth.IsJWT(token) {
		return c.issuedTo(r.Context(), token)
	}
	if !strings.EqualFold(kind, "Bearer") || !auth.IsToken(token) {
		return auth.Principal{}, api.Problemf(api.CodeLogin,
			"what was sent to log in is no token of rackpower (rackpower user rotate makes a new one)")
	}
	return c.tokenHolder(r.Context(), token, now)
}

// issuedTo is whom a token of the issuer outside is for.
func (c *Central) issuedTo(ctx context.Context, token string) (auth.Principal, error) {
	p, err := c.cfg.Login.Verify(ctx, token)
	switch {
	case errors.Is(err, auth.ErrNoIssuer):
		return p, api.Problemf(api.CodeUnavailable, "%v: ask again later, or with a token of central's own", err)
	case err != nil && p.Name != "": // known, and without a role
		return p, api.Problemf(api.CodeForbidden, "not permitted: %v (who runs central gives a group a role: --oidc-role)", err)
	case err != nil:
		return p, api.Problemf(api.CodeLogin, "the token does not hold: %v", err)
	}
	return p, nil
}

// tokenNoted is how exactly it is kept when a token was used last.
const tokenNoted = time.Minute

func (c *Central) tokenHolder(ctx context.Context, token string, now time.Time) (auth.Principal, error) {
	hash := auth.HashToken(token)
	var p auth.Principal
	err := c.store.View(ctx, func(tx *store.Tx) error {
		name, expires, found, err := tx.Token(hash)
		defer func() { p.Until = expires }()
		switch {
		case err != nil:
			return err
		case !found:
			return api.Problemf(api.CodeLogin, "the token is not known, or was revoked: an admin makes a new one (rackpower user rotate)")
		case !expires.IsZero() && !now.Before(expires):
			return api.Problemf(api.CodeLogin, "the token of %s expired: an admin makes a new one (rackpower user rotate %s)", name, name)
		}
		u, _, err := tx.User(name)
		p = userOf(u, auth.ByToken)
		return err
	})
	if err == nil && c.tokensUsed.Due(hash, now, tokenNoted) {
		err = c.note(ctx, func(tx *store.Tx) error { return tx.TokenUsed(hash, now) })
	}
	return p, err
}

// userOf is a user of the database as a principal.
func userOf(u store.User, by auth.Method) auth.Principal {
	return auth.Principal{Kind: auth.User, Name: u.Name, Role: auth.Role(u.Role), Scope: u.Scope, Speaks: u.Speaks, Method: by}
}

// certificateHolder verifies a client certificate here rather than in the handshake, so
// that who is refused is told why.
func (c *Central) certificateHolder(ctx context.Context, chain []*x509.Certificate, now time.Time) (auth.Principal, error) {
	leaf, p := chain[0], auth.Principal{Method: auth.ByCertificate}
	if c.tls == nil {
		return p, api.Problemf(api.CodeLogin, "client certificates are not taken here")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	options := x509.VerifyOptions{
		Roots: c.tls.clients, Intermediates: between, CurrentTime: auth.Begun(leaf,
			now), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	_, err := leaf.Verify(options)
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.After(leaf.NotAfter):
		again := "enrol again (rackpower agents token NAME)"
		if kind, name, err := auth.Identity(leaf, c.tls.site); err == nil && kind == auth.User {
			again = "log in with a token (rackpower login), then make another (rackpower user cert " + name + ")"
		}
		return p, api.Problemf(api.CodeLogin, "the certificate expired at %s: %s", leaf.NotAfter.UTC().Format(time.RFC3339), again)
	case err != nil:
		return p, api.Problemf(api.CodeLogin, "the certificate is not of this site's CA: agents enrol (rackpower agents token NAME), people log "+
			"in (rackpower login)")
	}
	kind, name, err := auth.Identity(leaf, c.tls.site)
	if err != nil {
		return p, api.Problemf(api.CodeLogin, "%v", err)
	}
	p.Kind, p.Name, p.Serial = kind, name, auth.Serial(leaf)
	err = c.store.View(ctx, func(tx *store.Tx) error {
		if kind == auth.Agent {
			e, err := tx.Enrolment(name)
			if err == nil && !leaf.NotBefore.After(e.RevokedAt) {
				err = api.Problemf(api.CodeLogin, "the certificate of agent %s was revoked at %s: enrol again (rackpower agents token %s)", name,
					e.RevokedAt.Format(time.RFC3339), name)
			}
			return err
		}
		u, found, err := tx.User(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeLogin, "there is no user %s any more", name)
		}
		if err == nil && c.tls.ca != nil { // another CA's are not known one by one
			_, found, err = tx.Certificate(p.Serial)
			if err == nil && !found {
				err = api.Problemf(api.CodeLogin, "the certificate of %s was revoked: log in with a token (rackpower login)", name)
			}
		}
		holder := userOf(u, auth.ByCertificate)
		holder.Serial = p.Serial
		p = holder
		return err
	})
	if err == nil && kind == auth.User && c.tls.ca != nil && c.tokensUsed.Due(p.Serial, now, tokenNoted) {
		err = c.note(ctx, func(tx *store.Tx) error { return tx.CertificateUsed(p.Serial, now) })
	}
	return p, err
}

// socketUser is who asks over a unix socket. Root, central's own user and the members of
// AdminGroup may do everything; others what a user of their name may.
func (c *Central) socketUser(ctx context.Context) (auth.Principal, error) {
	p, err := httpserver.SocketUser(ctx)
	if err != nil || p.Own {
		return p, err
	}
	err = c.store.View(ctx, func(tx *store.Tx) error {
		u, found, err := tx.User(p.Name)
		if found {
			p = userOf(u, auth.BySocket)
		}
		return err
	})
	if err != nil || p.Role != "" {
		return p, err
	}
	if httpserver.IsAdmin(ctx) {
		p.Role = auth.Admin
		return p, nil
	}
	return p, api.Problemf(api.CodeForbidden, "not permitted: %s is neither in the group %s nor a user of central (rackpower user add %s "+
		"--role viewer)", p.Name, httpserver.AdminGroup, p.Name)
}

// askedBy is the name that the audit log has for who asks: the one that was authenticated,
// and the one in whose name it asks, if it may.
func askedBy(r *http.Request, named string) string {
	p := httpserver.Principal(r)
	who, err := p.For(named)
	if err != nil {
		return p.Name // body has refused it
	}
	if who == "" {
		return "unknown"
	}
	return who
}

// refused has the audit log say who was refused what, once a minute for each address and
// reason.
func (c *Central) refused(r *http.Request, p auth.Principal, why error) {
	code := api.CodeOf(why)
	if code != api.CodeForbidden && code != api.CodeLogin && code != api.CodeTooMany {
		return
	}
	now, who := c.cfg.Now(), p.Name
	if p.Kind == auth.Agent {
		who = "agent " + p.Name
	}
	if who == "" {
		who = "unknown"
	}
	more, due := c.refusals.Count(p.Address+" "+who+" "+why.Error(), now, time.Minute)
	if !due {
		return
	}
	c.log.Warn("request refused", "who", who, "address", p.Address, "method", r.Method, "path", r.URL.Path, "reason", why, "more_since_last",
		more)
	detail := fmt.Sprintf("%s %.200s: %.300s", r.Method, r.URL.Path, why)
	if more > 0 {
		detail += fmt.Sprintf(" (and %d times more since the entry before)", more)
	}
	c.auditRefusal(context.WithoutCancel(r.Context()), api.AuditEntry{
		At: now, Who: who, Outcome: string(code), Detail: detail,
		Via: string(p.Method), Address: p.Address,
	})
}

func (c *Central) auditRefusal(ctx context.Context, e api.AuditEntry) {
	e.What = "access-refused"
	if err := c.note(ctx, func(tx *store.Tx) error { return tx.AddAudit(e) }); err != nil {
		c.log.Error("cannot write the audit log", "err", err)
	}
}
