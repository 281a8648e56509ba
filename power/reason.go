package power

import "strings"

// Reason is why something was decided, planned, refused or ended as it was. Log,
// journal, API and terminal show the same word.
//
// Each reason is declared below in one line: its word, its meaning in a sentence, and the
// commands that help, with NODE and RACK for the names. Text, help and docs/reasons.md
// come from that line (go test ./power -run Reason -update writes the page).
type Reason string

// Reasons of verdicts.
var (
	ReasonIdle       = ofVerdict("idle", "nothing is outstanding on the node")
	ReasonRepeat     = ofVerdict("repeat", "this request was accepted before")
	ReasonEqual      = ofVerdict("equal", "the outstanding operation asks for the same")
	ReasonSatisfied  = ofVerdict("satisfied", "the outstanding operation includes what is asked")
	ReasonGraceOver  = ofVerdict("grace-over", "an off ends the grace of the outstanding soft-off")
	ReasonMore       = ofVerdict("asks-more", "the request leads to the same state as the outstanding operation and asks for more")
	ReasonCancelling = ofVerdict("cancelling", "the outstanding operation is being cancelled")
	ReasonConflict   = ofVerdict("conflict", "the request leads to another state, or limit, than the outstanding operation")
	ReasonNoFinal    = ofVerdict("no-final", "diag and bmc-reset lead to no state that could be compared")
	ReasonUnrelated  = ofVerdict("unrelated", "a cap and the power have nothing to do with each other; one waits for the other")
	ReasonQueued     = ofVerdict("queued", "the request waits for the outstanding operations, as --if-busy queue asks")
	ReasonBusy       = ofVerdict("busy", "an operation is outstanding", "rackpower ops NODE")
	ReasonStale      = ofVerdict("stale", "a newer request was accepted before")
	ReasonSequence   = ofVerdict("sequence-ahead", "the sequence is too far ahead of the clock; compare the clocks of the machines")
	ReasonQueueFull  = ofVerdict("queue-full", "too many requests wait for the node", "rackpower ops NODE", "rackpower op cancel ID")
	ReasonDesired    = ofVerdict("desired", "the monitor would undo the request", "rackpower node set-status NODE STATUS",
		"rackpower hold NODE on --reason TEXT")
	ReasonProtected = ofVerdict("protected", "the node is protected: nothing takes its power away",
		"rackpower node unprotect NODE --reason TEXT")
	ReasonOldAgent   = ofVerdict("agent-old", "the agent of the node is of an older version, which cannot do this", "rackpower agents")
	ReasonNoNode     = ofVerdict("no-node", "the agent does not have the node", "rackpower node show NODE")
	ReasonUntrusted  = ofVerdict("central-unknown", "the agent does not trust the central that asks", "rackpower local trust")
	ReasonConfigless = ofVerdict("unconfigured", "no BMC is known for the node",
		"rackpower node add NODE --rack RACK --bmc ipmi://USER@HOST --password-file FILE --update")
	ReasonDamaged = ofVerdict("password-damaged", "the password of the node's BMC does not open in central's database: set it anew",
		"rackpower node add NODE --rack RACK --password-file FILE --update")
	ReasonNoCredentials = ofVerdict("no-credentials", "neither central nor the rack has the credentials that the node names",
		"rackpower credentials list", "rackpower credentials set NAME --user USER --password-file FILE")
	ReasonShared = ofVerdict("bmc-shared", "another node has the same BMC, so nothing acts on either",
		"rackpower node add NODE --rack RACK --bmc ipmi://USER@HOST --update",
		"rackpower node add NODE --rack RACK --bmc 'ipmi://USER@HOST?target=0x30' --update", "rackpower node rm NODE")
	ReasonIDUsed = ofVerdict("id-used", "the id is that of another operation")
)

