package central

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

const socketMode = 0o660

// listen opens everything that is to be served, or nothing.
func (c *Central) listen() (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	all = append(all, c.cfg.Listeners...)
	if c.cfg.Listen != "" {
		l, err := net.Listen("tcp", c.cfg.Listen)
		if err != nil {
			return all, fmt.Errorf("cannot listen on %s: %w", c.cfg.Listen, err)
		}
		all = append(all, l)
	}
	if c.cfg.Socket != "" {
		l, err := listenUnix(c.cfg.Socket)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to listen on: give a listen address or a socket")
	}
	return all, nil
}

// listenUnix makes the socket under another name, so that it never stands there
// with the wrong mode, and takes the place of one that nobody serves.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("cannot listen on %s: another process serves it", path)
	}
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	os.Remove(temp)
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
		os.Remove(temp)
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return &unixListener{UnixListener: l, path: path}, nil
}

// unixListener knows the name that its socket has in the end.
type unixListener struct {
	*net.UnixListener
	path string
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	os.Remove(l.path)
	return err
}

// server has bounds for slow clients, but none for the time that an answer takes
// to come: long polls are legitimate. decode and answer set those of the bodies.
func (c *Central) server() *http.Server {
	return &http.Server{
		Handler: c.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ConnContext: withPeer, ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelWarn),
	}
}

type peerKey struct{}

// withPeer remembers the connection of a unix socket, to ask who is there.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if u, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, peerKey{}, u)
	}
	return ctx
}

// peer names the user at the other end of a unix socket, "" for other
// connections.
func peer(r *http.Request) string {
	conn, ok := r.Context().Value(peerKey{}).(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}
