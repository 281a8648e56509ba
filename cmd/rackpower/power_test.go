package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
)

// expect holds a run against its status and the parts that stdout and stderr must
// hold. A part "" means that the stream is empty.
func expect(t *testing.T, what string, got ran, exit int, out, errs string) {
	t.Helper()
	ok := func(text, want string) bool {
		return want == "" && text == "" || want != "" && strings.Contains(text, want)
	}
	if got.exit != exit || !ok(got.out, out) || !ok(got.errs, errs) {
		t.Errorf("%s: status %d, want %d\nstdout %q\nwant   %q\nstderr %q\nwant   %q", what, got.exit, exit, got.out, out, got.errs, errs)
	}
}

func TestPowerCommandWaitsForTheOutcome(t *testing.T) {
	f := newFake(t, hall(4, power.Off)...)
	f.becomes = ends(3, power.Succeeded)
	expect(t, "on", f.run("on r1n[01-03]"), 0, "r1n[01-03] on\n", "")
	reqs := f.requests()
	if len(reqs) != 3 || reqs[0].Node != "r1n01" || reqs[0].Action != power.ActOn || reqs[0].AskedBy != "tester" || reqs[0].Confirmed {
		t.Fatalf("%+v", reqs)
	}
	if reqs[0].ID == reqs[1].ID || len(reqs[0].ID) != 36 || reqs[0].ID[14] != '7' {
		t.Errorf("ids %s, %s", reqs[0].ID, reqs[1].ID)
	}
	if q := f.queries[0]; len(q.IDs) != 3 || q.Limit < 3 {
		t.Errorf("a query may leave some out: %+v", q)
	}
	if reqs[0].Deadline != 0 {
		t.Errorf("the time to wait became a deadline: %s", reqs[0].Deadline)
	}
}

func TestPowerCommandSendsAllItsFlags(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	f.becomes = ends(0, power.Succeeded)
	f.run("cycle r1n01 --boot pxe --if-busy queue --deadline 90s --timeout 10s --reason because")
	f.run("soft-off r1n01 --grace 30s --no-escalate --yes")
	f.run("soft-off r1n02")
	r := f.requests()
	if len(r) != 3 {
		t.Fatalf("%+v", r)
	}
	if c := r[0]; c.Boot != power.BootPXE || c.IfBusy != power.Queue || c.Deadline != 90*time.Second || c.Reason != "because" {
		t.Errorf("%+v", c)
	}
	if s := r[1]; s.Grace != 30*time.Second || !s.NoEscalate || !s.Confirmed {
		t.Errorf("%+v", s)
	}
	if s := r[2]; s.Grace != power.DefaultGrace || s.NoEscalate || s.Confirmed {
		t.Errorf("%+v", s)
	}
}

func TestEqualResultsAreFoldedAndFailuresNamed(t *testing.T) {
	f := newFake(t, hall(5, power.Off)...)
	f.becomes = func(op *api.Op, look int) {
		switch op.Node {
		case "r1n03":
			ends(1, power.Failed, func(op *api.Op) { op.Detail = "BMC does not answer\x1b[31m" })(op, look)
		case "r1n04":
			ends(1, power.Succeeded, func(op *api.Op) { op.Already = true })(op, look)
		default:
			ends(2, power.Succeeded)(op, look)
		}
	}
	got := f.run("on @r1")
	want := "r1n[01-02,05] on\nr1n03 failed: BMC does not answer\\x1b[31m\nr1n04 on (already)\n"
	expect(t, "on @r1", got, 1, want, "rackpower on: 1 of 5 nodes failed: r1n03\n")
	if got.out != want {
		t.Errorf("%q", got.out)
	}
	got = f.run("on @r1 -q")
	expect(t, "quiet", got, 1, "", "r1n03 failed: BMC does not answer\\x1b[31m\n")
}

