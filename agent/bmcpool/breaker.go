package bmcpool

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
//	   +---- anything answered, no matter who asked -------- reading ---------+
//
// That the BMC is there and opens no session is no answer.
type breaker struct {
	failures int           // readings in a row without an answer
	since    time.Time     // the last answer; where none was heard yet or it failed in another way, the first of them
	heard    time.Time     // when it answered last
	pause    time.Duration // between probes; 0: closed
	next     time.Time     // the next probe
	trial    bool          // a probe was answered: the rounds may read it once
	last     Failure
	began    time.Time // of the last reading that failed
}

// Failure is why a BMC could not be read.
type Failure struct {
	Reach   power.Reach // unreachable, or busy
	Message string      // "": it could
}

func (b *breaker) open() bool { return b.pause > 0 && !b.trial }

// failed takes a reading without an answer. wait makes a pause of one that doubles;
// the result says whether the breaker has opened just now.
func (b *breaker) failed(began, now time.Time, why Failure, wait probePauses) bool {
	if b.failures == 0 || why.Reach != b.last.Reach {
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

// Credentials stands for user, password, K_g and suite in records: enough to tell whether
// they changed, and too little to find them by.
type Credentials uint32

// RefusedLogIn reports whether the BMC has refused a user: with some words or others, it
// may count towards a lock of the account. One that shows another key than it should was told
// of no user; it may be asked again, and then says what is wrong now.
func RefusedLogIn(err error) bool {
	var de *power.Error
	return errors.As(err, &de) && (de.Refused || de.Kind == power.KindAuth && !de.Untrusted)
}

// refusals is how often the BMC refused these credentials in a row.
func (b *BMC) refusals(ep power.Endpoint) refusals {
	if !b.hasRefused() {
		return refusals{}
	}
	print := b.of.print(ep)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused[print]
}

func (b *BMC) hasRefused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.refused) > 0
}

// dead and alive note which BMCs have a schedule of their own.
func (p *Pool) dead(b *BMC) {
	p.mu.Lock()
	p.alone[b] = true
	p.mu.Unlock()
	p.wakeUp()
}

func (p *Pool) alive(b *BMC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.alone, b)
}

