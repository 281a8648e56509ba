package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// eventName marks this package's user events.
const eventName = "rp"

const (
	// eventBuffer is how many of the last events Serf keeps and exchanges with all
	// else it knows, to tell old events from new ones.
	eventBuffer = 64
	// retransmit times the logarithm of the number of members is how often a member
	// passes a message on: 9 times among 100, so that one in 8,000 misses it, whom
	// exchanges tell. Each time costs all members the CPU to see that it is known.
	retransmit = 3
	// manyNews is how many events that are news between two exchanges make this member
	// look for those that it may have missed.
	manyNews = 10
	// maxQueue is how many messages of one kind may wait for being spread; the oldest
	// beyond are dropped.
	maxQueue = 2048
)

// closeWithin bounds Close.
const closeWithin = 5 * time.Second

// Stats counts since New, but for the depths, which are those of the moment.
type Stats struct {
	Announced uint64 // messages published
	Received  uint64 // messages that came and could be read, own ones included
	News      uint64 // of these, how many said something new
	Malformed uint64 // dropped: not a record or an exchange that this version knows
	Oversized uint64 // dropped: longer than a record may be
	Absurd    uint64 // dropped: of an epoch that no honest agent can have
	NoRoom    uint64 // dropped: of one agent more than the table takes
	Warnings  uint64 // logged by Serf and memberlist

	Exchanges       uint64 // made by this member, not those it answered
	ExchangesFailed uint64 // of either kind
	ExchangeBytes   uint64 // of both kinds, both ways
	Mends           uint64 // exchanges of all members, because two saw different ones
	Behind          bool   // something is known to be missing here or elsewhere

	ForeignKey uint64 // streams and packets refused: sealed with another gossip key
	Plain      uint64 // streams and packets refused: sealed where we are not, or not where we are
	Dropped    uint64 // streams, questions and changes of members dropped as a queue was full

	EventsWaiting  int // for being spread
	QueriesWaiting int
	IntentsWaiting int // joins and leaves
	Health         int // of this member in its own eyes: 0 is well, 8 is bad
}

// Cluster is this process's membership. All methods may be called by many
// goroutines.
type Cluster struct {
	cfg       Config
	log       *slog.Logger
	serf      *serf.Serf
	ring      *memberlist.Keyring // nil: not encrypted
	transport *transport
	rpc       *rpcServer // nil: none
	addr      string
	events    chan serf.Event
	kick      chan struct{} // the own record changed
	wake      chan struct{} // an address to join came
	nudged    chan struct{} // an exchange is wanted soon
	ready     chan struct{} // closed when serf is set
	room      chan struct{} // taken while an exchange is answered
	questions chan *serf.Query

	mu       sync.Mutex
	table    *table
	own      own
	seeds    map[string]seed     // by address to join
	standing map[string]standing // of members
	live     live                // of standing
	hearsay  map[string]standing // of agents that are no members here
	watchers map[*watcher]bool
	told     *watcher             // for OnMember
	stale    []Key                // to be forgotten, since Adopt
	warned   map[string]time.Time // source: when it was last said to be turned away

	// Of the goroutine of syncLoop alone.
	fresh    bool // nothing was compared yet
	calm     int  // exchanges in a row without news
	missed   int  // exchanges in a row that failed
	apart    int  // exchanges in a row that found other members
	mended   time.Time
	toldKeys []Key

	behind atomic.Bool
	flurry atomic.Int64 // events that were news since the last exchange

	announced, received, news, malformed, oversized, absurd, noRoom, warnings atomic.Uint64
	exchanges, exchangesFailed, exchangeBytes, mends                          atomic.Uint64
	foreignKey, plain, streamsFull, questionsDropped                          atomic.Uint64

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
	keys, err := cfg.ring()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg: cfg, log: cfg.Logger, table: newTable(), own: own{epoch: cfg.Epoch}, fresh: true,
		seeds: map[string]seed{}, standing: map[string]standing{}, hearsay: map[string]standing{},
		watchers: map[*watcher]bool{}, told: newWatcher(), warned: map[string]time.Time{},
		events: make(chan serf.Event, 4096), questions: make(chan *serf.Query, maxQuestions),
		room: make(chan struct{}, maxExchanges), kick: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		nudged: make(chan struct{}, 1), ready: make(chan struct{}), reader: make(chan struct{}),
	}
	if err := c.useKeys(keys); err != nil {
		return nil, err
	}
	for _, addr := range cfg.Join {
		if err := c.joinable(addr); err != nil {
			return nil, err
		}
		c.seeds[addr] = seed{}
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.begin(); err != nil {
		c.cancel()
		return nil, err
	}
	c.addr = memberOf(c.serf.LocalMember()).hostPort()
	c.parts.Go(c.publish)
	c.parts.Go(c.joinLoop)
	c.parts.Go(c.syncLoop)
	c.parts.Go(c.tell)
	c.parts.Go(c.answerQuestions)
	if c.rpc != nil {
		c.parts.Go(c.rpc.run)
	}
	return c, nil
}

