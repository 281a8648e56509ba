package central

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/internal/backoff"
	"rackpower/power/noderange"
)

// Bounds of the audit log in one answer.
const (
	defaultAudit = 1000
	maxAudit     = api.MaxAuditPage
)

// auditQuery is a question to the audit log.
type auditQuery struct {
	expr   string
	filter store.AuditFilter
	limit  int
	// follow asks for the entries behind the id after, waiting for one; else for the
	// newest ones.
	follow bool
	after  int64
	wait   time.Duration
}

func readAuditQuery(q url.Values) (in auditQuery, err error) {
	in.expr, in.limit = q.Get("select"), defaultAudit
	in.filter.Who, in.filter.What = q.Get("who"), q.Get("what")
	for key, at := range map[string]*time.Time{"since": &in.filter.Since, "until": &in.filter.Until} {
		if text := q.Get(key); text != "" {
			if *at, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return in, api.Problemf(api.CodeBadRequest, "%s %q is no time such as 2006-01-02T15:04:05Z", key, text)
			}
		}
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return in, api.Problemf(api.CodeBadRequest, "limit %q is no count", text)
		}
		if n > 0 {
			in.limit = min(n, maxAudit)
		}
	}
	if text := q.Get("before"); text != "" {
		if in.filter.Before, err = strconv.ParseInt(text, 10, 64); err != nil || in.filter.Before < 1 {
			return in, api.Problemf(api.CodeBadRequest, "before %q is no id of an entry", text)
		}
	}
	if text := q.Get("after"); text != "" {
		if in.after, err = strconv.ParseInt(text, 10, 64); err != nil || in.after < 0 {
			return in, api.Problemf(api.CodeBadRequest, "after %q is no id of an entry", text)
		}
		in.follow = true
	}
	if text := q.Get("wait"); text != "" {
		if in.wait, err = time.ParseDuration(text); err != nil || in.wait < 0 {
			return in, api.Problemf(api.CodeBadRequest, "wait %q is no duration such as 30s", text)
		}
		if !in.follow {
			return in, api.Problemf(api.CodeBadRequest, "wait goes with after: the newest entries are there already")
		}
	}
	return in, nil
}

// auditEndpoint lists entries, a page of them; the header Link names the page before the
// newest ones, or behind those that were asked for after an id.
func (c *Central) auditEndpoint() endpoint {
	return endpoint{out: reflect.TypeFor[[]api.AuditEntry](), handler: func(w http.ResponseWriter, r *http.Request) {
		out, err := caught(c, func() ([]api.AuditEntry, error) {
			q := r.URL.Query()
			in, err := readAuditQuery(q)
			if err != nil {
				return nil, err
			}
			out, err := c.findAudit(r, in)
			if err == nil && len(out) == in.limit {
				key, at := "before", out[0].ID
				if in.follow {
					key, at = "after", out[len(out)-1].ID
				}
				q.Set(key, strconv.FormatInt(at, 10))
				httpserver.LinkNext(w, r, q)
			}
			return out, err
		})
		c.answerTo(w, r, out, ended(r, err))
	}}
}

func (c *Central) findAudit(r *http.Request, in auditQuery) (_ []api.AuditEntry, err error) {
	if in.follow {
		return c.followAudit(r.Context(), in)
	}
	out := []api.AuditEntry{}
	err = c.store.View(r.Context(), func(tx *store.Tx) error {
		if in.filter.Nodes, err = auditNames(tx, in.expr); err != nil {
			return err
		}
		entries, err := tx.Audit(in.filter, in.limit)
		out = append(out, entries...)
		return err
	})
	return out, err
}

func (c *Central) verifyAudit(r *http.Request) (api.AuditCheck, error) {
	check, err := c.store.VerifyAudit(r.Context(), r.URL.Query().Get("head"))
	if err == nil && check.Wrong != 0 {
		c.log.Error("the audit log is not as it was written", "entry", check.Wrong, "why", check.Why)
	}
	return check, err
}

// followAudit waits until there is an entry behind the one that is known. It looks
// again only when something was added, and only at that.
func (c *Central) followAudit(ctx context.Context, in auditQuery) ([]api.AuditEntry, error) {
	timer := time.NewTimer(min(in.wait, maxWait))
	defer timer.Stop()
	for {
		_, news := c.audited.look()
		out, err := c.auditAfter(ctx, &in)
		if err != nil || len(out) > 0 || in.wait <= 0 {
			return out, err
		}
		resume, err := idle(ctx)
		if err != nil {
			return out, err
		}
		select {
		case <-news:
		case <-timer.C:
			return out, nil
		case <-c.stop:
			return out, nil
		case <-ctx.Done():
			return out, ctx.Err()
		}
		if backoff.Sleep(ctx, queryPause) != nil {
			return out, ctx.Err()
		}
		if err := resume(); err != nil {
			return out, err
		}
	}
}

// auditAfter finds what follows. When that is nothing, in goes on behind all that
// was looked through.
func (c *Central) auditAfter(ctx context.Context, in *auditQuery) ([]api.AuditEntry, error) {
	out := []api.AuditEntry{}
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		if in.filter.Nodes, err = auditNames(tx, in.expr); err != nil {
			return err
		}
		last, err := tx.LastAudit()
		if err != nil || last <= in.after {
			return err
		}
		entries, err := tx.AuditAfter(in.filter, in.after, in.limit)
		if out = append(out, entries...); err == nil && len(out) == 0 {
			in.after = last
		}
		return err
	})
	return out, err
}

// auditSource is the nodes that are and those that the audit log speaks of.
type auditSource struct {
	noderange.Source
	tx *store.Tx
}

// All is of noderange.Source.
func (a auditSource) All() ([]string, error) {
	known, err := a.tx.AuditNodes()
	if err != nil {
		return nil, err
	}
	return noderange.Also(a.Source, known).All()
}

// Named is of noderange.Source.
func (a auditSource) Named(names []string) ([]string, error) {
	known, err := a.tx.AuditNamed(names)
	if err != nil {
		return nil, err
	}
	return noderange.Also(a.Source, known).Named(names)
}

// Prefixed is of noderange.Source.
func (a auditSource) Prefixed(prefix string) ([]string, error) {
	known, err := a.tx.AuditNodes()
	if err != nil {
		return nil, err
	}
	return noderange.Also(a.Source, known).Prefixed(prefix)
}

// auditNames selects among the nodes that are and those that were; nil: no
// restriction.
func auditNames(tx *store.Tx, expr string) ([]string, error) {
	if (expr == "" || expr == "all") && tx.Asker().Scope == "" {
		return nil, nil
	}
	names, err := selectWithin(tx, expr, auditSource{tx.Selection(), tx})
	if err == nil && names == nil {
		names = []string{}
	}
	return names, err
}
