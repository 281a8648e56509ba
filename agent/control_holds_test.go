package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/power"
)

func withMonitor(c *Config) {
	c.Monitor = "@every 60s"
	c.Timing.Debounce, c.Timing.Gather, c.Timing.Moment = 20*time.Millisecond, 20*time.Millisecond, time.Millisecond
}

// holds are those that central was told of, newest last.
func (c *scripted) holds(node string) []power.Hold {
	return get(c, func() []power.Hold {
		var list []power.Hold
		for _, r := range c.reports {
			for _, h := range r.Holds {
				if h.Node == node {
					list = append(list, h.Hold)
				}
			}
		}
		return list
	})
}

func TestHoldAtTheSocket(t *testing.T) {
	r, c := withControl(t, 2, withMonitor)
	n1 := withStatus(r.nodes[0], power.StatusReady)
	r.assign(n1)
	if got := ok[api.Changed](t)(c.SetHold(t.Context(), api.SetHold{
		Names: []string{"n1"}, Want: power.WantOn, For: time.Hour, Reason: "bench",
		AskedBy: "ann",
	})); got.Changed != 1 {
		t.Fatalf("%+v", got)
	}
	eventually(t, "n1 is on", func() bool { return r.bmc("n1").Power() == power.On })
	row := ok[[]api.Node](t)(c.Nodes(t.Context(), "n1"))[0]
	if row.Desired != power.WantOn || row.DesiredFrom != "hold of "+me+" for ann" || row.Hold == nil || row.Hold.By != me+" for ann" ||
		row.Hold.Reason != "bench" ||
		row.Hold.Expires == nil {
		t.Fatalf("row %+v", row)
	}
	op := askAt(t, c, api.OpRequest{ID: id("a"), Node: "n1", Action: power.ActOff})
	if op.Why != power.ReasonDesired || !strings.Contains(op.Message, "hold of "+me+" for ann wants") {
		t.Fatalf("off against a hold: %+v", op)
	}
	r.restart() // the client's agent is gone; the hold is not
	if n, _ := r.a.assigned.get("n1"); n.desired(time.Now()).Want != power.WantOn || n.hold.Reason != "bench" {
		t.Fatalf("after a restart: %+v", n)
	}
	if _, err := r.a.control.hold(api.SetHold{Names: []string{"n1"}, AskedBy: "bob"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n1 is off again", func() bool { return r.bmc("n1").Power() == power.Off })
}

func TestHoldOfAllOrNone(t *testing.T) {
	r, c := withControl(t, 2)
	_, err := c.SetHold(t.Context(), api.SetHold{Names: []string{"n1", "n9"}, Want: power.WantOff, Reason: "x"})
	wantCode(t, err, api.CodeNotFound, "n9")
	_, err = c.SetHold(t.Context(), api.SetHold{Names: []string{"n1"}, Want: "up"})
	wantCode(t, err, api.CodeBadRequest, "up")
	_, err = c.SetHold(t.Context(), api.SetHold{Names: []string{"n1"}, Want: power.WantOff, For: -time.Second})
	wantCode(t, err, api.CodeBadRequest, "-1s")
	if len(r.a.assigned.unconfirmed()) != 0 {
		t.Fatal("a hold was set")
	}
	if got := ok[api.Changed](t)(c.SetHold(t.Context(), api.SetHold{Names: []string{"n1"}})); got.Changed != 0 || got.Unchanged != 1 {
		t.Fatalf("release of nothing: %+v", got)
	}
}

func TestRequestWithAHold(t *testing.T) {
	r, c := withControl(t, 2, withMonitor)
	r.bmc("n1").SetPower(power.On)
	r.assign(withStatus(r.nodes[0], power.StatusDeploying))
	dry := ok[[]api.Op](t)(c.AskOps(t.Context(),
		api.AskOps{DryRun: true, Ops: []api.OpRequest{{ID: id("a"), Node: "n1", Action: power.ActOff, Hold: true}}}))[0]
	if dry.Verdict != power.VerdictStart || dry.Phase != phaseDryRun || len(r.a.assigned.unconfirmed()) != 0 {
		t.Fatalf("dry run: %+v", dry)
	}
	if op := askAt(t, c, api.OpRequest{
		ID: id("a"), Node: "n1", Action: power.ActOff, Hold: true, HoldFor: time.Hour, AskedBy: "ann",
		Reason: "swap",
	}); op.Verdict != power.VerdictStart {
		t.Fatalf("%+v", op)
	}
	if end := endAt(t, c, id("a")); end.Outcome != power.Succeeded {
		t.Fatalf("%+v", end)
	}
	n, _ := r.a.assigned.get("n1")
	if n.hold.Want != power.WantOff || n.hold.By != me+" for ann" || n.hold.Reason != "swap" || n.hold.Until.IsZero() {
		t.Fatalf("hold %+v", n.hold)
	}
	time.Sleep(200 * time.Millisecond)
	r.wantPower("n1", power.Off)
	seq := n.hold.Seq
	if again := askAt(t, c, api.OpRequest{ID: id("a"), Node: "n1", Action: power.ActOff, Hold: true}); again.Outcome != power.Succeeded {
		t.Fatalf("asked again: %+v", again)
	}
	if n, _ := r.a.assigned.get("n1"); n.hold.Seq != seq {
		t.Fatal("asking again set another hold")
	}
	// what is refused leaves no hold behind
	r.slow("n2")
	askAt(t, c, api.OpRequest{ID: id("b"), Node: "n2", Action: power.ActOn})
	r.waitsForOn(id("b"))
	if op := askAt(t, c, api.OpRequest{
		ID: id("c"), Node: "n2", Action: power.ActOff, Options: power.Options{IfBusy: power.Refuse},
		Hold: true,
	}); op.Outcome != power.Refused || op.Why != power.ReasonBusy {
		t.Fatalf("%+v", op)
	}
	if n, _ := r.a.assigned.get("n2"); n.hold != (power.Hold{}) {
		t.Fatalf("hold %+v", n.hold)
	}
	_, err := c.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{ID: id("d"), Node: "n2", Action: power.ActDiag, Hold: true}}})
	wantCode(t, err, api.CodeBadRequest, "no state to hold")
	_, err = c.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{ID: id("d"), Node: "n2", Action: power.ActOff, HoldFor: time.Hour}}})
	wantCode(t, err, api.CodeBadRequest, "hold")
}