// Reasons of ends.
var (
	ReasonVerified    = ofEnd("verified", "the target state was read")
	ReasonAlready     = ofEnd("already", "the node was in the target state")
	ReasonNodeOff     = ofEnd("node-off", "reset and diag need a node that is on", "rackpower on NODE")
	ReasonUnanswered  = ofEnd("unanswered", "the BMC did not answer a command that is sent only once")
	ReasonUncertain   = ofEnd("uncertain", "the answer of the BMC does not say whether the command acted")
	ReasonInterrupted = ofEnd("interrupted", "the agent stopped between a command and its answer")
	ReasonNotReached  = ofEnd("not-reached", "the commands were sent and the state did not follow")
	ReasonNotEscal    = ofEnd("not-escalated", "the grace is over, and the request forbids a hard off", "rackpower off NODE")
	ReasonTakenOver   = ofEnd("taken-over", "the node went to another agent, which goes on with it", "rackpower explain NODE")
	ReasonDeadline    = ofEnd("deadline", "the deadline passed")
	ReasonUnreachable = ofEnd("unreachable", "the BMC does not answer", "rackpower node retry NODE")
	ReasonAuth        = ofEnd("auth-failed", "the BMC refuses the log-in; correct its user, password or K_g",
		"rackpower node add NODE --rack RACK --password-file FILE --update", "rackpower node retry NODE")
	ReasonPrivilege = ofEnd("privilege", "the BMC user lacks the privilege; raise it at the BMC", "rackpower node retry NODE")
	ReasonLimitCuts = ofEnd("limit-cuts", "the BMC turns the node off at the limit, which has to be confirmed",
		"rackpower power NODE", "rackpower cap NODE WATTS --yes")
	ReasonUnsupported  = ofEnd("unsupported", "the BMC does not support the command")
	ReasonRefusedBMC   = ofEnd("bmc-refused", "the BMC answered with an error")
	ReasonBMCBusy      = ofEnd("bmc-busy", "the BMC answers, but has no free session or is busy", "rackpower node retry NODE")
	ReasonAcknowledged = ofEnd("acknowledged", "the BMC confirmed the command; it has no effect that can be read")
	ReasonMoved        = ofEnd("bmc-changed", "the node was given another BMC meanwhile")
	ReasonAsked        = ofEnd("asked", "a person cancelled the operation")
	ReasonNewer        = ofEnd("newer", "a newer request took its place")
	ReasonLost         = ofEnd("journal-lost", "the agent came back without its journal")
)

// Reasons of the monitor.
var (
	ReasonDrift    = ofMonitor("drift", "the node left its desired state")
	ReasonHandsOff = ofMonitor("hands-off", "nothing is enforced on the node")
	ReasonUnread   = ofMonitor("unread", "there is no fresh reading")
	ReasonSettling = ofMonitor("settling", "an operation changed the node a moment ago")
	ReasonNoCut    = ofMonitor("no-cut", "the status forbids the monitor to turn the node off")
	ReasonDebounce = ofMonitor("debounce", "the monitor waits for a second equal reading")
	ReasonGather   = ofMonitor("gather", "the desired power changed a moment ago without a confirmation; more such changes may follow")
	ReasonOthers   = ofMonitor("others", "the monitor reads the other nodes first, since many may have changed at once")
	ReasonCameBack = ofMonitor("came-back", "the node is on again after it was turned off")
	ReasonFault    = ofMonitor("fault", "corrections failed; the next try follows later", "rackpower node retry NODE")
	ReasonBrake    = ofMonitor("brake", "the fleet brake holds: too many nodes changed at once", "rackpower brake show",
		"rackpower brake release RACK --reason TEXT")
	ReasonNoLease = ofMonitor("no-lease", "several agents can reach the node, and this one has no lease on it now", "rackpower explain NODE",
		"rackpower agents")
	ReasonPaused  = ofMonitor("paused", "the monitor of the rack is paused", "rackpower resume RACK")
	ReasonMoving  = ofMonitor("moving", "another agent has to release the node first")
	ReasonUnsure  = ofMonitor("unsure", "the agent checks its journal or asks central before it acts")
	ReasonBreaker = ofMonitor("breaker", "the BMC is left alone for now", "rackpower node retry NODE")
	ReasonRack    = ofMonitor("no-monitor", "the monitor of the rack is off", "rackpower rack set RACK --monitor '@every 60s'")
)

// about is what is known of a reason besides its word.
type about struct {
	reason Reason
	kind   string // what it is a reason of
	text   string
	help   []string
}

// reasons are all reasons in the order of their declaration.
var reasons []about

func ofVerdict(word Reason, text string, help ...string) Reason {
	return declare("verdicts", word, text, help)
}

func ofEnd(word Reason, text string, help ...string) Reason { return declare("ends", word, text, help) }

func ofMonitor(word Reason, text string, help ...string) Reason {
	return declare("the monitor", word, text, help)
}

func declare(kind string, word Reason, text string, help []string) Reason {
	reasons = append(reasons, about{word, kind, text, help})
	return word
}

// Text is the meaning of a reason in one sentence for people, without capital and full
// stop. A reason of a newer version has none but its word.
func (r Reason) Text() string {
	for _, a := range reasons {
		if a.reason == r {
			return a.text
		}
	}
	return string(r)
}

// Help is the commands that help where r is the obstacle of a node, in order; there
// may be none.
func (r Reason) Help(node, rack string) []string {
	var commands []string
	for _, a := range reasons {
		if a.reason != r {
			continue
		}
		for _, command := range a.help {
			commands = append(commands, strings.NewReplacer("NODE", node, "RACK", rack).Replace(command))
		}
	}
	return commands
}

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
