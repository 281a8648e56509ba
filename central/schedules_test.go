package central

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// at sets the clock to a time of day in UTC, on the first day that is to come.
func (s *site) at(clock string) {
	s.t.Helper()
	tod, err := time.Parse("15:04:05", clock)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	day := s.now.UTC().Truncate(24 * time.Hour)
	next := day.Add(tod.Sub(tod.Truncate(24 * time.Hour)))
	for !next.After(s.now) {
		next = next.Add(24 * time.Hour)
	}
	s.now = next
}

// night is a schedule that turns READY nodes off at 19:00 UTC for 12 hours.
var night = api.Schedule{
	Name: "night", Cron: "CRON_TZ=UTC 0 19 * * *", Nodes: "@status:READY", Want: power.WantOff, For: 12 * time.Hour,
	Reason: "power bill",
}

func (s *site) schedule(sched api.Schedule) api.Schedule {
	s.t.Helper()
	out, err := s.PutSchedule(context.Background(), api.PutSchedule{Schedule: sched, AskedBy: "bob", Update: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) scheduled(name string) api.Schedule {
	s.t.Helper()
	all, err := s.Schedules(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a api.Schedule) bool { return a.Name == name })
	if i < 0 {
		s.t.Fatalf("no schedule %s in %+v", name, all)
	}
	return all[i]
}

func (s *site) runAll() {
	for range 2 { // the second time finds nothing to do
		s.c.runSchedules(context.Background())
	}
}

func TestAScheduleHoldsNodes(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	s.status(power.StatusReady, "a", "b")
	s.status(power.StatusTesting, "c")
	r := s.rack("r1")
	s.at("12:00:00")
	s.hold(power.WantOn, 0, "b")
	confirmed := night
	confirmed.Confirmed = true
	if out := s.schedule(confirmed); !out.NextAt.Equal(s.clock().Add(7*time.Hour)) || out.By != meFor("bob") ||
		!out.CreatedAt.Equal(s.clock()) {
		t.Errorf("%+v", out)
	}
	before := r.poll()
	s.at("18:59:59")
	s.runAll()
	if g := r.poll(); g.Rev != before.Rev {
		t.Errorf("before its time: %+v", g)
	}
	s.at("19:00:00")
	fired := s.clock()
	s.later(300 * time.Millisecond)
	s.runAll()
	g := r.poll()
	if len(g.Nodes) != 1 || g.Nodes[0].Name != "a" || g.Rev != before.Rev+1 {
		t.Fatalf("%+v", g)
	}
	if h := g.Nodes[0].Hold; h.Want != power.WantOff || h.Schedule != "night" || h.By != meFor("bob") || h.Reason != "power bill" ||
		!h.Confirmed ||
		!h.Until.Equal(fired.Add(12*time.Hour)) {
		t.Errorf("%+v", h)
	}
	if n := s.node("a"); n.DesiredFrom != "schedule night" || n.Hold.Schedule != "night" {
		t.Errorf("%+v", n)
	}
	if n := s.node("b"); n.Hold.By != meFor("bob") || n.Hold.Want != power.WantOn {
		t.Errorf("a person's hold was replaced: %+v", n.Hold)
	}
	got := s.scheduled("night")
	if !got.LastAt.Equal(fired) || !strings.Contains(got.LastMessage, "1 held off (a); 1 held by people, left alone (b)") ||
		!got.NextAt.Equal(fired.Add(24*time.Hour)) {
		t.Errorf("%+v", got)
	}
	wantLines(t, s.entries("", auditSchedule), "schedule: schedule night of "+fired.Format(time.RFC3339)+": 1 held off (a); 1 held by people")
	wantLines(t, s.entries("a", auditHold, auditHoldOver), "hold: schedule night, confirmed")
	s.at("07:00:00")
	s.c.sweep(context.Background())
	wantLines(t, s.entries("a", auditHold, auditHoldOver), "hold: schedule night", "hold-over: off (schedule night)")
	if n := s.node("b"); n.Hold == nil {
		t.Error("the sweep took a hold without an end")
	}
}

func TestAScheduleReleasesWhatSchedulesHold(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	s.at("12:00:00")
	s.schedule(api.Schedule{Name: "off", Cron: "CRON_TZ=UTC 0 19 * * *", Nodes: "a,b", Want: power.WantOff})
	s.schedule(api.Schedule{Name: "morning", Cron: "CRON_TZ=UTC 0 7 * * *", Nodes: "all"})
	s.at("19:00:00")
	s.runAll()
	s.hold(power.WantOn, 0, "b", "c")
	s.at("07:00:00")
	s.runAll()
	for name, want := range map[string]power.Want{"a": "", "b": power.WantOn, "c": power.WantOn} {
		if n := s.node(name); (n.Hold == nil) != (want == "") || n.Hold != nil && n.Hold.Want != want {
			t.Errorf("%s: %+v", name, n.Hold)
		}
	}
	if got := s.scheduled("morning").LastMessage; got != "1 released (a); 2 held by people, left alone (b,c)" {
		t.Errorf("%q", got)
	}
	wantLines(t, s.entries("a", auditHold, auditRelease), "hold: off until released, schedule off",
		"release: desired hands-off, was off (schedule off)")
	// Held until released, night after night: that is no news to anybody.
	if _, err := s.RemoveSchedule(t.Context(), api.RemoveSchedule{Name: "morning"}); err != nil {
		t.Fatal(err)
	}
	s.at("19:00:00")
	s.runAll()
	rev := s.agent("r1").Rev
	s.later(24 * time.Hour)
	s.runAll()
	if s.agent("r1").Rev != rev || s.scheduled("off").LastMessage != "1 so already; 1 held by people, left alone (b)" {
		t.Errorf("%+v", s.scheduled("off"))
	}
}

// TestWhatWasMissedIsCaughtUpOnce stops central over the time of a run.
func TestWhatWasMissedIsCaughtUpOnce(t *testing.T) {
	forever := night
	forever.For = 0
	for name, c := range map[string]struct {
		sched  api.Schedule
		back   time.Duration // after 19:00 of the first day
		ago    time.Duration // the run that counts: before back; negative: none
		held   bool
		missed bool
	}{
		"within its time":         {night, 6 * time.Hour, 6 * time.Hour, true, false},
		"just over":               {night, 12 * time.Hour, 0, false, true},
		"days later, within":      {night, 3*24*time.Hour + time.Hour, time.Hour, true, false},
		"for ever":                {forever, 20 * time.Hour, 20 * time.Hour, true, false},
		"for ever, a year later":  {forever, 400*24*time.Hour + time.Hour, time.Hour, true, false},
		"a minute before it runs": {night, -time.Minute, 0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a")
			s.status(power.StatusReady, "a")
			s.at("12:00:00")
			s.schedule(c.sched)
			s.stop()
			s.at("19:00:00")
			s.later(c.back)
			s.start()
			s.runAll()
			n, got := s.node("a"), s.scheduled("night")
			if (n.Hold != nil) != c.held {
				t.Errorf("hold %+v", n.Hold)
			}
			if c.held && !got.LastAt.Equal(s.clock().Add(-c.ago)) {
				t.Errorf("carried out %s, want %s ago", got.LastAt, c.ago)
			}
			if c.held && c.sched.For > 0 && !n.Hold.Expires.Equal(got.LastAt.Add(c.sched.For)) {
				t.Errorf("it ends %s", n.Hold.Expires)
			}
			if c.missed != strings.Contains(got.LastMessage, "missed") || c.missed && !got.LastAt.IsZero() {
				t.Errorf("%+v", got)
			}
			if runs := s.entries("", auditSchedule); len(runs) != len(s.entries("a", auditHold))+map[bool]int{true: 1}[c.missed] {
				t.Errorf("%v", runs)
			}
			// Whatever was decided is durable: nothing of it is done again.
			s.hold("", 0, "a")
			s.restart()
			s.runAll()
			if n := s.node("a"); n.Hold != nil {
				t.Errorf("twice: %+v", n.Hold)
			}
		})
	}
}

