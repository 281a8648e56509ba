package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/journal"
	"rackpower/power"
)

// corner is three nodes that show all that a status table can.
func corner() []api.Node {
	nodes := hall(3, power.On)
	nodes[0].Status, nodes[0].Desired = power.StatusDeploying, power.WantOn
	nodes[0].Op = &api.OpBrief{
		ID: "op1", Action: power.ActCycle, AskedBy: "bob", AskedAt: time.Now().Add(-4 * time.Second),
		Phase: "running: waiting for off",
	}
	nodes[0].Waiting = 2
	nodes[1].Drift, nodes[1].Stale, nodes[1].Reach = true, true, power.ReachUnreachable
	nodes[2].State, nodes[2].ObservedAt, nodes[2].Reach, nodes[2].Fault = power.Unknown, nil, power.ReachNever, "3 corrections failed"
	return nodes
}

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

func TestTablesStayAlignedInANarrowTerminal(t *testing.T) {
	rows := func() [][]string {
		return [][]string{
			{"NODE", "STATE", "DRIFT", "OPERATION"},
			{"r1n01", "on", "", "cycle (asked by admin, 4 s ago) running: waiting for off"},
			{"r1n02", "off", "", ""},
		}
	}
	for columns, want := range map[int]string{
		0: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s ago) running: waiting for off\nr1n02  off\n",
		40: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s\n              ago) running: waiting for\n              " +
			"off\nr1n02  off\n",
		30: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s ago) running: waiting for off\nr1n02  off\n",
	} {
		if got := string((printer{}).tableIn(columns, rows())); got != want {
			t.Errorf("%d columns: got\n%s\nwant\n%s", columns, got, want)
		}
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
	f := newFake(t, hall(2, power.On)...)
	got := f.run("status --fresh --timeout 3s") // the readings of the fake do not get newer
	expect(t, "fresh", got, 1, "r1n01  on", "2 nodes could not be read now: r1n[01-02] no answer in time")
	if len(f.reads) != 1 || len(f.reads[0].Names) != 2 || f.reads[0].Wait != 3*time.Second {
		t.Errorf("%+v", f.reads)
	}
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

func ended(id, node string) api.Op {
	asked := time.Now().Add(-5 * time.Minute)
	started, end := asked.Add(time.Second), asked.Add(4*time.Second)
	return api.Op{
		ID: id, Node: node, Rack: "r1", Action: power.ActOff, AskedBy: "bob", Origin: power.FromCentral, Reason: "feed\tB", AskedAt: asked,
		StartedAt: &started,
		EndedAt:   &end, Outcome: power.Failed, Detail: "BMC \x1b]0;x\a does not answer", Verdict: power.VerdictStart, Phase: api.PhaseEnded,
		Deadline: asked.Add(5 * time.Minute), Attempts: 2,
	}
}

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

func TestFleet(t *testing.T) {
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

func TestNodeAdd(t *testing.T) {
	f := newFake(t)
	file := filepath.Join(t.TempDir(), "bmc.password")
	if err := os.WriteFile(file, []byte("s3cret\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "add", f.run("node add r1n01 --rack r1 --bmc ipmi://admin@10.0.0.1:6230?suite=3 --password-file "+file+
		" --status ready --domain feedA"), 0, "1 node added, 0 changed, 0 unchanged\n", "")
	want := api.NodeSpec{
		Name: "r1n01", Rack: "r1", BMC: "ipmi://admin@10.0.0.1:6230?suite=3", Password: "s3cret", Domain: "feedA",
		Status: power.StatusReady,
	}
	if len(f.added) != 1 || !reflect.DeepEqual(f.added[0].Nodes[0], want) || f.added[0].Update || f.added[0].AskedBy != "tester" {
		t.Fatalf("%+v", f.added)
	}
	expect(t, "stdin", f.run("node add r1n01 --rack r1 --password-file - --update", "fr0m stdin"), 0, "added", "")
	if in := f.added[1]; in.Nodes[0].Password != "fr0m stdin" || !in.Update {
		t.Errorf("%+v", in)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, "readable", f.run("node add r1n01 --rack r1 --password-file "+file), 0, "added", "others can read it (mode 0644): chmod 600")
	before := len(f.added)
	for args, says := range map[string]string{
		"node add":                                               "NAME is missing",
		"node add n1":                                            "--rack is missing",
		"node add n[1-3] --rack r1":                              "name \"n[1-3]\": want 1 to 63 letters",
		"node add all --rack r1":                                 "name \"all\" has a meaning of its own",
		"node add n1,n2 --rack r1":                               "name \"n1,n2\": want",
		"node add n1 --rack r1 --status SLEEPY":                  "unknown status \"SLEEPY\"",
		"node add n1 --rack r1 --bmc ftp://h":                    "only the scheme ipmi:// is supported",
		"node add n1 --rack r1 --password hush":                  "unknown flag --password (did you mean --password-file?)",
		"node add n1 --rack r1 --bmc ipmi://admin:hush@10.0.0.1": "must not hold a password",
		"node add n1 --rack r1 --password-file /nonexistent":     "cannot read the password: open /nonexistent",
		"node add n1 --rack r1 --password-file /dev/null":        "is empty",
	} {
		got := f.run(args)
		expect(t, args, got, 2, "", says)
		if strings.Contains(got.errs, "hush") && !strings.Contains(args, "--password hush") {
			t.Errorf("%s: the password is shown: %s", args, got.errs)
		}
	}
	if len(f.added) != before {
		t.Error("bad nodes were sent")
	}
}

func TestNodeImportReadsThreeForms(t *testing.T) {
	want := []api.NodeSpec{
		{Name: "r1n01", Rack: "r1", BMC: "ipmi://admin@10.0.0.1", Password: "p,w", Status: power.StatusReady},
		{Name: "r1n02", Rack: "r1", Domain: "feedA"},
	}
	for name, text := range map[string]string{
		"yaml": "- name: r1n01\n  rack: r1\n  bmc: ipmi://admin@10.0.0.1\n  password: p,w\n  status: ready\n- {name: r1n02, rack: r1, " +
			"domain: feedA}\n",
		"yaml nodes": "nodes:\n- {name: r1n01, rack: r1, bmc: \"ipmi://admin@10.0.0.1\", password: \"p,w\", status: READY}\n- {name: r1n02, " +
			"rack: r1, domain: feedA}\n",
		"json": `[{"name":"r1n01","rack":"r1","bmc":"ipmi://admin@10.0.0.1","password":"p,w","status":"READY"},{"name":"r1n02","rack":"r1","domain":"feedA"}]`,
		"jsonl": `{"name":"r1n01","rack":"r1","bmc":"ipmi://admin@10.0.0.1","password":"p,w","status":"READY"}` + "\n" +
			`{"name":"r1n02","rack":"r1","domain":"feedA"}`,
		"csv": "\xef\xbb\xbfname, rack, bmc, password, status, domain\n# hall 1\nr1n01, r1, ipmi://admin@10.0.0.1, \"p,w\", ready,\nr1n02, r1, " +
			", , , feedA\n",
	} {
		f := newFake(t)
		got := f.run("node import - --update", text)
		if got.exit != 0 || got.out != "2 nodes added, 0 changed, 0 unchanged\n" {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if in := f.added[0]; len(in.Nodes) != 2 || !reflect.DeepEqual(in.Nodes, want) || !in.Update || in.DryRun {
			t.Errorf("%s: %+v", name, in)
		}
	}
	f := newFake(t)
	expect(t, "dry run", f.run("node import - --dry-run", "- {name: a, rack: r}"), 0, "1 node would be added, 0 changed", "")
	if !f.added[0].DryRun {
		t.Error("no dry run")
	}
}

func TestNodeImportReadsPasswordFiles(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pw": "s3cret\n", "empty": "",
		"good.yaml": "- {name: a, rack: r, password_file: pw}\n- {name: b, rack: r, password_file: " + dir + "/pw}\n",
		"bad.csv":   "name,rack,password,password_file\na,r,,nowhere\nb,r,x,pw\nc,r,,empty\nd,r,,-\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "good", f.run("node import "+dir+"/good.yaml"), 0, "2 nodes added", "")
	if n := f.added[0].Nodes; n[0].Password != "s3cret" || n[1].Password != "s3cret" {
		t.Errorf("%+v", n)
	}
	got := f.run("node import " + dir + "/bad.csv")
	for _, says := range []string{
		"(line 2): node a: cannot read the password: open " + dir + "/nowhere",
		"(line 3): node b: password and password_file exclude", "(line 4): node c: the password in", "(line 5): node d: password_file: want",
	} {
		if got.exit != 2 || !strings.Contains(got.errs, says) {
			t.Errorf("no %q in %s", says, got.errs)
		}
	}
	if len(f.added) != 1 {
		t.Error("bad rows were sent")
	}
}

func TestNodeImportNamesEveryBadRowAndTakesNone(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "nodes.csv")
	text := "name,rack,bmc,status\nr1n01,r1,,\n,r1,,\nr1n02,,,\nr1n03,r1,ftp://x,\nr1n04,r1,,SLEEPY\nr1n01,r1,,\nr1n05,r1,ipmi://a:hush@h,\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := f.run("node import " + file)
	for _, says := range []string{
		"row 2 (line 3): name \"\": want 1 to 63", "row 3 (line 4): node r1n02: the rack is missing", "row 4 (line 5): node r1n03:",
		"row 5 (line 6): node r1n04: unknown status \"SLEEPY\"",
		"row 6 (line 7): node r1n01 stands in row 1 (line 2) already", "row 7 (line 8): node r1n05: a BMC address must not hold a password",
		"nothing was imported",
	} {
		if got.exit != 2 || !strings.Contains(got.errs, says) {
			t.Errorf("status %d, no %q in\n%s", got.exit, says, got.errs)
		}
	}
	if len(f.added) != 0 || strings.Contains(got.errs, "hush") {
		t.Errorf("%+v %s", f.added, got.errs)
	}
	for text, says := range map[string]string{
		"":                                  "there are no nodes in it",
		"- {name: a, rak: r}":               "row 1 (line 1): unknown field \"rak\" (did you mean rack?)",
		"name,rak\na,r\n":                   "unknown field \"rak\" (did you mean rack?)",
		"- name: a\n  rack: [r]":            "rack: want a text",
		"- a\n":                             "row 1 (line 1): want",
		"name: a\n":                         "line 1: want a list of nodes",
		"[{\"name\": \"a\", \"rack\": 5}]":  "row 1: want an object whose values are texts",
		"[{\"name\": \"a\"":                 "cannot read JSON near line 1",
		"- name: a\n  name: b\n  rack: r\n": "name",
		"name,rack\na,r,x\n":                "wrong number of fields",
	} {
		expect(t, text, f.run("node import -", text), 2, "", says)
	}
	expect(t, "no file", f.run("node import /nonexistent/nodes.yaml"), 2, "", "/nonexistent/nodes.yaml")
	if len(f.added) != 0 {
		t.Error("something was sent")
	}
}

func TestNodeExportComesBackThroughImport(t *testing.T) {
	f := newFake(t)
	f.export = []api.NodeSpec{
		{Name: "r1n10", Rack: "r1", BMC: "ipmi://admin@[fe80::1]:6230", Status: power.StatusDeployed},
		{Name: "r1n9", Rack: "r1", Password: "never", Domain: "feed, A"},
	}
	for _, form := range []string{"", " -o csv", " -o json", " -o jsonl", " -o yaml"} {
		got := f.run("node export" + form)
		if got.exit != 0 || strings.Contains(got.out, "never") || strings.Index(got.out, "r1n9") > strings.Index(got.out, "r1n10") {
			t.Errorf("%s: %+v", form, got)
		}
		f.added = nil
		if again := f.run("node import -", got.out); again.exit != 0 || len(f.added[0].Nodes) != 2 ||
			!reflect.DeepEqual(f.added[0].Nodes[1], f.export[0]) || f.added[0].Nodes[0].Domain != "feed, A" {
			t.Errorf("%s: %+v, %+v from\n%s", form, again, f.added, got.out)
		}
	}
}

func TestNodeChanges(t *testing.T) {
	f := newFake(t, hall(25, power.On)...)
	expect(t, "set-status", f.run("node set-status r1n[01-02] deploying --reason why"), 0, "r1n[01-02] DEPLOYING: power on\n", "")
	expect(t, "set-status", f.run("node set-status all READY"), 2, "", "25 nodes will lose power, all of r1: r1n[01-25]; nothing was done")
	expect(t, "set-status", f.run("node set-status all READY --yes"), 0, "r1n[01-25] READY: power off\n", "")
	expect(t, "set-status", f.run("node set-status all DEPLOYED"), 0, "r1n[01-25] DEPLOYED: hands-off\n", "")
	expect(t, "set-status", f.run("node set-status r1n01 SLEEPY"), 2, "", "unknown status \"SLEEPY\"")
	expect(t, "set-status", f.run("node set-status r1n01"), 2, "", "STATUS is missing")
	expect(t, "set-status", f.run("node set-status r1n01 r1n03 DEPLOYED"), 0, "r1n[01,03] DEPLOYED: hands-off\n", "")
	if len(f.status) != 4 || f.status[0].Confirmed || !f.status[1].Confirmed || f.status[0].Reason != "why" {
		t.Errorf("%+v", f.status)
	}
	expect(t, "rm", f.run("node rm r1n01"), 0, "r1n01 removed\n", "")
	expect(t, "rm", f.run("node rm r1n[01-02]"), 2, "",
		"2 nodes will be removed, with the passwords of their BMCs: r1n[01-02]; nothing was done: say --yes if that is meant")
	expect(t, "rm", f.run("node rm r1n[01-02] --yes"), 0, "r1n[01-02] removed\n", "")
	old := asks
	asks = func(*cli.Context) bool { return true }
	question := "25 nodes will be removed, with the passwords of their BMCs: r1n[01-25]. Continue? [y/N] "
	expect(t, "rm", f.run("node rm all", "n"), 2, "", question+"\nrackpower node rm: not confirmed; nothing was done\n")
	expect(t, "rm", f.run("node rm all", "y"), 0, "r1n[01-25] removed\n", question)
	expect(t, "rm", f.run("node rm all --yes"), 0, "r1n[01-25] removed\n", "")
	asks = old
	expect(t, "show", f.run("node show r1n01"), 0, "bmc:           ipmi://admin@10.0.1.1\n", "")
	f.problem = api.Problemf(api.CodeBusy, "r1n01 has an outstanding operation")
	expect(t, "rm", f.run("node rm r1n01"), 5, "", "r1n01 has an outstanding operation")
}

// writeJournal makes an agent's directory with two records.
func writeJournal(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Owner: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(journal.Entry{
		Op: journal.Put, Kind: 1, Key: "op-1",
		Payload: []byte(`{"node":"r1n01","password":"hush","kg":"hush"}`),
	}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestJournalDumpAndVerify(t *testing.T) {
	f := newFake(t)
	dir := writeJournal(t)
	for _, path := range []string{dir, filepath.Join(dir, "journal")} {
		got := f.run("journal dump " + path)
		if got.exit != 0 || !strings.Contains(got.out, "op-1") || !strings.Contains(got.out, `"node":"r1n01"`) ||
			strings.Contains(got.out, "hush") {
			t.Errorf("%+v", got)
		}
		expect(t, "verify", f.run("journal verify "+path), 0, "no damage\n", "")
		expect(t, "verify", f.run("journal verify "+path), 0, "opened 1 time, ", "")
	}
	var row map[string]any
	if err := json.Unmarshal([]byte(strings.Split(f.run("journal dump -o jsonl "+dir).out, "\n")[0]), &row); err != nil ||
		row["key"] != "op-1" {
		t.Errorf("%v %v", row, err)
	}
	empty := t.TempDir()
	expect(t, "empty", f.run("journal dump "+empty), 2, "", "there is no journal in "+empty)
	expect(t, "missing", f.run("journal verify "+empty+"/none"), 2, "", empty+"/none")
	expect(t, "a file", f.run("journal dump /dev/null"), 2, "", "/dev/null is not a directory")
	if left, _ := os.ReadDir(empty); len(left) != 0 {
		t.Errorf("reading made %v", left)
	}
}

func TestJournalVerifyFindsDamage(t *testing.T) {
	f := newFake(t)
	dir := writeJournal(t)
	files, _ := filepath.Glob(filepath.Join(dir, "journal", "*.jnl"))
	hit := false
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(data), "op-1"); i > 0 {
			data[i] ^= 1
			hit = true
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !hit {
		t.Fatal("the record is in no file")
	}
	expect(t, "verify", f.run("journal verify "+dir), 1, "damage:", "the journal is damaged in 1 place\n")
	expect(t, "dump", f.run("journal dump "+dir), 1, "", "the journal is damaged\n")
}

// TestHelpTellsTheStatuses: every command explains its exit statuses and shows an
// example.
func TestHelpTellsTheStatuses(t *testing.T) {
	f := newFake(t)
	var titles []string
	var walk func(prefix string, list []*cli.Command)
	walk = func(prefix string, list []*cli.Command) {
		for _, c := range list {
			titles = append(titles, prefix+c.Name)
			walk(prefix+c.Name+" ", c.Subcommands)
		}
	}
	walk("", newApp().Commands)
	if len(titles) < 60 {
		t.Fatalf("%q", titles)
	}
	for _, title := range titles {
		got := f.runContext(t.Context(), append(strings.Fields(title), "--help"))
		if got.exit != 0 || !strings.Contains(got.out, "EXIT STATUS") || !strings.Contains(got.out, "EXAMPLES") ||
			!strings.Contains(got.out, "rackpower "+title) {
			t.Errorf("%s --help: status %d\n%s%s", title, got.exit, got.out, got.errs)
		}
		for line := range strings.Lines(got.out) {
			if width := term.Width(strings.TrimRight(line, "\n")); width > 80 {
				t.Errorf("%s --help: a line of %d columns: %s", title, width, line)
			}
			for _, word := range []string{"LONG", "DO", "WHAT", "HOW", "TIMES", "NUMBER", "VALUE"} {
				if slices.Contains(strings.Fields(line), word) {
					t.Errorf("%s --help: the placeholder %s says nothing: %s", title, word, line)
				}
			}
		}
	}
	for _, absent := range []string{"agent-token"} {
		if got := f.run(absent + " x"); got.exit != 2 {
			t.Errorf("%s: status %d", absent, got.exit)
		}
	}
}

// TestSettingsFileReachesTheCommands also guards that flags of one name take the
// same kind of value everywhere: a file serves all commands.
func TestSettingsFileReachesTheCommands(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	file := filepath.Join(t.TempDir(), "c.yaml")
	for text, c := range map[string]struct {
		exit      int
		out, errs string
	}{
		"output: name\n":               {0, "r1n01\n", ""},
		"outputt: name\n":              {2, "", file + ":1: outputt: unknown key (did you mean output?)"},
		"central: x\noutput: [json]\n": {2, "", file + ":2: output: want a text"},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, text, f.runContext(t.Context(), []string{"status", "--config", file}), c.exit, c.out, c.errs)
	}
}

func TestNodeImportTakesNothingTwice(t *testing.T) {
	f := newFake(t)
	for text, says := range map[string]string{
		"name,rack,name\na,r,b\n":                         "name is given twice",
		`[{"name":"a","name":"b","rack":"r"}]`:            "row 1: name is given twice",
		"- {name: a, rack: r}\n---\n- {name: b, rack: r}": "line 2: a second YAML document",
	} {
		expect(t, text, f.run("node import -", text), 2, "", says)
	}
	if len(f.added) != 0 {
		t.Error("doubtful nodes were sent")
	}
}

func TestNodeImportWarnsOfPasswordsOnly(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pw": "s3cret\n", "names": "- {name: a, rack: r, password_file: pw}\n",
		"secrets": "- {name: a, rack: r, password: s3cret}\n",
	} {
		mode := os.FileMode(0o644)
		if name == "pw" {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.run("node import " + dir + "/names -o name"); got != (ran{0, "a\n", ""}) {
		t.Errorf("%+v", got)
	}
	expect(t, "secrets", f.run("node import "+dir+"/secrets"), 0, "added", "holds passwords and others can read it")
}

func TestNodesThatExistNameTheFlagThatChangesThem(t *testing.T) {
	f := newFake(t)
	f.problem = api.Problemf(api.CodeExists, "node 1 (a): exists already")
	expect(t, "add", f.run("node add a --rack r"), 2, "", "exists already\n--update changes nodes that exist\n")
}

// endless is a stdin that nobody types into.
type endless struct{ begun chan struct{} }

func (e endless) Read([]byte) (int, error) {
	close(e.begun)
	select {}
}

func TestInterruptEndsReadingNodes(t *testing.T) {
	f := newFake(t)
	f.t.Setenv("RACKPOWER_CENTRAL", f.url)
	ctx, cancel := context.WithCancel(t.Context())
	stdin := endless{make(chan struct{})}
	go func() { <-stdin.begun; cancel() }()
	var out, errs strings.Builder
	app := newApp()
	app.Writer, app.ErrWriter, app.Reader = &out, &errs, stdin
	if exit := settings.RunContext(ctx, app, strings.Fields("rackpower node import -")); exit != 1 ||
		!strings.Contains(errs.String(), "interrupted") {
		t.Errorf("%d %q", exit, errs.String())
	}
}

// TestImportedStatusesAskFirst: a file may give a whole rack a status that wants it off.
func TestImportedStatusesAskFirst(t *testing.T) {
	nodes := hall(3, power.On)
	for i := range nodes {
		nodes[i].Status = power.StatusDeployed
	}
	f := newFake(t, nodes...)
	file := filepath.Join(t.TempDir(), "nodes.csv")
	text := "name,rack,status\nr1n01,r1,READY\nr1n02,r1,READY\nr1n03,r1,READY\nr1n04,r1,READY\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "update", f.run("node import "+file+" --update"), 2, "",
		"3 nodes will lose power, all of r1: r1n[01-03]; nothing was done: say --yes")
	expect(t, "dry run", f.run("node import "+file+" --update --dry-run"), 0, "4 nodes would be added", "")
	expect(t, "new nodes", f.run("node import "+file), 0, "4 nodes added", "")
	expect(t, "--yes", f.run("node import "+file+" --update --yes"), 0, "4 nodes added", "")
	expect(t, "one of them", f.run("node add r1n01 --rack r1 --status READY --update"), 0, "1 node added", "")
	if n := len(f.added); n != 4 || f.added[1].Confirmed || !f.added[2].Confirmed || f.added[3].Confirmed {
		t.Errorf("%+v", f.added)
	}
}

// TestMovesAskFirst: more than one node that goes to another rack is a question; one that
// is named is meant.
func TestMovesAskFirst(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	file := filepath.Join(t.TempDir(), "nodes.csv")
	write := func(text string) {
		if err := os.WriteFile(file, []byte("name,rack\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("r1n01,r2\nr1n02,r2\nr1n03,r1\nr2n01,r2\n")
	expect(t, "two go", f.run("node import "+file+" --update"), 2, "",
		"2 nodes will be moved from racks r1: r1n[01-02]; nothing was done: say --yes")
	expect(t, "--yes", f.run("node import "+file+" --update --yes"), 0, "4 nodes added", "")
	expect(t, "one of them", f.run("node add r1n01 --rack r2 --update"), 0, "1 node added", "")
	write("r1n01,r1\nr1n02,r1\n")
	expect(t, "none goes", f.run("node import "+file+" --update"), 0, "2 nodes added", "")
	expect(t, "new ones", f.run("node import "+file), 0, "2 nodes added", "")
	var told []bool
	for _, in := range f.added {
		told = append(told, in.MovesConfirmed)
	}
	if !slices.Equal(told, []bool{true, true, true, false}) {
		t.Errorf("%v", told)
	}
}
