package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/power"
)

// fenceAgent makes the program known by the name of the fence agent.
func (f hall20) fenceAgent() string {
	f.t.Helper()
	path := filepath.Join(f.dir, "fence_rackpower")
	if err := os.Symlink(f.cli, path); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// nodes20 are all nodes of a hall20.
func (f hall20) nodes20() (names []string) {
	for i := range f.size {
		names = append(names, f.name(i))
	}
	return names
}

// TestFenceAgent has the agent told on stdin, as a cluster tells it, to fence 20 nodes at once, and
// compares its exit statuses with what reached each BMC.
func TestFenceAgent(t *testing.T) {
	doors(t)
	f := newHall20(t, 42)
	agent := f.fenceAgent()
	all := func(action string, want int, names []string) {
		t.Helper()
		var calls sync.WaitGroup
		for _, name := range names {
			want := want
			stdin := fmt.Sprintf("# from the cluster\nagent=fence_rackpower\nnodename=%s\naction=%s\npower_timeout=90\n", name, action)
			if !healthy(name) {
				want = 1
				stdin += "power_timeout=15\n"
			}
			calls.Go(func() {
				if got := f.stock(stdin, agent); got.exit != want || want == 1 && got.errs == "" {
					t.Errorf("%s of %s: want status %d: %+v", action, name, want, got)
				}
			})
		}
		calls.Wait()
	}
	nodes := f.nodes20()
	well := slices.DeleteFunc(slices.Clone(nodes), func(name string) bool { return !healthy(name) })
	all("status", 2, well)
	before := f.now()
	all("on", 0, well)
	f.allAre(power.On, before, 1, 0)
	all("status", 0, nodes)
	before = f.now()
	all("reboot", 0, well)
	f.allAre(power.On, before, 1, 1)

	before = f.now()
	first := make(chan said, 1)
	f.mustRun("cycle", doorSlow, "--wait", "none")
	f.runs(doorSlow, power.ActCycle)
	go func() { first <- f.stock("", agent, "-o", "on", "-n", doorSlow, "--power-timeout", "90") }()
	f.until(time.Minute, "the on is known", func() bool {
		return strings.Contains(f.mustRun("ops", doorSlow, "-o", "json"), `"joined": "0`)
	})
	if got := f.stock("", agent, "-o", "off", "-n", doorSlow, "--power-timeout", "90"); got.exit != 0 {
		t.Errorf("off: %+v", got)
	}
	if got := <-first; got.exit != 1 || !strings.Contains(got.errs, "superseded") {
		t.Errorf("on: %+v", got)
	}
	if v := f.bmc(doorSlow); v.Power != power.Off || v.Cuts-before[doorSlow].Cuts != 1 || v.PowerOns != before[doorSlow].PowerOns {
		t.Errorf("%s: %+v", doorSlow, v)
	}

	all("off", 0, nodes)
	for _, v := range f.views() {
		if v.Power != power.Off {
			t.Errorf("%s is %s", v.Name, v.Power)
		}
	}
	for _, c := range []struct {
		args string
		exit int
		want string // on stdout, or on stderr where it fails
	}{
		{"-o metadata", 0, `<resource-agent name="fence_rackpower"`},
		{"-o list", 0, "n00001,\nn00002,\n"},
		{"-o list-status", 0, "n00001,,OFF\nn00002,,OFF\nn00003,,UNKNOWN\nn00004,,UNKNOWN\nn00005,,OFF\n"},
		{"-o monitor", 0, ""},
		{"-o monitor -n n00099", 1, "no such nodes: n00099"},
		{"-o validate-all", 0, ""},
		{"-o status -n n00001", 2, "Status: OFF\n"},
		{"-o status", 1, "needs a node"},
		{"-o status -n all", 1, "no such nodes: all"},
		{"-o off -n n00099", 1, "no such nodes: n00099"},
		{"-o diag -n n00001", 1, "unknown action"},
		{"--bogus", 1, "unknown flag"},
		{"-o status -n n00001 --central unix:///nowhere", 1, "not reachable"},
	} {
		got := f.stock("", agent, strings.Fields(c.args)...)
		text := got.out
		if got.exit == 1 {
			text = got.errs
		}
		if got.exit != c.exit || !strings.Contains(text, c.want) {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}

// TestPacemakerFences has Pacemaker's own fencer, without a cluster around it, fence by the agent.
func TestPacemakerFences(t *testing.T) {
	doors(t)
	for _, tool := range []string{"/usr/sbin/stonith_admin", "/usr/lib/pacemaker/pacemaker-fenced", "unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: Pacemaker with the fence agent: %s is not there (apt-get install pacemaker)", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("LEFT OUT: Pacemaker with the fence agent: needs root")
	}
	f := newHall20(t, 43)
	script, err := filepath.Abs("testdata/pacemaker.sh")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(f.dir, "fenced-itself.log")
	f.spawn("pacemaker", "unshare", "--mount", "--net", "--propagation", "private", "sh", script, f.cli, log)
	stonith := func(args ...string) said {
		f.mu.Lock()
		pid := f.procs["pacemaker"].Process.Pid
		f.mu.Unlock()
		return f.stock("", "nsenter", append([]string{"-t", fmt.Sprint(pid), "-m", "-n", "/usr/sbin/stonith_admin"}, args...)...)
	}
	f.until(time.Minute, "the fencer answers", func() bool {
		text, _ := os.ReadFile(log)
		return strings.Contains(string(text), "accepting connections")
	})
	expect := func(exit int, want string, args ...string) {
		t.Helper()
		if got := stonith(args...); (got.exit == 0) != (exit == 0) || !strings.Contains(got.out+got.errs, want) {
			t.Errorf("stonith_admin %s: %+v", strings.Join(args, " "), got)
		}
	}
	expect(0, "fence_rackpower", "--list-installed")
	expect(0, `<parameter name="plug"`, "--metadata", "--agent", "fence_rackpower")
	central := "central=unix://" + f.socket()
	expect(0, "succeeded", "--validate", "--agent", "fence_rackpower", "--option", central)
	expect(0, "", "--register", "rack", "--agent", "fence_rackpower", "--option", central, "--option", "power_timeout=20",
		"--option", "pcmk_host_check=dynamic-list")
	expect(0, "", "--query", "rack")
	expect(0, "n00020", "--list-targets", "rack")
	expect(0, "rack", "--list", "n00007")
	before := f.now()
	expect(0, "", "--unfence", "n00001", "--timeout", "90")
	expect(0, "", "--unfence", "n00002", "--timeout", "90")
	expect(0, "", "--reboot", "n00001", "--timeout", "90")
	expect(0, "", "--fence", "n00002", "--timeout", "90")
	expect(1, "", "--fence", doorHung, "--timeout", "60")
	expect(1, "", "--fence", doorWrong, "--timeout", "60")
	for name, want := range map[string]struct {
		state    power.State
		on, cuts int
	}{
		"n00001": {power.On, 2, 1}, "n00002": {power.Off, 1, 1}, "n00005": {power.Off, 0, 0}, doorHung: {power.Off, 0, 0},
		doorWrong: {power.Off, 0, 0},
	} {
		if v := f.bmc(name); v.Power != want.state || v.PowerOns-before[name].PowerOns != want.on || v.Cuts-before[name].Cuts != want.cuts {
			t.Errorf("%s: want %+v, have %s after %d on and %d cuts", name, want, v.Power, v.PowerOns, v.Cuts)
		}
	}
}