// begin binds the addresses and makes the member. When it fails nothing is left.
func (c *Cluster) begin() error {
	conf, err := c.serfConfig()
	if err != nil {
		return err
	}
	if c.cfg.RPC != "" {
		if c.rpc, err = listenRPC(c); err != nil {
			return err
		}
	}
	if err := c.listen(conf.MemberlistConfig); err != nil {
		c.rpc.close()
		return fmt.Errorf("cannot gossip on %s: %w", c.cfg.Bind, err)
	}
	stop := make(chan struct{})
	go func() { defer close(c.reader); c.read(stop) }()
	if c.serf, err = serf.Create(conf); err != nil {
		c.cancel()
		close(stop)
		<-c.reader
		c.transport.Shutdown()
		c.rpc.close()
		return fmt.Errorf("cannot gossip on %s: %w", c.cfg.Bind, err)
	}
	close(c.ready)
	context.AfterFunc(c.ctx, func() { <-c.serf.ShutdownCh(); close(stop) })
	return nil
}

// useKeys makes the ring and the file that keeps it.
func (c *Cluster) useKeys(keys []Key) error {
	if len(keys) == 0 {
		return nil
	}
	if len(c.cfg.Key) > 0 && !slices.ContainsFunc(keys, func(k Key) bool { return bytes.Equal(k, c.cfg.Key) }) {
		c.log.Warn("the gossip keys are those of the keyring file, the configured key is not among them: should the others use that one, "+
			"remove the file and its copy",
			"file", c.cfg.KeyringFile, "key", c.cfg.Key.ID(), "primary", keys[0].ID())
	}
	raw := make([][]byte, len(keys))
	for i, k := range keys {
		raw[i] = k
	}
	ring, err := memberlist.NewKeyring(raw, keys[0])
	if err != nil {
		return fmt.Errorf("cannot use the gossip keys: %w", err)
	}
	c.ring = ring
	if c.cfg.KeyringFile == "" {
		return nil
	}
	return writeRing(c.cfg.KeyringFile, keys)
}

// listen makes the transport of conf.
func (c *Cluster) listen(conf *memberlist.Config) error {
	bound, port, err := listen(&memberlist.NetTransportConfig{
		BindAddrs: []string{conf.BindAddr}, BindPort: conf.BindPort, Logger: conf.Logger,
	})
	if err != nil {
		return err
	}
	var inner memberlist.NodeAwareTransport = bound
	if c.cfg.tuning.wrap != nil {
		inner = c.cfg.tuning.wrap(bound)
	}
	c.transport = share(inner, c.ready, c.serve, &c.streamsFull)
	conf.Transport = c.transport
	if conf.BindPort == 0 {
		conf.BindPort = port
	}
	if conf.AdvertisePort == 0 {
		conf.AdvertisePort = port
	}
	return nil
}

func (c *Cluster) serfConfig() (*serf.Config, error) {
	logger := newBridge(c)
	m, err := c.memberlistConfig(logger)
	if err != nil {
		return nil, err
	}
	conf := serf.DefaultConfig()
	conf.NodeName, conf.MemberlistConfig, conf.Logger, conf.EventCh = c.cfg.Name, m, logger, c.events
	conf.Tags = map[string]string{"role": c.cfg.Role, "version": c.cfg.Version, protocolTag: protocolVersion}
	if c.cfg.Rack != "" {
		conf.Tags["rack"] = c.cfg.Rack
	}
	if c.ring != nil {
		conf.KeyringFile = c.cfg.KeyringFile
	}
	conf.ReconnectInterval = c.cfg.tuning.reconnect
	conf.ReconnectTimeout, conf.TombstoneTimeout = c.cfg.tuning.tombstone, c.cfg.tuning.tombstone
	conf.ReapInterval = c.cfg.tuning.reap
	conf.UserEventSizeLimit = maxPayload + len(eventName)
	conf.EventBuffer = eventBuffer
	conf.MaxQueueDepth, conf.QueueDepthWarning = maxQueue, maxQueue/2
	conf.DisableCoordinates = true            // half of the traffic at rest, and not used
	conf.EnableNameConflictResolution = false // it would shut one of the two down
	conf.BroadcastTimeout, conf.LeavePropagateDelay = c.cfg.tuning.leave, c.cfg.tuning.leave
	return conf, nil
}

func (c *Cluster) memberlistConfig(logger *log.Logger) (*memberlist.Config, error) {
	ip, port, err := splitIP(c.cfg.Bind)
	if err != nil {
		return nil, err
	}
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
	m.GossipInterval = min(c.cfg.tuning.gossip, m.ProbeInterval)
	m.RetransmitMult = retransmit
	m.DeadNodeReclaimTime = time.Second // an agent may come back at another address
	m.Keyring = c.ring
	if c.ring == nil {
		m.CIDRsAllowed, _ = memberlist.ParseCIDRs([]string{"127.0.0.0/8", "::1/128"})
	}
	return m, nil
}

// Addr is the address that others join, "host:port".
func (c *Cluster) Addr() string { return c.addr }

// RPCAddr is where Serf's own tools reach this member, "host:port"; empty: nowhere.
func (c *Cluster) RPCAddr() string {
	if c.rpc == nil {
		return ""
	}
	return c.rpc.listener.Addr().String()
}

