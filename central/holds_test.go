package central

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// hold sets a hold by bob, or releases one, and returns what changed.
func (s *site) hold(want power.Want, lasts time.Duration, names ...string) api.Changed {
	s.t.Helper()
	out, err := s.SetHold(context.Background(), api.SetHold{Names: names, Want: want, For: lasts, Reason: "mend", AskedBy: "bob"})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// entries are what the audit log says of a node (of all that speaks of none: ""),
// "what: detail", without what the tests' set-up writes.
func (s *site) entries(node string, kinds ...string) (lines []string) {
	s.t.Helper()
	all, err := s.Audit(context.Background(), "", 100_000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		if e.Node == node && (len(kinds) == 0 || slices.Contains(kinds, e.What)) {
			lines = append(lines, e.What+": "+e.Detail)
		}
	}
	return lines
}

// wantLines fails unless each line begins with, and contains, what is wanted of it.
func wantLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		what, part, _ := strings.Cut(want[i], ": ")
		ok = ok && strings.HasPrefix(got[i], what+":") && strings.Contains(got[i], part)
	}
	if !ok {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestAHoldReachesTheAgent(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	s.status(power.StatusReady, "a", "b", "c")
	r := s.rack("r1")
	before := r.poll()
	if out := s.hold(power.WantOn, 2*time.Hour, "a", "b"); out.Changed != 2 {
		t.Errorf("%+v", out)
	}
	g := r.poll()
	if len(g.Nodes) != 2 || g.Rev != before.Rev+1 || g.Rack != nil {
		t.Fatalf("%+v", g)
	}
	h := g.Nodes[0].Hold
	if h.Want != power.WantOn || h.By != meFor("bob") || h.Reason != "mend" || !h.Until.Equal(s.clock().Add(2*time.Hour)) || h.Seq == 0 ||
		h.Confirmed {
		t.Errorf("%+v", h)
	}
	if d := g.Nodes[0].Desired; d.Want != power.WantOn {
		t.Errorf("%+v", d)
	}
	if n := s.node("a"); n.Desired != power.WantOn || n.Hold == nil || n.Hold.By != meFor("bob") || n.Hold.Expires == nil ||
		n.DesiredFrom != "hold of "+meFor("bob") {
		t.Errorf("%+v, %+v", n, n.Hold)
	}
	if n := s.node("c"); n.Desired != power.WantOff || n.Hold != nil || n.DesiredFrom != "status READY" {
		t.Errorf("%+v", n)
	}
	s.hold("", 0, "a")
	g = r.poll()
	if len(g.Nodes) != 1 || g.Nodes[0].Desired.Want != power.WantOff || g.Nodes[0].Hold.Want != "" || !g.Nodes[0].Hold.Over(h) {
		t.Errorf("%+v", g)
	}
	if n := s.node("a"); n.Hold != nil || n.Desired != power.WantOff {
		t.Errorf("%+v", n)
	}
	wantLines(t, s.entries("a", "hold", "release"), "hold: on until 20", "release: desired off, was on (hold of "+meFor("bob")+")")
	confirmed := api.SetHold{Names: []string{"c"}, Want: power.WantOff, Reason: "x", Confirmed: true}
	if _, err := s.SetHold(t.Context(), confirmed); err != nil {
		t.Fatal(err)
	}
	if g := r.poll(); !g.Nodes[0].Hold.Confirmed {
		t.Errorf("%+v", g)
	}
}

func TestHoldsAreAllOrNone(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	good := api.SetHold{Names: []string{"a"}, Want: power.WantOff, Reason: "x"}
	for what, c := range map[string]struct {
		code   api.Code
		change func(*api.SetHold)
	}{
		"unknown node":    {api.CodeNotFound, func(h *api.SetHold) { h.Names = []string{"a", "ghost"} }},
		"no node":         {api.CodeBadRequest, func(h *api.SetHold) { h.Names = nil }},
		"no reason":       {api.CodeBadRequest, func(h *api.SetHold) { h.Reason = "" }},
		"a strange want":  {api.CodeBadRequest, func(h *api.SetHold) { h.Want = "up" }},
		"negative":        {api.CodeBadRequest, func(h *api.SetHold) { h.For = -1 }},
		"for ever":        {api.CodeBadRequest, func(h *api.SetHold) { h.For = 1 << 62 }},
		"lasting release": {api.CodeBadRequest, func(h *api.SetHold) { h.Want, h.For = "", 1 }},
		"long reason":     {api.CodeBadRequest, func(h *api.SetHold) { h.Reason = strings.Repeat("x", 2000) }},
	} {
		bad := good
		c.change(&bad)
		if _, err := s.SetHold(t.Context(), bad); api.CodeOf(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("%+v", n.Hold)
	}
	wantLines(t, s.entries("a", "hold"))
}

func TestTheSameHoldAgainIsNoChange(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	s.hold(power.WantOff, 0, "a")
	r.poll()
	if out := s.hold(power.WantOff, 0, "a"); out.Changed != 0 || out.Unchanged != 1 {
		t.Errorf("%+v", out)
	}
	s.hold("", 0, "a")
	if out := s.hold("", 0, "a"); out.Unchanged != 1 {
		t.Errorf("%+v", out)
	}
	if g := r.poll(); g.Rev != s.agent("r1").Rev || len(g.Nodes) != 1 {
		t.Errorf("%+v", g)
	}
	wantLines(t, s.entries("a", "hold", "release"), "hold: off until released", "release: ")
}

func TestAHoldEndsByItself(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	s.status(power.StatusReady, "a", "b")
	r := s.rack("r1")
	s.hold(power.WantOn, time.Hour, "a")
	s.hold(power.WantOn, 0, "b")
	held := r.poll()
	s.c.sweep(context.Background())
	if g := r.poll(); g.Rev != held.Rev {
		t.Errorf("before its time: %+v", g)
	}
	s.later(time.Hour)
	if n := s.node("a"); n.Desired != power.WantOff || n.Hold != nil {
		t.Errorf("not swept yet, but over: %+v", n)
	}
	for range 2 {
		s.c.sweep(context.Background())
	}
	g := r.poll()
	if len(g.Nodes) != 1 || g.Rev != held.Rev+1 || g.Nodes[0].Hold.Want != "" || g.Nodes[0].Desired.Want != power.WantOff ||
		g.Nodes[0].Hold.Seq == 0 {
		t.Errorf("%+v", g)
	}
	wantLines(t, s.entries("a", "hold", "hold-over", "release"), "hold: on", "hold-over: on (hold of "+meFor("bob")+")")
	// The end is no news that would stand above a hold of the rack's own.
	local := power.Hold{Want: power.WantOff, By: "eve", Seq: g.Nodes[0].Hold.Seq + 1}
	r.mustReportHolds(api.NodeHold{Node: "a", Hold: local})
	if n := s.node("a"); n.Hold == nil || n.Hold.By != "eve" {
		t.Errorf("%+v", n.Hold)
	}
}

func (r *rack) mustReportHolds(holds ...api.NodeHold) {
	r.s.t.Helper()
	r.tell(api.Report{Holds: holds})
}

func TestARequestGoesByTheHold(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	s.status(power.StatusReady, "a", "b")
	if o := s.ask("b", power.ActOn); o.Outcome != power.Refused || !strings.Contains(o.Message, "status READY wants") ||
		!strings.Contains(o.Message, "set-status") || !strings.Contains(o.Message, "--hold") {
		t.Errorf("%q", o.Message)
	}
	s.hold(power.WantOn, time.Hour, "a")
	if o := s.ask("a", power.ActOn); o.Outcome != "" {
		t.Errorf("as held: %+v", o)
	}
	o := s.ask("a", power.ActOff)
	if o.Why != power.ReasonDesired || !strings.Contains(o.Message, "hold of "+meFor("bob")+" (mend) wants the node on") ||
		!strings.Contains(o.Message, "rackpower release") || !strings.Contains(o.Message, "--hold") {
		t.Errorf("against the hold: %+v", o)
	}
	s.later(time.Hour)
	if o := s.ask("a", power.ActOff); o.Outcome != "" {
		t.Errorf("after its end: %+v", o)
	}
}

func withHold(lasts time.Duration) func(*api.OpRequest) {
	return func(r *api.OpRequest) { r.Hold, r.HoldFor = true, lasts }
}

func TestARequestWithAHoldIsOneStep(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	s.status(power.StatusReady, "a")
	s.status(power.StatusDiskErasing, "b")
	r := s.rack("r1")
	r.poll()
	o := s.ask("a", power.ActCycle, withHold(time.Hour), func(r *api.OpRequest) { r.Confirmed = true })
	if o.Outcome != "" || !strings.Contains(o.Message, "held on until") {
		t.Fatalf("%+v", o)
	}
	g := r.poll()
	if len(g.Ops) != 1 || len(g.Nodes) != 1 || g.Nodes[0].Hold.Want != power.WantOn || !g.Nodes[0].Hold.Confirmed ||
		!g.Nodes[0].Hold.Until.Equal(s.clock().Add(time.Hour)) {
		t.Errorf("%+v", g)
	}
	if o := s.ask("b", power.ActSoftOff, withHold(0)); o.Outcome != "" || !strings.Contains(o.Message, "never takes power away") {
		t.Errorf("%+v", o)
	}
	wantLines(t, s.entries("a", "hold", "asked", "refused"), "hold: on until", "asked: cycle")
	// The same request again sets no second hold.
	s.hold("", 0, "a")
	again := api.OpRequest{ID: o.ID, Node: "a", Action: power.ActCycle, Confirmed: true, Hold: true, HoldFor: time.Hour}
	if _, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{again}}); err != nil {
		t.Fatal(err)
	}
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("%+v", n.Hold)
	}
}

