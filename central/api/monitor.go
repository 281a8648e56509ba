package api

import (
	"fmt"
	"time"

	"rackpower/power"
)

// SetHold is the body of POST /v1/nodes/hold, at central and at an agent's own
// socket. A hold overrides what the nodes' statuses say until it ends.
type SetHold struct {
	Names []string `json:"names"`
	// Want is on, off or hands-off; empty: the hold is released.
	Want power.Want `json:"want,omitempty"`
	// For is how long the hold lasts; 0: until it is released.
	For       time.Duration `json:"for,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	AskedBy   string        `json:"asked_by,omitempty"`
	Confirmed bool          `json:"confirmed,omitempty"` // as in SetStatus
}

// RetryNodes is the body of POST /v1/nodes/retry: the monitor forgets the faults of
// the nodes, and their BMCs are logged in to again although they were left alone.
type RetryNodes struct {
	Names   []string `json:"names"`
	AskedBy string   `json:"asked_by,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// Pause says that a rack's monitor rests: it reads, and corrects nothing. Requests
// are carried out as ever.
type Pause struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until somebody resumes it
	Site   bool      `json:"site,omitempty"` // of all racks: rackpower resume all
	// Restored: central's database was restored, and it is not known, or waits for a person, what
	// the monitor would change by it.
	Restored bool `json:"restored,omitempty"`
}

// EndedBy is the command that ends the pause, or shows what it waits for.
func (p *Pause) EndedBy(rack string) string {
	switch {
	case p.Restored:
		return "rackpower site show"
	case p.Site:
		return "rackpower resume all"
	}
	return "rackpower resume " + rack
}

// Outlasts reports whether p ends later than q; neither may be nil.
func (p *Pause) Outlasts(q *Pause) bool {
	return !q.Until.IsZero() && (p.Until.IsZero() || p.Until.After(q.Until))
}

// Grown refuses a release that was decided when the brake of the rack held fewer nodes.
func (in ReleaseBrake) Grown(rack string, b Brake) error {
	if most, told := in.MaxNodes[rack]; told && len(b.Nodes) > most {
		return Problemf(CodeRefused, "nothing was released: the brake of rack %s holds %s by now, not %d: "+
			"look again (rackpower brake show)", rack, power.Count(len(b.Nodes), "node"), most)
	}
	return nil
}

// Active reports whether the monitor rests at the time now.
func (p *Pause) Active(now time.Time) bool {
	return p != nil && (p.Until.IsZero() || now.Before(p.Until))
}

// DomainLimit bounds how fast the nodes of one power domain are turned on. It holds
// for requests and for the monitor alike.
type DomainLimit struct {
	Name string `json:"name"`
	// Rate is how many power-ons a second may start; 0: no bound.
	Rate float64 `json:"rate"`
	// Concurrent is how many nodes may be on their way to "on" at once; 0: no bound.
	Concurrent int `json:"concurrent"`
}

// RackSettings is what central says about a rack as a whole. Its zero value leaves
// the agent's own settings.
type RackSettings struct {
	// Monitor is the cron expression of the readings, or "off"; empty: the agent's own.
	Monitor string `json:"monitor,omitempty"`
	Pause   *Pause `json:"pause,omitempty"`
	// BrakePercent and BrakeAbove are the bounds of the fleet brake: it holds when more
	// than BrakePercent of the agent's nodes, and more than BrakeAbove nodes, are
	// concerned at once. 0: 20 percent, 5 nodes.
	BrakePercent int `json:"brake_percent,omitempty"`
	BrakeAbove   int `json:"brake_above,omitempty"`
	// Credentials names those of the rack's nodes that have neither a password nor a name of
	// credentials of their own.
	Credentials string `json:"credentials,omitempty"`
	// Agents are those that can reach the rack's nodes that name none, in the order of preference;
	// none: its own. An agent needs to know of each node only whether it has a lease.
	Agents []string `json:"agents,omitempty"`
	// Domains limits this agent's share of each power domain.
	Domains []DomainLimit `json:"domains,omitempty"`
	// ReleaseBrake names the brake (Brake.ID) that an administrator released.
	// ReleaseNodes is how many nodes it held when that was decided: if it holds more
	// by now it is not let go. 0: however many.
	ReleaseBrake string `json:"release_brake,omitempty"`
	ReleaseNodes int    `json:"release_nodes,omitempty"`
	ReleasedBy   string `json:"released_by,omitempty"`
	// Acks are alarms of the agent that people acknowledged, until it tells of them no more.
	Acks []AlarmAck `json:"acks,omitempty"`
}

