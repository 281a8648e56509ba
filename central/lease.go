package central

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// A node may list several agents that can reach it. It is one agent's at a time, under a lease
// that the agent renews with its polls (rules 9, docs/decisions/0015-leases.md):
//
//	a poll comes                  central looks, in the database, whether the agent's assignment is
//	                              still the one that it holds; if so it has the lease until leaseLasts
//	                              after it sent that poll, by its own clock
//	the agent polls no more       after leaseSilent the node's agent is another one, which waits as in
//	                              any hand-over (handover.go)
//	leaseRunsOut after that       the lease is over whatever the agent heard, since no poll that came
//	                              later was answered with one: the next agent has the node
//
// So central keeps no record of the leases that it gave, and does not need one after a restart.

const (
	// leaseLasts is for how long a lease is given.
	leaseLasts = 12 * time.Second
	// leaseMargin is what the next agent waits beside the drift of the clocks.
	leaseMargin = time.Second
	// leaseRunsOut is after how long by central's clock a lease that was given is over by the
	// clock of any agent.
	leaseRunsOut = leaseLasts + leaseLasts*2*api.LeaseDrift/1000 + leaseMargin
	// leaseSilent is after how long without a poll an agent's nodes go to others.
	leaseSilent = 5 * time.Second
	// leaseReturns is how long an agent must have polled before it is given nodes again that
	// prefer it.
	leaseReturns = 5 * time.Minute
	leasesEvery  = 500 * time.Millisecond
	// leasesAtOnce bounds the nodes that one job moves.
	leasesAtOnce = 200
)

const (
	auditAssign    = "assign"
	auditLeaseOver = "lease-over"
	auditHanded    = "handed-over"
	auditDrain     = "drain"
	auditUndrain   = "drain-over"
)

// leases is what is kept in memory of leases. None of it is needed for safety but from.
type leases struct {
	any atomic.Bool // some node is under one
	// look has all nodes under a lease be looked at; else those of agents that went.
	look atomic.Bool

	mu    sync.Mutex
	from  time.Duration            // before that no lease is given, and none is taken for silent
	since map[string]time.Duration // by what an agent has to let go of: when that was first seen
	state string                   // of the agents, when nodes were last looked at
	last  time.Duration            // when assignLeased last ran
}

// start begins a process's time, or that of another state of the database: leases of before may be
// held, of which this one knows nothing.
func (l *leases) start(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from, l.since = now+leaseRunsOut, map[string]time.Duration{}
	l.look.Store(true)
}

func (l *leases) given(now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now >= l.from
}

// ranOut lists what of these has been let go of since the lease on it is over.
func (l *leases) ranOut(all []store.Leaving, now time.Duration) (over []store.Leaving) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := map[string]time.Duration{}
	for _, x := range all {
		key := fmt.Sprintf("%s %s %s %d", x.Agent, x.Node, x.Part, x.Rev)
		at, seen := l.since[key]
		if !seen {
			at = now
		}
		since[key] = at
		if now-at >= leaseRunsOut {
			over = append(over, x)
		}
	}
	l.since = since
	return over
}

