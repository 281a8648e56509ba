package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
)

const (
	// The hash before an entry is that of the one before it, or of the last one that was pruned.
	auditColumns = `id, at, happened, who, what, node, op, why, outcome, detail, via, address, hash, coalesce((SELECT hash FROM audit AS b
		WHERE b.id < audit.id ORDER BY b.id DESC LIMIT 1), (SELECT a.hash FROM audit_anchor AS a WHERE a.id < audit.id), '')`
	auditStored = `id, at, happened, who, what, node, op, why, outcome, detail, via, address, hash`
	sqlAddAudit = `INSERT INTO audit (` + auditStored + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	sqlLastAudit  = `SELECT coalesce(max(id), 0) FROM audit`
	sqlFirstAudit = `SELECT coalesce(min(id), 0) FROM audit`
	sqlAuditNodes = `WITH RECURSIVE seen (node) AS (SELECT min(node) FROM audit WHERE node > ''
		UNION ALL SELECT (SELECT min(node) FROM audit WHERE node > seen.node) FROM seen WHERE seen.node IS NOT NULL)
		SELECT node FROM seen WHERE node IS NOT NULL`
	sqlAuditNamed  = `SELECT value FROM json_each($1) AS named WHERE EXISTS (SELECT 1 FROM audit WHERE node = named.value)`
	sqlAuditAnchor = `SELECT id, hash FROM audit_anchor`
	sqlAuditHead   = `SELECT id, hash FROM audit UNION ALL SELECT id, hash FROM audit_anchor ORDER BY id DESC LIMIT 1`
	sqlUnhashed    = `SELECT count(*) FROM audit WHERE id <= $1`
	// What is later than the newest entry was written while a clock was ahead: it must
	// not keep what follows it from being pruned.
	sqlOldestAudit = `SELECT id, at FROM audit WHERE at <= (SELECT at FROM audit ORDER BY id DESC LIMIT 1)
		AND id < (SELECT max(id) FROM audit) ORDER BY id LIMIT $1`
	sqlMoveAnchor = `UPDATE audit_anchor SET (id, hash) = (SELECT id, hash FROM audit WHERE id = $1) WHERE id < $1`
	sqlPruneAudit = `DELETE FROM audit WHERE id <= $1`
	sqlOldestOps  = `SELECT rev, stage, max(ended_at, asked_at) FROM ops WHERE rev > $1 AND (stage < 4 OR max(ended_at, asked_at)
		<= coalesce((SELECT at FROM audit ORDER BY id DESC LIMIT 1), 9223372036854775807)) ORDER BY rev LIMIT $2`
	sqlPruneOp    = `DELETE FROM ops WHERE rev = $1`
	sqlAuditSince = `SELECT coalesce(min((SELECT at FROM audit WHERE node = named.value AND what = $1 ORDER BY id DESC LIMIT 1)), 0)
		FROM json_each($2) AS named`
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
	return t.appendAudit(func(last auditLink) (auditLink, []any) {
		e.ID = last.id + 1
		return chained(e, last.hash)
	})
}

// appendAudit writes what next makes of the end of the log. The end is remembered until
// something is rolled back.
func (t *Tx) appendAudit(next func(auditLink) (auditLink, []any)) error {
	if t.s.head == nil {
		var last auditLink
		if err := t.row(sqlAuditHead).Scan(&last.id, &last.hash); err != nil {
			return fmt.Errorf("cannot read audit log: %w", disk(err))
		}
		t.s.head = &last
	}
	head, args := next(*t.s.head)
	t.s.wrote = true
	if err := t.s.audits.add(t.c, args...); err != nil {
		return fmt.Errorf("cannot write audit log: %w", err)
	}
	t.s.head = &head
	return nil
}

// auditLink is what the next entry of the audit log is chained to.
type auditLink struct {
	id   int64
	hash string
}

