package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/power"
)

func withStatus(n api.AssignedNode, s power.Status) api.AssignedNode {
	n.Status, n.Desired = s, s.Desired()
	return n
}

func TestMonitorFollowsTheStatus(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		bmc := r.bmc("n1")
		r.assign(withStatus(r.nodes[0], power.StatusDeploying))
		time.Sleep(25 * time.Second)
		r.wantPower("n1", power.Off) // debounced: one reading is not enough
		time.Sleep(10 * time.Second)
		r.wantPower("n1", power.On) // without waiting for the next round
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		time.Sleep(10 * time.Second)
		r.wantPower("n1", power.Off)
		bmc.SetPower(power.On) // somebody pressed the button
		time.Sleep(3 * time.Minute)
		r.wantPower("n1", power.Off)
		r.wantCommands("n1", power.PowerOn, power.PowerOff, power.PowerOff)
		r.assign(withStatus(r.nodes[0], power.StatusDeployed))
		bmc.SetPower(power.On)
		time.Sleep(10 * time.Minute)
		r.wantPower("n1", power.On)
	})
}

func TestMonitorWorksFromTheLastAssignmentWithoutCentral(t *testing.T) {
	inBubble(t, 3, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		for i := range r.nodes {
			r.nodes[i] = withStatus(r.nodes[i], power.StatusReady)
		}
		r.assign(r.nodes...)
		time.Sleep(time.Minute)
		r.crash()
		for _, n := range r.nodes {
			r.bmc(n.Name).SetPower(power.On)
		}
		r.start()
		time.Sleep(30 * time.Second)
		for _, n := range r.nodes {
			r.wantPower(n.Name, power.Off)
		}
	})
}

func TestMonitorLeavesBusyNodesAlone(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 10s"
		r.start()
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		soft := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = 5 * time.Minute })
		r.assign(withStatus(r.nodes[0], power.StatusReady)) // wants it off at once
		time.Sleep(4 * time.Minute)
		r.wantCommands("n1", power.PressSoftOff)
		r.wantEnd(soft.Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

func TestScheduleErrorsSayWhatToWrite(t *testing.T) {
	for _, text := range []string{"every minute", "* * *", "@every x", "TZ=UTC", "CRON_TZ=Europe/Berlin"} {
		if err := monitor.CheckSchedule(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	for _, text := range []string{"", "off", "@every 30s", "*/5 * * * *", "@hourly"} {
		if err := monitor.CheckSchedule(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReadingKeepsTheLastStateWhenItFails(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.a.poller.readNodes(r.a.ctx, []string{"n1"}, 0, nil)
		seen := r.a.readings.get("n1")
		r.bmc("n1").SetMute(true)
		r.a.poller.readNodes(r.a.ctx, []string{"n1"}, 0, nil)
		got := r.a.readings.get("n1")
		if got.State != power.On || got.Reach != power.ReachUnreachable || !got.ObservedAt.Equal(seen.ObservedAt) ||
			!got.TriedAt.After(seen.TriedAt) {
			t.Fatalf("reading: %+v", got)
		}
		n := r.nodes[1]
		n.BMC = ""
		r.assign(n)
		r.a.poller.readNodes(r.a.ctx, []string{"n2"}, 0, nil)
		if got := r.a.readings.get("n2"); got.Reach != power.ReachUnconfigured {
			t.Fatalf("reading: %+v", got)
		}
	})
}

func TestReadingsOfAThousandNodesDoNotWaitForTheHung(t *testing.T) {
	inBubble(t, 1000, func(r *harness) {
		time.Sleep(time.Minute) // the readings that the assignment set off
		var names []string
		for i, n := range r.nodes {
			names = append(names, n.Name)
			r.bmc(n.Name).SetLatency(5 * time.Millisecond)
			if i%20 == 0 {
				r.bmc(n.Name).SetMute(true)
			}
		}
		began := time.Now()
		r.a.poller.readNodes(r.a.ctx, names, 0, nil)
		if took := time.Since(began); took > 15*time.Second {
			t.Fatalf("a round took %s", took)
		}
		read := 0
		for _, n := range names {
			if !r.a.readings.get(n).ObservedAt.Before(began) {
				read++
			}
		}
		if read != 950 {
			t.Fatalf("%s were read, want 950", fmt.Sprint(read))
		}
	})
}

func count(commands []power.Command, c power.Command) int {
	n := 0
	for _, x := range commands {
		if x == c {
			n++
		}
	}
	return n
}

// waitFor waits, in simulated time, until fn is true, and says how long it took.
func (r *harness) waitFor(what string, most time.Duration, fn func() bool) time.Duration {
	r.t.Helper()
	began := time.Now()
	for ; !fn(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > most {
			r.t.Fatalf("after %s still not: %s", most, what)
		}
	}
	return time.Since(began)
}

func (r *harness) made(node string) api.NodeMonitor { return r.a.readings.made(node) }

func TestDebounceNeedsTwoEqualReadings(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusNew)) // it may be enlisting
		time.Sleep(20 * time.Second)
		r.bmc("n1").SetPower(power.Off) // it goes off by itself
		r.a.poller.readSoon([]string{"n1"})
		time.Sleep(5 * time.Second)
		r.bmc("n1").SetPower(power.On) // and comes back
		r.a.poller.readSoon([]string{"n1"})
		time.Sleep(25 * time.Second) // 50 s after the first reading, 25 s after the newest that differs
		r.wantCommands("n1")
		if m := r.made("n1"); m.Waits != power.ReasonDebounce || m.WaitsUntil.IsZero() {
			t.Errorf("waits for %+v", m)
		}
		time.Sleep(8 * time.Second)
		r.wantCommands("n1", power.PowerOff)
	})
}

