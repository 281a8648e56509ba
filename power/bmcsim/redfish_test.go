package bmcsim

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/power"
)

// web is a client of one BMC that does nothing by itself.
type web struct {
	t      testing.TB
	b      *BMC
	client *http.Client
	token  string
	basic  bool
}

// reply is an answer, read.
type reply struct {
	*http.Response
	body object
	text string
}

// oneWeb starts a BMC with Redfish of a profile, and a client of it.
func oneWeb(t testing.TB, profile string, cfg Config) (*BMC, *web) {
	t.Helper()
	p, err := ProfileNamed(profile)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Redfish == nil {
		cfg.Redfish = &Redfish{}
	}
	cfg.Redfish.Profiles = []Profile{p}
	b := one(t, cfg)
	return b, browse(t, b)
}

// browse returns a client of b, by Basic.
func browse(t testing.TB, b *BMC) *web {
	transport := &http.Transport{DisableCompression: true}
	if cert := b.Certificate(); cert != nil {
		roots := x509.NewCertPool()
		roots.AddCert(cert)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &web{t: t, b: b, basic: true, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// try sends a request; a header is given as "Name: value".
func (c *web) try(method, path string, body any, headers ...string) (*reply, error) {
	var in io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(body)
	default:
		data, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.b.RedfishURL()+path, in)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	} else if c.basic {
		ep := c.b.RedfishEndpoint()
		req.SetBasicAuth(ep.User, string(ep.Password))
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	r := &reply{Response: resp, text: string(data)}
	_ = json.Unmarshal(data, &r.body)
	return r, err
}

// do sends a request that must be answered with a status.
func (c *web) do(status int, method, path string, body any, headers ...string) *reply {
	c.t.Helper()
	r, err := c.try(method, path, body, headers...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if r.StatusCode != status {
		c.t.Fatalf("%s %s: %s %s, want %d", method, path, r.Status, r.text, status)
	}
	return r
}

func (c *web) get(path string) object {
	c.t.Helper()
	return c.do(http.StatusOK, http.MethodGet, path, nil).body
}

// login opens a session, which further requests are in.
func (c *web) login() *reply {
	c.t.Helper()
	r := c.do(http.StatusCreated, http.MethodPost, "/redfish/v1/SessionService/Sessions",
		object{"UserName": DefaultUser, "Password": string(DefaultPassword)})
	c.token = r.Header.Get("X-Auth-Token")
	return r
}

// system returns the path of the System that is the node.
func (c *web) system() string { return "/redfish/v1/Systems/" + c.b.redfish.profile.SystemID }

func (c *web) reset(status int, kind string) *reply {
	c.t.Helper()
	return c.do(status, http.MethodPost, c.system()+"/Actions/ComputerSystem.Reset", object{"ResetType": kind})
}

func (c *web) wantState(want any) {
	c.t.Helper()
	if got := c.get(c.system())["PowerState"]; got != want {
		c.t.Errorf("PowerState %v, want %v", got, want)
	}
}

// at follows keys and numbers into an answer.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			o, _ := v.(object)
			v = o[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

// TestRedfishTree follows every link from the root: each leads somewhere, in each profile,
// with TLS and without.
func TestRedfishTree(t *testing.T) {
	t.Parallel()
	for _, p := range Profiles {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprint(p.Name, " plain ", plain), func(t *testing.T) {
				_, c := oneWeb(t, p.Name, Config{Redfish: &Redfish{Plain: plain}})
				seen := map[string]bool{}
				var follow func(path string)
				var links func(v any)
				links = func(v any) {
					switch v := v.(type) {
					case object:
						for key, value := range v {
							text, ok := value.(string)
							switch {
							case key == "Oem":
							case ok && (key == "@odata.id" || key == "@Redfish.ActionInfo"):
								follow(text)
							default:
								links(value)
							}
						}
					case []any:
						for _, value := range v {
							links(value)
						}
					}
				}
				follow = func(path string) {
					path, _, _ = strings.Cut(path, "#")
					if seen[path] {
						return
					}
					seen[path] = true
					links(c.get(path))
				}
				follow("/redfish/v1/")
				if !seen[c.system()] || len(seen) < 12 {
					t.Errorf("reached only %d resources", len(seen))
				}
				if c.get("/redfish")["v1"] != "/redfish/v1/" || c.get("/redfish/v1")["Systems"] == nil {
					t.Error("the root has another address")
				}
			})
		}
	}
}

func TestRedfishPower(t *testing.T) {
	t.Parallel()
	for _, p := range Profiles {
		t.Run(p.Name, func(t *testing.T) {
			b, c := oneWeb(t, p.Name, Config{})
			c.login()
			var want []string
			does := map[string]struct {
				word  string
				after power.State
			}{
				resetOn: {"power-on", power.On}, resetForceOn: {"power-on", power.On}, resetForceOff: {"power-off", power.Off},
				resetGracefulShutdown: {"soft-off", power.Off}, resetForceRestart: {"hard-reset", power.On},
				resetGracefulRestart: {CommandSoftReset, power.On}, resetPowerCycle: {CommandCycle, power.On},
				resetPushPowerButton: {"soft-off", power.Off}, resetNMI: {"pulse-diag", power.On},
			}
			for _, kind := range p.Resets {
				before := power.On
				if kind == resetOn || kind == resetForceOn {
					before = power.Off
				}
				b.SetPower(before)
				c.reset(http.StatusNoContent, kind)
				want = append(want, does[kind].word)
				if got := b.Power(); got != does[kind].after {
					t.Errorf("%s: power %s, want %s", kind, got, does[kind].after)
				}
				c.wantState(map[power.State]string{power.On: "On", power.Off: "Off"}[does[kind].after])
			}
			wantWords(t, b, want...)
			for i, e := range b.Commands() {
				if e.ResetType != p.Resets[i] || !strings.HasPrefix(e.Source, "session 1@127.0.0.1:") || e.Code != 0 {
					t.Errorf("entry %+v", e)
				}
			}
			b.SetPower(power.Off)
			c.reset(http.StatusConflict, resetForceRestart)
			c.reset(http.StatusBadRequest, "Explode")
			if p.Strict {
				c.reset(http.StatusConflict, resetForceOff)
			} else {
				c.reset(http.StatusNoContent, resetForceOff)
			}
		})
	}
}

// TestBothProtocols: what is done by one is seen by the other.
func TestBothProtocols(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	ipmi := login(t, b)
	ipmi.control(1)
	c.wantState("On")
	c.reset(http.StatusNoContent, resetForceOff)
	if ipmi.on() {
		t.Error("on by IPMI")
	}
	c.do(http.StatusNoContent, http.MethodPatch, c.system(), object{"Boot": object{
		"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideMode": "UEFI",
	}})
	if b.Boot() != power.BootPXE {
		t.Errorf("boot %q", b.Boot())
	}
	ipmi.control(1)
	if b.LastBoot() != power.BootPXE || at(c.get(c.system()), "Boot", "BootSourceOverrideEnabled") != "Disabled" {
		t.Errorf("booted %q, then %v", b.LastBoot(), c.get(c.system())["Boot"])
	}
	wantWords(t, b, "power-on", "power-off", "set-boot pxe", "power-on")
}

func TestRedfishSessions(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "neither", Config{})
	first := c.login()
	path := first.Header.Get("Location")
	if got := c.get(path); got["UserName"] != DefaultUser {
		t.Errorf("session %v", got)
	}
	more := browse(t, b)
	for range 3 {
		more.token = ""
		more.login()
	}
	if b.RedfishSessions() != 4 || b.Logins() != 4 {
		t.Fatalf("%d sessions, %d log-ins", b.RedfishSessions(), b.Logins())
	}
	more.token, more.basic = "", false
	in := object{"UserName": DefaultUser, "Password": string(DefaultPassword)}
	full := more.do(http.StatusServiceUnavailable, http.MethodPost, "/redfish/v1/SessionService/Sessions", in)
	if !strings.Contains(full.text, "RAC0218") {
		t.Errorf("one too many: %s", full.text)
	}
	in["Password"] = "wrong"
	more.do(http.StatusUnauthorized, http.MethodPost, "/redfish/v1/SessionService/Sessions", in)
	more.do(http.StatusUnauthorized, http.MethodGet, more.system(), nil)
	more.do(http.StatusUnauthorized, http.MethodGet, more.system(), nil, "X-Auth-Token: nothing")
	if b.AuthFailures() != 1 {
		t.Errorf("%d failures", b.AuthFailures())
	}
	c.do(http.StatusNoContent, http.MethodDelete, path, nil)
	c.do(http.StatusUnauthorized, http.MethodGet, c.system(), nil)
	if b.RedfishSessions() != 3 {
		t.Errorf("%d sessions after one was closed", b.RedfishSessions())
	}
	b.Set(Fault{Redfish: &RedfishFault{DropSessions: new(true)}})
	if b.RedfishSessions() != 0 {
		t.Error("sessions are left")
	}
	c.token = ""
	c.login()
	b.Set(Fault{Redfish: &RedfishFault{SessionIdle: new(Duration(0))}})
	soon(t, "the session ran out", func() bool { return b.RedfishSessions() == 0 })
}

// TestLostOnTheWay: the connection is reset after a command was taken, and before.
func TestLostOnTheWay(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	path, on := c.system()+"/Actions/ComputerSystem.Reset", object{"ResetType": "On"}
	b.LoseRequests(1)
	if _, err := c.try(http.MethodPost, path, on); !errors.Is(err, syscall.ECONNRESET) || b.Power() != power.Off {
		t.Errorf("lost before: %v, power %s", err, b.Power())
	}
	wantWords(t, b)
	b.LoseAnswers(1)
	if _, err := c.try(http.MethodPost, path, on); !errors.Is(err, syscall.ECONNRESET) || b.Power() != power.On {
		t.Errorf("lost after: %v, power %s", err, b.Power())
	}
	c.reset(http.StatusNoContent, resetForceOff)
	wantWords(t, b, "power-on", "power-off")
}

// TestMuteOverRedfish: what comes meanwhile is not carried out.
func TestMuteOverRedfish(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{})
	c.wantState("Off")
	b.Mute(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, b.RedfishURL()+c.system()+"/Actions/ComputerSystem.Reset",
			strings.NewReader(`{"ResetType":"On"}`))
		_, err := c.client.Do(req) //nolint:bodyclose // there is none: it fails
		ended <- err
	}()
	soon(t, "something was lost", func() bool {
		return b.number(func() int {
			for conn := range b.redfish.conns {
				if conn.lost {
					return 1
				}
			}
			return 0
		}) == 1
	})
	b.Mute(false)
	if err := <-ended; err == nil {
		t.Error("answered")
	}
	c.wantState("Off")
	wantWords(t, b)
}

