package monitor

import (
	"context"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// Host is what the monitor needs of the agent around it. Nodes, Facts, Reading, LeftAlone,
// Holds, Show and Save are called with the monitor's lock held, and must not call back; the
// others never are. Of the monitor's own methods only Rests and Ended may be called under a
// lane's lock.
type Host interface {
	// Nodes are those that are assigned, as they are desired at the time now.
	Nodes(now time.Time) []Node
	// Facts are what the node's lane knows; want is the desired state.
	Facts(node string, want power.State) Facts
	Reading(node string) power.Reading
	// LeftAlone says why the node's BMC is not in the rounds, and which other nodes have it;
	// "" where that is not so.
	LeftAlone(node string) (breakerOpen, sharedWith string)
	// Holds is why nothing is corrected for now, "" if nothing keeps it.
	Holds(now time.Time) string
	// Show has others told what the monitor makes of a node.
	Show(node string, m api.NodeMonitor)
	// Save makes durable, all or nothing, what is remembered of nodes, and the brake.
	Save(memories map[string]Memory, brake *api.Brake) error

	// ReadAll reads all nodes, the starts spread over a time, and has each compared.
	ReadAll(ctx context.Context, spread time.Duration)
	// ReadSoon has nodes read and compared at once. It does not block.
	ReadSoon(nodes []string)
	// RetryBMC forgets why the node's BMC is left alone.
	RetryBMC(node string)
	Submit(op power.Op) (api.OpReport, error)
	// DropUnwanted ends what was asked for and is not desired any more.
	DropUnwanted(nodes []Node)
	// Passed says that a pass is over: the state may be another one.
	Passed()
}

// Node is a node that is assigned.
type Node struct {
	Name    string
	Desired power.Desired
	From    string // where that comes from, in words
	// Protected is who keeps its power from being taken away, in words; "": nobody.
	Protected string
	// Source names that for comparison, and whether a person confirmed the change that led to
	// it from the source before.
	Source    func(before string) (name string, confirmed bool)
	Retry     power.Seq // the newest request to try it again
	HoldUntil time.Time // when the hold on it ends; zero: there is none, or it does not end
}

// Facts are what is outstanding on a node.
type Facts struct {
	NoLease   bool      // others can reach it as well, and the agent has no lease now
	Busy      bool      // an operation is
	Elsewhere bool      // one takes it elsewhere than to the desired state
	Cutting   bool      // a power-off that the monitor asked for is
	Changed   time.Time // when an operation last changed its power
}
