package central

import (
	"context"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// twin is another process that calls itself r1.
func (s *site) twin(journal string, epoch uint64) *rack {
	return &rack{s: s, name: "r1", run: "run-twin", journal: journal, epoch: epoch, lsn: 10}
}

// lives has the process poll as one that lives does: it comes again when its poll is answered.
func (r *rack) lives() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	polling := r.pollBehind(time.Minute)
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			case p := <-polling:
				if p.err != nil {
					return
				}
				polling = r.pollBehind(time.Minute)
			}
		}
	}()
	return func() { close(quit); <-ended }
}

func (s *site) twinAlarm() string {
	s.t.Helper()
	s.c.endTwins(s.t.Context())
	for _, a := range s.agent("r1").Alarms {
		if a.Kind == api.AlarmTwoAgents {
			return a.Message
		}
	}
	return ""
}

// TestTheAgentThatLivesKeepsItsName: whatever the second one brings, with the first one
// alive it is refused, told who has the name, and gets nothing. The alarm names the
// cause, is written once, and ends when the second one has been silent for a minute.
func TestTheAgentThatLivesKeepsItsName(t *testing.T) {
	for what, c := range map[string]struct {
		journal string
		epoch   uint64
		cause   string
	}{
		"another journal":          {"journal-two", 1, "journal-two"},
		"a clone":                  {"journal-r1", 1, "cloned machine"},
		"a clone that is older":    {"journal-r1", 0, "cloned machine"},
		"a clone that began later": {"journal-r1", 7, "cloned machine"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a")
			one := s.rack("r1")
			one.poll()
			stop := one.lives()
			two := s.twin(c.journal, c.epoch)
			until(t, "it is certain that both live", func() bool {
				wantCode(t, two.hello(), api.CodeTwoAgents)
				return s.twinAlarm() != ""
			})
			for range 20 {
				err := two.hello()
				wantCode(t, err, api.CodeTwoAgents)
				if !strings.Contains(err.Error(), "journal-r1") || !strings.Contains(err.Error(), "run-r1 (") ||
					!strings.Contains(err.Error(), "since ") {
					t.Fatal(err)
				}
				until(t, "the first one polls again", func() bool { d := s.c.sessions.of("r1"); d.mu.Lock(); defer d.mu.Unlock(); return d.polls > 0 })
				s.later(2 * time.Second)
			}
			if a := s.twinAlarm(); !strings.Contains(a, c.cause) || !strings.Contains(a, "run-twin") || !strings.Contains(a, "run-r1") {
				t.Errorf("alarm %q", a)
			}
			if lines := s.entries("", auditAlarm); len(lines) != 1 {
				t.Errorf("%q", lines)
			}
			stop()
			if err := one.report(); err != nil {
				t.Errorf("the session of the first one is over: %v", err)
			}
			op := one.deliver("a", power.ActOn)
			one.mustReport(one.ended(op, power.Succeeded))
			s.later(57 * time.Second)
			if s.twinAlarm() == "" {
				t.Error("the alarm was over too soon")
			}
			s.later(2 * time.Second)
			if a := s.twinAlarm(); a != "" {
				t.Errorf("still %q", a)
			}
			if s.agent("r1").JournalID != "journal-r1" {
				t.Error("the second one has the name")
			}
		})
	}
}

