package bmcsim

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rackpower/power"
)

// quiet is the environment without what has HTTP clients trust or ask somebody else.
func quiet(cmd *exec.Cmd, more ...string) {
	for _, v := range cmd.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasSuffix(name, "_CA_BUNDLE") && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			more = append(more, v)
		}
	}
	cmd.Env = more
}

// certificateFile writes the certificate of b.
func certificateFile(t *testing.T, b *BMC) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bmc.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// redfishtool runs redfishtool against b.
func redfishtool(t *testing.T, b *BMC, auth string, args ...string) (string, error) {
	t.Helper()
	path, conf := tool(t, "redfishtool", "redfishtool"), filepath.Join(t.TempDir(), "account")
	ep := b.RedfishEndpoint()
	if err := os.WriteFile(conf, fmt.Appendf(nil, `{"user": %q, "password": %q}`, ep.User, string(ep.Password)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{
		"-c", conf, "-r", b.redfish.addr.String(), "-S", "Always", "-A", auth, "-T", "30",
	}, args...)...)
	quiet(cmd)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRedfishtool(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"both", "two-systems"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := oneWeb(t, name, Config{})
			p := b.redfish.profile
			do := func(auth, want string, args ...string) {
				t.Helper()
				if out, err := redfishtool(t, b, auth, args...); err != nil || !strings.Contains(out, want) {
					t.Fatalf("redfishtool %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
				}
			}
			auth := []string{"Session", "Basic"}[i]
			system := []string{"Systems", "-I", p.SystemID}
			want := []string{"power-on", "set-boot pxe", "hard-reset", "soft-off"}
			do(auth, `"PowerState": "Off"`, append(system, "get", "-P", "PowerState")...)
			do(auth, "", append(system, "reset", "On")...)
			do(auth, `"PowerState": "On"`, append(system, "get", "-P", "PowerState")...)
			do(auth, "Pxe", append(system, "setBootOverride", "Once", "Pxe")...)
			do(auth, "", append(system, "reset", "ForceRestart")...)
			do(auth, "", append(system, "reset", "GracefulShutdown")...)
			if p.ChassisID != "Chassis_0" {
				do(auth, `"LimitInWatts"`, "Chassis", "-I", p.ChassisID, "Power")
				do(auth, "300", "Chassis", "-I", p.ChassisID, "setPowerLimit", "300")
				want = append(want, "set-limit 300W")
			}
			b.BootTime(0)
			do(auth, "", "Managers", "-I", p.ManagerID, "reset", "GracefulRestart")
			wantWords(t, b, append(want, "reset-bmc")...)
			if b.LastBoot() != power.BootPXE || auth == "Session" && b.RedfishSessions() > 1 {
				t.Errorf("booted %q, %d sessions", b.LastBoot(), b.RedfishSessions())
			}
		})
	}
}

// sushyScript does with python3-sushy what there is to do to a node.
const sushyScript = `
import sys, sushy
url, cert, system, password = sys.argv[1:4] + [sys.stdin.readline().strip()]
for auth in (sushy.auth.SessionAuth('admin', password), sushy.auth.BasicAuth('admin', password)):
    bmc = sushy.Sushy(url, auth=auth, verify=cert)
    node = bmc.get_system('/redfish/v1/Systems/' + system)
    def reset(kind, state):
        node.reset_system(kind)
        node.refresh(force=True)
        assert node.power_state == state, (kind, node.power_state)
    assert node.power_state == sushy.POWER_STATE_OFF, node.power_state
    print('resets', ' '.join(sorted(v.value for v in node.get_allowed_reset_system_values())))
    reset(sushy.RESET_ON, sushy.POWER_STATE_ON)
    node.set_system_boot_options(target=sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE,
                                 mode=sushy.BOOT_SOURCE_MODE_UEFI)
    reset(sushy.RESET_FORCE_RESTART, sushy.POWER_STATE_ON)
    reset(sushy.RESET_FORCE_OFF, sushy.POWER_STATE_OFF)
    manager = bmc.get_manager_collection().get_members()[0]
    print('manager', manager.firmware_version)
    auth.close()
`

