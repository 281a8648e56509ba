package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rackpower/central/api"
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
	Opening   string    // of the journal, as the agent named it in its latest hello
	Session   string    // of its latest hello; "": it has to say hello
	SeenAt    time.Time // zero: never
	Version   string
	Address   string    // gossip
	Run       string    // of the process that has the name; "": it has said goodbye, or is not known
	Peer      string    // where that process is
	HelloAt   time.Time // since when it has the name
	// SettingsRev is Rev when the rack's settings, or the limits of its power domains,
	// last changed.
	SettingsRev int64
	Restored    RestoreState
	// Drained says who wants it without nodes that other agents can reach.
	Drained  api.Drained
	settings string // api.RackSettings as JSON, "" for none
	state    string // api.RackState as JSON, "" while it said nothing
}

// Settings are what people set for the rack. Domains is empty: see DomainsOf.
func (a Agent) Settings() (s api.RackSettings, err error) {
	if a.settings != "" {
		err = json.Unmarshal([]byte(a.settings), &s)
	}
	return s, err
}

// State is the state of the rack's monitor, as the agent reported last; nil: it said
// nothing yet.
func (a Agent) State() (*api.RackState, error) {
	if a.state == "" {
		return nil, nil
	}
	s := new(api.RackState)
	return s, json.Unmarshal([]byte(a.state), s)
}

// Said reports whether s is what the agent said last of its rack.
func (a Agent) Said(s api.RackState) bool { return a.state == encode(s) }

const agentColumns = `name, rev, floor, rev_seen, journal_id, epoch, lsn, session, seen_at, version, address, settings_rev, settings, rack, opening, run, peer, hello_at,
	restored, drained`

const (
	sqlAgent    = `SELECT ` + agentColumns + ` FROM agents WHERE name = $1`
	sqlAgents   = `SELECT ` + agentColumns + ` FROM agents WHERE forgotten = 0 ORDER BY name`
	sqlAddAgent = `INSERT INTO agents (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET forgotten = 0
		WHERE agents.forgotten = 1 AND agents.name <> ''`
	sqlMayAdd = `SELECT EXISTS (SELECT 1 FROM agents WHERE name = $1 AND forgotten = 0) OR EXISTS (SELECT 1 FROM nodes WHERE agent = $1)
		OR (SELECT count(*) FROM agents WHERE forgotten = 0 AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.agent = agents.name)) < $2`
	sqlForgetAgent = `UPDATE agents SET forgotten = 1 WHERE name = $1`
	sqlSaveAgent   = `UPDATE agents SET rev_seen = $1, journal_id = $2, epoch = $3, lsn = $4, session = $5,
		seen_at = $6, version = $7, address = $8, opening = $9, run = $10, peer = $11, hello_at = $12 WHERE name = $13`
	sqlAgentLeft    = `UPDATE agents SET run = '' WHERE name = $1`
	sqlRaiseAgent   = `UPDATE agents SET rev = rev + 1 WHERE name = $1 RETURNING rev`
	sqlSeenAgent    = `UPDATE agents SET seen_at = max(seen_at, $1), rev_seen = $2 WHERE name = $3`
	sqlLSNAgent     = `UPDATE agents SET lsn = max(lsn, $1), seen_at = max(seen_at, $2) WHERE name = $3`
	sqlFloorAgent   = `UPDATE agents SET floor = max(floor, (SELECT coalesce(max(rev), 0) FROM removed WHERE removed.agent = agents.name AND at < $1))`
	sqlCounts       = `SELECT agent, count(*), count(*) FILTER (WHERE stage = 1) FROM ops WHERE stage < 4 GROUP BY agent`
	sqlSettings     = `UPDATE agents SET settings = $1, pause_until = $2, settings_rev = $3 WHERE name = $4`
	sqlTellRack     = `UPDATE agents SET settings_rev = $1 WHERE name = $2`
	sqlDrain        = `UPDATE agents SET drained = $1 WHERE name = $2`
	sqlRackState    = `UPDATE agents SET rack = $1 WHERE name = $2`
	sqlPausesOver   = `SELECT ` + agentColumns + ` FROM agents WHERE pause_until > 0 AND pause_until <= $1 ORDER BY name`
	sqlNodeCounts   = `SELECT agent, count(*) FROM nodes GROUP BY agent`
	sqlNodeCountsOf = `SELECT agent, count(*) FROM nodes WHERE agent IN (SELECT value FROM json_each($1)) GROUP BY agent`
)

