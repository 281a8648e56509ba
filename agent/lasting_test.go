package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/powertest"
)

// fallsBack has a node go back so long after each power-on, or each power-off, until ctx
// ends. It sees commands within a tenth of a second.
func fallsBack(ctx context.Context, b *powertest.BMC, cmd power.Command, after time.Duration) {
	seen := count(b.Commands(), cmd)
	for backoff.Sleep(ctx, 100*time.Millisecond) == nil {
		if n := count(b.Commands(), cmd); n > seen {
			seen = n
			if backoff.Sleep(ctx, after) != nil {
				return
			}
			if cmd == power.PowerOn {
				b.SetPower(power.Off)
			} else {
				b.SetPower(power.On)
			}
		}
	}
}

// TestCorrectionsThatDoNotLastAreFailures has nodes fall back some time after each
// correction: whenever that is within the time that a success must last, the third makes a
// fault, and the tries after it come with pauses that grow, over restarts too.
func TestCorrectionsThatDoNotLastAreFailures(t *testing.T) {
	for _, c := range []struct {
		status power.Status
		cmd    power.Command
		after  time.Duration
		says   string
	}{
		{power.StatusDiskErasing, power.PowerOn, 4 * time.Second, "it went off again within 5 s after it had been turned on, 3 times in a row"},
		{
			power.StatusDiskErasing, power.PowerOn, 20 * time.Second,
			"it went off again between 5 s and 30 s after it had been turned on, 3 times in a row",
		},
		{power.StatusDiskErasing, power.PowerOn, 2 * time.Minute, "after it had been turned on, 3 times in a row"},
		{power.StatusTesting, power.PowerOn, 20 * time.Minute, "after it had been turned on, 3 times in a row"},
		{power.StatusReady, power.PowerOff, 10 * time.Minute, "after it had been turned off, 3 times in a row"},
	} {
		t.Run(fmt.Sprint(c.cmd, " ", c.after), func(t *testing.T) {
			monitored(t, 1, func(r *harness) {
				b := r.bmc("n1")
				if c.cmd == power.PowerOff {
					b.SetPower(power.On)
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go fallsBack(ctx, b, c.cmd, c.after)
				r.assign(withStatus(r.nodes[0], c.status))
				tries := func() int { return count(b.Commands(), c.cmd) }
				r.waitFor("the fault", 3*c.after+10*time.Minute, func() bool { return r.made("n1").Fault != "" })
				if m := r.made("n1"); tries() != 3 || m.Failures != 3 || m.RevertedTimes != 3 || !strings.Contains(m.Fault, c.says) ||
					m.Reverted == "" {
					t.Fatalf("after %d tries: %+v", tries(), m)
				}
				if e, _ := r.a.view.explain("n1", time.Now()); !strings.Contains(e.Message, r.made("n1").Fault) {
					t.Errorf("explained as %q", e.Message)
				}
				for i, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
					at := time.Now()
					if i == 1 {
						r.restart()
					}
					r.waitFor("the next try", 2*pause, func() bool { return tries() == 4+i })
					if took := time.Since(at); took < pause-2*time.Second {
						t.Errorf("try %d comes after %s", 4+i, took)
					}
					r.waitFor("it has fallen", c.after+2*time.Minute, func() bool { return r.made("n1").Failures == 4+i })
				}
				cancel()
				r.waitFor("it is right", 20*time.Minute, func() bool { return tries() == 7 })
				time.Sleep(35 * time.Second)
				if m := r.made("n1"); m.Fault != "" || m.Failures != 0 {
					t.Errorf("it is right, and in fault: %+v", m)
				}
				time.Sleep(31 * time.Minute)
				if m := r.made("n1"); m.RevertedTimes != 0 {
					t.Errorf("it has lasted: %+v", m)
				}
			})
		})
	}
}

// TestWhatIsAskedForIsNoFall: the end of any operation, whoever asked, is what counts from
// there on.
func TestWhatIsAskedForIsNoFall(t *testing.T) {
	monitored(t, 1, func(r *harness) {
		b := r.bmc("n1")
		r.assign(withStatus(r.nodes[0], power.StatusMissing))
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		time.Sleep(10 * time.Second)
		r.wantEnd(r.ask("n1", power.ActOff).Op.ID, power.Succeeded, power.ReasonVerified)
		time.Sleep(2 * time.Minute)
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		time.Sleep(3 * time.Minute)
		r.wantEnd(r.ask("n1", power.ActCycle).Op.ID, power.Succeeded, power.ReasonVerified)
		time.Sleep(2 * time.Minute)
		if m := r.made("n1"); m.Reverted != "" {
			t.Fatalf("%+v", m)
		}
		for _, action := range []power.Action{power.ActReset, power.ActCycle, power.ActOn} {
			if action == power.ActOn {
				r.wantPower("n1", power.Off)
			} else if b.Power() == power.Off {
				r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
			}
			id := r.ask("n1", action).Op.ID
			r.wantEnd(id, power.Succeeded, power.ReasonVerified)
			time.Sleep(12 * time.Second)
			b.SetPower(power.Off) // nobody asked
			r.waitFor("it is noticed", 30*time.Second, func() bool { return r.made("n1").RevertedOp == id })
			if m := r.made("n1"); !strings.HasPrefix(m.Reverted, "it went off again between ") ||
				!strings.HasSuffix(m.Reverted, " and 30 s after it had been turned on") || m.Failures != 0 {
				t.Errorf("%s: %+v", action, m)
			}
			if e, _ := r.a.view.explain("n1", time.Now()); !strings.Contains(e.Message, "did not last: it went off again") {
				t.Errorf("%s: explained as %q", action, e.Message)
			}
		}
	})
}
