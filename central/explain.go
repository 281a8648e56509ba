package central

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// defaultExplainWait is how long an agent may take to explain a node.
const defaultExplainWait = 5 * time.Second

// endedShown is how many operations that ended an explanation of central's shows.
const endedShown = 5

// known is what central knows of a node, all of one moment.
type known struct {
	node  store.Node
	ops   []store.Op // outstanding, and the newest that ended
	state *api.RackState
	set   api.RackSettings
}

func (c *Central) knowledge(r *http.Request, name string) (k known, err error) {
	err = c.store.View(r.Context(), func(tx *store.Tx) error {
		nodes, err := find(tx, []string{name})
		if err != nil {
			return err
		}
		k.node = nodes[0]
		newest, err := tx.FindOps(api.QueryOps{Nodes: []string{name}, Limit: endedShown})
		if err != nil {
			return err
		}
		if k.ops, err = tx.OpenOpsOn([]string{name}); err != nil {
			return err
		}
		ended := slices.DeleteFunc(newest, func(o store.Op) bool { return o.Stage() != store.StageEnded })
		k.ops = append(ended, k.ops...)
		a, err := knownRack(tx, k.node.Agent)
		if err != nil {
			return err
		}
		if k.state, err = a.State(); err != nil {
			return err
		}
		k.set, err = settings(tx, a)
		return err
	})
	return k, err
}

// explain asks the node's agent why it is as it is. Central answers by itself when
// the agent is away or silent.
func (c *Central) explain(r *http.Request) (api.Explanation, error) {
	name := r.PathValue("name")
	k, err := c.knowledge(r, name)
	if err != nil {
		return api.Explanation{}, err
	}
	agent := k.node.Agent
	if note := c.waitsNote(k.node.WaitsFor, c.cfg.Now()); note != "" {
		return c.ownExplanation(k, note), nil
	}
	if p := c.presence(agent); p.Absent() {
		return c.ownExplanation(k, agentIs(agent, p, c.cfg.Now())), nil
	}
	d := c.sessions.of(agent)
	answer, done := askAgent(d, d.asked, name)
	defer done()
	resume, err := idle(r.Context())
	if err != nil {
		return api.Explanation{}, err
	}
	timer := time.NewTimer(c.explainWait)
	defer timer.Stop()
	select {
	case e := <-answer:
		if err := resume(); err != nil {
			return api.Explanation{}, err
		}
		if k, err = c.knowledge(r, name); err != nil {
			return api.Explanation{}, err
		}
		return c.enrich(e, k), nil
	case <-timer.C:
		return c.ownExplanation(k, fmt.Sprintf("agent %s did not answer within %s", agent, c.explainWait)), nil
	case <-c.stop:
		return api.Explanation{}, errStopping
	case <-r.Context().Done():
		return api.Explanation{}, r.Context().Err()
	}
}

// enrich adds to an agent's explanation what only central knows: requests that the
// agent does not have yet.
func (c *Central) enrich(e api.Explanation, k known) api.Explanation {
	now := c.cfg.Now()
	e.Agent, e.Protected = k.node.Agent, api.ShowProtection(k.node.Protected)
	sayDamaged(&e, k.node)
	has := map[string]bool{}
	for _, o := range e.Ops {
		has[o.ID] = true
	}
	taken := 0
	for i := range k.ops {
		if o := &k.ops[i]; o.Stage() == store.StageTaken && !has[o.ID] {
			e.Ops = append(e.Ops, c.show(o, now))
			taken++
		}
	}
	if taken > 0 {
		e.Message = fmt.Sprintf("%s. %d more at central, not at the agent yet.", strings.TrimSuffix(e.Message, "."), taken)
	}
	return withLists(e)
}

// withLists has empty lists shown as such.
func withLists(e api.Explanation) api.Explanation {
	if e.Ops == nil {
		e.Ops = []api.Op{}
	}
	if e.RecentReadings == nil {
		e.RecentReadings = []api.ReadingRun{}
	}
	if e.RecentDecisions == nil {
		e.RecentDecisions = []api.Decision{}
	}
	return e
}

// ownExplanation is what central knows by itself; away says why the agent's part is
// missing.
func (c *Central) ownExplanation(k known, away string) api.Explanation {
	now, n := c.cfg.Now(), k.node
	e := api.Explanation{
		Node: n.Name, Agent: n.Agent, Away: away, At: now.UTC(), Status: n.Status, Desired: power.Effective(n.Status, n.Hold, now),
		DesiredFrom: power.DesiredFrom(n.Status, n.Hold, now), Hold: api.ShowHold(n.Hold, now), Reading: n.Reading, Monitor: n.Monitor,
		Rack: deref(k.state), Protected: api.ShowProtection(n.Protected),
	}
	if n.BMC == "" {
		e.Reading.Reach = power.ReachUnconfigured
	}
	if k.set.Pause.Active(now) {
		e.Rack.Pause = k.set.Pause
	}
	for _, d := range e.Rack.Domains {
		if d.Name == n.Domain {
			e.Domain = &d
		}
	}
	for i := range k.ops {
		e.Ops = append(e.Ops, c.show(&k.ops[i], now))
	}
	if n.Shared != "" {
		e.BMC = &api.BMCState{Address: n.BMC, SharedWith: n.Shared}
	}
	e.Message = e.Summary(time.Time{})
	sayDamaged(&e, n)
	return withLists(e)
}

// sayDamaged has an explanation say that the node's password does not open.
func sayDamaged(e *api.Explanation, n store.Node) {
	note := damagedNote(n)
	if note == "" {
		return
	}
	e.Monitor.Waits, e.Monitor.WaitsMessage = power.ReasonDamaged, note
	e.Message = fmt.Sprintf("%s Nothing acts on it: %s.", e.Message, note)
}
