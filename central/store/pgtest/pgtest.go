// Package pgtest starts PostgreSQL servers for tests, in directories of their own and on unix sockets.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Variable is the variable that has tests of both engines run on PostgreSQL: "postgres".
const Variable = "RACKPOWER_TEST_DATABASE"

// DirVariable names the directory in which servers are made; "": in memory, where there is room for that.
const DirVariable = "RACKPOWER_TEST_DATABASE_DIR"

// Wanted reports whether tests of both engines are to run on PostgreSQL.
func Wanted() bool { return os.Getenv(Variable) == "postgres" }

// ErrMissing means that PostgreSQL is not installed.
var ErrMissing = errors.New("PostgreSQL is not installed (Debian package postgresql)")

var shared struct {
	sync.Mutex
	server *Server
	err    error
	n      atomic.Int64
}

// Main runs the tests of a package, and then ends the server that URL started: for TestMain.
func Main(m *testing.M) int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.server != nil {
			shared.server.Remove()
		}
	}()
	return m.Run()
}

// URL names a database for one test. All of a test binary share a server, each has a schema of its
// own. The test is left out where PostgreSQL is missing. Tests that use it need Main.
func URL(t testing.TB) string {
	t.Helper()
	shared.Lock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start()
	}
	s, err := shared.server, shared.err
	shared.Unlock()
	if errors.Is(err, ErrMissing) {
		t.Skip("LEFT OUT: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	schema := fmt.Sprintf("t%d", shared.n.Add(1))
	s.Exec(t, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { s.Exec(t, "SET client_min_messages = error; DROP SCHEMA "+schema+" CASCADE") })
	return s.URL() + "&search_path=" + schema
}

// Server is a server that runs, or did.
type Server struct {
	Dir  string // has data, the socket, and log
	bin  string
	cred *syscall.Credential

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// Start makes a server and starts it; settings are NAME=VALUE.
func Start(settings ...string) (*Server, error) {
	s, err := newServer()
	if err != nil {
		return nil, err
	}
	err = s.command("initdb", "-D", s.data(), "-U", "rackpower", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync").run()
	if err == nil {
		err = s.Restart(settings...)
	}
	if err != nil {
		s.Remove()
		return nil, err
	}
	return s, nil
}

// Standby makes a standby that follows s, and starts it. name is by what s knows it.
func (s *Server) Standby(name string, settings ...string) (*Server, error) {
	b, err := newServer()
	if err != nil {
		return nil, err
	}
	err = b.command("pg_basebackup", "-D", b.data(), "-h", s.Dir, "-U", "rackpower", "-R", "-X", "stream", "-c", "fast",
		"--no-sync").run()
	if err == nil {
		from := fmt.Sprintf("host=%s user=rackpower application_name=%s", s.Dir, name)
		err = b.Restart(append(settings, "primary_conninfo="+from)...)
	}
	if err != nil {
		b.Remove()
		return nil, err
	}
	return b, nil
}

// Promote makes a primary of a standby, and returns when it takes writes.
func (s *Server) Promote() error {
	return s.command("pg_ctl", "promote", "-D", s.data(), "-w").run()
}

func newServer() (*Server, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	s := &Server{}
	if len(dirs) > 0 {
		s.bin = filepath.Dir(dirs[len(dirs)-1])
	} else if path, err := exec.LookPath("initdb"); err == nil {
		s.bin = filepath.Dir(path)
	} else {
		return nil, ErrMissing
	}
	parent := os.Getenv(DirVariable)
	if info, err := os.Stat("/dev/shm"); parent == "" && err == nil && info.IsDir() {
		parent = "/dev/shm" // where a flush costs nothing
	}
	dir, err := os.MkdirTemp(parent, "rackpower-pg")
	if err != nil {
		dir, err = os.MkdirTemp("", "rackpower-pg")
	}
	if err != nil {
		return nil, err
	}
	s.Dir = dir
	if os.Geteuid() != 0 {
		return s, nil
	}
	for _, name := range []string{"postgres", "nobody"} { // root may not run a server
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return s, os.Chown(dir, int(uid), int(gid))
	}
	return nil, errors.New("there is neither a user postgres nor nobody to run PostgreSQL as")
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

// URL names the database that every server has.
func (s *Server) URL() string { return URLOf(s) }

// URLOf names the database of the server among several that can be written to.
func URLOf(servers ...*Server) string {
	dirs := make([]string, len(servers))
	for i, s := range servers {
		dirs[i] = s.Dir
	}
	return "postgres:///postgres?user=rackpower&target_session_attrs=read-write&host=" + url.QueryEscape(strings.Join(dirs, ","))
}

type command struct{ *exec.Cmd }

func (s *Server) command(name string, args ...string) command {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+s.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	return command{cmd}
}

func (c command) run() error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, out)
	}
	return nil
}

// Restart starts the server, which must not run, and waits until it answers.
func (s *Server) Restart(settings ...string) error {
	args := []string{"-D", s.data(), "-k", s.Dir}
	// Shared memory is in the directory: a server that is killed leaves nothing elsewhere.
	for _, setting := range append([]string{
		"listen_addresses=", "max_connections=800", "shared_buffers=64MB", "dynamic_shared_memory_type=mmap",
	}, settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command("postgres", args...).Cmd
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // a test that is killed leaves none behind
	started := make(chan error)
	s.done = make(chan struct{})
	go func() {
		// The signal comes when the thread ends that started the server, not the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.done)
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	return s.answers()
}

func (s *Server) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, strings.ReplaceAll(s.URL(), "read-write", "any"))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-s.done:
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return fmt.Errorf("PostgreSQL ended: %s", log)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server as a crash does, and returns when all of its processes are gone, which notice by themselves.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	for s.running() {
		time.Sleep(10 * time.Millisecond)
	}
}

// running reports whether a process works in the server's directory.
func (s *Server) running() bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range all {
		if at, err := os.Readlink(link); err == nil && at == s.data() {
			return true
		}
	}
	return false
}

// Stop ends the server, and with it all connections.
func (s *Server) Stop() { s.signal(syscall.SIGINT) }

func (s *Server) signal(sig syscall.Signal) {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	<-s.done
}

// Remove stops the server and removes its directory.
func (s *Server) Remove() {
	s.signal(syscall.SIGQUIT)
	_ = os.RemoveAll(s.Dir)
}

// Exec has the server run SQL.
func (s *Server) Exec(t testing.TB, query string) {
	t.Helper()
	if err := s.exec(query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (s *Server) exec(query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	_, err = c.PgConn().Exec(ctx, query).ReadAll()
	return errors.Join(err, c.Close(ctx))
}