// chained is an entry as a link, and as the values of auditStored. Its texts are made
// such that JSON has them as they are.
func chained(e api.AuditEntry, before string) (auditLink, []any) {
	for _, text := range []*string{&e.Who, &e.What, &e.Node, &e.Op, &e.Why, &e.Outcome, &e.Detail, &e.Via, &e.Address} {
		*text = plainText(*text)
	}
	l := auditLink{e.ID, e.Sum(before)}
	return l, []any{
		e.ID, nanos(e.At), nanos(e.HappenedAt), e.Who, e.What, e.Node, e.Op, e.Why, e.Outcome, e.Detail, e.Via, e.Address, l.hash,
	}
}

// beginChain marks where the hashes begin in a log that has entries already.
func beginChain(ctx context.Context, c *sql.Conn, now time.Time) error {
	var last int64
	if err := c.QueryRowContext(ctx, sqlLastAudit).Scan(&last); err != nil || last == 0 {
		return err
	}
	_, args := chained(api.AuditEntry{
		ID: last + 1, At: now, Who: "central", What: "audit-chain",
		Detail: "the entries from here on are chained by hashes; those before have none",
	}, "")
	_, err := c.ExecContext(ctx, sqlAddAudit, args...)
	return err
}

// AuditFilter selects entries of the audit log; its zero value selects all.
type AuditFilter struct {
	Nodes        []string // nil: of all, and those that speak of no node
	Who          string   // alone or in whose name another one asked
	What         string
	Since, Until time.Time // by when central wrote them down
	Before       int64     // only ids below it; 0: all
}

// query makes the query of those behind the id, or, with an id below 0, of the newest ones.
func (f AuditFilter) query(id int64, limit int) (query string, args []any) {
	var where []string
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, strings.ReplaceAll(condition, "?", fmt.Sprintf("$%d", len(args))))
	}
	order, nodes, from := "id DESC", "node", "audit"
	if id >= 0 {
		order, nodes = "id", "node || ''" // in the order of ids, as they are found
		add("id > ?", id)
	}
	if f.Before > 0 {
		add("id < ?", f.Before)
	}
	if !f.Since.IsZero() {
		if f.Nodes == nil && id < 0 {
			from = "audit INDEXED BY audit_at"
		}
		add("at >= ?", nanos(f.Since))
	}
	if !f.Until.IsZero() {
		add("at < ?", nanos(f.Until))
	}
	if f.Nodes != nil {
		add(nodes+" IN (SELECT value FROM json_each(?))", list(f.Nodes))
	}
	if f.Who != "" {
		add("(who = ? OR substr(who, length(who) - length(' for ' || ?) + 1) = ' for ' || ?)", f.Who)
	}
	if f.What != "" {
		add("what = ?", f.What)
	}
	query = "SELECT " + auditColumns + " FROM " + from
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, limit)
	return fmt.Sprintf("%s ORDER BY %s LIMIT $%d", query, order, len(args)), args
}

// Audit returns the newest entries, oldest first.
func (t *Tx) Audit(f AuditFilter, limit int) ([]api.AuditEntry, error) {
	query, args := f.query(-1, limit)
	all, err := t.audit(query, args...)
	slices.Reverse(all)
	return all, err
}

// AuditAfter returns the first entries behind the id, oldest first.
func (t *Tx) AuditAfter(f AuditFilter, id int64, limit int) ([]api.AuditEntry, error) {
	query, args := f.query(id, limit)
	return t.audit(query, args...)
}

// LastAudit is the id of the newest entry, 0 when there is none.
func (t *Tx) LastAudit() (id int64, err error) {
	if err := t.row(sqlLastAudit).Scan(&id); err != nil {
		return 0, fmt.Errorf("cannot read audit log: %w", disk(err))
	}
	return id, nil
}

