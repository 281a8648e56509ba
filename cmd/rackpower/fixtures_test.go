package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/term"
	"rackpower/power"
)

// corner is three nodes that show all that a status table can.
func corner() []api.Node {
	nodes := hall(3, power.On)
	nodes[0].Status, nodes[0].Desired = power.StatusDeploying, power.WantOn
	nodes[0].Op = &api.OpBrief{
		ID: "op1", Action: power.ActCycle, AskedBy: "bob", AskedAt: time.Now().Add(-4 * time.Second),
		Phase: "running: waiting for off",
	}
	nodes[0].Waiting = 2
	nodes[1].Drift, nodes[1].Stale, nodes[1].Reach = true, true, power.ReachUnreachable
	nodes[2].State, nodes[2].ObservedAt, nodes[2].Reach, nodes[2].Fault = power.Unknown, nil, power.ReachNever, "3 corrections failed"
	return nodes
}

func ended(id, node string) api.Op {
	asked := time.Now().Add(-5 * time.Minute)
	started, end := asked.Add(time.Second), asked.Add(4*time.Second)
	return api.Op{
		ID: id, Node: node, Rack: "r1", Action: power.ActOff, AskedBy: "bob", Origin: power.FromCentral, Reason: "feed\tB", AskedAt: asked,
		StartedAt: &started,
		EndedAt:   &end, Outcome: power.Failed, Detail: "BMC \x1b]0;x\a does not answer", Verdict: power.VerdictStart, Phase: api.PhaseEnded,
		Deadline: asked.Add(5 * time.Minute), Attempts: 2,
	}
}

// nightmare is the explanation of a node with all that can be in the way.
func nightmare(now time.Time) api.Explanation {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	end := now.Add(107 * time.Minute)
	started := ago(50 * time.Second)
	return api.Explanation{
		Node: "r1n07", Agent: "r1", At: now, Status: power.StatusReady, Desired: power.Desired{Want: power.WantOn}, DesiredFrom: "hold of bob",
		Message: "r1n07 is off and should be on (hold of bob): nothing is done, because the fleet brake holds 30 of 40 nodes.",
		Hold:    &api.Hold{Want: power.WantOn, By: "bob", Reason: "burn-in", Since: ago(13 * time.Minute), Expires: &end},
		Reading: power.Reading{State: power.Off, Reach: power.ReachAuthFailed, ObservedAt: ago(11 * time.Minute), TriedAt: ago(40 * time.Second)},
		Monitor: api.NodeMonitor{
			Fault: "3 corrections failed, the last: BMC refused the password", FaultSince: ago(32 * time.Minute), Failures: 4, Faults: 2,
			Waits: power.ReasonBrake, WaitsMessage: "30 of 40 nodes would be powered off at once",
		},
		Ops: []api.Op{
			{
				ID: "1", Action: power.ActOn, AskedBy: "monitor", AskedAt: ago(34 * time.Minute), Outcome: power.Failed,
				Detail: "BMC refused the password", Reason: "drift",
			},
			{
				ID: "2", Action: power.ActOn, AskedBy: "alice", AskedAt: ago(52 * time.Second), StartedAt: &started,
				Phase: "running: waiting for power domain feedA: 3 ahead, about 2 s",
			},
			{ID: "3", Action: power.ActOff, AskedBy: "bob", AskedAt: ago(20 * time.Minute), Outcome: power.Succeeded, Already: true},
		},
		RecentReadings: []api.ReadingRun{
			{State: power.On, Reach: power.ReachOK, First: ago(3 * time.Hour), Last: ago(31 * time.Minute), Times: 148},
			{State: power.Off, Reach: power.ReachOK, First: ago(30 * time.Minute), Last: ago(11 * time.Minute), Times: 19},
			{
				State: power.Off, Reach: power.ReachAuthFailed, First: ago(40 * time.Second), Last: ago(40 * time.Second), Times: 1,
				Message: "RAKP 2: unauthorized name",
			},
		},
		RecentDecisions: []api.Decision{
			{
				Action: power.ActOn, Reason: power.ReasonDrift, Message: "off, wanted on: power-on asked for", First: ago(34 * time.Minute),
				Last: ago(34 * time.Minute), Times: 1,
			},
			{
				Reason: power.ReasonBrake, Message: "30 of 40 nodes would be powered off at once: nothing is corrected", First: ago(20 * time.Minute),
				Last: ago(40 * time.Second), Times: 20,
			},
		},
		BMC: &api.BMCState{
			Address: "ipmi://admin@10.0.1.7", Failures: 2, AuthFailures: 2, BreakerOpen: "its password was refused twice",
			LastError: "RAKP 2: unauthorized name",
		},
		Domain: &api.DomainState{DomainLimit: api.DomainLimit{Name: "feedA", Rate: 10, Concurrent: 50}, InFlight: 3, Waiting: 7},
		Rack: api.RackState{
			Monitor: "@every 60s", Faults: 1, OpenBreakers: 1, Brake: cutBrake(now),
			Pause: &api.Pause{By: "carol", Reason: "moving cables", Since: ago(5 * time.Minute), Until: now.Add(115 * time.Minute)},
		},
		Next: now.Add(20 * time.Second),
	}
}

