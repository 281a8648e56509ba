package cmd_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// deployed is a site of 40 nodes that run, DEPLOYED, and were seen so.
func deployed(t *testing.T) (*site, []*bmcsim.BMC) {
	t.Helper()
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 40, Initial: power.On})
	s.addAs(farm, "DEPLOYED")
	s.read("all", power.On)
	s.matched("n01", "n40")
	return s, bmcs(farm)
}

// braked waits for the brake and returns it.
func (s *site) braked() (held api.RackBrake) {
	s.t.Helper()
	s.until(30*time.Second, "the brake holds", func() bool {
		list, err := s.client.Brakes(s.t.Context())
		if err != nil || len(list) != 1 {
			return false
		}
		held = list[0]
		return true
	})
	return held
}

func (s *site) letGo() {
	s.t.Helper()
	s.until(30*time.Second, "the brake lets go", func() bool {
		list, err := s.client.Brakes(s.t.Context())
		return err == nil && len(list) == 0
	})
}

func TestBrakeHoldsWhatAScriptChangesOneByOne(t *testing.T) {
	s, list := deployed(t)
	watched := s.watch()
	dark := func() int { return commanded(list, power.PowerOff) }
	for i := range 30 {
		s.mustRun("node", "set-status", fmt.Sprintf("n%02d", i+1), "READY")
	}
	held := s.braked()
	s.until(20*time.Second, "the brake names all 30", func() bool { held = s.braked(); return len(held.Nodes) == 30 })
	if held.Rack != "r1" || held.Kind != "cut" || held.Total != 40 {
		t.Errorf("%+v", held)
	}
	s.saysAll("brake show", "n[01-30]", "30 of 40 nodes", "rackpower brake release r1")
	s.saysAll("agents -o wide", "30 of 40 nodes would be powered off")
	s.saysAll("status n01", "READY off pending: brake", "rack r1: the brake holds 30 nodes")
	s.saysAll("explain n01", "n01 is on; status READY wants it off", "The monitor does nothing: the fleet brake holds",
		"rackpower brake release r1")
	watched.says("status "+testerName+" READY, was DEPLOYED; desired off", "of 40 nodes would be powered off at once, and nobody confirmed it")
	if text := watched.text(); strings.Contains(text, "drift") {
		t.Errorf("a changed status is shown as a drift:\n%s", text)
	}
	t.Run("over a death of the agent", func(t *testing.T) {
		s.kill("r1")
		s.startWatchful()
		s.until(20*time.Second, "the agent is back", func() bool {
			list, err := s.client.Agents(t.Context())
			return err == nil && len(list) == 1 && list[0].State == "alive"
		})
		s.stays(4*time.Second, "the same brake holds", func() bool { return s.braked().ID == held.ID && dark() == 0 })
	})
	t.Run("over a death of central", func(t *testing.T) {
		s.kill("central")
		s.startCentral()
		if again := s.braked(); again.ID != held.ID || len(again.Nodes) != 30 {
			t.Errorf("%+v", again)
		}
	})
	t.Run("undone", func(t *testing.T) {
		s.mustRun("node", "set-status", "n[01-30]", "DEPLOYED")
		s.letGo()
		watched.says("brake-over")
		s.saysAll("brake show", "no brake holds")
		if n := dark(); n != 0 {
			t.Errorf("%d nodes went dark", n)
		}
	})
	t.Run("confirmed", func(t *testing.T) {
		out, errs, exit := s.run("node", "set-status", "n[01-30]", "READY", "--reason", "they go back")
		if exit != 2 || !strings.Contains(errs, "30 nodes will lose power") {
			t.Errorf("without a confirmation: exit status %d: %s%s", exit, out, errs)
		}
		s.mustRun("node", "set-status", "n[01-30]", "READY", "--yes", "--reason", "they go back")
		s.read("n[01-30]", power.Off)
		if list, err := s.client.Brakes(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		if n := dark(); n != 30 {
			t.Errorf("%d power-offs", n)
		}
		for _, b := range list[30:] {
			if len(b.Commands()) != 0 {
				t.Errorf("%s: %+v", b.Name(), b.Commands())
			}
		}
	})
}

// TestBrakeHoldsAnUnconfirmedCall is one call for all, as a program makes it that
// asks nobody, and what an administrator can do about it.
func TestBrakeHoldsAnUnconfirmedCall(t *testing.T) {
	s, list := deployed(t)
	wrong := func() {
		t.Helper()
		nodes, err := s.client.Nodes(t.Context(), "n[01-30]")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range nodes {
			names = append(names, n.Name)
		}
		if _, err := s.client.SetStatus(t.Context(), api.SetStatus{Names: names, Status: "READY", AskedBy: "script"}); err != nil {
			t.Fatal(err)
		}
	}
	wrong()
	if held := s.braked(); len(held.Nodes) != 30 {
		t.Errorf("%+v", held)
	}
	if n := commanded(list, power.PowerOff); n != 0 {
		t.Fatalf("%d nodes went dark", n)
	}
	s.mustRun("off", "n01", "--reason", "requests are carried out")
	s.until(20*time.Second, "the brake names the others", func() bool { return len(s.braked().Nodes) == 29 })
	out, errs, exit := s.run("brake", "release", "r1", "--reason", "it is meant")
	if exit != 2 || !strings.Contains(errs, "29 nodes will lose power") {
		t.Errorf("release without a confirmation: exit status %d: %s%s", exit, out, errs)
	}
	s.saysAll("brake release r1 --reason meant --yes", "rack r1: released", "n[02-30]")
	s.letGo()
	s.read("n[01-30]", power.Off)
	s.read("n[31-40]", power.On)
	if n := commanded(list, power.PowerOff); n != 30 {
		t.Errorf("%d power-offs", n)
	}
	if !s.audited("brake-release", "meant") {
		t.Error("the audit log does not tell who released the brake")
	}
}

// TestBrakeHoldsOverADeathDuringTheScript has the agent die while the statuses still
// come, and start after more of them came.
func TestBrakeHoldsOverADeathDuringTheScript(t *testing.T) {
	s, list := deployed(t)
	for i := range 30 {
		switch i {
		case 4:
			s.kill("r1")
		case 20:
			s.startWatchful()
		}
		// Not by a command each: all have to come within the 5 s for which the brake counts them together.
		in := api.SetStatus{Names: []string{fmt.Sprintf("n%02d", i+1)}, Status: power.StatusReady, AskedBy: "script"}
		if _, err := s.client.SetStatus(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	s.until(20*time.Second, "the brake names all 30", func() bool { return len(s.braked().Nodes) == 30 })
	s.stays(time.Second, "nothing goes dark", func() bool { return commanded(list, power.PowerOff) == 0 })
}

// TestBrakeReleasedAtTheRack has central away while it holds.
func TestBrakeReleasedAtTheRack(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 10, Initial: power.On})
	s.addAs(farm, "DEPLOYED")
	s.read("all", power.On)
	s.matched("n01", "n10")
	s.mustRun("node", "set-status", "n[01-08]", "READY", "--confirm-share", "100") // nobody is asked
	s.braked()
	s.kill("central")
	socket := " --socket " + s.agentSocket("r1")
	s.saysAll("local brake show"+socket, "n[01-08] (8 of 10)", "rackpower local brake release")
	s.saysAll("local explain n01"+socket, "fleet brake", "rackpower local brake release")
	s.saysAll("local brake release --yes"+socket, "released", "n[01-08]")
	s.until(20*time.Second, "what is wanted off is off", func() bool { return commanded(bmcs(farm), power.PowerOff) == 8 })
	s.saysAll("local brake show"+socket, "no brake holds")
	s.startCentral()
	s.letGo()
	s.read("n[01-08]", power.Off)
	s.read("n[09-10]", power.On)
}
