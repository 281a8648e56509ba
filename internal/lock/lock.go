// Package lock has mutexes that know their rank in the order of the agent's locks. A
// goroutine that holds one may only lock others of a higher rank. With the build tag
// lockrank a violation panics, whether or not it leads to a deadlock that time; without
// the tag a [Mutex] is a [sync.Mutex] that costs nothing more.
//
// docs/architecture.md explains the order.
package lock

// Ranked is the rank of a lock: it is implemented by the types below.
type Ranked interface{ rank() int }

// The ranks, from the lock that is taken first to those that are taken last. Locks of one
// rank are never held together.
type (
	// News is what central has not heard of the rack.
	News struct{}
	// Monitor is a pass of the monitor.
	Monitor struct{}
	// Lane is the operations of one node.
	Lane struct{}
	// Agent is the lanes and goroutines of the agent.
	Agent struct{}
	// Assigned is what central assigned, for those who change it.
	Assigned struct{}
	// Leaving is the operations of nodes that are no longer assigned.
	Leaving struct{}
	// IDs is the ids of operations.
	IDs struct{}
	// Outbox is the outcomes that central has not acknowledged.
	Outbox struct{}
	// Ends is the operations that ended since the last pass of the monitor.
	Ends struct{}
	// Limiter is the queues of the power domains.
	Limiter struct{}
	// Readings is the newest readings.
	Readings struct{}
	// Pool is the BMCs of the rack.
	Pool struct{}
	// BMC is the session and the breaker of one BMC.
	BMC struct{}
	// Addresses is the addresses of BMCs that are given by name.
	Addresses struct{}
	// Permit is whether central lets this process act.
	Permit struct{}
	// Gate is what may not happen before something is known.
	Gate struct{}
	// Sealing is the key that seals passwords.
	Sealing struct{}
	// Notes is what drivers must know of BMCs after a crash.
	Notes struct{}
	// Alarms is the alarms of the agent, which the journals raise, too.
	Alarms struct{}
)

func (News) rank() int      { return 1 }
func (Monitor) rank() int   { return 2 }
func (Lane) rank() int      { return 3 }
func (Agent) rank() int     { return 4 }
func (Assigned) rank() int  { return 5 }
func (Leaving) rank() int   { return 6 }
func (IDs) rank() int       { return 7 }
func (Outbox) rank() int    { return 8 }
func (Ends) rank() int      { return 9 }
func (Limiter) rank() int   { return 10 }
func (Readings) rank() int  { return 11 }
func (Pool) rank() int      { return 12 }
func (BMC) rank() int       { return 13 }
func (Addresses) rank() int { return 14 }
func (Permit) rank() int    { return 15 }
func (Gate) rank() int      { return 16 }
func (Sealing) rank() int   { return 17 }
func (Notes) rank() int     { return 18 }
func (Alarms) rank() int    { return 19 }
