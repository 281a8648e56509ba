package store

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// Stage is the part of a phase that is compared and indexed. The numbers are in
// the database.
type Stage int

// The stages.
const (
	StageTaken   Stage = 1
	StageWaiting Stage = 2
	StageRunning Stage = 3
	StageEnded   Stage = 4
)

// String is the stage in a word.
func (s Stage) String() string {
	switch s {
	case StageTaken:
		return "taken"
	case StageWaiting:
		return "accepted"
	case StageRunning:
		return "running"
	default:
		return "ended"
	}
}

// StageOf reads a phase; the text behind a colon is for people.
func StageOf(phase string) Stage {
	word, _, _ := strings.Cut(phase, ":")
	switch word {
	case api.PhaseTaken:
		return StageTaken
	case api.PhaseRunning:
		return StageRunning
	case api.PhaseEnded:
		return StageEnded
	default:
		return StageWaiting
	}
}

// Op is a row of ops. Its Rack is the agent's name.
type Op struct {
	api.Op
	// Cursor is the revision at which central took the op, 0 for one that entered
	// at the rack: deliveries go by it.
	Cursor int64
	// Delivered is set before the op leaves for its agent the first time. From
	// then on only the agent's report ends it, or takes it back: that it did not arrive.
	Delivered bool
	JournalID string // where LSN counts
	LSN       uint64 // of the record that the newest report is based on
	// CancelReason and CancelCursor go with CancelBy.
	CancelReason string
	CancelCursor int64
	// Handed names the agent that had it before the present one and may have begun with it.
	Handed string
}

// Stage is the stage of the op's phase.
func (o *Op) Stage() Stage { return StageOf(o.Phase) }

// opColumn is a column of ops with the field of an operation that it holds.
type opColumn struct {
	name string
	// asked: it is what was asked, which SaveOp leaves as it is.
	asked bool
	field func(*Op) any // pointer to it, to scan into and to store from
}

// opTable is all that is stored of an operation, beside its stage, which follows from the
// phase. SELECT, INSERT, UPDATE and Scan are made of it.
var opTable = []opColumn{
	{"id", true, func(o *Op) any { return &o.ID }},
	{"seq", true, func(o *Op) any { return (*storedUint)(&o.Seq) }},
	{"node", true, func(o *Op) any { return &o.Node }},
	{"agent", true, func(o *Op) any { return &o.Rack }},
	{"action", true, func(o *Op) any { return &o.Action }},
	{"asked_by", true, func(o *Op) any { return &o.AskedBy }},
	{"origin", true, func(o *Op) any { return &o.Origin }},
	{"reason", true, func(o *Op) any { return &o.Reason }},
	{"asked_at", true, func(o *Op) any { return (*storedTime)(&o.AskedAt) }},
	{"deadline", true, func(o *Op) any { return (*storedTime)(&o.Deadline) }},
	{"if_busy", true, func(o *Op) any { return &o.IfBusy }},
	{"boot", true, func(o *Op) any { return &o.Boot }},
	{"grace", true, func(o *Op) any { return (*int64)(&o.Grace) }},
	{"limit_watts", true, func(o *Op) any { return &o.Limit }},
	{"no_escalate", true, func(o *Op) any { return &o.NoEscalate }},
	{"confirmed", true, func(o *Op) any { return &o.Confirmed }},
	{"cursor", true, func(o *Op) any { return &o.Cursor }},
	{"handed", true, func(o *Op) any { return &o.Handed }},
	{"phase", false, func(o *Op) any { return &o.Phase }},
	{"delivered", false, func(o *Op) any { return &o.Delivered }},
	{"verdict", false, func(o *Op) any { return &o.Verdict }},
	{"why", false, func(o *Op) any { return &o.Why }},
	{"message", false, func(o *Op) any { return &o.Message }},
	{"started_at", false, func(o *Op) any { return optionalTime{&o.StartedAt} }},
	{"ended_at", false, func(o *Op) any { return optionalTime{&o.EndedAt} }},
	{"outcome", false, func(o *Op) any { return &o.Outcome }},
	{"detail", false, func(o *Op) any { return &o.Detail }},
	{"already", false, func(o *Op) any { return &o.Already }},
	{"superseded_by", false, func(o *Op) any { return &o.SupersededBy }},
	{"joined", false, func(o *Op) any { return &o.Joined }},
	{"attempts", false, func(o *Op) any { return &o.Attempts }},
	{"state", false, func(o *Op) any { return &o.State }},
	{"journal_id", false, func(o *Op) any { return &o.JournalID }},
	{"lsn", false, func(o *Op) any { return (*storedUint)(&o.LSN) }},
	{"cancel_by", false, func(o *Op) any { return &o.CancelBy }},
	{"cancel_reason", false, func(o *Op) any { return &o.CancelReason }},
	{"cancel_cursor", false, func(o *Op) any { return &o.CancelCursor }},
	{"rev", false, func(o *Op) any { return &o.Rev }},
}

