package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/powertest"
)

// mostIn checks that no window of time holds more than rate times its length, and one.
func mostIn(times []time.Time, rate float64) error {
	for i := range times {
		for j := i + 1; j < len(times); j++ {
			window := times[j].Sub(times[i])
			if got := float64(j - i); got > rate*window.Seconds()+1e-6 {
				return fmt.Errorf("%d within %s, at most %.1f a second may", j-i+1, window, rate)
			}
		}
	}
	return nil
}

// inDomains puts node i into power domain i modulo the number of names.
func (r *harness) inDomains(names ...string) {
	for i := range r.nodes {
		r.nodes[i].Domain = names[i%len(names)]
	}
	r.assign(r.nodes...)
}

// powerOns returns when power-ons reached the BMCs of each domain.
func (r *harness) powerOns() map[string][]powertest.Entry {
	domain := map[string]string{}
	for _, n := range r.nodes {
		domain[n.Name] = n.Domain
	}
	list := map[string][]powertest.Entry{}
	for _, e := range r.fake.Log() {
		if e.Command == power.PowerOn {
			list[domain[e.BMC]] = append(list[domain[e.BMC]], e)
		}
	}
	return list
}

func timesOf(list []powertest.Entry) (times []time.Time) {
	for _, e := range list {
		times = append(times, e.At)
	}
	return times
}

// kill ends the agent as SIGKILL would: no BMC hears of it any more and its journal
// takes nothing.
func (r *harness) kill(after int) {
	r.cfg.wrapLog = func(a *Agent, log opLog) opLog {
		return &dyingLog{opLog: log, left: after, death: func() {
			for _, n := range r.nodes {
				r.bmc(n.Name).SetMute(true)
			}
			a.stop(errStopping)
		}}
	}
	r.crash()
	r.start()
	r.cfg.wrapLog = nil
}

func (r *harness) revive() {
	r.crash()
	for _, n := range r.nodes {
		r.bmc(n.Name).SetMute(false)
	}
	r.start()
	r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed-a", Rate: 5, Concurrent: 25}, {Name: "feed-b", Rate: 5, Concurrent: 25}})
}

// TestFleetComesBack: 400 nodes are off, all are wanted on, by people and by the
// monitor. The BMCs' own logs show that the rate is kept, over a death of the agent
// in the middle, and how many were on their way at once.
func TestFleetComesBack(t *testing.T) {
	const onAfter = 3 * time.Second
	for _, who := range []string{"people", "monitor"} {
		t.Run(who, func(t *testing.T) {
			inBubble(t, 400, func(r *harness) {
				r.cfg.Monitor = "@every 60s"
				r.inDomains("feed-a", "feed-b")
				for _, n := range r.nodes {
					r.bmc(n.Name).SetOnAfter(onAfter)
				}
				records := 400 + 400 + 2*150 // accepted and started, then sending and sent
				if who == "monitor" {
					time.Sleep(time.Minute) // the readings of the assignment
				}
				r.kill(records)
				r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed-a", Rate: 5, Concurrent: 25}, {Name: "feed-b", Rate: 5, Concurrent: 25}})
				for i, n := range r.nodes {
					if who == "people" {
						r.ask(n.Name, power.ActOn)
					} else {
						r.nodes[i] = withStatus(n, power.StatusDeploying)
					}
				}
				if who == "monitor" {
					r.assign(r.nodes...)
				}
				for r.a.ctx.Err() == nil {
					time.Sleep(10 * time.Millisecond)
				}
				died := len(r.fake.Log())
				r.revive()
				if who == "people" && len(r.a.outbox.unacknowledged()) != 400 {
					t.Fatalf("%d are outstanding", len(r.a.outbox.unacknowledged()))
				}
				time.Sleep(4 * time.Minute)
				for _, n := range r.nodes {
					r.wantPower(n.Name, power.On)
				}
				if died < 50 || died > 250 {
					t.Fatalf("%d power-ons before the death: the test shows nothing", died)
				}
				for domain, list := range r.powerOns() {
					if len(list) != 200 {
						t.Errorf("%s: %d power-ons, want 200", domain, len(list))
					}
					if err := mostIn(timesOf(list), 5); err != nil {
						t.Errorf("%s: %v", domain, err)
					}
					took := list[len(list)-1].At.Sub(list[0].At)
					t.Logf("%s: %d power-ons in %s, %d before the death", domain, len(list), took, died)
					if took > 55*time.Second+60*time.Second {
						t.Errorf("%s: took %s", domain, took)
					}
				}
			})
		})
	}
}