func TestHoldThatIsNotDurableIsNotInForce(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n1")}, Rev: 3}, c1)
	log.err = errors.New("no space left")
	if err := s.setHolds(map[string]power.Hold{"n1": {Want: power.WantOn, Seq: 9}}); err == nil {
		t.Fatal("no error")
	}
	if n, _ := s.get("n1"); n.hold.Want != "" || len(s.unconfirmed()) != 0 {
		t.Fatalf("%+v", n)
	}
}

// TestNewerHoldStands: central's or the rack's, whichever was set later.
func TestNewerHoldStands(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	central := handsOff("n1")
	central.Hold = power.Hold{Want: power.WantOff, By: "c", Seq: 10}
	s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{central}, Rev: 3}, c1)
	want := func(by string, unconfirmed int) {
		t.Helper()
		for range 2 { // and after a restart
			if n, _ := s.get("n1"); n.hold.By != by || len(s.unconfirmed()) != unconfirmed {
				t.Fatalf("hold of %q, %d unconfirmed; want %q, %d", n.hold.By, len(s.unconfirmed()), by, unconfirmed)
			}
			s = loaded(t, log)
		}
	}
	want("c", 0)
	if err := s.setHolds(map[string]power.Hold{"n1": {Want: power.WantOn, By: "l", Seq: 20}}); err != nil {
		t.Fatal(err)
	}
	want("l", 1)
	central.Status = power.StatusReady // central does not know it yet
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{central}, Rev: 4}, c1)
	want("l", 1)
	central.Hold = power.Hold{Want: power.WantOn, By: "l", Seq: 20}
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{central}, Rev: 5}, c1)
	want("l", 0)
	if err := s.setHolds(map[string]power.Hold{"n1": {By: "l2", Seq: 30}}); err != nil { // a release
		t.Fatal(err)
	}
	want("l2", 1)
	if err := s.setHolds(map[string]power.Hold{"n1": {Want: power.WantOn, By: "l3", Seq: 25}}); err != nil { // overtaken on its way
		t.Fatal(err)
	}
	want("l2", 1)
	central.Hold = power.Hold{Want: power.WantOff, By: "c2", Seq: 40}
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{central}, Rev: 6}, c1)
	want("c2", 0)
	if err := s.setHolds(map[string]power.Hold{"n1": {Want: power.WantOn, By: "l4", Seq: 50}}); err != nil {
		t.Fatal(err)
	}
	central.Hold = power.Hold{Want: power.WantOff, By: "schedule", Schedule: "night", Since: time.Unix(1000, 0), Seq: 60}
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{central}, Rev: 7}, c1) // it did not know
	want("l4", 1)
	central.Hold = power.Hold{Want: power.WantOn, By: "l4", Seq: 61} // now it does
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{central}, Rev: 8}, c1)
	want("l4", 0)
	s.must(t, api.Assignment{Full: true, Confirmed: []string{"n1"}, Rev: 9}, c1)
	if len(log.live) != 2 { // how far it came, and with whom
		t.Fatalf("kept of a node that is gone: %v", log.live)
	}
}

