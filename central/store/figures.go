package store

import (
	"database/sql"
	"fmt"
	"time"

	"rackpower/power"
)

const (
	sqlNodeFigures = `SELECT agent, state, reach, count(*), sum(drifting), count(*) FILTER (WHERE fault <> ''), sum(breaker_open),
		count(*) FILTER (WHERE hold_want <> '' AND (hold_until = 0 OR hold_until > $1)), count(*) FILTER (WHERE observed_at < $2)
		FROM nodes GROUP BY agent, state, reach`
	sqlAwaitingFigures = `SELECT count(*), coalesce(min(asked_at), 0) FROM plans WHERE state = 'awaiting'`
	sqlOpFigures       = `SELECT action, stage, count(*), min(asked_at) FROM ops WHERE stage < 4 GROUP BY action, stage`
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
	Stage  Stage
	Ops    int
	Oldest time.Time // when the first of them was asked for
}

// OpFigures counts all outstanding operations.
func (t *Tx) OpFigures() ([]OpFigures, error) {
	var all []OpFigures
	err := t.each(func(r *sql.Rows) error {
		var f OpFigures
		var oldest int64
		err := r.Scan(&f.Action, &f.Stage, &f.Ops, &oldest)
		f.Oldest = timeAt(oldest)
		all = append(all, f)
		return err
	}, sqlOpFigures)
	if err != nil {
		return nil, fmt.Errorf("cannot count operations: %w", err)
	}
	return all, nil
}

// AwaitingFigures counts the plans that await an approval, and says when the first was asked for.
func (t *Tx) AwaitingFigures() (n int, oldest time.Time, err error) {
	var at int64
	if err := t.row(sqlAwaitingFigures).Scan(&n, &at); err != nil {
		return 0, oldest, fmt.Errorf("cannot count plans: %w", disk(err))
	}
	return n, timeAt(at), nil
}

// DiskFigures is how much room the database takes, and how much its file system has, in bytes;
// Free is -1 where that is not known.
type DiskFigures struct{ Database, WAL, Free int64 }

// DiskFigures asks the engine.
func (s *Store) DiskFigures() (DiskFigures, error) { return s.engine.figures() }

// Waiting is how many jobs wait for the writer.
func (s *Store) Waiting() int { return len(s.jobs) }
