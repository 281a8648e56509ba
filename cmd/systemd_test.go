package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// systemdHost is a systemd of its own, in namespaces.
type systemdHost struct {
	*site
	boot *exec.Cmd
}

// newSystemdHost boots one, with what is to be installed at /src, or skips the test.
func newSystemdHost(t *testing.T) *systemdHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("LEFT OUT: a real systemd: only root can make its namespaces")
	}
	for _, tool := range []string{"/lib/systemd/systemd", "unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: a real systemd: %v", err)
		}
	}
	m := &systemdHost{site: siteIn(t, t.TempDir())}
	source := filepath.Join(m.dir, "src")
	files, err := filepath.Abs("../systemd")
	if err != nil {
		t.Fatal(err)
	}
	copied := fmt.Sprintf("mkdir -p %[1]s/bin && cp -r %[2]s %[1]s/systemd && cp %[3]s %[4]s %[1]s/bin/ && chmod -R a+rX %[1]s", source, files,
		m.cli, m.serve)
	if out, err := exec.Command("sh", "-c", copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var said bytes.Buffer
	m.boot = exec.Command("unshare", "--mount", "--propagation", "private", "bash", "testdata/boot.sh", m.dir, source)
	m.boot.Stdout, m.boot.Stderr = &said, &said
	m.boot.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.boot.Start(); err != nil {
		t.Skipf("LEFT OUT: a real systemd: %v", err)
	}
	t.Cleanup(m.off)
	if !m.up("0", 30*time.Second) {
		t.Skipf("LEFT OUT: a real systemd does not boot here: %s", said.String())
	}
	return m
}

// init is the process id of the machine's first process, "0" when there is none.
func (m *systemdHost) init() string {
	text, _ := os.ReadFile(filepath.Join(m.dir, "init"))
	if id := strings.TrimSpace(string(text)); id != "" {
		return id
	}
	return "0"
}

// up waits until another first process than before has booted.
func (m *systemdHost) up(before string, bound time.Duration) bool {
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if m.init() == before {
			continue
		}
		out, _ := m.try("systemctl", "is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return true
		}
	}
	return false
}

func (m *systemdHost) off() {
	_ = os.WriteFile(filepath.Join(m.dir, "stop"), nil, 0o600)
	if m.t.Failed() {
		out, _ := m.try("journalctl", "--no-pager", "-n", "40", "-o", "cat")
		m.t.Logf("the machine's log:\n%s", out)
	}
	if id, err := strconv.Atoi(m.init()); err == nil && id > 1 {
		_ = syscall.Kill(id, syscall.SIGKILL)
	}
	_ = m.boot.Wait()
}

// try runs a command on the machine and returns what it says and its exit status.
func (m *systemdHost) try(args ...string) (string, int) {
	m.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"-t", m.init(), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "--wd=/", "--"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), exitOf(err)
}

func (m *systemdHost) run(args ...string) string {
	m.t.Helper()
	out, exit := m.try(args...)
	if exit != 0 {
		m.t.Fatalf("%v: status %d\n%s", args, exit, out)
	}
	return strings.TrimSpace(out)
}

// main is the process id of a service, within the machine.
func (m *systemdHost) main(service string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "-P", "MainPID", service)
}

// alive waits until both daemons are up and know each other.
func (m *systemdHost) alive() {
	m.t.Helper()
	m.until(30*time.Second, "central has its agent", func() bool {
		out, _ := m.try("rackpower", "agents", "-o", "json")
		return strings.Contains(out, `"alive"`)
	})
}

