package noderange

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Sort puts names in natural order: n2 before n10, within equal numbers n02
// before n2.
func Sort(names []string) { slices.SortFunc(names, Compare) }

// Compare orders two names naturally.
func Compare(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		dx, dy := digits(x), digits(y)
		if dx > 0 && dy > 0 {
			nx, ny := strings.TrimLeft(x[:dx], "0"), strings.TrimLeft(y[:dy], "0")
			if c := cmp.Or(cmp.Compare(len(nx), len(ny)), cmp.Compare(nx, ny)); c != 0 {
				return c
			}
			x, y = x[dx:], y[dy:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// folded is a name split at its last number.
type folded struct {
	head, tail string
	width      int // of the number as written; 0 once it is known to have no padding
	number     int
}

// Fold writes names shortly: "r1n[01-40,44]", different stems joined by commas, in
// natural order, each once. Expand undoes it.
func Fold(names []string) string {
	sorted := slices.Clone(names)
	Sort(sorted)
	sorted = slices.Compact(sorted)
	var out []string
	padded := paddedStems(sorted)
	groups := map[folded][]int{}
	var order []folded
	plain := map[folded]string{}
	for _, name := range sorted {
		f, ok := split(name)
		key := f
		key.number = 0
		if !padded[key] {
			key.width = 0
		}
		if !ok {
			key = folded{head: name, width: -1}
			plain[key] = name
		}
		if _, seen := groups[key]; !seen {
			order = append(order, key)
		}
		groups[key] = append(groups[key], f.number)
	}
	for _, key := range order {
		if name, ok := plain[key]; ok {
			out = append(out, name)
			continue
		}
		out = append(out, key.head+ranges(groups[key], key.width)+key.tail)
	}
	return strings.Join(out, ",")
}

// paddedStems finds the stems and widths at which numbers are written with zeros:
// n09 and n10 belong together there, n9 and n10 where there are none.
func paddedStems(names []string) map[folded]bool {
	padded := map[folded]bool{}
	for _, name := range names {
		if f, ok := split(name); ok && f.width > 1 && name[len(f.head)] == '0' {
			f.number = 0
			padded[f] = true
		}
	}
	return padded
}

// split finds the last number of a name. Numbers that would not come back as they
// were, or names that are no plain names, are left whole.
func split(name string) (folded, bool) {
	end := len(name)
	for end > 0 && (name[end-1] < '0' || name[end-1] > '9') {
		end--
	}
	start := end
	for start > 0 && name[start-1] >= '0' && name[start-1] <= '9' {
		start--
	}
	text := name[start:end]
	if text == "" || len(text) > 9 {
		return folded{}, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return folded{}, false
	}
	f := folded{head: name[:start], tail: name[end:], number: n}
	f.width = len(text)
	return f, true
}

func ranges(numbers []int, width int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := fmt.Sprintf("%0*d", width, numbers[i])
		if j > i {
			part += fmt.Sprintf("-%0*d", width, numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	if len(numbers) == 1 {
		return parts[0]
	}
	return "[" + strings.Join(parts, ",") + "]"
}
