package store

import (
	"database/sql"
	"errors"
	"fmt"

	"rackpower/central/api"
)

// Domain is a power domain: one that nodes name, or that limits were set for.
type Domain struct {
	Name string
	// Limits are those that were set; nil: none.
	Limits        *api.DomainLimit
	Nodes, Agents int // agents that have nodes in it
}

const (
	domainColumns = `(SELECT count(*) FROM nodes n WHERE n.domain = d.name AND n.domain <> ''),
		(SELECT count(DISTINCT n.agent) FROM nodes n WHERE n.domain = d.name AND n.domain <> ''), l.rate, l.concurrent`
	sqlDomains = `SELECT d.name, ` + domainColumns + ` FROM
		(SELECT domain AS name FROM nodes WHERE domain <> '' UNION SELECT name FROM domains) d LEFT JOIN domains l ON l.name = d.name ORDER BY d.name`
	sqlDomainsOf = `SELECT d.name, ` + domainColumns + ` FROM
		(SELECT DISTINCT domain AS name FROM nodes WHERE agent = $1 AND domain <> '') d LEFT JOIN domains l ON l.name = d.name ORDER BY d.name`
	sqlDomain    = `SELECT d.name, ` + domainColumns + ` FROM (SELECT $1 AS name) d LEFT JOIN domains l ON l.name = d.name`
	sqlAgentsIn  = `SELECT DISTINCT agent FROM nodes WHERE domain = $1 AND domain <> '' ORDER BY agent`
	sqlSetDomain = `INSERT INTO domains (name, rate, concurrent) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET rate = excluded.rate, concurrent = excluded.concurrent`
	sqlDelDomain = `DELETE FROM domains WHERE name = $1`
)

func scanDomain(scan func(...any) error) (d Domain, err error) {
	var rate sql.NullFloat64
	var concurrent sql.NullInt64
	err = scan(&d.Name, &d.Nodes, &d.Agents, &rate, &concurrent)
	if rate.Valid {
		d.Limits = &api.DomainLimit{Name: d.Name, Rate: rate.Float64, Concurrent: int(concurrent.Int64)}
	}
	return d, err
}

func (t *Tx) domains(query string, args ...any) ([]Domain, error) {
	var all []Domain
	err := t.each(func(r *sql.Rows) error {
		d, err := scanDomain(r.Scan)
		all = append(all, d)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read power domains: %w", err)
	}
	return all, nil
}

// Domains returns all power domains by name.
func (t *Tx) Domains() ([]Domain, error) { return t.domains(sqlDomains) }

// DomainsOf returns the power domains of the agent's nodes, by name.
func (t *Tx) DomainsOf(agent string) ([]Domain, error) { return t.domains(sqlDomainsOf, agent) }

// Domain returns a power domain, which may be one that nothing is known of.
func (t *Tx) Domain(name string) (Domain, error) {
	d, err := scanDomain(t.row(sqlDomain, name).Scan)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return d, fmt.Errorf("cannot read power domain %s: %w", name, disk(err))
	}
	return d, nil
}

// AgentsIn returns the names of the agents that have nodes in the domain.
func (t *Tx) AgentsIn(domain string) ([]string, error) {
	var names []string
	err := t.each(func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, sqlAgentsIn, domain)
	if err != nil {
		return nil, fmt.Errorf("cannot read power domain %s: %w", domain, err)
	}
	return names, nil
}

// SetDomain sets the limits of a power domain.
func (t *Tx) SetDomain(l api.DomainLimit) error {
	if _, err := t.exec(sqlSetDomain, l.Name, l.Rate, l.Concurrent); err != nil {
		return fmt.Errorf("cannot save power domain %s: %w", l.Name, err)
	}
	return nil
}

// ForgetDomain removes the limits of a power domain.
func (t *Tx) ForgetDomain(name string) error {
	if _, err := t.exec(sqlDelDomain, name); err != nil {
		return fmt.Errorf("cannot remove power domain %s: %w", name, err)
	}
	return nil
}
