package bmcsim

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rackpower/power"
)

// fault makes b misbehave over Redfish.
func fault(b *BMC, f RedfishFault) { b.Set(Fault{Redfish: &f}) }

func TestRefusals(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	path, on := c.system()+"/Actions/ComputerSystem.Reset", object{"ResetType": "On"}

	fault(b, RedfishFault{Refuse: &Refusal{Status: 503, RetryAfter: new(Duration(5 * time.Second)), Times: 1}})
	if r := c.do(503, http.MethodPost, path, on); r.Header.Get("Retry-After") != "5" || b.Power() != power.Off {
		t.Errorf("503: %v, power %s", r.Header, b.Power())
	}
	fault(b, RedfishFault{Refuse: &Refusal{Status: 503, Text: "The service is busy, retry in 7 seconds.", Times: 1}})
	if r := c.do(503, http.MethodPost, path, on); !strings.Contains(r.text, "retry in 7 seconds") || r.Header.Get("Retry-After") != "" {
		t.Errorf("503: %s", r.text)
	}
	fault(b, RedfishFault{Refuse: &Refusal{Status: 429, Times: 1}})
	c.do(429, http.MethodPost, path, on)
	fault(b, RedfishFault{Refuse: &Refusal{Status: 409, Times: 1}})
	c.do(409, http.MethodPost, path, on)
	fault(b, RedfishFault{Refuse: &Refusal{Status: 500, HTML: true, Text: "Internal Error", Times: 1}})
	if r := c.do(500, http.MethodPost, path, on); r.Header.Get("Content-Type") != "text/html" || r.body != nil {
		t.Errorf("500: %s", r.text)
	}
	if b.Power() != power.Off {
		t.Fatal("a refused command was carried out")
	}
	fault(b, RedfishFault{Refuse: &Refusal{Status: 500, Executed: true, Times: 1}})
	c.do(500, http.MethodPost, path, on)
	if b.Power() != power.On {
		t.Error("the command was not carried out")
	}
	var codes []byte
	for _, e := range b.Commands() {
		codes = append(codes, e.Code)
	}
	if want := string([]byte{codeBusy, codeBusy, codeBusy, codeWrongState, codeUnspecified, codeOK}); string(codes) != want {
		t.Errorf("codes % x, want % x", codes, want)
	}
	// Of one kind of request alone.
	fault(b, RedfishFault{Refuse: &Refusal{Method: "POST", Path: "Sessions", Status: 503, Times: 1}})
	c.wantState("On")
	c.do(503, http.MethodPost, "/redfish/v1/SessionService/Sessions", object{})
	c.login()
	// What IPMI has, too.
	b.FailCode(codeBusy, 1)
	c.reset(503, resetForceOff)
	b.FailCode(codeInvalid, 1)
	c.reset(400, resetForceOff)
	b.Privilege(levelUser)
	c.wantState("On")
	c.reset(403, resetForceOff)
	b.Privilege(levelOperator)
	c.reset(204, resetForceOff)
	c.do(403, http.MethodPost, "/redfish/v1/Managers/Manager.1/Actions/Manager.Reset", object{"ResetType": "ForceRestart"})
}

func TestStatesThatAreNone(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	for _, state := range []string{"Paused", "PoweringOn", "Reset"} {
		fault(b, RedfishFault{State: &state})
		c.wantState(state)
	}
	fault(b, RedfishFault{State: new("null")})
	if state, ok := c.get(c.system())["PowerState"]; !ok || state != nil {
		t.Errorf("state %v, there: %v", state, ok)
	}
	fault(b, RedfishFault{State: new("missing")})
	if state, ok := c.get(c.system())["PowerState"]; ok {
		t.Errorf("state %v", state)
	}
	fault(b, RedfishFault{State: new("")})
	c.wantState("Off")
}

// TestLag: the power is reported late, by either protocol.
func TestLag(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	ipmi := login(t, b)
	b.Lag(time.Hour)
	c.reset(204, resetOn)
	if b.Power() != power.On || ipmi.on() {
		t.Errorf("power %s", b.Power())
	}
	c.wantState("Off")
	b.Lag(0)
	c.wantState("On")
	b.Lag(time.Millisecond)
	c.reset(204, resetForceOff)
	soon(t, "the node is reported off", func() bool { return !ipmi.on() })
	c.wantState("Off")
}

