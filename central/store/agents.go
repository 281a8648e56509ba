package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Agent is a row of agents.
type Agent struct {
	Name string // of its rack
	// Rev is raised in every transaction that changes what is assigned to it.
	// It is at least 1.
	Rev int64
	// Floor is the revision below which tombstones are gone: an agent that holds
	// less gets everything.
	Floor     int64
	RevSeen   int64 // revision that the agent named last
	JournalID string
	Epoch     uint64
	LSN       uint64    // highest ever reported of this journal
	Session   string    // of its latest hello; "": it has to say hello
	SeenAt    time.Time // zero: never
	Version   string
	Alarm     string
	Address   string // gossip
}

const agentColumns = `name, rev, floor, rev_seen, journal_id, epoch, lsn, session, seen_at, version, alarm, address`

const (
	sqlAgent     = `SELECT ` + agentColumns + ` FROM agents WHERE name = $1`
	sqlAgents    = `SELECT ` + agentColumns + ` FROM agents ORDER BY name`
	sqlAddAgent  = `INSERT INTO agents (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`
	sqlSaveAgent = `UPDATE agents SET rev_seen = $1, journal_id = $2, epoch = $3, lsn = $4, session = $5,
		seen_at = $6, version = $7, alarm = $8, address = $9 WHERE name = $10`
	sqlRaiseAgent = `UPDATE agents SET rev = rev + 1 WHERE name = $1 RETURNING rev`
	sqlSeenAgent  = `UPDATE agents SET seen_at = max(seen_at, $1), rev_seen = $2 WHERE name = $3`
	sqlLSNAgent   = `UPDATE agents SET lsn = max(lsn, $1), seen_at = max(seen_at, $2) WHERE name = $3`
	sqlFloorAgent = `UPDATE agents SET floor = max(floor, (SELECT coalesce(max(rev), 0) FROM removed WHERE removed.agent = agents.name AND at < $1))`
	sqlCounts     = `SELECT agent, count(*), sum(stage = 1) FROM ops WHERE stage < 4 GROUP BY agent`
	sqlNodeCounts = `SELECT agent, count(*) FROM nodes GROUP BY agent`
)

func scanAgent(scan func(...any) error) (a Agent, err error) {
	var epoch, lsn, seen int64
	err = scan(&a.Name, &a.Rev, &a.Floor, &a.RevSeen, &a.JournalID, &epoch, &lsn, &a.Session, &seen, &a.Version, &a.Alarm, &a.Address)
	a.Epoch, a.LSN, a.SeenAt = uint64(epoch), uint64(lsn), timeAt(seen)
	return a, err
}

// Agent finds an agent; ok is false when there is none of that name.
func (t *Tx) Agent(name string) (a Agent, ok bool, err error) {
	a, err = scanAgent(t.row(sqlAgent, name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Agent{}, false, nil
	}
	if err != nil {
		return Agent{}, false, fmt.Errorf("cannot read agent %s: %w", name, disk(err))
	}
	return a, true, nil
}

// Agents returns all agents by name.
func (t *Tx) Agents() ([]Agent, error) {
	var all []Agent
	err := t.each(func(r *sql.Rows) error {
		a, err := scanAgent(r.Scan)
		all = append(all, a)
		return err
	}, sqlAgents)
	if err != nil {
		return nil, fmt.Errorf("cannot read agents: %w", err)
	}
	return all, nil
}

// EnsureAgent makes the agent's row if it is missing.
func (t *Tx) EnsureAgent(name string) error {
	if _, err := t.exec(sqlAddAgent, name); err != nil {
		return fmt.Errorf("cannot add agent %s: %w", name, err)
	}
	return nil
}

// SaveAgent writes all but name, Rev and Floor.
func (t *Tx) SaveAgent(a Agent) error {
	_, err := t.exec(sqlSaveAgent, a.RevSeen, a.JournalID, int64(a.Epoch), int64(a.LSN), a.Session, nanos(a.SeenAt), a.Version, a.Alarm, a.Address, a.Name)
	if err != nil {
		return fmt.Errorf("cannot save agent %s: %w", a.Name, err)
	}
	return nil
}

// RaiseRev raises the revision of the agent's assignment and returns it.
func (t *Tx) RaiseRev(agent string) (rev int64, err error) {
	t.s.wrote = true
	if err := t.row(sqlRaiseAgent, agent).Scan(&rev); err != nil {
		return 0, fmt.Errorf("cannot raise revision of agent %s: %w", agent, disk(err))
	}
	return rev, nil
}

// SawAgent notes when the agent was last heard, and what it holds.
func (t *Tx) SawAgent(name string, at time.Time, rev int64) error {
	if _, err := t.exec(sqlSeenAgent, nanos(at), rev, name); err != nil {
		return fmt.Errorf("cannot note agent %s: %w", name, err)
	}
	return nil
}

// ReportedLSN notes how far the agent's journal has reported.
func (t *Tx) ReportedLSN(name string, lsn uint64, at time.Time) error {
	if _, err := t.exec(sqlLSNAgent, int64(lsn), nanos(at), name); err != nil {
		return fmt.Errorf("cannot note agent %s: %w", name, err)
	}
	return nil
}

// Counts says how much an agent has.
type Counts struct{ Nodes, Outstanding, Taken int }

// Counts returns the counts of every agent that has any.
func (t *Tx) Counts() (map[string]Counts, error) {
	all := map[string]Counts{}
	err := t.each(func(r *sql.Rows) error {
		var name string
		var c Counts
		err := r.Scan(&name, &c.Outstanding, &c.Taken)
		all[name] = c
		return err
	}, sqlCounts)
	if err != nil {
		return nil, fmt.Errorf("cannot count operations: %w", err)
	}
	err = t.each(func(r *sql.Rows) error {
		var name string
		var n int
		err := r.Scan(&name, &n)
		c := all[name]
		c.Nodes = n
		all[name] = c
		return err
	}, sqlNodeCounts)
	if err != nil {
		return nil, fmt.Errorf("cannot count nodes: %w", err)
	}
	return all, nil
}
