package main

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// powerman is what the front end answers to one line, without greeting and prompts.
func (f *fake) powerman(line string, flags ...string) string {
	f.t.Helper()
	got := f.runContext(f.t.Context(), append([]string{"front", "powerman", "--stdin", "--central", f.url}, flags...), line, "")
	text, ok := strings.CutPrefix(got.out, "001 rackpower-"+version+"\r\npowerman> ")
	text, prompted := strings.CutSuffix(text, "powerman> ")
	if got.exit != 0 || got.errs != "" && !strings.Contains(got.errs, `"msg"`) || !ok || !prompted {
		f.t.Errorf("%s: status %d\n%s%s", line, got.exit, got.out, got.errs)
	}
	return strings.ReplaceAll(strings.TrimSuffix(text, "\r\n"), "\r\n", "|")
}

func TestDoorsAskAsTheCommandLine(t *testing.T) {
	f := newFake(t, hall(3, power.Off)...)
	f.becomes = ends(1, power.Succeeded)
	if got := f.powerman("on r1n[01-02]", "--deadline", "90s"); got != "102 Command completed successfully" {
		t.Error(got)
	}
	asked := f.requests()
	if len(asked) != 2 || asked[0].Node != "r1n01" || asked[0].Action != power.ActOn || asked[0].Deadline != 90*time.Second ||
		asked[0].Reason != "powerman, on stdin" || asked[0].AskedBy != "tester" || asked[0].Confirmed || asked[0].ID == asked[1].ID {
		t.Errorf("%+v", asked)
	}
}

// TestDoorsTakeNoExpressions: what selects nodes at the command line is the name of none here.
func TestDoorsTakeNoExpressions(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	for line, want := range map[string]string{
		"off all":    "209 No such nodes: all",
		"off r1n09":  "209 No such nodes: r1n09",
		"off r1n*":   "205 Hostlist error: ",
		"off @r1":    "205 Hostlist error: ",
		"status all": "209 No such nodes: all",
	} {
		if got := f.powerman(line, "--yes"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", line, got)
		}
	}
	if len(f.requests()) > 0 {
		t.Errorf("%+v", f.requests())
	}
}

// TestDoorsConfirmNothingByThemselves has what is asked about at the command line refused, unless
// who started the door said yes.
func TestDoorsConfirmNothingByThemselves(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	f.becomes = ends(1, power.Succeeded)
	f.racks = []api.Rack{{Name: "r1", Nodes: 3}}
	f.screen = nil
	if got := f.powerman("off r1n[01-03]"); !strings.HasPrefix(got, "308 r1n[01-03]: 3 nodes will lose power, all of r1,") || len(f.requests()) > 0 {
		t.Errorf("%s; asked for %+v", got, f.requests())
	}
	if got := f.powerman("off r1n[01-03]", "--yes"); got != "102 Command completed successfully" || !f.requests()[0].Confirmed {
		t.Errorf("%s; asked for %+v", got, f.requests())
	}
	f.problem = api.Problemf(api.CodeAwaiting, "a second person has to approve")
	if got := f.powerman("off r1n01"); got != "308 r1n01: a second person has to approve|210 Command completed with errors" {
		t.Error(got)
	}
}

// TestDoorsSayWhatIsNotKnown: no outcome is no success, whether central left or the operation lasts.
func TestDoorsSayWhatIsNotKnown(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	f.becomes = func(op *api.Op, look int) {
		if op.Node == "r1n01" {
			ends(1, power.Superseded)(op, look)
		}
	}
	got := f.powerman("on r1n[01-02]", "--deadline", "1ms")
	if !strings.Contains(got, "308 r1n01: superseded") || !strings.Contains(got, "308 r1n02: pending: taken; the operation goes on|210 ") {
		t.Error(got)
	}
	f.problem = api.Problemf(api.CodeInternal, "the disk is full")
	if got := f.powerman("on r1n01"); got != "308 r1n01: the disk is full|210 Command completed with errors" {
		t.Error(got)
	}
}
