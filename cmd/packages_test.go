package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// packageFiles is what each package holds, but for its documents.
var packageFiles = map[string][]string{
	"rackpower": {
		"/etc/rackpower/agent.yaml", "/usr/bin/rackpower",
		"/usr/lib/systemd/system/rackpower-agent.service", "/usr/lib/systemd/system/rackpower-agent.socket",
		"/usr/lib/systemd/system/rackpower.target", "/usr/lib/sysusers.d/rackpower.conf", "/usr/lib/tmpfiles.d/rackpower.conf",
		"/usr/sbin/fence_rackpower",
		"/usr/share/bash-completion/completions/rackpower", "/usr/share/fish/vendor_completions.d/rackpower.fish",
		"/usr/share/zsh/vendor-completions/_rackpower",
	},
	"rackpower-central": {
		"/etc/rackpower/central.yaml", "/usr/bin/rackpower-central",
		"/usr/lib/systemd/system/rackpower-central.service", "/usr/lib/systemd/system/rackpower-central.socket",
		"/usr/share/bash-completion/completions/rackpower-central", "/usr/share/fish/vendor_completions.d/rackpower-central.fish",
		"/usr/share/zsh/vendor-completions/_rackpower-central",
	},
}

var documents = regexp.MustCompile(`^/usr/share/(doc|man|lintian)/`)

// TestPackagesHoldTheirFiles stages the packages: their files are as listed, no file is in two of
// them, and the scripts are complete.
func TestPackagesHoldTheirFiles(t *testing.T) {
	cli, _ := build(t)
	stage := t.TempDir()
	cmd := exec.Command("../packaging/build.sh", "1.0.0", filepath.Dir(cli), t.TempDir())
	cmd.Env = append(os.Environ(), "STAGE="+stage)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range packageFiles {
		root := filepath.Join(stage, name)
		var found []string
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			rel := strings.TrimPrefix(path, root)
			script := strings.Count(rel, "/") == 1
			file := d != nil && d.Type()&^fs.ModeSymlink == 0
			if err == nil && file && !script && !documents.MatchString(rel) {
				found = append(found, rel)
			}
			return err
		})
		if err != nil || !slices.Equal(found, want) {
			t.Errorf("%s: %v, files\n%s", name, err, strings.Join(found, "\n"))
		}
		for _, script := range []string{"postinst", "prerm", "postrm"} {
			text, err := os.ReadFile(filepath.Join(root, script))
			if err != nil || bytes.Contains(text, []byte("@")) {
				t.Errorf("%s %s: %v\n%s", name, script, err, text)
			}
			if out, err := exec.Command("sh", "-n", filepath.Join(root, script)).CombinedOutput(); err != nil {
				t.Errorf("%s %s: %v %s", name, script, err, out)
			}
		}
	}
}

// wantPackages skips tests that make packages, which take minutes: make packages-test has them.
func wantPackages(t *testing.T) {
	t.Helper()
	if os.Getenv("PACKAGES_TEST") == "" {
		t.Skip("LEFT OUT: make packages-test runs it")
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("LEFT OUT: packages: dpkg-deb is not installed (apt-get install dpkg)")
	}
}

// makePackages builds both programs as this version, and packages of them, from a source tree.
func makePackages(t *testing.T, source, version, out string, env ...string) {
	t.Helper()
	cmd := exec.Command("make", "-s", "-C", source, "deb", "rpm", "VERSION="+version, "BIN="+filepath.Join(out, "bin"), "DIST="+out)
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packages of %s: %v\n%s", version, err, text)
	}
}

// TestPackagesAreReproducible builds this commit twice: as it is here, and from a copy elsewhere,
// with nothing compiled before, another mask and another time zone.
func TestPackagesAreReproducible(t *testing.T) {
	wantPackages(t)
	dir := t.TempDir()
	var sums [2]string
	for i := range sums {
		source, out := filepath.Join(dir, fmt.Sprint("src", i)), filepath.Join(dir, fmt.Sprint("out", i))
		if text, err := exec.Command("git", "clone", "-q", "--no-local", "..", source).CombinedOutput(); err != nil {
			t.Skipf("LEFT OUT: reproducible packages: not in a repository: %s", text)
		}
		env := []string{"TZ=UTC"}
		if i == 1 {
			env = []string{"TZ=Asia/Tokyo", "GOCACHE=" + filepath.Join(dir, "cache"), "GOFLAGS=-p=2"}
		}
		makePackages(t, source, "1.0.0", out, env...)
		text, err := exec.Command("sh", "-c", "cd "+out+" && sha256sum *.deb *.rpm *.json").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		sums[i] = string(text)
	}
	if sums[0] != sums[1] {
		t.Errorf("the same commit made\n%sand\n%s", sums[0], sums[1])
	}
}

