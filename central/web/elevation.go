package web

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"rackpower/central/api"
	"rackpower/power/noderange"
)

// labelPlace is the key of the label with a node's place in its rack: the unit, such as u=12, or
// the lowest and the highest, such as u=12-13.
const labelPlace = "u"

// maxUnits bounds the height of a rack.
const maxUnits = 100

// unit is a row of a rack's elevation.
type unit struct {
	U     int
	Rows  int // that what is in it takes from here downwards; 0: it belongs to what is above
	Nodes []api.Node
}

// placeOf reads the place of a node; low 0: it has none.
func placeOf(n api.Node) (low, high int) {
	for _, label := range n.Labels {
		text, is := strings.CutPrefix(label, labelPlace+"=")
		if !is {
			continue
		}
		from, to, two := strings.Cut(text, "-")
		if !two {
			to = from
		}
		low, err := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err == nil && err2 == nil && 1 <= low && low <= high && high <= maxUnits {
			return low, high
		}
	}
	return 0, 0
}

// elevation is a rack as one stands before it, the highest unit first, down to unit 1. Nodes whose
// units overlap, as those of one chassis do, are in one place. It is nil where no node has a
// place; elsewhere are the nodes without one.
func elevation(nodes []api.Node) (units []unit, elsewhere []string) {
	type placed struct {
		low, high int
		api.Node
	}
	var all []placed
	for _, n := range nodes {
		if low, high := placeOf(n); low > 0 {
			all = append(all, placed{low, high, n})
		} else {
			elsewhere = append(elsewhere, n.Name)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(b.high-a.high, noderange.Compare(a.Name, b.Name))
	})
	u := all[0].high
	for len(all) > 0 {
		for ; u > all[0].high; u-- {
			units = append(units, unit{U: u, Rows: 1})
		}
		low, n := all[0].low, 1
		for n < len(all) && all[n].high >= low {
			low = min(low, all[n].low)
			n++
		}
		first := len(units)
		for ; u >= low; u-- {
			units = append(units, unit{U: u})
		}
		units[first].Rows = len(units) - first
		for _, p := range all[:n] {
			units[first].Nodes = append(units[first].Nodes, p.Node)
		}
		all = all[n:]
	}
	for ; u >= 1; u-- {
		units = append(units, unit{U: u, Rows: 1})
	}
	return units, elsewhere
}
