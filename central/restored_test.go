package central

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// enforced is what an agent of the rack that has these nodes tells: their status now.
func (s *site) enforced(names ...string) *api.Enforced {
	told := &api.Enforced{Database: s.c.store.Database()}
	for _, name := range names {
		told.Nodes = append(told.Nodes, api.EnforcedNode{Node: name, Status: s.node(name).Status})
	}
	return told
}

// pausedByRestore is whether the agent is told to correct nothing.
func (r *rack) pausedByRestore() bool {
	r.rev = 0
	got := r.poll()
	return got.Rack != nil && got.Rack.Pause.Active(r.s.clock()) && got.Rack.Pause.Restored
}

func ten() (names []string) {
	for i := range 10 {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	return names
}

// since has things change after a backup, which is then restored.
func (s *site) since(f func()) {
	s.stop()
	restoreOnto(s.t.(*testing.T), s.dir, func() {
		s.start()
		f()
		s.stop()
	})
	s.start()
}

// Nothing is enforced that a restored database desires until its agents have told what
// they enforced, and, where much changes, a person has confirmed it.
func TestWhatARestoreChangesWaits(t *testing.T) {
	for name, c := range map[string]struct {
		changed int
		waits   bool
	}{"nothing": {0, false}, "little": {5, false}, "much": {6, true}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes(ten()...)
			s.status(power.StatusReady, ten()...)
			r := s.rack("r1")
			var told *api.Enforced
			s.since(func() {
				if c.changed > 0 {
					s.status(power.StatusTesting, ten()[:c.changed]...)
				}
				told = s.enforced(ten()...)
			})
			r.mustHello()
			if !r.w.TellEnforced || !r.pausedByRestore() {
				t.Fatalf("%+v", r.w)
			}
			s.c.goOnRestored(t.Context())
			if site, err := s.Site(t.Context()); err != nil || !slices.Equal(site.Untold, []string{"r1"}) || !r.pausedByRestore() {
				t.Fatalf("%+v, %v", site, err)
			}
			r.tell(api.Report{Enforced: told})
			r.mustHello()
			if r.w.TellEnforced {
				t.Error("it is asked again")
			}
			site, err := s.Site(t.Context())
			if err != nil || len(site.Differences) != c.changed || slices.Contains(site.Waits, "r1") != c.waits {
				t.Fatalf("%+v, %v", site, err)
			}
			s.c.goOnRestored(t.Context())
			s.restart()
			s.c.goOnRestored(t.Context())
			r.mustHello()
			if r.pausedByRestore() != c.waits {
				t.Errorf("paused: %t", !c.waits)
			}
			if !c.waits {
				return
			}
			if d := site.Differences[0]; d.Was.Want != power.WantOn || d.Is.Want != power.WantOff || d.Node != "n0" || d.IsFrom != "status READY" {
				t.Errorf("%+v", d)
			}
			_, err = s.ConfirmSite(t.Context(), api.ConfirmSite{Shown: "something else", Reason: "why"})
			wantCode(t, err, api.CodeRefused)
			items, err := s.Attention(t.Context())
			if err != nil || !slices.ContainsFunc(items, func(x api.Attention) bool {
				return x.Kind == api.AttentionRestored && x.Severity == api.SeverityCritical
			}) {
				t.Errorf("%+v, %v", items, err)
			}
			after, err := s.ConfirmSite(t.Context(), api.ConfirmSite{Shown: site.Token(), Reason: "why"})
			if err != nil || len(after.Waits) != 0 {
				t.Fatalf("%+v, %v", after, err)
			}
			r.rev = 0
			got := r.poll()
			if got.Rack.Pause != nil {
				t.Errorf("%+v", got.Rack.Pause)
			}
			for _, n := range got.Nodes {
				if want := slices.Contains(ten()[:c.changed], n.Name); n.Confirmed != want {
					t.Errorf("%s confirmed: %t", n.Name, n.Confirmed)
				}
			}
		})
	}
}

// What a person sets right does not differ any more.
func TestARackGoesOnWhenItIsSetRight(t *testing.T) {
	s := newSite(t)
	s.nodes(ten()...)
	s.status(power.StatusReady, ten()...)
	r := s.rack("r1")
	var told *api.Enforced
	s.since(func() {
		s.status(power.StatusTesting, ten()...)
		told = s.enforced(ten()...)
	})
	r.mustHello()
	r.tell(api.Report{Enforced: told})
	s.status(power.StatusCommissioning, ten()[:5]...)
	s.c.goOnRestored(t.Context())
	if r.pausedByRestore() {
		t.Error("5 of 10 are left, which is little")
	}
	if log := s.audited(t, auditRestored); len(log) != 1 || !strings.Contains(log[0].Detail, "5 of 10 nodes: n[5-9]") {
		t.Errorf("%+v", log)
	}
}

