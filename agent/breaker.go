package agent

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// failuresToOpen is after how many readings in a row without an answer a BMC leaves
// the rounds.
const failuresToOpen = 2

// authFailuresToOpen is after how many refused log-ins a BMC is left alone: further
// ones would lock the account.
const authFailuresToOpen = 2

// breaker is what is known of how a BMC answers: values and times in, no clock.
//
//	closed --2 readings without an answer--> open --probe answered--> trial
//	   ^                                      ^  |   or 10 min since    |
//	   |                                      |  |   the last reading   |
//	   |                                      |  +--no answer: doubled  |
//	   |                                      +---- reading failed -----+
//	   +---- anything answered, whoever asked -------- reading ---------+
//
// That the BMC is there and opens no session is no answer.
type breaker struct {
	failures int           // readings in a row without an answer
	since    time.Time     // the last answer; where none was heard yet or it failed in another way, the first of them
	heard    time.Time     // when it answered last
	pause    time.Duration // between probes; 0: closed
	next     time.Time     // the next probe
	trial    bool          // a probe was answered: the rounds may read it once
	last     failure
	began    time.Time // of the last reading that failed
}

// failure is why a BMC could not be read.
type failure struct {
	reach power.Reach // unreachable, or busy
	says  string      // "": it could
}

func (b *breaker) open() bool { return b.pause > 0 && !b.trial }

// failed takes a reading without an answer. wait makes a pause of one that doubles;
// the result says whether the breaker has opened just now.
func (b *breaker) failed(began, now time.Time, why failure, wait probePauses) bool {
	if b.failures == 0 || why.reach != b.last.reach {
		b.since = now
	}
	if b.failures == 0 && !b.heard.IsZero() {
		b.since = b.heard
	}
	b.failures++
	b.last, b.began = why, began
	if b.failures < failuresToOpen || b.open() { // open: somebody looked beside its schedule
		return false
	}
	b.later(now, wait)
	return b.failures == failuresToOpen
}

// later puts the next probe off, for longer than the last time.
func (b *breaker) later(now time.Time, wait probePauses) {
	b.trial = false
	b.pause = min(max(2*b.pause, wait.first), wait.longest)
	b.next = now.Add(time.Duration(float64(b.pause) * (1 - wait.jitter()/4)))
	if full := b.began.Add(wait.longest); full.After(now) && full.Before(b.next) {
		b.next = full
	}
}

// full reports whether it is time to read the BMC, whether it answers probes or not:
// some ignore them.
func (b *breaker) full(now time.Time, wait probePauses) bool {
	return !now.Before(b.began.Add(wait.longest))
}

// answered closes it; false: it was closed.
func (b *breaker) answered(now time.Time) bool {
	was := b.pause > 0
	*b = breaker{heard: now}
	return was
}

// probePauses is how the pauses between probes grow.
type probePauses struct {
	first, longest time.Duration
	jitter         func() float64 // in [0, 1): up to a quarter of each pause is left out
}

// reached reports whether err shows that the BMC is there and lets itself be talked
// to, and unreached that it gave no answer, or none but that it opens no session.
// Neither: it tells nothing.
func reached(err error) bool {
	var de *power.Error
	return err == nil || errors.As(err, &de) && !unreached(err) && de.Kind != power.KindCanceled
}

func unreached(err error) bool {
	var de *power.Error
	return errors.As(err, &de) && (de.Kind == power.KindUnreachable || de.Kind == power.KindBusy && de.Lost)
}

// prober knows the BMC of each node and how the agent gets on with it, probes those that
// are left alone, and keeps over a start what they refused.
type prober struct {
	assigned   *assigned
	bmcs       *bmcs
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
	a.bmcs.salt, a.bmcs.keep = a.assignLg.ID(), p.keepRefused
	return p
}

// credentials stands for user, password, K_g and suite in records: enough to tell whether
// they changed, and too little to find them by.
type credentials uint32

// print makes credentials of an endpoint under a salt.
func (s *bmcs) print(ep power.Endpoint) credentials {
	mac := hmac.New(sha256.New, []byte(s.salt))
	fmt.Fprintf(mac, "%s\x00%q\x00%q\x00%d", ep.Key(), ep.User, string(ep.Password), ep.Suite)
	if ep.KG != "" {
		fmt.Fprintf(mac, "\x00%q", string(ep.KG))
	}
	return credentials(binary.BigEndian.Uint32(mac.Sum(nil)))
}

// refusedRecord is how often a BMC refused the same credentials in a row. It is in
// the assignment's log, so that an agent that dies again and again does not lock an
// account.
type refusedRecord struct {
	BMC   string      `json:"bmc"`   // Endpoint.Key
	Print credentials `json:"print"` // of what was refused
	Times int         `json:"times"`
	At    time.Time   `json:"at"`
	// Kind is what the last of them was refused as; "": user or password.
	Kind power.ErrorKind `json:"kind,omitempty"`
}

