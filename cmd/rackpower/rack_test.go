package main

import (
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestPauseAndResume(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	f.racks = []api.Rack{{Name: "r1", AgentState: hoursAway()}}
	got := f.run("pause r1 --for 2h --reason cables").timeless()
	expect(t, "pause", got, 0, "rack r1: the monitor is paused until TIME; requests are still carried out\n",
		"its agent is away since TIME (last seen 2 h ago): it learns of it when it is back\n")
	expect(t, "resume", f.run("resume r1 -q"), 0, "", "")
	expect(t, "resume", f.run("resume r1 -o name"), 0, "r1\n", "")
	p := f.pauses
	if len(p) != 3 || p[0].For != 2*time.Hour || p[0].Reason != "cables" || p[0].Resume || !p[1].Resume || p[1].AskedBy != "tester" {
		t.Errorf("%+v", p)
	}
	expect(t, "resume", f.run("resume r1"), 0, "rack r1: the monitor is not paused\n", "its agent is away")
	f.racks[0].AgentState = hoursFailed()
	expect(t, "failed", f.run("resume r1"), 0, "the monitor is not paused\n",
		"its agent failed 2 h ago, as gossip says: it learns of it when it is back\n")
}

func TestPauseAndResumeAll(t *testing.T) {
	f := newFake(t)
	f.racks = []api.Rack{{Name: "r1"}, {Name: "r2"}}
	expect(t, "pause", f.run("pause all --for 2h --reason cables").timeless(), 0,
		"all racks (2): the monitors are paused until TIME; requests are still carried out\n", "")
	f.racks[1].Settings.Pause = &api.Pause{By: "bob"}
	expect(t, "resume", f.run("resume all"), 0, "all racks (2): the monitors resume\n", "paused by themselves, and still so: racks r2")
	expect(t, "names", f.run("resume all -o name"), 0, "r1\nr2\n", "")
	f.racks[0].Settings.Pause = &api.Pause{By: "bob", Site: true}
	expect(t, "still", f.run("resume r1"), 0, "rack r1: still paused, all racks paused by bob\n", "")
	if p := f.pauses; len(p) != 4 || p[0].For != 2*time.Hour || p[0].Reason != "cables" || !p[1].Resume {
		t.Errorf("%+v", p)
	}
}

func TestRacks(t *testing.T) {
	f := newFake(t)
	expect(t, "none", f.run("rack list"), 0, "no racks are known yet\n", "")
	now := time.Now()
	f.racks = []api.Rack{
		{
			Name: "r1", Agent: "r1", AgentState: api.AgentPresence{State: api.AgentAlive}, Nodes: 40, State: nightmare(now).Rack,
			Settings: api.RackSettings{BrakePercent: 50, Pause: nightmare(now).Rack.Pause},
		},
		{Name: "r2", Agent: "r2", AgentState: hoursAway(), Nodes: 8, Settings: api.RackSettings{Monitor: "off"}},
		{Name: "r3", Agent: "r3", AgentState: api.AgentPresence{State: api.AgentAlive}, Nodes: 2, State: api.RackState{Monitor: "off"}},
		{Name: "r4", Agent: "r4", AgentState: api.AgentPresence{State: api.AgentAlive}, Nodes: 2, State: api.RackState{Monitor: "@every 60s"}},
	}
	expectExactly(t, "list", f.run("rack list"), 0, `RACK  AGENT                                                     NODES  READS       BRAKE AT       MONITOR
r1    r1                                                        40     @every 60s  50 %, 5 nodes  brake holds 30 nodes (cut), paused by carol until TIME, 1 node in fault, 1 BMC left alone
r2    r2 (away since TIME (last seen 2 h ago))  8      off         20 %, 5 nodes  not known
r3    r3                                                        2      off         20 %, 5 nodes  off
r4    r4                                                        2      @every 60s  20 %, 5 nodes  ok
`)
	f.racks = f.racks[:2]
	expectExactly(t, "show", f.run("rack show r1"), 0, `rack:          r1
agent:         r1
nodes:         40
reads:         @every 60s
brake at:      50 %, 5 nodes
brake:         holds 30 of 40 nodes (cut) since TIME: r1n[01-30]
pause:         by carol since TIME, until TIME: moving cables
in fault:      1 node
left alone:    1 BMC
`)
	expect(t, "set", f.run("rack set r1 --brake-percent 0 --brake-above 9 --reason x"), 0, "rack r1: brake at 20 %, 5 nodes\n", "")
	if got := f.runContext(t.Context(), []string{"rack", "set", "r1", "--monitor", ""}); got.exit != 0 ||
		got.out != "rack r1: reads as the agent says\n" {
		t.Errorf("%+v", got)
	}
	s := f.rackSets
	if len(s) != 2 || s[0].Monitor != nil || *s[0].BrakePercent != 0 || *s[0].BrakeAbove != 9 || *s[1].Monitor != "" ||
		s[1].BrakeAbove != nil {
		t.Errorf("%+v", s)
	}
}
