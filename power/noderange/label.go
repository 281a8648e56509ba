package noderange

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// MaxLabels bounds the labels of a node.
const MaxLabels = 64

// Labels are those of a node as one text, in the order of their keys: "gpu,model=h100". A
// node has a key once.
type Labels string

var (
	labelKey   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^[A-Za-z0-9._-]{0,63}$`)
)

// CheckLabel checks a label, KEY or KEY=VALUE, or one that is to be taken away, KEY-.
func CheckLabel(label string) error {
	key, value, has := strings.Cut(label, "=")
	if !has {
		key = strings.TrimSuffix(key, "-")
	}
	if !labelKey.MatchString(key) || !labelValue.MatchString(value) {
		return fmt.Errorf("label %q: want KEY or KEY=VALUE, each at most 63 letters, digits, dots, underscores and hyphens, the key with a "+
			"letter or digit at both ends", label[:min(len(label), 150)])
	}
	return nil
}

// List lists the labels.
func (l Labels) List() []string {
	if l == "" {
		return nil
	}
	return strings.Split(string(l), ",")
}

// With are the labels after changes: KEY and KEY=VALUE are set, KEY- is taken away.
func (l Labels) With(changes []string) Labels {
	list := slices.Clone(l.List())
	for _, change := range changes {
		change = strings.TrimSuffix(change, "=") // no value
		key, _, set := strings.Cut(change, "=")
		if !set && strings.HasSuffix(key, "-") {
			key, change = strings.TrimSuffix(key, "-"), ""
		}
		list = slices.DeleteFunc(list, func(has string) bool { return keyOf(has) == key })
		if change != "" {
			list = append(list, change)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(keyOf(a), keyOf(b)) })
	return Labels(strings.Join(list, ","))
}

// Has reports whether there is such a label: KEY with any value, or KEY=VALUE.
func (l Labels) Has(want string) bool {
	key, value, valued := strings.Cut(want, "=")
	for rest := string(l); rest != ""; {
		var label string
		label, rest, _ = strings.Cut(rest, ",")
		k, v, _ := strings.Cut(label, "=")
		if k == key && (!valued || v == value) {
			return true
		}
	}
	return false
}

func keyOf(label string) string {
	key, _, _ := strings.Cut(label, "=")
	return key
}
