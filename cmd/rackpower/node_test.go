package main

import (
	"context"
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
	"rackpower/power"
)

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
		"node add n1 --rack r1 --bmc ftp://h":                    "only the schemes ipmi://, redfish://, redfish+http://, auto:// and exec: are supported",
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

func TestTrustOfTheFirstKey(t *testing.T) {
	f := newFake(t)
	csv := filepath.Join(t.TempDir(), "nodes.csv")
	pin := "sha256:" + strings.Repeat("ab", 32)
	if err := os.WriteFile(csv, []byte("name,rack,bmc\na,r,redfish://admin@h1\nb,r,ipmi://admin@h2\nc,r,redfish://admin@h3?pin="+pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want, says string }{
		{"node add n1 --rack r1 --bmc redfish://admin@h/1", "redfish://admin@h/1", ""},
		{"node add n1 --rack r1 --bmc redfish://admin@h/1 --trust-first", "redfish://admin@h/1?pin=first", "agent r1 will trust"},
		{"node add n1 --rack r1 --trust-first --bmc redfish://admin@h?pin=" + pin, "redfish://admin@h?pin=" + pin, ""},
		{"node add n1 --rack r1 --trust-first --bmc redfish+http://admin@h", "redfish+http://admin@h", ""},
		{"node add n1 --rack r1 --trust-first --bmc ipmi://admin@h", "ipmi://admin@h", ""},
		{"node add n1 --rack r1 --trust-first --update", "", ""},
		{"node import --trust-first " + csv, "redfish://admin@h1?pin=first ipmi://admin@h2 redfish://admin@h3?pin=" + pin, "agent r will trust"},
		{"node import " + csv, "redfish://admin@h1 ipmi://admin@h2 redfish://admin@h3?pin=" + pin, ""},
	} {
		expect(t, c.args, f.run(c.args), 0, "node", c.says)
		var got []string
		for _, n := range f.added[len(f.added)-1].Nodes {
			got = append(got, n.BMC)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v", c.args, got)
		}
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
		"row 6 (line 7): node r1n01 is in row 1 (line 2) already", "row 7 (line 8): node r1n05: a BMC address must not hold a password",
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
		"2 nodes will be removed, with the passwords of their BMCs: r1n[01-02]; nothing was done: confirm with --yes")
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
		"3 nodes will lose power, all of r1: r1n[01-03]; nothing was done: confirm with --yes")
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
		"2 nodes will be moved from racks r1: r1n[01-02]; nothing was done: confirm with --yes")
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

func TestRetry(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	expect(t, "retry", f.run("node retry r1n[01-02] --reason switch"), 0, "r1n[01-02] tried again from now on\n", "")
	expect(t, "local", f.run("local retry r1n03"), 0, "r1n03 tried again from now on\n", "")
	if r := f.retries; len(r) != 2 || len(r[0].Names) != 2 || r[0].Reason != "switch" || r[1].Names[0] != "r1n03" {
		t.Errorf("%+v", r)
	}
}

func TestProtect(t *testing.T) {
	nodes := hall(2, power.On)
	nodes[0].Protected = &power.Protection{By: "ann", Reason: "database", Since: time.Date(2026, 3, 1, 19, 0, 0, 0, time.UTC)}
	f := newFake(t, nodes...)
	expect(t, "protect", f.run("node protect r1n[01-02] --reason db"), 0, "r1n[01-02] protected\n", "")
	expect(t, "unprotect", f.run("node unprotect r1n01 --reason moved"), 0, "r1n01 unprotected\n", "")
	if r := f.run("node unprotect r1n01"); r.exit != 2 {
		t.Errorf("without a reason: %+v", r)
	}
	if p := f.protects; len(p) != 2 || p[0].Unprotect || p[0].Reason != "db" || len(p[0].Names) != 2 || !p[1].Unprotect {
		t.Errorf("%+v", p)
	}
	for _, args := range []string{"status r1n01 -o wide", "node show r1n01"} {
		if r := f.run(args); !strings.Contains(r.out, "by ann since 2026-03-01 19:00:00Z: database") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
