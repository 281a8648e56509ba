package main

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/power"
)

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

// nobodyToAsk makes the test one without a terminal.
func nobodyToAsk(t *testing.T) {
	old := asks
	asks = func(*cli.Context) bool { return false }
	t.Cleanup(func() { asks = old })
}

func TestHold(t *testing.T) {
	nobodyToAsk(t)
	f := newFake(t, hall(25, power.On)...)
	expect(t, "hands-off", f.run("hold r1n07 hands-off --reason DIMM"), 0, "r1n07 held hands-off until released\n", "")
	expect(t, "several", f.run("hold --reason DIMM r1n[01-03] !r1n02 on --for 2h"), 0, "r1n[01,03] held on until ", "")
	h := f.holds
	if len(h) != 2 || h[0].Want != power.HandsOff || h[0].For != 0 || h[0].Reason != "DIMM" || h[0].AskedBy != "tester" || h[0].Confirmed ||
		h[1].Want != power.WantOn || h[1].For != 2*time.Hour || len(h[1].Names) != 2 {
		t.Fatalf("%+v", h)
	}
	expect(t, "many", f.run("hold all off --reason x"), 2, "",
		"25 nodes will lose power, all of r1: r1n[01-25]; nothing was done: say --yes if that is meant")
	expect(t, "many on", f.run("hold all on --reason x"), 0, "r1n[01-25] held on until released\n", "")
	expect(t, "many --yes", f.run("hold all off --reason x --yes"), 0, "r1n[01-25] held off until released\n", "")
	if len(f.holds) != 4 || f.holds[2].Confirmed || !f.holds[3].Confirmed {
		t.Errorf("%+v", f.holds)
	}
	expectExactly(t, "json", f.run("hold r1n01 on --reason x -o json"), 0, "[\n  {\n    \"changed\": 1,\n    \"unchanged\": 0\n  }\n]\n")
	expect(t, "local", f.run("local hold r1n01 on --reason x --for 90m"), 0, "r1n01 held on until ", "")
}

func TestNotesOfAChangeAreShown(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	f.notes = []string{"node r1n01: DISK_ERASING is never \x1b[2Jcut"}
	expect(t, "hold", f.run("hold r1n01 off --reason x"), 0, "r1n01 held off until released\n",
		"node r1n01: DISK_ERASING is never \\x1b[2Jcut\n")
	expect(t, "hold -q", f.run("hold r1n01 off --reason x -q"), 0, "", "")
}

