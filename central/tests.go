package central

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// testNodes has agents log in to BMCs, once each, and waits for what these answer.
func (c *Central) testNodes(r *http.Request, in api.TestNodes) ([]api.NodeTest, error) {
	if in.Wait == 0 {
		in.Wait = api.DefaultTestWait
	}
	var nodes []store.Node
	others := map[string]string{}
	err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		if nodes, err = find(tx, in.Names); err != nil || !in.New {
			return err
		}
		u := c.unitOfWork(tx, c.cfg.Now(), "")
		for _, n := range nodes {
			cred, err := u.rotationOf(n)
			if err != nil {
				return err
			}
			if cred.NextUser != "" && !n.Took.Equal(cred.NextAt) {
				others[n.Name] = otherID(cred, false)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]api.NodeTest, len(nodes))
	answers := make([]<-chan api.NodeTest, len(nodes))
	now := c.cfg.Now()
	for i, n := range inOrder(nodes) {
		if out[i] = c.untested(n, now); out[i].Message != "" {
			continue
		}
		other := ""
		if in.New {
			if other = others[n.Name]; other == "" {
				out[i].Message = "its credentials are not being replaced, or it uses the new ones"
				continue
			}
		}
		d := c.sessions.of(n.Agent)
		answer, done := askAgent(d, d.tests, testKey(n.Name, other, false))
		defer done()
		answers[i] = answer
	}
	if err := c.awaitTests(r, in.Wait, answers, out); err != nil {
		return nil, err
	}
	return out, c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		return u.audit("test", "", "", testedWords(out))
	})
}

// untested is a node before its agent is asked about it, with a message where that cannot be.
func (c *Central) untested(n store.Node, now time.Time) api.NodeTest {
	t := api.NodeTest{Node: n.Name, Agent: n.Agent, Reach: power.ReachNever}
	away := c.presence(n.Agent)
	switch note := c.waitsNote(n.WaitsFor, now); {
	case n.BMC == "":
		t.Reach, t.Message = power.ReachUnconfigured, "no BMC is known for the node"
	case n.Damaged() != "":
		t.Message = damagedNote(n)
	case note != "":
		t.Message = note
	case away.Absent():
		t.Message = agentIs(n.Agent, away, now)
	}
	return t
}

// awaitTests fills in the answers as they come.
func (c *Central) awaitTests(r *http.Request, wait time.Duration, answers []<-chan api.NodeTest, out []api.NodeTest) error {
	resume, err := idle(r.Context())
	if err != nil {
		return err
	}
	timer := time.NewTimer(min(wait, maxWait))
	defer timer.Stop()
	late := false
	for i, answer := range answers {
		if answer == nil {
			continue
		}
		if late { // what has come by now counts
			select {
			case out[i] = <-answer:
			default:
				out[i].Message = fmt.Sprintf("agent %s did not answer within %s", out[i].Agent, wait)
			}
			continue
		}
		select {
		case out[i] = <-answer:
		case <-timer.C:
			late = true
			out[i].Message = fmt.Sprintf("agent %s did not answer within %s", out[i].Agent, wait)
		case <-c.stop:
			return errStopping
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	return resume()
}

// testedWords says for the audit log which nodes were tested, and what came of it.
func testedWords(all []api.NodeTest) string {
	names := map[power.Reach][]string{}
	for _, t := range all {
		names[t.Reach] = append(names[t.Reach], t.Node)
	}
	var parts []string
	for reach, nodes := range names {
		parts = append(parts, fmt.Sprintf("%s: %s", reach, noderange.Fold(nodes)))
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// question is what somebody wants of an agent about a node: an explanation, a test.
type question[T any] struct {
	id      string
	sent    time.Time // to the agent; zero: not yet
	waiting []chan T
}

// questions are those that have no answer yet, by node. The session's lock guards them.
type questions[T any] map[string]*question[T]

// ask has one asked, or joins the one that is. The channel gets the first answer.
func (qs questions[T]) ask(node string) chan T {
	ch := make(chan T, 1)
	if qs[node] == nil {
		qs[node] = &question[T]{id: uuid.NewString()}
	}
	qs[node].waiting = append(qs[node].waiting, ch)
	return ch
}

// leave notes that an answer is no longer waited for.
func (qs questions[T]) leave(node string, ch chan T) {
	q := qs[node]
	if q == nil {
		return
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(c chan T) bool { return c == ch })
	if len(q.waiting) == 0 {
		delete(qs, node)
	}
}

// answer gives an answer to those who wait for it.
func (qs questions[T]) answer(node string, v T) {
	q := qs[node]
	if q == nil {
		return
	}
	for _, ch := range q.waiting {
		ch <- v // has room for one, and is answered once
	}
	delete(qs, node)
}

// due are the nodes whose questions must be sent (again).
func (qs questions[T]) due(g *snapshot, now time.Time) (nodes []string) {
	for node, q := range qs {
		if g.due(q.sent, now) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// sent notes that questions are on their way to the agent, or, with no time, that they may
// have been lost.
func (qs questions[T]) sent(nodes []string, at time.Time) {
	for _, node := range nodes {
		if q := qs[node]; q != nil {
			q.sent = at
		}
	}
}

func (qs questions[T]) unsent() {
	for _, q := range qs {
		q.sent = time.Time{}
	}
}

// testKey names what is asked of an agent in a test; askedTest is the way back.
func testKey(node, other string, consumption bool) string {
	key := node + "/" + other
	if consumption {
		key += "/" + askConsumption
	}
	return key
}

const askConsumption = "consumption"

func askedTest(key string) (q api.AskedTest) {
	parts := strings.Split(key, "/")
	q.Node, q.Other = parts[0], parts[1]
	q.Consumption = len(parts) > 2
	return q
}

// askAgent asks one of the questions of a session. The channel gets the first answer; done must be
// called when it is no longer waited for.
func askAgent[T any](d *agentSession, qs questions[T], key string) (answer <-chan T, done func()) {
	var ch chan T
	d.update(func() { ch = qs.ask(key) })
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		qs.leave(key, ch)
	}
}

// tested gives the agent's answers to those who wait for them.
func (d *agentSession) tested(all []api.NodeTest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range all {
		key := testKey(t.Node, t.Other, t.Consumption != nil)
		if q := d.tests[key]; q != nil && q.id == t.ID {
			t.Agent = d.name
			d.tests.answer(key, t)
		}
	}
}
