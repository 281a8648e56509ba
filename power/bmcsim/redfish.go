package bmcsim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"rackpower/power"
)

// Redfish describes the Redfish service that each BMC of a farm has beside IPMI. Both are
// of the same BMC: its account, its node, its log.
type Redfish struct {
	// Port is the TCP port of every BMC, on the address of its IPMI port. Zero: a free port
	// each, see BMC.RedfishEndpoint. With Config.SameAddress BMC i has Port+i.
	Port int
	// Plain is HTTP without TLS.
	Plain bool
	// Profiles are the shapes of the trees: BMC i has number i modulo their number. None:
	// the first of the variable Profiles for all.
	Profiles []Profile
}

func (r *Redfish) scheme() string {
	if r.Plain {
		return "http"
	}
	return "https"
}

// Bounds of what a BMC reads.
const (
	maxWebBody   = 64 << 10
	maxWebHeader = 16 << 10
)

// redfish is the Redfish service of a BMC.
type redfish struct {
	b        *BMC
	profile  Profile
	listener net.Listener
	addr     netip.AddrPort

	// The lock of the BMC guards what follows.
	conns       map[*webConn]struct{}
	sessions    map[string]*webSession // by ID
	lastSession int
	requests    int
	tasks       int // how many there were
	faults      webFaults
	cert        *tls.Certificate
	certNumber  int
	emptyUntil  time.Time // the BMC does not know its Systems before
}

// openRedfish listens for BMC i, if Redfish is wanted.
func (f *Farm) openRedfish(i int, b *BMC) error {
	cfg := f.cfg.Redfish
	if cfg == nil {
		return nil
	}
	port := cfg.Port
	if f.cfg.SameAddress && port != 0 {
		port += i
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(b.addr.Addr(), uint16(port))))
	if err != nil {
		hint := ""
		if errors.Is(err, syscall.EMFILE) {
			hint = fmt.Sprintf(" (%d BMCs need two open files each, and one for each connection: raise ulimit -n)", f.cfg.Count)
		}
		return fmt.Errorf("cannot listen for Redfish of BMC %s: %w%s", b.name, err, hint)
	}
	profile := Profiles[0]
	if n := len(cfg.Profiles); n > 0 {
		profile = cfg.Profiles[i%n]
	}
	b.redfish = &redfish{
		b: b, profile: profile, listener: l, addr: l.Addr().(*net.TCPAddr).AddrPort(),
		faults: webFaults{limit: profile.Sessions, idle: profile.SessionTimeout, etag: profile.ETag, transitional: profile.Transitional},
	}
	return nil
}

// webServer is the one HTTP server of all BMCs of a farm.
func (f *Farm) webServer() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(serveWeb),
		ReadHeaderTimeout: 30 * time.Second,
		MaxHeaderBytes:    maxWebHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong is theirs
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			return context.WithValue(ctx, webConnKey{}, c.(*webConn))
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			c.(*webConn).state(state)
		},
	}
}

type webConnKey struct{}

// serveRedfish serves the BMC's Redfish port until it is closed.
func (b *BMC) serveRedfish() {
	l := &webListener{Listener: b.redfish.listener, redfish: b.redfish}
	if !b.farm.cfg.Redfish.Plain {
		l.tls = b.farm.webTLS
	}
	if err := b.farm.web.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		b.farm.cfg.Logger.Error("a Redfish service has ended", slog.String("bmc", b.name), slog.Any("err", err))
	}
}

// webListener takes the connections of a BMC, as far as it is there.
type webListener struct {
	net.Listener
	redfish *redfish
	tls     *tls.Config // nil: plain HTTP
}

// Accept returns the next connection that the BMC does not reset at once.
func (l *webListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := &webConn{Conn: c, redfish: l.redfish}
		if !conn.admit() {
			conn.reset()
			continue
		}
		if l.tls == nil {
			return conn, nil
		}
		return tls.Server(conn, l.tls), nil
	}
}

// webConn is a TCP connection to a BMC. The lock of the BMC guards what follows redfish.
type webConn struct {
	net.Conn
	redfish *redfish
	served  int         // requests that came by it
	lost    bool        // something that came or went was lost: it is of no more use
	idle    *time.Timer // which closes it
}

