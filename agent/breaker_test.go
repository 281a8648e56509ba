package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// withBreaker is a rig whose monitor runs, whose BMCs are probed, and whose first
// reading is over.
// breakerOpen says why the node's BMC is left alone, and until when.
func (r *harness) breakerOpen(node string) (until time.Time, says string, open bool) {
	b := r.a.prober.bmcState(node)
	return b.NextProbe, b.BreakerOpen, b.BreakerOpen != ""
}

func withBreaker(t *testing.T, nodes int, fn func(*harness)) {
	t.Helper()
	inBubble(t, nodes, func(r *harness) {
		r.crash()
		r.cfg.Monitor, r.cfg.Probe = "@every 60s", r.fake.Probe
		r.start()
		time.Sleep(time.Second)
		fn(r)
	})
}

func (r *harness) wantReach(node string, want power.Reach) {
	r.t.Helper()
	if got := r.a.readings.get(node); got.Reach != want {
		r.t.Fatalf("%s: %+v, want %s", node, got, want)
	}
}

func TestDeadBMCHasItsOwnSchedule(t *testing.T) {
	withBreaker(t, 2, func(r *harness) {
		b := r.bmc("n1")
		b.SetMute(true)
		time.Sleep(3 * time.Minute)
		until, says, open := r.breakerOpen("n1")
		if !open || says == "" || !until.After(time.Now()) {
			t.Fatalf("open %v until %s: %s", open, until, says)
		}
		if _, _, open := r.breakerOpen("n2"); open || r.a.bmcs.LeftAlone() != 1 {
			t.Fatalf("%d BMCs are left alone", r.a.bmcs.LeftAlone())
		}
		before := b.Counts()
		time.Sleep(time.Hour)
		after := b.Counts()
		if tried := after.Dials - before.Dials; tried < 5 || tried > 7 {
			t.Fatalf("%d log-ins tried in an hour on a BMC that answers no probe, want one in 10 min", tried)
		}
		if probes := after.Probes - before.Probes; probes < 4 || probes > 10 {
			t.Fatalf("%d probes in an hour", probes)
		}
		st := r.a.prober.bmcState("n1")
		if st.Failures < 7 || st.BreakerOpen == "" || !st.NextProbe.After(time.Now()) || !strings.Contains(st.LastError, "no answer") ||
			st.Address != "ipmi://admin@n1" {
			t.Fatalf("state: %+v", st)
		}
		r.wantReach("n1", power.ReachUnreachable)
		if got := r.a.readings.get("n1"); time.Since(got.TriedAt) > 11*time.Minute {
			t.Fatalf("a probe does not count as a try: %+v", got)
		}
		b.SetMute(false)
		b.SetPower(power.On)
		time.Sleep(time.Until(st.NextProbe) + time.Second)
		if got := r.a.readings.get("n1"); got.Reach != power.ReachOK || got.State != power.On {
			t.Fatalf("not read when its probe was answered: %+v", got)
		}
		if st := r.a.prober.bmcState("n1"); st.Failures != 0 || st.BreakerOpen != "" || r.a.bmcs.LeftAlone() != 0 {
			t.Fatalf("state: %+v", st)
		}
	})
}

func TestBreakerWithoutAProbeReads(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Probe = nil
		r.start()
		b := r.bmc("n1")
		b.SetMute(true)
		time.Sleep(10 * time.Minute)
		before := b.Counts().Dials
		time.Sleep(time.Hour)
		if tried := b.Counts().Dials - before; tried < 6 || tried > 10 {
			t.Fatalf("%d readings tried in an hour", tried)
		}
		b.SetMute(false)
		time.Sleep(10*time.Minute + 10*time.Second)
		r.wantReach("n1", power.ReachOK)
	})
}

// TestAnswersProbesAndNothingElse: a BMC whose probe is answered and whose reading is
// not is left alone for longer and longer.
func TestAnswersProbesAndNothingElse(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.FailNextDials(1<<30, power.KindUnreachable)
		b.FailNextReads(1<<30, power.KindUnreachable)
		time.Sleep(30 * time.Minute)
		before := b.Counts().Dials
		time.Sleep(time.Hour)
		if tried := b.Counts().Dials - before; tried > 8 {
			t.Fatalf("%d readings tried in an hour", tried)
		}
		b.FailNextDials(0, "")
		b.FailNextReads(0, "")
		time.Sleep(10*time.Minute + time.Second)
		r.wantReach("n1", power.ReachOK)
	})
}

