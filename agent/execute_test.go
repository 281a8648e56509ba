package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/powertest"
)

func TestOnSendsOnceAndIsVerified(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetOnAfter(8 * time.Second)
		id := r.ask("n1", power.ActOn).Op.ID
		if end := r.wantEnd(id, power.Succeeded, power.ReasonVerified); end.Already || end.Attempts != 1 || end.State != power.On {
			t.Fatalf("end: %+v", end)
		}
		again := r.ask("n1", power.ActOn).Op.ID
		if end := r.wantEnd(again, power.Succeeded, power.ReasonAlready); !end.Already || end.Attempts != 0 {
			t.Fatalf("end: %+v", end)
		}
		r.wantCommands("n1", power.PowerOn)
	})
}

func TestEveryActionFromBothStates(t *testing.T) {
	type result struct {
		outcome power.Outcome
		reason  power.Reason
		sent    []power.Command
		state   power.State
	}
	for _, c := range []struct {
		action power.Action
		from   power.State
		want   result
	}{
		{power.ActOn, power.Off, result{power.Succeeded, power.ReasonVerified, []power.Command{power.PowerOn}, power.On}},
		{power.ActOn, power.On, result{power.Succeeded, power.ReasonAlready, nil, power.On}},
		{power.ActOff, power.On, result{power.Succeeded, power.ReasonVerified, []power.Command{power.PowerOff}, power.Off}},
		{power.ActOff, power.Off, result{power.Succeeded, power.ReasonAlready, nil, power.Off}},
		{power.ActSoftOff, power.On, result{power.Succeeded, power.ReasonVerified, []power.Command{power.PressSoftOff}, power.Off}},
		{power.ActSoftOff, power.Off, result{power.Succeeded, power.ReasonAlready, nil, power.Off}},
		{power.ActCycle, power.On, result{power.Succeeded, power.ReasonVerified, []power.Command{power.PowerOff, power.PowerOn}, power.On}},
		{power.ActCycle, power.Off, result{power.Succeeded, power.ReasonVerified, []power.Command{power.PowerOn}, power.On}},
		{power.ActReset, power.On, result{power.Succeeded, power.ReasonVerified, []power.Command{power.HardReset}, power.On}},
		{power.ActReset, power.Off, result{power.Failed, power.ReasonNodeOff, nil, power.Off}},
		{power.ActDiag, power.On, result{power.Succeeded, power.ReasonAcknowledged, []power.Command{power.PulseDiag}, power.On}},
		{power.ActDiag, power.Off, result{power.Failed, power.ReasonNodeOff, nil, power.Off}},
		{power.ActBMCReset, power.On, result{power.Succeeded, power.ReasonVerified, []power.Command{power.ResetBMC}, power.On}},
	} {
		t.Run(string(c.action)+" from "+string(c.from), func(t *testing.T) {
			inBubble(t, 1, func(r *harness) {
				r.bmc("n1").SetPower(c.from)
				id := r.ask("n1", c.action).Op.ID
				r.wantEnd(id, c.want.outcome, c.want.reason)
				r.wantCommands("n1", c.want.sent...)
				r.wantPower("n1", c.want.state)
			})
		})
	}
}

func TestCycleLeavesTheNodeOffForAWhile(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.wantEnd(r.ask("n1", power.ActCycle).Op.ID, power.Succeeded, power.ReasonVerified)
		log := r.fake.Log()
		if len(log) != 2 || log[1].At.Sub(log[0].At) < 5*time.Second {
			t.Fatalf("off and on too close: %+v", log)
		}
	})
}

func TestStuckNodeIsToldThriceAndFails(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetStuck(true)
		end := r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Failed, power.ReasonNotReached)
		if end.Attempts != 3 {
			t.Fatalf("attempts %d, want 3", end.Attempts)
		}
		log := r.fake.Log()
		if len(log) != 3 || log[1].At.Sub(log[0].At) < 30*time.Second || log[2].At.Sub(log[1].At) < 60*time.Second {
			t.Fatalf("sent again without looking for long enough: %+v", log)
		}
	})
}