// admit notes a new connection, unless the BMC refuses it.
func (c *webConn) admit() bool {
	w := c.redfish
	now, unlock := w.b.look()
	defer unlock()
	if w.b.closed || w.faults.closed || now.Before(w.b.silent) {
		return false
	}
	if w.conns == nil {
		w.conns = make(map[*webConn]struct{}, 1)
	}
	w.conns[c] = struct{}{}
	return true
}

// Read reads what the BMC hears: nothing while it is mute.
func (c *webConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n == 0 || !c.mute() {
			return n, err
		}
	}
}

// Write sends what the BMC says: nothing while it is mute.
func (c *webConn) Write(p []byte) (int, error) {
	if c.mute() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// mute reports whether what comes or goes now is lost, and so the connection.
func (c *webConn) mute() bool {
	b := c.redfish.b
	b.mu.Lock()
	defer b.mu.Unlock()
	c.lost = c.lost || b.faults.mute
	return c.lost
}

// Close closes the connection and forgets it.
func (c *webConn) Close() error {
	w := c.redfish
	w.b.mu.Lock()
	delete(w.conns, c)
	if c.idle != nil {
		c.idle.Stop()
	}
	w.b.mu.Unlock()
	return c.Conn.Close()
}

// reset ends the connection so that the other side sees it reset.
func (c *webConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Conn.Close()
}

// state closes the connection when it has been idle for as long as the BMC keeps it.
func (c *webConn) state(s http.ConnState) {
	b := c.redfish.b
	b.mu.Lock()
	defer b.mu.Unlock()
	switch keep := c.redfish.faults.keepAlive; {
	case c.idle != nil:
		c.idle.Stop()
		if s == http.StateIdle && keep > 0 {
			c.idle.Reset(keep)
		}
	case s == http.StateIdle && keep > 0:
		c.idle = time.AfterFunc(keep, func() { _ = c.Conn.Close() })
	}
}

// endConns closes the connections of the BMC; those alone that are of no more use when
// lost is set. The caller holds the lock.
func (w *redfish) endConns(lost bool) {
	for c := range w.conns {
		if c.lost || !lost {
			c.reset()
		}
	}
}

// webAnswer is what a request gets.
type webAnswer struct {
	status int
	header map[string]string
	body   any    // as JSON; nil: none
	html   string // instead of a body

	reset   bool          // the connection is reset instead
	close   bool          // the connection ends with it
	wait    chan struct{} // closed when it may leave
	drip    time.Duration // between its bytes
	endless bool          // it has no end
	nested  int           // arrays within each other are in it
	then    func()        // what happens once it has left, under the lock
	done    func()        // the request is no longer in hand, under the lock
}

// serveWeb is the handler of all BMCs.
func serveWeb(rw http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(webConnKey{}).(*webConn)
	w := conn.redfish
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxWebBody))
	if err != nil {
		rw.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	ans := w.receive(r, conn, body)
	if ans.wait != nil {
		select {
		case <-ans.wait:
		case <-r.Context().Done():
			ans.reset = true
		}
	}
	w.leaves(ans)
	if !ans.reset {
		ans.write(rw, r)
	}
	w.left(ans)
	if ans.reset {
		conn.reset()
		panic(http.ErrAbortHandler)
	}
}

// leaves has the request no longer in hand: the next one may come as soon as the answer is
// read.
func (w *redfish) leaves(ans *webAnswer) {
	_, unlock := w.b.look()
	defer unlock()
	if ans.done != nil {
		ans.done()
	}
}

// left does what has to happen when an answer has left.
func (w *redfish) left(ans *webAnswer) {
	now, unlock := w.b.look()
	defer unlock()
	if ans.then != nil && !w.b.closed {
		ans.then()
		w.b.agenda.run(now)
	}
}

