package cmd_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestOneBMCServesOneNode: central and two agents as processes, BMCs on loopback. A
// second node at a BMC is refused by every door and in every spelling; one that hides
// behind a name is found by what the name stands for, and nothing acts on the two.
func TestOneBMCServesOneNode(t *testing.T) {
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{Count: 2, Listen: netip.MustParseAddr("127.0.44.1"), Initial: power.On})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { farm.Close() })
	s := newSite(t)
	s.startAgent("r1")
	s.startAgent("r2")
	file := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pw := file("pw", "\ufeff"+string(bmcsim.DefaultPassword)+"\r\n")
	addr := farm.BMC(0).Addr()
	host, port := addr.Addr().String(), addr.Port()
	s.mustRun("node", "add", "n1", "--rack", "r1", "--bmc", fmt.Sprintf("ipmi://admin@%s:%d", host, port), "--password-file", pw)
	spellings := []string{
		fmt.Sprintf("ipmi://admin@%s:%d", host, port), fmt.Sprintf("ipmi://root@[::ffff:%s]:%d?suite=3", host, port),
		fmt.Sprintf("IPMI://admin@%s.:0%d/", host, port), fmt.Sprintf("ipmi://%s:%d?target=0x20&level=user", host, port),
	}
	for i, bmc := range spellings {
		for _, more := range [][]string{nil, {"--update"}} {
			_, errs, exit := s.run(append([]string{"node", "add", "n2", "--rack", []string{"r1", "r2"}[i%2], "--bmc", bmc, "--password-file", pw},
				more...)...)
			if exit != 5 || !strings.Contains(errs, "that of node n1") || !strings.Contains(errs, "?target=0x30") {
				t.Errorf("%s: exit status %d, %s", bmc, exit, errs)
			}
		}
		path := file("nodes.csv", fmt.Sprintf("name,rack,bmc,password_file\nn2,r2,%s,pw\nn3,r1,%s,pw\n", bmc, spellings[0]))
		if _, errs, exit := s.run("node", "import", path); exit != 2 ||
			!strings.Contains(errs, "row 2 (line 3): node n3 has the BMC of node n2 in row 1 (line 2)") {
			t.Errorf("import of %s: exit status %d, %s", bmc, exit, errs)
		}
	}
	for _, bmc := range []string{
		"ipmi:admin:S3cret@h", "admin:S3cret@h", "ipmi://admin%3AS3cret@h", "ipmi://h?password=S3cret",
		"ipmi://admin@10.0.0.999",
	} {
		_, errs, exit := s.run("node", "add", "n2", "--rack", "r1", "--bmc", bmc, "-o", "json")
		if exit != 2 || strings.Contains(errs, "S3cret") {
			t.Errorf("%s: exit status %d, %s", bmc, exit, errs)
		}
		_, err := s.client.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "n2", Rack: "r1", BMC: bmc}}})
		if api.CodeOf(err) != api.CodeBadRequest || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%s: %v", bmc, err)
		}
		if _, errs, _ := s.run("node", "add", bmc, "--rack", "r1"); strings.Contains(errs, "S3cret") {
			t.Errorf("%s as a name: %s", bmc, errs)
		}
	}
	s.hiddenByAName(farm, pw, port)
	for _, name := range []string{"central", "r1", "r2"} {
		if text, _ := os.ReadFile(filepath.Join(s.dir, name+".log")); strings.Contains(string(text), "S3cret") {
			t.Errorf("the log of %s tells a password", name)
		}
	}
}

// hiddenByAName adds a node whose BMC is n-local by the name localhost, and another by
// its address.
func (s *site) hiddenByAName(farm *bmcsim.Farm, pw string, port uint16) {
	t := s.t
	local, err := bmcsim.Start(context.Background(), bmcsim.Config{
		Count: 1, Listen: netip.MustParseAddr("127.0.0.1"), Port: int(port),
		Initial: power.On,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close() })
	s.mustRun("node", "add", "m1", "--rack", "r1", "--bmc", fmt.Sprintf("ipmi://admin@127.0.0.1:%d", port), "--password-file", pw)
	s.mustRun("off", "m1")
	s.mustRun("on", "m1")
	before := len(local.BMC(0).Commands())
	s.mustRun("node", "add", "m2", "--rack", "r2", "--bmc", fmt.Sprintf("ipmi://admin@LocalHost.:%d", port), "--password-file", pw)
	shared := func() bool {
		_, _ = s.client.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"m2"}, Wait: time.Second})
		agents, err := s.client.Agents(t.Context())
		if err != nil {
			return false
		}
		alarmed := 0
		for _, a := range agents {
			for _, al := range a.Alarms {
				if al.Kind == api.AlarmBMCShared {
					alarmed++
				}
			}
		}
		return alarmed == 2
	}
	s.until(30*time.Second, "the two names are found out", shared)
	for _, node := range []string{"m1", "m2"} {
		if out, errs, exit := s.run("off", node); exit != 5 || !strings.Contains(out+errs, "same BMC as m") {
			t.Errorf("off %s: exit status %d, %s%s", node, exit, out, errs)
		}
		if out := s.mustRun("explain", node); !strings.Contains(out, "same BMC as m") {
			t.Errorf("explain %s: %s", node, out)
		}
	}
	s.until(10*time.Second, "the agent knows as well", func() bool {
		_, _, exit := s.run("local", "--socket", s.agentSocket("r1"), "off", "m1")
		return exit == 5
	})
	if got := len(local.BMC(0).Commands()); got != before {
		t.Errorf("%d commands reached the BMC", got-before)
	}
	s.mustRun("node", "rm", "m2")
	s.until(10*time.Second, "m1 has its BMC for itself again", func() bool { _, _, exit := s.run("off", "m1"); return exit == 0 })
}