// Stats returns the counters.
func (c *Cluster) Stats() Stats {
	c.mu.Lock()
	lost := c.told.lost
	for w := range c.watchers {
		lost += w.lost
	}
	c.mu.Unlock()
	s := Stats{
		Announced: c.announced.Load(), Received: c.received.Load(), News: c.news.Load(),
		Malformed: c.malformed.Load(), Oversized: c.oversized.Load(), Absurd: c.absurd.Load(),
		NoRoom: c.noRoom.Load(), Warnings: c.warnings.Load(),
		Exchanges: c.exchanges.Load(), ExchangesFailed: c.exchangesFailed.Load(),
		ExchangeBytes: c.exchangeBytes.Load(), Mends: c.mends.Load(), Behind: c.behind.Load(),
		ForeignKey: c.foreignKey.Load(), Plain: c.plain.Load(),
		Dropped: c.streamsFull.Load() + c.questionsDropped.Load() + lost,
	}
	of := c.serf.Stats()
	s.EventsWaiting, s.QueriesWaiting = number(of["event_queue"]), number(of["query_queue"])
	s.IntentsWaiting, s.Health = number(of["intent_queue"]), number(of["health_score"])
	return s
}

func number(text string) int {
	n, _ := strconv.Atoi(text) // Serf prints numbers only
	return n
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
		c.rpc.close()
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
		if e.Name == eventName && !c.cfg.tuning.deaf && c.receive(e.Payload, time.Time{}) == news && c.flurry.Add(1) == manyNews {
			c.nudge()
		}
	case *serf.Query:
		c.ask(e)
	case serf.MemberEvent:
		c.memberEvent(e)
	}
}

func (c *Cluster) memberEvent(e serf.MemberEvent) {
	now := time.Now()
	c.mu.Lock()
	for _, m := range e.Members {
		c.changed(e.EventType(), memberOf(m), now)
	}
	c.census()
	c.mu.Unlock()
	if e.EventType() == serf.EventMemberJoin {
		c.nudge() // it, or the part of the cluster it is with, knows other things
	}
}

// maxEpoch is the highest epoch that is believed: epochs are small counts, or the
// time in seconds. One that is far in the future could never be outdone. The
// constant takes the place of a clock that was not set yet.
func maxEpoch(now time.Time) uint64 {
	const year = 365 * 24 * 3600
	return uint64(max(now.Unix(), 1_800_000_000)) + year
}

// receive merges a message that its agent sent at the time at or before. By events, which
// do not say when they were sent, at is zero: they are just sent, but for old ones that Serf
// repeats to newcomers.
func (c *Cluster) receive(payload []byte, at time.Time) effect {
	m, err := decode(payload)
	switch {
	case errors.Is(err, errOversized):
		c.oversized.Add(1)
		return noNews
	case err != nil:
		c.malformed.Add(1)
		c.log.Debug("record dropped", "err", err)
		return noNews
	case m.epoch > maxEpoch(time.Now()):
		c.absurd.Add(1)
		return noNews
	case c.cfg.tuning.drop != nil && c.cfg.tuning.drop(m):
		return noNews
	}
	c.received.Add(1)
	return c.merge(m, at)
}

func (c *Cluster) merge(m message, at time.Time) effect {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.agent == c.cfg.Name {
		if c.own.outdo(m) {
			c.log.Warn("a newer record of this agent is about: its epoch was raised", "epoch", c.own.epoch)
			signal(c.kick)
		}
	} else if m.kind == kindPower && c.standing[m.agent].status != StatusAlive && (at.IsZero() || time.Since(at) > c.cfg.tuning.tombstone) {
		return noNews // old, or of an agent that others have just not forgotten yet; an exchange tells how old
	}
	if at.IsZero() {
		at = time.Now()
	}
	did := c.table.merge(m, at)
	switch did {
	case noRoom:
		c.noRoom.Add(1)
	case agesNew:
		c.news.Add(1)
	case news:
		c.news.Add(1)
		if e := c.table.agents[m.agent]; e.newest != nil && e.named(e.newest) == nil {
			c.nudge()
		}
	}
	return did
}

// maxWarned bounds the sources that are remembered, warnEvery is how often one of
// them is worth a line.
const (
	maxWarned = 1024
	warnEvery = time.Minute
)

// turnAway counts and says that somebody was refused.
func (c *Cluster) turnAway(from string, why error) {
	if errors.Is(why, ErrForeignKey) {
		c.foreignKey.Add(1)
	} else {
		c.plain.Add(1)
	}
	if host, _, err := net.SplitHostPort(from); err == nil {
		from = host
	}
	now := time.Now()
	c.mu.Lock()
	if len(c.warned) >= maxWarned {
		maps.DeleteFunc(c.warned, func(_ string, last time.Time) bool { return now.Sub(last) > warnEvery })
	}
	last, again := c.warned[from]
	say := !again && len(c.warned) < maxWarned || again && now.Sub(last) > warnEvery
	if say {
		c.warned[from] = now
	}
	c.mu.Unlock()
	if say {
		c.log.Warn("refused: " + from + " " + why.Error())
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
