package api

import (
	"time"

	"rackpower/power"
)

// Database names a state of central's database. What central acknowledged counts for
// that state only: a restored database does not know what was told after its backup.
type Database struct {
	// CentralID is made with the database and stays over restores; empty: none is meant.
	CentralID string `json:"central_id"`
	// Incarnation is 0, or when the database was restored last (Unix time in ms): of two
	// states the one with the larger is the newer.
	Incarnation int64 `json:"incarnation,omitempty"`
}

// Protocol is the number of what agents and central say to each other. It grows by one with
// a change that the other side has to know of; neighbours work together.
//
//	1  the first that was counted
//	2  agents read how much power nodes take (AskedTest.Consumption) and limit it (ActCap)
//	3  agents tell a restored central what they enforced before (Welcome.TellEnforced)
//	4  agents act under a lease on nodes that others can reach as well (AssignedNode.Epoch)
const Protocol = 4

// ProtocolCap is that of the first agents that know power readings and caps.
const ProtocolCap = 2

// ProtocolEnforced is that of the first agents that tell a restored central what they enforced.
const ProtocolEnforced = 3

// ProtocolLease is that of the first agents that act under a lease: no other is given a node
// that several can reach.
const ProtocolLease = 4

// Hello is what an agent says at its start and whenever central answers
// CodeHello to something else.
type Hello struct {
	// Protocol is that of the agent, see Protocol; 0: from before there was a number. The
	// client fills it in.
	Protocol  int    `json:"protocol,omitempty"`
	Version   string `json:"version"`
	JournalID string `json:"journal_id"`
	Epoch     uint64 `json:"epoch"` // how often the journal was opened
	LSN       uint64 `json:"lsn"`   // last durable record
	// Outstanding lists all operations that the journal holds and central has not
	// acknowledged the end of. What central believes accepted and is not among
	// them is lost with the journal.
	Outstanding []OpRef `json:"outstanding"`
	// ReportedTo is the database that has been told all ends which the agent keeps: it may
	// take what is missing in Outstanding for lost.
	ReportedTo Database `json:"reported_to,omitzero"`
	// ReportedAll says that all of that was told since the hello before, because central
	// wanted it (Welcome.ReportAll).
	ReportedAll bool `json:"reported_all,omitempty"`
	// Rev is the highest revision that an acknowledgement of ReportedTo named. A central that
	// is behind it runs on an old copy of its database.
	Rev    int64     `json:"rev,omitempty"`
	Seq    power.Seq `json:"seq"`
	Gossip string    `json:"gossip,omitempty"`
	// Opening names the present opening of the journal, and FoundLSN is that of the last
	// record that it found: central knows a later one of a journal that went back. An
	// agent of before names none.
	Opening  string `json:"opening,omitempty"`
	FoundLSN uint64 `json:"found_lsn,omitempty"`
	// Doubt says that records of the journal may be lost: it was damaged, or put back
	// from a copy. What central handed out and the agent does not know may have been
	// carried out.
	Doubt bool `json:"doubt,omitempty"`
	// SentAt is the agent's clock, so that central can tell its times. The client
	// fills it in.
	SentAt time.Time `json:"sent_at,omitzero"`
	// LeaseEpoch is the highest epoch of a lease that the agent was ever given.
	LeaseEpoch int64 `json:"lease_epoch,omitempty"`
	// Host names the machine and process, for people.
	Host string `json:"host,omitempty"`
	// Machine is the host name of the agent's machine.
	Machine string `json:"machine,omitempty"`
	// Run names the client, and with it the process, and Nth counts its hellos: one that arrives after a later
	// one is void. The client fills them in.
	Run string `json:"run,omitempty"`
	Nth uint64 `json:"nth,omitempty"`
}

// OpRef names an operation: an id alone could be that of another node's.
type OpRef struct {
	ID     string       `json:"id"`
	Node   string       `json:"node"`
	Action power.Action `json:"action"`
}

// Welcome is the answer.
type Welcome struct {
	Database
	Protocol int    `json:"protocol,omitempty"` // of central, as Hello.Protocol
	Session  string `json:"session"`            // names this hello; goes with polls and reports
	// ReportAll says that the agent may have ended operations which are open here: it
	// tells all ends that it keeps, and then says hello again.
	ReportAll bool      `json:"report_all,omitempty"`
	Seq       power.Seq `json:"seq"`
	Gossip    string    `json:"gossip,omitempty"` // central's own gossip address, to join
	// GossipRefused says why central does not join the agent's gossip: the agent has to
	// join central's.
	GossipRefused string  `json:"gossip_refused,omitempty"`
	Alarms        []Alarm `json:"alarms,omitempty"` // that central raised about the agent
	// WentBack says that central knows newer records of the agent's journal.
	WentBack bool `json:"went_back,omitempty"`
	// Ended are those of the outstanding operations that have ended at central.
	Ended []EndedOp `json:"ended,omitempty"`
	// TellEnforced says that the database was restored: before its first poll the agent tells
	// what it enforces (Report.Enforced).
	TellEnforced bool `json:"tell_enforced,omitempty"`
}