// leaseFor answers a poll that asks for a lease: for how long, and what the agent compares its
// clock with. It must be called before anything that the answer says is read.
func (c *Central) leaseFor(ctx context.Context, d *agentSession, in api.Poll) (time.Duration, error) {
	if !in.Lease {
		return 0, nil
	}
	now := c.monotonic()
	d.mu.Lock()
	d.speaks, d.greets = max(d.speaks, api.ProtocolLease), true
	may := now >= d.leaseFrom
	d.mu.Unlock()
	if !may || !c.leases.any.Load() || !c.leases.given(now) || in.Database != c.store.Database() {
		return 0, nil
	}
	holds := false
	err := c.store.View(ctx, func(tx *store.Tx) error {
		a, err := checkSession(tx, d.name, in.Session)
		holds = a.Rev == in.Rev
		return err
	})
	if err != nil || !holds {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaseUntil = c.cfg.Now().Add(leaseLasts)
	return leaseLasts, nil
}

// manageLeases frees what leases ran out on, and gives nodes to the agents that should have them.
func (c *Central) manageLeases(ctx context.Context) {
	err := c.freeLeased(ctx)
	if err == nil {
		err = c.assignLeased(ctx)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		c.log.Error("cannot assign nodes that several agents can reach", "err", err)
	}
}

// freeLeased has nobody wait any more for agents whose lease has run out, or whose process has
// said that it ends.
func (c *Central) freeLeased(ctx context.Context) error {
	var over []store.Leaving
	err := c.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Leased()
		if err != nil || len(all) == 0 {
			return err
		}
		over = c.leases.ranOut(all, c.monotonic())
		for _, l := range all {
			a, _, err := tx.Agent(l.Agent)
			if err != nil {
				return err
			}
			if a.Run == "" && !slices.Contains(over, l) {
				over = append(over, l)
			}
		}
		return nil
	})
	if err != nil || len(over) == 0 {
		return err
	}
	return c.write(ctx, c.cfg.Now(), "central", func(u *unitOfWork) error {
		for _, l := range over {
			still, err := u.tx.LeavingOf(l.Agent)
			if err != nil {
				return err
			}
			if !slices.Contains(still, l) {
				continue // it confirmed meanwhile that it let go
			}
			if err := u.tx.ForceLeaving(l, "the end of its lease at "+u.now.UTC().Format(time.RFC3339)); err != nil {
				return err
			}
			if err := u.audit(auditLeaseOver, l.Node, "", fmt.Sprintf("the lease of agent %s has run out", l.Agent)); err != nil {
				return err
			}
		}
		return u.hand()
	})
}

// waitsForLease has the agent's process given no lease before a time of central's monotonic clock.
func (d *agentSession) waitsForLease(until time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaseFrom = until
}

// fitness says whether an agent can be given nodes.
type fitness struct {
	not    string // why it cannot; "": it can
	silent bool   // since it does not poll: what is under way there is not waited for
	steady bool   // it has polled for long
}

func (c *Central) fitness(a store.Agent) fitness {
	d, now := c.sessions.of(a.Name), c.cfg.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	lasts := leaseSilent
	if d.polls > 0 {
		lasts += maxWait // a poll that waits
	}
	switch silent := now.Sub(d.polled); {
	case d.speaks < api.ProtocolLease && d.greets:
		return fitness{not: "is of an older version, which knows no leases"}
	case d.polled.IsZero():
		return fitness{not: "was never seen", silent: true}
	case silent >= lasts || d.session == "" || d.gone != "" && d.polled.Before(d.goneAt):
		return fitness{not: "is silent since " + power.At(d.polled), silent: true}
	case a.Drained.On():
		return fitness{not: "is drained by " + a.Drained.By}
	case !d.greets:
		return fitness{not: "has not polled yet since central started"}
	}
	return fitness{steady: now.Sub(d.polling) >= leaseReturns}
}

// choose says which of its agents, in the order of preference, a node should have, and why if that is
// another one than it has.
func choose(agents []string, has string, fit func(agent string) fitness) (agent, why string) {
	best := slices.IndexFunc(agents, func(a string) bool { return fit(a).not == "" })
	at := slices.Index(agents, has)
	switch {
	case len(agents) == 1 && at < 0:
		return agents[0], "no other agent can reach it"
	case best < 0 || best == at:
		return has, ""
	case at < 0:
		return agents[best], fmt.Sprintf("agent %s is not among those that can reach it", has)
	case fit(has).not != "":
		return agents[best], fmt.Sprintf("agent %s %s", has, fit(has).not)
	case best < at && fit(agents[best]).steady:
		return agents[best], fmt.Sprintf("agent %s is preferred and polls again since more than %s", agents[best], leaseReturns)
	}
	return has, ""
}

