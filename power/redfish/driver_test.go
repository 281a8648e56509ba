package redfish

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// failure is what a driver's error says.
func failure(t *testing.T, err error) *power.Error {
	t.Helper()
	var e *power.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T) is no *power.Error", err, err)
	}
	return e
}

// on answers requests of a method whose path ends so.
func on(method, suffix string, answer func(w http.ResponseWriter)) func(*fakeBMC, http.ResponseWriter, *http.Request, map[string]any) bool {
	return func(_ *fakeBMC, w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if r.Method != method || !strings.HasSuffix(strings.TrimRight(r.URL.Path, "/"), suffix) {
			return false
		}
		answer(w)
		return true
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.dialed(f.Endpoint())
	for says, want := range map[string]power.State{"On": power.On, "Off": power.Off, "PoweringOn": power.Off, "PoweringOff": power.On} {
		f.set(func() { f.power["1"] = says })
		if got, err := d.State(t.Context()); got != want || err != nil {
			t.Errorf("%s is %s, %v", says, got, err)
		}
		c, _ := d.(power.Changer)
		if c.Changing() != strings.HasPrefix(says, "Powering") {
			t.Errorf("%s: changing %t", says, c.Changing())
		}
	}
	for _, says := range []string{"Paused", "Reset", "null", "off", "Unknown", " "} {
		f.set(func() { f.power["1"] = says })
		got, err := d.State(t.Context())
		if e := failure(t, err); got != power.Unknown || e.Kind != power.KindBusy || e.Lost {
			t.Errorf("%q is %s, %v", says, got, e)
		}
	}
}

func TestACommandIsSentOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set(func() { f.power["1"] = "On" })
	d := f.dialed(f.Endpoint())
	if _, err := d.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.hook = on("POST", "ComputerSystem.Reset", cut) })
	for range 3 {
		if e := failure(t, d.Do(t.Context(), power.HardReset)); e.Kind != power.KindUnreachable || !e.Sent || !e.Lost {
			t.Errorf("%v, sent %t, lost %t", e, e.Sent, e.Lost)
		}
		_ = d.Close()
		f.set(func() { f.hook = nil })
		d = f.dialed(f.Endpoint())
		f.set(func() { f.hook = on("POST", "ComputerSystem.Reset", cut) })
	}
	if n := len(f.requests("POST /redfish/v1/Systems")); n != 3 {
		t.Errorf("3 commands were sent %d times", n)
	}
}

// TestAnIdleConnectionIsNotUsedForACommand has the BMC cut what was idle.
func TestAnIdleConnectionIsNotUsedForACommand(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	cfg := impatient
	cfg.Reuse = time.Nanosecond
	f.Dialer = NewDialer(cfg)
	d := f.dialed(f.Endpoint())
	if _, err := d.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.srv.CloseClientConnections()
	if err := d.Do(t.Context(), power.PowerOn); err != nil {
		t.Errorf("over a connection that was cut while idle: %v", err)
	}
	f.srv.CloseClientConnections()
	if _, err := d.State(t.Context()); err != nil {
		t.Errorf("a read after a cut: %v", err)
	}
	if n := len(f.requests("POST /redfish/v1/Systems")); n != 1 {
		t.Errorf("the command came %d times", n)
	}
}

