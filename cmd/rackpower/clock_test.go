package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/power"
)

func TestTimesSayTheirDayAndZone(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := view{printer.Printer{Clock: printer.Clock{
		Now:  func() time.Time { return at.Add(3 * time.Minute) },
		Zone: time.FixedZone("", 2*3600),
	}}}
	for want, got := range map[string]string{
		"2026-03-01 14:00:00+02:00 (3 min ago)":           p.Since(at),
		"2026-03-01 14:05:00+02:00 (in 2 min)":            p.Until(at.Add(5 * time.Minute)),
		"2026-02-28 14:00:00+02:00":                       p.Time(at.Add(-24 * time.Hour)),
		"2026-03-01 14:01:00+02:00 (3 times in 60 s)":     p.run(at, at.Add(time.Minute), 3),
		"until 2026-03-01 14:03:10+02:00 (in 10 s)":       p.UntilOr(at.Add(190*time.Second), "released"),
		"paused by carol until 2026-03-01 14:30:00+02:00": p.pauseCell(&api.Pause{By: "carol", Until: at.Add(30 * time.Minute)}),
		"since 2026-03-01 14:00:00+02:00: x":              p.Readable("since " + power.At(at) + ": x"),
		"2026-02-32T12:00:00Z is no time":                 p.Readable("2026-02-32T12:00:00Z is no time"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// zones are some in which people live: both ends of the world, offsets that are not
// whole hours, clocks that are changed.
func zones(t *testing.T) []*time.Location {
	var list []*time.Location
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Pago_Pago",
		"Australia/Lord_Howe",
	} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, zone)
	}
	return list
}

// moments are hours of a day, the end of a month and of a year, leap days, and the hours
// in which clocks are changed.
func moments() []time.Time {
	var list []time.Time
	for h := range 24 {
		list = append(list, time.Date(2026, 11, 25, h, 48, 0, 0, time.UTC))
	}
	for _, text := range []string{
		"2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", "2028-02-28T23:30:00Z", "2028-02-29T12:00:00Z",
		"2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-04-04T15:15:00Z",
		"2026-10-03T15:45:00Z",
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			panic(err)
		}
		list = append(list, at)
	}
	return list
}

// TestEveryScreenHasOneTimeFormat shows screens full of times, at many hours and in many
// zones: each time that people are shown is in their zone and in one form, and is the one
// meant; each that programs are given is RFC 3339 in UTC.
func TestEveryScreenHasOneTimeFormat(t *testing.T) {
	screens := []string{
		"explain r1n07", "agents", "rack list", "rack show r1", "brake show", "status", "node show r1n01", "ops",
		"op show op1", "audit", "schedule list", "schedule show night",
	}
	var out []string // with the times replaced, of the first moment
	for _, zone := range zones(t) {
		for i, at := range moments() {
			if testing.Short() && i%5 != 0 {
				continue
			}
			f := newFake(t, hall(8, power.Off)...)
			f.clock = printer.Clock{Now: func() time.Time { return at }, Zone: zone}
			f.fill(at)
			for n, screen := range screens {
				got := f.run(screen)
				if got.exit != 0 {
					t.Fatalf("%s: %+v", screen, got)
				}
				checkTimes(t, fmt.Sprintf("%s at %s", screen, at.In(zone)), got.out+got.errs, zone, at)
				text := strings.Join(strings.Fields(got.timeless().out), " ")
				if len(out) == n {
					out = append(out, text)
				}
				if text != out[n] {
					t.Errorf("%s reads otherwise at %s:\n%s\nthan before:\n%s", screen, at.In(zone), text, out[n])
				}
				if i == 0 {
					checkUTC(t, screen, f.run(screen+" -o json").out)
				}
			}
		}
	}
}

// fill has the fake tell of much that has times, some of them within sentences.
func (f *fake) fill(now time.Time) {
	local := now.In(time.FixedZone("", -5*3600-1800)) // a server may live elsewhere
	earlier, said := local.Add(-26*time.Hour), power.At(now.Add(-3*time.Hour))
	for i := range f.nodes {
		f.nodes[i].ObservedAt, f.nodes[i].TriedAt = &earlier, &local
	}
	f.nodes[0].Hold = &api.Hold{Want: power.WantOn, By: "bob", Since: earlier, Expires: &local}
	f.nodes[0].Fault, f.nodes[0].FaultSince = "3 corrections failed, the last at "+said, earlier
	e := nightmare(local)
	e.Message = "r1n07 is off; hold of bob wants it on since " + said
	e.RecentDecisions[0].Message = "the fleet brake holds since " + said
	f.explained = e
	f.agents = []api.Agent{{Name: "r1", State: "away", SeenAt: &earlier, Rack: &e.Rack}}
	f.racks = []api.Rack{{
		Name: "r1", Agent: "r1", AgentState: api.AgentPresence{State: api.AgentAway, Since: earlier, LastSeen: earlier},
		State: e.Rack,
	}}
	f.brakes = []api.RackBrake{{Rack: "r1", Brake: *e.Rack.Brake}}
	f.know(api.Op{
		ID: "op1", Node: "r1n01", Action: power.ActOn, AskedAt: earlier, Deadline: local, StartedAt: &earlier, Phase: "running: waiting until " +
			said,
		AgentNote: "agent r1 is away since " + said,
	})
	f.trail = []api.AuditEntry{{ID: 1, At: earlier, Who: "bob", What: "hold", Node: "r1n01", Detail: "on until " + said}}
	f.schedules = []api.Schedule{{
		Name: "night", Cron: "0 2 * * *", Nodes: "all", Want: power.WantOff, CreatedAt: earlier, LastAt: earlier,
		NextAt: local.Add(9 * time.Hour), LastMessage: "missed until " + said,
	}}
}

func checkTimes(t *testing.T, screen, out string, zone *time.Location, now time.Time) {
	t.Helper()
	joined := strings.Join(strings.Fields(out), " ") // a narrow page breaks lines
	found := regexp.MustCompile(`\S*[-T\d]*\d\d-\d\d.?\d\d:\d\d:\d\d\S*|\S*\d\d:\d\d:\d\d\S*`).FindAllString(joined, -1)
	for _, text := range found {
		text = strings.Trim(text, ",;:()")
		at, err := time.ParseInLocation(printer.PeopleTime, text, zone)
		if err != nil {
			t.Errorf("%s: %q is not as people are shown times", screen, text)
			continue
		}
		if _, offset := at.Zone(); offset != offsetAt(zone, at) {
			t.Errorf("%s: %q is not in the reader's zone", screen, text)
		}
		if d := now.Sub(at); d < -11*time.Hour || d > 100*time.Hour {
			t.Errorf("%s: %q is %s from now", screen, text, d)
		}
	}
}

func offsetAt(zone *time.Location, at time.Time) int {
	_, offset := at.In(zone).Zone()
	return offset
}

// checkUTC checks that all times of an output for programs are in UTC.
func checkUTC(t *testing.T, screen, out string) {
	t.Helper()
	if !json.Valid([]byte(out)) {
		t.Fatalf("%s: not JSON: %s", screen, out)
	}
	if bad := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*[+-]\d\d:\d\d"`).FindString(out); bad != "" {
		t.Errorf("%s -o json: %s is not in UTC", screen, bad)
	}
}
