package central

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/noderange"
)

// label changes labels of nodes.
func (s *site) label(labels []string, names ...string) {
	s.t.Helper()
	in := api.AddNodes{Update: true, AskedBy: "admin"}
	for _, name := range names {
		in.Nodes = append(in.Nodes, api.NodeSpec{Name: name, Labels: labels})
	}
	if _, err := s.AddNodes(s.t.Context(), in); err != nil {
		s.t.Fatal(err)
	}
}

// labelled names the nodes that an expression selects.
func labelled(t *testing.T, c *api.Client, expr string) string {
	t.Helper()
	nodes, err := c.Nodes(t.Context(), expr)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return noderange.Fold(names)
}

func TestLabelsSelectNodesAndLast(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3")
	s.label([]string{"model=h100", "gpu"}, "n1", "n2")
	s.label([]string{"gpu-", "model=a100"}, "n2")
	before := s.node("n3")
	for range 2 {
		for expr, want := range map[string]string{
			"@label:gpu": "n1", "@label:model": "n[1-2]", "@label:model=a100": "n2", "all!@label:gpu": "n[2-3]",
			"@label:model&!@label:model=h100": "n2",
		} {
			if got := labelled(t, s.Client, expr); got != want {
				t.Errorf("%s selects %s, want %s", expr, got, want)
			}
		}
		if n := s.node("n1"); !slices.Equal(n.Labels, []string{"gpu", "model=h100"}) || len(s.node("n3").Labels) != 0 {
			t.Errorf("%+v", n)
		}
		s.restart()
	}
	_, err := s.Nodes(t.Context(), "@label:gup")
	wantCode(t, err, api.CodeNotFound)
	wantLines(t, s.entries("n2", "node-change"), "node-change: labels gpu,model=h100, was none",
		"node-change: labels model=a100, was gpu,model=h100")
	if after := s.node("n3"); after.Name != before.Name || s.node("n1").BMC == "" || s.node("n1").Rack != "r1" {
		t.Errorf("a label changed more: %+v", after)
	}
	// An export has them, and what is imported has those and no others.
	specs, err := s.ExportNodes(t.Context())
	if err != nil || !slices.Equal(specs[0].Labels, []string{"gpu", "model=h100"}) {
		t.Errorf("%+v, %v", specs, err)
	}
	in := api.AddNodes{Update: true, Nodes: []api.NodeSpec{{Name: "n1", Labels: []string{"spare"}, Clear: []string{"labels"}}}}
	if _, err := s.AddNodes(t.Context(), in); err != nil || !slices.Equal(s.node("n1").Labels, []string{"spare"}) {
		t.Errorf("%+v, %v", s.node("n1"), err)
	}
	s.stop()
	restoreOnto(t, s.dir, func() {})
	s.start()
	if got := labelled(t, s.Client, "@label:spare"); got != "n1" {
		t.Errorf("of a backup: %s", got)
	}
}

func TestLabelsThatCannotBe(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	var many []string
	for i := range noderange.MaxLabels + 1 {
		many = append(many, fmt.Sprint("l", i))
	}
	for _, labels := range [][]string{{"a b"}, {"a,b"}, {""}, {"-"}, {"a=b=c"}, many} {
		_, err := s.AddNodes(t.Context(), api.AddNodes{Update: true, Nodes: []api.NodeSpec{{Name: "n1", Labels: labels}}})
		if wantCode(t, err, api.CodeBadRequest); err == nil || !strings.Contains(err.Error(), "label") {
			t.Errorf("%q: %v", labels, err)
		}
	}
	s.label(many[1:], "n1")
	_, err := s.AddNodes(t.Context(), api.AddNodes{Update: true, Nodes: []api.NodeSpec{{Name: "n1", Labels: many[:1]}}})
	wantCode(t, err, api.CodeBadRequest)
}

func TestASchedulesNodesAreThoseLabelledThen(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2")
	s.at("12:00:00")
	s.label([]string{"spare"}, "n1")
	s.schedule(api.Schedule{Name: "x", Cron: "CRON_TZ=UTC 0 19 * * *", Nodes: "@label:spare", Want: power.WantOff})
	s.label([]string{"spare-"}, "n1")
	s.label([]string{"spare"}, "n2")
	s.at("19:00:00")
	s.runAll()
	if got := s.scheduled("x").LastMessage; got != "1 held off (n2)" {
		t.Errorf("%q", got)
	}
}

// TestALabelIsAScope also has who may change some nodes label none into, or out of, what he
// may change.
func TestALabelIsAScope(t *testing.T) {
	r, _ := onTLS(t)
	var nodes []api.NodeSpec
	for i, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, api.NodeSpec{
			Name: name, Rack: "r1", BMC: fmt.Sprintf("ipmi://admin@192.0.2.%d", i+1),
			Labels: []string{map[bool]string{true: "team=x", false: "team=y"}[name == "a"]},
		})
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	anna := r.as(t, "anna", api.AddUser{Role: "admin", Nodes: "@label:team=y"})
	if got := labelled(t, anna, "all"); got != "b,c" {
		t.Errorf("anna sees %s", got)
	}
	update := func(spec api.NodeSpec) error {
		_, err := anna.AddNodes(t.Context(), api.AddNodes{Update: true, Nodes: []api.NodeSpec{spec}})
		return err
	}
	if err := update(api.NodeSpec{Name: "b", Labels: []string{"gpu"}}); err != nil {
		t.Error(err)
	}
	for _, spec := range []api.NodeSpec{
		{Name: "a", Labels: []string{"team=y"}},
		{Name: "a", Labels: []string{"team=y"}, Clear: []string{"labels"}},
		{Name: "b", Labels: []string{"team=x"}},
		{Name: "b", Labels: []string{"team-"}},
		{Name: "b", Clear: []string{"labels"}},
		{Name: "new", Rack: "r1", Labels: []string{"team=x"}},
		{Name: "new", Rack: "r1"},
	} {
		wantCode(t, update(spec), api.CodeForbidden)
	}
	if err := update(api.NodeSpec{Name: "new", Rack: "r1", Labels: []string{"team=y"}}); err != nil {
		t.Error(err)
	}
	if got := labelled(t, r.Client, "@label:team=y"); got != "b,c,new" {
		t.Errorf("labelled are %s", got)
	}
}
