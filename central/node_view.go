package central

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/noderange"
)

// selectNodes returns the names that an expression selects; "" selects all.
func selectNodes(expr string, from noderange.Source) ([]string, error) {
	parsed, err := noderange.Parse(cmp.Or(expr, "all"))
	if err != nil {
		return nil, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	names, err := parsed.From(from)
	if finds(err) {
		return nil, &notSelected{api.Problemf(api.CodeNotFound, "%v", err), err}
	}
	return names, err
}

// finds reports whether an error says that nodes which an expression asks for are not there.
func finds(err error) bool {
	return errors.As(err, new(*noderange.UnknownError)) || errors.As(err, new(*noderange.EmptyError))
}

// notSelected is a Problem that knows which names are meant.
type notSelected struct {
	*api.Problem
	err error
}

// Unwrap has both found.
func (n *notSelected) Unwrap() []error { return []error{n.Problem, n.err} }

func rangesOf(nodes []store.Node) []noderange.Node {
	out := make([]noderange.Node, len(nodes))
	for i, n := range nodes {
		out[i] = noderange.Node{Name: n.Name, Rack: n.Rack, Status: string(n.Status), State: string(n.State), Labels: n.Labels}
	}
	return out
}

// nodesEndpoint lists nodes. Of a page only its own nodes are read.
func (c *Central) nodesEndpoint() endpoint {
	e := query(c, func(r *http.Request) ([]api.Node, error) { return c.listNodes(nil, r) })
	e.query = httpserver.PageQuery
	e.handler = func(w http.ResponseWriter, r *http.Request) {
		out, err := caught(c, func() ([]api.Node, error) { return c.listNodes(w, r) })
		c.answerTo(w, r, out, ended(r, err))
	}
	return e
}

func (c *Central) listNodes(w http.ResponseWriter, r *http.Request) ([]api.Node, error) {
	out := []api.Node{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		names, err := selectWithin(tx, r.URL.Query().Get("select"), tx.Selection())
		if err != nil {
			return err
		}
		if names, err = httpserver.Page(w, r, names, func(name string) string { return name }); err != nil {
			return err
		}
		nodes, err := tx.NodesNamed(names)
		if err != nil {
			return err
		}
		open, err := tx.OpenOpsOn(names)
		out = c.showNodes(inOrder(nodes), open)
		return err
	})
	return out, err
}

// listAlike puts the nodes together that are alike.
func (c *Central) listAlike(r *http.Request) ([]api.NodesAlike, error) {
	var folding api.Folding
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		names, err := selectWithin(tx, r.URL.Query().Get("select"), tx.Selection())
		if err != nil {
			return err
		}
		open, err := tx.OpenOpsOn(names)
		if err != nil {
			return err
		}
		show := c.shower(open)
		return tx.EachNode(names, func(n store.Node) {
			shown := show(n)
			folding.Add(&shown)
		})
	})
	return folding.Groups(), err
}

// showNodes makes nodes as people see them.
func (c *Central) showNodes(nodes []store.Node, open []store.Op) []api.Node {
	show := c.shower(open)
	out := make([]api.Node, len(nodes))
	for i, n := range nodes {
		out[i] = show(n)
	}
	return out
}

// shower makes nodes as people see them now, with the operations that have not ended.
func (c *Central) shower(open []store.Op) func(store.Node) api.Node {
	now := c.cfg.Now()
	ops := map[string][]*store.Op{}
	for i := range open {
		ops[open[i].Node] = append(ops[open[i].Node], &open[i])
	}
	agents := map[string]api.AgentPresence{}
	return func(n store.Node) api.Node {
		if _, ok := agents[n.Agent]; !ok {
			agents[n.Agent] = c.presence(n.Agent)
		}
		out := showNode(n, ops[n.Name], agents[n.Agent], now)
		if out.Lease = showLease(n); out.Lease != nil {
			out.Lease.Until = c.leasedUntil(n, now)
		}
		if note := c.waitsNote(n.WaitsFor, now); note != "" {
			out.Waits, out.WaitsMessage = power.ReasonMoving, note
		}
		return out
	}
}

func showNode(n store.Node, open []*store.Op, agent api.AgentPresence, now time.Time) api.Node {
	desired := power.Effective(n.Status, n.Hold, now)
	m := n.Monitor
	out := api.Node{
		Name: n.Name, Rack: n.Rack, State: n.State, Reach: n.Reach, Stale: agent.Absent() ||
			stale(n.Reading, now), Status: n.Status, Desired: desired.Want,
		DesiredFrom: power.DesiredFrom(n.Status, n.Hold, now), Hold: api.ShowHold(n.Hold, now), Agent: n.Agent, Agents: agentList(n.Agents),
		BMC:         n.BMC,
		Credentials: n.Credentials, Domain: n.Domain,
		Labels:     n.Labels.List(),
		AgentState: agent, Protected: api.ShowProtection(n.Protected),
		Waits: m.Waits, WaitsMessage: m.WaitsMessage, WaitsUntil: m.WaitsUntil, Fault: m.Fault, FaultSince: m.FaultSince,
	}
	if n.BMC == "" {
		out.Reach = power.ReachUnconfigured
	}
	if !n.ObservedAt.IsZero() {
		out.ObservedAt = &n.ObservedAt
	}
	if !n.TriedAt.IsZero() {
		out.TriedAt = &n.TriedAt
	}
	if o := foremost(open); o != nil {
		out.Op = &api.OpBrief{ID: o.ID, Action: o.Action, Verdict: o.Verdict, AskedBy: o.AskedBy, AskedAt: o.AskedAt, Phase: o.Phase}
		if agent.Absent() {
			out.Op.AgentNote = agentIs(n.Agent, agent, now)
		}
		out.Waiting = len(open) - 1
	}
	if note := damagedNote(n); note != "" {
		out.Waits, out.WaitsMessage = power.ReasonDamaged, note
	}
	out.Compare(desired, n.Matched, m.Waits != power.ReasonRack)
	return out
}