// TestDomainBoundsHowManyAreOnTheirWay: also over a restart, whose queue goes on in
// the order in which the requests were made.
func TestDomainBoundsHowManyAreOnTheirWay(t *testing.T) {
	const onAfter = 10 * time.Second
	inBubble(t, 60, func(r *harness) {
		r.inDomains("feed")
		for _, n := range r.nodes {
			r.bmc(n.Name).SetOnAfter(onAfter)
		}
		limit := []api.DomainLimit{{Name: "feed", Rate: 20, Concurrent: 8}}
		r.a.limiter.SetLimits(limit)
		var ids []string
		for _, n := range r.nodes {
			ids = append(ids, r.ask(n.Name, power.ActOn).Op.ID)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(15 * time.Second)
		if got := r.a.view.domains(); len(got) != 1 || got[0].InFlight != 8 || got[0].Name != "feed" || got[0].Waiting == 0 {
			t.Fatalf("domains: %+v", got)
		}
		if got := r.a.view.domainOf("n1"); got == nil || *got != r.a.view.domains()[0] {
			t.Fatalf("domain of n1: %+v", got)
		}
		r.crash()
		r.start()
		r.a.limiter.SetLimits(limit)
		for _, id := range ids {
			r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		}
		list := r.powerOns()["feed"]
		for i, e := range list {
			if want := r.nodes[i].Name; e.BMC != want {
				t.Fatalf("power-on %d went to %s, want %s", i, e.BMC, want)
			}
			flying := 1
			for _, before := range list[:i] {
				if e.At.Before(before.At.Add(onAfter)) {
					flying++
				}
			}
			if flying > 8 {
				t.Fatalf("%d on their way at power-on %d", flying, i)
			}
		}
		if got := r.a.view.domains()[0]; got.InFlight != 0 || got.Waiting != 0 {
			t.Fatalf("at rest: %+v", got)
		}
	})
}

func TestWhatWaitsForItsDomainCanBeStopped(t *testing.T) {
	inBubble(t, 6, func(r *harness) {
		r.inDomains("feed")
		for _, n := range r.nodes {
			r.bmc(n.Name).SetStuck(true) // keeps its slot for long
		}
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed", Rate: 10, Concurrent: 1}})
		first := r.ask("n1", power.ActOn).Op.ID
		time.Sleep(time.Second)
		waits := map[string]string{}
		for _, n := range []string{"n2", "n3", "n4", "n5"} {
			waits[n] = r.ask(n, power.ActOn, func(o *power.Op) {
				if n == "n4" {
					o.Deadline = time.Now().Add(20 * time.Second)
				}
			}).Op.ID
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		r.bmc("n5").SetPower(power.On) // by hand, while it waits
		r.bmc("n6").SetPower(power.On)
		r.bmc("n6").SetStuck(false)
		report, _ := r.a.outbox.find(waits["n4"])
		if want := api.PhaseRunning + ": waiting for power domain feed: 2 ahead, about "; !strings.HasPrefix(report.Phase, want) {
			t.Fatalf("phase %q, want %q...", report.Phase, want)
		}
		asked := time.Now()
		if _, err := r.a.Cancel(cancelBy(waits["n2"], "bob")); err != nil {
			t.Fatal(err)
		}
		r.wantEnd(waits["n2"], power.Cancelled, power.ReasonAsked)
		off := r.ask("n3", power.ActOff).Op.ID
		r.wantEnd(waits["n3"], power.Superseded, power.ReasonNewer)
		r.wantEnd(off, power.Succeeded, power.ReasonAlready)
		r.wantEnd(r.ask("n6", power.ActOff).Op.ID, power.Succeeded, power.ReasonVerified)
		if took := time.Since(asked); took > 5*time.Second {
			t.Fatalf("stopping and offs took %s", took)
		}
		if end := r.wantEnd(waits["n4"], power.Expired, power.ReasonDeadline); end.Attempts != 0 {
			t.Fatalf("end: %+v", end)
		}
		if _, err := r.a.Cancel(cancelBy(first, "bob")); err != nil {
			t.Fatal(err)
		}
		r.wantEnd(first, power.Cancelled, power.ReasonAsked)
		r.wantEnd(waits["n5"], power.Succeeded, power.ReasonAlready)
		for _, n := range []string{"n2", "n3", "n4", "n5"} {
			r.wantCommands(n)
		}
		if got := r.a.view.domains()[0]; got.InFlight != 0 || got.Waiting != 0 {
			t.Fatalf("at rest: %+v", got)
		}
	})
}

// TestCyclesThatWaitLeaveTheirNodesOn: a cycle that has to wait for its domain cuts no
// power before, and none at all when too little of its time is left after that.
func TestCyclesThatWaitLeaveTheirNodesOn(t *testing.T) {
	inBubble(t, 70, func(r *harness) {
		r.inDomains("feed")
		limit := []api.DomainLimit{{Name: "feed", Rate: 0.2}} // 60 of them in five minutes
		r.a.limiter.SetLimits(limit)
		for _, n := range r.nodes {
			r.bmc(n.Name).SetPower(power.On)
			r.bmc(n.Name).SetOnAfter(3 * time.Second)
		}
		var ids []string
		for _, n := range r.nodes {
			ids = append(ids, r.ask(n.Name, power.ActCycle).Op.ID)
		}
		r.waitFor("one is off", time.Minute, func() bool { return r.dark() > 0 })
		r.crash()
		r.start()
		r.a.limiter.SetLimits(limit)
		most := 0
		for range 600 {
			time.Sleep(time.Second)
			most = max(most, r.dark())
		}
		if most > 5 {
			t.Errorf("%d nodes were off at once", most)
		}
		for i, id := range ids {
			r.wantPower(r.nodes[i].Name, power.On)
			if i < 50 {
				r.wantEnd(id, power.Succeeded, power.ReasonVerified)
				r.wantCommands(r.nodes[i].Name, power.PowerOff, power.PowerOn)
			}
			if i >= 60 {
				r.wantEnd(id, power.Expired, power.ReasonDeadline)
				r.wantCommands(r.nodes[i].Name)
			}
		}
		if err := mostIn(timesOf(r.powerOns()["feed"]), 0.2); err != nil {
			t.Error(err)
		}
	})
}

// TestSentAgainKeepsItsSlotAndTheRate: nodes that do not come up are told again, within
// the rate of their domain.
func TestSentAgainKeepsItsSlotAndTheRate(t *testing.T) {
	inBubble(t, 40, func(r *harness) {
		r.inDomains("feed")
		for _, n := range r.nodes {
			r.bmc(n.Name).SetStuck(true)
		}
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed", Rate: 2, Concurrent: 30}})
		var ids []string
		for _, n := range r.nodes[:20] {
			ids = append(ids, r.ask(n.Name, power.ActOn).Op.ID)
		}
		time.Sleep(29 * time.Second)
		for _, n := range r.nodes[20:] {
			r.bmc(n.Name).SetStuck(false)
			ids = append(ids, r.ask(n.Name, power.ActOn).Op.ID)
		}
		for i, id := range ids {
			if end := r.end(id); (end.Outcome == power.Succeeded) != (i >= 20) {
				t.Fatalf("end: %+v", end)
			}
		}
		list := r.powerOns()["feed"]
		if len(list) != 20*3+20 {
			t.Errorf("%d power-ons", len(list))
		}
		if err := mostIn(timesOf(list), 2); err != nil {
			t.Error(err)
		}
	})
}

// TestHungBMCsDoNotSaveTheirTurns: power-ons that had their turn while their BMCs were
// silent do not leave all at once when those answer again.
func TestHungBMCsDoNotSaveTheirTurns(t *testing.T) {
	inBubble(t, 30, func(r *harness) {
		r.inDomains("feed")
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed", Rate: 2}})
		for _, n := range r.nodes {
			r.ask(n.Name, power.ActOn)
		}
		time.Sleep(3 * time.Second)
		for _, n := range r.nodes {
			r.bmc(n.Name).SetMute(true)
		}
		time.Sleep(20 * time.Second)
		for _, n := range r.nodes {
			r.bmc(n.Name).SetMute(false)
		}
		time.Sleep(2 * time.Minute)
		list := r.powerOns()["feed"]
		if len(list) != 30 {
			t.Errorf("%d power-ons", len(list))
		}
		if err := mostIn(timesOf(list), 2); err != nil {
			t.Error(err)
		}
	})
}

func TestLimitsChangeWhileSomeWait(t *testing.T) {
	inBubble(t, 100, func(r *harness) {
		r.inDomains("feed", "")
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed", Rate: 0.1, Concurrent: 1}})
		var ids []string
		for _, n := range r.nodes {
			ids = append(ids, r.ask(n.Name, power.ActOn).Op.ID)
		}
		time.Sleep(5 * time.Second)
		if got := len(r.powerOns()[""]); got != 50 {
			t.Fatalf("%d nodes of no domain are on", got)
		}
		if got := len(r.powerOns()["feed"]); got > 1 {
			t.Fatalf("%d power-ons", got)
		}
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed"}}) // no bound
		time.Sleep(12 * time.Second)
		if got := len(r.powerOns()["feed"]); got != 50 {
			t.Fatalf("%d power-ons", got)
		}
		for _, id := range ids {
			r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		}
		r.a.limiter.SetLimits(nil)
		want := api.DomainLimit{Name: "feed", Rate: power.DefaultDomainRate, Concurrent: power.DefaultDomainConcurrent}
		if got := r.a.view.domainOf("n1").DomainLimit; got != want {
			t.Fatalf("limits: %+v", got)
		}
		if r.a.view.domainOf("n2") != nil {
			t.Fatal("a node of no domain has one")
		}
	})
}

// TestLateCommandsAskForAnotherTime: power-ons whose time came while their BMCs took
// no log-in are spaced again when those do.
func TestLateCommandsAskForAnotherTime(t *testing.T) {
	inBubble(t, 20, func(r *harness) {
		r.inDomains("feed")
		r.crash()
		r.cfg.Timing.KeepSession = -1
		r.start()
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed", Rate: 0.5}})
		for _, n := range r.nodes {
			r.bmc(n.Name).SetTimeout(time.Second)
		}
		r.fake.Hook(func(e powertest.Event) {
			out := r.a.lane(e.BMC.Name()).outstanding()
			if e.Phase == powertest.Before && e.Op == "dial" && len(out) > 0 && out[0].Phase == api.PhaseRunning+": sending power-on" {
				e.BMC.SetMute(true)
			}
		})
		for _, n := range r.nodes {
			r.ask(n.Name, power.ActOn)
		}
		time.Sleep(35 * time.Second)
		if got := r.fake.Log(); len(got) > 0 {
			t.Fatalf("left: %+v", got)
		}
		r.fake.Hook(nil)
		for _, n := range r.nodes {
			r.bmc(n.Name).SetMute(false)
		}
		time.Sleep(3 * time.Minute)
		list := r.powerOns()["feed"]
		if len(list) != 20 {
			t.Errorf("%d power-ons", len(list))
		}
		if err := mostIn(timesOf(list), 0.5); err != nil {
			t.Error(err)
		}
	})
}

// TestStopGivesNoSlotAway: while an agent stops, nobody takes the place of a node that
// is on its way.
func TestStopGivesNoSlotAway(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.inDomains("feed")
		r.bmc("n1").SetOnAfter(time.Minute)
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "feed", Rate: 10, Concurrent: 1}})
		r.ask("n1", power.ActOn)
		time.Sleep(time.Second)
		r.ask("n2", power.ActOn)
		time.Sleep(time.Second)
		a := r.a
		r.crash()
		if got := a.limiter.State("feed"); got.InFlight != 1 {
			t.Fatalf("after the stop: %+v", got)
		}
		r.wantCommands("n2")
	})
}

