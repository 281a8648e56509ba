package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"
)

// Roles of members.
const (
	RoleAgent   = "agent"
	RoleCentral = "central"
)

const (
	maxMember = 128 // bytes in a member's name
	maxName   = 253 // bytes in a node's name
)

// Key encrypts gossip: 16, 24 or 32 bytes, the same for all members. It never
// shows itself.
type Key []byte

// String hides the key.
func (Key) String() string { return "redacted" }

// GoString hides the key.
func (Key) GoString() string { return "redacted" }

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue("redacted") }

// MarshalText hides the key.
func (Key) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// Config is what a member needs. Name and Bind have no default.
type Config struct {
	// Name is unique in the cluster: an agent's own name, "central" for central.
	Name string
	// Role is RoleAgent (the default) or RoleCentral; Rack and Version are shown to
	// people. The three travel as tags and may have some 450 bytes together.
	Role, Rack, Version string
	// Bind is the host:port to listen at, with UDP and TCP; port 0 takes a free one.
	Bind string
	// Advertise is the host or host:port that others reach this member at. Default:
	// what it is bound to.
	Advertise string
	// Join lists the host:port of other members, which need not be up.
	Join []string
	// Key encrypts all that is sent. Without one, New refuses every address beyond
	// the loopback.
	Key Key
	// Epoch is how often this agent's journal was opened: it only grows, and records
	// of a higher epoch beat all of a lower one. Zero: the wall clock in seconds,
	// which is larger than any count.
	Epoch uint64
	// Announce is the time after which a record is published again though nothing
	// changed; it is longer in clusters of more than 33. Default 10 s.
	Announce time.Duration
	// OnMember is told of changes of members, one call at a time and in their order.
	// It may take its time and may call the Cluster, but not Close.
	OnMember func(Member)
	Logger   *slog.Logger

	tuning tuning
}

// tuning holds what only tests change.
type tuning struct {
	probe     time.Duration // between two looks at whether a member is alive
	pushPull  time.Duration // between two exchanges of all that Serf knows
	reconnect time.Duration // between two tries to reach a failed member
	leave     time.Duration // bounds each of the three steps of leaving
	retry     time.Duration // first wait before joining is tried again
	drop      func(message) bool
}

func (t tuning) withDefaults() tuning {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.probe, time.Second}, {&t.pushPull, 15 * time.Second}, {&t.reconnect, 5 * time.Second},
		{&t.leave, 600 * time.Millisecond}, {&t.retry, 500 * time.Millisecond},
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
	if c.Announce <= 0 {
		c.Announce = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.tuning = c.tuning.withDefaults()
	return c
}

// Validate says what is wrong with the configuration. Host names are looked up,
// for at most 5 s each.
func (c Config) Validate() error {
	if err := validMember(c.Name); err != nil {
		return err
	}
	switch len(c.Key) {
	case 0, 16, 24, 32:
	default:
		return fmt.Errorf("cannot gossip with a key of %d bytes: want 16, 24 or 32", len(c.Key))
	}
	ip, _, err := splitIP(c.Bind)
	if err != nil {
		return err
	}
	if err := c.private("listen at", ip); err != nil {
		return err
	}
	if c.Advertise == "" {
		if ip.IsUnspecified() {
			return fmt.Errorf("cannot gossip at %s: others cannot be told to come to every address; say which (--advertise)", c.Bind)
		}
		return nil
	}
	if ip, _, err = splitAdvertise(c.Advertise); err != nil {
		return err
	}
	return c.private("advertise", ip)
}

func validMember(name string) error {
	if name == "" || len(name) > maxMember {
		return fmt.Errorf("cannot gossip as %q: a member's name has 1 to %d bytes", name, maxMember)
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f {
			return fmt.Errorf("cannot gossip as %q: a member's name has no spaces or control characters", name)
		}
	}
	return nil
}

// private refuses an address at which plain text would leave the machine.
func (c Config) private(verb string, ip net.IP) error {
	if len(c.Key) > 0 || ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("cannot %s %s: gossip would leave this machine unencrypted, and whoever can send there could forge "+
		"what every node's power is; give a gossip key, or use an address of the loopback (127.0.0.1)", verb, ip)
}

// splitIP reads host:port and looks the host up; without a host it is every
// address.
func splitIP(addr string) (net.IP, int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot gossip at %q: want HOST:PORT", addr)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot gossip at %q: %q is no port", addr, portText)
	}
	if host == "" {
		return net.IPv4zero, int(port), nil
	}
	ip, err := resolve(host)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot gossip at %q: its name is not known: %w", addr, err)
	}
	return ip, int(port), nil
}

// splitAdvertise is splitIP for an address that may lack the port (then 0), but
// not the host.
func splitAdvertise(addr string) (net.IP, int, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, "0")
	}
	ip, port, err := splitIP(addr)
	if err != nil {
		return nil, 0, err
	}
	if ip.IsUnspecified() {
		return nil, 0, fmt.Errorf("cannot advertise %q: others need one address", addr)
	}
	return ip, port, nil
}

// resolve finds the address of a host, an IPv4 one if there is one.
func resolve(host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupWithin)
	defer cancel()
	found, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for _, ip := range found {
		if ip.To4() != nil {
			return ip, nil
		}
	}
	return found[0], nil
}
