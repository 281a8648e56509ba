package agent

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// explainOps is how many ended operations an explanation tells of.
const explainOps = 3

// explain says why a node is as it is; false: it is not assigned here.
func (a *Agent) explain(name string, now time.Time) (api.Explanation, bool) {
	n, ok := a.assigned.get(name)
	if !ok {
		return api.Explanation{}, false
	}
	e := api.Explanation{
		Node: name, Agent: a.cfg.Name, At: now, Status: n.Status, Desired: n.desired(now), DesiredFrom: n.from(now), Hold: api.ShowHold(n.hold,
			now),
		Reading: a.readings.get(name), Monitor: a.readings.made(name), Ops: a.opsOf(name), BMC: a.bmcState(name), Domain: a.domainOf(name),
		Rack: a.rackState(),
	}
	var since time.Time
	e.RecentReadings = append([]api.ReadingRun{}, a.readings.history(name)...)
	e.RecentDecisions, since, e.Next = a.monitor.rings(name, now)
	if e.BMC != nil && e.BMC.BreakerOpen != "" {
		e.Next = e.BMC.NextProbe // it is not in the rounds
	}
	e.Message = explained{Explanation: e, Since: since}.sum()
	return e, true
}

// opsOf are the outstanding operations on a node, and the newest that ended.
func (a *Agent) opsOf(name string) []api.Op {
	ops := []api.Op{}
	reports, _, _ := a.outbox.after(0)
	reports = slices.DeleteFunc(reports, func(r api.OpReport) bool { return r.Op.Node != name })
	ended := 0
	for i := len(reports) - 1; i >= 0; i-- {
		if reports[i].End != nil {
			if ended++; ended > explainOps {
				continue
			}
		}
		ops = append(ops, opOf(reports[i], a.cfg.Name))
	}
	slices.Reverse(ops)
	return ops
}

// rings are the runs of decisions that are kept of a node, since when it is desired as
// it is, and when it is read next.
func (m *monitor) rings(name string, now time.Time) (decided []api.Decision, since, next time.Time) {
	n := m.shown.Load().nodes[name]
	decided, since, next = append([]api.Decision{}, n.decided...), n.since, n.next
	if s := m.timetable(); s != nil {
		if round := s.Next(now); next.IsZero() || round.Before(next) {
			next = round
		}
	}
	return decided, since, next
}

// explained is an explanation from which its sum is made.
type explained struct {
	api.Explanation
	Since time.Time // when the desire became what it is
}

// sum says in a sentence or two what a person who debugs needs to know first.
func (e explained) sum() string {
	parts := []string{e.is()}
	if op := e.running(); op != nil {
		parts = append(parts, e.operation(op))
	} else if e.Reading.Reach != power.ReachOK {
		parts = append(parts, e.unread()...)
	} else if e.differs() && (e.Monitor.Waits != "" || !e.monitorOff()) {
		parts = append(parts, e.why())
	}
	if e.BMC != nil && e.BMC.SharedWith != "" && e.Monitor.Waits != power.ReasonShared {
		parts = append(parts, "Nothing acts on it: "+power.SharedBMC(e.Node, e.BMC.SharedWith))
	}
	if e.monitorOff() && e.Desired.Enforces() && e.Monitor.Waits != power.ReasonRack {
		parts = append(parts, "Nothing is read or done by itself: this agent's monitor is off")
	}
	if f := e.Monitor.Fault; f != "" && e.Monitor.Waits != power.ReasonFault {
		parts = append(parts, fmt.Sprintf("It is in fault since %s: %s", power.At(e.Monitor.FaultSince), f))
	}
	if text := e.fell(); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, ". ") + "."
}

