package bmcsim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/power"
)

// webCall is a request in hand.
type webCall struct {
	call
	w    *redfish
	r    *http.Request
	path string // below root, without a slash at its end
	body []byte
}

// answer carries out a request.
func (c *webCall) answer() *webAnswer {
	path, ans := c.arrived()
	if ans != nil {
		return ans
	}
	if strings.Trim(path, "/") == "redfish" {
		return &webAnswer{status: http.StatusOK, body: object{"v1": root}}
	}
	below, ok := strings.CutPrefix(path+"/", root)
	if !ok {
		return notFound(path)
	}
	c.path = strings.TrimRight(below, "/")
	if c.refuse = c.w.faults.refusal(c.r.Method, c.path); c.refuse != nil && !c.acts() && !c.refuse.Executed {
		return c.refuse.answer()
	}
	ans = c.route()
	if c.refuse != nil {
		ans = c.refuse.answer()
	}
	return ans
}

// open says what needs no account (DSP0266, section 13).
func (c *webCall) open() bool {
	reads := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	return reads && (c.path == "" || c.path == "odata") || c.r.Method == http.MethodPost && c.path == sessionsPath
}

// acts reports whether the request is one that the log of commands shows.
func (c *webCall) acts() bool {
	return c.r.Method == http.MethodPost && strings.Contains(c.path, "/Actions/") || c.r.Method == http.MethodPatch
}

func (c *webCall) route() *webAnswer {
	if !c.open() {
		if ans := c.authenticate(); ans != nil {
			return ans
		}
	}
	var ans *webAnswer
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		o := c.resource(c.path)
		if id, ok := strings.CutPrefix(c.path, "TaskService/TaskMonitors/"); ok && c.isTask(id) {
			return c.monitor(id)
		}
		if o == nil {
			return notFound(c.path)
		}
		ans = &webAnswer{status: http.StatusOK, body: o}
		if tag, ok := o["@odata.etag"].(string); ok {
			ans.header = map[string]string{"ETag": tag}
		}
		return ans
	case http.MethodPost:
		ans = c.post()
	case http.MethodPatch:
		ans = c.patch()
	case http.MethodDelete:
		if id, ok := strings.CutPrefix(c.path, sessionsPath+"/"); ok {
			ans = c.logout(id)
		}
	}
	switch {
	case ans != nil:
		return ans
	case c.resource(c.path) == nil:
		return notFound(c.path)
	}
	return refused(http.StatusMethodNotAllowed, "OperationNotAllowed", "This resource does not take "+c.r.Method+".")
}

func (c *webCall) post() *webAnswer {
	p := &c.w.profile
	switch c.path {
	case sessionsPath:
		return c.login()
	case "Systems/" + p.SystemID + "/Actions/ComputerSystem.Reset":
		return c.reset()
	case "Managers/" + p.ManagerID + "/Actions/Manager.Reset":
		return c.resetManager()
	}
	return nil
}

// reset is ComputerSystem.Reset.
func (c *webCall) reset() *webAnswer {
	kind, ans := c.resetType(c.w.profile.Resets)
	if ans != nil {
		return ans
	}
	if c.now.Before(c.w.emptyUntil) {
		return notFound(c.path)
	}
	if c.b.level < levelOperator {
		return forbidden()
	}
	c.detail = kind
	action, word := c.b.resetAction(kind)
	code := c.command(word, func() byte {
		if c.w.profile.Strict && (action == 1 && c.b.node.on || action == 0 && !c.b.node.on) {
			return codeWrongState
		}
		if kind == resetGracefulRestart {
			return c.b.softReset(c.now)
		}
		return c.b.control(c.now, action)
	})
	if code != codeOK {
		return refusedCode(code)
	}
	if c.w.faults.task {
		c.w.tasks++
		id := fmt.Sprint(c.w.tasks)
		return &webAnswer{
			status: http.StatusAccepted, body: c.task(id), header: map[string]string{"Location": root + "TaskService/TaskMonitors/" + id},
		}
	}
	return &webAnswer{status: http.StatusNoContent}
}

