package central

import (
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
)

// What an agent tells of belongs to it: to a node that it has, or is about to let go
// of, or had when it happened. Anything else is not stored; it is counted, and the audit
// log has the first of it.

const (
	auditDisowned = "not-its-own"
	// disownedShown is how many entries of one agent the audit log gets in disownedEvery.
	disownedShown = 10
	disownedEvery = time.Minute
)

// foreignReport is what an agent reported of a node or an operation that is not its own.
type foreignReport struct{ node, op, what, outcome string }

// disowned counts what an agent told that is not its own.
type disowned struct {
	count int64
	since time.Time // of the entries counted in shown
	shown int
}

// next counts one more, and reports whether it should be shown.
func (d *disowned) next(now time.Time) bool {
	d.count++
	if age := now.Sub(d.since); age >= disownedEvery || age < 0 {
		d.since, d.shown = now, 0
	}
	d.shown++
	return d.shown <= disownedShown
}

// disown counts what an agent told that is not its own, and notes it in the audit log
// and the log, a few times a minute.
func (u *unitOfWork) disown(agent string, t foreignReport) error {
	if t.what == "" {
		return nil
	}
	d := u.c.sessions.of(agent)
	d.mu.Lock()
	show, last := d.disowned.next(u.now), d.disowned.shown == disownedShown
	d.mu.Unlock()
	if !show {
		return nil
	}
	if last {
		t.what += fmt.Sprintf("; more of this agent within %s is only counted", disownedEvery)
	}
	u.c.log.Warn("an agent told of what is not its own", "agent", agent, "node", t.node, "op", t.op, "reason", t.what)
	return u.tx.AddAudit(api.AuditEntry{
		At: u.now, Who: "agent " + agent, What: auditDisowned, Node: t.node, Op: t.op, Outcome: t.outcome,
		Detail: t.what,
	})
}

// has reports whether the agent has the node, or had it until it was moved or removed.
func has(tx *store.Tx, agent, node string) (bool, error) {
	n, found, err := tx.Node(node)
	if err != nil || found && n.Agent == agent {
		return found, err
	}
	return tx.Had(agent, node)
}

// notIts says why the report on an operation is not the agent's, "" if it is. What is known
// of its id, if anything, is o; knowsMore: the agent had it before another one.
func (c *Central) notIts(tx *store.Tx, agent string, w api.OpReport, o store.Op, found, knowsMore bool) (string, error) {
	if found {
		switch {
		case o.Rack != agent && !knowsMore:
			return fmt.Sprintf("operation %s is one of agent %s", o.ID, o.Rack), nil
		case !o.Request().Is(w.Op):
			return fmt.Sprintf("%s of node %s with the id of another operation (%s of node %s)", w.Op.Action, w.Op.Node, o.Action, o.Node), nil
		}
		return "", nil
	}
	if w.Op.Validate() != nil || api.CheckName(w.Op.Node) != nil {
		return "an invalid operation", nil
	}
	its, err := has(tx, agent, w.Op.Node)
	if err != nil || its {
		return "", err
	}
	return fmt.Sprintf("%s of a node that is not the agent's", w.Op.Action), nil
}

func outcomeOf(w api.OpReport) string {
	if w.End == nil {
		return ""
	}
	return string(w.End.Outcome)
}

// otherNode tells of a node that is another agent's, or nobody's.
func otherNode(kind string, n store.Node, found bool, name string) foreignReport {
	if !found {
		return foreignReport{node: name, what: kind + " of a node that is not known"}
	}
	return foreignReport{node: name, what: fmt.Sprintf("%s of a node of agent %s", kind, n.Agent)}
}

// ownBrake leaves the nodes of others out of a brake.
func (u *unitOfWork) ownBrake(agent string, b *api.Brake) (*api.Brake, error) {
	if b == nil {
		return nil, nil
	}
	nodes, err := u.tx.NodesNamed(b.Nodes)
	if err != nil {
		return nil, err
	}
	own := *b
	own.Nodes = slices.Clone(b.Nodes)
	for _, n := range nodes {
		if n.Agent == agent {
			continue
		}
		own.Nodes = slices.DeleteFunc(own.Nodes, func(name string) bool { return name == n.Name })
		if err := u.disown(agent, otherNode("a brake", n, true, n.Name)); err != nil {
			return nil, err
		}
	}
	return &own, nil
}
