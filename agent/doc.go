// Package agent is the daemon of a rack: the only one that talks to its BMCs.
//
// Whatever asks for power (central, a person at the rack's own socket, the
// monitor, the journal after a crash) comes in through [Agent.Submit]:
//
//	Submit -> lane (one per node) -> power.Decide -> journal "accepted" -> answer
//	                 |
//	                 +-> one operation at a time: started, sending, sent, ended
//	                          |
//	                          +-> bmc (one lock and one session per BMC) -> driver
//
// A request is answered only after the journal holds it. Every command is in the
// journal before it leaves ("sending") and once more with its answer ("sent"), so
// that a restart knows what may have reached the BMC. What has ended stays in the
// journal until central has acknowledged it ("reported"): the journal is the
// outbox.
//
// The files: lane.go takes and orders requests, execute.go carries one operation
// out, ascent.go takes a power-on through its domain's queue (package limiter), replay.go
// turns the journal back into lanes, prober.go knows the BMC of each node and how one gets
// on with it (package bmcpool), poller.go reads nodes and readings.go keeps what was read,
// outbox.go and link.go talk to central, monitor_host.go is the agent as package monitor
// sees it, which enforces desired states, view.go and explain.go show the state of the rack,
// control.go and control_holds.go serve the rack's own socket, gossip_reach.go answers
// other members, assignment.go keeps what central assigned. README.md lists the journal
// records; docs/architecture.md has the order of the locks.
package agent
