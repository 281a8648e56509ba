package central

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/store"
)

// Lives of an enrolment token.
const (
	defaultTokenLife = 15 * time.Minute
	maxTokenLife     = 7 * 24 * time.Hour
)

// maxEnrolments bounds the table of agents that were given a token.
const maxEnrolments = 10_000

func (c *Central) needCA() (*auth.CA, error) {
	switch {
	case c.tls == nil:
		return nil, api.Problemf(api.CodeRefused, "central has no TLS port: start it with --listen ADDRESS --tls-name NAME; agents on this "+
			"machine need no token, they use the socket")
	case c.tls.ca == nil:
		return nil, api.Problemf(api.CodeRefused, "the certificates of this site come from another CA (--client-ca): issue one there, with the "+
			"URI rackpower://%s/agent/NAME for an agent and rackpower://%s/user/NAME for a user", c.tls.site, c.tls.site)
	}
	return c.tls.ca, nil
}

// agentToken makes the line that enrols an agent. A line that was made before and not used
// holds no longer.
func (c *Central) agentToken(r *http.Request, in api.MakeAgentToken) (api.AgentToken, error) {
	name, now := r.PathValue("name"), c.cfg.Now()
	if err := api.CheckName(name); err != nil {
		return api.AgentToken{}, api.Problemf(api.CodeBadRequest, "agent: %v", err)
	}
	ca, err := c.needCA()
	if err != nil {
		return api.AgentToken{}, err
	}
	if in.TTL == 0 {
		in.TTL = defaultTokenLife
	}
	if in.TTL < 0 || in.TTL > maxTokenLife {
		return api.AgentToken{}, api.Problemf(api.CodeBadRequest, "ttl: a token lives for at most %s", maxTokenLife)
	}
	line := auth.NewEnrolment(name, ca.Hash())
	out := api.AgentToken{Agent: name, Token: line.String(), ExpiresAt: now.Add(in.TTL).UTC()}
	err = c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		e, err := u.tx.Enrolment(name)
		if err != nil {
			return err
		}
		if all, err := u.tx.Enrolments(); err != nil || len(all) >= maxEnrolments {
			return errors.Join(err, api.Problemf(api.CodeQueueFull, "%d agents were given a token, which is the limit", maxEnrolments))
		}
		e.Token, e.ExpiresAt, e.UsedAt = auth.HashToken(line.Secret), out.ExpiresAt, time.Time{}
		if err := u.tx.PutEnrolment(e); err != nil {
			return err
		}
		return u.audit("agent-token", "", "", fmt.Sprintf("agent %s may enrol until %s", name, out.ExpiresAt.Format(time.RFC3339)))
	})
	return out, err
}

// join takes the one token and the key of an agent, and gives it a certificate. It is the
// only route for those who have no credential yet; wrong tokens are counted like logins
// that fail.
func (c *Central) join(r *http.Request, in api.JoinSite) (api.SiteCertificate, error) {
	now := c.cfg.Now()
	p := auth.Principal{Method: auth.ByToken, Address: addressOf(r)}
	ca, err := c.needCA()
	if err != nil {
		return api.SiteCertificate{}, err
	}
	var out api.SiteCertificate
	p.Kind, p.Name = auth.Agent, in.Agent
	asker := store.Asker{Name: "agent " + in.Agent, Via: string(p.Method), Address: p.Address}
	err = c.write(store.WithAsker(r.Context(), asker), now, asker.Name, func(u *unitOfWork) error {
		e, err := u.tx.Enrolment(in.Agent)
		if err != nil {
			return err
		}
		if err := mayJoin(e, in.Secret, now); err != nil {
			return err
		}
		out, err = u.certify(ca, &e, []byte(in.Request))
		if err != nil {
			return err
		}
		e.Token, e.UsedAt = "", now
		return errors.Join(u.tx.PutEnrolment(e), u.audit("agent-enrol", "", "", fmt.Sprintf("agent %s has a certificate until %s", in.Agent,
			e.NotAfter.Format(time.RFC3339))))
	})
	if api.CodeOf(err) == api.CodeLogin {
		c.refused(r, p, err)
	}
	return out, c.guessed(p.Address, now, err)
}

// mayJoin says why a secret does not enrol. Who does not know the secret is not told
// whether there is one.
func mayJoin(e store.Enrolment, secret string, now time.Time) error {
	switch hash := auth.HashToken(secret); {
	case e.Token == "" || subtle.ConstantTimeCompare([]byte(e.Token), []byte(hash)) != 1:
		return api.Problemf(api.CodeLogin, "the enrolment token is not known, or was used already: make a new one (rackpower agents token NAME)")
	case !now.Before(e.ExpiresAt):
		return api.Problemf(api.CodeLogin, "the enrolment token expired at %s: make a new one (rackpower agents token %s)",
			e.ExpiresAt.Format(time.RFC3339), e.Agent)
	}
	return nil
}

