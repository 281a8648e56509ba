package central

import (
	"context"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func (s *site) testing(in api.TestNodes) <-chan []api.NodeTest {
	got := make(chan []api.NodeTest, 1)
	go func() {
		all, err := s.TestNodes(context.Background(), in)
		if err != nil {
			s.t.Error(err)
		}
		got <- all
	}()
	return got
}

func (r *rack) tested(all ...api.NodeTest) {
	r.s.t.Helper()
	r.tell(api.Report{Tested: all})
}

// TestTestsGoToTheAgentAndBack: each has an id that stays when it is sent again; only the answer
// with it counts.
func TestTestsGoToTheAgentAndBack(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{
		{Name: "c", Rack: "r1"}, {Name: "d", Rack: "r2", BMC: "ipmi://admin@192.0.2.200"},
	}}); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	r.poll()
	poll := r.pollBehind(time.Minute)
	got := s.testing(api.TestNodes{Names: []string{"a", "b", "c", "d"}})
	g := <-poll
	if g.err != nil || len(g.Tests) == 0 {
		t.Fatalf("%+v", g)
	}
	r.took(g.Assignment)
	ids := map[string]string{}
	note := func(all []api.AskedTest) {
		for _, q := range all {
			if ids[q.Node] != "" && ids[q.Node] != q.ID {
				t.Errorf("node %s is asked for by another id", q.Node)
			}
			ids[q.Node] = q.ID
		}
	}
	note(g.Tests)
	until(t, "both are asked for", func() bool { note(r.poll().Tests); return len(ids) == 2 })
	if again := r.poll(); len(again.Tests) != 0 {
		t.Errorf("asked for again at once: %+v", again.Tests)
	}
	s.later(resendRead + time.Second)
	if again := r.poll(); len(again.Tests) != 2 {
		t.Errorf("not asked for again: %+v", again.Tests)
	} else {
		note(again.Tests)
	}
	r.tested(api.NodeTest{ID: "another", Node: "a", Reach: power.ReachAuthFailed})
	r.tested(api.NodeTest{ID: ids["a"], Node: "a", Reach: power.ReachOK, Tried: true, TestResult: power.TestResult{Vendor: "ACME"}},
		api.NodeTest{ID: ids["b"], Node: "b", Reach: power.ReachAuthFailed, Tried: true, Message: "wrong password"})
	all := <-got
	if len(all) != 4 || all[0].Reach != power.ReachOK || all[0].Vendor != "ACME" || all[0].Agent != "r1" ||
		all[1].Message != "wrong password" || all[2].Reach != power.ReachUnconfigured || all[3].Reach != power.ReachNever ||
		all[3].Message == "" {
		t.Errorf("%+v", all)
	}
	entries, err := s.Audit(t.Context(), "", 1)
	if err != nil || entries[0].What != "test" || entries[0].Detail != "auth-failed: b; never: d; ok: a; unconfigured: c" {
		t.Errorf("%+v, %v", entries, err)
	}
	if again := r.poll(); len(again.Tests) != 0 {
		t.Errorf("asked for after the answer: %+v", again.Tests)
	}
	late := <-s.testing(api.TestNodes{Names: []string{"a"}, Wait: time.Millisecond})
	if late[0].Reach != power.ReachNever || late[0].Message == "" {
		t.Errorf("%+v", late)
	}
	if again := r.poll(); len(again.Tests) != 0 {
		t.Errorf("asked for when nobody waits: %+v", again.Tests)
	}
	_, err = s.TestNodes(t.Context(), api.TestNodes{Names: []string{"none"}})
	wantCode(t, err, api.CodeNotFound)
	_, err = s.TestNodes(t.Context(), api.TestNodes{Names: []string{"a"}, Wait: -1})
	wantCode(t, err, api.CodeBadRequest)
}
