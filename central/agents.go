package central

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// hello begins a session: it ends the one before, and settles what the agent's
// journal does not know any more.
func (c *Central) hello(r *http.Request, in api.Hello) (api.Welcome, error) {
	name := r.PathValue("name")
	if err := api.CheckName(name); err != nil {
		return api.Welcome{}, api.Problemf(api.CodeBadRequest, "agent: %v", err)
	}
	if in.JournalID == "" {
		return api.Welcome{}, api.Problemf(api.CodeBadRequest, "agent %s names no journal", name)
	}
	if err := checkPosition(in.Epoch, in.LSN); err != nil {
		return api.Welcome{}, err
	}
	now := c.cfg.Now()
	if err := c.mayHello(r.Context(), name); err != nil {
		return api.Welcome{}, err
	}
	if err := c.wentBack(r.Context(), name, in, now); err != nil {
		return api.Welcome{}, err
	}
	w := api.Welcome{Database: c.store.Database(), Protocol: api.Protocol, Session: rand.Text()}
	if c.gossip != nil {
		w.Gossip = c.gossip.Addr()
	}
	d, peer := c.sessions.of(name), peerOf(r, in)
	named, stray := in.Gossip, c.mayDial(r, name, in.Gossip)
	if stray != nil {
		in.Gossip, w.GossipRefused = "", fmt.Sprintf("central does not dial %.80q: %v", named, stray)
	}
	knocked, signs := c.admit(r.Context(), d, in)
	now = c.cfg.Now()
	var refusal error
	err := c.write(r.Context(), now, "central", func(u *unitOfWork) (err error) {
		d.mu.Lock()
		admitted, _ := d.holder.admits(in, now, knocked, signs)
		d.mu.Unlock()
		if !admitted {
			refusal, err = u.refuseTwin(d, in, peer)
			return err
		}
		if d.overtaken(in.Run, in.Nth) {
			return errHello(name) // its answer is not waited for, and what it says is no longer so
		}
		if err := u.greet(name, in, &w, peer); err != nil {
			return err
		}
		if err := errors.Join(u.follow(name, in.Seq), u.notDialled(d, named, stray)); err != nil {
			return err
		}
		w.Alarms, err = u.tx.Alarms(name)
		return err
	})
	if err = errors.Join(err, refusal); err != nil {
		return api.Welcome{}, err
	}
	w.Seq = c.store.Seq(now)
	c.seed(name, in.Gossip)
	c.log.Info("agent said hello", "agent", name, "version", in.Version, "protocol", in.Protocol, "journal", in.JournalID, "epoch", in.Epoch,
		"lsn", in.LSN, "outstanding", len(in.Outstanding), "alarms", api.AlarmText(w.Alarms))
	return w, nil
}

// maxIdleAgents is how many agents there may be without nodes: anybody who reaches the
// socket may say hello by any name.
const maxIdleAgents = 1000

// mayHello is mayAdd before anything is kept of the name.
func (c *Central) mayHello(ctx context.Context, name string) error {
	if c.sessions.known(name) != nil {
		return nil
	}
	return c.store.View(ctx, func(tx *store.Tx) error { return mayAdd(tx, name) })
}

// mayAdd refuses an agent that has no node and was never seen, beyond the bound.
func mayAdd(tx *store.Tx, name string) error {
	may, err := tx.MayAddAgent(name, maxIdleAgents)
	if err != nil || may {
		return err
	}
	return api.Problemf(api.CodeQueueFull, "agent %s is not known, and there are %d agents without nodes already: "+
		"give it a node first (rackpower node add --rack %s), or have others forgotten (rackpower agents forget)", name, maxIdleAgents, name)
}