func scanAgent(scan func(...any) error) (a Agent, err error) {
	var epoch, lsn, seen, hello int64
	var drained string
	err = scan(&a.Name, &a.Rev, &a.Floor, &a.RevSeen, &a.JournalID, &epoch, &lsn, &a.Session, &seen, &a.Version, &a.Address,
		&a.SettingsRev, &a.settings, &a.state, &a.Opening, &a.Run, &a.Peer, &hello, &a.Restored, &drained)
	a.Epoch, a.LSN, a.SeenAt, a.HelloAt = uint64(epoch), uint64(lsn), timeAt(seen), timeAt(hello)
	if err == nil && drained != "" {
		err = json.Unmarshal([]byte(drained), &a.Drained)
	}
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
func (t *Tx) Agents() ([]Agent, error) { return t.agents(sqlAgents) }

func (t *Tx) agents(query string, args ...any) ([]Agent, error) {
	var all []Agent
	err := t.each(func(r *sql.Rows) error {
		a, err := scanAgent(r.Scan)
		all = append(all, a)
		return err
	}, query, args...)
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

// MayAddAgent reports whether the agent is known already or has nodes, or there are fewer
// than most agents without any.
func (t *Tx) MayAddAgent(name string, most int) (may bool, err error) {
	if err := t.row(sqlMayAdd, name, most).Scan(&may); err != nil {
		return false, fmt.Errorf("cannot count agents: %w", disk(err))
	}
	return may, nil
}

// ForgetAgent leaves an agent out of Agents until EnsureAgent. What refers to its row, the
// history of operations among it, stays.
func (t *Tx) ForgetAgent(name string) error {
	if _, err := t.exec(sqlForgetAgent, name); err != nil {
		return fmt.Errorf("cannot forget agent %s: %w", name, err)
	}
	return nil
}

// SaveAgent writes all but name, Rev and Floor.
func (t *Tx) SaveAgent(a Agent) error {
	_, err := t.exec(sqlSaveAgent, a.RevSeen, a.JournalID, int64(a.Epoch), int64(a.LSN), a.Session, nanos(a.SeenAt), a.Version, a.Address,
		a.Opening, a.Run, a.Peer, nanos(a.HelloAt), a.Name)
	if err != nil {
		return fmt.Errorf("cannot save agent %s: %w", a.Name, err)
	}
	return nil
}

// AgentLeft notes that the process that had the agent's name has ended.
func (t *Tx) AgentLeft(name string) error {
	if _, err := t.exec(sqlAgentLeft, name); err != nil {
		return fmt.Errorf("cannot note the end of agent %s: %w", name, err)
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

// SaveSettings stores the settings of a rack, as of the revision rev of what is
// assigned to its agent. Domains are not looked at.
func (t *Tx) SaveSettings(agent string, s api.RackSettings, rev int64) error {
	s.Domains = nil
	var until int64
	if s.Pause != nil {
		until = nanos(s.Pause.Until)
	}
	if _, err := t.exec(sqlSettings, encode(s), until, rev, agent); err != nil {
		return fmt.Errorf("cannot save settings of rack %s: %w", agent, err)
	}
	return nil
}

// Drain notes who wants the agent without nodes that others can reach; nobody: the zero value.
func (t *Tx) Drain(agent string, d api.Drained) error {
	text := ""
	if d.On() {
		text = encode(d)
	}
	if _, err := t.exec(sqlDrain, text, agent); err != nil {
		return fmt.Errorf("cannot note that agent %s is drained: %w", agent, err)
	}
	return nil
}

// TellRack has the agent told its rack's settings with the revision rev.
func (t *Tx) TellRack(agent string, rev int64) error {
	if _, err := t.exec(sqlTellRack, rev, agent); err != nil {
		return fmt.Errorf("cannot note settings of rack %s: %w", agent, err)
	}
	return nil
}

// SaveRackState stores the state of a rack's monitor.
func (t *Tx) SaveRackState(agent string, s api.RackState) error {
	if _, err := t.exec(sqlRackState, encode(s), agent); err != nil {
		return fmt.Errorf("cannot save state of rack %s: %w", agent, err)
	}
	return nil
}

// PausesOver returns the agents whose pause ended by itself at or before the time.
func (t *Tx) PausesOver(at time.Time) ([]Agent, error) { return t.agents(sqlPausesOver, nanos(at)) }

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

// NodeCounts returns how many nodes the agents have, those of them that have any.
func (t *Tx) NodeCounts(agents []string) (map[string]int, error) {
	return t.countsBy("nodes", sqlNodeCountsOf, list(agents))
}

// countsBy reads rows of a name and a count.
func (t *Tx) countsBy(what, query string, args ...any) (map[string]int, error) {
	all := map[string]int{}
	err := t.each(func(r *sql.Rows) error {
		var name string
		var n int
		err := r.Scan(&name, &n)
		all[name] = n
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot count %s: %w", what, err)
	}
	return all, nil
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
