package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/noderange"
)

// pollAtMost bounds one long poll, pollPause spaces those for events. Answers on operations are
// spaced by the server.
const (
	pollAtMost = 20 * time.Second
	pollPause  = 50 * time.Millisecond
)

// following watches operations until what was waited for has come.
type following struct {
	s     *session
	order order
	began time.Time
	rows  []*followed // in the order of the nodes
	byID  map[string]*followed
	lost  error // the last poll had no answer
}

// followed is one request.
type followed struct {
	op     api.Op
	waited time.Duration // until it was met
	met    bool
	said   string
}

func newFollowing(s *session, o order, ops []api.Op, began time.Time) *following {
	f := &following{s: s, order: o, began: began, byID: map[string]*followed{}}
	for _, op := range ops {
		row := &followed{op: op}
		f.rows = append(f.rows, row)
		f.byID[op.ID] = row
	}
	if !o.dryRun {
		f.look()
	}
	return f
}

// meets reports whether an operation is as far as is waited for.
func (o order) meets(op api.Op) bool {
	switch {
	case op.Outcome != "" || o.wait == waitNone:
		return true
	case o.wait == waitAccepted:
		return op.Phase != api.PhaseTaken && op.Phase != ""
	default:
		return false
	}
}

// look notes what has been met, and says what people may want to know by now.
func (f *following) look() {
	news := map[string][]string{}
	var order []string
	for _, row := range f.rows {
		if !row.met && f.order.meets(row.op) {
			row.met, row.waited = true, f.s.Now().Sub(f.began)
		}
		if text := remark(row.op); text != "" && text != row.said {
			row.said = text
			if news[text] == nil {
				order = append(order, text)
			}
			news[text] = append(news[text], row.op.Node)
		}
	}
	for _, text := range order {
		f.s.ClearProgress()
		f.s.Say("%s: %s", noderange.Fold(news[text]), term.Clean(text))
	}
}

// remark is what a person should know of an operation beside its outcome: what it
// met on its node, and that its agent is away.
func remark(op api.Op) string {
	plain := op.Verdict == "" || op.Verdict == power.VerdictStart || op.Outcome == power.Refused
	switch {
	case !plain && op.Message != "" && op.AgentNote != "" && op.Outcome == "":
		return op.Message + "; " + op.AgentNote
	case !plain && op.Message != "":
		return op.Message
	case op.Outcome == "":
		return op.AgentNote
	default:
		return ""
	}
}

func (f *following) pending() []string {
	var ids []string
	for _, row := range f.rows {
		if !row.met {
			ids = append(ids, row.op.ID)
		}
	}
	return ids
}

// rev is the revision that the operations were answered at, 0 where the server does not say.
func (f *following) rev() (rev int64) {
	for _, row := range f.rows {
		rev = max(rev, row.op.Rev)
	}
	return rev
}

// follow polls until all is met, the time-out is over or the context ends, which
// it reports.
func (f *following) follow() (interrupted bool) {
	ctx, cancel := context.WithTimeout(f.s.ctx, f.order.timeout)
	defer cancel()
	defer f.s.ClearProgress()
	rev := f.rev()
	for {
		ids := f.pending()
		if len(ids) == 0 || ctx.Err() != nil {
			return f.s.ctx.Err() != nil && len(ids) > 0
		}
		f.s.Progress("%s", f.standing())
		wait := pollAtMost
		if end, ok := ctx.Deadline(); ok {
			wait = min(wait, max(time.Until(end), 0))
		}
		var found api.FoundOps
		var err error
		if rev == 0 {
			found, err = f.s.client.FindOps(ctx, api.QueryOps{IDs: ids})
		} else {
			found, err = f.s.client.QueryOps(ctx, api.QueryOps{IDs: ids, AfterRev: rev, Wait: wait, Limit: min(len(ids), api.MaxPage)})
		}
		if err != nil {
			if ctx.Err() == nil {
				f.lost = err
				if !lost(err) || errors.Is(err, api.ErrSilent) {
					return false
				}
				rev = 0 // it may come back as another
			}
			_ = backoff.Sleep(ctx, askAgainEvery)
			continue
		}
		f.lost = nil
		for _, op := range found.Ops {
			if row := f.byID[op.ID]; row != nil {
				row.op = op
			}
		}
		f.look()
		rev = max(found.Rev, 1)
	}
}

