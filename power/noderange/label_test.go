package noderange

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naiveLabels is a node's labels as a map.
type naiveLabels map[string]string

func (n naiveLabels) with(changes []string) {
	for _, change := range changes {
		key, value, set := strings.Cut(change, "=")
		if !set && strings.HasSuffix(key, "-") {
			delete(n, strings.TrimSuffix(key, "-"))
			continue
		}
		n[key] = value
	}
}

func (n naiveLabels) text() string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(n)) {
		if n[key] != "" {
			key += "=" + n[key]
		}
		list = append(list, key)
	}
	return strings.Join(list, ",")
}

func TestLabelsAreAsTheNaiveOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		change := rapid.StringMatching(`(a|b|a-b|ab|gpu)(-|=|=[a1.-]{1,2})?`)
		expr := rapid.StringMatching(`(a|b|a-b|ab|gpu)(=|=[a1.-]{1,2})?`)
		var nodes []Node
		var twins []naiveLabels
		for _, name := range []string{"n1", "n2", "n3"} {
			twin, labels := naiveLabels{}, Labels("")
			for range rapid.IntRange(0, 3).Draw(t, "times") {
				changes := rapid.SliceOfN(change, 0, 4).Draw(t, "changes")
				for _, c := range changes {
					if err := CheckLabel(c); err != nil {
						t.Fatal(err)
					}
				}
				labels = labels.With(changes)
				twin.with(changes)
			}
			if string(labels) != twin.text() {
				t.Fatalf("labels are %q, want %q", labels, twin.text())
			}
			nodes, twins = append(nodes, Node{Name: name, Labels: labels}), append(twins, twin)
		}
		want := expr.Draw(t, "want")
		key, value, valued := strings.Cut(want, "=")
		var names []string
		for i, twin := range twins {
			if has, found := twin[key]; found && (!valued || has == value) {
				names = append(names, nodes[i].Name)
			}
		}
		got, err := Select("@label:"+want, nodes)
		if len(names) == 0 {
			if !errors.As(err, new(*EmptyError)) {
				t.Fatalf("%q selects %v, %v", want, got, err)
			}
			return
		}
		if err != nil || !slices.Equal(got, names) {
			t.Fatalf("%q selects %v (%v), want %v", want, got, err, names)
		}
	})
}

func TestLabelsThatAreNone(t *testing.T) {
	for _, label := range []string{
		"", "-", "=", "=x", "a b", "a,b", "a=b,c", "a=b=c", "-a", "a--", "a/b", "ä", "a\n", "a=\n",
		strings.Repeat("a", 64), "a=" + strings.Repeat("a", 64),
	} {
		if CheckLabel(label) == nil {
			t.Errorf("%q is one", label)
		}
	}
}
