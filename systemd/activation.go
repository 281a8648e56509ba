package systemd

import (
	"fmt"
	"maps"
	"net"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// Control is the name (FileDescriptorName=) of the control socket in the socket
// units of both daemons.
const Control = "control"

// passed takes the sockets over once: the first look uses up the environment, so
// that no child process believes they are its own.
var passed = sync.OnceValues(func() (map[string]net.Listener, error) {
	return named(activation.Files(true))
})

// Listeners returns the listening sockets that the manager opened for this
// process, by name (FileDescriptorName=), an empty map when there are none. It may
// be called again and returns the same ones. The user closes it; the path
// of a unix socket then stays, as it belongs to the socket unit. A passed file that
// is no listening unix socket, or a name that occurs twice, is an error, and nothing is
// left open then.
func Listeners() (map[string]net.Listener, error) {
	all, err := passed()
	return maps.Clone(all), err
}

func named(files []*os.File) (map[string]net.Listener, error) {
	found := make(map[string]net.Listener, len(files))
	var failed error
	for _, f := range files {
		name := f.Name()
		l, err := net.FileListener(f)
		f.Close() // the listener has its own copy
		switch {
		case err != nil:
			failed = fmt.Errorf("cannot use the socket %q that systemd passed: %w", name, err)
		case l.Addr().Network() != "unix":
			l.Close()
			failed = fmt.Errorf("cannot use the socket %q that systemd passed: %s is no unix socket, and without TLS nobody who asks at a port is "+
				"known", name, l.Addr())
		case found[name] != nil:
			l.Close()
			failed = fmt.Errorf("cannot use the sockets that systemd passed: two are named %q", name)
		default:
			found[name] = l
		}
	}
	if failed == nil {
		return found, nil
	}
	for _, l := range found {
		l.Close()
	}
	return nil, failed
}
