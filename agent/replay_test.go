package agent

import (
	"fmt"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func idOf(n int) string { return fmt.Sprintf("op-%03d", n) }

func cancelBy(id, who string) api.Cancel { return api.Cancel{ID: id, By: who} }

// dieAfter makes the next start of the agent die when n records are in its
// journal. With cut, nothing that it does after that reaches a BMC: it died before
// the command left; without, it died before the answer came.
func (r *harness) dieAfter(n int, cut bool) {
	r.cfg.wrapLog = func(a *Agent, log opLog) opLog {
		return &dyingLog{opLog: log, left: n, death: func() {
			if cut {
				r.bmc("n1").SetMute(true)
			}
			a.stop(errStopping)
		}}
	}
}

// TestCrashAtEveryRecord kills the agent after each record of an operation's life
// and starts it again: there is one outcome, the power is as asked, and no more
// was sent than the rules allow.
func TestCrashAtEveryRecord(t *testing.T) {
	for _, c := range []struct {
		action power.Action
		from   power.State
		final  power.State
		cuts   int // the most that may happen
		resets int
	}{
		{power.ActOn, power.Off, power.On, 0, 0},
		{power.ActOff, power.On, power.Off, 1, 0},
		{power.ActSoftOff, power.On, power.Off, 1, 0},
		{power.ActCycle, power.On, power.On, 1, 0},
		{power.ActReset, power.On, power.On, 0, 1},
		{power.ActDiag, power.On, power.On, 0, 0},
		{power.ActBMCReset, power.On, power.On, 0, 0},
		{power.ActCap, power.On, power.On, 0, 0},
	} {
		for records := 1; records <= 9; records++ {
			for _, cut := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s after %d, cut %v", c.action, records, cut), func(t *testing.T) {
					inBubble(t, 1, func(r *harness) {
						bmc := r.bmc("n1")
						bmc.SetPower(c.from)
						bmc.SetOffAfter(2 * time.Second)
						bmc.SetOnAfter(2 * time.Second)
						r.crash()
						r.dieAfter(records, cut)
						r.start()
						id := r.ask("n1", c.action, func(o *power.Op) {
							if c.action == power.ActCap {
								o.Limit = 800
							}
						}).Op.ID
						time.Sleep(30 * time.Second)
						r.crash()
						bmc.SetMute(false)
						r.cfg.wrapLog = nil
						r.start()
						end := r.end(id)
						switch {
						case end.Outcome == power.Succeeded:
						case c.action.Once() && end.Outcome == power.Indeterminate && end.Reason == power.ReasonInterrupted:
						default:
							t.Fatalf("ended %+v", end)
						}
						r.wantPower("n1", c.final)
						if want := map[power.Action]int{power.ActCap: 800}[c.action]; bmc.Limit() != want {
							t.Fatalf("the limit is %d, want %d", bmc.Limit(), want)
						}
						n := bmc.Counts()
						if n.Cuts > c.cuts || n.Resets > c.resets || n.Pulses > 1 || n.BMCResets > 1 || n.MaxInFlight > 1 {
							t.Fatalf("after %+v the BMC counts %+v", end, n)
						}
						if sent := len(bmc.Commands()); end.Already != (end.Attempts == 0) || end.Already && sent > 0 {
							t.Fatalf("%d commands reached the BMC of %+v", sent, end)
						}
						if end.Outcome == power.Succeeded && c.action.Once() && n.Resets+n.Pulses+n.BMCResets != 1 {
							t.Fatalf("succeeded without a command: %+v", end)
						}
					})
				})
			}
		}
	}
}

func TestSupersededAndJoinedStaySoOverARestart(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		bmc := r.bmc("n1")
		bmc.SetMute(true)
		on := r.ask("n1", power.ActOn).Op.ID
		cycle := r.ask("n1", power.ActCycle).Op.ID
		join := r.ask("n1", power.ActCycle).Op.ID
		off := r.ask("n1", power.ActOff).Op.ID
		r.crash()
		bmc.SetMute(false)
		r.start()
		for id, by := range map[string]string{on: off, cycle: off, join: off} {
			if end := r.wantEnd(id, power.Superseded, power.ReasonNewer); end.SupersededBy != by {
				t.Fatalf("%s: %+v", id, end)
			}
		}
		r.wantEnd(off, power.Succeeded, power.ReasonAlready)
		r.wantCommands("n1")
	})
}