func TestLostAnswerIsReadNotRepeated(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").LoseNextAnswers(1)
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantCommands("n1", power.PowerOn)
	})
}

func TestUnansweredResetIsIndeterminate(t *testing.T) {
	for _, action := range []power.Action{power.ActReset, power.ActDiag, power.ActBMCReset} {
		t.Run(string(action), func(t *testing.T) {
			inBubble(t, 1, func(r *harness) {
				r.bmc("n1").SetPower(power.On)
				r.bmc("n1").LoseNextAnswers(1)
				r.wantEnd(r.ask("n1", action).Op.ID, power.Indeterminate, power.ReasonUnanswered)
				time.Sleep(10 * time.Minute)
				if got := len(r.bmc("n1").Commands()); got != 1 {
					t.Fatalf("%d commands left", got)
				}
			})
		})
	}
}

// TestUncertainAnswers: an answer that leaves open whether a command acted is no failure
// of one that must not be repeated, and of another the power tells.
func TestUncertainAnswers(t *testing.T) {
	for _, action := range []power.Action{power.ActReset, power.ActDiag, power.ActBMCReset} {
		inBubble(t, 1, func(r *harness) {
			r.bmc("n1").SetPower(power.On)
			r.bmc("n1").FailNext(1, power.KindUncertain)
			end := r.wantEnd(r.ask("n1", action).Op.ID, power.Indeterminate, power.ReasonUncertain)
			if end.Attempts != 1 || !strings.Contains(end.Detail, "leaves open") {
				t.Errorf("%s: %+v", action, end)
			}
			time.Sleep(10 * time.Minute)
			if got := len(r.bmc("n1").Commands()); got != 1 {
				t.Errorf("%s: %d commands left", action, got)
			}
		})
	}
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").FailNext(1, power.KindUncertain)
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantCommands("n1", power.PowerOn, power.PowerOn)
	})
}

// TestUncertainAnswerOverADeath: what the journal has of such an answer says the same.
func TestUncertainAnswerOverADeath(t *testing.T) {
	h := history{sendings: map[power.Command]int{}}
	h.sending(power.HardReset, time.Now())
	h.sent(commandRecord{Command: power.HardReset, Error: power.KindUncertain, Text: "hard-reset: uncertain"})
	x := &execution{op: power.Op{Action: power.ActReset}, h: &h, l: &lane{}, t: &task{}}
	var end endError
	if !errors.As(x.interrupted(), &end) || end.end.Outcome != power.Indeterminate || end.end.Reason != power.ReasonUncertain {
		t.Errorf("%+v", end)
	}
}

// TestLooksAgainBeforeATryLater: a command that could not leave is tried again, and not
// by what was read before that.
func TestLooksAgainBeforeATryLater(t *testing.T) {
	for _, c := range []struct {
		action power.Action
		reason power.Reason
		sent   int
	}{
		{power.ActOff, power.ReasonAlready, 0},
		{power.ActSoftOff, power.ReasonAlready, 0},
		{power.ActReset, power.ReasonNodeOff, 0},
		{power.ActDiag, power.ReasonNodeOff, 0},
	} {
		inBubble(t, 1, func(r *harness) {
			b := r.bmc("n1")
			b.SetPower(power.On)
			r.cfg.Timing.KeepSession = -1
			r.restart()
			time.Sleep(time.Second)
			once := true
			r.fake.Hook(func(e powertest.Event) {
				if once && e.Phase == powertest.After && e.Op == "state" {
					once = false
					b.FailNextDials(1, power.KindUnreachable) // the command cannot leave
					b.SetPower(power.Off)                     // and somebody presses the button
				}
			})
			end := r.end(r.ask("n1", c.action).Op.ID)
			if end.Reason != c.reason || len(b.Commands()) != c.sent {
				t.Errorf("%s: %+v after %v, want %s", c.action, end, b.Commands(), c.reason)
			}
		})
	}
}