// damagedNote says what of a node does not open, and what helps; "" where all does.
func damagedNote(n store.Node) string {
	what := n.Damaged()
	if what == "" {
		return ""
	}
	flags := ""
	if n.DamagedPassword != "" {
		flags += " --password-file FILE"
	}
	if n.DamagedKG != "" {
		flags += " --kg-file FILE"
	}
	return fmt.Sprintf("the %s of node %s does not open, what is in the database was damaged or changed: set it anew (rackpower node add %s "+
		"--rack %s%s --update)", what, n.Name, n.Name, n.Rack, flags)
}

// stale reports whether a reading is old, or of unknown age: central's clock was set
// back since.
func stale(r power.Reading, now time.Time) bool {
	return r.Stale(now, power.DefaultStale) || r.ObservedAt.After(now)
}

// foremost is the operation that a node's row shows: the running one, else the
// first that is accepted, else the first that is taken; one of its own before
// one that joined.
func foremost(open []*store.Op) *store.Op {
	if len(open) == 0 {
		return nil
	}
	rank := func(o *store.Op) int {
		switch {
		case o.Joined != "":
			return 3
		case o.Stage() == store.StageRunning:
			return 0
		case o.Stage() == store.StageWaiting:
			return 1
		default:
			return 2
		}
	}
	return slices.MinFunc(open, func(a, b *store.Op) int { return rank(a) - rank(b) })
}

const defaultReadWait = 15 * time.Second

// readNodes has agents read nodes now, and waits for that.
func (c *Central) readNodes(r *http.Request, in api.ReadNodes) ([]api.Node, error) {
	if in.Wait <= 0 {
		in.Wait = defaultReadWait
	}
	began := c.cfg.Now()
	timer := time.NewTimer(min(in.Wait, maxWait))
	defer timer.Stop()
	if in.Select != "" {
		err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
			in.Names, err = selectWithin(tx, in.Select, tx.Selection())
			return err
		})
		if err != nil || len(in.Names) == 0 {
			return []api.Node{}, err
		}
	}
	w := c.waiting.await(in.Names)
	defer w.leave()
	missing := in.Names // what was not seen to be read; only they are looked at again
	for asked, over := false, false; !over; asked = true {
		var nodes []store.Node
		err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
			nodes, err = find(tx, missing)
			return err
		})
		if err != nil {
			return nil, err
		}
		missing = nil
		for agent, names := range unread(nodes, began, c.cfg.Now()) {
			missing = append(missing, names...)
			if !asked {
				c.sessions.of(agent).want(names, began, began.Add(min(in.Wait, maxWait)))
			}
		}
		if len(missing) == 0 {
			break
		}
		resume, err := idle(r.Context())
		if err != nil {
			return nil, err
		}
		select {
		case <-w.token:
			err = backoff.Sleep(r.Context(), time.Duration(len(missing))*onePause)
		case <-timer.C:
			over = true
		case <-c.stop:
			return nil, errStopping
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		if err := errors.Join(err, resume()); err != nil {
			return nil, err
		}
	}
	nodes, err := c.nodesNamed(r.Context(), in.Names)
	for i, n := range nodes {
		nodes[i].Unread = n.BMC != "" && (n.TriedAt == nil || isUnread(*n.TriedAt, began, c.cfg.Now()))
	}
	return nodes, err
}

// nodesNamed shows nodes as they are now.
func (c *Central) nodesNamed(ctx context.Context, names []string) (out []api.Node, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		nodes, err := find(tx, names)
		if err != nil {
			return err
		}
		open, err := tx.OpenOpsOn(names)
		out = c.showNodes(inOrder(nodes), open)
		return err
	})
	return out, err
}

// isUnread reports whether a node that was tried then was not tried since. A time that
// is still to come is one of a clock that was set back.
func isUnread(tried, since, now time.Time) bool { return tried.Before(since) || tried.After(now) }

// unread returns, by agent, the nodes with a BMC that were not tried since.
func unread(nodes []store.Node, since, now time.Time) map[string][]string {
	pending := map[string][]string{}
	for _, n := range nodes {
		if n.BMC != "" && isUnread(n.TriedAt, since, now) {
			pending[n.Agent] = append(pending[n.Agent], n.Name)
		}
	}
	return pending
}

func inOrder(nodes []store.Node) []store.Node {
	slices.SortFunc(nodes, func(a, b store.Node) int { return noderange.Compare(a.Name, b.Name) })
	return nodes
}

func (c *Central) info(r *http.Request) (api.Info, error) {
	out, err := c.Info(r.Context())
	if err != nil {
		err = fmt.Errorf("cannot describe central: %w", err)
	}
	return out, err
}

// Info describes this central.
func (c *Central) Info(ctx context.Context) (api.Info, error) {
	out := api.Info{ID: c.store.ID(), Version: c.cfg.Version, Schema: store.Schema, Now: time.Now()}
	if c.gossip != nil {
		out.Gossip = c.gossip.Addr()
	}
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		if out.Nodes, err = tx.CountNodes(); err != nil {
			return err
		}
		agents, err := tx.Agents()
		out.Agents = len(agents)
		return err
	})
	return out, err
}