// fell says that a success did not last, where the fault does not say it.
func (e explained) fell() string {
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

// is says how the node is, and how it should be.
func (e explained) is() string {
	r, want := e.Reading, e.Desired.State()
	is := fmt.Sprintf("%s is %s", e.Node, r.State)
	switch {
	case r.Reach == power.ReachUnconfigured:
		return fmt.Sprintf("No BMC is known for %s, so nothing can be read or done", e.Node)
	case r.ObservedAt.IsZero() && r.Reach == power.ReachNever:
		is = e.Node + " has not been read since this agent started"
	case r.ObservedAt.IsZero():
		is = e.Node + " could not be read since this agent started"
	case r.Reach != power.ReachOK || r.Stale(e.At, power.DefaultStale):
		is = fmt.Sprintf("%s was last read %s, %s ago", e.Node, r.State, power.Ago(e.At.Sub(r.ObservedAt)))
	case want != power.Unknown && r.State == want && e.Desired.Enforces():
		return fmt.Sprintf("%s, as %s wants it", is, e.DesiredFrom)
	case want != power.Unknown && r.State == want:
		return fmt.Sprintf("%s, as %s expects it", is, e.DesiredFrom)
	}
	switch {
	case want == power.Unknown:
		return fmt.Sprintf("%s; %s", is, leftAlone(e.DesiredFrom))
	case e.Desired.Enforces():
		return fmt.Sprintf("%s; %s wants it %s%s", is, e.DesiredFrom, want, e.since())
	default:
		return fmt.Sprintf("%s; %s expects it %s%s", is, e.DesiredFrom, want, e.since())
	}
}

func (e explained) since() string {
	if e.Since.IsZero() {
		return ""
	}
	return " since " + power.At(e.Since)
}

func (e explained) differs() bool {
	return e.Desired.State() != power.Unknown && e.Reading.State != e.Desired.State() // unknown is not as it is desired either
}

// monitorOff reports whether the schedule in force is none.
func (e explained) monitorOff() bool {
	return e.Rack.Monitor == MonitorOff || strings.HasPrefix(e.Rack.Monitor, MonitorOff+" ")
}

// running is the outstanding operation that was started, else the first that waits; nil:
// there is none.
func (e explained) running() *api.Op {
	var first *api.Op
	for i := range e.Ops {
		switch op := &e.Ops[i]; {
		case !outstanding(*op):
		case op.StartedAt != nil:
			return op
		case first == nil:
			first = op
		}
	}
	return first
}

// outstanding reports whether it is an operation of its own that has not ended.
func outstanding(op api.Op) bool { return op.EndedAt == nil && op.Joined == "" }

func (e explained) operation(op *api.Op) string {
	more := 0
	for _, other := range e.Ops {
		if outstanding(other) && other.ID != op.ID {
			more++
		}
	}
	text := fmt.Sprintf("%s (asked by %s, %s ago%s) is %s", op.Action, op.AskedBy, power.Ago(e.At.Sub(op.AskedAt)), andWhy(op.Reason),
		op.Phase)
	if more > 0 {
		text += fmt.Sprintf(", and %d more behind it", more)
	}
	return text
}

func andWhy(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// unread says why the node cannot be read, and what that means.
func (e explained) unread() []string {
	var parts []string
	says := e.answer()
	switch r := e.Reading.Reach; {
	case r == power.ReachUnconfigured || r == power.ReachNever:
		return nil
	case says != "":
		parts = append(parts, "It cannot be read: "+says)
	case r == power.ReachAuthFailed && e.BMC != nil && e.BMC.LastError != "":
		parts = append(parts, "Its BMC refuses the log-in ("+e.BMC.LastError+
			"): correct user, password or K_g (rackpower node add --update), or have it tried again (rackpower node retry "+e.Node+")")
	case r == power.ReachAuthFailed:
		parts = append(parts, "Its BMC refuses user or password: correct them (rackpower node add --update), or have it tried again (rackpower "+
			"node retry "+e.Node+")")
	case r == power.ReachPrivilege:
		parts = append(parts, "Its BMC knows the user and gives it too little right: raise the user's privilege at the BMC, then have it tried "+
			"again (rackpower node retry "+e.Node+")")
	case r == power.ReachBusy:
		parts = append(parts, "Its BMC answers, but opens no session or says that it is busy")
	case r == power.ReachUnreachable:
		parts = append(parts, "Its BMC does not answer")
	default:
		parts = append(parts, fmt.Sprintf("Its BMC cannot be asked: %s", e.Reading.Reach))
	}
	if b := e.BMC; b != nil && b.BreakerOpen != "" {
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
func (e explained) answer() string {
	if b := e.BMC; b == nil || b.Failures+b.AuthFailures > 0 || b.BreakerOpen != "" || len(e.RecentReadings) == 0 {
		return ""
	}
	return e.RecentReadings[len(e.RecentReadings)-1].Message
}

// why says why nothing is done about a node that is not as it should be.
func (e explained) why() string {
	w := e.Monitor
	switch w.Waits {
	case power.ReasonHandsOff:
		return "That is shown, and the monitor never acts on it"
	case power.ReasonNoCut:
		return "The monitor does nothing: " + w.WaitsMessage
	case power.ReasonFault:
		return fmt.Sprintf("It is in fault since %s: %s; tried again at %s, or now by rackpower node retry %s", power.At(w.FaultSince),
			w.WaitsMessage, power.At(w.WaitsUntil), e.Node)
	case power.ReasonBrake:
		return fmt.Sprintf("Nothing is done: %s. See rackpower brake show; rackpower brake release lets it go", w.WaitsMessage)
	case power.ReasonPaused:
		return "Nothing is done: " + w.WaitsMessage + until(w.WaitsUntil)
	case power.ReasonRack:
		return "Nothing is done: " + w.WaitsMessage
	case "":
		return "The monitor looks at it next" + at(e.Next)
	default:
		return "The monitor waits: " + w.WaitsMessage + until(w.WaitsUntil)
	}
}

func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", until " + power.At(t)
}

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + power.At(t)
}

func (a *Agent) ctlExplain(r *http.Request) (api.Explanation, error) {
	e, ok := a.explain(r.PathValue("name"), time.Now())
	if !ok {
		return e, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", r.PathValue("name"), a.cfg.Name)
	}
	return e, nil
}
