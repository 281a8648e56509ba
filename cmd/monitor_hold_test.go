package cmd_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// TestHolds walks through what a hold is for, with central and without.
func TestHolds(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 4, Initial: power.On})
	s.addAs(farm, "DEPLOYING")
	s.read("all", power.On)
	socket := []string{"--socket", s.agentSocket("r1")}
	power1 := func(i int, want power.State) func() bool {
		return func() bool { return farm.BMC(i).Power() == want }
	}

	out, errs, exit := s.run("off", "n01")
	if text := out + errs; exit != 5 || !strings.Contains(text, "DEPLOYING") || !strings.Contains(text, "--hold") ||
		!strings.Contains(text, "status") {
		t.Errorf("off against the desired state: exit status %d:\n%s", exit, text)
	}
	s.saysAll("explain n01", "n01 is on, as status DEPLOYING wants it")

	s.mustRun("off", "n01", "--hold", "--reason", "swapping a DIMM")
	s.saysAll("status n01", "off (held by "+testerName+")")
	s.saysAll("explain n01", "n01 is off, as hold of "+testerName+" wants it", "swapping a DIMM", "rackpower release n01")
	s.stays(2500*time.Millisecond, "the held node stays off", power1(0, power.Off))
	if n := farm.BMC(0).PowerOns(); n != 0 {
		t.Errorf("n01 was turned on %d times", n)
	}
	s.mustRun("release", "n01")
	s.until(10*time.Second, "the status counts again", power1(0, power.On))

	// One that ends while central is away.
	s.mustRun("off", "n02", "--hold", "--hold-for", "4s", "--reason", "a moment")
	s.until(10*time.Second, "n02 is off", power1(1, power.Off))
	s.kill("central")
	s.until(15*time.Second, "n02 is on again by itself", power1(1, power.On))

	// One at the rack while central is away.
	out, errs, exit = s.run(append([]string{"local", "off", "n03"}, socket...)...)
	if text := out + errs; exit != 5 || !strings.Contains(text, "--hold") {
		t.Errorf("local off against the desired state: exit status %d:\n%s", exit, text)
	}
	s.mustRun(append([]string{"local", "off", "n03", "--hold", "--reason", "smoke"}, socket...)...)
	s.kill("r1")
	s.startWatchful()
	s.stays(2500*time.Millisecond, "n03 stays off over a death of the agent", power1(2, power.Off))
	if n := farm.BMC(2).PowerOns(); n != 0 {
		t.Errorf("n03 was turned on %d times", n)
	}
	s.startCentral()
	s.until(20*time.Second, "central knows of the hold", func() bool {
		nodes, err := s.client.Nodes(t.Context(), "n03")
		return err == nil && len(nodes) == 1 && nodes[0].Hold != nil && nodes[0].Hold.Want == power.WantOff
	})
	s.saysAll("explain n03", "hold of", "smoke")
	if n := s.node("n02"); n.Hold != nil {
		t.Errorf("central still shows the hold that ended: %+v", n.Hold)
	}
	s.mustRun("release", "n03")
	s.until(10*time.Second, "n03 is on", power1(2, power.On))
	if n := len(farm.BMC(3).Commands()); n != 0 {
		t.Errorf("n04 got %d commands", n)
	}
}

// TestInterruptedPowerOffEndsOff kills the agent while it turns nodes off of which
// the last reading says on.
func TestInterruptedPowerOffEndsOff(t *testing.T) {
	for _, c := range []struct {
		name  string
		slow  func(*bmcsim.BMC)
		ready func(*bmcsim.BMC) bool // to have the agent die
	}{
		{
			"after the command left",
			func(b *bmcsim.BMC) { b.Late(0, 1500*time.Millisecond) },
			func(b *bmcsim.BMC) bool { return commanded([]*bmcsim.BMC{b}, power.PowerOff) == 1 },
		},
		{
			"before the command left",
			func(b *bmcsim.BMC) { b.Delay(700 * time.Millisecond) },
			func(b *bmcsim.BMC) bool { return true },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := watchful(t)
			farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.On})
			s.addAs(farm, "DEPLOYED")
			s.mustRun("hold", "n03", "hands-off", "--reason", "hands off")
			s.read("all", power.On)
			for _, b := range bmcs(farm) {
				c.slow(b)
			}
			s.mustRun("off", "n01", "--wait", "accepted")
			s.mustRun("off", "n02", "--hold", "--reason", "dark", "--wait", "accepted")
			s.mustRun("off", "n03", "--wait", "accepted")
			for _, b := range bmcs(farm) {
				s.until(10*time.Second, "it is time", func() bool { return c.ready(b) })
			}
			left := commanded(bmcs(farm), power.PowerOff)
			s.kill("r1")
			if c.name == "before the command left" && left != 0 {
				t.Fatalf("%d commands had left", left)
			}
			for _, b := range bmcs(farm) {
				b.Delay(0)
			}
			s.startWatchful()
			s.read("all", power.Off)
			s.stays(2500*time.Millisecond, "they stay off", func() bool {
				for _, b := range bmcs(farm) {
					if b.Power() != power.Off || commanded([]*bmcsim.BMC{b}, power.PowerOn) != 0 {
						return false
					}
				}
				return true
			})
			for _, op := range s.allEnded(10 * time.Second) {
				if op.Outcome != power.Succeeded {
					t.Errorf("%s of %s: %s %s", op.Action, op.Node, op.Outcome, op.Detail)
				}
			}
			for _, b := range bmcs(farm) {
				if n := commanded([]*bmcsim.BMC{b}, power.PowerOff); n != 1 {
					t.Errorf("%s got %d power-offs", b.Name(), n)
				}
			}
		})
	}
}

// TestInterruptedPowerOffOfARealBMC is the same with a BMC simulator that is not ours.
func TestInterruptedPowerOffOfARealBMC(t *testing.T) {
	sim := powertest.StartIPMISim(t, 1)[0]
	if err := errors.Join(sim.SetPower(power.On), sim.Set(powertest.FaultLate, "1.5")); err != nil {
		t.Fatal(err)
	}
	s := watchful(t)
	spec := specOf("n1", sim.Endpoint())
	spec.Status = "DEPLOYED"
	s.addNodes(spec)
	s.read("n1", power.On)
	s.mustRun("off", "n1", "--wait", "accepted")
	s.until(10*time.Second, "the command arrived", func() bool { return len(sim.Log()) == 1 })
	s.kill("r1")
	s.startWatchful()
	s.read("n1", power.Off)
	s.stays(2*time.Second, "it stays off", func() bool { return sim.Power() == power.Off })
	if log := sim.Log(); len(log) != 1 || log[0].Command != power.PowerOff {
		t.Errorf("%+v", log)
	}
}
