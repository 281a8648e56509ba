package cmd_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
)

// logged waits until a line of a process's log has all the words.
func (s *site) logged(name string, words ...string) {
	s.t.Helper()
	s.until(10*time.Second, fmt.Sprintf("the log of %s says %q", name, words), func() bool {
		text, _ := os.ReadFile(filepath.Join(s.dir, name+".log"))
		for line := range strings.Lines(string(text)) {
			all := true
			for _, word := range words {
				all = all && strings.Contains(line, word)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// ended waits for the end of a process that was told to end.
func (s *site) ended(name string) syscall.WaitStatus {
	s.t.Helper()
	s.mu.Lock()
	cmd := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func (s *site) signal(name string, sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.procs[name].Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// TestDaemonsPassOverWhatDoesNotEndThem sends each daemon every signal that chance may
// send, and those that end it.
func TestDaemonsPassOverWhatDoesNotEndThem(t *testing.T) {
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	answers := map[string]*api.Client{"central": s.client, "r1": clientOf(t, s.agentSocket("r1"))}
	quiet := func(args []string) []string { // leaving a cluster takes seconds
		if i := slices.Index(args, "--gossip"); i > 0 {
			args = slices.Delete(args, i, i+2)
		}
		return append(args, "--gossip", "off")
	}
	start := map[string]func(){
		"central": func() { s.spawn("central", s.serve, quiet(s.centralArgs())...) },
		"r1":      func() { s.spawn("r1", s.cli, quiet(s.agentArgs("r1", "off"))...) },
	}
	start["r1"]()
	start["central"]()
	up := func(name string) {
		t.Helper()
		s.until(20*time.Second, name+" answers", func() bool { _, err := answers[name].Info(t.Context()); return err == nil })
	}
	for _, name := range []string{"r1", "central"} {
		up(name)
		for sig, says := range map[syscall.Signal]string{
			syscall.SIGHUP: "hangup", syscall.SIGUSR1: "user defined signal 1", syscall.SIGUSR2: "user defined signal 2",
			syscall.SIGALRM:   "alarm clock",
			syscall.SIGVTALRM: "virtual timer expired", syscall.SIGIO: "I/O possible", syscall.SIGPWR: "power failure",
		} {
			s.signal(name, sig)
			s.logged(name, "ignored", says)
		}
		for _, sig := range []syscall.Signal{
			syscall.SIGPIPE, syscall.SIGXFSZ, syscall.SIGCHLD, syscall.SIGWINCH, syscall.SIGURG,
			syscall.SIGCONT,
		} {
			s.signal(name, sig)
		}
		s.signal(name, syscall.SIGSTOP)
		s.signal(name, syscall.SIGCONT)
		up(name)
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			s.signal(name, sig)
			if end := s.ended(name); end.ExitStatus() != 0 {
				t.Errorf("%s, %v: %v, status %d, signal %v; want status 0", name, sig, end, end.ExitStatus(), end.Signal())
			}
			start[name]()
			up(name)
		}
		s.signal(name, syscall.SIGQUIT)
		if end := s.ended(name); end.ExitStatus() != 2 {
			t.Errorf("%s, SIGQUIT: status %d, signal %v", name, end.ExitStatus(), end.Signal())
		}
		s.logged(name, "goroutine ")
		start[name]()
		up(name)
	}
}

// TestASecondSignalEndsAtOnce has an end take long: a reading is awaited that never
// comes.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	s := newSite(t)
	s.addNodes(api.NodeSpec{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"})
	cmd, output := s.begin(s.cli, "on", "n1")
	s.until(20*time.Second, "the request is there", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
		return err == nil && len(found.Ops) == 1
	})
	s.signal("central", syscall.SIGSTOP) // the first signal would find its answer late
	defer s.signal("central", syscall.SIGCONT)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if end := waited(cmd); !end.Signaled() || end.Signal() != syscall.SIGTERM {
		t.Errorf("status %d, signal %v\n%s", end.ExitStatus(), end.Signal(), output())
	}
}

// begin starts a command and keeps what it says.
func (s *site) begin(name string, args ...string) (*exec.Cmd, func() string) {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL=unix://"+s.socket(), "RACKPOWER="+s.cli)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd, out.String
}

func waited(cmd *exec.Cmd) syscall.WaitStatus {
	timer := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// TestACommandDiesOfItsSignal holds each command that waits to its message, and to an
// end by the signal itself.
func TestACommandDiesOfItsSignal(t *testing.T) {
	s := newSite(t)
	s.addNodes(api.NodeSpec{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"})
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(sig) { // nohup, or a job in the background: what is started here must not inherit that
			signal.Notify(make(chan os.Signal, 1), sig)
			defer signal.Ignore(sig)
		}
		for _, one := range []struct{ line, says string }{
			{"on n1", "interrupted: the operations on n1 go on"},
			{"status n1 --fresh", "interrupted"},
			{"status --watch", ""},
			{"watch", ""},
		} {
			requests := func() int {
				found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
				if err != nil {
					t.Fatal(err)
				}
				return len(found.Ops)
			}
			before := requests()
			cmd, output := s.begin(s.cli, strings.Fields(one.line)...)
			s.until(20*time.Second, one.line+" waits", func() bool {
				return connected(cmd.Process.Pid) && (one.line != "on n1" || requests() > before)
			})
			_ = cmd.Process.Signal(sig)
			if end := waited(cmd); !end.Signaled() || end.Signal() != sig || !strings.Contains(output(), one.says) {
				t.Errorf("%s, %v: status %d, signal %v\n%s", one.line, sig, end.ExitStatus(), end.Signal(), output())
			}
		}
	}
}

// connected reports whether a process has a socket open: its command is at work, and
// signals are caught.
func connected(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
			return true
		}
	}
	return false
}

// TestCtrlCEndsTheLoopOfAShell interrupts a shell and its command, as a terminal does.
func TestCtrlCEndsTheLoopOfAShell(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("LEFT OUT: bash is not installed")
	}
	s := newSite(t)
	s.addNodes(api.NodeSpec{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"},
		api.NodeSpec{Name: "n2", Rack: "r1", BMC: "ipmi://admin@192.0.2.2"})
	cmd, output := s.begin("bash", "-c", `for n in n1 n2; do "$RACKPOWER" on $n; echo "after $n: $?"; done`)
	s.until(20*time.Second, "the request is there", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
		return err == nil && len(found.Ops) == 1
	})
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	end := waited(cmd)
	if !end.Signaled() || end.Signal() != syscall.SIGINT || strings.Contains(output(), "after") || !strings.Contains(output(), "go on") {
		t.Errorf("status %d, signal %v\n%s", end.ExitStatus(), end.Signal(), output())
	}
	if found, err := s.client.QueryOps(t.Context(), api.QueryOps{}); err != nil || len(found.Ops) != 1 {
		t.Errorf("%d operations, %v: the loop went on", len(found.Ops), err)
	}
}

// TestIgnoredSignalsStayIgnored: nohup, and what a script has in the background.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	s := newSite(t)
	s.addNodes(api.NodeSpec{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"})
	cmd, output := s.begin("sh", "-c", `trap "" HUP INT; exec "$RACKPOWER" on n1`)
	s.until(20*time.Second, "the request is there", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
		return err == nil && len(found.Ops) == 1
	})
	_ = cmd.Process.Signal(syscall.SIGHUP)
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if end := waited(cmd); end.Signal() != syscall.SIGTERM {
		t.Errorf("signal %v\n%s", end.Signal(), output())
	}
}

// TestAPipeThatNobodyReads: a command ends quietly, a daemon goes on.
func TestAPipeThatNobodyReads(t *testing.T) {
	s := newSite(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	cmd := exec.Command(s.cli, "agents", "--central", "unix://"+s.socket(), "-o", "json")
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = write, &errs
	_ = cmd.Run()
	if end := cmd.ProcessState.Sys().(syscall.WaitStatus); end.Signal() != syscall.SIGPIPE || errs.Len() > 0 {
		t.Errorf("status %d, signal %v, %q", end.ExitStatus(), end.Signal(), errs.String())
	}
	write.Close()
	// An answer that cannot be written is no success.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"agents", "agents -o json", "--help", "status", "--version"} {
		cmd := exec.Command(s.cli, strings.Fields(args)...)
		cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL=unix://"+s.socket())
		var errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &errs
		if err := cmd.Run(); exitOf(err) != 1 || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%s: status %d, %q", args, exitOf(err), errs.String())
		}
	}
	// A daemon whose log is closed on the other side, and one that was started without
	// any of the three files: what it opens must not get their numbers.
	daemon := exec.Command(s.cli, s.agentArgs("r1", "off")...)
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := daemon.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(log).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	log.Close()
	closed := exec.Command("sh", append([]string{"-c", `exec "$0" "$@" <&- >&- 2>&-`, s.cli}, s.agentArgs("r2", "off")...)...)
	closed.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := closed.Start(); err != nil {
		t.Fatal(err)
	}
	for name, cmd := range map[string]*exec.Cmd{"r1": daemon, "r2": closed} {
		client := clientOf(t, s.agentSocket(name))
		answers := func() bool { _, err := client.Info(t.Context()); return err == nil }
		s.until(20*time.Second, name+" answers", answers)
		for range 3 {
			_ = cmd.Process.Signal(syscall.SIGHUP) // each is a line of the log
		}
		s.until(20*time.Second, name+" still answers", answers)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with %v", name, cmd.ProcessState)
		}
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "r2", "*"))
	for _, file := range files {
		if text, _ := os.ReadFile(file); bytes.Contains(text, []byte(`"msg"`)) {
			t.Errorf("the log went into %s", file)
		}
	}
}

// TestAHaltedCentralIsSaid halts central under commands that wait in different ways.
// It takes the 15 s that a person is to wait at most.
func TestAHaltedCentralIsSaid(t *testing.T) {
	s := newSite(t)
	s.addNodes(api.NodeSpec{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"})
	asked, output := s.begin(s.cli, "on", "n1")
	s.until(20*time.Second, "the request is there", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
		return err == nil && len(found.Ops) == 1
	})
	s.signal("central", syscall.SIGSTOP)
	defer s.signal("central", syscall.SIGCONT)
	began := time.Now()
	looked, second := s.begin(s.cli, "status")
	for cmd, said := range map[*exec.Cmd]func() string{asked: output, looked: second} {
		end := waited(cmd)
		if took := time.Since(began); end.ExitStatus() != 3 || took > 19*time.Second ||
			!strings.Contains(said(), "has not answered for 3s") || !strings.Contains(said(), "journalctl -u rackpower-central.service") {
			t.Errorf("%v: status %d after %s\n%s", cmd.Args, end.ExitStatus(), took, said())
		}
	}
	if !strings.Contains(output(), "the operations on n1 go on") {
		t.Errorf("%s", output())
	}
}
