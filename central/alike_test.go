package central

import (
	"fmt"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestCentralFoldsNodesAsTheyAreListed holds the route against the list of nodes, and reads that
// page by page.
func TestCentralFoldsNodesAsTheyAreListed(t *testing.T) {
	s := newSite(t)
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	s.nodes(names...)
	r := s.rack("r1")
	r.settled()
	s.status(power.StatusReady, names[:4]...)
	in := api.Report{Session: r.w.Session, JournalID: r.journal}
	for i, name := range names[:8] {
		state := []power.State{power.On, power.Off}[i%2]
		in.Readings = append(in.Readings, api.NodeReading{Node: name, Reading: power.Seen(state, s.clock())})
	}
	if _, err := s.Report(t.Context(), "r1", in); err != nil {
		t.Fatal(err)
	}
	s.ask("n7", power.ActOn)
	s.later(time.Second)
	for _, expr := range []string{"all", "", "n1", "n[1-9]", "@status:READY", "@r1&@state:on", "!n7"} {
		nodes, err := s.Nodes(t.Context(), expr)
		if err != nil {
			t.Fatal(err)
		}
		var folding api.Folding
		for i := range nodes {
			folding.Add(&nodes[i])
		}
		got, err := s.NodesAlike(t.Context(), expr)
		if want := folding.Groups(); err != nil || fmt.Sprintf("%+v", groupWords(got)) != fmt.Sprintf("%+v", groupWords(want)) {
			t.Errorf("%q is folded as %+v (%v), want %+v", expr, groupWords(got), err, groupWords(want))
		}
		if len(got) == 0 {
			t.Errorf("%q has no group", expr)
		}
		for most := range 3 {
			first, more, err := s.FirstNodes(t.Context(), expr, most)
			if err != nil || len(first) != min(most, len(nodes)) || more != (len(nodes) > most) {
				t.Errorf("%q: %d of %d nodes, more: %v, %v", expr, len(first), len(nodes), more, err)
			}
			for i := range first {
				if first[i].Name != nodes[i].Name {
					t.Errorf("%q: %s is node %d, want %s", expr, first[i].Name, i, nodes[i].Name)
				}
			}
		}
	}
	racks, err := s.RacksOf(t.Context(), "n1")
	if err != nil || len(racks) != 1 || racks[0].Name != "r1" || racks[0].Nodes != len(names) {
		t.Errorf("racks %+v, %v", racks, err)
	}
}

// groupWords is what there is to say of groups, without pointers.
func groupWords(groups []api.NodesAlike) (out []string) {
	for _, g := range groups {
		op := api.OpBrief{}
		if g.Like.Op != nil {
			op = *g.Like.Op
		}
		g.Like.Op = nil
		out = append(out, fmt.Sprintf("%s %d %+v %+v", g.Nodes, g.Count, g.Like, op))
	}
	return out
}
