package bmcsim

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rackpower/power"
)

// tool returns the path of a program, or skips the test.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Skipf("LEFT OUT: %s is not installed (apt-get install %s)", name, pkg)
	}
	return path
}

// ipmitool runs ipmitool against b with a cipher suite.
func ipmitool(t *testing.T, b *BMC, suite int, args ...string) (string, error) {
	t.Helper()
	ep := b.Endpoint()
	cmd := exec.CommandContext(t.Context(), tool(t, "ipmitool", "ipmitool"), append([]string{
		"-I", "lanplus", "-H", ep.Host, "-p", strconv.Itoa(ep.Port), "-U", ep.User, "-E",
		"-C", strconv.Itoa(suite), "-N", "1", "-R", "2",
	}, args...)...)
	cmd.Env = append(cmd.Environ(), "IPMI_PASSWORD="+string(ep.Password))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestIpmitool(t *testing.T) {
	t.Parallel()
	for _, suite := range []int{3, 17} {
		t.Run(strconv.Itoa(suite), func(t *testing.T) {
			b := one(t, Config{})
			do := func(want string, args ...string) {
				t.Helper()
				out, err := ipmitool(t, b, suite, args...)
				if err != nil || !strings.Contains(out, want) {
					t.Fatalf("ipmitool %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
				}
			}
			do("System Power         : off", "chassis", "status")
			do("Chassis Power Control: Up/On", "chassis", "power", "on")
			do("Chassis Power is on", "chassis", "power", "status")
			do("Set Boot Device to pxe", "chassis", "bootdev", "pxe")
			do("Force PXE", "chassis", "bootparam", "get", "5")
			do("Reset", "chassis", "power", "reset")
			do("Cycle", "chassis", "power", "cycle")
			do("Diag", "chassis", "power", "diag")
			do("Soft", "chassis", "power", "soft")
			do("Chassis Power is off", "chassis", "power", "status")
			do("IPMI Version              : 2.0", "mc", "info")
			do("System GUID", "mc", "guid")
			do("hmac_sha256", "channel", "getciphers", "ipmi", "1")
			do("session handle", "session", "info", "active")
			b.BootTime(0)
			do("Sent cold reset command", "mc", "reset", "cold")

			// ipmitool awaits no answer to that one.
			soon(t, "the cold reset arrived", func() bool { return slices.Contains(words(b), "reset-bmc") })
			wantWords(t, b, "power-on", "set-boot pxe", "hard-reset", "power-cycle", "pulse-diag", "soft-off", "reset-bmc")
			if b.LastBoot() != power.BootNone || b.Cuts() != 2 || b.PowerOns() != 2 || b.Resets() != 1 || b.Diags() != 1 {
				t.Errorf("cuts %d, power-ons %d, resets %d, diags %d", b.Cuts(), b.PowerOns(), b.Resets(), b.Diags())
			}
		})
	}
}

// ipmipower runs ipmipower against b with a cipher suite.
func ipmipower(t *testing.T, b *BMC, suite int, args ...string) (string, error) {
	t.Helper()
	path := tool(t, "ipmipower", "freeipmi-tools")
	ep := b.Endpoint()
	conf := filepath.Join(t.TempDir(), "freeipmi.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "username %s\npassword %s\n", ep.User, string(ep.Password)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{
		"--config-file", conf, "-D", "LAN_2_0", "-h", net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port)),
		"-I", strconv.Itoa(suite), "--session-timeout", "5000", "--retransmission-timeout", "500",
	}, args...)...).CombinedOutput()
	return string(out), err
}