func TestAnswersToACommand(t *testing.T) {
	t.Parallel()
	html := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>\n<style>x</style><h1> Something\x1b broke </h1>\n<p>more</p></html>")
		}
	}
	said := func(status int, id, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { complain(w, status, id, text) }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		kind   power.ErrorKind
		sent   bool
		after  time.Duration
		says   string
	}{
		"conflict":       {said(409, "Base.1.8.ResourceInUse", "in use"), power.KindBusy, false, notNow, "in use"},
		"bad request":    {said(400, "Base.1.8.GeneralError", "not now"), power.KindBusy, false, notNow, "not now"},
		"type not known": {said(400, "Base.1.8.ActionParameterNotSupported", "x"), power.KindUnsupported, true, 0, "x"},
		"retry in text": {
			said(503, "Base.1.8.ServiceTemporarilyUnavailable", "Retry in 17 seconds."), power.KindBusy, false,
			17 * time.Second, "17",
		},
		"too many requests": {html(429), power.KindBusy, false, notNow, "Something"},
		"page of a proxy":   {html(503), power.KindUncertain, true, 0, "Something broke"},
		"gateway":           {html(502), power.KindUncertain, true, 0, "Something broke"},
		"gateway time-out":  {html(504), power.KindUncertain, true, 0, "Something broke"},
		"internal error":    {html(500), power.KindRefused, true, 0, "500 Internal Server Error: Something broke"},
		"too many sessions": {
			said(400, "IDRAC.2.4.RAC0218", "The maximum number of user sessions is reached"), power.KindBusy, false, 0,
			"maximum",
		},
		"no such place":      {html(404), power.KindUnsupported, true, 0, "404"},
		"method not allowed": {html(405), power.KindUnsupported, true, 0, "405"},
		"no right":           {said(403, "Base.1.8.InsufficientPrivilege", "may not"), power.KindPrivilege, true, 0, "may not"},
		"session is over":    {said(401, "Base.1.8.NoValidSession", "no session"), power.KindUnreachable, false, 0, "ended the session"},
		"retry after a time": {
			func(w http.ResponseWriter) { w.Header().Set("Retry-After", "9"); html(503)(w) }, power.KindBusy, false,
			9 * time.Second, "",
		},
		"retry after too long": {
			func(w http.ResponseWriter) { w.Header().Set("Retry-After", "999999"); html(503)(w) }, power.KindBusy, false,
			maxRetryAfter, "",
		},
		"moved elsewhere": {
			func(w http.ResponseWriter) { w.Header().Set("Location", "https://192.0.2.1/x"); html(308)(w) }, power.KindRefused,
			false, 0,
			"another host",
		},
		"see other": {func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); html(303)(w) }, power.KindRefused, true, 0, "303"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.set(func() { f.power["1"] = "On" })
			d := f.dialed(f.Endpoint())
			if _, err := d.State(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.set(func() { f.hook = on("POST", "ComputerSystem.Reset", c.answer) })
			e := failure(t, d.Do(t.Context(), power.HardReset))
			if e.Kind != c.kind || e.Sent != c.sent || e.After != c.after || !strings.Contains(e.Error(), c.says) ||
				strings.Contains(e.Error(), "\x1b") {
				t.Errorf("%q: kind %s, sent %t, after %s; want %s, %t, %s", e, e.Kind, e.Sent, e.After, c.kind, c.sent, c.after)
			}
			if n := len(f.requests("POST /redfish/v1/Systems")); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}

// TestACommandThatIsNotNeeded: the BMC refuses it, since the node is there already.
func TestACommandThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.dialed(f.Endpoint())
	f.set(func() {
		f.hook = on("POST", "ComputerSystem.Reset", func(w http.ResponseWriter) { complain(w, 409, "X", "it is off") })
	})
	if err := d.Do(t.Context(), power.PowerOff); err != nil {
		t.Errorf("off of a node that is off: %v", err)
	}
	if e := failure(t, d.Do(t.Context(), power.PowerOn)); e.Kind != power.KindBusy || e.Sent {
		t.Errorf("on: %v, sent %t", e, e.Sent)
	}
}

func TestTheTypeOfAReset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cmd   power.Command
		state string
		types []string
		want  string // "": refused
	}{
		{power.PowerOn, "Off", []string{"ForceOn", "On"}, "On"},
		{power.PowerOn, "Off", []string{"ForceOn", "PushPowerButton"}, "ForceOn"},
		{power.PowerOn, "Off", []string{"PushPowerButton"}, "PushPowerButton"},
		{power.PowerOn, "On", []string{"PushPowerButton"}, ""},
		{power.PowerOn, "PoweringOn", []string{"PushPowerButton"}, ""},
		{power.PowerOff, "On", []string{"GracefulShutdown", "PushPowerButton"}, ""},
		{power.PressSoftOff, "On", []string{"ForceOff"}, ""},
		{power.HardReset, "On", []string{"GracefulRestart", "PowerCycle"}, ""},
		{power.PulseDiag, "On", nil, "Nmi"},
		{power.PowerOn, "Off", nil, "On"},
	} {
		f := newFake(t)
		var sent []string
		f.set(func() {
			f.power["1"], f.types = c.state, c.types
			f.hook = func(_ *fakeBMC, _ http.ResponseWriter, r *http.Request, body map[string]any) bool {
				if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "Reset") {
					kind, _ := body["ResetType"].(string)
					sent = append(sent, kind)
				}
				return false
			}
		})
		err := f.dialed(f.Endpoint()).Do(t.Context(), c.cmd)
		switch {
		case c.want == "" && (err == nil || power.WasSent(err) || len(sent) > 0):
			t.Errorf("%s of a node that is %s by %v: sent %v, %v", c.cmd, c.state, c.types, sent, err)
		case c.want != "" && (err != nil || !slices.Equal(sent, []string{c.want})):
			t.Errorf("%s of a node that is %s by %v: sent %v, %v", c.cmd, c.state, c.types, sent, err)
		}
	}
}