// wentBack looks whether the agent has word of a later state of this very database: then
// an old copy was put in its place by other means than a restore, and it becomes another
// incarnation, as after a restore. That happens while central is away: once is enough.
func (c *Central) wentBack(ctx context.Context, agent string, in api.Hello, now time.Time) error {
	if in.ReportedTo != c.store.Database() || in.Rev <= c.store.Rev() || c.renewed.Load() {
		return nil
	}
	err := c.store.Write(ctx, func(tx *store.Tx) error {
		if in.ReportedTo != c.store.Database() {
			return nil // another agent had word of it too
		}
		detail := fmt.Sprintf("the database is an old copy: agent %s was told of its revision %d, and it is at %d", agent, in.Rev, c.store.Rev())
		c.log.Error(detail, "agent", agent)
		tx.OnCommit(func() {
			c.renewed.Store(true)
			c.leases.start(c.monotonic())
		})
		return errors.Join(tx.AddAudit(api.AuditEntry{At: now, Who: "central", What: "restore", Detail: detail}), tx.Renew(now))
	})
	if err != nil {
		return err
	}
	return c.load()
}

// greet is hello's job.
func (u *unitOfWork) greet(name string, in api.Hello, w *api.Welcome, peer string) error {
	if err := errors.Join(mayAdd(u.tx, name), u.tx.EnsureAgent(name)); err != nil {
		return err
	}
	a, _, err := u.tx.Agent(name)
	if err != nil {
		return err
	}
	open, err := u.tx.OpenOps(name)
	if err != nil {
		return err
	}
	fate := compareJournals(a, in)
	d := u.c.sessions.of(name)
	if in.ReportedAll {
		fate = max(fate, d.untold()) // which the hello before replaced
	}
	w.WentBack, w.TellEnforced = fate == journalBack, a.Restored == store.RestoreAsked
	if w.Ended, err = endedOf(u.tx, name, open, in); err != nil {
		return err
	}
	lost := 0
	if in.ReportedTo != w.Database {
		// What the agent ended, another state of the database may have acknowledged.
		w.ReportAll = slices.ContainsFunc(open, func(o store.Op) bool {
			return !slices.Contains(in.Outstanding, refOf(&o)) &&
				gone(&o, fate, in)
		})
	} else if lost, err = u.compare(a, open, in, fate); err != nil {
		return err
	}
	if !w.ReportAll { // else it is judged when the agent has told all
		if err := u.alarmed(a, in, fate, len(open), lost); err != nil {
			return err
		}
	}
	another, followed := a.Run != runOf(in), a.Run
	if another {
		a.Run, a.Peer, a.HelloAt = runOf(in), peer, u.now
		if err := u.clear(name, api.AlarmTwoAgents); err != nil {
			return err
		}
	}
	a.JournalID, a.Epoch, a.LSN, a.Session, a.Opening = in.JournalID, in.Epoch, in.LSN, w.Session, in.Opening
	a.SeenAt, a.Version, a.Address = u.now, in.Version, in.Gossip
	if err := errors.Join(u.tx.SaveAgent(a), u.runsOn(name, in.Machine), u.tx.RaiseEpoch(in.LeaseEpoch)); err != nil {
		return err
	}
	if !w.ReportAll {
		fate = journalFirst
	}
	if in.Protocol < api.ProtocolLease && u.c.leases.any.Load() {
		if err := u.outgrown(name); err != nil {
			return err
		}
		a.Rev = max(a.Rev, u.revs[name])
	}
	u.tx.OnCommit(func() {
		d.greeted(w.Session, a.Rev, in, u.now)
		d.tells(fate)
		if another {
			d.admitted(a, u.now)
			if followed != "" { // its process was not heard to end
				d.waitsForLease(u.c.monotonic() + leaseRunsOut)
			}
		}
	})
	return nil
}

// endedOf lists those of an agent's outstanding operations that have ended here: it is
// told, so that it does not carry them out. What it has ended itself is no news to it.
func endedOf(tx *store.Tx, agent string, open []store.Op, in api.Hello) (ends []api.EndedOp, err error) {
	isOpen := make(map[string]bool, len(open))
	for i := range open {
		isOpen[open[i].ID] = true
	}
	for _, ref := range in.Outstanding {
		if isOpen[ref.ID] {
			continue
		}
		o, found, err := tx.Op(ref.ID)
		if err != nil {
			return nil, err
		}
		if found && o.Rack == agent && refOf(&o) == ref && o.Stage() == store.StageEnded && o.Outcome != power.Refused {
			ends = append(ends, api.EndedOp{OpRef: ref, End: endOf(&o)})
		}
	}
	return ends, nil
}