func TestMissedRunsComeInTheOrderOfTheirTimes(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.at("12:00:00")
	s.schedule(api.Schedule{Name: "b-off", Cron: "CRON_TZ=UTC 0 19 * * *", Nodes: "all", Want: power.WantOff})
	s.schedule(api.Schedule{Name: "a-on", Cron: "CRON_TZ=UTC 0 7 * * *", Nodes: "all"})
	s.at("19:00:00")
	s.later(13 * time.Hour)
	s.runAll()
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("it was released in the morning: %+v", n.Hold)
	}
	wantLines(t, s.entries("a", auditHold, auditRelease), "hold: off", "release: ")
}

func TestAClockThatGoesBackRepeatsNothing(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	s.at("12:00:00")
	s.schedule(night)
	s.at("19:00:00")
	s.runAll()
	s.hold("", 0, "a")
	for range 3 {
		s.later(-2 * time.Minute)
		s.runAll()
		if got := s.scheduled("night").NextAt; !got.After(s.scheduled("night").LastAt) {
			t.Errorf("next at %s, carried out at %s", got, s.scheduled("night").LastAt)
		}
		s.schedule(night) // to say it again changes nothing about that
		s.later(2 * time.Minute)
		s.runAll()
	}
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("twice: %+v", n.Hold)
	}
	s.later(24 * time.Hour)
	s.runAll()
	if n := s.node("a"); n.Hold == nil {
		t.Error("never again")
	}
}