// TestDifferencesOfMakers: each has a source, and says one thing.
func TestDifferencesOfMakers(t *testing.T) {
	t.Parallel()
	for _, d := range differences() {
		says := 0
		for _, is := range []bool{
			len(d.types) > 0 && resetTypes[d.cmd] != nil, d.target != "" && bootTargets[d.device] != "", d.ipmi != "",
			d.remark != "",
		} {
			if is {
				says++
			}
		}
		if !strings.HasPrefix(d.source, "https://") || says != 1 || d.maker == nil {
			t.Errorf("%+v", d)
		}
	}
}

// TestSoftOffByTheButton is of one maker alone.
func TestSoftOffByTheButton(t *testing.T) {
	t.Parallel()
	for maker, want := range map[string]string{
		"HPE": "PushPowerButton", "HP": "PushPowerButton", "Hewlett Packard Enterprise": "PushPowerButton", "Contoso": "", "HPX": "",
	} {
		for _, state := range []string{"On", "Off", "PoweringOff"} {
			f := newFake(t)
			sent := ""
			f.set(func() {
				f.power["1"], f.types = state, []string{"On", "ForceOff", "ForceRestart", "Nmi", "PushPowerButton"}
				f.hook = func(f *fakeBMC, w http.ResponseWriter, r *http.Request, body map[string]any) bool {
					switch {
					case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/Systems/1"):
						sys := get(f, func() map[string]any { return f.systemOf("1") })
						sys["Manufacturer"] = maker
						reply(w, 200, sys)
					case strings.HasSuffix(r.URL.Path, "Reset"):
						sent, _ = body["ResetType"].(string)
						w.WriteHeader(204)
					default:
						return false
					}
					return true
				}
			})
			err := f.dialed(f.Endpoint()).Do(t.Context(), power.PressSoftOff)
			is := want
			if state != "On" {
				is = "" // the button would turn it on, or end in a hard off
			}
			if sent != is || (err == nil) != (is != "") {
				t.Errorf("soft-off of a node of %s that is %s: %q, %v", maker, state, sent, err)
			}
		}
	}
}

// TestDifferencesByModelAndFirmware on simulated BMCs of these makers, and on others like them.
func TestDifferencesByModelAndFirmware(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		maker, model, firmware string
		boots                  string // from a CD
		remark                 string // "": none of these
	}{
		{"Supermicro", "SYS-1029P", "1.0", "UsbCd", ""},
		{"Supermicro", "ARS-111GL-NHR", "1.0", "Cd", ""},
		{"Contoso", "SYS-1029P", "1.0", "Cd", ""},
		{"ASRockRack", "E3C246D4I-NL", "1.0", "Cd", "use IPMI"},
		{"ASRockRack", "X470D4U", "1.0", "Cd", ""},
		{"Dell Inc.", "PowerEdge R650", "5.10.10.05", "Cd", "to do nothing"},
		{"Dell Inc.", "PowerEdge R650", "5.10.30.00", "Cd", ""},
		{"Dell Inc.", "PowerEdge R750", "5.10.10.05", "Cd", ""},
	} {
		profile := bmcsim.Profiles[0]
		profile.Manufacturer, profile.Model, profile.Firmware = c.maker, c.model, c.firmware
		s := startSim(t, profile, impatient)
		d, err := s.Dial(t.Context(), s.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SetBoot(t.Context(), power.BootCDROM); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if is := d.(*session).target(t.Context(), power.BootCDROM); is != c.boots {
			t.Errorf("%+v: boots from %s", c, is)
		}
		r, err := d.(power.Tester).Test(t.Context())
		says := strings.Join(r.Remarks, "; ")
		if err != nil || c.remark != "" && !strings.Contains(says, c.remark) || c.remark == "" && strings.Contains(says, "this ") {
			t.Errorf("%+v: %v, %s", c, err, says)
		}
		if err := d.(Resetter).CanReset(t.Context()); (err != nil) != (c.remark == "use IPMI") {
			t.Errorf("%+v: %v", c, err)
		}
		_ = d.Close()
	}
}

