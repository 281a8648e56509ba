package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"rackpower/power"
)

// RestoreState is how far an agent is after the database was restored. The numbers are in
// the database.
type RestoreState int

// The states. Until RestoreOver the monitor of the agent's rack corrects nothing.
const (
	RestoreOver   RestoreState = 0
	RestoreAsked  RestoreState = 1 // it has not told what it enforced before
	RestoreTold   RestoreState = 2
	RestoreSilent RestoreState = 3 // it does not know any more what it enforced before
)

// Enforced is a node of an agent whose desired power may be another since the restore.
type Enforced struct {
	Agent, Node string
	// Had says that the agent had the node before; with Status and Hold.
	Had    bool
	Status power.Status
	Hold   power.Hold
}

const (
	sqlRestored     = `SELECT restored_at, restored_of FROM meta`
	sqlSaveRestored = `UPDATE agents SET restored = $1 WHERE name = $2`
	sqlAddEnforced  = `INSERT INTO enforced (agent, node, had, status, hold) VALUES ($1, $2, $3, $4, $5)`
	sqlEnforced     = `SELECT agent, node, had, status, hold FROM enforced ORDER BY agent, node`
	sqlDropEnforced = `DELETE FROM enforced WHERE agent = $1`
)

// Restored is when the database was restored last, and of which time the newest entry was that
// its audit log had then; zero: never.
func (t *Tx) Restored() (at, of time.Time, err error) {
	var restored, newest int64
	if err = t.row(sqlRestored).Scan(&restored, &newest); err != nil {
		return at, of, fmt.Errorf("cannot read when the database was restored: %w", disk(err))
	}
	return timeAt(restored), timeAt(newest), nil
}

// SaveRestored notes how far an agent is after a restore. What it enforced is kept while it
// is RestoreTold.
func (t *Tx) SaveRestored(agent string, state RestoreState, enforced []Enforced) error {
	if _, err := t.exec(sqlSaveRestored, int(state), agent); err != nil {
		return fmt.Errorf("cannot note what agent %s told: %w", agent, err)
	}
	if _, err := t.exec(sqlDropEnforced, agent); err != nil {
		return fmt.Errorf("cannot note what agent %s enforced: %w", agent, err)
	}
	for _, e := range enforced {
		if _, err := t.exec(sqlAddEnforced, agent, e.Node, e.Had, string(e.Status), encode(e.Hold)); err != nil {
			return fmt.Errorf("cannot note what agent %s enforced: %w", agent, err)
		}
	}
	return nil
}

// Enforced lists what SaveRestored kept, by agent and node.
func (t *Tx) Enforced() ([]Enforced, error) {
	var all []Enforced
	err := t.each(func(r *sql.Rows) error {
		var e Enforced
		var hold string
		if err := r.Scan(&e.Agent, &e.Node, &e.Had, &e.Status, &hold); err != nil {
			return err
		}
		all = append(all, e)
		return json.Unmarshal([]byte(hold), &all[len(all)-1].Hold)
	}, sqlEnforced)
	if err != nil {
		return nil, fmt.Errorf("cannot read what agents enforced: %w", err)
	}
	return all, nil
}