// assignLeased gives nodes that several agents can reach to those that should have them. It looks
// at all of them when an agent came or went, or one of them changed.
func (c *Central) assignLeased(ctx context.Context) error {
	now := c.monotonic()
	c.leases.goesOn(now)
	if !c.leases.any.Load() || !c.leases.given(now) {
		return nil
	}
	fit := map[string]fitness{}
	var due []string
	again := false
	err := c.store.View(ctx, func(tx *store.Tx) error {
		agents, err := tx.Agents()
		if err != nil {
			return err
		}
		var state strings.Builder
		for _, a := range agents {
			f := c.fitness(a)
			fit[a.Name] = f
			fmt.Fprintf(&state, "%s %s %t\n", a.Name, f.not, f.steady)
		}
		if changed := c.leases.changed(state.String()); !c.leases.look.Swap(false) && !changed {
			return nil
		}
		nodes, err := tx.AllLeased()
		if err != nil {
			return err
		}
		u := c.unitOfWork(tx, c.cfg.Now(), "central")
		for _, n := range nodes {
			w, err := u.shouldGo(n, fit)
			if err != nil {
				return err
			}
			again = again || w.busy
			if w.to != n.Agent && !w.busy || w.alone {
				due = append(due, n.Name)
			}
		}
		return nil
	})
	for names := range slices.Chunk(due, leasesAtOnce) {
		if err == nil {
			err = c.write(ctx, c.cfg.Now(), "central", func(u *unitOfWork) error { return u.giveDue(names, fit) })
		}
	}
	if err != nil || again {
		c.leases.look.Store(true)
	}
	return err
}

// goesOn notes that leases are looked after. A process that was stopped for a while heard no agent
// meanwhile, and takes none for silent because of that.
func (l *leases) goesOn(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last > 0 && now-l.last > leaseSilent/2 {
		l.from = max(l.from, now+leaseSilent)
	}
	l.last = now
}

// changed notes the state of the agents, and reports whether it is another one than before.
func (l *leases) changed(state string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.state
	l.state = state
	return was != state
}

// whither is where a node that several agents can reach should go.
type whither struct {
	to, why string
	busy    bool // something is under way, which ends first
	alone   bool // its agent is the only one that can reach it: it needs no lease
}

// shouldGo says which agent a node should have.
func (u *unitOfWork) shouldGo(n store.Node, fit map[string]fitness) (w whither, err error) {
	agents, err := u.agentsOf(n)
	if err != nil {
		return w, err
	}
	here := map[string]fitness{}
	for _, a := range append(slices.Clone(agents), n.Agent) {
		f, known := fit[a]
		if !known {
			f = fitness{not: "is not known", silent: true}
		}
		host, err := u.machine(a)
		if err != nil {
			return w, err
		}
		if f.not == "" && isMachine(n.Name, host) {
			f.not = "runs on it"
		}
		here[a] = f
	}
	w.to, w.why = choose(agents, n.Agent, func(a string) fitness { return here[a] })
	w.alone = w.to == n.Agent && len(agents) == 1
	if w.to == n.Agent || here[n.Agent].silent {
		return w, nil
	}
	open, err := u.tx.FirstOpenOn(n.Name, 1)
	w.busy = len(open) > 0
	return w, err
}

