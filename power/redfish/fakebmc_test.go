package redfish

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/powertest"
)

// impatient keeps the tests short.
var impatient = Config{
	Timeout: 3 * time.Second, ReadTimeout: 1500 * time.Millisecond, CloseTimeout: 300 * time.Millisecond, ProbeTimeout: 800 * time.Millisecond,
	Reuse: 10 * time.Second, TaskWait: 2 * time.Second,
}

const (
	testUser     = "admin"
	testPassword = "secret"
)

// fakeBMC is a tree of Redfish resources behind a server of its own, as a test wants it: hook
// answers what it has an answer for.
type fakeBMC struct {
	t   *testing.T
	srv *httptest.Server
	*Dialer

	mu       sync.Mutex
	hook     func(f *fakeBMC, w http.ResponseWriter, r *http.Request, body map[string]any) bool
	power    map[string]string // PowerState by System
	types    []string
	boot     map[string]any
	sessions map[string]*fakeSession // by Id
	next     int
	most     int
	failures int
	asked    []string // METHOD PATH
	log      []powertest.Entry
	role     string
	awake    chan struct{} // closed: it answers
	lose     int
	fail     []power.ErrorKind
}

type fakeSession struct {
	token, user string
	created     time.Time
}

// newFake starts a BMC with the System 1, over TLS.
func newFake(t *testing.T) *fakeBMC { return startFake(t, true) }

func startFake(t *testing.T, secure bool) *fakeBMC {
	t.Helper()
	f := &fakeBMC{
		t: t, Dialer: NewDialer(impatient), power: map[string]string{"1": "Off"}, sessions: map[string]*fakeSession{}, most: 4,
		types: []string{"On", "ForceOff", "GracefulShutdown", "ForceRestart", "Nmi", "PushPowerButton"},
		boot:  map[string]any{"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None", "BootSourceOverrideMode": "UEFI"},
		awake: make(chan struct{}), role: "Administrator",
	}
	close(f.awake)
	f.srv = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.srv.Config.ErrorLog = nil
	if secure {
		f.srv.StartTLS()
	} else {
		f.srv.Start()
	}
	t.Cleanup(func() {
		f.Wake()
		f.srv.CloseClientConnections()
		f.srv.Close()
	})
	return f
}

func (f *fakeBMC) Endpoint() power.Endpoint {
	u, err := url.Parse(f.srv.URL)
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := strconv.Atoi(u.Port())
	if err != nil {
		f.t.Fatal(err)
	}
	ep := power.Endpoint{Scheme: power.SchemeRedfish, Host: u.Hostname(), Port: p, User: testUser, Password: testPassword, Pin: power.PinFirst}
	if u.Scheme == "http" {
		ep.Scheme, ep.Pin = power.SchemeRedfishHTTP, ""
	}
	return ep
}

