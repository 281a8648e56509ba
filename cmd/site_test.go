package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
	"rackpower/power"
)

// The two binaries, built once for all tests of whole processes.
var binaries = struct {
	once       sync.Once
	dir        string
	err        error
	cli, serve string
}{}

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
	if stock.dir != "" {
		os.RemoveAll(stock.dir)
	}
	os.Exit(code)
}

func build(t testing.TB) (cli, serve string) {
	t.Helper()
	b := &binaries
	if dir := os.Getenv("RACKPOWER_TEST_BIN"); dir != "" { // make test has built them already
		return filepath.Join(dir, "rackpower"), filepath.Join(dir, "rackpower-central")
	}
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "rackpower-test-bin-"); b.err != nil {
			return
		}
		b.cli, b.serve = filepath.Join(b.dir, "rackpower"), filepath.Join(b.dir, "rackpower-central")
		for out, pkg := range map[string]string{b.cli: "rackpower/cmd/rackpower", b.serve: "rackpower/cmd/rackpower-central"} {
			cmd := exec.Command("go", "build", "-o", out, pkg)
			if out == b.cli {
				cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			}
			if text, err := cmd.CombinedOutput(); err != nil {
				b.err = fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
				return
			}
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.cli, b.serve
}

// site is central with agents, as processes on loopback.
type site struct {
	t      *testing.T
	dir    string
	tls    string   // HOST:PORT of central; "": agents use the socket
	serves []string // flags of central besides
	cli    string
	serve  string
	client *api.Client

	mu    sync.Mutex
	procs map[string]*exec.Cmd
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.startCentral()
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	return s
}

// siteIn is a site in which nothing runs yet.
func siteIn(t *testing.T, dir string) *site {
	t.Helper()
	s := &site{t: t, dir: dir, procs: map[string]*exec.Cmd{}}
	s.cli, s.serve = build(t)
	s.client = clientOf(t, s.socket())
	return s
}

