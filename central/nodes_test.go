package central

import (
	"context"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// restoreOnto backs the database up, lets f go on, and restores the backup.
func restoreOnto(t *testing.T, dir string, f func()) {
	t.Helper()
	onFiles(t)
	backup := filepath.Join(t.TempDir(), "backup")
	if _, err := store.Backup(context.Background(), DatabasePath(dir), backup); err != nil {
		t.Fatal(err)
	}
	f()
	if _, _, err := store.Restore(context.Background(), backup, DatabasePath(dir), ""); err != nil {
		t.Fatal(err)
	}
}

func TestAnImportIsAllOrNothing(t *testing.T) {
	s := newSite(t)
	s.nodes("old")
	bad := api.AddNodes{Nodes: []api.NodeSpec{
		{Name: "good", Rack: "r1"},
		{Name: "bad name", Rack: "r1"},
		{Name: "b", Rack: "r1", BMC: "ipmi://u:p@h"},
		{Name: "c", Rack: "r1", Status: "WHAT"},
		{Name: "good", Rack: "r1"},
		{Rack: "r1"},
	}}
	_, err := s.AddNodes(t.Context(), bad)
	wantCode(t, err, api.CodeBadRequest)
	for _, want := range []string{"node 2 (bad name)", "node 3 (b)", "node 4 (c)", "node 5 (good): named twice", "node 6"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	_, err = s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{
		{Name: "good", Rack: "r1"},
		{Name: "old", Rack: "r1"},
		{Name: "norack"},
	}})
	wantCode(t, err, api.CodeBadRequest)
	if !strings.Contains(err.Error(), "node 2 (old)") || !strings.Contains(err.Error(), "node 3 (norack)") {
		t.Errorf("%v", err)
	}
	_, err = s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "good", Rack: "r1"}, {Name: "old", Rack: "r1"}}})
	wantCode(t, err, api.CodeExists)
	if !strings.HasSuffix(err.Error(), "nothing was changed: node old exists already") {
		t.Errorf("%v", err)
	}
	if nodes, _ := s.Nodes(t.Context(), "all"); len(nodes) != 1 {
		t.Errorf("%+v", nodes)
	}
}

func TestNodesThatExistAreFolded(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3")
	_, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{
		{Name: "n1", Rack: "r1"},
		{Name: "n2", Rack: "r1"},
		{Name: "n3", Rack: "r1"},
	}})
	wantCode(t, err, api.CodeExists)
	if !strings.HasSuffix(err.Error(), "nothing was changed: 3 nodes exist already: n[1-3]") {
		t.Errorf("%v", err)
	}
}

func TestUpdates(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	rev := s.agent("r1").Rev
	same := api.AddNodes{Update: true, Nodes: []api.NodeSpec{{Name: "a", Rack: "r1", BMC: "ipmi://admin@192.0.2.1:623"}}}
	got, err := s.AddNodes(t.Context(), same)
	if err != nil || !reflect.DeepEqual(got, api.AddedNodes{Unchanged: 1}) || s.agent("r1").Rev != rev {
		t.Errorf("%+v, %v, revision %d was %d", got, err, s.agent("r1").Rev, rev)
	}
	change := api.AddNodes{Update: true, DryRun: true, Nodes: []api.NodeSpec{
		{Name: "a", BMC: "ipmi://root@192.0.2.2", Status: "deployed"},
		{Name: "b", Rack: "r1"},
	}}
	want := api.AddedNodes{Added: 1, Changed: 1}
	if got, err := s.AddNodes(t.Context(), change); err != nil || !reflect.DeepEqual(got, want) || s.node("a").Status != "" ||
		s.agent("r1").Rev != rev {
		t.Errorf("a dry run: %+v, %v", got, err)
	}
	change.DryRun = false
	if got, err := s.AddNodes(t.Context(), change); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	g := r.poll()
	if len(g.Nodes) != 2 || g.Nodes[0].BMC != "ipmi://root@192.0.2.2" || g.Nodes[0].Password != "pw-a" ||
		g.Nodes[0].Desired.Expected != power.On {
		t.Errorf("%+v", g)
	}
	specs, err := s.ExportNodes(t.Context())
	if err != nil || len(specs) != 2 || specs[0].Password != "" || specs[0].Status != power.StatusDeployed {
		t.Errorf("%+v, %v", specs, err)
	}
	if got, err := s.AddNodes(t.Context(), api.AddNodes{Update: true, Nodes: specs}); err != nil || got.Unchanged != 2 {
		t.Errorf("an export imported again: %+v, %v", got, err)
	}
}

