// Package forward has a central that stands by pass connections on to the one that serves, so that agents
// and people are served by whichever they reach. What is passed on is TLS between them and the one that
// serves: who stands by sees nothing of it, and vouches for nobody. It only tells from which address the
// connection came, and by which names it is reached itself, for the certificate.
//
// The one that serves listens for others on an address of its own, with a certificate and a token that it
// makes at its start. Where, which and what it writes into the database (Receiver.Where), which others read:
// whoever may read the database can say that a connection came from elsewhere, and nothing more.
package forward

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"rackpower/internal/backoff"
)

const (
	// agreeWithin bounds what comes before the first byte is passed on.
	agreeWithin = 5 * time.Second
	// maxHeader bounds the header of a connection, in bytes.
	maxHeader = 8 << 10
	// maxConns bounds the connections that one central passes on at once.
	maxConns = 8192
	// maxAgreeing bounds those at the receiver that have not said the token yet.
	maxAgreeing = 256
	// afterHalf is how long one direction may go on after the other one has ended.
	afterHalf = 10 * time.Second
	// acceptPause is how long is waited after a connection could not be taken.
	acceptPause = 50 * time.Millisecond
)

// where is how the central that serves is reached by others.
type where struct {
	Address string `json:"address"`
	Cert    string `json:"cert"` // SHA-256 of the certificate, in hexadecimal
	Token   string `json:"token"`
}

// header comes before what is passed on, after its length in two bytes.
type header struct {
	Token string         `json:"token"`
	From  netip.AddrPort `json:"from"`
	Names []string       `json:"names,omitempty"`
}

// Receiver takes connections that others pass on. It is a net.Listener of them.
type Receiver struct {
	l        net.Listener
	where    where
	config   *tls.Config
	conns    chan net.Conn
	agreeing chan struct{}
	done     chan struct{}
	once     sync.Once
	parts    sync.WaitGroup
}

// Listen listens for others on an address, by which they reach it.
func Listen(address string) (*Receiver, error) {
	cert, err := newCertificate()
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for other centrals: %w", err)
	}
	r := &Receiver{
		l: l, conns: make(chan net.Conn), agreeing: make(chan struct{}, maxAgreeing), done: make(chan struct{}),
		config: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}},
		where:  where{Address: address, Cert: sum(cert.Certificate[0]), Token: rand.Text()},
	}
	if host, port, err := net.SplitHostPort(address); err == nil && port == "0" {
		_, port, _ = net.SplitHostPort(l.Addr().String())
		r.where.Address = net.JoinHostPort(host, port)
	}
	r.parts.Go(r.accept)
	return r, nil
}

func sum(der []byte) string {
	is := sha256.Sum256(der)
	return hex.EncodeToString(is[:])
}

// newCertificate makes one that is known by its hash alone.
func newCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	plain := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, plain, plain, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Where is what others need to pass connections on, as a Forwarder takes it. It has a secret.
func (r *Receiver) Where() string {
	text, _ := json.Marshal(r.where) // texts
	return string(text)
}