func TestSoftOffEscalatesAfterItsGrace(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		for _, n := range []string{"n1", "n2"} {
			r.bmc(n).SetPower(power.On)
			r.bmc(n).SetDeaf(true)
		}
		began := time.Now()
		hard := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = time.Minute }).Op.ID
		soft := r.ask("n2", power.ActSoftOff, func(o *power.Op) { o.Grace, o.NoEscalate = time.Minute, true }).Op.ID
		end := r.wantEnd(hard, power.Succeeded, power.ReasonVerified)
		if took := end.At.Sub(began); took < time.Minute || took > 70*time.Second {
			t.Fatalf("escalated after %s", took)
		}
		r.wantCommands("n1", power.PressSoftOff, power.PowerOff)
		r.wantEnd(soft, power.Failed, power.ReasonNotEscal)
		r.wantCommands("n2", power.PressSoftOff)
		r.wantPower("n2", power.On)
	})
}

func TestOffHastensSoftOff(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		soft := r.ask("n1", power.ActSoftOff).Op.ID
		time.Sleep(10 * time.Second)
		off := r.ask("n1", power.ActOff)
		if off.Verdict != power.VerdictHasten || off.Joined != soft {
			t.Fatalf("answer: %+v", off)
		}
		a, b := r.end(soft), r.end(off.Op.ID)
		if a.Outcome != power.Succeeded || b.Outcome != power.Succeeded || a.At != b.At {
			t.Fatalf("ends: %+v, %+v", a, b)
		}
		if took := a.At.Sub(off.Op.AskedAt); took > 15*time.Second {
			t.Fatalf("the grace did not end: %s", took)
		}
		r.wantCommands("n1", power.PressSoftOff, power.PowerOff)
	})
}

func TestConflictCancelsAtASafePoint(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetOnAfter(time.Minute)
		on := r.ask("n1", power.ActOn).Op.ID
		time.Sleep(2 * time.Second)
		off := r.ask("n1", power.ActOff)
		if off.Verdict != power.VerdictSupersede {
			t.Fatalf("answer: %+v", off)
		}
		if end := r.wantEnd(on, power.Superseded, power.ReasonNewer); end.SupersededBy != off.Op.ID {
			t.Fatalf("end: %+v", end)
		}
		if end := r.end(off.Op.ID); end.Outcome != power.Succeeded {
			t.Fatalf("end: %+v", end)
		}
		if r.fake.MaxInFlight() > 1 {
			t.Fatal("two exchanges in flight on one BMC")
		}
	})
}

// TestNewestWinsThoughTheBMCReportsLate: a reading shows what is about to change
// while an earlier command has not taken effect yet.
func TestNewestWinsThoughTheBMCReportsLate(t *testing.T) {
	for _, c := range []struct {
		first, second power.Action
		from          power.State
	}{
		{power.ActOff, power.ActOn, power.On},
		{power.ActOn, power.ActOff, power.Off},
		{power.ActSoftOff, power.ActOn, power.On},
		{power.ActSoftOff, power.ActCycle, power.On},
		{power.ActOff, power.ActReset, power.On},
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s then %s, crash %v", c.first, c.second, crash), func(t *testing.T) {
				inBubble(t, 1, func(r *harness) {
					bmc := r.bmc("n1")
					bmc.SetPower(c.from)
					bmc.SetOnAfter(15 * time.Second)
					bmc.SetOffAfter(15 * time.Second)
					bmc.SetSoftOffAfter(40 * time.Second)
					first := r.ask("n1", c.first).Op.ID
					time.Sleep(2 * time.Second)
					second := r.ask("n1", c.second).Op.ID
					r.wantEnd(first, power.Superseded, power.ReasonNewer)
					if crash {
						r.restart()
					}
					end := r.end(second)
					time.Sleep(2 * time.Minute)
					if c.second == power.ActReset {
						if end.Reason != power.ReasonNodeOff {
							t.Fatalf("reset of a node that goes off: %+v", end)
						}
						return
					}
					if end.Outcome != power.Succeeded {
						t.Fatalf("end: %+v", end)
					}
					r.wantPower("n1", c.second.Final())
				})
			})
		}
	}
}

