package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rackpower/power"
)

// TestOneOwnerPerNode: whose word on a node counts when several members tell of it.
func TestOneOwnerPerNode(t *testing.T) {
	row := func(owner, status string, ms int64) PeerNode {
		return PeerNode{Node: "n", Owner: owner, OwnerStatus: status, State: power.On, RecordMS: ms}
	}
	for what, c := range map[string]struct {
		owner string
		rows  []PeerNode
		want  string // owner, its status, state, others
	}{
		"one that is not disputed":        {"", []PeerNode{row("r1", "alive", 5)}, "r1 alive on []"},
		"the owner":                       {"r1", []PeerNode{row("r1", "alive", 5)}, "r1 alive on []"},
		"the owner, another one is newer": {"r1", []PeerNode{row("r2", "alive", 1), row("r1", "alive", 5)}, "r1 alive on [r2]"},
		"the owner is gone":               {"r1", []PeerNode{row("r2", "alive", 1), row("r1", "failed", 90_000)}, "r1 failed on [r2]"},
		"the owner says nothing of it":    {"r1", []PeerNode{row("r2", "alive", 1)}, "r1 unknown unknown [r2]"},
		"it tells of others only": {
			"r1",
			[]PeerNode{row("r2", "alive", 1), {Node: "m", Owner: "r1", OwnerStatus: "left"}},
			"r1 left unknown [r2]",
		},
		"not known: the newer one":     {"", []PeerNode{row("r1", "alive", 5), row("r2", "alive", 1)}, "r2 alive on [r1]"},
		"not known: one that is alive": {"", []PeerNode{row("r1", "failed", 1), row("r2", "alive", 9)}, "r2 alive on [r1]"},
		"not known: three of one age": {
			"",
			[]PeerNode{row("r3", "alive", 1), row("r2", "alive", 1), row("r1", "alive", 1)},
			"r1 alive on [r2 r3]",
		},
	} {
		slices.Reverse(c.rows) // the order in which they come does not matter
		for range 2 {
			slices.Reverse(c.rows)
			var got []string
			for _, p := range OnePerNode(c.rows, func(node string) string { return map[string]string{"n": c.owner}[node] }) {
				if p.Node == "n" {
					got = append(got, fmt.Sprint(p.Owner, " ", p.OwnerStatus, " ", p.State, " ", p.AlsoClaimedBy))
				}
			}
			if strings.Join(got, "; ") != c.want {
				t.Errorf("%s: %q, want %q", what, got, c.want)
			}
		}
	}
}
