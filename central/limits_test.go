package central

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// limited is a central with a port, two clocks and the limits of a user.
func limited(t *testing.T, l Limits) (r *running, clock, steady *movable) {
	t.Helper()
	clock, steady = new(movable), new(movable)
	began := time.Now()
	l.now = func() time.Time { return began.Add(steady.off) } // it stands still
	r = run(t, Config{TLS: TLSConfig{Listen: "127.0.0.1:0", Names: []string{"127.0.0.1"}}, Now: clock.now, Limits: l})
	return r, clock, steady
}

// TestWhoAsksTooOftenIsRefused, others are not; the audit log tells it once a minute.
func TestWhoAsksTooOftenIsRefused(t *testing.T) {
	r, clock, _ := limited(t, Limits{Rate: 2})
	alice, bob := r.as(t, "alice", api.AddUser{Role: "viewer"}), r.as(t, "bob", api.AddUser{Role: "viewer"})
	who := func(c *api.Client) error { _, err := c.WhoAmI(t.Context()); return err }
	for range 2 * burstSeconds {
		if err := who(alice); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		err := who(alice)
		wantCode(t, err, api.CodeTooMany)
		if p := problemIn(err); p == nil || p.RetryAfter != time.Second ||
			p.Status != http.StatusTooManyRequests ||
			!strings.Contains(p.Detail, "too many requests of alice: at most 2 a second, and 20 at once") {
			t.Errorf("%+v", err)
		}
	}
	if err := who(bob); err != nil {
		t.Errorf("another user: %v", err)
	}
	if _, err := r.Users(t.Context()); err != nil {
		t.Errorf("root: %v", err)
	}
	clock.later(2 * time.Minute)
	wantCode(t, who(alice), api.CodeTooMany)
	entries, err := r.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range entries {
		if e.What == "access-refused" && e.Who == "alice" {
			said = append(said, e.Outcome+" "+e.Detail)
		}
	}
	if len(said) != 2 || !strings.Contains(said[0], "too-many-requests GET /v1/whoami: too many requests") ||
		!strings.Contains(said[1], "2 times more since the entry before") {
		t.Errorf("%q", said)
	}
}

// TestOneUserHasOnlyItsTurns fills the turns of one user: another one is served, and a turn
// that is given back is taken.
func TestOneUserHasOnlyItsTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(Limits{Rate: 1000, Waiting: 2})
		open := func(name string) (*ticket, error) {
			return l.admit(t.Context(), auth.Principal{Kind: auth.User, Name: name}, sees, &http.Request{})
		}
		must := func(name string) *ticket {
			t.Helper()
			one, err := open(name)
			if err != nil {
				t.Fatal(err)
			}
			one.refused = func(error) {}
			return one
		}
		var all []*ticket
		for range l.user.handled {
			all = append(all, must("alice"))
		}
		var waits sync.WaitGroup
		var late *ticket
		waits.Go(func() { late = must("alice") })
		synctest.Wait()
		must("bob").done()
		if late != nil {
			t.Fatal("it had a turn")
		}
		if err := all[0].rest(); err != nil { // waits for news, and needs none
			t.Fatal(err)
		}
		waits.Wait()
		if late == nil {
			t.Fatal("it has no turn though one waits for news")
		}
		began := time.Now()
		_, err := open("alice")
		wantCode(t, err, api.CodeTooMany)
		if time.Since(began) != longestQueue {
			t.Errorf("refused after %s", time.Since(began))
		}
		late.done()
		if err := all[0].work(t.Context()); err != nil {
			t.Error(err)
		}
		for _, one := range all {
			one.done()
		}
		if u := l.of["user alice"]; len(u.tickets) != 0 || u.nWaits != 0 || l.watches != 0 || len(u.turns) != 0 {
			t.Errorf("left: %+v", u)
		}
	})
}

