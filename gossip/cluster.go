package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// eventName marks this package's user events.
const eventName = "rp"

// closeWithin bounds Close.
const closeWithin = 5 * time.Second

// Stats counts since New.
type Stats struct {
	Announced uint64 // messages published
	Received  uint64 // messages that came and could be read, own ones included
	News      uint64 // of these, how many said something new
	Malformed uint64 // dropped: not a record that this version knows
	Oversized uint64 // dropped: longer than a record may be
	Warnings  uint64 // logged by Serf and memberlist
}

// Cluster is this process's membership. All methods may be called by many
// goroutines.
type Cluster struct {
	cfg    Config
	log    *slog.Logger
	serf   *serf.Serf
	addr   string
	events chan serf.Event
	kick   chan struct{} // the own record changed
	wake   chan struct{} // an address to join came

	mu     sync.Mutex
	table  *table
	own    own
	seeds  map[string]bool // address to join: has answered
	queued []Member        // for OnMember
	told   chan struct{}   // queued grew

	announced, received, news, malformed, oversized, warnings atomic.Uint64

	ctx     context.Context
	cancel  context.CancelFunc
	parts   sync.WaitGroup // all but the reader of events
	reader  chan struct{}  // closed when the reader ended
	closing sync.Once
	closed  error
}

// New binds the address and returns a member of a cluster of one. It joins in the
// background and keeps trying until one of cfg.Join answers; that none does is no
// error. Close ends it.
func New(cfg Config) (*Cluster, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg: cfg, log: cfg.Logger, table: newTable(), own: own{epoch: cfg.Epoch}, seeds: map[string]bool{},
		events: make(chan serf.Event, 4096), kick: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		told: make(chan struct{}, 1), reader: make(chan struct{}),
	}
	for _, addr := range cfg.Join {
		if err := c.joinable(addr); err != nil {
			return nil, err
		}
		c.seeds[addr] = false
	}
	conf, err := c.serfConfig()
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	stop := make(chan struct{})
	go func() { defer close(c.reader); c.read(stop) }()
	if c.serf, err = serf.Create(conf); err != nil {
		c.cancel()
		close(stop)
		<-c.reader
		return nil, fmt.Errorf("cannot gossip on %s: %w", cfg.Bind, err)
	}
	c.addr = memberOf(c.serf.LocalMember()).hostPort()
	context.AfterFunc(c.ctx, func() { <-c.serf.ShutdownCh(); close(stop) })
	c.parts.Go(c.publish)
	c.parts.Go(c.joinLoop)
	c.parts.Go(c.tell)
	return c, nil
}

func (c *Cluster) serfConfig() (*serf.Config, error) {
	ip, port, err := splitIP(c.cfg.Bind)
	if err != nil {
		return nil, err
	}
	logger := newBridge(c.log, &c.warnings)
	m := memberlist.DefaultLANConfig()
	m.BindAddr, m.BindPort = ip.String(), port
	m.AdvertiseAddr, m.AdvertisePort = ip.String(), port
	if c.cfg.Advertise != "" {
		ip, port, err := splitAdvertise(c.cfg.Advertise)
		if err != nil {
			return nil, err
		}
		m.AdvertiseAddr = ip.String()
		if port != 0 {
			m.AdvertisePort = port
		}
	}
	m.Logger = logger
	m.EnableCompression = false // costs most of the CPU for packets of half the size
	m.HandoffQueueDepth = 8192
	m.TCPTimeout = 4 * time.Second // a member that does not answer holds Close up for so long
	m.ProbeInterval, m.PushPullInterval = c.cfg.tuning.probe, c.cfg.tuning.pushPull
	m.ProbeTimeout = min(m.ProbeTimeout, m.ProbeInterval/2)
	m.GossipInterval = min(m.GossipInterval, m.ProbeInterval)
	m.DeadNodeReclaimTime = time.Second // an agent may come back at another address
	if len(c.cfg.Key) > 0 {
		m.SecretKey = c.cfg.Key
	} else {
		m.CIDRsAllowed, _ = memberlist.ParseCIDRs([]string{"127.0.0.0/8", "::1/128"})
	}
	conf := serf.DefaultConfig()
	conf.NodeName, conf.MemberlistConfig, conf.Logger, conf.EventCh = c.cfg.Name, m, logger, c.events
	conf.Tags = map[string]string{"role": c.cfg.Role, "version": c.cfg.Version}
	if c.cfg.Rack != "" {
		conf.Tags["rack"] = c.cfg.Rack
	}
	conf.ReconnectInterval = c.cfg.tuning.reconnect
	conf.UserEventSizeLimit = maxPayload + len(eventName)
	conf.DisableCoordinates = true            // half of the traffic at rest, and not used
	conf.EnableNameConflictResolution = false // it would shut one of the two down
	conf.BroadcastTimeout, conf.LeavePropagateDelay = c.cfg.tuning.leave, c.cfg.tuning.leave
	return conf, nil
}

