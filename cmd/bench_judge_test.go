package cmd_test

import (
	"strings"
	"testing"
	"time"
)

// TestFiguresAreJudged holds the table of make bench against figures whose verdicts are known.
func TestFiguresAreJudged(t *testing.T) {
	runs := func(values ...float64) series { return series{Values: values} }
	other := runs(10, 20, 30)
	for _, tc := range []struct {
		name    string
		line    benchLine
		value   float64
		ratio   float64
		verdict string
	}{
		{"below the target", benchLine{Ours: runs(9, 1, 5), AtMost: 5}, 5, 0, "met"},
		{"above the target", benchLine{Ours: runs(9, 1, 6), AtMost: 5}, 6, 0, "missed"},
		{"above, which is what is wanted", benchLine{Ours: runs(9, 1, 6), AtMost: 5, More: true}, 6, 0, "met"},
		{"below, which is not", benchLine{Ours: runs(4), AtMost: 5, More: true}, 4, 0, "missed"},
		{"no target", benchLine{Ours: runs(4), Other: &other}, 4, 0.2, ""},
		{"near the baseline", benchLine{Ours: runs(24), Other: &other, Times: 1.2}, 24, 1.2, "met"},
		{"far from it", benchLine{Ours: runs(25), Other: &other, Times: 1.2}, 25, 1.25, "missed"},
		{"near it, above the target", benchLine{Ours: runs(24), Other: &other, Times: 1.2, AtMost: 20}, 24, 1.2, "missed"},
		{"an even number of runs", benchLine{Ours: runs(4, 1, 3, 2)}, 2, 0, ""},
		{"the 99th of 100", benchLine{Ours: hundred(), Quantile: 0.99, AtMost: 98}, 99, 0, "missed"},
	} {
		if tc.line.Quantile == 0 {
			tc.line.Quantile = 0.5
		}
		got := tc.line.judged()
		if got.Value != tc.value || got.Ratio != tc.ratio || got.Verdict != tc.verdict {
			t.Errorf("%s: %v, ratio %v, %q; want %v, %v, %q", tc.name, got.Value, got.Ratio, got.Verdict, tc.value, tc.ratio, tc.verdict)
		}
	}
}

func hundred() (s series) {
	for i := range 100 {
		s.Values = append(s.Values, float64(100-i))
	}
	return s
}

// TestTheTableIsNarrow: 80 columns, and each verdict beside its row.
func TestTheTableIsNarrow(t *testing.T) {
	b := &bench{runs: 3, began: time.Now()}
	line := benchRow{
		name: "a row of thirty-three characters.", unit: "ms", atMost: 12_000,
		baselines: []baseline{{name: "a tool of long name", times: 1.2}, {name: "ipmipower", times: 0.2, cpuTimes: 0.5}, {name: "no tool"}},
	}
	b.add(line, series{Values: []float64{12_345, 12_346, 12_347}, CPU: []float64{1, 2, 3}}, []series{
		{Values: []float64{12_345}}, {Values: []float64{1, 2}, CPU: []float64{1, 2}}, {},
	})
	var out strings.Builder
	b.print(&out, platform{CPU: "processor"})
	text := out.String()
	for _, row := range strings.Split(text, "\n") {
		if len(row) > 80 {
			t.Errorf("%d columns: %s", len(row), row)
		}
	}
	for _, want := range []string{"12.3 s", "missed", "1.00", ", CPU", "LEFT OUT: a row of thirty-three characters.: no tool"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if t.Failed() {
		return
	}
	if strings.Count(text, "missed") != 3 { // the target with the first baseline, the second one, and its processor time
		t.Errorf("%d are missed in\n%s", strings.Count(text, "missed"), text)
	}
}
