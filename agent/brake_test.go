package agent

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/noderange"
)

// monitored runs fn with a harness whose agent monitors every minute.
func monitored(t *testing.T, nodes int, fn func(*harness)) {
	t.Helper()
	inBubble(t, nodes, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		fn(r)
	})
}

// hall puts all nodes in a state and a status, and waits until the monitor has seen it.
func (r *harness) hall(s power.Status, p power.State) {
	r.t.Helper()
	for i, n := range r.nodes {
		r.bmc(n.Name).SetPower(p)
		r.nodes[i] = withStatus(n, s)
	}
	r.assign(r.nodes...)
	time.Sleep(2 * time.Minute)
	for _, n := range r.nodes {
		if m := r.a.readings.made(n.Name); !m.Matched {
			r.t.Fatalf("%s is not seen %s: %+v", n.Name, p, m)
		}
	}
}

// changed are the first n nodes in another status.
func (r *harness) changed(n int, s power.Status, confirmed bool) []api.AssignedNode {
	list := slices.Clone(r.nodes[:n])
	for i := range list {
		list[i] = withStatus(list[i], s)
		list[i].Confirmed = confirmed
	}
	return list
}

func (r *harness) settings(s api.RackSettings) {
	r.t.Helper()
	if err := r.a.apply(api.Assignment{Rev: 1, Rack: &s}, theCentral); err != nil {
		r.t.Fatal(err)
	}
}

func (r *harness) wantBrake(kind string, nodes int) api.Brake {
	r.t.Helper()
	b := r.a.monitor.State().Brake
	if b == nil {
		r.t.Fatalf("no brake holds, want one for %d nodes", nodes)
	}
	if b.Kind != kind || len(b.Nodes) != nodes || b.Total != len(r.nodes) || b.ID == "" ||
		!strings.Contains(b.Message, noderange.Fold(b.Nodes)) {
		r.t.Fatalf("brake %+v, want %s of %d nodes", b, kind, nodes)
	}
	return *b
}

func (r *harness) wantNoBrake() {
	r.t.Helper()
	if b := r.a.monitor.State().Brake; b != nil {
		r.t.Fatalf("a brake holds: %s", b.Message)
	}
}

// commands counts those that arrived at all BMCs.
func (r *harness) commands() int {
	n := 0
	for _, node := range r.nodes {
		n += len(r.bmc(node.Name).Commands())
	}
	return n
}

// dark counts the nodes that are off.
func (r *harness) dark() int {
	n := 0
	for _, node := range r.nodes {
		if r.bmc(node.Name).Power() == power.Off {
			n++
		}
	}
	return n
}

// bulk are the ways in which a wrong status reaches the agent.
var bulk = map[string]func(r *harness, list []api.AssignedNode){
	"in one assignment": func(r *harness, list []api.AssignedNode) { r.assign(list...) },
	"by a script, within seconds": func(r *harness, list []api.AssignedNode) {
		for _, n := range list {
			r.assign(n)
			time.Sleep(100 * time.Millisecond)
		}
	},
	"by a slow script": func(r *harness, list []api.AssignedNode) {
		for _, n := range list {
			r.assign(n)
			time.Sleep(2 * time.Second)
		}
	},
	"just before a crash": func(r *harness, list []api.AssignedNode) {
		r.assign(list...)
		r.restart()
	},
	"just before a crash, with BMCs that are slow": func(r *harness, list []api.AssignedNode) {
		for i, n := range r.nodes {
			r.bmc(n.Name).SetLatency(time.Duration(i+1) * 200 * time.Millisecond)
		}
		r.assign(list...)
		r.restart()
	},
	"just before a crash that lasts, with BMCs that are slow": func(r *harness, list []api.AssignedNode) {
		for i, n := range r.nodes {
			r.bmc(n.Name).SetLatency(time.Duration(i+1) * 200 * time.Millisecond)
		}
		r.assign(list...)
		time.Sleep(time.Second) // the monitor has noted it, and gathers
		r.crash()
		time.Sleep(10 * time.Minute)
		r.start()
	},
	"while the agent was down": func(r *harness, list []api.AssignedNode) {
		r.crash()
		// what central said reached the log and nothing else
		a, err := New(r.cfg)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, _, err := a.assigned.apply(api.Assignment{Nodes: list, Rev: 1}, theCentral); err != nil {
			r.t.Fatal(err)
		}
		a.Close()
		time.Sleep(10 * time.Minute)
		r.start()
	},
	"with BMCs that hang": func(r *harness, list []api.AssignedNode) {
		for _, n := range r.nodes[36:] {
			r.bmc(n.Name).SetMute(true)
		}
		r.assign(list...)
	},
}

