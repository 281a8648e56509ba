package facts

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestHintsFitWhatIsInTheWay: each obstacle has its command.
func TestHintsFitWhatIsInTheWay(t *testing.T) {
	for what, c := range map[string]struct {
		e    api.Explanation
		want string
	}{
		"nothing":   {api.Explanation{Status: power.StatusReady}, ""},
		"no status": {api.Explanation{}, "rackpower node set-status n1 STATUS"},
		"away":      {api.Explanation{Status: power.StatusReady, Agent: "r1", Away: "agent r1 is away"}, "rackpower local explain n1"},
		"no BMC": {
			api.Explanation{Status: power.StatusReady, Reading: power.Reading{Reach: power.ReachUnconfigured}},
			"rackpower node add n1 --rack r1 --bmc ipmi://USER@HOST --password-file FILE --update",
		},
		"mute": {
			api.Explanation{Status: power.StatusReady, Reading: power.Reading{Reach: power.ReachUnreachable}},
			"rackpower node retry n1",
		},
		"left alone": {api.Explanation{Status: power.StatusReady, BMC: &api.BMCState{BreakerOpen: "mute"}}, "rackpower node retry n1"},
		"credentials": {
			api.Explanation{Status: power.StatusReady, BMC: &api.BMCState{BreakerOpen: "refused", AuthFailures: 2}},
			"rackpower node add n1 --rack r1 --password-file FILE --update|rackpower node retry n1",
		},
		"no monitor": {
			api.Explanation{Status: power.StatusReady, Rack: api.RackState{Monitor: "off"}},
			"rackpower rack set r1 --monitor '@every 60s'",
		},
		"flagged": {api.Explanation{
			Status: power.StatusDeployed, Desired: power.StatusDeployed.Desired(),
			Reading: power.Reading{State: power.Off},
		}, "rackpower on n1"},
		"a reason without a hint of its own": {
			api.Explanation{Status: power.StatusReady, Monitor: api.NodeMonitor{Waits: power.ReasonNodeOff}},
			"rackpower on n1",
		},
		"as expected": {api.Explanation{
			Status: power.StatusDeployed, Desired: power.StatusDeployed.Desired(),
			Reading: power.Reading{State: power.On},
		}, ""},
		"hold fits": {api.Explanation{Status: power.StatusReady, Hold: &api.Hold{Want: power.WantOff}}, ""},
		"pause is over": {api.Explanation{
			Status: power.StatusReady,
			Rack:   api.RackState{Pause: &api.Pause{By: "bob", Until: time.Now().Add(-time.Second)}},
		}, ""},
	} {
		c.e.Node = "n1"
		var run []string
		for _, h := range Hints(AtCentral, time.Now(), c.e, api.Node{Rack: "r1"}) {
			run = append(run, h.Run...)
		}
		if got := strings.Join(run, "|"); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// TestHintsTellSilenceFromRefusal: who is sent to look for a cable, for a password, for
// rights and for the holders of sessions.
func TestHintsTellSilenceFromRefusal(t *testing.T) {
	for reach, want := range map[power.Reach]string{
		power.ReachUnreachable: "cable", power.ReachAuthFailed: "user or password", power.ReachPrivilege: "privilege",
		power.ReachBusy: "hold its sessions",
	} {
		for _, refused := range []int{0, 2} {
			if refused > 0 && (reach == power.ReachUnreachable || reach == power.ReachBusy) {
				continue // what was refused comes first
			}
			e := api.Explanation{
				Node: "n1", Status: power.StatusReady, Reading: power.Reading{Reach: reach},
				BMC: &api.BMCState{BreakerOpen: "so", AuthFailures: refused},
			}
			found := Hints(AtCentral, time.Now(), e, api.Node{Rack: "r1"})
			if len(found) != 1 || !strings.Contains(found[0].Text, want) {
				t.Errorf("%s, %d refused: %+v, want one that says %q", reach, refused, found, want)
			}
		}
	}
}