// cutBrake is a brake that holds the first 30 nodes of a hall.
func cutBrake(now time.Time) *api.Brake {
	return &api.Brake{
		ID: "b1", Since: now.Add(-20 * time.Minute), Kind: "cut", Nodes: namesOf(hall(30, power.On)), Total: 40,
		Message: "30 of 40 nodes would be powered off at once",
	}
}

// clocks stands for every time and every span in an output, which are never the same.
var clocks = regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)?( \((in )?\d+ (s|min|h|d)( ago)?\))?`)

// timeless replaces the times in what was printed.
func (r ran) timeless() ran {
	r.out, r.errs = clocks.ReplaceAllString(r.out, "TIME"), clocks.ReplaceAllString(r.errs, "TIME")
	return r
}

// expectExactly is expect of the whole output.
func expectExactly(t *testing.T, what string, got ran, exit int, out string) {
	t.Helper()
	if got = got.timeless(); got.exit != exit || got.out != out {
		t.Errorf("%s: status %d, want %d\ngot\n%s\nwant\n%s\nstderr %s", what, got.exit, exit, got.out, out, got.errs)
	}
}

// expectTable holds a run of a line against its status, each part that stdout must hold and one of
// stderr; what is for people fits 80 columns.
func expectTable(t *testing.T, line string, got ran, exit int, out []string, errs string) {
	t.Helper()
	if got.exit != exit || !strings.Contains(got.errs, errs) {
		t.Errorf("%s: %+v", line, got)
	}
	for _, part := range out {
		if !strings.Contains(got.out, part) {
			t.Errorf("%s lacks %q:\n%s", line, part, got.out)
		}
	}
	for row := range strings.Lines(got.out) {
		if width := term.Width(strings.TrimRight(row, "\n")); width > 80 && !strings.Contains(line, " -o ") {
			t.Errorf("%s: a line of %d columns: %s", line, width, row)
		}
	}
}

// nobodyToAsk makes the test one without a terminal.
func nobodyToAsk(t *testing.T) {
	old := asks
	asks = func(*cli.Context) bool { return false }
	t.Cleanup(func() { asks = old })
}

// hoursAway is an agent that polled last two and a half hours ago, hoursFailed one that
// failed then.
func hoursAway() api.AgentPresence {
	at := time.Now().Add(-150 * time.Minute)
	return api.AgentPresence{State: api.AgentAway, Since: at, LastSeen: at}
}

func hoursFailed() api.AgentPresence {
	p := hoursAway()
	p.State = api.AgentFailed
	return p
}
