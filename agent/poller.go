package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/agent/bmcpool"
	"rackpower/internal/backoff"
	"rackpower/power"
)

// poller reads nodes: in rounds, and at once when somebody asks. What is read goes to
// readings; nothing here knows what is desired.
type poller struct {
	ctx      context.Context // nobody waits to be heard after its end
	assigned *assigned
	bmcs     *bmcpool.Pool
	readings *readings
	logger   *slog.Logger
	taken    func(node string, ep power.Endpoint) // called when a BMC let a node in
	compare  func(node string)                    // called after each reading of a round
	longest  time.Duration                        // of a reading that does not count as slow

	wanted chan []string  // nodes that are to be read and compared now
	slots  chan struct{}  // full: as many readings are under way as may be
	reads  sync.WaitGroup // readings under way
	pulse  pulse

	numbers *numbers
}

func newPoller(a *Agent) *poller {
	return &poller{
		ctx: a.ctx, assigned: a.assigned, bmcs: a.bmcs, readings: a.readings, logger: a.logger, compare: a.monitor.Read, taken: a.taken,
		longest: a.cfg.Timing.SlowRead, wanted: make(chan []string, 64), slots: make(chan struct{}, a.cfg.Workers),
		numbers: a.numbers,
	}
}

// reading says how nodes are to be read.
type reading struct {
	spread time.Duration     // between the first start and the last
	then   func(name string) // called after each node; nil: nothing is
	round  bool              // BMCs that are left alone stay so
	asked  time.Time         // when it began
}

// group is nodes that one BMC serves.
type group struct {
	bmc   *bmcpool.BMC
	names []string
}

// readNodes reads nodes, those of one BMC in one go and the starts spread over a
// time, with a bounded number of workers. then, if any, is called after each node.
// Nodes whose BMC is left alone are not read; then is called for them too.
//
// A reading that is slow gives its worker's place to another and goes on by itself.
// With a spread, which says that there will be a next round, it is not waited for,
// and a BMC on which one is still under way is left out.
func (p *poller) readNodes(ctx context.Context, names []string, spread time.Duration, then func(name string)) {
	p.readGroups(ctx, names, reading{spread: spread, then: then, round: true, asked: time.Now()})
}

// readNow is readNodes at once for somebody who waits: BMCs that are left alone are
// tried as well.
func (p *poller) readNow(ctx context.Context, names []string) {
	p.readGroups(ctx, names, reading{asked: time.Now()})
}

func (p *poller) readGroups(ctx context.Context, names []string, how reading) {
	groups, rest := p.groups(names, how)
	var wg sync.WaitGroup // of readings that are waited for
	defer wg.Wait()
	if len(rest) > 0 && how.then != nil {
		wg.Go(func() {
			for _, name := range rest {
				how.then(name)
			}
		})
	}
	pause, together := paced(how.spread, len(groups))
	for i, g := range groups {
		if pause > 0 && i > 0 && i%together == 0 && backoff.Sleep(ctx, pause) != nil {
			return
		}
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Add(1)
		p.reads.Add(1)
		go func() {
			defer p.reads.Done()
			p.readBeside(ctx, g, how, &wg)
		}()
	}
}

// leastPause is the least pause between starts: a process that is woken more often takes more
// processor time for the same.
const leastPause = 50 * time.Millisecond

// paced spreads the starts of so many readings over a time: so many begin together, and then there is
// a pause. A pause of 0 means that all begin at once.
func paced(spread time.Duration, readings int) (pause time.Duration, together int) {
	if spread <= 0 || readings == 0 {
		return 0, 1
	}
	each := max(spread/time.Duration(readings), 1)
	together = int((leastPause + each - 1) / each)
	return each * time.Duration(together), together
}

// readBeside reads a group and gives its place back, when it is done or as soon as it
// is slow.
func (p *poller) readBeside(ctx context.Context, g group, how reading, wg *sync.WaitGroup) {
	free := sync.OnceFunc(func() { <-p.slots })
	left := sync.OnceFunc(wg.Done)
	slow := time.AfterFunc(p.pulse.slow(p.longest), func() {
		free()
		if how.spread > 0 {
			left()
		}
	})
	defer func() {
		slow.Stop()
		free()
		left()
	}()
	p.readGroup(ctx, g, how)
}

