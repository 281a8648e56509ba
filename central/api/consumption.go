package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"rackpower/power"
)

// ReadConsumption is the body of POST /v1/power: have the BMCs say how much power the nodes
// take, and what limits that. The answer is a Consumption, when all were read or after Wait.
type ReadConsumption struct {
	Names []string      `json:"names"`
	Wait  time.Duration `json:"wait,omitempty"` // default 30 s, at most 60 s
}

// Validate says what is wrong by itself.
func (in ReadConsumption) Validate() error {
	if in.Wait < 0 {
		return errors.New("wait is negative")
	}
	return nil
}

// Consumption is what nodes take, in the order of the nodes, with the sums over what was read.
type Consumption struct {
	Nodes   []NodeConsumption `json:"nodes"`
	Racks   []ConsumptionSum  `json:"racks"`
	Domains []ConsumptionSum  `json:"domains"` // of the nodes that have a power domain
	Total   ConsumptionSum    `json:"total"`
}

// NodeConsumption is what one node takes.
type NodeConsumption struct {
	Node   string `json:"node"`
	Rack   string `json:"rack"`
	Domain string `json:"domain"`
	// Reach is ok where the BMC gave a reading; never: it was not asked.
	Reach  power.Reach `json:"reach"`
	ReadAt *time.Time  `json:"read_at"` // null: it was not read
	power.Consumption
	Message string `json:"message"` // what is wrong; "": nothing
}

// ConsumptionSum is what the nodes of a rack or of a power domain take together.
type ConsumptionSum struct {
	Name  string `json:"name"`
	Nodes int    `json:"nodes"`
	Read  int    `json:"read"`  // nodes of which Watts is the sum
	Watts int    `json:"watts"` // now
	// Limited is how many of the nodes have a limit that holds, and LimitWatts their sum.
	Limited    int `json:"limited"`
	LimitWatts int `json:"limit_watts"`
}

// Add counts a node.
func (s *ConsumptionSum) Add(n NodeConsumption) {
	s.Nodes++
	if n.Watts != nil {
		s.Read++
		s.Watts += *n.Watts
	}
	if n.Limit != nil && n.Limit.Now() > 0 {
		s.Limited++
		s.LimitWatts += n.Limit.Now()
	}
}

// Consumption has nodes' BMCs say how much power the nodes take.
func (c *Client) Consumption(ctx context.Context, in ReadConsumption) (Consumption, error) {
	return waiting[Consumption](ctx, c, cmp.Or(in.Wait, DefaultTestWait), http.MethodPost, "/v1/power", in)
}
