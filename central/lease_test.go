package central

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// leaseSite is a site of two agents and a node that both can reach.
type leaseSite struct {
	*site
	one, two *rack
}

func newLeaseSite(t *testing.T) leaseSite {
	t.Helper()
	s := newSite(t)
	one, two := s.rack("r1"), s.rack("r2")
	if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: []api.NodeSpec{
		{Name: "a", Rack: "r1", Agents: []string{"r1", "r2"}, BMC: "ipmi://admin@192.0.2.7", Password: "secret"},
		{Name: "own", Rack: "r1", BMC: "ipmi://admin@192.0.2.8", Password: "secret"},
	}}); err != nil {
		t.Fatal(err)
	}
	l := leaseSite{s, one, two}
	l.passes(leaseRunsOut, one, two)
	return l
}

// ask polls for a lease at once.
func (r *rack) leasePoll(holdsBack ...string) api.Assignment {
	r.s.t.Helper()
	p := r.request(0)
	p.AppliedRev, p.Unreleased, p.Lease = r.rev, holdsBack, true
	a, err := r.s.Poll(context.Background(), r.name, p)
	if err != nil {
		r.s.t.Fatal(err)
	}
	r.took(a)
	return a
}

// passes lets time pass, in which the agents poll, and central looks after leases.
func (l leaseSite) passes(d time.Duration, polling ...*rack) {
	l.t.Helper()
	for until := l.clock().Add(d); l.clock().Before(until); l.later(time.Second) {
		for _, r := range polling {
			r.leasePoll()
		}
		l.c.manageLeases(context.Background())
	}
}

// TestALeasedNodeGoesToTheNextAgent once the agent that has it is silent and its lease is over by any
// clock, with what was outstanding.
func TestALeasedNodeGoesToTheNextAgent(t *testing.T) {
	l := newLeaseSite(t)
	if a := l.one.leasePoll(); a.Lease != leaseLasts {
		t.Fatalf("r1 has no lease: %+v", a)
	}
	first := l.node("a").Lease
	if first == nil || first.Epoch == 0 || first.Until.IsZero() {
		t.Fatalf("%+v", first)
	}
	if own := l.node("own"); own.Lease != nil {
		t.Errorf("a node with one agent has a lease: %+v", own.Lease)
	}
	on, reset := l.one.deliver("a", power.ActOn), l.one.deliver("a", power.ActReset)
	l.one.mustReport(l.one.running(on), l.one.waiting(reset))

	last := l.clock()
	l.one.leasePoll()
	fresh := l.ask("a", power.ActOff, func(r *api.OpRequest) { r.IfBusy = power.Queue })
	for {
		l.passes(time.Second, l.two)
		if got := l.two.leasePoll(); hasNode(got, "a") {
			if waited := l.clock().Sub(last); waited < leaseRunsOut || waited > leaseRunsOut+leaseSilent+5*time.Second {
				t.Errorf("r2 has the node %s after r1 polled last", waited)
			}
			if !slices.Contains(got.Handed, on.ID) || slices.Contains(got.Handed, fresh.ID) || ids(got.Ops) != " "+on.ID+" "+fresh.ID {
				t.Errorf("handed %v of%s", got.Handed, ids(got.Ops))
			}
			break
		}
		if l.clock().Sub(last) > time.Minute {
			t.Fatal("nobody has the node")
		}
	}
	if a := l.two.leasePoll(); a.Lease != leaseLasts {
		t.Errorf("r2 has no lease: %+v", a)
	}
	next := l.node("a")
	if next.Agent != "r2" || next.Lease.Epoch <= first.Epoch || next.Lease.From != "r1" || !strings.Contains(next.Lease.Why, "silent") {
		t.Errorf("%s, %+v", next.Agent, next.Lease)
	}
	if o := l.op(reset.ID); o.Outcome != power.Indeterminate || o.Why != power.ReasonLost {
		t.Errorf("the reset: %+v", o)
	}
	if n := l.node("own"); n.Agent != "r1" {
		t.Errorf("a node with one agent moved to %s", n.Agent)
	}

	// r1 comes back with what it knows: the two stories become one.
	if a := l.one.leasePoll(); !slices.Contains(a.Removed, "a") || a.Lease != 0 {
		t.Errorf("r1 is told %+v", a)
	}
	given := l.one.ended(on, power.Cancelled)
	given.End.Reason = power.ReasonTakenOver
	l.one.mustReport(l.one.ended(reset, power.Succeeded), given)
	if o := l.op(reset.ID); o.Outcome != power.Succeeded {
		t.Errorf("the reset, which r1 had carried out: %+v", o)
	}
	if o := l.op(on.ID); o.Outcome != "" {
		t.Errorf("r2 goes on with it: %+v", o)
	}
	l.two.mustReport(l.two.ended(on, power.Succeeded))
	if o := l.op(on.ID); o.Outcome != power.Succeeded || o.Rack != "r2" {
		t.Errorf("%+v", o)
	}
	if a := l.agent("r1"); a.ForeignReports != 0 {
		t.Errorf("%d reports of r1 are not its own", a.ForeignReports)
	}
}