func TestHoldRefusesWhatMakesNoSense(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	for args, says := range map[string]string{
		"hold r1n01 off":                                        "--reason is missing",
		"hold r1n01 --reason x":                                 "on|off|hands-off is missing",
		"hold r1n01 asleep --reason x":                          "unknown want \"asleep\": want on, off or hands-off",
		"hold off r1n01 --reason x":                             "unknown want \"r1n01\"",
		"hold r1n01 off --reason x --for soon":                  "--for: \"soon\" is not a duration such as",
		"hold r1n01 off --reason x --for -1h":                   "--for: \"-1h\" is negative",
		"hold r1n01 off --reason x --for 0s":                    "--for: 0s is not longer than 0",
		"hold r1n77 off --reason x":                             "no such node: r1n77",
		"hold @state:off off --reason x":                        "no node matches \"@state:off\"",
		"hold r1n01 off --reason x --hold":                      "unknown flag --hold: it belongs to",
		"local hold r1n01 off":                                  "--reason is missing",
		"release":                                               "NODES is missing",
		"release r1n77":                                         "no such node: r1n77",
		"on r1n01 --hold-for 2h":                                "--hold-for says how long a hold lasts: say --hold too",
		"on r1n01 --hold --hold-for -2h":                        "\"-2h\" is negative",
		"diag r1n01 --hold":                                     "unknown flag --hold: it belongs to",
		"bmc-reset r1n01 --hold":                                "unknown flag --hold: it belongs to",
		"pause r1":                                              "--reason is missing",
		"pause --reason x":                                      "RACK is missing",
		"pause r1 r2 --reason x":                                "unexpected operand \"r2\"",
		"pause r1 --reason x --for -1h":                         "is negative",
		"pause r9 --reason x":                                   "no such rack: r9",
		"resume r9":                                             "no such rack: r9",
		"local pause r1 --reason x":                             "unknown command \"pause\"",
		"rack set r1":                                           "nothing to set: say --monitor, --brake-percent or --brake-above",
		"rack set r1 --brake-percent 101":                       "brake percent 101 is not between 1 and 100 (0: the default, 20)",
		"rack set r1 --brake-above -1":                          "brake above -1 is not between 1",
		"rack set r1 --brake-above few":                         "\"few\" is not a whole number",
		"rack show r9":                                          "no such rack: r9",
		"brake release":                                         "--reason is missing",
		"brake show r9":                                         "no such rack: r9",
		"brake release r9 --reason x":                           "no such rack: r9",
		"local brake release r1":                                "unexpected operand \"r1\": the command takes none",
		"domain set feedA":                                      "nothing to set: say --rate or --concurrent",
		"domain set feedA --rate -1":                            "a rate of -1 is not between 0 (no bound) and 10000",
		"domain set feedA --rate NaN":                           "a rate of NaN is not between",
		"domain set feedA --concurrent -1":                      "-1 nodes at once is not between 0 (no bound) and 100000",
		"domain rm feedZ":                                       "no such domain: feedZ",
		"schedule add n --cron @daily --want on":                "--nodes is missing",
		"schedule add n --cron @daily --want maybe --nodes all": "--want: unknown want \"maybe\": want on, off or hands-off, or release",
		"schedule add n --cron @daily --want release --for 1h --nodes x": "a schedule that releases sets none",
		"schedule add n --cron @daily --want on --nodes r1n77":           "--nodes: no such node: r1n77",
		"schedule add n --cron @daily --want on --nodes r1n[":            "--nodes: cannot read node range",
		"schedule add n --cron @daily --want on --nodes all --for -1h":   "is negative",
		"schedule show n":         "no such schedule: n",
		"schedule rm n":           "no such schedule: n",
		"schedule next n":         "no such schedule: n",
		"schedule next --count 0": "--count: 0 is not at least 1",
		"node retry":              "NODES is missing",
		"node retry r1n77":        "no such node: r1n77",
		"explain":                 "NODE is missing",
		"explain r1n01 r1n02":     "unexpected operand \"r1n02\"",
		"explain r1n[01-02]":      "explain takes one node, and this is 2: r1n[01-02]",
		"explain r1n77":           "no such node: r1n77",
		"watch r1n77":             "no such node: r1n77",
		"watch --limit -1":        "--limit: -1 is not at least 0",
		"watch --since yesterday": "is not a duration",
	} {
		got := f.run(args)
		expect(t, args, got, 2, "", says)
		if lines := strings.Count(got.errs, "\n"); lines > 2 {
			t.Errorf("%s: %d lines for one error:\n%s", args, lines, got.errs)
		}
	}
	for _, args := range [][]string{
		{"hold", "", "off", "--reason", "x"},
		{"release", ""},
		{"node", "retry", ""},
		{"explain", ""},
		{"watch", ""},
		{"schedule", "add", "n", "--cron", "@daily", "--want", "on", "--nodes", ""},
	} {
		if got := f.runContext(t.Context(), args); got.exit != 2 || !strings.Contains(got.errs, "NODES is empty") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	for _, args := range [][]string{
		{"hold", "r1n01", "off", "--reason", " "},
		{"pause", "r1", "--reason", ""},
		{"brake", "release", "--reason", ""},
	} {
		if got := f.runContext(t.Context(), args); got.exit != 2 || !strings.Contains(got.errs, "--reason is empty") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if len(f.holds)+len(f.pauses)+len(f.rackSets)+len(f.releases)+len(f.limits)+len(f.puts)+len(f.unputs)+len(f.retries)+len(f.asked) != 0 {
		t.Error("something was sent all the same")
	}
}

func TestReleaseAsksWhenTheStatusesWantManyOff(t *testing.T) {
	nobodyToAsk(t)
	nodes := hall(25, power.On)
	for i := range nodes {
		nodes[i].Hold, nodes[i].Desired = &api.Hold{Want: power.WantOn, By: "bob"}, power.WantOn
	}
	f := newFake(t, nodes...)
	expect(t, "many", f.run("release all"), 2, "", "25 nodes will lose power, all of r1: r1n[01-25]; nothing was done")
	expect(t, "--yes", f.run("release all --yes --reason done"), 0, "r1n[01-25] released\n", "")
	if len(f.holds) != 1 || f.holds[0].Want != "" || !f.holds[0].Confirmed || f.holds[0].Reason != "done" {
		t.Errorf("%+v", f.holds)
	}
	for i := range nodes {
		f.nodes[i].Hold, f.nodes[i].AgentState = nil, hoursAway()
	}
	expect(t, "held by nobody", f.run("local release all").timeless(), 0, "r1n[01-25] released\n",
		"agent r1 is away since TIME (last seen 2 h ago): it learns of this when it is back\n")
}

func TestHoldTogetherWithARequest(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	f.becomes = ends(1, power.Succeeded)
	expect(t, "off", f.run("off r1n[01-02] --hold --reason x"), 0, "r1n[01-02] off, held off until released\n", "")
	expectExactly(t, "cycle", f.run("local cycle r1n01 --hold --hold-for 2h"), 0, "r1n01 on, held on until TIME\n")
	r := f.requests()
	if len(r) != 3 || !r[0].Hold || r[0].HoldFor != 0 || !r[2].Hold || r[2].HoldFor != 2*time.Hour {
		t.Fatalf("%+v", r)
	}
	expect(t, "json", f.run("off r1n01 --hold -o jsonl"), 0, `"hold":"off"`, "")
	if got := f.run("off r1n01 -o jsonl"); strings.Contains(got.out, "hold") {
		t.Errorf("%s", got.out)
	}
	f.becomes = func(op *api.Op, _ int) { op.Message, op.Phase = "nothing outstanding; off starts", "dry-run" }
	expect(t, "dry run", f.run("local off r1n01 --hold --dry-run"), 0,
		"r1n01 would off: nothing outstanding; off starts; held off until released\n", "")
	f.becomes = ends(1, power.Refused, func(op *api.Op) { op.Detail = "busy" })
	expect(t, "refused", f.run("off r1n01 --hold"), 5, "r1n01 refused: busy\n", "refused")
}

func TestBrake(t *testing.T) {
	nobodyToAsk(t)
	f := newFake(t, hall(40, power.On)...)
	f.racks = []api.Rack{{Name: "r1"}, {Name: "r2"}}
	expect(t, "none", f.run("brake show"), 0, "no brake holds\n", "")
	expect(t, "none", f.run("brake show -o json"), 0, "[]\n", "")
	expect(t, "none", f.run("brake release --reason x"), 0, "no brake holds: there is nothing to release\n", "")
	f.brakes = []api.RackBrake{{Rack: "r1", Brake: *cutBrake(time.Now())}}
	want := `rack:          r1
message:       30 of 40 nodes would be powered off at once
kind:          cut: so many would lose power at once
since:         TIME
nodes:         r1n[01-30] (30 of 40)
to let it:     `
	expectExactly(t, "show", f.run("brake show"), 0, want+"rackpower brake release r1 --reason TEXT\n")
	expectExactly(t, "show", f.run("local brake show"), 0, want+"rackpower local brake release\n")
	expect(t, "other rack", f.run("brake show r2"), 0, "no brake holds\n", "")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(f.run("brake show -o json").out), &rows); err != nil || rows[0]["rack"] != "r1" ||
		rows[0]["kind"] != "cut" {
		t.Errorf("%v %v", err, rows)
	}
	expect(t, "many", f.run("brake release r1 --reason x"), 2, "", "30 nodes will lose power: r1n[01-30]; nothing was done: say --yes")
	expect(t, "many", f.run("local brake release"), 2, "", "30 nodes will lose power: r1n[01-30]; nothing was done: say --yes")
	expect(t, "--yes", f.run("brake release --reason x --yes"), 0, "rack r1: released; the monitor corrects r1n[01-30]\n", "")
	expect(t, "local", f.run("local brake release --yes"), 0, "rack r1: released; the monitor corrects r1n[01-30]\n", "")
	if r := f.releases; len(r) != 2 || len(r[0].Racks) != 1 || r[0].Racks[0] != "r1" || r[0].Reason != "x" || len(r[1].Racks) != 0 ||
		r[1].AskedBy != "tester" {
		t.Errorf("%+v", r)
	}
	f.brakes[0].Kind = "drift"
	for i := range f.nodes {
		f.nodes[i].Desired = power.WantOn
	}
	expect(t, "drift", f.run("brake release r1 --reason x"), 0, "rack r1: released", "") // all of them are turned on
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

func TestPauseAndResume(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	f.racks = []api.Rack{{Name: "r1", AgentState: hoursAway()}}
	got := f.run("pause r1 --for 2h --reason cables").timeless()
	expect(t, "pause", got, 0, "rack r1: the monitor rests until TIME; requests are carried out as ever\n",
		"its agent is away since TIME (last seen 2 h ago): it learns of it when it is back\n")
	expect(t, "resume", f.run("resume r1 -q"), 0, "", "")
	expect(t, "resume", f.run("resume r1 -o name"), 0, "r1\n", "")
	p := f.pauses
	if len(p) != 3 || p[0].For != 2*time.Hour || p[0].Reason != "cables" || p[0].Resume || !p[1].Resume || p[1].AskedBy != "tester" {
		t.Errorf("%+v", p)
	}
	expect(t, "resume", f.run("resume r1"), 0, "rack r1: the monitor does not rest\n", "its agent is away")
	f.racks[0].AgentState = hoursFailed()
	expect(t, "failed", f.run("resume r1"), 0, "the monitor does not rest\n",
		"its agent failed 2 h ago, as gossip says: it learns of it when it is back\n")
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

func TestDomains(t *testing.T) {
	f := newFake(t)
	expect(t, "none", f.run("domain list"), 0, "no node is in a power domain", "")
	f.domains = []api.Domain{
		{
			DomainState: api.DomainState{DomainLimit: api.DomainLimit{Name: "feedA", Rate: 10, Concurrent: 50}, InFlight: 3, Waiting: 7},
			Default:     true, Nodes: 40, Agents: 2,
		},
		{DomainState: api.DomainState{DomainLimit: api.DomainLimit{Name: "feedB", Rate: 0.5}}, Nodes: 8, Agents: 1},
	}
	expectExactly(t, "list", f.run("domain list"), 0, `DOMAIN  RATE   CONCURRENT  NODES  AGENTS  ON THE WAY  WAITING  LIMITS
feedA   10/s   50          40     2       3           7        default
feedB   0.5/s  no bound    8      1       0           0
`)
	expect(t, "set", f.run("domain set feedB --rate 5"), 0, "domain feedB: 5 a second, any number at once\n", "")
	expect(t, "set", f.run("domain set feedC --concurrent 20"), 0, "domain feedC: 10 a second, 20 at once\n",
		"no node is in a domain feedC yet\n")
	expect(t, "rm", f.run("domain rm feedB --reason x"), 0, "domain feedB: ", "")
	l := f.limits
	if len(l) != 3 || l[0].Rate != 5 || l[0].Concurrent != 0 || l[1].Rate != power.DefaultDomainRate || !l[2].Remove || l[2].Name != "feedB" {
		t.Errorf("%+v", l)
	}
}

func TestScheduleAdd(t *testing.T) {
	nobodyToAsk(t)
	f := newFake(t, hall(25, power.Off)...)
	add := func(args ...string) ran {
		return f.runContext(t.Context(), append([]string{"schedule", "add", "night", "--cron", "0 20 * * 1-5"}, args...)).timeless()
	}
	got := add("--nodes", "@r1,!r1n[05-25]", "--want", "off", "--for", "11h", "--reason", "idle")
	expect(t, "add", got, 0, "schedule night set: off for 11h r1n[01-04] (4 nodes as things stand), next TIME\n", "")
	p := f.puts[0]
	if p.Name != "night" || p.Cron != "0 20 * * 1-5" || p.Nodes != "@r1,!r1n[05-25]" || p.Want != power.WantOff || p.For != 11*time.Hour ||
		p.Reason != "idle" || p.By != "tester" || p.Confirmed {
		t.Errorf("%+v", p)
	}
	// The nodes are off now; at eight in the evening they may not be.
	many := "25 nodes will lose power in each run, if they are on then, all of r1: r1n[01-25]; nothing was done: say --yes"
	expect(t, "many", add("--nodes", "all", "--want", "off"), 2, "", many)
	expect(t, "many", add("--nodes", "all", "--want", "release"), 2, "", many)
	expect(t, "dry run", add("--nodes", "all", "--want", "off", "--dry-run", "--update"), 0, "schedule night would be set: off r1n[01-25]", "")
	expect(t, "on", add("--nodes", "all", "--want", "ON"), 0, "schedule night set: on r1n[01-25]", "")
	expect(t, "--yes", add("--nodes", "all", "--want", "release", "--yes"), 0, "schedule night set: release r1n[01-25]", "")
	expect(t, "nothing now", add("--nodes", "@status:DEPLOYED", "--want", "off"), 0, "off no node as things stand",
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
confirmed:     no: the fleet brake watches over each run
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

func TestRetry(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	expect(t, "retry", f.run("node retry r1n[01-02] --reason switch"), 0, "r1n[01-02] tried again from now on\n", "")
	expect(t, "local", f.run("local retry r1n03"), 0, "r1n03 tried again from now on\n", "")
	if r := f.retries; len(r) != 2 || len(r[0].Names) != 2 || r[0].Reason != "switch" || r[1].Names[0] != "r1n03" {
		t.Errorf("%+v", r)
	}
}

func TestStatusShowsWhatTheMonitorDoes(t *testing.T) {
	f := newFake(t, hall(6, power.On)...)
	now := time.Now()
	n := f.nodes
	n[0].Pending = true
	n[0].Waits, n[0].WaitsUntil = power.ReasonDebounce, now.Add(21*time.Second)
	n[1].Hold = &api.Hold{Want: power.WantOff, By: "bob"}
	n[2].Drift, n[2].Fault, n[2].FaultSince = true, "3 corrections failed", now.Add(-33*time.Minute)
	n[3].Drift, n[3].Waits = true, power.ReasonPaused
	n[4].Hold, n[4].Desired = &api.Hold{Want: power.WantOn, By: "eve", Schedule: "night"}, power.WantOn
	n[5].Pending = true
	want := regexp.MustCompile(`NODE   STATE  AGE  STATUS  DESIRED              DRIFT
r1n01  on     5 s  READY   off                  pending: debounce, 2[01] s
r1n02  on     5 s  READY   off \(held by bob\)
r1n03  on     5 s  READY   off                  fault: 3 corrections failed, 33 min
r1n04  on     5 s  READY   off                  drift: paused
r1n05  on     5 s  READY   on \(schedule night\)
r1n06  on     5 s  READY   off                  pending
`)
	if got := f.run("status"); got.exit != 0 || got.errs != "" || !want.MatchString(got.out) {
		t.Errorf("status %d %s\n%s", got.exit, got.errs, got.out)
	}
	paused := api.RackSettings{Pause: nightmare(now).Rack.Pause}
	f.racks = []api.Rack{
		{Name: "r1", State: nightmare(now).Rack, Settings: paused},
		{Name: "r2", State: nightmare(now).Rack, Settings: paused},
	}
	note := "rack r1: the brake holds 30 nodes (cut) since TIME: rackpower brake show\nrack r1: the monitor is paused by carol since TIME, " +
		"until TIME: moving cables\n"
	if got := f.run("status").timeless(); got.errs != note {
		t.Errorf("%s", got.errs)
	}
	f.racks = []api.Rack{
		{Name: "r1", Agent: "r1", AgentState: hoursFailed()},
		{Name: "r2", Agent: "r2", AgentState: hoursAway()},
	}
	expect(t, "agent away", f.run("status"), 0, "r1n01",
		"rack r1: agent r1 failed 2 h ago, as gossip says: its nodes are shown as they were last read\n")
	for _, quiet := range []string{"status -o json", "status -q"} {
		if got := f.run(quiet); got.errs != "" {
			t.Errorf("%s: %s", quiet, got.errs)
		}
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(f.run("status -o json").out), &rows); err != nil || rows[0]["waits"] != "debounce" ||
		rows[0]["pending"] != true || rows[2]["fault_since"] == nil || rows[1]["waits"] != nil {
		t.Errorf("%v %v", err, rows)
	}
	got := f.run("node show r1n02 r1n03").timeless()
	for _, line := range []string{
		"hold:          off, by bob at an unknown time, until released\n",
		"fault:         3 corrections failed, 33 min\n",
	} {
		if !strings.Contains(got.out, line) {
			t.Errorf("no %q in\n%s", line, got.out)
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

func TestExplain(t *testing.T) {
	f := newFake(t, hall(8, power.Off)...)
	f.explained = nightmare(time.Now())
	expectExactly(t, "explain", f.run("explain r1n07"), 0, `r1n07 is off and should be on (hold of bob): nothing is done, because the fleet brake holds 30 of 40 nodes.

node          r1n07, agent r1 alive, status READY
power         off, read TIME; now auth-failed, tried TIME
desired       on, from hold of bob
hold          on, by bob since TIME, until TIME: burn-in
monitor       waits: brake: 30 of 40 nodes would be powered off at once
fault         3 corrections failed, the last: BMC refused the password, since TIME, 2 faults so far
brake         holds 30 of 40 nodes (cut) since TIME: r1n[01-30]
pause         by carol since TIME, until TIME: moving cables
power domain  feedA: 10 a second, 50 at once, 3 on the way, 7 waiting
BMC           ipmi://admin@10.0.1.7, left alone: its password was refused twice, 2 attempts without an answer, 2 logins refused
              RAKP 2: unauthorized name
next reading  none before somebody sees to its BMC

operations
  TIME  on   by alice    running: waiting for power domain feedA: 3 ahead, about 2 s
  TIME  off  by bob      succeeded (already)
  TIME  on   by monitor  failed: BMC refused the password (drift)

readings, the newest first
  off, auth-failed  TIME                       RAKP 2: unauthorized name
  off, ok           TIME (19 times in 19 min)
  on, ok            TIME (148 times in 2 h)

decisions of the monitor, the newest first
  nothing  brake  TIME (20 times in 19 min)  30 of 40 nodes would be powered off at once: nothing is corrected
  on       drift  TIME                       off, wanted on: power-on asked for

what to do
  - the BMC refuses its user or password, and is left alone so that it does not lock the account: correct them here or at the BMC, then have it tried again
      rackpower node add r1n07 --rack r1 --password-file FILE --update
      rackpower node retry r1n07
  - the fleet brake holds 30 nodes: undo the change that led to it, or, if all of it is meant, release it
      rackpower brake show
      rackpower brake release r1 --reason TEXT
  - the monitor rests because carol said so; to have it go on:
      rackpower resume r1
  - corrections failed again and again, the last as said above; once that is mended, have it tried at once
      rackpower node retry r1n07
  - the hold overrides the status; to end it:
      rackpower release r1n07
`)
	var rows []api.Explanation
	if err := json.Unmarshal([]byte(f.run("explain r1n07 -o json").out), &rows); err != nil || len(rows) != 1 ||
		rows[0].Monitor.Waits != power.ReasonBrake {
		t.Errorf("%v %+v", err, rows)
	}
	local := f.run("local explain r1n07").out
	for _, command := range []string{"rackpower local retry r1n07\n", "rackpower local brake release\n", "rackpower local release r1n07\n"} {
		if !strings.Contains(local, command) {
			t.Errorf("no %q in\n%s", command, local)
		}
	}
}

// TestExplainIsCalmWhenNothingIsWrong also lets text from outside reach the page.
func TestExplainIsCalmWhenNothingIsWrong(t *testing.T) {
	f := newFake(t, hall(1, power.Off)...)
	f.explained = api.Explanation{
		Agent: "r1", Status: power.StatusReady, Desired: power.StatusReady.Desired(), DesiredFrom: "status READY", Reading: power.Seen(power.Off,
			time.Now().Add(-5*time.Second)),
		Message: "r1n01 is off, as status READY wants it\x1b[2J.", Monitor: api.NodeMonitor{Matched: true},
		BMC: &api.BMCState{Address: "ipmi://admin@10.0.1.1"}, Rack: api.RackState{Monitor: "@every 60s"},
	}
	expectExactly(t, "explain", f.run("explain r1n01"), 0, `r1n01 is off, as status READY wants it\x1b[2J.

node          r1n01, agent r1 alive, status READY
power         off, read TIME
desired       off, from status READY
BMC           ipmi://admin@10.0.1.1, answers
readings      @every 60s
`)
}

func TestExplainSaysWhatIsMissingOfAnAgentThatIsAway(t *testing.T) {
	f := newFake(t, hall(1, power.Unknown)...)
	f.explained = api.Explanation{
		Agent: "r1", Away: "agent r1 is away: it never said hello", Desired: power.StatusNone.Desired(), DesiredFrom: "no status",
		Reading: power.Reading{Reach: power.ReachNever}, Message: "r1n01 was never read; agent r1 is away: it never said hello.",
	}
	got := f.run("explain r1n01")
	for _, line := range []string{
		"\nmissing       what only its agent knows: agent r1 is away: it never said hello\n",
		"\npower         unknown, never read\n",
	} {
		expect(t, "explain", got, 0, line, "")
	}
}

func TestPagesAreAsWideAsTheirTerminal(t *testing.T) {
	s := &session{printer: printer{wallClock: wallClock{now: time.Now, zone: time.UTC}}}
	for _, width := range []int{66, 80, 120} {
		p := &page{printer: s.printer, width: width}
		p.explain(s, nightmare(time.Now()), api.Node{Name: "r1n07", Rack: "r1"})
		for line := range strings.Lines(p.text.String()) {
			if command := strings.HasPrefix(line, "      rackpower "); len(line) > width+1 && !command {
				t.Errorf("wider than %d: %s", width, line)
			}
		}
	}
}

// TestHintsFitWhatIsInTheWay: each obstacle has its command.
func TestHintsFitWhatIsInTheWay(t *testing.T) {
	for what, c := range map[string]struct {
		e    api.Explanation
		want string
	}{
		"nothing":   {api.Explanation{Status: power.StatusReady}, ""},
		"no status": {api.Explanation{}, "rackpower node set-status n1 STATUS"},
		"away":      {api.Explanation{Status: power.StatusReady, Agent: "r1", Away: "agent r1 is away"}, "rackpower local explain n1"},
		"no BMC": {
			api.Explanation{Status: power.StatusReady, Reading: power.Reading{Reach: power.ReachUnconfigured}},
			"rackpower node add n1 --rack r1 --bmc ipmi://USER@HOST --password-file FILE --update",
		},
		"mute": {
			api.Explanation{Status: power.StatusReady, Reading: power.Reading{Reach: power.ReachUnreachable}},
			"rackpower node retry n1",
		},
		"left alone": {api.Explanation{Status: power.StatusReady, BMC: &api.BMCState{BreakerOpen: "mute"}}, "rackpower node retry n1"},
		"credentials": {
			api.Explanation{Status: power.StatusReady, BMC: &api.BMCState{BreakerOpen: "refused", AuthFailures: 2}},
			"rackpower node add n1 --rack r1 --password-file FILE --update|rackpower node retry n1",
		},
		"no monitor": {
			api.Explanation{Status: power.StatusReady, Rack: api.RackState{Monitor: "off"}},
			"rackpower rack set r1 --monitor '@every 60s'",
		},
		"flagged": {api.Explanation{
			Status: power.StatusDeployed, Desired: power.StatusDeployed.Desired(),
			Reading: power.Reading{State: power.Off},
		}, "rackpower on n1"},
		"as expected": {api.Explanation{
			Status: power.StatusDeployed, Desired: power.StatusDeployed.Desired(),
			Reading: power.Reading{State: power.On},
		}, ""},
		"hold fits": {api.Explanation{Status: power.StatusReady, Hold: &api.Hold{Want: power.WantOff}}, ""},
		"pause is over": {api.Explanation{
			Status: power.StatusReady,
			Rack:   api.RackState{Pause: &api.Pause{By: "bob", Until: time.Now().Add(-time.Second)}},
		}, ""},
	} {
		c.e.Node = "n1"
		s := &session{door: atCentral, printer: printer{wallClock: wallClock{now: time.Now, zone: time.UTC}}}
		var run []string
		for _, h := range s.hints(c.e, api.Node{Rack: "r1"}) {
			run = append(run, h.run...)
		}
		if got := strings.Join(run, "|"); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// TestHintsTellSilenceFromRefusal: who is sent to look for a cable, for a password, for
// rights and for the holders of sessions.
func TestHintsTellSilenceFromRefusal(t *testing.T) {
	for reach, want := range map[power.Reach]string{
		power.ReachUnreachable: "cable", power.ReachAuthFailed: "user or password", power.ReachPrivilege: "too little right",
		power.ReachBusy: "who holds its sessions",
	} {
		for _, refused := range []int{0, 2} {
			if refused > 0 && (reach == power.ReachUnreachable || reach == power.ReachBusy) {
				continue // what was refused comes first
			}
			e := api.Explanation{
				Node: "n1", Status: power.StatusReady, Reading: power.Reading{Reach: reach},
				BMC: &api.BMCState{BreakerOpen: "so", AuthFailures: refused},
			}
			s := &session{door: atCentral, printer: printer{wallClock: wallClock{now: time.Now, zone: time.UTC}}}
			hints := s.hints(e, api.Node{Rack: "r1"})
			if len(hints) != 1 || !strings.Contains(hints[0].says, want) {
				t.Errorf("%s, %d refused: %+v, want one that says %q", reach, refused, hints, want)
			}
		}
	}
}

// happen adds to the trail.
func (f *fake) happen(entries ...api.AuditEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		e.ID = int64(len(f.trail) + 1)
		f.trail = append(f.trail, e)
	}
}

// watching runs a watch. Something happens once it waits for news, and it is
// interrupted when all of that has been shown.
func (f *fake) watching(t *testing.T, args string, meanwhile func()) ran {
	t.Helper()
	old := watchAgain
	watchAgain = 10 * time.Millisecond
	defer func() { watchAgain = old }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var polls atomic.Int32
	f.polled = func(all bool) {
		if polls.Add(1) == 1 {
			meanwhile()
		} else if all {
			cancel()
		}
	}
	return f.runContext(ctx, strings.Fields(args)).timeless()
}

func TestWatchShowsEventsAsTheyHappen(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	now := time.Now()
	f.happen(api.AuditEntry{At: now.Add(-2 * time.Hour), Who: "bob", What: "asked", Node: "r1n01"},
		api.AuditEntry{At: now.Add(-time.Minute), Who: "bob", What: "hold", Node: "r1n01", Why: "DIMM"})
	fault := func() {
		f.happen(api.AuditEntry{At: now, Who: "monitor", What: "fault", Node: "r1n01", Detail: "3 corrections failed\x1b[2J"},
			api.AuditEntry{At: now, Who: "agent r1", What: "brake", Detail: "rack r1"})
	}
	expectExactly(t, "watch", f.watching(t, "watch", fault), 0, `TIME  r1n01   fault      monitor   3 corrections failed\x1b[2J
TIME  -       brake      agent r1  rack r1
`)
	got := f.watching(t, "watch --since 1h -o json", fault)
	if lines := strings.Split(strings.TrimSpace(got.out), "\n"); got.exit != 0 || len(lines) != 5 ||
		!strings.Contains(lines[0], `"what":"hold"`) || !strings.Contains(lines[4], `"id":6`) {
		t.Errorf("%+v", got)
	}
	if got := f.watching(t, "watch --limit 2 -o name", func() {}); got.out != "5\n6\n" || got.exit != 0 || got.errs != "" {
		t.Errorf("%+v", got)
	}
}

func TestWatchTellsOfManyNodesInOneLine(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	entry := func(node, what string) api.AuditEntry {
		return api.AuditEntry{At: at, Who: "bob", What: what, Node: node, Op: node}
	}
	later := entry("n1", "asked")
	later.At = at.Add(time.Second)
	var got []string
	for _, ev := range together([]api.AuditEntry{
		entry("n1", "asked"), entry("n2", "asked"), entry("n1", "ended"), entry("n1", "asked"), entry("", "brake"), entry("",
			"brake"), entry("n3", "asked"), entry("n2", "ended"), later,
	}) {
		got = append(got, strings.Join(ev.nodes, ",")+" "+ev.What)
	}
	if want := "n1,n2,n3 asked|n1,n2 ended|n1 asked| brake| brake|n1 asked"; strings.Join(got, "|") != want {
		t.Errorf("%q", got)
	}
}

func TestWatchGoesOnWhenCentralIsBack(t *testing.T) {
	f := newFake(t)
	f.happen(api.AuditEntry{What: "asked"})
	f.away = 3
	got := f.watching(t, "watch", func() { f.happen(api.AuditEntry{At: time.Now(), Who: "bob", What: "hold", Node: "r1n01"}) })
	if got.exit != 0 || got.out != "TIME  r1n01   hold       bob\n" || got.errs != "central is stopping; trying again\ncentral is back\n" {
		t.Errorf("%+v", got)
	}
	if got := f.run("watch --central unix:///nonexistent/c.sock"); got.exit != 3 {
		t.Errorf("never there: %+v", got)
	}
}