func TestManagerReset(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "two-systems", Config{BootTime: time.Millisecond})
	b.Set(Fault{Redfish: &RedfishFault{SystemsEmpty: new(Duration(time.Hour))}})
	if got := at(c.get("/redfish/v1/Systems"), "Members@odata.count"); got != 2.0 {
		t.Errorf("%v Systems", got)
	}
	c.login()
	c.do(http.StatusNoContent, http.MethodPost, "/redfish/v1/Managers/BMC_0/Actions/Manager.Reset", object{"ResetType": "GracefulRestart"})
	c.token = ""
	soon(t, "the BMC is back", func() bool {
		r, err := c.try(http.MethodGet, "/redfish/v1/", nil)
		return err == nil && r.StatusCode == 200
	})
	if b.RedfishSessions() != 0 || at(c.get("/redfish/v1/Systems"), "Members@odata.count") != 0.0 {
		t.Error("sessions or Systems are left")
	}
	c.do(http.StatusNotFound, http.MethodGet, c.system(), nil)
	wantWords(t, b, "reset-bmc")
}

// TestSameSeedSameKey: a BMC that was started again has the key that it had.
func TestSameSeedSameKey(t *testing.T) {
	t.Parallel()
	key := func(b *BMC) []byte { return b.Certificate().RawSubjectPublicKeyInfo }
	a, _ := oneWeb(t, "inline", Config{Seed: 7})
	again, _ := oneWeb(t, "inline", Config{Seed: 7})
	other, c := oneWeb(t, "inline", Config{Seed: 8})
	if !slices.Equal(key(a), key(again)) || slices.Equal(key(a), key(other)) {
		t.Error("keys")
	}
	c.wantState("Off")
	old := key(other)
	other.Set(Fault{Redfish: &RedfishFault{NewCertificate: new(true)}})
	if slices.Equal(key(other), old) {
		t.Error("the certificate has not changed")
	}
	c.wantState("Off") // on the connection that there is
	c.client.CloseIdleConnections()
	if _, err := c.try(http.MethodGet, "/redfish/v1/", nil); err == nil {
		t.Error("the old certificate is still shown")
	}
}

func TestRedfishLine(t *testing.T) {
	t.Parallel()
	f := farm(t, Config{Count: 2, SameAddress: true, Redfish: &Redfish{Plain: true, Profiles: Profiles[:2]}})
	if line := f.String(); !strings.Contains(line, ", Redfish at http://127.0.0.1-127.0.0.1, a free port each (inline, actioninfo)") {
		t.Error(line)
	}
}
