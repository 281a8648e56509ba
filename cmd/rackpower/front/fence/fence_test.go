package fence

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/cmd/rackpower/front"
	"rackpower/power"
)

// fleet has one node, n1, and notes what it is asked for.
type fleet struct {
	asked   []power.Action
	fails   map[power.Action]error // of Operate
	result  front.Result
	reading front.Reading
	names   []string
	err     error // of all
}

func (f *fleet) Names(context.Context) ([]string, error) { return f.names, f.err }

func (f *fleet) Read(context.Context, []string, time.Duration) ([]front.Reading, error) {
	return []front.Reading{f.reading}, f.err
}

func (f *fleet) Operate(_ context.Context, in front.Request) ([]front.Result, error) {
	f.asked = append(f.asked, in.Action)
	if in.Deadline != time.Minute || !slices.Equal(in.Names, []string{"n1"}) || in.Hand {
		return nil, errors.New("asked for something else")
	}
	return []front.Result{f.result}, errors.Join(f.err, f.fails[in.Action])
}

func TestStatuses(t *testing.T) {
	good, bad := front.Result{Node: "n1", OK: true, Text: "off"}, front.Result{Node: "n1", Text: "superseded"}
	away := errors.New("central is away")
	for name, c := range map[string]struct {
		fleet        fleet
		action, plug string
		status       int
		asked        []power.Action
	}{
		"off":                     {fleet{result: good}, "off", "n1", Done, []power.Action{power.ActOff}},
		"off in capitals":         {fleet{result: good}, "OFF", "n1", Done, []power.Action{power.ActOff}},
		"off superseded":          {fleet{result: bad}, "off", "n1", Failed, []power.Action{power.ActOff}},
		"off of another node":     {fleet{result: front.Result{Node: "n2", OK: true}}, "off", "n1", Failed, []power.Action{power.ActOff}},
		"off, central away":       {fleet{result: good, err: away}, "off", "n1", Failed, []power.Action{power.ActOff}},
		"off of nothing":          {fleet{result: good}, "off", "", Failed, nil},
		"reboot":                  {fleet{result: good}, "reboot", "n1", Done, []power.Action{power.ActOff, power.ActOn}},
		"by default":              {fleet{result: good}, "", "n1", Done, []power.Action{power.ActOff, power.ActOn}},
		"reboot, not off":         {fleet{result: bad}, "reboot", "n1", Failed, []power.Action{power.ActOff}},
		"reboot, not on again":    {fleet{result: good, fails: map[power.Action]error{power.ActOn: away}}, "reboot", "n1", Done, []power.Action{power.ActOff, power.ActOn}},
		"on":                      {fleet{result: good}, "on", "n1", Done, []power.Action{power.ActOn}},
		"on failed":               {fleet{result: bad}, "on", "n1", Failed, []power.Action{power.ActOn}},
		"status on":               {fleet{reading: front.Reading{Node: "n1", State: power.On}}, "status", "n1", Done, nil},
		"status off":              {fleet{reading: front.Reading{Node: "n1", State: power.Off}}, "status", "n1", IsOff, nil},
		"status unknown":          {fleet{reading: front.Reading{Node: "n1", State: power.Unknown, Why: "auth-failed"}}, "status", "n1", Failed, nil},
		"status of another":       {fleet{reading: front.Reading{Node: "n2", State: power.Off}}, "status", "n1", Failed, nil},
		"status of what was off":  {fleet{reading: front.Reading{Node: "n1", State: power.Off, Why: "stale"}}, "status", "n1", Failed, nil},
		"status, central away":    {fleet{reading: front.Reading{Node: "n1", State: power.Off}, err: away}, "status", "n1", Failed, nil},
		"monitor":                 {fleet{names: []string{"n1"}}, "monitor", "", Done, nil},
		"monitor of a node":       {fleet{names: []string{"n1"}}, "monitor", "n1", Done, nil},
		"monitor of no such node": {fleet{names: []string{"n1"}}, "monitor", "n2", Failed, nil},
		"monitor of no nodes":     {fleet{}, "monitor", "", Failed, nil},
		"list, central away":      {fleet{err: away}, "list", "", Failed, nil},
		"nonsense":                {fleet{}, "nonsense", "n1", Failed, nil},
	} {
		status, err := Do(t.Context(), &c.fleet, Params{Action: c.action, Plug: c.plug, Expire: time.Minute}, io.Discard)
		if status != c.status || (err != nil) != (status == Failed) || !slices.Equal(c.fleet.asked, c.asked) {
			t.Errorf("%s: %d, %v; asked for %v", name, status, err, c.fleet.asked)
		}
	}
}

// TestMetadata needs no central, and names what ReadStdin's callers know.
func TestMetadata(t *testing.T) {
	var out strings.Builder
	if status, err := Do(t.Context(), nil, Params{Action: "Metadata"}, &out); status != Done || err != nil {
		t.Fatal(status, err)
	}
	var agent struct {
		Name       string `xml:"name,attr"`
		Parameters []struct {
			Name string `xml:"name,attr"`
		} `xml:"parameters>parameter"`
		Actions []struct {
			Name string `xml:"name,attr"`
		} `xml:"actions>action"`
	}
	if err := xml.Unmarshal([]byte(out.String()), &agent); err != nil || agent.Name != Name || len(agent.Parameters) != 6 {
		t.Errorf("%v %+v", err, agent)
	}
	for _, a := range agent.Actions {
		_, err := Do(t.Context(), &fleet{}, Params{Action: a.Name}, io.Discard)
		if err != nil && strings.Contains(err.Error(), "unknown action") {
			t.Error(err)
		}
	}
}

func TestOptionsOnStdin(t *testing.T) {
	known := []string{"action", "plug", "central", "power-timeout"}
	for in, want := range map[string]string{
		"action=off\nplug=n1\n":                       "--action=off --plug=n1",
		"  action=off\r\n#plug=n2\nport=n1":           "--action=off --plug=n1",
		"option=on\nnodename=n3\nport=n1\nagent=x":    "--action=on --plug=n1",
		"plug=n1\nplug=n2\nnodename=n3\n":             "--plug=n2",
		"power_timeout=9\nlogin=root\nnonsense\n=x\n": "--power-timeout=9",
		"central=https://a:1/?x=y\naction=\n":         "--central=https://a:1/?x=y",
		"":                                            "",
	} {
		flags, err := ReadStdin(strings.NewReader(in), known)
		if got := strings.Join(flags, " "); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := ReadStdin(strings.NewReader("plug="+strings.Repeat("x", maxStdin)), known); err == nil {
		t.Error("a line without an end is taken")
	}
}

// FuzzReadStdin: no text becomes another option than one of those known, nor two of one name.
func FuzzReadStdin(f *testing.F) {
	f.Add("action=off\nplug=n1\nport=n2\n#x\n")
	f.Fuzz(func(t *testing.T, text string) {
		flags, err := ReadStdin(strings.NewReader(text), []string{"action", "plug"})
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, flag := range flags {
			name, value, _ := strings.Cut(flag, "=")
			if name != "--action" && name != "--plug" || value == "" || seen[name] {
				t.Fatalf("%q from %q", flags, text)
			}
			seen[name] = true
		}
	})
}
