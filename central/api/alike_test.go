package api

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/power"
	"rackpower/power/noderange"
)

// TestNodesAreFoldedByAllThatIsSaidOfThem holds a folding against a plain one.
func TestNodesAreFoldedByAllThatIsSaidOfThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var folding Folding
		want := map[string][]string{}
		for i := range rapid.IntRange(0, 12).Draw(t, "nodes") {
			at := time.Now()
			n := Node{
				Name: fmt.Sprintf("n%d", rapid.IntRange(0, 3).Draw(t, "before")*100+i), ObservedAt: &at, Rack: fmt.Sprint(i),
				State: rapid.SampledFrom([]power.State{power.On, power.Off}).Draw(t, "state"), Stale: rapid.Bool().Draw(t, "stale"),
				Reach: rapid.SampledFrom([]power.Reach{power.ReachOK, power.ReachUnreachable}).Draw(t, "reach"),
				Drift: rapid.Bool().Draw(t, "drift"), Fault: rapid.SampledFrom([]string{"", "", "x"}).Draw(t, "fault"),
			}
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				n.Op = &OpBrief{ID: n.Name, Action: power.ActOn, AskedBy: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "by")}
			}
			folding.Add(&n)
			what := fmt.Sprint(n.State, n.Stale, n.Reach, n.Drift, n.Fault, n.Op != nil, n.Op != nil && n.Op.AskedBy == "a")
			want[what] = append(want[what], n.Name)
		}
		var folded []string
		for _, names := range want {
			folded = append(folded, fmt.Sprintf("%d %s", len(names), noderange.Fold(names)))
		}
		var got, first []string
		for _, g := range folding.Groups() {
			n := g.Like
			if n.Name+n.Rack != "" || n.ObservedAt != nil || n.Op != nil && n.Op.ID != "" {
				t.Fatalf("it says what is of one node: %+v", n)
			}
			got = append(got, fmt.Sprintf("%d %s", g.Count, g.Nodes))
			names, err := noderange.Expand(g.Nodes)
			if err != nil {
				t.Fatal(err)
			}
			first = append(first, names[0])
		}
		if !slices.IsSortedFunc(first, noderange.Compare) {
			t.Fatalf("the groups begin with %v", first)
		}
		slices.Sort(got)
		slices.Sort(folded)
		if !slices.Equal(got, folded) {
			t.Fatalf("folded as %v, want %v of %v", got, folded, slices.Collect(maps.Values(want)))
		}
	})
}