func (p *Pool) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// due returns the BMCs to probe now and when the next one is due.
func (p *Pool) due(now time.Time) (list []*BMC, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next = now.Add(time.Hour)
	for b := range p.alone {
		b.mu.Lock()
		switch {
		case !b.breaker.open():
			delete(p.alone, b)
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

// probed takes the outcome of a probe. alive: the BMC's nodes are to be read; mute: it
// gave no answer. Neither is so when somebody else has had one meanwhile.
func (b *BMC) probed(used, busy bool, err error) (alive, mute bool) {
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

// print makes credentials of an endpoint under the pool's salt.
func (p *Pool) print(ep power.Endpoint) Credentials {
	mac := hmac.New(sha256.New, []byte(p.salt))
	fmt.Fprintf(mac, "%s\x00%q\x00%q\x00%d", ep.Key(), ep.User, string(ep.Password), ep.Suite)
	if ep.KG != "" {
		fmt.Fprintf(mac, "\x00%q", string(ep.KG))
	}
	if ep.Scheme != power.SchemeIPMI {
		fmt.Fprintf(mac, "\x00%q\x00%t\x00%t", ep.Pin, ep.OldTLS, ep.Basic)
	}
	return Credentials(binary.BigEndian.Uint32(mac.Sum(nil)))
}

// Refusal is how often a BMC refused the same credentials in a row. It is kept, so that an
// agent that dies again and again does not lock an account.
type Refusal struct {
	BMC   string      `json:"bmc"`   // Endpoint.Key
	Print Credentials `json:"print"` // of what was refused
	Times int         `json:"times"`
	At    time.Time   `json:"at"`
	// Kind is what the last of them was refused as; "": user or password.
	Kind power.ErrorKind `json:"kind,omitempty"`
}

// Key names the BMC and the credentials.
func (r Refusal) Key() string { return fmt.Sprintf("%s %08x", r.BMC, uint32(r.Print)) }

// RefusalKey is the Key of a refusal of the endpoint's credentials.
func (p *Pool) RefusalKey(ep power.Endpoint) string {
	return Refusal{BMC: ep.Key(), Print: p.print(ep)}.Key()
}

// Restore takes a refusal of before the start.
func (p *Pool) Restore(r Refusal) {
	b := p.byKey(r.BMC)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused[r.Print] = refusals{times: r.Times, kind: cmp.Or(r.Kind, power.KindAuth)}
}

// ForgetRefused forgets what BMCs refused and is not in use any more, by Refusal.Key:
// credentials that come back were changed and count again. used is asked for if there is
// something to forget.
func (p *Pool) ForgetRefused(used func() map[string]bool) (gone []Refusal) {
	refused := slices.DeleteFunc(p.list(), func(b *BMC) bool { return !b.hasRefused() })
	if len(refused) == 0 {
		return nil
	}
	stay := used()
	for _, b := range refused {
		b.mu.Lock()
		for print := range b.refused {
			if r := (Refusal{BMC: b.key, Print: print}); !stay[r.Key()] {
				delete(b.refused, print)
				gone = append(gone, r)
			}
		}
		b.mu.Unlock()
	}
	return gone
}

// learn takes the outcome of an exchange that was tried with the endpoint.
func (b *BMC) learn(ep power.Endpoint, err error) {
	if b.driver != nil && err != nil {
		var de *power.Error
		if errors.As(err, &de) && (de.Lost || de.Kind == power.KindAuth || de.Kind == power.KindUnreachable) {
			b.drop()
		}
	}
	if !reached(err) {
		return
	}
	refused := RefusedLogIn(err)
	rec := Refusal{BMC: b.key, At: time.Now()}
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
	if refused {
		b.of.refused(ep)
	}
	if closed {
		b.of.alive(b)
		b.of.logger.Info("BMC answers again", "bmc", b.key, "failures", failures, "took", time.Since(since))
	}
}

// Unread takes the error of a reading of the monitor that began then. Its failure is none
// where the BMC gave an answer.
func (b *BMC) Unread(began time.Time, err error) Failure {
	if !unreached(err) {
		return Failure{}
	}
	why := Failure{power.ReachOf(err), err.Error()}
	b.mu.Lock()
	opened := b.breaker.failed(began, time.Now(), why, b.of.pauses)
	open, next := b.breaker.open(), b.breaker.next
	b.mu.Unlock()
	if open {
		b.of.dead(b)
	}
	if opened {
		b.of.logger.Warn("BMC cannot be read, left alone", "bmc", b.key, "until", next, "err", err)
	}
	return why
}

// FailedSince says why a reading that began after the given time had no answer, if there
// was one.
func (b *BMC) FailedSince(t time.Time) Failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.breaker.failures > 0 && b.breaker.began.After(t) {
		return b.breaker.last
	}
	return Failure{}
}

// Note says that a node is read by this BMC. The result says whether the BMC is left alone.
func (b *BMC) Note(node string) (leftAlone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes[node] = true
	return b.breaker.open()
}

// Nodes lists the nodes that were read by this BMC, gone ones too.
func (b *BMC) Nodes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.nodes))
}

// Status is how one gets on with a BMC.
type Status struct {
	LeftAlone string    // why the monitor leaves it alone; "": it does not
	Until     time.Time // of that; zero: until somebody does something about it
	// Failures are readings in a row without an answer, AuthFailures refused log-ins.
	Failures, AuthFailures int
	LastError              string
}

// Status is how one gets on with the BMC by the endpoint.
func (b *BMC) Status(ep power.Endpoint) Status {
	r := b.refusals(ep)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{Failures: b.breaker.failures, AuthFailures: r.times, LastError: cmp.Or(b.breaker.last.Message, r.says)}
	since := power.At(b.breaker.since)
	switch {
	case r.times >= authFailuresToOpen:
		s.LeftAlone = fmt.Sprintf("its BMC refused %s %d times, and one more could lock the account", r.what(), r.times)
	case b.breaker.open() && b.breaker.last.Reach == power.ReachBusy:
		s.Until, s.LeftAlone = b.breaker.next, "its BMC answers and has opened no session since "+since
	case b.breaker.open():
		s.Until, s.LeftAlone = b.breaker.next, "its BMC has not answered since "+since
	}
	return s
}

// ByBreaker counts the BMCs by the state of their circuit breaker: closed, open, trial (a probe was
// answered, and the next reading decides), or refused (they refused the log-ins that are in use).
func (p *Pool) ByBreaker() map[string]int {
	by := map[string]int{"closed": 0, "open": 0, "trial": 0, "refused": 0}
	for _, b := range p.list() {
		b.mu.Lock()
		state := "closed"
		switch {
		case b.breaker.open():
			state = "open"
		case b.breaker.trial:
			state = "trial"
		}
		for _, r := range b.refused {
			if r.times >= authFailuresToOpen {
				state = "refused"
			}
		}
		b.mu.Unlock()
		by[state]++
	}
	return by
}

