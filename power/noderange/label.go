package noderange

import (
	"fmt"
	"slices"
	"strings"
)

// MaxLabels bounds the labels of a node.
const MaxLabels = 64

// Labels are those of a node as one text, in the order of their keys: "gpu,model=h100". A
// node has a key once.
type Labels string

// mostOfName is how long a name, a key or a value may be, in bytes.
const mostOfName = 63

// IsName reports whether a node, a rack or a label may have that name: 1 to 63 letters, digits, dots,
// underscores and hyphens, with a letter or digit at both ends. Nothing in it needs quoting, in shells,
// paths and host ranges.
func IsName(text string) bool {
	return text != "" && isPlain(text) && isAlphanumeric(text[0]) && isAlphanumeric(text[len(text)-1])
}

// isPlain reports whether a text has nothing that a name may not have, and is no longer.
func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return len(text) <= mostOfName
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// CheckLabel checks a label, KEY or KEY=VALUE, or one that is to be taken away, KEY-.
func CheckLabel(label string) error {
	key, value, has := strings.Cut(label, "=")
	if !has {
		key = strings.TrimSuffix(key, "-")
	}
	if !IsName(key) || !isPlain(value) {
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
