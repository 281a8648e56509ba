package bmcsim

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/protocol"
	"github.com/bougou/go-ipmi/pkg/types"
)

// maxSessions is the most a one-byte session handle leaves room for.
const maxSessions = 250

// session is one row of a BMC's session table; lib holds its keys.
type session struct {
	id     uint32
	lib    *bmc.Session
	opened time.Time
	used   time.Time
	active bool
	window window

	// The last RAKP message 1 and 3 with the answers they got: a message that is
	// repeated gets the same answer, or keys would change under the client's feet.
	rakp1, rakp2, rakp3, rakp4 []byte
}

// window is the session sequence window (section 6.12.13): numbers up to 15 above
// the highest seen are accepted, and up to 16 below it once each.
type window struct {
	last uint32
	seen uint16 // bit i: last-1-i was seen
}

// accept reports whether seq is in the window and new, and notes it.
func (w *window) accept(seq uint32) (ok, repeat bool) {
	if seq == 0 {
		return false, false
	}
	if ahead := seq - w.last; ahead >= 1 && ahead <= 15 {
		w.seen = w.seen<<ahead | 1<<(ahead-1)
		w.last = seq
		return true, false
	}
	behind := w.last - seq
	if behind == 0 {
		return false, true
	}
	if behind > 16 {
		return false, false
	}
	bit := uint16(1) << (behind - 1)
	if w.seen&bit != 0 {
		return false, true
	}
	w.seen |= bit
	return true, false
}

// RMCP+ status codes (table 13-15).
const (
	statusNoResources  = 0x01
	statusInvalidID    = 0x02
	statusInactiveID   = 0x08
	statusNameLength   = 0x0c
	statusUnauthorized = 0x0d
	statusBadIntegrity = 0x0f
	statusIllegal      = 0x12
)

// openSession answers an RMCP+ Open Session Request (section 13.17).
func (b *BMC) openSession(now time.Time, payload []byte) []byte {
	if len(payload) < 32 {
		return nil
	}
	b.evict(now)
	if len(b.sessions) >= b.faults.limit && !b.evictPending() {
		return refusal(payload[0], statusNoResources, payload[4:8])
	}
	resp, err := handlers.HandleOpenSession(context.Background(), b.lib, payload)
	if err != nil || len(resp) < 12 || resp[1] != 0 {
		return resp
	}
	id := binary.LittleEndian.Uint32(resp[8:12])
	lib, err := b.lib.Sessions.Get(id)
	if err != nil {
		return refusal(payload[0], statusNoResources, payload[4:8])
	}
	if b.sessions == nil {
		b.sessions = make(map[uint32]*session, 2)
	}
	b.sessions[id] = &session{id: id, lib: lib, opened: now, used: now}
	return resp
}

// refusal is the short form of an answer in the opening of a session: tag,
// status, console session ID.
func refusal(tag, status byte, console []byte) []byte {
	out := []byte{tag, status, 0, 0, 0, 0, 0, 0}
	copy(out[4:], console)
	return out
}

func (s *session) refusal(tag, status byte) []byte {
	return refusal(tag, status, binary.LittleEndian.AppendUint32(nil, s.lib.ConsoleID))
}

// again returns the answer to a message that is, but for its tag, the one that
// was answered before.
func again(msg, known, answer []byte) []byte {
	if len(known) == 0 || len(msg) != len(known) || !bytes.Equal(msg[1:], known[1:]) {
		return nil
	}
	answer = bytes.Clone(answer)
	answer[0] = msg[0]
	return answer
}

// rakp1 answers RAKP message 1 (section 13.20).
func (b *BMC) rakp1(payload []byte) []byte {
	if len(payload) < 28 || len(payload) < 28+int(payload[27]) {
		return nil
	}
	tag := payload[0]
	s := b.sessions[binary.LittleEndian.Uint32(payload[4:8])]
	if s == nil {
		return refusal(tag, statusInvalidID, nil)
	}
	if resp := again(payload, s.rakp1, s.rakp2); resp != nil && !s.active {
		return resp
	}
	if s.active {
		return s.refusal(tag, statusInactiveID)
	}
	if payload[27] > 16 {
		b.drop(s)
		return s.refusal(tag, statusNameLength)
	}
	if status := b.faults.rakp2Status; status != 0 {
		b.counts.AuthFailures++
		b.drop(s)
		return s.refusal(tag, status)
	}
	if name := payload[28 : 28+payload[27]]; string(name) != b.user {
		b.counts.AuthFailures++
		b.drop(s)
		return s.refusal(tag, statusUnauthorized)
	}
	resp, err := handlers.HandleRAKP1(context.Background(), b.lib, payload)
	if err != nil || len(resp) < 2 {
		b.drop(s)
		return s.refusal(tag, statusIllegal)
	}
	if resp[1] != 0 { // the library has closed it
		b.drop(s)
		return resp
	}
	s.rakp1, s.rakp2 = bytes.Clone(payload), resp
	return resp
}

