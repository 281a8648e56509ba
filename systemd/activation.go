package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listener returns the socket that the manager opened under the given name
// (FileDescriptorName=), or nil when it opened none. Each name is to be asked for
// once, and all at the start: the environment is used up by the first call of a
// process.
func Listener(name string) (net.Listener, error) {
	sockets, err := sockets()
	if err != nil {
		return nil, fmt.Errorf("cannot take over the sockets of systemd: %w", err)
	}
	return sockets[name], nil
}

var taken map[string]net.Listener

func sockets() (map[string]net.Listener, error) {
	if taken != nil {
		return taken, nil
	}
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, err
	}
	taken = map[string]net.Listener{}
	for name, listeners := range byName {
		for _, l := range listeners {
			if l != nil && taken[name] == nil {
				taken[name] = l
			}
		}
	}
	return taken, nil
}
