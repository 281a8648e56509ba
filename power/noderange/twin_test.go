package noderange

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// twin is an expression as a set of names, and whether something in it is nothing at all.
type twin struct {
	text  string
	names map[string]bool
	none  bool
}

var labelled = func() []Node {
	nodes := slices.Clone(hall)
	for i := range nodes {
		if i%3 == 0 {
			nodes[i].Labels = nodes[i].Labels.With([]string{"gpu", fmt.Sprintf("model=m%d", i%2)})
		}
	}
	return nodes
}()

// atomOf is an atom whose nodes a predicate finds. must says that none is an error.
func atomOf(text string, must bool, is func(Node) bool) twin {
	t := twin{text: text, names: map[string]bool{}}
	for _, n := range labelled {
		if is(n) {
			t.names[n.Name] = true
		}
	}
	t.none = must && len(t.names) == 0
	return t
}

func drawAtom(t *rapid.T) twin {
	switch rapid.IntRange(0, 6).Draw(t, "atom") {
	case 0:
		return atomOf("all", false, func(Node) bool { return true })
	case 1:
		pattern := rapid.SampledFrom([]string{"r1n*", "*", "r?n0?", "w*", "x*", "*1*"}).Draw(t, "pattern")
		return atomOf(pattern, true, func(n Node) bool { return naive(pattern, n.Name) })
	case 2:
		rack := rapid.SampledFrom([]string{"r1", "r2", "rack1", "r9"}).Draw(t, "rack")
		return atomOf("@"+rack, true, func(n Node) bool { return n.Rack == rack })
	case 3:
		state := rapid.SampledFrom([]string{"on", "off", "unknown"}).Draw(t, "state")
		return atomOf("@state:"+state, false, func(n Node) bool { return n.State == state })
	case 4:
		label := rapid.SampledFrom([]string{"gpu", "model", "model=m0", "model=m1", "gpu=", "nope"}).Draw(t, "label")
		key, value, valued := strings.Cut(label, "=")
		return atomOf("@label:"+label, true, func(n Node) bool {
			return slices.ContainsFunc(n.Labels.List(), func(l string) bool {
				k, v, _ := strings.Cut(l, "=")
				return k == key && (!valued || v == value)
			})
		})
	case 5:
		from := rapid.IntRange(1, 12).Draw(t, "from")
		to := rapid.IntRange(from, 12).Draw(t, "to")
		return atomOf(fmt.Sprintf("r[1-2]n[%02d-%02d]", from, to), true, func(n Node) bool {
			var rack, number int
			_, err := fmt.Sscanf(n.Name, "r%dn%02d", &rack, &number)
			return err == nil && number >= from && number <= to
		})
	default:
		return atomOf("web", true, func(n Node) bool { return n.Name == "web" })
	}
}

// drawExpr is what the grammar has, level by level: a union of terms, each of them an
// intersection of atoms or of unions in parentheses, some of them taken from what is left of them.
func drawExpr(t *rapid.T, depth int) twin {
	out := twin{names: map[string]bool{}}
	for i := range rapid.IntRange(1, 3).Draw(t, "terms") {
		excludes := rapid.IntRange(0, 2).Draw(t, "excludes") == 0
		term := twin{}
		for j := range rapid.IntRange(1, 3).Draw(t, "factors") {
			var factor twin
			if depth > 0 && rapid.IntRange(0, 2).Draw(t, "nested") == 0 {
				factor = drawExpr(t, depth-1)
				factor.text = "(" + factor.text + ")"
			} else {
				factor = drawAtom(t)
			}
			if j == 0 {
				term = factor
				continue
			}
			names := maps.Clone(factor.names)
			if rapid.Bool().Draw(t, "negated") {
				factor.text = "!" + factor.text
				names = map[string]bool{}
				for _, n := range labelled {
					if !factor.names[n.Name] {
						names[n.Name] = true
					}
				}
			}
			both := map[string]bool{}
			for name := range term.names {
				if names[name] {
					both[name] = true
				}
			}
			term = twin{term.text + "&" + factor.text, both, term.none || factor.none}
		}
		switch {
		case excludes:
			if i == 0 {
				for _, n := range labelled {
					out.names[n.Name] = true
				}
			}
			maps.DeleteFunc(out.names, func(name string, _ bool) bool { return term.names[name] })
			out.text += "!" + term.text
		default:
			if i > 0 {
				out.text += ","
			}
			maps.Copy(out.names, term.names)
			out.text += term.text
		}
		out.none = out.none || term.none
	}
	return out
}

// TestExpressionsSelectAsTheNaiveOnes holds whole expressions against sets of names.
func TestExpressionsSelectAsTheNaiveOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawExpr(t, 2)
		e, err := Parse(want.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Select(labelled)
		if want.none {
			if !errors.As(err, new(*EmptyError)) {
				t.Fatalf("%s has a part that is nothing, and selects %v, %v", want.text, got, err)
			}
			return
		}
		names := slices.Collect(maps.Keys(want.names))
		if err != nil || Fold(got) != Fold(names) {
			t.Fatalf("%s selects %s (%v), want %s", want.text, Fold(got), err, Fold(names))
		}
	})
}
