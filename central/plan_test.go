package central

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// seen has nodes read as being in a state.
func (r *rack) seen(state power.State, names ...string) {
	r.s.t.Helper()
	r.s.later(time.Second)
	for _, name := range names {
		r.read(api.NodeReading{Node: name, Reading: power.Seen(state, r.s.clock())})
	}
}

// plan makes a plan of a change.
func (s *site) plan(ch api.Change) api.Plan {
	s.t.Helper()
	p, err := s.MakePlan(s.t.Context(), api.MakePlan{ID: newID(), Change: ch})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// opsOn is a change that asks for an action on nodes.
func opsOn(action power.Action, names ...string) api.Change {
	in := new(api.AskOps)
	for _, name := range names {
		in.Ops = append(in.Ops, api.OpRequest{ID: newID(), Node: name, Action: action, AskedBy: "bob", Reason: "test"})
	}
	return api.Change{Ops: in}
}

func statusOf(status power.Status, names ...string) api.Change {
	return api.Change{Status: &api.SetStatus{Names: names, Status: status, AskedBy: "bob", Reason: "test"}}
}

func holdOn(want power.Want, names ...string) api.Change {
	return api.Change{Hold: &api.SetHold{Names: names, Want: want, AskedBy: "bob", Reason: "test"}}
}

// effects is "a loses-power, b none" of a plan.
func effects(p api.Plan) string {
	var all []string
	for _, n := range p.Nodes {
		all = append(all, n.Node+" "+string(n.Effect))
	}
	return strings.Join(all, ", ")
}

// hall is nodes in different states: on, off, never read, protected (and on), with a hold
// (and on).
func hall(s *site) *rack {
	s.t.Helper()
	s.nodes("on", "off", "new", "safe", "held")
	r := s.rack("r1")
	r.poll()
	r.seen(power.On, "on", "safe", "held")
	r.seen(power.Off, "off")
	if _, err := s.ProtectNodes(s.t.Context(), api.ProtectNodes{Names: []string{"safe"}, Reason: "database"}); err != nil {
		s.t.Fatal(err)
	}
	s.hold(power.WantOn, 0, "held")
	return r
}

func TestAPlanSaysWhatWouldHappen(t *testing.T) {
	all := []string{"on", "off", "new", "safe", "held"}
	for name, c := range map[string]struct {
		change  api.Change
		effects string
		words   map[string]string
	}{
		"off": {
			opsOn(power.ActOff, all...), "on loses-power, off none, new loses-power, safe refused, held refused",
			map[string]string{"safe": "protected by", "held": "hold"},
		},
		"on":    {opsOn(power.ActOn, all...), "on none, off turns-on, new turns-on, safe none, held none", nil},
		"cycle": {opsOn(power.ActCycle, all...), "on loses-power, off turns-on, new loses-power, safe refused, held loses-power", nil},
		"READY": {
			statusOf(power.StatusReady, all...), "on loses-power, off none, new loses-power, safe none, held none",
			map[string]string{"safe": "protected by", "held": "already (hold of", "off": "it is off already (status READY)"},
		},
		"DEPLOYING": {statusOf(power.StatusDeploying, all...), "on none, off turns-on, new turns-on, safe none, held none", nil},
		"DEPLOYED": {
			statusOf(power.StatusDeployed, all...), "on none, off none, new none, safe none, held none",
			map[string]string{"on": "left alone (status DEPLOYED)"},
		},
		"hold off": {holdOn(power.WantOff, all...), "on loses-power, off none, new loses-power, safe none, held loses-power", nil},
		"release": {
			holdOn("", all...), "on none, off none, new none, safe none, held none",
			map[string]string{"on": "nothing changes", "held": "left alone"},
		},
		"unknown": {opsOn(power.ActOff, "on", "nope"), "on loses-power, nope refused", map[string]string{"nope": "no node nope"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			hall(s)
			p := s.plan(c.change)
			if got := effects(p); got != c.effects {
				t.Errorf("effects\n%s, want\n%s", got, c.effects)
			}
			for _, n := range p.Nodes {
				if !strings.Contains(n.Message, c.words[n.Node]) || n.Message == "" {
					t.Errorf("%s: %q, want %q", n.Node, n.Message, c.words[n.Node])
				}
			}
		})
	}
}

// TestAPlanSaysWhen: power-ons of a power domain wait for one another, and a hold that
// ends by itself takes power later.
func TestAPlanSaysWhen(t *testing.T) {
	s := newSite(t)
	names := make([]string, 25)
	for i := range names {
		names[i] = fmt.Sprintf("n%02d", i)
	}
	s.nodes(names...)
	specs, _ := s.ExportNodes(t.Context())
	for i := range specs {
		specs[i].Domain = "feed"
	}
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: specs, Update: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetDomain(t.Context(), api.SetDomain{DomainLimit: api.DomainLimit{Name: "feed", Rate: 5}}); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	r.poll()
	r.seen(power.Off, names...)
	p := s.plan(statusOf(power.StatusDeploying, names...))
	if at := p.Nodes[24].StartsAt; !at.Equal(s.clock().Add(4800*time.Millisecond)) || !p.Nodes[0].StartsAt.IsZero() {
		t.Errorf("the last starts at %s, the first at %s", at, p.Nodes[0].StartsAt)
	}
	s.status(power.StatusDeployed, names...)
	r.seen(power.On, "n00")
	s.hold(power.WantOn, time.Hour, "n00")
	if _, err := s.SetPause(t.Context(), "r1", api.SetPause{AskedBy: "eve"}); err != nil {
		t.Fatal(err)
	}
	p = s.plan(statusOf(power.StatusReady, "n00", "n01"))
	if text := strings.Join(p.Notes, " "); !strings.Contains(text, "paused by") {
		t.Errorf("notes %q", text)
	}
	if n := p.Nodes[0]; n.Effect != api.EffectLosesPower || !strings.Contains(n.Message, "at its end") {
		t.Errorf("%+v", n)
	}
	s.later(time.Hour / 2) // the agent is silent
	if n := s.plan(opsOn(power.ActOff, "n01")).Nodes[0]; n.Effect != api.EffectLosesPower || !strings.Contains(n.OutOfReach, "agent r1") {
		t.Errorf("an agent that is away: %+v", n)
	}
}

// TestAPlanIsApplied once, by who made it, in its time, over a restart too.
func TestAPlanIsApplied(t *testing.T) {
	s := newSite(t)
	r := hall(s)
	p := s.plan(opsOn(power.ActOff, "on", "off", "safe"))
	if p.State != api.PlanMade || p.What != "off" || p.AskedBy != meFor("bob") || p.Reason != "test" {
		t.Errorf("%+v", p)
	}
	if again, err := s.MakePlan(t.Context(), api.MakePlan{ID: p.ID, Change: opsOn(power.ActOn, "on")}); err != nil || again.What != "off" {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	if found, err := s.QueryOps(t.Context(), api.QueryOps{}); err != nil || len(found.Ops) != 0 {
		t.Fatalf("a plan asked for operations: %+v, %v", found, err)
	}
	s.restart()
	r.mustHello()
	for range 2 {
		done, err := s.ApplyPlan(t.Context(), p.ID)
		if err != nil || done.State != api.PlanApplied || len(done.Ops) != 3 || done.Ops[2].Outcome != power.Refused {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	if got := r.poll(); len(got.Ops) != 2 || got.Ops[0].AskedBy != meFor("bob") || !got.Ops[0].AskedAt.Equal(s.clock()) {
		t.Errorf("delivered: %+v", got.Ops)
	}
	q := s.plan(statusOf(power.StatusDeploying, "new"))
	done, err := s.ApplyPlan(t.Context(), q.ID)
	if err != nil || done.Changed == nil || done.Changed.Changed != 1 || s.node("new").Status != power.StatusDeploying {
		t.Fatalf("%+v, %v", done, err)
	}
	s.status(power.StatusDeployed, "new")
	if done, err = s.ApplyPlan(t.Context(), q.ID); err != nil || done.Changed == nil || s.node("new").Status != power.StatusDeployed {
		t.Errorf("applied again: %+v, %v", done, err)
	}
	late := s.plan(opsOn(power.ActOff, "new"))
	s.later(planLasts)
	r.seen(power.On, "new")
	if shown, err := s.Plan(t.Context(), late.ID); err != nil || shown.State != api.PlanExpired {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	_, err = s.ApplyPlan(t.Context(), late.ID)
	wantCode(t, err, api.CodeRefused)
	_, err = s.ApplyPlan(t.Context(), newID())
	wantCode(t, err, api.CodeNotFound)
	wantLines(t, s.entries("", auditApply), "plan-apply: plan "+p.ID+": off of", "plan-apply: plan "+q.ID+": set-status DEPLOYING of new")
}

// TestAPlanIsKept in a bounded number, and not for ever.
func TestAPlanIsKept(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	first := s.plan(opsOn(power.ActOn, "a"))
	second := s.plan(opsOn(power.ActOn, "a"))
	for range maxPlansOf - 1 {
		s.plan(opsOn(power.ActOn, "a"))
	}
	_, err := s.Plan(t.Context(), first.ID)
	wantCode(t, err, api.CodeNotFound)
	if _, err := s.Plan(t.Context(), second.ID); err != nil {
		t.Error(err)
	}
	s.later(planLasts + planShown - 1)
	s.c.prune(t.Context())
	if _, err := s.Plan(t.Context(), second.ID); err != nil {
		t.Error(err)
	}
	s.later(1)
	s.c.prune(t.Context())
	_, err = s.Plan(t.Context(), second.ID)
	wantCode(t, err, api.CodeNotFound)
}

// TestAPlanOfAnother is neither applied by others nor shown beyond their scope.
func TestAPlanOfAnother(t *testing.T) {
	r, _ := onTLS(t)
	specs := []api.NodeSpec{
		{Name: "a", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"}, {Name: "b", Rack: "r2", BMC: "ipmi://admin@192.0.2.2"},
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	ann, ben := r.as(t, "ann", api.AddUser{Role: "operator"}), r.as(t, "ben", api.AddUser{Role: "operator", Nodes: "@r1"})
	p, err := ann.MakePlan(t.Context(), api.MakePlan{ID: newID(), Change: api.Change{
		Hold: &api.SetHold{Names: []string{"a", "b"}, Want: power.WantOn, Reason: "x"},
	}})
	if err != nil || p.AskedBy != "ann" {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = r.as(t, "cal", api.AddUser{Role: "admin"}).ApplyPlan(t.Context(), p.ID)
	wantCode(t, err, api.CodeForbidden)
	_, err = ben.ApplyPlan(t.Context(), p.ID) // one of its nodes is beyond his scope: it is not there
	wantCode(t, err, api.CodeNotFound)
	_, err = ben.Plan(t.Context(), p.ID)
	wantCode(t, err, api.CodeNotFound)
	_, err = ben.MakePlan(t.Context(), api.MakePlan{ID: p.ID, Change: api.Change{
		Hold: &api.SetHold{Names: []string{"a"}, Want: power.WantOn, Reason: "x"},
	}})
	wantCode(t, err, api.CodeBadRequest)
	_, err = ben.MakePlan(t.Context(), api.MakePlan{ID: newID(), Change: api.Change{
		Hold: &api.SetHold{Names: []string{"b"}, Want: power.WantOn, Reason: "x"},
	}})
	wantCode(t, err, api.CodeForbidden)
	_, err = ben.MakePlan(t.Context(), api.MakePlan{ID: newID(), Change: api.Change{
		Hold: &api.SetHold{Names: []string{"a"}, Want: power.WantOn, Reason: "x", AskedBy: "ann"},
	}})
	wantCode(t, err, api.CodeForbidden)
	// What may be asked for when it is planned may not be when it is applied.
	if _, err := r.AddUser(t.Context(), api.AddUser{Name: "ann", Role: "operator", Nodes: "@r1", Update: true}); err != nil {
		t.Fatal(err)
	}
	_, err = ann.ApplyPlan(t.Context(), p.ID)
	wantCode(t, err, api.CodeForbidden)
}

// TestAPlanIsWhatIsDone: applied at once, a plan does what it shows; applied after
// something else was done, it is refused just where a plan that is made then shows
// something else, and does nothing.
func TestAPlanIsWhatIsDone(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		names := make([]string, rapid.IntRange(1, 4).Draw(rt, "nodes"))
		for i := range names {
			names[i] = fmt.Sprintf("p%dn%d", round, i)
		}
		s.nodes(names...)
		r.poll()
		disturb := func(name string) {
			switch rapid.IntRange(0, 6).Draw(rt, "event of "+name) {
			case 0, 1:
				r.seen(rapid.SampledFrom([]power.State{power.On, power.Off}).Draw(rt, "state"), name)
			case 2:
				s.status(rapid.SampledFrom([]power.Status{
					power.StatusReady, power.StatusDeployed, power.StatusDeploying, power.StatusDiskErasing,
				}).Draw(rt, "status"), name)
			case 3:
				want := rapid.SampledFrom([]power.Want{"", power.WantOn, power.WantOff, power.HandsOff}).Draw(rt, "hold")
				last := time.Duration(0)
				if want != "" && rapid.Bool().Draw(rt, "for a while") {
					last = time.Hour
				}
				s.hold(want, last, name)
			case 4:
				unprotect := rapid.Bool().Draw(rt, "unprotect")
				if _, err := s.ProtectNodes(t.Context(), api.ProtectNodes{Names: []string{name}, Unprotect: unprotect, Reason: "x"}); err != nil {
					rt.Fatal(err)
				}
			case 5:
				s.ask(name, rapid.SampledFrom([]power.Action{power.ActOn, power.ActOff, power.ActCycle}).Draw(rt, "action"))
			}
		}
		for _, name := range names {
			for range rapid.IntRange(0, 3).Draw(rt, "events") {
				disturb(name)
			}
		}
		var ch func() api.Change
		switch rapid.IntRange(0, 2).Draw(rt, "change") {
		case 0:
			action, ifBusy := rapid.SampledFrom(power.Actions).Draw(rt, "planned"), rapid.SampledFrom([]power.IfBusy{
				"", power.Queue, power.Refuse,
			}).Draw(rt, "if busy")
			ch = func() api.Change {
				ch := opsOn(action, names...)
				for i := range ch.Ops.Ops {
					ch.Ops.Ops[i].IfBusy = ifBusy
				}
				return ch
			}
		case 1:
			status := rapid.SampledFrom(power.Statuses()).Draw(rt, "planned")
			ch = func() api.Change { return statusOf(status, names...) }
		case 2:
			want := rapid.SampledFrom([]power.Want{"", power.WantOn, power.WantOff}).Draw(rt, "planned")
			ch = func() api.Change { return holdOn(want, names...) }
		}
		look := func() (nodes []api.Node, ops []api.Op) {
			nodes, err := s.Nodes(t.Context(), strings.Join(names, ","))
			if err != nil {
				rt.Fatal(err)
			}
			found, err := s.QueryOps(t.Context(), api.QueryOps{Nodes: names})
			if err != nil {
				rt.Fatal(err)
			}
			return nodes, found.Ops
		}
		nodes, ops := look()
		p := s.plan(ch())
		if n, o := look(); !reflect.DeepEqual(n, nodes) || !reflect.DeepEqual(o, ops) {
			rt.Fatalf("a plan changed something: %+v\n%+v", n, nodes)
		}
		for _, n := range p.Nodes { // what is shown follows from what people see
			i := 0
			for nodes[i].Name != n.Node {
				i++
			}
			if off := nodes[i].State == power.Off && (nodes[i].Op == nil || nodes[i].Op.Action.Final() != power.On); n.Effect ==
				api.EffectLosesPower && (off && len(ops) == 0 || nodes[i].Protected != nil) {
				rt.Fatalf("%+v cannot lose power: %+v", nodes[i], n)
			}
		}
		if rapid.Bool().Draw(rt, "disturbed") {
			disturb(names[0])
		}
		nodes, ops = look()
		now := s.plan(ch())
		same := true
		for i, n := range p.Nodes {
			same = same && n.Effect == now.Nodes[i].Effect && n.Verdict == now.Nodes[i].Verdict && n.Desired == now.Nodes[i].Desired &&
				n.Before == now.Nodes[i].Before && n.Why == now.Nodes[i].Why && (n.OutOfReach == "") == (now.Nodes[i].OutOfReach == "")
		}
		done, err := s.ApplyPlan(t.Context(), p.ID)
		after, asked := look()
		if !same {
			if api.CodeOf(err) != api.CodeChanged {
				rt.Fatalf("applied though it would do something else: %+v, %v\n%+v\n%+v", done, err, p, now)
			}
			if !reflect.DeepEqual(after, nodes) || !reflect.DeepEqual(asked, ops) {
				rt.Fatalf("refused, and something was done: %+v\n%+v", after, nodes)
			}
			return
		}
		if err != nil {
			rt.Fatalf("refused: %v\n%+v\n%+v", err, p, now)
		}
		byName := map[string]api.Node{}
		for _, n := range after {
			byName[n.Name] = n
		}
		for i, n := range p.Nodes {
			if byName[n.Node].Desired != n.Desired {
				rt.Fatalf("desired is %s, planned was %+v", byName[n.Node].Desired, n)
			}
			if done.Ops == nil {
				continue
			}
			if refusedHere := done.Ops[i].Outcome == power.Refused; refusedHere && n.Effect != api.EffectRefused ||
				!refusedHere && n.Effect == api.EffectRefused && n.Why != power.ReasonBusy && n.Why != power.ReasonStale {
				rt.Fatalf("operation %+v, planned was %+v", done.Ops[i], n)
			}
		}
	})
}