func TestAssignmentWithAHoldIsComparedByItsTimes(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	n := handsOff("n1")
	n.Hold = power.Hold{Want: power.WantOff, Since: time.Now(), Until: time.Now().Add(time.Hour).In(time.FixedZone("x", 3600)), Seq: 4}
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{n}, Rev: 1}, c1)
	n.Hold.Since, n.Hold.Until = n.Hold.Since.UTC().Round(0), n.Hold.Until.UTC()
	if changed, _ := loaded(t, log).must(t, api.Assignment{Nodes: []api.AssignedNode{n}, Rev: 1}, c1); len(changed) != 0 {
		t.Fatalf("changed %v", changed)
	}
}

func TestSyncTellsHoldsRackAndExplanations(t *testing.T) {
	r, c := withCentral(t, 2)
	eventually(t, "the rack's state is told", func() bool {
		return get(c, func() bool {
			return slices.ContainsFunc(c.reports, func(r api.Report) bool { return r.Rack != nil && r.Rack.Monitor == MonitorOff })
		})
	})
	if _, err := r.a.control.hold(api.SetHold{Names: []string{"n1"}, Want: power.WantOff, AskedBy: "ann"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "central is told of the hold", func() bool { return len(c.holds("n1")) > 0 })
	told := c.holds("n1")[0]
	if told.Want != power.WantOff || told.By != "ann" || told.Seq == 0 {
		t.Fatalf("told %+v", told)
	}
	c.goAway()
	c.do(func() { c.sessions++ }) // even where the agent was between two requests
	c.comeBack()                  // a new session: central may have lost it
	eventually(t, "central is told again", func() bool { return len(c.holds("n1")) > 1 })
	n := r.nodes[0]
	n.Hold = told
	c.assign(n)
	eventually(t, "central's word is taken", func() bool { return len(r.a.assigned.unconfirmed()) == 0 })
	if got, _ := r.a.assigned.get("n1"); got.hold.Want != power.WantOff {
		t.Fatalf("hold %+v", got.hold)
	}
	c.do(func() { c.explain = []string{"n2", "n9"} })
	eventually(t, "n2 is explained", func() bool {
		return get(c, func() bool {
			return slices.ContainsFunc(c.reports, func(r api.Report) bool {
				return len(r.Explained) == 1 && r.Explained[0].Node == "n2" && r.Explained[0].Message != ""
			})
		})
	})
	c.do(func() { c.rack = &api.RackSettings{Pause: &api.Pause{By: "bob", Since: time.Now()}}; c.rev++ })
	eventually(t, "the pause is told", func() bool {
		return get(c, func() bool {
			return slices.ContainsFunc(c.reports, func(r api.Report) bool { return r.Rack != nil && r.Rack.Pause != nil })
		})
	})
	eventually(t, "readings carry what the monitor makes of them", func() bool {
		return get(c, func() bool {
			return slices.ContainsFunc(c.reports, func(r api.Report) bool { return len(r.Readings) > 0 })
		})
	})
}

func TestBrakeAtTheSocket(t *testing.T) {
	r, c := withControl(t, 10, withMonitor, func(c *Config) { c.Timing.Settle = time.Second })
	if got := ok[[]api.RackBrake](t)(c.Brakes(t.Context())); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	if got := ok[[]api.RackBrake](t)(c.ReleaseBrake(t.Context(), api.ReleaseBrake{})); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	for i, n := range r.nodes {
		r.bmc(n.Name).SetPower(power.On)
		r.nodes[i] = withStatus(n, power.StatusReady)
	}
	r.assign(r.nodes...)
	eventually(t, "the brake holds", func() bool { return len(ok[[]api.RackBrake](t)(c.Brakes(t.Context()))) == 1 })
	b := ok[[]api.RackBrake](t)(c.Brakes(t.Context()))[0]
	if b.Rack != "r1" || len(b.Nodes) != 10 || b.Kind != monitor.BrakeCut {
		t.Fatalf("%+v", b)
	}
	_, err := c.ReleaseBrake(t.Context(), api.ReleaseBrake{Racks: []string{"r2"}})
	wantCode(t, err, api.CodeNotFound, "r2")
	racks := ok[[]api.Rack](t)(c.Racks(t.Context()))
	if len(racks) != 1 || racks[0].State.Brake == nil || racks[0].Nodes != 10 {
		t.Fatalf("%+v", racks)
	}
	released := ok[[]api.RackBrake](t)(c.ReleaseBrake(t.Context(), api.ReleaseBrake{AskedBy: "ann"}))
	if len(released) != 1 || released[0].ID != b.ID || !released[0].Released {
		t.Fatalf("%+v", released)
	}
	eventually(t, "the nodes are off", func() bool { return r.dark() == 10 })
}

func TestExplainAndRetryAtTheSocket(t *testing.T) {
	r, c := withControl(t, 1, withMonitor)
	r.bmc("n1").SetPower(power.On)
	r.assign(withStatus(r.nodes[0], power.StatusReady))
	eventually(t, "n1 is off", func() bool { return r.bmc("n1").Power() == power.Off })
	eventually(t, "that is noticed", func() bool {
		e := ok[api.Explanation](t)(c.Explain(t.Context(), "n1"))
		return e.Message == "n1 is off, as status READY wants it." && e.Monitor.Matched && len(e.RecentDecisions) > 1 && len(e.RecentReadings) > 1
	})
	e := ok[api.Explanation](t)(c.Explain(t.Context(), "n1"))
	if e.Node != "n1" || e.Agent != "r1" || e.DesiredFrom != "status READY" || e.Desired.Want != power.WantOff || !e.Monitor.Matched ||
		len(e.Ops) != 1 || e.Next.IsZero() ||
		len(e.RecentReadings) < 2 || e.RecentReadings[len(e.RecentReadings)-2].State != power.On ||
		e.RecentReadings[len(e.RecentReadings)-1].State != power.Off || len(e.RecentDecisions) < 2 {
		t.Fatalf("%+v", e)
	}
	acted := slices.IndexFunc(e.RecentDecisions, func(d api.Decision) bool {
		return d.Action == power.ActOff &&
			d.Reason == power.ReasonDrift
	})
	if acted < 0 {
		t.Fatalf("decided %+v", e.RecentDecisions)
	}
	_, err := c.Explain(t.Context(), "n9")
	wantCode(t, err, api.CodeNotFound, "n9")
	if got := ok[api.Changed](t)(c.RetryNodes(t.Context(), api.RetryNodes{Names: []string{"n1"}})); got.Changed != 1 {
		t.Fatalf("%+v", got)
	}
	_, err = c.RetryNodes(t.Context(), api.RetryNodes{Names: []string{"n9"}})
	wantCode(t, err, api.CodeNotFound, "n9")
}

// TestAskedBeyondAllBounds: what central could not store is not taken at the socket.
func TestAskedBeyondAllBounds(t *testing.T) {
	r, c := withControl(t, 1)
	long, age := strings.Repeat("x", 1001), 260*365*24*time.Hour
	for _, in := range []api.SetHold{
		{Want: power.WantOn, For: age}, {Want: power.WantOn, Reason: long}, {Want: power.WantOn, AskedBy: long}, {Reason: long},
	} {
		in.Names = []string{"n1"}
		_, err := c.SetHold(t.Context(), in)
		wantCode(t, err, api.CodeBadRequest, "")
	}
	for _, in := range []api.OpRequest{
		{Hold: true, HoldFor: age}, {Deadline: age}, {Deadline: -time.Second}, {Reason: long}, {AskedBy: long}, {ID: long},
	} {
		in.Node, in.Action = "n1", power.ActOn
		if in.ID == "" {
			in.ID = id("a")
		}
		_, err := c.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{in}})
		wantCode(t, err, api.CodeBadRequest, "")
	}
	if len(r.a.assigned.unconfirmed()) != 0 || len(r.bmc("n1").Commands()) != 0 {
		t.Fatal("something was done")
	}
}