func TestTheSystemThatIsMeant(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set(func() { f.power = map[string]string{"Node_0": "On", "Node_1": "Off"} })
	ep := f.Endpoint()
	d := f.dialed(ep)
	_, err := d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindUnsupported || !strings.Contains(e.Error(), "Node_0") ||
		!strings.Contains(e.Error(), "Node_1") {
		t.Errorf("several: %v", e)
	}
	for name, want := range map[string]power.State{"Node_0": power.On, "Node_1": power.Off} {
		ep.System = name
		d.(power.Targeter).SetTarget(ep)
		if got, err := d.State(t.Context()); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	ep.System = "Node_2"
	d.(power.Targeter).SetTarget(ep)
	_, err = d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindUnsupported || !strings.Contains(e.Error(), "it has Node_") {
		t.Errorf("none of that name: %v", e)
	}
	ep.System = ""
	f.set(func() {
		f.hook = on("GET", "Systems/Node_0", func(w http.ResponseWriter) { reply(w, 200, map[string]any{"PowerState": "On"}) })
	})
	d.(power.Targeter).SetTarget(ep)
	if got, err := d.State(t.Context()); got != power.Off || err != nil {
		t.Errorf("the only one with a reset: %s, %v", got, err)
	}
	if n := f.Sessions(); n != 1 {
		t.Errorf("%d sessions for one BMC", n)
	}
}

// TestABMCThatStarts lists no Systems for a while.
func TestABMCThatStarts(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	cfg := impatient
	cfg.NotReady = time.Hour
	f.Dialer = NewDialer(cfg)
	f.set(func() { f.power = map[string]string{} })
	d := f.dialed(f.Endpoint())
	_, err := d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindBusy || e.Lost || !strings.Contains(e.Error(), "not ready") {
		t.Errorf("%v", e)
	}
	f.Dialer.know(f.Endpoint(), func(b *learnt) { b.starting = time.Now().Add(-2 * time.Hour) })
	_, err = d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindUnsupported {
		t.Errorf("after that: %v", e)
	}
	f.set(func() { f.power["1"] = "On" })
	if got, err := d.State(t.Context()); got != power.On || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	f.set(func() { f.power = map[string]string{} }) // one that was known is gone as well
	_, err = d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindBusy {
		t.Errorf("after a restart: %v", e)
	}
}

func TestTasks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		do    power.Command
		state string // of the task
		power string // of the node, behind it
		ok    bool
	}{
		{power.PowerOn, "Completed", "On", true},
		{power.PowerOn, "Running", "On", true},
		{power.PowerOn, "Exception", "On", true},
		{power.PowerOn, "Exception", "Off", false},
		{power.HardReset, "Completed", "On", true},
		{power.HardReset, "Exception", "On", false},
	} {
		f := newFake(t)
		cfg := impatient
		cfg.TaskWait = 300 * time.Millisecond
		f.Dialer = NewDialer(cfg)
		d := f.dialed(f.Endpoint())
		f.set(func() {
			f.hook = func(f *fakeBMC, w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
				switch {
				case strings.HasSuffix(r.URL.Path, "Reset"):
					w.Header().Set("Location", "/redfish/v1/TaskService/Tasks/7")
					reply(w, 202, map[string]any{"TaskState": "New"})
				case strings.HasSuffix(r.URL.Path, "Tasks/7"):
					f.set(func() { f.power["1"] = c.power })
					reply(w, 200, map[string]any{"TaskState": c.state, "Messages": []any{map[string]any{"Message": "no power supply"}}})
				default:
					return false
				}
				return true
			}
		})
		err := d.Do(t.Context(), c.do)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "no power supply") {
			t.Errorf("%s by a task that is %s with the node %s: %v", c.do, c.state, c.power, err)
		}
		// What may happen twice is tried again; a reset whose task failed may have been one.
		if once := c.do == power.HardReset; err != nil && power.WasSent(err) != once {
			t.Errorf("%s by a task that is %s: sent %v", c.do, c.state, power.WasSent(err))
		}
	}
}

// TestDribbleAndFlood has a BMC answer a byte at a time, and without end.
func TestDribbleAndFlood(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.dialed(f.Endpoint())
	if _, err := d.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	endless := func(w http.ResponseWriter) {
		for range 3 << 20 >> 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}
	f.set(func() { f.hook = on("GET", "Systems/1", endless) })
	_, err := d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindRefused || !strings.Contains(e.Error(), "longer than") {
		t.Errorf("endless: %v", e)
	}
	f.set(func() { f.hook = on("POST", "ComputerSystem.Reset", endless) })
	if err := d.Do(t.Context(), power.PowerOn); err != nil {
		t.Errorf("a command whose answer is good and endless: %v", err)
	}
	f.set(func() {
		f.hook = on("GET", "Systems/1", func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat(`{"a":[`, 40)) })
	})
	_, err = d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindRefused || !strings.Contains(e.Error(), "deep") {
		t.Errorf("deep: %v", e)
	}
	done := make(chan struct{})
	defer close(done)
	f.set(func() {
		f.hook = on("GET", "Systems/1", func(w http.ResponseWriter) {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
					if _, err := io.WriteString(w, " "); err != nil {
						return
					}
					w.(http.Flusher).Flush()
				}
			}
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = d.State(ctx)
	if e := failure(t, err); e.Kind != power.KindUnreachable || !e.Lost {
		t.Errorf("a byte at a time: %v", e)
	}
}