// standing says how many are as far as is waited for, and what became of the others.
func (f *following) standing() string {
	reached, ended := 0, map[power.Outcome]int{}
	for _, row := range f.rows {
		switch {
		case row.op.Outcome != "" && row.op.Outcome != power.Succeeded:
			ended[row.op.Outcome]++
		case row.met:
			reached++
		}
	}
	text := fmt.Sprintf("%d of %d %s", reached, len(f.rows), f.order.wait)
	for _, outcome := range slices.Sorted(maps.Keys(ended)) {
		text += fmt.Sprintf(", %d %s", ended[outcome], outcome)
	}
	return text
}

// finish prints the results and says how it went.
func (f *following) finish(interrupted bool) error {
	if err := f.print(); err != nil {
		return err
	}
	switch pending := f.nodesWhere(func(r *followed) bool { return !r.met }); {
	case f.lost != nil && len(pending) > 0:
		err := f.s.explain(f.lost)
		return settings.Exit(settings.CodeOf(err), "%v\nthe operations on %s go on; %s ops --outstanding shows them", err,
			noderange.Fold(pending), f.s.server.command)
	case interrupted:
		f.s.Warn("interrupted: the operations on %s go on; %s ops %s --outstanding shows them, %s op cancel ID ends one",
			noderange.Fold(pending), f.s.server.command, noderange.Fold(pending), f.s.server.command)
	}
	return f.verdict()
}

// verdict is the exit status, with what is wrong in one line.
func (f *following) verdict() error {
	failed := f.nodesWhere(func(r *followed) bool {
		return r.op.Outcome != "" && r.op.Outcome != power.Succeeded && r.op.Outcome != power.Refused
	})
	refused := f.nodesWhere(func(r *followed) bool { return r.op.Outcome == power.Refused })
	pending := f.nodesWhere(func(r *followed) bool { return !r.met })
	tell := func(code int, nodes []string, format string, args ...any) error {
		if !f.s.People() || f.s.Quiet {
			f.nameEach(nodes)
		}
		return settings.Exit(code, "%d of %s %s", len(nodes), power.Count(len(f.rows), "node"), fmt.Sprintf(format, args...))
	}
	switch {
	case len(failed) > 0:
		return tell(settings.ExitFailed, failed, "failed: %s", noderange.Fold(failed))
	case len(refused) > 0:
		return tell(settings.ExitRefused, refused, "refused: %s", noderange.Fold(refused))
	case len(pending) > 0:
		id := ""
		for _, row := range f.rows {
			if !row.met {
				id = row.op.ID
				break
			}
		}
		return tell(settings.ExitPending, pending, "still pending, the operations go on: %s (%s op show %s)", noderange.Fold(pending),
			f.s.server.command, id)
	}
	return nil
}

// nameEach names nodes with their reasons on stderr, where stdout is for programs
// or nobody.
func (f *following) nameEach(nodes []string) {
	named := map[string]bool{}
	for _, n := range nodes {
		named[n] = true
	}
	f.groups(func(nodes []string, text string) {
		if named[nodes[0]] {
			f.s.Warn("%s %s", noderange.Fold(nodes), term.Clean(text))
		}
	})
}

func (f *following) nodesWhere(is func(*followed) bool) []string {
	var nodes []string
	for _, row := range f.rows {
		if is(row) {
			nodes = append(nodes, row.op.Node)
		}
	}
	return nodes
}
