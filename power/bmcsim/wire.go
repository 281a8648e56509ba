package bmcsim

import (
	"bytes"
	"encoding/binary"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/protocol"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Offsets and constants of the wire (IPMI v2.0 sections 13.1 and 13.6).
//
//	RMCP      06 00 seq class                                   4 bytes
//	v1.5      authtype seq[4] session[4] len payload            class 07, authtype 0
//	RMCP+     06 type|flags session[4] seq[4] len[2] payload    class 07
//	trailer   ff.. padlen 07 authcode                           flag 40 set
const (
	rmcpLen     = 4
	plusHeader  = 12
	plusPayload = rmcpLen + plusHeader
	v15Payload  = rmcpLen + 10
	nextHeader  = 0x07

	classASF  = 0x06
	classIPMI = 0x07

	authNone = 0x00
	authPlus = 0x06

	flagEncrypted     = 0x80
	flagAuthenticated = 0x40

	lanChannel = 1
	bmcAddr    = 0x20
)

// request is an IPMI LAN message (section 13.8).
type request struct {
	netFn, cmd  byte
	rqAddr      byte
	rqSeqLUN    byte
	rsLUN       byte
	data        []byte
	encrypted   bool
	fromSession uint32
}

// parseRequest reads a message; messages with a wrong checksum or for another
// than the BMC are not ok.
func parseRequest(msg []byte) (request, bool) { return parseRequestTo(bmcAddr, msg) }

func parseRequestTo(addr byte, msg []byte) (request, bool) {
	if len(msg) < 7 || msg[0] != addr ||
		protocol.Checksum(msg[:2]) != msg[2] || protocol.Checksum(msg[3:len(msg)-1]) != msg[len(msg)-1] {
		return request{}, false
	}
	return request{
		netFn: msg[1] >> 2, rsLUN: msg[1] & 3, rqAddr: msg[3], rqSeqLUN: msg[4], cmd: msg[5],
		data: msg[6 : len(msg)-1],
	}, true
}

// response makes the answer to r with completion code and data.
func (r request) response(code byte, data []byte) []byte { return r.responseOf(bmcAddr, code, data) }

func (r request) responseOf(addr, code byte, data []byte) []byte {
	msg := make([]byte, 0, 8+len(data))
	msg = append(msg, r.rqAddr, (r.netFn|1)<<2|r.rqSeqLUN&3)
	msg = append(msg, protocol.Checksum(msg[:2]))
	msg = append(msg, addr, r.rqSeqLUN&^3|r.rsLUN, r.cmd, code)
	msg = append(msg, data...)
	return append(msg, protocol.Checksum(msg[3:]))
}

// authentic says whether the integrity trailer of pkt, whose payload has
// payloadLen bytes, is the one that the session's key makes (section 13.28.4).
func (s *session) authentic(pkt []byte, payloadLen int) bool {
	codeLen, ok := crypto.IntegrityAuthCodeLen(s.lib.IntegrityAlg)
	if !ok || codeLen == 0 {
		return ok
	}
	pad := types.IntegrityPadLen(plusHeader, payloadLen)
	end := plusPayload + payloadLen + pad + 2
	if len(pkt) != end+codeLen || len(s.lib.K1) == 0 ||
		pkt[end-2] != byte(pad) || pkt[end-1] != nextHeader {
		return false
	}
	want, err := crypto.SessionIntegrityAuthCode(s.lib.IntegrityAlg, pkt[rmcpLen:end], s.lib.K1, "")
	return err == nil && crypto.Equal(want, pkt[end:])
}

// decrypt returns the message in a payload.
func (s *session) decrypt(payload []byte, encrypted bool) ([]byte, bool) {
	if !encrypted {
		return payload, true
	}
	// The library's CBC panics on what is not whole blocks.
	if len(s.lib.K2) < 16 || len(payload) < 32 || len(payload)%16 != 0 {
		return nil, false
	}
	msg, err := crypto.DecryptAESPayload(payload, s.lib.K2)
	return msg, err == nil
}

// seal makes the datagram that carries msg in the session.
func (s *session) seal(msg []byte, encrypt bool) ([]byte, error) {
	var flags byte
	if encrypt {
		var err error
		if msg, err = crypto.EncryptAESPayload(msg, s.lib.K2, crypto.RandomBytes(16)); err != nil {
			return nil, err
		}
		flags |= flagEncrypted
	}
	codeLen, _ := crypto.IntegrityAuthCodeLen(s.lib.IntegrityAlg)
	if codeLen > 0 {
		flags |= flagAuthenticated
	}
	pkt := protocol.BuildRMCPPlusPacket(byte(types.PayloadTypeIPMI), flags, s.lib.ConsoleID, s.lib.NextOutboundSeq(), msg)
	if codeLen == 0 {
		return pkt, nil
	}
	pad := types.IntegrityPadLen(plusHeader, len(msg))
	pkt = append(pkt, bytes.Repeat([]byte{0xff}, pad)...)
	pkt = append(pkt, byte(pad), nextHeader)
	code, err := crypto.SessionIntegrityAuthCode(s.lib.IntegrityAlg, pkt[rmcpLen:], s.lib.K1, "")
	return append(pkt, code...), err
}

// parseV15 reads a sessionless v1.5 packet: how clients ask for the channel's
// capabilities before they open a session.
func parseV15(pkt []byte) (payload []byte, ok bool) {
	if len(pkt) < v15Payload || pkt[4] != authNone ||
		binary.LittleEndian.Uint32(pkt[9:13]) != 0 || v15Payload+int(pkt[13]) > len(pkt) {
		return nil, false
	}
	return pkt[v15Payload : v15Payload+int(pkt[13])], true
}

func buildV15(msg []byte) []byte {
	pkt := make([]byte, v15Payload, v15Payload+len(msg))
	pkt[0], pkt[2], pkt[3] = 0x06, 0xff, classIPMI
	pkt[13] = byte(len(msg))
	return append(pkt, msg...)
}