// Addr is the address that others join, "host:port".
func (c *Cluster) Addr() string { return c.addr }

// Members lists the cluster as seen from here, this member among it, sorted by name.
func (c *Cluster) Members() []Member {
	found := c.serf.Members()
	all := make([]Member, len(found))
	for i, m := range found {
		all[i] = memberOf(m)
	}
	sortMembers(all)
	return all
}

// Peers lists the newest record of each agent that was ever heard of, the own one
// included, sorted by name. Agents that failed or left are among them, with what
// they said last and its age.
func (c *Cluster) Peers() []Peer {
	status := map[string]string{}
	for _, m := range c.serf.Members() {
		status[m.Name] = memberOf(m).Status
	}
	c.mu.Lock()
	all := c.table.peers(time.Now())
	c.mu.Unlock()
	for i := range all {
		if all[i].Status = status[all[i].Name]; all[i].Status == "" {
			all[i].Status = StatusUnknown
		}
	}
	return all
}

// Stats returns the counters.
func (c *Cluster) Stats() Stats {
	return Stats{
		Announced: c.announced.Load(), Received: c.received.Load(), News: c.news.Load(),
		Malformed: c.malformed.Load(), Oversized: c.oversized.Load(), Warnings: c.warnings.Load(),
	}
}

// Close leaves the cluster, so that the others see this member as left, and ends
// all that New started. It takes ten seconds at most, commonly one, and may be called twice.
// Records are not taken back: the others go on showing them.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		c.cancel()
		left := make(chan error, 1)
		go func() { left <- c.serf.Leave() }()
		select {
		case err := <-left:
			if err != nil {
				c.closed = fmt.Errorf("cannot leave the gossip cluster: %w", err)
			}
		case <-time.After(closeWithin):
			c.closed = errors.New("cannot leave the gossip cluster in time")
		}
		if err := c.serf.Shutdown(); err != nil && c.closed == nil {
			c.closed = fmt.Errorf("cannot end gossip: %w", err)
		}
		c.parts.Wait()
		<-c.reader
	})
	return c.closed
}

// read takes events at once, so that Serf never waits for us, until stop.
func (c *Cluster) read(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case e := <-c.events:
			c.take(e)
		}
	}
}

func (c *Cluster) take(e serf.Event) {
	switch e := e.(type) {
	case serf.UserEvent:
		if e.Name == eventName {
			c.receive(e.Payload)
		}
	case serf.MemberEvent:
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, m := range e.Members {
			c.changed(e.EventType(), memberOf(m))
		}
	}
}

// changed notes a member's change. The caller holds mu.
func (c *Cluster) changed(what serf.EventType, m Member) {
	switch {
	case what == serf.EventMemberReap:
		c.table.forget(m.Name)
	case what == serf.EventMemberJoin && m.Name != c.cfg.Name:
		c.own.greet = true
		signal(c.kick)
	}
	c.log.Debug("member", "name", m.Name, "status", m.Status, "what", what.String())
	if c.cfg.OnMember != nil {
		c.queued = append(c.queued, m)
		signal(c.told)
	}
}

// receive merges a message.
func (c *Cluster) receive(payload []byte) {
	m, err := decode(payload)
	switch {
	case errors.Is(err, errOversized):
		c.oversized.Add(1)
	case err != nil:
		c.malformed.Add(1)
		c.log.Debug("record dropped", "err", err)
	case c.cfg.tuning.drop != nil && c.cfg.tuning.drop(m):
	default:
		c.received.Add(1)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.table.merge(m, time.Now()) {
			c.news.Add(1)
		}
		if m.agent == c.cfg.Name && c.own.outdo(m) {
			c.log.Warn("a newer record of this agent is about: its epoch was raised", "epoch", c.own.epoch)
			signal(c.kick)
		}
	}
}

// tell calls OnMember.
func (c *Cluster) tell() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.told:
		}
		c.mu.Lock()
		batch := c.queued
		c.queued = nil
		c.mu.Unlock()
		for _, m := range batch {
			c.cfg.OnMember(m)
		}
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// alone reports whether no other member is alive.
func (c *Cluster) alone() bool {
	for _, m := range c.serf.Members() {
		if m.Status == serf.StatusAlive && m.Name != c.cfg.Name {
			return false
		}
	}
	return true
}

// memberAt reports whether a live member other than this one has the address.
func (c *Cluster) memberAt(addr string) bool {
	for _, m := range c.serf.Members() {
		if m.Status == serf.StatusAlive && net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))) == addr {
			return true
		}
	}
	return false
}