// Accept returns the next connection, a *Conn.
func (r *Receiver) Accept() (net.Conn, error) {
	select {
	case conn := <-r.conns:
		return conn, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

// Close ends what has not been accepted.
func (r *Receiver) Close() error {
	r.once.Do(func() { close(r.done) })
	err := r.l.Close()
	r.parts.Wait()
	return err
}

// Addr is where it listens.
func (r *Receiver) Addr() net.Addr { return r.l.Addr() }

func (r *Receiver) accept() {
	for {
		raw, err := r.l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many open files, perhaps
			select {
			case <-r.done:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case r.agreeing <- struct{}{}:
			r.parts.Go(func() { r.agree(raw); <-r.agreeing })
		default:
			raw.Close()
		}
	}
}

// agree hands a connection on whose header is right.
func (r *Receiver) agree(raw net.Conn) {
	stop := make(chan struct{})
	defer close(stop)
	r.parts.Go(func() { // an end is not held up by who says nothing
		select {
		case <-r.done:
			_ = raw.SetDeadline(time.Now())
		case <-stop:
		}
	})
	conn := tls.Server(raw, r.config)
	_ = raw.SetDeadline(time.Now().Add(agreeWithin))
	h, err := readHeader(conn)
	if err != nil || subtle.ConstantTimeCompare([]byte(h.Token), []byte(r.where.Token)) != 1 {
		raw.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	select {
	case r.conns <- &Conn{Conn: conn, from: net.TCPAddrFromAddrPort(h.From), Names: h.Names}:
	case <-r.done:
		raw.Close()
	}
}

func readHeader(r io.Reader) (h header, err error) {
	var length [2]byte
	if _, err = io.ReadFull(r, length[:]); err != nil {
		return h, err
	}
	text := make([]byte, binary.BigEndian.Uint16(length[:]))
	if len(text) > maxHeader {
		return h, errors.New("the header is too long")
	}
	if _, err = io.ReadFull(r, text); err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err == nil && !h.From.IsValid() {
		err = errors.New("the header has no address")
	}
	return h, err
}

// Conn is a connection that another central passed on.
type Conn struct {
	net.Conn
	from  net.Addr
	Names []string // by which the one that passed it on is reached
}

// RemoteAddr is whom the connection comes from, as the one says that passed it on.
func (c *Conn) RemoteAddr() net.Addr { return c.from }

// Forwarder passes connections on.
type Forwarder struct {
	Names []string // by which this central is reached
	Log   *slog.Logger

	mu    sync.Mutex
	text  string
	where where
	state string // for the log, which has each change once
}

// Found notes where the central that serves is reached, as its Receiver said; "": nowhere.
func (f *Forwarder) Found(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if text == f.text {
		return
	}
	f.text, f.where = text, where{}
	if text == "" {
		return
	}
	if err := json.Unmarshal([]byte(text), &f.where); err != nil {
		f.Log.Warn("cannot read where the central that serves is reached", "err", err)
	}
}

// Serve passes on what is accepted on l until ctx ends, which cuts what it passes on. l stays open.
func (f *Forwarder) Serve(ctx context.Context, l *net.TCPListener) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = l.SetDeadline(time.Now()) // Accept returns
		close(interrupted)
	})
	places := make(chan struct{}, maxConns)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			<-interrupted // or the deadline would be set after it was taken back
			return l.SetDeadline(time.Time{})
		case errors.Is(err, net.ErrClosed):
			stop()
			return err
		case err != nil: // too many open files, perhaps
			_ = backoff.Sleep(ctx, acceptPause)
			continue
		}
		select {
		case places <- struct{}{}:
			parts.Go(func() { f.pass(ctx, conn); <-places })
		default:
			conn.Close()
		}
	}
}

// pass passes a connection on until it ends.
func (f *Forwarder) pass(ctx context.Context, from net.Conn) {
	defer from.Close()
	to, err := f.dial(ctx, from.RemoteAddr())
	f.tell(err)
	if err != nil {
		return
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() { from.Close(); to.Close() })()
	var both sync.WaitGroup
	both.Go(func() { move(to, from) })
	both.Go(func() { move(from, to) })
	both.Wait()
}

// move moves what comes, and the end of it.
func move(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		to.Close()
	}
	_ = to.SetReadDeadline(time.Now().Add(afterHalf))
}

// dial connects to the central that serves, and says whose connection follows.
func (f *Forwarder) dial(ctx context.Context, from net.Addr) (*tls.Conn, error) {
	f.mu.Lock()
	at := f.where
	f.mu.Unlock()
	if at.Address == "" {
		return nil, errors.New("it takes nothing from others: it was started without --peer-listen, or has just ended")
	}
	dialer := &tls.Dialer{Config: &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection takes one certificate only
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) != 1 || sum(state.PeerCertificates[0].Raw) != at.Cert {
				return errors.New("another certificate than the database names")
			}
			return nil
		},
	}}
	ctx, cancel := context.WithTimeout(ctx, agreeWithin) // the handshake as well
	defer cancel()
	raw, err := dialer.DialContext(ctx, "tcp", at.Address)
	if err != nil {
		return nil, err
	}
	conn := raw.(*tls.Conn) //nolint:forcetypeassert // what a tls.Dialer dials
	h := header{Token: at.Token, Names: f.Names}
	if h.From, err = netip.ParseAddrPort(from.String()); err == nil {
		h.From = netip.AddrPortFrom(h.From.Addr().Unmap(), h.From.Port())
		err = writeHeader(conn, h)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func writeHeader(conn net.Conn, h header) error {
	text, err := json.Marshal(h)
	if err == nil && len(text) > maxHeader {
		err = errors.New("too many names")
	}
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(agreeWithin))
		_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)) //nolint:gosec // below maxHeader
		_ = conn.SetWriteDeadline(time.Time{})
	}
	return err
}

// tell logs whether connections can be passed on, when that changes.
func (f *Forwarder) tell(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := "passes on"
	if err != nil {
		state = err.Error()
	}
	if state == f.state {
		return
	}
	f.state = state
	if err != nil {
		f.Log.Warn("connections cannot be passed on to the central that serves", "address", f.where.Address, "err", err)
	} else {
		f.Log.Info("connections are passed on to the central that serves", "address", f.where.Address)
	}
}
