package central

import (
	"slices"
	"testing"
	"time"

	"rackpower/central/api"
)

// TestAlarmsOfAnAgentUntilAPersonSawThem has one that central raised and one that the
// agent tells of.
func TestAlarmsOfAnAgentUntilAPersonSawThem(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	raise := func(message string) {
		t.Helper()
		if err := s.c.write(t.Context(), s.clock(), "central", func(u *unitOfWork) error {
			return u.raise("r1", api.Alarm{Kind: "x", Message: message, NeedsAck: true})
		}); err != nil {
			t.Fatal(err)
		}
	}
	raise("one")
	first := s.agent("r1").Alarms[0]
	s.later(time.Minute)
	raise("one")
	if got := s.agent("r1").Alarms; len(got) != 1 || got[0] != first || first.Remedy != "rackpower agents ack r1 --kind x --reason TEXT" {
		t.Errorf("the same once more: %+v, first %+v", got, first)
	}
	own := api.Alarm{Kind: "y", Message: "two", Since: s.clock().UTC(), NeedsAck: true}
	r.says(api.RackState{Alarms: []api.Alarm{own}})
	if got := s.agent("r1"); got.Alarm != "one; two" || len(got.Alarms) != 2 {
		t.Errorf("%q, %+v", got.Alarm, got.Alarms)
	}
	if _, err := s.AckAlarm(t.Context(), "r1", api.AckAlarm{Kind: "z", Reason: "why"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("no such alarm: %v", err)
	}
	if _, err := s.AckAlarm(t.Context(), "r1", api.AckAlarm{}); api.CodeOf(err) != api.CodeBadRequest {
		t.Errorf("without a reason: %v", err)
	}
	acked, err := s.AckAlarm(t.Context(), "r1", api.AckAlarm{Reason: "why", AskedBy: "bob"})
	if err != nil || len(acked) != 2 {
		t.Fatalf("%+v, %v", acked, err)
	}
	if got := s.agent("r1"); got.Alarm != "two" {
		t.Errorf("the agent has not said yet that it is over: %q", got.Alarm)
	}
	want := api.AlarmAck{Kind: "y", Since: own.Since, By: meFor("bob")}
	if got := r.poll(); got.Rack == nil || !slices.Equal(got.Rack.Acks, []api.AlarmAck{want}) {
		t.Errorf("the agent is told %+v", got.Rack)
	}
	r.says(api.RackState{})
	if got := s.agent("r1"); got.Alarm != "" || len(s.rackOf("r1").Settings.Acks) != 0 {
		t.Errorf("it is over: %q, %+v", got.Alarm, s.rackOf("r1").Settings.Acks)
	}
	wantLines(t, s.entries("", auditAlarm, auditAlarmOver, auditAlarmAck), "alarm: one", "alarm: two", "alarm-ack: agent r1: x: one",
		"alarm-ack: agent r1: y: two", "alarm-over: two")
}
