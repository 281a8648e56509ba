package central

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// drawSelection draws an expression, some of which select nothing, or what is not there.
func drawSelection(t *rapid.T, depth int) string {
	atom := func() string {
		return rapid.SampledFrom([]string{
			"all", "a1n1", "a1n[1-3]", "A1n1", "a2n3,b1", "nope", "b1", "a*", "*", "?1n2", "*n[1-2]", "x*", "a1n*", "A*", "@a1", "@A2", "@nowhere",
			"@rack:B", "@status:READY", "@status:ready", "@status:deployed", "@state:on", "@state:OFF", "@state:unknown", "@label:gpu",
			"@label:gpu=a", "@label:gp", "@label:GPU", "@label:g_u", "@label:none",
		}).Draw(t, "atom")
	}
	text := ""
	for i := range rapid.IntRange(1, 4).Draw(t, "parts") {
		if i > 0 {
			text += rapid.SampledFrom([]string{",", "&", "&!", "!", ",!"}).Draw(t, "joined by")
		} else if rapid.IntRange(0, 4).Draw(t, "negated") == 0 {
			text += "!"
		}
		if depth > 0 && rapid.IntRange(0, 3).Draw(t, "nested") == 0 {
			text += "(" + drawSelection(t, depth-1) + ")"
		} else {
			text += atom()
		}
	}
	return text
}

// TestTheDatabaseSelectsAsAListDoes holds what indexes find against a look at every node.
func TestTheDatabaseSelectsAsAListDoes(t *testing.T) {
	s := newSite(t)
	var names []string
	for r := range 3 {
		for n := range 4 {
			names = append(names, fmt.Sprintf("a%dn%d", r+1, n+1))
		}
	}
	names = append(names, "b1", "B2", "x.y-z")
	rapid.Check(t, func(t *rapid.T) {
		var nodes noderange.List
		err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
			if err := tx.EnsureAgent("a1"); err != nil {
				return err
			}
			for _, name := range names {
				n := store.Node{
					Name: name, Agent: "a1", Rack: rapid.SampledFrom([]string{"a1", "A2", "a3", "B"}).Draw(t, "rack"),
					Status: rapid.SampledFrom([]power.Status{"", power.StatusReady, power.StatusDeployed}).Draw(t, "status"),
					Labels: noderange.Labels("").With(rapid.SliceOfN(rapid.SampledFrom([]string{"gpu", "gpu=a", "gxu", "Gpu=b", "z=gpu"}), 0, 3).
						Draw(t, "labels")),
				}
				n.State = rapid.SampledFrom([]power.State{power.On, power.Off, power.Unknown}).Draw(t, "state")
				if err := errors.Join(tx.PutNode(n), tx.Observe(n)); err != nil {
					return err
				}
				nodes = append(nodes, rangesOf([]store.Node{n})...)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		text := drawSelection(t, 2)
		expr, err := noderange.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		in := map[string]bool{}
		for _, name := range rapid.SliceOf(rapid.SampledFrom(names)).Draw(t, "within") {
			in[name] = true
		}
		gone := rapid.SliceOf(rapid.SampledFrom([]string{"b1", "nope", "x1"})).Draw(t, "gone")
		_ = s.c.store.View(context.Background(), func(tx *store.Tx) error {
			for _, with := range []func(noderange.Source) noderange.Source{
				func(s noderange.Source) noderange.Source { return s },
				func(s noderange.Source) noderange.Source { return noderange.Within(s, in) },
				func(s noderange.Source) noderange.Source { return noderange.Also(s, gone) },
			} {
				got, err := expr.From(with(tx.Selection()))
				want, wrong := expr.From(with(nodes))
				if kindOf(err) != kindOf(wrong) || !slices.Equal(got, want) {
					t.Fatalf("%s selects %v (%v), want %v (%v)", text, got, err, want, wrong)
				}
			}
			return nil
		})
	})
}

// kindOf is which error of a selection it is.
func kindOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.As(err, new(*noderange.EmptyError)):
		return "empty"
	case errors.As(err, new(*noderange.UnknownError)):
		return "unknown"
	}
	return err.Error()
}
