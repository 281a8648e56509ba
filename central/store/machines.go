package store

import (
	"database/sql"
	"errors"
	"fmt"
)

const (
	sqlMachine     = `SELECT host FROM machines WHERE agent = $1`
	sqlSaveMachine = `INSERT INTO machines (agent, host) VALUES ($1, $2) ON CONFLICT (agent) DO UPDATE SET host = excluded.host`
)

// Machine is the host name of the machine that an agent runs on, or central itself with
// agent "". It is "" as long as none is known.
func (t *Tx) Machine(agent string) (host string, err error) {
	err = t.row(sqlMachine, agent).Scan(&host)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the machine of agent %q: %w", agent, disk(err))
	}
	return host, nil
}

// SaveMachine stores that.
func (t *Tx) SaveMachine(agent, host string) error {
	if _, err := t.exec(sqlSaveMachine, agent, host); err != nil {
		return fmt.Errorf("cannot save the machine of agent %q: %w", agent, disk(err))
	}
	return nil
}
