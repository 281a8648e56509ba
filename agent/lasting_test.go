package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

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

// TestFallsMatchATwin plays readings and ends against a naive count.
func TestFallsMatchATwin(t *testing.T) {
	tm := Timing{}.withDefaults()
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		m := memory{Desired: power.Desired{Want: power.WantOn}, Since: now}
		var at time.Time // the newest power-on of the monitor; zero: nothing has to last
		var gone, fellAt time.Time
		falls := 0
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 20, 29, 30, 60, 600, 1800}).Draw(rt, "pause")) * time.Second)
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				m.ended(power.Op{ID: fmt.Sprint(i), Action: power.ActOn, Origin: power.FromMonitor}, power.End{
					Outcome: power.Succeeded, Attempts: 1,
					At: now,
				}, true, tm)
				at, gone = now, time.Time{}
			case 1:
				m.ended(power.Op{ID: fmt.Sprint(i), Action: power.ActOff}, power.End{Outcome: power.Succeeded, Already: true, At: now}, true, tm)
				at = time.Time{}
			default:
				state := power.On
				if rapid.Bool().Draw(rt, "off") {
					state = power.Off
				}
				m.saw(power.Seen(state, now), false, false, tm)
				switch {
				case at.IsZero() && state == power.On && now.Sub(fellAt) >= 30*time.Minute:
					falls = 0
				case at.IsZero():
				case state == power.On && now.Sub(at) >= 30*time.Minute:
					at = time.Time{}
					if now.Sub(fellAt) >= 30*time.Minute {
						falls = 0
					}
				case state == power.On:
					gone = time.Time{}
				default:
					if gone.IsZero() {
						gone = now
					}
					if now.Sub(at) >= 30*time.Second {
						if gone.Sub(at) < 30*time.Minute {
							falls++
							fellAt = now
						}
						at, gone = time.Time{}, time.Time{}
					}
				}
			}
			data, err := json.Marshal(m.kept())
			if err != nil {
				rt.Fatal(err)
			}
			again, err := readMemory(data)
			if err != nil || again != m.kept() {
				rt.Fatalf("read back as %+v, was %+v: %v", again, m, err)
			}
			if m.Lost != falls || m.Failures+m.Earlier != m.Lost || (m.Left != "") != !at.IsZero() {
				rt.Fatalf("%d falls: %+v", falls, m)
			}
		}
	})
}

// TestMemoriesOfBeforeAreRead: agents of before wrote of power-offs only.
func TestMemoriesOfBeforeAreRead(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	m, err := readMemory([]byte(`{"desired":{"want":"off"},"since":"2026-01-01T11:00:00Z","off_at":"2026-01-01T12:00:00Z","off_mine":true,"failures":2}`))
	if err != nil || m.Left != power.Off || !m.LeftAt.Equal(at) || !m.LeftMine || m.Failures != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	if !m.saw(power.Seen(power.On, at.Add(31*time.Second)), false, false, Timing{}.withDefaults()) || m.Fault == "" {
		t.Errorf("%+v", m)
	}
	if m, err := readMemory([]byte(`{"desired":{"want":"off"},"off_at":"0001-01-01T00:00:00Z"}`)); err != nil || m.Left != "" {
		t.Errorf("%+v, %v", m, err)
	}
}
