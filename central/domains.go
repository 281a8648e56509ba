package central

import (
	"fmt"
	"net/http"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

const auditDomain = "domain"

// limitsOf are the limits of a power domain, for all its nodes together.
func limitsOf(d store.Domain) api.DomainLimit {
	if d.Limits != nil {
		return *d.Limits
	}
	return api.DomainLimit{Name: d.Name, Rate: power.DefaultDomainRate, Concurrent: power.DefaultDomainConcurrent}
}

// share is the part of a limit that each of the agents gets. They do not know of
// each other, so together they stay below the limit, but for each may turn on one
// node at a time.
func share(l api.DomainLimit, agents int) api.DomainLimit {
	if agents > 1 {
		l.Rate /= float64(agents)
		if l.Concurrent > 0 {
			l.Concurrent = max(l.Concurrent/agents, 1)
		}
	}
	return l
}

func (c *Central) listDomains(r *http.Request) ([]api.Domain, error) {
	out := []api.Domain{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		all, err := tx.Domains()
		if err != nil {
			return err
		}
		queues, err := queues(tx)
		for _, d := range all {
			out = append(out, showDomain(d, queues))
		}
		return err
	})
	return out, err
}

// queues adds up, for each power domain, what the agents say of it.
func queues(tx *store.Tx) (map[string]api.DomainState, error) {
	sum := map[string]api.DomainState{}
	agents, err := tx.Agents()
	if err != nil {
		return nil, err
	}
	for _, a := range agents {
		state, err := a.State()
		if err != nil {
			return nil, err
		}
		if state == nil {
			continue
		}
		for _, d := range state.Domains {
			s := sum[d.Name]
			s.InFlight, s.Waiting = s.InFlight+d.InFlight, s.Waiting+d.Waiting
			sum[d.Name] = s
		}
	}
	return sum, nil
}

func showDomain(d store.Domain, queues map[string]api.DomainState) api.Domain {
	out := api.Domain{DomainState: queues[d.Name], Default: d.Limits == nil, Nodes: d.Nodes, Agents: d.Agents}
	out.DomainLimit = limitsOf(d)
	return out
}

func (c *Central) setDomain(r *http.Request, in api.SetDomain) (api.Domain, error) {
	var out api.Domain
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		d, err := u.tx.Domain(in.Name)
		if err != nil {
			return err
		}
		if in.Remove && d.Limits == nil && d.Nodes == 0 {
			return api.Problemf(api.CodeNotFound, "no such power domain: %s", in.Name)
		}
		if err := u.limit(&d, in); err != nil {
			return err
		}
		queues, err := queues(u.tx)
		if err != nil {
			return err
		}
		out = showDomain(d, queues)
		return nil
	})
	return out, err
}

// limit sets or removes the limits of a power domain, and has its agents told.
func (u *unitOfWork) limit(d *store.Domain, in api.SetDomain) error {
	was, limits := describeLimits(*d), &in.DomainLimit
	if in.Remove {
		limits = nil
	}
	if limits == nil && d.Limits == nil || limits != nil && d.Limits != nil && *limits == *d.Limits {
		return nil
	}
	d.Limits = limits
	var err error
	if in.Remove {
		err = u.tx.ForgetDomain(in.Name)
	} else {
		err = u.tx.SetDomain(*limits)
	}
	if err != nil {
		return err
	}
	agents, err := u.tx.AgentsIn(in.Name)
	if err != nil {
		return err
	}
	for _, agent := range agents {
		if err := u.tellRack(agent); err != nil {
			return err
		}
	}
	return u.audit(auditDomain, "", in.Reason, fmt.Sprintf("power domain %s: %s, was %s", in.Name, describeLimits(*d), was))
}

func describeLimits(d store.Domain) string {
	l := limitsOf(d)
	rate, most := "any number of power-ons a second", "any number at once"
	if l.Rate > 0 {
		rate = fmt.Sprintf("%g power-ons a second", l.Rate)
	}
	if l.Concurrent > 0 {
		most = fmt.Sprintf("%d at once", l.Concurrent)
	}
	text := rate + ", " + most
	if d.Limits == nil {
		text += " (default)"
	}
	return text
}