// resetType reads the type of a Reset, which must be one of those offered.
func (c *webCall) resetType(offered []string) (string, *webAnswer) {
	in, ans := c.input()
	if ans != nil {
		return "", ans
	}
	kind, ok := in["ResetType"].(string)
	switch {
	case !ok:
		return "", refused(http.StatusBadRequest, "ActionParameterMissing", "The action needs a ResetType.")
	case !slices.Contains(offered, kind):
		return "", refused(http.StatusBadRequest, "ActionParameterNotSupported", fmt.Sprintf("The ResetType %q is not supported.", kind))
	}
	return kind, nil
}

// resetAction is the chassis control that a type of Reset comes to, and its word.
func (b *BMC) resetAction(kind string) (action byte, word string) {
	switch kind {
	case resetOn, resetForceOn:
		action = 1
	case resetForceOff:
		action = 0
	case resetPowerCycle:
		action = 2
	case resetForceRestart:
		action = 3
	case resetNMI:
		action = 4
	case resetGracefulShutdown:
		action = 5
	case resetPushPowerButton: // a press of the button is an off for the system of a node that is on
		action = 1
		if b.node.on {
			action = 5
		}
	case resetGracefulRestart:
		return 0, CommandSoftReset
	}
	return action, chassisWords[action]
}

// softReset lets the node's system restart itself.
func (b *BMC) softReset(now time.Time) byte {
	n := &b.node
	switch {
	case !n.on:
		return codeWrongState
	case n.stuck, n.deaf, n.shutting:
		return codeOK
	}
	at := now.Add(n.softAfter)
	b.agenda.add(at, kindSystem, func() {
		if n.on {
			n.resets++
			b.boot(at)
		}
	})
	return codeOK
}

// resetManager is Manager.Reset.
func (c *webCall) resetManager() *webAnswer {
	kind, ans := c.resetType(managerResets)
	if ans != nil {
		return ans
	}
	if c.b.level < levelAdministrator {
		return forbidden()
	}
	c.detail = kind
	code := c.command(string(power.ResetBMC), func() byte {
		c.then = func() { c.b.restart(time.Now(), c.b.faults.bootTime) }
		return codeOK
	})
	if code != codeOK {
		return refusedCode(code)
	}
	return &webAnswer{status: http.StatusNoContent}
}

// monitor is a task's monitor: 202 while it runs.
func (c *webCall) monitor(id string) *webAnswer {
	t := c.task(id)
	if t["TaskState"] == "Running" {
		return &webAnswer{
			status: http.StatusAccepted, body: t, header: map[string]string{"Location": root + "TaskService/TaskMonitors/" + id},
		}
	}
	return &webAnswer{status: http.StatusOK, body: t}
}

// input reads the body, which is one object.
func (c *webCall) input() (object, *webAnswer) {
	var in object
	if err := json.Unmarshal(bytes.TrimSpace(c.body), &in); err != nil || in == nil {
		return nil, malformed()
	}
	return in, nil
}

func (c *webCall) patch() *webAnswer {
	p := &c.w.profile
	var apply func(object) *webAnswer
	switch {
	case c.path == c.limitPath():
		apply = c.setLimit
	case c.now.Before(c.w.emptyUntil):
		return nil
	case c.path == "Systems/"+p.SystemID:
		apply = c.patchSystem
	case c.path == "Systems/"+p.SystemID+"/Settings" && p.Settings != "":
		apply = c.patchSettings
	default:
		return nil
	}
	if c.b.level < levelOperator {
		return forbidden()
	}
	if ans := c.precondition(); ans != nil {
		return ans
	}
	in, ans := c.input()
	if ans != nil {
		return ans
	}
	return apply(in)
}