func TestPeoplePassTheBreakerAndCloseIt(t *testing.T) {
	withBreaker(t, 3, func(r *harness) {
		for _, n := range []string{"n1", "n2", "n3"} {
			r.bmc(n).SetMute(true)
		}
		time.Sleep(30 * time.Minute)
		if r.a.bmcs.LeftAlone() != 3 {
			t.Fatal("the breakers are not open")
		}
		for _, n := range []string{"n1", "n2", "n3"} {
			r.bmc(n).SetMute(false)
		}
		began := time.Now()
		end := r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		if end.At.Sub(began) > 5*time.Second { // a probe may be under way; the breaker's pause is minutes
			t.Fatalf("took %s", end.At.Sub(began))
		}
		if _, _, open := r.breakerOpen("n1"); open {
			t.Fatal("the breaker did not close")
		}
		r.a.poller.readNow(r.a.ctx, []string{"n2"}) // at the rack's socket
		r.wantReach("n2", power.ReachOK)
		r.a.prober.hurry([]string{"n3"}) // through central
		time.Sleep(time.Second)
		r.wantReach("n3", power.ReachOK)
		if r.a.bmcs.LeftAlone() != 0 {
			t.Fatalf("%d are left alone", r.a.bmcs.LeftAlone())
		}
		before := r.bmc("n1").Counts().Reads
		time.Sleep(5 * time.Minute)
		if got := r.bmc("n1").Counts().Reads - before; got < 4 {
			t.Fatalf("back in the rounds, read %d times in 5 min", got)
		}
	})
}

// TestAnErrorIsAnAnswer: who is told that a BMC does not answer looks for a cable, and who
// is told that it refuses the password for another one.
func TestAnErrorIsAnAnswer(t *testing.T) {
	for kind, want := range map[power.ErrorKind]string{
		power.KindBusy: "It cannot be read: state: busy", power.KindRefused: "It cannot be read: state: refused",
		power.KindPrivilege: "It cannot be read: state: privilege", power.KindUnsupported: "It cannot be read: state: unsupported",
		power.KindUnreachable: "the BMC does not answer", power.KindAuth: "the BMC refuses the log-in",
	} {
		withBreaker(t, 1, func(r *harness) {
			r.hall(power.StatusReady, power.Off)
			r.bmc("n1").FailNextReads(1000, kind)
			time.Sleep(3 * time.Minute)
			if e, _ := r.a.view.explain("n1", time.Now()); !strings.Contains(e.Message, want) {
				t.Errorf("%s: %q does not say %q", kind, e.Message, want)
			}
		})
	}
}

func TestNodesOfOneBMCAreReadInOneGo(t *testing.T) {
	withBreaker(t, 8, func(r *harness) {
		for i := range r.nodes {
			r.nodes[i].BMC = fmt.Sprintf("ipmi://admin@chassis?target=%#02x", 0x30+2*i)
		}
		r.assign(r.nodes...)
		time.Sleep(time.Minute)
		b := r.bmc("chassis")
		b.SetMute(true)
		began, before := time.Now(), b.Counts()
		var names []string
		for _, n := range r.nodes {
			names = append(names, n.Name)
		}
		called := 0
		r.a.poller.readNodes(r.a.ctx, names, 0, func(string) { called++ })
		if took := time.Since(began); took > 25*time.Second || called != 8 {
			t.Fatalf("took %s, %d told", took, called)
		}
		if tried := b.Counts().Dials - before.Dials; tried > 2 {
			t.Fatalf("%d tries", tried)
		}
		for _, n := range names {
			r.wantReach(n, power.ReachUnreachable)
		}
	})
}

func (r *harness) password(node int, password string) {
	r.nodes[node].Password = password
	r.assign(r.nodes...)
}

