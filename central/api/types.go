package api

import (
	"cmp"
	"time"

	"rackpower/power"
)

// NodeSpec describes a node as people write it: in node add, import and export.
type NodeSpec struct {
	Name string `json:"name" yaml:"name"`
	Rack string `json:"rack" yaml:"rack"`
	// Agents are those that can reach the BMC, in the order of preference; none: as the rack says,
	// and where that says none the rack's own.
	Agents []string `json:"agents,omitempty" yaml:"agents,omitempty,flow"`
	// BMC is ipmi://USER@HOST[:PORT][?suite=&target=&channel=&level=&boot=legacy|efi], see
	// power.ParseEndpoint; without a password; empty: none known.
	BMC string `json:"bmc,omitempty" yaml:"bmc,omitempty"`
	// Password travels in clear inside the (local or encrypted) connection. It is
	// never sent back: exports leave it out.
	Password string `json:"password,omitempty" yaml:"password,omitempty"`
	// KG is the BMC's key K_g, text or 0x and hexadecimal digits; as secret as Password.
	KG string `json:"kg,omitempty" yaml:"kg,omitempty"`
	// Credentials names those that count where there is no Password.
	Credentials string       `json:"credentials,omitempty" yaml:"credentials,omitempty"`
	Domain      string       `json:"domain,omitempty" yaml:"domain,omitempty"`
	Status      power.Status `json:"status,omitempty" yaml:"status,omitempty"`
	// Protected is why the node's power must not be taken away; "": nothing is said of that.
	// Taking a protection back has a request of its own.
	Protected string `json:"protected,omitempty" yaml:"protected,omitempty"`
	// Labels are set beside those that the node has: KEY or KEY=VALUE; KEY- takes one away.
	// With labels in Clear they are all that it has then.
	Labels []string `json:"labels,omitempty" yaml:"labels,omitempty"`
	// Clear names fields that an update takes away: bmc (with password, kg and credentials),
	// password, kg, credentials, domain, labels, status, agents.
	Clear []string `json:"clear,omitempty" yaml:"-"`
}

// AddNodes is the body of POST /v1/nodes. All nodes are taken or none.
type AddNodes struct {
	Nodes []NodeSpec `json:"nodes"`
	// Update allows nodes that exist: what is given replaces what was, an empty
	// password keeps the old one. Without it an existing node is an error.
	Update bool `json:"update,omitempty"`
	// Force says that the agents which the nodes are moved away from are dead: they are
	// not waited for. What was under way there ends as indeterminate.
	Force  bool `json:"force,omitempty"`
	DryRun bool `json:"dry_run,omitempty"`
	// Confirmed is as in SetStatus, for the statuses that are changed.
	Confirmed bool `json:"confirmed,omitempty"`
	// MovesConfirmed is as Confirmed of RemoveNodes, for the nodes that go to other racks;
	// Confirmed says so too.
	MovesConfirmed bool   `json:"moves_confirmed,omitempty"`
	AskedBy        string `json:"asked_by,omitempty"`
}

// AddedNodes is the answer: how many were (or would be) added and changed.
type AddedNodes struct {
	Added     int `json:"added"`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	// Notes are as in Changed.
	Notes []string `json:"notes,omitempty"`
}

