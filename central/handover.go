package central

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// A node goes from one agent to another in two steps: the one that has it is told, and
// the next one when that has let go, which is when it acts by an assignment without the
// node and nothing is under way there any more. The same holds for a BMC that a node had:
// it may be given to another node. A person may say that an agent is dead and not to be
// waited for; that is told to the agent when it comes back.
//
//	node add --update --rack r2      the node's agent is r2, and it waits for r1
//	r1 acts by an assignment without
//	the node, nothing is under way   it is r2's: assigned, with the requests taken meanwhile
//	node add --update --force        likewise, without r1

const (
	auditLetGo = "let-go"
	auditForce = "force"
)

// leaves notes that the node's agent has to let go of it, or of the BMC that it had.
func (u *unitOfWork) leaves(n store.Node) error {
	if n.WaitsFor != "" {
		return nil // the agent was not given it yet
	}
	a, found, err := u.tx.Agent(n.Agent)
	if err != nil || !found || a.JournalID == "" {
		return err // it was never there
	}
	rev, err := u.rev(n.Agent)
	if err != nil {
		return err
	}
	u.tx.OnCommit(func() { u.c.sessions.of(n.Agent).letsGo(true) })
	u.settled, u.looked = false, true
	return u.tx.AddLeaving(store.Leaving{
		Agent: n.Agent, Node: n.Name, Part: n.Part, At: n.At, Rev: rev, Since: u.now, Leased: u.needsLease(n, a),
	})
}

// waits fills in whom a node waits for. What its own agent was to let go of is its own again
// once it waits for nobody.
func (u *unitOfWork) waits(n *store.Node) error {
	if !u.looked {
		some, err := u.tx.AnyLeaving()
		if err != nil {
			return err
		}
		u.settled, u.looked = !some, true
	}
	if u.settled && n.WaitsFor == "" {
		return nil
	}
	holders, err := u.tx.Holders(*n)
	if err != nil {
		return err
	}
	if n.WaitsFor = agentsOf(holders); n.WaitsFor == "" {
		if err := u.tx.DropLeaving(n.Agent, n.Name, n.Part); err != nil {
			return err
		}
	}
	name, waits := n.Name, n.WaitsFor
	u.tx.OnCommit(func() { u.c.moving.set(name, waits) })
	return nil
}

func agentsOf(all []store.Leaving) string {
	var names []string
	for _, l := range all {
		names = append(names, l.Agent)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// hand gives nodes to their agents that nobody has to let go of any more, with the
// requests that were taken meanwhile.
func (u *unitOfWork) hand() error {
	nodes, err := u.tx.NodesWaiting()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		next := n
		if err := u.waits(&next); err != nil {
			return err
		}
		if next.WaitsFor == n.WaitsFor {
			continue
		}
		if err := u.save(n, next); err != nil {
			return err
		}
	}
	return nil
}

// requeue has the requests delivered that were taken, or passed over, while the node waited.
func (u *unitOfWork) requeue(n store.Node) error {
	cursor := u.tx.NextRev()
	if err := u.tx.RequeueOps(n.Name, n.Agent, cursor); err != nil {
		return err
	}
	u.marks.raise(n.Agent, cursor)
	u.marks.note(0)
	return nil
}

// force has nobody wait for other agents that have to let go of the nodes.
func (u *unitOfWork) force(names []string) (forced int, err error) {
	nodes, err := u.tx.NodesNamed(names)
	if err != nil {
		return 0, err
	}
	for _, n := range nodes {
		holders, err := u.tx.Holders(n)
		if err != nil {
			return forced, err
		}
		for _, l := range holders {
			if err := u.tx.ForceLeaving(l, fmt.Sprintf("%s at %s", u.who, u.now.UTC().Format(time.RFC3339))); err != nil {
				return forced, err
			}
			detail := fmt.Sprintf("given to agent %s although agent %s has not let go: %s was declared dead", n.Agent, l.Agent, l.Agent)
			if err := u.audit(auditForce, n.Name, "", detail); err != nil {
				return forced, err
			}
		}
		if len(holders) > 0 {
			forced++
		}
	}
	return forced, u.hand()
}

// forceAgent has nobody wait for an agent that is gone for good.
func (u *unitOfWork) forceAgent(name string) error {
	all, err := u.tx.LeavingOf(name)
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.Forced != "" || l.Leased { // which ends by itself
			continue
		}
		if err := u.tx.ForceLeaving(l, fmt.Sprintf("%s at %s", u.who, u.now.UTC().Format(time.RFC3339))); err != nil {
			return err
		}
	}
	return u.hand()
}

