package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestProgramsFromCLIToBMC has nodes controlled by Debian's fence_ipmilan, which the agent
// runs: one that is well, one with a wrong password, and one whose program hangs.
func TestProgramsFromCLIToBMC(t *testing.T) {
	doors(t)
	const tool = "/usr/sbin/fence_ipmilan"
	if _, err := os.Stat(tool); err != nil {
		t.Skip("LEFT OUT: needs fence_ipmilan (Debian: fence-agents)")
	}
	if _, err := exec.LookPath("ipmitool"); err != nil {
		t.Skip("LEFT OUT: fence_ipmilan needs ipmitool (Debian: ipmitool)")
	}
	farm := startFarm(t, bmcsim.Config{Count: 3})
	s := newSite(t)
	dir := filepath.Join(s.dir, "programs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tool, filepath.Join(dir, "fence_ipmilan")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hangs"), []byte("#!/bin/sh\nsleep 1000\nsleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.spawn("r1", s.cli, append(s.agentArgs("r1", "off"), "--exec-dir", dir)...)
	s.startAgent("r2") // without programs
	const wrong = "not-this-one"
	for i, program := range []string{"fence_ipmilan", "fence_ipmilan", "hangs"} {
		ep := farm.BMC(i).Endpoint()
		pw := string(ep.Password)
		if i == 1 {
			pw = wrong
		}
		s.mustRun("node", "add", farm.BMC(i).Name(), "--rack", "r1", "--password-file", s.file(fmt.Sprint("pw", i), pw), "--bmc",
			fmt.Sprintf("exec:%s?ip=%s&ipport=%d&lanplus=1&cipher=17&username=%s", program, ep.Host, ep.Port, ep.User))
	}
	s.mustRun("node", "add", "n09", "--rack", "r2", "--bmc", "exec:fence_ipmilan?ip=127.0.0.9&plug=1")
	well, refused, hung := farm.BMC(0), farm.BMC(1), farm.BMC(2)

	for _, step := range []struct {
		action    string
		state     power.State
		ons, cuts int
	}{{"on", power.On, 1, 0}, {"on", power.On, 1, 0}, {"cycle", power.On, 2, 1}, {"off", power.Off, 2, 2}, {"cycle", power.On, 3, 2}} {
		for _, r := range decodeJSON[[]result](t, s.mustRun(step.action, "n01", "-o", "json", "--yes")) {
			if r.Outcome != "succeeded" || r.State != string(step.state) {
				t.Errorf("%s: %+v", step.action, r)
			}
		}
		if well.Power() != step.state || well.PowerOns() != step.ons || well.Cuts() != step.cuts {
			t.Errorf("after %s: %s, %d times on, %d cuts", step.action, well.Power(), well.PowerOns(), well.Cuts())
		}
	}
	for _, action := range []string{"reset", "soft-off", "diag", "bmc-reset"} {
		args := []string{action, "n01", "--yes", "-o", "json"}
		if action == "soft-off" {
			args = append(args, "--no-escalate")
		}
		out, errs, exit := s.run(args...)
		if exit == 0 || !strings.Contains(out+errs, "on and off, and no more") {
			t.Errorf("%s: %s%s", action, out, errs)
		}
	}
	if well.Power() != power.On || well.Resets() != 0 || well.Cuts() != 2 || well.MaxInFlight() != 1 {
		t.Errorf("%s, %d resets, %d cuts, %d at once", well.Power(), well.Resets(), well.Cuts(), well.MaxInFlight())
	}
	tests := decodeJSON[[]api.NodeTest](t, s.mustRun("node", "test", "n01", "-o", "json"))
	if len(tests) != 1 || tests[0].State != power.On || tests[0].Protocol != "program fence_ipmilan" {
		t.Errorf("%+v", tests)
	}

	for _, b := range []*bmcsim.BMC{refused, hung} {
		out, errs, exit := s.run("on", b.Name(), "--yes", "--timeout", "35s", "-o", "json")
		if exit == 0 || b.Power() != power.Off || b.PowerOns() != 0 {
			t.Errorf("%s: %s%s; it is %s", b.Name(), out, errs, b.Power())
		}
	}
	s.reaches("n01", power.ReachOK)
	s.reaches("n02", power.ReachUnreachable)
	// ipmitool sees by itself that the password is wrong, so the BMC has no failure to count: the right one shows that it was that.
	ep := refused.Endpoint()
	s.mustRun("node", "add", "n02", "--update", "--rack", "r1", "--password-file", s.file("right", string(ep.Password)), "--bmc",
		fmt.Sprintf("exec:fence_ipmilan?ip=%s&ipport=%d&lanplus=1&cipher=17&username=%s", ep.Host, ep.Port, ep.User))
	s.mustRun("on", "n02", "--yes", "--timeout", "60s")
	if refused.Power() != power.On || refused.PowerOns() != 1 {
		t.Errorf("with the right password: %s, %d times on", refused.Power(), refused.PowerOns())
	}
	out, errs, _ := s.run("on", "n09", "--yes", "--timeout", "20s")
	if !strings.Contains(out+errs, "--exec-dir DIR") {
		t.Errorf("an agent without programs: %s%s", out, errs)
	}
	s.until(time.Minute, "no program is left", func() bool {
		out, _ := exec.Command("pgrep", "-f", dir+"/hangs").Output()
		return len(out) == 0
	})
	log, err := os.ReadFile(filepath.Join(s.dir, "r1.log"))
	if err != nil || strings.Contains(string(log), wrong) || strings.Contains(string(log), string(well.Endpoint().Password)) {
		t.Errorf("a password in the agent's log (%v)", err)
	}
}
