package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/noderange"
)

// The kinds of a brake.
const (
	BrakeCut   = "cut"   // too many would lose power
	BrakeDrift = "drift" // too many differ at once
)

// brakeSays is what each kind is about.
var brakeSays = map[string]string{
	BrakeCut:   "too many nodes would be powered off at once, and nobody confirmed it",
	BrakeDrift: "too many nodes left their desired state at once",
}

// driftNews is how long the drift of a node that is not enforced counts: it is there
// to stay, and the brake is about what happens at once.
const driftNews = 10 * time.Minute

// brakeBounds are the bounds of the fleet brake.
type brakeBounds struct {
	Percent, Above int
	Window         time.Duration // how long a power-off counts
}

// tally is what the fleet brake goes by: a count over all nodes of the agent at one
// moment.
type tally struct {
	Of     int
	Bounds brakeBounds
	// Cut are those that the monitor would turn off though nobody confirmed it: now, or,
	// where the desire changed together with that of such a node, once they are in sight
	// again. Recent counts those that it has just turned off in the same way, or is about
	// to: an operation may take minutes, and go on after a start.
	Cut    []string
	Recent int
	// Drift are those that were as desired and are not now.
	Drift []string
	// Blind counts nodes not read since the start that may yet turn out to be among Cut.
	Blind int
	// Tried is when those that may yet turn out to be among Drift were last read,
	// oldest first.
	Tried []time.Time
	// Changed is the newest change of desire among Cut.
	Changed time.Time
}

// judge counts the nodes: values in, values out.
func judge(now time.Time, b brakeBounds, nodes []watched) tally {
	t := tally{Of: len(nodes), Bounds: b}
	sure, maybe := changes(now, nodes)
	for _, n := range nodes {
		cut := n.uncertainCut(now)
		switch hidden := cut && n.hidden(now); {
		case cut && n.Reading.TriedAt.IsZero():
			t.Blind++
		case hidden && near(sure, n.Memory.Since, b.Window):
			t.Cut = append(t.Cut, n.Node)
		case hidden && near(maybe, n.Memory.Since, b.Window):
			t.Blind++
		case cut && n.differs(now):
			t.Cut = append(t.Cut, n.Node)
			if !n.Memory.Matched && n.Memory.Since.After(t.Changed) {
				t.Changed = n.Memory.Since
			}
		case !n.Memory.CutAt.IsZero() && (n.Cutting || now.Sub(n.Memory.CutAt) < b.Window):
			t.Recent++
		}
		switch {
		case !n.Memory.Matched || n.Busy || n.exempt(now):
		case !n.differs(now):
			if n.Reading.TriedAt.IsZero() || n.Reading.Reach == power.ReachOK {
				t.Tried = append(t.Tried, n.Reading.TriedAt)
			}
		case n.Memory.Desired.Enforces() || now.Sub(n.Memory.Differs) < driftNews || n.Memory.Differs.IsZero():
			t.Drift = append(t.Drift, n.Node)
		}
	}
	slices.SortFunc(t.Tried, time.Time.Compare)
	return t
}

// hidden reports whether the node was last seen on, so long ago that it is not known
// any more, or before the start, and not yet as it is desired now.
func (n watched) hidden(now time.Time) bool {
	on := n.Reading.State == power.On || n.Reading.ObservedAt.IsZero() && n.Memory.LastOn
	return on && !n.Memory.Matched && n.Reading.Stale(now, power.DefaultStale)
}

// changes are when the desires changed of the nodes that would be turned off now, and
// of those that may turn out to be among them; oldest first.
func changes(now time.Time, nodes []watched) (sure, maybe []time.Time) {
	for _, n := range nodes {
		switch {
		case n.Memory.Matched || !n.uncertainCut(now):
		case n.Reading.TriedAt.IsZero():
			maybe = append(maybe, n.Memory.Since)
		case n.differs(now):
			sure = append(sure, n.Memory.Since)
		}
	}
	slices.SortFunc(sure, time.Time.Compare)
	slices.SortFunc(maybe, time.Time.Compare)
	return sure, maybe
}

// near reports whether one of the times, oldest first, lies no further from t than d.
func near(times []time.Time, t time.Time, d time.Duration) bool {
	i, _ := slices.BinarySearchFunc(times, t.Add(-d), time.Time.Compare)
	return i < len(times) && !times[i].After(t.Add(d))
}