// RemoveNodes is the body of POST /v1/nodes/remove. Nodes with an outstanding
// operation are refused (CodeBusy).
type RemoveNodes struct {
	Names []string `json:"names"`
	// Confirmed says that a person saw which nodes go. Without it an agent that would
	// lose most of its nodes keeps them until somebody confirms it there.
	Confirmed bool   `json:"confirmed,omitempty"`
	AskedBy   string `json:"asked_by,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// SetStatus is the body of POST /v1/nodes/status.
type SetStatus struct {
	Names  []string     `json:"names"`
	Status power.Status `json:"status"`
	// Confirmed says that an administrator saw how many nodes may lose power.
	Confirmed bool   `json:"confirmed,omitempty"`
	AskedBy   string `json:"asked_by,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// ProtectNodes is the body of POST /v1/nodes/protect. An operation that has not begun, and
// would take power from one of the nodes, ends.
type ProtectNodes struct {
	Names []string `json:"names"`
	// Unprotect takes the protection back; it needs a reason.
	Unprotect bool   `json:"unprotect,omitempty"`
	AskedBy   string `json:"asked_by,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// Changed answers requests that change nodes.
type Changed struct {
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	// Notes say what the asker may not expect, a sentence each.
	Notes []string `json:"notes,omitempty"`
}

// Node is a node with its power, as `rackpower status` shows it.
type Node struct {
	Name       string       `json:"name"`
	Rack       string       `json:"rack"`
	State      power.State  `json:"state"`
	Reach      power.Reach  `json:"reach"`
	ObservedAt *time.Time   `json:"observed_at"` // null: never read
	Stale      bool         `json:"stale"`
	Status     power.Status `json:"status"`
	Desired    power.Want   `json:"desired"`
	Hold       *Hold        `json:"hold"`
	// Protected says who keeps the node's power from being taken away; absent: nobody.
	Protected *power.Protection `json:"protected,omitempty"`
	// Drift is true when the state is not the wanted or expected one and nothing
	// is outstanding that would mend it.
	Drift bool `json:"drift"`
	// Pending is true when the state differs and something is under way: an operation,
	// or the monitor, which waits for what Waits says.
	Pending bool `json:"pending"`
	// Waits, WaitsMessage, WaitsUntil and FaultSince are as in NodeMonitor.
	Waits        power.Reason `json:"waits,omitempty"`
	WaitsMessage string       `json:"waits_message,omitempty"`
	WaitsUntil   time.Time    `json:"waits_until,omitzero"`
	Fault        string       `json:"fault"`
	FaultSince   time.Time    `json:"fault_since,omitzero"`
	Op           *OpBrief     `json:"op"` // what is outstanding: the running one, else the first that waits

	Agent       string        `json:"agent,omitempty"`
	Agents      []string      `json:"agents,omitempty"` // that can reach it, where the node names them
	Lease       *NodeLease    `json:"lease,omitempty"`  // how Agent has it; absent: it needs no lease
	BMC         string        `json:"bmc,omitempty"`
	Credentials string        `json:"credentials,omitempty"` // that the node names
	Domain      string        `json:"domain,omitempty"`
	TriedAt     *time.Time    `json:"tried_at,omitempty"`     // when reach was determined
	Waiting     int           `json:"waiting,omitempty"`      // outstanding operations beside Op
	AgentState  AgentPresence `json:"agent_state,omitzero"`   // why a state may be stale
	Labels      []string      `json:"labels,omitempty"`       // KEY or KEY=VALUE
	DesiredFrom string        `json:"desired_from,omitempty"` // where Desired comes from: "status READY", "hold of bob"
	Unread      bool          `json:"unread,omitempty"`       // in the answer to ReadNodes: it was not tried in the time
}

// Compare sets Drift and Pending from the State, Stale and Op of the node, what is desired of
// it, whether it was seen so since that is desired, and whether a monitor runs that enforces
// it. Of the two one is set at most.
func (n *Node) Compare(desired power.Desired, matched, monitored bool) {
	differs := desired.DiffersFrom(n.State)
	switch {
	case n.Op == nil:
		n.Pending = differs && monitored && desired.Enforces() && !matched
	case n.Op.Action.Final() != power.Unknown:
		n.Pending = n.State != n.Op.Action.Final()
	default:
		n.Pending = differs
	}
	n.Drift = differs && !n.Pending && n.Op == nil && !n.Stale
}

// Hold overrides the desired state of a status.
type Hold struct {
	Want     power.Want `json:"want"`
	By       string     `json:"by"`
	Reason   string     `json:"reason"`
	Since    time.Time  `json:"since,omitzero"`
	Expires  *time.Time `json:"expires,omitempty"`
	Schedule string     `json:"schedule,omitempty"` // that set it
}

// ShowHold is a hold as people see it, nil when it does not hold at the time now.
func ShowHold(h power.Hold, now time.Time) *Hold {
	if !h.Active(now) {
		return nil
	}
	out := &Hold{Want: h.Want, By: h.By, Reason: h.Reason, Since: h.Since, Schedule: h.Schedule}
	if !h.Until.IsZero() {
		out.Expires = &h.Until
	}
	return out
}

// ShowProtection is a protection as people see it, nil where there is none.
func ShowProtection(p power.Protection) *power.Protection {
	if !p.On() {
		return nil
	}
	return &p
}

// OpBrief is an outstanding operation in a node's row.
type OpBrief struct {
	ID      string        `json:"id"`
	Action  power.Action  `json:"action"`
	Verdict power.Verdict `json:"verdict"`
	AskedBy string        `json:"asked_by"`
	AskedAt time.Time     `json:"asked_at"`
	Phase   string        `json:"phase"` // as its agent said last
	// AgentNote says that the agent is away: the phase may be another by now. As in Op.
	AgentNote string `json:"agent_note,omitempty"`
}

// OpRequest asks for one operation on one node.
type OpRequest struct {
	ID     string       `json:"id"` // UUIDv7 chosen by the asker
	Node   string       `json:"node"`
	Action power.Action `json:"action"`
	power.Options
	NoEscalate bool `json:"no_escalate,omitempty"`
	// Deadline is how long the operation may take from now, nanoseconds; 0: the
	// action's own default.
	Deadline  time.Duration `json:"deadline,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	AskedBy   string        `json:"asked_by,omitempty"`
	Confirmed bool          `json:"confirmed,omitempty"`
	// Hold sets a hold on the node in the final state of the action together with the
	// request, for HoldFor (0: until released), so that the monitor keeps it there.
	Hold    bool          `json:"hold,omitempty"`
	HoldFor time.Duration `json:"hold_for,omitempty"`
}

// Op is the operation that is asked for by who, through origin, at the time now.
func (r OpRequest) Op(who string, origin power.Origin, now time.Time) power.Op {
	op := power.Op{
		ID: r.ID, Node: r.Node, Action: r.Action, AskedBy: who, Origin: origin, Reason: r.Reason, AskedAt: now, Options: r.Options,
		NoEscalate: r.NoEscalate, Confirmed: r.Confirmed,
	}
	if r.Deadline > 0 {
		op.Deadline = now.Add(r.Deadline)
	}
	return op
}

// HoldWith is the hold that r requests together with its operation op, without a sequence
// yet; nil for none.
func (r OpRequest) HoldWith(op power.Op) *power.Hold {
	if !r.Hold {
		return nil
	}
	h := &power.Hold{
		Want: HeldBy(op.Action), By: op.AskedBy, Since: op.AskedAt, Confirmed: op.Confirmed,
		Reason: cmp.Or(op.Reason, "asked for together with "+string(op.Action)),
	}
	if r.HoldFor != 0 {
		h.Until = h.Since.Add(r.HoldFor)
	}
	return h
}

// AskOps is the body of POST /v1/ops. Each request is independent: unknown
// nodes and refusals are told one by one in the answer, in the same order.
type AskOps struct {
	Ops    []OpRequest `json:"ops"`
	DryRun bool        `json:"dry_run,omitempty"`
}

// Phases of an operation, in order. Running operations may say more after a
// colon: "running: waiting for off".
const (
	PhaseTaken   = "taken"   // durable at central, not yet in the agent's journal
	PhaseWaiting = "waiting" // accepted, another one runs
	PhaseRunning = "running"
	PhaseEnded   = "ended"
)

// Op is an operation with all that is known of it.
type Op struct {
	ID           string        `json:"id"`
	Node         string        `json:"node"`
	Rack         string        `json:"rack,omitempty"`
	Action       power.Action  `json:"action"`
	Seq          power.Seq     `json:"seq"`
	AskedBy      string        `json:"asked_by"`
	Origin       power.Origin  `json:"origin"`
	Reason       string        `json:"reason"`
	AskedAt      time.Time     `json:"asked_at"`
	StartedAt    *time.Time    `json:"started_at"`
	EndedAt      *time.Time    `json:"ended_at"`
	Outcome      power.Outcome `json:"outcome"`
	Detail       string        `json:"detail"`
	Already      bool          `json:"already"`
	SupersededBy string        `json:"superseded_by"`
	// Joined is the id of the operation whose outcome this request shares.
	Joined   string `json:"joined"`
	Attempts int    `json:"attempts"`

	Verdict  power.Verdict `json:"verdict"`
	Why      power.Reason  `json:"why,omitempty"`     // reason of the end, else of the verdict
	Message  string        `json:"message,omitempty"` // what was found and what will happen, in words
	Phase    string        `json:"phase"`
	State    power.State   `json:"state,omitempty"` // what the node was last read as, at the end
	Deadline time.Time     `json:"deadline"`
	power.Options
	CancelBy  string `json:"cancel_by,omitempty"`
	AgentNote string `json:"agent_note,omitempty"` // "agent r1 is away since ...: kept until ..."
	Rev       int64  `json:"rev"`                  // grows with every change of any operation

	// The rest of the request is not shown.
	NoEscalate bool `json:"-"`
	Confirmed  bool `json:"-"`
}

// NewOp is an operation of which nothing is known but its request.
func NewOp(r power.Op, rack string) Op {
	return Op{
		ID: r.ID, Node: r.Node, Rack: rack, Action: r.Action, Seq: r.Seq, AskedBy: r.AskedBy, Origin: r.Origin, Reason: r.Reason,
		AskedAt: r.AskedAt, Deadline: r.Deadline, Options: r.Options, NoEscalate: r.NoEscalate, Confirmed: r.Confirmed,
	}
}

// Request is what NewOp was given.
func (o *Op) Request() power.Op {
	return power.Op{
		ID: o.ID, Node: o.Node, Action: o.Action, Seq: o.Seq, AskedBy: o.AskedBy, Origin: o.Origin, Reason: o.Reason, AskedAt: o.AskedAt,
		Deadline: o.Deadline, Options: o.Options, NoEscalate: o.NoEscalate, Confirmed: o.Confirmed,
	}
}

// QueryOps is the body of POST /v1/ops/query. Empty fields do not restrict.
type QueryOps struct {
	IDs         []string  `json:"ids,omitempty"`
	Nodes       []string  `json:"nodes,omitempty"`
	Outstanding bool      `json:"outstanding,omitempty"`
	Since       time.Time `json:"since,omitzero"` // asked at or after
	// AfterRev and Wait make it a long poll: the answer comes when something that
	// matches has a revision above AfterRev, or after Wait (at most 60 s).
	AfterRev int64         `json:"after_rev,omitempty"`
	Wait     time.Duration `json:"wait,omitempty"`
	Limit    int           `json:"limit,omitempty"` // newest first kept; after AfterRev the first changed; default MaxPage
	// Before has the answer go on where another one ended: its Next. Not with AfterRev.
	Before string `json:"before,omitempty"`
}

// FoundOps is the answer, in the order of the sequences.
type FoundOps struct {
	Ops []Op  `json:"ops"`
	Rev int64 `json:"rev"` // give it as AfterRev next time
	// Next is where older ones begin, for QueryOps.Before; "": there are none, or none were asked for.
	Next string `json:"next,omitempty"`
}

// CancelOp is the body of POST /v1/ops/{id}/cancel. The answer is the Op: ended
// already when it had not left central, else with CancelBy set.
type CancelOp struct {
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// ReadNodes is the body of POST /v1/reads: have the nodes read now. The answer
// is []Node, when all were tried or after Wait.
type ReadNodes struct {
	Names  []string      `json:"names,omitempty"`
	Select string        `json:"select,omitempty"` // in place of names: an expression, which may select none
	Wait   time.Duration `json:"wait,omitempty"`   // default 15 s, at most 60 s
}

// Agent is an agent as `rackpower agents` shows it.
type Agent struct {
	Name        string     `json:"name"`
	State       AgentState `json:"state"`
	SeenAt      *time.Time `json:"seen_at"`
	Version     string     `json:"version"`
	Nodes       int        `json:"nodes"`
	Leased      int        `json:"leased,omitempty"`     // of them, those that others can reach as well
	LeaseUntil  time.Time  `json:"lease_until,omitzero"` // when its lease runs out; absent: it has none now
	Drained     *Drained   `json:"drained,omitempty"`    // who wants it without these; absent: nobody
	Outstanding int        `json:"outstanding"`
	Taken       int        `json:"taken"`    // requests waiting for the agent
	Rev         int64      `json:"rev"`      // revision of its assignment
	RevSeen     int64      `json:"rev_seen"` // revision that it has
	JournalID   string     `json:"journal_id"`
	Epoch       uint64     `json:"epoch"`
	LSN         uint64     `json:"lsn"`
	// Alarms are those that central raised about it and those that it tells of itself;
	// Alarm is their messages, and that of the fleet brake, in a line.
	Alarms []Alarm `json:"alarms,omitempty"`
	// ForeignReports counts what the agent told, since central started, of nodes and operations that are not its own.
	ForeignReports int64      `json:"foreign_reports,omitempty"`
	Alarm          string     `json:"alarm,omitempty"`
	Address        string     `json:"address,omitempty"`
	Rack           *RackState `json:"rack,omitempty"` // the state of its monitor
	// Certificate is nil for an agent that uses the socket.
	Certificate *AgentCertificate `json:"certificate,omitempty"`
}

// Member is a member of the gossip cluster.
type Member struct {
	Name   string `json:"name"`
	Addr   string `json:"addr"`
	Port   int    `json:"port"`
	Status string `json:"status"` // alive, failed, left, leaving
	// SinceMS is for how long it has had the status, as far as the one who answers
	// has seen.
	SinceMS int64             `json:"since_ms"`
	Tags    map[string]string `json:"tags"`
}

// Info answers GET /v1/info.
type Info struct {
	ID      string `json:"id"` // of the database
	Version string `json:"version"`
	Schema  int64  `json:"schema"`
	Nodes   int    `json:"nodes"`
	Agents  int    `json:"agents"`
	Gossip  string `json:"gossip,omitempty"` // address to join
	// Now is the time by the clock of the one who answers.
	Now time.Time `json:"now,omitzero"`
}
