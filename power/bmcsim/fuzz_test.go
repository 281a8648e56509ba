package bmcsim

import (
	"bytes"
	"net/netip"
	"testing"
)

// handshake returns the datagrams of a session from its opening to a command.
func handshake(t testing.TB, b *BMC) (out [][]byte) {
	c := dial(t, b)
	keep := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, bytes.Clone(c.lastPacket))
	}
	keep(c.openRequest())
	resp, err := c.setup(0x12, c.rakp1())
	keep(err)
	_, err = c.setup(0x14, c.rakp3(resp))
	keep(err)
	c.on()
	keep(nil)
	return append(out, buildV15(message(netFnApp, 0x38, 1, 0x8e, 4)), buildV15(message(netFnApp, 0x54, 1, 0x0e, 0, 0x80)),
		[]byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 42, 0, 0})
}

var nobody = netip.MustParseAddrPort("127.0.0.1:9")

// FuzzDatagram sends whatever there is, before and in a session that is being
// opened: at is where the session ID the BMC knows is written.
func FuzzDatagram(f *testing.F) {
	b := one(f, Config{})
	for _, pkt := range handshake(f, b) {
		f.Add(pkt, uint8(20))
		f.Add(pkt, uint8(6))
	}
	f.Add([]byte{
		6, 0, 0xff, 7, 6, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 240,
	}, uint8(20))
	c := dial(f, b)
	f.Fuzz(func(t *testing.T, pkt []byte, at uint8) {
		c.t = t
		if err := c.openRequest(); err != nil {
			t.Fatalf("no longer answers: %v", err)
		}
		pkt = bytes.Clone(pkt[:min(len(pkt), datagramMax)])
		if int(at)+4 <= len(pkt) {
			copy(pkt[at:], le(c.bmcID))
		}
		b.receive(pkt, nobody)
		if b.Panics() > 0 {
			t.Fatal("a datagram led to a panic")
		}
	})
}

// FuzzSession sends whatever there is through a session, signed and encrypted as
// it should be, or signed as it stands.
func FuzzSession(f *testing.F) {
	b := one(f, Config{})
	b.BootTime(0)
	for _, msg := range [][]byte{
		message(netFnChassis, 1, 1), message(netFnChassis, 2, 1, up), message(netFnChassis, 8, 1, 5, 0x80, 4, 0, 0, 0),
		message(netFnChassis, 9, 1, 5, 0, 0), message(netFnApp, 0x3b, 1, 4), message(netFnApp, 0x3c, 1, 1, 2, 3, 4),
		message(netFnApp, 0x42, 1, 0xe), message(netFnApp, 0x54, 1, 0xe, 0, 0x80), message(netFnApp, 0x3d, 1, 0), make([]byte, 32),
		message(netFnGroup, 2, 1, groupDCMI, 1, 0, 0), message(netFnGroup, 4, 1, groupDCMI, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1, 0),
	} {
		f.Add(msg, true, true)
		f.Add(msg, false, false)
	}
	c := dial(f, b)
	f.Fuzz(func(t *testing.T, msg []byte, encrypt, sums bool) {
		if len(msg) > datagramMax-64 {
			return
		}
		msg = bytes.Clone(msg)
		if sums && len(msg) >= 7 {
			msg[0] = bmcAddr
			good := message(msg[1]>>2, msg[5], msg[4]>>2, msg[6:len(msg)-1]...)
			msg = good
		}
		c.t = t
		if b.Sessions() == 0 {
			c.mustOpen()
		}
		c.seq++
		if encrypt {
			b.receive(c.sealed(c.seq, msg), nobody)
		} else {
			b.receive(c.signed(c.seq, msg), nobody)
		}
		if b.Panics() > 0 {
			t.Fatal("a datagram led to a panic")
		}
		if b.Sessions() > 0 && !okay(c) {
			t.Fatal("no longer answers")
		}
	})
}

func FuzzWire(f *testing.F) {
	f.Add(message(netFnChassis, 2, 1, up))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, ok := parseRequest(msg)
		if !ok {
			return
		}
		resp := r.response(0, r.data)
		if len(resp) != len(msg)+1 || resp[0] != msg[3] || resp[4]>>2 != msg[4]>>2 || resp[5] != msg[5] {
			t.Fatalf("% x answers % x", resp, msg)
		}
	})
}