const (
	agentUnit   = "rackpower-agent.service"
	centralUnit = "rackpower-central.service"
)

// TestPackagesOnARealSystemd installs the packages, upgrades them while an operation is under
// way, removes, installs again and purges them, as a machine's administrator does; then the same
// with those of rpm.
func TestPackagesOnARealSystemd(t *testing.T) {
	wantPackages(t)
	m := newSystemdHost(t)
	for _, version := range []string{"1.0.0", "1.0.1"} {
		makePackages(t, "..", version, filepath.Join(m.dir, "src", version))
	}
	lintian(t, filepath.Join(m.dir, "src", "1.0.1"))
	m.run("rm", "-f", "/usr/sbin/policy-rc.d") // which keeps containers from starting anything
	m.install("1.0.0")
	m.isAtRest()
	m.run("sh", "-c", "echo '# mine' >> /etc/rackpower/agent.yaml")
	m.run("systemctl", "enable", "--now", centralUnit, agentUnit)
	m.alive()
	m.doctorMends()
	m.upgrades("1.0.1", m.install)
	m.run("grep", "-q", "# mine", "/etc/rackpower/agent.yaml")

	m.run("systemctl", "stop", "rackpower-central.socket", centralUnit)
	m.install("1.0.1")
	if out, _ := m.try("systemctl", "is-active", centralUnit); strings.TrimSpace(out) != "inactive" {
		t.Errorf("central was stopped, and the upgrade started it: %s", out)
	}

	m.run("dpkg", "-r", "rackpower-central", "rackpower")
	m.nothingRuns()
	m.run("test", "-s", "/var/lib/rackpower/central/seal.key")
	m.run("grep", "-q", "# mine", "/etc/rackpower/agent.yaml")
	m.install("1.0.1")
	m.run("systemctl", "start", centralUnit, agentUnit)
	m.alive()
	if out := m.run("rackpower", "ops", "n1"); !strings.Contains(out, "succeeded") {
		t.Errorf("after a removal and another installation: %s", out)
	}

	m.run("dpkg", "-P", "rackpower-central", "rackpower")
	m.nothingStays()
	t.Run("rpm", func(t *testing.T) { m.rpms(t) })
}

// isAtRest: nothing is enabled or runs after an installation.
func (m *systemdHost) isAtRest() {
	m.t.Helper()
	for _, unit := range []string{agentUnit, centralUnit, "rackpower-agent.socket", "rackpower-central.socket", "rackpower.target"} {
		if out, _ := m.try("systemctl", "is-enabled", unit); strings.TrimSpace(out) != "disabled" {
			m.t.Errorf("%s is %s after the installation", unit, out)
		}
		if out, _ := m.try("systemctl", "is-active", unit); strings.TrimSpace(out) != "inactive" {
			m.t.Errorf("%s is %s after the installation", unit, out)
		}
	}
}

// nothingRuns: a removal has ended what ran.
func (m *systemdHost) nothingRuns() {
	m.t.Helper()
	if out, exit := m.try("pgrep", "-a", "-u", "rackpower"); exit == 0 {
		m.t.Errorf("runs after the removal: %s", out)
	}
}

// nothingStays: a purge has left no file.
func (m *systemdHost) nothingStays() {
	m.t.Helper()
	out := m.run("find", "/etc", "/usr", "/var", "/run", "-xdev", "-path", "*rackpower*", "-not", "-path", "/var/log/*", "-not", "-path",
		"/var/backups/*")
	if strings.Contains(out, "rackpower") {
		m.t.Errorf("after the purge:\n%s", out)
	}
}

