package agent

import (
	"testing"
	"time"

	"rackpower/power"
)

// TestLooksComeWhenTheEffectIsLikely plays commands that take so long, one after another: how late
// the effect is seen, and how often the BMC is asked.
func TestLooksComeWhenTheEffectIsLikely(t *testing.T) {
	for _, takes := range []time.Duration{0, 100 * time.Millisecond, 2 * time.Second, 3 * time.Second, 8 * time.Second, 25 * time.Second} {
		var known effect
		for nth := range 8 {
			k := looks{known: known, first: 250 * time.Millisecond, longest: 5 * time.Second}
			passed, asked := time.Duration(0), 0
			for {
				pause := k.next(passed)
				if pause <= 0 || pause > k.longest {
					t.Fatalf("%s, command %d: a pause of %s", takes, nth, pause)
				}
				passed += pause
				if asked++; passed >= takes {
					break
				}
				k.missed(passed)
			}
			known = k.learnt(passed)
			late := passed - takes
			if most := max(250*time.Millisecond, takes/stepShare); late > most || asked > 25 {
				t.Errorf("%s, command %d: seen %s late, after %d looks", takes, nth, late, asked)
			}
			if most := max(takes/10, 100*time.Millisecond); nth >= 4 && (late > most || asked > 8) {
				t.Errorf("%s, command %d: seen %s late, after %d looks, though it is known how long it takes", takes, nth, late, asked)
			}
		}
	}
}

func TestLooksOfACommandThatTakesAnotherTimeThanBefore(t *testing.T) {
	for _, c := range []struct{ before, now time.Duration }{
		{2 * time.Second, 20 * time.Second}, {20 * time.Second, time.Second}, {10 * time.Millisecond, 3 * time.Second},
	} {
		k := looks{known: effect{c.before * 9 / 10, c.before}, first: 250 * time.Millisecond, longest: 5 * time.Second}
		passed, asked := time.Duration(0), 0
		for passed < c.now {
			k.missed(passed)
			passed += k.next(passed)
			asked++
		}
		if late := passed - c.now; late > 5*time.Second || asked > 25 {
			t.Errorf("%s, then %s: seen %s late, after %d looks", c.before, c.now, late, asked)
		}
	}
}

func TestResetIsVerifiedAtOnceAndPowerWhenItLikelyChanged(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetOnAfter(2 * time.Second)
		r.bmc("n1").SetOffAfter(3 * time.Second)
		took := func(action power.Action) (time.Duration, int) {
			began, before := time.Now(), r.bmc("n1").Counts().Reads
			end := r.wantEnd(r.ask("n1", action).Op.ID, power.Succeeded, power.ReasonVerified)
			return end.At.Sub(began), r.bmc("n1").Counts().Reads - before
		}
		for range 5 {
			took(power.ActOn)
			took(power.ActOff)
		}
		if on, reads := took(power.ActOn); on > 2100*time.Millisecond || reads > 8 {
			t.Errorf("on took %s and %d readings", on, reads)
		}
		if reset, reads := took(power.ActReset); reset != 0 || reads != 2 {
			t.Errorf("reset took %s and %d readings, want one before it and one behind it, at once", reset, reads)
		}
		if off, reads := took(power.ActOff); off > 3150*time.Millisecond || reads > 8 {
			t.Errorf("off took %s and %d readings", off, reads)
		}
	})
}
