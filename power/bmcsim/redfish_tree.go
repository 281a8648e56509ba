package bmcsim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// root is where the tree begins; paths in it are written without that.
const root = "/redfish/v1/"

type object = map[string]any

func link(path string) object { return object{"@odata.id": root + path} }

// resource returns what GET shows at a path, nil for nothing.
func (c *webCall) resource(path string) object {
	w, p := c.w, &c.w.profile
	switch path {
	case "":
		return c.serviceRoot()
	case "odata":
		return object{"@odata.context": root + "$metadata", "value": []object{
			{"name": "Service", "kind": "Singleton", "url": root},
			{"name": "Systems", "kind": "Singleton", "url": root + "Systems"},
		}}
	case "SessionService":
		return object{
			"@odata.id": root + path, "@odata.type": "#SessionService.v1_1_8.SessionService", "Id": path, "Name": "Session Service",
			"ServiceEnabled": true, "SessionTimeout": int(w.faults.idle / time.Second), "Sessions": link(sessionsPath),
		}
	case sessionsPath:
		return collection(path, "Session", w.sessionsNow()...)
	case "AccountService":
		return object{
			"@odata.id": root + path, "@odata.type": "#AccountService.v1_10_0.AccountService", "Id": path,
			"Name": "Account Service", "ServiceEnabled": true,
		}
	case "TaskService":
		return object{
			"@odata.id": root + path, "@odata.type": "#TaskService.v1_1_4.TaskService", "Id": path, "Name": "Task Service",
			"ServiceEnabled": true, "Tasks": link("TaskService/Tasks"),
		}
	case "TaskService/Tasks":
		ids := make([]string, w.tasks)
		for i := range ids {
			ids[i] = strconv.Itoa(i + 1)
		}
		return collection(path, "Task", ids...)
	case "Systems":
		return collection(path, "ComputerSystem", c.systems()...)
	case "Managers":
		return collection(path, "Manager", p.ManagerID)
	case "Chassis":
		return collection(path, "Chassis", p.ChassisID)
	case "Managers/" + p.ManagerID:
		return c.manager(path)
	case "Managers/" + p.ManagerID + "/ResetActionInfo":
		if !p.ActionInfo {
			return nil
		}
		return actionInfo(path, managerResets)
	case "Chassis/" + p.ChassisID:
		return c.chassis(path)
	case c.limitPath():
		return c.tagged(c.limits(path))
	}
	if id, ok := strings.CutPrefix(path, sessionsPath+"/"); ok && w.sessions[id] != nil {
		return c.session(w.sessions[id])
	}
	if id, ok := strings.CutPrefix(path, "TaskService/Tasks/"); ok && c.isTask(id) {
		return c.task(id)
	}
	if path, ok := strings.CutPrefix(path, "Systems/"); ok {
		return c.systemPart(path)
	}
	return nil
}

// systemPart is what is below the collection of Systems.
func (c *webCall) systemPart(path string) object {
	p := &c.w.profile
	id, part, _ := strings.Cut(path, "/")
	if c.now.Before(c.w.emptyUntil) {
		return nil
	}
	switch {
	case id == p.Aside && part == "" && id != "":
		return c.aside()
	case id != p.SystemID:
		return nil
	case part == "":
		c.b.counts.Reads++
		return c.tagged(c.system())
	case part == "ResetActionInfo" && p.ActionInfo:
		return actionInfo("Systems/"+path, p.Resets)
	case part == "Settings" && p.Settings != "":
		return c.tagged(c.settings())
	}
	return nil
}

// systems are the IDs of the Systems that there are now.
func (c *webCall) systems() []string {
	p := &c.w.profile
	switch {
	case c.now.Before(c.w.emptyUntil):
		return nil
	case p.Aside != "":
		return []string{p.Aside, p.SystemID}
	}
	return []string{p.SystemID}
}

func (c *webCall) serviceRoot() object {
	o := object{
		"@odata.id": root, "@odata.type": "#ServiceRoot.v1_10_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
		"RedfishVersion": "1.13.0", "UUID": c.b.uuid(), "Vendor": c.w.profile.Manufacturer, "Product": c.w.profile.Model,
		"Systems": link("Systems"), "Managers": link("Managers"), "Chassis": link("Chassis"),
		"SessionService": link("SessionService"), "AccountService": link("AccountService"), "Tasks": link("TaskService"),
		"Links": object{"Sessions": link(sessionsPath)},
	}
	c.oem(o, object{"ServiceTag": c.b.name})
	return o
}

// collection is a collection of resources below path.
func collection(path, kind string, ids ...string) object {
	members := make([]object, len(ids))
	for i, id := range ids {
		members[i] = link(path + "/" + id)
	}
	return object{
		"@odata.id": root + path, "@odata.type": "#" + kind + "Collection." + kind + "Collection", "Name": kind + " Collection",
		"Members": members, "Members@odata.count": len(members),
	}
}

