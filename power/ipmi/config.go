package ipmi

import (
	"errors"
	"log/slog"
	"time"
)

// The defaults of Config.
const (
	DefaultTimeout       = 10 * time.Second
	DefaultReadTimeout   = 5 * time.Second
	DefaultFirstAnswer   = 2 * time.Second
	DefaultRAKPAnswer    = 3 * time.Second
	DefaultCloseTimeout  = time.Second
	DefaultProbeTimeout  = 2 * time.Second
	DefaultLookupTimeout = 3 * time.Second
)

// Config says how patient a Dialer and its sessions are. The zero Config has
// every default.
type Config struct {
	// Timeout bounds a whole Dial, and the wait for the answer to a command that
	// is sent once. 0: 10 s.
	Timeout time.Duration
	// ReadTimeout bounds a read on an open session, retransmissions included: how
	// long it takes to find out that the BMC was restarted. 0: 5 s.
	ReadTimeout time.Duration
	// FirstAnswer is the wait before the first retransmission, at most: a session of a BMC
	// that answers faster waits as long as its answers take, but not less than 250 ms. Each
	// further one waits half as long again. 0: 2 s.
	FirstAnswer time.Duration
	// RAKPAnswer is FirstAnswer for RAKP messages, over which slow BMCs compute
	// for a second. 0: 3 s.
	RAKPAnswer time.Duration
	// CloseTimeout bounds the wait for the answer to Close Session. 0: 1 s.
	CloseTimeout time.Duration
	// ProbeTimeout bounds a whole Probe. 0: 2 s.
	ProbeTimeout time.Duration
	// Lookup finds the addresses of BMCs that are known by name. nil: as the system does.
	Lookup Lookup
	// LookupTimeout bounds one Lookup. 0: 3 s.
	LookupTimeout time.Duration
	// Log is told at level debug of ignored packets and fallbacks. nil: nobody is.
	Log *slog.Logger
}

// withDefaults returns c with each zero field filled.
func (c Config) withDefaults() Config {
	fill := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	fill(&c.Timeout, DefaultTimeout)
	fill(&c.ReadTimeout, DefaultReadTimeout)
	fill(&c.FirstAnswer, DefaultFirstAnswer)
	fill(&c.RAKPAnswer, DefaultRAKPAnswer)
	fill(&c.CloseTimeout, DefaultCloseTimeout)
	fill(&c.ProbeTimeout, DefaultProbeTimeout)
	fill(&c.LookupTimeout, DefaultLookupTimeout)
	if c.Lookup == nil {
		c.Lookup = systemLookup
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate says what is wrong with c, if anything is.
func (c Config) Validate() error {
	for _, d := range []time.Duration{c.Timeout, c.ReadTimeout, c.FirstAnswer, c.RAKPAnswer, c.CloseTimeout, c.ProbeTimeout, c.LookupTimeout} {
		if d < 0 {
			return errors.New("cannot use the IPMI settings: a time-out is negative")
		}
	}
	return nil
}
