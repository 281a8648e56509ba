package power

import "testing"

// decideBudgets are requests with what they meet, and how many allocations an answer may take.
var decideBudgets = map[string]struct {
	lane    Lane
	req     Op
	verdict Verdict
	allocs  float64
}{
	"idle": {Lane{}, Op{ID: "b", Action: ActOn, Seq: 2}, VerdictStart, 0},
	"the same runs": {
		Lane{Outstanding: []Held{{Op: Op{ID: "a", Action: ActOn, Seq: 1}, Running: true}}, LastSeq: 1},
		Op{ID: "b", Action: ActOn, Seq: 2}, VerdictJoin, 0,
	},
	"the opposite runs": {
		Lane{Outstanding: []Held{{Op: Op{ID: "a", Action: ActOn, Seq: 1}, Running: true}}, LastSeq: 1},
		Op{ID: "b", Action: ActOff, Seq: 2}, VerdictSupersede, 1,
	},
}

func TestDecideAllocatesLittle(t *testing.T) {
	for name, tc := range decideBudgets {
		if d := Decide(tc.lane, tc.req); d.Verdict != tc.verdict {
			t.Errorf("%s: %+v", name, d)
		}
		if n := testing.AllocsPerRun(100, func() { Decide(tc.lane, tc.req) }); n > tc.allocs {
			t.Errorf("%s: %v allocations, at most %v are meant to be", name, n, tc.allocs)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, tc := range decideBudgets {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decide(tc.lane, tc.req)
			}
		})
	}
}