func (f *fakeBMC) set(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func get[T any](f *fakeBMC, fn func() T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fn()
}

func (f *fakeBMC) Patience() time.Duration { return impatient.Timeout }

func (f *fakeBMC) Log() []powertest.Entry {
	return get(f, func() []powertest.Entry { return slices.Clone(f.log) })
}

func (f *fakeBMC) SetPower(s power.State) error {
	f.set(func() { f.power["1"] = map[power.State]string{power.On: "On", power.Off: "Off"}[s] })
	return nil
}

func (f *fakeBMC) Hang() { f.set(func() { f.awake = make(chan struct{}) }) }

func (f *fakeBMC) Wake() {
	f.set(func() {
		select {
		case <-f.awake:
		default:
			close(f.awake)
		}
	})
}

func (f *fakeBMC) Kill()                 { f.srv.CloseClientConnections(); f.srv.Close() }
func (f *fakeBMC) LoseNextAnswers(n int) { f.set(func() { f.lose = n }) }
func (f *fakeBMC) Sessions() int         { return get(f, func() int { return len(f.sessions) }) }
func (f *fakeBMC) AuthFailures() int     { return get(f, func() int { return f.failures }) }
func (f *fakeBMC) FailNext(n int, kind power.ErrorKind) {
	f.set(func() { f.fail = slices.Repeat([]power.ErrorKind{kind}, n) })
}

func (f *fakeBMC) Restart() error {
	f.set(func() { f.sessions = map[string]*fakeSession{} })
	f.srv.CloseClientConnections()
	return nil
}

func (f *fakeBMC) SetNoSession(full bool) {
	f.set(func() {
		f.most = 4
		if full {
			f.most = 0
		}
	})
}

func (f *fakeBMC) Operator() power.Endpoint {
	f.set(func() { f.role = "Operator" })
	return f.Endpoint()
}

func (f *fakeBMC) Reader() power.Endpoint { f.set(func() { f.role = "ReadOnly" }); return f.Endpoint() }

// requests are those that came, by their beginning.
func (f *fakeBMC) requests(prefix string) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.asked {
		if strings.HasPrefix(r, prefix) {
			all = append(all, r)
		}
	}
	return all
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// complain answers with a Redfish error.
func complain(w http.ResponseWriter, status int, id, text string) {
	reply(w, status, map[string]any{"error": map[string]any{
		"code": "Base.1.8.GeneralError", "message": "see ExtendedInfo",
		"@Message.ExtendedInfo": []any{map[string]any{"MessageId": id, "Message": text}},
	}})
}

func (f *fakeBMC) serve(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	var body map[string]any
	_ = json.Unmarshal(data, &body)
	awake := get(f, func() chan struct{} { f.asked = append(f.asked, r.Method+" "+r.URL.Path); return f.awake })
	select {
	case <-awake:
	case <-r.Context().Done():
		return
	}
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(f, w, r, body) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer(w, r, body)
}

func odata(path string) map[string]any { return map[string]any{"@odata.id": path} }

func (f *fakeBMC) answer(w http.ResponseWriter, r *http.Request, body map[string]any) {
	path := strings.TrimRight(r.URL.Path, "/")
	switch {
	case path == "/redfish/v1":
		reply(w, 200, map[string]any{
			"Systems": odata("/redfish/v1/Systems"), "Links": map[string]any{"Sessions": odata("/redfish/v1/SessionService/Sessions")},
			"Vendor": "Contoso", "RedfishVersion": "1.6.0",
		})
		return
	case path == "/redfish/v1/SessionService/Sessions" && r.Method == http.MethodPost:
		f.logIn(w, body)
		return
	}
	if !f.known(r) {
		complain(w, 401, "Base.1.8.NoValidSession", "There is no valid session.")
		return
	}
	last := path[strings.LastIndex(path, "/")+1:]
	switch {
	case path == "/redfish/v1/SessionService/Sessions":
		var all []any
		for id := range f.sessions {
			all = append(all, odata(path+"/"+id))
		}
		reply(w, 200, map[string]any{"Members": all})
	case strings.HasPrefix(path, "/redfish/v1/SessionService/Sessions/"):
		s := f.sessions[last]
		switch {
		case s == nil:
			complain(w, 404, "Base.1.8.ResourceMissingAtURI", "no such session")
		case r.Method == http.MethodDelete:
			delete(f.sessions, last)
			w.WriteHeader(204)
		default:
			reply(w, 200, map[string]any{"@odata.id": path, "UserName": s.user, "CreatedTime": s.created.Format(time.RFC3339)})
		}
	case path == "/redfish/v1/Systems":
		all := []any{}
		for id := range f.power {
			all = append(all, odata(path+"/"+id))
		}
		reply(w, 200, map[string]any{"Members": all})
	case strings.HasSuffix(path, "/Actions/ComputerSystem.Reset"), strings.HasSuffix(path, "/Actions/Manager.Reset"):
		f.act(w, path, fmt.Sprint(body["ResetType"]))
	case strings.HasPrefix(path, "/redfish/v1/Systems/") && f.power[last] != "":
		if r.Method == http.MethodPatch {
			f.patch(w, body)
			return
		}
		reply(w, 200, f.systemOf(last))
	case path == "/redfish/v1/Managers/1":
		reply(w, 200, map[string]any{
			"Model": "BMC", "FirmwareVersion": "1.2.3",
			"Actions": map[string]any{"#Manager.Reset": map[string]any{
				"target": path + "/Actions/Manager.Reset", "ResetType@Redfish.AllowableValues": []string{"GracefulRestart", "ForceRestart"},
			}},
		})
	default:
		complain(w, 404, "Base.1.8.ResourceMissingAtURI", "no such resource")
	}
}

func (f *fakeBMC) systemOf(id string) map[string]any {
	path := "/redfish/v1/Systems/" + id
	sys := map[string]any{
		"@odata.id": path, "Name": id, "Manufacturer": "Contoso", "Model": "C1", "PowerState": f.power[id], "Boot": f.boot,
		"Links": map[string]any{"ManagedBy": []any{odata("/redfish/v1/Managers/1")}},
		"Actions": map[string]any{"#ComputerSystem.Reset": map[string]any{
			"target": path + "/Actions/ComputerSystem.Reset", "ResetType@Redfish.AllowableValues": f.types,
		}},
	}
	if f.power[id] == "null" {
		sys["PowerState"] = nil
	}
	return sys
}

func (f *fakeBMC) known(r *http.Request) bool {
	if user, password, ok := r.BasicAuth(); ok {
		if user == testUser && password == testPassword {
			return true
		}
		f.failures++
		return false
	}
	for _, s := range f.sessions {
		if s.token == r.Header.Get("X-Auth-Token") {
			return true
		}
	}
	return false
}

func (f *fakeBMC) logIn(w http.ResponseWriter, body map[string]any) {
	switch {
	case body["UserName"] != testUser || body["Password"] != testPassword:
		f.failures++
		complain(w, 401, "Base.1.8.ResourceAtUriUnauthorized", "wrong user or password")
	case len(f.sessions) >= f.most:
		complain(w, 503, "IDRAC.2.4.RAC0218", "The maximum number of user sessions is reached.")
	default:
		f.next++
		id := strconv.Itoa(f.next)
		f.sessions[id] = &fakeSession{token: "token" + id, user: testUser, created: time.Now()}
		w.Header().Set("X-Auth-Token", "token"+id)
		w.Header().Set("Location", "/redfish/v1/SessionService/Sessions/"+id)
		reply(w, 201, map[string]any{"@odata.id": "/redfish/v1/SessionService/Sessions/" + id, "UserName": testUser})
	}
}

func (f *fakeBMC) patch(w http.ResponseWriter, body map[string]any) {
	if f.role == "ReadOnly" {
		complain(w, 403, "Base.1.8.InsufficientPrivilege", "may not")
		return
	}
	set, _ := body["Boot"].(map[string]any)
	for k, v := range set {
		f.boot[k] = v
	}
	dev := map[any]power.BootDevice{
		"Pxe": "pxe", "Hdd": "disk", "Cd": "cdrom", "BiosSetup": "bios",
		"None": "",
	}[set["BootSourceOverrideTarget"]]
	f.log = append(f.log, powertest.Entry{Boot: dev, At: time.Now()})
	w.WriteHeader(204)
}

func (f *fakeBMC) act(w http.ResponseWriter, path, kind string) {
	isManager := strings.HasSuffix(path, "Manager.Reset")
	if f.role == "ReadOnly" || f.role == "Operator" && isManager {
		complain(w, 403, "Base.1.8.InsufficientPrivilege", "may not")
		return
	}
	if len(f.fail) > 0 {
		why := f.fail[0]
		f.fail = f.fail[1:]
		switch why {
		case power.KindBusy:
			complain(w, 503, "Base.1.8.ServiceTemporarilyUnavailable", "The service is temporarily unavailable. Retry in 7 seconds.")
		case power.KindPrivilege:
			complain(w, 403, "Base.1.8.InsufficientPrivilege", "may not")
		case power.KindUnsupported:
			complain(w, 400, "Base.1.8.ActionParameterNotSupported", "no such type")
		default:
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "<html><head><style>a</style><title>500 - Internal</title></head><body>boom</body></html>")
		}
		return
	}
	id := strings.Split(path, "/")[4]
	cmd := map[string]power.Command{
		"On": power.PowerOn, "ForceOff": power.PowerOff, "GracefulShutdown": power.PressSoftOff, "ForceRestart": power.HardReset,
		"Nmi": power.PulseDiag, "PushPowerButton": power.PowerOn,
	}[kind]
	switch {
	case isManager:
		cmd = power.ResetBMC
	case cmd == power.PowerOn:
		f.power[id] = "On"
	case cmd == power.PowerOff || cmd == power.PressSoftOff:
		f.power[id] = "Off"
	}
	f.log = append(f.log, powertest.Entry{BMC: id, Command: cmd, At: time.Now()})
	if f.lose > 0 {
		f.lose--
		cut(w)
		return
	}
	w.WriteHeader(204)
	if isManager {
		f.sessions = map[string]*fakeSession{}
	}
}

// cut resets the connection instead of an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// dialed opens a session.
func (f *fakeBMC) dialed(ep power.Endpoint) power.Driver {
	f.t.Helper()
	d, err := f.Dial(context.Background(), ep)
	if err != nil {
		f.t.Fatalf("dial: %v", err)
	}
	f.t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestSuite(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"TLS": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			powertest.Suite(t, func(t *testing.T) powertest.Target { return startFake(t, secure) })
		})
	}
}
