package main

import (
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestListsInPagesPrintTheSame: whatever central's pages are, a command prints the whole list.
func TestListsInPagesPrintTheSame(t *testing.T) {
	f := newFake(t, hall(7, power.On)...)
	now := time.Now()
	f.clock.Now = func() time.Time { return now } // ages do not change between two runs
	f.racks = []api.Rack{{Name: "r1"}, {Name: "r2"}, {Name: "r3"}}
	f.agents = []api.Agent{{Name: "r1", State: "alive"}, {Name: "r2", State: "away"}, {Name: "r3", State: "never"}}
	f.brakes = []api.RackBrake{{Rack: "r1"}, {Rack: "r2"}}
	f.domains = []api.Domain{{DomainState: api.DomainState{DomainLimit: api.DomainLimit{Name: "a"}}}, {DomainState: api.DomainState{DomainLimit: api.DomainLimit{Name: "b"}}}}
	f.schedules = []api.Schedule{{Name: "day", Cron: "0 7 * * *"}, {Name: "night", Cron: "0 19 * * *"}}
	f.runs = []api.ScheduledRun{{Schedule: "day", At: now.Add(time.Hour)}, {Schedule: "night", At: now.Add(2 * time.Hour)}}
	f.export = []api.NodeSpec{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for _, args := range []string{
		"status --long", "status -o json", "status --summary", "node list", "node list -o name", "node export", "agents", "rack list", "brake show",
		"domain list", "schedule list", "schedule next", "peers", "explain r1n03", "version",
	} {
		f.page = 0
		whole := f.run(args)
		before := f.turned.Load()
		f.page = 1
		if got := f.run(args); got.out != whole.out || got.exit != whole.exit || got.exit > 1 {
			t.Errorf("%s in pages: status %d\n%s\n%s\nin one: status %d\n%s", args, got.exit, got.out, got.errs, whole.exit, whole.out)
		}
		if f.turned.Load() == before && args != "explain r1n03" {
			t.Errorf("%s read no further page", args)
		}
	}
}
