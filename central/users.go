package central

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power/noderange"
)

// maxUsers bounds the table of users.
const maxUsers = 10_000

func (c *Central) listUsers(r *http.Request) ([]api.User, error) {
	out := []api.User{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		users, err := tx.Users()
		if err != nil {
			return err
		}
		all, err := tx.Certificates()
		certificates := map[string][]api.UserCertificate{}
		for _, c := range all {
			certificates[c.User] = append(certificates[c.User], showCertificate(c))
		}
		for _, u := range users {
			view := showUser(u)
			view.Certificates = certificates[u.Name]
			out = append(out, view)
		}
		return err
	})
	return out, err
}

func showUser(u store.User) api.User {
	out := api.User{
		Name: u.Name, Role: u.Role, Nodes: u.Scope, SpeaksForOthers: u.Speaks, CreatedAt: u.CreatedAt, CreatedBy: u.CreatedBy,
		HasToken: u.Tokens > 0,
	}
	if !u.ExpiresAt.IsZero() {
		out.ExpiresAt = &u.ExpiresAt
	}
	if !u.UsedAt.IsZero() {
		out.UsedAt = &u.UsedAt
	}
	return out
}

func showCertificate(c store.Certificate) api.UserCertificate {
	out := api.UserCertificate{Serial: c.Serial, NotAfter: c.NotAfter}
	if !c.UsedAt.IsZero() {
		out.UsedAt = &c.UsedAt
	}
	return out
}

// whoAmI says who asks, as it is known here.
func (c *Central) whoAmI(r *http.Request) (api.User, error) {
	p := httpserver.Principal(r)
	out := api.User{Name: p.Name, Role: string(p.Role), Nodes: p.Scope, SpeaksForOthers: p.Speaks, Via: string(p.Method)}
	if !p.Until.IsZero() {
		out.ExpiresAt = &p.Until
	}
	return out, nil
}

// addUser adds a user with a first token, or changes the role of one.
func (c *Central) addUser(r *http.Request, in api.AddUser) (api.NewToken, error) {
	role, err := auth.ParseRole(in.Role)
	if err != nil {
		return api.NewToken{}, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	if in.Nodes != "" {
		if _, err := noderange.Parse(in.Nodes); err != nil {
			return api.NewToken{}, api.Problemf(api.CodeBadRequest, "nodes: %v", err)
		}
	}
	var out api.NewToken
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err = c.write(r.Context(), now, who, func(u *unitOfWork) error {
		_, found, err := u.tx.User(in.Name)
		switch {
		case err != nil:
			return err
		case found && !in.Update:
			return api.Problemf(api.CodeExists, "user %s exists: --update changes the role and the nodes, rackpower user rotate makes a new token",
				in.Name)
		case !found && in.Update:
			return api.Problemf(api.CodeNotFound, "no such user: %s", in.Name)
		}
		user := store.User{Name: in.Name, Role: string(role), Scope: in.Nodes, Speaks: in.SpeaksForOthers, CreatedAt: now, CreatedBy: who}
		if err := errors.Join(u.roomForUser(found), u.tx.PutUser(user)); err != nil {
			return err
		}
		detail := in.Name + ": " + in.Role
		if in.Nodes != "" {
			detail += " of " + in.Nodes
		}
		out = api.NewToken{Name: in.Name}
		if !found && !in.NoToken {
			if out, err = u.newToken(in.Name, in.TTL); err != nil {
				return err
			}
		}
		if found {
			u.rightsChanged(r.Context(), in.Name, "", api.Problemf(api.CodeUnavailable, "the rights of %s were changed: ask again", in.Name))
		}
		return u.audit("user", "", in.Reason, detail)
	})
	return out, err
}

func (u *unitOfWork) roomForUser(known bool) error {
	if known {
		return nil
	}
	users, err := u.tx.Users()
	if err == nil && len(users) >= maxUsers {
		err = api.Problemf(api.CodeQueueFull, "there are %d users, which is the limit: remove some", maxUsers)
	}
	return err
}

func (u *unitOfWork) newToken(user string, ttl time.Duration) (api.NewToken, error) {
	out := api.NewToken{Name: user, Token: auth.NewToken()}
	var expires time.Time
	if ttl > 0 {
		expires = u.now.Add(ttl)
		out.ExpiresAt = &expires
	}
	return out, u.tx.AddToken(auth.HashToken(out.Token), user, u.now, expires)
}

// rightsChanged ends, after the commit, what a user asks for under the rights of before, or
// with one certificate.
func (u *unitOfWork) rightsChanged(ctx context.Context, user, serial string, why error) {
	but := ticketOf(ctx)
	u.tx.OnCommit(func() { u.c.limits.rightsChanged(user, serial, but, why) })
}

// Bounds of the certificates of users.
const (
	maxUserLife         = 366 * 24 * time.Hour
	maxUserCertificates = 100 // of one user, that have not expired
)

// certifyUser gives a user a client certificate, for itself or by an admin. One that was
// asked for with a token that expires, or with a certificate of such a one, ends with it.
func (c *Central) certifyUser(r *http.Request, in api.CertifyUser) (api.UserCertificate, error) {
	name, now, p := r.PathValue("name"), c.cfg.Now(), httpserver.Principal(r)
	ca, err := c.needCA()
	if err != nil {
		return api.UserCertificate{}, err
	}
	if p.Method == auth.ByOIDC && p.Name == name {
		return api.UserCertificate{}, api.Problemf(api.CodeRefused,
			"certificates are for users of central (rackpower user add): %s is one of the "+
				"issuer of logins", name)
	}
	if in.TTL == 0 {
		in.TTL = auth.UserLife
	}
	if in.TTL > maxUserLife {
		return api.UserCertificate{}, api.Problemf(api.CodeBadRequest, "ttl: a certificate lives for at most %d days", maxUserLife/(24*time.Hour))
	}
	var out api.UserCertificate
	err = c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		_, found, err := u.tx.User(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such user: %s (rackpower user add)", name)
		}
		if err != nil {
			return err
		}
		cert := store.Certificate{User: name, CreatedAt: now, NotAfter: now.Add(in.TTL).Truncate(time.Second), Until: p.Until}
		if p.Serial != "" {
			old, _, err := u.tx.Certificate(p.Serial)
			if err != nil {
				return err
			}
			cert.Until = old.Until
		}
		if p.Name != name {
			cert.Until = time.Time{}
		}
		if !cert.Until.IsZero() && cert.NotAfter.After(cert.Until) {
			cert.NotAfter = cert.Until.Truncate(time.Second)
		}
		if err := u.roomForCertificate(name); err != nil {
			return err
		}
		text, leaf, err := ca.SignUser(name, []byte(in.Request), now.Truncate(time.Second), cert.NotAfter)
		if err != nil {
			return api.Problemf(api.CodeBadRequest, "%v", err)
		}
		cert.Serial = auth.Serial(leaf)
		out = showCertificate(cert)
		out.User, out.Certificate = name, string(text)
		return errors.Join(u.tx.AddCertificate(cert),
			u.audit("user-cert", "", in.Reason, fmt.Sprintf("%s has a certificate until %s (%s)", name, cert.NotAfter.UTC().Format(time.RFC3339),
				cert.Serial)))
	})
	return out, err
}

