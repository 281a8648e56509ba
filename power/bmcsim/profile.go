package bmcsim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Profile is the shape of a BMC's Redfish tree: what differs between makers.
type Profile struct {
	Name                           string
	Manufacturer, Model, Firmware  string
	SystemID, ManagerID, ChassisID string // the last parts of their URLs

	// Resets are the types that ComputerSystem.Reset takes. Inline offers them with the
	// action, ActionInfo in an object of their own; without either they are not told.
	Resets             []string
	Inline, ActionInfo bool
	// Aside, if set, is the ID of another System, listed first, that cannot be reset.
	Aside string
	// Settings is the part of Boot that waits in a Settings object: "order", or "boot" for
	// the boot device, which the System itself then refuses. Empty: there is none.
	Settings string
	// ETag is how tags are dealt with: see RedfishFault.
	ETag string
	// Limit is where watts and their limit are: "PowerControl", "EnvironmentMetrics" or "".
	Limit string
	// LimitException is what happens at the limit (PowerControl).
	LimitException string
	Sessions       int           // room for so many
	SessionTimeout time.Duration // of one that is idle
	Transitional   bool          // shows PoweringOn and PoweringOff
	Strict         bool          // refuses what is there already: On for a node that is on
	OEM            bool          // has objects and actions of its maker beside the standard's
}

// What profiles choose from.
const (
	settingsOrder = "order"
	settingsBoot  = "boot"

	limitPowerControl       = "PowerControl"
	limitEnvironmentMetrics = "EnvironmentMetrics"
)

// Types of ComputerSystem.Reset (DSP0268).
const (
	resetOn               = "On"
	resetForceOn          = "ForceOn"
	resetForceOff         = "ForceOff"
	resetGracefulShutdown = "GracefulShutdown"
	resetGracefulRestart  = "GracefulRestart"
	resetForceRestart     = "ForceRestart"
	resetPowerCycle       = "PowerCycle"
	resetPushPowerButton  = "PushPowerButton"
	resetNMI              = "Nmi"
)

var (
	allResets = []string{
		resetOn, resetForceOff, resetForceRestart, resetGracefulRestart, resetGracefulShutdown, resetPushPowerButton, resetNMI,
		resetPowerCycle,
	}
	noButton = []string{
		resetOn, resetNMI, resetGracefulShutdown, resetGracefulRestart, resetForceOn, resetForceOff, resetForceRestart,
	}
)

// Profiles are the shapes there are by name; the first one is what a BMC has by default.
var Profiles = []Profile{
	{
		Name: "inline", Manufacturer: "Simulated", Model: "Inline 1", Firmware: "1.0", SystemID: "System.1", ManagerID: "Manager.1",
		ChassisID: "System.1", Resets: allResets, Inline: true, ETag: etagNone, Limit: limitPowerControl, LimitException: "HardPowerOff",
		Sessions: 8, SessionTimeout: 30 * time.Minute,
	},
	{
		Name: "actioninfo", Manufacturer: "Simulated", Model: "ActionInfo 2", Firmware: "2.0", SystemID: "system", ManagerID: "bmc",
		ChassisID: "chassis", Resets: append(slices.Clone(allResets), resetForceOn), ActionInfo: true, ETag: etagWeak,
		Limit: limitEnvironmentMetrics, Sessions: 64, SessionTimeout: 30 * time.Minute, Transitional: true,
	},
	{
		Name: "both", Manufacturer: "Simulated", Model: "Both 3", Firmware: "3.0", SystemID: "1", ManagerID: "1", ChassisID: "1",
		Resets: noButton, Inline: true, ActionInfo: true, Settings: settingsOrder, ETag: etagStrong, Limit: limitPowerControl,
		LimitException: "LogEventOnly", Sessions: 16, SessionTimeout: 5 * time.Minute, Strict: true,
	},
	{
		Name: "neither", Manufacturer: "Simulated", Model: "Neither 4", Firmware: "4.0", SystemID: "1", ManagerID: "1", ChassisID: "1",
		Resets: []string{resetOn, resetForceOff, resetForceRestart, resetGracefulShutdown}, ETag: etagNone, Sessions: 4,
		SessionTimeout: time.Minute,
	},
	{
		Name: "settings", Manufacturer: "Simulated", Model: "Settings 5", Firmware: "5.0", SystemID: "Self", ManagerID: "Self",
		ChassisID: "Self", Resets: allResets, Inline: true, Settings: settingsBoot, ETag: etagRequired, Limit: limitPowerControl,
		LimitException: "NoAction", Sessions: 15, SessionTimeout: 10 * time.Minute,
	},
	{
		Name: "two-systems", Manufacturer: "Simulated", Model: "Two 6", Firmware: "6.0", SystemID: "System_0", ManagerID: "BMC_0",
		ChassisID: "Chassis_0", Resets: append(slices.Clone(noButton), resetPowerCycle), ActionInfo: true, Aside: "Baseboard_0",
		Settings: settingsOrder, ETag: etagStrong, Limit: limitEnvironmentMetrics, Sessions: 64, SessionTimeout: 30 * time.Minute,
	},
	{
		Name: "oem", Manufacturer: "Simulated", Model: "OEM 7", Firmware: "7.0", SystemID: "1", ManagerID: "1", ChassisID: "1",
		Resets: []string{resetForceOn, resetForceOff, resetForceRestart, resetGracefulShutdown, resetPushPowerButton, resetNMI},
		Inline: true, ETag: etagStar,
		Limit: limitPowerControl, LimitException: "Oem", Sessions: 4, SessionTimeout: 30 * time.Second, OEM: true,
	},
}

// ProfileNamed returns the profile of that name.
func ProfileNamed(name string) (Profile, error) {
	names := make([]string, 0, len(Profiles))
	for _, p := range Profiles {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Profile{}, fmt.Errorf("no profile is named %q: there are %s", name, strings.Join(names, ", "))
}
