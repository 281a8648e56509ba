package main

import (
	"fmt"

	"rackpower/central/api"
	"rackpower/power"
)

// hints says what a person can do where something is in the way, the most pressing
// first.
func (s *session) hints(e api.Explanation, n api.Node) []string {
	h := hinting{e: e, rack: n.Rack, door: s.door}
	if h.rack == "" {
		h.rack = e.Agent
	}
	var hints []string
	for _, hint := range []string{
		h.away(), h.unconfigured(), h.credentials(), h.silent(), h.brake(), h.paused(s), h.fault(), h.monitorOff(),
		h.flagged(), h.held(), h.noStatus(),
	} {
		if hint != "" {
			hints = append(hints, hint)
		}
	}
	return hints
}

// hinting knows what hints go by. Each of its methods returns "" where there is
// nothing to say.
type hinting struct {
	e    api.Explanation
	rack string
	door door
}

// retry is the command that has the node tried again.
func (h hinting) retry() string {
	if h.door == atAgent {
		return "rackpower local retry " + h.e.Node
	}
	return "rackpower node retry " + h.e.Node
}

func (h hinting) away() string {
	if h.e.Away == "" || h.door == atAgent {
		return ""
	}
	return fmt.Sprintf("the agent's part is missing: see to agent %s; on its machine, rackpower local explain %s says the rest", h.e.Agent, h.e.Node)
}

func (h hinting) unconfigured() string {
	if h.e.Reading.Reach != power.ReachUnconfigured {
		return ""
	}
	return fmt.Sprintf("no BMC is known: rackpower node add %s --rack %s --bmc ipmi://USER@HOST --password-file FILE --update", h.e.Node, h.rack)
}

func (h hinting) credentials() string {
	refused := h.e.Reading.Reach == power.ReachAuthFailed || h.e.BMC != nil && h.e.BMC.AuthFailures > 0
	if !refused {
		return ""
	}
	return fmt.Sprintf("the BMC refuses its user or password, and is left alone so that it does not lock the account: correct them with "+
		"rackpower node add %s --rack %s --password-file FILE --update, or, if the BMC was changed, %s", h.e.Node, h.rack, h.retry())
}

func (h hinting) silent() string {
	switch {
	case h.e.Reading.Reach == power.ReachAuthFailed || h.e.Reading.Reach == power.ReachUnconfigured:
		return ""
	case h.e.Reading.Reach == power.ReachUnreachable || h.e.BMC != nil && h.e.BMC.LeftAlone != "":
		return "the BMC does not answer: check its cable, address and power; it is probed by itself, at once after " + h.retry()
	}
	return ""
}

func (h hinting) brake() string {
	b := h.e.Rack.Brake
	if b == nil {
		return ""
	}
	return fmt.Sprintf("the fleet brake holds %s: look at %s brake show; if all of it is meant, %s, else undo the change that led to it",
		plural(len(b.Nodes), "node"), h.door.command, releaseBrakeBy(h.door, h.rack))
}

func (h hinting) paused(s *session) string {
	if !h.e.Rack.Pause.Active(s.now()) {
		return ""
	}
	return fmt.Sprintf("the monitor rests because %s said so: rackpower resume %s", h.e.Rack.Pause.By, h.rack)
}

func (h hinting) fault() string {
	if h.e.Monitor.Fault == "" {
		return ""
	}
	return fmt.Sprintf("corrections failed again and again: the operations above say how; once that is mended, %s tries at once", h.retry())
}

func (h hinting) monitorOff() string {
	if h.e.Monitor.Waits != power.ReasonRack && h.e.Rack.Monitor != "off" {
		return ""
	}
	return fmt.Sprintf("the rack runs without a monitor: rackpower rack set %s --monitor '@every 60s'", h.rack)
}

// flagged is what to do about a node that differs and that nobody may touch.
func (h hinting) flagged() string {
	d, state := h.e.Desired, h.e.Reading.State
	if d.Want != power.HandsOff || d.Expected == "" || state == power.Unknown || state == "" || state == d.Expected {
		return ""
	}
	return fmt.Sprintf("it is expected %s and nothing is enforced: %s %s %s turns it %s", d.Expected, h.door.command, d.Expected, h.e.Node, d.Expected)
}

// held reminds of a hold that is not what the status says.
func (h hinting) held() string {
	if h.e.Hold == nil || h.e.Hold.Want == h.e.Status.Desired().Want {
		return ""
	}
	return fmt.Sprintf("the hold overrides the status: %s release %s ends it", h.door.command, h.e.Node)
}

func (h hinting) noStatus() string {
	if h.e.Status != power.StatusNone || h.e.Hold != nil {
		return ""
	}
	return fmt.Sprintf("nobody gave the node a status, so it is left alone: rackpower node set-status %s STATUS", h.e.Node)
}
