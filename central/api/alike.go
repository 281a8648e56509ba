package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"rackpower/power"
	"rackpower/power/noderange"
)

// NodesAlike are nodes of which there is the same to say of their power.
type NodesAlike struct {
	First string `json:"first"` // of their names, by which groups are in order
	Nodes string `json:"nodes"` // folded
	Count int    `json:"count"`
	// Like is each of them, without what is of one alone: it has State, Reach, Stale, Pending, Drift, Waits,
	// Fault, and of Op the action, who asked, the phase and the note.
	Like Node `json:"like"`
}

// Folding puts nodes together that are alike. Its zero value has none.
type Folding struct {
	at     map[likeness]int
	groups []NodesAlike
	names  [][]string
}

// likeness is what nodes that are alike have in common.
type likeness struct {
	state                 power.State
	reach                 power.Reach
	stale, pending, drift bool
	waits                 power.Reason
	fault                 string
	op                    OpBrief // its zero value where there is none
}

// Add adds a node.
func (f *Folding) Add(n *Node) {
	l := likeness{
		state: n.State, reach: n.Reach, stale: n.Stale, pending: n.Pending, drift: n.Drift, waits: n.Waits, fault: n.Fault,
	}
	if n.Op != nil {
		l.op = OpBrief{Action: n.Op.Action, AskedBy: n.Op.AskedBy, Phase: n.Op.Phase, AgentNote: n.Op.AgentNote}
	}
	i, known := f.at[l]
	if !known {
		if f.at == nil {
			f.at = map[likeness]int{}
		}
		i, f.at[l] = len(f.groups), len(f.groups)
		like := Node{
			State: l.state, Reach: l.reach, Stale: l.stale, Pending: l.pending, Drift: l.drift, Waits: l.waits, Fault: l.fault,
		}
		if n.Op != nil {
			like.Op = &l.op
		}
		f.groups, f.names = append(f.groups, NodesAlike{Like: like}), append(f.names, nil)
	}
	f.groups[i].Count++
	f.names[i] = append(f.names[i], n.Name)
}

// Groups returns what is alike, in the order of the first node of each.
func (f *Folding) Groups() []NodesAlike {
	order := make([]int, len(f.groups))
	for i, names := range f.names {
		order[i] = i
		noderange.Sort(names)
		f.groups[i].First, f.groups[i].Nodes = names[0], noderange.Fold(names)
	}
	slices.SortFunc(order, func(a, b int) int { return noderange.Compare(f.names[a][0], f.names[b][0]) })
	out := make([]NodesAlike, len(order))
	for i, at := range order {
		out[i] = f.groups[at]
	}
	return out
}

// NodesAlike puts the nodes that the expression selects together where they are alike.
func (c *Client) NodesAlike(ctx context.Context, expr string) ([]NodesAlike, error) {
	return list[NodesAlike](ctx, c, "/v1/nodes/alike?select="+url.QueryEscape(expr))
}

// FirstNodes returns the first nodes that the expression selects, at most so many, and whether
// there are more.
func (c *Client) FirstNodes(ctx context.Context, expr string, most int) (nodes []Node, more bool, err error) {
	most = min(most, MaxPage-1)
	nodes, err = call[[]Node](ctx, c, http.MethodGet, fmt.Sprintf("/v1/nodes?select=%s&limit=%d", url.QueryEscape(expr), most+1), nil)
	return nodes[:min(len(nodes), most)], len(nodes) > most, err
}
