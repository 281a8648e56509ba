package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// Plan is a row of plans.
type Plan struct {
	api.Plan
	Principal string         // who asked, as authenticated
	Asker     auth.Principal // likewise, of what awaits or awaited an approval
	Change    api.Change
}

const (
	planColumns = `id, principal, state, asked_at, expires_at, change, plan, asker`
	sqlPlan     = `SELECT ` + planColumns + ` FROM plans WHERE id = $1`
	sqlPutPlan  = `INSERT INTO plans (` + planColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (id) DO UPDATE SET principal = excluded.principal, state = excluded.state, asked_at = excluded.asked_at,
		expires_at = excluded.expires_at, change = excluded.change, plan = excluded.plan, asker = excluded.asker`
	// Of those of a principal the newest stay.
	sqlPrunePlansOf = `DELETE FROM plans WHERE id IN (SELECT id FROM plans WHERE principal = $1 AND state <> 'awaiting'
		ORDER BY asked_at DESC, id DESC LIMIT 9223372036854775807 OFFSET $2)`
	sqlAwaiting   = `SELECT ` + planColumns + ` FROM plans WHERE state = 'awaiting' ORDER BY expires_at, id`
	sqlOverdue    = `SELECT ` + planColumns + ` FROM plans WHERE state = 'awaiting' AND expires_at <= $1 ORDER BY expires_at, id`
	sqlPrunePlans = `DELETE FROM plans WHERE expires_at <= $1`
)

func scanPlan(r scanner) (p Plan, err error) {
	var change, plan, asker string
	var id, state string
	var asked, expires int64
	if err = r.Scan(&id, &p.Principal, &state, &asked, &expires, &change, &plan, &asker); err != nil {
		return p, err
	}
	err = errors.Join(json.Unmarshal([]byte(change), &p.Change), json.Unmarshal([]byte(plan), &p.Plan),
		json.Unmarshal([]byte(asker), &p.Asker))
	p.ID, p.State, p.AskedAt, p.ExpiresAt = id, api.PlanState(state), timeAt(asked), timeAt(expires)
	return p, err
}

// Plan finds a plan; found is false when there is none.
func (t *Tx) Plan(id string) (p Plan, found bool, err error) {
	p, err = scanPlan(t.row(sqlPlan, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Plan{}, false, nil
	}
	if err != nil {
		return Plan{}, false, fmt.Errorf("cannot read plan %s: %w", id, disk(err))
	}
	return p, true, nil
}

// PutPlan stores a plan, new or changed.
func (t *Tx) PutPlan(p Plan) error {
	_, err := t.exec(sqlPutPlan, p.ID, p.Principal, string(p.State), nanos(p.AskedAt), nanos(p.ExpiresAt), encode(p.Change), encode(p.Plan),
		encode(p.Asker))
	if err != nil {
		return fmt.Errorf("cannot save plan %s: %w", p.ID, err)
	}
	return nil
}

// Awaiting are the plans that await an approval, those that expire first before others.
func (t *Tx) Awaiting() ([]Plan, error) { return t.plans(sqlAwaiting) }

// Overdue are the plans that await an approval and expired by a time.
func (t *Tx) Overdue(by time.Time) ([]Plan, error) { return t.plans(sqlOverdue, nanos(by)) }

func (t *Tx) plans(query string, args ...any) (all []Plan, err error) {
	err = t.each(func(r *sql.Rows) error {
		p, err := scanPlan(r)
		all = append(all, p)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read plans: %w", err)
	}
	return all, nil
}

// PrunePlansOf deletes all but the newest plans of a principal.
func (t *Tx) PrunePlansOf(principal string, keep int) error {
	if _, err := t.exec(sqlPrunePlansOf, principal, keep); err != nil {
		return fmt.Errorf("cannot delete plans: %w", err)
	}
	return nil
}

// PrunePlans deletes the plans that expired by a time.
func (t *Tx) PrunePlans(by time.Time) error {
	if _, err := t.exec(sqlPrunePlans, nanos(by)); err != nil {
		return fmt.Errorf("cannot delete plans: %w", err)
	}
	return nil
}

// NodeNames are the nodes that a plan concerns.
func (p Plan) NodeNames() []string {
	names := make([]string, len(p.Nodes))
	for i, n := range p.Nodes {
		names[i] = n.Node
	}
	return names
}

// SameChange reports whether two changes are one that was asked for again.
func SameChange(a, b api.Change) bool { return encode(a) == encode(b) }