// TestLifeOnARealSystemd installs as the README says and goes through what a machine does
// to its services.
func TestLifeOnARealSystemd(t *testing.T) {
	m := newSystemdHost(t)
	const agent, central = "rackpower-agent.service", "rackpower-central.service"
	m.run("/src/systemd/install.sh", "", "/usr/local", "/src/bin")
	m.run("systemctl", "enable", "--now", central, agent)
	m.alive()
	m.run("rackpower", "node", "add", "n1", "--rack", "r1", "--bmc", "ipmi://admin@127.0.0.9")

	if ports := m.run("cat", "/proc/net/tcp", "/proc/net/tcp6"); strings.Contains(ports, fmt.Sprintf(":%04X ", 7620)) {
		t.Errorf("a port is open:\n%s", ports)
	}
	m.knowsWhoAsks()
	for _, service := range []string{agent, central} {
		before := m.main(service)
		m.run("systemctl", "kill", "--kill-whom=main", "-s", "HUP", service)
		m.run("systemctl", "kill", "--kill-whom=main", "-s", "USR1", service)
		m.alive()
		if now := m.main(service); now != before {
			t.Errorf("SIGHUP and SIGUSR1 ended %s", service)
		}
		for _, sig := range []string{"INT", "TERM", "KILL", "QUIT"} {
			before := m.main(service)
			m.run("kill", "-"+sig, before)
			m.until(20*time.Second, service+" is started again after SIG"+sig, func() bool {
				now := m.main(service)
				return now != before &&
					now != "0"
			})
			m.alive()
		}
	}

	before := m.init()
	_, _ = m.try("systemctl", "reboot")
	if !m.up(before, 30*time.Second) {
		t.Fatal("the machine does not reboot")
	}
	m.alive()
	if out := m.run("rackpower", "status"); !strings.Contains(out, "n1") {
		t.Errorf("after a reboot: %s", out)
	}

	m.run("rackpower-central", "backup", "/root/central.db")
	m.run("systemctl", "stop", "rackpower-central.socket", central)
	m.run("rackpower-central", "restore", "/root/central.db")
	m.run("systemctl", "start", central)
	m.alive()
	if out, exit := m.try("setpriv", "--reuid=65534", "--regid=rackpower-admin", "--clear-groups", "rackpower", "status"); exit != 0 {
		t.Errorf("an administrator's status: %d, %s", exit, out)
	}

	m.run("sh", "-c", "echo 'nonsense: 1' >> /etc/rackpower/central.yaml")
	_, _ = m.try("systemctl", "restart", central)
	if out, exit := m.try("rackpower", "status"); exit != 3 || !strings.Contains(out, "has not answered for 3s") ||
		!strings.Contains(out, "journalctl -u "+central) {
		t.Errorf("a bad configuration: %d, %s", exit, out)
	}
	m.run("sed", "-i", "/nonsense/d", "/etc/rackpower/central.yaml")
	m.alive() // by itself
	m.losesItsLog(agent, central)
	m.inheritsAMask(agent, central)
	m.hasAVolume(central)
	m.enrols(agent, central)
}

// knowsWhoAsks has a user in the group, and one outside, ask both daemons.
func (m *systemdHost) knowsWhoAsks() {
	m.t.Helper()
	m.run("useradd", "-M", "-G", "rackpower-admin", "carol")
	m.run("useradd", "-M", "dave")
	as := func(who string, args ...string) (string, int) {
		return m.try(append([]string{"setpriv", "--reuid=" + who, "--regid=" + who, "--init-groups"}, args...)...)
	}
	for _, args := range [][]string{
		{"rackpower", "hold", "n1", "on", "--for", "1h", "--yes", "--reason", "test"},
		{"rackpower", "local", "release", "n1", "--reason", "test"},
	} {
		if out, exit := as("carol", args...); exit != 0 {
			m.t.Errorf("carol, %v: %d, %s", args, exit, out)
		}
		if out, exit := as("dave", args...); exit != 3 || !strings.Contains(out, "permission denied") {
			m.t.Errorf("dave, %v: %d, %s", args, exit, out)
		}
	}
	m.until(20*time.Second, "the audit log has both by name", func() bool {
		out := m.run("rackpower", "audit", "-o", "json")
		return strings.Count(out, "carol") >= 2
	})
}

// enrols has the agent reach central over TLS, with a token that systemd hands it.
func (m *systemdHost) enrols(agent, central string) {
	m.t.Helper()
	m.run("sed", "-i", "-e", "s/^# listen: .*/listen: 127.0.0.1:7620/", "-e", "s/^# tls-name: .*/tls-name: [127.0.0.1]/",
		"/etc/rackpower/central.yaml")
	m.run("systemctl", "restart", central)
	m.alive()
	m.run("sed", "-i", "s#^central: .*#central: https://127.0.0.1:7620#", "/etc/rackpower/agent.yaml")
	m.run("sh", "-c", "mkdir -p -m 0700 /etc/credstore && umask 077 && rackpower agents token r1 > /etc/credstore/token")
	m.run("systemctl", "restart", agent)
	m.until(20*time.Second, "the agent has enrolled", func() bool {
		_, exit := m.try("test", "-s", "/var/lib/rackpower/agent/identity.pem")
		return exit == 0
	})
	m.run("rm", "/etc/credstore/token")
	m.run("systemctl", "restart", agent)
	m.alive()
	if out := m.run("rackpower", "status", "n1"); !strings.Contains(out, "n1") {
		m.t.Errorf("over TLS: %s", out)
	}
}