// rakp3 answers RAKP message 3 (section 13.22).
func (b *BMC) rakp3(now time.Time, payload []byte) []byte {
	if len(payload) < 8 {
		return nil
	}
	tag, status := payload[0], payload[1]
	s := b.sessions[binary.LittleEndian.Uint32(payload[4:8])]
	if s == nil {
		return refusal(tag, statusInvalidID, nil)
	}
	if resp := again(payload, s.rakp3, s.rakp4); resp != nil {
		return resp
	}
	if s.active {
		return s.refusal(tag, statusInactiveID)
	}
	if status != 0 { // the client did not like message 2: wrong password
		b.counts.AuthFailures++
		b.drop(s)
		return nil
	}
	resp, err := handlers.HandleRAKP3(context.Background(), b.lib, payload)
	if err != nil || len(resp) < 2 {
		b.drop(s)
		return s.refusal(tag, statusIllegal)
	}
	if resp[1] != 0 {
		b.counts.AuthFailures++
		b.drop(s)
		if resp[1] == statusUnauthorized { // the name was known: it is the key
			resp[1] = statusBadIntegrity
		}
		return resp
	}
	if status := b.faults.rakp4Status; status != 0 {
		b.counts.AuthFailures++
		b.drop(s)
		return s.refusal(tag, status)
	}
	s.active, s.used = true, now
	s.lib.PrivilegeLevel = bmc.PrivilegeLevelUser
	s.rakp1, s.rakp2 = nil, nil
	s.rakp3, s.rakp4 = bytes.Clone(payload), resp
	b.counts.Opened++
	return resp
}

// inSession handles a datagram of an active session (section 13.6).
func (b *BMC) inSession(now time.Time, from peer, pkt []byte, id, seq uint32, flags byte, payload []byte) {
	b.evict(now)
	s := b.sessions[id]
	if s == nil || !s.active || !s.authentic(pkt, len(payload)) {
		return
	}
	ok, repeat := s.window.accept(seq)
	if repeat {
		b.counts.Repeats++
	}
	if !ok {
		return
	}
	s.used = now
	msg, ok := s.decrypt(payload, flags&flagEncrypted != 0)
	if !ok {
		return
	}
	req, ok := parseRequest(msg)
	if !ok {
		return
	}
	req.encrypted, req.fromSession = flags&flagEncrypted != 0, id
	b.dispatch(now, from, s, req)
}

// evict drops the sessions that were idle for too long.
func (b *BMC) evict(now time.Time) {
	for _, s := range b.sessions {
		if now.Sub(s.used) > b.faults.idle {
			b.drop(s)
		}
	}
}

// evictPending makes room at the cost of the oldest session that was opened but
// never activated (section 6.12.16).
func (b *BMC) evictPending() bool {
	var oldest *session
	for _, s := range b.sessions {
		if !s.active && (oldest == nil || s.opened.Before(oldest.opened)) {
			oldest = s
		}
	}
	if oldest != nil {
		b.drop(oldest)
	}
	return oldest != nil
}

func (b *BMC) drop(s *session) {
	_ = b.lib.Sessions.Close(s.id) // gone already is as good
	delete(b.sessions, s.id)
}

// openAndRAKP handles the payloads by which sessions are set up.
func (b *BMC) openAndRAKP(now time.Time, from peer, kind types.PayloadType, payload []byte) {
	if b.faults.noIPMI20 {
		return
	}
	var resp []byte
	switch kind {
	case types.PayloadTypeRmcpOpenSessionRequest:
		resp = b.openSession(now, payload)
	case types.PayloadTypeRAKPMessage1:
		resp = b.rakp1(payload)
	case types.PayloadTypeRAKPMessage3:
		resp = b.rakp3(now, payload)
	}
	if resp != nil { // the answer's type is the next number (table 13-16)
		b.reply(now, from, protocol.BuildRMCPPlusPacket(byte(kind)+1, 0, 0, 0, resp), nil)
	}
}
