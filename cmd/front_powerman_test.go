package cmd_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// TestPowermanIsAnswered has Debian's powerman read and switch 20 nodes through the front end, and
// compares what it says with what reached each BMC.
func TestPowermanIsAnswered(t *testing.T) {
	client, err := exec.LookPath("powerman")
	if err != nil {
		t.Skip("LEFT OUT: the front end for powerman: powerman is not installed (apt-get install powerman)")
	}
	f := newHall20(t, 40)
	addr := freePort(t)
	serve := func(more ...string) {
		f.terminate("front")
		f.spawn("front", f.cli, append([]string{
			"front", "powerman", "--listen", addr, "--central", "unix://" + f.socket(), "--deadline", "20s", "--read-timeout", "5s",
			"--server-version", "2.3.27",
		}, more...)...)
		f.until(time.Minute, "the front end listens", func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
	powerman := func(args ...string) said { return f.stock("", client, append([]string{"-h", addr}, args...)...) }
	good := func(what string, got said, want ...string) {
		t.Helper()
		for _, text := range want {
			if got.exit != 0 || !strings.Contains(got.out, text) {
				t.Errorf("%s: want %q in %+v", what, text, got)
			}
		}
	}
	bad := func(what string, got said, want ...string) {
		t.Helper()
		for _, text := range want {
			if got.exit == 0 || !strings.Contains(got.out, text) || strings.Contains(got.out, "successfully") {
				t.Errorf("%s: want %q and a failure in %+v", what, text, got)
			}
		}
	}
	const done, errs = "Command completed successfully", "Command completed with errors"

	serve()
	if got := powerman("-l"); got.out != doorAll+"\n" || got.exit != 0 || got.errs != "" {
		t.Errorf("-l: %+v", got)
	}
	bad("-q", powerman("-q"), "on:      \n", "off:     "+doorHealthy+"\n", "unknown: n[00003-00004]\n", doorHung+": ", doorWrong+": auth")
	good("-Q", powerman("-x", "-Q", "n[00001,00020]"), "n00001: off\n", "n00020: off\n")
	bad("a node that is none", powerman("-1", "n00001,n00099"), "No such nodes: n00099")
	bad("all, which is no node", powerman("-1", "all"), "No such nodes: all")
	bad("a beacon", powerman("-f", "n00001"), "cannot be handled")
	f.allAre(power.Off, f.now(), 0, 0)

	before := f.now()
	bad("on", powerman("-1", doorAll), doorHung+": ", doorWrong+": ", errs)
	f.allAre(power.On, before, 1, 0)
	good("on, again", powerman("-1", doorHealthy), done)
	f.allAre(power.On, before, 1, 0)
	if got := powerman("-Q", doorHealthy); got.exit != 0 || !strings.Contains(got.out, "on:      "+doorHealthy+"\n") {
		t.Errorf("-Q: %+v", got)
	}

	before = f.now()
	bad("off of a whole rack, which nobody confirmed", powerman("-0", doorAll), doorAll+": ", "--yes", errs)
	f.allAre(power.On, before, 0, 0)
	serve("--yes")
	good("cycle", powerman("-c", doorHealthy), done)
	f.allAre(power.On, before, 1, 1)

	before = f.now()
	first := make(chan said, 1)
	go func() { first <- powerman("-c", doorSlow) }()
	f.runs(doorSlow, power.ActCycle)
	good("off, while a cycle runs", powerman("-0", doorSlow), done)
	bad("the cycle", <-first, doorSlow+": superseded", errs)
	if v := f.bmc(doorSlow); v.Power != power.Off || v.Cuts-before[doorSlow].Cuts != 1 || v.PowerOns != before[doorSlow].PowerOns {
		t.Errorf("%s: %+v", doorSlow, v)
	}
	go func() { first <- powerman("-1", doorSlow) }()
	f.runs(doorSlow, power.ActOn)
	good("on, while on runs", powerman("-1", doorSlow), done)
	good("the first on", <-first, done)
	if v := f.bmc(doorSlow); v.Power != power.On || v.PowerOns-before[doorSlow].PowerOns != 1 {
		t.Errorf("%s: %+v", doorSlow, v)
	}

	before = f.now()
	good("off", powerman("-0", doorHealthy), done)
	f.allAre(power.Off, before, 0, 1)
	bad("reset of what is off", powerman("-r", "n00001"), "n00001: failed: node is off", errs)
	out := f.mustRun("audit", "n00001", "-o", "json")
	if !strings.Contains(out, "powerman, 127.0.0.1:") {
		t.Errorf("the audit log does not tell who asked: %s", out)
	}

	f.kill("central")
	bad("on, while central is away", powerman("-1", "n00001"), "n00001: ", "not reachable", errs)
	f.allAre(power.Off, before, 0, 1)
}

// TestPowermanOnStdin serves one client as inetd does, and refuses to be exposed by accident.
func TestPowermanOnStdin(t *testing.T) {
	f := newHall20(t, 41)
	got := f.stock("nodes\r\nstatus n00001\r\non n000", f.cli, "front", "powerman", "--stdin", "--central", "unix://"+f.socket())
	want := "powerman> 306 " + doorAll + "\r\n103 Query complete\r\n" +
		"powerman> 302 on:      \r\n302 off:     n00001\r\n302 unknown: \r\n103 Query complete\r\npowerman> "
	if got.exit != 0 || !strings.HasSuffix(got.out, want) || !strings.HasPrefix(got.out, "001 rackpower-") {
		t.Errorf("%+v", got)
	}
	got = f.stock("", f.cli, "front", "powerman", "--listen", "0.0.0.0:0", "--central", "unix://"+f.socket())
	if got.exit != 2 || !strings.Contains(got.errs, "--expose") {
		t.Errorf("%+v", got)
	}
}
