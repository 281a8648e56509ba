package main

import (
	"fmt"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// hint is the obstacle, and the commands that help.
type hint struct {
	text string
	run  []string // commands, in order
}

// hints lists what helps, the most pressing first. The commands are those of the reason
// that is the obstacle; a reason without a hint of its own has the text of its line.
func hints(d server, now time.Time, e api.Explanation, n api.Node) []hint {
	h := hinting{e: e, rack: n.Rack, server: d, now: now}
	if h.rack == "" {
		h.rack = e.Agent
	}
	var hints []hint
	for _, one := range []*hint{
		h.away(), h.unconfigured(), h.shared(), h.credentials(), h.privilege(), h.busy(), h.silent(), h.brake(), h.paused(), h.fault(),
		h.monitorOff(), h.flagged(), h.held(), h.noStatus(),
	} {
		if one != nil {
			hints = append(hints, *one)
		}
	}
	if len(hints) == 0 && e.Monitor.Waits.Help("", "") != nil {
		hints = append(hints, hint{e.Monitor.Waits.Text(), h.help(e.Monitor.Waits)})
	}
	return hints
}

// hinting is what the hints go by. Each of its methods returns nil where nothing is in
// the way.
type hinting struct {
	e      api.Explanation
	rack   string
	server server
	now    time.Time
}

// help is the commands that help against r. At a rack's socket they are those that its
// agent takes, where it does.
func (h hinting) help(r power.Reason) []string {
	commands := r.Help(h.e.Node, h.rack)
	if h.server != atAgent {
		return commands
	}
	local := strings.NewReplacer("rackpower node retry", "rackpower local retry", "rackpower brake show", "rackpower local brake show",
		releaseBrakeBy(atCentral, h.rack), releaseBrakeBy(atAgent, h.rack))
	for i := range commands {
		commands[i] = local.Replace(commands[i])
	}
	return commands
}

func (h hinting) away() *hint {
	if h.e.Away == "" || h.server == atAgent {
		return nil
	}
	return &hint{
		fmt.Sprintf("central has no answer of agent %s; on its own machine it may still answer", h.e.Agent),
		[]string{"rackpower local explain " + h.e.Node},
	}
}

func (h hinting) unconfigured() *hint {
	if h.e.Reading.Reach != power.ReachUnconfigured {
		return nil
	}
	if name := h.e.MissingCredentials; name != "" {
		return &hint{
			fmt.Sprintf("neither central nor the rack has the credentials %s: set them, or put them into the file of the rack's agent "+
				"(rackpower agent --credentials-file)", name),
			h.help(power.ReasonNoCredentials),
		}
	}
	return &hint{"no BMC is known for the node: give its address", h.help(power.ReasonConfigless)}
}

func (h hinting) shared() *hint {
	if h.e.BMC == nil || h.e.BMC.SharedWith == "" {
		return nil
	}
	return &hint{
		"nothing acts on the node, because " + h.e.BMC.SharedWith +
			" has the same BMC: correct the address of one, name the parts of a chassis, or remove one",
		h.help(power.ReasonShared),
	}
}

func (h hinting) credentials() *hint {
	if !h.refusesLogIn() || h.e.Reading.Reach == power.ReachPrivilege {
		return nil
	}
	return &hint{
		"the BMC refuses the log-in, and is left alone so that it does not lock the account: correct user or password here or at the BMC, " +
			"then retry",
		h.help(power.ReasonAuth),
	}
}

// refusesLogIn reports whether the BMC refused to let the user in.
func (h hinting) refusesLogIn() bool {
	return h.e.Reading.Reach == power.ReachAuthFailed || h.e.BMC != nil && h.e.BMC.AuthFailures > 0
}

func (h hinting) privilege() *hint {
	if h.e.Reading.Reach != power.ReachPrivilege {
		return nil
	}
	return &hint{
		"the BMC user lacks the privilege: at the BMC, allow it IPMI over LAN, or Redfish, as operator or higher, then retry",
		h.help(power.ReasonPrivilege),
	}
}

func (h hinting) busy() *hint {
	if h.e.Reading.Reach != power.ReachBusy || h.refusesLogIn() {
		return nil
	}
	return &hint{
		"the BMC answers, but opens no session: check which clients hold its sessions, whether IPMI over LAN (2.0) or Redfish is enabled, and " +
			"whether " +
			"it is starting; the agent reads it again by itself, or at once",
		h.help(power.ReasonBMCBusy),
	}
}

func (h hinting) silent() *hint {
	switch reach := h.e.Reading.Reach; {
	case h.refusesLogIn() || reach == power.ReachUnconfigured || reach == power.ReachBusy || reach == power.ReachPrivilege:
		return nil
	case reach == power.ReachUnreachable || h.e.BMC != nil && h.e.BMC.BreakerOpen != "":
		return &hint{
			"the BMC does not answer: check its cable, address and power, and that IPMI over LAN or Redfish is enabled; the agent probes it " +
				"by itself, or at once",
			h.help(power.ReasonBreaker),
		}
	}
	return nil
}

func (h hinting) brake() *hint {
	b := h.e.Rack.Brake
	if b == nil {
		return nil
	}
	return &hint{
		fmt.Sprintf("the fleet brake holds %s: undo the change that led to it, or release it if all of it is meant",
			power.Count(len(b.Nodes), "node")),
		h.help(power.ReasonBrake),
	}
}

func (h hinting) paused() *hint {
	if !h.e.Rack.Pause.Active(h.now) {
		return nil
	}
	if h.e.Rack.Pause.Site {
		return &hint{fmt.Sprintf("%s paused the monitors of all racks: resume them", h.e.Rack.Pause.By), []string{"rackpower resume all"}}
	}
	return &hint{fmt.Sprintf("%s paused the monitor: resume it", h.e.Rack.Pause.By), h.help(power.ReasonPaused)}
}

func (h hinting) fault() *hint {
	if h.e.Monitor.Fault == "" {
		return nil
	}
	return &hint{"corrections failed repeatedly: mend the cause above, then retry", h.help(power.ReasonFault)}
}

func (h hinting) monitorOff() *hint {
	if h.e.Monitor.Waits != power.ReasonRack && h.e.Rack.Monitor != api.MonitorOff {
		return nil
	}
	return &hint{"the monitor of the rack is off: give it a schedule", h.help(power.ReasonRack)}
}

// flagged is for a node that differs from what is expected where nothing is enforced.
func (h hinting) flagged() *hint {
	d := h.e.Desired
	if d.Enforces() || !d.DiffersFrom(h.e.Reading.State) {
		return nil
	}
	return &hint{
		fmt.Sprintf("the node is expected %s, and nothing is enforced: ask for it", d.Expected),
		[]string{fmt.Sprintf("%s %s %s", h.server.command, d.Expected, h.e.Node)},
	}
}

// held is for a hold that wants something else than the status.
func (h hinting) held() *hint {
	if h.e.Hold == nil || h.e.Hold.Want == h.e.Status.Desired().Want {
		return nil
	}
	return &hint{"the hold overrides the status: release it to end it", []string{fmt.Sprintf("%s release %s", h.server.command, h.e.Node)}}
}

func (h hinting) noStatus() *hint {
	if h.e.Status != power.StatusNone || h.e.Hold != nil {
		return nil
	}
	return &hint{
		"the node has no status, so it is left alone: give it one",
		[]string{fmt.Sprintf("rackpower node set-status %s STATUS", h.e.Node)},
	}
}