// lettingGo takes an agent's report on what it has let go of: it acts by the assignment of
// rev, and nothing is under way but on the nodes that it holds back.
func (u *unitOfWork) lettingGo(agent string, rev int64, holdsBack []string) error {
	all, err := u.tx.LeavingOf(agent)
	if err != nil {
		return err
	}
	left := 0
	for _, l := range all {
		if l.Rev > rev || slices.Contains(holdsBack, l.Node) {
			left++
			continue
		}
		if err := u.tx.DropLeaving(l.Agent, l.Node, l.Part); err != nil {
			return err
		}
		detail := ""
		if l.Forced != "" && !l.Leased {
			detail = fmt.Sprintf("only now: it was declared dead by %s, and may have acted on the node since", l.Forced)
		}
		if err := u.audit(auditLetGo, l.Node, "", detail); err != nil {
			return err
		}
	}
	if left < len(all) {
		if err := u.hand(); err != nil {
			return err
		}
	}
	u.tx.OnCommit(func() { u.c.sessions.of(agent).letsGo(left > 0) })
	return nil
}

// applyLettingGo is lettingGo for a poll.
func (c *Central) applyLettingGo(r *http.Request, d *agentSession, in api.Poll) error {
	if !d.leaving() || in.AppliedRev == 0 || in.Database != c.store.Database() {
		return nil
	}
	return c.write(r.Context(), c.cfg.Now(), "agent "+d.name, func(u *unitOfWork) error {
		if _, err := checkSession(u.tx, d.name, in.Session); err != nil {
			return err
		}
		return u.lettingGo(d.name, in.AppliedRev, in.Unreleased)
	})
}

// letsGo notes whether the agent has to let go of something.
func (d *agentSession) letsGo(some bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lets = some
}

func (d *agentSession) leaving() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lets
}

// waitsNote says whom a node waits for, "" for nobody.
func (c *Central) waitsNote(waitsFor string, now time.Time) string {
	if waitsFor == "" {
		return ""
	}
	var parts []string
	for agent := range strings.SplitSeq(waitsFor, ", ") {
		text := "agent " + agent + " has to let go of it first"
		if p := c.sessions.of(agent).presence(now, c.cfg.Away); p.Absent() {
			text = agentIs(agent, p.AgentPresence, now) + " and has to let go of it first"
		}
		parts = append(parts, text)
	}
	return "the node is being moved: " + strings.Join(parts, "; ") + " (if that one is dead for certain: rackpower node add --update --force)"
}

// forcedAway lists what the agent had to let go of and was not waited for.
func forcedAway(tx *store.Tx, agent string) ([]api.ForcedMove, error) {
	all, err := tx.LeavingOf(agent)
	var out []api.ForcedMove
	for _, l := range all {
		if l.Forced != "" && !l.Leased {
			out = append(out, api.ForcedMove{Node: l.Node, By: l.Forced})
		}
	}
	return out, err
}

// moveOps takes the outstanding requests of a node along that a person moves away from an
// agent that is dead: what had not left goes to the next one, of the rest nobody knows.
func (u *unitOfWork) moveOps(n store.Node, to string) error {
	if err := u.tx.EnsureAgent(to); err != nil { // it may never have been heard of
		return err
	}
	open, err := u.tx.OpenOpsOn([]string{n.Name})
	if err != nil {
		return err
	}
	for i := range open {
		o := &open[i]
		if o.Stage() == store.StageTaken && !o.Delivered {
			continue
		}
		detail := fmt.Sprintf("agent %s had it and was declared dead by %s", o.Rack, u.who)
		end := power.End{Outcome: power.Indeterminate, Reason: power.ReasonLost, Detail: detail, At: u.now}
		if err := u.end(o, end); err != nil {
			return err
		}
	}
	return errors.Join(u.tx.MoveOps(n.Name, n.Agent, to))
}

// handOver says of nodes that were added or moved whom they wait for, and has nobody wait
// where a person said so.
func (u *unitOfWork) handOver(specs []api.NodeSpec, out *api.AddedNodes) (notes []string, err error) {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	if u.forced {
		forced, err := u.force(names)
		if by := forced - out.Changed - out.Added; by > 0 && by <= out.Unchanged {
			out.Unchanged, out.Changed = out.Unchanged-by, out.Changed+by
		}
		return nil, err
	}
	nodes, err := u.tx.NodesWaiting()
	slices.Sort(names)
	for _, n := range nodes {
		if _, named := slices.BinarySearch(names, n.Name); !named {
			continue
		}
		if note := u.c.waitsNote(n.WaitsFor, u.now); note != "" {
			notes = append(notes, "node "+n.Name+": "+note)
		}
	}
	return notes, err
}

// leaveNote says that a removed node's agent is away and does not know, "" if it is not.
func (c *Central) leaveNote(node, agent string, now time.Time) string {
	p := c.sessions.of(agent).presence(now, c.cfg.Away)
	if !p.Absent() || p.State == api.AgentNever {
		return ""
	}
	return fmt.Sprintf("node %s: %s: it goes on with the node until it hears of this", node, agentIs(agent, p.AgentPresence, now))
}
