//go:build !race

package central

import (
	"context"
	"net/http/httptest"
	"testing"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
	"rackpower/power"
)

// TestAPollAllocatesLittle: each agent has one that waits, which looks after every wake-up.
func TestAPollAllocatesLittle(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	r.settled()
	in, d := r.request(0), s.c.sessions.of("r1")
	n := testing.AllocsPerRun(100, func() {
		if out, err := s.c.answerPoll(context.Background(), d, &in); out != nil || err != nil {
			t.Fatal(out, err)
		}
	})
	if n > 2 {
		t.Errorf("%v allocations to find nothing for a poll, at most 2 are meant to be", n)
	}
}

// TestAReportAllocatesLittle: most reports say of most nodes what the one before said.
func TestAReportAllocatesLittle(t *testing.T) {
	if pgtest.Wanted() {
		t.Skip("the bounds are those of SQLite: what the driver of PostgreSQL allocates is its own")
	}
	s := newSite(t)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	s.nodes(names...)
	r := s.rack("r1")
	r.settled()
	report := func(nodes []string) func() {
		return func() {
			s.later(1)
			in := api.Report{Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn}
			for _, name := range nodes {
				in.Readings = append(in.Readings, api.NodeReading{Node: name, Reading: power.Seen(power.Off, s.clock()), Monitor: matched})
			}
			to := httptest.NewRequest("POST", "/", nil)
			to.SetPathValue("name", "r1")
			if _, err := s.c.report(to, in); err != nil {
				t.Fatal(err)
			}
		}
	}
	report(names)() // what is news costs more
	one, all := testing.AllocsPerRun(50, report(names[:1])), testing.AllocsPerRun(50, report(names))
	each := (all - one) / float64(len(names)-1)
	if one > 150 || each > 20 {
		t.Errorf("%v allocations for a report of one reading, and %v for each of more: at most 150 and 20 are meant to be", one, each)
	}
}
