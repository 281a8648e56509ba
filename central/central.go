package central

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/central/web"
	"rackpower/central/webhook"
	"rackpower/power"
)

// Central is the coordinator. New opens its database; Run serves; Close lets go.
type Central struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	sessions *agentSessions
	moving   moving
	leases   leases
	booted   time.Time // by the clock that only goes forward
	process  string    // names this process
	changes  *notifier
	waiting  *waiting
	audited  *notifier // of the audit log
	feed     *feed
	mux      *http.ServeMux
	page     *web.Page
	table    []route    // of mux
	tls      *serverTLS // nil: no port

	// authenticate finds out who asks: principal, or what a test puts there.
	authenticate func(*http.Request) (auth.Principal, error)

	limits     *limits
	guesses    guesses
	tokensUsed httpserver.Recently
	refusals   httpserver.Recently
	told       httpserver.Recently // errors that many requests may have

	// gossip is set before anything is served; nil: none.
	gossip api.Cluster

	stop     chan struct{} // closed when long polls must end
	stopOnce sync.Once

	// Contradictions counts reports that said another end of an operation than
	// the one that is known. The first one stays.
	contradictions atomic.Int64
	numbers        *numbers
	webhook        *webhook.Sender // nil: none
	backups        *backups
	renewed        atomic.Bool // the database was made another incarnation since the start
	started        time.Time
	waitsRestored  atomic.Bool  // monitors wait since the database was restored
	skipped        atomic.Int64 // items of reports that could not be stored

	explainWait time.Duration // for an agent's explanation; tests shorten it
	knockWait   time.Duration // for a sign of life of an agent; likewise

	interfaceAddrs func() ([]net.Addr, error)
}

const (
	stopWithin  = 5 * time.Second
	expireEvery = 500 * time.Millisecond
	seenEvery   = 5 * time.Second
	pruneEvery  = time.Hour
	pruneChunk  = 500

	schedulesEvery = time.Second
)

// New opens the database and makes everything that Handler needs.
func New(cfg Config) (*Central, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Central{
		cfg: cfg, log: cfg.Log, sessions: newAgentSessions(), changes: newNotifier(), waiting: newWaiting(), audited: newNotifier(),
		feed: newFeed(), started: cfg.Now(), booted: time.Now(), process: rand.Text(),
		stop:        make(chan struct{}),
		explainWait: defaultExplainWait, knockWait: knockWait,
		interfaceAddrs: net.InterfaceAddrs, limits: newLimits(cfg.Limits), numbers: newNumbers(),
	}
	var serves string
	if cfg.TLS.Peers != nil {
		serves = cfg.TLS.Peers.Where()
	}
	st, err := store.Open(store.Config{
		Path: DatabasePath(cfg.Data), Database: cfg.Database, Log: cfg.Log, CheckBelow: cfg.CheckBelow, KeyFile: cfg.SealKeyFile, Serves: serves,
		Audited: func() { c.audited.raise(0) }, Touched: c.touched, Committed: c.numbers.committed,
	})
	if err != nil {
		return nil, err
	}
	c.store = st
	if cfg.TLS.Listen != "" {
		if c.tls, err = newServerTLS(cfg.TLS, cfg.Data, cfg.Now); err != nil {
			st.Close()
			return nil, err
		}
	}
	if err := errors.Join(c.nameBMCs(), c.load(), c.restampHolds(), c.protectOwn(), c.beginWebhook()); err != nil {
		st.Close()
		return nil, err
	}
	c.backups = newBackups(c)
	c.authenticate, c.mux = c.principal, c.routes()
	site := cmp.Or(cfg.TLS.Site, DefaultSite)
	if c.tls != nil {
		site = c.tls.site
	}
	c.page = web.New(web.Config{
		API: c.mux, Site: site, Version: cfg.Version, Log: cfg.Log, Now: cfg.Now, Issuer: cfg.Issuer, PublicURL: cfg.PublicURL,
	})
	return c, nil
}

