package power

import (
	"fmt"
	"strings"
)

// Status is the life-cycle status of a node, in MAAS's words. The empty Status
// belongs to nodes that nobody has given one: they are left alone.
type Status string

// The statuses.
const (
	StatusNone                     Status = ""
	StatusNew                      Status = "NEW"
	StatusCommissioning            Status = "COMMISSIONING"
	StatusFailedCommissioning      Status = "FAILED_COMMISSIONING"
	StatusMissing                  Status = "MISSING"
	StatusReady                    Status = "READY"
	StatusReserved                 Status = "RESERVED"
	StatusAllocated                Status = "ALLOCATED"
	StatusRetired                  Status = "RETIRED"
	StatusBroken                   Status = "BROKEN"
	StatusDeploying                Status = "DEPLOYING"
	StatusDeployed                 Status = "DEPLOYED"
	StatusFailedDeployment         Status = "FAILED_DEPLOYMENT"
	StatusReleasing                Status = "RELEASING"
	StatusFailedReleasing          Status = "FAILED_RELEASING"
	StatusDiskErasing              Status = "DISK_ERASING"
	StatusFailedDiskErasing        Status = "FAILED_DISK_ERASING"
	StatusEnteringRescueMode       Status = "ENTERING_RESCUE_MODE"
	StatusRescueMode               Status = "RESCUE_MODE"
	StatusExitingRescueMode        Status = "EXITING_RESCUE_MODE"
	StatusFailedEnteringRescueMode Status = "FAILED_ENTERING_RESCUE_MODE"
	StatusFailedExitingRescueMode  Status = "FAILED_EXITING_RESCUE_MODE"
	StatusTesting                  Status = "TESTING"
	StatusFailedTesting            Status = "FAILED_TESTING"
)

// Want is what a node's power should be.
type Want string

// The wants. HandsOff is never enforced.
const (
	WantOn   Want = "on"
	WantOff  Want = "off"
	HandsOff Want = "hands-off"
)

// Desired is what a status says about a node's power.
type Desired struct {
	Want Want `json:"want"`
	// Debounced desires are enforced only after two equal readings.
	Debounced bool `json:"debounced,omitempty"`
	// Expected is a state that is flagged when it differs and never acted on;
	// empty where Want says it all.
	Expected State `json:"expected,omitempty"`
	// NoCut forbids the monitor every off and cycle, whatever it sees.
	NoCut bool `json:"no_cut,omitempty"`
}

// desired is the table of rules 5, one row for each status.
var desired = []struct {
	Status Status
	Desired
}{
	{StatusNew, Desired{Want: WantOff, Debounced: true}}, // it may be enlisting
	{StatusCommissioning, Desired{Want: WantOn, Debounced: true}},
	{StatusFailedCommissioning, Desired{Want: WantOff}},
	{StatusMissing, Desired{Want: HandsOff}},
	{StatusReady, Desired{Want: WantOff}},
	{StatusReserved, Desired{Want: WantOff}},
	{StatusAllocated, Desired{Want: WantOff}},
	{StatusRetired, Desired{Want: HandsOff}},
	{StatusBroken, Desired{Want: WantOff}},
	{StatusDeploying, Desired{Want: WantOn, Debounced: true}},
	{StatusDeployed, Desired{Want: HandsOff, Expected: On}},
	{StatusFailedDeployment, Desired{Want: WantOff}},
	{StatusReleasing, Desired{Want: WantOff}},
	{StatusFailedReleasing, Desired{Want: WantOff}},
	{StatusDiskErasing, Desired{Want: WantOn, NoCut: true}},
	{StatusFailedDiskErasing, Desired{Want: WantOff}},
	{StatusEnteringRescueMode, Desired{Want: WantOn, Debounced: true}},
	{StatusRescueMode, Desired{Want: WantOn, Debounced: true}},
	{StatusTesting, Desired{Want: WantOn, Debounced: true}},
	{StatusExitingRescueMode, Desired{Want: HandsOff}}, // the status before is not known here
	{StatusFailedEnteringRescueMode, Desired{Want: HandsOff}},
	{StatusFailedExitingRescueMode, Desired{Want: HandsOff}},
	{StatusFailedTesting, Desired{Want: HandsOff}},
}

// Desired infers a node's desired power from its status. A status that is not
// in the table is hands-off.
func (s Status) Desired() Desired {
	for _, row := range desired {
		if row.Status == s {
			return row.Desired
		}
	}
	return Desired{Want: HandsOff}
}

// ParseStatus reads the name of a status, in any case, with - for _.
func ParseStatus(text string) (Status, error) {
	want := Status(strings.ToUpper(strings.ReplaceAll(text, "-", "_")))
	for _, row := range desired {
		if row.Status == want {
			return want, nil
		}
	}
	return "", fmt.Errorf("unknown status %q: want one of %s", text, join(Statuses()))
}

// Statuses lists the statuses in the order of the table.
func Statuses() []Status {
	all := make([]Status, len(desired))
	for i, row := range desired {
		all[i] = row.Status
	}
	return all
}

// Enforces reports whether the monitor acts on the desire.
func (d Desired) Enforces() bool { return d.Want == WantOn || d.Want == WantOff }

// DiffersFrom reports whether a node that is known to be on or off is wanted or expected
// otherwise.
func (d Desired) DiffersFrom(s State) bool {
	want := d.State()
	return want != Unknown && (s == On || s == Off) && s != want
}

// State is the state that the node is wanted or expected in, Unknown if none is.
func (d Desired) State() State {
	switch {
	case d.Want == WantOn:
		return On
	case d.Want == WantOff:
		return Off
	case d.Expected != "":
		return d.Expected
	default:
		return Unknown
	}
}

func errWant(text string) error {
	return fmt.Errorf("unknown want %q: want on, off or hands-off", text)
}

// Conflicts reports whether the monitor would undo a success of the action.
func (d Desired) Conflicts(a Action) bool {
	return d.Enforces() && a.Final() != Unknown && a.Final() != d.State()
}
