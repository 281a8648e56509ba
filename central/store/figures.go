package store

import (
	"database/sql"
	"fmt"
	"time"

	"rackpower/power"
)

const (
	sqlNodeFigures = `SELECT agent, state, reach, count(*), sum(drifting), sum(fault <> ''), sum(breaker_open),
		sum(hold_want <> '' AND (hold_until = 0 OR hold_until > $1)), sum(observed_at < $2) FROM nodes GROUP BY agent, state, reach`
	sqlOpFigures = `SELECT action, phase, count(*), min(asked_at) FROM ops WHERE stage < 4 GROUP BY action, phase`
)

// NodeFigures counts nodes of an agent that were read alike.
type NodeFigures struct {
	Agent string
	State power.State
	Reach power.Reach

	Nodes, Drifting, InFault, BreakerOpen, Held, Stale int
}

// NodeFigures counts all nodes.
func (t *Tx) NodeFigures(now time.Time) ([]NodeFigures, error) {
	var all []NodeFigures
	err := t.each(func(r *sql.Rows) error {
		var f NodeFigures
		err := r.Scan(&f.Agent, &f.State, &f.Reach, &f.Nodes, &f.Drifting, &f.InFault, &f.BreakerOpen, &f.Held, &f.Stale)
		all = append(all, f)
		return err
	}, sqlNodeFigures, nanos(now), nanos(now.Add(-power.DefaultStale)))
	if err != nil {
		return nil, fmt.Errorf("cannot count nodes: %w", err)
	}
	return all, nil
}

// OpFigures counts outstanding operations that are alike.
type OpFigures struct {
	Action power.Action
	Phase  string
	Ops    int
	Oldest time.Time // when the first of them was asked for
}

// OpFigures counts all outstanding operations.
func (t *Tx) OpFigures() ([]OpFigures, error) {
	var all []OpFigures
	err := t.each(func(r *sql.Rows) error {
		var f OpFigures
		var oldest int64
		err := r.Scan(&f.Action, &f.Phase, &f.Ops, &oldest)
		f.Oldest = timeAt(oldest)
		all = append(all, f)
		return err
	}, sqlOpFigures)
	if err != nil {
		return nil, fmt.Errorf("cannot count operations: %w", err)
	}
	return all, nil
}
