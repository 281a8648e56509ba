package api

import (
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"unsafe"
)

// PeerOf is the id of the user at the other end of a unix socket: of the process that
// connected, or of the one that listens. Other connections are an error.
func PeerOf(conn net.Conn) (uid uint32, err error) {
	var cred *syscall.Ucred
	err = socketOption(conn, func(fd int) (err error) {
		cred, err = syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		return err
	})
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// PeerGroups are the groups of the process at the other end of a unix socket, as the kernel
// knows them (SO_PEERCRED and SO_PEERGROUPS of unix(7)).
func PeerGroups(conn net.Conn) (gids []uint32, err error) {
	err = socketOption(conn, func(fd int) error {
		cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil {
			return err
		}
		gids = []uint32{cred.Gid}
		raw := make([]byte, 4*maxGroups)
		size := uint32(len(raw)) //nolint:gosec // a constant
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, soPeerGroups,
			uintptr(unsafe.Pointer(&raw[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		for ; size >= 4; size -= 4 {
			gids = append(gids, binary.NativeEndian.Uint32(raw[size-4:]))
		}
		return nil
	})
	return gids, err
}

const (
	soPeerGroups = 59    // SO_PEERGROUPS, which package syscall does not name
	maxGroups    = 65536 // NGROUPS_MAX of Linux
)

func socketOption(conn net.Conn, get func(fd int) error) error {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var got error
	err = raw.Control(func(fd uintptr) { got = get(int(fd)) })
	return errors.Join(err, got)
}
