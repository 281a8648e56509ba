package ipmi

import (
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// rememberFor is how long what was learnt of a BMC is a first guess.
const rememberFor = time.Hour

// learnt is what a BMC agreed to before. All of it is a first guess: where it does not
// do, the BMC is asked from the top.
type learnt struct {
	suite   types.CipherSuiteID // 0: not known
	suiteAt time.Time
	roles   map[string]role // by user
}

// role is the privilege that a user was given, when, and with what.
type role struct {
	level types.PrivilegeLevel
	at    time.Time
	with  power.Endpoint
}

// login is what of an endpoint a role depends on.
func login(ep power.Endpoint) power.Endpoint {
	return power.Endpoint{User: ep.User, Password: ep.Password, KG: ep.KG, Level: ep.Level}
}

// agreement is what a handshake begins with; zero values: not known.
type agreement struct {
	suite types.CipherSuiteID
	role  types.PrivilegeLevel
}

// recall is what the BMC agreed to within the last hour. A privilege that was given to
// other credentials is none.
func (d *Dialer) recall(ep power.Endpoint) (known agreement) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.learnt[ep.Key()]
	if b == nil {
		return agreement{}
	}
	now := time.Now()
	if now.Sub(b.suiteAt) < rememberFor {
		known.suite = b.suite
	}
	if r := b.roles[ep.User]; r.with == login(ep) && now.Sub(r.at) < rememberFor {
		known.role = r.level
	}
	return known
}

// remember notes what h found out: the suite even when the session was refused
// after it, for the next try shall cost one wait less. What was known and confirmed
// is not younger for it.
func (d *Dialer) remember(h *handshake, opened bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.learnt[h.ep.Key()]
	if b == nil {
		b = &learnt{roles: map[string]role{}}
		d.learnt[h.ep.Key()] = b
	}
	now := time.Now()
	if h.offer.suite != 0 && h.offer.suite != h.known.suite {
		b.suite, b.suiteAt = h.offer.suite, now
	}
	if opened && !h.guessed {
		b.roles[h.ep.User] = role{level: h.role, at: now, with: login(h.ep)}
	}
}

// Forget has the next Dial ask the BMC of the endpoint for everything again. It may be
// called whenever something may have changed: BMC, user, rights, address.
func (d *Dialer) Forget(ep power.Endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.learnt, ep.Key())
}

// forgetRole has the next Dial ask for the user's highest privilege again.
func (d *Dialer) forgetRole(ep power.Endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.learnt[ep.Key()]; b != nil {
		delete(b.roles, ep.User)
	}
}