func TestEachOutcomeHasItsStatus(t *testing.T) {
	for _, c := range []struct {
		outcome power.Outcome
		exit    int
		out     string
	}{
		{power.Succeeded, 0, "r1n01 off\n"},
		{power.Failed, 1, "r1n01 failed: why\n"},
		{power.Superseded, 1, "r1n01 superseded by other: why\n"},
		{power.Cancelled, 1, "r1n01 cancelled: why\n"},
		{power.Expired, 1, "r1n01 expired: why\n"},
		{power.Indeterminate, 1, "r1n01 indeterminate: why\n"},
		{power.Refused, 5, "r1n01 refused: why\n"},
	} {
		f := newFake(t, hall(1, power.On)...)
		f.becomes = ends(1, c.outcome, func(op *api.Op) {
			op.Detail = "why"
			if c.outcome == power.Superseded {
				op.SupersededBy = "other"
			}
		})
		got := f.run("off r1n01")
		if got.exit != c.exit || got.out != c.out {
			t.Errorf("%s: status %d, %q", c.outcome, got.exit, got.out)
		}
	}
}

func TestWaitAcceptedAndNone(t *testing.T) {
	f := newFake(t, hall(1, power.Off)...)
	f.becomes = func(op *api.Op, look int) {
		if look == 2 {
			op.Phase, op.Verdict, op.Message = api.PhaseWaiting, power.VerdictFollow, "on (asked by bob, 4 s ago) in progress; cycle next"
		}
	}
	got := f.run("cycle r1n01 --wait accepted")
	expect(t, "accepted", got, 0, "r1n01: on (asked by bob, 4 s ago) in progress; cycle next\nr1n01 accepted, waiting\n", "")
	f = newFake(t, hall(1, power.Off)...)
	expect(t, "none", f.run("on r1n01 --wait none"), 0, "r1n01 taken\n", "")
	if len(f.queries) != 0 {
		t.Errorf("%d queries though nothing is waited for", len(f.queries))
	}
}

func TestTimeoutLeavesTheOperationGoing(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.becomes = func(op *api.Op, look int) {
		if op.Node == "r1n01" {
			ends(1, power.Succeeded)(op, look)
		} else {
			op.AgentNote = "agent r1 is away since 12:00"
		}
	}
	got := f.run("on r1n[01-02] --timeout 150ms")
	id := f.requests()[1].ID
	expect(t, "pending", got, 4, "r1n02 pending: taken\n", "1 of 2 nodes still pending, the operations go on: r1n02 (rackpower op show "+id+
		")")
	if !strings.Contains(got.out, "r1n02: agent r1 is away since 12:00\n") {
		t.Errorf("%q", got.out)
	}
	if len(f.cancels) != 0 {
		t.Error("the operation was cancelled")
	}
}

func TestInterruptLeavesTheOperationGoingAndSaysHowToEndIt(t *testing.T) {
	f := newFake(t, hall(1, power.Off)...)
	ctx, cancel := context.WithCancel(t.Context())
	f.becomes = func(_ *api.Op, look int) {
		if look == 2 {
			cancel()
		}
	}
	got := f.runContext(ctx, []string{"on", "r1n01"})
	expect(t, "interrupt", got, 4, "r1n01 pending: taken\n",
		"interrupted: the operations on r1n01 go on; rackpower ops r1n01 --outstanding shows them, rackpower op cancel ID ends one\n")
}

func TestLostAnswersAreAskedForAgainWithTheSameIDs(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.drop = 2
	f.becomes = ends(1, power.Succeeded)
	expect(t, "on", f.run("on all"), 0, "r1n[01-02] on\n", "")
	if len(f.asked) != 3 || len(f.ops) != 2 {
		t.Fatalf("%d requests became %d operations", len(f.asked), len(f.ops))
	}
	for i := range f.asked {
		if f.asked[i].Ops[1].ID != f.asked[0].Ops[1].ID {
			t.Error("the id changed")
		}
	}
}

