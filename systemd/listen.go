package systemd

import (
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// Control is the name (FileDescriptorName=) of the control socket in the socket
// units of both daemons.
const Control = "control"

// Listeners returns the listening sockets that systemd opened for this process,
// by name; an empty map when there are none. The caller closes them; closing leaves the
// path of a unix socket in place, which belongs to the socket unit. The first call
// takes them: a later one, or a child process, finds none. A passed file
// that is no listening socket, or a name that occurs twice, is an error, and then
// nothing is left open.
func Listeners() (map[string]net.Listener, error) {
	return named(activation.Files(true))
}

func named(files []*os.File) (map[string]net.Listener, error) {
	found := make(map[string]net.Listener, len(files))
	var failed error
	for _, f := range files {
		l, err := net.FileListener(f)
		name := f.Name()
		f.Close() // the listener has its own copy
		switch {
		case err != nil:
			failed = fmt.Errorf("cannot use the socket %q passed by systemd: %w", name, err)
		case found[name] != nil:
			l.Close()
			failed = fmt.Errorf("cannot use the sockets passed by systemd: two are named %q (FileDescriptorName=)", name)
		default:
			found[name] = l
		}
	}
	if failed != nil {
		for _, l := range found {
			l.Close()
		}
		return nil, failed
	}
	return found, nil
}
