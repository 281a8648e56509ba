// Package front is what front ends share: doors for programs that speak another protocol
// than central's. A door translates; what it asks for are the requests of the command line,
// so that joins, order, holds, the brake, roles and the audit log count for it as well.
package front

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Fleet is central as a door needs it, asked as the command line asks. It may be used by
// many goroutines. Names are plain names of nodes, without ranges; one that no node has is an
// error, Unknown, and nothing is done then.
type Fleet interface {
	// Names lists all nodes that whoever asks may see, in natural order.
	Names(ctx context.Context) ([]string, error)
	// Read has nodes read now and waits for them, so long at most; no names: all nodes.
	Read(ctx context.Context, names []string, wait time.Duration) ([]Reading, error)
	// Operate asks for an action on nodes and returns when each has its outcome, or its
	// deadline is over; a request with Hand returns when central has it. The results are in the
	// natural order of the nodes. With an error nothing is known of any of them but
	// what the error says. Requests go on when ctx ends.
	Operate(ctx context.Context, in Request) ([]Result, error)
}

// Request asks for an action on some nodes.
type Request struct {
	Action power.Action
	Names  []string
	Reason string // for the audit log
	Hand   bool   // hand over only: do not wait for outcomes
	// Deadline is when the operations expire, from now; 0: as the door was started.
	Deadline time.Duration
}

// Reading is a node as it was read just now.
type Reading struct {
	Node  string
	State power.State // Unknown unless it was read now
	Why   string      // it is unknown; "" where it was read
}

// Result is what became of a request for one node.
type Result struct {
	Node string
	// OK is true when the outcome is success, which was verified by reading the power. With
	// Hand it is true when central took the request.
	OK   bool
	Text string // what became of it, or why nothing did
}

// Unknown is the error for names that no node has.
type Unknown struct{ Names []string }

// Error names them.
func (u Unknown) Error() string { return fmt.Sprintf("no such nodes: %s", noderange.Fold(u.Names)) }

// Group is nodes of which the same is to be said.
type Group struct {
	Nodes []string
	Text  string
}

// Line is the group in one line.
func (g Group) Line() string { return noderange.Fold(g.Nodes) + ": " + Line(g.Text) }

// Groups puts nodes together of which the same is to be said, in the order in which they come.
func Groups[T any](rows []T, say func(T) (node, text string)) []Group {
	var groups []Group
	at := map[string]int{}
	for _, row := range rows {
		node, text := say(row)
		i, known := at[text]
		if !known {
			i = len(groups)
			at[text] = i
			groups = append(groups, Group{Text: text})
		}
		groups[i].Nodes = append(groups[i].Nodes, node)
	}
	return groups
}

// Failures are the results that are no success, grouped by what became of them.
func Failures(results []Result) []Group {
	var failed []Result
	for _, r := range results {
		if !r.OK {
			failed = append(failed, r)
		}
	}
	return Groups(failed, func(r Result) (string, string) { return r.Node, r.Text })
}

// Line is a text as one line of a protocol of lines.
func Line(text string) string {
	return term.Clean(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))
}
