package central

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// kinds are the items as "severity kind rack nodes".
func kinds(all []api.Attention) (lines []string) {
	for _, a := range all {
		lines = append(lines, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", a.Severity, a.Kind, a.Rack, a.Nodes)), " "))
	}
	return lines
}

func wantItems(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (s *site) attention() []api.Attention {
	s.t.Helper()
	all, err := s.Attention(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// TestAttentionIsFoldedAndSorted walks a rack through what can be the matter with it.
func TestAttentionIsFoldedAndSorted(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3", "n4", "n5", "n6", "n7")
	s.status(power.StatusReady, "n4", "n7")
	s.status(power.StatusDeployed, "n5", "n6")
	r := s.rack("r1")
	r.settled()
	if all := s.attention(); len(all) != 0 {
		t.Errorf("a new rack: %+v", all)
	}
	failed := func(node string, reach power.Reach) api.NodeReading {
		was := power.Seen(power.On, s.clock().Add(-time.Minute))
		return api.NodeReading{Node: node, Reading: was.Failed(reach, s.clock())}
	}
	r.tick(failed("n1", power.ReachUnreachable), failed("n2", power.ReachUnreachable), failed("n3", power.ReachAuthFailed))
	wantItems(t, kinds(s.attention()), "warning auth-failed r1 n3") // one attempt without an answer is none
	faulty := api.NodeMonitor{
		Fault: "3 corrections in a row failed", FaultSince: s.clock().Add(-time.Hour), Waits: power.ReasonFault,
		WaitsUntil: s.clock().Add(5 * time.Minute),
	}
	drifting := s.seen("n7", power.On, matched)
	r.tick(failed("n1", power.ReachUnreachable), failed("n2", power.ReachUnreachable), s.seen("n4", power.On, faulty),
		s.seen("n5", power.Off, matched), s.seen("n6", power.Off, matched), drifting)
	hold := api.SetHold{Names: []string{"n4"}, Want: power.WantOn, For: 10 * time.Minute, Reason: "repair"}
	if _, err := s.SetHold(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetPause(t.Context(), "r1", api.SetPause{Reason: "cabling"}); err != nil {
		t.Fatal(err)
	}
	r.says(api.RackState{
		Monitor: "@every 60s", Brake: brakeOf("b1", "n1", "n2"),
		Alarms: []api.Alarm{{Kind: api.AlarmDiskFull, Message: "no room", Since: s.clock()}},
	})
	// What the monitor corrects by itself is not shown: n7.
	all := s.attention()
	wantItems(t, kinds(all), "critical alarm r1", "critical brake r1 n[1-2]",
		"warning fault r1 n4", "warning auth-failed r1 n3", "warning unreachable r1 n[1-2]", "warning drift r1 n[5-6]",
		"notice hold-ends r1 n4", "notice paused r1")
	byKind := map[string]api.Attention{}
	for _, a := range all {
		byKind[a.Kind] = a
		if a.Message == "" || a.Do == "" || a.Kind != api.AttentionAlarm && len(a.Run) == 0 {
			t.Errorf("%+v does not say what to do", a)
		}
	}
	if a := byKind["fault"]; !a.Since.Equal(faulty.FaultSince) || !a.Next.Equal(faulty.WaitsUntil) || a.Message != faulty.Fault {
		t.Errorf("%+v", a)
	}
	if a := byKind["unreachable"]; a.Count != 2 || a.Run[0] != "rackpower node retry 'n[1-2]'" || a.Since.IsZero() {
		t.Errorf("%+v", a)
	}
	if a := byKind["drift"]; !slices.Contains(a.Run, "rackpower on 'n[5-6]'") {
		t.Errorf("nothing to type: %q", a.Run)
	}
	if a := byKind["drift"]; !strings.Contains(a.Message, "off, expected on (status DEPLOYED)") || a.Since.IsZero() {
		t.Errorf("%+v", a)
	}
	if _, err := s.ReleaseBrake(t.Context(), api.ReleaseBrake{Racks: []string{"r1"}, Reason: "meant"}); err != nil {
		t.Fatal(err)
	}
	s.later(time.Hour) // the agent is away: of its nodes nothing newer is known
	wantItems(t, kinds(s.attention()), "critical agent-away r1", "critical alarm r1", "notice paused r1", "notice brake r1 n[1-2]")
}

// TestAttentionStopsAtTheScope: others see what concerns their nodes, and the racks of those.
func TestAttentionStopsAtTheScope(t *testing.T) {
	r, _ := onTLS(t)
	var specs []api.NodeSpec
	for i, name := range []string{"a1", "a2", "b1", "b2"} {
		specs = append(specs, api.NodeSpec{Name: name, Rack: "r" + name[:1], BMC: fmt.Sprintf("ipmi://admin@192.0.2.%d", i+1)})
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	rb := r.enrolled(t, "rb")
	w, err := rb.Hello(t.Context(), "rb", api.Hello{JournalID: "j", Epoch: 1})
	if err == nil {
		_, err = rb.Report(t.Context(), "rb", api.Report{
			Session: w.Session, JournalID: "j", Epoch: 1, Rack: &api.RackState{Brake: brakeOf("b", "b1", "b2")},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	for scope, want := range map[string][]string{
		"":    {"critical brake rb b[1-2]", "warning agent-away ra"},
		"@ra": {"warning agent-away ra"},
		"b2":  {"critical brake rb b2"},
	} {
		all, err := r.as(t, "v"+strings.Trim(scope, "@"), api.AddUser{Role: "viewer", Nodes: scope}).Attention(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, line := range kinds(all) {
			got[line] = true
		}
		for _, line := range want {
			if !got[line] || len(all) != len(want) {
				t.Errorf("scope %q: got %v, want %v", scope, kinds(all), want)
			}
		}
	}
}

// TestAttentionToApprovals: who has to approve finds the command.
func TestAttentionToApprovals(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2")
	s.rack("r1").settled()
	p := api.Plan{
		ID: newID(), State: api.PlanAwaiting, What: "off", AskedBy: "ann", AskedAt: s.clock(), ExpiresAt: s.clock().Add(time.Hour),
		Needs: "2 nodes would lose power, and more than 1 need an approval", Nodes: []api.PlannedNode{{Node: "n1"}, {Node: "n2"}},
	}
	err := s.c.store.Write(t.Context(), func(tx *store.Tx) error { return tx.PutPlan(store.Plan{Plan: p, Principal: "ann"}) })
	if err != nil {
		t.Fatal(err)
	}
	all := s.attention()
	wantItems(t, kinds(all), "warning approval n[1-2]")
	if a := all[0]; a.ID != p.ID || a.Run[1] != "rackpower approve "+p.ID || !a.Next.Equal(p.ExpiresAt) ||
		!strings.Contains(a.Message, "ann asks for off") {
		t.Errorf("%+v", a)
	}
	s.later(2 * time.Hour)
	if got := kinds(s.attention()); len(got) != 1 || got[0] != "critical agent-away r1" {
		t.Errorf("%v", got)
	}
}

// TestManyDeadBMCsAreFewItems: the list stays short when a whole site is dark.
func TestManyDeadBMCsAreFewItems(t *testing.T) {
	s := newSite(t)
	s.darkSite(60, 5)
	all := s.attention()
	count := 0
	for _, a := range all {
		if len(a.Nodes) > maxFolded+10 || len(a.Run) > 0 && len(a.Run[0]) > 2*maxFolded {
			t.Errorf("too long: %+v", a)
		}
		count += a.Count
	}
	if len(all) != maxOfKind+1 || count != 5*60 {
		t.Errorf("%d items of %d nodes", len(all), count)
	}
}

// darkSite is racks whose agents live, and none of whose BMCs answers.
func (s *site) darkSite(racks, nodes int) {
	s.t.Helper()
	for i := range racks {
		rack := fmt.Sprintf("r%d", i)
		var specs []api.NodeSpec
		for n := range nodes {
			specs = append(specs, api.NodeSpec{
				Name: fmt.Sprintf("r%dn%d", i, n), Rack: rack, BMC: fmt.Sprintf("ipmi://x@bmc-%d-%d", i, n), Status: power.StatusReady,
			})
		}
		if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: specs}); err != nil {
			s.t.Fatal(err)
		}
		s.rack(rack)
	}
	err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
		all, err := tx.Nodes()
		for _, n := range all {
			n.Reading, n.BreakerOpen = power.Seen(power.On, s.clock().Add(-time.Hour)).Failed(power.ReachUnreachable, s.clock()), true
			if err := tx.Observe(n); err != nil {
				return err
			}
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// BenchmarkAttentionOf10000DeadBMCs is the worst that a poll of the list costs.
func BenchmarkAttentionOf10000DeadBMCs(b *testing.B) {
	s := newSite(b)
	s.darkSite(250, 40)
	b.ResetTimer()
	for range b.N {
		s.attention()
	}
}

// TestABrakeIsOneItem: the drift of the nodes that it holds is not told once more.
func TestABrakeIsOneItem(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3")
	s.status(power.StatusDeployed, "n1", "n2", "n3")
	r := s.rack("r1")
	r.settled()
	r.tick(s.seen("n1", power.Off, matched), s.seen("n2", power.Off, matched), s.seen("n3", power.Off, matched))
	wantItems(t, kinds(s.attention()), "warning drift r1 n[1-3]")
	r.says(api.RackState{Monitor: "@every 60s", Brake: brakeOf("b1", "n1", "n2")})
	wantItems(t, kinds(s.attention()), "critical brake r1 n[1-2]", "warning drift r1 n3")
}
