package powertest

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rackpower/power"
)

// Accounts of an IPMISim: an administrator, an operator and a user. ipmi_sim gives
// each of them any privilege that a session asks for.
const (
	SimUser         = "admin"
	SimPassword     = "secret"
	SimOperator     = "oper"
	SimOperatorPass = "operpw"
	SimReader       = "reader"
	SimReaderPass   = "readpw"
)

// ErrNoIPMISim says that ipmi_sim is not installed.
var ErrNoIPMISim = errors.New("ipmi_sim is not installed: apt-get install openipmi")

//go:embed chassis.sh
var chassisScript []byte

// IPMISim is one BMC simulated by a process of OpenIPMI's ipmi_sim, on an
// address of the loopback network that is this BMC's own. It serves cipher suite
// 3 only and ignores offers of others. Methods may be called concurrently.
type IPMISim struct {
	dir  string
	host string
	port int
	kg   string
	bare bool // without a chassis script

	mu   sync.Mutex
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended
}

// A SimOption changes how a simulated BMC is set up.
type SimOption func(*IPMISim)

// WithKG gives the BMC the key K_g, of up to 19 bytes without blanks: sessions
// need it beside the password.
func WithKG(kg power.Secret) SimOption { return func(s *IPMISim) { s.kg = string(kg) } }

// WithoutChassis leaves the chassis' power and boot device to ipmi_sim itself:
// reads are answered in microseconds, and SetPower, Power, Log and the faults do
// nothing.
func WithoutChassis() SimOption { return func(s *IPMISim) { s.bare = true } }

// StartIPMISim starts n simulated BMCs that end with the test. The test is
// skipped when ipmi_sim is not installed.
func StartIPMISim(t testing.TB, n int, options ...SimOption) []*IPMISim {
	t.Helper()
	dir := t.TempDir()
	sims := make([]*IPMISim, n)
	for i := range sims {
		s, err := NewIPMISim(filepath.Join(dir, fmt.Sprintf("bmc%d", i)), options...)
		if errors.Is(err, ErrNoIPMISim) {
			t.Skipf("left out what is tested against a real BMC simulator: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		sims[i] = s
	}
	for _, s := range sims {
		if err := s.WaitReady(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	return sims
}

// NewIPMISim starts a simulated BMC that keeps its state in dir, which it makes.
// It does not wait until the BMC answers (see WaitReady). The caller calls Close.
// The process ends with its parent in any case.
func NewIPMISim(dir string, options ...SimOption) (*IPMISim, error) {
	if _, err := exec.LookPath("ipmi_sim"); err != nil {
		return nil, ErrNoIPMISim
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "sim"), 0o755); err != nil {
		return nil, err
	}
	host, port, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &IPMISim{dir: dir, host: host, port: port}
	for _, option := range options {
		option(s)
	}
	files := map[string][]byte{"lan": []byte(s.lanConfig()), "emu": []byte(emuConfig), "chassis.sh": chassisScript}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return nil, err
		}
	}
	return s, s.start()
}

// lastHost counts the addresses given out.
var lastHost atomic.Uint32

// freeAddr returns an address in 127/8 that belongs to this process alone, going
// by its id, and a UDP port that is free on it. The port lies below those that
// the kernel hands out by itself, so that nobody gets it before ipmi_sim does.
func freeAddr() (host string, port int, err error) {
	pid := os.Getpid()
	for range 250 {
		host = fmt.Sprintf("127.%d.%d.%d", 64+(pid>>8)%128, pid%256, 1+lastHost.Add(1)%250)
		port = 20000 + (pid>>15)%10000
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			c.Close()
			return host, port, nil
		}
	}
	return "", 0, fmt.Errorf("cannot find a free port: %w", err)
}

const emuConfig = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

func (s *IPMISim) lanConfig() string {
	key := ""
	if s.kg != "" {
		key = fmt.Sprintf("    bmc_key %q\n", s.kg)
	}
	chassis := fmt.Sprintf("  chassis_control \"%s %s\"\n", filepath.Join(s.dir, "chassis.sh"), s.dir)
	if s.bare {
		chassis = ""
	}
	return fmt.Sprintf(`name "bmc"
set_working_mc 0x20
  startlan 1
    addr %s %d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
%s  endlan
%s  user 1 true "" "test" user 10 none md2 md5 straight
  user 2 true %q %q admin 10 none md2 md5 straight
  user 3 true %q %q operator 10 none md2 md5 straight
  user 4 true %q %q user 10 none md2 md5 straight
`, s.host, s.port, key, chassis,
		SimUser, SimPassword, SimOperator, SimOperatorPass, SimReader, SimReaderPass)
}

func (s *IPMISim) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return errors.New("cannot start the simulator: it runs already")
	}
	out, err := os.OpenFile(filepath.Join(s.dir, "ipmi_sim.out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("ipmi_sim", "-n", "-c", filepath.Join(s.dir, "lan"), "-f", filepath.Join(s.dir, "emu"), "-s",
		filepath.Join(s.dir, "sim"))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.gone = cmd, make(chan struct{})
	go func(gone chan struct{}) {
		cmd.Wait()
		close(gone)
	}(s.gone)
	return nil
}