// TestWhoAsksTooOftenWaits and says so; one who has waited for long is told that nothing was
// done.
func TestWhoAsksTooOftenWaits(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.full = 2
	f.becomes = ends(1, power.Succeeded)
	expect(t, "on", f.run("on all"), 0, "r1n[01-02] on\n", "too many requests of alice: ask again later; trying again in 1s\n")
	if len(f.asked) != 1 || len(f.ops) != 2 {
		t.Errorf("%d requests became %d operations", len(f.asked), len(f.ops))
	}
	before := patience
	patience.TooMany = 0
	defer func() { patience = before }()
	f.full = 1000
	expect(t, "on", f.run("on all"), 5, "", "too many requests of alice: ask again later\n")
}

func TestWhoIsLostWhileWaitingIsAskedAtTheSameDoor(t *testing.T) {
	for args, want := range map[string]string{
		"on r1n01 --timeout 300ms":       "\nthe operations on r1n01 go on; rackpower ops --outstanding shows them\n",
		"local on r1n01 --timeout 300ms": "\nthe operations on r1n01 go on; rackpower local ops --outstanding shows them\n",
	} {
		f := newFake(t, hall(1, power.Off)...)
		f.becomes = func(_ *api.Op, look int) {
			if look > 0 { // it was taken, and nobody answers what became of it
				f.mu.Unlock()
				panic(http.ErrAbortHandler)
			}
		}
		expect(t, args, f.run(args), 3, "r1n01 pending: taken\n", want)
	}
}

func TestInterruptWhileAskingSaysThatItMayHaveBeenTaken(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.drop = 1000
	ctx, cancel := context.WithCancelCause(t.Context())
	signal := errors.New("interrupt signal received") // as signal.NotifyContext says it
	f.becomes = func(*api.Op, int) { time.AfterFunc(50*time.Millisecond, func() { cancel(signal) }) }
	got := f.runContext(ctx, []string{"on", "all"})
	expect(t, "interrupt", got, 1, "", "interrupted\n"+
		"what was asked for may have been taken: rackpower ops r1n[01-02] --outstanding shows it\n")
}

func TestInterruptAtTheQuestionIsNoYes(t *testing.T) {
	old := asks
	asks = func(*cli.Context) bool { return true }
	defer func() { asks = old }()
	f := newFake(t, hall(21, power.On)...)
	f.t.Setenv("RACKPOWER_CENTRAL", f.url)
	in, silent := io.Pipe() // nobody types
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	errs := questioned{asked: cancel}
	app := newApp()
	app.Reader, app.Writer, app.ErrWriter = in, io.Discard, &errs
	if exit := settings.RunContext(ctx, app, []string{"rackpower", "off", "all"}); exit != 2 ||
		!strings.HasSuffix(errs.String(), "not confirmed; nothing was done\n") {
		t.Errorf("status %d, %q", exit, errs.String())
	}
	if len(f.asked) != 0 {
		t.Error("it was asked for")
	}
}

// questioned calls asked once the question stands there.
type questioned struct {
	bytes.Buffer
	asked func()
}

func (q *questioned) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("[y/N]")) {
		defer q.asked()
	}
	return q.Buffer.Write(p)
}

func TestPowerResultsForPrograms(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.becomes = func(op *api.Op, look int) {
		if op.Node == "r1n02" {
			op.Joined, op.Verdict = "other", power.VerdictJoin
		}
		ends(1, power.Succeeded)(op, look)
	}
	got := f.run("on all -o json")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(got.out), &rows); err != nil || got.exit != 0 || got.errs != "" || len(rows) != 2 {
		t.Fatalf("%v: %+v", err, got)
	}
	for _, field := range []string{"node", "id", "verdict", "outcome", "state", "detail", "waited_ms"} {
		if _, ok := rows[0][field]; !ok {
			t.Errorf("no field %s in %v", field, rows[0])
		}
	}
	if rows[1]["id"] != "other" || rows[1]["verdict"] != "join" || rows[0]["outcome"] != "succeeded" || rows[0]["state"] != "on" {
		t.Errorf("%v", rows)
	}
	if got := f.run("on all -o jsonl"); strings.Count(got.out, "\n") != 2 || !json.Valid([]byte(strings.Split(got.out, "\n")[0])) {
		t.Errorf("%q", got.out)
	}
	expect(t, "name", f.run("on all -o name"), 0, "r1n01\nr1n02\n", "")
	expect(t, "yaml", f.run("on r1n01 -o yaml"), 0, "- node: r1n01\n  id: ", "")
}