func TestAHoldNeedsAStateAndARequest(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "nobmc", Rack: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]api.OpRequest{
		"diag":      {Action: power.ActDiag, Hold: true},
		"bmc-reset": {Action: power.ActBMCReset, Hold: true},
		"no hold":   {Action: power.ActOn, HoldFor: time.Hour},
		"negative":  {Action: power.ActOn, Hold: true, HoldFor: -1},
	} {
		r.ID, r.Node = newID(), "a"
		if _, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{r}}); api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	if o := s.ask("nobmc", power.ActOn, withHold(0)); o.Why != power.ReasonConfigless {
		t.Errorf("%+v", o)
	}
	if n := s.node("nobmc"); n.Hold != nil {
		t.Errorf("a refused request holds the node: %+v", n.Hold)
	}
	s.status(power.StatusReady, "a")
	dry := api.AskOps{DryRun: true, Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOn, Hold: true}}}
	ops, err := s.AskOps(t.Context(), dry)
	if err != nil || ops[0].Outcome != "" || !strings.Contains(ops[0].Message, "would be held on until released") {
		t.Errorf("%+v, %v", ops, err)
	}
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("a dry run holds the node: %+v", n.Hold)
	}
}

func TestAHoldDoesNotCutWhileDisksAreErased(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	s.status(power.StatusDiskErasing, "a")
	r := s.rack("r1")
	out := s.hold(power.WantOff, 0, "a", "b")
	if out.Changed != 2 || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "DISK_ERASING") {
		t.Errorf("%+v", out)
	}
	if g := r.poll(); !g.Nodes[0].Desired.NoCut || g.Nodes[0].Desired.Want != power.WantOff || g.Nodes[1].Desired.NoCut {
		t.Errorf("%+v", g.Nodes)
	}
	wantLines(t, s.entries("a", "hold"), "hold: never takes power away while the status is DISK_ERASING")
}

