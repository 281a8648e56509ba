package noderange

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rackpower/power"
)

var hall = func() []Node {
	var all []Node
	for r := 1; r <= 2; r++ {
		for n := 1; n <= 12; n++ {
			node := Node{Name: fmt.Sprintf("r%dn%02d", r, n), Rack: fmt.Sprintf("r%d", r), Status: "READY", State: "off"}
			if n%2 == 0 {
				node.Status, node.State = "DEPLOYED", "on"
			}
			all = append(all, node)
		}
	}
	return append(all, Node{Name: "web", Rack: "rack1"}, Node{Name: "db-7.lab", Rack: "rack1"})
}()

func TestSelect(t *testing.T) {
	for expr, want := range map[string]string{
		"r1n[01-03]":                    "r1n[01-03]",
		"r1n[01-02,05], web":            "r1n[01-02,05],web",
		"r[1-2]n01":                     "r1n01,r2n01",
		"@r1&@status:READY":             "r1n[01,03,05,07,09,11]",
		"@r1&@state:on":                 "r1n[02,04,06,08,10,12]",
		"@status:deployed!@r2":          "r1n[02,04,06,08,10,12]",
		"@r1,!r1n[02-12]":               "r1n01",
		"@r1!r1n[02-12]":                "r1n01",
		"!@r1!@r2":                      "db-7.lab,web",
		"(@r1,@r2)&@state:on&!r1n02":    "r1n[04,06,08,10,12],r2n[02,04,06,08,10,12]",
		"all&@rack1":                    "db-7.lab,web",
		"@r1&!r1n[01-09]&!r1n11":        "r1n[10,12]",
		"@status:ready&@r1&!r1n[01-10]": "r1n11",
		"@rack:r2&r2n[11-12]":           "r2n[11-12]",
		"r1n01,r1n01":                   "r1n01",
		" r1n01 , web ":                 "r1n01,web",
		"r1n*&@state:on":                "r1n[02,04,06,08,10,12]",
		"r?n0?!*[01-07]":                "r1n[08-09],r2n[08-09]",
		"*":                             "db-7.lab,r1n[01-12],r2n[01-12],web",
		"d*.lab,r[1-2]*12,w?b*":         "db-7.lab,r1n12,r2n12,web",
	} {
		got, err := Select(expr, hall)
		if err != nil || Fold(got) != want {
			t.Errorf("%q selects %s (%v), want %s", expr, Fold(got), err, want)
		}
	}
	if got, err := Select("all", hall); err != nil || len(got) != len(hall) {
		t.Errorf("all: %d nodes, %v", len(got), err)
	}
}

func TestSyntaxErrorsPointAtThePlace(t *testing.T) {
	for expr, pos := range map[string]int{
		"": 0, "r1n[01-": 7, "r1n[01": 6, "r1n[]": 4, "r1n[a]": 4, "r1n[3-1]": 7, "r1n[01-3]": 8, "a,,b": 2, "a&": 2, "@": 1,
		"@color:red": 1, "@label:": 7, "@label:=x": 7, "@label:a=b=c": 10, "@rack:a=b": 7, "(a": 2, "a)": 1, "a b": 2, "n[1-999999]": 10,
		"r[1-999]n[1-999]": 0, "a;b": 1,
		"all!@status:DEPLOYD": 12, "@state:of": 7, "@status:": 8, "@rack:,a": 6, "a&!": 3,
		"@r*": 2, "r[1-201]*": 0, "r[1-150]*,r[1-51]?": 10,
	} {
		_, err := Select(expr, hall)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: %v, want a syntax error", expr, err)
			continue
		}
		if syntax.Pos != pos {
			t.Errorf("%q: error at %d (%v), want %d", expr, syntax.Pos, err, pos)
		}
	}
}

func TestUnknownNodesAreNamed(t *testing.T) {
	_, err := Select("r1n[11-14]", hall)
	var unknown *UnknownError
	if !errors.As(err, &unknown) || !strings.Contains(err.Error(), "r1n[13-14]") {
		t.Errorf("%v", err)
	}
	if _, err := Select("wbe", hall); err == nil || !strings.Contains(err.Error(), "did you mean web?") {
		t.Errorf("%v", err)
	}
	var empty *EmptyError
	for _, expr := range []string{"@nowhere", "@status:BROKEN", "@r1&@r2", "r9*", "r1n01,r9*", "all!x?", "r[1-3]n*"} {
		if _, err := Select(expr, hall); !errors.As(err, &empty) {
			t.Errorf("%q: %v", expr, err)
		}
	}
}