func clientOf(t *testing.T, socket string) *api.Client {
	t.Helper()
	client, err := api.NewClient("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func (s *site) socket() string { return filepath.Join(s.dir, "c.sock") }

func (s *site) startCentral() {
	s.t.Helper()
	s.spawn("central", s.serve, s.centralArgs()...)
}

func (s *site) centralArgs() []string {
	args := []string{"serve", "--data", filepath.Join(s.dir, "central"), "--socket", s.socket()}
	if s.tls != "" {
		args = append(args, "--listen", s.tls, "--tls-name", "127.0.0.1")
	}
	return append(args, s.serves...)
}

func (s *site) startAgent(name string) {
	s.t.Helper()
	s.startMonitor(name, "off")
}

// startMonitor starts an agent that reads and enforces on a schedule.
func (s *site) startMonitor(name, schedule string) {
	s.t.Helper()
	s.spawn(name, s.cli, s.agentArgs(name, schedule)...)
}

func (s *site) agentArgs(name, schedule string) []string {
	args := []string{
		"agent", "--name", name, "--data", filepath.Join(s.dir, name), "--gossip", "127.0.0.1:0", "--socket", s.agentSocket(name),
		"--monitor", schedule,
	}
	if s.tls == "" {
		return append(args, "--central", "unix://"+s.socket())
	}
	return append(args, "--central", "https://"+s.tls, "--token-file", s.tokenFile(name))
}

// overTLS has central listen on a port, and agents ask there.
func (s *site) overTLS() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.tls = l.Addr().String()
	l.Close()
}

// tokenFile has central make a token for an agent.
func (s *site) tokenFile(name string) string {
	s.t.Helper()
	out, err := s.client.AgentToken(s.t.Context(), name, api.MakeAgentToken{TTL: time.Hour})
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, name+".token")
	if err := os.WriteFile(path, []byte(out.Token+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) agentSocket(name string) string { return filepath.Join(s.dir, name+".sock") }

func (s *site) spawn(name, bin string, args ...string) {
	s.t.Helper()
	cmd, err := s.launch(name, bin, args)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs[name] = cmd
}

// launch starts a process that ends with this one and writes to a log of its name.
func (s *site) launch(name, bin string, args []string, env ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

// kill is kill -9.
func (s *site) kill(name string) {
	s.mu.Lock()
	cmd := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// isGone reports whether a process has ended by itself.
func (s *site) isGone(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.procs[name].Process.Pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

// terminate is kill -TERM, and waits.
func (s *site) terminate(name string) {
	s.mu.Lock()
	cmd := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
}

func (s *site) stop() {
	for _, name := range s.names() {
		s.kill(name)
	}
	if s.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
		for _, file := range logs {
			text, _ := os.ReadFile(file)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			s.t.Logf("end of %s:\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-12):], "\n"))
		}
	}
}

func (s *site) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.procs {
		names = append(names, name)
	}
	return names
}

func (s *site) until(bound time.Duration, what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(bound); !ok(); {
		if time.Now().After(end) {
			s.t.Fatalf("waited %s in vain until %s", bound, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *site) addNodes(specs ...api.NodeSpec) {
	s.t.Helper()
	if _, err := s.client.AddNodes(s.t.Context(), api.AddNodes{Nodes: specs, Update: true, AskedBy: "test"}); err != nil {
		s.t.Fatal(err)
	}
}

func specOf(name string, ep power.Endpoint) api.NodeSpec {
	return api.NodeSpec{Name: name, Rack: "r1", BMC: ep.String(), Password: string(ep.Password)}
}

// testerName is who the audit log names for what the tests ask for.
var testerName = func() string {
	me, err := user.Current()
	if err != nil {
		panic(err)
	}
	return me.Username + " for tester"
}()

// run runs the command line and returns what it printed and its exit status.
func (s *site) run(args ...string) (stdout, stderr string, exit int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.cli, args...)
	cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL=unix://"+s.socket(), "RACKPOWER_ASKED_BY=tester", "XDG_CONFIG_HOME="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exitErr *exec.ExitError
	if err != nil && !errors.As(err, &exitErr) {
		s.t.Fatalf("rackpower %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustRun is run for what must succeed.
func (s *site) mustRun(args ...string) string {
	s.t.Helper()
	out, errs, exit := s.run(args...)
	if exit != 0 {
		s.t.Fatalf("rackpower %s: exit status %d\n%s%s", strings.Join(args, " "), exit, out, errs)
	}
	return out
}

// result is one line of a power command with -o json.
type result struct {
	Node, ID, Verdict, Outcome, State, Detail string
	WaitedMS                                  int64 `json:"waited_ms"`
}

func decodeJSON[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// ask keeps asking with the same id until central has it, as a careful client does.
func (s *site) ask(node string, action power.Action, more func(*api.OpRequest)) (api.Op, error) {
	req := api.OpRequest{ID: uuid.Must(uuid.NewV7()).String(), Node: node, Action: action, AskedBy: "tester"}
	if more != nil {
		more(&req)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(30 * time.Millisecond) {
		ops, err := s.client.AskOps(s.t.Context(), api.AskOps{Ops: []api.OpRequest{req}})
		if err == nil {
			return ops[0], nil
		}
		if !errors.Is(err, api.ErrUnreachable) && api.CodeOf(err) != api.CodeUnavailable || time.Now().After(end) {
			return api.Op{}, err
		}
	}
}

// allEnded waits until no operation is outstanding and returns all of them.
func (s *site) allEnded(bound time.Duration) []api.Op {
	s.t.Helper()
	var found api.FoundOps
	s.until(bound, "every operation has its outcome", func() bool {
		var err error
		found, err = s.client.QueryOps(s.t.Context(), api.QueryOps{})
		if err != nil {
			return false
		}
		for _, op := range found.Ops {
			if op.Outcome == "" {
				return false
			}
		}
		return true
	})
	return found.Ops
}
