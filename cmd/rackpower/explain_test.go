package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/power"
)

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
next reading  none until its BMC is corrected

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
  - the BMC refuses the log-in, and is left alone so that it does not lock the account: correct user or password here or at the BMC, then retry
      rackpower node add r1n07 --rack r1 --password-file FILE --update
      rackpower node retry r1n07
  - the fleet brake holds 30 nodes: undo the change that led to it, or release it if all of it is meant
      rackpower brake show
      rackpower brake release r1 --reason TEXT
  - carol paused the monitor: resume it
      rackpower resume r1
  - corrections failed repeatedly: mend the cause above, then retry
      rackpower node retry r1n07
  - the hold overrides the status: release it to end it
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
	now := printer.Printer{Clock: printer.Clock{Now: time.Now, Zone: time.UTC}}
	for _, width := range []int{66, 80, 120} {
		p := &nodePage{view: view{now}, Page: printer.NewPage(now, width)}
		p.explain(nightmare(time.Now()), api.Node{Name: "r1n07", Rack: "r1"})
		for line := range strings.Lines(p.String()) {
			if command := strings.HasPrefix(line, "      rackpower "); len(line) > width+1 && !command {
				t.Errorf("wider than %d: %s", width, line)
			}
		}
	}
}