// FirstAudit is the id of the oldest entry that is kept, 0 when there is none.
func (t *Tx) FirstAudit() (id int64, err error) {
	if err := t.row(sqlFirstAudit).Scan(&id); err != nil {
		return 0, fmt.Errorf("cannot read audit log: %w", disk(err))
	}
	return id, nil
}

func (t *Tx) audit(query string, args ...any) ([]api.AuditEntry, error) {
	var all []api.AuditEntry
	err := t.each(func(r *sql.Rows) error {
		var e api.AuditEntry
		var at, happened int64
		err := r.Scan(&e.ID, &at, &happened, &e.Who, &e.What, &e.Node, &e.Op, &e.Why, &e.Outcome, &e.Detail, &e.Via, &e.Address,
			&e.Hash, &e.Before)
		e.At, e.HappenedAt = timeAt(at), timeAt(cmp.Or(happened, at))
		all = append(all, e)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read audit log: %w", err)
	}
	return all, nil
}

// verifyPage is how many entries are checked at a time.
const verifyPage = 1000

// VerifyAudit checks the hashes of the audit log, from its start to its end. It reads in
// pages, so that it keeps neither writers nor readers waiting. What is pruned meanwhile is
// left out. head is a hash to look for, "" for none.
func (s *Store) VerifyAudit(ctx context.Context, head string) (api.AuditCheck, error) {
	return verifyAudit(head, func(f func(*Tx) error) error { return s.View(ctx, f) })
}

func verifyAudit(head string, view func(func(*Tx) error) error) (check api.AuditCheck, err error) {
	check.Wanted = head
	var at auditLink
	for more := true; more && err == nil; {
		err = view(func(t *Tx) error {
			var anchor auditLink
			if err := t.row(sqlAuditAnchor).Scan(&anchor.id, &anchor.hash); err != nil {
				return fmt.Errorf("cannot read where the audit log begins: %w", disk(err))
			}
			if anchor.id >= at.id {
				at = anchor
			}
			if check.Last == 0 {
				if err := t.row(sqlUnhashed, anchor.id).Scan(&check.Unhashed); err != nil {
					return fmt.Errorf("cannot read audit log: %w", disk(err))
				}
			}
			page, err := t.AuditAfter(AuditFilter{}, at.id, verifyPage)
			more = len(page) == verifyPage
			for _, e := range page {
				if !check.Add(e, at.hash) {
					more = false
					break
				}
				at = auditLink{e.ID, e.Hash}
			}
			return err
		})
	}
	return check, err
}

// AuditNodes returns the names of all nodes in the audit log, removed ones too.
func (t *Tx) AuditNodes() ([]string, error) { return t.names(sqlAuditNodes) }

// AuditNamed returns those of the names that the audit log has.
func (t *Tx) AuditNamed(names []string) ([]string, error) { return t.names(sqlAuditNamed, list(names)) }

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

// pruneAudit removes entries from the start on, and keeps the hash of the last one: there
// the chain begins. It stops at the first entry that is not old. Those of a clock that was
// ahead go with an old one behind them, which was written later.
func (t *Tx) pruneAudit(cutoff time.Time, chunk int) (n int, err error) {
	var last int64
	young := false
	err = t.each(func(r *sql.Rows) error {
		var id, at int64
		err := r.Scan(&id, &at)
		if young = young || at >= nanos(cutoff); !young {
			last, n = id, n+1
		}
		return err
	}, sqlOldestAudit, chunk)
	if err != nil || n == 0 {
		return n, err
	}
	if _, err = t.exec(sqlMoveAnchor, last); err == nil {
		_, err = t.exec(sqlPruneAudit, last)
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

// AuditedSince is when the newest entry of a kind was written of each node, of the one
// where that was first; zero: there is none.
func (t *Tx) AuditedSince(what string, nodes []string) (time.Time, error) {
	var at int64
	if err := t.row(sqlAuditSince, what, list(nodes)).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("cannot read the audit log: %w", disk(err))
	}
	return timeAt(at), nil
}
