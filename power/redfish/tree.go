package redfish

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
)

// What is read of the resources of a BMC. BMCs differ in what they leave out, give as null or
// give in another type: such a property is as if it were not there, and the rest is read.

// text is a string, "" where another type is given.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*t = text(s)
	}
	return nil
}

// texts are strings, what is none left out. One alone stands for a list of it.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	for _, s := range list[text](data) {
		if s != "" {
			*t = append(*t, string(s))
		}
	}
	return nil
}

// list reads an array, or one item that stands for it.
func list[T any](data []byte) []T {
	var raws []json.RawMessage
	if json.Unmarshal(data, &raws) != nil {
		raws = []json.RawMessage{data}
	}
	var all []T
	for _, raw := range raws {
		var item T
		if json.Unmarshal(raw, &item) == nil {
			all = append(all, item)
		}
	}
	return all
}

// link is the path of another resource.
type link string

// UnmarshalJSON implements json.Unmarshaler: {"@odata.id": PATH}, or PATH alone.
func (l *link) UnmarshalJSON(data []byte) error {
	var to struct {
		ID text `json:"@odata.id"`
	}
	var path text
	if json.Unmarshal(data, &to) == nil && to.ID != "" {
		path = to.ID
	} else {
		_ = path.UnmarshalJSON(data)
	}
	if p, ok := localPath(string(path)); ok {
		*l = link(p)
	}
	return nil
}

// links are paths, what is none left out.
type links []link

// UnmarshalJSON implements json.Unmarshaler.
func (l *links) UnmarshalJSON(data []byte) error {
	for _, to := range list[link](data) {
		if to != "" && len(*l) < maxMembers {
			*l = append(*l, to)
		}
	}
	return nil
}

// object is T, its zero value where another type is given.
type object[T any] struct{ value T }

// UnmarshalJSON implements json.Unmarshaler.
func (o *object[T]) UnmarshalJSON(data []byte) error {
	var v T
	if json.Unmarshal(data, &v) == nil {
		o.value = v
	}
	return nil
}

// localPath is the path and query of a URL, whatever host it names: all that is asked for is
// asked of the BMC itself.
func localPath(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || len(s) > 1024 || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") {
		return "", false
	}
	return u.RequestURI(), true
}

// lastSegment is the Id of a resource by its path.
func lastSegment(path link) string {
	p := strings.TrimRight(string(path), "/")
	return p[strings.LastIndex(p, "/")+1:]
}

// serviceRoot is /redfish/v1/ (DSP0268).
type serviceRoot struct {
	Version text                            `json:"RedfishVersion"`
	Vendor  text                            `json:"Vendor"`
	Product text                            `json:"Product"`
	Systems link                            `json:"Systems"`
	Links   object[struct{ Sessions link }] `json:"Links"`
}

type collection struct {
	Members links `json:"Members"`
	Next    link  `json:"Members@odata.nextLink"`
}

// action is what an Actions object says of one.
type action struct {
	Target link  `json:"target"`
	Types  texts `json:"ResetType@Redfish.AllowableValues"`
	Info   link  `json:"@Redfish.ActionInfo"`
}

// boot is the part of Boot that is read and set.
type boot struct {
	Enabled text  `json:"BootSourceOverrideEnabled"`
	Target  text  `json:"BootSourceOverrideTarget"`
	Mode    text  `json:"BootSourceOverrideMode"`
	Targets texts `json:"BootSourceOverrideTarget@Redfish.AllowableValues"`
}

// takesOverride reports whether a boot device can be set there.
func (b boot) takesOverride() bool { return b.Enabled != "" || b.Target != "" || len(b.Targets) > 0 }

type computerSystem struct {
	ETag         text         `json:"@odata.etag"`
	Name         text         `json:"Name"`
	Manufacturer text         `json:"Manufacturer"`
	Model        text         `json:"Model"`
	PowerState   text         `json:"PowerState"`
	Boot         object[boot] `json:"Boot"`
	Actions      object[struct {
		Reset object[action] `json:"#ComputerSystem.Reset"`
	}] `json:"Actions"`
	Links object[struct {
		ManagedBy links `json:"ManagedBy"`
		Chassis   links `json:"Chassis"`
	}] `json:"Links"`
	Settings object[struct {
		Object link `json:"SettingsObject"`
	}] `json:"@Redfish.Settings"`
}

func (c *computerSystem) reset() action { return c.Actions.value.Reset.value }

type manager struct {
	Model    text `json:"Model"`
	Firmware text `json:"FirmwareVersion"`
	DateTime text `json:"DateTime"`
	Actions  object[struct {
		Reset object[action] `json:"#Manager.Reset"`
	}] `json:"Actions"`
}

type actionInfo struct {
	Parameters parameters `json:"Parameters"`
}

type parameter struct {
	Name   text  `json:"Name"`
	Values texts `json:"AllowableValues"`
}

type parameters []parameter

// UnmarshalJSON implements json.Unmarshaler.
func (p *parameters) UnmarshalJSON(data []byte) error {
	*p = list[parameter](data)
	return nil
}

// resetTypes are the values of ResetType that an ActionInfo allows.
func (a actionInfo) resetTypes() []string {
	i := slices.IndexFunc(a.Parameters, func(p parameter) bool { return p.Name == "ResetType" })
	if i < 0 {
		return nil
	}
	return a.Parameters[i].Values
}

type sessionResource struct {
	ID       link `json:"@odata.id"`
	UserName text `json:"UserName"`
	Created  text `json:"CreatedTime"`
}

type task struct {
	State    text     `json:"TaskState"`
	Status   text     `json:"TaskStatus"`
	Messages messages `json:"Messages"`
}

// message is one of a message registry (DSP0266 section 9.11).
type message struct {
	ID         text `json:"MessageId"`
	Message    text `json:"Message"`
	Resolution text `json:"Resolution"`
}

type messages []message

// UnmarshalJSON implements json.Unmarshaler.
func (m *messages) UnmarshalJSON(data []byte) error {
	*m = list[message](data)
	return nil
}

type errorBody struct {
	Error object[struct {
		Code    text     `json:"code"`
		Message text     `json:"message"`
		Info    messages `json:"@Message.ExtendedInfo"`
	}] `json:"error"`
	Info messages `json:"@Message.ExtendedInfo"` // where it stands on the outside
}

var (
	errTooDeep = errors.New("its answer is nested too deeply")
	errNoJSON  = errors.New("its answer is no JSON object")
)

// parse reads an answer. It is looked through first: the decoder would follow it as deep as
// it goes.
func parse(body []byte, into any) error {
	body = bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")), " \t\r\n")
	if !bytes.HasPrefix(body, []byte("{")) {
		return errNoJSON
	}
	if deeper(body, maxDepth) {
		return errTooDeep
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errNoJSON
	}
	return nil
}

// deeper reports whether JSON is nested deeper than that.
func deeper(body []byte, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