// precondition checks If-Match against the tag that the resource has.
func (c *webCall) precondition() *webAnswer {
	tag, _ := c.resource(c.path)["@odata.etag"].(string)
	match, ok := c.r.Header.Get("If-Match"), false
	switch c.w.faults.etag {
	case etagNone:
		ok = true
	case etagRefused:
		ok = match == ""
	case etagRequired, etagStar:
		if match == "" {
			return refused(http.StatusPreconditionRequired, "PreconditionRequired", "The request needs an If-Match.")
		}
		ok = match == "*" || match == tag && c.w.faults.etag == etagRequired
	case etagWeak: // no weak tag matches (RFC 9110, section 13.1.1)
		ok = match == "" || match == "*" || match == strings.TrimPrefix(tag, "W/")
	default:
		ok = match == "" || match == "*" || match == tag
	}
	if ok {
		return nil
	}
	return refused(http.StatusPreconditionFailed, "PreconditionFailed", "The ETag does not match.")
}

// setting carries out and records a change of something other than the power.
func (c *webCall) setting(word string, do func()) *webAnswer {
	e := Entry{Time: c.now, Command: word, Before: stateOf(c.b.node.on), After: stateOf(c.b.node.target), Source: c.from}
	switch {
	case c.refuse != nil && !c.refuse.Executed:
		e.Code = c.refuse.code()
	case c.b.faults.loseNext > 0:
		c.b.faults.loseNext--
		c.lose = true
		fallthrough
	default:
		do()
	}
	c.b.record(e)
	return &webAnswer{status: http.StatusNoContent}
}

// bootTargets are the boot devices that there are, with their number in the boot flags
// (IPMI v2.0 table 28-14, parameter 5).
var (
	bootTargets = []string{"None", "Pxe", "Hdd", "Cd", "UsbCd", "Usb", "BiosSetup", "Diags"}
	bootNumbers = map[string]byte{"None": 0, "Pxe": 1, "Hdd": 2, "Diags": 4, "Cd": 5, "BiosSetup": 6, "UsbCd": 8, "Usb": 15}
)

// Bits of the boot flags' first byte.
const (
	flagValid      = 0x80
	flagPersistent = 0x40
	flagEFI        = 0x20
)

// boot is the Boot of the System.
func (c *webCall) boot() object {
	o := c.bootOverride()
	o["BootOrder"] = bootOrder
	o["BootSourceOverrideTarget@Redfish.AllowableValues"] = bootTargets
	o["BootSourceOverrideEnabled@Redfish.AllowableValues"] = []string{"Once", "Continuous", "Disabled"}
	o["BootSourceOverrideMode@Redfish.AllowableValues"] = []string{"Legacy", "UEFI"}
	return o
}

var bootOrder = []string{"Boot0000", "Boot0001"}

