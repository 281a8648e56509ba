package store

import (
	"database/sql"
	"fmt"
	"time"
)

// Leaving is a node, or a BMC that a node had, which an agent was told to let go of and
// has not confirmed to have.
type Leaving struct {
	Agent, Node string
	Part, At    string // of the BMC, as in BMCIdentity
	Rev         int64  // of the agent's assignment that takes it away
	Since       time.Time
	Forced      string // who said that the agent is dead; "": it is waited for
	// Leased says that the agent acts on it under a lease only: it is waited for until that
	// has run out.
	Leased bool
}

const (
	leavingColumns = `agent, node, part, at, rev, since, forced, leased`

	sqlAddLeaving = `INSERT INTO leaving (` + leavingColumns + `) VALUES ($1, $2, $3, $4, $5, $6, '', $7)
		ON CONFLICT (agent, node, part) DO UPDATE SET at = excluded.at, rev = excluded.rev, forced = '', leased = excluded.leased`
	sqlDropLeaving = `DELETE FROM leaving WHERE agent = $1 AND node = $2 AND part = $3`
	sqlLeaving     = `SELECT ` + leavingColumns + ` FROM leaving WHERE agent = $1 ORDER BY node, part`
	sqlAllLeaving  = `SELECT ` + leavingColumns + ` FROM leaving ORDER BY agent, node, part`
	sqlLeased      = `SELECT ` + leavingColumns + ` FROM leaving WHERE leased = 1 AND forced = '' ORDER BY agent, node, part`
	sqlHolders     = `SELECT ` + leavingColumns + ` FROM leaving WHERE agent <> $1 AND forced = '' AND
		(node = $2 OR part <> '' AND (part IN ($3, $4, $5) OR part > $6 AND part < $7 OR at IN ($8, $9, $10) OR at > $11 AND at < $12))
		ORDER BY agent, node, part`
	sqlAnyLeaving   = `SELECT EXISTS (SELECT 1 FROM leaving)`
	sqlForceLeaving = `UPDATE leaving SET forced = $1 WHERE agent = $2 AND node = $3 AND part = $4`
	sqlNodesWaiting = `SELECT ` + nodeColumns + ` FROM nodes WHERE waits_for <> '' ORDER BY name`
	sqlRequeueOps   = `UPDATE ops SET cursor = $1 WHERE node = $2 AND agent = $3 AND stage = 1 AND delivered = 0`
	sqlMoveOps      = `UPDATE ops SET agent = $1 WHERE node = $2 AND agent = $3 AND stage = 1 AND delivered = 0`
)

func (t *Tx) leaving(query string, args ...any) ([]Leaving, error) {
	var all []Leaving
	err := t.each(func(r *sql.Rows) error {
		var l Leaving
		var since int64
		err := r.Scan(&l.Agent, &l.Node, &l.Part, &l.At, &l.Rev, &since, &l.Forced, &l.Leased)
		l.Since = timeAt(since)
		all = append(all, l)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read what agents have to let go of: %w", err)
	}
	return all, nil
}

// AddLeaving notes that an agent has to let go of something.
func (t *Tx) AddLeaving(l Leaving) error {
	if _, err := t.exec(sqlAddLeaving, l.Agent, l.Node, l.Part, l.At, l.Rev, nanos(l.Since), l.Leased); err != nil {
		return fmt.Errorf("cannot note that agent %s has to let go of node %s: %w", l.Agent, l.Node, err)
	}
	return nil
}

// DropLeaving notes that the agent has let go, or has the node again.
func (t *Tx) DropLeaving(agent, node, part string) error {
	if _, err := t.exec(sqlDropLeaving, agent, node, part); err != nil {
		return fmt.Errorf("cannot note that agent %s let go of node %s: %w", agent, node, err)
	}
	return nil
}

// ForceLeaving notes that nobody waits any more until the agent has let go.
func (t *Tx) ForceLeaving(l Leaving, by string) error {
	if _, err := t.exec(sqlForceLeaving, by, l.Agent, l.Node, l.Part); err != nil {
		return fmt.Errorf("cannot note that agent %s is not waited for: %w", l.Agent, err)
	}
	return nil
}

// LeavingOf returns what the agent has to let go of, what is forced included.
func (t *Tx) LeavingOf(agent string) ([]Leaving, error) { return t.leaving(sqlLeaving, agent) }

// AllLeaving returns what all agents have to let go of.
func (t *Tx) AllLeaving() ([]Leaving, error) { return t.leaving(sqlAllLeaving) }

// Leased returns what agents have to let go of that is free once their leases have run out.
func (t *Tx) Leased() ([]Leaving, error) { return t.leaving(sqlLeased) }

// Holders returns what other agents than the node's own have to let go of before that
// one may act: the node by its name, or its BMC, by whatever protocol.
func (t *Tx) Holders(n Node) ([]Leaving, error) {
	p1, p2, over, under := overlap(n.Part)
	a1, a2, atOver, atUnder := overlap(n.At)
	return t.leaving(sqlHolders, n.Agent, n.Name, n.Part, p1, p2, over, under, n.At, a1, a2, atOver, atUnder)
}

// AnyLeaving reports whether any agent has to let go of anything.
func (t *Tx) AnyLeaving() (some bool, err error) {
	if err := t.row(sqlAnyLeaving).Scan(&some); err != nil {
		return false, fmt.Errorf("cannot read what agents have to let go of: %w", disk(err))
	}
	return some, nil
}

// NodesWaiting returns the nodes that some agent has to let go of.
func (t *Tx) NodesWaiting() ([]Node, error) { return t.nodes(sqlNodesWaiting) }

// RequeueOps has the requests that have not left for the node's agent delivered again, and
// MoveOps gives them to another agent.
func (t *Tx) RequeueOps(node, agent string, cursor int64) error {
	if _, err := t.exec(sqlRequeueOps, cursor, node, agent); err != nil {
		return fmt.Errorf("cannot have operations of node %s delivered: %w", node, err)
	}
	return nil
}

// MoveOps gives requests that have not left for the node's agent to another one.
func (t *Tx) MoveOps(node, from, to string) error {
	t.touched(node)
	if _, err := t.exec(sqlMoveOps, to, node, from); err != nil {
		return fmt.Errorf("cannot move operations of node %s: %w", node, err)
	}
	return nil
}