func TestDebounceBeginsWithTheDesire(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		r.assign(withStatus(r.nodes[0], power.StatusMissing))
		time.Sleep(5 * time.Minute) // read off all the time
		r.assign(withStatus(r.nodes[0], power.StatusTesting))
		time.Sleep(25 * time.Second)
		r.wantCommands("n1")
		time.Sleep(10 * time.Second)
		r.wantCommands("n1", power.PowerOn)
	})
}

func TestSecondLookFindsNodesThatComeBack(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		for back := 1; back <= 3; back++ {
			r.waitFor("it is off", 2*time.Minute, func() bool { return b.Power() == power.Off })
			if n := count(b.Commands(), power.PowerOff); n != back {
				t.Fatalf("%d power-offs, want %d", n, back)
			}
			time.Sleep(5 * time.Second)
			b.SetPower(power.On) // some nodes come back by themselves
			r.waitFor("the second look", 30*time.Second, func() bool { return r.made("n1").Failures == back })
			if back < 3 { // corrected at once, although it was changed less than the settle time ago
				r.waitFor("it is turned off again", 2*time.Second, func() bool { return count(b.Commands(), power.PowerOff) == back+1 })
			}
		}
		if m := r.made("n1"); m.Fault == "" || m.Faults != 1 || m.Waits != power.ReasonFault || !strings.Contains(m.Fault, "on again") {
			t.Fatalf("thrice back and no fault: %+v", m)
		}
		r.waitFor("it is tried again", 65*time.Second, func() bool { return b.Power() == power.Off })
		if r.made("n1").Fault == "" {
			t.Fatal("the fault is over before the second look")
		}
		time.Sleep(35 * time.Second)
		if m := r.made("n1"); m.Fault != "" || m.Failures != 0 || m.Faults != 1 {
			t.Fatalf("it stayed off: %+v", m)
		}
	})
}

// TestTurnedOnIsNotComeBack: a node that was asked to be on since it was turned off did
// not come back by itself, whatever is wanted of it by the time of the second look.
func TestTurnedOnIsNotComeBack(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		r.waitFor("it is off", time.Minute, func() bool { return b.Power() == power.Off })
		time.Sleep(5 * time.Second)
		r.assign(withStatus(r.nodes[0], power.StatusDeploying))
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		time.Sleep(20 * time.Second)
		r.assign(withStatus(r.nodes[0], power.StatusFailedDeployment))
		time.Sleep(7 * time.Second)
		e, _ := r.a.view.explain("n1", time.Now())
		for _, d := range e.RecentDecisions {
			if d.Reason == power.ReasonCameBack {
				t.Errorf("decided %+v", d)
			}
		}
		if e.Monitor.Failures != 0 {
			t.Errorf("it counts as a failed correction: %+v", e.Monitor)
		}
		r.waitFor("it is off again", time.Minute, func() bool { return b.Power() == power.Off })
	})
}

