package main

import (
	"context"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestStatusTable(t *testing.T) {
	f := newFake(t, corner()...)
	want := `NODE   STATE       AGE    REACH        STATUS     DESIRED  DRIFT                        OPERATION
r1n01  on          5 s                 DEPLOYING  on                                    cycle (asked by bob, 4 s ago) running: waiting for off, 2 more
r1n02  on (stale)  5 s    unreachable  READY      off      drift
r1n03  unknown     never  never        READY      off      fault: 3 corrections failed
`
	if got := f.run("status"); got.out != want || got.exit != 0 || got.errs != "" {
		t.Errorf("status %d, %q\ngot\n%s\nwant\n%s", got.exit, got.errs, got.out, want)
	}
	if got := f.run("status r1n01 -o wide"); !strings.Contains(got.out, "ipmi://admin@10.0.1.1") || !strings.Contains(got.out, "RACK") {
		t.Errorf("%s", got.out)
	}
}

func TestStatusForPrograms(t *testing.T) {
	f := newFake(t, corner()...)
	var rows []map[string]any
	if err := json.Unmarshal([]byte(f.run("status -o json").out), &rows); err != nil || len(rows) != 3 {
		t.Fatalf("%v", err)
	}
	for _, field := range []string{
		"name", "rack", "state", "reach", "observed_at", "stale", "status", "desired", "hold", "drift", "fault",
		"op",
	} {
		if _, ok := rows[2][field]; !ok {
			t.Errorf("no field %s", field)
		}
	}
	op, _ := rows[0]["op"].(map[string]any)
	for _, field := range []string{"id", "action", "verdict", "asked_by", "asked_at", "phase"} {
		if _, ok := op[field]; !ok {
			t.Errorf("no field op.%s", field)
		}
	}
	if rows[2]["observed_at"] != nil || rows[2]["op"] != nil {
		t.Errorf("%v", rows[2])
	}
	if at, _ := rows[0]["observed_at"].(string); at == "" {
		t.Error("no time")
	} else if _, err := time.Parse(time.RFC3339, at); err != nil {
		t.Error(err)
	}
	expect(t, "name", f.run("status @state:on -o name"), 0, "r1n01\nr1n02\n", "")
	empty := newFake(t)
	for _, args := range []string{"status -o json", "ops -o json", "ops --outstanding -o json", "local ops -o json"} {
		if got := empty.run(args); got.out != "[]\n" || got.exit != 0 {
			t.Errorf("%s: %+v", args, got)
		}
	}
	expect(t, "status", empty.run("status"), 0, "no nodes are known yet", "")
	expect(t, "ops", empty.run("ops"), 0, "no operations\n", "")
	expect(t, "jsonl", empty.run("ops -o jsonl"), 0, "", "")
	expect(t, "yaml", empty.run("ops -o yaml"), 0, "[]\n", "")
	expect(t, "yaml", f.run("status r1n02 -o yaml"), 0, "\n  state: \"on\"\n", "")
}

func TestStatusFreshSaysWhatCouldNotBeRead(t *testing.T) {
	f := newFake(t, hall(4, power.On)...)
	f.nodes[0].Unread, f.nodes[1].Unread, f.nodes[2].Reach = true, true, power.ReachUnreachable
	got := f.run("status --fresh --timeout 3s")
	expect(t, "fresh", got, 1, "r1n01  on", "3 nodes could not be read now: r1n[01-02] no answer in time, r1n03 unreachable")
	expect(t, "some", f.run("status r1n[01-04] --fresh"), 1, "r1n04  on", "3 nodes could not be read now")
	for i, want := range []api.ReadNodes{{Select: "all", Wait: 3 * time.Second}, {Select: "r1n[01-04]", Wait: 15 * time.Second}} {
		if !reflect.DeepEqual(f.reads[i], want) {
			t.Errorf("%+v", f.reads[i])
		}
	}
	f.nodes = nil
	expect(t, "none", f.run("status @state:off --fresh"), 0, "", `no node matches "@state:off"`)
}

func TestStatusWatchShowsWhatChanges(t *testing.T) {
	f := newFake(t, hall(2, power.Off)...)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	time.AfterFunc(250*time.Millisecond, func() {
		f.mu.Lock()
		f.nodes[1].State = power.On
		f.mu.Unlock()
		time.AfterFunc(400*time.Millisecond, cancel)
	})
	got := f.runContext(ctx, []string{"status", "--watch", "--interval", "100ms", "-o", "json"})
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if got.exit != 0 || len(lines) != 3 || !strings.Contains(lines[2], `"name":"r1n02"`) || !strings.Contains(lines[2], `"state":"on"`) {
		t.Errorf("status %d %s\n%s", got.exit, got.errs, got.out)
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