func TestALocalHoldIsAdoptedIfNewer(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	s.hold(power.WantOn, 0, "a")
	mine := r.poll().Nodes[0].Hold
	local := power.Hold{Want: power.HandsOff, By: "eve", Reason: "smoke", Since: s.clock(), Seq: mine.Seq + 5}
	older := power.Hold{Want: power.WantOff, By: "old", Seq: mine.Seq - 5}
	r.mustReportHolds(api.NodeHold{Node: "a", Hold: older})
	if n := s.node("a"); n.Hold.By != meFor("bob") {
		t.Errorf("an older one was adopted: %+v", n.Hold)
	}
	for range 2 {
		r.mustReportHolds(api.NodeHold{Node: "a", Hold: local}, api.NodeHold{Node: "ghost", Hold: local})
	}
	g := r.poll()
	if len(g.Nodes) != 1 || !sameHold(g.Nodes[0].Hold, local) {
		t.Errorf("%+v", g)
	}
	wantLines(t, s.entries("a", "hold"), "hold: on", "hold: hands-off until released, was on (hold of "+meFor("bob")+
		"); at the socket of agent r1")
	s.hold(power.WantOff, 0, "a")
	if g := r.poll(); !g.Nodes[0].Hold.Over(local) {
		t.Errorf("what is set later is numbered before: %+v", g)
	}
	for what, h := range map[string]power.Hold{
		"nonsense":      {Want: "up", By: "x", Seq: g.Nodes[0].Hold.Seq + 1<<20},
		"no sequence":   {Want: power.WantOn, By: "x"},
		"beyond reason": {Want: power.WantOn, By: "x", Seq: 1 << 63},
	} {
		r.mustReportHolds(api.NodeHold{Node: "a", Hold: h})
		if n := s.node("a"); n.Hold.By != meFor("bob") {
			t.Errorf("%s: %+v", what, n.Hold)
		}
	}
	two := s.rack("r2")
	two.mustReportHolds(api.NodeHold{Node: "a", Hold: power.Hold{Want: power.WantOn, By: "x", Seq: s.c.store.Seq(s.clock()).Next(s.clock())}})
	if n := s.node("a"); n.Hold.By != meFor("bob") {
		t.Errorf("another agent's report counted: %+v", n.Hold)
	}
	release := power.Hold{By: "eve", Seq: s.c.store.Seq(s.clock()).Next(s.clock())}
	r.mustReportHolds(api.NodeHold{Node: "a", Hold: release})
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("%+v", n.Hold)
	}
}

