package cmd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rackpower/central/api"
)

// TestShellsComplete has real shells, at a terminal, complete what central knows.
func TestShellsComplete(t *testing.T) {
	s := newSite(t)
	s.addNodes(
		api.NodeSpec{Name: "r1n01", Rack: "r1", BMC: "ipmi://a@127.0.99.1"},
		api.NodeSpec{Name: "r1n02", Rack: "r1", BMC: "ipmi://a@127.0.99.2"},
	)
	op, err := s.ask("r1n01", "on", nil)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		line string
		want []string
	}{
		{"rackpower node set-s", []string{"set-status "}},
		{"rackpower on r1n0", []string{"r1n01", "r1n02"}},
		{"rackpower status r1n01,r1n0", []string{"r1n01,r1n01", "r1n02"}},
		{"rackpower status @status:RE", []string{"READY", "RESERVED"}},
		{"rackpower node set-status r1n01 RET", []string{"RETIRED"}},
		{"rackpower on --wait=v", []string{"verified"}},
		{"rackpower op show " + op.ID[:8], []string{op.ID}},
		{"rackpower agent --gossip-k", []string{"--gossip-key-file"}},
	}
	for shell, begin := range map[string]string{
		"bash": "bind 'set show-all-if-ambiguous on'; bind 'set bell-style none'; source <(rackpower completion bash)",
		"zsh":  "autoload -U compinit; compinit -D -u; setopt NO_BEEP; source <(rackpower completion zsh)",
		"fish": "",
	} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("LEFT OUT: completion in %s: it is not installed (apt-get install %s)", shell, shell)
			}
			env := append(os.Environ(), "PATH="+filepath.Dir(s.cli)+":"+os.Getenv("PATH"), "RACKPOWER_CENTRAL=unix://"+s.socket(),
				"XDG_CONFIG_HOME="+s.dir, "HOME="+t.TempDir(), "TERM=dumb", "INPUTRC=/dev/null", "PS1=> ", "COLUMNS=200")
			if shell == "fish" { // completes without a terminal
				for _, c := range cases {
					cmd := exec.Command("fish", "--no-config", "-c", "rackpower completion fish | source; complete -C '"+c.line+"'")
					cmd.Env = env
					out, err := cmd.CombinedOutput()
					for _, want := range c.want {
						if err != nil || !strings.Contains(string(out), strings.TrimSpace(want)) {
							t.Errorf("%s: %v, no %s in\n%s", c.line, err, want, out)
						}
					}
				}
				return
			}
			args := map[string][]string{"bash": {"--norc", "--noprofile", "-i"}, "zsh": {"-f", "-i"}}
			sh := startShell(t, env, shell, args[shell]...)
			sh.typed(begin + "; echo rea''dy\n")
			sh.shows(t, "the shell is ready", "ready")
			for _, c := range cases {
				sh.typed(c.line + "\t")
				sh.shows(t, c.line, c.want...)
				sh.typed("\x15") // Ctrl-U: the line is empty again
			}
		})
	}
}

// TestCompletionIsSilentWhenNobodyAnswers: neither a central that is gone nor one that hangs holds
// up a person who has pressed a key.
func TestCompletionIsSilentWhenNobodyAnswers(t *testing.T) {
	cli, _ := build(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, target := range []string{path, path + ".none"} {
		began := time.Now()
		cmd := exec.Command(cli, "complete", "fish", "--", "on", "--central", "unix://"+target, "r1n")
		out, err := cmd.CombinedOutput()
		if took := time.Since(began); err != nil || len(out) > 0 || took > 5*time.Second {
			t.Errorf("%s: after %s: %v, %q", target, took, err, out)
		}
	}
}

// shell is one at a pseudo-terminal.
type shell struct {
	terminal *os.File

	mu   sync.Mutex
	seen strings.Builder // since something was typed
}

func startShell(t *testing.T, env []string, name string, args ...string) *shell {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("LEFT OUT: no pseudo-terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("LEFT OUT: no pseudo-terminal: %v", err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{terminal: master}
	done := make(chan struct{})
	go func() {
		defer close(done)
		part := make([]byte, 4096)
		for {
			n, err := master.Read(part)
			s.mu.Lock()
			s.seen.Write(part[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close()
		<-done
	})
	return s
}

// typed is what a person types.
func (s *shell) typed(text string) {
	s.mu.Lock()
	s.seen.Reset()
	s.mu.Unlock()
	_, _ = s.terminal.WriteString(text)
}

// shows waits until the terminal has shown all of it.
func (s *shell) shows(t *testing.T, what string, want ...string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		seen := s.seen.String()
		s.mu.Unlock()
		missing := ""
		for _, one := range want {
			if !strings.Contains(seen, one) {
				missing = one
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the terminal does not show %q but\n%q", what, missing, seen)
		}
	}
}
