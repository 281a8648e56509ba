package cmd_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// agent is the agent's row at central.
func (s *site) agent(name string) (a api.Agent) {
	agents, err := s.client.Agents(s.t.Context())
	if err != nil {
		return a
	}
	if i := slices.IndexFunc(agents, func(a api.Agent) bool { return a.Name == name }); i >= 0 {
		a = agents[i]
	}
	return a
}

// alarmed waits until an agent has an alarm of a kind at central, or has none of it.
func (s *site) alarmed(agent, kind string, want bool) {
	s.t.Helper()
	s.until(20*time.Second, "agent "+agent+" is alive, and what is said of "+kind+" is so", func() bool {
		a := s.agent(agent)
		return a.State == "alive" && want == slices.ContainsFunc(a.Alarms, func(al api.Alarm) bool { return al.Kind == kind })
	})
}

// startEmptyCentral starts central at its socket with another directory: a volume that
// is not mounted.
func (s *site) startEmptyCentral() {
	s.t.Helper()
	s.spawn("central", s.serve, "serve", "--data", filepath.Join(s.dir, "empty"), "--socket", s.socket())
	s.until(20*time.Second, "it answers", func() bool { _, err := s.client.Info(s.t.Context()); return err == nil })
}

// TestAnEmptyCentralTakesNothingFromARack: a hold that was set at the rack while central
// was away outlives a central that knows of nothing, and the node keeps its power.
func TestAnEmptyCentralTakesNothingFromARack(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 2})
	s.addAs(farm, power.StatusReady)
	s.read("all", power.Off)
	socket := []string{"--socket", s.agentSocket("r1")}
	local := func(args ...string) string {
		return s.mustRun(append(append([]string{"local"}, args...), socket...)...)
	}

	s.kill("central")
	local("hold", "n01", "on", "--reason", "burn-in")
	s.until(15*time.Second, "the held node is on", func() bool { return farm.BMC(0).Power() == power.On })
	s.startEmptyCentral()
	s.alarmed("r1", api.AlarmCentralUnknown, true)
	s.saysAll("agents", "central-unknown", "never followed", "rackpower local trust")
	s.saysAll("local status --socket "+s.agentSocket("r1"), "central-unknown")
	if out, errs, exit := s.run("on", "n02"); exit == 0 {
		t.Errorf("the empty central took a request for a node that it does not know: %s%s", out, errs)
	}
	keepsPower := func() bool { return farm.BMC(0).Power() == power.On && farm.BMC(0).Cuts() == 0 }
	s.stays(3*time.Second, "the held node keeps its power", keepsPower)
	if out, errs, exit := s.run(append([]string{"local", "trust"}, socket...)...); exit != 2 || !strings.Contains(out, "n[01-02]") ||
		!strings.Contains(errs, "2 go") {
		t.Errorf("local trust: exit status %d\n%s%s", exit, out, errs)
	}
	s.kill("central")

	s.startCentral()
	s.until(20*time.Second, "central knows of the hold", func() bool {
		nodes, err := s.client.Nodes(t.Context(), "n01")
		return err == nil && len(nodes) == 1 && nodes[0].Hold != nil && nodes[0].Hold.Want == power.WantOn
	})
	s.alarmed("r1", api.AlarmCentralUnknown, false)
	s.stays(3*time.Second, "the held node keeps its power", keepsPower)
	if out := local("trust"); !strings.Contains(out, "nothing waits to be confirmed") {
		t.Errorf("local trust: %s", out)
	}

	// When a person says so, the rack goes over to the other one.
	s.kill("central")
	s.startEmptyCentral()
	s.until(20*time.Second, "the agent knows what that would mean", func() bool {
		state, err := clientOf(t, s.agentSocket("r1")).Trust(t.Context())
		return err == nil && state.Untrusted != nil && state.Untrusted.Known
	})
	local("trust", "--yes", "--reason", "another hall")
	s.alarmed("r1", api.AlarmCentralUnknown, false)
	s.until(10*time.Second, "the agent has no nodes", func() bool { return local("status", "-o", "json") == "[]\n" })
	s.addAs(farm, power.StatusDeploying)
	s.until(20*time.Second, "the new central's nodes are on", func() bool { return farm.BMC(1).Power() == power.On })
}

