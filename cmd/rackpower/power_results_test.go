package main

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestAnOperationOfAnAgentThatIsAwayIsNotSaidToRun: the phase is what the agent said last.
func TestAnOperationOfAnAgentThatIsAwayIsNotSaidToRun(t *testing.T) {
	const away = "agent r1 is away since 2026-03-01T12:00:00Z (last seen 4 min ago)"
	want := "not known: agent r1 is away since 2026-03-01 12:00:00Z (last seen 4 min ago); it said last: running: waiting for on"
	nodes := hall(1, power.Off)
	nodes[0].Op = &api.OpBrief{
		ID: "op1", Action: power.ActOn, AskedBy: "bob", AskedAt: time.Now(), Phase: "running: waiting for on",
		AgentNote: away,
	}
	f := newFake(t, nodes...)
	f.know(api.Op{
		ID: "op1", Node: "r1n01", Action: power.ActOn, AskedBy: "bob", AskedAt: time.Now(), Phase: "running: waiting for on",
		AgentNote: away, Attempts: 2,
	})
	for _, command := range []string{"status", "ops", "op show op1"} {
		got := f.run(command)
		if flat := strings.Join(strings.Fields(got.out), " "); !strings.Contains(strings.Replace(flat, "not known agent", "not known: agent", 1),
			want) || strings.Count(flat, "is away since") > 2 {
			t.Errorf("%s:\n%s", command, got.out)
		}
	}
	if got := f.run("op show op1").out; !strings.Contains(got, "commands sent: 2\n") {
		t.Errorf("%s", got)
	}
	f.know(api.Op{ID: "op2", Node: "r1n01", Action: power.ActOn, AskedBy: "bob", AskedAt: time.Now(), Phase: api.PhaseTaken, AgentNote: away})
	if got := f.run("op show op2").out; !strings.Contains(got, "phase:         taken\n") {
		t.Errorf("what central keeps is where central says:\n%s", got)
	}
}

// TestProgressCountsWhatIsVerified: what ended otherwise is named apart.
func TestProgressCountsWhatIsVerified(t *testing.T) {
	f := &following{order: order{wait: waitVerified}, rows: []*followed{
		{op: api.Op{Outcome: power.Failed}, met: true},
		{op: api.Op{Outcome: power.Refused}, met: true},
		{op: api.Op{Outcome: power.Failed}, met: true},
		{op: api.Op{Outcome: power.Succeeded}, met: true},
		{},
	}}
	if got := f.standing(); got != "1 of 5 verified, 2 failed, 1 refused" {
		t.Errorf("%q", got)
	}
}

// TestWhatTheAgentHasNotConfirmedIsSaidToBeSo: what was just asked for is seen at once.
func TestWhatTheAgentHasNotConfirmedIsSaidToBeSo(t *testing.T) {
	pause := &api.Pause{By: "carol", Since: time.Now()}
	for _, c := range []struct {
		set, told *api.Pause
		monitor   string
		says      string
	}{
		{nil, pause, "", "resuming, not yet confirmed by its agent"},
		{pause, nil, "", "paused by carol, not yet confirmed by its agent"},
		{pause, pause, "", "paused by carol"},
		{nil, nil, "", "ok"},
		{nil, nil, "@every 30s", "@every 30s (not yet confirmed by its agent)"},
	} {
		f := newFake(t)
		f.racks = []api.Rack{{
			Name: "r1", Agent: "r1", AgentState: api.AgentPresence{State: api.AgentAlive}, Settings: api.RackSettings{
				Pause:   c.set,
				Monitor: c.monitor,
			},
			State: api.RackState{Monitor: "@every 60s", Pause: c.told},
		}}
		got := f.run("rack list").out
		if !strings.Contains(got, c.says) || strings.Contains(got, "not yet") != strings.Contains(c.says, "not yet") {
			t.Errorf("no %q in\n%s", c.says, got)
		}
	}
}