// fields lists the fields of the operation in the order of the columns; those that SaveOp
// stores, or all.
func (o *Op) fields(all bool) []any {
	fields := make([]any, 0, len(opTable)+2) // SQL statements have up to 2 more
	for _, c := range opTable {
		if all || !c.asked {
			fields = append(fields, c.field(o))
		}
	}
	return fields
}

var (
	opColumns = opNames()
	sqlSaveOp = updateOp()
)

// opNames lists the names of the columns.
func opNames() string {
	names := make([]string, len(opTable))
	for i, c := range opTable {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// parameters are $1 to $n.
func parameters(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("$%d", i+1)
	}
	return strings.Join(all, ", ")
}

func updateOp() string {
	var set []string
	for _, c := range opTable {
		if !c.asked {
			set = append(set, fmt.Sprintf("%s = $%d", c.name, len(set)+1))
		}
	}
	return fmt.Sprintf("UPDATE ops SET %s, stage = $%d WHERE id = $%d", strings.Join(set, ", "), len(set)+1, len(set)+2)
}

var (
	sqlOpsNamed = `SELECT ` + opColumns + ` FROM ops WHERE id IN (SELECT value FROM json_each($1))`
	sqlOp       = `SELECT ` + opColumns + ` FROM ops WHERE id = $1`
	sqlDeliver  = `SELECT ` + opColumns + ` FROM ops WHERE agent = $1 AND stage = 1 AND stage < 4 AND cursor > $2
		AND node NOT IN (SELECT name FROM nodes WHERE waits_for <> '') ORDER BY cursor LIMIT $3`
	sqlOpenOf = `SELECT ` + opColumns + ` FROM ops WHERE agent = $1 AND stage < 4 ORDER BY seq`
	sqlOpen   = `SELECT ` + opColumns + ` FROM ops WHERE stage < 4 ORDER BY seq`
	sqlOpenOn = `SELECT ` + opColumns +
		` FROM ops INDEXED BY ops_open_node WHERE stage < 4 AND node IN (SELECT value FROM json_each($1)) ORDER BY seq`
	sqlFirstOpenOn = `SELECT ` + opColumns + ` FROM ops INDEXED BY ops_open_node WHERE stage < 4 AND node = $1 ORDER BY seq LIMIT $2`
	sqlDueOps      = `SELECT ` + opColumns +
		` FROM ops INDEXED BY ops_due WHERE stage = 1 AND delivered = 0 AND deadline <= $1 ORDER BY deadline LIMIT $2`
	sqlJoiners = `SELECT ` + opColumns + ` FROM ops WHERE joined = $1 AND joined <> '' AND stage < 4 ORDER BY seq`
	sqlShared  = `SELECT ` + opColumns + ` FROM ops WHERE node = $1 AND (id = $2 OR joined = $2) ORDER BY seq`
)

const (
	sqlMoveOp  = `UPDATE ops SET seq = $1, asked_at = $2, deadline = $3 WHERE id = $4`
	sqlCancels = `SELECT id, node, action, cancel_by, cancel_reason, cancel_cursor FROM ops WHERE agent = $1 AND stage < 4 AND cancel_cursor > $2
		ORDER BY cancel_cursor LIMIT $3`
	sqlLeave = `UPDATE ops SET delivered = 1 WHERE agent = $1 AND stage = 1 AND stage < 4 AND delivered = 0 AND cursor > $2 AND cursor <= $3
		AND node NOT IN (SELECT name FROM nodes WHERE waits_for <> '')`
	sqlMark       = `SELECT coalesce(max(max(cursor, cancel_cursor)), 0) FROM ops WHERE agent = $1 AND stage < 4`
	sqlMarks      = `SELECT agent, max(max(cursor, cancel_cursor)) FROM ops WHERE stage < 4 GROUP BY agent`
	sqlRev        = `SELECT rev FROM meta`
	sqlNodesOfOps = `SELECT node, count(*) FROM ops WHERE id IN (SELECT value FROM json_each($1)) GROUP BY node`
	sqlCountOf    = `SELECT count(*) FROM ops WHERE agent = $1 AND stage < 4`
	sqlCountOn    = `SELECT count(*) FROM ops INDEXED BY ops_open_node WHERE node = $1 AND stage < 4`
)

func (t *Tx) ops(query string, args ...any) ([]Op, error) {
	var all []Op
	err := t.each(func(r *sql.Rows) error {
		var o Op
		err := r.Scan(o.fields(true)...)
		all = append(all, o)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read operations: %w", err)
	}
	return all, nil
}

// OpsNamed returns those of the ids that there are.
func (t *Tx) OpsNamed(ids []string) (map[string]Op, error) {
	ops, err := t.ops(sqlOpsNamed, list(ids))
	named := make(map[string]Op, len(ids))
	for _, o := range ops {
		named[o.ID] = o
	}
	return named, err
}

// Op finds an operation; ok is false when there is none of that id.
func (t *Tx) Op(id string) (o Op, ok bool, err error) {
	err = t.row(sqlOp, id).Scan(o.fields(true)...)
	if errors.Is(err, sql.ErrNoRows) {
		return Op{}, false, nil
	}
	if err != nil {
		return Op{}, false, fmt.Errorf("cannot read operation %s: %w", id, disk(err))
	}
	return o, true, nil
}

// AddOp stores a new operation and gives it its revision.
func (t *Tx) AddOp(o *Op) error {
	t.touched(o.Node)
	o.Rev = t.NextRev()
	t.s.wrote = true
	as := *o // o may change before it is inserted
	if err := t.s.newOps.add(t.c, append(as.fields(true), int(o.Stage()))...); err != nil {
		return fmt.Errorf("cannot save operation %s: %w", o.ID, err)
	}
	return nil
}

// SaveOp stores what became of an operation and gives it a new revision. What
// was asked never changes.
func (t *Tx) SaveOp(o *Op) error {
	t.touched(o.Node)
	o.Rev = t.NextRev()
	_, err := t.exec(sqlSaveOp, append(o.fields(false), int(o.Stage()), o.ID)...)
	if err != nil {
		return fmt.Errorf("cannot save operation %s: %w", o.ID, err)
	}
	return nil
}

// MoveOp stores the place of an operation among the others and when it was asked for
// and is over: what SaveOp leaves as it was when it was added.
func (t *Tx) MoveOp(o *Op) error {
	if _, err := t.exec(sqlMoveOp, int64(o.Seq), nanos(o.AskedAt), nanos(o.Deadline), o.ID); err != nil {
		return fmt.Errorf("cannot move operation %s: %w", o.ID, err)
	}
	return nil
}

// ToDeliver returns what the agent has still to be told: requests taken and
// cancellations asked for after the cursor, at most so many of each. upTo is the cursor to go
// on behind.
func (t *Tx) ToDeliver(agent string, cursor int64, most int) (ops []Op, cancels []api.Cancel, upTo int64, err error) {
	if err = t.row(sqlMark, agent).Scan(&upTo); err != nil {
		return nil, nil, 0, fmt.Errorf("cannot read cursors: %w", disk(err))
	}
	if ops, err = t.ops(sqlDeliver, agent, cursor, most); err != nil {
		return nil, nil, 0, err
	}
	if len(ops) == most {
		upTo = ops[most-1].Cursor
	}
	var at []int64 // of the cancellations
	err = t.each(func(r *sql.Rows) error {
		var c api.Cancel
		var cursor int64
		err := r.Scan(&c.ID, &c.Node, &c.Action, &c.By, &c.Reason, &cursor)
		cancels, at = append(cancels, c), append(at, cursor)
		return err
	}, sqlCancels, agent, cursor, most)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("cannot read cancellations: %w", err)
	}
	if len(cancels) == most {
		upTo = min(upTo, at[most-1])
	}
	ops = slices.DeleteFunc(ops, func(o Op) bool { return o.Cursor > upTo })
	n, _ := slices.BinarySearch(at, upTo+1)
	cancels = cancels[:n]
	slices.SortFunc(ops, func(a, b Op) int { return cmp.Compare(a.Seq, b.Seq) })
	return ops, cancels, upTo, nil
}

// Leave marks the agent's requests behind one cursor and up to another delivered.
func (t *Tx) Leave(agent string, cursor, upTo int64) error {
	if _, err := t.exec(sqlLeave, agent, cursor, upTo); err != nil {
		return fmt.Errorf("cannot mark operations delivered: %w", err)
	}
	return nil
}

// CountOpenOf returns how many operations of the agent have not ended.
func (t *Tx) CountOpenOf(agent string) (int, error) { return t.count(sqlCountOf, agent) }

// CountOpenOn returns how many operations on the node have not ended.
func (t *Tx) CountOpenOn(node string) (int, error) { return t.count(sqlCountOn, node) }

func (t *Tx) count(query, name string) (n int, err error) {
	if err := t.row(query, name).Scan(&n); err != nil {
		return 0, fmt.Errorf("cannot count operations: %w", disk(err))
	}
	return n, nil
}

// OpenOps returns the agent's operations that have not ended.
func (t *Tx) OpenOps(agent string) ([]Op, error) { return t.ops(sqlOpenOf, agent) }

// AllOpenOps returns all operations that have not ended.
func (t *Tx) AllOpenOps() ([]Op, error) { return t.ops(sqlOpen) }

// OpenOpsOn returns the operations on the nodes that have not ended.
func (t *Tx) OpenOpsOn(nodes []string) ([]Op, error) { return t.ops(sqlOpenOn, list(nodes)) }

// FirstOpenOn returns the first operations on the node that have not ended, at most so many.
func (t *Tx) FirstOpenOn(node string, most int) ([]Op, error) {
	return t.ops(sqlFirstOpenOn, node, most)
}

// DueOps returns what never left central and whose deadline has passed, at most so many.
func (t *Tx) DueOps(now time.Time, most int) ([]Op, error) {
	return t.ops(sqlDueOps, nanos(now), most)
}

// Joiners returns the operations that have not ended and share the outcome of id.
func (t *Tx) Joiners(id string) ([]Op, error) { return t.ops(sqlJoiners, id) }

// Shared returns a node's operation with the id and all that joined it, ended or not.
func (t *Tx) Shared(node, id string) ([]Op, error) { return t.ops(sqlShared, node, id) }

// Marks returns for every agent with open operations the highest cursor of one.
func (t *Tx) Marks() (map[string]int64, error) {
	all := map[string]int64{}
	err := t.each(func(r *sql.Rows) error {
		var name string
		var mark int64
		err := r.Scan(&name, &mark)
		all[name] = mark
		return err
	}, sqlMarks)
	if err != nil {
		return nil, fmt.Errorf("cannot read cursors: %w", err)
	}
	return all, nil
}

// NodesOfOps returns the nodes of operations, and how many of those are known.
func (t *Tx) NodesOfOps(ids []string) (nodes []string, known int, err error) {
	err = t.each(func(r *sql.Rows) error {
		var node string
		var n int
		err := r.Scan(&node, &n)
		nodes, known = append(nodes, node), known+n
		return err
	}, sqlNodesOfOps, list(ids))
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read operations: %w", err)
	}
	return nodes, known, nil
}

