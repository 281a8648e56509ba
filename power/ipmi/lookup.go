package ipmi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"rackpower/power"
)

// Lookup finds the addresses of a host, the likeliest first, until ctx ends.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// systemLookup asks as the system does: hosts file, then name servers.
func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// lookUpEvery is how old the address of a name may be under a read. A command that
// acts has it looked up each time.
const lookUpEvery = 5 * time.Second

// errMoved says that a session is with an address that its BMC's name has no longer.
var errMoved = errors.New("the name of the BMC has another address now")

// addresses are those of the endpoint's host, within LookupTimeout. An address is
// its own.
func (c Config) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.LookupTimeout)
	defer cancel()
	addrs, err := c.Lookup(ctx, host)
	var dns *net.DNSError
	switch {
	case err == nil && len(addrs) == 0, errors.As(err, &dns) && dns.IsNotFound:
		return nil, fmt.Errorf("the name %s has no address", host)
	case errors.As(err, &dns) && dns.IsTimeout || errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("cannot look up the name %s: no answer from the name server within %s", host, seconds(c.LookupTimeout))
	case dns != nil:
		return nil, fmt.Errorf("cannot look up the name %s: %s", host, dns.Err)
	case err != nil:
		return nil, fmt.Errorf("cannot look up the name %s: %w", host, err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// stays looks the BMC's name up again, unless that was done within the given time, and
// reports whether the session is still with an address of it. What cannot be looked up
// may have moved.
func (s *session) stays(ctx context.Context, op string, within time.Duration) *power.Error {
	if s.lost != nil || !s.named() || within > 0 && time.Since(s.link.at) < within {
		return nil
	}
	if ended(ctx) != nil {
		return failed(ctx, op, false, nil)
	}
	addrs, err := s.cfg.addresses(ctx, s.ep.Host)
	switch {
	case err != nil && ended(ctx) != nil:
		return failed(ctx, op, false, nil)
	case err != nil:
		return &power.Error{Kind: power.KindUnreachable, Op: op, Err: fmt.Errorf("%w; nothing is sent to the address that it had", err)}
	case !slices.Contains(addrs, s.link.peer):
		return s.lose(&power.Error{Kind: power.KindUnreachable, Op: op, Lost: true, Err: errMoved})
	}
	s.link.at = time.Now()
	return nil
}

// named reports whether the BMC is known by a name that may move.
func (s *session) named() bool {
	_, err := netip.ParseAddr(s.ep.Host)
	return err != nil && s.ep.Host != ""
}

// seconds writes a duration as people say it.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'g', 3, 64) + " s"
}
