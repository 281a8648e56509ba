package central

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power/noderange"
)

// readConsumption has agents read what nodes take, as a test is asked for, and sums it.
func (c *Central) readConsumption(r *http.Request, in api.ReadConsumption) (api.Consumption, error) {
	if in.Wait == 0 {
		in.Wait = api.DefaultTestWait
	}
	var nodes []store.Node
	err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		nodes, err = find(tx, in.Names)
		return err
	})
	if err != nil {
		return api.Consumption{}, err
	}
	tests := make([]api.NodeTest, len(nodes))
	answers := make([]<-chan api.NodeTest, len(nodes))
	now := c.cfg.Now()
	for i, n := range inOrder(nodes) {
		if tests[i] = c.untested(n, now); tests[i].Message != "" {
			continue
		}
		session := c.sessions.of(n.Agent)
		if tests[i].Message = session.tooOld(api.ProtocolCap); tests[i].Message != "" {
			continue
		}
		answer, done := askAgent(session, session.tests, testKey(n.Name, "", true))
		defer done()
		answers[i] = answer
	}
	if err := c.awaitTests(r, in.Wait, answers, tests); err != nil {
		return api.Consumption{}, err
	}
	out := make([]api.NodeConsumption, len(nodes))
	for i, n := range nodes {
		out[i] = consumptionOf(n, tests[i])
	}
	return sumUp(out), nil
}

// consumptionOf is what was read of a node.
func consumptionOf(n store.Node, t api.NodeTest) api.NodeConsumption {
	out := api.NodeConsumption{Node: n.Name, Rack: n.Rack, Domain: n.Domain, Reach: t.Reach, Message: t.Message}
	if t.Consumption != nil && t.Message == "" {
		out.Consumption, out.ReadAt = *t.Consumption, &t.At
	}
	return out
}

// sumUp sums over the racks, the power domains and all of the nodes.
func sumUp(nodes []api.NodeConsumption) api.Consumption {
	racks, domains := map[string]*api.ConsumptionSum{}, map[string]*api.ConsumptionSum{}
	out := api.Consumption{Nodes: nodes, Total: api.ConsumptionSum{Name: "all"}}
	for _, n := range nodes {
		out.Total.Add(n)
		addTo(racks, n.Rack, n)
		if n.Domain != "" {
			addTo(domains, n.Domain, n)
		}
	}
	out.Racks, out.Domains = inNameOrder(racks), inNameOrder(domains)
	return out
}

func addTo(sums map[string]*api.ConsumptionSum, name string, n api.NodeConsumption) {
	if sums[name] == nil {
		sums[name] = &api.ConsumptionSum{Name: name}
	}
	sums[name].Add(n)
}

func inNameOrder(sums map[string]*api.ConsumptionSum) []api.ConsumptionSum {
	out := []api.ConsumptionSum{}
	for _, name := range slices.SortedFunc(maps.Keys(sums), noderange.Compare) {
		out = append(out, *sums[name])
	}
	return out
}

// tooOld says that the agent is of a version before a protocol; "": it is not, or that is not
// known since central has just started.
func (d *agentSession) tooOld(protocol int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.greets || d.speaks >= protocol {
		return ""
	}
	return fmt.Sprintf("agent %s is of an older version, which cannot do this: upgrade it", d.name)
}
