package agentd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// webOnly is a server on the port of Redfish that answers by path, and 404 with a page else; to
// a log-in, with a session.
func webOnly(t *testing.T, answers map[string]string) uint16 {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, known := answers[strings.TrimSuffix(r.URL.Path, "/")]
		switch {
		case body == "503":
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Method == http.MethodPost && known:
			w.Header().Set("X-Auth-Token", "t")
			w.Header().Set("Location", r.URL.Path+"/1")
			w.WriteHeader(http.StatusCreated)
		case known:
			fmt.Fprint(w, body)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "<html><body>Switch 24 ports</body></html>")
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return netip.MustParseAddrPort(srv.Listener.Addr().String()).Port()
}

// closedPort is one that nothing listens on.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func TestTheProtocolIsFound(t *testing.T) {
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{
		Count: 1, Initial: power.On, Redfish: &bmcsim.Redfish{Profiles: bmcsim.Profiles[:1]},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = farm.Close() })
	lan, web := uint16(farm.BMC(0).Endpoint().Port), uint16(farm.BMC(0).RedfishEndpoint().Port)
	dead := closedPort(t)
	root := map[string]string{
		"/redfish/v1":                         `{"RedfishVersion":"1.6.0","Systems":{"@odata.id":"/redfish/v1/Systems"}}`,
		"/redfish/v1/SessionService/Sessions": `{"Members":[]}`,
	}
	with := func(more map[string]string) map[string]string {
		all := map[string]string{}
		for _, m := range []map[string]string{root, more} {
			for path, body := range m {
				all[path] = body
			}
		}
		return all
	}
	system := func(reset string) string {
		return `{"Id":"1","PowerState":"On","Manufacturer":"ASRockRack","Actions":{` + reset + `}}`
	}
	reset := `"#ComputerSystem.Reset":{"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"}`
	for name, c := range map[string]struct {
		web, lan uint16
		options  string
		password power.Secret
		found    string // "": none
		why      string
		kind     power.ErrorKind
	}{
		"both":         {web: web, lan: lan, found: "redfish", why: "System that can be reset"},
		"only Redfish": {web: web, lan: dead, found: "redfish"},
		"only IPMI":    {web: dead, lan: lan, found: "ipmi", why: "nothing listens on its port"},
		"a web page beside IPMI": {
			web: webOnly(t, nil), lan: lan, found: "ipmi", why: "Switch 24 ports",
		},
		"neither":                 {web: webOnly(t, nil), lan: dead, kind: power.KindUnsupported, why: "Switch 24 ports"},
		"dead":                    {web: dead, lan: dead, kind: power.KindUnreachable, why: "neither Redfish"},
		"a wrong password":        {web: web, lan: lan, password: "wrong", kind: power.KindAuth},
		"an untrusted key":        {web: web, lan: lan, options: "?boot=efi", kind: power.KindAuth, why: "not trusted"},
		"Redfish that is not yet": {web: webOnly(t, map[string]string{"/redfish/v1": "503"}), lan: lan, kind: power.KindBusy},
		"no System that can be reset": {
			web: webOnly(t, with(map[string]string{
				"/redfish/v1/Systems":   `{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}`,
				"/redfish/v1/Systems/1": system(""),
			})), lan: lan, found: "ipmi", why: "no System that can be reset",
		},
		"a System whose power state is known to be wrong": {
			web: webOnly(t, with(map[string]string{
				"/redfish/v1/Systems":   `{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}`,
				"/redfish/v1/Systems/1": strings.Replace(system(reset), `"PowerState"`, `"Model":"E3C246D4I-NL","PowerState"`, 1),
			})), lan: lan, found: "ipmi", why: "a wrong power state by Redfish",
		},
		"several Systems": {
			web: webOnly(t, with(map[string]string{
				"/redfish/v1/Systems":   `{"Members":[{"@odata.id":"/redfish/v1/Systems/1"},{"@odata.id":"/redfish/v1/Systems/2"}]}`,
				"/redfish/v1/Systems/1": system(reset), "/redfish/v1/Systems/2": system(reset),
			})), lan: lan, kind: power.KindUnsupported, why: "say which one the node is",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := newDrivers(slog.New(slog.DiscardHandler), "", "")
			if err != nil {
				t.Fatal(err)
			}
			d.as = func(ep power.Endpoint, scheme string) power.Endpoint {
				ep = ep.As(scheme)
				ep.Port = int(map[string]uint16{power.SchemeIPMI: c.lan, power.SchemeRedfish: c.web}[scheme])
				return ep
			}
			if c.options == "" {
				c.options = "?pin=first"
			}
			ep, err := power.ParseEndpoint("auto://admin@127.0.0.1" + c.options)
			if err != nil {
				t.Fatal(err)
			}
			if ep.Password = c.password; ep.Password == "" {
				ep.Password = bmcsim.DefaultPassword
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			driver, err := d.Dial(ctx, ep)
			if c.found == "" {
				if driver != nil || power.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.why) {
					t.Errorf("found %v: %v", driver, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer driver.Close()
			is, why := driver.(power.Finder).Found()
			if is != d.as(ep, c.found) || !strings.Contains(why, c.why) {
				t.Errorf("found %s: %s", is, why)
			}
			if state, err := driver.State(ctx); err != nil || state != power.On {
				t.Errorf("state %s: %v", state, err)
			}
			if err := driver.Do(ctx, power.PowerOff); err == nil || power.WasSent(err) {
				t.Errorf("a command left: %v", err)
			}
			if err := driver.SetBoot(ctx, power.BootPXE); err == nil || power.WasSent(err) {
				t.Errorf("a boot device was set: %v", err)
			}
			r, err := driver.(power.Tester).Test(ctx)
			if text := strings.Join(r.Remarks, "\n"); err != nil || !strings.Contains(text, "it is taken for "+c.found+"://127.0.0.1") {
				t.Errorf("test: %v: %s", err, text)
			}
			if err := d.Probe(ctx, ep); err != nil {
				t.Errorf("probe: %v", err)
			}
			d.Forget(ep)
		})
	}
}
