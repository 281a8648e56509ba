package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
)

func TestAgentsAndAudit(t *testing.T) {
	f := newFake(t)
	want := `AGENT  STATE  SEEN   NODES  OUTSTANDING  TAKEN  VERSION
r1     alive  3 s    40     0            0      v1
r2     away   never  0      0            2
`
	if got := f.run("agents"); got.out != want {
		t.Errorf("%s", got.out)
	}
	if got := f.run("members"); got.out != "MEMBER  ADDRESS    PORT  STATUS  TAGS\nr1      127.0.0.1  7946  alive   rack=r1 role=agent\n" {
		t.Errorf("%s%s", got.out, got.errs)
	}
	expect(t, "members", f.run("members -o json"), 0, `"tags": {`, "")
	want = `NODE   STATE  AGE   OWNER
r1n01  on     2 s   r1
r2n01  off    90 s  r2 (failed)
`
	if got := f.run("peers"); strings.Replace(got.out, "  REACH", "", 1) != want {
		t.Errorf("%s%s", got.out, got.errs)
	}
	expect(t, "peers", f.run("peers @state:off -o name"), 0, "r2n01\n", "")
	expect(t, "peers", f.run("peers r9"), 2, "", "no such node: r9")
	expect(t, "audit", f.run("audit r1n01 --limit 5"), 0, "2026-03-01 12:00:00Z  bob  asked  r1n01  limit 5", "")
}

// TestAgentsForget: it asks where nodes lose their agent, and only there, wants a reason,
// and says what went with the agent.
func TestAgentsForget(t *testing.T) {
	const (
		question = "40 nodes will be assigned to no agent, and 0 operations ended. Continue? [y/N] "
		done     = "agent r1 forgotten: 2 operations ended, 3 nodes assigned to nobody (r1n[01-03])\n"
	)
	for _, c := range []struct {
		args      string
		typed     []string
		problem   *api.Problem
		exit      int
		out, errs string
		sent      bool
	}{
		{args: "agents forget r1 --reason burnt", typed: []string{"y"}, out: done, errs: question, sent: true},
		{args: "agents forget r1 --reason burnt", typed: []string{"n"}, exit: 2, errs: "not confirmed; nothing was done\n"},
		{args: "agents forget r1 --reason burnt", exit: 2, errs: "nothing was done"},
		{args: "agents forget r1 --reason burnt --yes", out: done, sent: true},
		{args: "agents forget r1 --reason burnt --yes -o name", out: "r1\n", sent: true},
		{args: "agents forget r1 --yes", exit: 2, errs: "reason"},
		{args: "agents forget --reason burnt --yes", exit: 2},
		{args: "agents forget r2 --reason typo", out: "forgotten", sent: true}, // it has no node
		{
			args: "agents forget r9 --reason x", problem: api.Problemf(api.CodeNotFound, "no such agent: r9"), exit: 2, errs: "no such agent: r9",
			sent: true,
		},
		{
			args: "agents forget r1 --reason x --yes", problem: api.Problemf(api.CodeRefused, "agent r1 is alive"), exit: 5,
			errs: "agent r1 is alive", sent: true,
		},
	} {
		old := asks
		asks = func(*cli.Context) bool { return len(c.typed) > 0 }
		t.Cleanup(func() { asks = old })
		f := newFake(t)
		f.problem = c.problem
		got := f.run(c.args, c.typed...)
		if got.exit != c.exit || !strings.Contains(got.out, c.out) || !strings.Contains(got.errs, c.errs) || c.out == "" && got.out != "" {
			t.Errorf("%s %q: exit %d\n%s%s", c.args, c.typed, got.exit, got.out, got.errs)
		}
		if sent := len(f.forgets) == 1; sent != c.sent {
			t.Errorf("%s %q: sent %v, want %v", c.args, c.typed, sent, c.sent)
		} else if sent && (f.forgets[0].AskedBy != "tester" || f.forgets[0].Reason == "") {
			t.Errorf("%s: sent %+v", c.args, f.forgets[0])
		}
	}
	got := newFake(t).run("agents forget r1 --reason burnt --yes -o json")
	expectExactly(t, "json", got, 0, `[
  {
    "name": "r1",
    "ended": 2,
    "nodes": [
      "r1n01",
      "r1n02",
      "r1n03"
    ]
  }
]
`)
}

// TestNotesOfManyAgentsShareALine: up to three are named one by one.
func TestNotesOfManyAgentsShareALine(t *testing.T) {
	for n, want := range map[int]string{
		3:   "agent r03, since",
		125: "agents r[01-99],r[100-125]: alarm disk-full: rackpower agents -o json has each\n",
	} {
		f := newFake(t)
		for i := range n {
			f.agents = append(f.agents, api.Agent{
				Name: fmt.Sprintf("r%02d", i+1), State: "alive",
				Alarms: []api.Alarm{{Kind: api.AlarmDiskFull, Message: "no room"}},
			})
		}
		got := f.run("agents")
		if lines := strings.Count(got.errs, "\n"); got.exit != 0 || lines > 3 || !strings.Contains(got.errs, want) {
			t.Errorf("%d agents: exit %d, %d lines of %q", n, got.exit, lines, got.errs)
		}
		for _, args := range []string{"agents -q", "agents -o json"} {
			if got := f.run(args); got.errs != "" {
				t.Errorf("%s: %q", args, got.errs)
			}
		}
	}
	f := newFake(t)
	for i := range 125 {
		name := fmt.Sprintf("r%03d", i)
		f.nodes = append(f.nodes, api.Node{Name: name + "n1", Rack: name, Agent: name, AgentState: hoursAway()})
		f.racks = append(f.racks, api.Rack{Name: name, Agent: name, AgentState: hoursAway()})
	}
	for _, args := range []string{"status all", "hold all off --reason x --yes"} {
		if got := f.run(args); strings.Count(got.errs, "\n") > 2 || !strings.Contains(got.errs, "r[000-124]") {
			t.Errorf("%s of 125 racks that are away: %d lines on stderr: %.300s", args, strings.Count(got.errs, "\n"), got.errs)
		}
	}
}

func TestAgentsShowTheirMonitors(t *testing.T) {
	f := newFake(t)
	rack := nightmare(time.Now()).Rack
	f.agents = []api.Agent{{Name: "r1", State: "alive", Nodes: 40, Version: "v1", Rack: &rack}}
	expectExactly(t, "agents", f.run("agents"), 0, `AGENT  STATE  SEEN   NODES  OUTSTANDING  TAKEN  MONITOR                                                                                                    VERSION
r1     alive  never  40     0            0      brake holds 30 nodes (cut), paused by carol until TIME, 1 node in fault, 1 BMC left alone  v1
`)
}
