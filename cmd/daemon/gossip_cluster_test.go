package daemon

import (
	"fmt"
	"testing"

	"rackpower/central/api"
)

// TestTheOwnerComesFirst among those that tell of a node, whatever they tell.
func TestTheOwnerComesFirst(t *testing.T) {
	for _, c := range []struct {
		owner string
		told  []string
		want  string
	}{
		{"", nil, "[]"},
		{"r1", nil, "[]"},
		{"", []string{"r2", "r1"}, "[r2 r1]"},
		{"r1", []string{"r1"}, "[r1]"},
		{"r1", []string{"r2", "r1", "r3"}, "[r1 r2 r3]"},
		{"r1", []string{"r2"}, "[r1 r2]"},
	} {
		var all []api.PeerNode
		for _, name := range c.told {
			all = append(all, api.PeerNode{Node: "n", Owner: name})
		}
		got := []string{}
		for _, p := range ownerFirst(all, "n", c.owner) {
			if p.Node != "n" {
				t.Errorf("%+v", p)
			}
			got = append(got, p.Owner)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
