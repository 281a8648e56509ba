package web

import (
	"slices"
	"time"

	"rackpower/central/api"
)

// How often a page that is open counts anew. What it costs is at most one part in countShare of
// the time of a processor, for a page; and one processor, for all of them.
const (
	countPause = 2 * time.Second
	countShare = 20
)

// counts are the numbers of the menu, and of the title of the browser's tab.
type counts struct {
	Attention int  `json:"attention"`
	Critical  bool `json:"critical"` // one of those is
	Approvals int  `json:"approvals"`
}

func countsOf(items []api.Attention) counts {
	out := counts{Attention: len(items)}
	for _, x := range items {
		out.Critical = out.Critical || x.Severity == api.SeverityCritical
		if x.Kind == api.AttentionApproval {
			out.Approvals++
		}
	}
	return out
}

// attention is what wants a person, read once for a page.
func (v *visit) attention() (items []api.Attention, err error) {
	if v.items == nil {
		v.items, err = v.api.Attention(v.r.Context())
	}
	return slices.Clone(v.items), err
}

// count sends the numbers if something happened since they were counted, and they are others.
func (s *stream) count() error {
	if !s.dirty || time.Now().Before(s.countNext) || !s.v.p.counting.TryLock() {
		return nil
	}
	began := time.Now()
	s.dirty = false
	items, err := s.v.api.Attention(s.v.r.Context())
	s.v.p.counting.Unlock()
	s.countNext = time.Now().Add(max(countPause, countShare*time.Since(began)))
	if err != nil {
		s.dirty = true // what is wrong ends the watch, too
		return nil
	}
	now := countsOf(items)
	if s.counted != nil && *s.counted == now {
		return nil
	}
	s.counted = &now
	return s.send(liveCounts, now)
}
