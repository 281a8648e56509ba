package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var services = []string{"rackpower-agent.service", "rackpower-central.service"}

func analyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("LEFT OUT: systemd-analyze is not installed (apt-get install systemd)")
	}
	return path
}

// TestUnitsVerify has systemd read the units as they would be installed, but for
// the daemons, which need not be there.
func TestUnitsVerify(t *testing.T) {
	tool := analyze(t)
	dir := t.TempDir()
	units, err := filepath.Glob("rackpower*.*")
	if err != nil || len(units) != 5 {
		t.Fatalf("%v, %v", units, err)
	}
	daemon := regexp.MustCompile(`/usr/local/bin/rackpower(-central)?`)
	args := []string{"verify"}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, unit)
		if err := os.WriteFile(path, daemon.ReplaceAll(text, []byte("/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "rackpower") {
			t.Errorf("%s", strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestUnitsAreHardened holds the services to an exposure of 1.4 at most. A user
// namespace of their own would make it 1.2, and hide who asks on their sockets.
func TestUnitsAreHardened(t *testing.T) {
	tool := analyze(t)
	for _, unit := range services {
		out, err := exec.Command(tool, "security", "--offline=true", "--no-pager", "./"+unit).CombinedOutput()
		found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if found == nil {
			t.Fatalf("%s: %v\n%s", unit, err, out)
		}
		if score, _ := strconv.ParseFloat(string(found[1]), 64); score > 1.4 {
			t.Errorf("%s has an exposure of %v", unit, score)
		}
	}
}

// TestServicesGetTheirSockets keeps a service from opening its control socket by
// itself, with another owner and mode than the socket unit's.
func TestServicesGetTheirSockets(t *testing.T) {
	for _, unit := range services {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		socket := strings.TrimSuffix(unit, ".service") + ".socket"
		for _, line := range []string{
			"Requires=" + socket, "After=" + socket, "Type=notify", "StartLimitIntervalSec=0", "Restart=always",
			"LimitCORE=0", "WantedBy=multi-user.target rackpower.target", "WatchdogSec=30",
		} {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s lacks %s", unit, line)
			}
		}
		text, err = os.ReadFile(socket)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"FileDescriptorName=" + Control, "SocketMode=0660", "SocketUser=rackpower", "SocketGroup=rackpower-admin"} {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s lacks %s", socket, line)
			}
		}
	}
}

func TestInstallKeepsConfiguration(t *testing.T) {
	bin, dest := t.TempDir(), t.TempDir()
	for _, b := range []string{"rackpower", "rackpower-central"} {
		if err := os.WriteFile(filepath.Join(bin, b), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install := func() {
		t.Helper()
		if out, err := exec.Command("./install.sh", dest, "/opt/rp", bin).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	install()
	unit, err := os.ReadFile(filepath.Join(dest, "etc/systemd/system/rackpower-agent.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/opt/rp/bin/rackpower agent") {
		t.Errorf("%v in\n%s", err, unit)
	}
	config := filepath.Join(dest, "etc/rackpower/agent.yaml")
	if err := os.WriteFile(config, []byte("name: mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	install()
	if text, _ := os.ReadFile(config); string(text) != "name: mine\n" {
		t.Errorf("the configuration was replaced: %s", text)
	}
}