// TestTheAgentBeforeKnewTheEnd: an operation that it had carried out has that end, whatever the next one
// says of it later.
func TestTheAgentBeforeKnewTheEnd(t *testing.T) {
	for _, first := range []power.Outcome{power.Succeeded, power.Failed} {
		l := newLeaseSite(t)
		on := l.one.deliver("a", power.ActOn)
		l.one.mustReport(l.one.running(on))
		for l.node("a").Agent != "r2" || l.op(on.ID).Rack != "r2" {
			l.passes(time.Second, l.two)
		}
		l.one.mustReport(l.one.ended(on, first))
		// That it failed there says nothing of what the next one makes of it.
		want := map[power.Outcome]power.Outcome{power.Succeeded: power.Succeeded}[first]
		if o := l.op(on.ID); o.Outcome != want {
			t.Errorf("r1 says %s: %+v", first, o)
		}
		l.two.mustReport(l.two.ended(on, power.Succeeded))
		if o := l.op(on.ID); o.Outcome != power.Succeeded {
			t.Errorf("r1 says %s, r2 that it succeeded: %+v", first, o)
		}
		if a := l.agent("r1"); a.ForeignReports != 0 {
			t.Errorf("%d reports of r1 are not its own", a.ForeignReports)
		}
	}
}

// TestCredentialsOfARackReachWhoHasItsNodes, though that is another rack's agent.
func TestCredentialsOfARackReachWhoHasItsNodes(t *testing.T) {
	s := newSite(t)
	one, two := s.rack("r1"), s.rack("r2")
	s.credentials("lab", "admin", "lab-1")
	s.withNodes(api.NodeSpec{Name: "a", Rack: "r1", Agents: []string{"r2"}})
	one.poll()
	for range 2 {
		two.poll()
	}
	name := "lab"
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Credentials: &name}); err != nil {
		t.Fatal(err)
	}
	told := func(what, want string) {
		t.Helper()
		if got := logIns(two.poll()); got["a"] != want {
			t.Errorf("%s: r2 is told %q, want %q", what, got["a"], want)
		}
	}
	told("the rack names credentials", "admin lab-1 lab")
	s.credentials("lab", "admin", "lab-2")
	told("they are changed", "admin lab-2 lab")
}

// TestNoLeaseIsGivenTooEarly: neither in the first time of a process of central, which knows nothing of
// leases of before, nor for an assignment that is not the newest, nor to another process of the name.
func TestNoLeaseIsGivenTooEarly(t *testing.T) {
	l := newLeaseSite(t)
	l.restart()
	if a := l.one.leasePoll(); a.Lease != 0 {
		t.Errorf("central gives a lease at its start: %+v", a)
	}
	l.passes(leaseRunsOut-2*time.Second, l.one, l.two)
	if a := l.one.leasePoll(); a.Lease != 0 {
		t.Errorf("central gives a lease before those of before are over: %+v", a)
	}
	l.passes(3*time.Second, l.one, l.two)
	if a := l.one.leasePoll(); a.Lease == 0 {
		t.Errorf("central gives no lease: %+v", a)
	}
	l.status(power.StatusReady, "a")
	if a := l.one.leasePoll(); a.Lease != 0 || len(a.Nodes) == 0 {
		t.Errorf("a lease came with an assignment that the agent does not hold yet: %+v", a)
	}
	l.one.leasePoll()
	l.later(silentFor)
	l.one.run, l.one.epoch = "another process", l.one.epoch+1
	l.one.mustHello()
	if a := l.one.leasePoll(); a.Lease != 0 {
		t.Errorf("another process has a lease beside the one before: %+v", a)
	}
	l.passes(leaseRunsOut+time.Second, l.one)
	if a := l.one.leasePoll(); a.Lease == 0 {
		t.Errorf("the new process has no lease: %+v", a)
	}
}