func TestTransitionalStates(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "actioninfo", Config{OnAfter: time.Hour, OffAfter: time.Hour})
	c.reset(204, resetOn)
	c.wantState("PoweringOn")
	b.SetPower(power.On)
	c.wantState("On")
	c.reset(204, resetGracefulShutdown)
	c.wantState("PoweringOff")
}

func TestTasks(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{OnAfter: time.Hour})
	fault(b, RedfishFault{Task: new(true)})
	r := c.reset(202, resetOn)
	monitor, task := r.Header.Get("Location"), r.body["@odata.id"].(string)
	c.do(202, http.MethodGet, monitor, nil)
	if state := c.get(task)["TaskState"]; state != "Running" {
		t.Errorf("the task is %v", state)
	}
	b.SetPower(power.On)
	c.do(200, http.MethodGet, monitor, nil)
	if state := c.get(task)["TaskState"]; state != "Completed" {
		t.Errorf("the task is %v", state)
	}
	c.do(404, http.MethodGet, "/redfish/v1/TaskService/Tasks/2", nil)
	c.do(404, http.MethodGet, "/redfish/v1/TaskService/TaskMonitors/2", nil)
}

// TestETags: each way of dealing with them takes what it should, and nothing else.
func TestETags(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	path := c.system()
	pxe := object{"Boot": object{"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}}
	for kind, want := range map[string]map[string]int{
		etagNone:     {"": 204, "*": 204, "tag": 204, "other": 204},
		etagStrong:   {"": 204, "*": 204, "tag": 204, "other": 412},
		etagWeak:     {"": 204, "*": 204, "tag": 412, "bare": 204, "other": 412},
		etagRequired: {"": 428, "*": 204, "tag": 204, "other": 412},
		etagStar:     {"": 428, "*": 204, "tag": 412, "other": 412},
		etagRefused:  {"": 204, "*": 412, "tag": 412, "other": 412},
	} {
		fault(b, RedfishFault{ETag: &kind})
		for match, status := range want {
			tag := c.do(200, http.MethodGet, path, nil).Header.Get("ETag")
			if (tag == "") != (kind == etagNone) || strings.HasPrefix(tag, "W/") != (kind == etagWeak) {
				t.Errorf("%s: ETag %s", kind, tag)
			}
			header := map[string]string{
				"": "", "*": "If-Match: *", "tag": "If-Match: " + tag, "bare": "If-Match: " + strings.TrimPrefix(tag, "W/"),
				"other": `If-Match: "0"`,
			}[match]
			var headers []string
			if header != "" {
				headers = []string{header}
			}
			if r, err := c.try(http.MethodPatch, path, pxe, headers...); err != nil || r.StatusCode != status {
				t.Errorf("etags %s, If-Match %q: %v, want %d", kind, header, r, status)
			}
		}
	}
}

func TestBootIsSetWhereItCanBe(t *testing.T) {
	t.Parallel()
	cd := object{"Boot": object{
		"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd",
		"BootSourceOverrideMode": "Legacy",
	}}
	for _, p := range Profiles {
		t.Run(p.Name, func(t *testing.T) {
			b, c := oneWeb(t, p.Name, Config{})
			fault(b, RedfishFault{ETag: new("none")})
			here, settings := 204, 404
			switch p.Settings {
			case settingsBoot:
				here, settings = 400, 204
			case settingsOrder:
				settings = 400
			}
			c.do(settings, http.MethodPatch, c.system()+"/Settings", cd)
			c.do(here, http.MethodPatch, c.system(), cd)
			boot := c.get(c.system())["Boot"]
			if b.Boot() != power.BootCDROM || at(boot, "BootSourceOverrideTarget") != "Cd" ||
				at(boot, "BootSourceOverrideEnabled") != "Continuous" || at(boot, "BootSourceOverrideMode") != "Legacy" {
				t.Errorf("boot %s: %v", b.Boot(), boot)
			}
			path := c.system()
			if p.Settings == settingsBoot {
				path += "/Settings"
			}
			fault(b, RedfishFault{IgnoreBoot: new(true)})
			off := object{"Boot": object{"BootSourceOverrideEnabled": "Disabled"}}
			c.do(204, http.MethodPatch, path, off)
			if b.Boot() != power.BootCDROM {
				t.Error("the boot device was set")
			}
			fault(b, RedfishFault{IgnoreBoot: new(false)})
			c.do(204, http.MethodPatch, path, off)
			if b.Boot() != power.BootNone {
				t.Errorf("boot %s", b.Boot())
			}
			wantWords(t, b, "set-boot cdrom", "set-boot none", "set-boot none")
			for _, bad := range []any{
				"", "{", "[]", "null",
				object{},
				object{"Boot": 1},
				object{"Boot": object{"BootSourceOverrideTarget": "Tape"}},
				object{"Boot": object{"BootOrder": []string{}}},
				object{"AssetTag": "x"},
			} {
				c.do(400, http.MethodPatch, path, bad)
			}
		})
	}
}

func TestPowerLimit(t *testing.T) {
	t.Parallel()
	for _, p := range Profiles {
		t.Run(p.Name, func(t *testing.T) {
			b, c := oneWeb(t, p.Name, Config{Initial: power.On})
			fault(b, RedfishFault{ETag: new("none")})
			path := "/redfish/v1/Chassis/" + p.ChassisID + "/Power"
			set := func(watts any) object {
				return object{"PowerControl": []any{object{"PowerLimit": object{"LimitInWatts": watts}}}}
			}
			keys := []any{"PowerControl", 0, "PowerLimit", "LimitInWatts"}
			reading := []any{"PowerControl", 0, "PowerConsumedWatts"}
			switch p.Limit {
			case "":
				c.do(404, http.MethodGet, path, nil)
				return
			case limitEnvironmentMetrics:
				path = "/redfish/v1/Chassis/" + p.ChassisID + "/EnvironmentMetrics"
				set = func(watts any) object { return object{"PowerLimitWatts": object{"SetPoint": watts}} }
				keys, reading = []any{"PowerLimitWatts", "SetPoint"}, []any{"PowerWatts", "Reading"}
			}
			if o := c.get(path); at(o, keys...) != nil || at(o, reading...).(float64) < 150 {
				t.Errorf("at first: %v", o)
			}
			c.do(204, http.MethodPatch, path, set(120))
			if o := c.get(path); at(o, keys...) != 120.0 || at(o, reading...) != 120.0 {
				t.Errorf("limited: %v", o)
			}
			for _, bad := range []any{0, -5, 99, 2001, "120", true} {
				c.do(400, http.MethodPatch, path, set(bad))
			}
			c.do(204, http.MethodPatch, path, set(nil))
			if o := c.get(path); at(o, keys...) != nil {
				t.Errorf("without a limit: %v", o)
			}
			wantWords(t, b, "set-limit 120W", "set-limit none")
		})
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	path := c.system()
	for to, want := range map[string]string{
		"/moved": "/moved" + path, "https://192.0.2.7": "https://192.0.2.7" + path, "/": path,
	} {
		fault(b, RedfishFault{Redirect: &to})
		if got := c.do(308, http.MethodGet, path, nil).Header.Get("Location"); got != want {
			t.Errorf("to %s: %s, want %s", to, got, want)
		}
	}
	fault(b, RedfishFault{Redirect: new("/moved")})
	if c.get("/moved" + path)["PowerState"] != "Off" {
		t.Error("not answered where it was sent")
	}
	c.do(204, http.MethodPost, "/moved"+path+"/Actions/ComputerSystem.Reset", object{"ResetType": "On"})
	wantWords(t, b, "power-on")
}

func TestBodiesWithoutMeasure(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	fault(b, RedfishFault{Drip: new(Duration(time.Microsecond))})
	c.wantState("Off")
	fault(b, RedfishFault{Drip: new(Duration(0)), Nested: new(20_000)})
	if text := c.do(200, http.MethodGet, c.system(), nil).text; !strings.Contains(text, strings.Repeat("[", 20_000)) {
		t.Error("not nested")
	}
	fault(b, RedfishFault{Endless: new(true), Nested: new(0)})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.RedfishURL()+"/redfish/v1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.CopyN(io.Discard, resp.Body, 8<<20); err != nil {
		t.Errorf("ended after %d bytes: %v", n, err)
	}
}

// TestConnectionsThatEnd: a connection is cut when it is used again, after each answer, or
// when it is idle.
func TestConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	c.wantState("Off")
	fault(b, RedfishFault{CutReused: new(1)})
	path := c.system() + "/Actions/ComputerSystem.Reset"
	if _, err := c.try(http.MethodPost, path, object{"ResetType": "On"}); err == nil {
		t.Error("a POST on a connection that was cut was answered")
	}
	wantWords(t, b)
	fault(b, RedfishFault{CutReused: new(0), NoKeepAlive: new(true)})
	if r := c.do(200, http.MethodGet, c.system(), nil); !r.Close {
		t.Error("the connection is kept")
	}
	fault(b, RedfishFault{NoKeepAlive: new(false), KeepAlive: new(Duration(time.Millisecond))})
	c.wantState("Off")
	soon(t, "the idle connection is closed", func() bool {
		return b.number(func() int { return len(b.redfish.conns) }) == 0
	})
	fault(b, RedfishFault{KeepAlive: new(Duration(0)), Closed: new(true)})
	if _, err := c.try(http.MethodGet, c.system(), nil); err == nil {
		t.Error("answered a connection that it refuses")
	}
	fault(b, RedfishFault{Closed: new(false)})
	c.wantState("Off")
}

// TestOneClock: what is set by either protocol is shown.
func TestOneClock(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	ahead := func() time.Duration {
		text, _ := c.get("/redfish/v1/Managers/Manager.1")["DateTime"].(string)
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return 0
		}
		return time.Until(at).Round(time.Hour)
	}
	fault(b, RedfishFault{ClockSkew: new(-7200)})
	if ahead() != -2*time.Hour || *b.view(false).Fault.Redfish.ClockSkew != -7200 {
		t.Errorf("%s ahead", ahead())
	}
	b.Clock(3*time.Hour, false)
	if ahead() != 3*time.Hour {
		t.Errorf("%s ahead", ahead())
	}
	b.Clock(0, true)
	if at, ok := c.get("/redfish/v1/Managers/Manager.1")["DateTime"]; ok {
		t.Errorf("no clock shows %v", at)
	}
}