func TestIpmipower(t *testing.T) {
	t.Parallel()
	for _, suite := range []int{3, 17} {
		for _, quirks := range [][]string{nil, {"-W", "opensesspriv"}} {
			t.Run(fmt.Sprint(suite, quirks), func(t *testing.T) {
				b := one(t, Config{})
				do := func(want string, args ...string) {
					t.Helper()
					out, err := ipmipower(t, b, suite, append(args, quirks...)...)
					if err != nil || !strings.Contains(out, want) {
						t.Fatalf("ipmipower %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
					}
				}
				do(": off", "--stat")
				do(": ok", "--on", "--wait-until-on")
				soon(t, "all sessions closed", func() bool { return b.Sessions() == 0 })
				do(": ok", "--reset") // ipmipower leaves this session open
				do(": ok", "--pulse")
				do(": ok", "--cycle")
				do(": ok", "--soft")
				do(": ok", "--on")
				do(": ok", "--off", "--wait-until-off")
				do(": off", "--stat")
				wantWords(t, b, "power-on", "hard-reset", "pulse-diag", "power-cycle", "soft-off", "power-on", "power-off")
			})
		}
	}
}

func TestToolsAreRefused(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	wrong := &BMC{addr: b.addr, user: "admin", password: "mistaken"}
	stranger := &BMC{addr: b.addr, user: "nobody", password: DefaultPassword}
	for _, suite := range []int{3, 17} {
		for who, want := range map[*BMC]string{wrong: "password invalid", stranger: "username invalid"} {
			if out, err := ipmipower(t, who, suite, "--stat"); !strings.Contains(out, want) {
				t.Errorf("ipmipower -I %d: %v %s, want %q", suite, err, out, want)
			}
		}
		if out, err := ipmitool(t, wrong, suite, "-v", "chassis", "status"); err == nil || !strings.Contains(out, "RAKP 2 HMAC is invalid") {
			t.Errorf("ipmitool with a wrong password: %v %s", err, out)
		}
		if out, err := ipmitool(t, stranger, suite, "-v", "chassis", "status"); err == nil || !strings.Contains(out, "unauthorized name") {
			t.Errorf("ipmitool with a wrong user: %v %s", err, out)
		}
	}
	// Both tools leave without a word when the password is wrong; only the wrong
	// user is certain to be counted.
	if b.AuthFailures() < 4 {
		t.Errorf("%d failures counted", b.AuthFailures())
	}
}

// TestToolsWithTwoKeys: sessions need K_g beside the password.
func TestToolsWithTwoKeys(t *testing.T) {
	t.Parallel()
	const key = "0x0102030405060708090a0b0c0d0e0f1011121314"
	b := one(t, Config{KG: key})
	for _, suite := range []int{3, 17} {
		if out, err := ipmitool(t, b, suite, "-y", key[2:], "chassis", "power", "status"); err != nil ||
			!strings.Contains(out, "Chassis Power is off") {
			t.Errorf("ipmitool: %v\n%s", err, out)
		}
		if out, err := ipmitool(t, b, suite, "chassis", "power", "status"); err == nil {
			t.Errorf("ipmitool without K_g: %s", out)
		}
		if out, err := ipmipower(t, b, suite, "-k", key, "--stat"); err != nil || !strings.Contains(out, ": off") {
			t.Errorf("ipmipower: %v\n%s", err, out)
		}
		if out, _ := ipmipower(t, b, suite, "--stat"); !strings.Contains(out, "BMC key invalid") && !strings.Contains(out, "k_g invalid") {
			t.Errorf("ipmipower without K_g: %s", out)
		}
	}
}

// TestIpmitoolByABridge: nodes of a chassis behind one BMC.
func TestIpmitoolByABridge(t *testing.T) {
	t.Parallel()
	f := farm(t, Config{Count: 2})
	chassis, node := f.BMC(0), f.BMC(1)
	chassis.Behind(0x30, node)
	for _, embed := range []bool{false, true} {
		chassis.EmbedAnswers(embed)
		for _, args := range [][]string{
			{"on", "Up/On"},
			{"status", "Chassis Power is on"},
			{"off", "Down/Off"},
			{"status", "Chassis Power is off"},
		} {
			out, err := ipmitool(t, chassis, 3, "-t", "0x30", "chassis", "power", args[0])
			if err != nil || !strings.Contains(out, args[1]) {
				t.Errorf("embedded %v, ipmitool -t 0x30 chassis power %s: %v\n%s", embed, args[0], err, out)
			}
		}
	}
	wantWords(t, node, "power-on", "power-off", "power-on", "power-off")
	wantWords(t, chassis)
}

// TestIpmitoolPowerLimit: watts and their limit, the same by IPMI and Redfish.
func TestIpmitoolPowerLimit(t *testing.T) {
	t.Parallel()
	b, c := oneWeb(t, "inline", Config{Initial: power.On})
	do := func(want string, args ...string) {
		t.Helper()
		out, err := ipmitool(t, b, 17, append([]string{"dcmi", "power"}, args...)...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("ipmitool dcmi power %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
		}
	}
	limit := func() any {
		return at(c.get("/redfish/v1/Chassis/System.1/Power"), "PowerControl", 0, "PowerLimit", "LimitInWatts")
	}
	do("Instantaneous power reading", "reading")
	do("", "set_limit", "limit", "150")
	if limit() != nil {
		t.Error("a limit that was not activated")
	}
	do("", "activate")
	do("150 Watts", "get_limit")
	do("150 Watts", "reading")
	if limit() != 150.0 {
		t.Errorf("limit %v", limit())
	}
	do("", "deactivate")
	if limit() != nil {
		t.Errorf("limit %v", limit())
	}
	wantWords(t, b, "set-limit 150W", "activate-limit", "set-limit none")
}

// TestPowerLimitIsRefused: what is out of range, nothing to activate, and who may only read.
func TestPowerLimitIsRefused(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	c := login(t, b)
	limit := func(watts, exception byte) []byte {
		return []byte{groupDCMI, 0, 0, 0, exception, watts, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	}
	want := func(code, cmd byte, data ...byte) {
		t.Helper()
		if got, _ := c.ask(netFnGroup, cmd, data...); got != code {
			t.Errorf("command %#02x % x: code %#02x, want %#02x", cmd, data, got, code)
		}
	}
	want(codeNoLimit, 3, groupDCMI, 0, 0)
	want(codeNoLimit, 5, groupDCMI, 1, 0, 0)
	want(codeLimitRange, 4, limit(limitMin-1, 0)...)
	want(codeRange, 4, limit(200, 7)...)
	want(codeLength, 4, groupDCMI)
	want(codeLength, 2, 1, 1, 0, 0)
	want(codeRange, 2, groupDCMI, 9, 0, 0)
	want(codeOK, 4, limit(200, 1)...)
	if code, _ := c.ask(netFnApp, 0x3b, levelUser); code != codeOK {
		t.Fatalf("cannot become user: %#02x", code)
	}
	want(codePrivilege, 4, limit(220, 1)...)
	want(codePrivilege, 5, groupDCMI, 1, 0, 0)
	want(codeOK, 2, groupDCMI, 1, 0, 0)
	wantWords(t, b, "set-limit 200W")
}
