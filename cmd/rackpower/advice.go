package main

import (
	"fmt"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// hint is what a person can do where something is in the way.
type hint struct {
	says string
	run  []string // commands, in order
}

// hints lists them, the most pressing first.
func hints(d door, now time.Time, e api.Explanation, n api.Node) []hint {
	h := hinting{e: e, rack: n.Rack, door: d, now: now}
	if h.rack == "" {
		h.rack = e.Agent
	}
	var hints []hint
	for _, one := range []*hint{
		h.away(), h.unconfigured(), h.shared(), h.credentials(), h.rights(), h.busy(), h.silent(), h.brake(), h.paused(), h.fault(),
		h.monitorOff(),
		h.flagged(), h.held(), h.noStatus(),
	} {
		if one != nil {
			hints = append(hints, *one)
		}
	}
	return hints
}

// hinting knows what hints go by. Each of its methods returns nil where there is
// nothing to say.
type hinting struct {
	e    api.Explanation
	rack string
	door door
	now  time.Time
}

// retry is the command that has the node tried again.
func (h hinting) retry() string {
	if h.door == atAgent {
		return "rackpower local retry " + h.e.Node
	}
	return "rackpower node retry " + h.e.Node
}

// change is the command that changes what is known of the node.
func (h hinting) change(flags string) string {
	return fmt.Sprintf("rackpower node add %s --rack %s %s --update", h.e.Node, h.rack, flags)
}

func (h hinting) away() *hint {
	if h.e.Away == "" || h.door == atAgent {
		return nil
	}
	return &hint{
		fmt.Sprintf("the part of agent %s is missing here; on its own machine it may still answer:", h.e.Agent),
		[]string{"rackpower local explain " + h.e.Node},
	}
}

func (h hinting) unconfigured() *hint {
	if h.e.Reading.Reach != power.ReachUnconfigured {
		return nil
	}
	return &hint{"no BMC is known: say where it is", []string{h.change("--bmc ipmi://USER@HOST --password-file FILE")}}
}

// shared is what to do about a node whose BMC another one has as well.
func (h hinting) shared() *hint {
	if h.e.BMC == nil || h.e.BMC.SharedWith == "" {
		return nil
	}
	return &hint{
		"nothing acts on it, because " + h.e.BMC.SharedWith +
			" has the same BMC: see which of them it belongs to, and correct the other's address, name the parts of a chassis, or remove one",
		[]string{h.change("--bmc ipmi://USER@HOST"), h.change("--bmc 'ipmi://USER@HOST?target=0x30'"), "rackpower node rm NODE"},
	}
}

func (h hinting) credentials() *hint {
	if !h.refusesLogIn() || h.e.Reading.Reach == power.ReachPrivilege {
		return nil
	}
	return &hint{
		"the BMC refuses its user or password, and is left alone so that it does not lock the account: correct them here or at the BMC, then " +
			"have it tried again",
		[]string{h.change("--password-file FILE"), h.retry()},
	}
}

// refusesLogIn reports whether the BMC refused to let the user in.
func (h hinting) refusesLogIn() bool {
	return h.e.Reading.Reach == power.ReachAuthFailed || h.e.BMC != nil && h.e.BMC.AuthFailures > 0
}

// rights is what to do about a user whom the BMC knows and gives too little right.
func (h hinting) rights() *hint {
	if h.e.Reading.Reach != power.ReachPrivilege {
		return nil
	}
	return &hint{
		"the BMC knows the user and gives it too little right: at the BMC, let it use IPMI over LAN as operator or more, " +
			"then have it tried again",
		[]string{h.retry()},
	}
}

func (h hinting) busy() *hint {
	if h.e.Reading.Reach != power.ReachBusy || h.refusesLogIn() {
		return nil
	}
	return &hint{
		"the BMC answers, but not as it should: see who holds its sessions, whether IPMI over LAN (2.0) is switched on, and whether it is " +
			"starting; it is read again by itself, or at once:",
		[]string{h.retry()},
	}
}

func (h hinting) silent() *hint {
	switch reach := h.e.Reading.Reach; {
	case h.refusesLogIn() || reach == power.ReachUnconfigured || reach == power.ReachBusy || reach == power.ReachPrivilege:
		return nil
	case reach == power.ReachUnreachable || h.e.BMC != nil && h.e.BMC.BreakerOpen != "":
		return &hint{"the BMC does not answer: see to its cable, address and power, and that IPMI over LAN is switched on; it is probed by " +
			"itself, or at once:", []string{h.retry()}}
	}
	return nil
}

func (h hinting) brake() *hint {
	b := h.e.Rack.Brake
	if b == nil {
		return nil
	}
	says := fmt.Sprintf("the fleet brake holds %s: undo the change that led to it, or, if all of it is meant, release it",
		plural(len(b.Nodes), "node"))
	return &hint{says, []string{h.door.command + " brake show", releaseBrakeBy(h.door, h.rack)}}
}

func (h hinting) paused() *hint {
	if !h.e.Rack.Pause.Active(h.now) {
		return nil
	}
	return &hint{
		fmt.Sprintf("the monitor rests because %s said so; to have it go on:", h.e.Rack.Pause.By),
		[]string{"rackpower resume " + h.rack},
	}
}

func (h hinting) fault() *hint {
	if h.e.Monitor.Fault == "" {
		return nil
	}
	return &hint{"corrections failed again and again, the last as said above; once that is mended, have it tried at once", []string{h.retry()}}
}

func (h hinting) monitorOff() *hint {
	if h.e.Monitor.Waits != power.ReasonRack && h.e.Rack.Monitor != "off" {
		return nil
	}
	return &hint{
		"the rack runs without a monitor; to give it one:",
		[]string{fmt.Sprintf("rackpower rack set %s --monitor '@every 60s'", h.rack)},
	}
}

// flagged is what to do about a node that differs and that nothing may touch.
func (h hinting) flagged() *hint {
	d, state := h.e.Desired, h.e.Reading.State
	if d.Want != power.HandsOff || d.Expected == "" || state == power.Unknown || state == "" || state == d.Expected {
		return nil
	}
	return &hint{
		fmt.Sprintf("it is expected %s, and nothing is enforced; if it should be:", d.Expected),
		[]string{fmt.Sprintf("%s %s %s", h.door.command, d.Expected, h.e.Node)},
	}
}

// held reminds of a hold that is not what the status says.
func (h hinting) held() *hint {
	if h.e.Hold == nil || h.e.Hold.Want == h.e.Status.Desired().Want {
		return nil
	}
	return &hint{"the hold overrides the status; to end it:", []string{fmt.Sprintf("%s release %s", h.door.command, h.e.Node)}}
}

func (h hinting) noStatus() *hint {
	if h.e.Status != power.StatusNone || h.e.Hold != nil {
		return nil
	}
	return &hint{
		"nobody gave the node a status, so it is left alone; to give it one:",
		[]string{fmt.Sprintf("rackpower node set-status %s STATUS", h.e.Node)},
	}
}