const refusedPrefix = "refused/"

func (r refusedRecord) key() string {
	return fmt.Sprintf("%s%s %08x", refusedPrefix, r.BMC, uint32(r.Print))
}

// loadRefused takes the refusals of before the start that are about credentials in
// use.
func (p *prober) loadRefused(live []journal.Record) error {
	live = slices.DeleteFunc(slices.Clone(live), func(r journal.Record) bool { return r.Kind != kindRefused })
	if len(live) == 0 {
		return nil
	}
	used := map[string]bool{}
	for _, n := range p.assigned.all() {
		if ep, err := p.assigned.endpoint(n.Name); err == nil {
			used[refusedRecord{BMC: ep.Key(), Print: p.bmcs.print(ep)}.key()] = true
		}
	}
	for _, r := range live {
		var rec refusedRecord
		if err := json.Unmarshal(r.Payload, &rec); err != nil {
			return fmt.Errorf("cannot read refused log-ins in record %d: %w", r.LSN, err)
		}
		if !used[r.Key] {
			p.keepRefused(rec, false)
			continue
		}
		b := p.bmcs.byKey(rec.BMC)
		b.refused[rec.Print] = refusals{times: rec.Times, kind: cmp.Or(rec.Kind, power.KindAuth)}
	}
	return nil
}

// keepRefused makes the count of a BMC's refused log-ins durable, or forgets it. A
// count that the log does not take holds until the agent ends.
func (p *prober) keepRefused(rec refusedRecord, keep bool) {
	e := entry(journal.Drop, kindRefused, rec.key(), nil)
	if keep {
		e = entry(journal.Put, kindRefused, rec.key(), rec)
	}
	if _, err := p.log.Append(e); err != nil {
		p.logger.Error("cannot keep the count of refused log-ins", "bmc", rec.BMC, "err", err)
	}
}

// forgetRefused forgets what BMCs refused and no node uses any more: credentials that
// come back were changed and count anew.
func (p *prober) forgetRefused() {
	refused := slices.DeleteFunc(p.bmcs.list(), func(b *bmc) bool { return !b.hasRefused() })
	if len(refused) == 0 {
		return
	}
	used := map[string]bool{} // by refusedRecord.key
	for _, n := range p.assigned.all() {
		if ep, err := p.assigned.endpoint(n.Name); err == nil {
			used[refusedRecord{BMC: ep.Key(), Print: p.bmcs.print(ep)}.key()] = true
		}
	}
	for _, b := range refused {
		var gone []refusedRecord
		b.mu.Lock()
		for print := range b.refused {
			if rec := (refusedRecord{BMC: b.key, Print: print}); !used[rec.key()] {
				delete(b.refused, print)
				gone = append(gone, rec)
			}
		}
		b.mu.Unlock()
		for _, rec := range gone {
			p.keepRefused(rec, false)
		}
	}
}

// learn takes the outcome of an exchange that was tried with the endpoint.
func (b *bmc) learn(ep power.Endpoint, err error) {
	if b.driver != nil && err != nil {
		var de *power.Error
		if errors.As(err, &de) && (de.Lost || de.Kind == power.KindAuth || de.Kind == power.KindUnreachable) {
			b.drop()
		}
	}
	if !reached(err) {
		return
	}
	refused := refusedLogIn(err)
	rec := refusedRecord{BMC: b.key, At: time.Now()}
	if refused || b.hasRefused() {
		rec.Print = b.of.print(ep)
	}
	b.mu.Lock()
	failures, since := b.breaker.failures, b.breaker.since
	closed := b.breaker.answered(rec.At)
	before := b.refused[rec.Print].times
	switch {
	case refused:
		rec.Times, rec.Kind = before+1, power.KindOf(err)
		b.refused[rec.Print] = refusals{rec.Times, rec.Kind, err.Error()}
	case err == nil:
		delete(b.refused, rec.Print)
	}
	b.mu.Unlock()
	if rec.Times > 0 || err == nil && before > 0 {
		b.of.keep(rec, rec.Times > 0)
	}
	if closed {
		b.of.alive(b)
		b.of.logger.Info("BMC answers again", "bmc", b.key, "failures", failures, "took", time.Since(since))
	}
}

// refusedLogIn reports whether the BMC has refused a user: with some words or others, it
// may count towards a lock of the account.
func refusedLogIn(err error) bool {
	var de *power.Error
	return errors.As(err, &de) && (de.Refused || de.Kind == power.KindAuth)
}

