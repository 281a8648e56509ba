package central

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
)

// Limits bound what one user may ask of central, so that the others are served meanwhile.
// The zero value has the defaults.
type Limits struct {
	Rate    int // requests a second; bursts may have burstSeconds of it. Default DefaultUserRate
	Waiting int // requests that wait for news at once: watches and polls. Default DefaultUserWaiting

	now func() time.Time // nil: time.Now
}

// Defaults of Limits: several times what a script needs that switches 500 nodes a minute,
// one command each.
const (
	DefaultUserRate    = 200
	DefaultUserWaiting = 256
)

// burstSeconds is how many seconds of its rate a principal may use at once.
const burstSeconds = 10

// allowance is what one principal may have of central.
type allowance struct {
	rate    int   // requests a second; 0: any
	handled int   // requests at work at once; the next ones wait for their turn
	open    int   // requests at once, with those that wait for a turn or for news
	waiting int   // requests that wait for news at once
	bytes   int64 // of the bodies of all its requests at once
}

// The allowances. Root and central's own user have no rate: agents of the same machine ask as
// they do, and somebody has to get in when others ask too often.
var (
	allowanceOfOwn        = allowance{handled: 64, open: 4096, waiting: 2048, bytes: 8 * maxAdminBody}
	allowanceOfOwnAgent   = allowance{handled: 8, open: 64, waiting: 8, bytes: 2 * maxAgentBody}
	allowanceOfAgent      = allowance{rate: 500, handled: 8, open: 64, waiting: 8, bytes: 2 * maxAgentBody}
	allowanceOfAnyAddress = allowance{rate: 20, handled: 4, open: 32, bytes: 16 * maxJoinBody} // of those who are not known yet
)

func (l Limits) allowanceOfUser() allowance {
	s := allowance{rate: l.Rate, handled: 16, open: 256, waiting: l.Waiting, bytes: 2 * maxAdminBody}
	s.open += s.waiting
	return s
}

// Bounds of all users together, and of all principals.
const (
	maxWatches    = 2048 // requests of users that wait for news: the rest of the connections is for agents
	maxBodies     = 1 << 30
	longestQueue  = 10 * time.Second // that a request waits for its turn
	retryWatch    = 5 * time.Second  // after which one that would wait for news is worth another try
	retryRequest  = time.Second
	maxPrincipals = 10_000 // that are remembered
)

// limits knows what each principal has of central. Its clock is the machine's, which does
// not jump.
type limits struct {
	user allowance
	now  func() time.Time

	mu      sync.Mutex
	of      map[string]*usage
	watches int   // of users
	bytes   int64 // of bodies
	changed uint64
}

// usage is what one principal has. All but the turns is under the lock of limits.
type usage struct {
	allowance
	who     string
	user    bool
	bucket  *rate.Limiter // nil: any rate
	turns   chan struct{}
	tickets map[*ticket]struct{} // of open requests
	nWaits  int
	nBytes  int64
}

func newLimits(l Limits) *limits {
	out := &limits{user: l.allowanceOfUser(), now: l.now, of: map[string]*usage{}}
	if out.now == nil {
		out.now = time.Now
	}
	return out
}

// waiting is how many requests of users wait for news.
func (l *limits) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watches
}

// principal is the key, the name for people and the allowance of who sends a request.
func (l *limits) principal(p auth.Principal, to access, r *http.Request) (key, who string, s allowance) {
	switch {
	case to.open && httpserver.OnSocket(r.Context()):
		return "socket", "this machine", allowanceOfAnyAddress
	case to.open:
		address := addressOf(r)
		return "address " + network(address), address, allowanceOfAnyAddress
	case p.Kind == auth.Agent:
		return "agent " + p.Name, "agent " + p.Name, allowanceOfAgent
	case p.Own && to.least == "":
		name := "agent " + r.PathValue("name")
		return "own " + name, name, allowanceOfOwnAgent
	case p.Own:
		return "own", p.Name, allowanceOfOwn
	}
	return "user " + p.Name, p.Name, l.user
}

// network is the address that one machine or site has for itself: of IPv6 its /64.
func network(address string) string {
	if addr, err := netip.ParseAddr(address); err == nil && addr.Is6() && !addr.Is4In6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return address
}

// usageOf finds what a principal has. Those who have nothing are forgotten when there are
// too many.
func (l *limits) usageOf(key, who string, s allowance) *usage {
	u := l.of[key]
	if u == nil {
		if len(l.of) >= maxPrincipals {
			for key, u := range l.of {
				if len(u.tickets) == 0 {
					delete(l.of, key)
				}
			}
		}
		u = &usage{allowance: s, who: who, user: s == l.user, turns: make(chan struct{}, s.handled), tickets: map[*ticket]struct{}{}}
		if s.rate > 0 {
			u.bucket = rate.NewLimiter(rate.Limit(s.rate), s.rate*burstSeconds)
		}
		l.of[key] = u
	}
	return u
}

// ticket is one request that was let in.
type ticket struct {
	l       *limits
	u       *usage
	ctx     context.Context // of the request; end ends it
	end     context.CancelCauseFunc
	method  auth.Method
	serial  string      // of the certificate
	refused func(error) // notes that it was refused after that
	turn    bool        // it is at work
	waits   bool        // it counts among those that wait for news
	bytes   int64
}