// load builds what is kept in memory.
func (c *Central) load() error {
	c.leases.start(c.monotonic())
	return c.store.View(context.Background(), func(tx *store.Tx) error {
		agents, err := tx.Agents()
		if err != nil {
			return err
		}
		marks, err := tx.Marks()
		if err != nil {
			return err
		}
		rev, err := tx.Rev()
		if err != nil {
			return err
		}
		for _, a := range agents {
			if a.Restored != store.RestoreOver {
				c.waitsRestored.Store(true)
			}
			d := c.sessions.of(a.Name)
			if now := c.cfg.Now(); a.SeenAt.After(now) {
				a.SeenAt = now // the clock was set back since
			}
			d.update(func() {
				d.holder = holderOf(a)
				d.session, d.rev, d.revSeen, d.seen, d.polled, d.mark = a.Session, a.Rev, a.RevSeen, a.SeenAt, a.SeenAt, marks[a.Name]
			})
		}
		c.changes.raise(rev)
		leased, err := tx.AnyLeased()
		if err != nil {
			return err
		}
		c.leases.any.Store(leased)
		leaving, err := tx.AllLeaving()
		if err != nil {
			return err
		}
		for _, l := range leaving {
			c.sessions.of(l.Agent).letsGo(true)
		}
		waiting, err := tx.NodesWaiting()
		for _, n := range waiting {
			c.moving.set(n.Name, n.WaitsFor)
		}
		return err
	})
}

// monotonic is how long this process has been running, by a clock that nobody sets.
func (c *Central) monotonic() time.Duration {
	if c.cfg.Monotonic != nil {
		return c.cfg.Monotonic()
	}
	return time.Since(c.booted)
}

// UseGossip has central show the members of a cluster, tell agents where to join
// it, and join them. It must be called before Run and before Handler is used.
func (c *Central) UseGossip(g api.Cluster) error {
	c.gossip = g
	return c.store.View(context.Background(), func(tx *store.Tx) error {
		agents, err := tx.Agents()
		for _, a := range agents {
			c.seed(a.Name, a.Address)
		}
		return err
	})
}

// seed has gossip join an agent.
func (c *Central) seed(agent, addr string) {
	if c.gossip == nil || addr == "" {
		return
	}
	if err := c.gossip.Join(addr); err != nil {
		c.log.Warn("cannot gossip with agent", "agent", agent, "address", addr, "err", err)
	}
}

// ID names the database; agents start over when it changes.
func (c *Central) ID() string { return c.store.ID() }

// Run listens and serves until ctx ends, then stops within 5 s; long polls end
// at once. It returns after everything that it started has ended, and closes
// the database.
func (c *Central) Run(ctx context.Context) error { return c.RunReady(ctx, nil) }

// RunReady is Run that calls ready, if it is not nil, with the addresses that
// are listened on, once they are.
func (c *Central) RunReady(ctx context.Context, ready func([]net.Addr)) error {
	listeners, err := c.listen()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	srv := c.server()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	addrs := make([]net.Addr, len(listeners))
	for i, l := range listeners {
		addrs[i] = l.Addr()
		c.log.Info("listening", "address", l.Addr().String())
		parts.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("cannot serve on %s: %w", l.Addr(), err))
			}
		})
	}
	if c.tls == nil {
		c.log.Info("only this machine is served; to serve agents and people of others: --listen ADDRESS --tls-name NAME, then rackpower agents " +
			"token")
	} else if c.tls.ca != nil {
		c.log.Info("TLS", "site", c.tls.site, "names", c.tls.names, "ca_hash", c.tls.ca.Hash())
	}
	c.background(ctx, &parts)
	if ready != nil {
		ready(addrs)
	}
	<-ctx.Done()
	c.stopLongPolls()
	down, cancelDown := context.WithTimeout(context.Background(), stopWithin)
	defer cancelDown()
	if err := srv.Shutdown(down); err != nil {
		c.log.Warn("connections cut at the stop", "err", err)
		srv.Close()
	}
	parts.Wait()
	c.noteSeen()
	err = c.Close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

// background starts the loops that Run waits for.
func (c *Central) background(ctx context.Context, parts *sync.WaitGroup) {
	loop := func(every time.Duration, what func()) {
		parts.Go(func() {
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					what()
				}
			}
		})
	}
	loop(expireEvery, func() { c.expire(ctx); c.sweep(ctx); c.endTwins(ctx) })
	loop(restoredEvery, func() { c.goOnRestored(ctx) })
	loop(lookEvery, func() {
		if err := c.byTime(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("cannot see which nodes changed by time", "err", err)
		}
	})
	loop(schedulesEvery, func() { c.runSchedules(ctx) })
	loop(seenEvery, c.noteSeen)
	loop(leasesEvery, func() { c.manageLeases(ctx) })
	if c.cfg.Backups.Every > 0 {
		parts.Go(func() { c.backups.run(ctx) })
	}
	if c.webhook != nil {
		parts.Go(func() { c.webhook.Run(ctx) })
	}
	if c.cfg.Keep > 0 {
		loop(pruneEvery, func() { c.prune(ctx) })
	}
}

// Close ends long polls and closes the database. It may be called twice.
func (c *Central) Close() error {
	c.stopLongPolls()
	return c.store.Close()
}

