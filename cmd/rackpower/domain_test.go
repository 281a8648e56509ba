package main

import (
	"testing"

	"rackpower/central/api"
	"rackpower/power"
)

func TestDomains(t *testing.T) {
	f := newFake(t)
	expect(t, "none", f.run("domain list"), 0, "no node is in a power domain", "")
	f.domains = []api.Domain{
		{
			DomainState: api.DomainState{DomainLimit: api.DomainLimit{Name: "feedA", Rate: 10, Concurrent: 50}, InFlight: 3, Waiting: 7},
			Default:     true, Nodes: 40, Agents: 2,
		},
		{DomainState: api.DomainState{DomainLimit: api.DomainLimit{Name: "feedB", Rate: 0.5}}, Nodes: 8, Agents: 1},
	}
	expectExactly(t, "list", f.run("domain list"), 0, `DOMAIN  RATE   CONCURRENT  NODES  AGENTS  ON THE WAY  WAITING  LIMITS
feedA   10/s   50          40     2       3           7        default
feedB   0.5/s  no bound    8      1       0           0
`)
	expect(t, "set", f.run("domain set feedB --rate 5"), 0, "domain feedB: 5 a second, any number at once\n", "")
	expect(t, "set", f.run("domain set feedC --concurrent 20"), 0, "domain feedC: 10 a second, 20 at once\n",
		"no node is in a domain feedC yet\n")
	expect(t, "rm", f.run("domain rm feedB --reason x"), 0, "domain feedB: ", "")
	l := f.limits
	if len(l) != 3 || l[0].Rate != 5 || l[0].Concurrent != 0 || l[1].Rate != power.DefaultDomainRate || !l[2].Remove || l[2].Name != "feedB" {
		t.Errorf("%+v", l)
	}
}
