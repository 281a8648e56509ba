package power

import "testing"

// decideBudgets are requests with what they meet, and how many allocations an answer may take.
var decideBudgets = map[string]struct {
	running Action // "": nothing is outstanding
	req     Action
	verdict Verdict
	allocs  float64
}{
	"idle":              {"", ActOn, VerdictStart, 0},
	"the same runs":     {ActOn, ActOn, VerdictJoin, 0},
	"the opposite runs": {ActOn, ActOff, VerdictSupersede, 1},
}

// met is a lane where an operation runs, and a request for another action.
func met(running, asked Action) (lane Lane, req Op) {
	if running != "" {
		lane = Lane{Outstanding: []Held{{Op: Op{ID: "a", Action: running, Seq: 1}, Running: true}}, LastSeq: 1}
	}
	return lane, Op{ID: "b", Action: asked, Seq: 2}
}

func TestDecideAllocatesLittle(t *testing.T) {
	for name, tc := range decideBudgets {
		lane, req := met(tc.running, tc.req)
		if d := Decide(lane, req); d.Verdict != tc.verdict {
			t.Errorf("%s: %+v", name, d)
		}
		if n := testing.AllocsPerRun(100, func() { Decide(lane, req) }); n > tc.allocs {
			t.Errorf("%s: %v allocations, at most %v are meant to be", name, n, tc.allocs)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, tc := range decideBudgets {
		b.Run(name, func(b *testing.B) {
			lane, req := met(tc.running, tc.req)
			b.ReportAllocs()
			for b.Loop() {
				Decide(lane, req)
			}
		})
	}
}
