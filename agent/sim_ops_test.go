package agent

import (
	"slices"
	"testing"
	"time"

	"rackpower/agent/simtest"
)

// opsHistories is how many histories are simtest.Result where nobody says.
const opsHistories = 400

// opsMeets is what ten thousand histories must have met, or they prove less than
// they seem to.
var opsMeets = []string{
	"verdict start idle", "verdict join equal", "verdict join satisfied", "verdict hasten grace-over", "verdict follow asks-more",
	"verdict follow cancelling",
	"verdict follow no-final", "verdict supersede conflict", "verdict follow unrelated", "verdict queue queued", "verdict refuse busy",
	"verdict refuse stale",
	"verdict refuse desired", "repeat",
	"end succeeded verified", "end succeeded already", "end succeeded acknowledged", "end failed node-off", "end failed not-reached",
	"end failed not-escalated",
	"end failed unreachable", "end failed auth-failed", "end failed bmc-refused", "end failed bmc-busy", "end failed unsupported",
	"end failed privilege",
	"end superseded newer", "end cancelled asked", "end cancelled desired", "end expired deadline", "end indeterminate interrupted",
	"end indeterminate unanswered", "end indeterminate uncertain",
	"unsure and there", "unsure and gone", "resend", "resend after a death", "cycle goes on after a death",
	"death in create", "death in write", "death in sync", "death in rename", "death in syncdir",
	"denied accepted", "denied started", "denied sending", "denied sent", "denied off-seen", "denied ended", "denied cancel",
}

// TestSimOps plays random histories (PROOF_HISTORIES of them from PROOF_SEED, for at
// most PROOF_TIME) and holds each against the model. One that breaks a rule is shrunk
// and printed as a transcript, which TestSimTranscripts replays.
func TestSimOps(t *testing.T) {
	simtest.Run{
		Name: "ops", Histories: opsHistories, Draw: simtest.DrawOps, Play: playSim, Meets: opsMeets, MeetsFrom: 10000,
	}.Test(t)
}

// TestSimTranscripts replays the histories kept in testdata/sim, and the one
// that PROOF_REPLAY names, with its trace.
func TestSimTranscripts(t *testing.T) { simtest.Transcripts(t, "testdata/sim", playSim) }

// opsExamples are short histories for TestSimOpsCrashEverywhere: together they write every
// kind of record.
var opsExamples = map[string]string{
	"cycle": `
		0s manual n1 on
		0s late n1 on=1s off=1s
		0s ask a1 n1 cycle boot=pxe
		1s ask a2 n1 cycle boot=pxe
		20s report n=9`,
	"supersede": `
		0s latency n1 50ms
		0s ask a1 n1 on
		70ms ask a2 n1 off
		0s ask a3 n1 cycle
		0s ask a4 n1 on
		0s ask a5 n1 soft-off
		20s report n=2`,
	"hasten": `
		0s manual n1 on
		0s soft n1 40s
		0s ask a1 n1 soft-off grace=30s
		3s ask a2 n1 off
		1s ask a3 n1 on if_busy=queue
		9s cancel a3
		20s report n=9`,
	"soft-off": `
		0s manual n1 on
		0s deaf n1 true
		0s ask a1 n1 soft-off grace=5s
		20s ask a2 n1 diag`,
	"once": `
		0s manual n1 on
		0s latency n1 100ms
		0s ask a1 n1 reset
		0s ask a2 n1 diag
		0s ask a3 n1 bmc-reset
		0s ask a4 n1 on
		90s report n=2
		1s report n=9`,
	"lost answers": `
		0s manual n1 on
		0s lose n1 n=2
		0s ask a1 n1 off
		0s ask a2 n1 on if_busy=queue
		0s ask a3 n1 reset if_busy=queue
		5s lose n1 n=1`,
	"caps": `
		0s manual n1 on
		0s latency n1 50ms
		0s ask a1 n1 cap limit=800
		70ms ask a2 n1 cap limit=500
		0s ask a3 n1 off
		0s lose n1 n=1
		0s ask a4 n1 cap if_busy=queue
		30s report n=9`,
	"cancel": `
		0s mute n1
		0s ask a1 n1 cycle
		1s ask a2 n1 off if_busy=queue deadline=2s
		1s cancel a1
		9s wake n1
		0s ask a4 n1 on
		5s report n=1`,
}

// TestSimOpsCrashEverywhere lets the agent die within every call that writes to its
// journal in the life of a few operations: before any byte of a write, after all of
// them, and at steps of PROOF_STRIDE bytes between; by a kill, and by losses of power that
// leave nothing, all or some of what was not flushed. The same in the start after it.
func TestSimOpsCrashEverywhere(t *testing.T) {
	stride := int(simtest.EnvNumber(t, "PROOF_STRIDE", 1000))
	for name, text := range opsExamples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script, err := simtest.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			simtest.CrashEverywhere(t, playSim, stride, func(args ...string) simtest.Script {
				return append(simtest.Script{{Verb: "crash", Args: args}}, script...)
			})
			if testing.Short() || t.Failed() {
				return
			}
			simtest.CrashEverywhere(t, playSim, stride*4, func(args ...string) simtest.Script {
				mid := len(script) / 2
				return slices.Concat(simtest.Script{{Verb: "start-crash", Args: args}}, script[:mid+1],
					simtest.Script{{After: 100 * time.Millisecond, Verb: "kill"}}, script[mid+1:])
			})
		})
	}
}
