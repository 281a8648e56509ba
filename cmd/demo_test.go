package cmd_test

import (
	"strings"
	"testing"
)

// TestDemo plays the demonstration on a small site; it fails by itself if one of its claims
// does not hold.
func TestDemo(t *testing.T) {
	s := newSite(t)
	out, errs, exit := s.run("demo", "--racks", "2", "--nodes", "7")
	if exit != 0 || !strings.Contains(out, " claims, all true") {
		t.Errorf("exit status %d\n%s%s", exit, out, errs)
	}
}

func TestDemoNeedsTwoRacks(t *testing.T) {
	s := newSite(t)
	for _, racks := range []string{"1", "0", "51"} {
		if out, errs, exit := s.run("demo", "--racks", racks); exit != 2 || !strings.Contains(errs, "2 to 50 racks") {
			t.Errorf("%s: exit status %d\n%s%s", racks, exit, out, errs)
		}
	}
}
