package ipmi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestALateLookFindsWhatCame: a process that was halted beyond its deadline reads what
// lies in the socket before it takes the BMC for silent.
func TestALateLookFindsWhatCame(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l, err := openLink(server.LocalAddr().(*net.UDPAddr).Port, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.send([]byte{1}); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 8)
	_, from, err := server.ReadFromUDP(in)
	if err == nil {
		_, err = server.WriteToUDP([]byte{2}, from)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err := l.receive(context.Background(), time.Now().Add(-time.Second)); err != nil || len(p) != 1 || p[0] != 2 {
		t.Fatalf("%v, %v", p, err)
	}
	if _, err := l.receive(context.Background(), time.Now().Add(-time.Second)); !errors.Is(err, errUnanswered) {
		t.Fatalf("nothing came: %v", err)
	}
}
