package systemd

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain plays the daemon when a test starts this binary as systemd would.
func TestMain(m *testing.M) {
	if os.Getenv("RACKPOWER_TEST_DAEMON") == "" {
		os.Exit(m.Run())
	}
	os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	if err := daemonForTest(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// daemonForTest answers one caller at the control socket with what it was given.
func daemonForTest() error {
	all, err := Listeners()
	if err != nil {
		return err
	}
	again, err := Listeners()
	one := all[Control]
	if err != nil || one == nil || one != again[Control] {
		return fmt.Errorf("%v, %v, %w", one, again, err)
	}
	conn, err := one.Accept()
	if err != nil {
		return err
	}
	fmt.Fprintf(conn, "%d sockets, left in the environment: %q", len(all), os.Getenv("LISTEN_FDS"))
	conn.Close()
	return one.Close()
}

func listen(t *testing.T) (path string, file *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if file, err = l.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return path, file
}

// activate starts the daemon with the files and their names.
func activate(t *testing.T, names string, files ...*os.File) (output func() string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "RACKPOWER_TEST_DAEMON=1", "LISTEN_FDS="+fmt.Sprint(len(files)), "LISTEN_FDNAMES="+names)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string { _ = cmd.Wait(); return out.String() }
}

func TestSocketsComeByName(t *testing.T) {
	path, control := listen(t)
	_, other := listen(t)
	output := activate(t, "other:"+Control, other, control)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said, _ := io.ReadAll(conn)
	if string(said) != `2 sockets, left in the environment: ""` {
		t.Errorf("%q; %s", said, output())
	}
	if out := output(); out != "" {
		t.Error(out)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the daemon took the path of systemd's socket away: %v", err)
	}
}

func TestUnusableSocketsAreErrors(t *testing.T) {
	_, one := listen(t)
	_, two := listen(t)
	if out := activate(t, "a:a", one, two)(); !strings.Contains(out, `two are named "a"`) {
		t.Errorf("%q", out)
	}
	port, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	open, err := port.File()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if out := activate(t, Control, open)(); !strings.Contains(out, "is no unix socket") {
		t.Errorf("%q", out)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if out := activate(t, Control, file)(); !strings.Contains(out, `cannot use the socket "control"`) {
		t.Errorf("%q", out)
	}
}
