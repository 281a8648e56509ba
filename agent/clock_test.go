package agent

import (
	"encoding/json"
	"testing"
	"time"

	"rackpower/journal"
	"rackpower/power"
)

// aheadLog is the journal of a process whose clock was an hour ahead of that of the
// process after it.
type aheadLog struct{ opLog }

func (l aheadLog) Append(entries ...journal.Entry) (uint64, error) {
	moved := make([]journal.Entry, len(entries))
	for i, e := range entries {
		var v any
		if len(e.Payload) > 0 && json.Unmarshal(e.Payload, &v) == nil {
			e.Payload, _ = json.Marshal(anHourLater(v))
		}
		moved[i] = e
	}
	return l.opLog.Append(moved...)
}

func anHourLater(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = anHourLater(value)
		}
	case []any:
		for i := range v {
			v[i] = anHourLater(v[i])
		}
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil && !at.IsZero() {
			return at.Add(time.Hour)
		}
	}
	return v
}

// setBack restarts the agent with its clock an hour behind.
func (r *harness) setBack() {
	r.crash()
	r.cfg.wrapLog = nil
	r.start()
}

// ahead runs fn with an agent whose clock is an hour ahead until setBack.
func ahead(t *testing.T, monitor string, fn func(*harness)) {
	t.Helper()
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = monitor
		r.cfg.wrapLog = func(_ *Agent, l opLog) opLog { return aheadLog{l} }
		r.start()
		fn(r)
	})
}

func TestClockSetBackLeavesNoCycleOff(t *testing.T) {
	ahead(t, MonitorOff, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		op := r.ask("n1", power.ActCycle)
		r.waitFor("it is off", time.Minute, func() bool { return r.bmc("n1").Power() == power.Off })
		time.Sleep(2 * time.Second)
		r.setBack()
		time.Sleep(20 * time.Second)
		r.wantPower("n1", power.On)
		r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

func TestClockSetBackDoesNotProlongAGrace(t *testing.T) {
	ahead(t, MonitorOff, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		op := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = 2 * time.Minute })
		time.Sleep(time.Minute)
		r.setBack()
		time.Sleep(2*time.Minute + 30*time.Second)
		r.wantPower("n1", power.Off)
		r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

func TestClockSetBackDoesNotProlongWhatIsLeftBehind(t *testing.T) {
	ahead(t, MonitorOff, func(r *harness) {
		b := r.bmc("n1")
		b.SetStuck(true)
		on := r.ask("n1", power.ActOn)
		r.waitFor("it is sent", time.Minute, func() bool { return len(b.Commands()) > 0 })
		if _, err := r.a.Cancel(cancelBy(on.Op.ID, "bob")); err != nil {
			t.Fatal(err)
		}
		r.wantEnd(on.Op.ID, power.Cancelled, power.ReasonAsked)
		r.setBack()
		r.wantEnd(r.ask("n1", power.ActOff).Op.ID, power.Succeeded, power.ReasonAlready)
	})
}

func TestClockSetBackLeavesNoNodeAlone(t *testing.T) {
	ahead(t, "@every 60s", func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		n := withStatus(r.nodes[0], power.StatusReady)
		n.Confirmed = true
		time.Sleep(time.Second)
		r.assign(n)
		r.waitFor("it is off", 5*time.Minute, func() bool { return r.bmc("n1").Power() == power.Off })
		time.Sleep(40 * time.Second) // it was looked at a second time
		r.setBack()
		r.bmc("n1").SetPower(power.On)
		time.Sleep(3 * time.Minute)
		r.wantPower("n1", power.Off)
	})
}
