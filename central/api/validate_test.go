package api

import (
	"math"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// checked are the bodies by which people set something. A new one belongs here: a server
// asks each body that it reads for its Validate method.
var _ = []interface{ Validate() error }{
	AddNodes{},
	AskOps{},
	CancelOp{},
	SetStatus{},
	RetryNodes{},
	RemoveNodes{},
	ReadNodes{},
	QueryOps{},
	SetHold{},
	SetRack{},
	SetPause{},
	SetDomain{},
	PutSchedule{},
	RemoveSchedule{},
	ReleaseBrake{},
	AckAlarm{},
	ConfirmTrust{},
	ForgetAgent{},
	Ping{},
	ChangeKeys{},
}

const someID = "0191d0a5-5b7e-7c3e-8e2f-0242ac120002"

func TestValid(t *testing.T) {
	long := strings.Repeat("x", MaxText+1)
	ask := func(change func(*OpRequest)) AskOps {
		r := OpRequest{ID: someID, Node: "n1", Action: power.ActOn}
		change(&r)
		return AskOps{Ops: []OpRequest{r}}
	}
	plan := func(change func(*PutSchedule)) PutSchedule {
		s := PutSchedule{Schedule: Schedule{Name: "night", Cron: "0 20 * * *", Nodes: "@r1", Want: power.WantOff}}
		change(&s)
		return s
	}
	hold := func(change func(*SetHold)) SetHold {
		h := SetHold{Names: []string{"n1"}, Want: power.WantOn, Reason: "x"}
		change(&h)
		return h
	}
	number := func(n int) *int { return &n }
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		in    any
		wrong string // "": it is right
	}{
		{ask(func(*OpRequest) {}), ""},
		{ask(func(r *OpRequest) { r.ID = "X" }), `request 1 (node "n1"): id "X" is no UUID`},
		{ask(func(r *OpRequest) { r.ID = strings.ToUpper(someID) }), "no UUID in lower case"},
		{ask(func(r *OpRequest) { r.Deadline = -1 }), "deadline -1ns is not between"},
		{ask(func(r *OpRequest) { r.Deadline = math.MaxInt64 }), "is not between 0 and 168h"},
		{ask(func(r *OpRequest) { r.Reason = long }), "longer than 1000 bytes"},
		{ask(func(r *OpRequest) { r.AskedBy = long }), "longer than 1000 bytes"},
		{ask(func(r *OpRequest) { r.Node = long }), "longer than 1000 bytes"},
		{ask(func(r *OpRequest) { r.HoldFor = time.Hour }), "hold-for goes with hold"},
		{ask(func(r *OpRequest) { r.Hold, r.HoldFor = true, -time.Hour }), "a duration of -1h0m0s is not between"},
		{ask(func(r *OpRequest) { r.Hold, r.Action = true, power.ActDiag }), "no state to hold the node in"},
		{ask(func(r *OpRequest) { r.IfBusy = "perhaps" }), "unknown if-busy"},
		{AskOps{Ops: []OpRequest{{ID: someID, Node: "n1", Action: power.ActOn}, {ID: someID, Node: "n1", Action: power.ActOn}}}, ""},
		{
			AskOps{Ops: []OpRequest{{ID: someID, Node: "n1", Action: power.ActOn}, {ID: someID, Node: "n2", Action: power.ActOn}}},
			"requests 1 and 2 have the same id",
		},
		{
			AskOps{Ops: []OpRequest{{ID: someID, Node: "n1", Action: power.ActOn}, {ID: someID, Node: "n1", Action: power.ActOff}}},
			"have the same id",
		},
		{AskOps{}, "0 operations asked for"},
		{AskOps{Ops: make([]OpRequest, maxAtOnce+1)}, "want 1 to 20000 at once"},
		{CancelOp{Reason: long}, "longer than"},
		{SetStatus{Names: []string{"a"}, Status: "SLEEPY"}, "SLEEPY"},
		{SetStatus{Names: []string{"a"}, Status: "none"}, ""},
		{SetStatus{Status: "READY"}, "no node is named"},
		{SetStatus{Names: []string{"a"}, Status: "READY", Reason: long}, "longer than"},
		{RemoveNodes{Names: []string{"a"}, Reason: long}, "longer than"},
		{RetryNodes{Names: []string{"a"}, AskedBy: long}, "longer than"},
		{ReadNodes{Names: []string{"a"}, Wait: -1}, "negative"},
		{QueryOps{Limit: -1}, "negative"},
		{QueryOps{Wait: -1}, "negative"},
		{hold(func(*SetHold) {}), ""},
		{hold(func(h *SetHold) { h.Reason = "" }), "a hold needs a reason"},
		{hold(func(h *SetHold) { h.Want = "up" }), "up"},
		{hold(func(h *SetHold) { h.For = 11 * 365 * 24 * time.Hour }), "is not between"},
		{hold(func(h *SetHold) { h.Want, h.For = "", time.Hour }), "a release has no duration"},
		{SetRack{Monitor: text("")}, ""},
		{SetRack{Monitor: text("off")}, ""},
		{SetRack{Monitor: text("@every 0s")}, "shorter than 1s"},
		{SetRack{Monitor: text("0 0 30 2 *")}, "never comes"},
		{SetRack{BrakePercent: number(0), BrakeAbove: number(0)}, ""},
		{SetRack{BrakePercent: number(101)}, "brake percent 101"},
		{SetRack{BrakePercent: number(-1)}, "brake percent -1"},
		{SetRack{BrakeAbove: number(MaxCount + 1)}, "brake above"},
		{SetPause{Resume: true, For: time.Hour}, "resume takes no duration"},
		{SetPause{For: -1}, "is not between"},
		{SetDomain{}, "no power domain is named"},
		{SetDomain{DomainLimit: DomainLimit{Name: "a\nb"}}, "control characters"},
		{SetDomain{DomainLimit: DomainLimit{Name: "a", Rate: math.NaN()}}, "a rate of NaN"},
		{SetDomain{DomainLimit: DomainLimit{Name: "a", Rate: math.Inf(1)}}, "a rate of +Inf"},
		{SetDomain{DomainLimit: DomainLimit{Name: "a", Concurrent: -1}}, "-1 nodes at once"},
		{SetDomain{DomainLimit: DomainLimit{Name: "a", Rate: 1}, Remove: true}, "both set and removed"},
		{plan(func(*PutSchedule) {}), ""},
		{plan(func(s *PutSchedule) { s.Name = "a b" }), `name "a b"`},
		{plan(func(s *PutSchedule) { s.Cron = "61 * * * *" }), "cannot read cron expression"},
		{plan(func(s *PutSchedule) { s.Nodes = "r1n[" }), "r1n["},
		{plan(func(s *PutSchedule) { s.Want = "up" }), "up"},
		{plan(func(s *PutSchedule) { s.Want, s.For = "", time.Hour }), "a release has no duration"},
		{plan(func(s *PutSchedule) { s.Reason = long }), "longer than"},
		{RemoveSchedule{Name: long}, "longer than"},
		{ReleaseBrake{Reason: long}, "longer than"},
		{AckAlarm{Kind: "x"}, "give a reason"},
		{Hello{}, ""}, // agents' bodies are looked at where they are applied
	} {
		err := Valid(c.in)
		if (err == nil) != (c.wrong == "") || err != nil && (CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%T %.200v: %v, want %q", c.in, c.in, err, c.wrong)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{
		"r1n01": true, "R1-n_0.1": true, "7": true, strings.Repeat("a", 63): true,
		"": false, "all": false, "central": false, "-a": false, "a-": false, "a b": false, "a,b": false, "n[1-3]": false, "@r1": false,
		"a/b": false,
		"é":   false, strings.Repeat("a", 64): false, "a\n": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