func TestSecondLookAfterARestart(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		r.waitFor("it is off", time.Minute, func() bool { return b.Power() == power.Off })
		time.Sleep(time.Second)
		r.cfg.Monitor = "@every 1h"
		r.restart()
		time.Sleep(5 * time.Second)
		b.SetPower(power.On)
		r.waitFor("it is off again", 30*time.Second, func() bool { return b.Power() == power.Off })
	})
}

// TestSettleTimeOverARestart: what was changed a moment ago is left alone by the next
// process too, though central has had the end and the journal has let it go.
func TestSettleTimeOverARestart(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		r.assign(withStatus(r.nodes[0], power.StatusDiskErasing))
		r.waitFor("it is on", time.Minute, func() bool { return b.Power() == power.On })
		time.Sleep(2 * time.Minute)
		op := r.ask("n1", power.ActCycle)
		r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
		ended := time.Now()
		report, _ := r.a.outbox.find(op.Op.ID)
		if !r.a.acknowledged([]api.OpReport{report}, ack{}) {
			t.Fatal("what ended stays in the journal")
		}
		sent := len(b.Commands())
		r.crash()
		b.SetPower(power.Off)
		r.start()
		r.waitFor("it is corrected", 2*time.Minute, func() bool { return len(b.Commands()) > sent })
		if after := time.Since(ended); after < time.Minute {
			t.Fatalf("it was corrected %s after it was changed", after)
		}
	})
}

func TestFaultPausesGrowAndSurviveARestart(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		r.cfg.Timing.Verify = []time.Duration{time.Second}
		r.restart()
		b.SetPower(power.On)
		b.SetStuck(true)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		tries := func() int { return len(b.Commands()) }
		r.waitFor("three tries", 10*time.Minute, func() bool { return tries() == 3 })
		r.waitFor("the fault", 10*time.Second, func() bool { return r.made("n1").Fault != "" && r.a.monitor.State().Faults == 1 })
		last := time.Now()
		for i, want := range []time.Duration{
			time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 30 * time.Minute,
			30 * time.Minute,
		} {
			if i == 3 {
				r.restart()
				time.Sleep(5 * time.Second)
				if m := r.made("n1"); m.Failures != 6 || m.Fault == "" || m.Faults != 1 {
					t.Fatalf("after a restart: %+v", m)
				}
			}
			r.waitFor("the next try", 2*want, func() bool { return tries() == 4+i })
			if took := time.Since(last); took < want-2*time.Second || took > want+20*time.Second {
				t.Errorf("try %d came after %s, want %s", 4+i, took, want)
			}
			last = time.Now()
		}
		b.SetStuck(false)
		r.waitFor("it is off", 31*time.Minute, func() bool { return b.Power() == power.Off })
		time.Sleep(time.Minute)
		if m := r.made("n1"); m.Fault != "" || m.Failures != 0 || m.Faults != 1 || r.a.monitor.State().Faults != 0 {
			t.Fatalf("it does not clear itself: %+v", m)
		}
	})
}

func inFault(r *harness) {
	b := r.bmc("n1")
	r.cfg.Timing.Verify = []time.Duration{time.Second}
	r.restart()
	b.SetPower(power.On)
	b.SetStuck(true)
	r.assign(withStatus(r.nodes[0], power.StatusReady))
	r.waitFor("a long pause", time.Hour, func() bool { return r.made("n1").Failures == 8 })
	b.SetStuck(false)
}

