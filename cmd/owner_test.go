package cmd_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
)

// nobody is the account that plays the daemons' own.
const nobody = 65534

// TestWhatRootDoesIsTheDaemons: backup, check and restore by root leave a database that
// central's own user can open, and root does not run the daemons on his directories.
func TestWhatRootDoesIsTheDaemons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("LEFT OUT: only root can act for another user")
	}
	defer syscall.Umask(syscall.Umask(0)) // what is made must not be open to all
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	for dir := s.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	serve, cli := filepath.Join(s.dir, "serve"), filepath.Join(s.dir, "cli")
	for to, from := range map[string]string{serve: s.serve, cli: s.cli} {
		if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	home := filepath.Join(s.dir, "home")
	data := filepath.Join(home, "central")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	root := func(want int, says string, name string, args ...string) {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if code := exitOf(err); code != want || !strings.Contains(string(out), says) {
			t.Errorf("%v: status %d\n%s", args, code, out)
		}
	}
	central := func() (*exec.Cmd, *api.Client) {
		cmd := exec.Command(serve, "serve", "--data", data, "--gossip", "off")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
		var out strings.Builder
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		client := clientOf(t, filepath.Join(data, "central.sock"))
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		s.until(20*time.Second, "central answers or ends", func() bool {
			select {
			case err := <-ended:
				t.Fatalf("%v\n%s", err, out.String())
			default:
			}
			_, err := client.Info(t.Context())
			return err == nil
		})
		return cmd, client
	}
	end := func(cmd *exec.Cmd) {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		s.until(20*time.Second, "central ends", func() bool { return syscall.Kill(cmd.Process.Pid, 0) != nil })
	}
	backup := filepath.Join(s.dir, "backup.db")
	cmd, client := central()
	if _, err := client.AddNodes(t.Context(),
		api.AddNodes{Nodes: []api.NodeSpec{{Name: "n1", Rack: "r1", BMC: "ipmi://a@192.0.2.1"}}}); err != nil {
		t.Fatal(err)
	}
	root(0, "1 nodes", serve, "check", "--data", data)
	root(0, "1 nodes", serve, "backup", "--data", data, backup)
	_ = cmd.Process.Kill() // its log stays beside the database
	s.until(20*time.Second, "central is gone", func() bool { return syscall.Kill(cmd.Process.Pid, 0) != nil })
	root(0, "1 nodes", serve, "check", "--data", data)
	root(0, "restored", serve, "restore", "--data", data, backup)
	root(1, "setpriv --reuid=65534", serve, "serve", "--data", data)
	s.owned(home)
	cmd, _ = central()
	end(cmd)
	// The directory is gone with its volume, and comes back from the backup.
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	root(0, "restored", serve, "restore", "--data", data, backup)
	s.owned(home)
	cmd, client = central()
	if nodes, err := client.Nodes(t.Context(), "all"); err != nil || len(nodes) != 1 {
		t.Errorf("%v, %v", nodes, err)
	}
	s.owned(home)
	end(cmd)

	rack := filepath.Join(home, "r1")
	args := []string{"agent", "--name", "r1", "--data", rack, "--central", "none", "--gossip", "off"}
	agent := exec.Command(cli, args...)
	agent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	client = clientOf(t, filepath.Join(rack, "agent.sock"))
	s.until(20*time.Second, "the agent answers", func() bool { _, err := client.Info(t.Context()); return err == nil })
	root(0, "", cli, "local", "status", "--socket", filepath.Join(rack, "agent.sock"))
	_ = agent.Process.Signal(syscall.SIGTERM)
	_ = agent.Wait()
	root(0, "", cli, "journal", "verify", rack)
	root(0, "", cli, "journal", "dump", rack)
	root(1, "setpriv --reuid=65534", cli, args...)
	s.owned(home)
}

// owned holds everything below a directory to one owner, and to be closed to others.
func (s *site) owned(dir string) {
	s.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != nobody || info.Mode().Perm()&0o007 != 0 {
			s.t.Errorf("%s: user %d, mode %v", path, st.Uid, info.Mode())
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}

func exitOf(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}