func TestBulkChangeDarkensNothing(t *testing.T) {
	for name, change := range bulk {
		t.Run(name, func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				r.hall(power.StatusDeployed, power.On)
				change(r, r.changed(30, power.StatusReady, false))
				time.Sleep(10 * time.Minute)
				if r.dark() > 0 || r.commands() > 0 {
					t.Fatalf("%d nodes are dark, %d commands were sent", r.dark(), r.commands())
				}
				b := r.wantBrake(monitor.BrakeCut, 30)
				if m := r.a.readings.made("n7"); m.Waits != power.ReasonBrake || m.Matched {
					t.Errorf("n7: %+v", m)
				}
				r.restart()
				time.Sleep(5 * time.Minute)
				if again := r.wantBrake(monitor.BrakeCut, 30); again.ID != b.ID || r.dark() > 0 {
					t.Fatalf("after a restart: %+v, %d dark", again, r.dark())
				}
				r.settings(api.RackSettings{ReleaseBrake: "another"})
				time.Sleep(2 * time.Minute)
				if r.dark() > 0 {
					t.Fatal("the release of another brake was taken")
				}
				r.settings(api.RackSettings{ReleaseBrake: b.ID, ReleasedBy: "ann"})
				time.Sleep(10 * time.Minute)
				if r.dark() != 30 {
					t.Fatalf("%d nodes are off after the release, want 30", r.dark())
				}
				r.wantNoBrake()
			})
		})
	}
}

func TestConfirmedBulkChangeGoesThrough(t *testing.T) {
	for name, change := range bulk {
		t.Run(name, func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				r.hall(power.StatusDeployed, power.On)
				began := time.Now()
				change(r, r.changed(30, power.StatusReady, true))
				for r.dark() < 30 && time.Since(began) < 12*time.Minute {
					time.Sleep(time.Second)
				}
				if r.dark() != 30 {
					t.Fatalf("%d nodes are off, want 30; brake %+v", r.dark(), r.a.monitor.State().Brake)
				}
				if name == "in one assignment" && time.Since(began) > 3*time.Second {
					t.Errorf("it took %s", time.Since(began))
				}
				r.wantNoBrake()
			})
		})
	}
}

// TestConfirmedWhileCyclesRun: that a node is off for a moment in a cycle is not what a
// confirmation was for.
func TestConfirmedWhileCyclesRun(t *testing.T) {
	monitored(t, 10, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		for _, n := range r.nodes {
			r.ask(n.Name, power.ActCycle)
		}
		r.waitFor("all are off", time.Minute, func() bool { return r.dark() == 10 })
		time.Sleep(2 * time.Second)
		r.assign(r.changed(10, power.StatusReady, true)...)
		time.Sleep(3 * time.Minute)
		r.wantNoBrake()
		if n := r.dark(); n != 10 {
			t.Fatalf("%d of 10 nodes are off", n)
		}
	})
}

// TestConfirmedAfterwards: the brake is not the only way out.
func TestConfirmedAfterwards(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		r.assign(r.changed(30, power.StatusReady, false)...)
		time.Sleep(time.Minute)
		r.wantBrake(monitor.BrakeCut, 30)
		r.assign(r.changed(30, power.StatusDeployed, false)...) // it was wrong
		time.Sleep(time.Minute)
		r.wantNoBrake()
		r.assign(r.changed(30, power.StatusReady, true)...)
		time.Sleep(time.Minute)
		if r.dark() != 30 {
			t.Fatalf("%d nodes are off, want 30", r.dark())
		}
	})
}

func TestFewCutsTripNoBrake(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		r.assign(r.changed(8, power.StatusReady, false)...)
		time.Sleep(4 * time.Second)
		if r.dark() > 0 {
			t.Fatal("it did not wait for more")
		}
		time.Sleep(4 * time.Second)
		if r.dark() != 8 {
			t.Fatalf("%d are off, want 8", r.dark())
		}
		r.assign(withStatus(r.nodes[8], power.StatusReady)) // the ninth within a minute
		time.Sleep(20 * time.Second)
		if r.dark() != 8 {
			t.Fatalf("%d are off, want 8: those of a moment ago count", r.dark())
		}
		r.wantBrake(monitor.BrakeCut, 1)
	})
}

