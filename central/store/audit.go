package store

import (
	"cmp"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
)

const (
	auditColumns = `id, at, happened, who, what, node, op, why, outcome, detail, via, address`
	sqlAddAudit  = `INSERT INTO audit (at, happened, who, what, node, op, why, outcome, detail, via, address)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`
	sqlAudit       = `SELECT ` + auditColumns + ` FROM audit ORDER BY id DESC LIMIT $1`
	sqlAuditOf     = `SELECT ` + auditColumns + ` FROM audit WHERE node IN (SELECT value FROM json_each($1)) ORDER BY id DESC LIMIT $2`
	sqlAuditFrom   = `SELECT ` + auditColumns + ` FROM audit WHERE id > $1 ORDER BY id LIMIT $2`
	sqlAuditFromOf = `SELECT ` + auditColumns + ` FROM audit
		WHERE id > $1 AND +node IN (SELECT value FROM json_each($2)) ORDER BY id LIMIT $3`
	sqlLastAudit  = `SELECT coalesce(max(id), 0) FROM audit`
	sqlAuditNodes = `WITH RECURSIVE seen (node) AS (SELECT min(node) FROM audit WHERE node > ''
		UNION ALL SELECT (SELECT min(node) FROM audit WHERE node > seen.node) FROM seen WHERE seen.node IS NOT NULL)
		SELECT node FROM seen WHERE node IS NOT NULL`
	// What is later than the newest entry was written while a clock was ahead: it must
	// not keep what follows it from being pruned.
	sqlOldestAudit = `SELECT id, at FROM audit WHERE at <= (SELECT at FROM audit ORDER BY id DESC LIMIT 1) ORDER BY id LIMIT $1`
	sqlPruneAudit  = `DELETE FROM audit WHERE id <= $1 AND at < $2 AND id < (SELECT max(id) FROM audit)`
	sqlOldestOps   = `SELECT rev, stage, max(ended_at, asked_at) FROM ops WHERE rev > $1 AND (stage < 4 OR max(ended_at, asked_at)
		<= coalesce((SELECT at FROM audit ORDER BY id DESC LIMIT 1), 9223372036854775807)) ORDER BY rev LIMIT $2`
	sqlPruneOp    = `DELETE FROM ops WHERE rev = $1`
	sqlPruneTombs = `DELETE FROM removed WHERE at < $1`
)

// AddAudit appends to the audit log. The entry's ID is not looked at: ids grow in
// the order of the commits, and none is ever given twice. What the asker of the job did
// says how that is known.
func (t *Tx) AddAudit(e api.AuditEntry) error {
	t.s.audited = true
	if e.HappenedAt.Equal(e.At) || e.HappenedAt.After(e.At) { // a rack's clock must not write into the future
		e.HappenedAt = time.Time{}
	}
	if t.asker.is(e.Who) {
		e.Via, e.Address = t.asker.Via, t.asker.Address
	}
	_, err := t.exec(sqlAddAudit, nanos(e.At), nanos(e.HappenedAt), e.Who, e.What, e.Node, e.Op, e.Why, e.Outcome, e.Detail, e.Via, e.Address)
	if err != nil {
		return fmt.Errorf("cannot write audit log: %w", err)
	}
	return nil
}

// Audit returns the newest entries, oldest first; nodes nil: of all, and those
// that speak of no node.
func (t *Tx) Audit(nodes []string, limit int) ([]api.AuditEntry, error) {
	query, args := sqlAudit, []any{limit}
	if nodes != nil {
		query, args = sqlAuditOf, []any{list(nodes), limit}
	}
	all, err := t.audit(query, args...)
	slices.Reverse(all)
	return all, err
}

// AuditAfter returns the first entries behind the id, oldest first; nodes as for Audit.
func (t *Tx) AuditAfter(nodes []string, id int64, limit int) ([]api.AuditEntry, error) {
	if nodes != nil {
		return t.audit(sqlAuditFromOf, id, list(nodes), limit)
	}
	return t.audit(sqlAuditFrom, id, limit)
}

// LastAudit is the id of the newest entry, 0 when there is none.
func (t *Tx) LastAudit() (id int64, err error) {
	if err := t.row(sqlLastAudit).Scan(&id); err != nil {
		return 0, fmt.Errorf("cannot read audit log: %w", disk(err))
	}
	return id, nil
}

func (t *Tx) audit(query string, args ...any) ([]api.AuditEntry, error) {
	var all []api.AuditEntry
	err := t.each(func(r *sql.Rows) error {
		var e api.AuditEntry
		var at, happened int64
		err := r.Scan(&e.ID, &at, &happened, &e.Who, &e.What, &e.Node, &e.Op, &e.Why, &e.Outcome, &e.Detail, &e.Via, &e.Address)
		e.At, e.HappenedAt = timeAt(at), timeAt(cmp.Or(happened, at))
		all = append(all, e)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read audit log: %w", err)
	}
	return all, nil
}

// AuditNodes returns the names of all nodes in the audit log, removed ones too.
func (t *Tx) AuditNodes() ([]string, error) {
	var names []string
	err := t.each(func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, sqlAuditNodes)
	if err != nil {
		return nil, fmt.Errorf("cannot read audit log: %w", err)
	}
	return names, nil
}

// Prune deletes up to about chunk entries of the audit log and as many
// operations that ended before cutoff, and the tombstones older than it. from is
// where to go on among the operations, 0 at the start. done is true when
// nothing old is left.
func (t *Tx) Prune(cutoff time.Time, chunk int, from int64) (next int64, done bool, err error) {
	old, err := t.pruneAudit(cutoff, chunk)
	if err != nil {
		return 0, false, fmt.Errorf("cannot prune audit log: %w", err)
	}
	seen, next, err := t.pruneOps(cutoff, chunk, from)
	if err != nil {
		return 0, false, fmt.Errorf("cannot prune operations: %w", err)
	}
	if old < chunk && seen < chunk {
		done = true
		if _, err = t.exec(sqlFloorAgent, nanos(cutoff)); err == nil {
			_, err = t.exec(sqlPruneTombs, nanos(cutoff))
		}
		if err != nil {
			return 0, false, fmt.Errorf("cannot prune tombstones: %w", err)
		}
	}
	return next, done, nil
}

// pruneAudit spares younger entries between old ones: what was asked at a rack
// stands there with the rack's own time.
func (t *Tx) pruneAudit(cutoff time.Time, chunk int) (n int, err error) {
	var last int64
	err = t.each(func(r *sql.Rows) error {
		var id, at int64
		err := r.Scan(&id, &at)
		if at < nanos(cutoff) {
			last, n = id, n+1
		}
		return err
	}, sqlOldestAudit, chunk)
	if err == nil && n > 0 {
		_, err = t.exec(sqlPruneAudit, last, nanos(cutoff))
	}
	return n, err
}

// pruneOps goes by revisions, which grow with time: it stops at the first
// operation that ended later.
func (t *Tx) pruneOps(cutoff time.Time, chunk int, from int64) (seen int, next int64, err error) {
	var old []int64
	next = from
	err = t.each(func(r *sql.Rows) error {
		var rev, ended int64
		var stage Stage
		err := r.Scan(&rev, &stage, &ended)
		switch {
		case stage == StageEnded && ended < nanos(cutoff):
			old = append(old, rev)
		case stage == StageEnded:
			return err
		}
		seen, next = seen+1, rev
		return err
	}, sqlOldestOps, from, chunk)
	for _, rev := range old {
		if err == nil {
			_, err = t.exec(sqlPruneOp, rev)
		}
	}
	return seen, next, err
}