func TestManyNodesLosePowerOnlyWhenConfirmed(t *testing.T) {
	answering := func(yes bool) {
		old := asks
		asks = func(*cli.Context) bool { return yes }
		t.Cleanup(func() { asks = old })
	}
	answering(false)
	f := newFake(t, append(hall(21, power.On), api.Node{Name: "r1n99", Rack: "r1", State: power.Off})...)
	f.becomes = ends(1, power.Succeeded)
	for verb, what := range map[string]string{
		"off": "21 nodes will lose power, all of r1: r1n[01-21]", "soft-off": "21 nodes will lose power, all of r1: r1n[01-21]",
		"cycle": "21 nodes will lose power, all of r1: r1n[01-21]", "reset": "21 nodes will be reset, all of r1: r1n[01-21]",
		"diag":      "21 nodes will get an NMI, which stops most systems, all of r1: r1n[01-21]",
		"bmc-reset": "22 BMCs will restart, all of r1: r1n[01-21,99]",
	} {
		for _, who := range []string{"", "local "} {
			expect(t, who+verb, f.run(who+verb+" all"), 2, "", what+"; nothing was done: confirm with --yes")
		}
	}
	expect(t, "on", f.run("on all"), 0, "r1n[01-21,99] on\n", "")
	expect(t, "20 nodes", f.run("off r1n[01-20] --confirm-share 100"), 0, "r1n[01-20] off\n", "")
	f.asked = nil
	expect(t, "--yes", f.run("off all --yes"), 0, "r1n[01-21,99] off\n", "")
	if r := f.requests(); len(r) != 22 || !r[0].Confirmed {
		t.Errorf("%d requests, confirmed %v", len(r), r[0].Confirmed)
	}
	answering(true)
	f.asked = nil
	question := "21 nodes will lose power, all of r1: r1n[01-21]. Continue? [y/N] "
	for _, word := range []string{"", "n", "yeah"} {
		expect(t, word, f.run("off all", word), 2, "", question+"\nrackpower off: not confirmed; nothing was done\n")
	}
	if len(f.asked) != 0 {
		t.Fatal("asked all the same")
	}
	expect(t, "y", f.run("off all", "y"), 0, "r1n[01-21,99] off\n", question)
	if r := f.requests(); len(r) != 22 || !r[0].Confirmed {
		t.Errorf("%d requests", len(r))
	}
	// What is unknown may be on.
	f = newFake(t, hall(21, power.Unknown)...)
	answering(false)
	expect(t, "unknown", f.run("off all"), 2, "", "21 nodes will lose power")
	// So may what was off long ago, and what is being turned on will be.
	f = newFake(t, hall(22, power.Off)...)
	for i := range 21 {
		if i%2 == 0 {
			f.nodes[i].Stale = true
		} else {
			f.nodes[i].Op = &api.OpBrief{ID: "op", Action: power.ActCycle}
		}
	}
	for _, args := range []string{"off all", "node set-status all READY"} {
		expect(t, args, f.run(args), 2, "", "21 nodes will lose power, all of r1: r1n[01-21]")
	}
}

