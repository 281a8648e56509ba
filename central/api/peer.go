package api

import (
	"errors"
	"net"
	"syscall"
)

// PeerOf is the id of the user at the other end of a unix socket: of the process that
// connected, or of the one that listens. Other connections are an error.
func PeerOf(conn net.Conn) (uid uint32, err error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return 0, errors.Join(err, credErr)
	}
	return cred.Uid, nil
}
