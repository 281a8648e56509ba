package redfish

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"rackpower/power"
)

// client sends requests to one BMC, one at a time, over one connection.
type client struct {
	cfg       Config
	ep        power.Endpoint
	base      string
	transport *http.Transport
	sign      func(*http.Request)  // adds what says who asks
	used      time.Time            // when the last answer was read
	tls       *tls.ConnectionState // of the last answer; nil: without TLS
}

func newClient(cfg Config, ep power.Endpoint, trust *tls.Config) *client {
	c := &client{cfg: cfg, ep: ep, sign: func(*http.Request) {}}
	scheme := "https"
	if ep.Scheme == power.SchemeRedfishHTTP {
		scheme = "http"
	}
	c.base = scheme + "://" + net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port))
	c.transport = &http.Transport{
		DialContext: c.dial, TLSClientConfig: trust, TLSHandshakeTimeout: cfg.Timeout, DisableCompression: true, MaxConnsPerHost: 1,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: keepAlive, MaxResponseHeaderBytes: maxHeader, Protocols: new(http.Protocols),
	}
	c.transport.Protocols.SetHTTP1(true)
	return c
}

// dial connects to the first of the host's addresses that answers.
func (c *client) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	addrs := []netip.Addr{}
	if addr, err := netip.ParseAddr(c.ep.Host); err == nil {
		addrs = append(addrs, addr)
	} else if addrs, err = c.cfg.Lookup(ctx, c.ep.Host); err != nil {
		return nil, fmt.Errorf("cannot look up the BMC's name: %w", err)
	}
	err := errors.New("the BMC's name has no address")
	for i, addr := range addrs {
		within, cancel := ctx, context.CancelFunc(func() {})
		if until, ok := ctx.Deadline(); ok { // an address that is mute leaves time for the others
			within, cancel = context.WithTimeout(ctx, time.Until(until)/time.Duration(len(addrs)-i))
		}
		var conn net.Conn
		conn, err = new(net.Dialer).DialContext(within, network, netip.AddrPortFrom(addr, uint16(c.ep.Port)).String())
		cancel()
		if err == nil {
			return &countedConn{Conn: conn}, nil
		}
	}
	return nil, err
}

// countedConn knows whether something was written to it, and can be shut: after that nothing
// leaves on it, whatever goroutine is about to write.
type countedConn struct {
	net.Conn
	mu     sync.Mutex
	writes int
	shut   bool
}

// Write implements net.Conn.
func (c *countedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.shut {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// begun is how often something was written, or was begun to be.
func (c *countedConn) begun() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// shutDown lets nothing more leave, and returns begun.
func (c *countedConn) shutDown() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	return c.writes
}

// counted is the connection below TLS.
func counted(conn net.Conn) *countedConn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, _ := conn.(*countedConn)
	return c
}