// TestAScheduleMakesWayForAHoldItDidNotKnow: a person's hold at the rack's socket, set
// before the schedule ran and reported after, also when the schedule's is over by then.
func TestAScheduleMakesWayForAHoldItDidNotKnow(t *testing.T) {
	for _, over := range []bool{false, true} {
		s := newSite(t)
		s.nodes("a")
		s.status(power.StatusReady, "a")
		r := s.rack("r1")
		local := power.Hold{Want: power.WantOn, By: "eve", Reason: "burn-in", Since: s.clock(), Seq: s.c.store.Seq(s.clock()).Next(s.clock())}
		s.c.store.MergeSeq(local.Seq, s.clock())
		night := power.Hold{Want: power.WantOff, By: "bob", Reason: "night", Schedule: "night", Since: s.clock(), Until: s.clock().Add(time.Hour)}
		if err := s.c.store.Write(t.Context(), func(tx *store.Tx) error {
			n, _, err := tx.Node("a")
			if err != nil {
				return err
			}
			u := s.c.unitOfWork(tx, s.clock(), "schedule night")
			if err := u.hold(n, night, ""); err != nil {
				return err
			}
			return u.finish()
		}); err != nil {
			t.Fatal(err)
		}
		scheduled := r.poll().Nodes[0].Hold
		if over {
			s.later(2 * time.Hour)
			s.c.sweep(t.Context())
		}
		for range 2 {
			r.mustReportHolds(api.NodeHold{Node: "a", Hold: local})
		}
		g := r.poll().Nodes[0]
		want := local
		want.Seq = scheduled.Seq + 1
		if !sameHold(g.Hold, want) || g.Desired.Want != power.WantOn || s.c.store.Seq(s.clock()) < want.Seq {
			t.Errorf("over: %t: %+v, want %+v", over, g.Hold, want)
		}
		next := power.Hold{By: "eve", Seq: want.Seq + 1} // the rack's next report, before it heard
		r.mustReportHolds(api.NodeHold{Node: "a", Hold: next})
		if n := s.node("a"); n.Hold != nil {
			t.Errorf("the release did not count: %+v", n.Hold)
		}
	}
}

