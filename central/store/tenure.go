package store

import (
	"fmt"
	"time"
)

// Tenure is which agents can reach a node, and how the present one got it.
type Tenure struct {
	// Agents are those that can reach the node, in the order of preference, separated by commas;
	// "": as its rack says.
	Agents string
	// Epoch names the lease under which the node's agent has it: it grows with each agent that
	// is given a node. 0: only one can reach it, which needs no lease.
	Epoch int64
	Had   Had
}

// Had says how the node's agent got it.
type Had struct {
	// Rev is the agent's revision that told it of the epoch: before it holds that, it may not
	// know that it needs a lease.
	Rev   int64     `json:"rev,omitempty"`
	Since time.Time `json:"since,omitzero"`
	From  string    `json:"from,omitempty"` // the agent that had it before
	Why   string    `json:"why,omitempty"`
}

func (h Had) text() string {
	if h == (Had{}) {
		return ""
	}
	return encode(h)
}

const (
	sqlNextEpoch  = `UPDATE meta SET epoch = epoch + 1 RETURNING epoch`
	sqlRaiseEpoch = `UPDATE meta SET epoch = $1 WHERE epoch < $1`
	sqlLeasedAt   = `SELECT ` + nodeColumns + ` FROM nodes WHERE epoch > 0 AND agent IN (SELECT value FROM json_each($1)) ORDER BY name`
	sqlAllLeased  = `SELECT ` + nodeColumns + ` FROM nodes WHERE epoch > 0 ORDER BY name`
	sqlAnyLeased  = `SELECT EXISTS (SELECT 1 FROM nodes WHERE epoch > 0)`
	sqlLeaseCount = `SELECT agent, count(*) FROM nodes WHERE epoch > 0 GROUP BY agent`
	sqlAsRack     = `SELECT ` + nodeColumns + ` FROM nodes WHERE lower(rack) = lower($1) AND rack = $1 AND agents = '' ORDER BY name`
	sqlHandOp     = `UPDATE ops SET agent = $1, cursor = $2, handed = $3 WHERE id = $4`
)

// NextEpoch gives the next epoch.
func (t *Tx) NextEpoch() (epoch int64, err error) {
	t.s.wrote = true
	if err := t.row(sqlNextEpoch).Scan(&epoch); err != nil {
		return 0, fmt.Errorf("cannot raise the epoch of leases: %w", disk(err))
	}
	return epoch, nil
}

// RaiseEpoch has epochs go on behind one that is known: the database may be an older one.
func (t *Tx) RaiseEpoch(known int64) error {
	if _, err := t.exec(sqlRaiseEpoch, known); err != nil {
		return fmt.Errorf("cannot raise the epoch of leases: %w", err)
	}
	return nil
}

// LeasedAt returns the nodes that the agents have under a lease, and AllLeased those of all.
func (t *Tx) LeasedAt(agents []string) ([]Node, error) { return t.nodes(sqlLeasedAt, list(agents)) }

// AllLeased returns the nodes that agents have under a lease.
func (t *Tx) AllLeased() ([]Node, error) { return t.nodes(sqlAllLeased) }

// AnyLeased reports whether there are any.
func (t *Tx) AnyLeased() (some bool, err error) {
	if err := t.row(sqlAnyLeased).Scan(&some); err != nil {
		return false, fmt.Errorf("cannot count leases: %w", disk(err))
	}
	return some, nil
}

// LeaseCounts returns how many nodes each agent has under a lease.
func (t *Tx) LeaseCounts() (map[string]int, error) {
	return t.countsBy("leases", sqlLeaseCount)
}

// NodesAsRack returns the nodes of a rack that name no agents of their own.
func (t *Tx) NodesAsRack(rack string) ([]Node, error) { return t.nodes(sqlAsRack, rack) }

// HandOp gives an operation that has not ended to another agent, which finds it behind the
// cursor. What the one before said of it is forgotten.
func (t *Tx) HandOp(o *Op, to string, cursor int64) error {
	if _, err := t.exec(sqlHandOp, to, cursor, o.Rack, o.ID); err != nil {
		return fmt.Errorf("cannot hand operation %s over: %w", o.ID, err)
	}
	o.Handed, o.Rack, o.Cursor = o.Rack, to, cursor
	return t.SaveOp(o)
}
