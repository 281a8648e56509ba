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