func TestFaultEndsByRetryOrAnotherDesire(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		inFault(r)
		n := withStatus(r.nodes[0], power.StatusReady)
		n.Retry = 7
		time.Sleep(2 * time.Minute)
		r.wantPower("n1", power.On)
		r.assign(n)
		r.waitFor("it is off", time.Minute, func() bool { return r.bmc("n1").Power() == power.Off })
		if m := r.made("n1"); m.Failures != 0 {
			t.Fatalf("%+v", m)
		}
	})
	monitored(t, 1, func(r *harness) {
		inFault(r)
		r.assign(withStatus(r.nodes[0], power.StatusDeployed))
		time.Sleep(time.Second)
		if m := r.made("n1"); m.Fault != "" || m.Faults != 1 {
			t.Fatalf("%+v", m)
		}
	})
	monitored(t, 1, func(r *harness) { // seen right, whoever did it
		inFault(r)
		r.bmc("n1").SetPower(power.Off)
		time.Sleep(time.Minute)
		if m := r.made("n1"); m.Fault != "" || !m.Matched {
			t.Fatalf("%+v", m)
		}
	})
}

func TestErasingIsNeverCut(t *testing.T) {
	monitored(t, 2, func(r *harness) {
		for i, n := range r.nodes {
			r.bmc(n.Name).SetPower(power.On)
			r.nodes[i] = withStatus(n, power.StatusDiskErasing)
			r.nodes[i].Hold = power.Hold{Want: power.WantOff, By: "bob", Seq: 5, Confirmed: true}
		}
		r.assign(r.nodes...)
		time.Sleep(5 * time.Minute)
		r.restart()
		time.Sleep(5 * time.Minute)
		r.wantCommands("n1")
		if m := r.made("n1"); m.Waits != power.ReasonNoCut {
			t.Errorf("%+v", m)
		}
		// one that was on its way when the erasing began
		ready := withStatus(r.nodes[1], power.StatusReady)
		ready.Hold, ready.Confirmed = power.Hold{}, true
		r.bmc("n2").SetMute(true)
		r.assign(ready)
		r.a.Submit(power.Op{ID: "m", Node: "n2", Action: power.ActOff, Origin: power.FromMonitor, AskedBy: "monitor", Options: power.Options{IfBusy: power.Refuse}})
		time.Sleep(time.Second)
		r.assign(r.nodes[1])
		r.bmc("n2").SetMute(false)
		r.wantEnd("m", power.Cancelled, power.ReasonAsked)
		time.Sleep(5 * time.Minute)
		r.wantCommands("n2")
		op := r.ask("n1", power.ActOff) // a person may
		r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

func TestHoldOverridesAndEndsByItself(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		n := withStatus(r.nodes[0], power.StatusReady)
		n.Hold = power.Hold{Want: power.WantOn, By: "bob", Reason: "bench", Seq: 5, Until: time.Now().Add(10*time.Minute + 7*time.Second)}
		r.assign(n)
		time.Sleep(5 * time.Second)
		r.wantPower("n1", power.On)
		time.Sleep(9 * time.Minute)
		r.restart()
		time.Sleep(67 * time.Second) // its end was 5 s ago
		r.wantPower("n1", power.On)
		time.Sleep(3 * time.Second)
		r.wantPower("n1", power.Off)
		row := r.a.view.nodes(time.Now())[0]
		if row.Desired != power.WantOff || row.DesiredFrom != "status READY" || row.Hold != nil {
			t.Errorf("row %+v", row)
		}
		r.wantCommands("n1", power.PowerOn, power.PowerOff)
	})
}

func TestPauseReadsAndCorrectsNothing(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		r.settings(api.RackSettings{Pause: &api.Pause{
			By: "ann", Reason: "cabling", Since: time.Now(),
			Until: time.Now().Add(20*time.Minute + 7*time.Second),
		}})
		b.SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		time.Sleep(10 * time.Minute)
		r.restart()
		time.Sleep(5 * time.Minute)
		r.wantCommands("n1")
		if m, s := r.made("n1"), r.a.monitor.State(); m.Waits != power.ReasonPaused || !strings.Contains(m.WaitsMessage, "ann") ||
			s.Pause == nil ||
			m.WaitsUntil.IsZero() {
			t.Fatalf("%+v, %+v", m, s)
		}
		if age := time.Since(r.a.readings.get("n1").ObservedAt); age > 2*time.Minute {
			t.Fatalf("last read %s ago", age)
		}
		op := r.ask("n1", power.ActReset) // requests are carried out
		r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
		time.Sleep(5*time.Minute + 4*time.Second)
		r.wantPower("n1", power.On)
		time.Sleep(6 * time.Second) // its end is noticed between two rounds
		r.wantPower("n1", power.Off)
		if s := r.a.monitor.State(); s.Pause != nil {
			t.Fatalf("%+v", s)
		}
		r.settings(api.RackSettings{Pause: &api.Pause{By: "ann", Since: time.Now()}})
		b.SetPower(power.On)
		time.Sleep(time.Hour)
		r.wantPower("n1", power.On)
		r.settings(api.RackSettings{})
		time.Sleep(3 * time.Second) // it does not wait for the next round
		r.wantPower("n1", power.Off)
	})
}

