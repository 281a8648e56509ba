package agent

import (
	"testing"

	"rackpower/agent/simtest"
)

// fleetHistories is how many histories of fleets are simtest.Result where nobody says: some ten
// seconds. With the race detector it is a fifth.
const fleetHistories = 250

// fleetMeets is what the default number of histories must have met.
var fleetMeets = []string{
	"step status", "step trickle", "step hold", "step release", "step ask", "step pause", "step resume", "step monitor", "step bounds",
	"step release-brake",
	"step retry", "step kill", "step crash", "step stop", "step away", "step back", "step manual", "step late", "step latency", "step stuck",
	"step unstuck",
	"step mute", "step wake", "step password", "step restart-bmc", "step comeback", "step fallback", "fell back", "step stay", "step lose",
	"bulk unconfirmed", "bulk out of sight", "bulk confirmed", "confirmed followed", "as many cut as may be", "outage", "hold expired",
	"person's operation",
	"monitor's on", "monitor's off", "debounced", "settled", "came back", "refused log-in", "fault", "try in fault", "fault over a death",
	"brake cut", "brake drift", "brake released", "brake over", "brake over a death",
	"death", "death with a brake", "death with a fault", "death among readings", "death after a change", "death within a change",
	"left for brake", "left for paused", "left for no-monitor", "left for auth-failed",
}

// TestSimFleet plays random histories of a fleet against an agent whose monitor is on, as
// TestSimOps does against one whose monitor is off: PROOF_HISTORIES of them from
// PROOF_SEED, for at most PROOF_TIME. What it prints is replayed by TestSimTranscripts.
func TestSimFleet(t *testing.T) {
	run := simtest.Run{
		Name: "fleet", Histories: fleetHistories, Draw: simtest.DrawFleet, Play: playSim, Meets: fleetMeets,
		MeetsFrom: fleetHistories,
	}
	if raceEnabled {
		run.Histories /= 5
	}
	run.Test(t)
}