// TestGroupWordsAreThoseOfPower keeps the words of groups and those of nodes alike.
func TestGroupWordsAreThoseOfPower(t *testing.T) {
	var want []string
	for _, s := range power.Statuses() {
		want = append(want, string(s))
	}
	if !slices.Equal(statuses, want) {
		t.Errorf("statuses are %v, want %v", statuses, want)
	}
	if want := []string{string(power.On), string(power.Off), string(power.Unknown)}; !slices.Equal(states, want) {
		t.Errorf("states are %v, want %v", states, want)
	}
}

func TestFoldIsUndoneByExpand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.Custom(func(t *rapid.T) string {
			head := rapid.SampledFrom([]string{"n", "r1n", "a-", "x0"}).Draw(t, "head")
			width := rapid.IntRange(0, 3).Draw(t, "width")
			tail := rapid.SampledFrom([]string{"", "", ".lab", "b"}).Draw(t, "tail")
			return head + fmt.Sprintf("%0*d", width, rapid.IntRange(0, 130).Draw(t, "n")) + tail
		})
		want := rapid.SliceOfDistinct(name, func(s string) string { return s }).Draw(t, "names")
		if len(want) == 0 {
			return
		}
		got, err := Expand(Fold(want))
		if err != nil {
			t.Fatalf("Expand(%q): %v", Fold(want), err)
		}
		Sort(got)
		Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%q expands to %v, want %v", Fold(want), got, want)
		}
	})
}

func TestSortIsNatural(t *testing.T) {
	names := []string{"n10", "n2", "n02", "n1", "m9", "n1a"}
	Sort(names)
	if got := strings.Join(names, " "); got != "m9 n1 n1a n02 n2 n10" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"r1n[01-40,44]", "@rack1&!x", "(a,b)!c", "a[1-2]b[3-4]", "all", "@status:READY", "[[", "!!", "r1n*!r?n0[1-3]",
		"@label:gpu,@label:model=h100",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := Parse(text); err == nil {
			_, _ = e.Select(hall)
		} else if !errors.As(err, new(*SyntaxError)) {
			t.Fatalf("%q: %v is no syntax error", text, err)
		}
	})
}

func BenchmarkFold10000(b *testing.B) {
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("r%dn%03d", i/500, i%500))
	}
	for b.Loop() {
		_ = Fold(names)
	}
}

// TestAShortTextIsNoHugeList has expressions that fit a request's address and would
// expand to gigabytes.
func TestAShortTextIsNoHugeList(t *testing.T) {
	for _, text := range []string{
		"r[1-60000],s[1-60000]",
		strings.Repeat("r[1-99999]&", 20) + "r1",
		strings.Repeat("(r[1-99999]),", 20) + "!r1",
		strings.Repeat("x", 1000) + "[1-99999]",
		strings.Repeat("x[1-2]", 17),
		strings.Repeat("x[1]", 200),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse(text)
		runtime.ReadMemStats(&after)
		var syntax *SyntaxError
		if grown := after.TotalAlloc - before.TotalAlloc; !errors.As(err, &syntax) || grown > 100<<20 {
			t.Errorf("%.40s: %v, %d MiB", text, err, grown>>20)
		}
	}
	if _, err := Parse("r[1-50000],s[1-50000]"); err != nil {
		t.Error(err)
	}
}

// BenchmarkSelect is what a selection costs in a fleet of 10,000 nodes.
func BenchmarkSelect(b *testing.B) {
	nodes := make([]Node, 10_000)
	for i := range nodes {
		nodes[i] = Node{Name: fmt.Sprintf("r%dn%03d", i/500, i%500), Rack: fmt.Sprintf("r%d", i/500), State: "on"}
	}
	fleet := List(nodes)
	for _, text := range []string{"r7n123", "r7n[100-199]", "@r7", "r7*", "all&!@state:off"} {
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e, err := Parse(text)
				if err != nil {
					b.Fatal(err)
				}
				if names, err := e.From(fleet); err != nil || len(names) == 0 {
					b.Fatal(names, err)
				}
			}
		})
	}
}
