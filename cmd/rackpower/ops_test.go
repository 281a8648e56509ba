package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestOps(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	f.know(ended("id-1", "r1n01"))
	running := ended("id-2", "r1n02")
	running.Outcome, running.EndedAt, running.Detail, running.Phase, running.AgentNote = "", nil, "", api.PhaseRunning, "agent r1 is away"
	f.know(running)
	want := `ID    NODE   ACTION  ASKED      BY   RESULT     DETAIL
id-1  r1n01  off     5 min ago  bob  failed     BMC \x1b]0;x\a does not answer
id-2  r1n02  off     5 min ago  bob  not known  agent r1 is away; it said last: running
`
	if got := f.run("ops"); got.out != want || got.exit != 0 {
		t.Errorf("got\n%s\nwant\n%s%s", got.out, want, got.errs)
	}
	expect(t, "outstanding", f.run("ops r1n[01-02] --outstanding -o name"), 0, "id-2\n", "")
	if q := f.queries[len(f.queries)-1]; len(q.Nodes) != 2 || !q.Outstanding {
		t.Errorf("%+v", q)
	}
	f.run("ops --since 1h --limit 7")
	if q := f.queries[len(f.queries)-1]; time.Since(q.Since).Round(time.Minute) != time.Hour || q.Limit != 7 {
		t.Errorf("%+v", q)
	}
	f.run("ops --since 2d")
	if q := f.queries[len(f.queries)-1]; time.Since(q.Since).Round(time.Minute) != 48*time.Hour {
		t.Errorf("%+v", q)
	}
	f.run("ops --since 2026-03-01T12:00:00+01:00")
	if q := f.queries[len(f.queries)-1]; !q.Since.Equal(time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", q)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(f.run("ops -o json").out), &rows); err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields("id node action seq asked_by origin reason asked_at started_at ended_at outcome detail already " +
		"superseded_by joined attempts") {
		if _, ok := rows[0][field]; !ok {
			t.Errorf("no field %s", field)
		}
	}
	f.know(ended("id-0", "r9n01"))
	expect(t, "of nodes that were removed", f.run("ops r9n[01-02] -o name"), 0, "id-0\n", "")
	expect(t, "no node", f.run("ops r1n77"), 2, "", "no such node: r1n77")
	expect(t, "limit", f.run("ops --limit 0"), 2, "", "--limit: 0 is not at least 1")
}

func TestOpShowAndCancel(t *testing.T) {
	f := newFake(t)
	f.know(ended("id-1", "r1n01"))
	got := f.run("op show id-1")
	for _, line := range []string{
		"outcome:       failed\n", "took:          3s\n", "commands sent: 2\n", "reason:        feed\\tB\n",
		"detail:        BMC \\x1b]0;x\\a does not answer\n",
	} {
		if !strings.Contains(got.out, line) {
			t.Errorf("no %q in\n%s", line, got.out)
		}
	}
	expect(t, "show", f.run("op show id-1 id-9"), 2, "", "no operation id-9 is known")
	long := ended("id-4", "r1n01")
	*long.EndedAt, long.Grace = long.StartedAt.Add(time.Hour), 3*time.Minute
	f.know(long)
	expect(t, "durations", f.run("op show id-4"), 0, "grace:         3m\n", "")
	expect(t, "durations", f.run("op show id-4"), 0, "took:          1h\n", "")
	expect(t, "cancel", f.run("op cancel id-1"), 0, "r1n01 off has ended: failed\n", "")
	expect(t, "cancel", f.run("op cancel id-9"), 2, "", "no operation id-9")
	running := ended("id-3", "r1n02")
	running.Outcome, running.Phase = "", api.PhaseRunning
	f.know(running)
	expect(t, "cancel", f.run("op cancel id-3 --reason oops"), 0, "r1n02 off ends at its next safe point (running)\n", "")
	if len(f.cancels) != 2 {
		t.Errorf("%v", f.cancels)
	}
	// One that is not known keeps no other from being cancelled, nor from being told of.
	got = f.run("op cancel id-9 id-3")
	expect(t, "cancel several", got, 1, "r1n02 off ends at its next safe point (running)\n",
		"no operation id-9\nrackpower op cancel: 1 of 2 operations not cancelled\n")
	expect(t, "cancel none", f.run("op cancel id-8 id-9"), 2, "", "no operation id-8\nno operation id-9\n")
	if len(f.cancels) != 3 {
		t.Errorf("%v", f.cancels)
	}
}
