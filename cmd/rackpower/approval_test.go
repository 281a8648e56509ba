package main

import (
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestApprovals(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	f.planned = api.Plan{
		ID: "01935f6e-58a1-7cc3-9d40-0d7cbb9ab0b1", State: api.PlanAwaiting, What: "off", AskedBy: "alice", Reason: "feed B",
		ExpiresAt: time.Now().Add(time.Hour), Needs: "3 nodes would lose power, and more than 2 need an approval",
		Nodes: []api.PlannedNode{
			{Node: "r1n01", Effect: api.EffectLosesPower, Message: "off starts"},
			{Node: "r1n02", Effect: api.EffectLosesPower, Message: "off starts"},
			{Node: "r1n03", Effect: api.EffectRefused, Message: "protected by bob"},
		},
	}
	expectExactly(t, "list", f.run("approvals").timeless(), 0, `PLAN          WHAT  LOSE POWER  ASKED BY  UNTIL
0d7cbb9ab0b1  off   2           alice     TIME
`)
	expect(t, "names", f.run("approvals -o name"), 0, f.planned.ID+"\n", "")
	expect(t, "show", f.run("plan show x").timeless(), 0, "Awaits the approval of a second person until TIME, asked by alice: feed B: "+
		"3 nodes would lose power, and more than 2 need an approval\n  rackpower approve "+f.planned.ID+"\n", "")
	expectExactly(t, "approve", f.run("approve x --reason seen"), 0, `off of 3 nodes, asked by alice: approved, and carried out
r1n03 is refused: protected by bob
`)
	expectExactly(t, "deny", f.run("deny x"), 0, "off of 3 nodes, asked by alice: denied, nothing is done\n")
	if d := f.decided; len(d) != 2 || d[0].Deny || d[0].Reason != "seen" || !d[1].Deny || d[1].AskedBy != "tester" {
		t.Errorf("%+v", d)
	}
	f.planned.State, f.planned.DecidedBy, f.planned.DecidedWhy = api.PlanDenied, "carol", "not today"
	expect(t, "denied", f.run("plan show x").timeless(), 0, "denied by carol TIME: not today\n", "")
	f.planned.State, f.planned.Needs = api.PlanMade, "3 nodes would lose power"
	expect(t, "planned", f.run("plan show x"), 0, "A second person will have to approve it: 3 nodes would lose power\n", "")
	expect(t, "approve", f.run("approve"), 2, "", "ID is missing")
	f.problem = api.Problemf(api.CodeForbidden, "not permitted: alice asked for plan x: another person has to approve it")
	expect(t, "one's own", f.run("approve x"), 5, "", "another person has to approve it")
}

// TestACommandAwaitsItsApproval as long as it waits for its operations.
func TestACommandAwaitsItsApproval(t *testing.T) {
	was := decisionEvery
	decisionEvery = time.Millisecond
	t.Cleanup(func() { decisionEvery = was })
	f := newFake(t, hall(2, power.On)...)
	f.problem = api.Problemf(api.CodeAwaiting, "nothing was done yet: another person may approve it: rackpower approve x1")
	f.problem.Plan = "x1"
	f.planned.State = api.PlanAwaiting
	for _, line := range []string{"node set-status r1n01 READY", "hold r1n01 off --reason x", "release r1n01", "apply x1 --wait none"} {
		expect(t, line, f.run(line), 4, "", "nothing was done yet: another person may approve it: rackpower approve x1\n")
	}
	expect(t, "too long", f.run("apply x1 --timeout 20ms"), 4, "", "still awaiting an approval; nothing was done yet (rackpower plan show x1)")
	f.planned.State, f.planned.DecidedBy = api.PlanDenied, "carol"
	expect(t, "denied", f.run("apply x1"), 5, "", "denied by carol; nothing was done")
	f.planned.State = api.PlanExpired
	expect(t, "expired", f.run("apply x1"), 5, "", "nobody approved it in time; nothing was done")
	f.planned.State = api.PlanApplied
	op := api.Op{ID: "1", Node: "r1n01", Action: power.ActOff, Phase: api.PhaseTaken, Deadline: time.Now().Add(time.Minute)}
	f.ops["1"] = &op
	f.becomes = func(op *api.Op, _ int) { op.Phase, op.Outcome, op.State = api.PhaseEnded, power.Succeeded, power.Off }
	f.planned.Ops = []api.Op{op}
	expect(t, "approved", f.run("apply x1"), 0, "r1n01 off\n", "approved by carol\n")
	expect(t, "off", f.run("off r1n01"), 0, "r1n01 off\n", "approved by carol\n")
	expect(t, "off", f.run("off r1n01 --wait none"), 4, "", "rackpower approve x1\n")
}

func TestPolicy(t *testing.T) {
	f := newFake(t)
	expectExactly(t, "show", f.run("policy show"), 0, "approve above: never\napprove nodes: none\napproval lasts: 1h\n")
	f.policy = api.Policy{ApproveAbove: 50, ApproveNodes: "@rack1", ApprovalLasts: 30 * time.Minute}
	expectExactly(t, "set", f.run("policy set approve-above 50 --reason x"), 0,
		"approve above: 50 nodes\napprove nodes: @rack1\napproval lasts: 30m\n")
	for _, line := range []string{
		"policy set approve-nodes @rack1", "policy set approval-lasts 30m", "policy unset approve-above",
		"policy unset approve-nodes", "policy unset approval-lasts",
	} {
		expect(t, line, f.run(line), 0, "approve above", "")
	}
	p := f.policies
	if len(p) != 6 || *p[0].ApproveAbove != 50 || p[0].Reason != "x" || *p[1].ApproveNodes != "@rack1" || *p[2].ApprovalLasts != 30*time.Minute ||
		*p[3].ApproveAbove != 0 || *p[4].ApproveNodes != "" || *p[5].ApprovalLasts != 0 {
		t.Errorf("%+v", p)
	}
	for line, said := range map[string]string{
		"policy":                       "a command is missing",
		"policy set":                   "RULE is missing",
		"policy set approve-above":     "SETTING is missing",
		"policy set approve-above x":   "no number of nodes",
		"policy set approve-above -1":  "-1",
		"policy set approve-nodes [":   "[",
		"policy set approval-lasts 5":  "no duration",
		"policy set approval-lasts 5s": "not between 1m",
		"policy set approve-all 5":     "unknown rule \"approve-all\"",
		"policy unset approve-above 5": "unexpected operand",
		"policy unset x":               "unknown rule",
	} {
		expect(t, line, f.run(line), 2, "", said)
	}
}
