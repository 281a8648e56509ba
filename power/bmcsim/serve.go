package bmcsim

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/protocol"
	"github.com/bougou/go-ipmi/pkg/types"
)

type peer = netip.AddrPort

// datagramMax is more than any request in the sessions served here is long.
const datagramMax = 512

// serve reads datagrams until the socket is closed.
func (b *BMC) serve() {
	buf := make([]byte, datagramMax)
	for {
		n, from, err := b.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP answer to one of ours
			continue
		}
		b.receive(buf[:n], from)
	}
}

// receive handles one datagram. It is the gate for faults and the fence for bugs.
func (b *BMC) receive(pkt []byte, from peer) {
	now, unlock := b.look()
	defer unlock()
	defer func() {
		if p := recover(); p != nil {
			b.counts.Panics++
			b.farm.cfg.Logger.Error("bug: a datagram led to a panic", slog.String("bmc", b.name),
				slog.Any("panic", p), slog.String("datagram", hex.EncodeToString(pkt)))
		}
	}()
	b.counts.Datagrams++
	if b.closed || b.faults.mute || now.Before(b.silent) || b.lost(b.faults.lossRx) {
		return
	}
	if len(pkt) < rmcpLen+1 || pkt[0] != 0x06 {
		return
	}
	switch {
	case pkt[3] == classASF:
		if len(pkt) >= 12 && pkt[8] == 0x80 { // presence ping (section 13.2.4)
			b.reply(now, from, protocol.BuildASFPresencePong(pkt[9]), nil)
		}
	case pkt[3] == classIPMI && pkt[4] == authPlus:
		b.receivePlus(now, from, pkt)
	case pkt[3] == classIPMI:
		if payload, ok := parseV15(pkt); ok {
			b.sessionless(now, from, payload, buildV15)
		}
	}
}

func (b *BMC) receivePlus(now time.Time, from peer, pkt []byte) {
	id, seq, kind, flags, payload, ok := protocol.ParseRMCPPlusHeader(pkt)
	if !ok {
		return
	}
	switch {
	case types.PayloadType(kind) != types.PayloadTypeIPMI:
		b.openAndRAKP(now, from, types.PayloadType(kind), payload)
	case id != 0:
		b.inSession(now, from, pkt, id, seq, flags, payload)
	default:
		b.sessionless(now, from, payload, func(msg []byte) []byte {
			return protocol.BuildRMCPPlusPacket(kind, 0, 0, 0, msg)
		})
	}
}

// sessionless answers a request outside of any session.
func (b *BMC) sessionless(now time.Time, from peer, payload []byte, wrap func([]byte) []byte) {
	req, ok := parseRequest(payload)
	if !ok || b.faults.ignoreProbes {
		return
	}
	data, code, _ := registry.Dispatch(context.Background(), &handlers.HandlerContext{BMC: b.lib}, req.netFn, req.cmd, bytes.Clone(req.data))
	b.reply(now, from, wrap(req.response(byte(code), data)), nil)
}

// call is what this package's handlers need to know of the request in hand.
type call struct {
	b    *BMC
	now  time.Time
	from string
	lose bool // its answer does not leave
	// detail and refuse are of Redfish: the type of a Reset, and how the request is refused.
	detail string
	refuse *Refusal
	then   func() // what happens once its answer has left
}

type callKey struct{}

// dispatch executes a request of a session and answers it.
func (b *BMC) dispatch(now time.Time, from peer, s *session, req request) {
	done := b.inFlight(req)
	c := &call{b: b, now: now, from: fmt.Sprintf("%08x@%s", s.id, from)}
	channel, _ := b.lib.Channels.Get(s.lib.Channel)
	hctx := &handlers.HandlerContext{BMC: b.lib, Session: s.lib, Channel: channel, User: s.lib.User}
	if req.netFn == netFnApp && req.cmd == cmdSendMessage {
		b.bridge(now, from, s, req, hctx)
		return
	}
	data, code, _ := registry.Dispatch(context.WithValue(context.Background(), callKey{}, c), hctx, req.netFn, req.cmd, req.data)
	if req.netFn == netFnApp && req.cmd == cmdCloseSession && code == 0 {
		b.counts.Closed++
		delete(b.sessions, binary.LittleEndian.Uint32(req.data))
	}
	res := req.response(byte(code), data)
	if b.faults.badChecksums {
		res[len(res)-1]++
	}
	pkt, err := s.seal(res, req.encrypted)
	if err != nil || c.lose {
		pkt = nil
	}
	b.reply(now, from, pkt, done)
	if c.then != nil {
		b.agenda.add(now.Add(b.faults.delay), kindBMC, c.then)
	}
	b.agenda.run(now)
}

// inFlight counts a power-relevant request until the function it returns runs.
func (b *BMC) inFlight(req request) (done func()) {
	if req.netFn != netFnChassis && (req.netFn != netFnApp || req.cmd != cmdColdReset) {
		return nil
	}
	return b.inHand(fmt.Sprintf("%x %x %x %x", req.fromSession, req.netFn, req.cmd, req.data))
}

// inHand counts a request, and its repeats, until the function it returns runs.
func (b *BMC) inHand(key string) (done func()) {
	if b.pending == nil {
		b.pending = map[string]*exchange{}
	}
	now := time.Now()
	x := b.pending[key]
	if x == nil {
		x = &exchange{first: now}
		b.pending[key] = x
	}
	if x.unanswered > 0 {
		x.repeats++
	}
	x.unanswered++
	x.last = now
	b.counts.MaxInFlight = max(b.counts.MaxInFlight, len(b.pending))
	if len(b.pending) > 1 {
		b.overlaps = append(b.overlaps, b.overlap(now, key))
		b.overlaps = b.overlaps[max(0, len(b.overlaps)-maxOverlaps):]
	}
	return func() {
		if x.unanswered--; x.unanswered <= 0 && b.pending[key] == x {
			delete(b.pending, key)
		}
	}
}

func (b *BMC) overlap(now time.Time, came string) Overlap {
	o := Overlap{At: now, Came: came}
	for key, x := range b.pending {
		if key != came || x.repeats > 0 {
			o.InHand = append(o.InHand, fmt.Sprintf("%s (%s and %s ago, %d of %d unanswered)", key, now.Sub(x.first), now.Sub(x.last), x.unanswered,
				x.repeats+1))
		}
	}
	return o
}

// reply lets a datagram leave, now or after the delay that is set. A nil pkt is
// an answer that got lost; done runs all the same.
func (b *BMC) reply(now time.Time, to peer, pkt []byte, done func()) {
	leave := func() {
		if done != nil {
			done()
		}
		if pkt == nil {
			return
		}
		b.send(pkt, to)
		if b.faults.duplicate {
			b.send(pkt, to)
		}
	}
	if b.faults.delay <= 0 {
		leave()
		return
	}
	b.agenda.add(now.Add(b.faults.delay), kindReply, leave)
	b.agenda.run(now)
}

func (b *BMC) send(pkt []byte, to peer) {
	if b.faults.mute || b.lost(b.faults.lossTx) {
		return
	}
	_, _ = b.conn.WriteToUDPAddrPort(pkt, to) // like any datagram, it may not arrive
}

func (b *BMC) lost(share float64) bool { return share > 0 && b.rng.Float64() < share }
