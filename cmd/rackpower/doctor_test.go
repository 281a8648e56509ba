package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
)

// put writes a file below a root, with its directories.
func put(t *testing.T, root, path string, mode os.FileMode) {
	t.Helper()
	whole := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(whole), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(whole, []byte("x"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(whole, mode); err != nil {
		t.Fatal(err)
	}
}

// diagnose runs the doctor on an installation below root.
func diagnose(t *testing.T, f *fake, root string, ctl map[string]string, args string) ran {
	t.Helper()
	before := newDoctor
	newDoctor = func(s *session) *doctor {
		d := before(s)
		d.root = root
		d.ctl = func(args ...string) string { return ctl[strings.Join(args, " ")] }
		return d
	}
	t.Cleanup(func() { newDoctor = before })
	return f.run("doctor " + args)
}

// TestDoctorOnAWorkstation: nothing is installed, and what cannot be seen is said.
func TestDoctorOnAWorkstation(t *testing.T) {
	f := newFake(t)
	got := diagnose(t, f, t.TempDir(), nil, "")
	expect(t, "doctor", got, 1, "left-out  units: neither the agent nor central is installed here", "found wrong")
	for _, line := range []string{"wrong     versions: this is ", "left-out  backups: this is not central's host", "ok        central", "do:  dpkg -i rackpower_v1_"} {
		if !strings.Contains(got.out, line) {
			t.Errorf("no %q in\n%s", line, got.out)
		}
	}
	f.info.Version = version
	f.agents = []api.Agent{{Name: "r1", Version: version}}
	expect(t, "all of one version", diagnose(t, f, t.TempDir(), nil, ""), 0, "ok        versions", "")
}

// TestDoctorFindsWhatIsWrong: one installation with everything wrong.
func TestDoctorFindsWhatIsWrong(t *testing.T) {
	f := newFake(t)
	root := t.TempDir()
	for _, name := range []string{"agent", "central"} {
		put(t, root, "usr/lib/systemd/system/rackpower-"+name+".service", 0o644)
		put(t, root, "etc/systemd/system/rackpower-"+name+".service", 0o644)
	}
	put(t, root, "etc/rackpower/agent.yaml", 0o666)
	put(t, root, "var/lib/rackpower/agent/identity.pem", 0o644)
	put(t, root, "var/lib/rackpower/central/central.db", 0o600)
	put(t, root, "run/rackpower/agent.sock", 0o666)
	put(t, root, "var/backups/rackpower/old.db", 0o600)
	old := time.Now().Add(-30 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(root, "var/backups/rackpower/old.db"), old, old); err != nil {
		t.Fatal(err)
	}
	got := diagnose(t, f, root, map[string]string{
		"is-active rackpower-agent.service": "active", "is-enabled rackpower-agent.service": "disabled",
		"is-active rackpower-central.service": "activating", "is-enabled rackpower-central.service": "enabled",
		"show -P ExecMainPID rackpower-central.service": "0",
	}, "")
	expect(t, "doctor", got, 1, "wrong     units", "found wrong")
	for _, line := range []string{
		"rackpower-agent.service of make install hides that of the package",
		"rackpower-agent.service runs, and is not enabled", "do:  systemctl enable rackpower-agent.service",
		"rackpower-central.service is enabled, and is activating", "do:  journalctl -u rackpower-central.service",
		"/run/rackpower/agent.sock has the mode 0666, not 0660", "/run/rackpower/central.sock is missing",
		"/var/lib/rackpower/agent/identity.pem is open to others: mode 0644", "do:  chmod -R go= /var/lib/rackpower/agent",
		"/etc/rackpower/agent.yaml can be written by others", "/etc/rackpower/central.yaml is missing",
		"there is neither /var/lib/rackpower/central/seal.key nor",
		"identity.pem holds no certificate", "the newest backup in /var/lib/rackpower/central/backups and /var/backups/rackpower is of",
	} {
		if !strings.Contains(got.out, line) {
			t.Errorf("no %q in\n%s", line, got.out)
		}
	}
	screen := newTerminal(t, 80, 24)
	f.screen = screen.screen
	diagnose(t, f, root, nil, "--no-color")
	waitFor(t, func() bool { return strings.Contains(screen.written(), "  versions") })
	for line := range strings.Lines(strings.ReplaceAll(screen.written(), "\r", "")) {
		if len(line) > 81 && !strings.HasPrefix(line, "          do:  ") {
			t.Errorf("too long for the terminal: %s", line)
		}
	}
	f.screen = nil
	if got := diagnose(t, f, root, nil, "-o json"); !strings.Contains(got.out, `"state": "wrong"`) || strings.Contains(got.out, "why:") {
		t.Errorf("%s", got.out)
	}
}

// TestDoctorComparesClocks: only where central has another, and a little is nothing.
func TestDoctorComparesClocks(t *testing.T) {
	f := newFake(t)
	now := time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC)
	f.clock.Now = func() time.Time { return now }
	for _, c := range []struct {
		off    time.Duration
		remote bool
		line   string
	}{
		{time.Minute, false, "left-out  clock: central has the clock of this host"},
		{2 * time.Second, true, "ok        clock"},
		{-5 * time.Second, true, "ok        clock"},
		{6 * time.Second, true, "wrong     clock: this host's clock and central's differ by 6s"},
		{-3 * time.Hour, true, "wrong     clock: this host's clock and central's differ by 3h"},
	} {
		f.info.Now = now.Add(c.off)
		before := newDoctor
		newDoctor = func(s *session) *doctor {
			d := before(s)
			d.root, d.remote = t.TempDir(), c.remote
			d.ctl = func(...string) string { return "" }
			return d
		}
		got := f.run("doctor")
		newDoctor = before
		if !strings.Contains(got.out, c.line) {
			t.Errorf("%s off: no %q in\n%s", c.off, c.line, got.out)
		}
		if wrong := strings.Contains(c.line, "wrong"); wrong != strings.Contains(got.out, "do:  timedatectl set-ntp true") {
			t.Errorf("%s off:\n%s", c.off, got.out)
		}
	}
	f.info.Now = time.Time{}
}

// TestVersionOfAllThatAnswer: without central only this program's own.
func TestVersionOfAllThatAnswer(t *testing.T) {
	f := newFake(t)
	got := f.run("version")
	expect(t, "version", got, 0, "agent r1", "")
	if !strings.Contains(got.out, "central") || !strings.Contains(got.out, "go1.") {
		t.Errorf("%s", got.out)
	}
	got = f.runContext(t.Context(), []string{"version", "--central", "unix://" + filepath.Join(t.TempDir(), "none")})
	expect(t, "version without central", got, 0, "rackpower", "central cannot be asked")
}
