package bmcsim

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"rackpower/power"
)

// What a Config that leaves them empty gets.
const (
	DefaultUser     = "admin"
	DefaultPassword = power.Secret("simulated")
	// DefaultSessions is how many sessions a BMC has room for.
	DefaultSessions = 32
	// DefaultBootTime is how long a BMC is silent after a Cold Reset.
	DefaultBootTime = 3 * time.Second
	// DefaultIdle is the time after which a BMC drops a session that it heard
	// nothing of (IPMI v2.0 section 6.12.15).
	DefaultIdle = 60 * time.Second
)

// Config describes a farm.
type Config struct {
	// Count is the number of BMCs, at least 1.
	Count int
	// Listen is the address of the first BMC; BMC i has the i-th one after it.
	// The zero Addr means 127.0.0.1.
	Listen netip.Addr
	// Port is the UDP port of every BMC. Zero: a free port each, see BMC.Endpoint.
	Port int
	// SameAddress puts all BMCs on Listen, at the ports Port to Port+Count-1.
	SameAddress bool

	// User and Password are the one account of each BMC, an administrator. At
	// most 16 and 20 bytes (IPMI v2.0 section 22.28, 22.30). Empty: DefaultUser,
	// DefaultPassword.
	User     string
	Password power.Secret

	// KG is the key K_g of each BMC, as power.ParseKG reads it: sessions need it beside
	// the password. Empty: they need the password alone.
	KG power.Secret

	// OnAfter and OffAfter are how long after its command a node is really on or
	// off, and shows it. Commands take effect in the order in which they came.
	OnAfter, OffAfter time.Duration
	// BootTime is how long a BMC is silent after a Cold Reset; zero: DefaultBootTime.
	BootTime time.Duration
	// Initial is the power of each node at the start; empty: off. A StateFile
	// that knows the node overrides it.
	Initial power.State
	// Seed makes lost packets and GUIDs repeatable.
	Seed int64

	// LogFile, if set, gets every Entry of every BMC appended as a line of JSON,
	// before the command is answered.
	LogFile string
	// StateFile, if set, keeps the power of each node over a restart of the farm.
	StateFile string
	// Control, if set, is where the farm can be watched and its BMCs be broken
	// from outside: "127.0.0.1:PORT", or the path of a unix socket.
	Control string

	// Redfish, if set, gives each BMC a Redfish service beside IPMI.
	Redfish *Redfish

	// Names names the BMCs; nil: bmc1, bmc2, ... Names are unique and have no "/".
	Names func(i int) string
	// Logger gets what concerns the farm itself; nil: nothing is logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if !c.Listen.IsValid() {
		c.Listen = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if c.User == "" {
		c.User = DefaultUser
	}
	if c.Password == "" {
		c.Password = DefaultPassword
	}
	if c.BootTime == 0 {
		c.BootTime = DefaultBootTime
	}
	if c.Initial == "" {
		c.Initial = power.Off
	}
	if c.Names == nil {
		c.Names = func(i int) string { return "bmc" + strconv.Itoa(i+1) }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate says what is wrong with the configuration, after defaults.
func (c Config) Validate() error {
	switch {
	case c.Count < 1:
		return fmt.Errorf("cannot simulate %d BMCs: the count must be at least 1", c.Count)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("cannot listen on port %d: it is not between 0 and 65535", c.Port)
	case c.SameAddress && c.Port > 0 && c.Port+c.Count-1 > 65535:
		return fmt.Errorf("cannot put %d BMCs on one address from port %d: the last would be beyond 65535", c.Count, c.Port)
	case c.Redfish != nil && (c.Redfish.Port < 0 || c.Redfish.Port > 65535):
		return fmt.Errorf("cannot listen on port %d for Redfish: it is not between 0 and 65535", c.Redfish.Port)
	case c.Redfish != nil && c.SameAddress && c.Redfish.Port > 0 && c.Redfish.Port+c.Count-1 > 65535:
		return fmt.Errorf("cannot put %d BMCs on one address from port %d for Redfish: the last would be beyond 65535",
			c.Count, c.Redfish.Port)
	case len(c.User) > 16:
		return errors.New("cannot use a user name of more than 16 bytes")
	case len(c.Password) > 20:
		return errors.New("cannot use a password of more than 20 bytes")
	case c.wrongKG() != nil:
		return fmt.Errorf("cannot use the key: %w", c.wrongKG())
	case c.OnAfter < 0 || c.OffAfter < 0 || c.BootTime < 0:
		return errors.New("cannot use a negative delay")
	case c.Initial != "" && c.Initial != power.On && c.Initial != power.Off:
		return fmt.Errorf("cannot start nodes in state %q: want on or off", c.Initial)
	}
	return nil
}

func (c Config) wrongKG() error {
	_, err := power.ParseKG(c.KG)
	return err
}
