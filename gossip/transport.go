package gossip

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStreams bounds the inbound streams whose first byte has not come and those
	// of exchanges together; more are closed at once.
	maxStreams = 256
	// firstByteWithin is how long a stream may be silent at its begin.
	firstByteWithin = 5 * time.Second
	// maxSerfStreams bounds the streams that memberlist reads at once, maxSerfStream the
	// bytes of one: it takes up to 20 MiB from anyone who connects before it looks at the key.
	// The state of 4,096 members has some 2 MiB.
	maxSerfStreams = 32
	maxSerfStream  = 8 << 20
)

var errStreamTooLong = errors.New("the stream is longer than any member's state")

// transport is memberlist's own network transport whose streams are shared: one
// that begins with exchangeMagic goes to serve, all others to memberlist. So that
// one port, UDP and TCP, is all that a firewall has to let through.
//
// Nothing that came is handed on before the member is whole: Serf listens while it is
// being made, and a question of another member that comes so early, as it does to a
// process that was killed and is back at once, has it answer with what is not there
// yet (handleQuery of serf 0.11), which ends the process.
type transport struct {
	memberlist.NodeAwareTransport
	whole   <-chan struct{} // closed when what came may be handed on
	streams chan net.Conn
	serve   func(net.Conn) // returns when the stream is done with
	full    *atomic.Uint64 // counts streams that were closed unread
	serf    chan struct{}  // taken while memberlist reads a stream
	done    chan struct{}
	once    sync.Once
	parts   sync.WaitGroup
	mu      sync.Mutex
	waiting map[net.Conn]bool // until their first byte is here; nil after Shutdown
}

// listen binds the address and returns the port. Port 0 takes a free one.
func listen(conf *memberlist.NetTransportConfig) (*memberlist.NetTransport, int, error) {
	tries := 1
	if conf.BindPort == 0 {
		tries = 10 // the port that TCP got may be taken for UDP
	}
	for {
		inner, err := memberlist.NewNetTransport(conf)
		if err == nil {
			return inner, inner.GetAutoBindPort(), nil
		}
		if tries--; tries == 0 {
			return nil, 0, err
		}
	}
}

// share begins to sort the streams of inner; those for memberlist and packets wait for
// whole. Shutdown ends it.
func share(inner memberlist.NodeAwareTransport, whole <-chan struct{}, serve func(net.Conn), full *atomic.Uint64) *transport {
	t := &transport{
		NodeAwareTransport: inner, whole: whole, streams: make(chan net.Conn), serve: serve, full: full,
		serf: make(chan struct{}, maxSerfStreams), done: make(chan struct{}), waiting: map[net.Conn]bool{},
	}
	t.parts.Go(t.accept)
	return t
}

// StreamCh yields the streams for memberlist. The first call waits until the member is
// whole.
func (t *transport) StreamCh() <-chan net.Conn {
	t.await()
	return t.streams
}

// PacketCh yields the packets. The first call waits until the member is whole.
func (t *transport) PacketCh() <-chan *memberlist.Packet {
	t.await()
	return t.NodeAwareTransport.PacketCh()
}

func (t *transport) await() {
	select {
	case <-t.whole:
	case <-t.done:
	}
}

// Shutdown ends the transport and returns when nothing of it runs any more.
func (t *transport) Shutdown() error {
	err := t.NodeAwareTransport.Shutdown()
	t.once.Do(func() { close(t.done) })
	t.mu.Lock()
	for conn := range t.waiting {
		conn.Close()
	}
	t.waiting = nil
	t.mu.Unlock()
	t.parts.Wait()
	return err
}

func (t *transport) accept() {
	room := make(chan struct{}, maxStreams)
	for {
		select {
		case <-t.done:
			return
		case conn := <-t.NodeAwareTransport.StreamCh():
			select {
			case room <- struct{}{}:
				t.parts.Go(func() { defer func() { <-room }(); t.sort(conn) })
			default:
				t.full.Add(1)
				conn.Close()
			}
		}
	}
}

// sort looks at the first byte of a stream and hands it on.
func (t *transport) sort(conn net.Conn) {
	if !t.hold(conn) {
		conn.Close()
		return
	}
	first := make([]byte, 1)
	conn.SetReadDeadline(time.Now().Add(firstByteWithin))
	_, err := io.ReadFull(conn, first)
	conn.SetReadDeadline(time.Time{})
	t.release(conn)
	switch {
	case err != nil:
		conn.Close()
	case first[0] == exchangeMagic[0]:
		t.serve(&begun{Conn: conn, first: first})
	default:
		t.toSerf(&begun{Conn: conn, first: first})
	}
}

// toSerf hands a stream to memberlist, which closes it.
func (t *transport) toSerf(conn net.Conn) {
	select {
	case t.serf <- struct{}{}:
	default:
		t.full.Add(1)
		conn.Close()
		return
	}
	stream := &serfStream{Conn: conn, left: maxSerfStream, closed: sync.OnceFunc(func() { <-t.serf })}
	select {
	case t.streams <- stream:
	case <-t.done:
		stream.Close()
	}
}

// serfStream is a stream that memberlist reads, up to a bound.
type serfStream struct {
	net.Conn
	left   int
	closed func()
}

func (s *serfStream) Read(into []byte) (int, error) {
	if s.left <= 0 {
		return 0, errStreamTooLong
	}
	n, err := s.Conn.Read(into[:min(len(into), s.left)])
	s.left -= n
	return n, err
}

func (s *serfStream) Close() error {
	defer s.closed()
	return s.Conn.Close()
}

func (t *transport) hold(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting != nil {
		t.waiting[conn] = true
	}
	return t.waiting != nil
}

func (t *transport) release(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, conn)
}

// begun is a stream of which the first bytes were read already.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(into []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(into, b.first)
		b.first = slices.Delete(b.first, 0, n)
		return n, nil
	}
	return b.Conn.Read(into)
}
