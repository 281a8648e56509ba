package central

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func (s *site) rackOf(name string) api.Rack {
	s.t.Helper()
	all, err := s.Racks(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range all {
		if r.Name == name {
			return r
		}
	}
	s.t.Fatalf("no rack %s in %+v", name, all)
	return api.Rack{}
}

// says reports how a rack's monitor stands.
func (r *rack) says(state api.RackState) {
	r.s.t.Helper()
	r.tell(api.Report{Rack: &state})
}

func ptr[T any](v T) *T { return &v }

func TestSettingsOfARackReachItsAgent(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	if g := r.poll(); !g.Full || g.Rack == nil || g.Rack.Monitor != "" || g.Rack.Pause != nil || len(g.Rack.Domains) != 0 {
		t.Fatalf("%+v", g)
	}
	s.status(power.StatusReady, "a")
	if g := r.poll(); g.Rack != nil {
		t.Errorf("settings that did not change were sent: %+v", g.Rack)
	}
	out, err := s.SetRack(t.Context(), "r1", api.SetRack{Monitor: ptr("@every 30s"), BrakePercent: ptr(10), AskedBy: "bob", Reason: "faster"})
	if err != nil || out.Settings.Monitor != "@every 30s" || out.Settings.BrakePercent != 10 || out.Nodes != 1 || out.AgentState.Absent() {
		t.Errorf("%+v, %v", out, err)
	}
	g := r.poll()
	if g.Rack == nil || g.Rack.Monitor != "@every 30s" || g.Rack.BrakePercent != 10 || len(g.Nodes) != 0 {
		t.Fatalf("%+v", g)
	}
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{BrakeAbove: ptr(2), AskedBy: "bob"}); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if g := r.poll(); g.Rack == nil || g.Rack.Monitor != "@every 30s" || g.Rack.BrakeAbove != 2 {
		t.Errorf("%+v", g.Rack)
	}
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Monitor: ptr("@every 30s")}); err != nil {
		t.Fatal(err)
	}
	if g := r.poll(); g.Rack != nil {
		t.Errorf("no change was sent: %+v", g.Rack)
	}
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Monitor: ptr("")}); err != nil {
		t.Fatal(err)
	}
	if g := r.poll(); g.Rack == nil || g.Rack.Monitor != "" || g.Rack.BrakePercent != 10 {
		t.Errorf("%+v", g.Rack)
	}
	wantLines(t, s.entries("", auditRack), "rack: rack r1: monitor @every 30s, was the agent's own; brake percent 10, was 20",
		"rack: brake above 2, was 5", "rack: monitor the agent's own, was @every 30s")
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	for what, c := range map[string]struct {
		in   api.SetRack
		part string
	}{
		"cron":     {api.SetRack{Monitor: ptr("every minute")}, "write five fields"},
		"a zone":   {api.SetRack{Monitor: ptr("CRON_TZ=UTC")}, "missing behind the time zone"},
		"no zone":  {api.SetRack{Monitor: ptr("CRON_TZ=Moon/Sea * * * * *")}, "Moon/Sea"},
		"percent":  {api.SetRack{BrakePercent: ptr(-1)}, "between 1 and 100"},
		"percents": {api.SetRack{BrakePercent: ptr(101)}, "between 1 and 100"},
		"above":    {api.SetRack{BrakeAbove: ptr(-1)}, "brake above -1"},
	} {
		_, err := s.SetRack(t.Context(), "r1", c.in)
		if api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, monitor := range []string{"off", "", "*/2 * * * *", "CRON_TZ=Europe/Berlin 0 7 * * 1-5", "@hourly"} {
		if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Monitor: &monitor}); err != nil {
			t.Errorf("%q: %v", monitor, err)
		}
	}
	_, err := s.SetRack(t.Context(), "r9", api.SetRack{})
	wantCode(t, err, api.CodeNotFound)
	_, err = s.SetPause(t.Context(), "r9", api.SetPause{})
	wantCode(t, err, api.CodeNotFound)
	_, err = s.SetPause(t.Context(), "r1", api.SetPause{Resume: true, For: time.Hour})
	wantCode(t, err, api.CodeBadRequest)
	_, err = s.SetPause(t.Context(), "r1", api.SetPause{For: -time.Hour})
	wantCode(t, err, api.CodeBadRequest)
}

