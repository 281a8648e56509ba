package agent

import (
	"errors"
	"sync"
	"time"

	"rackpower/agent/bmcpool"
	"rackpower/central/api"
	"rackpower/power"
)

// tester tests the BMCs of nodes that central asks for, each once however often it asks: a
// test may be refused, which counts towards a lock of the account.
type tester struct {
	agent *Agent
	slots chan struct{} // full: as many tests are under way as may be

	mu   sync.Mutex
	done map[string]time.Time // ids of tests that were begun, until they are forgotten
}

// testsRemembered is how long central may ask for the same test.
const testsRemembered = 10 * time.Minute

func newTester(a *Agent) *tester {
	return &tester{agent: a, slots: make(chan struct{}, a.cfg.Workers), done: map[string]time.Time{}}
}

// fresh leaves out the tests that were begun already.
func (t *tester) fresh(asked []api.AskedTest, now time.Time) (fresh []api.AskedTest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, at := range t.done {
		if now.Sub(at) > testsRemembered {
			delete(t.done, id)
		}
	}
	for _, q := range asked {
		if _, begun := t.done[q.ID]; !begun {
			t.done[q.ID] = now
			fresh = append(fresh, q)
		}
	}
	return fresh
}

// take begins the tests that are asked for: those of one BMC one after the other.
func (t *tester) take(asked []api.AskedTest) {
	groups := map[string][]api.AskedTest{}
	for _, q := range t.fresh(asked, time.Now()) {
		key := ""
		if ep, err := t.agent.assigned.endpoint(q.Node); err == nil {
			key = ep.Key()
		}
		groups[key] = append(groups[key], q)
	}
	for _, group := range groups {
		if !t.agent.begin() {
			return
		}
		go func() {
			defer t.agent.done()
			t.group(group)
		}()
	}
}

// group tests nodes of one BMC. Credentials that it refused for one are not tried for the
// next: that would be a second refusal of them.
func (t *tester) group(asked []api.AskedTest) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-t.agent.ctx.Done():
		return
	}
	refused := map[power.Endpoint]api.NodeTest{}
	for _, q := range asked {
		result := t.answer(q, refused)
		t.agent.link.toTell.tests(result)
		t.agent.tellRack()
	}
}

// answer is what comes of what central asks for.
func (t *tester) answer(q api.AskedTest, refused map[power.Endpoint]api.NodeTest) api.NodeTest {
	if q.Consumption {
		return t.consumption(q)
	}
	return t.test(q, refused)
}

// consumption reads what the node takes, in the session that is kept.
func (t *tester) consumption(q api.AskedTest) api.NodeTest {
	result := api.NodeTest{ID: q.ID, Node: q.Node, Agent: t.agent.cfg.Name, Reach: power.ReachOK, Consumption: &power.Consumption{}}
	ep, err := t.agent.assigned.endpoint(q.Node)
	if err != nil {
		result.Reach, result.Message = power.ReachUnconfigured, detailOf(err)
		return result
	}
	*result.Consumption, err = t.agent.bmcs.Get(ep).Consumption(t.agent.ctx, ep, false)
	result.At = time.Now().UTC().Round(0)
	if err != nil {
		result.Reach, result.Message = power.ReachOf(err), err.Error()
	}
	return result
}

// detailOf is an error for people.
func detailOf(err error) string {
	var end endError
	if errors.As(err, &end) {
		return end.end.Detail
	}
	return err.Error()
}

func (t *tester) test(q api.AskedTest, refused map[power.Endpoint]api.NodeTest) api.NodeTest {
	result := api.NodeTest{ID: q.ID, Node: q.Node, Agent: t.agent.cfg.Name, At: time.Now().UTC().Round(0)}
	n, _ := t.agent.assigned.get(q.Node)
	ep, err := t.agent.assigned.endpoint(q.Node)
	if q.Other != "" && err == nil {
		var ok bool
		if ep, ok = t.agent.assigned.other(q.Node); !ok || n.Other != q.Other {
			err = fail(power.ReasonNoCredentials, "node %s does not have the new credentials yet", q.Node)
		} else if t.agent.assigned.switched.uses(n.AssignedNode) { // it uses them already
			ep, err = t.agent.assigned.endpoint(q.Node)
		}
	}
	result.Credentials, result.User, result.Other = n.Credentials, ep.User, q.Other
	if err != nil {
		result.Reach, result.Message = power.ReachUnconfigured, detailOf(err)
		return result
	}
	login := ep
	login.Target, login.Channel = 0, 0
	if before, same := refused[login]; same {
		result.Reach, result.Message = before.Reach, "not tried: the BMC has just refused them for node "+before.Node
		return result
	}
	result.TestResult, result.Tried, err = t.agent.bmcs.Get(ep).Test(t.agent.ctx, ep)
	if result.Reach = power.ReachOf(err); err != nil {
		result.Message = err.Error()
	}
	if bmcpool.RefusedLogIn(err) || result.Reach == power.ReachPrivilege {
		refused[login] = result
	}
	return result
}

// took tells central that a BMC took the other credentials of a node, which it uses now.
func (t *tester) took(n api.AssignedNode) {
	t.agent.link.toTell.tests(api.NodeTest{
		Node: n.Name, At: time.Now().UTC().Round(0), Reach: power.ReachOK, Tried: true, Credentials: n.Credentials, User: n.OtherUser,
		Other: n.Other,
	})
	t.agent.tellRack()
}
