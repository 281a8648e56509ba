package central

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
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
	for _, q := range []string{
		"after=x", "after=-1", "after=1&wait=soon", "after=1&wait=-1s", "wait=1s", "since=1h", "until=yesterday", "limit=-1", "limit=x",
	} {
		var out []api.AuditEntry
		err := s.Do(t.Context(), "GET", "/v1/audit?"+q, nil, &out)
		if api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("%s: %+v, %v", q, out, err)
		}
	}
}

// TestTheAuditLogIsFiltered by who, what and time, alone and together with nodes.
func TestTheAuditLogIsFiltered(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := newSite(t)
	for i, e := range []api.AuditEntry{
		{Who: "bob", What: "hold", Node: "a"},
		{Who: "ann", What: "asked", Node: "a"},
		{Who: "me for bob", What: "asked", Node: "b"},
		{Who: "bobby", What: "ended", Node: "b"},
	} {
		e.At, e.Detail = at.Add(time.Duration(i)*time.Hour), strconv.Itoa(i)
		if err := s.c.store.Write(t.Context(), func(tx *store.Tx) error { return tx.AddAudit(e) }); err != nil {
			t.Fatal(err)
		}
	}
	s.nodes("a", "b")
	later := at.Add(24 * time.Hour)
	for name, c := range map[string]struct {
		q    api.AuditQuery
		want string
	}{
		"who":           {api.AuditQuery{Who: "bob"}, "02"},
		"what":          {api.AuditQuery{What: "asked"}, "12"},
		"since":         {api.AuditQuery{Since: at.Add(time.Hour), Until: later}, "123"},
		"until":         {api.AuditQuery{Until: at.Add(time.Hour)}, "0"},
		"since, newest": {api.AuditQuery{Since: at, Until: later, Limit: 2}, "23"},
		"node":          {api.AuditQuery{Nodes: "b", Until: later}, "23"},
		"all of them":   {api.AuditQuery{Nodes: "a,b", Who: "bob", What: "asked", Since: at, Until: later}, "2"},
		"nothing":       {api.AuditQuery{Nodes: "a", Who: "bobby"}, ""},
	} {
		all, err := s.FindAudit(t.Context(), c.q)
		got := ""
		for _, e := range all {
			got += e.Detail
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, want %q; %v", name, got, c.want, err)
		}
	}
}

// TestTheAuditLogIsVerified over the API: a viewer of the whole site may, and every field
// of an entry counts.
func TestTheAuditLogIsVerified(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	first, err := s.VerifyAudit(t.Context(), "")
	if err != nil || !first.OK() || first.Entries != 2 || first.Head == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	s.hold(power.WantOff, 0, "a", "b")
	later, err := s.VerifyAudit(t.Context(), first.Head)
	if err != nil || !later.OK() || later.Entries != 4 || later.Head == first.Head {
		t.Errorf("%+v, %v", later, err)
	}
	if other, err := s.VerifyAudit(t.Context(), "another"); err != nil || other.OK() {
		t.Errorf("%+v, %v", other, err)
	}
	all, err := s.AuditAfter(t.Context(), "", 0, 0)
	if err != nil || len(all) != 4 || all[0].Before != "" {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, e := range all {
		if e.Sum(e.Before) != e.Hash || i > 0 && e.Before != all[i-1].Hash {
			t.Errorf("as it comes over the API: %+v", e)
		}
	}
	e := all[3]
	for name, change := range map[string]func(*api.AuditEntry){
		"id": func(e *api.AuditEntry) { e.ID++ }, "at": func(e *api.AuditEntry) { e.At = e.At.Add(1) },
		"happened": func(e *api.AuditEntry) { e.HappenedAt = e.At.Add(1) }, "who": func(e *api.AuditEntry) { e.Who += "x" },
		"what": func(e *api.AuditEntry) { e.What += "x" }, "node": func(e *api.AuditEntry) { e.Node += "x" },
		"op": func(e *api.AuditEntry) { e.Op += "x" }, "why": func(e *api.AuditEntry) { e.Why += "x" },
		"outcome": func(e *api.AuditEntry) { e.Outcome += "x" }, "detail": func(e *api.AuditEntry) { e.Detail += "x" },
		"via": func(e *api.AuditEntry) { e.Via += "x" }, "address": func(e *api.AuditEntry) { e.Address += "x" },
	} {
		changed := e
		change(&changed)
		if changed.Sum(changed.Before) == e.Hash {
			t.Errorf("%s may be changed", name)
		}
	}
}

// TestTheAuditLogSaysWhatWasOutstanding when an operation was asked.
func TestTheAuditLogSaysWhatWasOutstanding(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	var ids []any
	for range 5 {
		ids = append(ids, s.ask("a", power.ActOff).ID)
	}
	all, err := s.FindAudit(t.Context(), api.AuditQuery{What: auditAsked})
	if err != nil || len(all) != 5 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []string{
		"off", fmt.Sprintf("off; outstanding: off %s", ids[:1]...), fmt.Sprintf("off; outstanding: off %s, off %s", ids[:2]...),
		fmt.Sprintf("off; outstanding: off %s, off %s, off %s", ids[:3]...),
		fmt.Sprintf("off; outstanding: off %s, off %s, off %s, ...", ids[:3]...),
	} {
		if all[i].Detail != want {
			t.Errorf("%q, want %q", all[i].Detail, want)
		}
	}
}