// TestOutageIsNotCorrected: nodes that were as wanted go off at once.
func TestOutageIsNotCorrected(t *testing.T) {
	for _, into := range []time.Duration{0, 5 * time.Second, 10 * time.Second, 35 * time.Second, 55 * time.Second} {
		t.Run(into.String(), func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				r.hall(power.StatusDiskErasing, power.On) // enforced, and not debounced
				time.Sleep(into)
				for i := range 12 {
					r.bmc(r.nodes[i*3].Name).SetPower(power.Off)
				}
				time.Sleep(5 * time.Minute)
				if r.dark() != 12 || r.commands() != 0 {
					t.Fatalf("%d are off, %d commands", r.dark(), r.commands())
				}
				r.wantBrake(monitor.BrakeDrift, 12)
				if _, err := r.a.monitor.Release(api.ReleaseBrake{MaxNodes: map[string]int{r.a.cfg.Name: 11}}); api.CodeOf(err) != api.CodeRefused {
					t.Fatalf("more than was seen was released: %v", err)
				}
				r.a.monitor.Configure(api.RackSettings{ReleaseBrake: r.a.monitor.State().Brake.ID, ReleaseNodes: 11})
				time.Sleep(time.Minute)
				r.wantBrake(monitor.BrakeDrift, 12)
				if b, err := r.a.monitor.Release(api.ReleaseBrake{AskedBy: "ann", MaxNodes: map[string]int{r.a.cfg.Name: 40}}); err != nil || b == nil {
					t.Fatalf("release: %+v, %v", b, err)
				}
				time.Sleep(2 * time.Minute)
				if r.dark() != 0 {
					t.Fatalf("%d are off after the release", r.dark())
				}
				r.wantNoBrake()
				time.Sleep(2 * time.Minute)
				for i := range 12 {
					r.bmc(r.nodes[i*3].Name).SetPower(power.Off)
				}
				time.Sleep(3 * time.Minute) // the release was for that time only
				r.wantBrake(monitor.BrakeDrift, 12)
			})
		})
	}
}

// TestNodesThatComeOnAtOnceAreNotCut: what READY nodes do after an outage whose BIOS
// turns them on.
func TestNodesThatComeOnAtOnceAreNotCut(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusReady, power.Off)
		time.Sleep(10 * time.Second)
		for _, n := range r.nodes[:30] {
			r.bmc(n.Name).SetPower(power.On)
		}
		time.Sleep(5 * time.Minute)
		if r.dark() != 10 || r.commands() > 0 {
			t.Fatalf("%d are off, %d commands", r.dark(), r.commands())
		}
		if b := r.a.monitor.State().Brake; b == nil || len(b.Nodes) != 30 {
			t.Fatalf("brake %+v", b)
		}
	})
}

func TestFewDriftsAreCorrectedThoughBMCsHang(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDiskErasing, power.On)
		for _, n := range r.nodes[37:] {
			r.bmc(n.Name).SetMute(true)
		}
		for _, n := range r.nodes[:3] {
			r.bmc(n.Name).SetPower(power.Off)
		}
		time.Sleep(100 * time.Second)
		if r.dark() != 0 {
			t.Fatalf("%d are still off", r.dark())
		}
		r.wantNoBrake()
	})
}

func TestBrakeEndsWithTheDrift(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDiskErasing, power.On)
		for _, n := range r.nodes[:12] {
			r.bmc(n.Name).SetPower(power.Off)
		}
		time.Sleep(2 * time.Minute)
		r.wantBrake(monitor.BrakeDrift, 12)
		for _, n := range r.nodes[:10] {
			r.bmc(n.Name).SetPower(power.On)
		}
		time.Sleep(2 * time.Minute)
		r.wantBrake(monitor.BrakeDrift, 2) // not when the count falls below the bound
		if r.dark() != 2 {
			t.Fatalf("%d are off, want 2", r.dark())
		}
		for _, n := range r.nodes[:12] {
			r.bmc(n.Name).SetPower(power.On)
		}
		time.Sleep(2 * time.Minute)
		r.wantNoBrake()
		if r.commands() > 0 {
			t.Fatalf("%d commands", r.commands())
		}
	})
}

