package agent

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
)

func openAlarms(t *testing.T, dir string) (*alarms, *journal.Journal) {
	t.Helper()
	log, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	s := newAlarms(slog.New(slog.DiscardHandler), func() {})
	if err := s.load(log.Live()); err != nil {
		t.Fatal(err)
	}
	return s, log
}

func TestAlarmsStandOverARestartUntilAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s, log := openAlarms(t, dir)
	s.raise(api.Alarm{Kind: "a", Message: "one", NeedsAck: true})
	s.raise(api.Alarm{Kind: "b", Message: "two"})
	first := s.list()[0]
	if first.Since.IsZero() || first.Remedy != "rackpower local ack a" {
		t.Errorf("%+v", first)
	}
	if err := s.save(log); err != nil {
		t.Fatal(err)
	}
	log.Close()

	s, log = openAlarms(t, dir)
	if got := s.list(); len(got) != 2 || got[0] != first {
		t.Fatalf("after a restart: %+v, want first %+v", got, first)
	}
	s.raise(api.Alarm{Kind: "a", Message: "one", NeedsAck: true})
	if got := s.list()[0]; got != first {
		t.Errorf("the same once more: %+v", got)
	}
	time.Sleep(time.Millisecond)
	s.raise(api.Alarm{Kind: "a", Message: "another", NeedsAck: true})
	if _, ok := s.acknowledge("a", first.Since, "bob"); ok {
		t.Error("an acknowledgement of what was seen before ended what nobody has seen")
	}
	if got, ok := s.acknowledge("a", s.list()[0].Since, "bob"); !ok || got.Message != "another" {
		t.Errorf("%+v, %t", got, ok)
	}
	s.clear("b")
	if err := s.save(log); err != nil {
		t.Fatal(err)
	}
	log.Close()
	if s, log := openAlarms(t, dir); len(s.list()) > 0 || len(log.Live()) > 0 {
		t.Errorf("acknowledged and over: %+v", s.list())
	}
}

// failing is a log that takes nothing.
type failing struct{}

func (failing) Append(...journal.Entry) (uint64, error) { return 0, errors.New("disk full") }

func TestAnAlarmThatTheLogDoesNotTakeStandsAllTheSame(t *testing.T) {
	s, log := openAlarms(t, t.TempDir())
	s.raise(api.Alarm{Kind: "a", Message: "one"})
	if err := s.save(failing{}); err == nil || len(s.list()) != 1 {
		t.Errorf("%v, %+v", err, s.list())
	}
	if err := s.save(log); err != nil || len(log.Live()) != 1 {
		t.Errorf("%v, %+v", err, log.Live())
	}
}

// TestAlarmsOfAnAgentAreAcknowledgedAtCentralOrAtTheRack has both doors end them.
func TestAlarmsOfAnAgentAreAcknowledgedAtCentralOrAtTheRack(t *testing.T) {
	r, c := withCentral(t, 1)
	r.a.alarms.raise(api.Alarm{Kind: "x", Message: "seen at central", NeedsAck: true})
	r.a.alarms.raise(api.Alarm{Kind: "y", Message: "seen at the rack", NeedsAck: true})
	told := func() []api.Alarm {
		var state api.RackState
		c.do(func() {
			for _, in := range c.reports {
				if in.Rack != nil {
					state = *in.Rack
				}
			}
		})
		return state.Alarms
	}
	eventually(t, "central knows", func() bool { return len(told()) == 2 })
	ack := api.AlarmAck{Kind: "x", Since: told()[0].Since, By: "bob"}
	c.do(func() {
		c.rev++
		c.rack = &api.RackSettings{Acks: []api.AlarmAck{ack}}
	})
	eventually(t, "acknowledged at central", func() bool { return !r.a.alarms.active("x") })
	if got, err := r.a.ackAlarms(api.AckAlarm{}); err != nil || len(got) != 1 || got[0].Kind != "y" {
		t.Errorf("at the rack: %+v, %v", got, err)
	}
	if _, err := r.a.ackAlarms(api.AckAlarm{Kind: "y"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("nothing left: %v", err)
	}
	eventually(t, "central knows that none is left", func() bool { return len(told()) == 0 })
}
