package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"rackpower/agent/bmcpool"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// prober knows the BMC of each node and how the agent gets on with it, has those probed
// that are left alone, and keeps over a start what they refused.
type prober struct {
	assigned   *assigned
	bmcs       *bmcpool.Pool
	readings   *readings
	poller     *poller
	log        appender                                           // the assignment's
	ping       func(ctx context.Context, ep power.Endpoint) error // nil: a reading is the probe
	answer     time.Duration                                      // that is waited for an answer to ping
	workers    int                                                // probes at once
	sharedWith func(node string) string
	logger     *slog.Logger
}

func newProber(a *Agent) *prober {
	p := &prober{
		assigned: a.assigned, bmcs: a.bmcs, readings: a.readings, poller: a.poller, log: a.assignLg, ping: a.cfg.Probe,
		answer: a.cfg.Timing.ProbeAnswer, workers: a.cfg.Workers, sharedWith: a.sharedWith, logger: a.logger,
	}
	a.bmcs.KeepRefusals(a.assignLg.ID(), p.keepRefused)
	return p
}

const refusedPrefix = "refused/"

// loadRefused takes the refusals of before the start that are about credentials in
// use.
func (p *prober) loadRefused(live []journal.Record) error {
	live = slices.DeleteFunc(slices.Clone(live), func(r journal.Record) bool { return r.Kind != kindRefused })
	if len(live) == 0 {
		return nil
	}
	used := p.used()
	for _, r := range live {
		var rec bmcpool.Refusal
		if err := json.Unmarshal(r.Payload, &rec); err != nil {
			return fmt.Errorf("cannot read refused log-ins in record %d: %w", r.LSN, err)
		}
		if used[rec.Key()] {
			p.bmcs.Restore(rec)
		} else {
			p.keepRefused(rec, false)
		}
	}
	return nil
}

// used are the credentials of all nodes, by Refusal.Key.
func (p *prober) used() map[string]bool {
	used := map[string]bool{}
	for _, n := range p.assigned.all() {
		if ep, err := p.assigned.endpoint(n.Name); err == nil {
			used[p.bmcs.RefusalKey(ep)] = true
		}
		if ep, ok := p.assigned.other(n.Name); ok {
			used[p.bmcs.RefusalKey(ep)] = true
		}
	}
	return used
}

// keepRefused makes the count of a BMC's refused log-ins durable, or forgets it. A
// count that the log does not take holds until the agent ends.
func (p *prober) keepRefused(rec bmcpool.Refusal, keep bool) {
	e := entry(journal.Drop, kindRefused, refusedPrefix+rec.Key(), nil)
	if keep {
		e = entry(journal.Put, kindRefused, refusedPrefix+rec.Key(), rec)
	}
	if _, err := p.log.Append(e); err != nil {
		p.logger.Error("cannot keep the count of refused log-ins", "bmc", rec.BMC, "err", err)
	}
}

// forgetRefused forgets what BMCs refused and no node uses any more.
func (p *prober) forgetRefused() {
	for _, rec := range p.bmcs.ForgetRefused(p.used) {
		p.keepRefused(rec, false)
	}
}

// run probes the BMCs that are left alone until ctx ends.
func (p *prober) run(ctx context.Context) {
	p.bmcs.Probe(ctx, bmcpool.Probes{
		Workers: p.workers, Ping: p.ping, Answer: p.answer, Nodes: p.nodesAt, Answered: p.poller.readSoon,
		Silent: func(nodes []string, why bmcpool.Failure) {
			for _, name := range nodes {
				p.readings.failed(name, why.Reach, why.Message)
			}
		},
	})
}

// nodesAt lists the nodes behind a BMC.
func (p *prober) nodesAt(b *bmcpool.BMC) []string {
	return slices.DeleteFunc(b.Nodes(), func(name string) bool {
		ep, err := p.assigned.endpoint(name)
		return err != nil || ep.Key() != b.Key()
	})
}

// bmcOf is the BMC of a node, nil when none is known.
func (p *prober) bmcOf(node string) (*bmcpool.BMC, power.Endpoint) {
	ep, err := p.assigned.endpoint(node)
	if err != nil {
		return nil, ep
	}
	return p.bmcs.Get(ep), ep
}

// bmcState is how the agent gets on with the node's BMC; nil: none is known.
func (p *prober) bmcState(node string) *api.BMCState {
	b, ep := p.bmcOf(node)
	if b == nil {
		return nil
	}
	s := b.Status(ep)
	return &api.BMCState{
		Address: ep.String(), SharedWith: p.sharedWith(node), NextProbe: s.Until, BreakerOpen: s.LeftAlone, Failures: s.Failures,
		AuthFailures: s.AuthFailures, LastError: s.LastError,
	}
}

// retryBMC forgets why the node's BMC is left alone, and what was learnt of it, and has
// its nodes read at once over a new session: an administrator asked for it.
func (p *prober) retryBMC(node string) {
	if b, ep := p.bmcOf(node); b != nil {
		b.Retry(ep)
		if other, ok := p.assigned.other(node); ok {
			b.Retry(other)
		}
		p.poller.readSoon(append(p.nodesAt(b), node))
	}
}

// hurry has the BMCs of nodes that are left alone probed now: somebody waits for a
// reading.
func (p *prober) hurry(nodes []string) {
	for _, name := range nodes {
		if b, _ := p.bmcOf(name); b != nil {
			b.Hurry()
		}
	}
}
