package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// Node is a row of nodes.
type Node struct {
	Name, Rack, Agent string
	BMC               string // as power.ParseEndpoint reads it; "" for none
	Password          power.Secret
	Domain            string
	Status            power.Status
	Confirmed         bool  // the latest change of status was confirmed by a person
	Rev               int64 // the agent's revision of the row's latest change
	power.Reading
}

const nodeColumns = `name, rack, agent, bmc, password, domain, status, confirmed, rev, state, reach, observed_at, tried_at`

const (
	sqlNode      = `SELECT ` + nodeColumns + ` FROM nodes WHERE name = $1`
	sqlNodes     = `SELECT ` + nodeColumns + ` FROM nodes ORDER BY name`
	sqlNodesOf   = `SELECT ` + nodeColumns + ` FROM nodes WHERE agent = $1 AND rev > $2 ORDER BY name`
	sqlNodesIn   = `SELECT ` + nodeColumns + ` FROM nodes WHERE name IN (SELECT value FROM json_each($1)) ORDER BY name`
	sqlNodeCount = `SELECT count(*) FROM nodes`
	sqlAddNode   = `INSERT INTO nodes (name, rack, agent, bmc, password, domain, status, confirmed, rev)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (name) DO UPDATE SET rack = excluded.rack, agent = excluded.agent, bmc = excluded.bmc, password = excluded.password,
		domain = excluded.domain, status = excluded.status, confirmed = excluded.confirmed, rev = excluded.rev`
	sqlDelNode   = `DELETE FROM nodes WHERE name = $1`
	sqlEntomb    = `INSERT INTO removed (agent, name, rev, at) VALUES ($1, $2, $3, $4) ON CONFLICT (agent, name) DO UPDATE SET rev = excluded.rev, at = excluded.at`
	sqlExhume    = `DELETE FROM removed WHERE agent = $1 AND name = $2`
	sqlRemovedOf = `SELECT name FROM removed WHERE agent = $1 AND rev > $2 ORDER BY name`
	sqlReading   = `UPDATE nodes SET state = $1, reach = $2, observed_at = $3, tried_at = $4 WHERE name = $5 AND agent = $6 AND (tried_at < $4 OR tried_at > $7)`
)

func scanNode(scan func(...any) error) (n Node, err error) {
	var observed, tried int64
	err = scan(&n.Name, &n.Rack, &n.Agent, &n.BMC, (*string)(&n.Password), &n.Domain, &n.Status, &n.Confirmed, &n.Rev,
		&n.State, &n.Reach, &observed, &tried)
	n.ObservedAt, n.TriedAt = timeAt(observed), timeAt(tried)
	return n, err
}

func (t *Tx) nodes(query string, args ...any) ([]Node, error) {
	var all []Node
	err := t.each(func(r *sql.Rows) error {
		n, err := scanNode(r.Scan)
		all = append(all, n)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read nodes: %w", err)
	}
	return all, nil
}

// Node finds a node; ok is false when there is none of that name.
func (t *Tx) Node(name string) (n Node, ok bool, err error) {
	n, err = scanNode(t.row(sqlNode, name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Node{}, false, nil
	}
	if err != nil {
		return Node{}, false, fmt.Errorf("cannot read node %s: %w", name, disk(err))
	}
	return n, true, nil
}

// Nodes returns all nodes by name.
func (t *Tx) Nodes() ([]Node, error) { return t.nodes(sqlNodes) }

// NodesNamed returns those of the names that exist, by name.
func (t *Tx) NodesNamed(names []string) ([]Node, error) {
	return t.nodes(sqlNodesIn, list(names))
}

// NodesSince returns the agent's nodes that changed after rev; 0: all of them.
func (t *Tx) NodesSince(agent string, rev int64) ([]Node, error) {
	return t.nodes(sqlNodesOf, agent, rev)
}

// RemovedSince returns the names of nodes that ceased to be the agent's after rev.
func (t *Tx) RemovedSince(agent string, rev int64) ([]string, error) {
	var names []string
	err := t.each(func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, sqlRemovedOf, agent, rev)
	if err != nil {
		return nil, fmt.Errorf("cannot read removed nodes: %w", err)
	}
	return names, nil
}

// CountNodes returns how many nodes there are.
func (t *Tx) CountNodes() (n int, err error) {
	if err := t.row(sqlNodeCount).Scan(&n); err != nil {
		return 0, fmt.Errorf("cannot count nodes: %w", disk(err))
	}
	return n, nil
}

// PutNode adds a node or replaces what people said of it; its reading stays.
func (t *Tx) PutNode(n Node) error {
	_, err := t.exec(sqlAddNode, n.Name, n.Rack, n.Agent, n.BMC, string(n.Password), n.Domain, string(n.Status), n.Confirmed, n.Rev)
	if err == nil {
		_, err = t.exec(sqlExhume, n.Agent, n.Name)
	}
	if err != nil {
		return fmt.Errorf("cannot save node %s: %w", n.Name, err)
	}
	return nil
}

// Entomb notes that the agent must forget the node, as of rev.
func (t *Tx) Entomb(agent, node string, rev int64, at time.Time) error {
	if _, err := t.exec(sqlEntomb, agent, node, rev, nanos(at)); err != nil {
		return fmt.Errorf("cannot note removal of node %s: %w", node, err)
	}
	return nil
}

// DeleteNode removes a node. Its operations and its audit trail stay.
func (t *Tx) DeleteNode(name string) error {
	if _, err := t.exec(sqlDelNode, name); err != nil {
		return fmt.Errorf("cannot remove node %s: %w", name, err)
	}
	return nil
}

// Observe stores readings of nodes of the agent, each if it is newer than what is
// stored, or if that lies in the future, since the clock was set back. Others are
// ignored.
func (t *Tx) Observe(agent string, readings []api.NodeReading, now time.Time) error {
	for _, r := range readings {
		_, err := t.exec(sqlReading, string(r.State), string(r.Reach), nanos(r.ObservedAt), nanos(r.TriedAt), r.Node, agent, nanos(now))
		if err != nil {
			return fmt.Errorf("cannot save reading of node %s: %w", r.Node, err)
		}
	}
	return nil
}

// list is a parameter for json_each.
func list(names []string) string {
	if names == nil {
		return "[]"
	}
	text, err := json.Marshal(names)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return string(text)
}
