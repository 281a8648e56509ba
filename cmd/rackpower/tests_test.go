package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
)

func TestWhatTestsShow(t *testing.T) {
	clock := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	good := power.TestResult{
		Protocol: "IPMI 2.0", Security: "cipher suite 17", Role: "administrator", Vendor: "Dell", Model: "product 0x0100", Firmware: "7.10",
		State: power.On, Sessions: 1, MaxSessions: 4, Clock: clock, ClockSkew: -time.Hour,
		Remarks: []string{"its clock is 1h0m0s behind, or shows the time of another zone"},
	}
	refused := "open session: auth-failed: wrong password"
	for _, c := range []struct {
		args   string
		answer []api.NodeTest
		exit   int
		out    []string
		errs   string
	}{
		{"credentials test r1n01", []api.NodeTest{
			{Node: "r1n01", Reach: power.ReachOK, Tried: true, User: "admin", Credentials: "lab", TestResult: good},
		}, 0, []string{"lab", "administrator", "cipher suite 17", "ok"}, ""},
		{"credentials test r1n[01-03]", []api.NodeTest{
			{Node: "r1n01", Reach: power.ReachAuthFailed, Tried: true, User: "admin", Message: refused},
			{Node: "r1n02", Reach: power.ReachAuthFailed, Tried: true, User: "admin", Message: refused},
			{Node: "r1n03", Reach: power.ReachAuthFailed, User: "admin", Message: "not tried"},
		}, settings.ExitFailed, []string{"its own", "r1n[01-02]: " + refused, "auth-failed, not tried"}, "3 of 3 tests failed"},
		{"node test r1n01", []api.NodeTest{
			{Node: "r1n01", Reach: power.ReachOK, Tried: true, User: "admin", TestResult: good},
		}, 0, []string{"Dell", "7.10", "1 of 4", "1h0m0s behind", "IPMI 2.0, cipher suite 17", "another zone"}, ""},
		{"node test r1n[01-02]", []api.NodeTest{
			{Node: "r1n01", Reach: power.ReachOK, Tried: true, User: "admin", TestResult: good},
			{Node: "r1n02", Reach: power.ReachNever, Message: "agent r1 is away"},
		}, settings.ExitFailed, []string{"Dell", "not tested", "r1n02: agent r1 is away", "r1n01: its clock"}, "1 of 2 tests failed"},
		{"node test r1n01 -o json", []api.NodeTest{{Node: "r1n01", Reach: power.ReachOK, TestResult: good}}, 0, []string{
			`"vendor": "Dell"`, `"max_sessions": 4`, `"reach": "ok"`,
		}, ""},
		{"node test r1n01 --timeout 2m", nil, settings.ExitUsage, nil, "--timeout"},
		{"credentials test", nil, settings.ExitUsage, nil, "NODES is missing"},
		{"credentials test nope", nil, settings.ExitUsage, nil, "no such node"},
	} {
		f := newFake(t, hall(3, power.On)...)
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/nodes", f.getNodes)
		var asked []api.TestNodes
		taking(f, mux, "POST /v1/tests", &asked, func(api.TestNodes) any { return c.answer })
		f.url = serveUnix(t, mux)
		expectTable(t, c.args, f.run(c.args), c.exit, c.out, c.errs)
	}
}

