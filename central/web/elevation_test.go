package web

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rackpower/central/api"
)

// drawn is an elevation as text: the rows from the top, each with its nodes, "|" where a row belongs
// to what is above.
func drawn(units []unit) string {
	var rows []string
	for _, u := range units {
		names := []string{}
		for _, n := range u.Nodes {
			names = append(names, n.Name)
		}
		text := strings.Join(names, "+")
		if u.Rows == 0 {
			text = "|"
		}
		rows = append(rows, fmt.Sprintf("%d:%s", u.U, text))
	}
	return strings.Join(rows, " ")
}

func TestARackIsDrawn(t *testing.T) {
	for _, c := range []struct{ labels, want, elsewhere string }{
		{"", "", ""},
		{"a:gpu b:", "", ""},
		{"a:u=1", "1:a", ""},
		{"a:u=1 b:u=3", "3:b 2: 1:a", ""},
		{"a:u=2-3 b:u=1", "3:a 2:| 1:b", ""},
		{"a:u=2-3 b:u=2-3 c:gpu", "3:a+b 2:| 1:", "c"},
		{"a:u=3-4 b:u=2-3 c:u=1-2", "4:a+b+c 3:| 2:| 1:|", ""},
		{"a:u=1 b:u=0 c:u=101 d:u=3-2 e:u=x f:u= g:u=1-2-3 h:u=-1", "1:a", "b c d e f g h"},
	} {
		var nodes []api.Node
		for _, one := range strings.Fields(c.labels) {
			name, label, _ := strings.Cut(one, ":")
			nodes = append(nodes, api.Node{Name: name, Labels: []string{"k=v", label}})
		}
		units, elsewhere := elevation(nodes)
		if got := drawn(units); got != c.want || strings.Join(elsewhere, " ") != c.elsewhere {
			t.Errorf("%s: %q and %q, want %q and %q", c.labels, got, elsewhere, c.want, c.elsewhere)
		}
	}
}

// TestEveryNodeIsDrawnOnce, in rows that hold its units; the rows go down to 1 without a gap, and
// what a cell spans is what the rows below it leave to it.
func TestEveryNodeIsDrawnOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []api.Node
		want := map[string][2]int{}
		for i := range rapid.IntRange(1, 20).Draw(t, "nodes") {
			low := rapid.IntRange(1, 30).Draw(t, "low")
			high := low + rapid.IntRange(0, 5).Draw(t, "height")
			n := api.Node{Name: fmt.Sprintf("n%d", i), Labels: []string{fmt.Sprintf("u=%d-%d", low, high)}}
			nodes, want[n.Name] = append(nodes, n), [2]int{low, high}
		}
		units, _ := elevation(nodes)
		seen := 0
		for i, u := range units {
			if u.U != len(units)-i {
				t.Fatalf("row %d is unit %d", i, u.U)
			}
			if covered := slices.IndexFunc(units[i+1:], func(o unit) bool { return o.Rows > 0 }); u.Rows > 0 &&
				u.Rows != 1+covered && (covered >= 0 || u.Rows != len(units)-i) {
				t.Fatalf("unit %d spans %d rows: %s", u.U, u.Rows, drawn(units))
			}
			for _, n := range u.Nodes {
				at := want[n.Name]
				if seen++; at[1] > u.U || at[0] <= u.U-u.Rows {
					t.Fatalf("%s of %v is in %d to %d: %s", n.Name, at, u.U-u.Rows+1, u.U, drawn(units))
				}
			}
		}
		if seen != len(nodes) {
			t.Fatalf("%d of %d are drawn: %s", seen, len(nodes), drawn(units))
		}
	})
}
