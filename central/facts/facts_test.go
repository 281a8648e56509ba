package facts

import (
	"fmt"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestAFaultIsSaidOnce: what the monitor waits for is not the fault over again; times are those
// that who shows them knows to put into a zone.
func TestAFaultIsSaidOnce(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e := api.Explanation{Node: "n1", Agent: "r1", Desired: power.StatusReady.Desired(), DesiredFrom: "status READY"}
	e.Monitor = api.NodeMonitor{
		Waits: power.ReasonFault, WaitsMessage: "3 corrections failed", WaitsUntil: now.Add(time.Minute), Fault: "3 corrections failed",
		FaultSince: now.Add(-time.Minute), Failures: 3,
	}
	said := map[string]string{}
	for _, f := range Of(e, api.Node{Name: "n1", Rack: "r1"}, now) {
		said[f.Name] += f.Text
	}
	for name, want := range map[string]string{
		"monitor": "waits: fault until 2026-03-01T12:01:00Z (in 60 s)",
		"fault":   "3 corrections failed, since 2026-03-01T11:59:00Z (60 s ago), next try 2026-03-01T12:01:00Z (in 60 s)",
	} {
		if said[name] != want {
			t.Errorf("%s: %q, want %q", name, said[name], want)
		}
	}
	e.Monitor.WaitsMessage = "another"
	if got := fmt.Sprint(Of(e, api.Node{}, now)[3]); got != "{monitor waits: fault until 2026-03-01T12:01:00Z (in 60 s): another}" {
		t.Error(got)
	}
}