// TestRefusedLogInsAreCountedOverRestarts: an agent that dies again and again does not
// lock an account.
func TestRefusedLogInsAreCountedOverRestarts(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetAccount("admin", "secret")
		r.password(0, "wrong")
		for range 10 {
			time.Sleep(2 * time.Minute)
			r.restart()
		}
		time.Sleep(5 * time.Minute)
		if got := b.Counts().AuthFailures; got != 2 {
			t.Fatalf("%d log-ins refused, want 2", got)
		}
		r.wantReach("n1", power.ReachAuthFailed)
		until, says, open := r.breakerOpen("n1")
		if !open || !until.IsZero() || !strings.Contains(says, "could lock the account") || r.a.bmcs.LeftAlone() != 1 {
			t.Fatalf("open %v until %s: %s", open, until, says)
		}
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Failed, power.ReasonAuth)
		if got := b.Counts().AuthFailures; got != 3 {
			t.Fatalf("%d log-ins refused: a person's operation is good for one", got)
		}
		if st := r.a.prober.bmcState("n1"); st.AuthFailures != 3 || st.BreakerOpen == "" {
			t.Fatalf("state: %+v", st)
		}
		r.a.prober.retryBMC("n1")
		time.Sleep(5 * time.Minute)
		if got := b.Counts().AuthFailures; got != 5 {
			t.Fatalf("%d log-ins refused: a retry is good for two", got)
		}
		r.password(0, "secret")
		time.Sleep(time.Second)
		r.wantReach("n1", power.ReachOK)
		b.SetAccount("admin", "other")
		time.Sleep(30 * time.Second) // the session ends
		r.password(0, "wrong")       // was changed, and counts anew
		time.Sleep(5 * time.Minute)
		if got := b.Counts().AuthFailures; got != 7 {
			t.Fatalf("%d log-ins refused: credentials that come back are good for two", got)
		}
		b.SetAccount("admin", "wrong")
		r.a.prober.retryBMC("n1")
		time.Sleep(time.Second)
		r.restart()
		time.Sleep(time.Second)
		r.wantReach("n1", power.ReachOK)
		for _, rec := range r.a.assignLg.Live() {
			if rec.Kind == kindRefused {
				t.Fatalf("kept: %s", rec.Payload)
			}
		}
	})
}

func TestRecordOfRefusedLogInsTellsNoPassword(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		r.bmc("n1").SetWrongPassword(true)
		time.Sleep(3 * time.Minute)
		found := 0
		for _, rec := range r.a.assignLg.Live() {
			if rec.Kind == kindRefused {
				found++
				if strings.Contains(string(rec.Payload), "secret") || len(rec.Key) != len("refused/ipmi://n1:623 00000000") {
					t.Errorf("%s: %s", rec.Key, rec.Payload)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d records", found)
		}
	})
}

// healthy reads all nodes once, as a first round would, and returns how long the last
// of the healthy took.
func (r *harness) healthy(isHung func(i int) bool) time.Duration {
	began, last := time.Now(), time.Duration(0)
	var names []string
	hung := map[string]bool{}
	for i, n := range r.nodes {
		names = append(names, n.Name)
		hung[n.Name] = isHung(i)
	}
	told := make(chan time.Duration, len(names))
	r.a.poller.readNodes(r.a.ctx, names, 0, func(name string) {
		if !hung[name] {
			told <- time.Since(began)
		}
	})
	close(told)
	for took := range told {
		last = max(last, took)
	}
	return last
}