// TestWhatAsksFirst holds the bounds of the question against small fleets, at both servers.
func TestWhatAsksFirst(t *testing.T) {
	rack := func(name string, n int, state power.State) []api.Node {
		nodes := hall(n, state)
		for i := range nodes {
			nodes[i].Name, nodes[i].Rack = strings.Replace(nodes[i].Name, "r1", name, 1), name
		}
		return nodes
	}
	for _, c := range []struct {
		name  string
		fleet []api.Node
		args  string
		asks  string // "": does not ask
	}{
		{"one node", rack("r1", 20, power.On), "off r1n01", ""},
		{"a rack of one", append(rack("r1", 1, power.On), rack("r2", 9, power.On)...), "off r1n01", ""},
		{
			"a rack of two", append(rack("r1", 2, power.On), rack("r2", 9, power.On)...), "off @r1",
			"2 nodes will lose power, all of r1: r1n[01-02]",
		},
		{"a rack but for one", append(rack("r1", 4, power.On), rack("r2", 9, power.On)...), "off r1n[01-03]", ""},
		{
			"a rack of twenty", append(rack("r1", 20, power.On), rack("r2", 40, power.On)...), "cycle @r1",
			"20 nodes will lose power, all of r1: r1n[01-20]",
		},
		{
			"what is left of a rack", append(append(rack("r1", 3, power.On), rack("r1", 9, power.Off)[3:]...), rack("r2", 40, power.On)...),
			"off r1n[01-03]", "3 nodes will lose power, all of r1: r1n[01-03]",
		},
		{"what is off loses nothing", append(rack("r1", 3, power.Off), rack("r2", 40, power.On)...), "off @r1", ""},
		{
			"two racks", append(append(rack("r1", 2, power.On), rack("r2", 2, power.On)...), rack("r3", 9, power.On)...), "off @r1,@r2",
			"4 nodes will lose power, all of r[1-2]: r1n[01-02],r2n[01-02]",
		},
		{
			"a share", append(rack("r1", 10, power.On), rack("r2", 2, power.On)...), "off r1n[01-07]",
			"7 nodes will lose power, 58 % of all 12: r1n[01-07]",
		},
		{"a share of few", append(rack("r1", 5, power.On), rack("r2", 2, power.On)...), "off r1n[01-04]", ""},
		{
			"another share", append(rack("r1", 20, power.On), rack("r2", 40, power.On)...), "off r1n[01-07] --confirm-share 10",
			"7 nodes will lose power, 11 % of all 60: r1n[01-07]",
		},
		{"a share that is not reached", append(rack("r1", 20, power.On), rack("r2", 40, power.On)...), "off r1n[01-07]", ""},
		{"no share", append(rack("r1", 10, power.On), rack("r2", 2, power.On)...), "off r1n[01-07] --confirm-share 100", ""},
		{
			"an NMI for a rack", append(rack("r1", 4, power.On), rack("r2", 9, power.On)...), "diag @r1",
			"4 nodes will get an NMI, which stops most systems, all of r1",
		},
		{
			"BMCs of a rack that is off", append(rack("r1", 4, power.Off), rack("r2", 9, power.On)...), "bmc-reset @r1",
			"4 BMCs will restart, all of r1",
		},
		{"turning on", rack("r1", 40, power.Off), "on all", ""},
		{"a hold", append(rack("r1", 2, power.On), rack("r2", 9, power.On)...), "hold @r1 off --reason x", "2 nodes will lose power, all of r1"},
		{
			"a status", append(rack("r1", 2, power.On), rack("r2", 9, power.On)...), "node set-status @r1 READY",
			"2 nodes will lose power, all of r1",
		},
		{
			"a schedule", append(rack("r1", 2, power.On), rack("r2", 9, power.On)...), "schedule add x --cron @daily --nodes @r1 --want off",
			"2 nodes will lose power in each run, if they are on then, all of r1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, c.fleet...)
			f.becomes = ends(1, power.Succeeded)
			for _, rack := range []string{"r1", "r2", "r3"} {
				n := 0
				for _, node := range c.fleet {
					if node.Rack == rack {
						n++
					}
				}
				f.racks = append(f.racks, api.Rack{Name: rack, Nodes: n})
			}
			got := f.run(c.args)
			if c.asks == "" {
				if got.exit != 0 {
					t.Errorf("%s: %+v", c.args, got)
				}
				return
			}
			expect(t, c.args, got, 2, "", c.asks)
			if got := f.run(c.args + " --yes"); got.exit != 0 {
				t.Errorf("%s --yes: %+v", c.args, got)
			}
		})
	}
	f := newFake(t, rack("r1", 3, power.On)...)
	expect(t, "a share out of bounds", f.run("off r1n01 --confirm-share 101"), 2, "", "--confirm-share: 101 is not between 1 and 100")
}