// compare takes back what did not arrive and ends what is lost.
func (u *unitOfWork) compare(a store.Agent, open []store.Op, in api.Hello, f fate) (lost int,
	err error,
) {
	// Only a session that lasted until u.now vouches for what was delivered: a
	// restored central does not know what its agents have ended since.
	if f == journalSame && a.Session != "" && !in.ReportedAll && !in.Doubt {
		if open, err = u.takeBack(open, in); err != nil {
			return 0, err
		}
	}
	return u.settle(open, in, f)
}

// alarmed raises and ends the alarms that follow from a hello.
func (u *unitOfWork) alarmed(a store.Agent, in api.Hello, f fate, open, lost int) error {
	if alarm := f.alarm(a, in, open, lost); alarm.Kind != "" {
		return u.raise(a.Name, alarm)
	}
	if f != journalOther {
		return nil
	}
	detail := fmt.Sprintf("journal %s in place of %s, with nothing outstanding", in.JournalID, a.JournalID)
	return u.tx.AddAudit(api.AuditEntry{At: u.now, Who: "agent " + a.Name, What: "journal", Detail: detail})
}

// fate is what a hello says of the agent's journal.
type fate int

const (
	journalFirst fate = iota // the first that central hears of
	journalSame
	journalBack  // the same one, with less in it than it had
	journalOther // another one
)

func compareJournals(a store.Agent, in api.Hello) fate {
	switch {
	case a.JournalID == "":
		return journalFirst
	case a.JournalID != in.JournalID:
		return journalOther
	case in.LSN < a.LSN || in.Epoch < a.Epoch:
		return journalBack
	case in.Opening == "": // an agent of before
		return journalSame
	case in.Epoch > a.Epoch && in.FoundLSN < a.LSN:
		return journalBack // its newer records replaced others
	case in.Epoch == a.Epoch && a.Opening != "" && in.Opening != a.Opening:
		return journalBack // it was opened so often before, from a later state
	default:
		return journalSame
	}
}

// alarm is what an administrator has to know, with an empty Kind if that is nothing.
func (f fate) alarm(a store.Agent, in api.Hello, open, lost int) api.Alarm {
	switch {
	case f == journalBack:
		return api.Alarm{
			Kind: api.AlarmJournalWentBack, NeedsAck: true,
			Message: fmt.Sprintf("the journal of agent %s went back (record %d of epoch %d, was %d of %d): restored from a copy? "+
				"indeterminate by that: %s",
				a.Name, in.LSN, in.Epoch, a.LSN, a.Epoch, power.Count(lost, "operation")),
		}
	case f == journalOther && open > 0:
		return api.Alarm{
			Kind: api.AlarmJournalLost, NeedsAck: true,
			Message: fmt.Sprintf("agent %s came with another journal (%s, was %s) with %s outstanding; "+
				"indeterminate of them: %d",
				a.Name, in.JournalID, a.JournalID, power.Count(open, "operation"), lost),
		}
	case lost > 0:
		return api.Alarm{
			Kind: api.AlarmJournalLost, NeedsAck: true,
			Message: fmt.Sprintf("the journal of agent %s does not know %s that it had accepted: indeterminate", a.Name,
				power.Count(lost, "operation")),
		}
	}
	return api.Alarm{}
}