// TestHungBMCsDelayNoReading: with 5 % of 1,000 BMCs hung, the others are read in no
// more than 1.2 times the time, in a first round and in steady state; and operations
// on them take no longer.
func TestHungBMCsDelayNoReading(t *testing.T) {
	every20th := func(i int) bool { return i%20 == 7 }
	measure := func(latency time.Duration, hung func(int) bool) (first, steady, op time.Duration) {
		inBubble(t, 1000, func(r *harness) {
			for i, n := range r.nodes {
				r.bmc(n.Name).SetLatency(latency + time.Duration(i%7)*latency/4)
				r.bmc(n.Name).SetMute(hung(i))
			}
			r.cfg.Probe = r.fake.Probe
			r.restart() // knows of none
			if len(r.a.poller.slots) != 0 {
				t.Fatal("readings are under way")
			}
			done := make(chan time.Duration, 50)
			go func() {
				for i := range 50 {
					id := r.ask(fmt.Sprintf("n%d", i*20+1), power.ActOff).Op.ID
					go func() { end, _ := r.a.outbox.find(id); done <- r.end(id).At.Sub(end.Op.AskedAt) }()
				}
			}()
			first = r.healthy(hung)
			for range 50 {
				op = max(op, <-done)
			}
			time.Sleep(5 * time.Second)
			r.healthy(hung)
			time.Sleep(5 * time.Second)
			steady = r.healthy(hung)
		})
		return first, steady, op
	}
	for _, latency := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond} {
		f0, s0, op0 := measure(latency, func(int) bool { return false })
		f1, s1, op1 := measure(latency, every20th)
		t.Logf("latency %s: first round %s, %s with hung ones (%.2f); steady %s, %s (%.2f); operations %s, %s", latency,
			f0, f1, float64(f1)/float64(f0), s0, s1, float64(s1)/float64(s0), op0, op1)
		// An operation waits for no more than a reading of its own BMC: 4 exchanges of at
		// most 2.5 latencies in all.
		if f1 > f0*12/10 || s1 > s0*12/10 || op1 > 10*latency {
			t.Error("the hung delay the healthy")
		}
	}
}

// TestRoundsDoNotWaitForTheHung: with a schedule shorter than what a hung BMC takes,
// every round reads the healthy, and the hung is read by one at a time.
func TestRoundsDoNotWaitForTheHung(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.crash()
		r.cfg.Monitor, r.cfg.Probe = "@every 2s", r.fake.Probe
		r.start()
		time.Sleep(time.Second)
		r.bmc("n1").SetMute(true)
		before := r.bmc("n2").Counts().Reads
		time.Sleep(20 * time.Second)
		if got := r.bmc("n2").Counts().Reads - before; got < 9 {
			t.Fatalf("the healthy node was read %d times in 20 s", got)
		}
		if got := r.bmc("n1").Counts().MaxInFlight; got != 1 {
			t.Fatalf("%d exchanges at once with the hung one", got)
		}
	})
}

// TestBMCThatIsBackBeforeItsProbe: somebody closed the breaker while the probe was on
// its way, whatever comes of that.
func TestBMCThatIsBackBeforeItsProbe(t *testing.T) {
	for name, answer := range map[string]error{
		"answered": nil,
		"lost":     &power.Error{Kind: power.KindUnreachable, Op: "probe", Err: errors.New("no answer")},
	} {
		t.Run(name, func(t *testing.T) {
			withBreaker(t, 1, func(r *harness) {
				b := r.bmc("n1")
				var probes atomic.Int64
				r.crash()
				r.cfg.Probe = func(_ context.Context, ep power.Endpoint) error {
					probes.Add(1)
					b.SetMute(false)
					r.a.prober.retryBMC("n1")
					r.a.readings.saw("n1", power.Seen(power.Off, time.Now()))
					return answer
				}
				r.start()
				b.SetMute(true)
				time.Sleep(5 * time.Minute)
				if n := probes.Load(); n != 1 {
					t.Fatalf("%d probes", n)
				}
				r.wantReach("n1", power.ReachOK)
				for _, seen := range r.a.readings.history("n1") {
					if seen.Reach == power.ReachUnreachable && strings.Contains(seen.Message, "probe") {
						t.Fatalf("called unreachable after it had answered: %+v", seen)
					}
				}
			})
		})
	}
}

// TestNoDeadBMCsOfNodesThatAreGone: what is counted is what somebody can do something
// about.
func TestNoDeadBMCsOfNodesThatAreGone(t *testing.T) {
	withBreaker(t, 3, func(r *harness) {
		for _, n := range r.nodes {
			r.bmc(n.Name).SetWrongPassword(true)
		}
		time.Sleep(5 * time.Minute)
		if n := r.a.bmcs.LeftAlone(); n != 3 {
			t.Fatalf("%d BMCs are left alone, want 3", n)
		}
		r.nodes[1].BMC = "ipmi://admin@n9"
		if err := r.a.apply(api.Assignment{Rev: 2, Nodes: r.nodes[1:2], Removed: []string{"n1"}}, theCentral); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			time.Sleep(time.Minute)
			if n := r.a.bmcs.LeftAlone(); n != 1 {
				t.Fatalf("%d BMCs are left alone, want that of n3", n)
			}
			r.restart()
		}
		before := r.bmc("n3").Counts().AuthFailures
		time.Sleep(5 * time.Minute)
		if n := r.bmc("n3").Counts().AuthFailures - before; n != 0 {
			t.Fatalf("%d log-ins tried", n)
		}
	})
}

