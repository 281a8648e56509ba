package api

import (
	"testing"

	"rackpower/power"
)

func TestNodeCompare(t *testing.T) {
	ready, deployed, none := power.StatusReady.Desired(), power.StatusDeployed.Desired(), power.StatusRetired.Desired()
	off, reset := &OpBrief{Action: power.ActOff}, &OpBrief{Action: power.ActDiag}
	for _, c := range []struct {
		name               string
		state              power.State
		stale              bool
		op                 *OpBrief
		desired            power.Desired
		matched, monitored bool
		drift, pending     bool
	}{
		{name: "as desired", state: power.Off, desired: ready, monitored: true},
		{name: "unknown", state: power.Unknown, desired: ready, monitored: true},
		{name: "nothing is desired", state: power.On, desired: none, monitored: true},
		{name: "not yet as desired", state: power.On, desired: ready, monitored: true, pending: true},
		{name: "not yet, and nobody enforces it", state: power.On, desired: ready, drift: true},
		{name: "not any more", state: power.On, desired: ready, matched: true, monitored: true, drift: true},
		{name: "as it was long ago", state: power.On, stale: true, desired: ready, matched: true, monitored: true},
		{name: "expected otherwise", state: power.Off, desired: deployed, monitored: true, drift: true},
		{name: "an operation mends it", state: power.On, op: off, desired: ready, matched: true, monitored: true, pending: true},
		{name: "an operation is about to end", state: power.Off, op: off, desired: ready, monitored: true},
		{name: "an operation leads elsewhere", state: power.On, op: off, desired: deployed, monitored: true, pending: true},
		{name: "an operation leaves the power alone", state: power.On, op: reset, desired: ready, matched: true, monitored: true, pending: true},
	} {
		n := Node{State: c.state, Stale: c.stale, Op: c.op}
		n.Compare(c.desired, c.matched, c.monitored)
		if n.Drift != c.drift || n.Pending != c.pending {
			t.Errorf("%s: drift %v, pending %v", c.name, n.Drift, n.Pending)
		}
	}
}
