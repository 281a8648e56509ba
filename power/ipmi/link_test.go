package ipmi

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"rackpower/power"
)

// silentLink is a link to a socket that nobody reads.
func silentLink(t *testing.T) *link {
	t.Helper()
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	addr := peer.LocalAddr().(*net.UDPAddr)
	l, err := openLink(t.Context(), power.Endpoint{Host: addr.IP.String(), Port: addr.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.close() })
	return l
}

// A context that ends between two reads is not forgotten by the second.
func TestReceiveAfterTheEnd(t *testing.T) {
	l := silentLink(t)
	cause := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := l.watch(ctx)
	cancel(cause)
	for len(l.ends) == 0 {
		time.Sleep(time.Millisecond) // until the read deadline was set
	}
	start := time.Now()
	if _, err := l.receive(ctx, start.Add(5*time.Second)); !errors.Is(err, cause) {
		t.Errorf("receive: %v, want %v", err, cause)
	}
	within(t, start, time.Second)
	release()

	// The next operation is not disturbed by the end of the one before.
	defer l.watch(t.Context())()
	start = time.Now()
	if _, err := l.receive(t.Context(), start.Add(50*time.Millisecond)); !errors.Is(err, errUnanswered) {
		t.Errorf("receive: %v, want %v", err, errUnanswered)
	}
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("the next read ended after %v", took)
	}
}