// EndedOp is how an operation has ended at central. It overrides the agent's.
type EndedOp struct {
	OpRef
	End power.End `json:"end"`
}

// Goodbye is the body of POST /v1/agents/{name}/goodbye: the process ends that has the
// session, and another one may have the agent's name at once.
type Goodbye struct {
	Session string `json:"session"`
}

// Poll asks for what changed. Central answers at once when there is something,
// else after Wait with an empty answer.
type Poll struct {
	Session  string `json:"session"`
	Database        // whose Rev this is; another's: all nodes are sent
	// Rev is the revision of the assignment that the agent holds durably; 0: none.
	Rev int64 `json:"rev"`
	// Ops is the cursor of operations and cancellations that the agent has taken
	// into its journal during this run; 0 at its start: all not accepted are sent.
	Ops  int64         `json:"ops"`
	Seq  power.Seq     `json:"seq"`
	Wait time.Duration `json:"wait"` // at most 60 s
	// AppliedRev is the revision that the agent acts by; 0: it does not follow this central.
	AppliedRev int64 `json:"applied_rev,omitempty"`
	// Unreleased names nodes that went, or whose BMC changed, up to that revision and that
	// the agent has not let go of: something is still under way there.
	Unreleased []string `json:"unreleased,omitempty"`
	// Lease asks for a lease on the nodes that have an epoch, or for more time.
	Lease bool `json:"lease,omitempty"`
}

// Assignment answers a poll. It is state, not difference: applying it twice
// changes nothing.
type Assignment struct {
	// Full says that Nodes is the whole assignment; what is not in it is no longer
	// the agent's. Otherwise Nodes holds what changed, Removed what went.
	Full    bool           `json:"full,omitempty"`
	Nodes   []AssignedNode `json:"nodes,omitempty"`
	Removed []string       `json:"removed,omitempty"`
	// Confirmed names removed nodes whose removal a person confirmed. It goes with a
	// full assignment too.
	Confirmed []string `json:"confirmed,omitempty"`
	Rev       int64    `json:"rev"`
	// Forced names nodes that were given to another agent before this one had let go,
	// because a person said that it is dead.
	Forced []ForcedMove `json:"forced,omitempty"`
	// Ops holds requests in the order of their sequence.
	Ops       []power.Op `json:"ops,omitempty"`
	Cancels   []Cancel   `json:"cancels,omitempty"`
	OpsCursor int64      `json:"ops_cursor"`
	// Reads names nodes that somebody waits for a fresh reading of.
	Reads []string `json:"reads,omitempty"`
	// Explain names nodes that somebody wants explained; the answer goes into a report.
	Explain []string `json:"explain,omitempty"`
	// Tests are those that somebody waits for; the answers go into reports.
	Tests []AskedTest `json:"tests,omitempty"`
	// Rack holds the settings of the whole rack; nil: as they were.
	Rack *RackSettings `json:"rack,omitempty"`
	Seq  power.Seq     `json:"seq"`
	// Handed names those of Ops that another agent had before and may have begun with.
	Handed []string `json:"handed,omitempty"`
	// Lease is for how long the agent may act on the nodes that have an epoch, counted from when
	// it sent the poll; 0: not by this answer.
	Lease time.Duration `json:"lease,omitempty"`
	// Clock goes with an answer to a poll that asked for a lease.
	Clock *CentralClock `json:"clock,omitempty"`
}

// CentralClock has an agent compare how fast its clock and that of central go.
type CentralClock struct {
	Start string        `json:"start"` // names the process of central whose clock it is
	At    time.Duration `json:"at"`    // by that clock, when the answer left
	Held  time.Duration `json:"held"`  // how long before it the poll had come
}

// ForcedMove is a node that was given to another agent, and who said so when.
type ForcedMove struct {
	Node string `json:"node"`
	By   string `json:"by"`
}

// AssignedNode is what an agent needs to know of a node. It holds the BMC's
// password and is written to the agent's own directory.
type AssignedNode struct {
	Name     string `json:"name"`
	BMC      string `json:"bmc"` // power.ParseEndpoint; empty: none known
	Password string `json:"password,omitempty"`
	KG       string `json:"kg,omitempty"` // power.ParseKG
	// Credentials names those that the node is to use: the agent's own of that name, else
	// user, Password and KG here. An agent of before uses what is here.
	Credentials string `json:"credentials,omitempty"`
	// Other names credentials that the BMC may take instead, while those of a name are being
	// replaced; "": there are none. They are tried once where the BMC refuses the node's.
	Other         string `json:"other,omitempty"`
	OtherUser     string `json:"other_user,omitempty"`
	OtherPassword string `json:"other_password,omitempty"`
	OtherKG       string `json:"other_kg,omitempty"`
	Domain        string `json:"domain,omitempty"`
	// SharedWith names other nodes of the site that have the same BMC: nothing acts on
	// it until a person has settled which of them it is.
	SharedWith string        `json:"bmc_shared_with,omitempty"`
	Status     power.Status  `json:"status,omitempty"`
	Desired    power.Desired `json:"desired"`
	// Confirmed says that the latest change of status was confirmed by a person.
	Confirmed bool `json:"confirmed,omitempty"`
	// Hold is the newest hold or release that central knows of. The agent ends it by
	// itself when its time is over.
	Hold power.Hold `json:"hold,omitzero"`
	// Protected says that nothing may take power from the node. An agent of before ignores it.
	Protected power.Protection `json:"protected,omitzero"`
	// Retry grows whenever an administrator wants the node tried again although its
	// BMC, or the node, is left alone.
	Retry power.Seq `json:"retry,omitempty"`
	// Epoch names the lease under which the agent has a node that others can reach as well: it
	// acts on the node only while it has a lease. 0: the node is its own.
	Epoch int64 `json:"epoch,omitempty"`
}