func TestDryRunSaysWhatWouldHappen(t *testing.T) {
	f := newFake(t, hall(30, power.On)...)
	f.becomes = func(op *api.Op, _ int) { op.Message, op.Phase = "nothing outstanding; off starts", "dry-run" }
	expect(t, "dry run", f.run("off all --dry-run"), 0, "r1n[01-30] would off: nothing outstanding; off starts\n", "")
	if len(f.ops) != 0 || !f.asked[0].DryRun {
		t.Error("it was more than a dry run")
	}
	f.becomes = ends(0, power.Refused, func(op *api.Op) { op.Detail = "against the desired state" })
	expect(t, "refused", f.run("off r1n01 --dry-run"), 5, "against the desired state", "refused: r1n01")
}

func TestBadPowerRequestsAreRefusedBeforeAnythingIsAsked(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	for args, want := range map[string]string{
		"on":                              "NODES is missing",
		"on r1n99":                        "no such node: r1n99",
		"on r1n1":                         "no such node: r1n1 (did you mean r1n01?)",
		"on r1n[01-05]":                   "no such node: r1n[04-05]",
		"on r1n[01-":                      "cannot read node range \"r1n[01-\" at character 8: a number of at most 9 digits is missing",
		"on @nowhere":                     "no node matches",
		"on @state:off":                   "no node matches",
		"on @status:REDY":                 "unknown status \"REDY\"",
		"on r1n01 --if-busy sometimes":    "unknown if-busy \"sometimes\"",
		"on r1n01 --wait forever":         "--wait: unknown \"forever\"",
		"on r1n01 --boot floppy":          "unknown boot device \"floppy\"",
		"off r1n01 --boot pxe":            "--boot",
		"on r1n01 --grace 3m":             "unknown flag --grace: it belongs to local soft-off, plan soft-off, soft-off",
		"on r1n01 --timeout fast":         "--timeout: \"fast\" is not a duration",
		"on r1n01 --colour":               "unknown flag --colour",
		"on r1n01 -o xml":                 "-o: unknown format \"xml\"",
		"onn r1n01":                       "unknown command \"onn\" (did you mean on?)",
		"soft-off r1n01 --grace 99h":      "grace 99h0m0s is not between",
		"on r1n01 --central ftp://x":      "cannot read address \"ftp://x\"",
		"status r1n01 --central nonsense": "cannot read address \"nonsense\"",
	} {
		got := f.run(args)
		expect(t, args, got, 2, "", want)
		if lines := strings.Count(got.errs, "\n"); lines > 2 {
			t.Errorf("%s: %d lines for one error:\n%s", args, lines, got.errs)
		}
	}
	if got := f.runContext(t.Context(), []string{"off", ""}); got.exit != 2 || !strings.Contains(got.errs, "NODES is empty") {
		t.Errorf("an empty operand: %+v", got)
	}
	if len(f.asked) != 0 {
		t.Errorf("%d requests were sent", len(f.asked))
	}
}

func TestUnreachableNamesTheAddressAndAWayOut(t *testing.T) {
	f := newFake(t)
	for args, want := range map[string]string{
		"status --central unix:///nonexistent/c.sock": "central at unix:///nonexistent/c.sock: not reachable (connect: no such file or " +
			"directory); is rackpower-central running there? name another address with --central or RACKPOWER_CENTRAL; on a rack, rackpower local " +
			"asks its agent\n",
		"on x --central unix:///nonexistent/c.sock": "central at unix:///nonexistent/c.sock",
		"local status --socket /nonexistent/a.sock": "the agent at unix:///nonexistent/a.sock: not reachable",
		"peers --socket /nonexistent/a.sock":        "rackpower agent running there?",
	} {
		got := f.run(args)
		expect(t, args, got, 3, "", want)
		if strings.Count(got.errs, "\n") != 1 {
			t.Errorf("%s: %q", args, got.errs)
		}
	}
}