// exempt reports whether the brake does not count the node at all.
func (n watched) exempt(now time.Time) bool {
	m := n.Memory
	return m.Confirmed || m.Released || m.resting(now)
}

// uncertainCut reports whether the monitor would turn the node off, were it on, and
// nobody confirmed that: at once, or when an operation is over that leads elsewhere.
func (n watched) uncertainCut(now time.Time) bool {
	d := n.Memory.Desired
	return d.Want == power.WantOff && !d.NoCut && (!n.Busy || n.Elsewhere) && !n.exempt(now)
}

// differs reports whether the node was last seen otherwise than desired or expected,
// not too long ago to go by.
func (n watched) differs(now time.Time) bool {
	return n.Memory.Desired.DiffersFrom(n.Reading.State) && !n.Reading.Stale(now, power.DefaultStale)
}

// over reports whether so many nodes are too many.
func (t tally) over(nodes int) bool {
	return power.OverBrake(nodes, t.Of, t.Bounds.Percent, t.Bounds.Above)
}

// trips says which brake the count trips, "" for none, and for which nodes.
func (t tally) trips() (kind string, nodes []string) {
	switch {
	case len(t.Cut) > 0 && t.over(len(t.Cut)+t.Recent):
		return BrakeCut, t.Cut
	case t.over(len(t.Drift)):
		return BrakeDrift, t.Drift
	}
	return "", nil
}

// sure reports whether the count would trip no brake even if all the nodes that were
// not looked at since turned out as the one that is about to be corrected.
func (t tally) sure(now time.Time, n watched) bool {
	if n.exempt(now) {
		return true
	}
	if n.uncertainCut(now) && t.over(len(t.Cut)+t.Recent+t.Blind) {
		return false
	}
	if !n.Memory.Matched {
		return true
	}
	unread, _ := slices.BinarySearchFunc(t.Tried, n.Memory.Differs, time.Time.Compare)
	return !t.over(len(t.Drift) + unread)
}

// after is the brake that holds after the count, given the one before, nil for none.
// One that holds takes up those that join its kind, and ends when none of its nodes
// differs any more.
func (t tally) after(held *api.Brake, nodes []watched, now time.Time) *api.Brake {
	if held == nil {
		kind, names := t.trips()
		if kind == "" {
			return nil
		}
		return t.brake(api.Brake{ID: uuid.Must(uuid.NewV7()).String(), Since: now, Kind: kind}, names)
	}
	joined := t.Cut
	if held.Kind == BrakeDrift {
		joined = t.Drift
	}
	named, joins := setOf(held.Nodes), setOf(joined)
	var names []string
	for _, n := range nodes {
		if named[n.Node] && n.waits() || joins[n.Node] {
			names = append(names, n.Node)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return t.brake(*held, names)
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// waits reports whether a node that a brake names is not known to be as desired.
func (n watched) waits() bool {
	want := n.Memory.Desired.State()
	return want != power.Unknown && (n.Reading.ObservedAt.IsZero() || n.Reading.State != want)
}

func (t tally) brake(b api.Brake, names []string) *api.Brake {
	b.Nodes, b.Total = names, t.Of
	slices.Sort(b.Nodes)
	what := "would be powered off at once, and nobody confirmed it"
	if b.Kind == BrakeDrift {
		what = "left their desired state at once"
	}
	bounds := fmt.Sprintf("more than %d %% and more than %d", t.Bounds.Percent, t.Bounds.Above)
	switch {
	case t.over(len(names)):
	case b.Kind == BrakeCut && t.over(len(names)+t.Recent):
		bounds = fmt.Sprintf("with %d that were a moment ago %s", t.Recent, bounds)
	default:
		bounds = "fewer than there were: it began to hold at " + bounds
	}
	b.Message = fmt.Sprintf("%d of %d nodes %s (%s): %s. The monitor corrects nothing until the brake is released (rackpower brake release) "+
		"or "+
		"the nodes match their desired state",
		len(names), t.Of, what, bounds, some(names, 8))
	return &b
}

// some names them as a host range, or the first few where that is long.
func some(names []string, n int) string {
	if text := noderange.Fold(names); len(text) <= 80 || len(names) <= n {
		return text
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}

// SameBrake reports whether two brakes are one and the same.
func SameBrake(a, b *api.Brake) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ID == b.ID && slices.Equal(a.Nodes, b.Nodes) && a.Total == b.Total
}
