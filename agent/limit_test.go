package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

func toLimit(watts int) opOption { return func(o *power.Op) { o.Limit = watts } }

func confirmed(o *power.Op) { o.Confirmed = true }

// limits are those that reached the BMC, in order.
func (r *harness) limits(node string) (all []int) {
	for _, e := range r.bmc(node).Log() {
		if e.Command == power.SetLimit {
			all = append(all, e.Limit)
		}
	}
	return all
}

func (r *harness) wantLimits(node string, want ...int) {
	r.t.Helper()
	if got := r.limits(node); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("limits set at %s: %v, want %v", node, got, want)
	}
}

// TestCap: a limit is read, set where it is another one, and read back; the power is left alone.
func TestCap(t *testing.T) {
	for _, c := range []struct {
		name    string
		limit   int
		scene   func(*powertest.BMC)
		opts    []opOption
		outcome power.Outcome
		reason  power.Reason
		sent    []int
	}{
		{"sets a limit", 800, nil, nil, power.Succeeded, power.ReasonVerified, []int{800}},
		{"finds no limit", 0, nil, nil, power.Succeeded, power.ReasonAlready, nil},
		{"survives a lost answer", 800, func(b *powertest.BMC) { b.LoseNextAnswers(1) }, nil, power.Succeeded, power.ReasonVerified, []int{800}},
		{
			"is told what is out of range", 9, func(b *powertest.BMC) { b.FailNext(1, power.KindRefused) }, nil, power.Failed,
			power.ReasonRefusedBMC,
			[]int{9},
		},
		{
			"waits for a busy BMC", 800, func(b *powertest.BMC) { b.FailNext(1, power.KindBusy) }, nil, power.Succeeded, power.ReasonVerified,
			[]int{800, 800},
		},
		{
			"gives up a BMC that says yes and does nothing", 800, func(b *powertest.BMC) { b.SetStuck(true) }, nil, power.Failed,
			power.ReasonNotReached,
			[]int{800, 800, 800},
		},
		{"knows a BMC without", 800, func(b *powertest.BMC) { b.SetNoMeter(true) }, nil, power.Failed, power.ReasonUnsupported, nil},
		{
			"wants a power-off at the limit confirmed", 800, func(b *powertest.BMC) { b.SetLimitException(power.LimitHardPowerOff) }, nil,
			power.Failed, power.ReasonLimitCuts, nil,
		},
		{
			"goes by the confirmation", 800, func(b *powertest.BMC) { b.SetLimitException(power.LimitHardPowerOff) },
			[]opOption{confirmed},
			power.Succeeded, power.ReasonVerified,
			[]int{800},
		},
		{
			"finds no limit that could cut", 0, func(b *powertest.BMC) { b.SetLimitException(power.LimitHardPowerOff) }, nil, power.Succeeded,
			power.ReasonAlready, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, 1, func(r *harness) {
				r.bmc("n1").SetPower(power.On)
				if c.scene != nil {
					c.scene(r.bmc("n1"))
				}
				r.wantEnd(r.ask("n1", power.ActCap, append(c.opts, toLimit(c.limit))...).Op.ID, c.outcome, c.reason)
				r.wantLimits("n1", c.sent...)
				r.wantPower("n1", power.On)
			})
		})
	}
}

// TestNoLimitIsTakenAwayWithoutAWord: to end a limit cuts nothing, whatever would happen at it.
func TestNoLimitIsTakenAwayWithoutAWord(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.wantEnd(r.ask("n1", power.ActCap, toLimit(800)).Op.ID, power.Succeeded, power.ReasonVerified)
		r.bmc("n1").SetLimitException(power.LimitHardPowerOff)
		r.assign(protectedBy(r.nodes[0], "alice"))
		r.wantEnd(r.ask("n1", power.ActCap).Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantLimits("n1", 800, 0)
	})
}

