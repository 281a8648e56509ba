package facts

import (
	"fmt"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// Hint is the obstacle, and the commands that help.
type Hint struct {
	Text string
	Run  []string // in order
}

// Commands of those who ask: what precedes the name of a command that both take.
const (
	AtCentral = "rackpower"
	AtAgent   = "rackpower local"
)

// Hints lists what helps a person who asks by a command, the most pressing first. The commands
// are those of the reason that is the obstacle; a reason without a hint of its own has the text
// of its line.
func Hints(command string, now time.Time, e api.Explanation, n api.Node) []Hint {
	h := hinting{e: e, rack: n.Rack, command: command, now: now}
	if h.rack == "" {
		h.rack = e.Agent
	}
	var hints []Hint
	for _, one := range []*Hint{
		h.away(), h.unconfigured(), h.shared(), h.credentials(), h.privilege(), h.busy(), h.silent(), h.brake(), h.paused(), h.fault(),
		h.monitorOff(), h.flagged(), h.held(), h.noStatus(),
	} {
		if one != nil {
			hints = append(hints, *one)
		}
	}
	if len(hints) == 0 && e.Monitor.Waits.Help("", "") != nil {
		hints = append(hints, Hint{e.Monitor.Waits.Text(), h.help(e.Monitor.Waits)})
	}
	return hints
}

// hinting is what the hints go by. Each of its methods returns nil where nothing is in
// the way.
type hinting struct {
	e       api.Explanation
	rack    string
	command string
	now     time.Time
}

// help is the commands that help against r. At a rack's socket they are those that its
// agent takes, where it does.
func (h hinting) help(r power.Reason) []string {
	commands := r.Help(h.e.Node, h.rack)
	if h.command != AtAgent {
		return commands
	}
	local := strings.NewReplacer("rackpower node retry", "rackpower local retry", "rackpower brake show", "rackpower local brake show",
		ReleaseBrakeBy(AtCentral, h.rack), ReleaseBrakeBy(AtAgent, h.rack))
	for i := range commands {
		commands[i] = local.Replace(commands[i])
	}
	return commands
}

func (h hinting) away() *Hint {
	if h.e.Away == "" || h.command == AtAgent {
		return nil
	}
	return &Hint{
		fmt.Sprintf("central has no answer of agent %s; on its own machine it may still answer", h.e.Agent),
		[]string{"rackpower local explain " + h.e.Node},
	}
}

func (h hinting) unconfigured() *Hint {
	if h.e.Reading.Reach != power.ReachUnconfigured {
		return nil
	}
	if name := h.e.MissingCredentials; name != "" {
		return &Hint{
			fmt.Sprintf("neither central nor the rack has the credentials %s: set them, or put them into the file of the rack's agent "+
				"(rackpower agent --credentials-file)", name),
			h.help(power.ReasonNoCredentials),
		}
	}
	return &Hint{"no BMC is known for the node: give its address", h.help(power.ReasonConfigless)}
}

func (h hinting) shared() *Hint {
	if h.e.BMC == nil || h.e.BMC.SharedWith == "" {
		return nil
	}
	return &Hint{
		"nothing acts on the node, because " + h.e.BMC.SharedWith +
			" has the same BMC: correct the address of one, name the parts of a chassis, or remove one",
		h.help(power.ReasonShared),
	}
}

func (h hinting) credentials() *Hint {
	if !h.refusesLogIn() || h.e.Reading.Reach == power.ReachPrivilege {
		return nil
	}
	return &Hint{
		"the BMC refuses the log-in, and is left alone so that it does not lock the account: correct user or password here or at the BMC, " +
			"then retry",
		h.help(power.ReasonAuth),
	}
}

// refusesLogIn reports whether the BMC refused to let the user in.
func (h hinting) refusesLogIn() bool {
	return h.e.Reading.Reach == power.ReachAuthFailed || h.e.BMC != nil && h.e.BMC.AuthFailures > 0
}

func (h hinting) privilege() *Hint {
	if h.e.Reading.Reach != power.ReachPrivilege {
		return nil
	}
	return &Hint{
		"the BMC user lacks the privilege: at the BMC, allow it IPMI over LAN, or Redfish, as operator or higher, then retry",
		h.help(power.ReasonPrivilege),
	}
}

func (h hinting) busy() *Hint {
	if h.e.Reading.Reach != power.ReachBusy || h.refusesLogIn() {
		return nil
	}
	return &Hint{
		"the BMC answers, but opens no session: check which clients hold its sessions, whether IPMI over LAN (2.0) or Redfish is enabled, and " +
			"whether " +
			"it is starting; the agent reads it again by itself, or at once",
		h.help(power.ReasonBMCBusy),
	}
}

func (h hinting) silent() *Hint {
	switch reach := h.e.Reading.Reach; {
	case h.refusesLogIn() || reach == power.ReachUnconfigured || reach == power.ReachBusy || reach == power.ReachPrivilege:
		return nil
	case reach == power.ReachUnreachable || h.e.BMC != nil && h.e.BMC.BreakerOpen != "":
		return &Hint{
			"the BMC does not answer: check its cable, address and power, and that IPMI over LAN or Redfish is enabled; the agent probes it " +
				"by itself, or at once",
			h.help(power.ReasonBreaker),
		}
	}
	return nil
}

func (h hinting) brake() *Hint {
	b := h.e.Rack.Brake
	if b == nil {
		return nil
	}
	return &Hint{
		fmt.Sprintf("the fleet brake holds %s: undo the change that led to it, or release it if all of it is meant",
			power.Count(len(b.Nodes), "node")),
		h.help(power.ReasonBrake),
	}
}

func (h hinting) paused() *Hint {
	if !h.e.Rack.Pause.Active(h.now) {
		return nil
	}
	if h.e.Rack.Pause.Restored {
		return &Hint{
			"central's database was restored: see what would change by that, and confirm it", []string{h.e.Rack.Pause.EndedBy(h.e.Agent)},
		}
	}
	if h.e.Rack.Pause.Site {
		return &Hint{fmt.Sprintf("%s paused the monitors of all racks: resume them", h.e.Rack.Pause.By), []string{h.e.Rack.Pause.EndedBy("")}}
	}
	return &Hint{fmt.Sprintf("%s paused the monitor: resume it", h.e.Rack.Pause.By), h.help(power.ReasonPaused)}
}

func (h hinting) fault() *Hint {
	if h.e.Monitor.Fault == "" {
		return nil
	}
	return &Hint{"corrections failed repeatedly: mend the cause above, then retry", h.help(power.ReasonFault)}
}

func (h hinting) monitorOff() *Hint {
	if h.e.Monitor.Waits != power.ReasonRack && h.e.Rack.Monitor != api.MonitorOff {
		return nil
	}
	return &Hint{"the monitor of the rack is off: give it a schedule", h.help(power.ReasonRack)}
}

// flagged is for a node that differs from what is expected where nothing is enforced.
func (h hinting) flagged() *Hint {
	d := h.e.Desired
	if d.Enforces() || !d.DiffersFrom(h.e.Reading.State) {
		return nil
	}
	return &Hint{
		fmt.Sprintf("the node is expected %s, and nothing is enforced: ask for it", d.Expected),
		[]string{fmt.Sprintf("%s %s %s", h.command, d.Expected, h.e.Node)},
	}
}

// held is for a hold that wants something else than the status.
func (h hinting) held() *Hint {
	if h.e.Hold == nil || h.e.Hold.Want == h.e.Status.Desired().Want {
		return nil
	}
	return &Hint{"the hold overrides the status: release it to end it", []string{fmt.Sprintf("%s release %s", h.command, h.e.Node)}}
}

func (h hinting) noStatus() *Hint {
	if h.e.Status != power.StatusNone || h.e.Hold != nil {
		return nil
	}
	return &Hint{
		"the node has no status, so it is left alone: give it one",
		[]string{fmt.Sprintf("rackpower node set-status %s STATUS", h.e.Node)},
	}
}

// ReleaseBrakeBy is the command that releases a rack's brake.
func ReleaseBrakeBy(command, rack string) string {
	if command == AtAgent {
		return command + " brake release"
	}
	return fmt.Sprintf("%s brake release %s --reason TEXT", command, rack)
}