// TestCancellingSurvivesDeath: what was told to stop before the crash does not run
// on after it, whoever told it.
func TestCancellingSurvivesDeath(t *testing.T) {
	for _, superseded := range []bool{true, false} {
		inBubble(t, 1, func(r *harness) {
			r.crash()
			r.dieAfter(3, true) // on accepted, on started, and what stops it
			r.start()
			r.bmc("n1").SetMute(true)
			on := r.ask("n1", power.ActOn).Op.ID
			time.Sleep(time.Second)
			want, by := power.Cancelled, ""
			if superseded {
				want, by = power.Superseded, r.ask("n1", power.ActOff).Op.ID
			} else if _, err := r.a.Cancel(cancelBy(on, "bob")); err != nil {
				t.Fatal(err)
			}
			r.crash()
			r.cfg.wrapLog = nil
			r.bmc("n1").SetMute(false)
			r.start()
			if end := r.end(on); end.Outcome != want || end.SupersededBy != by {
				t.Fatalf("end: %+v", end)
			}
			if superseded {
				r.wantEnd(by, power.Succeeded, power.ReasonAlready)
			}
			r.wantCommands("n1")
		})
	}
}

func TestRestartKeepsWhatIsNotReported(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		id := r.ask("n1", power.ActOn).Op.ID
		want := r.end(id)
		r.crash()
		r.start()
		if got := r.end(id); got.Outcome != want.Outcome || !got.At.Equal(want.At) {
			t.Fatalf("end after restart: %+v, want %+v", got, want)
		}
		if ids := r.a.outbox.unacknowledged(); len(ids) != 1 || ids[0] != id {
			t.Fatalf("to report: %v", ids)
		}
		if !r.a.acknowledged(r.a.outbox.take(10), ack{}) {
			t.Fatal("what ended stays in the journal")
		}
		r.restart()
		if ids := r.a.outbox.unacknowledged(); len(ids) != 0 {
			t.Fatalf("reported, and to report again: %v", ids)
		}
		if got := r.ask("n1", power.ActOn, func(o *power.Op) { o.ID = id; o.Seq = 1 }); got.End == nil || got.End.Outcome != power.Succeeded {
			t.Fatalf("the same id asked again: %+v", got)
		}
		if got := r.ask("n1", power.ActOff, func(o *power.Op) { o.Seq = 1 }); got.Verdict != power.VerdictRefuse ||
			got.Reason != power.ReasonStale {
			t.Fatalf("an older request: %+v", got)
		}
		r.wantPower("n1", power.On)
	})
}

// TestInterruptedOffEndsOff is the trap of enforcing the last seen state: a node
// seen on, its power-off interrupted, must not be powered back on.
func TestInterruptedOffEndsOff(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		bmc := r.bmc("n1")
		bmc.SetPower(power.On)
		bmc.SetOffAfter(20 * time.Second)
		id := r.ask("n1", power.ActOff).Op.ID
		time.Sleep(3 * time.Second)
		r.restart()
		r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		time.Sleep(10 * time.Minute)
		r.wantCommands("n1", power.PowerOff)
		r.wantPower("n1", power.Off)
	})
}

func TestSoftOffKeepsItsGraceOverARestart(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		bmc := r.bmc("n1")
		bmc.SetPower(power.On)
		bmc.SetDeaf(true)
		asked := time.Now()
		id := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = 2 * time.Minute }).Op.ID
		time.Sleep(time.Minute)
		r.restart()
		end := r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		if took := end.At.Sub(asked); took < 2*time.Minute || took > 130*time.Second {
			t.Fatalf("took %s", took)
		}
		r.wantCommands("n1", power.PressSoftOff, power.PowerOff)
	})
}

func unreachable(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient("unix:///nonexistent/central.sock")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
