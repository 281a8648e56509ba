package central

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// unitOfWork is one job of the store's writer. All that central changes goes through it:
// it knows the transaction, who asks and when, and collects which agents and waiting
// requests are to be woken after the commit. finish ends it.
type unitOfWork struct {
	c    *Central
	tx   *store.Tx
	now  time.Time
	who  string
	revs map[string]int64 // of the agents concerned, each raised once
	// domains holds, for each power domain whose nodes change, the agents that had
	// nodes in it before.
	domains map[string][]string
	// shared are the agents of nodes that share their BMC in another way after this job.
	shared   map[string]bool
	marks    marks             // what waiting requests are woken for
	leaving  map[string]int    // requests that leave at once, by agent; see leavesNow
	open     map[string]int    // operations of agents that have not ended; see full
	forced   bool              // agents that nodes move away from are dead
	agreed   bool              // a person saw which nodes move away from their agents
	cuts     cuts              // nodes that lose power
	machines map[string]string // host names by agent, as far as they were read
	racks    map[string]string // agents of the nodes of racks, as far as they were read
	outdated string            // an agent that says that it knows no leases
	ensured  map[string]bool   // agents that nodes were given to
	apart    bool              // items of a report are taken apart from one another
	// settled: nobody has to let go of anything, unless that comes up in this job.
	settled, looked bool
	// approved is set once a second person has approved the job.
	approved bool
}

func (c *Central) unitOfWork(tx *store.Tx, now time.Time, who string) *unitOfWork {
	return &unitOfWork{
		c: c, tx: tx, now: now, who: who, revs: map[string]int64{}, domains: map[string][]string{}, shared: map[string]bool{},
		open: map[string]int{}, leaving: map[string]int{}, marks: marks{}, machines: map[string]string{}, ensured: map[string]bool{},
		racks: map[string]string{},
	}
}

// write has one job of the store's writer change things as who, from the time now on.
func (c *Central) write(ctx context.Context, now time.Time, who string, job func(*unitOfWork) error) error {
	return c.store.Write(ctx, func(tx *store.Tx) error {
		u := c.unitOfWork(tx, now, who)
		if err := job(u); err != nil {
			return err
		}
		if err := u.approval(); err != nil {
			return err
		}
		return u.finish()
	})
}

// rev is the revision of the agent's assignment after this job.
func (u *unitOfWork) rev(agent string) (int64, error) {
	if rev, ok := u.revs[agent]; ok {
		return rev, nil
	}
	rev, err := u.tx.RaiseRev(agent)
	u.revs[agent] = rev
	return rev, err
}

func (u *unitOfWork) audit(what, node, why, detail string) error {
	return u.tx.AddAudit(api.AuditEntry{At: u.now, Who: u.who, What: what, Node: node, Why: why, Detail: detail})
}

// save stores a node that was old and is next, and has its agent told.
func (u *unitOfWork) save(old, next store.Node) error {
	rev, err := u.rev(next.Agent)
	if err != nil {
		return err
	}
	next.Rev = rev
	if err := u.waits(&next); err != nil {
		return err
	}
	if err := u.desire(old, &next); err != nil {
		return err
	}
	if err := u.losesByDesire(old, next); err != nil {
		return err
	}
	if err := u.tx.PutNode(next); err != nil {
		return err
	}
	given := old.WaitsFor != "" && next.WaitsFor == ""
	if next.Epoch > 0 && next.WaitsFor == "" && (given || old.Agent != next.Agent) {
		if err := u.takeOver(next); err != nil {
			return err
		}
		given = true
	}
	if given {
		return u.requeue(next)
	}
	return nil
}

// desire forgets what was said of a node when something else was desired of it.
func (u *unitOfWork) desire(old store.Node, next *store.Node) error {
	moved := old.Agent != "" && old.Agent != next.Agent
	is := standing(*next)
	if standing(old) == is && !moved {
		return nil
	}
	next.Matched = false
	if moved {
		next.Monitor, next.BreakerOpen = api.NodeMonitor{}, false
	}
	if !next.Drifting || !is.Enforces() && is.DiffersFrom(next.State) {
		return nil
	}
	next.Drifting = false
	return u.tx.AddAudit(api.AuditEntry{
		At: u.now, Who: "central", What: auditDriftOver, Node: next.Name, Why: string(power.ReasonDesired),
		Detail: fmt.Sprintf("%s; what is desired of it changed to %s", next.State, is.Want),
	})
}

// standing is what is desired of a node until its hold is swept away: that is when
// central's view of it changes, and with it the assignment.
func standing(n store.Node) power.Desired {
	h := n.Hold
	h.Until = time.Time{}
	return power.Effective(n.Status, h, time.Time{})
}

// joins notes a power domain that gains or loses a node in this job. It must be
// called before that.
func (u *unitOfWork) joins(domain string) error {
	if _, known := u.domains[domain]; known || domain == "" {
		return nil
	}
	agents, err := u.tx.AgentsIn(domain)
	u.domains[domain] = agents
	return err
}

// tellRack has the agent told the settings of its rack and the limits of its power
// domains.
func (u *unitOfWork) tellRack(agent string) error {
	rev, err := u.rev(agent)
	if err != nil {
		return err
	}
	return u.tx.TellRack(agent, rev)
}

// finish has all agents of a power domain told when others share it now, and wakes
// the agents concerned after the commit.
func (u *unitOfWork) finish() error {
	for domain, before := range u.domains {
		after, err := u.tx.AgentsIn(domain)
		if err != nil {
			return err
		}
		if slices.Equal(before, after) {
			continue
		}
		for _, agent := range slices.Concat(before, after) {
			if err := u.tellRack(agent); err != nil {
				return err
			}
		}
	}
	for agent := range u.shared {
		if err := u.bmcAlarm(agent); err != nil {
			return err
		}
	}
	u.announce()
	if len(u.revs) == 0 {
		return nil
	}
	c, revs := u.c, u.revs
	u.tx.OnCommit(func() {
		for agent, rev := range revs {
			d := c.sessions.of(agent)
			d.update(func() { d.rev = max(d.rev, rev) })
		}
	})
	return nil
}