// TestProtectedIsNotLimitedByACut: where the BMC turns the node off at the limit, that is no
// way around the protection, confirmed or not. Other limits are.
func TestProtectedIsNotLimitedByACut(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.assign(protectedBy(r.nodes[0], "alice"))
		r.wantEnd(r.ask("n1", power.ActCap, toLimit(800)).Op.ID, power.Succeeded, power.ReasonVerified)
		r.bmc("n1").SetLimitException(power.LimitHardPowerOff)
		r.wantEnd(r.ask("n1", power.ActCap, toLimit(700), confirmed).Op.ID, power.Cancelled, power.ReasonProtected)
		r.wantLimits("n1", 800)
	})
}

// TestCapsAndPowerWaitForEachOther: neither ends the other, and the newest limit counts.
func TestCapsAndPowerWaitForEachOther(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetOnAfter(10 * time.Second)
		on := r.ask("n1", power.ActOn).Op.ID
		synctest.Wait()
		first := r.ask("n1", power.ActCap, toLimit(800))
		second := r.ask("n1", power.ActCap, toLimit(600))
		equal := r.ask("n1", power.ActCap, toLimit(600))
		if first.Verdict != power.VerdictFollow || second.Verdict != power.VerdictSupersede || equal.Verdict != power.VerdictJoin {
			t.Fatalf("%s, %s, %s", first.Verdict, second.Verdict, equal.Verdict)
		}
		r.wantEnd(first.Op.ID, power.Superseded, power.ReasonNewer)
		r.wantEnd(on, power.Succeeded, power.ReasonVerified)
		r.wantEnd(equal.Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantLimits("n1", 600)

		b.SetLatency(3 * time.Second)
		running := r.ask("n1", power.ActCap, toLimit(500)).Op.ID
		time.Sleep(4 * time.Second) // it has read the limit, and is about to set it
		off := r.ask("n1", power.ActOff)
		if off.Verdict != power.VerdictFollow || off.Reason != power.ReasonUnrelated {
			t.Fatalf("%s (%s)", off.Verdict, off.Reason)
		}
		r.wantEnd(running, power.Succeeded, power.ReasonVerified)
		r.wantEnd(off.Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantLimits("n1", 600, 500)
	})
}

// TestACapLeavesWhatThePowerLeft: a soft-off that gave up may still act after a cap, and an
// off that was sent is waited for.
func TestACapLeavesWhatThePowerLeft(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		b.SetSoftOffAfter(40 * time.Second)
		soft := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace, o.NoEscalate = time.Minute, true })
		time.Sleep(10 * time.Second)
		if _, err := r.a.Cancel(cancelBy(soft.Op.ID, "bob")); err != nil {
			t.Fatal(err)
		}
		r.wantEnd(r.ask("n1", power.ActCap, toLimit(800)).Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantPower("n1", power.On)
		r.wantCommands("n1", power.PressSoftOff, power.SetLimit, power.PowerOn)
	})
}

// TestAnAgentOfBeforePassesOverCaps: the record that a cap is accepted with is of a kind of
// its own, since such an agent restarts the BMC for an action that it does not know.
func TestAnAgentOfBeforePassesOverCaps(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetMute(true)
		r.ask("n1", power.ActCap, toLimit(800))
		for _, rec := range r.a.log.Live() {
			if rec.Kind == kindAccepted {
				t.Errorf("%s is accepted in a record that agents of before read", rec.Key)
			}
		}
	})
	inBubble(t, 1, func(r *harness) { // and this one does nothing for an action of a newer one
		r.crash()
		r.cfg.wrapLog = func(_ *Agent, log opLog) opLog {
			now := time.Now()
			op := power.Op{ID: "op-new", Node: "n1", Action: "warp", Seq: 1, AskedAt: now, Deadline: now.Add(time.Minute)}
			if _, err := log.Append(entry(journal.Add, kindAccepted, op.ID, acceptedRecord{Op: op, Decision: power.Decision{
				Verdict: power.VerdictStart,
			}})); err != nil {
				t.Error(err)
			}
			return log
		}
		r.start()
		r.restart()
		r.wantEnd("op-new", power.Failed, power.ReasonUnsupported)
		r.wantCommands("n1")
	})
}