func TestJoinSharesTheOutcome(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		first := r.ask("n1", power.ActCycle)
		for _, action := range []power.Action{power.ActCycle, power.ActOn, power.ActReset} {
			if got := r.ask("n1", action); got.Verdict != power.VerdictJoin || got.Joined != first.Op.ID {
				t.Fatalf("%s: %+v", action, got)
			}
		}
		want := r.end(first.Op.ID)
		for _, id := range []string{"op-002", "op-003", "op-004"} {
			if got := r.end(id); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: %+v, want %+v", id, got, want)
			}
		}
		r.wantCommands("n1", power.PowerOff, power.PowerOn)
	})
}

func TestDeadlineHoldsInTheQueueAndWhileRunning(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		soft := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = time.Hour; o.Deadline = time.Now().Add(10 * time.Minute) }).Op.ID
		waiting := r.ask("n1", power.ActDiag, func(o *power.Op) { o.Deadline = time.Now().Add(time.Minute) })
		end := r.wantEnd(waiting.Op.ID, power.Expired, power.ReasonDeadline)
		if late := end.At.Sub(waiting.Op.Deadline); late < 0 || late > time.Second {
			t.Fatalf("expired %s after its deadline", late)
		}
		r.wantEnd(soft, power.Expired, power.ReasonDeadline)
		r.wantCommands("n1", power.PressSoftOff)
	})
}

func TestWrongPasswordIsNotTriedInALoop(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetWrongPassword(true)
		began := time.Now()
		end := r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Failed, power.ReasonAuth)
		if took := end.At.Sub(began); took > 5*time.Second {
			t.Fatalf("took %s", took)
		}
		for range 20 {
			r.a.poller.readNodes(context.Background(), []string{"n1"}, 0, nil)
			time.Sleep(time.Minute)
		}
		if got := r.bmc("n1").Counts().AuthFailures; got != 2 {
			t.Fatalf("%d log-ins were refused, want 2", got)
		}
		if got := r.a.readings.get("n1").Reach; got != power.ReachAuthFailed {
			t.Fatalf("reach %s", got)
		}
		r.bmc("n1").SetWrongPassword(false)
		n := r.nodes[0]
		n.Password = "corrected"
		r.assign(n)
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

func TestHungBMCDelaysNobodyElse(t *testing.T) {
	inBubble(t, 20, func(r *harness) {
		r.bmc("n1").SetMute(true)
		hung := r.ask("n1", power.ActOn).Op.ID
		began := time.Now()
		for i := 2; i <= 20; i++ {
			r.ask(r.nodes[i-1].Name, power.ActOn)
		}
		for i := 2; i <= 20; i++ {
			if end := r.end(idOf(i)); end.Outcome != power.Succeeded || end.At.Sub(began) > 5*time.Second {
				t.Fatalf("node %d: %+v after %s", i, end, end.At.Sub(began))
			}
		}
		if end := r.wantEnd(hung, power.Failed, power.ReasonUnreachable); end.Attempts != 0 {
			t.Fatalf("end: %+v", end)
		}
	})
}

func TestCancel(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetOnAfter(time.Minute)
		running := r.ask("n1", power.ActOn).Op.ID
		waiting := r.ask("n1", power.ActCycle).Op.ID
		time.Sleep(time.Second)
		for _, id := range []string{waiting, running} {
			if _, err := r.a.Cancel(cancelBy(id, "bob")); err != nil {
				t.Fatalf("Cancel: %v", err)
			}
			r.wantEnd(id, power.Cancelled, power.ReasonAsked)
		}
		if _, err := r.a.Cancel(cancelBy(running, "bob")); err == nil {
			t.Fatal("an ended operation was cancelled")
		}
		r.wantCommands("n1", power.PowerOn)
	})
}