// request is one request.
type request struct {
	op     string // for people
	method string
	path   string
	body   any
	header map[string]string
	within time.Duration // 0: ReadTimeout
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

// into reads the answer's JSON.
func (a answer) into(op string, v any) *power.Error {
	if err := parse(a.body, v); err != nil {
		return &power.Error{Kind: power.KindRefused, Op: op, Err: err}
	}
	return nil
}

// location is the path that the answer says something is at, "" for none.
func (a answer) location() string {
	path, _ := localPath(a.header.Get("Location"))
	return path
}

// send sends a request and reads the answer, whatever its status. Sent in the error says
// whether the request may have left; reads have it false. A redirect to another place of the
// same BMC is followed once.
func (c *client) send(ctx context.Context, r request) (answer, *power.Error) {
	a, err := c.sendAgain(ctx, r)
	if err != nil || !redirects(r.method, a.status) {
		return a, err
	}
	to, bad := c.redirected(r.path, a.header.Get("Location"))
	if bad != nil {
		return a, &power.Error{Kind: power.KindRefused, Op: r.op, Err: bad}
	}
	r.path = to
	if a, err = c.sendAgain(ctx, r); err == nil && redirects(r.method, a.status) {
		return a, &power.Error{Kind: power.KindRefused, Op: r.op, Err: errors.New("it redirects what it has redirected")}
	}
	return a, err
}

// redirects reports whether an answer has the request go elsewhere. What acts goes there only
// where the answer says that it did not happen here and is the same there.
func redirects(method string, status int) bool {
	switch status {
	case http.StatusPermanentRedirect, http.StatusTemporaryRedirect:
		return true
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		return method == http.MethodGet
	}
	return false
}

// redirected is the path that a redirect leads to.
func (c *client) redirected(from, location string) (string, error) {
	base, err := url.Parse(c.base + from)
	if err != nil {
		return "", err
	}
	to, err := base.Parse(location)
	if err != nil || location == "" {
		return "", errors.New("it redirects to no place")
	}
	if to.Scheme != base.Scheme || to.Hostname() != base.Hostname() || port(to) != port(base) {
		return "", errors.New("it redirects to another host, which is not asked")
	}
	return to.RequestURI(), nil
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// sendAgain repeats a read whose connection broke, once, over a new one.
func (c *client) sendAgain(ctx context.Context, r request) (answer, *power.Error) {
	a, err := c.sendOnce(ctx, r)
	if err == nil || r.method != http.MethodGet || !broke(err) || ctx.Err() != nil {
		return a, err
	}
	c.cfg.Log.Debug("read again over a new connection", "bmc", c.ep.Key(), "path", r.path, "err", err)
	return c.sendOnce(ctx, r)
}

// broke reports whether a connection that was there was cut.
func broke(e *power.Error) bool {
	var broken brokenError
	return errors.As(e.Err, &broken)
}

// brokenError is a connection that was cut while an answer was waited for.
type brokenError struct{ error }

// Unwrap returns the cause.
func (b brokenError) Unwrap() error { return b.error }

func (c *client) sendOnce(ctx context.Context, r request) (answer, *power.Error) {
	if err := ended(ctx); err != nil {
		return answer{}, &power.Error{Kind: power.KindCanceled, Op: r.op, Err: err}
	}
	acts := r.method != http.MethodGet
	if acts && time.Since(c.used) > c.cfg.Reuse {
		c.transport.CloseIdleConnections()
	}
	within := r.within
	if within == 0 {
		within = c.cfg.ReadTimeout
	}
	bounded, cancel := context.WithTimeoutCause(ctx, within, errNoAnswer)
	defer cancel()
	var conn *countedConn
	before := 0
	traced := httptrace.WithClientTrace(bounded, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if conn = counted(info.Conn); conn != nil {
			before = conn.begun()
		}
	}})
	req, err := c.newRequest(traced, r)
	if err != nil {
		return answer{}, &power.Error{Kind: power.KindRefused, Op: r.op, Err: err}
	}
	res, err := c.transport.RoundTrip(req)
	if err == nil && bounded.Err() != nil {
		// A server that sees the connection close gives up the request, and may still say
		// 200 of it: that is no answer.
		res.Body.Close()
		err = context.Cause(bounded)
	}
	if err != nil {
		left := conn != nil && conn.shutDown() > before
		return answer{}, c.failed(ctx, bounded, r.op, acts && left, conn != nil, err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	a.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case len(a.body) > maxAnswer:
		err = errTooLong
	case err == nil && res.Header.Get("Content-Encoding") != "" && res.Header.Get("Content-Encoding") != "identity":
		err = errEncoded
	}
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		if acts || !a.ok() { // its status has said what counts
			a.body = nil
			return a, nil
		}
		return answer{}, c.failed(ctx, bounded, r.op, false, true, err)
	}
	c.used, c.tls = time.Now(), res.TLS
	return a, nil
}

func (c *client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return nil, errors.New("the path is none of HTTP")
	}
	req.GetBody = nil // nobody sends it again
	req.Header.Set("Accept", "application/json")
	req.Header.Set("OData-Version", "4.0")
	req.Header.Set("User-Agent", "rackpower")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	c.sign(req)
	return req, nil
}

func (c *client) get(ctx context.Context, op, path string) (answer, *power.Error) {
	return c.send(ctx, request{op: op, method: http.MethodGet, path: path})
}

func (c *client) close() { c.transport.CloseIdleConnections() }