// upgrades installs a version while a node, that is slow to come up, turns on: the operation goes
// on in the new version, and the BMC is told once.
func (m *systemdHost) upgrades(version string, install func(string)) {
	m.t.Helper()
	m.run("sh", "-c", "rm -f /root/sim.log; umask 077; echo simulated > /root/pw")
	m.run("systemd-run", "-q", "--unit=sim", "rackpower", "sim", "--count=1", "--listen=127.0.20.1", "--port=6230",
		"--on-after=20s", "--log=/root/sim.log")
	m.run("rackpower", "node", "add", "n1", "--rack", "r1", "--bmc", "ipmi://admin@127.0.20.1:6230", "--password-file", "/root/pw")
	m.run("rackpower", "on", "n1", "--wait", "accepted")
	m.until(30*time.Second, "the BMC has the command", func() bool { return m.commanded("power-on") == 1 })
	before := m.main(agentUnit)
	install(version)
	if now := m.main(agentUnit); now == before || now == "0" {
		m.t.Errorf("the agent was not started again by the upgrade")
	}
	m.alive()
	m.until(60*time.Second, "the power-on has ended", func() bool { return strings.Contains(m.run("rackpower", "ops", "n1"), "succeeded") })
	if n := m.commanded("power-on"); n != 1 {
		m.t.Errorf("the BMC was told %d times to turn on", n)
	}
	for _, program := range []string{"rackpower", "rackpower-central"} {
		if out := m.run(program, "--version"); !strings.Contains(out, version) {
			m.t.Errorf("after the upgrade: %s", out)
		}
	}
	if out := m.run("rackpower", "agents", "-o", "json"); !strings.Contains(out, `"`+version+`"`) {
		m.t.Errorf("after the upgrade the agent that runs is\n%s", out)
	}
	m.run("systemctl", "stop", "sim.service")
}

// doctor is what it finds wrong: for each check what, and the command that mends it.
func (m *systemdHost) doctor() map[string][2]string {
	m.t.Helper()
	out, exit := m.try("rackpower", "doctor", "-o", "json")
	var found []struct{ Check, State, What, Run string }
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&found); err != nil || exit > 1 || len(found) < 11 {
		m.t.Fatalf("rackpower doctor: status %d, %v\n%s", exit, err, out)
	}
	wrong := map[string][2]string{}
	for _, f := range found {
		if f.State == "wrong" && f.Check != "disk" { // which is this machine's
			wrong[f.Check] = [2]string{wrong[f.Check][0] + f.What + "\n", f.Run}
		}
	}
	if (exit == 1) != strings.Contains(out, `"wrong"`) {
		m.t.Errorf("rackpower doctor: status %d\n%s", exit, out)
	}
	return wrong
}

// doctorMends breaks the installation in several ways: the doctor finds each, and nothing else,
// and the command that it names mends it.
func (m *systemdHost) doctorMends() {
	m.t.Helper()
	const central, agent = "/var/lib/rackpower/central/", "/var/lib/rackpower/agent"
	m.until(60*time.Second, "central has made its first backup, and nothing is wrong", func() bool { return len(m.doctor()) == 0 })
	for _, c := range []struct{ breaks, check, what string }{
		{"rm -r " + central + "backups", "backups", "there is no backup (*.db) in " + central + "backups and /var/backups/rackpower"},
		{ // the next may be made in the same second
			"cd /var/backups/rackpower && mv *.db old.db && touch -d '9 days ago' old.db", "backups", "/var/backups/rackpower is of",
		},
		{"chmod 644 " + central + "seal.key", "files", central + "seal.key is open to others: mode 0644"},
		{"chown root: " + central + "seal.key", "files", central + "seal.key belongs to root"},
		{"chmod 755 " + agent, "files", agent + " is open to others: mode 0755"},
		{"mv " + central + "seal.key /root/COPY", "keys", "there is neither " + central + "seal.key nor"},
		{"chmod o+w /etc/rackpower/agent.yaml", "configuration", "agent.yaml can be written by others"},
		{"chmod 666 /run/rackpower/central.sock", "sockets", "central.sock has the mode 0666, not 0660"},
		{"rm /run/rackpower/agent.sock", "sockets", "agent.sock is missing"},
		{"systemctl disable -q " + centralUnit, "units", centralUnit + " runs, and is not enabled"},
		{"systemctl stop " + agentUnit, "units", agentUnit + " is enabled, and is inactive"},
		{"systemctl stop rackpower-central.socket " + centralUnit, "units", centralUnit + " is enabled, and is inactive"},
	} {
		m.run("sh", "-c", c.breaks)
		wrong := m.doctor()
		found, ok := wrong[c.check]
		if !ok || !strings.Contains(found[0], c.what) {
			m.t.Errorf("after %s the doctor finds %q", c.breaks, wrong)
			continue
		}
		m.run("sh", "-c", "cd /root && "+found[1])
		m.alive()
		if wrong := m.doctor(); len(wrong) > 0 {
			m.t.Errorf("after %s and %s the doctor finds %q", c.breaks, found[1], wrong)
		}
	}
}