// settle ends as indeterminate what the agent had accepted and does not know any
// more. What is only taken goes to the agent again by the next poll, unless a
// lost journal may have held it and twice is not the same as once.
func (u *unitOfWork) settle(open []store.Op, in api.Hello, f fate) (lost int, err error) {
	knows := knownTo(in)
	for i := range open {
		o := &open[i]
		switch {
		case knows[refOf(o)]:
			if (f == journalBack || in.Doubt) && o.LSN > 0 {
				o.LSN = 0 // its records are counted again
				if err := u.tx.SaveOp(o); err != nil {
					return lost, err
				}
				u.marks.note(o.Rev)
			}
			continue
		case !gone(o, f, in):
			continue
		}
		// Those that joined it stand for themselves: the agent may know them still.
		lost++
		detail := "its agent came back and does not know it any more: its journal, or central's database, was replaced"
		if err := u.endAlone(o, power.End{Outcome: power.Indeterminate, Reason: power.ReasonLost, Detail: detail, At: u.now}); err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// gone reports whether an operation that the agent does not know is lost, given what
// became of its journal.
func gone(o *store.Op, f fate, in api.Hello) bool {
	replaced := f == journalBack || f == journalOther || in.Doubt
	return o.Stage() != store.StageTaken || o.Delivered && replaced && !harmlessTwice(o.Action)
}

// takeBack finds what was delivered and did not arrive: the agent has its journal
// as it was, and it is not in there. It counts as never having left, so that
// central may end it, and what was to be cancelled is not delivered again. It
// returns what is still open.
func (u *unitOfWork) takeBack(open []store.Op, in api.Hello) ([]store.Op, error) {
	knows := knownTo(in)
	var err error
	open = slices.DeleteFunc(open, func(o store.Op) bool {
		if err != nil || o.Stage() != store.StageTaken || !o.Delivered || knows[refOf(&o)] {
			return false
		}
		o.Delivered = false
		if o.CancelBy == "" {
			err = u.tx.SaveOp(&o)
			u.marks.note(o.Rev)
			return false
		}
		detail := fmt.Sprintf("cancelled by %s before agent %s had it", o.CancelBy, o.Rack)
		err = u.end(&o, power.End{Outcome: power.Cancelled, Reason: power.ReasonAsked, Detail: detail, At: u.now})
		return true
	})
	return open, err
}

// knownTo is what the agent says that its journal holds.
func knownTo(in api.Hello) map[api.OpRef]bool {
	knows := make(map[api.OpRef]bool, len(in.Outstanding))
	for _, ref := range in.Outstanding {
		knows[ref] = true
	}
	return knows
}

func refOf(o *store.Op) api.OpRef { return api.OpRef{ID: o.ID, Node: o.Node, Action: o.Action} }

// harmlessTwice reports whether carrying the action out again, from a fresh
// reading, does nothing that was not asked for.
func harmlessTwice(a power.Action) bool {
	return a == power.ActOn || a == power.ActOff || a == power.ActSoftOff
}

// checkSession finds the agent of a session. It runs within the job that acts,
// so that a hello in between is seen.
func checkSession(tx *store.Tx, name, session string) (store.Agent, error) {
	a, found, err := tx.Agent(name)
	if err != nil {
		return a, err
	}
	if !found || session == "" || a.Session != session {
		return a, errHello(name)
	}
	return a, nil
}

func errHello(name string) error {
	return api.Problemf(api.CodeHello, "this session of agent %s is over: say hello", name)
}

// poll waits until there is something that the agent does not have.
func (c *Central) poll(r *http.Request, in api.Poll) (api.Assignment, error) {
	name := r.PathValue("name")
	d := c.sessions.known(name)
	if d == nil {
		return api.Assignment{}, errHello(name)
	}
	if g := d.look(c.cfg.Now()); in.Session == "" || g.session != in.Session {
		return api.Assignment{}, errHello(name)
	}
	c.store.MergeSeq(in.Seq, c.cfg.Now()) // reports raise the alarm when it is too far ahead
	if in.Database != c.store.Database() {
		in.Rev, in.Ops = 0, 0
	}
	if rev, _ := c.changes.look(); in.Ops > rev {
		in.Ops = 0
	}
	if g := d.look(c.cfg.Now()); in.Rev > g.rev {
		in.Rev, in.AppliedRev = 0, 0 // nobody has what there was never
	}
	if err := c.applyLettingGo(r, d, in); err != nil {
		return api.Assignment{}, err
	}
	knocks, leave := d.arrive(r.Context(), c.cfg.Now, in.Rev)
	defer leave()
	came, held := c.monotonic(), in.Rev
	lasts, err := c.leaseFor(r.Context(), d, in)
	if err != nil {
		return api.Assignment{}, err
	}
	answer := func(out api.Assignment) api.Assignment {
		if in.Lease {
			now := c.monotonic()
			out.Clock = &api.CentralClock{Start: c.process, At: now, Held: now - came}
		}
		if out.Rev == held && !out.Full {
			out.Lease = lasts
		}
		return out
	}
	timer := time.NewTimer(min(max(in.Wait, 0), maxWait))
	defer timer.Stop()
	for {
		out, err := c.answerPoll(r.Context(), d, &in)
		if err != nil || out != nil {
			return answer(deref(out)), err
		}
		g := d.look(c.cfg.Now())
		if g.session != in.Session || g.mark > in.Ops || g.rev != in.Rev || len(g.reads)+len(g.asked)+len(g.tests) > 0 {
			continue
		}
		var again <-chan time.Time
		if g.again > 0 {
			again = time.After(g.again)
		}
		nothing := api.Assignment{Rev: in.Rev, OpsCursor: in.Ops, Seq: c.store.Seq(c.cfg.Now())}
		if g.knocks != knocks {
			return answer(nothing), nil // somebody wants to know whether there is another poll
		}
		resume, err := idle(r.Context())
		if err != nil {
			return nothing, err
		}
		select {
		case <-g.news:
		case <-again:
		case <-timer.C:
			return answer(nothing), nil
		case <-c.stop:
			return answer(nothing), nil
		case <-r.Context().Done():
			return nothing, r.Context().Err()
		}
		if err := resume(); err != nil {
			return nothing, err
		}
	}
}

// deref is what p points to, or nothing.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// answerPoll returns nil when there is nothing to say. Requests are read before
// nodes, so that no request comes without its node.
func (c *Central) answerPoll(ctx context.Context, d *agentSession, in *api.Poll) (_ *api.Assignment, err error) {
	now := c.cfg.Now()
	g := d.look(now)
	if g.session != in.Session {
		return nil, errHello(d.name)
	}
	out := &api.Assignment{Rev: in.Rev, OpsCursor: in.Ops, Reads: g.reads, Explain: g.asked, Tests: g.tests}
	at := g.rev // of the assignment, as the requests in out go by it
	if g.mark > in.Ops {
		if at, err = c.deliver(ctx, d, in, out); err != nil {
			return nil, err
		}
		if len(out.Ops) < deliverAtOnce && len(out.Cancels) < deliverAtOnce {
			out.OpsCursor = max(out.OpsCursor, g.mark) // what was the newest has ended meanwhile
		}
		in.Ops = out.OpsCursor
	}
	full := in.Rev <= 0 || in.Rev > g.rev
	if full || in.Rev < g.rev || len(out.Ops) > 0 && at != in.Rev {
		if err := c.assign(ctx, d, in.Rev, full, out); err != nil {
			return nil, err
		}
	}
	if !out.Full && out.Rev == in.Rev && len(out.Ops)+len(out.Cancels)+len(out.Reads)+len(out.Explain)+len(out.Tests) == 0 {
		return nil, nil
	}
	d.sentWishes(out, now)
	out.Seq = c.store.Seq(now)
	return out, nil
}

// deliverAtOnce bounds the requests, and the cancellations, in one answer: the agent asks
// for more when these are in its journal, and is heard of meanwhile.
const deliverAtOnce = 500

// deliver fills in requests and cancellations. That they leave is durable before
// they do. Their times are by the agent's clock, where that is far from central's: an
// agent whose clock is ahead would find them expired. rev is the revision of the assignment
// when they were read.
func (c *Central) deliver(ctx context.Context, d *agentSession, in *api.Poll, out *api.Assignment) (rev int64, err error) {
	left := true // all of them count as having left already
	read := func(tx *store.Tx) error {
		a, err := checkSession(tx, d.name, in.Session)
		if err != nil {
			return err
		}
		rev = a.Rev
		ops, cancels, upTo, err := tx.ToDeliver(d.name, in.Ops, deliverAtOnce)
		out.Ops, out.Handed, out.Cancels, out.OpsCursor = nil, nil, cancels, max(upTo, in.Ops)
		by := d.clock()
		for i := range ops {
			left = left && ops[i].Delivered
			op := ops[i].Request()
			op.AskedAt, op.Deadline = op.AskedAt.Add(by), op.Deadline.Add(by)
			out.Ops = append(out.Ops, op)
			if ops[i].Handed != "" {
				out.Handed = append(out.Handed, op.ID)
			}
		}
		return err
	}
	if err = c.store.View(ctx, read); err != nil || left {
		return rev, err
	}
	err = c.store.Write(ctx, func(tx *store.Tx) error {
		if err := read(tx); err != nil {
			return err
		}
		return tx.Leave(d.name, in.Ops, out.OpsCursor)
	})
	return rev, err
}

// assign fills in nodes and the rack's settings: all of them, or what changed since rev.
func (c *Central) assign(ctx context.Context, d *agentSession, rev int64, full bool, out *api.Assignment) error {
	name := d.name
	return c.store.View(ctx, func(tx *store.Tx) error {
		a, found, err := tx.Agent(name)
		if err != nil || !found {
			return errors.Join(err, missing(found, name))
		}
		out.Full = full || rev < a.Floor || rev > a.Rev
		if out.Full {
			rev = 0
		}
		out.Rev = a.Rev
		nodes, err := tx.NodesSince(name, rev)
		if err != nil {
			return err
		}
		s, err := settings(tx, a)
		if err != nil {
			return err
		}
		use := logins{tx: tx, rack: s.Credentials, agent: name}
		old := d.tooOld(api.ProtocolLease) != ""
		for _, n := range nodes {
			if n.Epoch > 0 && old {
				continue
			}
			node := assigned(n, c.cfg.Now())
			if err := use.fill(&node, n); err != nil {
				return err
			}
			out.Nodes = append(out.Nodes, node)
		}
		if out.Full || a.SettingsRev > rev {
			out.Rack = &s
		}
		if out.Forced, err = forcedAway(tx, name); err != nil {
			return err
		}
		out.Removed, out.Confirmed, err = tx.RemovedSince(name, rev)
		if out.Full {
			out.Removed = nil // Nodes says it
		}
		return err
	})
}

func missing(found bool, name string) error {
	if found {
		return nil
	}
	return errHello(name)
}

// assigned is a node as its agent gets it. One whose password does not open has no BMC: it must
// not be logged in to without.
func assigned(n store.Node, now time.Time) api.AssignedNode {
	if n.Damaged() != "" {
		n.BMC, n.Password, n.KG = "", "", ""
	}
	return api.AssignedNode{
		Name: n.Name, BMC: n.BMC, Password: string(n.Password), KG: string(n.KG), SharedWith: n.Shared, Domain: n.Domain, Status: n.Status,
		Confirmed: n.Confirmed,
		Desired:   power.Effective(n.Status, n.Hold, now), Hold: n.Hold, Retry: n.Retry, Protected: n.Protected,
		Epoch: n.Epoch,
	}
}

func (c *Central) listAgents(r *http.Request) ([]api.Agent, error) {
	now := c.cfg.Now()
	out := []api.Agent{}
	members, _ := c.listMembers(r)
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		agents, err := tx.Agents()
		if err != nil {
			return err
		}
		counts, err := tx.Counts()
		if err != nil {
			return err
		}
		raised, err := tx.AllAlarms()
		if err != nil {
			return err
		}
		leased, err := tx.LeaseCounts()
		if err != nil {
			return err
		}
		enrolled, err := enrolments(tx)
		if err != nil {
			return err
		}
		for _, a := range agents {
			n := counts[a.Name]
			p := c.sessions.of(a.Name).presence(now, c.cfg.Away)
			view := api.Agent{
				Name: a.Name, State: p.State, Version: a.Version, Nodes: n.Nodes, Outstanding: n.Outstanding, Taken: n.Taken,
				Rev: a.Rev, RevSeen: p.revSeen, JournalID: a.JournalID, Epoch: a.Epoch, LSN: a.LSN, Address: cmp.Or(gossipAddress(a.Name, members),
					a.Address),
			}
			if view.Rack, err = a.State(); err != nil {
				return fmt.Errorf("cannot read state of rack %s: %w", a.Name, err)
			}
			view.Alarms = alarmsOf(raised[a.Name], view.Rack)
			view.Alarm = alarmOf(api.AlarmText(view.Alarms), view.Rack)
			view.ForeignReports, view.Certificate = p.notIts, certificateOf(enrolled[a.Name], now)
			if !p.LastSeen.IsZero() {
				view.SeenAt = &p.LastSeen
			}
			if a.Drained.On() {
				view.Drained = &a.Drained
			}
			if view.Leased = leased[a.Name]; view.Leased > 0 {
				view.LeaseUntil = c.sessions.of(a.Name).leasedUntil(now)
			}
			out = append(out, view)
		}
		return nil
	})
	return out, err
}