func TestProblemsHaveTheirStatus(t *testing.T) {
	for code, exit := range map[api.Code]int{
		api.CodeBadRequest: 2, api.CodeNotFound: 2, api.CodeBusy: 5, api.CodeRefused: 5, api.CodeInternal: 1,
	} {
		f := newFake(t, hall(1, power.On)...)
		f.problem = api.Problemf(code, "this is \x1b[2J wrong")
		expect(t, string(code), f.run("on r1n01"), exit, "", "rackpower on: this is \\x1b[2J wrong\n")
	}
}

func TestLocalAsksTheAgentInTheSameWay(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.becomes = ends(1, power.Succeeded)
	expect(t, "local on", f.run("local on all --central unix:///nonexistent/c.sock"), 2, "", "unknown flag --central")
	expect(t, "local on", f.run("local on all"), 0, "r1n[01-02] on\n", "")
}

func TestSocketMayBeginWhereOneStands(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("r1", 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join("r1", "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w, hall(1, power.On)) })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	f := newFake(t)
	for _, path := range []string{"r1/agent.sock", "./r1/agent.sock", "unix://r1/agent.sock", dir + "/r1/agent.sock", "unix://" + dir +
		"/r1/agent.sock"} {
		expect(t, path, f.run("local status -o name --socket "+path), 0, "r1n01\n", "")
	}
	expect(t, "central", f.run("status --central unix://r1/agent.sock"), 2, "", "want unix:///path")
	expect(t, "empty", f.run("local status --socket="), 2, "", "cannot read address")
}

func TestSocketsThatOneMayNotUseSaySo(t *testing.T) {
	old := access
	t.Cleanup(func() { access = old })
	access = func(string, uint32) error { return syscall.EACCES }
	f := newFake(t)
	expect(t, "not permitted", f.run("status --central unix:///nonexistent/c.sock"), 3, "",
		"you may not use that socket: its group (rackpower-admin) may")
}

// TestNoPasswordGoesToAPortThatAnybodyMayTake: neither those of a person nor the agent's.
func TestNoPasswordGoesToAPortThatAnybodyMayTake(t *testing.T) {
	f := newFake(t)
	expect(t, "a person", f.run("node add n1 --rack r1 --central HTTP://127.0.0.1:7620"), 2, "",
		"is not encrypted, and any program may take its port: use unix:///run/")
	expect(t, "the agent", f.run("agent --name r1 --data "+t.TempDir()+" --central http://localhost:7620"), 2, "", "use unix:///run/")
}

// TestNoNodeMatches: to look at nodes of which there are none is no failure; to act on
// none is, and so is a name or a rack that nobody knows.
func TestNoNodeMatches(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	looks := []string{"status @state:off", "ops @state:off", "node show @state:off", "local status @state:off", "local ops @state:off"}
	acts := []string{
		"on @state:off", "hold @state:off on --reason x", "release @state:off", "node set-status @state:off READY",
		"node rm @state:off --yes", "node retry @state:off", "local off @state:off",
	}
	for _, args := range looks {
		for format, want := range map[string]string{"table": "", "json": "[]\n", "jsonl": "", "yaml": "[]\n", "name": ""} {
			if got := f.run(args + " -o " + format); got.exit != 0 || got.out != want || got.errs != "no node matches \"@state:off\"\n" {
				t.Errorf("%s -o %s: %+v", args, format, got)
			}
		}
		if got := f.run(args + " -q"); got.exit != 0 || got.out+got.errs != "" {
			t.Errorf("%s -q: %+v", args, got)
		}
	}
	for _, args := range acts {
		if got := f.run(args); got.exit != 2 || !strings.Contains(got.errs, "no node matches") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	for _, args := range append(looks, acts...) {
		for _, wrong := range []string{"@r9", "r9n01"} {
			line := strings.ReplaceAll(args, "@state:off", wrong)
			if got := f.run(line); got.exit != 2 || got.out != "" {
				t.Errorf("%s: %+v", line, got)
			}
		}
	}
	if len(f.asked)+len(f.status)+len(f.holds)+len(f.removed)+len(f.retries) > 0 {
		t.Error("something was asked for")
	}
}