// Rev is the revision of operations that this snapshot shows.
func (t *Tx) Rev() (rev int64, err error) {
	if err := t.row(sqlRev).Scan(&rev); err != nil {
		return 0, fmt.Errorf("cannot read revision: %w", disk(err))
	}
	return rev, nil
}

// FindOps returns the operations that match, in the order of their sequence;
// where there are more than q.Limit, the newest; after a revision the ones that
// changed first, so that one can go on behind them. Wait is not looked at.
func (t *Tx) FindOps(q api.QueryOps) ([]Op, error) {
	var where []string
	var args []any
	and := func(cond string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(cond, len(args)))
	}
	if q.AfterRev > 0 {
		and("rev > $%d", q.AfterRev)
	}
	if len(q.IDs) > 0 {
		and("id IN (SELECT value FROM json_each($%d))", list(q.IDs))
	}
	if len(q.Nodes) > 0 {
		and("node IN (SELECT value FROM json_each($%d))", list(q.Nodes))
	}
	if !q.Since.IsZero() {
		and("asked_at >= $%d", nanos(q.Since))
		and("seq >= $%d", int64(power.Seq(0).Next(q.Since))) // no request has a sequence below the time it was asked at
	}
	order := "seq DESC, id DESC"
	switch {
	case q.AfterRev > 0:
		order = "rev"
	case len(q.IDs) > 0 || len(q.Nodes) > 0 || q.Outstanding:
		order = "+seq DESC, id DESC" // the index that finds them is another one
	}
	if q.Before != "" {
		seq, id, err := api.ReadOpPlace(q.Before)
		if err != nil {
			return nil, err
		}
		and("seq <= $%d", int64(seq))
		args = append(args, id)
		where = append(where, fmt.Sprintf("(seq < $%d OR id < $%d)", len(args)-1, len(args)))
	}
	if q.Outstanding {
		where = append(where, "stage < 4")
	}
	if len(where) == 0 {
		where = []string{"1 = 1"}
	}
	args = append(args, q.Limit)
	found, err := t.ops(fmt.Sprintf("SELECT * FROM (SELECT %s FROM ops WHERE %s ORDER BY %s LIMIT $%d) AS newest ORDER BY seq, id",
		opColumns, strings.Join(where, " AND "), order, len(args)), args...)
	return found, err
}