// TestDomainChangesWhileSomeWait: who waits goes on in the domain that its node is in
// by then.
func TestDomainChangesWhileSomeWait(t *testing.T) {
	inBubble(t, 20, func(r *harness) {
		r.inDomains("a")
		r.a.limiter.SetLimits([]api.DomainLimit{{Name: "a", Rate: 0.1}, {Name: "b", Rate: 2}})
		for _, n := range r.nodes {
			r.ask(n.Name, power.ActOn, func(o *power.Op) { o.Deadline = time.Now().Add(time.Hour) })
		}
		time.Sleep(5 * time.Second)
		r.inDomains("b", "", "b", "")
		time.Sleep(3 * time.Minute)
		list := r.powerOns()
		if err := mostIn(timesOf(list["b"]), 2); err != nil {
			t.Error(err)
		}
		if len(list["b"]) != 10 || len(list[""]) != 10 {
			t.Errorf("%d and %d power-ons", len(list["b"]), len(list[""]))
		}
		if at := list["b"]; len(at) > 0 && at[len(at)-1].At.Sub(at[0].At) > 20*time.Second {
			t.Errorf("it took %s", at[len(at)-1].At.Sub(at[0].At))
		}
		for _, d := range r.a.view.domains() {
			if d.InFlight+d.Waiting > 0 {
				t.Errorf("at rest: %+v", d)
			}
		}
	})
}
