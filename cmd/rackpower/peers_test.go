package main

import (
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
)

func TestPeersSaysWhichAgentsAreGone(t *testing.T) {
	m := newTalk(t)
	m.peers = []api.PeerNode{
		{Node: "r1n01", State: power.On, Reach: power.ReachOK, AgeMS: 2000, Owner: "r1", OwnerStatus: "alive"},
		{Node: "r2n01", State: power.Off, Reach: power.ReachOK, AgeMS: 90_000, Owner: "r2", OwnerStatus: "failed", OwnerSinceMS: 40_000},
		{Node: "r2n02", State: power.Unknown, Reach: power.ReachNever, AgeMS: -1, Owner: "r2", OwnerStatus: "failed", OwnerSinceMS: 40_000},
		{Node: "r3n01", State: power.On, Reach: power.ReachUnreachable, AgeMS: 5000, Owner: "r3", OwnerStatus: "unknown", Op: power.ActCycle},
	}
	got := m.run("peers")
	for _, want := range []string{
		"rack agent r2 failed 40 s ago: r2n[01-02] is shown as it said last",
		"rack agent r3 is not known here: r3n01",
	} {
		if !strings.Contains(got.errs, want) {
			t.Errorf("no %q in %s", want, got.errs)
		}
	}
	for _, want := range []string{"r2 (failed)", "never", "unreachable", "cycle"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	if got := m.run("peers -o json"); got.errs != "" || !strings.Contains(got.out, `"owner_since_ms": 40000`) {
		t.Errorf("%s%s", got.out, got.errs)
	}
	expect(t, "of an agent", m.run("peers @r2 -o name"), 0, "r2n01\nr2n02\n", "")
}

func TestWho(t *testing.T) {
	m := newTalk(t)
	m.who = api.Who{
		Owners: []api.PeerNode{{Node: "r1n01", Owner: "r1", OwnerStatus: "failed", OwnerSinceMS: 40_000, State: power.On, AgeMS: -1}},
		Reach:  []api.WhoReach{{Agent: "r2", How: "it answered a probe in 1ms"}}, Asked: 3, Answered: 2, Message: "r1n01 is agent r1's (failed)",
	}
	want := `r1n01 is agent r1's (failed)
  agent r1 (failed 40 s ago) has it: on, never read
  agent r2 can reach its BMC: it answered a probe in 1ms
  1 of 3 members did not answer
`
	expect(t, "who", m.run("peers --who r1n01"), 0, want, "")
	if got := m.run("peers --who r1n01 -o json"); !strings.Contains(got.out, `"node": "r1n01"`) || got.exit != 0 {
		t.Errorf("%+v", got)
	}
	m.who.Reach, m.who.Answered = nil, 3
	expect(t, "out of reach", m.run("peers --who r1n01"), settings.ExitFailed, "has it", "")
	m.who.Owners, m.who.Message = nil, "no agent is known to have node nope"
	expect(t, "unknown", m.run("peers --who nope"), settings.ExitUsage, "no agent is known to have node nope\n", "")
	expect(t, "two", m.run("peers --who r1n01 r1n02"), settings.ExitUsage, "", "no NODES")
	expect(t, "none", m.runContext(t.Context(), []string{"peers", "--who", "", "--config", ""}), settings.ExitUsage, "",
		"--who takes the name")
}