// TestAnotherPauseIsSaidAtOnce: what a node waits for is told by the settings of now, not
// by those of when it was looked at last.
func TestAnotherPauseIsSaidAtOnce(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		pause := func(by string, d time.Duration) {
			r.settings(api.RackSettings{Monitor: "@every 1h", Pause: &api.Pause{By: by, Since: time.Now(), Until: time.Now().Add(d)}})
			time.Sleep(time.Second)
		}
		r.bmc("n1").SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		pause("ann", time.Hour)
		until := time.Now().Add(3 * time.Hour)
		pause("bob", 3*time.Hour)
		if m := r.made("n1"); m.Waits != power.ReasonPaused || !strings.Contains(m.WaitsMessage, "bob") || !m.WaitsUntil.Equal(until) {
			t.Fatalf("waits for %+v", m)
		}
	})
}

func TestScheduleChangesAtRunTime(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		reads := func(d time.Duration) int {
			before := r.bmc("n1").Counts().Reads
			time.Sleep(d)
			return r.bmc("n1").Counts().Reads - before
		}
		time.Sleep(time.Second)
		if n := reads(10 * time.Minute); n < 9 || n > 11 {
			t.Errorf("%d readings in 10 min of every 60 s", n)
		}
		r.settings(api.RackSettings{Monitor: "@every 10s"})
		if n := reads(10 * time.Minute); n < 58 || n > 62 {
			t.Errorf("%d readings in 10 min of every 10 s", n)
		}
		r.restart()
		if n := reads(10 * time.Minute); n < 58 || n > 62 {
			t.Errorf("%d readings in 10 min of every 10 s after a restart", n)
		}
		r.settings(api.RackSettings{Monitor: "off"})
		time.Sleep(11 * time.Second)
		if n := reads(10 * time.Minute); n != 0 {
			t.Errorf("%d readings although it is off", n)
		}
		r.settings(api.RackSettings{Monitor: "every minute"})
		if n := reads(10 * time.Minute); n < 9 || n > 12 {
			t.Errorf("%d readings under the agent's own schedule", n)
		}
		if s := r.a.monitor.State(); !strings.Contains(s.Monitor, "@every 60s") || !strings.Contains(s.Monitor, "every minute") {
			t.Errorf("schedule %q does not say what is in force and what is ignored", s.Monitor)
		}
		r.settings(api.RackSettings{})
		if s := r.a.monitor.State(); s.Monitor != "@every 60s" {
			t.Errorf("schedule %q", s.Monitor)
		}
	})
}

