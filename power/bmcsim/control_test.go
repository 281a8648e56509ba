package bmcsim

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// ask asks the control endpoint and decodes its answer into out.
func ask(t *testing.T, client *http.Client, method, url, body string, want int, out any) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != want {
		t.Fatalf("%s %s %s: %s %s", method, url, body, resp.Status, text)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return string(text)
}

func TestControl(t *testing.T) {
	t.Parallel()
	f := farm(t, Config{Count: 3, Control: "127.0.0.1:0"})
	base := "http://" + f.ControlAddr().String()
	web := &http.Client{}
	t.Cleanup(web.CloseIdleConnections)
	b := f.BMC(1)
	login(t, b).control(up)

	var list []View
	text := ask(t, web, "GET", base+"/", "", 200, &list)
	if len(list) != 3 || list[1].Name != "bmc2" || list[1].Power != power.On || list[1].Commands != 1 || list[1].PowerOns != 1 ||
		list[1].Sessions != 1 || list[1].Opened != 1 || list[1].Log != nil || list[0].Power != power.Off {
		t.Errorf("list: %s", text)
	}
	var v View
	ask(t, web, "GET", base+"/bmc/bmc2", "", 200, &v)
	if len(v.Log) != 2 || v.Log[0].Command != "power-on" || v.Log[0].Source == "" || v.Addr != b.Addr().String() {
		t.Errorf("bmc2: %+v", v)
	}
	text = ask(t, web, "POST", base+"/bmc/bmc2", `{"mute":true,"delay":"1m30s","fail_code":195,"fail_next":2,"loss_rx":0.25,"session_limit":4,
		"off_after":"2s","power":"off","password":"rotated"}`, 200, &v)
	if v.Power != power.Off || !*v.Fault.Mute || time.Duration(*v.Fault.Delay) != 90*time.Second || *v.Fault.FailNext != 2 ||
		*v.Fault.LossRx != 0.25 {
		t.Errorf("after the change: %s", text)
	}
	if strings.Contains(text, "rotated") || string(b.Endpoint().Password) != "rotated" {
		t.Error("the password is shown, or not changed")
	}
	ask(t, web, "POST", base+"/", `{"deaf":true,"mute":false,"suites":[3],"privilege":3,"restart":"1m"}`, 200, nil)
	for i := range 3 {
		if v := f.BMC(i).view(false); !*v.Fault.Deaf || *v.Fault.Mute || f.BMC(i).Sessions() != 0 {
			t.Errorf("BMC %d: %+v", i, v)
		}
	}
	for _, body := range []string{
		`{"mut":true}`, `{"loss_tx":2}`, `{"delay":"-1s"}`, `{"power":"sideways"}`, `{"suites":[5]}`,
		`{"session_limit":-1}`, `{"privilege":7}`, `{"fail_next":-1}`, `nonsense`,
	} {
		ask(t, web, "POST", base+"/bmc/bmc1", body, 400, nil)
	}
	ask(t, web, "GET", base+"/bmc/nobody", "", 404, nil)
	ask(t, web, "DELETE", base+"/bmc/bmc1", "", 405, nil)
}

func TestEveryFaultFieldHasItsEffect(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	for _, body := range []string{
		`{"mute":true}`, `{"loss_rx":0.5}`, `{"loss_tx":0.5}`, `{"delay":"1s"}`, `{"duplicate":true}`, `{"stuck":true}`, `{"deaf":true}`,
		`{"on_after":"1s"}`, `{"off_after":"1s"}`, `{"soft_off_takes":"1s"}`, `{"comes_back":"1s"}`, `{"fail_code":200}`, `{"fail_next":1}`,
		`{"lose_answers":1}`, `{"session_limit":1}`, `{"session_idle":"1s"}`, `{"boot_time":"1s"}`,
		`{"ignore_probes":true}`, `{"no_ipmi20":true}`, `{"bad_checksums":true}`, `{"rakp2_status":13}`, `{"rakp4_status":10}`,
	} {
		var f Fault
		if err := json.Unmarshal([]byte(body), &f); err != nil {
			t.Fatal(err)
		}
		before, _ := json.Marshal(b.view(false).Fault)
		b.Set(f)
		after, _ := json.Marshal(b.view(false).Fault)
		if want := strings.Trim(body, "{}"); string(before) == string(after) || !strings.Contains(string(after), want) {
			t.Errorf("%s: shown as %s", body, after)
		}
	}
}

func TestControlOnASocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sim.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()

	f := farm(t, Config{Count: 1, Control: path})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	t.Cleanup(web.CloseIdleConnections)
	ask(t, web, "POST", "http://sim/bmc/bmc1", `{"power":"on"}`, 200, nil)
	if f.BMC(0).Power() != power.On {
		t.Error("no effect")
	}
}