// TestAReleasedHoldStaysReleased: an agent that did not hear that its hold was taken
// over, released and followed by a schedule's tells of it again.
func TestAReleasedHoldStaysReleased(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	local := power.Hold{Want: power.WantOn, By: "eve", Reason: "burn-in", Since: s.clock(), Seq: s.c.store.Seq(s.clock()).Next(s.clock())}
	r.mustReportHolds(api.NodeHold{Node: "a", Hold: local})
	s.hold("", 0, "a")
	for range 2 { // schedules follow each other, and a restart forgets nothing
		if err := s.c.store.Write(t.Context(), func(tx *store.Tx) error {
			n, _, err := tx.Node("a")
			if err != nil {
				return err
			}
			u := s.c.unitOfWork(tx, s.clock(), "schedule night")
			if err := u.hold(n, power.Hold{Want: power.WantOff, By: "bob", Reason: "night", Schedule: "night", Since: s.clock()}, ""); err != nil {
				return err
			}
			return u.finish()
		}); err != nil {
			t.Fatal(err)
		}
		s.restart()
		r = s.rack("r1")
		r.mustReportHolds(api.NodeHold{Node: "a", Hold: local})
		if n := s.node("a"); n.Hold == nil || n.Hold.Schedule != "night" {
			t.Errorf("%+v", n.Hold)
		}
	}
}

// TestHoldsFromTwoDoorsAgree sets holds at central and reports those of the rack, in
// any order and again and again: the one with the highest sequence stands.
func TestHoldsFromTwoDoorsAgree(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	rapid.Check(t, func(rt *rapid.T) {
		base := s.c.store.Seq(s.clock()).Next(s.clock())
		var local []api.NodeHold
		for i := range rapid.IntRange(1, 5).Draw(rt, "locals") {
			h := power.Hold{
				Want: rapid.SampledFrom([]power.Want{"", power.WantOn, power.WantOff}).Draw(rt, "want"), By: fmt.Sprint("local", i),
				Seq: base + power.Seq(rapid.IntRange(1, 1000).Draw(rt, "seq")),
			}
			if !slices.ContainsFunc(local, func(n api.NodeHold) bool { return n.Hold.Seq == h.Seq }) { // sequences are unique
				local = append(local, api.NodeHold{Node: "a", Hold: h})
			}
		}
		sets := rapid.IntRange(0, 3).Draw(rt, "sets")
		steps := rapid.Permutation(append(slices.Repeat([]int{-1}, sets), rapid.SliceOfN(rapid.IntRange(0, len(local)-1), 0, 12).Draw(rt,
			"reports")...)).Draw(rt, "order")
		err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
			var best power.Hold
			report := func(h api.NodeHold) error {
				s.c.store.MergeSeq(h.Hold.Seq, s.clock())
				if h.Hold.Over(best) {
					best = h.Hold
				}
				return s.c.unitOfWork(tx, s.clock(), "agent r1").applyHolds("r1", []api.NodeHold{h})
			}
			for i, step := range steps {
				if step >= 0 {
					if err := report(local[step]); err != nil {
						return err
					}
					continue
				}
				n, _, err := tx.Node("a")
				if err != nil {
					return err
				}
				best = power.Hold{Want: power.HandsOff, By: fmt.Sprint("central", i), Seq: tx.NextSeq(s.clock())}
				if err := s.c.unitOfWork(tx, s.clock(), "x").hold(n, best, ""); err != nil {
					return err
				}
			}
			n, _, err := tx.Node("a")
			if err != nil {
				return err
			}
			if n.Hold != best {
				rt.Fatalf("%+v stands, want %+v", n.Hold, best)
			}
			return errDryRun
		})
		if !errors.Is(err, errDryRun) {
			rt.Fatal(err)
		}
	})
}

func TestRetryIsAState(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	before := r.poll()
	retry := func() power.Seq {
		t.Helper()
		if out, err := s.RetryNodes(t.Context(), api.RetryNodes{Names: []string{"a"}, AskedBy: "bob", Reason: "new cable"}); err != nil ||
			out.Changed != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		g := r.poll()
		if len(g.Nodes) != 1 || g.Nodes[0].Name != "a" {
			t.Fatalf("%+v", g)
		}
		return g.Nodes[0].Retry
	}
	if first, second := retry(), retry(); first <= before.Nodes[0].Retry || second <= first {
		t.Errorf("%d, then %d", first, second)
	}
	if g, _ := s.Poll(t.Context(), "r1", api.Poll{Session: r.w.Session}); g.Nodes[0].Retry == 0 || g.Nodes[1].Retry != 0 {
		t.Errorf("%+v", g)
	}
	wantLines(t, s.entries("a", "retry"), "retry: ", "retry: ")
	_, err := s.RetryNodes(t.Context(), api.RetryNodes{Names: []string{"ghost"}})
	wantCode(t, err, api.CodeNotFound)
}

