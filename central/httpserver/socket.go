package httpserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// socketMode is for the user who serves and his group.
const socketMode = 0o660

// ListenSocket makes a unix socket whose path never exists with another mode,
// whatever the umask is. A socket file that nobody serves any more is replaced; one that
// is in use, and a file that is no socket, is an error. The socket's file goes when the
// listener is closed.
func ListenSocket(path string) (net.Listener, error) {
	if err := nobodyServes(path); err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(temp) // of a process of the same number that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(temp, socketMode); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(temp)
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return &socket{UnixListener: l, path: path}, nil
}

// nobodyServes is nil when a path is free for a socket.
func nobodyServes(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("it is there and not a socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // also one that is too busy to take a connection
		return errors.New("another process serves it")
	}
	return nil
}

// socket knows the name that it has in the end.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if err == nil { // a second time the path may be another's
		_ = os.Remove(s.path)
	}
	return err
}