func (u *unitOfWork) roomForCertificate(user string) error {
	all, err := u.tx.Certificates()
	n := 0
	for _, c := range all {
		if c.User == user && c.NotAfter.After(u.now) {
			n++
		}
	}
	if err == nil && n >= maxUserCertificates {
		err = api.Problemf(api.CodeQueueFull, "%s has %d certificates, which is the limit: revoke some (rackpower user revoke %s)", user, n, user)
	}
	return err
}

// revokeCertificate revokes one certificate of a user.
func (u *unitOfWork) revokeCertificate(user, serial string) error {
	n, err := u.tx.DropCertificates(user, serial)
	if err == nil && n == 0 {
		err = api.Problemf(api.CodeNotFound, "%s has no certificate %s", user, serial)
	}
	return err
}

// rotateToken revokes the tokens and certificates of a user and makes a new token.
func (c *Central) rotateToken(r *http.Request, in api.RotateToken) (api.NewToken, error) {
	name := r.PathValue("name")
	var out api.NewToken
	err := c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		_, found, err := u.tx.User(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such user: %s", name)
		}
		if err != nil {
			return err
		}
		out.Name = name
		u.rightsChanged(r.Context(), name, in.Certificate, api.Problemf(api.CodeLogin, "the credentials of %s were revoked", name))
		if in.Certificate != "" {
			return errors.Join(u.revokeCertificate(name, in.Certificate),
				u.audit("user-token", "", in.Reason, name+": certificate "+in.Certificate+" revoked"))
		}
		if err := u.tx.DropTokens(name); err != nil {
			return err
		}
		if _, err := u.tx.DropCertificates(name, ""); err != nil {
			return err
		}
		what := name + ": tokens and certificates revoked"
		if !in.RevokeOnly {
			what = name + ": new token, the ones before and all certificates are revoked"
			if out, err = u.newToken(name, in.TTL); err != nil {
				return err
			}
		}
		out.Name = name
		return u.audit("user-token", "", in.Reason, what)
	})
	return out, err
}

func (c *Central) removeUser(r *http.Request, in api.RemoveUser) (api.Changed, error) {
	name := r.PathValue("name")
	err := c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		_, found, err := u.tx.User(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such user: %s", name)
		}
		if err != nil {
			return err
		}
		u.rightsChanged(r.Context(), name, "", api.Problemf(api.CodeLogin, "there is no user %s any more", name))
		return errors.Join(u.tx.DropUser(name), u.audit("user-remove", "", in.Reason, name))
	})
	if err != nil {
		return api.Changed{}, err
	}
	return api.Changed{Changed: 1}, nil
}
