package power

import (
	"testing"
	"time"
)

func TestDescribe(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	held := func(id string, a Action, who string, age time.Duration, running bool) Held {
		return Held{Op: Op{ID: id, Action: a, AskedBy: who, AskedAt: now.Add(-age)}, Running: running}
	}
	cycle := held("a", ActCycle, "admin", 4*time.Second, true)
	on := held("b", ActOn, "bob", 3*time.Minute, false)
	stopping := cycle
	stopping.Cancelling = true
	soft := held("s", ActSoftOff, "sam", 3*time.Hour, true)
	for _, c := range []struct {
		lane []Held
		req  Op
		want string
	}{
		{nil, Op{Action: ActOn}, "nothing outstanding; on starts"},
		{[]Held{cycle}, Op{Action: ActOn}, "cycle (asked by admin, 4 s ago) in progress; joined"},
		{[]Held{cycle}, Op{Action: ActDiag}, "cycle (asked by admin, 4 s ago) in progress; diag next"},
		{[]Held{cycle}, Op{Action: ActOff}, "cycle (asked by admin, 4 s ago) in progress, being cancelled; off next"},
		{[]Held{stopping}, Op{Action: ActOff}, "cycle (asked by admin, 4 s ago) is being cancelled; off next"},
		{[]Held{on}, Op{Action: ActOff}, "on (asked by bob, 3 min ago) waiting; off next, 1 waiting operation superseded"},
		{[]Held{soft}, Op{Action: ActOff}, "soft-off (asked by sam, 3 h ago) in progress; its grace ends now"},
		{
			[]Held{cycle},
			Op{Action: ActOff, Options: Options{IfBusy: Queue}},
			"cycle (asked by admin, 4 s ago) in progress; off waits as number 2",
		},
		{
			[]Held{cycle},
			Op{Action: ActOff, Options: Options{IfBusy: Refuse}},
			"cycle (asked by admin, 4 s ago) in progress; refused because busy",
		},
		{[]Held{cycle}, Op{ID: "a", Action: ActCycle}, "cycle (asked by admin, 4 s ago) in progress; this request was accepted before"},
	} {
		lane := Lane{Outstanding: c.lane}
		if got := Describe(Decide(lane, c.req), lane, c.req, now); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
	lane := Lane{LastSeq: Seq(0).Next(now)}
	want := "a newer request (of 2026-03-01T12:00:00Z) was accepted for this node before; this older one is refused"
	if got := Describe(Decide(lane, Op{Action: ActOn}), lane, Op{Action: ActOn}, now); got != want {
		t.Errorf("got %q", got)
	}
}
