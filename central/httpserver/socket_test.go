package httpserver

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestListenSocketReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if l, err := ListenSocket(path); err == nil {
		l.Close()
		t.Fatal("took a socket that is in use")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("removed a socket that is in use: %v", err)
	}
	stale.Close()
	defer syscall.Umask(syscall.Umask(0o777))
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode().Type() != os.ModeSocket {
		t.Fatalf("mode %s, %v", info.Mode(), err)
	}
}

func TestListenSocketLeavesOtherFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenSocket(path); err == nil {
		l.Close()
		t.Fatal("listens in place of a file")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Fatalf("the file is gone: %q, %v", data, err)
	}
	if l, err := ListenSocket(filepath.Join(path, "below")); err == nil {
		l.Close()
		t.Fatal("listens below a file")
	}
}
