package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// Roles of members.
const (
	RoleAgent   = "agent"
	RoleCentral = "central"
)

// maxMemberName bounds a member's name, in bytes.
const maxMemberName = 128

// Config is what a member needs. Name and Bind have no default.
type Config struct {
	// Name is unique in the cluster: an agent's own name, "central" for central.
	Name string
	// Role is RoleAgent (the default) or RoleCentral; Rack and Version are shown to
	// people. The three travel as tags and must stay below 450 bytes together.
	Role, Rack, Version string
	// Bind is the host:port to listen on with UDP and TCP; port 0 takes a free one.
	Bind string
	// Advertise is the host or host:port that others reach this member at. Default:
	// what it is bound to.
	Advertise string
	// Join lists the host:port of other members. They need not be up.
	Join []string
	// Epoch is how often this agent's journal was opened; it only grows, and a
	// record of a higher epoch beats all of a lower one. Zero: the wall clock in
	// seconds, which is larger than any count.
	Epoch uint64
	// OnMember is told of each change of another member's status, the newest one
	// only when several follow fast. Calls come one at a time; it may take its time
	// and may call the Cluster.
	OnMember func(Member)
	Logger   *slog.Logger

	timing timing
	tune   func(*memberlist.Config) // tests detect failures faster
}

// timing holds the waits of the loop; tests shorten them.
type timing struct {
	gap, gapPerQueued, gapMax          time.Duration // between records of this member
	refresh, refreshPerPeer            time.Duration // a record is sent again after
	pullDelay, pullRetry, pullRetryMax time.Duration // until a missing record is asked for
	pullTimeout                        time.Duration // answers are awaited for
	reorder                            time.Duration // records overtake each other within
	joinRetry, joinRetryMax            time.Duration
	forget                             time.Duration // records of those who are no members
}

func (t timing) withDefaults() timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.gap, 250 * time.Millisecond}, {&t.gapPerQueued, 20 * time.Millisecond}, {&t.gapMax, 10 * time.Second},
		{&t.refresh, 10 * time.Second}, {&t.refreshPerPeer, 500 * time.Millisecond},
		{&t.pullDelay, 700 * time.Millisecond}, {&t.pullRetry, 3 * time.Second}, {&t.pullRetryMax, 30 * time.Second},
		{&t.pullTimeout, 3 * time.Second},
		{&t.reorder, 2 * time.Second},
		{&t.joinRetry, 500 * time.Millisecond}, {&t.joinRetryMax, 10 * time.Second},
		{&t.forget, tombstone},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return t
}

func (c Config) withDefaults() Config {
	if c.Role == "" {
		c.Role = RoleAgent
	}
	if c.Epoch == 0 {
		c.Epoch = uint64(time.Now().Unix())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.timing = c.timing.withDefaults()
	return c
}

// Validate says what is wrong with the configuration. It looks up host names, for
// at most 5 s.
func (c Config) Validate() error {
	if err := validName(c.Name); err != nil {
		return err
	}
	bind, _, err := splitAddr("listen on", c.Bind, -1)
	if err != nil {
		return err
	}
	if err := loopbackOnly("listen on", bind); err != nil {
		return err
	}
	if c.Advertise != "" {
		adv, _, err := splitAddr("advertise", c.Advertise, 0)
		if err != nil {
			return err
		}
		if err := loopbackOnly("advertise", adv); err != nil {
			return err
		}
	}
	for _, a := range c.Join {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return fmt.Errorf("cannot join %q: want host:port", a)
		}
		if ip := net.ParseIP(host); ip != nil {
			if err := loopbackOnly("join", ip); err != nil {
				return err
			}
		}
	}
	return nil
}

func validName(name string) error {
	if name == "" || len(name) > maxMemberName {
		return fmt.Errorf("cannot gossip as %q: a member's name has 1 to %d bytes", name, maxMemberName)
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f {
			return fmt.Errorf("cannot gossip as %q: a member's name has no spaces or control characters", name)
		}
	}
	return nil
}

// splitAddr reads host:port and looks the host up. An address without a port
// takes the default one; a negative default asks for a port.
func splitAddr(verb, addr string, defaultPort int) (net.IP, int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil && defaultPort >= 0 {
		host, portText, err = addr, strconv.Itoa(defaultPort), nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot %s %q: want host:port", verb, addr)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot %s %q: %q is no port", verb, addr, portText)
	}
	if host == "" {
		return net.IPv4zero, int(port), nil
	}
	ip, err := lookup(host)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot %s %q: %w", verb, addr, err)
	}
	return ip, int(port), nil
}

// lookup finds the address of a host; an IPv4 one is preferred.
func lookup(host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip, nil
		}
	}
	return ips[0], nil
}

// loopbackOnly refuses an address that plain text must not leave through.
func loopbackOnly(verb string, ip net.IP) error {
	if ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("cannot %s %s: gossip is not encrypted, and whoever can send to a member can forge the power of "+
		"every node; use an address of the loopback (127.0.0.1) and carry gossip between hosts through an encrypted tunnel "+
		"that ends there", verb, ip)
}
