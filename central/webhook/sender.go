package webhook

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/internal/metrics"
)

// Log is the audit log.
type Log interface {
	Database() api.Database
	// Begin is the id of the last event that need not be sent any more. At the very first it is
	// that of the newest one.
	Begin(ctx context.Context) (id int64, err error)
	// After are the first events behind the id.
	After(ctx context.Context, id int64, limit int) ([]api.AuditEntry, error)
	// Passed notes that all events up to the id need not be sent any more.
	Passed(ctx context.Context, id int64) error
	// News is closed when there may be more events than After had before.
	News() <-chan struct{}
}

var (
	figures metrics.Set

	sentTotal = figures.Counter("rackpower_webhook_events_sent_total", "Events that the receiver took.")
	failTotal = figures.Counter("rackpower_webhook_failures_total",
		"Tries that failed, by the status that the receiver answered; none: it did not answer.", "code")
	dropTotal = figures.Counter("rackpower_webhook_events_dropped_total",
		"Events that were never taken: the receiver said that they are wrong, or they were pruned before it took them.", "reason")
	pending = figures.Gauge("rackpower_webhook_events_waiting", "Events that were read and that the receiver has not taken.")
	blocked = figures.Gauge("rackpower_webhook_blocked", "1 while no more events are sent until the oldest is taken.")
	oldest  = figures.Gauge("rackpower_webhook_oldest_waiting_seconds", "Age of the oldest event that the receiver has not taken; 0: none.")
)

// Metrics lists what a Sender shows.
func Metrics() metrics.Set { return figures }

// Sender sends events. New makes one.
type Sender struct {
	cfg    Config
	log    Log
	logger *slog.Logger
	client *http.Client

	sent, failed, dropped metrics.Counts

	mu      sync.Mutex
	waiting int
	full    bool
	since   time.Time // of the oldest event that waits; zero: none does
}

// New makes a sender, whose Run has to be called.
func New(cfg Config, log Log) (*Sender, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.pause == 0 {
		cfg.pause = firstPause
	}
	client, err := cfg.client()
	return &Sender{cfg: cfg, log: log, logger: cfg.Log, client: client}, err
}

// Collect shows how the sender fares.
func (s *Sender) Collect(to metrics.Sink) {
	s.sent.Collect(to, sentTotal)
	s.failed.Collect(to, failTotal)
	s.dropped.Collect(to, dropTotal)
	s.mu.Lock()
	waiting, full, since := s.waiting, s.full, s.since
	s.mu.Unlock()
	to.Value(pending, float64(waiting))
	to.Value(blocked, metrics.Bool(full))
	age := 0.0
	if !since.IsZero() {
		age = max(s.cfg.Now().Sub(since).Seconds(), 0)
	}
	to.Value(oldest, age)
}

// item is an event on its way.
type item struct {
	entry api.AuditEntry
	taken bool // or given up
	tries int  // that the receiver called wrong
}

// lane is the events of one node, which are sent one after the other.
type lane struct {
	items []*item // the first is sent
	busy  bool
	pause backoff.Doubling
	next  time.Time // no try before
}

// run is what Run knows. It belongs to one goroutine.
type run struct {
	*Sender
	read   int64   // the last event that was read
	saved  int64   // what the log knows
	window []*item // by id; the first is not taken
	lanes  map[string]*lane
	busy   int
	done   chan tried
	last   time.Time // when it was saved
}

type tried struct {
	node string
	err  error
}

// Run sends events until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	r := &run{Sender: s, lanes: map[string]*lane{}, done: make(chan tried, workers)}
	for pause := (backoff.Doubling{First: s.cfg.pause, Most: mostPause}); ; {
		var err error
		if r.read, err = s.log.Begin(ctx); err == nil {
			break
		}
		s.logger.Error("cannot read how far the webhook came", "err", err)
		if backoff.Sleep(ctx, pause.Next()) != nil {
			return
		}
	}
	r.saved = r.read
	for ctx.Err() == nil {
		news := s.log.News()
		r.advance() // makes room
		again := r.fill(ctx)
		r.save(ctx)
		r.start(ctx)
		r.show()
		r.wait(ctx, news, again)
	}
	for r.busy > 0 {
		r.finish(<-r.done)
	}
	r.advance()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	r.last = time.Time{}
	r.save(closing)
	s.client.CloseIdleConnections()
}