// refusals is how often the BMC refused these credentials in a row.
func (b *bmc) refusals(ep power.Endpoint) refusals {
	if !b.hasRefused() {
		return refusals{}
	}
	print := b.of.print(ep)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused[print]
}

func (b *bmc) hasRefused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.refused) > 0
}

// unread takes a reading of the monitor that brought no answer.
func (b *bmc) unread(began time.Time, err error) {
	b.mu.Lock()
	opened := b.breaker.failed(began, time.Now(), failure{power.ReachOf(err), err.Error()}, b.of.pauses)
	open, next := b.breaker.open(), b.breaker.next
	b.mu.Unlock()
	if open {
		b.of.dead(b)
	}
	if opened {
		b.of.logger.Warn("BMC cannot be read, left alone", "bmc", b.key, "until", next, "err", err)
	}
}

// dead and alive note which BMCs have a schedule of their own.
func (s *bmcs) dead(b *bmc) {
	s.mu.Lock()
	s.alone[b] = true
	s.mu.Unlock()
	s.wakeUp()
}

func (s *bmcs) alive(b *bmc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.alone, b)
}

func (s *bmcs) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// due returns the BMCs to probe now and when the next one is due.
func (s *bmcs) due(now time.Time) (list []*bmc, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = now.Add(time.Hour)
	for b := range s.alone {
		b.mu.Lock()
		switch {
		case !b.breaker.open():
			delete(s.alone, b)
		case b.probing:
		case !now.Before(b.breaker.next):
			b.probing = true
			list = append(list, b)
		case b.breaker.next.Before(next):
			next = b.breaker.next
		}
		b.mu.Unlock()
	}
	return list, next
}

// run probes the BMCs that are left alone, each on its own schedule, until ctx
// ends. No worker of the rounds has to do with it.
func (p *prober) run(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	slots := make(chan struct{}, p.workers)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		list, next := p.bmcs.due(time.Now())
		for _, b := range list {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			probes.Go(func() {
				defer func() { <-slots }()
				p.probe(ctx, b)
			})
		}
		timer.Reset(max(time.Until(next), 0))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.bmcs.wake:
		}
	}
}

// probe asks a BMC that is left alone whether it is there. One that is goes back
// into the rounds on trial, and its nodes are read at once.
func (p *prober) probe(ctx context.Context, b *bmc) {
	nodes := p.nodesAt(b)
	busy, err := false, error(nil)
	b.mu.Lock()
	full := b.breaker.full(time.Now(), b.of.pauses)
	b.mu.Unlock()
	if len(nodes) > 0 && !full {
		if b.tryAcquire() {
			err = p.knock(ctx, b)
			b.release()
		} else {
			busy = true // whoever talks to it finds out as well
		}
	}
	if ctx.Err() != nil {
		return
	}
	alive, mute := b.probed(len(nodes) > 0, busy, err)
	switch {
	case alive:
		p.bmcs.alive(b)
		p.poller.readSoon(nodes)
	case mute:
		for _, name := range nodes {
			p.readings.failed(name, power.ReachOf(err), err.Error())
		}
	}
	p.bmcs.wakeUp()
}

// probed takes the outcome of a probe. alive: the BMC's nodes are to be read; mute: it
// gave no answer. Neither is so when somebody else has had one meanwhile.
func (b *bmc) probed(used, busy bool, err error) (alive, mute bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	now := time.Now()
	switch {
	case !b.breaker.open():
		return false, false
	case !used:
		b.breaker.answered(b.breaker.heard)
		return true, false
	case busy:
		b.breaker.next = now.Add(b.of.pauses.first / 4)
		return false, false
	case reached(err):
		b.breaker.trial = true
		return true, false
	default:
		b.breaker.later(now, b.of.pauses)
		return false, true
	}
}

// knock is one probe; the turn is ours.
func (p *prober) knock(ctx context.Context, b *bmc) error {
	if p.ping == nil {
		return nil // the reading on trial is the probe
	}
	ctx, cancel := context.WithTimeout(ctx, p.answer)
	defer cancel()
	return unanswered(p.ping(ctx, b.endpoint), p.answer)
}

// nodesAt lists the nodes behind a BMC.
func (p *prober) nodesAt(b *bmc) []string {
	b.mu.Lock()
	names := make([]string, 0, len(b.nodes))
	for name := range b.nodes {
		names = append(names, name)
	}
	b.mu.Unlock()
	names = slices.DeleteFunc(names, func(name string) bool {
		ep, err := p.assigned.endpoint(name)
		return err != nil || ep.Key() != b.key
	})
	slices.SortFunc(names, strings.Compare)
	return names
}