func TestRemovalAndStatusNameWhatIsWrong(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	_, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"a", "x", "y"}})
	wantCode(t, err, api.CodeNotFound)
	if !strings.Contains(err.Error(), "x, y") {
		t.Errorf("%v", err)
	}
	op := s.ask("b", power.ActOn)
	_, err = s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"a", "b"}})
	wantCode(t, err, api.CodeBusy)
	if !strings.Contains(err.Error(), op.ID) || len(mustNodes(t, s, "all")) != 2 {
		t.Errorf("%v", err)
	}
	_, err = s.SetStatus(t.Context(), api.SetStatus{Names: []string{"a", "x"}, Status: power.StatusReady})
	wantCode(t, err, api.CodeNotFound)
	_, err = s.SetStatus(t.Context(), api.SetStatus{Names: []string{"a"}, Status: "WHAT"})
	wantCode(t, err, api.CodeBadRequest)
	got, err := s.SetStatus(t.Context(), api.SetStatus{
		Names: []string{"a", "b", "a"}, Status: "ready", AskedBy: "admin", Reason: "clean-up",
		Confirmed: true,
	})
	if err != nil || got.Changed != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	entries, err := s.Audit(t.Context(), "a", 10)
	if err != nil || len(entries) != 2 || entries[1].What != "status" || entries[1].Who != meFor("admin") || entries[1].Why != "clean-up" ||
		!strings.Contains(entries[1].Detail, "READY") {
		t.Errorf("%+v, %v", entries, err)
	}
	r := s.rack("r1")
	if g := r.poll(); !g.Nodes[0].Confirmed {
		t.Errorf("%+v", g)
	}
	if got, err := s.SetStatus(t.Context(), api.SetStatus{Names: []string{"a"}, Status: "none"}); err != nil || got.Changed != 1 ||
		s.node("a").Desired != power.HandsOff {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"a"}, AskedBy: "admin"}); err != nil {
		t.Fatal(err)
	}
	if entries, err := s.Audit(t.Context(), "a", 10); err != nil || len(entries) != 4 || entries[3].What != "node-remove" {
		t.Errorf("the audit log of a removed node: %+v, %v", entries, err)
	}
}