// Endpoint returns the BMC's address with the administrator's account.
func (s *IPMISim) Endpoint() power.Endpoint {
	return power.Endpoint{Scheme: "ipmi", Host: s.host, Port: s.port, User: SimUser, Password: SimPassword}
}

// probe is Get Channel Authentication Capabilities, outside of any session.
var probe = []byte{6, 0, 0xFF, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x20, 0x18, 0xC8, 0x81, 0, 0x38, 0x0E, 4, 0x35}

// WaitReady returns when the BMC answers, or an error after the given time.
func (s *IPMISim) WaitReady(within time.Duration) error {
	c, err := net.Dial("udp", net.JoinHostPort(s.host, strconv.Itoa(s.port)))
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 256)
	for end := time.Now().Add(within); time.Now().Before(end); {
		c.Write(probe)
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(buf); err == nil {
			return nil
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(5 * time.Millisecond)
		}
	}
	out, _ := os.ReadFile(filepath.Join(s.dir, "ipmi_sim.out"))
	return fmt.Errorf("ipmi_sim does not answer on %s:%d: %s", s.host, s.port, out)
}

// Hang stops the process: its port is open, and nothing answers.
func (s *IPMISim) Hang() { s.signal(syscall.SIGSTOP) }

// Wake continues a hung process, which then reads what was sent meanwhile.
func (s *IPMISim) Wake() { s.signal(syscall.SIGCONT) }

func (s *IPMISim) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		s.cmd.Process.Signal(sig)
	}
}

// Kill ends the process: its port is closed, its sessions are forgotten. The
// chassis keeps its state.
func (s *IPMISim) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		s.cmd.Process.Kill()
		<-s.gone
		s.cmd = nil
	}
}

// Revive starts the process again after Kill, and waits until it answers.
func (s *IPMISim) Revive() error {
	if err := s.start(); err != nil {
		return err
	}
	return s.WaitReady(10 * time.Second)
}

// Restart is Kill and Revive.
func (s *IPMISim) Restart() error {
	s.Kill()
	return s.Revive()
}

// Close ends the process. It may be called twice.
func (s *IPMISim) Close() error {
	s.Kill()
	return nil
}

// A ChassisFault is a fault of the chassis.
type ChassisFault string

// The faults. Seconds may have a fraction.
const (
	FaultDelay ChassisFault = "delay" // seconds that every access to the chassis takes
	FaultLate  ChassisFault = "late"  // seconds until a new power state shows
	FaultFail  ChassisFault = "fail"  // every access to the chassis fails
	FaultStuck ChassisFault = "stuck" // commands are answered and change nothing
	FaultDeaf  ChassisFault = "deaf"  // soft-offs are answered and change nothing
)

// Set turns a fault on; value is seconds where the fault takes some.
func (s *IPMISim) Set(f ChassisFault, value string) error { return s.put(string(f), value) }

// Unset turns a fault off.
func (s *IPMISim) Unset(f ChassisFault) { os.Remove(filepath.Join(s.dir, string(f))) }

// SetPower sets the chassis' power as a hand at the front panel would.
func (s *IPMISim) SetPower(state power.State) error {
	os.Remove(filepath.Join(s.dir, "coming"))
	if state == power.On {
		return s.put("power", "1")
	}
	return s.put("power", "0")
}

// Power returns the power that the chassis shows.
func (s *IPMISim) Power() power.State {
	data, _ := os.ReadFile(filepath.Join(s.dir, "power"))
	if strings.TrimSpace(string(data)) == "1" {
		return power.On
	}
	return power.Off
}

// put replaces a file of the chassis in one step.
func (s *IPMISim) put(name, value string) error {
	tmp := filepath.Join(s.dir, "."+name+".new")
	if err := os.WriteFile(tmp, []byte(value+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(s.dir, name))
}

// bootNames translates what ipmi_sim calls a boot device.
var bootNames = map[string]power.BootDevice{
	"none": power.BootNone, "pxe": power.BootPXE, "default": power.BootDisk,
	"cdrom": power.BootCDROM, "bios": power.BootBIOS,
}

// Log returns what reached the chassis, in order. It is written before the
// faults have their say: Executed tells nothing.
func (s *IPMISim) Log() []Entry {
	f, err := os.Open(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var log []Entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if e, ok := s.entry(strings.Fields(lines.Text())); ok {
			log = append(log, e)
		}
	}
	return log
}

func (s *IPMISim) entry(words []string) (e Entry, ok bool) {
	if len(words) != 3 {
		return e, false
	}
	sec, nsec, _ := strings.Cut(words[0], ".")
	at, err1 := strconv.ParseInt(sec, 10, 64)
	nano, err2 := strconv.ParseInt(nsec, 10, 64)
	if err1 != nil || err2 != nil {
		return e, false
	}
	e = Entry{BMC: s.host, At: time.Unix(at, nano)}
	switch words[1] + " " + words[2] {
	case "power 1":
		e.Command = power.PowerOn
	case "power 0":
		e.Command = power.PowerOff
	case "reset 1":
		e.Command = power.HardReset
	case "shutdown 1":
		e.Command = power.PressSoftOff
	default:
		if words[1] != "boot" {
			return e, false
		}
		e.Boot = bootNames[words[2]]
	}
	return e, true
}