// groups sorts nodes by their BMCs. rest are those that are not read.
func (p *poller) groups(names []string, how reading) (list []group, rest []string) {
	at := map[*bmcpool.BMC]int{}
	for _, name := range names {
		ep, err := p.assigned.endpoint(name)
		if err != nil {
			p.readings.failed(name, power.ReachUnconfigured, err.Error())
			rest = append(rest, name)
			continue
		}
		b := p.bmcs.Get(ep)
		if b.Note(name) && how.round {
			rest = append(rest, name)
			continue
		}
		i, ok := at[b]
		if !ok {
			i = len(list)
			at[b] = i
			list = append(list, group{bmc: b})
		}
		list[i].names = append(list[i].names, name)
	}
	return list, rest
}

// readGroup reads the nodes of a BMC one after the other. When it gives no answer for
// one, the others are not tried.
func (p *poller) readGroup(ctx context.Context, g group, how reading) {
	done, ok := g.bmc.BeginReading(ctx, how.spread == 0)
	if !ok {
		return
	}
	defer done()
	if how.spread > 0 {
		defer g.bmc.Rest(time.Now())
	}
	mute := g.bmc.FailedSince(how.asked)
	for _, name := range g.names {
		if ctx.Err() != nil {
			return
		}
		if mute.Message == "" {
			mute = p.readNode(ctx, name)
		} else {
			p.readings.failed(name, mute.Reach, mute.Message)
		}
		if how.then != nil {
			how.then(name)
		}
	}
}

// readNode reads one node. It returns the failure of a BMC that gave no answer.
func (p *poller) readNode(ctx context.Context, name string) (mute bmcpool.Failure) {
	ep, err := p.assigned.endpoint(name)
	if err != nil {
		p.readings.failed(name, power.ReachUnconfigured, err.Error())
		return bmcpool.Failure{}
	}
	b, began := p.bmcs.Get(ep), time.Now()
	seen, err := b.Read(ctx, ep, false)
	refused := false // by its other credentials, too
	if now, ok := p.assigned.changedTo(name, ep); ok && bmcpool.RefusedLogIn(err) {
		ep = now
		seen, err = b.Read(ctx, ep, false)
		refused = bmcpool.RefusedLogIn(err)
	}
	if now, gone := p.assigned.endpoint(name); gone != nil || now != ep && !refused {
		return bmcpool.Failure{} // it was given another BMC meanwhile: what this one says is not about it
	}
	switch {
	case err == nil:
		p.pulse.beat(time.Since(began))
		p.numbers.reads.Time(time.Since(began))
		p.readings.found(name, seen)
		p.readings.saw(name, power.Seen(seen.State, time.Now()))
		p.taken(name, ep)
		if seen.Changing {
			time.AfterFunc(lookAgain, func() { p.readSoon([]string{name}) })
		}
	case stops(ctx, err):
	default:
		p.readings.failed(name, power.ReachOf(err), err.Error())
		p.logger.Debug("cannot read", "node", name, "err", err)
		return b.Unread(began, err)
	}
	return bmcpool.Failure{}
}

// round reads the nodes; each is compared as soon as it is read.
func (p *poller) round(ctx context.Context, names []string, spread time.Duration) {
	p.readNodes(ctx, names, spread, p.compare)
}

// run reads the nodes that are requested at once, until ctx ends.
func (p *poller) run(ctx context.Context) {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case names := <-p.wanted:
			rounds.Go(func() { p.round(ctx, names, 0) })
		}
	}
}

// readSoon has nodes read and compared at once. It does not block.
func (p *poller) readSoon(nodes []string) {
	if len(nodes) == 0 {
		return
	}
	select {
	case p.wanted <- nodes:
	case <-p.ctx.Done():
	}
}

// lookAgain is when a node is read again whose BMC says that its power is about to change.
const lookAgain = 5 * time.Second

// pulse is how long a reading takes that is answered, about.
type pulse struct{ ns atomic.Int64 }

func (p *pulse) beat(took time.Duration) {
	old := p.ns.Load()
	if old == 0 {
		p.ns.CompareAndSwap(0, max(int64(took), 1))
		return
	}
	p.ns.CompareAndSwap(old, max(old+(int64(took)-old)/16, 1)) // one that is lost among many does not matter
}

// slow is after how long a reading counts as slow: thrice what is usual, so that the
// silent take little from the others. Nothing is usual before the first answer.
func (p *pulse) slow(most time.Duration) time.Duration {
	usual := time.Duration(p.ns.Load())
	if usual == 0 {
		usual = 100 * time.Millisecond
	}
	return min(max(3*usual, 10*time.Millisecond), most)
}