// system is the System that is the node.
func (c *webCall) system() object {
	w, p := c.w, &c.w.profile
	path := "Systems/" + p.SystemID
	action := c.action(path, "#ComputerSystem.Reset", "ComputerSystem.Reset", p.Resets)
	o := object{
		"@odata.id": root + path, "@odata.type": "#ComputerSystem.v1_16_0.ComputerSystem", "Id": p.SystemID, "Name": c.b.name,
		"SystemType": "Physical", "Manufacturer": p.Manufacturer, "Model": p.Model, "SerialNumber": "SIM-" + c.b.name,
		"UUID": c.b.uuid(), "BiosVersion": "1.0", "Status": status(), "Boot": c.boot(), "Actions": action,
		"Links": object{
			"Chassis":   []object{link("Chassis/" + p.ChassisID)},
			"ManagedBy": []object{link("Managers/" + p.ManagerID)},
		},
	}
	switch state := w.powerState(); state {
	case stateMissing:
	case stateNull:
		o["PowerState"] = nil
	default:
		o["PowerState"] = state
	}
	if p.Settings != "" {
		o["@Redfish.Settings"] = object{
			"@odata.type": "#Settings.v1_3_0.Settings", "SettingsObject": link(path + "/Settings"), "SupportedApplyTimes": []string{"OnReset"},
		}
	}
	if p.OEM {
		action["Oem"] = object{"#SimulatedSystem.Reset": object{
			"target": root + path + "/Actions/Oem/SimulatedSystem.Reset", "ResetType@Redfish.AllowableValues": []string{"ACPowerCycle"},
		}}
	}
	c.oem(o, object{"PowerPolicy": "LastState", "Sensors": []object{link(path + "/Oem/Simulated/Sensors")}})
	return o
}

// aside is a System that cannot be reset, such as a board of accelerators.
func (c *webCall) aside() object {
	p := &c.w.profile
	return object{
		"@odata.id": root + "Systems/" + p.Aside, "@odata.type": "#ComputerSystem.v1_17_0.ComputerSystem", "Id": p.Aside,
		"Name": p.Aside, "SystemType": "Physical", "Manufacturer": p.Manufacturer, "PowerState": "On", "Status": status(),
		"Boot": object{"BootSourceOverrideTarget@Redfish.AllowableValues": bootTargets},
	}
}

// action describes an action in the way of the profile.
func (c *webCall) action(path, name, target string, types []string) object {
	a := object{"target": root + path + "/Actions/" + target}
	if c.w.profile.Inline {
		a["ResetType@Redfish.AllowableValues"] = types
	}
	if c.w.profile.ActionInfo {
		a["@Redfish.ActionInfo"] = root + path + "/ResetActionInfo"
	}
	return object{name: a}
}

func actionInfo(path string, types []string) object {
	return object{
		"@odata.id": root + path, "@odata.type": "#ActionInfo.v1_1_2.ActionInfo", "Id": "ResetActionInfo", "Name": "Reset Action Info",
		"Parameters": []object{{"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": types}},
	}
}

var managerResets = []string{"GracefulRestart", resetForceRestart}

func (c *webCall) manager(path string) object {
	p := &c.w.profile
	o := object{
		"@odata.id": root + path, "@odata.type": "#Manager.v1_12_0.Manager", "Id": p.ManagerID, "Name": "Manager", "ManagerType": "BMC",
		"Model": p.Model, "FirmwareVersion": p.Firmware, "UUID": c.b.uuid(), "Status": status(), "PowerState": "On",
		"Actions": c.action(path, "#Manager.Reset", "Manager.Reset", managerResets),
		"Links":   object{"ManagerForServers": []object{link("Systems/" + p.SystemID)}},
	}
	if !c.b.faults.noClock {
		o["DateTime"], o["DateTimeLocalOffset"] = c.now.UTC().Add(c.b.faults.skew).Format(time.RFC3339), "+00:00"
	}
	c.oem(o, object{"Attributes": link(path + "/Oem/Simulated/Attributes")})
	return o
}

func (c *webCall) chassis(path string) object {
	p := &c.w.profile
	o := object{
		"@odata.id": root + path, "@odata.type": "#Chassis.v1_20_0.Chassis", "Id": p.ChassisID, "Name": "Chassis",
		"ChassisType": "RackMount", "Manufacturer": p.Manufacturer, "Model": p.Model, "Status": status(),
		"Links": object{
			"ComputerSystems": []object{link("Systems/" + p.SystemID)},
			"ManagedBy":       []object{link("Managers/" + p.ManagerID)},
		},
	}
	switch p.Limit {
	case limitPowerControl:
		o["Power"] = link(c.limitPath())
	case limitEnvironmentMetrics:
		o["EnvironmentMetrics"] = link(c.limitPath())
	}
	return o
}

func status() object { return object{"State": "Enabled", "Health": "OK"} }

// oem adds what a maker has beside the standard, if this one does.
func (c *webCall) oem(o, more object) {
	if c.w.profile.OEM {
		more["@odata.type"] = "#SimulatedOem.v1_0_0.SimulatedOem"
		o["Oem"] = object{"Simulated": more}
	}
}

// tagged adds the ETag of what the resource says.
func (c *webCall) tagged(o object) object {
	if c.w.faults.etag == etagNone {
		return o
	}
	text, _ := json.Marshal(o)
	h := fnv.New64a()
	_, _ = h.Write(text)
	tag := fmt.Sprintf("%q", fmt.Sprintf("%016x", h.Sum64()))
	if c.w.faults.etag == etagWeak {
		tag = "W/" + tag
	}
	o["@odata.etag"] = tag
	return o
}

func (b *BMC) uuid() string {
	g := b.lib.GUID
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[0:4], g[4:6], g[6:8], g[8:10], g[10:16])
}

// isTask reports whether there was a task of that ID.
func (c *webCall) isTask(id string) bool {
	n, err := strconv.Atoi(id)
	return err == nil && n > 0 && n <= c.w.tasks
}

// task is the work on a Reset: done when the node has the power it is going to have.
func (c *webCall) task(id string) object {
	state := "Completed"
	if c.b.node.on != c.b.node.target || c.b.node.stuck {
		state = "Running"
	}
	return object{
		"@odata.id": root + "TaskService/Tasks/" + id, "@odata.type": "#Task.v1_5_1.Task", "Id": id, "Name": "Reset", "TaskState": state,
		"TaskStatus": "OK", "TaskMonitor": root + "TaskService/TaskMonitors/" + id,
	}
}
