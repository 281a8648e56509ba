package central

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// people has the requests of a site asked by who is set, until another is; "" is who runs
// the tests. Agents ask as always.
type people struct {
	*site
	asking string
	known  map[string]auth.Principal
}

func (s *site) people(all ...auth.Principal) *people {
	p := &people{site: s, known: map[string]auth.Principal{}}
	for _, one := range all {
		one.Kind = auth.User
		p.known[one.Name] = one
		in := api.AddUser{Name: one.Name, Role: string(one.Role), Nodes: one.Scope, SpeaksForOthers: one.Speaks}
		if _, err := s.AddUser(s.t.Context(), in); err != nil {
			s.t.Fatal(err)
		}
	}
	p.sit()
	return p
}

// sit is to be called after a restart.
func (p *people) sit() {
	p.c.authenticate = func(r *http.Request) (auth.Principal, error) {
		if p.asking == "" || strings.HasPrefix(r.URL.Path, "/v1/agents/") {
			return p.c.principal(r)
		}
		return p.known[p.asking], nil
	}
}

// as does something as somebody.
func (p *people) as(name string, do func()) {
	defer func(before string) { p.asking = before }(p.asking)
	p.asking = name
	do()
}

// ask makes a change, as the routes for it do.
func (p *people) change(as string, ch api.Change) (err error) {
	p.as(as, func() {
		ctx := p.t.Context()
		switch {
		case ch.Ops != nil:
			_, err = p.AskOps(ctx, *ch.Ops)
		case ch.Status != nil:
			_, err = p.SetStatus(ctx, *ch.Status)
		case ch.Hold != nil:
			_, err = p.SetHold(ctx, *ch.Hold)
		case ch.Protect != nil:
			_, err = p.ProtectNodes(ctx, *ch.Protect)
		case ch.Schedule != nil:
			_, err = p.PutSchedule(ctx, *ch.Schedule)
		}
	})
	return err
}

func (p *people) decide(as, id string, in api.DecidePlan) (out api.Plan, err error) {
	p.as(as, func() { out, err = p.DecidePlan(p.t.Context(), id, in) })
	return out, err
}

// awaits is the one request that awaits an approval.
func (p *people) awaits() api.Plan {
	p.t.Helper()
	all, err := p.Approvals(p.t.Context())
	if err != nil || len(all) != 1 {
		p.t.Fatalf("awaiting: %+v, %v", all, err)
	}
	return all[0]
}

func (p *people) policy(in api.SetPolicy) {
	p.t.Helper()
	p.as("", func() {
		if _, err := p.SetPolicy(p.t.Context(), in); err != nil {
			p.t.Fatal(err)
		}
	})
}

func above(n int) api.SetPolicy { return api.SetPolicy{ApproveAbove: &n, Reason: "two are safer"} }

var (
	alice = auth.Principal{Name: "alice", Role: auth.Operator, Method: auth.ByToken}
	carol = auth.Principal{Name: "carol", Role: auth.Operator, Method: auth.ByToken}
	root1 = auth.Principal{Name: "dora", Role: auth.Admin, Method: auth.ByToken}
)

// named is a change without who asks: it is who is authenticated.
func named(ch api.Change) api.Change {
	switch {
	case ch.Ops != nil:
		for i := range ch.Ops.Ops {
			ch.Ops.Ops[i].AskedBy = ""
		}
	case ch.Status != nil:
		ch.Status.AskedBy = ""
	case ch.Hold != nil:
		ch.Hold.AskedBy = ""
	}
	return ch
}