// rpms installs, upgrades and removes the packages of rpm on the same machine, which then has
// nothing of Debian's for units. What they depend on is Fedora's, and not looked at.
func (m *systemdHost) rpms(t *testing.T) {
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skip("LEFT OUT: rpm is not installed (apt-get install rpm)")
	}
	was := m.t
	m.t = t
	defer func() { m.t = was }()
	m.run("sh", "-c", "rm -f /usr/bin/deb-systemd-helper /usr/bin/deb-systemd-invoke")
	rpm := func(args ...string) string {
		return m.run(append([]string{"rpm", "--dbpath", "/var/lib/rpm-test"}, args...)...)
	}
	upgrade := func(version string) {
		m.run("sh", "-c", "rpm --dbpath /var/lib/rpm-test -U --nodeps /src/"+version+"/*.rpm")
	}
	upgrade("1.0.0")
	m.isAtRest()
	for name, files := range packageFiles {
		all := rpm("-q", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]", name)
		for _, file := range files {
			mode := "-rw-r--r--"
			if strings.HasPrefix(file, "/usr/bin/") {
				mode = "-rwxr-xr-x"
			}
			if line := mode + " root:root " + file; !strings.Contains(all+"\n", line+"\n") {
				t.Errorf("%s lacks %q:\n%s", name, line, all)
			}
		}
		if out := rpm("-qc", name); !strings.HasPrefix(out, "/etc/rackpower/") || strings.Contains(out, "\n") {
			t.Errorf("configuration of %s: %s", name, out)
		}
		rpm("-V", "--nodeps", name)
	}
	m.run("systemctl", "enable", "--now", centralUnit, agentUnit)
	m.alive()
	m.run("sh", "-c", "echo '# mine' >> /etc/rackpower/agent.yaml")
	m.upgrades("1.0.1", upgrade)
	m.run("grep", "-q", "# mine", "/etc/rackpower/agent.yaml")
	rpm("-e", "rackpower-central", "rackpower")
	m.nothingRuns()
	if out, _ := m.try("systemctl", "is-enabled", agentUnit); strings.TrimSpace(out) == "enabled" {
		t.Errorf("%s after the removal", out)
	}
	m.run("sh", "-c", "test -s /var/lib/rackpower/central/seal.key && grep -q '# mine' /etc/rackpower/agent.yaml.rpmsave")
	if out := m.run("find", "/usr", "-xdev", "-path", "*rackpower*"); out != "" {
		t.Errorf("after the removal:\n%s", out)
	}
}

// commanded is how often the simulated BMC was told to do something.
func (m *systemdHost) commanded(command string) int {
	out, _ := m.try("cat", "/root/sim.log")
	return strings.Count(out, `"command":"`+command+`"`)
}

// install installs both packages of a version.
func (m *systemdHost) install(version string) {
	m.t.Helper()
	m.run("sh", "-c", "dpkg -i /src/"+version+"/*.deb")
}

// lintian holds packages against Debian's rules.
func lintian(t *testing.T, dir string) {
	t.Helper()
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Error("LEFT OUT: lintian is not installed (apt-get install lintian)")
		return
	}
	out, err := exec.Command("sh", "-c", "lintian --allow-root --fail-on error,warning "+dir+"/*.deb").CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}
