package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// agentRow is what central shows of an agent.
func (s *site) agentRow(name string) (row api.Agent) {
	agents, err := s.client.Agents(s.t.Context())
	if err != nil {
		return row
	}
	for _, a := range agents {
		if a.Name == name {
			row = a
		}
	}
	return row
}

func (s *site) alarmOf(name, kind string) string {
	for _, al := range s.agentRow(name).Alarms {
		if al.Kind == kind {
			return al.Message
		}
	}
	return ""
}

// logLines counts the lines of a process's log that have the text.
func (s *site) logLines(name, text string) int {
	data, err := os.ReadFile(filepath.Join(s.dir, name+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Count(string(data), text)
}

// TestAClonedAgentStandsDown: a copy of a running agent's directory, started beside it,
// gets nothing, and central names the cause. A restart of the real one is in meanwhile.
func TestAClonedAgentStandsDown(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 2})
	s := newSite(t)
	s.startAgent("r1")
	s.addFarm(farm)
	s.mustRun("on", "n01")
	if out, err := exec.Command("cp", "-a", filepath.Join(s.dir, "r1"), filepath.Join(s.dir, "clone")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.kill("r1")
	s.startAgent("r1") // the clone is as old as this start, then
	s.until(20*time.Second, "the agent is back", func() bool { return s.logLines("r1", "central reached") == 2 })
	args := s.agentArgs("r1", "off")
	for i, a := range args {
		switch a {
		case filepath.Join(s.dir, "r1"):
			args[i] = filepath.Join(s.dir, "clone")
		case s.agentSocket("r1"):
			args[i] = s.agentSocket("clone")
		}
	}
	s.spawn("clone", s.cli, args...)
	s.until(40*time.Second, "the alarm names the cause",
		func() bool { return strings.Contains(s.alarmOf("r1", api.AlarmTwoAgents), "cloned") })
	s.mustRun("off", "n01")
	if out, errs, exit := s.run("local", "status", "--socket", s.agentSocket("clone")); exit != 0 ||
		!strings.Contains(errs, "gives the name r1 to another agent") {
		t.Errorf("the clone does not say so: %d\n%s%s", exit, out, errs)
	}
	if at, own := s.logLines("central", "another agent of this name was refused"), s.logLines("clone",
		"central gives the name to another agent"); at < 1 || at > 2 || own < 1 || own > 2 {
		t.Errorf("logged %d times at central, %d times at the clone", at, own)
	}
	s.kill("r1")
	s.startAgent("r1")
	s.until(20*time.Second, "the restarted one is in", func() bool { return s.logLines("r1", "central reached") == 3 })
	s.mustRun("on", "n02")
	if s.logLines("clone", "central reached") != 0 || s.logLines("clone", `"accepted"`) != 0 {
		t.Error("the clone got the name")
	}
}

// TestAMovedNodeWaitsForAnAgentThatIsCutOff: while the old agent cannot be asked, the new
// one gets nothing of the node; when it is back it lets go first.
func TestAMovedNodeWaitsForAnAgentThatIsCutOff(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 2})
	s := newSite(t)
	s.startAgent("r1")
	s.startAgent("r2")
	s.addFarm(farm)
	s.mustRun("node", "add", "n02", "--rack", "r2", "--update")
	s.mustRun("on", "n02")
	s.mustRun("off", "n01")
	signal := func(sig syscall.Signal) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.procs["r1"].Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	_, stderr, exit := s.run("node", "add", "n01", "--rack", "r2", "--update")
	if exit != 0 || !strings.Contains(stderr, "has to let go of it first") {
		t.Errorf("%d %q", exit, stderr)
	}
	op, err := s.ask("n01", power.ActOn, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.mustRun("off", "n02") // r2 hears of all that is its own
	s.mustRun("on", "n02")
	if farm.BMC(0).Power() != power.Off || s.logLines("r2", op.ID) != 0 {
		t.Fatal("r2 acted on a node that r1 has not let go of")
	}
	signal(syscall.SIGCONT)
	s.until(20*time.Second, "r2 has turned it on", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{IDs: []string{op.ID}})
		return err == nil && len(found.Ops) == 1 && found.Ops[0].Outcome == power.Succeeded && found.Ops[0].Rack == "r2"
	})
	if farm.BMC(0).Power() != power.On || s.logLines("r1", op.ID) != 0 {
		t.Error("it was not r2 who turned it on")
	}
}