func TestAScheduleThatIsNewOrChangedDoesNotRunForThePast(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.at("12:00:00")
	s.schedule(night)
	early := night
	early.Cron, early.Nodes = "CRON_TZ=UTC 0 11 * * *", "a"
	s.schedule(early)
	s.runAll()
	if got := s.scheduled("night"); !got.LastAt.IsZero() {
		t.Errorf("%+v", got)
	}
	wantLines(t, s.entries("", auditScheduleAdd, auditScheduleChange),
		"schedule-add: schedule night: CRON_TZ=UTC 0 19 * * *: @status:READY off for 12h0m0s",
		"schedule-change: 0 11 * * *: a off for 12h0m0s, was CRON_TZ=UTC 0 19")
}

func TestANodeThatIsGoneKeepsNoScheduleFromTheOthers(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3")
	s.at("12:00:00")
	s.schedule(api.Schedule{Name: "x", Cron: "CRON_TZ=UTC 0 19 * * *", Nodes: "n[1-3],!n3", Want: power.WantOff})
	s.schedule(api.Schedule{Name: "y", Cron: "CRON_TZ=UTC 1 19 * * *", Nodes: "@r1", Want: power.WantOn})
	if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"n2", "n3"}}); err != nil {
		t.Fatal(err)
	}
	s.at("19:00:00")
	s.runAll()
	if got := s.scheduled("x").LastMessage; got != "1 held off (n1); 2 no longer there (n[2-3])" {
		t.Errorf("%q", got)
	}
	if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"n1"}}); err != nil {
		t.Fatal(err)
	}
	s.later(time.Minute)
	s.runAll()
	if got := s.scheduled("y").LastMessage; !strings.Contains(got, "@r1") {
		t.Errorf("%q", got)
	}
	s.later(time.Second)
	s.runAll()
	wantLines(t, s.entries("", auditSchedule), "schedule: schedule x", "schedule: schedule y")
}

