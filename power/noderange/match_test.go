package noderange

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// naive is what a pattern means, by way of a regular expression.
func naive(pattern, name string) bool {
	expr := regexp.QuoteMeta(pattern)
	expr = strings.ReplaceAll(strings.ReplaceAll(expr, `\*`, ".*"), `\?`, ".")
	return regexp.MustCompile("^(?:" + expr + ")$").MatchString(name)
}

func TestMatchesIsAsTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab1.*?]{0,8}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab1.]{0,10}`).Draw(t, "name")
		if got, want := matches(pattern, name), naive(pattern, name); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}

// TestPatternsSelectAsTheNaiveOne has patterns select from nodes, beside others and taken
// from others.
func TestPatternsSelectAsTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[rnwd12]{0,2}[*?][0-9n*?]{0,3}`).Draw(t, "pattern")
		var want, rest []string
		for _, n := range hall {
			if naive(pattern, n.Name) {
				want = append(want, n.Name)
			} else {
				rest = append(rest, n.Name)
			}
		}
		for expr, want := range map[string][]string{pattern: want, "all!" + pattern: rest, pattern + "&(" + pattern + ")": want} {
			got, err := Select(expr, hall)
			none := len(want) == 0 || len(rest) == len(hall) && strings.Contains(expr, "!")
			if none != (err != nil) || err == nil && Fold(got) != Fold(want) {
				t.Fatalf("%q selects %s (%v), want %s", expr, Fold(got), err, Fold(want))
			}
		}
	})
}

// TestPatternsAreHeldAgainstManyNodesInTime has the worst that fits.
func TestPatternsAreHeldAgainstManyNodesInTime(t *testing.T) {
	nodes := make([]Node, 10_000)
	names, err := Expand("aaaaaaaaaaaaaaaaaaaaaaaaa[00001-10000]")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		nodes[i].Name = name
	}
	expr := strings.TrimSuffix(strings.Repeat("*a*a*a*a*a*a*a*a*a*a*a*a*a*5*,", maxPatterns), ",")
	began := time.Now()
	if got, err := Select(expr, nodes); err != nil || len(got) == 0 {
		t.Errorf("%d nodes, %v", len(got), err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	} else {
		t.Log(took)
	}
}