// TestNodeAddShowsTheKeyThatItTrusts, where it is trusted because it is the first.
func TestNodeAddShowsTheKeyThatItTrusts(t *testing.T) {
	key := "sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		args, says string
		answer     api.NodeTest
		asked      bool
	}{
		{"--bmc redfish://admin@h --trust-first", "the BMC of n1 has the key " + key, api.NodeTest{TestResult: power.TestResult{Key: key}}, true},
		{"--bmc auto://admin@h --trust-first", "the BMC of n1 has the key " + key, api.NodeTest{TestResult: power.TestResult{Key: key}}, true},
		{"--bmc auto://admin@h --trust-first", "", api.NodeTest{Reach: power.ReachOK}, true},
		{"--bmc redfish://admin@h --trust-first", "cannot be shown yet (rackpower node test n1): agent r1 is away", api.NodeTest{
			Message: "agent r1 is away",
		}, true},
		{"--bmc redfish://admin@h?pin=first", "", api.NodeTest{}, false},
		{"--bmc redfish://admin@h?pin=" + key + " --trust-first", "", api.NodeTest{}, false},
		{"--bmc ipmi://admin@h --trust-first", "", api.NodeTest{}, false},
	} {
		f := newFake(t)
		mux := http.NewServeMux()
		var asked []api.TestNodes
		taking(f, mux, "POST /v1/nodes", &f.added, func(api.AddNodes) any { return api.AddedNodes{Added: 1} })
		taking(f, mux, "POST /v1/tests", &asked, func(in api.TestNodes) any {
			c.answer.Node = in.Names[0]
			return []api.NodeTest{c.answer}
		})
		f.url = serveUnix(t, mux)
		got := f.run("node add n1 --rack r1 " + c.args)
		if got.exit != 0 || !strings.Contains(got.errs, c.says) || (len(asked) == 1) != c.asked || strings.Contains(got.errs, "BMC of n1 has") != (c.answer.Key != "") {
			t.Errorf("%s: %+v, tests %v", c.args, got, asked)
		}
	}
}

func TestCredentialsOnTheCommandLine(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	mux := http.NewServeMux()
	var set []api.SetCredentials
	taking(f, mux, "POST /v1/credentials/{name}", &set, func(api.SetCredentials) any { return api.Changed{Changed: 1} })
	seeing(f, mux, "GET /v1/credentials", func(*http.Request) any {
		return []api.Credentials{
			{Name: "lab", User: "admin", KG: true, Nodes: 40, Racks: []string{"r1", "r2"}, SetAt: time.Now(), SetBy: "alice for bob"},
			{Name: "own", AtRacks: true, Nodes: 2},
		}
	})
	f.url = serveUnix(t, mux)
	password := t.TempDir() + "/pw"
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, says := range map[string]string{
		"credentials set lab --user admin --password secret":           "password",
		"credentials set lab --user admin":                             "--password-file is missing",
		"credentials set lab --password-file " + password:              "--user is missing",
		"credentials set --user admin --password-file " + password:     "NAME is missing",
		"credentials set a/b --user admin --password-file " + password: "name",
		"credentials set lab --user a:b --password-file " + password:   "user name",
		"credentials set lab --user admin --password-file /none/such":  "cannot read the password",
		"credentials rotate lab --user admin":                          "go together",
		"credentials rotate lab --cancel --on r1n01":                   "takes no credentials and no nodes",
		"credentials rotate lab --password-file /none":                 "go together",
		"credentials rm": "NAME is missing",
		"node add n1 --rack r1 --credentials lab --password-file " + password: "exclude each other",
		"node add n1 --rack r1 --credentials a/b":                             "credentials: name",
		"rack set r1 --credentials a/b":                                       "credentials: name",
	} {
		got := f.run(args)
		expect(t, args, got, settings.ExitUsage, "", says)
	}
	if len(set) != 0 {
		t.Errorf("%+v was sent", set)
	}
	expect(t, "set", f.run("credentials set lab --user admin --password-file "+password), 0, "credentials lab: set", "")
	if len(set) != 1 || set[0].Password != "secret" || set[0].User != "admin" {
		t.Errorf("%d were sent", len(set))
	}
	got := f.run("credentials list")
	for _, part := range []string{"lab", "admin (and K_g)", "40", "r[1-2]", "alice for bob", "(not at central)"} {
		if !strings.Contains(got.out, part) {
			t.Errorf("the list lacks %q:\n%s", part, got.out)
		}
	}
}