func TestSchedulesThatMakeNoSense(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	for what, c := range map[string]struct {
		code   api.Code
		part   string
		change func(*api.PutSchedule)
	}{
		"name":      {api.CodeBadRequest, "name", func(p *api.PutSchedule) { p.Name = "a b" }},
		"cron":      {api.CodeBadRequest, "write five fields", func(p *api.PutSchedule) { p.Cron = "0 19 * *" }},
		"interval":  {api.CodeBadRequest, "names an interval", func(p *api.PutSchedule) { p.Cron = "@every 1h" }},
		"zone only": {api.CodeBadRequest, "missing behind", func(p *api.PutSchedule) { p.Cron = "TZ=UTC" }},
		"never":     {api.CodeBadRequest, "never comes", func(p *api.PutSchedule) { p.Cron = "0 0 30 2 *" }},
		"nodes":     {api.CodeBadRequest, "cannot read node range", func(p *api.PutSchedule) { p.Nodes = "a[" }},
		"unknown":   {api.CodeNotFound, "no such node", func(p *api.PutSchedule) { p.Nodes = "ghost" }},
		"want":      {api.CodeBadRequest, "unknown want", func(p *api.PutSchedule) { p.Want = "up" }},
		"for":       {api.CodeBadRequest, "between 0", func(p *api.PutSchedule) { p.For = -1 }},
		"release":   {api.CodeBadRequest, "no duration", func(p *api.PutSchedule) { p.Want = "" }},
	} {
		in := api.PutSchedule{Schedule: night}
		c.change(&in)
		_, err := s.PutSchedule(t.Context(), in)
		if api.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v", what, err)
		}
	}
	dry := api.PutSchedule{Schedule: night, DryRun: true}
	if out, err := s.PutSchedule(t.Context(), dry); err != nil || out.NextAt.IsZero() {
		t.Errorf("%+v, %v", out, err)
	}
	if all, err := s.Schedules(t.Context()); err != nil || len(all) != 0 || all == nil {
		t.Errorf("%+v, %v", all, err)
	}
	s.schedule(night)
	_, err := s.PutSchedule(t.Context(), dry)
	wantCode(t, err, api.CodeExists)
	remove := api.RemoveSchedule{Name: "night", AskedBy: "bob", Reason: "spring"}
	if out, err := s.RemoveSchedule(t.Context(), remove); err != nil || out.Changed != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	_, err = s.RemoveSchedule(t.Context(), remove)
	wantCode(t, err, api.CodeNotFound)
	wantLines(t, s.entries("", auditScheduleRemove), "schedule-remove: schedule night: CRON_TZ=UTC 0 19")
}

func TestRunsToCome(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c", "d")
	s.status(power.StatusReady, "a", "b", "c")
	s.status(power.StatusDiskErasing, "d")
	r := s.rack("r1")
	s.at("12:00:00")
	r.poll()
	r.read(s.seen("a", power.On, matched), s.seen("b", power.On, matched), s.seen("c", power.Off, matched), s.seen("d", power.On, matched))
	s.hold(power.WantOn, 0, "b")
	all := night
	all.Nodes = "all"
	s.schedule(all)
	s.schedule(api.Schedule{Name: "morning", Cron: "CRON_TZ=UTC 0 7 * * *", Nodes: "a,c"})
	runs, err := s.NextRuns(t.Context(), "night", 3)
	if err != nil || len(runs) != 3 {
		t.Fatalf("%+v, %v", runs, err)
	}
	first := s.clock().Add(7 * time.Hour)
	if r := runs[0]; !r.At.Equal(first) || !r.Until.Equal(first.Add(12*time.Hour)) || !slices.Equal(r.Nodes, []string{"a", "b", "c", "d"}) ||
		!slices.Equal(r.LosingPower, []string{"a"}) || !slices.Equal(r.Held, []string{"b"}) || r.Want != power.WantOff {
		t.Errorf("%+v", r)
	}
	if !runs[2].At.Equal(first.Add(48 * time.Hour)) {
		t.Errorf("%+v", runs[2])
	}
	both, err := s.NextRuns(t.Context(), "", 2)
	if err != nil || len(both) != 4 || both[0].Schedule != "night" || both[1].Schedule != "morning" || !both[1].Until.IsZero() ||
		len(both[1].LosingPower) != 0 {
		t.Errorf("%+v, %v", both, err)
	}
	_, err = s.NextRuns(t.Context(), "ghost", 1)
	wantCode(t, err, api.CodeNotFound)
	_, err = s.NextRuns(t.Context(), "", 1_000_000)
	wantCode(t, err, api.CodeBadRequest)
}