// giveDue gives nodes to the agents that should have them.
func (u *unitOfWork) giveDue(names []string, fit map[string]fitness) error {
	nodes, err := u.tx.NodesNamed(names)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		w, err := u.shouldGo(n, fit)
		switch {
		case err != nil:
			return err
		case n.Epoch == 0 || w.busy:
		case w.alone:
			next := n
			next.Epoch, next.Had = 0, store.Had{}
			err = u.save(n, next)
		case w.to != n.Agent:
			err = u.give(n, w.to, w.why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// give gives a node that several agents can reach to another one of them, which has it when the one
// before has let go or its lease has run out.
func (u *unitOfWork) give(n store.Node, to, why string) error {
	next := n
	next.Agent = to
	identify(&next)
	if err := errors.Join(u.tx.EnsureAgent(to), u.joins(n.Domain)); err != nil {
		return err
	}
	if n.Agent != "" {
		if err := errors.Join(u.forget(n.Agent, n.Name, true), u.leaves(n)); err != nil {
			return err
		}
	}
	if err := u.leased(n, &next, why); err != nil {
		return err
	}
	if err := u.save(n, next); err != nil {
		return err
	}
	return u.audit(auditAssign, n.Name, "", fmt.Sprintf("agent %s (epoch %d), was %s: %s", to, next.Epoch, cmp.Or(n.Agent, "none"), why))
}

// leased gives a node that several agents can reach, and that is another one's than before or
// needed no lease, its epoch.
func (u *unitOfWork) leased(old store.Node, next *store.Node, why string) error {
	agents, err := u.agentsOf(*next)
	if err != nil {
		return err
	}
	if next.Agent != "" && len(agents) == 1 && agents[0] == next.Agent {
		next.Epoch, next.Had = 0, store.Had{}
		return nil
	}
	if next.Agent == "" || old.Epoch > 0 && old.Agent == next.Agent {
		return nil
	}
	if next.Epoch, err = u.tx.NextEpoch(); err != nil {
		return err
	}
	next.Had = store.Had{Since: u.now.UTC(), Why: why}
	if old.Agent != next.Agent {
		next.Had.From = old.Agent
	}
	if next.Had.Rev, err = u.unleased(old, next.Agent); err != nil {
		return err
	}
	u.tx.OnCommit(func() {
		u.c.leases.any.Store(true)
		u.c.leases.look.Store(true)
	})
	return nil
}

// unleased is the revision that an agent must hold before it surely needs a lease for the node that
// it is given; 0: it surely does, since it does not have the node without.
func (u *unitOfWork) unleased(old store.Node, agent string) (int64, error) {
	without := old.Agent == agent && old.Epoch == 0
	all, err := u.tx.LeavingOf(agent)
	for _, l := range all {
		without = without || l.Node == old.Name && !l.Leased
	}
	if err != nil || !without {
		return 0, err
	}
	return u.rev(agent)
}

// needsLease reports whether the agent acts on its node under a lease only, for certain.
func (u *unitOfWork) needsLease(n store.Node, a store.Agent) bool {
	d := u.c.sessions.of(a.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.Epoch > 0 && max(a.RevSeen, d.revSeen) >= n.Had.Rev && a.Name != u.outdated
}

// agentsOf are the agents that can reach a node, in the order of preference.
func (u *unitOfWork) agentsOf(n store.Node) ([]string, error) {
	list := n.Agents
	if list == "" {
		known, ok := u.racks[n.Rack]
		if !ok {
			a, found, err := u.tx.Agent(n.Rack)
			if err != nil {
				return nil, err
			}
			if found {
				s, err := a.Settings()
				if err != nil {
					return nil, err
				}
				known = strings.Join(s.Agents, ",")
			}
			u.racks[n.Rack] = known
		}
		list = cmp.Or(known, n.Rack)
	}
	return strings.Split(list, ","), nil
}

// firstAgent is the agent that a node has after a person changed it: the one that it has, if that can
// reach it, else the one that is preferred.
func (u *unitOfWork) firstAgent(n store.Node) (string, error) {
	agents, err := u.agentsOf(n)
	if err != nil || n.Epoch > 0 && slices.Contains(agents, n.Agent) {
		return n.Agent, err
	}
	return agents[0], nil
}

// takeOver gives the operations of a node that has another agent now to that one: what is harmless to
// repeat goes on there. A once-operation that the agent before may have begun ends indeterminate.
func (u *unitOfWork) takeOver(n store.Node) error {
	open, err := u.tx.OpenOpsOn([]string{n.Name})
	if err != nil {
		return err
	}
	for _, o := range open {
		if o.Rack == n.Agent {
			continue
		}
		if o, _, err = u.tx.Op(o.ID); err != nil || o.Stage() == store.StageEnded { // with the one that it joined
			if err != nil {
				return err
			}
			continue
		}
		switch begun := o.Stage() != store.StageTaken || o.Delivered; {
		case !begun:
			err = u.tx.MoveOps(n.Name, o.Rack, n.Agent)
		case o.Action.Once() || o.CancelBy != "":
			err = u.end(&o, power.End{
				Outcome: power.Indeterminate, Reason: power.ReasonLost, At: u.now,
				Detail: fmt.Sprintf("agent %s had it and has the node no more: it may have been carried out, and is not repeated", o.Rack),
			})
		default:
			err = u.handOp(o, n.Agent)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unitOfWork) handOp(o store.Op, to string) error {
	from := o.Rack
	o.Phase, o.Delivered, o.Verdict, o.Why, o.Joined, o.JournalID = api.PhaseTaken, false, "", "", "", ""
	o.StartedAt, o.Attempts, o.LSN = nil, 0, 0
	o.Message = fmt.Sprintf("agent %s has taken it over from agent %s", to, from)
	if err := u.tx.HandOp(&o, to, u.tx.NextRev()); err != nil {
		return err
	}
	u.marks.raise(to, o.Cursor)
	u.marks.note(o.Rev)
	e := entry(&o, auditHanded, u.who, u.now)
	e.Detail = o.Message
	return u.opEvent(&o, e)
}

// ofFormer takes what an agent says of an operation whose node went to another one. It counts where it
// is the first end that is known: that it succeeded, or any where nobody knew what became of it. Else
// what the next agent makes of the operation counts. done: nothing else
// is made of it. knows: it is that end.
func (u *unitOfWork) ofFormer(agent string, w api.OpReport, o *store.Op, found bool) (done, knows bool, err error) {
	if !found || !o.Request().Is(w.Op) {
		return false, false, nil
	}
	if o.Rack != agent {
		had, err := u.tx.Had(agent, o.Node)
		return had && !u.tells(o, w), had && u.tells(o, w), err
	}
	if w.End == nil || w.End.Reason != power.ReasonTakenOver || o.Stage() == store.StageEnded {
		return false, false, nil
	}
	n, known, err := u.tx.Node(o.Node)
	if err != nil || !known || n.Agent == agent || n.Epoch == 0 {
		return false, false, err
	}
	if w.End.Attempts == 0 { // it sent nothing
		o.Phase, o.Delivered, o.Joined = api.PhaseTaken, false, ""
		if err := u.tx.SaveOp(o); err != nil {
			return true, false, err
		}
		u.marks.note(o.Rev)
	}
	if n.WaitsFor != "" {
		return true, false, nil // it goes on when the node has its next agent
	}
	return true, false, errors.Join(u.takeOver(n), u.requeue(n))
}

// tells reports whether the former agent of an operation knows how it ended, and the present one does
// not.
func (u *unitOfWork) tells(o *store.Op, w api.OpReport) bool {
	switch {
	case w.End == nil || w.End.Reason == power.ReasonTakenOver || w.End.Outcome == power.Indeterminate:
		return false
	case lost(o):
		return true
	}
	return o.Handed != "" && o.Stage() != store.StageEnded && w.End.Outcome == power.Succeeded
}

// lost reports whether an operation has ended because nobody knew what became of it.
func lost(o *store.Op) bool {
	return o.Stage() == store.StageEnded && o.Outcome == power.Indeterminate && o.Why == power.ReasonLost
}

// outgrown takes nodes that need a lease from an agent of an older version, which knows of none: it
// is waited for until it says that it has let go.
func (u *unitOfWork) outgrown(agent string) error {
	u.outdated = agent
	nodes, err := u.tx.LeasedAt([]string{agent})
	for _, n := range nodes {
		if err == nil {
			err = u.give(n, "", fmt.Sprintf("agent %s is of an older version, which knows no leases", agent))
		}
	}
	return err
}

// drainAgent has an agent without nodes that others can reach, or given nodes again.
func (c *Central) drainAgent(r *http.Request, in api.DrainAgent) (api.DrainedAgent, error) {
	name, who, now := r.PathValue("name"), askedBy(r, in.AskedBy), c.cfg.Now()
	out := api.DrainedAgent{Name: name, Moving: []string{}, Staying: []string{}}
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		a, found, err := u.tx.Agent(name)
		if err != nil {
			return err
		}
		if !found || name == "" {
			return api.Problemf(api.CodeNotFound, "no such agent: %s", name)
		}
		if a.Drained.On() != in.Resume {
			return u.stays(a, in, &out)
		}
		var next api.Drained
		what := auditUndrain
		if !in.Resume {
			next, what = api.Drained{By: who, Reason: in.Reason, Since: now.UTC().Round(0)}, auditDrain
		}
		a.Drained = next
		if err := errors.Join(u.tx.Drain(name, next), u.audit(what, "", in.Reason, "agent "+name)); err != nil {
			return err
		}
		return u.stays(a, in, &out)
	})
	return out, err
}

// stays fills in which nodes go and which stay when the agent is drained.
func (u *unitOfWork) stays(drained store.Agent, in api.DrainAgent, out *api.DrainedAgent) error {
	if in.Resume {
		return nil
	}
	agents, err := u.tx.Agents()
	if err != nil {
		return err
	}
	fit := map[string]fitness{}
	for _, a := range agents {
		if a.Name == drained.Name {
			a.Drained = drained.Drained
		}
		fit[a.Name] = u.c.fitness(a)
	}
	nodes, err := u.tx.NodesSince(drained.Name, 0)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		w := whither{to: n.Agent}
		if n.Epoch > 0 {
			if w, err = u.shouldGo(n, fit); err != nil {
				return err
			}
		}
		if w.to != n.Agent {
			out.Moving = append(out.Moving, n.Name)
		} else {
			out.Staying = append(out.Staying, n.Name)
		}
	}
	return nil
}

// instead is the agent that gets the node of one that is gone for good: one that is there, else any
// other that can reach it; "": none can.
func (u *unitOfWork) instead(n store.Node, gone string) (string, error) {
	agents, err := u.agentsOf(n)
	if err != nil || n.Epoch == 0 {
		return "", err
	}
	others := slices.DeleteFunc(agents, func(a string) bool { return a == gone })
	for _, name := range others {
		a, found, err := u.tx.Agent(name)
		if err != nil {
			return "", err
		}
		if found && u.c.fitness(a).not == "" {
			return name, nil
		}
	}
	return strings.Join(others[:min(1, len(others))], ""), nil
}

// leasesOfRack gives the nodes of a rack leases, or takes them away, whose other agents changed. Who
// should have them is seen to afterwards.
func (u *unitOfWork) leasesOfRack(rack string) error {
	delete(u.racks, rack)
	nodes, err := u.tx.NodesAsRack(rack)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		next := n
		if err := u.leased(n, &next, "a person said so"); err != nil {
			return err
		}
		if next.Epoch != n.Epoch {
			if err := u.save(n, next); err != nil {
				return err
			}
		}
	}
	u.tx.OnCommit(func() { u.c.leases.look.Store(true) })
	return nil
}

// agentList is a stored list of agents.
func agentList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// showLease is how a node's agent has it; nil: it needs no lease.
func showLease(n store.Node) *api.NodeLease {
	if n.Epoch == 0 {
		return nil
	}
	return &api.NodeLease{Epoch: n.Epoch, Since: n.Had.Since, From: n.Had.From, Why: n.Had.Why}
}

// leasedUntil is when the lease on a node runs out, zero where its agent has none now.
func (c *Central) leasedUntil(n store.Node, now time.Time) time.Time {
	if n.WaitsFor != "" {
		return time.Time{}
	}
	return c.sessions.of(n.Agent).leasedUntil(now)
}

func (d *agentSession) leasedUntil(now time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.After(d.leaseUntil) {
		return time.Time{}
	}
	return d.leaseUntil.UTC()
}