// TestADrainedAgentLetsGo: its nodes go one by one when nothing is under way, without a wait for leases.
func TestADrainedAgentLetsGo(t *testing.T) {
	l := newLeaseSite(t)
	op := l.one.deliver("a", power.ActOn)
	l.one.mustReport(l.one.running(op))
	out, err := l.DrainAgent(context.Background(), "r1", api.DrainAgent{Reason: "new disk"})
	if err != nil || !slices.Equal(out.Moving, []string{"a"}) || !slices.Equal(out.Staying, []string{"own"}) {
		t.Fatalf("%+v, %v", out, err)
	}
	l.passes(3*time.Second, l.one, l.two)
	if n := l.node("a"); n.Agent != "r1" {
		t.Fatalf("the node went to %s with an operation under way", n.Agent)
	}
	l.one.mustReport(l.one.ended(op, power.Succeeded))
	l.passes(3*time.Second, l.one, l.two)
	if n := l.node("a"); n.Agent != "r2" || n.Waits == power.ReasonMoving || !strings.Contains(n.Lease.Why, "drained") {
		t.Fatalf("%+v, %+v", n, n.Lease)
	}
	if a := l.agent("r1"); a.Drained == nil || a.Leased != 0 {
		t.Errorf("%+v", a)
	}
	if _, err := l.DrainAgent(context.Background(), "r1", api.DrainAgent{Resume: true}); err != nil {
		t.Fatal(err)
	}
	l.passes(leaseReturns+3*time.Second, l.one, l.two)
	if n := l.node("a"); n.Agent != "r1" || !strings.Contains(n.Lease.Why, "preferred") {
		t.Errorf("%s, %+v", n.Agent, n.Lease)
	}
}

// TestAForgottenAgentsNodesGoToOthers where one can reach them; the rest is freed by name.
func TestAForgottenAgentsNodesGoToOthers(t *testing.T) {
	l := newLeaseSite(t)
	l.passes(2*time.Second, l.one, l.two)
	l.later(l.c.cfg.Away)
	l.two.leasePoll()
	out, err := l.ForgetAgent(context.Background(), "r1", api.ForgetAgent{Reason: "sold"})
	if err != nil || !slices.Equal(out.Given, []string{"a"}) || !slices.Equal(out.Nodes, []string{"own"}) {
		t.Fatalf("%+v, %v", out, err)
	}
	if n := l.node("a"); n.Agent != "r2" || n.Waits != power.ReasonMoving {
		t.Errorf("before the lease is over: %+v", n)
	}
	l.passes(leaseRunsOut+2*time.Second, l.two)
	if n := l.node("a"); n.Agent != "r2" || n.Waits == power.ReasonMoving {
		t.Errorf("%+v", n)
	}
}

// TestAnOldAgentIsGivenNoLeasedNode, and loses those that it has.
func TestAnOldAgentIsGivenNoLeasedNode(t *testing.T) {
	l := newLeaseSite(t)
	if _, err := l.c.hello(helloRequest(t, "r1"), api.Hello{
		Protocol: api.ProtocolCap, JournalID: l.one.journal, Epoch: l.one.epoch, LSN: l.one.lsn, Run: l.one.run,
	}); err != nil {
		t.Fatal(err)
	}
	n := l.node("a")
	if n.Agent != "" {
		t.Fatalf("an agent of an older version has %+v", n)
	}
	l.passes(3*time.Second, l.two)
	if n := l.node("a"); n.Agent != "r2" || n.Waits != power.ReasonMoving {
		t.Errorf("%+v", n)
	}
	l.passes(2*leaseRunsOut, l.two)
	if n := l.node("a"); n.Waits != power.ReasonMoving {
		t.Errorf("an agent that knows no leases was not waited for: %+v", n)
	}
}

// TestChoose holds which agent a node should have to its cases.
func TestChoose(t *testing.T) {
	good, fresh, bad := fitness{steady: true}, fitness{}, fitness{not: "is silent"}
	for _, c := range []struct {
		what, agents, has, want string
		fit                     map[string]fitness
	}{
		{"all are well", "r1,r2", "r1", "r1", map[string]fitness{"r1": good, "r2": good}},
		{"its agent is silent", "r1,r2", "r1", "r2", map[string]fitness{"r1": bad, "r2": fresh}},
		{"all are silent", "r1,r2", "r1", "r1", map[string]fitness{"r1": bad, "r2": bad}},
		{"the preferred one is just back", "r1,r2", "r2", "r2", map[string]fitness{"r1": fresh, "r2": good}},
		{"the preferred one is back for long", "r1,r2", "r2", "r1", map[string]fitness{"r1": good, "r2": good}},
		{"a less preferred one is as well", "r1,r2,r3", "r1", "r1", map[string]fitness{"r1": fresh, "r2": good, "r3": good}},
		{"the order counts", "r3,r2", "r1", "r3", map[string]fitness{"r2": good, "r3": good, "r1": good}},
		{"one is left", "r2", "r1", "r2", map[string]fitness{"r1": good, "r2": bad}},
		{"it has none", "r1,r2", "", "r2", map[string]fitness{"r1": bad, "r2": good}},
	} {
		got, why := choose(strings.Split(c.agents, ","), c.has, func(a string) fitness { return c.fit[a] })
		if got != c.want || (why == "") != (got == c.has) {
			t.Errorf("%s: %s (%s), want %s", c.what, got, why, c.want)
		}
	}
}

// helloRequest is a request of an agent that is not of this version.
func helloRequest(t *testing.T, agent string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/agents/"+agent+"/hello", nil).WithContext(t.Context())
	r.SetPathValue("name", agent)
	return r
}
