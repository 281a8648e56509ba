package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/power"
)

// otherDriver is a driver whose BMC does not take commands until a time, or whose power is
// about to change.
type otherDriver struct {
	power.Driver
	notUntil time.Time
	after    time.Duration
	changing *atomic.Bool
}

// Do implements power.Driver.
func (d otherDriver) Do(ctx context.Context, cmd power.Command) error {
	if time.Now().Before(d.notUntil) {
		return &power.Error{Kind: power.KindBusy, Op: string(cmd), After: d.after}
	}
	return d.Driver.Do(ctx, cmd)
}

// Changing implements power.Changer.
func (d otherDriver) Changing() bool { return d.changing.Load() }

// withDriver has all BMCs spoken to by an otherDriver.
func (r *harness) withDriver(d otherDriver) {
	dial := r.cfg.Dial
	r.crash()
	r.cfg.Dial = func(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
		inner, err := dial(ctx, ep)
		if err != nil {
			return nil, err
		}
		d := d
		d.Driver = inner
		return d, nil
	}
	r.start()
}

// TestACommandThatWasNotTaken is tried again until the deadline where the BMC says "not now",
// and for a minute where it gives no session.
func TestACommandThatWasNotTaken(t *testing.T) {
	for _, c := range []struct {
		busy, after time.Duration
		outcome     power.Outcome
		reason      power.Reason
	}{
		{3 * time.Minute, time.Second, power.Succeeded, power.ReasonVerified},
		{3 * time.Minute, 0, power.Failed, power.ReasonBMCBusy},
		{time.Hour, 40 * time.Second, power.Expired, power.ReasonDeadline},
	} {
		inBubble(t, 1, func(r *harness) {
			r.bmc("n1").SetPower(power.On)
			r.withDriver(otherDriver{notUntil: time.Now().Add(c.busy), after: c.after, changing: new(atomic.Bool)})
			r.wantEnd(r.ask("n1", power.ActReset).Op.ID, c.outcome, c.reason)
			if c.outcome == power.Succeeded {
				r.wantCommands("n1", power.HardReset)
			} else {
				r.wantCommands("n1")
			}
		})
	}
}

// TestWhatIsAboutToChangeIsReadAgainSoon, without a round of the monitor.
func TestWhatIsAboutToChangeIsReadAgainSoon(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		changing := new(atomic.Bool)
		changing.Store(true)
		r.withDriver(otherDriver{changing: changing})
		r.a.poller.readNow(r.t.Context(), []string{"n1"})
		before := r.bmc("n1").Counts().Reads
		time.Sleep(2*lookAgain + time.Second)
		if n := r.bmc("n1").Counts().Reads - before; n != 2 {
			t.Errorf("read %d times more", n)
		}
		changing.Store(false)
		time.Sleep(2 * lookAgain)
		before = r.bmc("n1").Counts().Reads
		time.Sleep(time.Minute)
		if n := r.bmc("n1").Counts().Reads - before; n != 0 {
			t.Errorf("read %d times more, once it was still", n)
		}
	})
}

// TestNotesOutliveTheAgent for as long as a node has the BMC.
func TestNotesOutliveTheAgent(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		var notes power.Notes
		r.crash()
		r.cfg.UseNotes = func(n power.Notes) { notes = n }
		r.start()
		key := func(node string) string {
			ep, err := power.ParseEndpoint("ipmi://admin@" + node)
			if err != nil {
				t.Fatal(err)
			}
			return ep.Key()
		}
		for bmc, note := range map[string]string{key("n1"): `{"a":1}`, key("n2"): `{"b":2}`, "ipmi://gone:623": `{}`} {
			if err := notes.Keep(bmc, []byte(note)); err != nil {
				t.Error(err)
			}
		}
		if err := notes.Keep(key("n2"), nil); err != nil {
			t.Error(err)
		}
		r.restart()
		if n := string(notes.Note(key("n1"))); n != `{"a":1}` || notes.Note(key("n2")) != nil || notes.Note("ipmi://gone:623") != nil {
			t.Errorf("after a crash: %s, %s, %s", n, notes.Note(key("n2")), notes.Note("ipmi://gone:623"))
		}
	})
}
