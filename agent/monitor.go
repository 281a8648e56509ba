package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"rackpower/power"
)

// DefaultMonitor is how often every node is read and compared.
const DefaultMonitor = "@every 60s"

// MonitorOff as a schedule means that nothing is read or enforced by itself.
const MonitorOff = "off"

// schedule is a cron schedule; nil: never.
type schedule = cron.Schedule

func parseSchedule(text string) (schedule, error) {
	switch text {
	case MonitorOff:
		return nil, nil
	case "":
		text = DefaultMonitor
	}
	s, err := cron.ParseStandard(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read monitor schedule %q: want a cron expression such as \"@every 60s\" or \"*/5 * * * *\", or off (%w)", text, err)
	}
	return s, nil
}

// maxSpread bounds the time over which the readings of one round are spread.
const maxSpread = 20 * time.Second

// monitor reads and compares on its schedule, and whenever somebody asks for some
// nodes, until ctx ends.
func (a *Agent) monitor(ctx context.Context) {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	if a.schedule != nil {
		runner := cron.New(cron.WithChain(cron.SkipIfStillRunning(cron.DiscardLogger)))
		runner.Schedule(a.schedule, cron.FuncJob(func() { a.round(ctx, a.nodeNames(), a.spread()) }))
		runner.Start()
		defer func() { <-runner.Stop().Done() }()
		rounds.Go(func() { a.round(ctx, a.nodeNames(), 0) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case nodes := <-a.look:
			rounds.Go(func() { a.round(ctx, nodes, 0) })
		}
	}
}

// spread is the time over which the next round's readings are spread: at most
// half the time to the round after.
func (a *Agent) spread() time.Duration {
	now := time.Now()
	return min(a.schedule.Next(now).Sub(now)/2, maxSpread)
}

// lookAt has nodes read and compared at once. It does not block.
func (a *Agent) lookAt(nodes []string) {
	if len(nodes) == 0 {
		return
	}
	select {
	case a.look <- nodes:
	case <-a.ctx.Done():
	}
}

func (a *Agent) nodeNames() []string {
	var names []string
	for _, n := range a.assigned.all() {
		names = append(names, n.Name)
	}
	return names
}

// round reads the nodes, and compares each with what is desired as soon as it is
// read, so that a BMC that does not answer delays no other's correction.
func (a *Agent) round(ctx context.Context, names []string, spread time.Duration) {
	since := time.Now()
	a.readNodes(ctx, names, spread, func(name string) {
		if ctx.Err() == nil && a.schedule != nil {
			a.enforce(planRound{Now: time.Now(), Since: since, Settle: a.cfg.Timing.Settle}, []string{name})
		}
	})
}

// enforce submits what is to be done about the nodes, through the same door as
// everybody.
func (a *Agent) enforce(round planRound, names []string) {
	for _, p := range plan(round, a.watch(names)) {
		op := power.Op{
			ID: newID(), Node: p.Node, Action: p.Action, AskedBy: "monitor", Origin: power.FromMonitor,
			Reason: p.Says, IfBusy: power.Refuse,
		}
		r, err := a.Submit(op)
		a.logger.Info("monitor", "node", p.Node, "action", p.Action, "reason", p.Reason, "says", p.Says, "verdict", r.Verdict, "err", err)
	}
}

func (a *Agent) watch(names []string) []watched {
	var list []watched
	for _, name := range names {
		n, ok := a.assigned.get(name)
		if !ok {
			continue
		}
		l := a.lane(name)
		l.mu.Lock()
		w := watched{Node: name, Desired: n.Desired, Status: n.Status, DesiredAt: n.desiredAt, Busy: len(l.tasks) > 0, Changed: l.ended}
		l.mu.Unlock()
		w.Reading = a.readings.get(name)
		list = append(list, w)
	}
	return list
}