func TestSushy(t *testing.T) {
	t.Parallel()
	python := tool(t, "/usr/bin/python3", "python3")
	if exec.CommandContext(t.Context(), python, "-c", "import sushy").Run() != nil {
		t.Skip("LEFT OUT: sushy is not installed (apt-get install python3-sushy)")
	}
	for _, name := range []string{"inline", "actioninfo", "both", "neither", "settings", "two-systems"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := oneWeb(t, name, Config{})
			cmd := exec.CommandContext(t.Context(), python, "-W", "ignore", "-c", sushyScript, b.RedfishURL(), certificateFile(t, b),
				b.redfish.profile.SystemID)
			quiet(cmd)
			cmd.Stdin = strings.NewReader(string(b.RedfishEndpoint().Password) + "\n")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "manager "+b.redfish.profile.Firmware) {
				t.Fatalf("%v\n%s", err, out)
			}
			if p := b.redfish.profile; p.Inline {
				resets := slices.Sorted(slices.Values(p.Resets))
				if !strings.Contains(string(out), "resets "+strings.Join(resets, " ")+"\n") {
					t.Errorf("resets %s\n%s", resets, out)
				}
			}
			once := []string{"power-on", "set-boot pxe", "hard-reset", "power-off"}
			wantWords(t, b, append(once, once...)...)
			if b.LastBoot() != power.BootPXE || b.Logins() != 1 || b.RedfishSessions() != 0 || b.AuthFailures() != 0 {
				t.Errorf("booted %q, %d log-ins, %d sessions, %d failures", b.LastBoot(), b.Logins(), b.RedfishSessions(), b.AuthFailures())
			}
		})
	}
}

// fenceRedfish runs fence_redfish against b.
func fenceRedfish(t *testing.T, b *BMC, action string, more ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "fence_redfish", "fence-agents"))
	ep := b.RedfishEndpoint()
	quiet(cmd)
	cmd.Stdin = strings.NewReader(strings.Join(append([]string{
		"ip=" + ep.Host, fmt.Sprint("ipport=", ep.Port), "username=" + ep.User, "password=" + string(ep.Password), "ssl_insecure=1",
		"power_timeout=30", "action=" + action,
	}, more...), "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestFenceRedfish(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"inline", "two-systems"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := oneWeb(t, name, Config{})
			where := "systems_uri=/redfish/v1/Systems/" + b.redfish.profile.SystemID
			if out, code := fenceRedfish(t, b, "monitor", where); code != 0 {
				t.Errorf("monitor: %d\n%s", code, out)
			}
			for _, step := range []struct {
				action string
				code   int
			}{{"status", 2}, {"on", 0}, {"status", 0}, {"reboot", 0}, {"off", 0}, {"off", 0}, {"status", 2}} {
				if out, code := fenceRedfish(t, b, step.action, where); code != step.code {
					t.Errorf("%s: %d, want %d\n%s", step.action, code, step.code, out)
				}
			}
			// Its reboot is off and on; it sends no off to a node that is off.
			wantWords(t, b, "power-on", "power-off", "power-on", "power-off")
			if _, code := fenceRedfish(t, b, "status", where, "password=wrong"); code == 0 || code == 2 || b.AuthFailures() == 0 {
				t.Errorf("a wrong password: %d, %d failures", code, b.AuthFailures())
			}
		})
	}
}

// TestRedfishpower needs a powerman that was built with redfishpower; Debian's is not.
func TestRedfishpower(t *testing.T) {
	t.Parallel()
	path := tool(t, "redfishpower", "powerman, built with --with-redfishpower (Debian's is not)")
	b, _ := oneWeb(t, "inline", Config{})
	ep := b.RedfishEndpoint()
	system := "redfish/v1/Systems/" + b.redfish.profile.SystemID
	cmd := exec.CommandContext(t.Context(), path, "-h", fmt.Sprintf("%s:%d", ep.Host, ep.Port))
	quiet(cmd)
	cmd.Stdin = strings.NewReader(strings.Join([]string{
		fmt.Sprintf("auth %s:%s", ep.User, string(ep.Password)), "setheader Content-Type:application/json", "setstatpath " + system,
		"setonpath " + system + `/Actions/ComputerSystem.Reset {"ResetType":"On"}`,
		"setoffpath " + system + `/Actions/ComputerSystem.Reset {"ResetType":"ForceOff"}`,
		"stat", "on", "stat", "off", "stat", "quit",
	}, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var said []string
	for line := range strings.Lines(string(out)) {
		if _, word, ok := strings.Cut(strings.TrimSpace(line), fmt.Sprintf("%d: ", ep.Port)); ok {
			said = append(said, word)
		}
	}
	if want := []string{"off", "ok", "on", "ok", "off"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q\n%s", said, want, out)
	}
	wantWords(t, b, "power-on", "power-off")
}