// TestCentralDoesNotKnowTheHoldYet: what was asked of central against a hold that was
// set at the rack meanwhile is refused like at the rack.
func TestCentralDoesNotKnowTheHoldYet(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		set := func(want power.Want) {
			t.Helper()
			if _, err := r.a.control.hold(api.SetHold{Names: []string{"n1"}, Want: want, Reason: "hands inside", AskedBy: "ann"},
				time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		set(power.WantOn)
		for _, action := range []power.Action{power.ActOff, power.ActSoftOff} {
			if got := r.ask("n1", action); got.Verdict != power.VerdictRefuse || got.Reason != power.ReasonDesired ||
				!strings.Contains(got.Message, "hold of ann wants") {
				t.Fatalf("%+v", got)
			}
		}
		r.wantEnd(r.ask("n1", power.ActReset).Op.ID, power.Succeeded, power.ReasonVerified)
		n, _ := r.a.assigned.get("n1") // central knows it, and sets its own together with a request
		is := n.AssignedNode
		is.Hold = power.Hold{Want: power.WantOff, By: "bob", Seq: n.hold.Seq + 1}
		r.assign(is)
		r.wantEnd(r.ask("n1", power.ActOff).Op.ID, power.Succeeded, power.ReasonVerified)
		set("") // a release forbids nothing
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
	})
}