// LeftAlone counts the BMCs that are left alone.
func (p *Pool) LeftAlone() int {
	n := 0
	for _, b := range p.list() {
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

// Retry forgets why the BMC is left alone, and what was learnt of it, and has the next
// exchange open a new session: an administrator asked for it.
func (b *BMC) Retry(ep power.Endpoint) {
	rec := Refusal{BMC: b.key, Print: b.of.print(ep)}
	b.mu.Lock()
	known := b.refused[rec.Print].times > 0
	delete(b.refused, rec.Print)
	b.breaker.answered(b.breaker.heard)
	b.reopen = true
	b.mu.Unlock()
	if b.of.forget != nil {
		b.of.forget(ep)
	}
	b.of.alive(b)
	if known {
		b.of.keep(rec, false)
	}
}

// MayTry reports whether the BMC may be asked by other credentials than those that it has just
// refused: not if it has refused them for the same user, who would be a try nearer to a lock.
func (p *Pool) MayTry(other, than power.Endpoint) bool {
	times := p.Get(other).refusals(other).times
	return times == 0 || other.User != than.User && times < authFailuresToOpen
}

// GiveUp has the BMC left alone with these credentials: they were refused, and so were the only
// others.
func (p *Pool) GiveUp(ep power.Endpoint) {
	b := p.Get(ep)
	rec := Refusal{BMC: b.key, Print: p.print(ep), Times: authFailuresToOpen, At: time.Now()}
	b.mu.Lock()
	r := b.refused[rec.Print]
	news := r.times < authFailuresToOpen
	if news {
		r.times = authFailuresToOpen
		r.kind = cmp.Or(r.kind, power.KindAuth)
		b.refused[rec.Print] = r
	}
	rec.Kind = r.kind
	b.mu.Unlock()
	if news {
		p.keep(rec, true)
	}
}

// Pardon forgets refusals of these credentials: the BMC has let the same user in since.
func (p *Pool) Pardon(ep power.Endpoint) {
	b := p.Get(ep)
	if b.refusals(ep).times == 0 {
		return
	}
	rec := Refusal{BMC: b.key, Print: p.print(ep)}
	b.mu.Lock()
	delete(b.refused, rec.Print)
	b.mu.Unlock()
	p.keep(rec, false)
}

// Hurry has a BMC that is left alone probed now: somebody waits for a reading.
func (b *BMC) Hurry() {
	b.mu.Lock()
	if b.breaker.open() {
		b.breaker.next = time.Time{}
	}
	b.mu.Unlock()
	b.of.wakeUp()
}

// Probes says how BMCs that are left alone are probed, and who is told.
type Probes struct {
	Workers int // at once
	// Ping asks for a sign of life; nil: the reading on trial is the probe.
	Ping     func(ctx context.Context, ep power.Endpoint) error
	Answer   time.Duration         // that is waited for an answer to Ping
	Nodes    func(b *BMC) []string // that are behind the BMC now
	Answered func(nodes []string)  // they are to be read
	Silent   func(nodes []string, why Failure)
}

// Probe probes the BMCs that are left alone, each on its own schedule, until ctx
// ends. No worker of the rounds has to do with it.
func (p *Pool) Probe(ctx context.Context, how Probes) {
	var probes sync.WaitGroup
	defer probes.Wait()
	slots := make(chan struct{}, how.Workers)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		list, next := p.due(time.Now())
		for _, b := range list {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			probes.Go(func() {
				defer func() { <-slots }()
				p.probe(ctx, b, how)
			})
		}
		timer.Reset(max(time.Until(next), 0))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
	}
}

// probe asks a BMC that is left alone whether it is there. One that is goes back
// into the rounds on trial, and its nodes are read at once.
func (p *Pool) probe(ctx context.Context, b *BMC, how Probes) {
	nodes := how.Nodes(b)
	busy, err := false, error(nil)
	b.mu.Lock()
	full := b.breaker.full(time.Now(), b.of.pauses)
	b.mu.Unlock()
	if len(nodes) > 0 && !full {
		if b.tryAcquire() {
			err = how.knock(ctx, b)
			b.release()
		} else {
			busy = true // the one that talks to it finds out as well
		}
	}
	if ctx.Err() != nil {
		return
	}
	alive, mute := b.probed(len(nodes) > 0, busy, err)
	switch {
	case alive:
		p.alive(b)
		how.Answered(nodes)
	case mute:
		how.Silent(nodes, Failure{power.ReachOf(err), err.Error()})
	}
	p.wakeUp()
}

// knock is one probe; the turn is ours.
func (how Probes) knock(ctx context.Context, b *BMC) error {
	if how.Ping == nil {
		return nil // the reading on trial is the probe
	}
	ctx, cancel := context.WithTimeout(ctx, how.Answer)
	defer cancel()
	return unanswered(how.Ping(ctx, b.endpoint), how.Answer)
}