// TestPendingPowerOnTripsNoBrake: nodes never seen as wanted are not drift.
func TestPendingPowerOnTripsNoBrake(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusReady, power.Off)
		r.assign(r.changed(40, power.StatusDeploying, false)...)
		time.Sleep(2 * time.Minute)
		if r.dark() != 0 {
			t.Fatalf("%d are off", r.dark())
		}
	})
}

func TestOldDriftOfDeployedNodesIsNotNews(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		for i := range 20 { // people shut their machines down, now and then
			r.bmc(r.nodes[i].Name).SetPower(power.Off)
			time.Sleep(5 * time.Minute)
		}
		r.wantNoBrake()
		r.restart()
		time.Sleep(3 * time.Minute)
		r.wantNoBrake()
		for i := range 12 {
			r.bmc(r.nodes[20+i].Name).SetPower(power.Off)
		}
		time.Sleep(2 * time.Minute)
		r.wantBrake(monitor.BrakeDrift, 12+1) // with the one of the last minutes
	})
}

func TestWhatPeopleAskForIsNoDrift(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		for i := range 12 {
			r.ask(r.nodes[i].Name, power.ActOff)
		}
		time.Sleep(5 * time.Minute)
		if r.dark() != 12 {
			t.Fatalf("%d are off, want 12", r.dark())
		}
		r.wantNoBrake()
	})
}

func TestBrakeBoundsAreSettable(t *testing.T) {
	monitored(t, 10, func(r *harness) {
		r.settings(api.RackSettings{BrakePercent: 10, BrakeAbove: 1})
		r.hall(power.StatusDeployed, power.On)
		r.assign(r.changed(2, power.StatusReady, false)...)
		time.Sleep(time.Minute)
		r.wantBrake(monitor.BrakeCut, 2)
	})
	monitored(t, 10, func(r *harness) {
		r.settings(api.RackSettings{BrakePercent: 90})
		r.hall(power.StatusDeployed, power.On)
		r.assign(r.changed(9, power.StatusReady, false)...)
		time.Sleep(time.Minute)
		r.wantNoBrake()
		if r.dark() != 9 {
			t.Fatalf("%d are off", r.dark())
		}
	})
}

// TestBrakeStopsWhatHasNotLeft: corrections that were asked for before it held and
// whose command has not left stay unsent.
func TestBrakeStopsWhatHasNotLeft(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		for _, n := range r.nodes[:3] {
			r.bmc(n.Name).SetLatency(8 * time.Second)
		}
		r.assign(r.changed(3, power.StatusReady, false)...)
		r.waitFor("they are asked for", 30*time.Second, func() bool { return len(r.a.lane("n1").outstanding()) > 0 })
		r.assign(r.changed(30, power.StatusReady, false)...)
		time.Sleep(5 * time.Minute)
		if r.dark() > 0 {
			t.Fatalf("%d are dark", r.dark())
		}
		r.wantBrake(monitor.BrakeCut, 30)
		op := r.ask("n20", power.ActOff) // people's requests are carried out
		r.wantEnd(op.Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

// fullDisk is a log that takes nothing while it is full.
type fullDisk struct {
	appender
	full atomic.Bool
}

func (f *fullDisk) Append(entries ...journal.Entry) (uint64, error) {
	if f.full.Load() {
		return 0, errors.New("no space left")
	}
	return f.appender.Append(entries...)
}

// TestNothingIsCutThatIsNotRemembered: the brake would forget it over a crash.
func TestNothingIsCutThatIsNotRemembered(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		disk := &fullDisk{appender: r.a.assigned.log}
		r.a.assigned.mu.Lock()
		r.a.assigned.log = disk
		r.a.assigned.mu.Unlock()
		r.assign(r.changed(3, power.StatusReady, false)...)
		disk.full.Store(true)
		time.Sleep(5 * time.Minute)
		if r.dark() > 0 {
			t.Fatalf("%d are dark", r.dark())
		}
		disk.full.Store(false)
		time.Sleep(15 * time.Second) // it does not wait for the next round
		if r.dark() != 3 {
			t.Fatalf("%d are off, want 3", r.dark())
		}
	})
}