// TestReachOfABMCOfOurOwn: a chassis serves nodes of two racks; what is asked about it
// from outside takes no second way to it.
func TestReachOfABMCOfOurOwn(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		before := r.bmc("n1").Counts().Probes
		how, ok := r.a.CanReach("other n1:623")
		if !ok || !strings.HasPrefix(how, "read ") || r.bmc("n1").Counts().Probes != before {
			t.Fatalf("%q, %v, %d probes", how, ok, r.bmc("n1").Counts().Probes-before)
		}
	})
}

// TestBMCThatIgnoresProbes: only an answered probe led back into the rounds, and some BMCs
// answer none.
func TestBMCThatIgnoresProbes(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		b := r.bmc("n1")
		r.crash()
		r.cfg.Probe = func(context.Context, power.Endpoint) error {
			return &power.Error{Kind: power.KindUnreachable, Op: "probe", Err: errors.New("no answer")}
		}
		r.start()
		b.SetMute(true)
		time.Sleep(2 * time.Hour)
		r.wantReach("n1", power.ReachUnreachable)
		b.SetMute(false)
		time.Sleep(10*time.Minute + time.Second)
		r.wantReach("n1", power.ReachOK)
		if r.a.bmcs.LeftAlone() != 0 {
			t.Error("it is left alone")
		}
	})
}

// TestBMCWithoutASession: it is there, so nobody is sent to its cable, and it is not
// asked all the time.
func TestBMCWithoutASession(t *testing.T) {
	withBreaker(t, 2, func(r *harness) {
		b := r.bmc("n1")
		r.nodes[1].BMC = r.nodes[0].BMC + "?target=0x30"
		r.hall(power.StatusReady, power.On)
		time.Sleep(time.Second)
		b.SetNoSession(true)
		time.Sleep(30 * time.Minute)
		for _, n := range []string{"n1", "n2"} {
			r.wantReach(n, power.ReachBusy)
			if e, _ := r.a.view.explain(n, time.Now()); !strings.Contains(e.Message, "the BMC answers") ||
				strings.Contains(e.Message, "does not answer") {
				t.Errorf("%s", e.Message)
			}
		}
		_, says, open := r.breakerOpen("n1")
		if !open || !strings.Contains(says, "answers and has opened no session") {
			t.Errorf("%v: %s", open, says)
		}
		before := b.Counts().Dials
		time.Sleep(time.Hour)
		if tried := b.Counts().Dials - before; tried < 5 || tried > 8 {
			t.Errorf("%d log-ins tried in an hour", tried)
		}
		b.SetNoSession(false)
		time.Sleep(10*time.Minute + time.Second)
		r.wantReach("n1", power.ReachOK)
		r.wantReach("n2", power.ReachOK)
	})
}

// TestAnyRefusedLogInCounts: with whatever words a BMC refuses a user, after two it is
// not asked to lock the account.
func TestAnyRefusedLogInCounts(t *testing.T) {
	for kind, says := range map[power.ErrorKind]string{
		power.KindAuth: "user or password", power.KindPrivilege: "for want of rights", power.KindRefused: "the log-in",
		power.KindUnsupported: "the log-in",
	} {
		withBreaker(t, 1, func(r *harness) {
			b := r.bmc("n1")
			b.RefuseLogIns(kind)
			for range 10 {
				time.Sleep(2 * time.Minute)
				r.restart()
			}
			time.Sleep(2 * time.Minute)
			if got := b.Counts().AuthFailures; got != 2 {
				t.Errorf("%s: %d log-ins refused, want 2", kind, got)
			}
			_, text, open := r.breakerOpen("n1")
			if !open || !strings.Contains(text, says) || !strings.Contains(text, "could lock the account") {
				t.Errorf("%s: %v %s", kind, open, text)
			}
			r.wantReach("n1", power.ReachOf(&power.Error{Kind: kind}))
			r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Failed, power.ReasonOf(kind))
			if got := b.Counts().AuthFailures; got > 3 {
				t.Errorf("%s: %d log-ins refused: a person's operation is good for one", kind, got)
			}
			b.RefuseLogIns("")
			r.a.prober.retryBMC("n1")
			time.Sleep(time.Second)
			r.wantReach("n1", power.ReachOK)
		})
	}
}

