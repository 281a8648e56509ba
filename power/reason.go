package power

// Reason is why something was decided, planned, refused or ended as it was. Log,
// journal, API and terminal show the same word.
type Reason string

// Reasons of verdicts.
const (
	ReasonIdle       Reason = "idle"            // nothing outstanding
	ReasonRepeat     Reason = "repeat"          // this very request was accepted before
	ReasonEqual      Reason = "equal"           // the same thing is asked as is outstanding
	ReasonSatisfied  Reason = "satisfied"       // what is outstanding includes what is asked
	ReasonGraceOver  Reason = "grace-over"      // off asked while soft-off waits: its grace ends now
	ReasonMore       Reason = "asks-more"       // same final state, but more is asked
	ReasonCancelling Reason = "cancelling"      // what is outstanding is already being cancelled
	ReasonConflict   Reason = "conflict"        // the final states differ
	ReasonNoFinal    Reason = "no-final"        // diag and bmc-reset have no final state
	ReasonQueued     Reason = "queued"          // the asker chose to wait
	ReasonBusy       Reason = "busy"            // the asker chose not to wait
	ReasonStale      Reason = "stale"           // a newer request was accepted before
	ReasonSequence   Reason = "sequence-ahead"  // its sequence is too far ahead of the clock
	ReasonQueueFull  Reason = "queue-full"      // too many are waiting for the node
	ReasonDesired    Reason = "desired"         // against the desired state, which would undo it
	ReasonNoNode     Reason = "no-node"         // the agent does not know the node
	ReasonUntrusted  Reason = "central-unknown" // the agent does not trust the central that asks
	ReasonStopping   Reason = "stopping"        // the agent is about to stop
	ReasonConfigless Reason = "unconfigured"    // no BMC is known for the node
	ReasonShared     Reason = "bmc-shared"      // another node has the same BMC
	ReasonIDUsed     Reason = "id-used"         // the id is another operation's
)

// Reasons of ends.
const (
	ReasonVerified     Reason = "verified"      // the target state was read
	ReasonAlready      Reason = "already"       // the node was as asked
	ReasonNodeOff      Reason = "node-off"      // reset or diag of a node that is off
	ReasonUnanswered   Reason = "unanswered"    // the BMC did not answer a command that is not repeated
	ReasonUncertain    Reason = "uncertain"     // the BMC's answer leaves open whether a command acted
	ReasonInterrupted  Reason = "interrupted"   // the agent died between sending and its answer
	ReasonNotReached   Reason = "not-reached"   // commands were sent, the state did not follow
	ReasonNotEscal     Reason = "not-escalated" // grace over, and the asker wanted no hard off
	ReasonDeadline     Reason = "deadline"      // its time was over
	ReasonUnreachable  Reason = "unreachable"   // the BMC does not answer
	ReasonAuth         Reason = "auth-failed"   // the BMC refused user or password
	ReasonPrivilege    Reason = "privilege"     // the BMC user may not do this
	ReasonUnsupported  Reason = "unsupported"   // the BMC cannot do this
	ReasonRefusedBMC   Reason = "bmc-refused"   // the BMC answered with an error
	ReasonBMCBusy      Reason = "bmc-busy"      // the BMC had no session or no time
	ReasonAcknowledged Reason = "acknowledged"  // the BMC confirmed; nothing can be read
	ReasonMoved        Reason = "bmc-changed"   // the node was given another BMC meanwhile
	ReasonAsked        Reason = "asked"         // cancelled because somebody asked
	ReasonNewer        Reason = "newer"         // a newer request took its place
	ReasonLost         Reason = "journal-lost"  // its agent came back without its journal
)

// Reasons of the monitor.
const (
	ReasonDrift    Reason = "drift"      // seen in another state than the desired one
	ReasonHandsOff Reason = "hands-off"  // nothing is enforced
	ReasonUnread   Reason = "unread"     // no fresh reading to go by
	ReasonSettling Reason = "settling"   // it was changed a moment ago
	ReasonNoCut    Reason = "no-cut"     // its status forbids taking power away
	ReasonDebounce Reason = "debounce"   // a second equal reading is awaited
	ReasonGather   Reason = "gather"     // other changes of desire may follow: power is not cut yet
	ReasonOthers   Reason = "others"     // the other nodes are read first: it may be one of many
	ReasonCameBack Reason = "came-back"  // it was seen on again after it had been turned off
	ReasonFault    Reason = "fault"      // corrections failed: the next try is due later
	ReasonBrake    Reason = "brake"      // too many nodes at once: an administrator is awaited
	ReasonPaused   Reason = "paused"     // the rack's monitor rests
	ReasonMoving   Reason = "moving"     // another agent has to let go of the node first
	ReasonUnsure   Reason = "unsure"     // the agent is not sure of what it knows, or of its part
	ReasonBreaker  Reason = "breaker"    // its BMC is left alone for now
	ReasonRack     Reason = "no-monitor" // the agent runs without a monitor
)

// ReasonOf translates a driver's error kind into the reason of a failure.
func ReasonOf(kind ErrorKind) Reason {
	switch kind {
	case KindAuth:
		return ReasonAuth
	case KindPrivilege:
		return ReasonPrivilege
	case KindUnsupported:
		return ReasonUnsupported
	case KindRefused:
		return ReasonRefusedBMC
	case KindUncertain:
		return ReasonUncertain
	case KindBusy:
		return ReasonBMCBusy
	default:
		return ReasonUnreachable
	}
}