// held are the first n nodes in a status, held on.
func (r *harness) held(n int, s power.Status, h power.Hold) []api.AssignedNode {
	list := r.changed(n, s, false)
	for i := range list {
		list[i].Hold = h
	}
	return list
}

// TestHoldConfirmsWhatItsEndBrings: whoever confirmed a hold knew what its end would
// bring about by the statuses of then, and not what was pasted since.
func TestHoldConfirmsWhatItsEndBrings(t *testing.T) {
	for name, c := range map[string]struct {
		during power.Status
		swept  bool // central said that it is over before the agent's clock did
		dark   int
	}{
		"the same status":                   {during: power.StatusReady, dark: 30},
		"the same status, ended by central": {during: power.StatusReady, swept: true, dark: 30},
		"another status":                    {during: power.StatusBroken},
		"another status, ended by central":  {during: power.StatusBroken, swept: true},
	} {
		t.Run(name, func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				for i, n := range r.nodes {
					r.nodes[i] = withStatus(n, power.StatusReady)
				}
				h := power.Hold{Want: power.WantOn, By: "ann", Reason: "tests", Seq: 7, Until: time.Now().Add(time.Hour), Confirmed: true}
				r.assign(r.held(40, power.StatusReady, h)...)
				time.Sleep(30 * time.Minute)
				r.restart()
				r.assign(r.held(30, c.during, h)...)
				time.Sleep(29 * time.Minute)
				if c.swept {
					r.assign(r.held(30, c.during, power.Hold{Seq: 7, Confirmed: true})...)
				}
				for _, n := range r.nodes[30:] {
					n.Hold = power.Hold{Want: power.WantOn, By: "ann", Reason: "tests", Seq: 8}
					r.assign(n)
				}
				time.Sleep(10 * time.Minute)
				if r.dark() != c.dark {
					t.Fatalf("%d are dark, want %d; brake %+v", r.dark(), c.dark, r.a.monitor.State().Brake)
				}
				if c.dark == 0 {
					r.wantBrake(monitor.BrakeCut, 30)
				} else {
					r.wantNoBrake()
				}
			})
		})
	}
}

// TestBulkChangeWhileBMCsAreAway: nodes that come back into sight one after the other
// are one change all the same.
func TestBulkChangeWhileBMCsAreAway(t *testing.T) {
	for name, confirmed := range map[string]bool{"unconfirmed": false, "confirmed": true} {
		t.Run(name, func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				r.hall(power.StatusDeployed, power.On)
				for _, n := range r.nodes {
					r.bmc(n.Name).SetMute(true)
				}
				time.Sleep(20 * time.Minute)
				r.assign(r.changed(30, power.StatusReady, confirmed)...)
				time.Sleep(20 * time.Minute)
				for _, n := range r.nodes {
					r.bmc(n.Name).SetMute(false)
					time.Sleep(20 * time.Second)
				}
				time.Sleep(20 * time.Minute)
				if confirmed {
					r.wantNoBrake()
					if r.dark() != 30 {
						t.Fatalf("%d are dark, want 30", r.dark())
					}
					return
				}
				if r.dark() > 0 {
					t.Fatalf("%d are dark; brake %+v", r.dark(), r.a.monitor.State().Brake)
				}
				r.wantBrake(monitor.BrakeCut, 30)
				r.assign(r.changed(30, power.StatusDeployed, false)...)
				time.Sleep(2 * time.Minute)
				r.wantNoBrake()
			})
		})
	}
}

// TestBulkChangeAfterAStartWhileBMCsAreAway: nor does a start in between make many changes
// of one.
func TestBulkChangeAfterAStartWhileBMCsAreAway(t *testing.T) {
	for name, restarts := range map[string][2]bool{"before the change": {true, false}, "after it": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				r.hall(power.StatusDeployed, power.On)
				for _, n := range r.nodes {
					r.bmc(n.Name).SetMute(true)
				}
				if restarts[0] {
					r.restart()
				}
				time.Sleep(20 * time.Minute)
				r.assign(r.changed(30, power.StatusReady, false)...)
				time.Sleep(time.Minute)
				if restarts[1] {
					r.restart()
				}
				time.Sleep(20 * time.Minute)
				for _, n := range r.nodes {
					r.bmc(n.Name).SetMute(false)
					time.Sleep(20 * time.Second)
				}
				time.Sleep(20 * time.Minute)
				if r.dark() > 0 {
					t.Fatalf("%d are dark; brake %+v", r.dark(), r.a.monitor.State().Brake)
				}
				r.wantBrake(monitor.BrakeCut, 30)
			})
		})
	}
}

