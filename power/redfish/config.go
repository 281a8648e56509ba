package redfish

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"rackpower/power"
)

// The defaults of Config.
const (
	DefaultTimeout      = 15 * time.Second
	DefaultReadTimeout  = 10 * time.Second
	DefaultCloseTimeout = time.Second
	DefaultProbeTimeout = 3 * time.Second
	DefaultReuse        = 2 * time.Second
	DefaultTaskWait     = 5 * time.Second
	DefaultNotReady     = 2 * time.Minute
)

// Bounds of what a BMC may send.
const (
	maxHeader  = 64 << 10
	maxAnswer  = 1 << 20
	maxDepth   = 32
	maxMembers = 64 // of a collection
)

// keepAlive is how long a connection may be idle: some BMCs cut theirs after 30 s.
const keepAlive = 20 * time.Second

// Lookup finds the addresses of a host.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Config says how patient a Dialer and its sessions are. The zero Config has every default.
type Config struct {
	// Timeout bounds a Dial, and the wait for the answer to a command. 0: 15 s.
	Timeout time.Duration
	// ReadTimeout bounds a read. 0: 10 s.
	ReadTimeout time.Duration
	// CloseTimeout bounds the end of a session. 0: 1 s.
	CloseTimeout time.Duration
	// ProbeTimeout bounds a Probe. 0: 3 s.
	ProbeTimeout time.Duration
	// Reuse is how long a connection may have been idle when a command leaves on it; after
	// that a new one is opened, since the BMC may be about to close the old one. 0: 2 s.
	Reuse time.Duration
	// TaskWait is how long a task is followed that a BMC makes of a command. 0: 5 s.
	TaskWait time.Duration
	// NotReady is how long a BMC may list no System after it started. 0: 2 min.
	NotReady time.Duration
	// Roots certify the BMCs whose key is not pinned. nil: those of the system do.
	Roots *x509.CertPool
	// Notes keep what must outlive the process. nil: nothing does.
	Notes power.Notes
	// Lookup finds the addresses of BMCs that are known by name. nil: as the system does.
	Lookup Lookup
	// Log is told at level debug of detours. nil: nobody is.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Timeout, DefaultTimeout},
		{&c.ReadTimeout, DefaultReadTimeout},
		{&c.CloseTimeout, DefaultCloseTimeout},
		{&c.ProbeTimeout, DefaultProbeTimeout},
		{&c.Reuse, DefaultReuse},
		{&c.TaskWait, DefaultTaskWait},
		{&c.NotReady, DefaultNotReady},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if c.Lookup == nil {
		c.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