func (c *Central) stopLongPolls() { c.stopOnce.Do(func() { close(c.stop) }) }

// Contradictions is how many reports named another end of an operation than the
// one that central had.
func (c *Central) Contradictions() int64 { return c.contradictions.Load() }

// noteSeen makes durable when agents were last heard.
func (c *Central) noteSeen() {
	heard := c.sessions.heard()
	if len(heard) == 0 {
		return
	}
	err := c.store.Write(context.Background(), func(tx *store.Tx) error {
		for _, h := range heard {
			if err := tx.SawAgent(h.name, h.seen, h.rev); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrClosed) {
		c.log.Error("cannot note when agents were seen", "err", err)
	}
}

// prune deletes old history in small pieces, so that nobody waits for long.
func (c *Central) prune(ctx context.Context) {
	cutoff := c.cfg.Now().Add(-c.cfg.Keep)
	err := c.store.Write(ctx, func(tx *store.Tx) error {
		now := c.cfg.Now()
		return errors.Join(tx.PrunePlans(now.Add(-planShown)), tx.PruneKeys(now.Add(-keysKept)))
	})
	if err != nil {
		c.log.Error("cannot delete plans and keys of requests", "err", err)
	}
	for from, done := int64(0), false; !done && ctx.Err() == nil; {
		err := c.store.Write(ctx, func(tx *store.Tx) (err error) {
			from, done, err = tx.Prune(cutoff, pruneChunk, from)
			return err
		})
		if err != nil {
			if ctx.Err() == nil {
				c.log.Error("cannot prune history", "err", err)
			}
			return
		}
	}
}

// problem translates an error for the one who asked.
func (c *Central) problem(err error) *api.Problem {
	var p *api.Problem
	switch {
	case errors.As(err, &p):
		said := *p
		said.Detail = power.Redact(p.Detail)
		return &said
	case keyProblem(err) != nil:
		return keyProblem(err)
	case errors.Is(err, store.ErrClosed), errors.Is(err, errStopping):
		return api.Problemf(api.CodeUnavailable, "central is stopping: ask again later")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return api.Problemf(api.CodeUnavailable, "the request ended before it was carried out")
	}
	// What else went wrong has paths and SQL in it, which are for those who may read the log.
	switch {
	case errors.Is(err, store.ErrRemoved):
		c.tellOnce(store.ErrRemoved, err)
		return api.Problemf(api.CodeUnavailable, "central accepts nothing: %v; its log says more", store.ErrRemoved)
	case errors.Is(err, store.ErrInUse), errors.Is(err, store.ErrTakenOver):
		c.tellOnce(store.ErrTakenOver, err)
		return api.Problemf(api.CodeUnavailable, "this central lost its database to another one, or is about to: ask again later")
	case errors.Is(err, store.ErrDisk):
		c.tellOnce(store.ErrDisk, err)
		return api.Problemf(api.CodeUnavailable, "central cannot take this now, ask again later: %v; its log says more", store.ErrDisk)
	}
	id := rand.Text()[:8]
	c.log.Error("internal error", "id", id, "err", err)
	return api.Problemf(api.CodeInternal, "internal error %s: the log of central says more (journalctl -u rackpower-central -g %s)", id, id)
}

// tellOnce logs an error once a minute for each kind.
func (c *Central) tellOnce(kind, err error) {
	if c.told.Due(kind.Error(), c.cfg.Now(), time.Minute) {
		c.log.Error("a request was refused", "err", err)
	}
}

var errStopping = errors.New("central is stopping")

// DiskWait is how long the database's disk has not answered what is just being written, 0 where
// nothing waits for it.
func (c *Central) DiskWait() time.Duration { return c.store.DiskWait() }

// Standbys is how many other centrals stand by on the same database; -1: none can, it is a file.
func (c *Central) Standbys(ctx context.Context) (int, error) { return c.store.Standbys(ctx) }

// noted is how long a request waits at most for what is noted beside it.
const noted = 200 * time.Millisecond

// note writes something that a request does not depend on: where the disk hangs, it is written
// when it can be, and the request goes on.
func (c *Central) note(ctx context.Context, fn func(*store.Tx) error) error {
	done := make(chan error, 1)
	go func() { done <- c.store.Write(context.WithoutCancel(ctx), fn) }()
	timer := time.NewTimer(noted)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return nil
	}
}

// Ping goes through the one that writes and returns when it has answered: a sign
// of life for the watchdog. It writes nothing.
func (c *Central) Ping(ctx context.Context) error {
	return c.store.Write(ctx, func(*store.Tx) error { return nil })
}
