package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rackpower/power"
	"rackpower/power/noderange"
)

// TestManyNamesFromStdinAreAskedForInParts has names that do not fold, more than an address
// may have.
func TestManyNamesFromStdinAreAskedForInParts(t *testing.T) {
	f := newFake(t)
	var names []string
	for i := range 5000 {
		n := hall(1, power.On)[0]
		n.Name = fmt.Sprintf("h%xz", i*7919)
		f.nodes, names = append(f.nodes, n), append(names, n.Name)
	}
	got := f.run("status - -o name", strings.Join(names, "\n"))
	have := strings.Fields(got.out)
	noderange.Sort(names)
	if got.exit != 0 || !slices.Equal(have, names) {
		t.Errorf("status %d, %d of %d names: %s", got.exit, len(have), len(names), got.errs)
	}
	if len(f.selects) < 2 {
		t.Errorf("%d requests", len(f.selects))
	}
	for _, expr := range f.selects {
		if len(expr) > longest {
			t.Errorf("%d bytes in one", len(expr))
		}
	}
}