func TestTLS12(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	if v := c.do(200, http.MethodGet, "/redfish/v1/", nil).TLS.Version; v != 0x0304 {
		t.Errorf("TLS %x", v)
	}
	fault(b, RedfishFault{TLS12: new(true)})
	c.client.CloseIdleConnections()
	if v := c.do(200, http.MethodGet, "/redfish/v1/", nil).TLS.Version; v != 0x0303 {
		t.Errorf("TLS %x", v)
	}
}

// TestStuckAndDeafOverRedfish: acknowledged without effect.
func TestStuckAndDeafOverRedfish(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{Initial: power.On})
	b.Deaf(true)
	c.reset(204, resetGracefulShutdown)
	c.reset(204, resetGracefulRestart)
	c.wantState("On")
	b.Stuck(true)
	c.reset(204, resetForceOff)
	c.wantState("On")
	if b.Cuts() != 0 || b.Resets() != 0 {
		t.Errorf("%d cuts, %d resets", b.Cuts(), b.Resets())
	}
}

// TestInHandOverRedfish counts requests that overlap.
func TestInHandOverRedfish(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	c.wantState("Off")
	c.wantState("Off")
	if n := b.MaxInFlight(); n != 1 {
		t.Fatalf("%d in flight", n)
	}
	b.Delay(time.Hour)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { _, _ = c.try(http.MethodGet, c.system(), nil) })
	}
	soon(t, "three are in hand", func() bool { return b.MaxInFlight() == 3 && len(b.Overlaps()) == 2 })
	b.Delay(0)
	b.Restart(0) // which ends them
	wg.Wait()
	c.wantState("Off")
}