// TestARestoreOfCentralLosesNothingOfARack: what was done after the backup is told to
// the central that was restored from it.
func TestARestoreOfCentralLosesNothingOfARack(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.On})
	var specs []api.NodeSpec
	for _, b := range bmcs(farm) {
		specs = append(specs, specOf(b.Name(), b.Endpoint()))
	}
	s.addNodes(specs[:2]...)
	s.read("all", power.On)
	s.kill("r1")
	before, err := s.ask("n01", power.ActReset, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, backup := filepath.Join(s.dir, "central"), filepath.Join(s.dir, "backup.db")
	command := func(args ...string) {
		t.Helper()
		if text, err := exec.Command(s.serve, args...).CombinedOutput(); err != nil {
			t.Fatalf("rackpower-central %v: %v: %s", args, err, text)
		}
	}
	command("backup", "--data", data, backup)
	s.startWatchful()
	s.addNodes(specs[2:]...)
	s.read("n03", power.On)
	after, err := s.ask("n02", power.ActOff, func(r *api.OpRequest) { r.Reason = "after the backup" })
	if err != nil {
		t.Fatal(err)
	}
	s.allEnded(30 * time.Second)
	s.mustRun("hold", "n02", "off", "--reason", "smoke")
	s.mustRun("local", "hold", "n03", "on", "--reason", "burn-in", "--socket", s.agentSocket("r1"))
	s.until(20*time.Second, "central has confirmed it", func() bool { return s.node("n03").Hold != nil })

	s.kill("central")
	command("restore", "--data", data, backup)
	s.startCentral()
	s.alarmed("r1", api.AlarmAssignmentShrank, true) // n03 is missing in it
	for id, want := range map[string]string{before.ID: "", after.ID: "after the backup"} {
		s.until(20*time.Second, "operation "+id+" is known as it ended", func() bool {
			found, err := s.client.QueryOps(t.Context(), api.QueryOps{IDs: []string{id}})
			return err == nil && len(found.Ops) == 1 && found.Ops[0].Outcome == power.Succeeded && found.Ops[0].Reason == want
		})
	}
	s.until(20*time.Second, "the hold of after the backup is known", func() bool {
		n := s.node("n02")
		return n.Hold != nil && n.Hold.Want == power.WantOff
	})
	s.addNodes(specs[2:]...)
	s.until(20*time.Second, "so is that of the node that was missing", func() bool {
		n := s.node("n03")
		return n.Hold != nil &&
			n.Hold.Want == power.WantOn
	})
	s.alarmed("r1", api.AlarmAssignmentShrank, false)
	if r := farm.BMC(0).Resets(); r != 1 || farm.BMC(1).Cuts() != 1 || farm.BMC(2).Cuts() != 0 {
		t.Errorf("%d resets of n01, %d cuts of n02, %d of n03", r, farm.BMC(1).Cuts(), farm.BMC(2).Cuts())
	}
	entries, err := s.client.Audit(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Outcome == string(power.Indeterminate) {
			t.Errorf("%+v", e)
		}
	}
}

// TestARestoreIsEnforcedWhenAPersonConfirmsIt: what was set after the backup stands until
// somebody has seen that the backup says otherwise.
func TestARestoreIsEnforcedWhenAPersonConfirmsIt(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 8, Initial: power.Off})
	s.addAs(farm, power.StatusReady)
	s.read("all", power.Off)
	data, backup := filepath.Join(s.dir, "central"), filepath.Join(s.dir, "backup.db")
	command := func(args ...string) {
		t.Helper()
		if text, err := exec.Command(s.serve, args...).CombinedOutput(); err != nil {
			t.Fatalf("rackpower-central %v: %v: %s", args, err, text)
		}
	}
	command("backup", "--data", data, backup)
	s.mustRun("node", "set-status", "all", "TESTING", "--reason", "burn-in", "--yes")
	s.until(30*time.Second, "all are on", func() bool { return farm.BMC(7).Power() == power.On && farm.BMC(0).Power() == power.On })
	s.read("all", power.On)
	s.kill("central")
	command("restore", "--data", data, backup)
	s.startCentral()
	s.until(30*time.Second, "the rack waits for a person", func() bool {
		site, err := s.client.Site(t.Context())
		return err == nil && len(site.Waits) == 1 && len(site.Differences) == 8
	})
	s.read("all", power.On) // with what is desired now in the hands of the monitor
	s.read("all", power.On)
	if out := s.mustRun("site", "show"); !strings.Contains(out, "off, status READY") {
		t.Errorf("%s", out)
	}
	for i := range 8 {
		if n := farm.BMC(i).Cuts(); n != 0 {
			t.Errorf("n%d was cut %d times before anybody confirmed it", i+1, n)
		}
	}
	s.mustRun("site", "confirm", "--reason", "as it was", "--yes")
	s.until(60*time.Second, "all are off", func() bool {
		for i := range 8 {
			if farm.BMC(i).Cuts() != 1 {
				return false
			}
		}
		return true
	})
}
