package cmd_test

import (
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestPowerAndCapFromCLIToBMC has what nodes take read and limited, at BMCs of every shape and
// of both protocols.
func TestPowerAndCapFromCLIToBMC(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{
		Count: len(bmcsim.Profiles) + 2, Initial: power.On, Redfish: &bmcsim.Redfish{Profiles: bmcsim.Profiles},
	})
	s := newSite(t)
	s.startAgent("r1")
	var specs []api.NodeSpec
	var able []string // nodes that can be limited
	cuts := ""        // and turned off at the limit
	for i := range farm.Len() {
		b, ep := farm.BMC(i), farm.BMC(i).Endpoint()
		if i < len(bmcsim.Profiles) {
			ep = overRedfish(b)
		}
		specs = append(specs, specOf(b.Name(), ep))
		if i >= len(bmcsim.Profiles) || bmcsim.Profiles[i].Limit != "" {
			able = append(able, b.Name())
		}
		if i < len(bmcsim.Profiles) && bmcsim.Profiles[i].LimitException == "HardPowerOff" {
			cuts = b.Name()
		}
	}
	s.addNodes(specs...)
	s.mustRun("status", "all", "--fresh") // the agent has them
	nodes := strings.Join(able, ",")
	sum := 0
	for _, n := range decodeJSON[[]api.NodeConsumption](t, s.mustRun("power", nodes, "-o", "json")) {
		if n.Reach != power.ReachOK || n.ReadAt == nil || n.Watts == nil || *n.Watts < 100 || n.Limit == nil || n.Limit.Now() != 0 {
			t.Fatalf("%+v", n)
		}
		sum += *n.Watts
	}
	all := decodeJSON[[]api.ConsumptionSum](t, s.mustRun("power", nodes, "--sum", "rack", "-o", "json"))
	if len(all) != 1 || all[0].Read != len(able) || all[0].Watts != sum {
		t.Errorf("%+v, want %d watts of %d", all, sum, len(able))
	}

	fails := func(code int, says string, args ...string) {
		t.Helper()
		if out, errs, exit := s.run(args...); exit != code || !strings.Contains(out+errs, says) {
			t.Errorf("%q: exit status %d\n%s%s", args, exit, out, errs)
		}
	}
	fails(2, "for too long (HardPowerOff): "+cuts, "cap", nodes, "250W")
	for i, step := range []struct {
		watts   string
		now     int
		already bool
	}{{"250W", 250, false}, {"250", 250, true}, {"0.2kW", 200, false}, {"none", 0, false}, {"none", 0, true}} {
		for _, r := range decodeJSON[[]api.Op](t, s.mustRun("cap", nodes, step.watts, "--yes", "-o", "json")) {
			if r.Outcome != power.Succeeded || r.Already != step.already {
				t.Errorf("step %d: %+v", i, r)
			}
		}
		for j := range farm.Len() {
			if b := farm.BMC(j); strings.Contains(nodes, b.Name()) && b.Limit() != step.now {
				t.Errorf("step %d: the limit of %s is %d, want %d", i, b.Name(), b.Limit(), step.now)
			}
		}
		sums := decodeJSON[[]api.ConsumptionSum](t, s.mustRun("power", nodes, "--sum", "all", "-o", "json"))
		if want := step.now * len(able); sums[0].LimitWatts != want || step.now > 0 && sums[0].Watts > want {
			t.Errorf("step %d: %+v", i, sums)
		}
	}
	fails(1, "neither PowerControl nor EnvironmentMetrics", "power", "all")
	fails(1, "1 of 9 nodes were not read", "power", "all")
	fails(1, "neither PowerControl nor EnvironmentMetrics", "cap", "all", "300", "--yes")
	s.mustRun("node", "protect", cuts, "--reason", "it runs the database")
	fails(1, "protected", "cap", cuts, "400", "--yes")
	for i := range farm.Len() {
		if b := farm.BMC(i); b.Power() != power.On || b.Cuts() != 0 || b.MaxInFlight() > 1 {
			t.Errorf("%s is %s after %d cuts, with %d at once", b.Name(), b.Power(), b.Cuts(), b.MaxInFlight())
		}
	}
}