// bmcOf is the BMC of a node, nil when none is known.
func (p *prober) bmcOf(node string) (*bmc, power.Endpoint) {
	ep, err := p.assigned.endpoint(node)
	if err != nil {
		return nil, ep
	}
	return p.bmcs.get(ep), ep
}

// breakerOpen says whether the monitor leaves the node's BMC alone, why, and until
// when; a zero time: until somebody does something about it.
func (p *prober) breakerOpen(node string) (until time.Time, says string, open bool) {
	b, ep := p.bmcOf(node)
	if b == nil {
		return time.Time{}, "", false
	}
	r := b.refusals(ep)
	b.mu.Lock()
	defer b.mu.Unlock()
	since := power.At(b.breaker.since)
	switch {
	case r.times >= authFailuresToOpen:
		return time.Time{}, fmt.Sprintf("its BMC refused %s %d times, and one more could lock the account", r.what(), r.times), true
	case b.breaker.open() && b.breaker.last.reach == power.ReachBusy:
		return b.breaker.next, "its BMC answers and has opened no session since " + since, true
	case b.breaker.open():
		return b.breaker.next, "its BMC has not answered since " + since, true
	}
	return time.Time{}, "", false
}

// what names what was refused.
func (r refusals) what() string {
	switch r.kind {
	case power.KindAuth:
		return "user or password"
	case power.KindPrivilege:
		return "the user for want of rights"
	}
	return "the log-in"
}

func (r refusals) text() string {
	if r.kind == power.KindPrivilege {
		return fmt.Sprintf("the BMC refused %s %d times; give it more at the BMC, and have it tried again (rackpower node retry)", r.what(),
			r.times)
	}
	return fmt.Sprintf("the BMC refused %s %d times; correct them (rackpower node add --update) or have them tried again (rackpower node "+
		"retry)", r.what(), r.times)
}

// bmcState is how the agent gets on with the node's BMC; nil: none is known.
func (p *prober) bmcState(node string) *api.BMCState {
	b, ep := p.bmcOf(node)
	if b == nil {
		return nil
	}
	refused := b.refusals(ep)
	st := &api.BMCState{Address: ep.String(), AuthFailures: refused.times, SharedWith: p.sharedWith(node)}
	st.NextProbe, st.BreakerOpen, _ = p.breakerOpen(node)
	b.mu.Lock()
	defer b.mu.Unlock()
	st.Failures, st.LastError = b.breaker.failures, cmp.Or(b.breaker.last.says, refused.says)
	return st
}

// deadBMCs counts the BMCs that are left alone.
func (p *prober) deadBMCs() int {
	n := 0
	for _, b := range p.bmcs.list() {
		b.mu.Lock()
		open := b.breaker.open()
		for _, r := range b.refused {
			open = open || r.times >= authFailuresToOpen
		}
		b.mu.Unlock()
		if open {
			n++
		}
	}
	return n
}

// retryBMC forgets why the node's BMC is left alone, and what was learnt of it, and has
// its nodes read at once over a new session: an administrator asked for it.
func (p *prober) retryBMC(node string) {
	b, ep := p.bmcOf(node)
	if b == nil {
		return
	}
	rec := refusedRecord{BMC: b.key, Print: p.bmcs.print(ep)}
	b.mu.Lock()
	known := b.refused[rec.Print].times > 0
	delete(b.refused, rec.Print)
	b.breaker.answered(b.breaker.heard)
	b.anew = true
	b.mu.Unlock()
	p.bmcs.forgetLearnt(ep)
	p.bmcs.alive(b)
	if known {
		p.keepRefused(rec, false)
	}
	p.poller.readSoon(append(p.nodesAt(b), node))
}

// hurry has the BMCs of nodes that are left alone probed now: somebody waits for a
// reading.
func (p *prober) hurry(nodes []string) {
	for _, name := range nodes {
		if b, _ := p.bmcOf(name); b != nil {
			b.mu.Lock()
			if b.breaker.open() {
				b.breaker.next = time.Time{}
			}
			b.mu.Unlock()
		}
	}
	p.bmcs.wakeUp()
}

// forgetLearnt has what was learnt of the BMC asked for anew.
func (s *bmcs) forgetLearnt(ep power.Endpoint) {
	if s.forget != nil {
		s.forget(ep)
	}
}

func newBMCs(cfg Config, beside func(key string) chan struct{}, jitter func() float64) *bmcs {
	t := cfg.Timing
	return &bmcs{
		all: map[string]*bmc{}, alone: map[*bmc]bool{}, dial: cfg.Dial, forget: cfg.Forget, t: t, logger: cfg.Logger,
		wake: make(chan struct{}, 1), beside: beside, pauses: probePauses{first: t.Probe, longest: t.LongProbe, jitter: jitter},
	}
}