// TestBulkChangeWhileOperationsRun: nodes that become free one after the other are one
// change all the same.
func TestBulkChangeWhileOperationsRun(t *testing.T) {
	for name, confirmed := range map[string]bool{"unconfirmed": false, "confirmed": true} {
		t.Run(name, func(t *testing.T) {
			monitored(t, 40, func(r *harness) {
				r.inDomains("feed")
				r.settings(api.RackSettings{Domains: []api.DomainLimit{{Name: "feed", Rate: 0.05}}})
				r.hall(power.StatusDeployed, power.On)
				for _, n := range r.nodes[:25] {
					r.ask(n.Name, power.ActCycle, func(o *power.Op) { o.Deadline = time.Now().Add(time.Hour) })
				}
				time.Sleep(5 * time.Second)
				r.assign(r.changed(25, power.StatusReady, confirmed)...)
				time.Sleep(time.Hour)
				if confirmed {
					r.wantNoBrake()
					if r.dark() != 25 {
						t.Fatalf("%d are dark, want 25", r.dark())
					}
					return
				}
				if r.dark() > 0 {
					t.Fatalf("%d are dark; brake %+v", r.dark(), r.a.monitor.State().Brake)
				}
				r.wantBrake(monitor.BrakeCut, 25)
			})
		})
	}
}

// TestDeadBMCsTripNoBrakeByThemselves: nodes that nobody can read, whose status changed
// now and then, are no bulk change.
func TestDeadBMCsTripNoBrakeByThemselves(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		for i := range r.nodes[:20] {
			r.bmc(r.nodes[i].Name).SetMute(true)
			r.nodes[i] = withStatus(r.nodes[i], power.StatusBroken)
			r.assign(r.nodes[i])
			time.Sleep(20 * time.Minute)
		}
		r.assign(withStatus(r.nodes[39], power.StatusReady))
		time.Sleep(time.Minute)
		r.wantNoBrake()
		r.wantPower("n40", power.Off)
	})
}

// TestCutsThatADeathPutOffCount: what was asked for before a death and leaves after it
// is cut when it leaves.
func TestCutsThatADeathPutOffCount(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		for _, n := range r.nodes[:8] {
			r.bmc(n.Name).SetLatency(8 * time.Second)
		}
		r.assign(r.changed(8, power.StatusReady, false)...)
		r.waitFor("they are asked for", 40*time.Second, func() bool {
			return !slices.ContainsFunc(r.nodes[:8], func(n api.AssignedNode) bool { return len(r.a.lane(n.Name).outstanding()) == 0 })
		})
		r.crash()
		for _, n := range r.nodes[:8] {
			r.bmc(n.Name).SetLatency(0)
		}
		time.Sleep(2 * time.Minute)
		if r.dark() > 0 {
			t.Fatalf("%d were off already", r.dark())
		}
		r.start()
		r.assign(r.changed(16, power.StatusReady, false)[8:]...)
		time.Sleep(50 * time.Second)
		if r.dark() != 8 {
			t.Fatalf("%d are off within a minute, want 8", r.dark())
		}
		if b := r.a.monitor.State().Brake; b == nil || b.Kind != monitor.BrakeCut {
			t.Fatalf("brake %+v", b)
		}
	})
}

// TestReleaseIsForWhatIsDesired: what comes after the release of a brake, however soon,
// was not released.
func TestReleaseIsForWhatIsDesired(t *testing.T) {
	monitored(t, 40, func(r *harness) {
		r.hall(power.StatusDeployed, power.On)
		r.assign(r.changed(30, power.StatusReady, false)...)
		time.Sleep(time.Minute)
		b := r.wantBrake(monitor.BrakeCut, 30)
		r.settings(api.RackSettings{ReleaseBrake: b.ID, ReleasedBy: "ann"})
		r.assign(r.changed(30, power.StatusNew, false)...)
		time.Sleep(5 * time.Minute)
		if r.dark() > 0 {
			t.Fatalf("%d are off", r.dark())
		}
		r.wantBrake(monitor.BrakeCut, 30)
	})
}