// sameHold compares holds with their times as moments.
func sameHold(a, b power.Hold) bool {
	equal := a.Since.Equal(b.Since) && a.Until.Equal(b.Until)
	a.Since, a.Until = b.Since, b.Until
	return equal && a == b
}

// TestTheEndOfAHoldIsConfirmedByTheHold: the agent goes by that, whose clock says first
// that the hold is over.
func TestTheEndOfAHoldIsConfirmedByTheHold(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	s.status(power.StatusReady, "a")
	r := s.rack("r1")
	if _, err := s.SetHold(t.Context(), api.SetHold{
		Names: []string{"a"}, Want: power.WantOn, For: time.Hour, Reason: "tests",
		Confirmed: true,
	}); err != nil {
		t.Fatal(err)
	}
	r.poll()
	s.later(time.Hour)
	s.c.sweep(context.Background())
	if h := r.poll().Nodes[0].Hold; h.Want != "" || !h.Confirmed {
		t.Fatalf("%+v", h)
	}
}

// TestWhatIsNotFollowedForNowSaysSo: a hold or a status that a brake, a pause or a monitor
// that is off keeps from being followed is taken with a note.
func TestWhatIsNotFollowedForNowSaysSo(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	r.settled()
	if out := s.hold(power.WantOff, 0, "a"); len(out.Notes) != 0 {
		t.Errorf("%+v", out)
	}
	r.says(api.RackState{Monitor: "@every 60s", Brake: &api.Brake{
		ID: "b1", Since: s.clock(), Kind: "cut", Nodes: []string{"b"}, Total: 2,
		Message: "too many",
	}})
	for _, want := range []power.Want{power.WantOn, power.WantOff} {
		if out := s.hold(want, 0, "a"); len(out.Notes) != 1 ||
			!strings.Contains(out.Notes[0], "nothing is done about a for now: the brake of rack r1 holds since ") {
			t.Errorf("%+v", out)
		}
	}
	if out := s.hold(power.HandsOff, 0, "a"); len(out.Notes) != 0 {
		t.Errorf("hands-off is followed: %+v", out)
	}
	out, err := s.SetStatus(t.Context(), api.SetStatus{Names: []string{"b"}, Status: power.StatusReady})
	if err != nil || len(out.Notes) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	r.says(api.RackState{Monitor: "off"})
	if out := s.hold(power.WantOn, 0, "a"); len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "the monitor of rack r1 is off") {
		t.Errorf("%+v", out)
	}
}

// TestWhoeverChangesABMCIsToldOfOperations that are under way on its node.
func TestWhoeverChangesABMCIsToldOfOperations(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := r.deliver("a", power.ActOn)
	report := r.running(op)
	report.Attempts = 2
	r.mustReport(report)
	if o := s.op(op.ID); o.Attempts != 2 {
		t.Errorf("%+v", o)
	}
	update := func(spec api.NodeSpec) api.AddedNodes {
		t.Helper()
		out, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{spec}, Update: true})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := update(api.NodeSpec{Name: "a", BMC: "ipmi://admin@192.0.2.77"}); len(out.Notes) != 1 ||
		!strings.HasPrefix(out.Notes[0], "node a has an operation under way: on (asked by ") || !strings.Contains(out.Notes[0], "192.0.2.77") {
		t.Errorf("%+v", out)
	}
	if out := update(api.NodeSpec{Name: "a", Status: power.StatusReady}); len(out.Notes) != 0 {
		t.Errorf("%+v", out)
	}
	r.mustReport(r.ended(op, power.Succeeded))
	if out := update(api.NodeSpec{Name: "a", Password: "new"}); len(out.Notes) != 0 {
		t.Errorf("%+v", out)
	}
}