// TestWhatTakesPowerNeedsAnApproval goes through the ways in which nodes lose power. Each is
// as asked for where few nodes do, and awaits an approval where one more does.
func TestWhatTakesPowerNeedsAnApproval(t *testing.T) {
	hold := func(want power.Want, last time.Duration) func(...string) api.Change {
		return func(names ...string) api.Change {
			return api.Change{Hold: &api.SetHold{Names: names, Want: want, For: last, Reason: "x"}}
		}
	}
	ops := func(a power.Action) func(...string) api.Change {
		return func(names ...string) api.Change { return named(opsOn(a, names...)) }
	}
	status := func(s power.Status) func(...string) api.Change {
		return func(names ...string) api.Change { return named(statusOf(s, names...)) }
	}
	schedule := func(want power.Want) func(...string) api.Change {
		return func(names ...string) api.Change {
			in := api.PutSchedule{Schedule: api.Schedule{Name: "night", Cron: "0 19 * * *", Nodes: strings.Join(names, ","), Want: want}}
			return api.Change{Schedule: &in}
		}
	}
	none := func(*people) {}
	held := func(p *people) { // on by a hold, against their status
		p.site.hold(power.WantOn, 0, "a", "b", "c")
		p.status(power.StatusReady, "a", "b", "c")
	}
	for name, c := range map[string]struct {
		before func(*people)
		change func(...string) api.Change
		asks   bool
	}{
		"off":               {none, ops(power.ActOff), true},
		"soft-off":          {none, ops(power.ActSoftOff), true},
		"cycle":             {none, ops(power.ActCycle), true},
		"reset":             {none, ops(power.ActReset), true},
		"NMI":               {none, ops(power.ActDiag), true},
		"on":                {none, ops(power.ActOn), false},
		"BMC reset":         {none, ops(power.ActBMCReset), false},
		"READY":             {none, status(power.StatusReady), true},
		"DEPLOYING":         {none, status(power.StatusDeploying), false},
		"DISK_ERASING":      {none, status(power.StatusDiskErasing), false},
		"READY, held on":    {func(p *people) { p.site.hold(power.WantOn, 0, "a", "b", "c") }, status(power.StatusReady), false},
		"READY, held a bit": {func(p *people) { p.site.hold(power.WantOn, time.Hour, "a", "b", "c") }, status(power.StatusReady), true},
		"hold off":          {none, hold(power.WantOff, 0), true},
		"hold off a bit":    {none, hold(power.WantOff, time.Hour), true},
		"hold on":           {none, hold(power.WantOn, 0), false},
		"release":           {held, hold("", 0), true},
		"hold on a bit":     {held, hold(power.WantOn, time.Hour), true},
		"off again":         {func(p *people) { p.status(power.StatusReady, "a", "b", "c") }, hold(power.WantOff, 0), false},
		"schedule off":      {none, schedule(power.WantOff), true},
		"schedule on":       {none, schedule(power.WantOn), false},
		"unprotect": {func(p *people) {
			if _, err := p.ProtectNodes(p.t.Context(), api.ProtectNodes{Names: []string{"a", "b", "c"}}); err != nil {
				p.t.Fatal(err)
			}
			p.status(power.StatusReady, "a", "b", "c")
		}, func(names ...string) api.Change {
			return api.Change{Protect: &api.ProtectNodes{Names: names, Unprotect: true, Reason: "x"}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a", "b", "c", "off")
			r := s.rack("r1")
			r.poll()
			r.seen(power.On, "a", "b", "c")
			r.seen(power.Off, "off")
			p := s.people(root1, carol)
			c.before(p)
			p.policy(above(2))
			entries := len(s.entries(""))
			err := p.change("dora", c.change("a", "b", "c"))
			if !c.asks {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantCode(t, err, api.CodeAwaiting)
			plan := p.awaits()
			if !strings.Contains(err.Error(), "rackpower approve "+plan.ID) || plan.AskedBy != "dora" || plan.State != api.PlanAwaiting ||
				len(plan.LosingPower()) != 3 || !strings.Contains(plan.Needs, "3 nodes would lose power, and more than 2") {
				t.Errorf("%v\n%+v", err, plan)
			}
			if found, err := p.QueryOps(t.Context(), api.QueryOps{}); err != nil || len(found.Ops) != 0 {
				t.Errorf("something was asked for: %+v, %v", found, err)
			}
			if got := s.entries(""); len(got) != entries+1 || !strings.HasPrefix(got[entries], auditApprovalAsked) {
				t.Errorf("audit log: %q", got[entries:])
			}
			wantCode(t, p.change("dora", c.change("a", "b", "c")), api.CodeAwaiting)
			if !strings.Contains(plan.What, "schedule") && c.change("a").Ops == nil && p.awaits().ID != plan.ID {
				t.Error("asked again, it is another")
			}
			p.later(11 * time.Minute)
			r.mustHello()
			if c.change("a").Schedule != nil {
				return // a schedule is one thing
			}
			r.seen(power.On, "a", "b", "c")
			r.seen(power.Off, "off")
			if err := p.change("dora", c.change("a", "b", "off")); err != nil {
				t.Errorf("two and one that is off: %v", err)
			}
			wantCode(t, p.change("dora", c.change("c")), api.CodeAwaiting) // the third of a few minutes
		})
	}
}

// TestAnImportTakesNoPower from many nodes: it has no approval to wait for.
func TestAnImportTakesNoPower(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	p := s.people(root1)
	p.policy(above(2))
	specs, err := s.ExportNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put := func() (err error) {
		p.as("dora", func() { _, err = p.AddNodes(t.Context(), api.AddNodes{Nodes: specs, Update: true, Confirmed: true}) })
		return err
	}
	for i := range specs {
		specs[i].Status = power.StatusReady
	}
	err = put()
	wantCode(t, err, api.CodeRefused)
	if !strings.Contains(err.Error(), "rackpower node set-status") || s.node("a").Status != "" {
		t.Errorf("%v, %+v", err, s.node("a"))
	}
	specs[2].Status = ""
	if err := put(); err != nil {
		t.Error(err)
	}
	specs[0].BMC = "ipmi://admin@192.0.2.77" // another machine is to be off
	p.later(cutsCount)
	specs[1].BMC, specs[2].Status = "ipmi://admin@192.0.2.78", power.StatusReady
	wantCode(t, put(), api.CodeRefused)
}

// TestWhoApproves: somebody else, with the right to, over all of the nodes.
func TestWhoApproves(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	p := s.people(alice, carol, root1,
		auth.Principal{Name: "vera", Role: auth.Viewer, Method: auth.ByToken},
		auth.Principal{Name: "sam", Role: auth.Operator, Scope: "a,b", Method: auth.ByToken},
		auth.Principal{Name: "front", Role: auth.Admin, Speaks: true, Method: auth.ByToken})
	p.policy(above(2))
	wantCode(t, p.change("alice", named(opsOn(power.ActOff, "a", "b", "c"))), api.CodeAwaiting)
	id := p.awaits().ID
	refuse := func(as string, in api.DecidePlan, code api.Code, word string) {
		t.Helper()
		_, err := p.decide(as, id, in)
		if api.CodeOf(err) != code || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want %s, %q", as, err, code, word)
		}
	}
	refuse("alice", api.DecidePlan{}, api.CodeForbidden, "another person")
	p.known["alice"] = auth.Principal{Kind: auth.User, Name: "alice", Role: auth.Admin, Method: auth.ByCertificate}
	refuse("alice", api.DecidePlan{}, api.CodeForbidden, "another person")
	refuse("front", api.DecidePlan{AskedBy: "alice"}, api.CodeForbidden, "another person")
	refuse("front", api.DecidePlan{AskedBy: "Alice"}, api.CodeForbidden, "another person")
	refuse("vera", api.DecidePlan{}, api.CodeForbidden, "operator")
	refuse("sam", api.DecidePlan{}, api.CodeNotFound, "no plan") // beyond the scope it is not there
	p.as("sam", func() {
		if all, err := p.Approvals(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("sam sees %+v, %v", all, err)
		}
	})
	p.known["alice"] = alice
	s.later(time.Second) // the list goes by time
	// One who speaks for others asked: it is he, whomever he names.
	ch := opsOn(power.ActCycle, "a", "b", "c")
	wantCode(t, p.change("front", ch), api.CodeAwaiting)
	all, err := p.Approvals(t.Context())
	if err != nil || len(all) != 2 || all[1].AskedBy != "front for bob" {
		t.Fatalf("%+v, %v", all, err)
	}
	first := id
	id = all[1].ID
	refuse("front", api.DecidePlan{}, api.CodeForbidden, "another person")
	refuse("front", api.DecidePlan{AskedBy: "carol"}, api.CodeForbidden, "another person")
	if _, err := p.decide("front", id, api.DecidePlan{Deny: true}); err != nil {
		t.Errorf("who asked does not want it any more: %v", err)
	}
	refuse("carol", api.DecidePlan{}, api.CodeRefused, "denied by front")
	id = first
	s.restart()
	p.sit()
	for range 2 {
		out, err := p.decide("carol", id, api.DecidePlan{Reason: "seen"})
		if err != nil || out.State != api.PlanApplied || out.DecidedBy != "carol" || len(out.Ops) != 3 || out.Ops[0].AskedBy != "alice" ||
			out.Ops[0].Outcome != "" {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	refuse("dora", api.DecidePlan{}, api.CodeRefused, "applied by carol")
	refuse("carol", api.DecidePlan{Deny: true}, api.CodeRefused, "applied by carol")
	if found, err := p.QueryOps(t.Context(), api.QueryOps{}); err != nil || len(found.Ops) != 3 {
		t.Errorf("%+v, %v", found, err)
	}
	id = newID()
	refuse("carol", api.DecidePlan{}, api.CodeNotFound, "no plan")
	wantLines(t, s.entries("", auditApprovalAsked, auditApproved, auditDenied),
		"approval-asked: plan "+first+": off of a,b,c", "approval-asked: ", "denied: ", "approved: plan "+first)
	entries, err := s.FindAudit(t.Context(), api.AuditQuery{What: auditAsked})
	if err != nil || len(entries) != 3 || entries[0].Who != "alice" || entries[0].Via != "token" {
		t.Errorf("%+v, %v", entries, err)
	}
}

// TestAnApprovalLooksAgain: what has changed since does not go unnoticed.
func TestAnApprovalLooksAgain(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	r := s.rack("r1")
	r.poll()
	r.seen(power.On, "a", "b")
	r.seen(power.Off, "c")
	p := s.people(alice, carol)
	p.policy(above(1))
	lasts := 5 * time.Minute
	p.policy(api.SetPolicy{ApprovalLasts: &lasts})
	ask := func() string {
		t.Helper()
		wantCode(t, p.change("alice", named(opsOn(power.ActOff, "a", "b", "c"))), api.CodeAwaiting)
		all, err := p.Approvals(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[len(all)-1].ID
	}
	r.seen(power.On, "c")
	r.seen(power.Off, "c")
	id := ask()
	r.seen(power.On, "c")
	_, err := p.decide("carol", id, api.DecidePlan{})
	wantCode(t, err, api.CodeChanged)
	if p.awaits().ID != id || s.node("a").Op != nil {
		t.Error("it does not wait any more")
	}
	r.seen(power.Off, "c")
	if _, err := s.ProtectNodes(t.Context(), api.ProtectNodes{Names: []string{"b"}, Reason: "database"}); err != nil {
		t.Fatal(err)
	}
	out, err := p.decide("carol", id, api.DecidePlan{})
	if err != nil || out.Ops[0].Outcome != "" || out.Ops[1].Why != power.ReasonProtected || !out.Ops[0].AskedAt.Equal(s.clock()) {
		t.Fatalf("%+v, %v", out, err)
	}
	// Nobody decides in time.
	if _, err := s.ProtectNodes(t.Context(), api.ProtectNodes{Names: []string{"b"}, Unprotect: true, Reason: "moved"}); err != nil {
		t.Fatal(err)
	}
	id = ask()
	p.later(lasts)
	_, err = p.decide("carol", id, api.DecidePlan{})
	wantCode(t, err, api.CodeRefused)
	if shown, err := s.Plan(t.Context(), id); err != nil || shown.State != api.PlanExpired {
		t.Errorf("%+v, %v", shown, err)
	}
	for range 2 {
		s.c.sweep(t.Context())
	}
	wantLines(t, s.entries("", auditApprovalOver), "approval-expired: plan "+id)
	// Who asked may not any more.
	id = ask()
	p.as("", func() {
		if _, err := p.AddUser(t.Context(), api.AddUser{Name: "alice", Role: "operator", Nodes: "a", Update: true}); err != nil {
			t.Fatal(err)
		}
	})
	_, err = p.decide("carol", id, api.DecidePlan{})
	wantCode(t, err, api.CodeForbidden)
	p.as("", func() {
		if _, err := p.RemoveUser(t.Context(), "alice", api.RemoveUser{}); err != nil {
			t.Fatal(err)
		}
	})
	_, err = p.decide("carol", id, api.DecidePlan{})
	wantCode(t, err, api.CodeRefused)
	if s.node("b").Op != nil {
		t.Error("it was done all the same")
	}
}

// TestMarkedNodesNeedAnApproval, be it one, and a plan says so and awaits it when applied.
func TestMarkedNodesNeedAnApproval(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	p := s.people(alice, carol)
	for _, bad := range []string{"x", "[", "@"} {
		if _, err := p.SetPolicy(t.Context(), api.SetPolicy{ApproveNodes: &bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	marked := "b"
	p.policy(api.SetPolicy{ApproveNodes: &marked, Reason: "databases"})
	if err := p.change("alice", named(opsOn(power.ActOff, "a"))); err != nil {
		t.Fatal(err)
	}
	var plan api.Plan
	p.as("alice", func() {
		plan = s.plan(named(statusOf(power.StatusReady, "b")))
		if !strings.Contains(plan.Needs, "b: the policy asks") {
			t.Errorf("%+v", plan)
		}
		for range 2 {
			_, err := s.ApplyPlan(t.Context(), plan.ID)
			wantCode(t, err, api.CodeAwaiting)
		}
	})
	if p.awaits().ID != plan.ID {
		t.Errorf("%+v", p.awaits())
	}
	if out, err := p.decide("carol", plan.ID, api.DecidePlan{}); err != nil || out.Changed.Changed != 1 ||
		s.node("b").Status != power.StatusReady {
		t.Fatalf("%+v, %v", out, err)
	}
	p.as("alice", func() {
		if out, err := s.ApplyPlan(t.Context(), plan.ID); err != nil || out.State != api.PlanApplied {
			t.Errorf("%+v, %v", out, err)
		}
	})
	empty, zero := "", 0
	p.policy(api.SetPolicy{ApproveNodes: &empty, ApproveAbove: &zero})
	if err := p.change("alice", named(opsOn(power.ActOff, "b"))); err != nil {
		t.Error(err)
	}
	wantLines(t, s.entries("", auditPolicy), `policy: approve-above 0, approve-nodes "b", approval-lasts 1h0m0s, was`, "policy: ")
}

// TestAwaitingIsBounded: each principal has so many.
func TestAwaitingIsBounded(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	p := s.people(alice, carol)
	p.policy(above(1))
	for range maxAwaiting {
		wantCode(t, p.change("alice", named(opsOn(power.ActOff, "a", "b"))), api.CodeAwaiting)
	}
	wantCode(t, p.change("alice", named(opsOn(power.ActOff, "a", "b"))), api.CodeQueueFull)
	wantCode(t, p.change("carol", named(opsOn(power.ActOff, "a", "b"))), api.CodeAwaiting)
	for range maxPlansOf {
		p.as("alice", func() { s.plan(named(opsOn(power.ActOn, "a"))) })
	}
	if all, err := p.Approvals(t.Context()); err != nil || len(all) != maxAwaiting+1 {
		t.Errorf("%d, %v", len(all), err)
	}
}

// TestAnEmergencyAtTheRackIsTold, and not stopped.
func TestAnEmergencyAtTheRackIsTold(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	r := s.rack("r1")
	r.poll()
	r.seen(power.On, "a", "b", "c")
	p := s.people(alice)
	p.policy(above(2))
	local := func(names ...string) {
		t.Helper()
		for _, name := range names {
			op := power.Op{
				ID: newID(), Node: name, Action: power.ActOff, Origin: power.FromLocal, AskedBy: "eve", AskedAt: s.clock(),
				Deadline: s.clock().Add(time.Minute), Seq: s.c.store.Seq(s.clock()).Next(s.clock()),
			}
			r.mustReport(r.running(op))
		}
	}
	local("a", "b")
	wantLines(t, s.entries("", auditWithoutApproval))
	local("c")
	wantLines(t, s.entries("", auditWithoutApproval), "without-approval: at the socket of agent r1: 3 nodes would lose power, with the 2 of")
	if op := s.node("c").Op; op == nil || op.AskedBy != "eve" {
		t.Errorf("%+v", op)
	}
}

// TestApprovalsAgainstATwin compares central with rules that are written down here again,
// plainly.
func TestApprovalsAgainstATwin(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	p := s.people(alice, carol, root1)
	round := 0
	who := []string{"alice", "carol", "dora"}
	type request struct {
		by, id string
		until  time.Time
		state  api.PlanState
	}
	rapid.Check(t, func(rt *rapid.T) {
		p.later(2 * time.Hour) // what was before is over
		r.mustHello()
		round++
		on, names := map[string]bool{}, make([]string, 6)
		for i := range names {
			names[i] = fmt.Sprintf("t%dn%d", round, i)
			on[names[i]] = i > 0
		}
		s.nodes(names...)
		r.poll()
		read := func() {
			for _, name := range names {
				r.seen(map[bool]power.State{true: power.On, false: power.Off}[on[name]], name)
			}
		}
		read()
		limit := rapid.IntRange(0, 3).Draw(rt, "limit")
		p.policy(above(limit))
		lost := map[string]map[string]time.Time{}
		var requests []request
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			by := rapid.SampledFrom(who).Draw(rt, "by")
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0, 1:
				picked := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 5, rapid.ID).Draw(rt, "nodes")
				r.poll() // the agent is there
				all := map[string]bool{}
				for name, at := range lost[by] {
					if s.clock().Sub(at) < cutsCount {
						all[name] = true
					}
				}
				for _, name := range picked {
					if on[name] {
						all[name] = true
					}
				}
				cut := slices.ContainsFunc(picked, func(name string) bool { return on[name] })
				want := api.Code("")
				if limit > 0 && cut && len(all) > limit {
					want = api.CodeAwaiting
				}
				err := p.change(by, named(opsOn(power.ActOff, picked...)))
				if api.CodeOf(err) != want || err != nil && want == "" {
					rt.Fatalf("off of %v by %s, limit %d, lost before %v: %v, want %q", picked, by, limit, lost[by], err, want)
				}
				if want != "" {
					var problem *api.Problem
					problem, _ = err.(*api.Problem) //nolint:errorlint // the client gives it as it is
					requests = append(requests, request{by, problem.Plan, s.clock().Add(time.Hour), api.PlanAwaiting})
					continue
				}
				if lost[by] == nil {
					lost[by] = map[string]time.Time{}
				}
				for _, name := range picked {
					if on[name] && limit > 0 {
						lost[by][name] = s.clock()
					}
				}
			case 2:
				s.later(time.Duration(rapid.IntRange(1, 40).Draw(rt, "minutes")) * time.Minute)
				r.mustHello()
				read()
			case 3:
				if len(requests) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(requests)-1).Draw(rt, "request")
				deny := rapid.Bool().Draw(rt, "deny")
				req := &requests[i]
				may := req.state == api.PlanAwaiting && s.clock().Before(req.until) && (deny || by != req.by)
				out, err := p.decide(by, req.id, api.DecidePlan{Deny: deny})
				again := out.DecidedBy == by && (req.state == api.PlanDenied && deny || req.state == api.PlanApplied && !deny)
				if (err == nil) != (may || again) {
					rt.Fatalf("%+v decided by %s, deny %t: %v", req, by, deny, err)
				}
				if may {
					req.state = out.State
					if want := map[bool]api.PlanState{true: api.PlanDenied, false: api.PlanApplied}[deny]; out.State != want {
						rt.Fatalf("%+v, want %s", out, want)
					}
				}
			}
		}
		found, err := p.Approvals(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		is, should := map[string]bool{}, map[string]bool{}
		for _, plan := range found {
			is[plan.ID] = true
		}
		for _, req := range requests {
			if req.state == api.PlanAwaiting && s.clock().Before(req.until) {
				should[req.id] = true
			}
		}
		if !maps.Equal(is, should) {
			rt.Fatal(fmt.Sprintf("awaiting %v, want %v", is, should))
		}
	})
}
