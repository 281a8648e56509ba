package ipmi

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"rackpower/power"
)

// link is a connected UDP socket whose reads end when a context does.
type link struct {
	conn net.Conn
	peer netip.Addr
	at   time.Time // when the peer's address was last known to be that of the BMC's name
	in   []byte
	ends chan struct{} // told by the function that a context's end has called
}

// errUnanswered says that the time to wait for a packet is over.
var errUnanswered = errors.New("no answer")

// past is a read deadline that is over.
var past = time.Unix(1, 0)

// openLink connects a socket to the first of the addresses that there is a way to.
// Port 0 is that of RMCP.
func openLink(port int, addrs []netip.Addr) (l *link, err error) {
	if port == 0 {
		port = power.DefaultIPMIPort
	}
	for _, addr := range addrs {
		conn, bad := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
		if bad == nil {
			return &link{conn: conn, peer: addr, at: time.Now(), in: make([]byte, maxPacket), ends: make(chan struct{}, 1)}, nil
		}
		err = cmp.Or(err, error(bad))
	}
	return nil, err
}

// watch has reads end when ctx does, until the returned function is called.
func (l *link) watch(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	stop := context.AfterFunc(ctx, func() {
		l.conn.SetReadDeadline(past)
		l.ends <- struct{}{}
	})
	return func() {
		if !stop() {
			<-l.ends
		}
	}
}

// send writes one datagram. An error means that it has not left.
func (l *link) send(p []byte) error {
	_, err := l.conn.Write(p)
	return err
}

// receive reads one datagram until the given time. It returns the cause of ctx
// when that has ended, errUnanswered when the time is over; any other error is
// the socket's. ctx must be watched.
func (l *link) receive(ctx context.Context, until time.Time) ([]byte, error) {
	l.conn.SetReadDeadline(until)
	if cause := ended(ctx); cause != nil { // maybe before the deadline was set again
		return nil, cause
	}
	n, err := l.conn.Read(l.in)
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(until) > overslept {
		// The process was halted or starved. What came meanwhile lies in the socket: who
		// asked again before looking would have two requests at the BMC.
		l.conn.SetReadDeadline(time.Now().Add(overslept))
		n, err = l.conn.Read(l.in)
	}
	if err == nil {
		return l.in[:n], nil
	}
	if cause := ended(ctx); cause != nil {
		return nil, cause
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errUnanswered
	}
	return nil, err
}

// overslept is by how much a deadline that is noticed late was missed for more than the
// usual reasons.
const overslept = 10 * time.Millisecond

func (l *link) close() error { return l.conn.Close() }
