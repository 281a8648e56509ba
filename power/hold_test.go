package power

import (
	"strings"
	"testing"
	"time"
)

func TestEffective(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	past, future := now.Add(-time.Second), now.Add(time.Second)
	for _, c := range []struct {
		name   string
		status Status
		hold   Hold
		want   Desired
		from   string
	}{
		{"no hold", StatusReady, Hold{}, Desired{Want: WantOff}, "status READY"},
		{"nothing at all", StatusNone, Hold{}, Desired{Want: HandsOff}, "no status"},
		{"held on", StatusReady, Hold{Want: WantOn, By: "alice"}, Desired{Want: WantOn}, "hold of alice"},
		{"a hold is not debounced", StatusNew, Hold{Want: WantOff, By: "alice"}, Desired{Want: WantOff}, "hold of alice"},
		{"by a schedule", StatusReady, Hold{Want: WantOn, By: "alice", Schedule: "morning"}, Desired{Want: WantOn}, "schedule morning"},
		{"hands off", StatusReady, Hold{Want: HandsOff, By: "alice"}, Desired{Want: HandsOff}, "hold of alice"},
		{"still held", StatusReady, Hold{Want: WantOn, By: "alice", Until: future}, Desired{Want: WantOn}, "hold of alice"},
		{"over", StatusReady, Hold{Want: WantOn, By: "alice", Until: past}, Desired{Want: WantOff}, "status READY"},
		{"over at its very end", StatusReady, Hold{Want: WantOn, By: "alice", Until: now}, Desired{Want: WantOff}, "status READY"},
		{"released", StatusReady, Hold{Seq: 9}, Desired{Want: WantOff}, "status READY"},
		{"erasing stays protected", StatusDiskErasing, Hold{Want: WantOff, By: "alice"}, Desired{Want: WantOff, NoCut: true}, "hold of alice"},
		{"deployed and held has no other expectation", StatusDeployed, Hold{Want: WantOff, By: "alice"}, Desired{Want: WantOff}, "hold of alice"},
	} {
		if got := Effective(c.status, c.hold, now); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if got := DesiredFrom(c.status, c.hold, now); got != c.from {
			t.Errorf("%s: from %q, want %q", c.name, got, c.from)
		}
	}
}

func TestNewerHoldStands(t *testing.T) {
	at := time.Date(2026, 3, 1, 19, 0, 0, 0, time.UTC)
	night := Hold{Want: WantOff, Schedule: "night", Since: at, Seq: 7}
	for _, c := range []struct {
		name       string
		over, hold Hold
	}{
		{"a release", Hold{Seq: 6}, Hold{Want: WantOn, Seq: 5}},
		{"a person's hold that ran when a schedule set its own", Hold{Want: WantOn, Seq: 5}, night},
		{"the same when the schedule's is over", Hold{Want: WantOn, Seq: 5}, Hold{Schedule: "night", Since: at, Seq: 7}},
		{"a person's hold with an end", Hold{Want: WantOn, Until: at.Add(time.Second), Seq: 5}, night},
		{"a person's hold set later", Hold{Want: WantOn, Seq: 8}, night},
		{"a release after the schedule's", Hold{Seq: 8}, night},
		{"a schedule's after a person's that had ended", night, Hold{Want: WantOn, Until: at, Seq: 5}},
		{"a schedule's after a release", night, Hold{Seq: 5}},
		{
			"a schedule's that knew that the person's was released",
			Hold{Want: WantOff, Schedule: "night", Since: at, Seq: 7, Heard: 6},
			Hold{Want: WantOn, Seq: 5},
		},
		{"a schedule's after another's", night, Hold{Want: WantOn, Schedule: "day", Seq: 5}},
	} {
		if !c.over.Over(c.hold) || c.hold.Over(c.over) {
			t.Errorf("%s does not stand", c.name)
		}
		if c.over.Over(c.over) || c.hold.Over(c.hold) {
			t.Errorf("%s: over itself", c.name)
		}
	}
}

func TestParseWant(t *testing.T) {
	for text, want := range map[string]Want{"on": WantOn, " OFF ": WantOff, "hands-off": HandsOff} {
		if got, err := ParseWant(text); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "cycle", "release"} {
		if _, err := ParseWant(text); err == nil || !strings.Contains(err.Error(), "hands-off") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
