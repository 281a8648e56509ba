package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"rackpower/central/api"
)

const (
	sqlPolicy     = `SELECT policy FROM meta`
	sqlSavePolicy = `UPDATE meta SET policy = $1`
	sqlCuts       = `SELECT node FROM cuts WHERE principal = $1 AND at > $2 ORDER BY node`
	sqlNoteCut    = `INSERT INTO cuts (principal, node, at) VALUES ($1, $2, $3) ON CONFLICT (principal, node) DO UPDATE SET at = excluded.at`
	sqlPruneCuts  = `DELETE FROM cuts WHERE at <= $1`
)

// Policy is what the site asks for before nodes lose power.
func (t *Tx) Policy() (p api.Policy, err error) {
	var text string
	if err = t.row(sqlPolicy).Scan(&text); err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &p)
	}
	if err != nil {
		return p, fmt.Errorf("cannot read the policy: %w", disk(err))
	}
	return p, nil
}

// SavePolicy stores it.
func (t *Tx) SavePolicy(p api.Policy) error {
	if _, err := t.exec(sqlSavePolicy, encode(p)); err != nil {
		return fmt.Errorf("cannot save the policy: %w", err)
	}
	return nil
}

// Cuts are the nodes that lost power since a time by what a principal asked for without an
// approval.
func (t *Tx) Cuts(principal string, since time.Time) (nodes []string, err error) {
	err = t.each(func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		nodes = append(nodes, name)
		return err
	}, sqlCuts, principal, nanos(since))
	if err != nil {
		return nil, fmt.Errorf("cannot read which nodes lost power: %w", err)
	}
	return nodes, nil
}

// NoteCut notes for Cuts that a node loses power.
func (t *Tx) NoteCut(principal, node string, at time.Time) error {
	if _, err := t.exec(sqlNoteCut, principal, node, nanos(at)); err != nil {
		return fmt.Errorf("cannot note which nodes lost power: %w", err)
	}
	return nil
}

// PruneCuts forgets what Cuts has until a time.
func (t *Tx) PruneCuts(by time.Time) error {
	if _, err := t.exec(sqlPruneCuts, nanos(by)); err != nil {
		return fmt.Errorf("cannot forget which nodes lost power: %w", err)
	}
	return nil
}