// TestWhoComesAfterTheOneThatHadTheName is let in as soon as that is known to have ended,
// or was silent for long enough.
func TestWhoComesAfterTheOneThatHadTheName(t *testing.T) {
	restart := func(s *site) *rack { return s.twin("journal-r1", 2) }
	other := func(s *site) *rack { return s.twin("journal-two", 1) }
	older := func(s *site) *rack { return s.twin("journal-r1", 0) }
	for what, c := range map[string]struct {
		next  func(*site) *rack
		ends  func(t *testing.T, s *site, one *rack)
		after time.Duration // after which it is let in
	}{
		"a restart, connection closed":      {restart, broke, 0},
		"a restart, no sign of life":        {restart, func(*testing.T, *site, *rack) {}, 0},
		"a restart, goodbye":                {restart, bye, 0},
		"another journal, goodbye":          {other, bye, 0},
		"an older journal, goodbye":         {older, bye, 0},
		"another journal, closed":           {other, broke, closedFor},
		"another journal, silent":           {other, func(*testing.T, *site, *rack) {}, silentFor},
		"an older journal, silent":          {older, func(*testing.T, *site, *rack) {}, silentFor},
		"a restart over one of central":     {restart, func(t *testing.T, s *site, _ *rack) { s.restart(); s.c.knockWait = time.Millisecond }, 0},
		"another over a restart of central": {other, func(_ *testing.T, s *site, _ *rack) { s.restart() }, silentFor},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			s.c.knockWait = 20 * time.Millisecond
			s.nodes("a")
			one := s.rack("r1")
			one.poll()
			c.ends(t, s, one)
			next := c.next(s)
			if c.after > 0 {
				wantCode(t, next.hello(), api.CodeTwoAgents)
				s.later(c.after - time.Second)
				wantCode(t, next.hello(), api.CodeTwoAgents)
				s.later(2 * time.Second)
			}
			next.mustHello()
			next.poll()
			if a := s.twinAlarm(); a != "" {
				t.Errorf("alarm %q", a)
			}
			// The one before turns out to live: it is the second one now.
			err := one.hello()
			if one.journal != next.journal || one.epoch < next.epoch {
				wantCode(t, err, api.CodeTwoAgents)
			}
		})
	}
}

func bye(t *testing.T, s *site, one *rack) {
	if err := s.Goodbye(t.Context(), "r1", api.Goodbye{Session: one.w.Session}); err != nil {
		t.Fatal(err)
	}
}

// broke ends the process as a kill does: its connections are closed.
func broke(t *testing.T, s *site, one *rack) {
	got := one.pollBehind(time.Minute)
	s.http.CloseClientConnections()
	if p := <-got; p.err == nil {
		t.Fatal("the poll was answered")
	}
	until(t, "central has noticed", func() bool { d := s.c.sessions.of("r1"); d.mu.Lock(); defer d.mu.Unlock(); return d.holder.closed })
}

// TestAGoodbyeOfAnotherSession ends nothing.
func TestAGoodbyeOfAnotherSession(t *testing.T) {
	s := newSite(t)
	s.rack("r1")
	err := s.Goodbye(t.Context(), "r1", api.Goodbye{Session: "another"})
	wantCode(t, err, api.CodeHello)
	wantCode(t, s.twin("journal-two", 1).hello(), api.CodeTwoAgents)
}

// TestARestartIsInAtOnce when the connection of the process before is closed, as that of
// one that was killed is: there is nobody to ask for a sign of life.
func TestARestartIsInAtOnce(t *testing.T) {
	s := newSite(t)
	s.c.knockWait = time.Hour
	s.nodes("a")
	one := s.rack("r1")
	one.poll()
	broke(t, s, one)
	next := s.twin("journal-r1", 2)
	ended := make(chan error, 1)
	go func() { ended <- next.hello() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it is still waiting for the one that is gone")
	}
}

// TestAnOldPollThatBreaksClosesNothing: the process came again since.
func TestAnOldPollThatBreaksClosesNothing(t *testing.T) {
	d := &agentSession{came: make(chan struct{}), news: make(chan struct{})}
	closed := func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.holder.closed }
	broken, breaks := context.WithCancel(t.Context())
	_, leaveOld := d.arrive(broken, time.Now, 0)
	_, leaveNew := d.arrive(t.Context(), time.Now, 0)
	leaveNew()
	breaks()
	leaveOld()
	if closed() {
		t.Error("it is taken for closed")
	}
	_, leaveWaiting := d.arrive(t.Context(), time.Now, 0)
	_, leaveLate := d.arrive(broken, time.Now, 0) // it was sent before the one that waits
	if leaveLate(); closed() {
		t.Error("it is taken for closed while a poll of it waits")
	}
	leaveWaiting()
	_, leave := d.arrive(broken, time.Now, 0)
	if leave(); !closed() {
		t.Error("the latest one broke, and it is not taken for closed")
	}
}