// Brake is a fleet brake that holds: the monitor of a rack corrects nothing until it
// is released or all of its nodes are in their desired state.
type Brake struct {
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
	// Kind is "cut" (too many would lose power) or "drift" (too many differ at once).
	Kind string `json:"kind"`
	// Nodes are those that wait; Total is how many nodes the agent has.
	Nodes   []string `json:"nodes"`
	Total   int      `json:"total"`
	Message string   `json:"message"` // for people
}

// DomainState is the state of a power domain's queue at an agent.
type DomainState struct {
	DomainLimit
	InFlight int `json:"in_flight"` // nodes on their way to "on"
	Waiting  int `json:"waiting"`   // power-ons in the queue
}

// RackState is the state of an agent's monitor. It is state: the newest one counts.
type RackState struct {
	Monitor      string        `json:"monitor"` // the schedule in force
	Brake        *Brake        `json:"brake,omitempty"`
	Pause        *Pause        `json:"pause,omitempty"`
	Faults       int           `json:"faults"`        // nodes in fault
	OpenBreakers int           `json:"open_breakers"` // BMCs left alone for now
	Domains      []DomainState `json:"domains,omitempty"`
	Alarms       []Alarm       `json:"alarms,omitempty"` // of the agent itself, by kind
}

// NodeMonitor is what the monitor makes of a node. It travels with the reading.
type NodeMonitor struct {
	// Fault says why the node is in fault, "" when it is not.
	Fault      string    `json:"fault,omitempty"`
	FaultSince time.Time `json:"fault_since,omitzero"`
	// Failures counts corrections that failed in a row; Faults how often the node was
	// in fault.
	Failures int `json:"failures,omitempty"`
	Faults   int `json:"faults,omitempty"`
	// Reverted says what became of the newest operation that changed the power and whose success
	// did not last ("it went off again within 5 s after it had been turned on"), RevertedOp which
	// that was, RevertedAt when it was seen, RevertedTimes how many corrections did not last since
	// one did.
	Reverted      string    `json:"reverted,omitempty"`
	RevertedOp    string    `json:"reverted_op,omitempty"`
	RevertedAt    time.Time `json:"reverted_at,omitzero"`
	RevertedTimes int       `json:"reverted_times,omitempty"`
	// Matched is true once the node was seen in its desired state since that was last
	// changed: what differs then is drift, what differs before is pending.
	Matched bool `json:"matched,omitempty"`
	// Waits is why nothing is done about a difference now, WaitsUntil when that is
	// looked at again; empty: nothing differs, or an operation is outstanding.
	Waits        power.Reason `json:"waits,omitempty"`
	WaitsMessage string       `json:"waits_message,omitempty"`
	WaitsUntil   time.Time    `json:"waits_until,omitzero"`
}

// NodeHold is a hold that was set or released at a rack's own socket.
type NodeHold struct {
	Node string     `json:"node"`
	Hold power.Hold `json:"hold"`
}

// ReadingRun is a run of equal readings of a node.
type ReadingRun struct {
	State   power.State `json:"state"`
	Reach   power.Reach `json:"reach"`
	First   time.Time   `json:"first"`
	Last    time.Time   `json:"last"`
	Times   int         `json:"times"`
	Message string      `json:"message,omitempty"` // the error, when it was none
}

// Decision is what the monitor decided about a node, with how often in a row.
type Decision struct {
	Action  power.Action `json:"action,omitempty"` // empty: nothing was done
	Reason  power.Reason `json:"reason"`
	Message string       `json:"message"`
	First   time.Time    `json:"first"`
	Last    time.Time    `json:"last"`
	Times   int          `json:"times"`
}

// BMCState is how the agent gets on with a node's BMC.
type BMCState struct {
	Address string `json:"address"`
	// Failures counts attempts in a row that brought no answer, or none but "busy",
	// AuthFailures log-ins in a row that the BMC refused.
	Failures     int       `json:"failures"`
	AuthFailures int       `json:"auth_failures"`
	BreakerOpen  string    `json:"breaker_open,omitempty"` // why its circuit breaker is open; empty: it is closed
	NextProbe    time.Time `json:"next_probe,omitzero"`
	LastError    string    `json:"last_error,omitempty"`
	// SharedWith names other nodes that have the same BMC: nothing acts on it until a
	// person has told them apart.
	SharedWith string `json:"shared_with,omitempty"`
}

