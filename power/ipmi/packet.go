package ipmi

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash"

	"github.com/bougou/go-ipmi/pkg/types"
)

// A packet of an open session (IPMI v2.0 section 13.6, table 13-8), offsets in
// bytes. The MAC covers everything from the authentication type to the next
// header; the payload is IV and ciphertext.
//
//	0        4    5     6          10       14     16
//	+--------+----+-----+----------+--------+------+---------+-----+------+----+-----+
//	|06 00 FF| 06 |type | session  |sequence|length| payload | FF..| pad  | 07 | MAC |
//	|07      |    |flags| id       |        |      |         |     | len  |    |     |
//	+--------+----+-----+----------+--------+------+---------+-----+------+----+-----+
//
// A packet of the handshake ends with the payload, its session id and sequence
// are 0, and nothing in it is protected but by the RAKP codes in the payload.
const (
	offAuthType = 4
	offPayType  = 5
	offSession  = 6
	offSequence = 10
	offLength   = 14
	offPayload  = 16

	flags      = types.PayloadFlagEncrypted | types.PayloadFlagAuthenticated
	nextHeader = 0x07
	blockSize  = 16
	maxPacket  = 1024 // more than any answer that is asked for here
)

// Why a packet is not taken for an answer. None of these ends an exchange.
var (
	errShort     = errors.New("packet too short")
	errNotRMCP   = errors.New("not an IPMI v2.0 packet")
	errPlain     = errors.New("packet is not authenticated and encrypted")
	errSession   = errors.New("packet of another session")
	errMAC       = errors.New("wrong message authentication code")
	errMalformed = errors.New("malformed packet")
	errReplay    = errors.New("sequence number seen before")
	errOther     = errors.New("answer to something else")
)

var rmcpHeader = [4]byte{types.RmcpVersion, 0, 0xFF, types.MessageClassIPMI}

// setupPacket wraps a handshake message.
func setupPacket(kind types.PayloadType, payload []byte) []byte {
	p := make([]byte, offPayload, offPayload+len(payload))
	copy(p, rmcpHeader[:])
	p[offAuthType], p[offPayType] = byte(types.AuthTypeRMCPPlus), byte(kind)
	binary.LittleEndian.PutUint16(p[offLength:], uint16(len(payload)))
	return append(p, payload...)
}

// setupPayload unwraps a handshake message of the given kind.
func setupPayload(p []byte, kind types.PayloadType) ([]byte, error) {
	if err := checkHeader(p); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint16(p[offLength:]))
	switch {
	case p[offPayType] != byte(kind):
		return nil, errOther
	case binary.LittleEndian.Uint32(p[offSession:]) != 0:
		return nil, errSession
	case len(p) < offPayload+n:
		return nil, errShort
	}
	return p[offPayload : offPayload+n], nil
}

// checkHeader checks what all packets have in common.
func checkHeader(p []byte) error {
	switch {
	case len(p) < offPayload:
		return errShort
	case p[0] != types.RmcpVersion || p[3] != types.MessageClassIPMI || p[offAuthType] != byte(types.AuthTypeRMCPPlus):
		return errNotRMCP
	}
	return nil
}

// codec seals and opens the packets of one session. It keeps scratch space and
// is not safe for two goroutines.
type codec struct {
	local, remote uint32       // session ids, the console's and the BMC's
	mac           hash.Hash    // HMAC under K1
	macLen        int          // bytes of it that travel
	block         cipher.Block // AES-128 under K2
	sum           []byte
}

// seal appends to dst the packet that carries msg under the sequence number.
func (c *codec) seal(dst []byte, sequence uint32, msg []byte) []byte {
	start := len(dst)
	dst = append(dst, rmcpHeader[:]...)
	dst = append(dst, byte(types.AuthTypeRMCPPlus), flags|byte(types.PayloadTypeIPMI))
	dst = binary.LittleEndian.AppendUint32(dst, c.remote)
	dst = binary.LittleEndian.AppendUint32(dst, sequence)
	dst = append(dst, 0, 0)
	dst = c.encrypt(dst, msg)
	binary.LittleEndian.PutUint16(dst[start+offLength:], uint16(len(dst)-start-offPayload))
	pad := (4 - (len(dst)-start-offAuthType+2)%4) % 4
	for range pad {
		dst = append(dst, 0xFF)
	}
	dst = append(dst, byte(pad), nextHeader)
	return append(dst, c.code(dst[start+offAuthType:])...)
}

