package agent

import (
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// TestAnOperationUsesWhatWasCorrectedMeanwhile: an operation that waits for its BMC goes on
// at the one that the node is given, until something was sent; a password is corrected at
// any time.
func TestAnOperationUsesWhatWasCorrectedMeanwhile(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		moved := func(to string) {
			n := r.nodes[0]
			n.BMC = strings.ReplaceAll(n.BMC, "n1", to)
			r.assign(n)
		}
		r.bmc("n1").SetMute(true)
		id := r.ask("n1", power.ActOn).Op.ID
		time.Sleep(10 * time.Second)
		moved("n2")
		r.wantEnd(id, power.Succeeded, power.ReasonVerified)
		r.wantCommands("n1")
		r.wantCommands("n2", power.PowerOn)

		r.bmc("n2").SetStuck(true)
		id = r.ask("n1", power.ActOff).Op.ID
		time.Sleep(10 * time.Second)
		if report, _ := r.a.outbox.find(id); report.Attempts != 1 {
			t.Errorf("commands sent so far: %+v", report)
		}
		r.bmc("n1").SetMute(false)
		r.bmc("n1").SetPower(power.On)
		r.assign(r.nodes[0])
		end := r.wantEnd(id, power.Failed, power.ReasonMoved)
		if !strings.Contains(end.Detail, "n2") || !strings.Contains(end.Detail, "n1") {
			t.Errorf("%q does not name both", end.Detail)
		}
		r.wantCommands("n1")
	})
}

// TestWhatTheOldBMCSaysIsNotAboutTheNode: a reading that is under way while the node is
// given another BMC is not stored for it.
func TestWhatTheOldBMCSaysIsNotAboutTheNode(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n2").SetPower(power.On)
		r.bmc("n2").SetLatency(20 * time.Second)
		n := r.nodes[0]
		n.BMC = strings.ReplaceAll(n.BMC, "n1", "n2")
		r.assign(n)
		go r.a.poller.readNow(r.a.ctx, []string{"n1"})
		time.Sleep(5 * time.Second)
		r.assign(r.nodes[0])
		time.Sleep(time.Minute)
		if got := r.a.readings.get("n1"); got.State == power.On {
			t.Errorf("%+v", got)
		}
	})
}
