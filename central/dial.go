package central

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"rackpower/central/api"
	"rackpower/central/httpserver"
)

// Central joins the gossip of agents at addresses that they name, which must not have it
// dial anywhere: an agent may name an address of the host that its connection comes from,
// and what gossip knows as its own already. Any other agent joins central by itself.

// mayDial says why central does not dial an agent's gossip at the address, nil if it may.
func (c *Central) mayDial(r *http.Request, agent, addr string) error {
	if addr == "" {
		return nil
	}
	at, err := api.GossipAddr(addr)
	if err != nil {
		return err
	}
	if members, err := c.listMembers(r); err == nil && gossipAddress(agent, members) == addr {
		return nil
	}
	from, here := hostOf(r)
	switch {
	case here && c.isOwn(at.Addr()), from.IsValid() && from == at.Addr():
		return nil
	case here:
		return errors.New("it is no address of central's machine, where the connection comes from (through a tunnel, perhaps)")
	case from.IsValid():
		return fmt.Errorf("the connection comes from %s", from)
	default:
		return errors.New("it is not known where the connection comes from")
	}
}

// hostOf is where a connection comes from; here: from this machine.
func hostOf(r *http.Request) (from netip.Addr, here bool) {
	if httpserver.OnSocket(r.Context()) {
		return netip.Addr{}, true
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	from = at.Addr().Unmap()
	return from, from.IsLoopback()
}

// isOwn reports whether an address is one of this machine.
func (c *Central) isOwn(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	own, err := c.interfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		mine, ok := netip.AddrFromSlice(n.IP)
		return ok && mine.Unmap() == ip.WithZone("")
	})
}

// notDialled counts and says, once for each address, that an agent named an address that
// central does not dial.
func (u *unitOfWork) notDialled(d *agentSession, addr string, why error) error {
	d.mu.Lock()
	again := d.strayGossip == addr
	d.strayGossip = addr
	d.mu.Unlock()
	if again || why == nil {
		return nil
	}
	what := fmt.Sprintf("the gossip address %.80q, which central does not dial: %v; the agent has to join central by itself", addr, why)
	return u.disown(d.name, foreignReport{what: what})
}
