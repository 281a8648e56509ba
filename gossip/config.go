package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
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
	// OtherKeys are accepted beside Key, while a cluster changes its key.
	OtherKeys []Key
	// KeyringFile keeps the keys over restarts (mode 0600; a copy lies beside it). Once
	// it exists its keys stand, and Key and OtherKeys are not looked at: they may be
	// older than the last change of keys. Empty: a restart begins with Key again.
	KeyringFile string
	// OnKeys is told of the keys, the primary first, at the start and within Sync of
	// each change. It must not call Close.
	OnKeys func([]Key)
	// RPC is the host:port of an endpoint for Serf's own tools, on the loopback only.
	// Empty: none.
	RPC string
	// RPCToken has to be given by RPC clients, when set. Keys are only listed and
	// changed by RPC when it is: every user of the machine can reach the loopback.
	RPCToken Token
	// CanReach says whether this agent can reach the BMC of a node, and how (at most 64
	// bytes). The question is the node's name, with the BMC's address behind a space
	// where the asker knows it. It is called by one goroutine and should take a second
	// at most: while it waits, others get no answer. Nil: no.
	CanReach func(question string) (reach string, ok bool)
	// Epoch is how often this agent's journal was opened: it only grows, and records
	// of a higher epoch beat all of a lower one. Zero: the wall clock in seconds,
	// which is larger than any count.
	Epoch uint64
	// Announce is the time after which the ages of a record are published again though
	// nothing else changed; it is longer in clusters of more than 16. Default 10 s.
	Announce time.Duration
	// Sync is the time between two exchanges with a random member at rest. It bounds
	// how long a change that was missed stays unknown. Default 5 s.
	Sync time.Duration
	// OnMember is told of changes of members, one call at a time and in their order.
	// It may take its time and may call the Cluster, but not Close.
	OnMember func(Member)
	Logger   *slog.Logger

	tuning tuning
}

// tuning holds what only tests change.
type tuning struct {
	probe     time.Duration // between two looks at whether a member is alive
	tombstone time.Duration // how long a failed or left member is kept
	reap      time.Duration // between two looks for such
	gossip    time.Duration // between two rounds of gossip
	pushPull  time.Duration // between two exchanges of all that Serf knows
	reconnect time.Duration // between two tries to reach a failed member
	leave     time.Duration // bounds each of the three steps of leaving
	retry     time.Duration // first wait before joining is tried again
	drop      func(message) bool
	wrap      func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
	noSync    bool // no exchanges are begun
	deaf      bool // events are not heard
}

func (t tuning) withDefaults() tuning {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.probe, time.Second},
		{&t.pushPull, 30 * time.Second},
		{&t.reconnect, 5 * time.Second},
		{&t.leave, 600 * time.Millisecond},
		{&t.retry, 500 * time.Millisecond},
		{&t.tombstone, 24 * time.Hour},
		{&t.reap, 15 * time.Second},
		{&t.gossip, 100 * time.Millisecond},
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
	if c.Sync <= 0 {
		c.Sync = 5 * time.Second
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
	if len(c.Key) > 0 {
		if err := c.Key.valid(); err != nil {
			return err
		}
	}
	keys, err := c.ring()
	if err != nil {
		return err
	}
	if err := validRPC(c.RPC); err != nil {
		return err
	}
	return c.validAddresses(len(keys) > 0)
}

func (c Config) validAddresses(sealed bool) error {
	ip, _, err := splitIP(c.Bind)
	if err != nil {
		return err
	}
	if err := private(sealed, "listen at", ip); err != nil {
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
	return private(sealed, "advertise", ip)
}

func validMember(name string) error {
	if name == "" || len(name) > maxMember {
		return fmt.Errorf("cannot gossip as %q: a member's name has 1 to %d bytes", name, maxMember)
	}
	if !readable(name) || strings.Contains(name, " ") {
		return fmt.Errorf("cannot gossip as %q: a member's name has no spaces or control characters", name)
	}
	return nil
}

// ErrNeedsKey says that a configuration lacks nothing but a key.
var ErrNeedsKey = errors.New("gossip would leave this machine unencrypted")

// private refuses an address at which plain text would leave the machine.
func private(sealed bool, verb string, ip net.IP) error {
	if sealed || ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("cannot %s %s: %w, and anyone who can send there could forge "+
		"what every node's power is; give a gossip key, or use an address of the loopback (127.0.0.1)", verb, ip, ErrNeedsKey)
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
