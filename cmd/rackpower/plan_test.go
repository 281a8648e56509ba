package main

import (
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestPlan(t *testing.T) {
	f := newFake(t, hall(4, power.On)...)
	at := time.Now().Add(time.Hour)
	f.planned = api.Plan{
		State: api.PlanMade, What: "set-status READY", ExpiresAt: at, Notes: []string{"nothing is done for now: paused"},
		Nodes: []api.PlannedNode{
			{Node: "r1n01", Effect: api.EffectNone, Message: "it is off already"},
			{Node: "r1n02", Effect: api.EffectLosesPower, Message: "status READY"},
			{Node: "r1n03", Effect: api.EffectLosesPower, Message: "status READY"},
			{Node: "r1n04", Effect: api.EffectLosesPower, Message: "status READY", OutOfReach: "its BMC: unreachable"},
		},
	}
	got := f.run("plan set-status r1n[01-04] READY --reason x").timeless()
	id := f.plans[0].ID
	expectExactly(t, "set-status", got, 0, `r1n[02-03] lose power: status READY
r1n04 loses power: status READY; out of reach: its BMC: unreachable
r1n01 stays as it is: it is off already
nothing is done for now: paused
set-status READY of 4 nodes: 3 lose power
Nothing was done. To do this, until TIME:
  rackpower apply `+id+"\n")
	if in := f.plans[0].Status; in == nil || in.Status != power.StatusReady || !in.Confirmed || in.Reason != "x" || len(in.Names) != 4 ||
		in.AskedBy != "tester" {
		t.Errorf("%+v", f.plans[0])
	}
	f.planned.Nodes = f.planned.Nodes[:2]
	expect(t, "one", f.run("plan off r1n[01-02]"), 0, "set-status READY of 2 nodes: 1 loses power\n", "")
	f.plans = f.plans[:1]
	f.planned.Nodes = []api.PlannedNode{
		{Node: "r1n01", Effect: api.EffectTurnsOn, Message: "nothing outstanding; on starts"},
		{Node: "r1n02", Effect: api.EffectTurnsOn, Message: "nothing outstanding; on starts", StartsAt: at},
		{Node: "r1n03", Effect: api.EffectRefused, Message: "no BMC is known"},
	}
	expect(t, "on", f.run("plan on r1n[01-03] --hold --hold-for 2h").timeless(), 0,
		"r1n[01-02] are turned on: nothing outstanding; on starts; staggered, the last about TIME\nr1n03 is refused: no BMC is known\n", "")
	if in := f.plans[1].Ops; in == nil || len(in.Ops) != 3 || in.Ops[0].Action != power.ActOn || !in.Ops[2].Hold ||
		in.Ops[2].HoldFor != 2*time.Hour || !in.Ops[1].Confirmed || in.Ops[0].ID == in.Ops[1].ID {
		t.Errorf("%+v", f.plans[1])
	}
	expect(t, "hold", f.run("plan hold r1n01 off --for 1h --reason x -o name"), 0, f.plans[1].ID[:8], "")
	expect(t, "release", f.run("plan release r1n01 -q"), 0, "", "")
	if h, r := f.plans[2].Hold, f.plans[3].Hold; h == nil || h.Want != power.WantOff || h.For != time.Hour || r == nil || r.Want != "" {
		t.Errorf("%+v", f.plans[2:])
	}
	f.planned.State = api.PlanExpired
	expect(t, "expired", f.run("plan show x").timeless(), 0, "expired TIME\n", "")
	expect(t, "JSON", f.run("plan show x -o json"), 0, `"effect": "turns-on"`, "")
	for line, said := range map[string]string{
		"plan":                          "a command is missing",
		"plan off":                      "NODES is missing",
		"plan off r1n01 --wait none":    "unknown flag --wait",
		"plan hold r1n01 off":           "--reason is missing",
		"plan hold r1n01 up --reason x": "up",
		"plan set-status r1n01 FOO":     "unknown status",
		"plan show":                     "ID is missing",
		"apply":                         "ID is missing",
		"apply x --wait long":           "--wait: unknown",
		"apply x y":                     "unexpected operand",
		"plan diag r1n01":               "unknown command",
		"plan cycle r1n09":              "r1n09",
		"plan off r1n01 --if-busy now":  "now",
	} {
		expect(t, line, f.run(line), 2, "", said)
	}
}

func TestApply(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	f.planned = api.Plan{
		State: api.PlanApplied, What: "release", AppliedAt: time.Now(),
		Changed: &api.Changed{Changed: 2, Unchanged: 1, Notes: []string{"nothing is done for now"}},
	}
	expect(t, "applied", f.run("apply x").timeless(), 0, "release: 2 nodes changed, 1 unchanged; applied TIME\n", "nothing is done for now\n")
	expect(t, "JSON", f.run("apply x -o json"), 0, `"unchanged": 1`, "")
	op := &api.Op{ID: "1", Node: "r1n01", Action: power.ActOff, Phase: api.PhaseTaken, Deadline: time.Now().Add(time.Minute)}
	f.ops["1"] = op
	f.becomes = func(op *api.Op, look int) {
		op.Phase, op.Outcome, op.State = api.PhaseEnded, power.Succeeded, power.Off
	}
	f.planned.Ops = []api.Op{*op}
	expect(t, "operations", f.run("apply x"), 0, "r1n01 off\n", "")
	expect(t, "operations", f.run("apply x --wait none"), 0, "r1n01 taken\n", "")
	f.problem = api.Problemf(api.CodeChanged, "nothing was done:\nr1n01: it changed\nMake another")
	expect(t, "changed", f.run("apply x"), 5, "", "nothing was done:\nr1n01: it changed\nMake another\n")
}