// TestNobodyReadsOfContexts: what a BMC that is silent is said to do is said in plain words.
func TestNobodyReadsOfContexts(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetTimeout(time.Hour) // the agent's own bounds come first
		b.SetMute(true)
		id := r.ask("n1", power.ActOn).Op.ID
		var texts []string
		for range 100 {
			time.Sleep(10 * time.Second)
			e, _ := r.a.view.explain("n1", time.Now())
			texts = append(texts, e.Message, e.BMC.LastError)
			for _, seen := range e.RecentReadings {
				texts = append(texts, seen.Message)
			}
			for _, op := range e.Ops {
				texts = append(texts, op.Detail)
			}
		}
		r.wantEnd(id, power.Failed, power.ReasonUnreachable)
		slices.Sort(texts)
		all := strings.Join(slices.Compact(texts), "\n")
		if strings.Contains(all, "context") || strings.Contains(all, "canceled") || !strings.Contains(all, "no answer within 2 s") ||
			!strings.Contains(all, "no answer within 30 s") {
			t.Errorf("%s", all)
		}
		r.wantReach("n1", power.ReachUnreachable)
	})
}

// TestSessionsDoNotGrowOld: what a BMC said when a session was opened is believed for a
// minute, and not after a retry.
func TestSessionsDoNotGrowOld(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		b := r.bmc("n1")
		var forgotten atomic.Int64
		r.crash()
		r.cfg.Monitor = "@every 10s" // never idle for as long as a session is kept
		r.cfg.Forget = func(power.Endpoint) { forgotten.Add(1) }
		r.start()
		time.Sleep(time.Second)
		before := b.Counts()
		time.Sleep(10 * time.Minute)
		after := b.Counts()
		if dials, reads := after.Dials-before.Dials, after.Reads-before.Reads; dials < 8 || dials > 10 || reads < 55 {
			t.Errorf("%d sessions for %d readings in 10 min", dials, reads)
		}
		r.a.prober.retryBMC("n1")
		time.Sleep(time.Second)
		if dials := b.Counts().Dials - after.Dials; dials != 1 || forgotten.Load() != 1 {
			t.Errorf("a retry opened %d sessions, and what was learnt was forgotten %d times", dials, forgotten.Load())
		}
		if n := b.Counts().MaxSessions; n != 1 {
			t.Errorf("%d sessions at once", n)
		}
	})
}

// TestAKeyThatChangedIsNoRefusedLogIn: nothing was told to whoever shows it, so that it is asked
// again, and what is said is always about the key of now.
func TestAKeyThatChangedIsNoRefusedLogIn(t *testing.T) {
	withBreaker(t, 1, func(r *harness) {
		var dials atomic.Int64 // the agent's own rounds are among them
		var known atomic.Bool
		dial := r.cfg.Dial
		r.crash()
		r.cfg.Dial = func(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
			if n := dials.Add(1); !known.Load() {
				return nil, &power.Error{
					Kind: power.KindAuth, Untrusted: true, Lost: true, Op: "open session",
					Err: fmt.Errorf("key %d is not the pinned one", n),
				}
			}
			return dial(ctx, ep)
		}
		r.start()
		for n := range int64(5) {
			before := dials.Load()
			r.a.poller.readNow(r.t.Context(), []string{"n1"})
			run := r.a.readings.run("n1")
			if run.Reach != power.ReachAuthFailed || !strings.Contains(run.Message, "is not the pinned one") || dials.Load() == before {
				t.Fatalf("reading %d, %d dials: %+v", n+1, dials.Load(), run)
			}
			if st := r.a.prober.bmcState("n1"); st.AuthFailures != 0 || st.BreakerOpen != "" {
				t.Fatalf("reading %d: %+v", n+1, st)
			}
		}
		known.Store(true)
		r.a.poller.readNow(r.t.Context(), []string{"n1"})
		r.wantReach("n1", power.ReachOK)
	})
}
