package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rackpower/power"
)

// BMCIdentity says which BMC a node has. Central fills it in; PutNode stores it.
type BMCIdentity struct {
	// KG is the BMC's key K_g, as power.ParseKG reads it; "" for none.
	KG power.Secret
	// Part is power.Endpoint.Part of the node's BMC, "" for none.
	Part string
	// Addr is the address that the host's name stands for, as the node's agent said
	// last; "" where the host is an address, or not looked up yet.
	Addr string
	// At is Part with Addr in place of the name.
	At string
	// Shared names the other nodes that have the same Part or At. Nothing acts on a
	// node that has one.
	Shared string
	// Credentials names those that count where the node has no password; "" for none.
	Credentials string
	// Took is since when the new credentials are being tried that its BMC took.
	Took time.Time
}

const (
	bmcColumns = `kg, bmc_part, bmc_addr, bmc_at, bmc_shared, credentials, took`

	sqlBMCsOf = `SELECT ` + nodeColumns + ` FROM nodes WHERE name IN (
		SELECT name FROM (SELECT name FROM nodes WHERE bmc_part <> '' AND bmc_part IN ($1, $2, $3) ORDER BY name LIMIT $4) AS same
		UNION SELECT name FROM (SELECT name FROM nodes WHERE bmc_part <> '' AND bmc_part > $5 AND bmc_part < $6 ORDER BY name LIMIT $4) AS same
		UNION SELECT name FROM (SELECT name FROM nodes WHERE bmc_at <> '' AND bmc_at IN ($7, $8, $9) ORDER BY name LIMIT $4) AS same
		UNION SELECT name FROM (SELECT name FROM nodes WHERE bmc_at <> '' AND bmc_at > $10 AND bmc_at < $11 ORDER BY name LIMIT $4) AS same
		) ORDER BY name`
	sqlAnyAtBMC = `SELECT EXISTS (SELECT 1 FROM nodes WHERE bmc_part <> '' AND bmc_part IN ($1, $2, $3))
		OR EXISTS (SELECT 1 FROM nodes WHERE bmc_part <> '' AND bmc_part > $4 AND bmc_part < $5)
		OR EXISTS (SELECT 1 FROM nodes WHERE bmc_at <> '' AND bmc_at IN ($6, $7, $8))
		OR EXISTS (SELECT 1 FROM nodes WHERE bmc_at <> '' AND bmc_at > $9 AND bmc_at < $10)`
	sqlUnnamed = `SELECT ` + nodeColumns + ` FROM nodes WHERE bmc <> '' AND bmc_part = '' ORDER BY name`
	sqlSharers = `SELECT ` + nodeColumns + ` FROM nodes WHERE agent = $1 AND bmc_shared <> '' ORDER BY name`
	sqlAddrIs  = `SELECT count(*) FROM nodes WHERE name = $1 AND bmc_addr = $2`
)

func (n *Node) bmcFields() []any {
	return []any{(*string)(&n.KG), &n.Part, &n.Addr, &n.At, &n.Shared, &n.Credentials, (*nanoTime)(&n.Took)}
}

// NodesAtBMC returns nodes with that part of a BMC, or with one that may be the same by
// another address, by its name or by its address: the first of each, up to a limit.
func (t *Tx) NodesAtBMC(part, at string, limit int) ([]Node, error) {
	p1, p2, over, under := overlap(part)
	a1, a2, atOver, atUnder := overlap(at)
	var some bool // as there are nearly never
	err := t.row(sqlAnyAtBMC, part, p1, p2, over, under, at, a1, a2, atOver, atUnder).Scan(&some)
	if err != nil {
		return nil, fmt.Errorf("cannot read nodes: %w", disk(err))
	}
	if !some {
		return nil, nil
	}
	return t.nodes(sqlBMCsOf, part, p1, p2, limit, over, under, at, a1, a2, atOver, atUnder)
}

// overlap is power.Overlap for a query: two parts, and the ends of a range of them.
func overlap(part string) (one, two, over, under string) {
	exact, over := power.Overlap(part)
	exact = append(exact, part, part)
	if over != "" {
		under = over[:len(over)-1] + "0" // what follows "/"
	}
	return exact[0], exact[1], over, under
}

// NodesWithoutIdentity returns the nodes that have a BMC of which it is not known which
// one it is: those of a database of before.
func (t *Tx) NodesWithoutIdentity() ([]Node, error) { return t.nodes(sqlUnnamed) }

// NodesSharing returns the agent's nodes whose BMC another node has as well.
func (t *Tx) NodesSharing(agent string) ([]Node, error) { return t.nodes(sqlSharers, agent) }

// NodeNames returns the names of all nodes.
func (t *Tx) NodeNames() ([]string, error) { return t.names(`SELECT name FROM nodes`) }

// AgentNames returns the names of all agents.
func (t *Tx) AgentNames() ([]string, error) { return t.names(`SELECT name FROM agents`) }

// DomainNames returns the names of all power domains, with and without a limit of
// their own.
func (t *Tx) DomainNames() ([]string, error) {
	return t.names(`SELECT DISTINCT domain FROM nodes WHERE domain <> '' UNION SELECT name FROM domains`)
}

func (t *Tx) names(query string, args ...any) (names []string, err error) {
	err = t.each(func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read names: %w", err)
	}
	return names, nil
}

// KnowsAddr reports whether the BMC of the node is known to be at the address.
func (t *Tx) KnowsAddr(node, addr string) (bool, error) {
	var n int
	if err := t.row(sqlAddrIs, node, addr).Scan(&n); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("cannot read address of node %s: %w", node, disk(err))
	}
	return n > 0, nil
}

// nanoTime scans a time.
type nanoTime time.Time

// Scan implements sql.Scanner.
func (t *nanoTime) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("%T is no time", v)
	}
	*t = nanoTime(timeAt(n))
	return nil
}
