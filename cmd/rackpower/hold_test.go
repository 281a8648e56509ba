package main

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

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
		"25 nodes will lose power, all of r1: r1n[01-25]; nothing was done: confirm with --yes")
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
		"hold r1n01 off --reason x --for soon":                  "--for: \"soon\" is neither a duration such as",
		"hold r1n01 off --reason x --for -1h":                   "--for: \"-1h\" is negative",
		"hold r1n01 off --reason x --for 0s":                    "--for: 0s is not positive",
		"hold r1n77 off --reason x":                             "no such node: r1n77",
		"hold @state:off off --reason x":                        "no node matches \"@state:off\"",
		"hold r1n01 off --reason x --hold":                      "unknown flag --hold: it belongs to",
		"local hold r1n01 off":                                  "--reason is missing",
		"release":                                               "NODES is missing",
		"release r1n77":                                         "no such node: r1n77",
		"on r1n01 --hold-for 2h":                                "--hold-for needs --hold",
		"on r1n01 --hold --hold-for -2h":                        "\"-2h\" is negative",
		"diag r1n01 --hold":                                     "unknown flag --hold: it belongs to",
		"bmc-reset r1n01 --hold":                                "unknown flag --hold: it belongs to",
		"pause r1":                                              "--reason is missing",
		"pause --reason x":                                      "RACK|all is missing",
		"pause r1 r2 --reason x":                                "unexpected operand \"r2\"",
		"pause r1 --reason x --for -1h":                         "is negative",
		"pause r9 --reason x":                                   "no such rack: r9",
		"resume r9":                                             "no such rack: r9",
		"local pause r1 --reason x":                             "unknown command \"pause\"",
		"rack set r1":                                           "nothing to set: give --monitor, --brake-percent, --brake-above, --credentials or --agents",
		"rack set r1 --brake-percent 101":                       "brake percent 101 is not between 1 and 100 (0: the default, 20)",
		"rack set r1 --brake-above -1":                          "brake above -1 is not between 1",
		"rack set r1 --brake-above few":                         "\"few\" is not a whole number",
		"rack show r9":                                          "no such rack: r9",
		"brake release":                                         "--reason is missing",
		"brake show r9":                                         "no such rack: r9",
		"brake release r9 --reason x":                           "no such rack: r9",
		"local brake release r1":                                "unexpected operand \"r1\": the command takes none",
		"domain set feedA":                                      "nothing to set: give --rate or --concurrent",
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
		"hold r1n01 off --reason x --for 2020-01-02": "--for: 2020-01-02 00:00:00Z is over",
		"ops --since 1d2":         "--since: \"1d2\" is neither",
		"watch --limit -1":        "--limit: -1 is not at least 0",
		"watch --since yesterday": "is neither a duration such as",
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