// bootOverride is the part of Boot that says what is next.
func (c *webCall) bootOverride() object {
	n := &c.b.node
	enabled, target, mode := "Disabled", "None", "UEFI"
	if number := n.flags[1] >> 2 & 0x0f; n.flags[0]&flagValid != 0 && number != 0 {
		enabled = "Once"
		if n.flags[0]&flagPersistent != 0 {
			enabled = "Continuous"
		}
		for name, nr := range bootNumbers {
			if nr == number {
				target = name
			}
		}
		if n.flags[0]&flagEFI == 0 {
			mode = "Legacy"
		}
	}
	return object{"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target, "BootSourceOverrideMode": mode}
}

// settings is the Settings object of the System.
func (c *webCall) settings() object {
	p := &c.w.profile
	boot := object{"BootOrder": bootOrder}
	if p.Settings == settingsBoot {
		boot = c.boot()
	}
	return object{
		"@odata.id": root + "Systems/" + p.SystemID + "/Settings", "@odata.type": "#ComputerSystem.v1_16_0.ComputerSystem",
		"Id": "Settings", "Name": "Pending Settings", "Boot": boot,
	}
}

func (c *webCall) patchSystem(in object) *webAnswer {
	if c.w.profile.Settings == settingsBoot {
		return refused(http.StatusBadRequest, "PropertyNotWritable", "The property Boot is read-only here: it is in the Settings.")
	}
	return c.patchBoot(in)
}

func (c *webCall) patchSettings(in object) *webAnswer {
	if c.w.profile.Settings != settingsBoot {
		return refused(http.StatusBadRequest, "PropertyUnknown", "The Settings take the boot order alone.")
	}
	return c.patchBoot(in)
}

// patchBoot sets the boot device.
func (c *webCall) patchBoot(in object) *webAnswer {
	boot, ok := in["Boot"].(object)
	if !ok || len(in) != 1 {
		return refused(http.StatusBadRequest, "PropertyUnknown", "Boot alone can be changed.")
	}
	next := c.bootOverride()
	for name, value := range boot {
		text, ok := value.(string)
		allowed := bootTargets
		switch name {
		case "BootSourceOverrideEnabled":
			allowed = []string{"Once", "Continuous", "Disabled"}
		case "BootSourceOverrideMode":
			allowed = []string{"Legacy", "UEFI"}
		case "BootSourceOverrideTarget":
		default:
			return refused(http.StatusBadRequest, "PropertyUnknown", fmt.Sprintf("The property %q cannot be changed.", name))
		}
		if !ok || !slices.Contains(allowed, text) {
			return refused(http.StatusBadRequest, "PropertyValueNotInList", fmt.Sprintf("The property %q does not take this value.", name))
		}
		next[name] = text
	}
	var flags [bootFlagsLen]byte
	target := next["BootSourceOverrideTarget"].(string)
	if next["BootSourceOverrideEnabled"] != "Disabled" && target != "None" {
		flags[0], flags[1] = flagValid, bootNumbers[target]<<2
		if next["BootSourceOverrideEnabled"] == "Continuous" {
			flags[0] |= flagPersistent
		}
		if next["BootSourceOverrideMode"] == "UEFI" {
			flags[0] |= flagEFI
		}
	}
	n := &c.b.node
	wanted := node{flags: flags}
	device := wanted.bootDevice()
	if device == power.BootNone {
		device = "none"
	}
	return c.setting("set-boot "+string(device), func() {
		if !c.w.faults.ignoreBoot {
			n.flags, n.flagsAt, n.flagsKept = flags, c.now, true // there is no time-out of it in Redfish
		}
	})
}

// Bounds of a power limit, in watts.
const (
	limitMin = 100
	limitMax = 2000
)

// How far the power of the last minute is below and above that of now, in watts.
const (
	powerBelow = 6
	powerAbove = 25
)

// watts is what the node takes.
func (b *BMC) watts() int {
	n := &b.node
	if !n.on {
		return 14
	}
	watts := 180 + int(b.lib.GUID[0])
	if n.limit > 0 {
		watts = min(watts, n.limit)
	}
	return watts
}

func (c *webCall) limitPath() string {
	p := &c.w.profile
	switch p.Limit {
	case limitPowerControl:
		return "Chassis/" + p.ChassisID + "/Power"
	case limitEnvironmentMetrics:
		return "Chassis/" + p.ChassisID + "/EnvironmentMetrics"
	}
	return "\x00" // nowhere
}

// limits is where the watts and their limit are.
func (c *webCall) limits(path string) object {
	n, watts := &c.b.node, c.b.watts()
	limit := any(nil)
	if n.limit > 0 {
		limit = n.limit
	}
	if c.w.profile.Limit == limitEnvironmentMetrics {
		mode := "Disabled"
		if n.limit > 0 {
			mode = "Automatic"
		}
		return object{
			"@odata.id": root + path, "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics", "Id": "EnvironmentMetrics",
			"Name": "Chassis Environment Metrics", "PowerWatts": object{"Reading": watts},
			"PowerLimitWatts": object{
				"SetPoint": limit, "ControlMode": mode, "AllowableMin": limitMin, "AllowableMax": limitMax, "Reading": watts,
			},
		}
	}
	exception := c.w.profile.LimitException
	if n.limitException != "" {
		exception = n.limitException
	}
	return object{
		"@odata.id": root + path, "@odata.type": "#Power.v1_7_1.Power", "Id": "Power", "Name": "Power",
		"PowerControl": []object{{
			"@odata.id": root + path + "#/PowerControl/0", "MemberId": "0", "Name": "System Power Control", "PowerConsumedWatts": watts,
			"PowerCapacityWatts": limitMax,
			"PowerMetrics": object{
				"IntervalInMin": 1, "MinConsumedWatts": watts - powerBelow, "MaxConsumedWatts": watts + powerAbove, "AverageConsumedWatts": watts,
			},
			"PowerLimit": object{"LimitInWatts": limit, "LimitException": exception, "CorrectionInMs": 0},
		}},
	}
}

// setLimit limits the watts, or ends the limit.
func (c *webCall) setLimit(in object) *webAnswer {
	bad := refused(http.StatusBadRequest, "PropertyValueNotInList",
		fmt.Sprintf("The limit is not between %d and %d watts, or something else was to be changed.", limitMin, limitMax))
	var limit object
	var name string
	if c.w.profile.Limit == limitEnvironmentMetrics {
		limit, _ = in["PowerLimitWatts"].(object)
		name = "SetPoint"
	} else if controls, _ := in["PowerControl"].([]any); len(controls) == 1 {
		control, _ := controls[0].(object)
		limit, _ = control["PowerLimit"].(object)
		name = "LimitInWatts"
	}
	if limit == nil {
		return bad
	}
	watts, exception := c.b.node.limit, c.b.node.limitException
	for key, value := range limit {
		number, isNumber := value.(float64)
		text, _ := value.(string)
		switch {
		case key == name && value == nil, key == "ControlMode" && text == "Disabled":
			watts = 0
		case key == name && isNumber && number >= limitMin && number <= limitMax:
			watts = int(math.Round(number))
		case key == "ControlMode" && text == "Automatic":
		case key == "LimitException" && slices.Contains([]string{"NoAction", "HardPowerOff", "LogEventOnly", "Oem"}, text):
			exception = text
		default:
			return bad
		}
	}
	if limit["ControlMode"] == "Disabled" {
		watts = 0
	}
	word := "set-limit none"
	if watts > 0 {
		word = fmt.Sprintf("set-limit %dW", watts)
	}
	return c.setting(word, func() { c.b.node.limit, c.b.node.limitAsked, c.b.node.limitException = watts, watts, exception })
}

// errorBody is the body of an answer that is an error (DSP0266, section 8.6).
func errorBody(id, text string) object {
	return object{"error": object{
		"code": id, "message": text,
		"@Message.ExtendedInfo": []object{{
			"@odata.type": "#Message.v1_1_1.Message", "MessageId": id, "Message": text, "Severity": "Warning", "MessageArgs": []string{},
		}},
	}}
}

func refused(status int, id, text string) *webAnswer {
	return &webAnswer{status: status, body: errorBody("Base.1.8."+id, text)}
}

func malformed() *webAnswer {
	return refused(http.StatusBadRequest, "MalformedJSON", "The body is no object of JSON.")
}

func forbidden() *webAnswer {
	return refused(http.StatusForbidden, "InsufficientPrivilege", "The account may not do this.")
}

func notFound(path string) *webAnswer {
	return refused(http.StatusNotFound, "ResourceMissingAtURI", fmt.Sprintf("There is no resource %q.", path))
}

// refusedCode is how a completion code is said.
func refusedCode(code byte) *webAnswer {
	switch code {
	case codeBusy:
		return refused(http.StatusServiceUnavailable, "ServiceTemporarilyUnavailable", "The service is busy.")
	case codeWrongState:
		return refused(http.StatusConflict, "ResourceInUse", "The node is not in a state for this.")
	case codePrivilege:
		return forbidden()
	case codeInvalid:
		return refused(http.StatusBadRequest, "ActionNotSupported", "The action is not supported.")
	}
	return refused(http.StatusInternalServerError, "InternalError", "The service failed.")
}