// Explanation is why a node is as it is: the answer of GET /v1/nodes/{name}/explain.
// Central answers with what the node's agent says, and by itself, with Away set,
// when the agent does not answer.
type Explanation struct {
	Node            string            `json:"node"`
	Agent           string            `json:"agent"`
	Away            string            `json:"away,omitempty"` // why the agent's part is missing
	At              time.Time         `json:"at"`
	Status          power.Status      `json:"status"`
	Desired         power.Desired     `json:"desired"`
	DesiredFrom     string            `json:"desired_from"` // where the desired state comes from
	Hold            *Hold             `json:"hold,omitempty"`
	Reading         power.Reading     `json:"reading"`
	Monitor         NodeMonitor       `json:"monitor"`
	Message         string            `json:"message"`         // the sum of it, for people
	Ops             []Op              `json:"ops"`             // outstanding, and the newest that ended
	RecentReadings  []ReadingRun      `json:"recent_readings"` // newest last
	RecentDecisions []Decision        `json:"recent_decisions"`
	BMC             *BMCState         `json:"bmc,omitempty"`
	Domain          *DomainState      `json:"domain,omitempty"`
	Rack            RackState         `json:"rack"`
	Next            time.Time         `json:"next,omitzero"`       // when the node is read next
	Protected       *power.Protection `json:"protected,omitempty"` // as in Node
	// MissingCredentials are those that the node names, and that neither central nor its agent has.
	MissingCredentials string `json:"missing_credentials,omitempty"`
}

// Rack is a rack's monitor as central knows it: the answer of GET /v1/racks.
type Rack struct {
	Name       string        `json:"name"`
	Agent      string        `json:"agent"` // its agent's name
	AgentState AgentPresence `json:"agent_state"`
	Nodes      int           `json:"nodes"`
	Settings   RackSettings  `json:"settings"`
	State      RackState     `json:"state"`
	Notes      []string      `json:"notes,omitempty"` // on a change: what people may not expect of it
}

// SetRack is the body of POST /v1/racks/{name}. Fields that are nil stay.
type SetRack struct {
	Monitor      *string `json:"monitor,omitempty"` // "": the agent's own
	BrakePercent *int    `json:"brake_percent,omitempty"`
	BrakeAbove   *int    `json:"brake_above,omitempty"`
	Credentials  *string `json:"credentials,omitempty"` // "": none
	// Agents are those that can reach the rack's nodes; empty: the rack's own.
	Agents  *[]string `json:"agents,omitempty"`
	AskedBy string    `json:"asked_by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// SetPause is the body of POST /v1/racks/{name}/pause and, for all racks, those to come
// too, of POST /v1/pause.
type SetPause struct {
	Resume  bool          `json:"resume,omitempty"`
	For     time.Duration `json:"for,omitempty"` // 0: until resumed
	Reason  string        `json:"reason,omitempty"`
	AskedBy string        `json:"asked_by,omitempty"`
}

// RackBrake is a rack's brake: an item of the answer of GET /v1/brakes. Racks whose
// brake does not hold are left out.
type RackBrake struct {
	Rack string `json:"rack"`
	Brake
	// Released is set once an administrator released it and the agent has not said yet
	// that it lets go.
	Released bool `json:"released,omitempty"`
}

// ReleaseBrake is the body of POST /v1/brakes/release. The answer is the list of
// brakes that were released.
type ReleaseBrake struct {
	Racks []string `json:"racks"` // empty at an agent's own socket
	// MaxNodes says, by rack, how many nodes the asker saw held: where there are more by now
	// nothing is released. Racks that are not named are released however many there are.
	MaxNodes map[string]int `json:"max_nodes,omitempty"`
	AskedBy  string         `json:"asked_by,omitempty"`
	Reason   string         `json:"reason,omitempty"`
}

// SetDomain is the body of POST /v1/domains: limits of a power domain, for all its
// nodes together, whichever agents they are at.
type SetDomain struct {
	DomainLimit
	Remove  bool   `json:"remove,omitempty"` // back to the default
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Domain is a power domain: an item of the answer of GET /v1/domains.
type Domain struct {
	DomainState
	Default bool `json:"default"` // no limits were set: these are the default
	Nodes   int  `json:"nodes"`
	Agents  int  `json:"agents"`
}

// Schedule sets a hold on nodes, again and again, at the times of a cron expression.
type Schedule struct {
	Name string `json:"name"`
	// Cron has five fields, or is "@daily" and the like; CRON_TZ=ZONE may precede it.
	// Without one the times are central's local ones. A time that a change of the clock
	// skips is skipped, one that comes twice is run twice.
	Cron string `json:"cron"`
	// Nodes is a NODES expression, evaluated each time.
	Nodes string `json:"nodes"`
	// Want is on, off or hands-off; empty: the schedule releases what it and other
	// schedules hold.
	Want power.Want `json:"want,omitempty"`
	// For is how long each hold lasts; 0: until released.
	For         time.Duration `json:"for,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	By          string        `json:"by"`
	Confirmed   bool          `json:"confirmed,omitempty"` // as in SetStatus, for every run
	CreatedAt   time.Time     `json:"created_at"`
	LastAt      time.Time     `json:"last_at,omitzero"` // the latest time that was carried out
	LastMessage string        `json:"last_message,omitempty"`
	NextAt      time.Time     `json:"next_at,omitzero"`
}

