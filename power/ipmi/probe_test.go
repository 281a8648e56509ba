package ipmi

import (
	"net"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
	"rackpower/power/powertest"
)

// plainAnswer is what a BMC says to the probe q.
func plainAnswer(q []byte, tag byte) []byte {
	cmd := types.CommandGetChannelAuthCapabilities
	msg := []byte{addrConsole, byte(cmd.NetFn+1) << 2, 0, addrBMC, tag << 2, cmd.ID, 0, 1, 0x80, 4, 2, 0, 0, 0, 0}
	msg[2] = checksum(msg[:2])
	msg = append(msg, checksum(msg[3:]))
	p := append([]byte(nil), q[:offPlainPayload]...)
	p[offPlainLength] = byte(len(msg))
	return append(p, msg...)
}

func probeTag(q []byte) byte { return q[offPlainPayload+4] >> 2 }

// listen plays a BMC of which each datagram gets what answer returns.
func listen(t *testing.T, answer func(nth int, q []byte) [][]byte) power.Endpoint {
	t.Helper()
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, maxPacket)
		for nth := 1; ; nth++ {
			n, from, err := peer.ReadFromUDP(buf)
			if err != nil {
				return
			}
			for _, p := range answer(nth, buf[:n]) {
				peer.WriteToUDP(p, from)
			}
		}
	}()
	t.Cleanup(func() {
		peer.Close()
		<-done
	})
	addr := peer.LocalAddr().(*net.UDPAddr)
	return power.Endpoint{Host: addr.IP.String(), Port: addr.Port}
}

func TestProbeIsAskedOnceMore(t *testing.T) {
	t.Parallel()
	asked := make(chan int, 10)
	ep := listen(t, func(nth int, q []byte) [][]byte {
		asked <- nth
		if nth == 1 {
			return nil
		}
		return [][]byte{plainAnswer(q, probeTag(q))}
	})
	if err := NewDialer(impatient).Probe(t.Context(), ep); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 {
		t.Errorf("asked %d times, want 2", len(asked))
	}
}

func TestProbeTakesNoOtherAnswer(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 10)
	ep := listen(t, func(nth int, q []byte) [][]byte {
		sent <- nth
		late, other, torn := plainAnswer(q, probeTag(q)^1), plainAnswer(q, probeTag(q)), plainAnswer(q, probeTag(q))
		other[offPlainPayload+5]++
		return [][]byte{late, other, torn[:len(torn)-1], {6}, q}
	})
	start := time.Now()
	err := NewDialer(impatient).Probe(t.Context(), ep)
	if power.KindOf(err) != power.KindUnreachable || power.WasSent(err) {
		t.Errorf("got %v, want unreachable and not sent", err)
	}
	if took := time.Since(start); took < impatient.ProbeTimeout || len(sent) != 2 {
		t.Errorf("gave up after %v and %d questions, want %v and 2", took, len(sent), impatient.ProbeTimeout)
	}
}

// TestProbeOverALossyNetwork: one of the two questions gets through to ipmi_sim.
func TestProbeOverALossyNetwork(t *testing.T) {
	t.Parallel()
	sim := powertest.StartIPMISim(t, 1)[0]
	proxy := powertest.StartProxy(t, sim.Endpoint())
	first := true
	proxy.FromBMC(func(d []byte) [][]byte {
		if first {
			first = false
			return nil
		}
		return [][]byte{d}
	})
	if err := NewDialer(Config{}).Probe(t.Context(), proxy.Endpoint()); err != nil {
		t.Error(err)
	}
	if got := proxy.Requests(); got != 2 {
		t.Errorf("%d datagrams left, want 2", got)
	}
}

func FuzzProbeAnswer(f *testing.F) {
	q := plainRequest(types.CommandGetChannelAuthCapabilities, 5, []byte{thisChannel | extended, byte(lowestRole)})
	f.Add(plainAnswer(q, 5))
	f.Add(q)
	f.Fuzz(func(t *testing.T, p []byte) {
		res, is := probeAnswer(p, 5)
		speaks20(res)
		if is && len(p) < offPlainPayload+8 {
			t.Errorf("taken for an answer: % x", p)
		}
	})
}