func (s *site) audited(t *testing.T, what string) []api.AuditEntry {
	t.Helper()
	all, err := s.Audit(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e api.AuditEntry) bool { return e.What != what })
}

// Agents that may yet tell are waited for; those that are away are not, and wait when they
// come back.
func TestAnAgentThatIsAwayIsNotWaitedForLong(t *testing.T) {
	s := newSite(t)
	s.nodes(ten()...)
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "other", Rack: "r2"}}}); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	var told *api.Enforced
	s.since(func() { told = s.enforced(ten()...) })
	r.mustHello()
	r.tell(api.Report{Enforced: told})
	s.c.goOnRestored(t.Context())
	site, err := s.Site(t.Context())
	if err != nil || !slices.Equal(site.Undecided, []string{"r1"}) || !slices.Equal(site.Untold, []string{"r2"}) {
		t.Fatalf("%+v, %v", site, err)
	}
	s.later(time.Hour) // the restore was by the machine's clock
	s.c.goOnRestored(t.Context())
	if r.pausedByRestore() {
		t.Error("r1 waits for r2")
	}
	if r2 := s.rack("r2"); !r2.w.TellEnforced || !r2.pausedByRestore() {
		t.Error("r2 does not wait")
	}
}

// An agent of before tells nothing: only a person knows what changes.
func TestAnAgentThatTellsNothingWaitsForAPerson(t *testing.T) {
	for name, tells := range map[string]func(*site, *rack){
		"of before": func(s *site, _ *rack) { s.c.sessions.of("r1").speaks = api.ProtocolEnforced - 1 },
		"that follows the restored database already": func(s *site, r *rack) {
			r.tell(api.Report{Enforced: s.enforced(ten()...)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes(ten()...)
			r := s.rack("r1")
			s.since(func() {})
			r.mustHello()
			tells(s, r)
			s.later(time.Hour) // the restore was by the machine's clock
			s.c.goOnRestored(t.Context())
			site, err := s.Site(t.Context())
			if err != nil || !r.pausedByRestore() {
				t.Fatalf("%+v, %v", site, err)
			}
			_, err = s.ConfirmSite(t.Context(), api.ConfirmSite{Shown: site.Token(), Reason: "why"})
			if err != nil || !slices.Equal(site.Silent, []string{"r1"}) || r.pausedByRestore() {
				t.Errorf("%+v: %v", site, err)
			}
		})
	}
}

// Nodes that moved, came and went since the backup are told apart.
func TestNodesThatMovedSinceTheBackupAreShown(t *testing.T) {
	s := newSite(t)
	s.nodes("stays", "goes", "moves")
	s.status(power.StatusReady, "stays", "goes", "moves")
	r1, r2 := s.rack("r1"), s.rack("r2")
	_ = r2
	var told1, told2 *api.Enforced
	s.since(func() {
		s.nodes("new")
		told1, told2 = s.enforced("stays", "new"), s.enforced("moves")
		told1.Nodes[0].Hold = power.Hold{Want: power.WantOn, Seq: s.c.store.Seq(s.clock()) + 1000} // set at the rack: it stays
	})
	r1.mustHello()
	r2.mustHello()
	r1.tell(api.Report{Enforced: told1})
	r2.tell(api.Report{Enforced: told2})
	site, err := s.Site(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range site.Differences {
		got = append(got, fmt.Sprint(d.Node, " ", d.Agent, " ", d.Was != nil, " ", d.Is != nil, " ", d.To))
	}
	want := []string{"goes r1 false true ", "moves r1 false true ", "new r1 true false ", "moves r2 true true r1"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A rack without a node in the backup is not waited for; what its agent had does not keep it
// resting for good when it tells.
func TestARackThatTheBackupDoesNotKnowGoesOn(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	var told *api.Enforced
	s.since(func() {
		s.nodes("late")
		s.status(power.StatusReady, "late")
		told = s.enforced("late")
	})
	s.c.goOnRestored(t.Context())
	r.mustHello()
	r.tell(api.Report{Enforced: told})
	s.nodes("new")
	s.c.goOnRestored(t.Context())
	if r.pausedByRestore() {
		site, err := s.Site(t.Context())
		t.Errorf("%+v, %v", site, err)
	}
}