// certify signs the key of an agent and notes the certificate. One that is made in the
// second of a revocation begins behind it.
func (u *unitOfWork) certify(ca *auth.CA, e *store.Enrolment, request []byte) (api.SiteCertificate, error) {
	from := u.now.Truncate(time.Second)
	if !from.After(e.RevokedAt) {
		from = e.RevokedAt.Truncate(time.Second).Add(time.Second)
	}
	cert, leaf, err := ca.SignAgent(e.Agent, request, from)
	if err != nil {
		return api.SiteCertificate{}, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	e.Serial, e.NotAfter = auth.Serial(leaf), leaf.NotAfter
	return api.SiteCertificate{Certificate: string(cert), CA: string(ca.Cert())}, nil
}

// renew gives an agent that has a certificate the next one.
func (c *Central) renew(r *http.Request, in api.RenewCertificate) (api.SiteCertificate, error) {
	ca, err := c.needCA()
	if err != nil {
		return api.SiteCertificate{}, err
	}
	var out api.SiteCertificate
	name := r.PathValue("name")
	err = c.write(r.Context(), c.cfg.Now(), "agent "+name, func(u *unitOfWork) error {
		e, err := u.tx.Enrolment(name)
		if err != nil {
			return err
		}
		if out, err = u.certify(ca, &e, []byte(in.Request)); err != nil {
			return err
		}
		return errors.Join(u.tx.PutEnrolment(e), u.audit("agent-renew", "", "", fmt.Sprintf("agent %s has a certificate until %s", name,
			e.NotAfter.Format(time.RFC3339))))
	})
	return out, err
}

// revokeAgent has the certificates of an agent hold no longer, and ends its session, its
// open polls included. Its nodes stay assigned to it: nobody else may act on them before
// it is forgotten.
func (c *Central) revokeAgent(r *http.Request, in api.RevokeAgent) (api.Changed, error) {
	name, now := r.PathValue("name"), c.cfg.Now()
	err := c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		e, err := u.tx.Enrolment(name)
		if err != nil {
			return err
		}
		if e.Serial == "" && e.Token == "" {
			return api.Problemf(api.CodeNotFound, "agent %s has neither a certificate nor a token", name)
		}
		e.Token, e.RevokedAt = "", now
		if err := errors.Join(u.tx.PutEnrolment(e), u.audit("agent-revoke", "", in.Reason, "agent "+name)); err != nil {
			return err
		}
		a, found, err := u.tx.Agent(name)
		if err != nil || !found {
			return err
		}
		a.Session, a.Run = "", ""
		u.tx.OnCommit(func() {
			if d := c.sessions.known(name); d != nil {
				d.update(func() { d.session, d.holder = "", holderOf(a) }) // who enrols again is no second process
			}
		})
		return u.tx.SaveAgent(a)
	})
	if err != nil {
		return api.Changed{}, err
	}
	return api.Changed{Changed: 1}, nil
}

// siteCA shows the CA of the site to anybody who reaches the port.
func (c *Central) siteCA(*http.Request) (api.SiteCA, error) {
	ca, err := c.needCA()
	if err != nil {
		return api.SiteCA{}, err
	}
	return api.SiteCA{Site: ca.Site(), Hash: ca.Hash(), CA: string(ca.Cert())}, nil
}

// certificateOf is what agents list shows of a certificate.
func certificateOf(e store.Enrolment, now time.Time) *api.AgentCertificate {
	if e.Serial == "" && e.Token == "" {
		return nil
	}
	out := &api.AgentCertificate{Serial: e.Serial}
	if !e.NotAfter.IsZero() {
		out.NotAfter = &e.NotAfter
	}
	if !e.RevokedAt.IsZero() && !e.NotAfter.Add(-auth.AgentLife).After(e.RevokedAt) {
		out.RevokedAt = &e.RevokedAt
	}
	if e.Token != "" && now.Before(e.ExpiresAt) {
		out.TokenUntil = &e.ExpiresAt
	}
	return out
}

func enrolments(tx *store.Tx) (map[string]store.Enrolment, error) {
	all, err := tx.Enrolments()
	byAgent := make(map[string]store.Enrolment, len(all))
	for _, e := range all {
		byAgent[e.Agent] = e
	}
	return byAgent, err
}
