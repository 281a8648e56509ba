package central

import (
	"context"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// askWhy asks for an explanation in the background.
func (s *site) askWhy(node string) <-chan api.Explanation {
	got := make(chan api.Explanation, 1)
	go func() {
		e, err := s.Explain(context.Background(), node)
		if err != nil {
			s.t.Error(err)
		}
		got <- e
	}()
	return got
}

func (r *rack) explains(all ...api.Explanation) {
	r.s.t.Helper()
	r.tell(api.Report{Explained: all})
}

func TestTheAgentExplains(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	r.poll()
	poll := r.pollBehind(time.Minute)
	got, too := s.askWhy("a"), s.askWhy("a")
	g := <-poll
	if g.err != nil || len(g.Explain) != 1 || g.Explain[0] != "a" {
		t.Fatalf("%+v", g)
	}
	r.took(g.Assignment)
	until(t, "both ask", func() bool {
		d := s.c.sessions.of("r1")
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.asked["a"] != nil && len(d.asked["a"].waiting) == 2
	})
	if again := r.poll(); len(again.Explain) != 0 {
		t.Errorf("asked again at once: %+v", again)
	}
	s.later(resendRead + time.Second)
	if again := r.poll(); len(again.Explain) != 1 {
		t.Errorf("not asked again: %+v", again)
	}
	op := s.ask("a", power.ActOn)
	r.explains(api.Explanation{Node: "b", Message: "another"}, api.Explanation{
		Node: "a", Message: "it waits", At: s.clock(),
		Reading: power.Seen(power.Off, s.clock()),
	})
	for _, ch := range []<-chan api.Explanation{got, too} {
		e := <-ch
		if e.Away != "" || !strings.HasPrefix(e.Message, "it waits. 1 more at central") || len(e.Ops) != 1 || e.Ops[0].ID != op.ID ||
			e.Agent != "r1" || e.Reading.State != power.Off || e.RecentReadings == nil {
			t.Errorf("%+v", e)
		}
	}
	d := s.c.sessions.of("r1")
	until(t, "nobody asks any more", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.asked) == 0 })
	r.explains(api.Explanation{Node: "a"}) // late: nobody waits
}

func TestCentralExplainsWhatItCan(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	r.settled()
	op := r.deliver("a", power.ActOff)
	r.mustReport(r.ended(op, power.Failed))
	r.tick(s.seen("a", power.On, api.NodeMonitor{Fault: "off failed 3 times", Waits: power.ReasonFault, WaitsMessage: "next try in 4 min"}))
	r.says(api.RackState{Brake: brakeOf("b1", "a"), Domains: []api.DomainState{{DomainLimit: api.DomainLimit{Name: "pdu"}, Waiting: 3}}})
	s.inDomain("a", "r1", "pdu")
	s.hold(power.WantOff, time.Hour, "a")
	if _, err := s.SetPause(t.Context(), "r1", api.SetPause{AskedBy: "eve"}); err != nil {
		t.Fatal(err)
	}
	asked := s.ask("a", power.ActOff)
	s.later(time.Minute)
	e, err := s.Explain(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(e.Away, "agent r1 is away since") || e.Status != power.StatusReady || e.Desired.Want != power.WantOff ||
		e.DesiredFrom != "hold of "+meFor("bob") || e.Hold == nil ||
		e.Monitor.Fault == "" || e.Reading.State != power.On || len(e.Ops) != 2 || e.Ops[0].ID != op.ID || e.Ops[1].ID != asked.ID ||
		e.Rack.Brake == nil ||
		e.Rack.Pause == nil || e.Domain == nil || e.Domain.Waiting != 3 {
		t.Errorf("%+v", e)
	}
	for _, part := range []string{
		"a was last read on, 61 s ago; hold of " + meFor("bob") + " wants it off", "off (asked by " + meFor("admin"),
		"in fault: off failed 3 times", "paused by " + meFor("eve"), "The fleet brake holds: too many", "agent r1 is away",
	} {
		if !strings.Contains(e.Message, part) {
			t.Errorf("%q is not in %q", part, e.Message)
		}
	}
	_, err = s.Explain(t.Context(), "ghost")
	wantCode(t, err, api.CodeNotFound)
	// An agent that polls and keeps silent is as good as away.
	s.c.explainWait = 30 * time.Millisecond
	r.poll()
	e, err = s.Explain(t.Context(), "a")
	if err != nil || !strings.Contains(e.Away, "did not answer within") || e.Reading.State != power.On {
		t.Errorf("%+v, %v", e, err)
	}
	if g := r.poll(); len(g.Explain) != 0 {
		t.Errorf("nobody waits any more: %+v", g)
	}
}