func (a *webAnswer) write(rw http.ResponseWriter, r *http.Request) {
	out, kind := []byte(a.html), "text/html"
	if a.html == "" {
		kind = "application/json; charset=utf-8"
		if a.body != nil {
			out, _ = json.Marshal(a.body) // of maps, strings and numbers alone
			out = withNested(out, a.nested)
		}
	}
	h := rw.Header()
	h.Set("OData-Version", "4.0")
	h.Set("Cache-Control", "no-cache")
	for name, value := range a.header {
		h.Set(name, value)
	}
	if a.close {
		h.Set("Connection", "close")
	}
	if len(out) > 0 {
		h.Set("Content-Type", kind)
	}
	if a.endless {
		a.writeForever(rw, r, out)
		return
	}
	if a.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(out)))
	}
	rw.WriteHeader(a.status)
	if r.Method == http.MethodHead {
		return
	}
	flush := http.NewResponseController(rw)
	for a.drip > 0 && len(out) > 0 {
		_, _ = rw.Write(out[:1])
		_ = flush.Flush()
		out = out[1:]
		select {
		case <-time.After(a.drip):
		case <-r.Context().Done():
			return
		}
	}
	_, _ = rw.Write(out)
	_ = flush.Flush()
}

// writeForever writes the answer without its end, and white space for as long as someone
// reads.
func (a *webAnswer) writeForever(rw http.ResponseWriter, r *http.Request, out []byte) {
	rw.WriteHeader(a.status)
	if len(out) > 0 {
		_, _ = rw.Write(out[:len(out)-1])
	}
	space := make([]byte, 16<<10)
	for i := range space {
		space[i] = ' '
	}
	for r.Context().Err() == nil {
		if _, err := rw.Write(space); err != nil {
			return
		}
	}
}

// receive handles one request. It is the gate for faults and the fence for bugs.
func (w *redfish) receive(r *http.Request, conn *webConn, body []byte) (ans *webAnswer) {
	b := w.b
	now, unlock := b.look()
	defer unlock()
	defer func() {
		if p := recover(); p != nil {
			b.counts.Panics++
			b.farm.cfg.Logger.Error("bug: a request led to a panic", slog.String("bmc", b.name),
				slog.Any("panic", p), slog.String("request", r.Method+" "+r.URL.Path))
			ans = &webAnswer{reset: true}
		}
	}()
	b.counts.Requests++
	w.requests++
	conn.served++
	if b.closed || conn.lost {
		return &webAnswer{reset: true}
	}
	if conn.served > 1 && w.faults.cutReused > 0 {
		w.faults.cutReused--
		return &webAnswer{reset: true}
	}
	done := b.inHand(fmt.Sprintf("request %d: %s %s", w.requests, r.Method, r.URL.Path))
	c := &webCall{call: call{b: b, now: now, from: r.RemoteAddr}, w: w, r: r, body: body}
	ans = c.answer()
	if c.lose {
		ans.reset = true
	}
	ans.done, ans.then = done, c.then
	c.spoil(ans)
	b.agenda.run(now)
	return ans
}

// RedfishEndpoint returns how to reach the BMC by Redfish, credentials and the pin of its
// key included; the zero Endpoint if it has none.
func (b *BMC) RedfishEndpoint() power.Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.redfish == nil {
		return power.Endpoint{}
	}
	ep := power.Endpoint{
		Scheme: power.SchemeRedfish, Host: b.addr.Addr().String(), Port: int(b.redfish.addr.Port()), User: b.user, Password: b.password,
		Pin: b.redfish.pin(),
	}
	if b.farm.cfg.Redfish.Plain {
		ep.Scheme = power.SchemeRedfishHTTP
	}
	return ep
}

// pin is that of the BMC's key, "" without TLS.
func (w *redfish) pin() string {
	if w.b.farm.cfg.Redfish.Plain {
		return ""
	}
	cert, err := w.certificate()
	if err != nil {
		return ""
	}
	return power.PinOf(cert.Leaf.RawSubjectPublicKeyInfo)
}

// RedfishURL returns the URL of the BMC's Redfish service without a path, "" if it has none.
func (b *BMC) RedfishURL() string {
	if b.redfish == nil {
		return ""
	}
	return b.farm.cfg.Redfish.scheme() + "://" + b.redfish.addr.String()
}

// RedfishSessions returns how many Redfish sessions are open now.
func (b *BMC) RedfishSessions() int {
	return b.number(func() int {
		if b.redfish == nil {
			return 0
		}
		b.redfish.evict(time.Now())
		return len(b.redfish.sessions)
	})
}

// Requests returns how many HTTP requests arrived.
func (b *BMC) Requests() int { return b.number(func() int { return b.counts.Requests }) }
