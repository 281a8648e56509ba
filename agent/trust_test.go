package agent

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/power"
)

func TestMeet(t *testing.T) {
	db := func(id string, incarnation int64) api.Database {
		return api.Database{CentralID: id, Incarnation: incarnation}
	}
	for _, c := range []struct {
		name            string
		trusted, answer api.Database
		bare            bool
		want            meeting
	}{
		{"the same", db("a", 5), db("a", 5), false, meetTrusted},
		{"the first", api.Database{}, db("a", 5), true, meetFirst},
		{"a rack that has nodes and no word of a central", api.Database{}, db("a", 5), false, meetUnknown},
		{"restored", db("a", 5), db("a", 6), false, meetRestored},
		{"restored for the first time", db("a", 0), db("a", 6), false, meetRestored},
		{"what a restore replaced", db("a", 6), db("a", 5), false, meetOlder},
		{"another", db("a", 5), db("b", 5), false, meetUnknown},
		{"another, restored", db("a", 5), db("b", 6), false, meetUnknown},
		{"another, met by an agent that started bare", db("a", 5), db("b", 5), true, meetUnknown},
	} {
		got := meet(c.trusted, c.answer, c.bare)
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		if follows := got.trusted(); follows != (c.want == meetTrusted || c.want == meetFirst || c.want == meetRestored) {
			t.Errorf("%s: followed %t", c.name, follows)
		}
	}
}

// What a central takes away: one after the other or at once, by name or by a full
// assignment that lacks it.
func TestMostNodesAreNotTakenAwayUnconfirmed(t *testing.T) {
	type step struct {
		remove    int // so many, the first ones that are left
		confirmed bool
		full      bool
		after     time.Duration
		kept      int // of all, afterwards
	}
	for _, c := range []struct {
		name  string
		nodes int
		steps []step
	}{
		{"the only one", 1, []step{{remove: 1, kept: 1}}},
		{"the only one, confirmed", 1, []step{{remove: 1, confirmed: true}}},
		{"one of two, then the other", 2, []step{{remove: 1}, {remove: 1, kept: 1}}},
		{"one of two, the other an hour later", 2, []step{{remove: 1}, {remove: 1, after: 61 * time.Minute, kept: 1}}},
		{"five of ten", 10, []step{{remove: 5}}},
		{"six of ten", 10, []step{{remove: 6, kept: 6}}},
		{"six of ten, in full", 10, []step{{remove: 6, full: true, kept: 6}, {full: true, kept: 6}}},
		{"six of ten, confirmed", 10, []step{{remove: 6, confirmed: true}}},
		{"six of ten, confirmed, in full", 10, []step{{remove: 6, confirmed: true, full: true}}},
		{"one by one", 10, []step{{remove: 1}, {remove: 1}, {remove: 1}, {remove: 1}, {remove: 1}, {remove: 1, kept: 1}, {remove: 1, kept: 2}}},
		{"ten, slowly", 20, []step{{remove: 10}, {remove: 1, kept: 1}}},
		{"all, in full", 40, []step{{remove: 40, full: true, kept: 40}}},
		{"all, by name", 40, []step{{remove: 40, kept: 40}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &notes{}
			s := loaded(t, log)
			var nodes []api.AssignedNode
			for i := range c.nodes {
				nodes = append(nodes, handsOff(fmt.Sprintf("n%02d", i)))
			}
			left := slices.Clone(nodes) // at central
			rev := int64(1)
			s.must(t, api.Assignment{Full: true, Nodes: nodes, Rev: rev}, c1)
			for i, step := range c.steps {
				rev++
				a := api.Assignment{Rev: rev, Full: step.full}
				for _, n := range left[:step.remove] {
					a.Removed = append(a.Removed, n.Name)
				}
				left = left[step.remove:]
				if step.confirmed {
					a.Confirmed = a.Removed
				}
				if step.full {
					a.Nodes, a.Removed = left, nil
				}
				s.trust.RemovedSince = s.trust.RemovedSince.Add(-step.after)
				s.must(t, a, c1)
				for _, s := range []*assigned{s, loaded(t, log)} {
					if kept := s.trusts().Kept; len(kept) != step.kept || len(s.all()) != len(left)+step.kept {
						t.Fatalf("step %d: kept %v, nodes %v; want %d kept", i, kept, s.names(), step.kept)
					}
				}
			}
		})
	}
}

