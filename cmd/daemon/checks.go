package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"rackpower/cmd/settings"
)

// maxSocket is how long a socket's path may be, in bytes: the kernel's 107, and room
// for the name under which a socket is made before it gets its own.
const maxSocket = 95

// CheckAddress says what is wrong with the HOST:PORT of a flag. Names are not looked
// up.
func CheckAddress(flag, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return settings.Usage("%s: %q is not HOST:PORT", "--"+flag, addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return settings.Usage("%s: %q: the port is not a number from 0 to 65535", "--"+flag, addr)
	}
	return nil
}

// CheckFree says that another program has the HOST:PORT of a flag, for libraries
// whose own errors hide that.
func CheckFree(flag, addr string) error {
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		_ = l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return settings.Exit(settings.ExitFailed, "%s: another program has the address %s: name another", "--"+flag, addr)
	}
	return nil
}

// Account is the user that the daemons run as where they are installed.
const Account = "rackpower"

// Trusted says what is wrong with the user who serves a socket: root, the daemons' own
// account and the user of this process may.
func Trusted(uid uint32) error {
	if uid == 0 || int(uid) == os.Geteuid() {
		return nil
	}
	if u, err := user.Lookup(Account); err == nil && u.Uid == strconv.FormatUint(uint64(uid), 10) {
		return nil
	}
	return fmt.Errorf("user %d serves it, who is neither root nor %s nor the user of this process", uid, Account)
}

// CheckOwner refuses to have root run a daemon on another user's data directory: that
// user could not read what is written there from then on.
func CheckOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil // what is wrong shows when it is used
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	owner := strconv.FormatUint(uint64(st.Uid), 10)
	return settings.Exit(settings.ExitFailed,
		"%s belongs to user %s, who could not read what root writes there: use systemctl start, or setpriv --reuid=%s "+
			"--regid=%d --init-groups before the command",
		dir, owner, owner, st.Gid)
}

// CheckSocket says whether a path is too long for a unix socket.
func CheckSocket(path string) error {
	if len(path) > maxSocket {
		return settings.Usage("the socket's path has %d bytes, %d are possible: name a shorter one with --socket", len(path), maxSocket)
	}
	return nil
}
