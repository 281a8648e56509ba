package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/journal"
	"rackpower/power"
)

// Timing bounds the waits around commands. The zero value of a field means its
// default; tests shorten them.
type Timing struct {
	monitor.Timing
	// Verify holds how long the state is read after the first, second and third
	// command before the next is sent, or the operation fails. Its length is how
	// often a command is sent at most. Default 30 s, 60 s, 90 s.
	Verify []time.Duration
	// FirstLook is the wait before the first read after a command of which it is not known
	// how long it takes; waits grow with the time that has passed, up to LongLook. Default
	// 250 ms and 5 s.
	FirstLook, LongLook time.Duration
	// Unreachable is how long a BMC may give no answer before the operation
	// fails. Default 60 s.
	Unreachable time.Duration
	// Retry is the first wait before a failed read is tried again; it doubles up to
	// LongRetry. Default 500 ms and 10 s.
	Retry, LongRetry time.Duration
	// MinOff is how long a cycle leaves a node off. Default 5 s.
	MinOff time.Duration
	// Exchange bounds one exchange with a BMC, whatever the driver does. Default 30 s.
	Exchange time.Duration
	// KeepSession is how long an idle session to a BMC is kept. Default 20 s;
	// negative: sessions are closed after each use.
	KeepSession time.Duration
	// SessionAge is how old a session may be that is used again: what the BMC said when
	// it was opened may be so no longer. Default 1 min.
	SessionAge time.Duration
	// BMCReset is how long a BMC may take to come back. Default power.WaitForBMC.
	BMCReset time.Duration
	// Probe is the pause before a BMC that does not answer is probed; it doubles up to
	// LongProbe. Default 30 s and 10 min.
	Probe, LongProbe time.Duration
	// ProbeAnswer is how long the answer to a probe may take. Default 2 s.
	ProbeAnswer time.Duration
	// SlowRead is after how long at the latest a reading counts as slow and makes
	// room for another. Default 1 s.
	SlowRead time.Duration
	// KeepEnded is how long ended operations are remembered for questions at the
	// rack's socket. Default 1 h.
	KeepEnded time.Duration
}

// What a monitor goes by where nothing else is set.
const (
	DefaultMonitor  = monitor.DefaultSchedule
	DefaultDebounce = monitor.DefaultDebounce
)

// MonitorOff as a schedule means that nothing is read or enforced by itself.
const MonitorOff = monitor.Off

func (t Timing) withDefaults() Timing {
	t.Timing = t.Timing.WithDefaults()
	if len(t.Verify) == 0 {
		t.Verify = []time.Duration{30 * time.Second, 60 * time.Second, 90 * time.Second}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.FirstLook, 250 * time.Millisecond},
		{&t.LongLook, 5 * time.Second},
		{&t.Unreachable, time.Minute},
		{&t.Retry, 500 * time.Millisecond},
		{&t.LongRetry, 10 * time.Second},
		{&t.MinOff, 5 * time.Second},
		{&t.Exchange, 30 * time.Second},
		{&t.KeepSession, 20 * time.Second},
		{&t.SessionAge, time.Minute},
		{&t.BMCReset, power.WaitForBMC},
		{&t.KeepEnded, time.Hour},
		{&t.Probe, 30 * time.Second},
		{&t.LongProbe, 10 * time.Minute},
		{&t.ProbeAnswer, 2 * time.Second},
		{&t.SlowRead, time.Second},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return t
}

// Config is what an agent needs. Name, Dir and Dial have no default.
type Config struct {
	Name    string // of the agent and of its rack
	Dir     string // its own state directory
	Version string
	// SealKeyFile has the keys that seal passwords in Dir, see package seal; "": seal.key in
	// Dir, which is made.
	SealKeyFile string
	Dial        power.Dialer
	// Probe asks a BMC that did not answer whether it is there, in one cheap exchange
	// without a log-in. nil: such a BMC is read instead.
	Probe func(context.Context, power.Endpoint) error
	// LookUp returns the addresses that the name of a BMC stands for. nil: names are not
	// looked up, and two for one BMC are not found.
	LookUp func(ctx context.Context, host string) ([]netip.Addr, error)
	// Forget has what was learnt of a BMC, such as a user's privilege, asked for again.
	// nil: Dial remembers nothing.
	Forget func(power.Endpoint)
	// UseNotes is given where what Dial must know after a crash is kept. nil: nothing is.
	UseNotes func(power.Notes)
	// Credentials returns those of a name that the rack keeps by itself, which stand over
	// central's of that name. nil: it has none.
	Credentials func(name string) (power.Login, bool)
	// Clock reads the clocks that leases go by: since the machine started, sleep included, and the
	// time of day without a monotonic reading. nil: those of the machine.
	Clock func() (sinceBoot time.Duration, wall time.Time)
	// Central is nil for an agent that works without one.
	Central Central
	// Monitor is the cron expression of the readings. Default "@every 60s"; "off"
	// reads nothing by itself.
	Monitor string
	// Workers bounds the readings under way at once, slow ones not counted. Default 512.
	Workers int
	Timing  Timing
	Logger  *slog.Logger

	wrapLog func(*Agent, opLog) opLog // tests put a failing disk or a crash here
	tuneLog func(*journal.Config)     // tests put a disk in memory here
	ring    *seal.Ring                // and the keys with it
}

// Central is what the agent needs of central; *[api.Client] is one.
type Central interface {
	// Target is where central is, for people.
	Target() string
	Hello(ctx context.Context, agent string, in api.Hello) (api.Welcome, error)
	Poll(ctx context.Context, agent string, in api.Poll) (api.Assignment, error)
	Report(ctx context.Context, agent string, in api.Report) (api.Reported, error)
	Goodbye(ctx context.Context, agent string, in api.Goodbye) error
}

// Gossip is what the agent needs of the cluster of agents.
type Gossip interface {
	api.Cluster
	// SetNodes publishes the power of all nodes of this rack. It does not block.
	SetNodes([]NodeView)
}

// NodeView is a node's power as the agent knows it.
type NodeView struct {
	Name string
	power.Reading
	Op power.Action // under way; empty: none
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Name == "":
		return fmt.Errorf("an agent needs a name (--name)")
	case c.Dir == "":
		return fmt.Errorf("an agent needs a directory for its state (--data)")
	case c.Dial == nil:
		return fmt.Errorf("an agent needs a power driver")
	}
	return monitor.CheckSchedule(c.Monitor)
}

func (c Config) withDefaults() Config {
	c.Timing = c.Timing.withDefaults()
	if c.Monitor == "" {
		c.Monitor = DefaultMonitor
	}
	if c.Workers == 0 {
		c.Workers = 512
	}
	if c.Clock == nil {
		c.Clock = machineClock
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