// However a central takes nodes away within an hour, unconfirmed: no more than half of
// them, or five where that is more, and never all.
func TestNoOrderOfRemovalsTakesMostNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "nodes")
		s := &assigned{
			log: &notes{}, keys: testKeys, nodes: map[string]*assignedNode{}, holds: map[string]power.Hold{},
			memories: map[string]monitor.Memory{},
		}
		there := map[string]api.AssignedNode{} // at central
		for i := range n {
			name := fmt.Sprintf("n%02d", i)
			there[name] = handsOff(name)
		}
		full := func(rev int64) api.Assignment {
			return api.Assignment{
				Full: true, Rev: rev,
				Nodes: slices.SortedFunc(maps.Values(there), func(a, b api.AssignedNode) int { return compareNames(a.Name, b.Name) }),
			}
		}
		if _, _, err := s.apply(full(1), c1); err != nil {
			t.Fatal(err)
		}
		confirmed := 0
		for rev := int64(2); rev < 30 && len(there) > 0; rev++ {
			names := slices.Sorted(maps.Keys(there))
			a := api.Assignment{Rev: rev}
			for _, name := range names[:rapid.IntRange(0, min(8, len(names))).Draw(t, "remove")] {
				delete(there, name)
				a.Removed = append(a.Removed, name)
			}
			yes := rapid.IntRange(0, 3).Draw(t, "confirmed") == 0
			switch {
			case yes:
				a.Confirmed = a.Removed
				confirmed += len(a.Removed)
			case rapid.Bool().Draw(t, "full"):
				a = full(rev)
			}
			if _, _, err := s.apply(a, c1); err != nil {
				t.Fatal(err)
			}
			if lost := n - len(s.all()) - confirmed; lost >= n || lost > 5 && 2*lost > n {
				t.Fatalf("%d of %d nodes are lost, %d more were confirmed", lost, n, confirmed)
			}
			for name := range there {
				if _, ok := s.get(name); !ok {
					t.Fatalf("%s is lost, which central has", name)
				}
			}
		}
	})
}

// A restored database takes neither nodes nor newer holds away.
func TestFirstAssignmentOfARestoredDatabase(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	n := func(name string, status power.Status, confirmed bool, hold power.Hold) api.AssignedNode {
		out := handsOff(name)
		out.Status, out.Desired, out.Confirmed, out.Hold = status, status.Desired(), confirmed, hold
		return out
	}
	later := power.Hold{Want: power.WantOn, By: "ann", Seq: 20}
	s.must(t, api.Assignment{Full: true, Rev: 9, Nodes: []api.AssignedNode{
		n("n1", power.StatusDeployed, true, later), n("n2", power.StatusReady, true, power.Hold{}), n("n3", "", false, later),
	}}, c1)
	restored := api.Database{CentralID: "c1", Incarnation: 7}
	if err := s.setTrust(trustRecord{Database: restored}); err != nil {
		t.Fatal(err)
	}
	old := power.Hold{Want: power.WantOff, By: "bob", Seq: 10}
	s.must(t, api.Assignment{Full: true, Rev: 4, Nodes: []api.AssignedNode{
		n("n1", power.StatusReady, true, old),
		n("n2", power.StatusReady, true, power.Hold{}),
	}}, restored)
	for _, s := range []*assigned{s, loaded(t, log)} {
		wantIDs(t, "nodes", s.names(), "n1", "n2", "n3")
		wantIDs(t, "kept", s.trusts().Kept, "n3")
		n1, _ := s.get("n1")
		n2, _ := s.get("n2")
		if n1.hold != later || n1.Status != power.StatusReady || n2.Status != power.StatusReady {
			t.Errorf("n1 %+v, n2 %+v", n1, n2)
		}
		if u := s.unconfirmed(); len(u) != 1 || u[0].Node != "n1" || u[0].Hold != later {
			t.Errorf("told to central: %+v", u)
		}
	}
	// n3 had a hold that this database does not know: it comes back with the node.
	s.must(t, api.Assignment{Rev: 5, Nodes: []api.AssignedNode{n("n3", "", false, power.Hold{})}}, restored)
	if u := s.unconfirmed(); len(u) != 2 || u[1].Node != "n3" || u[1].Hold != later {
		t.Errorf("told to central: %+v", u)
	}
	s.must(t, api.Assignment{Rev: 5, Nodes: []api.AssignedNode{n("n3", "", false, later)}}, restored)
	// It has the hold now.
	s.must(t, api.Assignment{Rev: 5, Nodes: []api.AssignedNode{n("n1", power.StatusReady, true, later)}}, restored)
	if u := s.unconfirmed(); len(u) != 0 {
		t.Errorf("told again: %+v", u)
	}
}

