package api

import (
	"fmt"
	"strings"
	"time"

	"rackpower/power"
)

// Summary says in a sentence or two what a person who debugs needs to know first: how the
// node is and should be, what is done about it, and if nothing is, why and which command
// helps. since is when the desired state became what it is; zero: not known. An agent
// and central, which knows less, say the same in the same words.
func (e Explanation) Summary(since time.Time) string {
	parts := []string{e.isAndShould(since)}
	waits := false
	if op := e.running(); op != nil {
		parts = append(parts, e.operation(op))
	} else if e.Reading.Reach != power.ReachOK {
		parts = append(parts, e.unread()...)
	} else if e.differs() && (e.Monitor.Waits != "" || !e.monitorOff()) {
		parts, waits = append(parts, e.why()), true
	}
	said := func(r power.Reason) bool { return waits && e.Monitor.Waits == r }
	if e.BMC != nil && e.BMC.SharedWith != "" && !said(power.ReasonShared) {
		parts = append(parts, "Nothing acts on it: "+power.SharedBMC(e.Node, e.BMC.SharedWith))
	}
	if e.monitorOff() && e.Desired.Enforces() && !said(power.ReasonRack) {
		parts = append(parts, "Nothing is read or corrected: "+power.ReasonRack.Text())
	}
	if e.Monitor.Fault != "" && !said(power.ReasonFault) {
		parts = append(parts, e.fault())
	}
	if text := e.fellBack(); text != "" {
		parts = append(parts, text)
	}
	if e.Away != "" {
		parts = append(parts, e.withoutAgent(said)...)
	}
	return strings.Join(parts, ". ") + "."
}

// withoutAgent adds what central knows and the agent has not answered to yet.
func (e Explanation) withoutAgent(said func(power.Reason) bool) (parts []string) {
	if p := e.Rack.Pause; p.Active(e.At) && !said(power.ReasonPaused) {
		parts = append(parts, "The monitor of the rack is paused by "+p.By)
	}
	if b := e.Rack.Brake; b != nil && !said(power.ReasonBrake) {
		parts = append(parts, "The fleet brake holds: "+b.Message)
	}
	return append(parts, "Only central answers: "+e.Away)
}

// fellBack says that a success did not last, where the fault does not say it.
func (e Explanation) fellBack() string {
	m := e.Monitor
	switch {
	case m.Reverted == "" || m.Fault != "":
		return ""
	case m.RevertedTimes > 1:
		return fmt.Sprintf("The last %d corrections did not last: %s (seen %s)", m.RevertedTimes, m.Reverted, power.At(m.RevertedAt))
	case m.RevertedTimes == 1:
		return fmt.Sprintf("The last correction did not last: %s (seen %s)", m.Reverted, power.At(m.RevertedAt))
	}
	return fmt.Sprintf("The last operation did not last: %s (seen %s)", m.Reverted, power.At(m.RevertedAt))
}

func (e Explanation) isAndShould(since time.Time) string {
	r, want := e.Reading, e.Desired.State()
	is, start := fmt.Sprintf("%s is %s", e.Node, r.State), " since this agent started"
	if e.Away != "" {
		start = ""
	}
	switch {
	case e.MissingCredentials != "":
		return fmt.Sprintf("%s names the credentials %s, which neither central nor agent %s has, so nothing can be read or done", e.Node,
			e.MissingCredentials, e.Agent)
	case r.Reach == power.ReachUnconfigured:
		return fmt.Sprintf("No BMC is known for %s, so nothing can be read or done", e.Node)
	case r.ObservedAt.IsZero() && r.Reach == power.ReachNever:
		is = e.Node + " has not been read" + start
	case r.ObservedAt.IsZero():
		is = e.Node + " could not be read" + start
	case r.ObservedAt.After(e.At):
		is = fmt.Sprintf("%s was last read %s at an unknown time, since the clock was set back", e.Node, r.State)
	case e.Away != "" || r.Reach != power.ReachOK || r.Stale(e.At, power.DefaultStale):
		is = fmt.Sprintf("%s was last read %s, %s ago", e.Node, r.State, power.Ago(e.At.Sub(r.ObservedAt)))
	case want != power.Unknown && r.State == want && e.Desired.Enforces():
		return fmt.Sprintf("%s, as %s wants it", is, e.DesiredFrom)
	case want != power.Unknown && r.State == want:
		return fmt.Sprintf("%s, as %s expects it", is, e.DesiredFrom)
	}
	from := ""
	if !since.IsZero() {
		from = " since " + power.At(since)
	}
	switch {
	case want == power.Unknown:
		return fmt.Sprintf("%s; %s", is, power.LeftAlone(e.DesiredFrom))
	case e.Desired.Enforces():
		return fmt.Sprintf("%s; %s wants it %s%s", is, e.DesiredFrom, want, from)
	default:
		return fmt.Sprintf("%s; %s expects it %s%s", is, e.DesiredFrom, want, from)
	}
}