func TestWhatOnePrincipalHasAtOnce(t *testing.T) {
	l := newLimits(Limits{Rate: 1 << 20, Waiting: 2})
	open := func(name string) *ticket {
		t.Helper()
		one, err := l.open("user "+name, name, l.user)
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	a, b, c := open("alice"), open("alice"), open("alice")
	for _, one := range []*ticket{a, b, a} {
		if err := one.wait(); err != nil {
			t.Error(err)
		}
	}
	err := c.wait()
	wantCode(t, err, api.CodeTooMany)
	if p := problemIn(err); p == nil || p.RetryAfter != retryWatch {
		t.Errorf("%+v", err)
	}
	a.done()
	if err := c.wait(); err != nil {
		t.Error(err)
	}
	l.watches = maxWatches
	wantCode(t, open("bob").wait(), api.CodeTooMany)

	if err := b.took(l.user.bytes); err != nil {
		t.Error(err)
	}
	wantCode(t, c.took(1), api.CodeTooMany)
	if err := open("bob").took(1); err != nil {
		t.Error(err)
	}
	b.done()
	if err := c.took(1); err != nil {
		t.Error(err)
	}
	l.bytes = maxBodies
	wantCode(t, open("bob").took(1), api.CodeTooMany)

	for {
		if _, err = l.open("user carol", "carol", l.user); err != nil {
			break
		}
	}
	wantCode(t, err, api.CodeTooMany)
	if n := len(l.of["user carol"].tickets); n != l.user.open {
		t.Errorf("%d are open", n)
	}
}

// TestManyAddressesAreForgotten: what is remembered of those who are gone is bounded.
func TestManyAddressesAreForgotten(t *testing.T) {
	l := newLimits(Limits{Rate: 1, Waiting: 1})
	held, err := l.open("address x", "x", allowanceOfAnyAddress)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxPrincipals {
		one, err := l.open(fmt.Sprint("address ", i), "x", allowanceOfAnyAddress)
		if err != nil {
			t.Fatal(err)
		}
		one.done()
	}
	if len(l.of) > maxPrincipals || l.of["address x"] == nil {
		t.Errorf("%d are remembered", len(l.of))
	}
	held.done()
	if a, b := network("2001:db8:1:2:3::1"), network("2001:db8:1:2:ffff::1"); a != b || network("192.0.2.1") != "192.0.2.1" {
		t.Errorf("%s, %s", a, b)
	}
}

// TestWatchesAndPollsAreBounded opens as many as there may be, over TLS.
func TestWatchesAndPollsAreBounded(t *testing.T) {
	r, _, _ := limited(t, Limits{Waiting: 2})
	alice, bob := r.as(t, "alice", api.AddUser{Role: "viewer"}), r.as(t, "bob", api.AddUser{Role: "viewer"})
	agent := r.enrolled(t, "r1")
	w, err := agent.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	first, err := agent.Poll(t.Context(), "r1", api.Poll{Session: w.Session})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	watch := func(ctx context.Context, c *api.Client, wait time.Duration) error {
		_, err := c.AuditAfter(ctx, "", 1<<40, wait)
		return err
	}
	poll := func(ctx context.Context, wait time.Duration) error {
		_, err := agent.Poll(ctx, "r1", api.Poll{Session: w.Session, Database: w.Database, Rev: first.Rev, Wait: wait})
		return err
	}
	for range 2 {
		open.Go(func() { _ = watch(ctx, alice, time.Minute) })
	}
	for range allowanceOfAgent.waiting {
		open.Go(func() { _ = poll(ctx, time.Minute) })
	}
	waiting := func(key string) int {
		r.c.limits.mu.Lock()
		defer r.c.limits.mu.Unlock()
		if u := r.c.limits.of[key]; u != nil {
			return u.nWaits
		}
		return 0
	}
	until(t, "they wait", func() bool {
		return waiting("user alice") == 2 && waiting("agent r1") == allowanceOfAgent.waiting
	})
	wantCode(t, watch(t.Context(), alice, time.Minute), api.CodeTooMany)
	wantCode(t, poll(t.Context(), time.Minute), api.CodeTooMany)
	if _, err := alice.WhoAmI(t.Context()); err != nil {
		t.Errorf("what does not wait: %v", err)
	}
	if err := watch(t.Context(), bob, time.Millisecond); err != nil {
		t.Errorf("another user: %v", err)
	}
	if _, err := agent.Report(t.Context(), "r1", api.Report{Session: w.Session, JournalID: "j", Epoch: 1}); err != nil {
		t.Errorf("a report: %v", err)
	}
	cancel()
	until(t, "they have ended", func() bool { return waiting("user alice") == 0 })
	if err := watch(t.Context(), alice, time.Millisecond); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestAHugeBodyOfAnybody: who is not known sends little.
func TestAHugeBodyOfAnybody(t *testing.T) {
	r, _, _ := limited(t, Limits{})
	_, err := r.remote(t, "", nil).JoinSite(t.Context(), api.JoinSite{Agent: "r1", Request: strings.Repeat("x", 1<<20)})
	if err == nil {
		t.Error("taken")
	}
}

// problemIn is the problem within an error; nil: there is none.
func problemIn(err error) *api.Problem {
	var p *api.Problem
	_ = errors.As(err, &p)
	return p
}