func TestBootDeviceGoesBeforePower(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.wantEnd(r.ask("n1", power.ActOn, func(o *power.Op) { o.Boot = power.BootPXE }).Op.ID, power.Succeeded, power.ReasonVerified)
		log := r.fake.Log()
		if len(log) != 2 || log[0].Boot != power.BootPXE || log[1].Command != power.PowerOn {
			t.Fatalf("log: %+v", log)
		}
	})
}

func TestBMCsShareNothingButNodesOfOneBMCTakeTurns(t *testing.T) {
	inBubble(t, 3, func(r *harness) {
		r.fake.BMC("chassis").SetLatency(time.Second)
		for i := range r.nodes {
			r.nodes[i].BMC = fmt.Sprintf("ipmi://admin@chassis?target=%#02x", 0x30+2*i)
		}
		r.assign(r.nodes...)
		for _, n := range r.nodes {
			r.ask(n.Name, power.ActOn)
		}
		for i := range r.nodes {
			r.end(idOf(i + 1))
		}
		if got := r.fake.BMC("chassis").Counts().MaxInFlight; got != 1 {
			t.Fatalf("%d exchanges in flight on one BMC", got)
		}
	})
}

// TestAnExpiredOperationLeavesTheWaitToTheNext: an operation whose deadline comes
// before a power-off ahead of it has taken effect expires. The one after it has the
// time to wait, and does.
func TestAnExpiredOperationLeavesTheWaitToTheNext(t *testing.T) {
	for _, action := range []power.Action{power.ActOn, power.ActReset} {
		inBubble(t, 1, func(r *harness) {
			bmc := r.bmc("n1")
			bmc.SetPower(power.On)
			bmc.SetOffAfter(15 * time.Second)
			off := r.ask("n1", power.ActOff).Op.ID
			time.Sleep(time.Second)
			rushed := r.ask("n1", action, func(o *power.Op) { o.Deadline = time.Now().Add(10 * time.Second) }).Op.ID
			last := r.ask("n1", power.ActOn, func(o *power.Op) { o.IfBusy = power.Queue; o.Boot = power.BootPXE }).Op.ID
			if end := r.end(off); end.SupersededBy != rushed {
				t.Fatalf("end: %+v", end)
			}
			r.wantEnd(rushed, power.Expired, power.ReasonDeadline)
			r.wantEnd(last, power.Succeeded, power.ReasonVerified)
			r.wantPower("n1", power.On)
		})
	}
}

// TestARefusalIsSaidOnce, though every try was refused with the same words.
func TestARefusalIsSaidOnce(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").FailNext(9, power.KindRefused)
		end := r.wantEnd(r.ask("n1", power.ActOff).Op.ID, power.Failed, power.ReasonRefusedBMC)
		if n := strings.Count(end.Detail, "refused"); n != 1 {
			t.Errorf("said %d times: %s", n, end.Detail)
		}
	})
}

// TestARefusedCommandDoesNotShortenAnEarlierWait: a system that was asked to shut down
// takes its time, and a power-off that the BMC refuses meanwhile changes nothing
// about that.
func TestARefusedCommandDoesNotShortenAnEarlierWait(t *testing.T) {
	for _, hastened := range []bool{false, true} {
		inBubble(t, 1, func(r *harness) {
			bmc := r.bmc("n1")
			bmc.SetPower(power.On)
			bmc.SetSoftOffAfter(2 * time.Minute)
			r.ask("n1", power.ActSoftOff)
			time.Sleep(time.Second)
			bmc.FailNext(1, power.KindUnsupported)
			second := power.ActCycle // takes the soft-off's place, and sends a power-off
			if hastened {
				second = power.ActOff // joins it, and has it send one
			}
			id := r.ask("n1", second).Op.ID
			r.wantEnd(id, power.Failed, power.ReasonUnsupported)
			r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
			r.wantPower("n1", power.On)
		})
	}
}
