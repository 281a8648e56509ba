package store

import (
	"database/sql"
	"fmt"

	"rackpower/central/api"
)

const (
	sqlAlarms     = `SELECT agent, kind, message, since, remedy, needs_ack FROM alarms WHERE agent = $1 OR $1 = '' ORDER BY agent, kind`
	sqlRaiseAlarm = `INSERT INTO alarms (agent, kind, message, since, remedy, needs_ack) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (agent, kind) DO UPDATE SET message = excluded.message, since = excluded.since,
			remedy = excluded.remedy, needs_ack = excluded.needs_ack
		WHERE alarms.message <> excluded.message`
	sqlClearAlarm = `DELETE FROM alarms WHERE agent = $1 AND kind = $2`
)

// Alarms returns the alarms that central raised about an agent, by kind.
func (t *Tx) Alarms(agent string) ([]api.Alarm, error) {
	all, err := t.alarms(agent)
	return all[agent], err
}

// AllAlarms returns the alarms that central raised, by agent.
func (t *Tx) AllAlarms() (map[string][]api.Alarm, error) { return t.alarms("") }

func (t *Tx) alarms(of string) (map[string][]api.Alarm, error) {
	all := map[string][]api.Alarm{}
	err := t.each(func(r *sql.Rows) error {
		var agent string
		var a api.Alarm
		var since int64
		err := r.Scan(&agent, &a.Kind, &a.Message, &since, &a.Remedy, &a.NeedsAck)
		a.Since = timeAt(since)
		all[agent] = append(all[agent], a)
		return err
	}, sqlAlarms, of)
	if err != nil {
		return nil, fmt.Errorf("cannot read alarms: %w", err)
	}
	return all, nil
}

// RaiseAlarm stores an alarm about an agent. It reports false where one of that kind
// with that message is raised already, which then stays as it is.
func (t *Tx) RaiseAlarm(agent string, a api.Alarm) (news bool, err error) {
	n, err := t.exec(sqlRaiseAlarm, agent, a.Kind, a.Message, nanos(a.Since), a.Remedy, a.NeedsAck)
	if err != nil {
		return false, fmt.Errorf("cannot keep alarm %s of agent %s: %w", a.Kind, agent, err)
	}
	return n > 0, nil
}

// ClearAlarm removes an alarm. It reports whether there was one.
func (t *Tx) ClearAlarm(agent, kind string) (was bool, err error) {
	n, err := t.exec(sqlClearAlarm, agent, kind)
	if err != nil {
		return false, fmt.Errorf("cannot end alarm %s of agent %s: %w", kind, agent, err)
	}
	return n > 0, nil
}