// admit lets a request in, at its turn, or says what its principal has too much of.
func (l *limits) admit(ctx context.Context, p auth.Principal, to access, r *http.Request) (*ticket, error) {
	key, who, s := l.principal(p, to, r)
	t, err := l.open(key, who, s)
	if err != nil {
		return nil, err
	}
	t.method, t.serial = p.Method, p.Serial
	t.ctx, t.end = context.WithCancelCause(ctx)
	if err := t.work(t.ctx); err != nil {
		t.done()
		return nil, err
	}
	return t, nil
}

// changes counts the changes of rights.
func (l *limits) changes() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// rightsChanged ends the open requests of a user but for the one that did it, for the
// reason; with a serial only those with that certificate. Tokens of an issuer outside have
// other rights.
func (l *limits) rightsChanged(user, serial string, but *ticket, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed++
	u := l.of["user "+user]
	if u == nil {
		return
	}
	for t := range u.tickets {
		if t != but && t.method != auth.ByOIDC && t.end != nil && (serial == "" || serial == t.serial) {
			t.end(why)
		}
	}
}

func (l *limits) open(key, who string, s allowance) (*ticket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.usageOf(key, who, s)
	if u.bucket != nil {
		now := l.now()
		if one := u.bucket.ReserveN(now, 1); one.DelayFrom(now) > 0 {
			delay := one.DelayFrom(now)
			one.CancelAt(now)
			return nil, api.TooMany(delay, "too many requests of %s: at most %d a second, and %d at once", who, s.rate, s.rate*burstSeconds)
		}
	}
	if len(u.tickets) >= s.open {
		return nil, api.TooMany(retryRequest, "%d requests of %s are open, which is the limit", s.open, who)
	}
	t := &ticket{l: l, u: u, refused: func(error) {}}
	u.tickets[t] = struct{}{}
	return t, nil
}

// work waits for a turn.
func (t *ticket) work(ctx context.Context) error {
	select {
	case t.u.turns <- struct{}{}:
		t.turn = true
		return nil
	default:
	}
	timer := time.NewTimer(longestQueue)
	defer timer.Stop()
	select {
	case t.u.turns <- struct{}{}:
		t.turn = true
		return nil
	case <-timer.C:
		return api.TooMany(retryRequest, "%d requests of %s are at work, and none has ended for %s", t.u.handled, t.u.who, longestQueue)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rest gives the turn to others: the request waits for news. It may do so again and again.
func (t *ticket) rest() error {
	if err := t.wait(); err != nil {
		return err
	}
	t.turn = false
	<-t.u.turns
	return nil
}

func (t *ticket) wait() error {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	switch {
	case t.waits:
		return nil
	case t.u.nWaits >= t.u.waiting:
		return api.TooMany(retryWatch, "%d requests of %s wait for news, which is the limit", t.u.nWaits, t.u.who)
	case t.u.user && t.l.watches >= maxWatches:
		return api.TooMany(retryWatch, "%d requests of all users wait for news, which is the limit", t.l.watches)
	}
	t.waits = true
	t.u.nWaits++
	if t.u.user {
		t.l.watches++
	}
	return nil
}

// took counts bytes of the body.
func (t *ticket) took(n int64) error {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	switch {
	case t.u.nBytes+n > t.u.allowance.bytes:
		return api.TooMany(retryRequest, "the requests of %s are larger than %d bytes together, which is the limit", t.u.who, t.u.allowance.bytes)
	case t.l.bytes+n > maxBodies:
		return api.TooMany(retryRequest, "all requests are larger than %d bytes together, which is the limit", maxBodies)
	}
	t.u.nBytes, t.l.bytes, t.bytes = t.u.nBytes+n, t.l.bytes+n, t.bytes+n
	return nil
}

// done gives all back.
func (t *ticket) done() {
	if t.turn {
		<-t.u.turns
	}
	if t.end != nil {
		t.end(nil)
	}
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	delete(t.u.tickets, t)
	t.u.nBytes, t.l.bytes = t.u.nBytes-t.bytes, t.l.bytes-t.bytes
	if t.waits {
		t.u.nWaits--
		if t.u.user {
			t.l.watches--
		}
	}
}

// body is the body of a request, counted.
func (t *ticket) body(r io.ReadCloser) io.ReadCloser { return &countedBody{r, t} }

type countedBody struct {
	io.ReadCloser
	t *ticket
}

// Read is io.Reader's.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if full := b.t.took(int64(n)); full != nil {
			b.t.refused(full)
			return 0, full
		}
	}
	return n, err
}

type ticketKey struct{}

// idle has a request wait for news without a turn. The returned function waits until it
// has one again. Work that is no request has no turns.
func idle(ctx context.Context) (resume func() error, err error) {
	t := ticketOf(ctx)
	if t == nil {
		return func() error { return nil }, nil
	}
	if err := t.rest(); err != nil {
		t.refused(err)
		return nil, err
	}
	return func() error { return t.work(ctx) }, nil
}

// ticketOf is the request that a context is of; nil: it is of none.
func ticketOf(ctx context.Context) *ticket {
	t, _ := ctx.Value(ticketKey{}).(*ticket)
	return t
}