// trust confirms at the rack what the central means that answers, which takes these
// nodes away.
func (r *harness) trust(removes ...string) {
	r.t.Helper()
	var state api.Trust
	eventually(r.t, "what it means to trust it is known", func() bool {
		state = r.a.link.trustState()
		return state.Untrusted != nil && state.Untrusted.Known
	})
	wantIDs(r.t, "nodes that would go", state.Untrusted.Removes, removes...)
	if _, err := r.a.link.confirmTrust(api.ConfirmTrust{
		Database: state.Untrusted.Database, Removes: state.Untrusted.Removes,
		AskedBy: "ann",
	}); err != nil {
		r.t.Fatal(err)
	}
}

// A central with nothing in it answers for a while in the place of the right one.
func TestSyncAnEmptyCentralTakesNothing(t *testing.T) {
	r, c := withCentral(t, 3)
	right := get(c, func() map[string]api.AssignedNode { return maps.Clone(c.nodes) })
	c.wantEnd(c.ask("n1", power.ActOn), power.Succeeded, power.ReasonVerified)
	r.allReported()
	c.goAway()
	if _, err := r.a.control.hold(api.SetHold{Names: []string{"n2"}, Want: power.WantOn, Reason: "bench"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.a.control.ask(api.OpRequest{ID: "local", Node: "n3", Action: power.ActOn, Hold: true}, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the operation has ended", func() bool { o, _ := r.a.outbox.find("local"); return o.End != nil })
	seq := r.a.clock.Now(time.Now())
	c.become("empty")
	c.do(func() { c.seq = seq + 1<<40 })
	c.comeBack()
	eventually(t, "it is told that it is not trusted", func() bool {
		return get(c, func() bool {
			return slices.ContainsFunc(c.reports, func(in api.Report) bool {
				return in.Rack != nil && slices.ContainsFunc(in.Rack.Alarms, func(al api.Alarm) bool {
					return al.Kind == api.AlarmCentralUnknown && strings.Contains(al.Message, "3 go") && al.Remedy == "rackpower local trust"
				})
			})
		})
	})
	c.wantEnd(c.ask("n1", power.ActOff), power.Refused, power.ReasonUntrusted)
	c.do(func() {
		for _, in := range c.reports {
			for _, w := range in.Ops {
				if w.End.Reason != power.ReasonUntrusted {
					t.Errorf("an operation was reported: %+v", w)
				}
			}
			if len(in.Holds)+len(in.Readings)+len(in.Explained) > 0 {
				t.Errorf("it was told %+v", in)
			}
		}
	})
	if text := r.a.Summary(); !strings.Contains(text, "not trusted") {
		t.Errorf("STATUS: %s", text)
	}
	check := func() {
		t.Helper()
		wantIDs(t, "nodes", r.a.assigned.names(), "n1", "n2", "n3")
		wantIDs(t, "in the journal", r.liveKeys(), "local")
		if u := r.a.assigned.unconfirmed(); len(u) != 2 || r.a.clock.Now(time.Now()) > seq+1<<30 {
			t.Errorf("holds that wait: %+v; clock %d, was %d", u, r.a.clock.Now(time.Now()), seq)
		}
	}
	check()
	r.restart() // and it answers again
	eventually(t, "it is met again", func() bool { return r.a.alarms.active(api.AlarmCentralUnknown) && r.a.link.stranger() != nil })
	check()

	c.become("central-1", slices.Collect(maps.Values(right))...)
	c.do(func() { c.seq = seq })
	c.wantEnd("local", power.Succeeded, power.ReasonVerified)
	eventually(t, "the right one is told the holds", func() bool {
		return get(c, func() bool {
			n := 0
			for _, in := range c.reports {
				n += len(in.Holds)
			}
			return n >= 2
		})
	})
	eventually(t, "the alarm is over", func() bool { return len(r.a.alarms.list()) == 0 })
	r.wantCommands("n1", power.PowerOn)
}

// The ends that a central has acknowledged are told to the one that never saw them.
func TestSyncARestoredCentralIsToldAllEnds(t *testing.T) {
	r, c := withCentral(t, 2)
	on := c.ask("n1", power.ActOn)
	c.wantEnd(on, power.Succeeded, power.ReasonVerified)
	if _, err := r.a.control.ask(api.OpRequest{ID: "local", Node: "n2", Action: power.ActOn, AskedBy: "ann", Reason: "why"},
		false); err != nil {
		t.Fatal(err)
	}
	c.wantEnd("local", power.Succeeded, power.ReasonVerified)
	eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
	r.restart()
	eventually(t, "a session", func() bool { return r.a.assigned.trusts().Reported })
	nodes := get(c, func() []api.AssignedNode { return slices.Collect(maps.Values(c.nodes)) })
	c.do(func() { c.restored = 5 })
	c.become("central-1", nodes...)
	c.wantEnd(on, power.Succeeded, power.ReasonVerified)
	c.wantEnd("local", power.Succeeded, power.ReasonVerified)
	word := get(c, func() api.OpReport { return c.words["local"][0] })
	if word.Op.AskedBy != "ann" || word.Op.Reason != "why" || word.Op.Node != "n2" || word.Verdict != power.VerdictStart ||
		word.StartedAt.IsZero() ||
		word.Op.AskedAt.IsZero() {
		t.Errorf("told in short: %+v", word)
	}
	eventually(t, "that is noted", func() bool { return r.a.assigned.trusts().Reported })
	r.restart()
	eventually(t, "it says what it told", func() bool {
		return get(c, func() bool { return c.hellos[len(c.hellos)-1].ReportedTo == c.database() })
	})
	if n := get(c, func() int { return len(c.words[on]) }); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// A central that lost its nodes, but not its name: the agent keeps them until a person
// says that they may go.
func TestSyncKeptNodesAreLetGo(t *testing.T) {
	for name, letGo := range map[string]func(r *harness) error{
		"trust": func(r *harness) error {
			_, err := r.a.link.confirmTrust(api.ConfirmTrust{Removes: []string{"n1", "n2"}, AskedBy: "ann"})
			return err
		},
		"acknowledged": func(r *harness) error {
			_, err := r.a.ackAlarms(api.AckAlarm{Kind: api.AlarmAssignmentShrank})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := withCentral(t, 3)
			c.unassign("n1", "n2", "n3")
			eventually(t, "the alarm", func() bool { return r.a.alarms.active(api.AlarmAssignmentShrank) })
			c.polledPast()
			wantIDs(t, "nodes", r.a.assigned.names(), "n1", "n2", "n3")
			c.assign(handsOff("n3"))
			c.polledPast()
			eventually(t, "two are missing", func() bool { return len(r.a.assigned.trusts().Kept) == 2 })
			if _, err := r.a.link.confirmTrust(api.ConfirmTrust{Removes: []string{"n3"}}); api.CodeOf(err) != api.CodeRefused {
				t.Errorf("a node was let go that nobody took away: %v", err)
			}
			if err := letGo(r); err != nil {
				t.Fatal(err)
			}
			wantIDs(t, "nodes", r.a.assigned.names(), "n3")
			r.restart()
			wantIDs(t, "nodes after a restart", r.a.assigned.names(), "n3")
			if r.a.alarms.active(api.AlarmAssignmentShrank) {
				t.Error("the alarm stands")
			}
		})
	}
}

// What was enforced is told to a restored central before anything of what it desires is taken.
func TestSyncARestoredCentralIsToldWhatWasEnforced(t *testing.T) {
	r, c := withCentral(t, 2)
	before := get(c, c.database)
	eventually(t, "a session", func() bool { return r.a.assigned.trusts().Reported })
	r.crash()
	ready := handsOff("n1")
	ready.Status = power.StatusReady
	early := 0
	c.do(func() {
		c.restored, c.wants, c.reports, c.polls = 5, true, nil, nil
		c.refuse["report"] = api.Problemf(api.CodeUnavailable, "not now") // it is told again
		c.judge = func(in api.Report) error {
			if in.Enforced != nil {
				early = len(c.polls)
				c.wants = false
			}
			return nil
		}
	})
	c.become("central-1", ready)
	r.start()
	eventually(t, "the assignment is the new one", func() bool { return r.a.assigned.all()[0].Status == power.StatusReady })
	reports := get(c, func() []api.Report { return slices.Clone(c.reports) })
	at := slices.IndexFunc(reports, func(in api.Report) bool { return in.Enforced != nil })
	if at < 0 || early > 0 {
		t.Fatalf("%d polls before, %+v", early, reports)
	}
	want := &api.Enforced{Database: before, Nodes: []api.EnforcedNode{{Node: "n1"}, {Node: "n2"}}}
	if got := reports[at].Enforced; !reflect.DeepEqual(got, want) {
		t.Errorf("told %+v, want %+v", got, want)
	}
}