func TestAPauseEndsByItself(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	out, err := s.SetPause(t.Context(), "r1", api.SetPause{For: time.Hour, Reason: "cabling", AskedBy: "bob"})
	if p := out.Settings.Pause; err != nil || p == nil || p.By != meFor("bob") || p.Reason != "cabling" ||
		!p.Until.Equal(s.clock().Add(time.Hour)) {
		t.Fatalf("%+v, %v", out, err)
	}
	if g := r.poll(); g.Rack == nil || !g.Rack.Pause.Active(s.clock()) {
		t.Errorf("%+v", g)
	}
	s.later(time.Hour - 1)
	s.c.sweep(context.Background())
	if g := r.poll(); g.Rack != nil {
		t.Errorf("before its time: %+v", g)
	}
	s.later(1)
	for range 2 {
		s.c.sweep(context.Background())
	}
	if g := r.poll(); g.Rack == nil || g.Rack.Pause != nil {
		t.Errorf("%+v", g)
	}
	wantLines(t, s.entries("", auditPause, auditPauseOver, auditResume), "pause: rack r1: its monitor corrects nothing until",
		"pause-over: rack r1: it was paused by "+meFor("bob"))
	for range 2 {
		if _, err := s.SetPause(t.Context(), "r1", api.SetPause{Resume: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SetPause(t.Context(), "r1", api.SetPause{AskedBy: "bob"}); err != nil {
		t.Fatal(err)
	}
	s.later(1000 * time.Hour)
	s.c.sweep(context.Background())
	if g := r.poll(); g.Rack == nil || !g.Rack.Pause.Active(s.clock()) {
		t.Errorf("%+v", g)
	}
	for range 2 {
		if out, err := s.SetPause(t.Context(), "r1", api.SetPause{Resume: true, Reason: "done", AskedBy: "eve"}); err != nil ||
			out.Settings.Pause != nil {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	wantLines(t, s.entries("", auditPause, auditPauseOver, auditResume), "pause: ", "pause-over: ", "pause: until resumed", "resume: rack r1")
}

// TestAllRacksArePaused: those that come later too, and apart from what racks are paused
// beside it.
func TestAllRacksArePaused(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	first := s.rack("r1")
	first.poll()
	pauseAll := func(in api.SetPause) []api.Rack {
		t.Helper()
		out, err := s.SetSitePause(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := pauseAll(api.SetPause{Resume: true}); len(out) != 1 || out[0].Settings.Pause != nil {
		t.Errorf("nothing to resume: %+v", out)
	}
	out := pauseAll(api.SetPause{Reason: "feed B", AskedBy: "bob", For: 3 * time.Hour})
	if p := out[0].Settings.Pause; !p.Active(s.clock()) || !p.Site || p.By != meFor("bob") {
		t.Fatalf("%+v", out)
	}
	if g := first.poll(); g.Rack == nil || !g.Rack.Pause.Active(s.clock()) || !g.Rack.Pause.Site {
		t.Errorf("told: %+v", g.Rack)
	}
	s.restart()
	specs := []api.NodeSpec{{Name: "b", Rack: "r2", BMC: "ipmi://admin@192.0.9.9", Status: power.StatusReady}}
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	second := s.rack("r2")
	if g := second.poll(); g.Rack == nil || !g.Rack.Pause.Active(s.clock()) {
		t.Errorf("a rack that came later: %+v", g.Rack)
	}
	changed, err := s.SetStatus(t.Context(), api.SetStatus{Names: []string{"b"}, Status: power.StatusDeploying})
	if text := strings.Join(changed.Notes, " "); err != nil || !strings.Contains(text, "rackpower resume all") {
		t.Errorf("notes: %q, %v", text, err)
	}
	_, err = s.SetPause(t.Context(), "r1", api.SetPause{Resume: true})
	wantCode(t, err, api.CodeRefused)
	// A pause of its own that lasts longer counts, and stays when the others go on.
	if r, err := s.SetPause(t.Context(), "r1", api.SetPause{Reason: "cabling"}); err != nil || r.Settings.Pause.Site {
		t.Fatalf("%+v, %v", r, err)
	}
	if out = pauseAll(api.SetPause{Resume: true, Reason: "done"}); !out[0].Settings.Pause.Active(s.clock()) || out[1].Settings.Pause != nil {
		t.Errorf("after the end: %+v", out)
	}
	if g := second.poll(); g.Rack == nil || g.Rack.Pause != nil {
		t.Errorf("told of the end: %+v", g.Rack)
	}
	// One that is over ends by itself.
	pauseAll(api.SetPause{For: time.Hour})
	s.later(time.Hour)
	for range 2 {
		s.c.sweep(context.Background())
	}
	second.mustHello()
	if g := second.poll(); g.Rack == nil || g.Rack.Pause != nil {
		t.Errorf("its time is over: %+v", g.Rack)
	}
	wantLines(t, s.entries("", auditPause, auditPauseOver, auditResume), "pause: all racks: their monitors correct nothing until 2",
		"pause: rack r1", "resume: all racks: they were paused by "+meFor("bob")+": feed B", "pause: all racks", "pause-over: all racks")
}

func brakeOf(id string, nodes ...string) *api.Brake {
	return &api.Brake{ID: id, Kind: "cut", Nodes: nodes, Total: 10, Message: "too many would lose power"}
}

func TestABrakeIsShownAndReleased(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	s.rack("r2")
	r.poll()
	if all, err := s.Brakes(t.Context()); err != nil || len(all) != 0 || all == nil {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := s.ReleaseBrake(t.Context(), api.ReleaseBrake{}); err != nil || len(all) != 0 || all == nil {
		t.Errorf("%+v, %v", all, err)
	}
	r.says(api.RackState{Monitor: "@every 60s", Brake: brakeOf("b1", "n1", "n2", "n3"), Faults: 2})
	for range 2 {
		r.says(api.RackState{Monitor: "@every 60s", Brake: brakeOf("b1", "n1", "n2", "n3", "n4"), Faults: 2})
	}
	all, err := s.Brakes(t.Context())
	if err != nil || len(all) != 1 || all[0].Rack != "r1" || all[0].ID != "b1" || len(all[0].Nodes) != 4 || all[0].Released {
		t.Errorf("%+v, %v", all, err)
	}
	if a := s.agent("r1"); a.Rack == nil || a.Rack.Faults != 2 || a.Alarm != "fleet brake: too many would lose power" {
		t.Errorf("%+v", a)
	}
	if a := s.agent("r2"); a.Rack != nil || a.Alarm != "" {
		t.Errorf("%+v", a)
	}
	wantLines(t, s.entries("", auditBrake), "brake: rack r1: too many would lose power (nodes n[1-3], of 10)")

	_, err = s.ReleaseBrake(t.Context(), api.ReleaseBrake{Racks: []string{"r1", "r2"}})
	wantCode(t, err, api.CodeNotFound)
	if !strings.Contains(err.Error(), "no brake holds on rack r2") {
		t.Errorf("%v", err)
	}
	_, err = s.ReleaseBrake(t.Context(), api.ReleaseBrake{Racks: []string{"r1", "r9"}})
	wantCode(t, err, api.CodeNotFound)
	if g := r.poll(); g.Rack != nil {
		t.Errorf("all or none: %+v", g.Rack)
	}
	for range 2 {
		all, err = s.ReleaseBrake(t.Context(), api.ReleaseBrake{Racks: []string{"r1"}, AskedBy: "bob", Reason: "meant so"})
		if err != nil || len(all) != 1 || !all[0].Released {
			t.Errorf("%+v, %v", all, err)
		}
	}
	g, err := s.Poll(t.Context(), "r1", r.request(0)) // the answer is lost
	if err != nil || g.Rack == nil || g.Rack.ReleaseBrake != "b1" || g.Rack.ReleasedBy != meFor("bob") {
		t.Fatalf("%+v, %v", g, err)
	}
	r.says(api.RackState{Monitor: "@every 60s", Brake: brakeOf("b1", "n1", "n2")}) // it has not heard of it
	if all, _ := s.Brakes(t.Context()); len(all) != 1 || !all[0].Released {
		t.Errorf("%+v", all)
	}
	s.restart()
	if g := r.poll(); g.Rack == nil || g.Rack.ReleaseBrake != "b1" {
		t.Errorf("%+v", g.Rack)
	}
	r.says(api.RackState{Monitor: "@every 60s"})
	if all, _ := s.Brakes(t.Context()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if set := s.rackOf("r1").Settings; set.ReleaseBrake != "" {
		t.Errorf("%+v", set)
	}
	r.says(api.RackState{Brake: brakeOf("b2", "n9")})
	if all, _ := s.Brakes(t.Context()); len(all) != 1 || all[0].Released {
		t.Errorf("a new brake counts as released: %+v", all)
	}
	r.says(api.RackState{Brake: brakeOf("b3", "n9")})
	wantLines(t, s.entries("", auditBrake, auditBrakeOver, auditBrakeRelease), "brake: n[1-3]", "brake-release: rack r1: too many",
		"brake-over: released by "+meFor("bob"),
		"brake: n9", "brake-over: its nodes match their desired state", "brake: n9")
}

func TestAnAlarmOfTheJournalStaysBesideTheBrake(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.lsn -= 3
	r.epoch++
	r.mustHello()
	journal := s.agent("r1").Alarm
	r.says(api.RackState{Brake: brakeOf("b1", "a")})
	if a := s.agent("r1"); journal == "" || !strings.HasPrefix(a.Alarm, journal+"; fleet brake: ") {
		t.Errorf("%q, was %q", a.Alarm, journal)
	}
	r.says(api.RackState{})
	if a := s.agent("r1"); a.Alarm != journal {
		t.Errorf("%q", a.Alarm)
	}
}

// inDomain adds a node to a rack and a power domain.
func (s *site) inDomain(node, rack, domain string) {
	s.t.Helper()
	if _, err := s.AddNodes(context.Background(),
		api.AddNodes{Update: true, Nodes: []api.NodeSpec{{Name: node, Rack: rack, Domain: domain, BMC: "ipmi://x@bmc-" + node}}}); err != nil {
		s.t.Fatal(err)
	}
}

// limits is what an agent is told of its power domains now; nil: nothing new.
func (r *rack) limits() map[string]api.DomainLimit {
	r.s.t.Helper()
	g := r.poll()
	if g.Rack == nil {
		return nil
	}
	all := map[string]api.DomainLimit{}
	for _, l := range g.Rack.Domains {
		all[l.Name] = api.DomainLimit{Rate: l.Rate, Concurrent: l.Concurrent}
	}
	return all
}

func TestADomainIsSharedByItsAgents(t *testing.T) {
	s := newSite(t)
	one, two := s.rack("r1"), s.rack("r2")
	one.poll()
	two.poll()
	s.inDomain("a1", "r1", "pdu")
	usual := api.DomainLimit{Rate: power.DefaultDomainRate, Concurrent: power.DefaultDomainConcurrent}
	if l := one.limits(); len(l) != 1 || l["pdu"] != usual {
		t.Errorf("%+v", l)
	}
	if l := two.limits(); l != nil {
		t.Errorf("%+v", l)
	}
	s.inDomain("a2", "r1", "pdu")
	if l := one.limits(); l != nil {
		t.Errorf("the domain has the same agents as before: %+v", l)
	}
	s.inDomain("b1", "r2", "pdu")
	half := api.DomainLimit{Rate: power.DefaultDomainRate / 2, Concurrent: power.DefaultDomainConcurrent / 2}
	if a, b := one.limits(), two.limits(); a["pdu"] != half || b["pdu"] != half {
		t.Errorf("%+v, %+v", a, b)
	}
	out, err := s.SetDomain(t.Context(), api.SetDomain{DomainLimit: api.DomainLimit{Name: "pdu", Rate: 3, Concurrent: 1}, AskedBy: "bob"})
	if err != nil || out.Default || out.Rate != 3 || out.Agents != 2 || out.Nodes != 3 {
		t.Errorf("%+v, %v", out, err)
	}
	share := api.DomainLimit{Rate: 1.5, Concurrent: 1}
	if a, b := one.limits(), two.limits(); a["pdu"] != share || b["pdu"] != share {
		t.Errorf("%+v, %+v", a, b)
	}
	if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"b1"}}); err != nil {
		t.Fatal(err)
	}
	whole := api.DomainLimit{Rate: 3, Concurrent: 1}
	if a, b := one.limits(), two.limits(); a["pdu"] != whole || b == nil || len(b) != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
	s.inDomain("a2", "r2", "pdu") // moves
	if a, b := one.limits(), two.limits(); a["pdu"] != share || b["pdu"] != share {
		t.Errorf("%+v, %+v", a, b)
	}
	s.inDomain("a1", "r1", "other")
	if a, b := one.limits(), two.limits(); len(a) != 1 || a["other"] != usual || b["pdu"] != whole {
		t.Errorf("%+v, %+v", a, b)
	}
	if out, err := s.SetDomain(t.Context(), api.SetDomain{DomainLimit: api.DomainLimit{Name: "pdu"}}); err != nil || out.Rate != 0 ||
		out.Default {
		t.Errorf("no bound: %+v, %v", out, err)
	}
	if l := two.limits(); l["pdu"] != (api.DomainLimit{}) || len(l) != 1 {
		t.Errorf("%+v", l)
	}
	if out, err := s.SetDomain(t.Context(), api.SetDomain{DomainLimit: api.DomainLimit{Name: "pdu"}, Remove: true}); err != nil ||
		!out.Default || out.Rate != power.DefaultDomainRate {
		t.Errorf("%+v, %v", out, err)
	}
	if a, b := one.limits(), two.limits(); a != nil || b["pdu"] != usual {
		t.Errorf("%+v, %+v", a, b)
	}
	wantLines(t, s.entries("", auditDomain),
		"domain: power domain pdu: 3 power-ons a second, 1 at once, was 10 power-ons a second, 50 at once (default)",
		"domain: any number of power-ons a second, any number at once, was 3", "domain: (default), was any number")
}

func TestDomainsAreListedWithTheirQueues(t *testing.T) {
	s := newSite(t)
	one, two := s.rack("r1"), s.rack("r2")
	s.inDomain("a", "r1", "pdu")
	s.inDomain("b", "r2", "pdu")
	if _, err := s.SetDomain(t.Context(), api.SetDomain{DomainLimit: api.DomainLimit{Name: "empty", Rate: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rack{one, two} {
		r.says(api.RackState{Domains: []api.DomainState{{DomainLimit: api.DomainLimit{Name: "pdu", Rate: 5}, InFlight: 2, Waiting: 3}}})
	}
	all, err := s.Domains(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "empty" || all[0].Nodes != 0 || all[0].Default {
		t.Fatalf("%+v, %v", all, err)
	}
	if d := all[1]; d.Name != "pdu" || d.InFlight != 4 || d.Waiting != 6 || d.Rate != power.DefaultDomainRate || !d.Default || d.Agents != 2 ||
		d.Nodes != 2 {
		t.Errorf("%+v", d)
	}
	for what, in := range map[string]api.SetDomain{
		"no name":  {},
		"negative": {DomainLimit: api.DomainLimit{Name: "x", Rate: -1}},
		"huge":     {DomainLimit: api.DomainLimit{Name: "x", Rate: math.MaxFloat64}},
		"at once":  {DomainLimit: api.DomainLimit{Name: "x", Concurrent: -1}},
		"both":     {DomainLimit: api.DomainLimit{Name: "pdu", Rate: 1}, Remove: true},
	} {
		if _, err := s.SetDomain(t.Context(), in); api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = s.SetDomain(t.Context(), api.SetDomain{DomainLimit: api.DomainLimit{Name: "ghost"}, Remove: true})
	wantCode(t, err, api.CodeNotFound)
}

// TestABrakeThatGrewIsNotReleased: what an administrator agreed to is what was shown.
func TestABrakeThatGrewIsNotReleased(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	r := s.rack("r1")
	brake := func(nodes ...string) api.RackState {
		return api.RackState{Brake: &api.Brake{ID: "b1", Kind: "cut", Nodes: nodes, Total: 3, Message: "too many"}}
	}
	r.says(brake("a", "b"))
	seen := api.ReleaseBrake{Racks: []string{"r1"}, MaxNodes: map[string]int{"r1": 2}, AskedBy: "bob"}
	r.says(brake("a", "b", "c"))
	if _, err := s.ReleaseBrake(t.Context(), seen); api.CodeOf(err) != api.CodeRefused ||
		!strings.Contains(err.Error(), "3 nodes by now, not 2") {
		t.Fatalf("%v", err)
	}
	r.says(brake("a", "b"))
	if all, err := s.ReleaseBrake(t.Context(), seen); err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	if g := r.poll(); g.Rack == nil || g.Rack.ReleaseBrake != "b1" || g.Rack.ReleaseNodes != 2 {
		t.Fatalf("%+v", g)
	}
	r.says(brake("a", "b", "c")) // it took in another one before the release came
	all, err := s.Brakes(t.Context())
	if err != nil || len(all) != 1 || all[0].Released {
		t.Errorf("%+v, %v: not released, since it grew", all, err)
	}
	seen.MaxNodes["r1"] = 3
	if all, err := s.ReleaseBrake(t.Context(), seen); err != nil || len(all) != 1 || !all[0].Released {
		t.Errorf("%+v, %v", all, err)
	}
	if g := r.poll(); g.Rack == nil || g.Rack.ReleaseNodes != 3 {
		t.Errorf("%+v", g)
	}
}
