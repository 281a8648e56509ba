package agent

import (
	"context"
	"testing"
	"time"

	"rackpower/power"
)

// finder is a driver of a BMC whose address leaves the protocol open.
type finder struct {
	power.Driver
	ep power.Endpoint
}

func (f finder) Found() (power.Endpoint, string) { return f.ep, "for this test" }

// withFinder has auto endpoints found to be of IPMI.
func (r *harness) withFinder() {
	dial := r.cfg.Dial
	r.crash()
	r.cfg.Dial = func(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
		if ep.Scheme != power.SchemeAuto {
			return dial(ctx, ep)
		}
		found := ep.As(power.SchemeIPMI)
		inner, err := dial(ctx, found)
		return finder{inner, found}, err
	}
	r.start()
	r.nodes[0].BMC = "auto://admin@n1"
	r.assign(r.nodes...)
}

// TestNothingIsSentBeforeTheProtocolIsKnown, and noted at central.
func TestNothingIsSentBeforeTheProtocolIsKnown(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.withFinder()
		r.bmc("n1").SetPower(power.On)
		id := r.ask("n1", power.ActOff).Op.ID
		time.Sleep(2 * time.Minute)
		r.wantCommands("n1")
		if got, _ := r.a.outbox.find(id); got.End != nil {
			t.Fatalf("it has ended: %+v", got.End)
		}
		told := r.a.readings.take(10)
		if len(told) != 1 || told[0].State != power.On || told[0].Found == nil || told[0].Found.BMC != "ipmi://n1" || told[0].Found.Why == "" {
			t.Fatalf("central is told %+v", told)
		}
		r.nodes[0].BMC = "ipmi://admin@n1"
		r.assign(r.nodes...)
		r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		r.wantCommands("n1", power.PowerOff)
		r.a.poller.readNow(r.t.Context(), []string{"n1"})
		if told := r.a.readings.take(10); len(told) != 1 || told[0].Found != nil {
			t.Errorf("once it is known central is told %+v", told)
		}
	})
}

// TestAProtocolThatIsNotFoundEndsTheOperation: nobody waits for what a person has to mend.
func TestAProtocolThatIsNotFoundEndsTheOperation(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.withFinder()
		r.bmc("n1").SetWrongPassword(true)
		r.wantEnd(r.ask("n1", power.ActOff).Op.ID, power.Failed, power.ReasonAuth)
		r.wantCommands("n1")
	})
}
