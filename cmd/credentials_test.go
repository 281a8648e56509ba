package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// file writes a file of the site and returns its path.
func (s *site) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) reaches(name string, reach power.Reach) {
	s.t.Helper()
	s.until(20*time.Second, name+" is "+string(reach), func() bool {
		nodes, err := s.client.ReadNodes(s.t.Context(), api.ReadNodes{Names: []string{name}, Wait: time.Second})
		return err == nil && len(nodes) == 1 && nodes[0].Reach == reach
	})
}

// TestCredentialsAsANewUserWould: credentials at central for a rack, of a node, and in a file
// on the rack; a change reaches the nodes that use them, over a restart of both.
func TestCredentialsAsANewUserWould(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 3, Password: "first"})
	s := newSite(t)
	own := s.file("own.yaml", "- {name: of-the-rack, user: admin, password_file: own.password}\n")
	s.file("own.password", "first\n")
	args := append(s.agentArgs("r1", "off"), "--credentials-file", own)
	s.spawn("r1", s.cli, args...)

	s.mustRun("credentials", "set", "lab", "--user", "admin", "--password-file", s.file("pw", "first\n"))
	bmc := func(i int) string { return strings.Replace(farm.BMC(i).Endpoint().String(), "admin@", "", 1) }
	s.mustRun("node", "add", "n01", "--rack", "r1", "--bmc", bmc(0))
	s.mustRun("rack", "set", "r1", "--credentials", "lab")
	s.mustRun("node", "add", "n02", "--rack", "r1", "--bmc", bmc(1), "--credentials", "lab")
	_, errs, exit := s.run("node", "add", "n03", "--rack", "r1", "--bmc", bmc(2), "--credentials", "of-the-rack")
	if exit != 0 || !strings.Contains(errs, "central has no credentials of-the-rack") || strings.Count(errs, "central has no") != 1 {
		t.Errorf("%d, %s", exit, errs)
	}
	s.mustRun("on", "n[01-03]")
	out := s.mustRun("credentials", "list")
	for _, part := range []string{"lab ", "admin", "2", "r1", "of-the-rack", "(not at central)"} {
		if !strings.Contains(out, part) {
			t.Errorf("the list lacks %q:\n%s", part, out)
		}
	}
	_, errs, exit = s.run("credentials", "rm", "lab")
	if exit != 5 || !strings.Contains(errs, "named by n02 and rack r1") {
		t.Errorf("%d, %s", exit, errs)
	}

	out = s.mustRun("credentials", "test", "n[01-03]")
	for _, part := range []string{"n01   ok", "administrator", "cipher suite 17", "of-the-rack"} {
		if !strings.Contains(out, part) {
			t.Errorf("the tests lack %q:\n%s", part, out)
		}
	}
	out = s.mustRun("node", "test", "n01")
	for _, part := range []string{"product 0x0001", "1 of 63", "clock:         right", "IPMI 2.0"} {
		if !strings.Contains(out, part) {
			t.Errorf("the test lacks %q:\n%s", part, out)
		}
	}
	for i := range farm.Len() {
		farm.BMC(i).SetPassword("second")
	}
	refused := farm.BMC(2).AuthFailures()
	out, errs, exit = s.run("credentials", "test", "n03")
	if exit != 1 || !strings.Contains(out, "n03   auth-failed") || !strings.Contains(out, "wrong password") ||
		!strings.Contains(errs, "1 of 1 test failed") || farm.BMC(2).AuthFailures() != refused+1 {
		t.Errorf("%d, %d refused:\n%s%s", exit, farm.BMC(2).AuthFailures()-refused, out, errs)
	}
	s.mustRun("credentials", "set", "lab", "--user", "admin", "--password-file", s.file("pw", "second\n"))
	s.mustRun("off", "n[01-02]", "--yes")
	s.file("own.password", "second\n")
	s.file("own.yaml", "- {name: of-the-rack, user: admin, password: second}\n")
	s.reaches("n03", power.ReachOK)

	s.kill("central")
	s.kill("r1")
	s.spawn("r1", s.cli, args...) // alone: by what it kept
	local, err := api.NewClient("unix://" + s.agentSocket("r1"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	s.until(20*time.Second, "the agent reads all nodes by itself", func() bool {
		nodes, err := local.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"n01", "n02", "n03"}, Wait: time.Second})
		ok := err == nil && len(nodes) == 3
		for _, n := range nodes {
			ok = ok && n.Reach == power.ReachOK
		}
		return ok
	})
	s.startCentral()
	s.file("own.yaml", "[]\n")
	s.reaches("n03", power.ReachUnconfigured)
	out = s.mustRun("explain", "n03")
	for _, part := range []string{"names the credentials of-the-rack", "rackpower credentials set", "--credentials-file"} {
		if !strings.Contains(out, part) {
			t.Errorf("explain lacks %q:\n%s", part, out)
		}
	}
	_, _, exit = s.run("on", "n03")
	if exit == 0 {
		t.Error("n03 is on without credentials")
	}
}

// TestCredentialsAreReplacedInAnyOrder: BMCs get the new password one after the other, agent and
// central are killed meanwhile, no node is locked out, and in the end the old ones are gone.
func TestCredentialsAreReplacedInAnyOrder(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 4, Password: "first"})
	s := newSite(t)
	s.startMonitor("r1", "@every 1s")
	s.mustRun("credentials", "set", "lab", "--user", "admin", "--password-file", s.file("pw", "first\n"))
	for i := range farm.Len() {
		s.mustRun("node", "add", farm.BMC(i).Name(), "--rack", "r1", "--bmc", farm.BMC(i).Endpoint().String(), "--credentials", "lab")
	}
	for i := range farm.Len() {
		s.reaches(farm.BMC(i).Name(), power.ReachOK)
	}
	farm.BMC(0).SetPassword("second")
	second := s.file("new", "second\n")
	out, errs, exit := s.run("credentials", "rotate", "lab", "--user", "admin", "--password-file", second, "--on", "n[01-02]")
	if exit != 4 || !strings.Contains(out, "n01   ok           new") || !strings.Contains(out, "n02   auth-failed  old") ||
		strings.Contains(out, "n03   ") || !strings.Contains(out, "1 node use the new ones, 3 keep the old: n[02-04]") {
		t.Errorf("%d\n%s%s", exit, out, errs)
	}
	s.mustRun("on", "n[01-04]")
	farm.BMC(1).SetPassword("second") // the agent finds out when it logs in next
	s.mustRun("node", "retry", "n02")
	s.until(60*time.Second, "n02 uses the new ones", func() bool {
		all, err := s.client.Credentials(t.Context())
		return err == nil && len(all) == 1 && len(all[0].Took) == 2
	})
	s.kill("central")
	s.kill("r1")
	farm.BMC(2).SetPassword("second")
	s.startCentral()
	s.startMonitor("r1", "@every 1s")
	_, errs, exit = s.run("credentials", "rotate", "lab", "--cancel")
	if exit != 5 && exit != 3 {
		t.Errorf("%d, %s", exit, errs)
	}
	s.reaches("n04", power.ReachOK)
	s.reaches("n03", power.ReachOK)
	farm.BMC(3).SetPassword("second")
	s.until(60*time.Second, "the replacement is over", func() bool {
		out, errs, exit = s.run("credentials", "rotate", "lab")
		return exit == 0 && strings.Contains(out, "the old ones are gone")
	})
	s.mustRun("off", "n[01-04]", "--yes")
	for i := range farm.Len() {
		if n := farm.BMC(i).AuthFailures(); n > 3 {
			t.Errorf("%s refused %d log-ins", farm.BMC(i).Name(), n)
		}
	}
}