// dropIn sets options of services and starts them again; none takes them back.
func (m *systemdHost) dropIn(options string, services ...string) {
	m.t.Helper()
	for _, service := range services {
		dir := "/etc/systemd/system/" + service + ".d"
		if options == "" {
			m.run("rm", "-r", dir)
		} else {
			m.run("sh", "-c", "mkdir -p "+dir+" && printf '[Service]\n"+options+"' > "+dir+"/test.conf")
		}
	}
	m.run("systemctl", "daemon-reload")
	m.run(append([]string{"systemctl", "restart"}, services...)...)
	m.alive()
}

// losesItsLog has who reads the daemons' output die while they write, and then nobody read it.
func (m *systemdHost) losesItsLog(services ...string) {
	m.t.Helper()
	var before []string
	for _, service := range services {
		before = append(before, m.main(service))
	}
	m.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "systemd-journald.service")
	for i := range 3 { // each request has both daemons write lines
		_, _ = m.try("rackpower", "hold", "n1", []string{"on", "off", "on"}[i], "--yes", "--reason", "test")
		m.alive()
	}
	m.run("rackpower", "release", "n1", "--reason", "test")
	for i, service := range services {
		if now := m.main(service); now != before[i] {
			m.t.Errorf("%s ended when nobody read what it says", service)
		}
	}
	m.dropIn("StandardOutput=null\\nStandardError=null\\n", services...)
	m.dropIn("", services...)
}

// inheritsAMask starts the daemons with a mask that hides nothing, and with one that hides all:
// others read none of their files, and they read their own.
func (m *systemdHost) inheritsAMask(services ...string) {
	m.t.Helper()
	for _, mask := range []string{"0000", "0777"} {
		m.dropIn("UMask="+mask+"\\n", services...)
		m.run("rackpower", "hold", "n1", "on", "--for", "1h", "--yes", "--reason", "test")
		m.run("rackpower", "local", "status", "n1")
		m.run("rackpower", "release", "n1", "--reason", "test")
		if open := m.run("find", "/var/lib/rackpower", "-type", "f", "-perm", "/077"); open != "" {
			m.t.Errorf("with the mask %s others may read\n%s", mask, open)
		}
	}
	m.dropIn("", services...)
}

// hasAVolume puts central's data on a volume of its own. While that is missing, central is not
// started on the empty directory below; while it is read-only, central says so.
func (m *systemdHost) hasAVolume(central string) {
	m.t.Helper()
	const dir, unit = "/var/lib/rackpower/central", "var-lib-rackpower-central.mount"
	mount := func(volume, options string) {
		m.run("sh", "-c", "printf '[Mount]\\nWhat="+volume+"\\nWhere="+dir+"\\nOptions=bind"+options+"\\n' > /etc/systemd/system/"+unit)
		m.run("systemctl", "daemon-reload")
	}
	m.run("systemctl", "stop", "rackpower-central.socket", central)
	m.run("sh", "-c", "cp -a "+dir+" /away && rm "+dir+"/*")
	mount("/proc/missing", "") // systemd makes a directory that is bound, where it can
	if out, exit := m.try("systemctl", "start", central); exit == 0 || !strings.Contains(out, "dependency") {
		m.t.Errorf("without its volume: status %d, %s", exit, out)
	}
	if made := m.run("find", dir, "-type", "f"); made != "" {
		m.t.Errorf("without its volume central began anew: %s", made)
	}
	m.run("mv", "/away", "/volume")
	mount("/volume", ",ro")
	_, _ = m.try("systemctl", "start", central)
	m.until(10*time.Second, "central says that it cannot write", func() bool {
		out, _ := m.try("journalctl", "--no-pager", "-o", "cat", "-n", "20", "-u", central)
		return strings.Contains(out, "read-only file system")
	})
	m.run("systemctl", "stop", "rackpower-central.socket", central, unit)
	mount("/volume", "")
	m.run("systemctl", "start", central)
	m.alive()
	if out := m.run("rackpower", "status"); !strings.Contains(out, "n1") {
		m.t.Errorf("on its volume: %s", out)
	}
}
