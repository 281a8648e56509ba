package api

import "time"

// A node that several agents can reach is one agent's at a time, under a lease.

// LeaseDrift is by how much, in parts of a thousand, the clocks of central and of an agent
// may differ in how fast they go: the kernel slews a clock by half of that at most.
const LeaseDrift = 1

// Drained says who wants an agent without nodes that others can reach; the zero value: nobody.
type Drained struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// On reports whether somebody does.
func (d Drained) On() bool { return d.By != "" }

// DrainAgent is the body of POST /v1/agents/{name}/drain.
type DrainAgent struct {
	// Resume has the agent given nodes again.
	Resume  bool   `json:"resume,omitempty"`
	Reason  string `json:"reason,omitempty"`
	AskedBy string `json:"asked_by,omitempty"`
}

// DrainedAgent is the answer.
type DrainedAgent struct {
	Name string `json:"name"`
	// Moving are the nodes that go to other agents, each once nothing is under way on it.
	Moving []string `json:"moving"`
	// Staying are those that no other agent can take.
	Staying []string `json:"staying"`
}

// NodeLease says how the agent of a node that several can reach has it.
type NodeLease struct {
	Epoch int64     `json:"epoch"`
	Since time.Time `json:"since"`
	// From is the agent that had it before, "" for none, and Why is why it moved.
	From string `json:"from,omitempty"`
	Why  string `json:"why,omitempty"`
	// Until is when the lease runs out that the agent was given last, by central's clock; absent:
	// it has none now.
	Until time.Time `json:"until,omitzero"`
}