// fill reads what there is room for. It is to be called again when the returned time is over, if
// that is not 0: the log could not be read.
func (r *run) fill(ctx context.Context) time.Duration {
	for len(r.window) < Window {
		limit := Window - len(r.window)
		page, err := r.log.After(ctx, r.read, limit)
		if err != nil {
			if ctx.Err() == nil {
				r.logger.Error("cannot read the audit log for the webhook", "err", err)
			}
			return r.cfg.pause
		}
		for _, e := range page {
			if lost := e.ID - r.read - 1; lost > 0 {
				r.dropped.Add(float64(lost), "pruned")
				r.logger.Error("events were pruned before the webhook's receiver took them", "events", lost)
			}
			r.read = e.ID
			if len(r.cfg.What) > 0 && !slices.Contains(r.cfg.What, e.What) {
				continue
			}
			it := &item{entry: e}
			r.window = append(r.window, it)
			l := r.lanes[e.Node]
			if l == nil {
				l = &lane{pause: backoff.Doubling{First: r.cfg.pause, Most: mostPause}}
				r.lanes[e.Node] = l
			}
			l.items = append(l.items, it)
		}
		if len(page) < limit {
			break
		}
	}
	return 0
}

// advance forgets what was taken.
func (r *run) advance() {
	for len(r.window) > 0 && r.window[0].taken {
		r.window = r.window[1:]
	}
}

// passed is up to where all events are done with.
func (r *run) passed() int64 {
	if len(r.window) > 0 {
		return r.window[0].entry.ID - 1
	}
	return r.read
}

func (r *run) save(ctx context.Context) {
	id := r.passed()
	if id == r.saved || time.Since(r.last) < saveEvery {
		return
	}
	r.last = time.Now()
	if err := r.log.Passed(ctx, id); err != nil {
		if ctx.Err() == nil {
			r.logger.Error("cannot note how far the webhook came", "err", err)
		}
		return
	}
	r.saved = id
}

// start sends the first event of each node whose turn it is, as many at once as may be. Those that
// came first go first.
func (r *run) start(ctx context.Context) {
	now := time.Now()
	for _, it := range r.window {
		if r.busy == workers {
			return
		}
		l := r.lanes[it.entry.Node]
		if it.taken || l.busy || l.items[0] != it || now.Before(l.next) {
			continue
		}
		l.busy = true
		r.busy++
		e := Event{Database: r.log.Database(), Event: it.entry}
		go func() { r.done <- tried{e.Event.Node, r.post(ctx, e)} }()
	}
}

// finish takes what came of a try.
func (r *run) finish(t tried) {
	l := r.lanes[t.node]
	it := l.items[0]
	l.busy = false
	r.busy--
	var refused refusedError
	switch {
	case t.err == nil:
		r.sent.Add(1)
	case errors.Is(t.err, context.Canceled):
		return
	default:
		code := "none"
		if errors.As(t.err, &refused) {
			code = strconv.Itoa(refused.status)
		}
		r.failed.Add(1, code)
		if refused.hopeless() {
			it.tries++
		}
		if it.tries < refusals {
			pause := max(l.pause.Next(), refused.after)
			pause -= time.Duration(rand.Float64() * float64(pause) / 4)
			l.next = time.Now().Add(pause)
			r.logger.Warn("an event was not taken by the webhook's receiver and is sent again", "event", it.entry.ID, "node", t.node, "err", t.err,
				"pause", pause.Round(time.Millisecond))
			return
		}
		r.dropped.Add(1, "refused")
		r.logger.Error("an event is given up: the webhook's receiver says that it is wrong", "event", it.entry.ID, "node", t.node, "err", t.err)
	}
	it.taken = true
	l.pause.Reset()
	l.next = time.Time{}
	if l.items = l.items[1:]; len(l.items) == 0 {
		delete(r.lanes, t.node)
	}
}

func (r *run) show() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting, r.since = 0, time.Time{}
	for _, it := range r.window {
		if !it.taken {
			r.waiting++
		}
	}
	if len(r.window) > 0 {
		r.since = r.window[0].entry.At
	}
	full := len(r.window) >= Window
	if full && !r.full {
		r.logger.Error("the webhook sends nothing more until its receiver takes the oldest event", "event", r.window[0].entry.ID, "node",
			r.window[0].entry.Node, "behind", len(r.window))
	}
	r.full = full
}

// wait returns when there may be something to do.
func (r *run) wait(ctx context.Context, news <-chan struct{}, again time.Duration) {
	var timer <-chan time.Time
	if next := r.due(again); next > 0 {
		t := time.NewTimer(next)
		defer t.Stop()
		timer = t.C
	}
	if len(r.window) >= Window {
		news = nil
	}
	select {
	case <-ctx.Done():
	case <-news:
	case <-timer:
	case t := <-r.done:
		r.finish(t)
	}
}

// due is how long it is until the next try, or the next save; 0: none is due.
func (r *run) due(again time.Duration) time.Duration {
	var next time.Time
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if again > 0 {
		sooner(time.Now().Add(again))
	}
	if r.passed() != r.saved {
		sooner(r.last.Add(saveEvery))
	}
	if r.busy < workers {
		for _, l := range r.lanes {
			if !l.busy && !l.next.IsZero() {
				sooner(l.next)
			}
		}
	}
	if next.IsZero() {
		return 0
	}
	return max(time.Until(next), time.Millisecond)
}