// differs reports whether the node is not known to be as it is desired: unlike
// DiffersFrom it counts one that was not read.
func (e Explanation) differs() bool {
	return e.Desired.State() != power.Unknown && e.Reading.State != e.Desired.State()
}

// monitorOff reports whether the schedule in force is none.
func (e Explanation) monitorOff() bool {
	return e.Rack.Monitor == MonitorOff || strings.HasPrefix(e.Rack.Monitor, MonitorOff+" ")
}

// running is the outstanding operation that was started, else the first that waits; nil:
// there is none.
func (e Explanation) running() *Op {
	var first *Op
	for i := range e.Ops {
		switch op := &e.Ops[i]; {
		case !op.outstanding():
		case op.StartedAt != nil:
			return op
		case first == nil:
			first = op
		}
	}
	return first
}

// outstanding reports whether it is an operation of its own that has not ended.
func (o Op) outstanding() bool { return o.EndedAt == nil && o.Joined == "" }

func (e Explanation) operation(op *Op) string {
	more := 0
	for _, other := range e.Ops {
		if other.outstanding() && other.ID != op.ID {
			more++
		}
	}
	why := ""
	if op.Reason != "" {
		why = ": " + op.Reason
	}
	text := fmt.Sprintf("%s (asked by %s, %s ago%s) is %s", op.Action, op.AskedBy, power.Ago(e.At.Sub(op.AskedAt)), why, op.Phase)
	if more > 0 {
		text += fmt.Sprintf(", and %d more behind it", more)
	}
	return text
}

// unread says why the node cannot be read, and what that means.
func (e Explanation) unread() []string {
	var parts []string
	reach, b := e.Reading.Reach, e.BMC
	switch text := e.answer(); {
	case reach == power.ReachUnconfigured || reach == power.ReachNever:
		return nil
	case text != "":
		parts = append(parts, "It cannot be read: "+text)
	default:
		text = "It cannot be read: " + reach.Reason().Text()
		if reach == power.ReachAuthFailed && b != nil && b.LastError != "" {
			text += ": " + b.LastError
		}
		parts = append(parts, text+e.help(reach.Reason()))
	}
	if b != nil && b.BreakerOpen != "" {
		text := "It is left alone: " + b.BreakerOpen
		if !b.NextProbe.IsZero() {
			text += ", tried again at " + power.At(b.NextProbe)
		}
		parts = append(parts, text)
	}
	if e.differs() && e.Desired.Enforces() {
		parts = append(parts, "Nothing is done about its power until it is read")
	}
	return parts
}

// answer is the error that the BMC answered the last reading with; "": it gave no answer,
// or refused the log-in.
func (e Explanation) answer() string {
	if b := e.BMC; b == nil || b.Failures+b.AuthFailures > 0 || b.BreakerOpen != "" || len(e.RecentReadings) == 0 {
		return ""
	}
	return e.RecentReadings[len(e.RecentReadings)-1].Message
}

// why says why nothing is done about a node that is not as it should be.
func (e Explanation) why() string {
	m := e.Monitor
	switch {
	case m.Waits == "" && e.Away != "":
		return "The monitor had not checked it yet"
	case m.Waits == "":
		return "The monitor checks it next" + at(" at ", e.Next)
	case m.Waits == power.ReasonHandsOff:
		return "The monitor shows that and does not act on it"
	case m.Waits == power.ReasonFault && m.Fault != "":
		return e.fault() + at("; tried again at ", m.WaitsUntil) + e.help(m.Waits)
	case m.WaitsUntil.IsZero():
		return "The monitor does nothing: " + m.WaitsMessage + e.help(m.Waits)
	}
	return "The monitor waits: " + m.WaitsMessage + at(", until ", m.WaitsUntil) + e.help(m.Waits)
}

func (e Explanation) fault() string {
	return "It is in fault" + at(" since ", e.Monitor.FaultSince) + ": " + e.Monitor.Fault
}

// help is the commands that help where r is the obstacle, in brackets.
func (e Explanation) help(r power.Reason) string {
	commands := r.Help(e.Node, e.Agent)
	if len(commands) == 0 {
		return ""
	}
	return " (" + strings.Join(commands, "; ") + ")"
}

func at(before string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return before + power.At(t)
}