// Cancel asks the agent to end an operation at its next safe point.
type Cancel struct {
	ID string `json:"id"`
	// Node and Action are the operation's: one that has only its id is not cancelled.
	Node   string       `json:"node,omitempty"`
	Action power.Action `json:"action,omitempty"`
	By     string       `json:"by"`
	Reason string       `json:"reason,omitempty"`
}

// Report tells central what happened. It is state: central applies each item
// once, however often it arrives.
type Report struct {
	Session   string        `json:"session"`
	JournalID string        `json:"journal_id"`
	Epoch     uint64        `json:"epoch"`
	LSN       uint64        `json:"lsn"`
	Ops       []OpReport    `json:"ops,omitempty"`
	Readings  []NodeReading `json:"readings,omitempty"`
	// Rev is the revision of the assignment that the monitor went by in the readings;
	// 0: the one that the agent's polls name.
	Rev        int64    `json:"rev,omitempty"`
	Unreleased []string `json:"unreleased,omitempty"` // as in Poll, up to Rev
	// Holds are those set or released at the rack's own socket that central has not
	// confirmed: it takes each that is newer than what it knows.
	Holds     []NodeHold    `json:"holds,omitempty"`
	Rack      *RackState    `json:"rack,omitempty"` // nil: as it was
	Explained []Explanation `json:"explained,omitempty"`
	Tested    []NodeTest    `json:"tested,omitempty"`
	// Enforced is what the agent enforced before it follows a restored database, where
	// central wanted to know it (Welcome.TellEnforced).
	Enforced *Enforced `json:"enforced,omitempty"`
	Seq      power.Seq `json:"seq"`
	SentAt   time.Time `json:"sent_at,omitzero"` // as in Hello
	// Run names the client and Nth counts its reports, which it sends one after the
	// other: what one that was overtaken says of readings and of the rack is old, and is
	// dropped. The client fills them in.
	Run string `json:"run,omitempty"`
	Nth uint64 `json:"nth,omitempty"`
}

// Enforced is what an agent enforces, as the database says that it follows.
type Enforced struct {
	Database
	Nodes []EnforcedNode `json:"nodes"`
}

// EnforcedNode is what the desired power of a node comes from. Hold is the newest that the
// agent knows, of whatever origin.
type EnforcedNode struct {
	Node   string       `json:"node"`
	Status power.Status `json:"status,omitempty"`
	Hold   power.Hold   `json:"hold,omitzero"`
}

// OpReport is the newest state of one operation. Its answer is the status 200 of
// the whole report: everything in it is then durable at central.
type OpReport struct {
	// Op is the full operation, so that central learns of those that entered at
	// the rack.
	Op      power.Op      `json:"op"`
	LSN     uint64        `json:"lsn"` // of the record that this is based on
	Verdict power.Verdict `json:"verdict"`
	Reason  power.Reason  `json:"reason,omitempty"` // of the verdict
	Message string        `json:"message,omitempty"`
	Joined  string        `json:"joined,omitempty"`
	// Phase is PhaseWaiting, PhaseRunning (with more behind a colon) or PhaseEnded.
	Phase     string     `json:"phase"`
	StartedAt time.Time  `json:"started_at,omitzero"`
	Attempts  int        `json:"attempts,omitempty"` // commands that may have left so far
	End       *power.End `json:"end,omitempty"`
}

// NodeReading is the newest reading of a node.
type NodeReading struct {
	Node string `json:"node"`
	power.Reading
	// Address is what the name of its BMC stands for; "": the BMC has an address in
	// place of a name, or it was not looked up.
	Address string      `json:"address,omitempty"`
	Monitor NodeMonitor `json:"monitor,omitzero"`
	// Found is the protocol of a BMC whose address leaves that open (auto://), nil where it does not.
	Found *FoundBMC `json:"found,omitempty"`
}

// FoundBMC is what an agent found out of a BMC.
type FoundBMC struct {
	BMC string `json:"bmc"` // its address by the protocol that it speaks, without user
	Why string `json:"why"` // by that one
}

// Reported answers a report.
type Reported struct {
	Seq power.Seq `json:"seq"`
	Rev int64     `json:"rev,omitempty"` // of central's operations, with all that was reported; see Hello
	// Ended are operations of the report that had ended otherwise at central.
	Ended []EndedOp `json:"ended,omitempty"`
}