// TestARunFoundTwiceIsCarriedOutOnce has two looks at the same due run.
func TestARunFoundTwiceIsCarriedOutOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	s.at("12:00:00")
	s.schedule(night)
	s.at("19:00:00")
	done := make(chan struct{})
	for range 4 {
		go func() { s.c.runSchedules(context.Background()); done <- struct{}{} }()
	}
	for range 4 {
		<-done
	}
	wantLines(t, s.entries("", auditSchedule), "schedule: 1 held off (a)")
}

func TestTheLatestTimeIsFoundFromFarBack(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"CRON_TZ=UTC * * * * *":   now,
		"CRON_TZ=UTC 0 12 * * *":  now.Add(-30 * time.Minute),
		"CRON_TZ=UTC 0 13 * * *":  now.Add(-23*time.Hour - 30*time.Minute),
		"CRON_TZ=UTC 0 0 29 2 *":  time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"CRON_TZ=UTC 31 12 1 1 *": time.Date(2026, 1, 1, 12, 31, 0, 0, time.UTC),
	} {
		times, err := readTimes(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := latest(times, now.AddDate(-8, 0, 0), now); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if got := latest(times, want, now); !got.IsZero() {
			t.Errorf("%s: %s again", text, got)
		}
		if got := latest(times, want.Add(-1), now); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestSchedulesOutliveAClockThatWasWrong: what ran by a clock that was a year ahead
// keeps nothing from running for a year.
func TestSchedulesOutliveAClockThatWasWrong(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, again := range map[string]bool{"by itself": false, "put again": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a")
			s.status(power.StatusReady, "a")
			s.at("12:00:00")
			s.schedule(night)
			s.later(year)
			s.runAll()
			s.later(-year)
			s.runAll()
			if again {
				s.schedule(night)
			}
			if next := s.scheduled("night").NextAt; !next.Equal(s.clock().Add(7 * time.Hour)) {
				t.Fatalf("next at %s, now it is %s", next, s.clock())
			}
			s.at("19:00:01")
			s.runAll()
			if n := s.node("a"); n.Hold == nil || n.Hold.Schedule != "night" {
				t.Fatalf("%+v", n.Hold)
			}
			s.later(-2 * time.Hour) // a little back repeats nothing
			s.runAll()
			if next := s.scheduled("night").NextAt; next.Sub(s.clock()) < 20*time.Hour {
				t.Fatalf("next at %s, now it is %s", next, s.clock())
			}
		})
	}
}

// TestAClockThatWasNotSetRepeatsNothing has central start on a machine whose clock is
// years behind until it is set.
func TestAClockThatWasNotSetRepeatsNothing(t *testing.T) {
	const years = 50 * 365 * 24 * time.Hour
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	s.at("12:00:00")
	s.schedule(night)
	s.at("19:00:00")
	s.runAll()
	s.later(time.Hour)
	s.hold("", 0, "a") // somebody needs it
	s.stop()
	s.later(-years)
	s.start()
	s.runAll()
	s.later(years + time.Minute)
	s.runAll()
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("held again by the run of before: %+v", n.Hold)
	}
	s.at("19:00:00")
	s.runAll()
	if n := s.node("a"); n.Hold == nil {
		t.Error("never again")
	}
}