// TestInterruptedOffIsNotPoweredBackOn: the last observed state is no desired state.
func TestInterruptedOffIsNotPoweredBackOn(t *testing.T) {
	for _, status := range []power.Status{power.StatusDeployed, power.StatusMissing, power.StatusReady, power.StatusNone} {
		monitored(t, 1, func(r *harness) {
			b := r.bmc("n1")
			b.SetPower(power.On)
			b.SetOffAfter(time.Hour)
			n := withStatus(r.nodes[0], status)
			if status == power.StatusReady {
				n.Hold = power.Hold{Want: power.WantOn, By: "bob", Seq: 3}
			}
			r.assign(n)
			time.Sleep(2 * time.Minute)
			n.Hold = power.Hold{}
			op := r.ask("n1", power.ActOff)
			time.Sleep(2 * time.Second)
			if got := r.a.readings.get("n1"); got.State != power.On {
				t.Fatalf("last observed %+v", got)
			}
			r.crash()
			b.SetOffAfter(0)
			b.SetPower(power.On)
			if status == power.StatusReady {
				r.start()
				r.assign(n)
			} else {
				r.start()
			}
			r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
			time.Sleep(20 * time.Minute)
			r.wantPower("n1", power.Off)
			if count(b.Commands(), power.PowerOn) != 0 {
				t.Fatalf("%s: powered back on: %v", status, b.Commands())
			}
		})
	}
}

// TestMonitorOfThousandNodesWithHungBMCs: what hangs delays no decision on others.
func TestHungBMCDelaysNoDecision(t *testing.T) {
	monitored(t, 100, func(r *harness) {
		for i := range r.nodes {
			r.bmc(r.nodes[i].Name).SetPower(power.On)
			r.nodes[i] = withStatus(r.nodes[i], power.StatusDeployed)
		}
		r.bmc("n1").SetMute(true)
		r.assign(r.nodes...)
		time.Sleep(5 * time.Minute)
		r.assign(withStatus(r.nodes[50], power.StatusReady))
		took := r.waitFor("it is off", time.Minute, func() bool { return r.bmc("n51").Power() == power.Off })
		if took > 6*time.Second {
			t.Errorf("a power-off took %s", took)
		}
		r.bmc("n51").SetPower(power.On)
		if took := r.waitFor("it is off again", 5*time.Minute, func() bool { return r.bmc("n51").Power() == power.Off }); took > 62*time.Second {
			t.Errorf("a drift was corrected after %s", took)
		}
	})
}

// TestFailedCorrectionsAreNotRepeatedAtOnce: those that fail before anything leaves
// touch no power, and the node is left alone for a while all the same.
func TestFailedCorrectionsAreNotRepeatedAtOnce(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		time.Sleep(90 * time.Second)
		r.bmc("n1").SetPower(power.On)
		r.a.monitor.Ended(power.Op{Node: "n1", Action: power.ActOff, Origin: power.FromMonitor}, power.End{Outcome: power.Failed, At: time.Now()},
			true)
		r.a.poller.readSoon([]string{"n1"})
		time.Sleep(55 * time.Second)
		if m := r.made("n1"); m.Failures != 1 || m.Waits != power.ReasonSettling {
			t.Fatalf("%+v", m)
		}
		r.wantCommands("n1")
		time.Sleep(10 * time.Second)
		r.wantCommands("n1", power.PowerOff)
	})
}

// TestMatchedEndsWithTheDesire: what is told of a node after its desire changed is
// about that, however soon it is told.
func TestMatchedEndsWithTheDesire(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		if r.made("n1").Matched {
			t.Fatal("its agent says of a node that it was seen off, and it was not")
		}
		if row := r.a.view.nodes(time.Now())[0]; row.Drift || !row.Pending {
			t.Fatalf("row %+v", row)
		}
	})
}

// TestMonitorOffStopsWhatHasNotLeft: who turns a rack's monitor off in the middle of a
// ramp wants that to end.
func TestMonitorOffStopsWhatHasNotLeft(t *testing.T) {
	monitored(t, 20, func(r *harness) {
		r.inDomains("feed")
		r.settings(api.RackSettings{Domains: []api.DomainLimit{{Name: "feed", Rate: 0.5}}})
		for i := range r.nodes {
			r.nodes[i] = withStatus(r.nodes[i], power.StatusTesting)
		}
		r.assign(r.nodes...)
		r.waitFor("the ramp", 3*time.Minute, func() bool { return r.commands() >= 3 })
		r.settings(api.RackSettings{Monitor: MonitorOff, Domains: []api.DomainLimit{{Name: "feed", Rate: 0.5}}})
		time.Sleep(3 * time.Second)
		before := r.commands()
		time.Sleep(5 * time.Minute)
		if n := r.commands() - before; n > 0 {
			t.Fatalf("%d commands after the monitor was turned off", n)
		}
	})
}