func TestRedfishControl(t *testing.T) {
	t.Parallel()
	f := farm(t, Config{Count: 2, Redfish: &Redfish{}})
	srv := httptest.NewServer(f.ControlHandler())
	t.Cleanup(srv.Close)
	post := func(body string) (int, View) {
		resp, err := http.Post(srv.URL+"/bmc/bmc1", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var v View
		_ = json.NewDecoder(resp.Body).Decode(&v)
		return resp.StatusCode, v
	}
	status, v := post(`{"redfish":{"session_limit":2,"etag":"weak","refuse":{"status":503,"times":3},"drip":"1s"},"lag":"60s"}`)
	if r := v.Fault.Redfish; status != 200 || v.Redfish != f.BMC(0).RedfishURL() || v.Profile != "inline" || *r.SessionLimit != 2 ||
		*r.ETag != "weak" || r.Refuse.Times != 3 || *r.Drip != Duration(time.Second) || *v.Fault.Lag != Duration(time.Minute) {
		t.Errorf("%d %+v", status, v)
	}
	for _, bad := range []string{
		`{"redfish":{"nothing":1}}`, `{"redfish":{"etag":"odd"}}`, `{"redfish":{"session_limit":-1}}`,
		`{"redfish":{"refuse":{"status":200,"times":1}}}`, `{"redfish":{"redirect":"://"}}`, `{"redfish":{"nested":99999999}}`,
		`{"lose_requests":-1}`, `{"redfish":{"keep_alive":"-1s"}}`,
	} {
		if status, _ := post(bad); status != 400 {
			t.Errorf("%s: %d", bad, status)
		}
	}
	if one(t, Config{}).RedfishURL() != "" {
		t.Error("Redfish without being asked for")
	}
}

// FuzzRequest sends whatever there is to a Redfish service.
func FuzzRequest(f *testing.F) {
	sessions := "/redfish/v1/SessionService/Sessions"
	for _, p := range Profiles {
		system := "/redfish/v1/Systems/" + p.SystemID
		for _, path := range []string{
			system, system + "/Settings", system + "/ResetActionInfo", "/redfish/v1/Chassis/" + p.ChassisID + "/Power",
			"/redfish/v1/Chassis/" + p.ChassisID + "/EnvironmentMetrics",
		} {
			f.Add("GET", path, "", "", "")
			f.Add("PATCH", path, "*", "", `{"Boot":{"BootSourceOverrideTarget":"Pxe"}}`)
			f.Add("PATCH", path, `"1"`, "", `{"PowerControl":[{"PowerLimit":{"LimitInWatts":300}}],"PowerLimitWatts":{"SetPoint":1e9}}`)
		}
		f.Add("POST", system+"/Actions/ComputerSystem.Reset", "", "", `{"ResetType":"ForceOff"}`)
		f.Add("POST", "/redfish/v1/Managers/"+p.ManagerID+"/Actions/Manager.Reset", "", "x", `{"ResetType":null}`)
	}
	f.Add("POST", sessions, "", "", `{"UserName":"admin","Password":"simulated"}`)
	f.Add("DELETE", sessions+"/1", "", "", "")
	f.Add("HEAD", "/redfish", "", "", "")
	f.Add("GET", "/redfish/v1/TaskService/TaskMonitors/99999999999999999999", "", "", "")
	all := farm(f, Config{Count: len(Profiles), Redfish: &Redfish{Profiles: Profiles}})
	f.Fuzz(func(t *testing.T, method, path, match, token, body string) {
		for _, b := range all.bmcs {
			r := &http.Request{Method: method, URL: &url.URL{Path: path}, Header: http.Header{}, RemoteAddr: "127.0.0.1:9"}
			r.SetBasicAuth(b.user, string(b.password))
			if match != "" {
				r.Header.Set("If-Match", match)
			}
			if token != "" {
				r.Header.Set("X-Auth-Token", token)
			}
			ans := b.redfish.receive(r, &webConn{redfish: b.redfish}, []byte(body[:min(len(body), maxWebBody)]))
			ans.then = nil // no BMC restarts here
			rec := httptest.NewRecorder()
			ans.write(rec, r)
			b.redfish.leaves(ans)
			if b.Panics() > 0 || ans.reset || rec.Code < 200 || rec.Code > 503 {
				t.Fatalf("%s %q: %d", method, path, rec.Code)
			}
			if out := rec.Body.Bytes(); len(out) > 0 && !json.Valid(out) {
				t.Fatalf("%s %q: %s", method, path, out)
			}
		}
	})
}

// TestRequestsThatAreTooLong: what is longer than a BMC reads is refused.
func TestRequestsThatAreTooLong(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	r, err := c.try(http.MethodPost, "/redfish/v1/SessionService/Sessions", strings.Repeat(" ", maxWebBody+1))
	if err != nil && !errors.Is(err, syscall.ECONNRESET) || err == nil && r.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%v %v", r, err)
	}
	if b.RedfishSessions() != 0 {
		t.Error("a session")
	}
	c.wantState("Off")
}
