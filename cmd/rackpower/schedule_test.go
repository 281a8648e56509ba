package main

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestScheduleAdd(t *testing.T) {
	nobodyToAsk(t)
	f := newFake(t, hall(25, power.Off)...)
	add := func(args ...string) ran {
		return f.runContext(t.Context(), append([]string{"schedule", "add", "night", "--cron", "0 20 * * 1-5"}, args...)).timeless()
	}
	got := add("--nodes", "@r1,!r1n[05-25]", "--want", "off", "--for", "11h", "--reason", "idle")
	expect(t, "add", got, 0, "schedule night set: off for 11h r1n[01-04] (4 nodes now), next TIME\n", "")
	p := f.puts[0]
	if p.Name != "night" || p.Cron != "0 20 * * 1-5" || p.Nodes != "@r1,!r1n[05-25]" || p.Want != power.WantOff || p.For != 11*time.Hour ||
		p.Reason != "idle" || p.By != "tester" || p.Confirmed {
		t.Errorf("%+v", p)
	}
	// The nodes are off now; at eight in the evening they may not be.
	many := "25 nodes will lose power in each run, if they are on then, all of r1: r1n[01-25]; nothing was done: confirm with --yes"
	expect(t, "many", add("--nodes", "all", "--want", "off"), 2, "", many)
	expect(t, "many", add("--nodes", "all", "--want", "release"), 2, "", many)
	expect(t, "dry run", add("--nodes", "all", "--want", "off", "--dry-run", "--update"), 0, "schedule night would be set: off r1n[01-25]", "")
	expect(t, "on", add("--nodes", "all", "--want", "ON"), 0, "schedule night set: on r1n[01-25]", "")
	expect(t, "--yes", add("--nodes", "all", "--want", "release", "--yes"), 0, "schedule night set: release r1n[01-25]", "")
	expect(t, "nothing now", add("--nodes", "@status:DEPLOYED", "--want", "off"), 0, "off no node now",
		"--nodes selects no node now\n")
	expect(t, "no such rack", add("--nodes", "@rack9", "--want", "off"), 2, "",
		"rackpower schedule add: --nodes: no node matches \"@rack9\"\n")
	if p := f.puts; len(p) != 5 || !p[1].DryRun || !p[1].Update || !p[3].Confirmed || p[3].Want != "" {
		t.Errorf("%+v", p)
	}
	f.problem = api.Problemf(api.CodeExists, "schedule night exists")
	expect(t, "exists", add("--nodes", "r1n01", "--want", "off"), 2, "", "schedule night exists\n--update replaces a schedule that exists\n")
	f.problem = api.Problemf(api.CodeBadRequest, "cannot read cron expression")
	expect(t, "cron", add("--nodes", "r1n01", "--want", "off"), 2, "", "cannot read cron expression")
}

func TestSchedules(t *testing.T) {
	f := newFake(t)
	expect(t, "none", f.run("schedule list"), 0, "no schedules", "")
	expect(t, "none", f.run("schedule next"), 0, "no runs to come\n", "")
	now := time.Now()
	f.schedules = []api.Schedule{{
		Name: "night", Cron: "0 20 * * 1-5", Nodes: "@rack1,!r1n07", Want: power.WantOff, For: 11 * time.Hour, By: "bob", Reason: "idle",
		CreatedAt: now.Add(-50 * time.Hour), LastAt: now.Add(-20 * time.Hour), LastMessage: "12 nodes held off", NextAt: now.Add(5 * time.Hour),
	}, {Name: "day", Cron: "@daily", Nodes: "all", By: "bob", CreatedAt: now}}
	for _, want := range []string{
		"night     0 20 * * 1-5  @rack1,!r1n07  off for 11h  TIME", "TIME: 12 nodes held off\n",
		"day       @daily        all            release      never",
	} {
		if got := f.run("schedule list").timeless(); !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	expectExactly(t, "show", f.run("schedule show night"), 0, `schedule:      night
cron:          0 20 * * 1-5
nodes:         @rack1,!r1n07
want:          off for 11h
reason:        idle
by:            bob
since:         TIME
confirmed:     no: the fleet brake applies to each run
last run:      TIME: 12 nodes held off
next run:      TIME
`)
	f.runs = []api.ScheduledRun{{
		Schedule: "night", At: now.Add(5 * time.Hour), Want: power.WantOff, Nodes: namesOf(hall(12, power.On)),
		LosingPower: []string{"r1n01"}, Held: []string{"r1n12"},
	}}
	expect(t, "next", f.run("schedule next night --count 1").timeless(), 0, "TIME  night     off   r1n[01-12]  r1n01  r1n12\n", "")
	expect(t, "next", f.run("schedule next day"), 0, "no runs to come\n", "")
	expect(t, "rm", f.run("schedule rm night --reason x"), 0, "schedule night removed; the holds that it has set stay until they end\n", "")
	if len(f.unputs) != 1 || f.unputs[0].Name != "night" || f.unputs[0].Reason != "x" {
		t.Errorf("%+v", f.unputs)
	}
}
