package central

import (
	"context"
	"slices"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// follow asks for what is behind an entry, in the background.
func (s *site) follow(expr string, after int64, wait time.Duration) <-chan []api.AuditEntry {
	got := make(chan []api.AuditEntry, 1)
	go func() {
		all, err := s.AuditAfter(context.Background(), expr, after, wait)
		if err != nil {
			s.t.Error(err)
		}
		got <- all
	}()
	return got
}

func (s *site) last() int64 {
	s.t.Helper()
	all, err := s.Audit(context.Background(), "", 1)
	if err != nil || len(all) != 1 {
		s.t.Fatalf("%+v, %v", all, err)
	}
	return all[0].ID
}

func TestTheTrailIsFollowed(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	last := s.last()
	got := s.follow("", last, time.Minute)
	time.Sleep(20 * time.Millisecond)
	s.rack("r1").poll() // no entry: goes on waiting
	select {
	case all := <-got:
		t.Fatalf("nothing happened: %+v", all)
	case <-time.After(50 * time.Millisecond):
	}
	s.hold(power.WantOff, 0, "a", "b")
	all := <-got
	if len(all) != 2 || all[0].What != auditHold || all[0].ID <= last || all[1].ID <= all[0].ID {
		t.Fatalf("%+v", all)
	}
	only := s.follow("b", last, 0)
	if all := <-only; len(all) != 1 || all[0].Node != "b" {
		t.Errorf("%+v", all)
	}
	first, err := s.AuditAfter(t.Context(), "", 0, 0)
	if err != nil || len(first) != 4 || first[0].What != "node-add" {
		t.Errorf("%+v, %v", first, err)
	}
	none, err := s.AuditAfter(t.Context(), "", s.last(), 20*time.Millisecond)
	if err != nil || none == nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
}

// TestOneNodesTrailIsFollowed has others written first.
func TestOneNodesTrailIsFollowed(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	last := s.last()
	got := s.follow("b", last, time.Minute)
	for range 3 {
		s.hold(power.WantOff, 0, "a")
		s.hold("", 0, "a")
	}
	s.hold(power.WantOn, 0, "b")
	if all := <-got; len(all) != 1 || all[0].Node != "b" || all[0].What != auditHold {
		t.Errorf("%+v", all)
	}
}

func TestFollowingTheTrailMissesNothing(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	last := s.last()
	const rounds = 20
	go func() {
		for range rounds {
			s.hold(power.WantOff, 0, "a")
			s.hold("", 0, "a")
		}
	}()
	var kinds []string
	for end := time.Now().Add(20 * time.Second); len(kinds) < 2*rounds && time.Now().Before(end); {
		all, err := s.AuditAfter(t.Context(), "a", last, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			kinds, last = append(kinds, e.What), e.ID
		}
	}
	if want := slices.Repeat([]string{auditHold, auditRelease}, rounds); !slices.Equal(kinds, want) {
		t.Errorf("%v", kinds)
	}
}

func TestQuestionsToTheTrailThatMakeNoSense(t *testing.T) {
	s := newSite(t)
	for _, q := range []string{"after=x", "after=-1", "after=1&wait=soon", "after=1&wait=-1s", "wait=1s", "limit=-1", "limit=x"} {
		var out []api.AuditEntry
		err := s.Do(t.Context(), "GET", "/v1/audit?"+q, nil, &out)
		if api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("%s: %+v, %v", q, out, err)
		}
	}
}