// TestRestingMonitorHoldsNobodyUp: what it asked for before it rests does not stand in
// the line of a power domain before people's requests.
func TestRestingMonitorHoldsNobodyUp(t *testing.T) {
	for name, rest := range map[string]func(r *harness, d []api.DomainLimit){
		"paused": func(r *harness, d []api.DomainLimit) {
			r.settings(api.RackSettings{Domains: d, Pause: &api.Pause{By: "ann", Since: time.Now()}})
		},
		"off": func(r *harness, d []api.DomainLimit) { r.settings(api.RackSettings{Domains: d, Monitor: MonitorOff}) },
	} {
		t.Run(name, func(t *testing.T) {
			monitored(t, 20, func(r *harness) {
				r.inDomains("feed")
				limits := []api.DomainLimit{{Name: "feed", Rate: 0.2}}
				r.settings(api.RackSettings{Domains: limits})
				for i := range r.nodes[:19] {
					r.nodes[i] = withStatus(r.nodes[i], power.StatusTesting)
				}
				r.assign(r.nodes...)
				r.waitFor("the ramp", 3*time.Minute, func() bool { return r.commands() >= 3 })
				rest(r, limits)
				op := r.ask("n20", power.ActOn)
				asked := time.Now()
				r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
				if took := time.Since(asked); took > 15*time.Second {
					t.Fatalf("a person waited %s", took)
				}
				if out := r.a.lane("n10").outstanding(); len(out) > 0 {
					t.Fatalf("outstanding: %+v", out)
				}
			})
		})
	}
}

// TestAStartTakesNothingBack looks at what a report would say right after a start: what
// was said of a node that drifts or is in fault stands.
func TestAStartTakesNothingBack(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetStuck(true)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		time.Sleep(time.Hour)
		before := r.a.readings.made("n1")
		if before.Fault == "" {
			t.Fatalf("not in fault: %+v", before)
		}
		r.restart()
		if now := r.a.readings.made("n1"); now.Fault != before.Fault || now.Failures != before.Failures ||
			!now.FaultSince.Equal(before.FaultSince) {
			t.Errorf("%+v after a start, %+v before", now, before)
		}
	})
}

// TestAChangeOfDesireIsSaidAtOnce looks at what a report would say right after an
// assignment was taken, before anything was compared.
func TestAChangeOfDesireIsSaidAtOnce(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		r.bmc("n1").SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusDeployed))
		time.Sleep(2 * time.Minute)
		if !r.a.readings.made("n1").Matched {
			t.Fatal("not seen as expected")
		}
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		if r.a.readings.made("n1").Matched {
			t.Error("what was said of the desire before is said of the new one")
		}
	})
}

// TestAMonitorThatIsOffIsSaid: a node that nobody reads waits for nothing else.
func TestAMonitorThatIsOffIsSaid(t *testing.T) {
	monitored(t, 2, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusDiskErasing), withStatus(r.nodes[1], power.StatusDeployed))
		r.settings(api.RackSettings{Monitor: MonitorOff})
		time.Sleep(time.Minute)
		r.bmc("n1").SetPower(power.Off)
		for _, what := range []string{"read a while ago", "read long ago", "not read since the start"} {
			e, _ := r.a.view.explain("n1", time.Now())
			if !strings.Contains(e.Message, "the monitor of the rack is off") || strings.Contains(e.Message, "checks it next") {
				t.Errorf("%s: %s", what, e.Message)
			}
			if e, _ := r.a.view.explain("n2", time.Now()); strings.Contains(e.Message, "monitor is off") {
				t.Errorf("nothing is wanted of n2: %s", e.Message)
			}
			if what == "read a while ago" {
				time.Sleep(20 * time.Minute)
			} else {
				r.restart()
				time.Sleep(time.Second)
			}
		}
	})
}
