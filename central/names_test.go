package central

import (
	"strings"
	"testing"

	"rackpower/central/api"
)

// TestNamesThatDifferByCaseAloneAreRefused: whoever types n1 may mean N1.
func TestNamesThatDifferByCaseAloneAreRefused(t *testing.T) {
	s := newSite(t)
	if err := s.tryAdd(false, api.NodeSpec{Name: "n1", Rack: "r1", Domain: "feedA"}); err != nil {
		t.Fatal(err)
	}
	for says, spec := range map[string]api.NodeSpec{
		"a node n1 already": {Name: "N1", Rack: "r1"}, "a rack r1 already": {Name: "n2", Rack: "R1"}, "a power domain feedA already": {
			Name: "n2",
			Rack: "r1", Domain: "FEEDa",
		},
	} {
		for _, update := range []bool{false, true} {
			err := s.tryAdd(update, spec)
			wantCode(t, err, api.CodeBadRequest)
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%+v: %v, want %q", spec, err, says)
			}
		}
	}
	wantCode(t, s.tryAdd(false, api.NodeSpec{Name: "a", Rack: "r1"}, api.NodeSpec{Name: "A", Rack: "r1"}), api.CodeBadRequest)
	if err := s.tryAdd(true, api.NodeSpec{Name: "n1", Rack: "r1", Domain: "feedB"},
		api.NodeSpec{Name: "n2", Rack: "r1", Domain: "feedA"}); err != nil {
		t.Error(err)
	}
}