func mustNodes(t *testing.T, s *site, expr string) []api.Node {
	t.Helper()
	nodes, err := s.Nodes(t.Context(), expr)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func TestNodesAreSelected(t *testing.T) {
	s := newSite(t)
	s.nodes("r1n01", "r1n02", "r1n10")
	s.status(power.StatusReady, "r1n02")
	for expr, want := range map[string]string{
		"": "r1n01 r1n02 r1n10", "all": "r1n01 r1n02 r1n10", "r1n[01-02]": "r1n01 r1n02",
		"@status:READY": "r1n02", "@r1,!r1n10": "r1n01 r1n02",
	} {
		var names []string
		for _, n := range mustNodes(t, s, expr) {
			names = append(names, n.Name)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("%q selects %v, want %s", expr, names, want)
		}
	}
	_, err := s.Nodes(t.Context(), "r1n01,r1n03")
	wantCode(t, err, api.CodeNotFound)
	if !strings.Contains(err.Error(), "r1n03") {
		t.Errorf("%v", err)
	}
	_, err = s.Nodes(t.Context(), "r1n[01")
	wantCode(t, err, api.CodeBadRequest)
}

func TestDriftAndStaleness(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c", "d")
	s.status(power.StatusReady, "a", "d")
	s.status(power.StatusDeployed, "b")
	r := s.rack("r1")
	r.poll()
	seen := func(node string, state power.State, at time.Time) api.NodeReading {
		return api.NodeReading{Node: node, Reading: power.Seen(state, at)}
	}
	r.read(seen("a", power.On, s.clock()), seen("b", power.Off, s.clock()), seen("c", power.On, s.clock()), seen("d", power.Off, s.clock()))
	for name, want := range map[string]bool{"a": false, "b": true, "c": false, "d": false} {
		if n := s.node(name); n.Drift != want || n.Stale || n.ObservedAt == nil || n.AgentState.Absent() {
			t.Errorf("%s: %+v, want drift %v", name, n, want)
		}
	}
	op := s.ask("a", power.ActOff)
	if n := s.node("a"); n.Drift || n.Op == nil || n.Op.ID != op.ID || n.Op.Phase != api.PhaseTaken {
		t.Errorf("with an operation outstanding: %+v", n)
	}
	two := s.ask("a", power.ActOff)
	g := r.poll()
	r.mustReport(r.joined(g.Ops[1], op.ID), r.running(g.Ops[0]))
	if n := s.node("a"); n.Op.ID != op.ID || n.Waiting != 1 || n.Op.Phase != "running: reading" {
		t.Errorf("%+v (second %s)", n.Op, two.ID)
	}
	s.later(11 * time.Minute)
	if n := s.node("b"); n.Drift || !n.Stale || n.AgentState.State != api.AgentAway || n.AgentState.Since.IsZero() || n.State != power.Off {
		t.Errorf("later: %+v", n)
	}
	failed := api.NodeReading{Node: "b", Reading: power.Reading{
		State: power.Off, Reach: power.ReachUnreachable,
		ObservedAt: s.clock().Add(-11 * time.Minute), TriedAt: s.clock(),
	}}
	r.read(failed, seen("b", power.On, s.clock().Add(-time.Minute)))
	if n := s.node("b"); n.Reach != power.ReachUnreachable || n.State != power.Off || !n.Stale {
		t.Errorf("the newest attempt counts: %+v", n)
	}
}

func TestFreshReadings(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "nobmc", Rack: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	r.poll()
	r.read(api.NodeReading{Node: "b", Reading: power.Seen(power.On, s.clock().Add(time.Second))}) // fresh enough
	poll := r.pollBehind(time.Minute)
	got := make(chan []api.Node, 1)
	go func() {
		nodes, err := s.ReadNodes(context.Background(), api.ReadNodes{Names: []string{"b", "a", "nobmc"}, Wait: 30 * time.Second})
		if err != nil {
			t.Error(err)
		}
		got <- nodes
	}()
	g := <-poll
	if !slices.Equal(g.Reads, []string{"a"}) {
		t.Fatalf("%+v", g)
	}
	r.took(g.Assignment)
	if again := r.poll(); len(again.Reads) != 0 {
		t.Errorf("asked for again at once: %+v", again)
	}
	s.later(resendRead + time.Second)
	if again := r.poll(); len(again.Reads) != 1 {
		t.Errorf("not asked for again: %+v", again)
	}
	r.read(api.NodeReading{Node: "a", Reading: power.Seen(power.Off, s.clock())})
	nodes := <-got
	if len(nodes) != 3 || nodes[0].Name != "a" || nodes[0].State != power.Off {
		t.Errorf("%+v", nodes)
	}
	if nodes[0].Unread || nodes[1].Unread || nodes[2].Unread {
		t.Errorf("not read: %+v", nodes)
	}
	if nodes, err := s.ReadNodes(t.Context(), api.ReadNodes{Select: "a,b!a", Wait: 30 * time.Millisecond}); err != nil ||
		len(nodes) != 1 || !nodes[0].Unread {
		t.Errorf("after the wait: %+v, %v", nodes, err)
	}
	_, err := s.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"x"}})
	wantCode(t, err, api.CodeNotFound)
	if nodes, err := s.ReadNodes(t.Context(), api.ReadNodes{Select: "@status:READY"}); err != nil || len(nodes) != 0 {
		t.Errorf("none selected: %+v, %v", nodes, err)
	}
}