// open checks and decrypts a packet in place and returns its sequence number
// and message. The MAC is checked before anything behind the header is looked at.
func (c *codec) open(p []byte) (sequence uint32, msg []byte, err error) {
	if err := checkHeader(p); err != nil {
		return 0, nil, err
	}
	switch {
	case p[offPayType] != flags|byte(types.PayloadTypeIPMI):
		return 0, nil, errPlain
	case binary.LittleEndian.Uint32(p[offSession:]) != c.local:
		return 0, nil, errSession
	case len(p) < offPayload+2+c.macLen:
		return 0, nil, errShort
	}
	end := len(p) - c.macLen
	if !hmac.Equal(p[end:], c.code(p[offAuthType:end])) {
		return 0, nil, errMAC
	}
	n, pad := int(binary.LittleEndian.Uint16(p[offLength:])), int(p[end-2])
	if offPayload+n+pad+2 != end || p[end-1] != nextHeader {
		return 0, nil, errMalformed
	}
	msg, err = c.decrypt(p[offPayload : offPayload+n])
	return binary.LittleEndian.Uint32(p[offSequence:]), msg, err
}

// code returns the MAC of p; it is valid until the next call.
func (c *codec) code(p []byte) []byte {
	c.mac.Reset()
	c.mac.Write(p)
	c.sum = c.mac.Sum(c.sum[:0])
	return c.sum[:c.macLen]
}

// encrypt appends a random IV and msg, padded (section 13.29), in AES-CBC-128.
func (c *codec) encrypt(dst, msg []byte) []byte {
	var iv [blockSize]byte
	rand.Read(iv[:]) // never fails
	dst = append(dst, iv[:]...)
	start := len(dst)
	dst = append(dst, msg...)
	pad := (blockSize - (len(msg)+1)%blockSize) % blockSize
	for i := range pad {
		dst = append(dst, byte(i+1))
	}
	dst = append(dst, byte(pad))
	cipher.NewCBCEncrypter(c.block, dst[start-blockSize:start]).CryptBlocks(dst[start:], dst[start:])
	return dst
}

// decrypt decrypts IV and ciphertext in place and strips the padding.
func (c *codec) decrypt(p []byte) ([]byte, error) {
	if len(p) < 2*blockSize || len(p)%blockSize != 0 {
		return nil, errMalformed
	}
	iv, text := p[:blockSize], p[blockSize:]
	cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad >= len(text) {
		return nil, errMalformed
	}
	return text[:len(text)-1-pad], nil
}

// Addresses of the two ends in IPMI messages (section 5.5).
const (
	addrBMC     = 0x20
	addrConsole = 0x81
)

// appendRequest appends the IPMI message (section 13.8) of a command to dst.
func appendRequest(dst []byte, cmd types.Command, tag byte, data []byte) []byte {
	return appendMessage(dst, addrBMC, addrConsole, cmd, tag, data)
}

func appendMessage(dst []byte, to, from byte, cmd types.Command, tag byte, data []byte) []byte {
	dst = append(dst, to, byte(cmd.NetFn)<<2)
	dst = append(dst, checksum(dst[len(dst)-2:]))
	body := len(dst)
	dst = append(dst, from, tag<<2, cmd.ID)
	dst = append(dst, data...)
	return append(dst, checksum(dst[body:]))
}

// response is an IPMI answer. Data is valid until the next packet is read.
type response struct {
	netFn types.NetFn
	id    byte
	tag   byte
	code  types.CompletionCode
	data  []byte
}

// checksumsFit reports whether the two checksums of an IPMI message are right.
func checksumsFit(msg []byte) bool {
	return len(msg) > 3 && checksum(msg[:3]) == 0 && checksum(msg[3:]) == 0
}

// parseResponse reads an IPMI message of the BMC. It does not go by the checksums
// within: in a session the MAC has vouched for every byte, and some BMCs (Supermicro
// X9) get them wrong.
func parseResponse(msg []byte) (response, error) {
	if len(msg) < 8 {
		return response{}, errShort
	}
	return response{
		netFn: types.NetFn(msg[1] >> 2),
		tag:   msg[4] >> 2,
		id:    msg[5],
		code:  types.CompletionCode(msg[6]),
		data:  msg[7 : len(msg)-1],
	}, nil
}

// checksum is the value that makes the sum of p and it 0 modulo 256.
func checksum(p []byte) byte {
	var sum byte
	for _, b := range p {
		sum += b
	}
	return -sum
}

// window remembers which sequence numbers of the BMC were seen: the highest and,
// as bits, the 64 up to it (section 6.12.13 asks for no less than 8).
type window struct {
	highest uint32
	seen    uint64
}

// take reports whether the number is new, and notes it.
func (w *window) take(n uint32) bool {
	if n == 0 {
		return false
	}
	ahead := int32(n - w.highest)
	switch {
	case w.seen == 0:
		w.highest, w.seen = n, 1
	case ahead > 0:
		w.seen = w.seen<<min(uint(ahead), 64) | 1
		w.highest = n
	case ahead <= -64 || w.seen&(1<<uint(-ahead)) != 0:
		return false
	default:
		w.seen |= 1 << uint(-ahead)
	}
	return true
}