// PutSchedule is the body of POST /v1/schedules.
type PutSchedule struct {
	Schedule
	Update  bool   `json:"update,omitempty"` // replace one of that name
	DryRun  bool   `json:"dry_run,omitempty"`
	AskedBy string `json:"asked_by,omitempty"`
}

// RemoveSchedule is the body of POST /v1/schedules/remove. Holds that it set stay
// until they end.
type RemoveSchedule struct {
	Name    string `json:"name"`
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// ScheduledRun is a run to come: an item of the answer of
// GET /v1/schedules/next?name=N&count=K.
type ScheduledRun struct {
	Schedule string     `json:"schedule"`
	At       time.Time  `json:"at"`
	Want     power.Want `json:"want"`
	Until    time.Time  `json:"until,omitzero"`
	// Nodes are those that the expression selects now; LosingPower those of them that are on
	// now and would lose power, Held those that a person holds, which are left alone.
	Nodes       []string `json:"nodes"`
	LosingPower []string `json:"losing_power"`
	Held        []string `json:"held"`
}

// Trust is the answer to GET /v1/trust at a rack's own socket: which central its agent
// follows, and what waits for a person.
type Trust struct {
	Trusted Database  `json:"trusted"` // empty: none yet
	Since   time.Time `json:"since,omitzero"`
	By      string    `json:"by,omitempty"` // who said so; empty: it was the first that the agent met, or a restore of it
	// Kept names nodes that central took away and that the agent goes on with.
	Kept        []string          `json:"kept,omitempty"`
	Outstanding int               `json:"outstanding"` // operations that no central has acknowledged
	Untrusted   *UntrustedCentral `json:"untrusted,omitempty"`
}

// UntrustedCentral is a central that answers an agent which does not follow it.
type UntrustedCentral struct {
	Database
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
	// Known says that what it would assign is known: nodes that come, that go, and that
	// get another BMC or status.
	Known   bool     `json:"known"`
	Adds    []string `json:"adds,omitempty"`
	Removes []string `json:"removes,omitempty"`
	Changes []string `json:"changes,omitempty"`
}

// ConfirmTrust is the body of POST /v1/trust at a rack's own socket. With a central it
// is followed from now on, and may take away the nodes in Removes. Without one the nodes
// in Removes, which central took away, are let go.
type ConfirmTrust struct {
	Database
	Removes []string `json:"removes,omitempty"`
	AskedBy string   `json:"asked_by,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// Idle says why the monitor of a rack corrects nothing for now, and how to end that; "":
// nothing is known to keep it. state is as its agent said last, nil: it said nothing yet.
func Idle(rack string, state *RackState, set RackSettings, now time.Time) string {
	var brake *Brake
	off := set.Monitor == "off"
	if state != nil {
		brake = state.Brake
		off = off || set.Monitor == "" && state.Monitor == "off"
	}
	switch {
	case brake != nil && brake.ID != set.ReleaseBrake:
		return fmt.Sprintf("the brake of rack %s holds since %s (%s): rackpower brake show", rack, power.At(brake.Since), brake.Message)
	case set.Pause.Active(now) && set.Pause.Site:
		return fmt.Sprintf("the monitors of all racks were paused by %s: %s", set.Pause.By, set.Pause.EndedBy(rack))
	case set.Pause.Active(now):
		return fmt.Sprintf("the monitor of rack %s was paused by %s: %s", rack, set.Pause.By, set.Pause.EndedBy(rack))
	case off:
		return fmt.Sprintf("the monitor of rack %s is off: rackpower rack set %s --monitor \"\"", rack, rack)
	}
	return ""
}
