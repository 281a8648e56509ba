package cmd_test

import (
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestPowerAndCapFromCLIToBMC has what nodes take read.
func TestPowerAndCapFromCLIToBMC(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.On})
	s := newSite(t)
	s.startAgent("r1")
	s.addFarm(farm)
	sum := 0
	for _, n := range decodeJSON[[]api.NodeConsumption](t, s.mustRun("power", "all", "-o", "json")) {
		if n.Reach != power.ReachOK || n.ReadAt == nil || n.Watts == nil || *n.Watts < 100 || *n.Min >= *n.Max || n.Limit == nil ||
			n.Limit.Active {
			t.Errorf("%+v", n)
		}
		sum += *n.Watts
	}
	all := decodeJSON[[]api.ConsumptionSum](t, s.mustRun("power", "all", "--sum", "all", "-o", "json"))
	if len(all) != 1 || all[0].Read != 3 || all[0].Watts != sum {
		t.Errorf("%+v, want %d watts", all, sum)
	}
	if table := s.mustRun("power", "all"); !strings.Contains(table, "rack r1") || !strings.Contains(table, "3 of 3") {
		t.Error(table)
	}
}
