package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A frame, little endian, begins at a multiple of 8:
//
//	 0        4        8                16               24       28  29  30  31  32   34   36
//	+--------+--------+----------------+----------------+--------+---+---+---+---+----+----+-----+---------+---+
//	| CRC32C | length | LSN            | time           |durable |typ|op |knd|flg|klen| 0  | key | payload | 0 |
//	+--------+--------+----------------+----------------+--------+---+---+---+---+----+----+-----+---------+---+
//
// length counts from the CRC to the end of the payload; zeros then fill up to a
// multiple of 8. The CRC covers everything behind it, the zeros too, and starts
// from the segment's salt and the frame's own offset, so that neither a frame of
// another segment nor one at another place ever verifies.
const (
	frameHead  = 36
	frameAlign = 8
	maxFrame   = frameHead + MaxKey + MaxPayload
)

// frameType says what a frame is. The numbers are on disk.
type frameType uint8

const (
	frameRecord   frameType = 1 // appended by a caller
	frameSnapshot frameType = 2 // a live record, carried over from an older segment
	frameMark     frameType = 3 // witness that all before it was flushed; LSN of the last record
	frameClose    frameType = 4 // a mark written by Close
)

// flagMore says that the frame's group goes on in the next frame.
const flagMore = 1

// frame is a frame without its key and payload.
type frame struct {
	lsn  uint64
	time int64 // nanoseconds since 1970
	// durable is how far the file was known to be flushed when the frame was
	// written: the offset at which the frame's own batch begins.
	durable uint32
	typ     frameType
	op      Op
	kind    Kind
	more    bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Why bytes are not a frame.
var (
	errZero  = errors.New("zeros")          // nothing was ever written here
	errShort = errors.New("bytes missing")  // the frame goes on behind the end
	errFrame = errors.New("bad frame")      // a field has an impossible value
	errSum   = errors.New("wrong checksum") // the bytes are not those that were written
)

// frameSize is how many bytes a frame takes on disk.
func frameSize(key, payload int) int {
	return (frameHead + key + payload + frameAlign - 1) &^ (frameAlign - 1)
}

// appendFrame appends a frame's bytes to dst. The seed is frameSeed of the place
// where the frame will stand.
func appendFrame(dst []byte, seed uint32, f frame, key string, payload []byte) []byte {
	start, n := len(dst), frameHead+len(key)+len(payload)
	var head [frameHead]byte
	binary.LittleEndian.PutUint32(head[4:], uint32(n))
	binary.LittleEndian.PutUint64(head[8:], f.lsn)
	binary.LittleEndian.PutUint64(head[16:], uint64(f.time))
	binary.LittleEndian.PutUint32(head[24:], f.durable)
	head[28], head[29], head[30] = byte(f.typ), byte(f.op), byte(f.kind)
	if f.more {
		head[31] = flagMore
	}
	binary.LittleEndian.PutUint16(head[32:], uint16(len(key)))
	dst = append(dst, head[:]...)
	dst = append(dst, key...)
	dst = append(dst, payload...)
	var pad [frameAlign]byte
	dst = append(dst, pad[:frameSize(len(key), len(payload))-n]...)
	binary.LittleEndian.PutUint32(dst[start:], crc32.Update(seed, castagnoli, dst[start+4:]))
	return dst
}

// frameSeed is where the checksum of a frame at the given offset starts.
func frameSeed(salt uint32, off int64) uint32 { return salt ^ uint32(off) }

// frameLen reads from the first bytes of a frame how many bytes it takes.
func frameLen(head []byte) (int, error) {
	if len(head) < frameHead {
		if allZero(head) {
			return 0, errZero
		}
		return 0, errShort
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if n == 0 && allZero(head[:frameHead]) {
		return 0, errZero
	}
	klen := uint32(binary.LittleEndian.Uint16(head[32:]))
	if n < frameHead+klen || n > maxFrame || head[34] != 0 || head[35] != 0 || head[31]&^flagMore != 0 {
		return 0, errFrame
	}
	return (int(n) + frameAlign - 1) &^ (frameAlign - 1), nil
}

// decodeFrame reads the frame at the start of src and returns how many bytes it
// takes. Key and payload are parts of src.
func decodeFrame(src []byte, seed uint32) (f frame, key, payload []byte, size int, err error) {
	if size, err = frameLen(src); err != nil {
		return frame{}, nil, nil, 0, err
	}
	if size > len(src) {
		return frame{}, nil, nil, 0, errShort
	}
	if crc32.Update(seed, castagnoli, src[4:size]) != binary.LittleEndian.Uint32(src) {
		return frame{}, nil, nil, 0, errSum
	}
	f = frame{
		lsn:     binary.LittleEndian.Uint64(src[8:]),
		time:    int64(binary.LittleEndian.Uint64(src[16:])),
		durable: binary.LittleEndian.Uint32(src[24:]),
		typ:     frameType(src[28]),
		op:      Op(src[29]),
		kind:    Kind(src[30]),
		more:    src[31]&flagMore != 0,
	}
	if !f.sane() {
		return frame{}, nil, nil, 0, errFrame
	}
	n := int(binary.LittleEndian.Uint32(src[4:]))
	k := frameHead + int(binary.LittleEndian.Uint16(src[32:]))
	return f, src[frameHead:k:k], src[k:n:n], size, nil
}

func (f frame) sane() bool {
	switch f.typ {
	case frameRecord:
		return f.op == Add || f.op == Put || f.op == Drop
	case frameSnapshot:
		return f.op == Add || f.op == Put
	case frameMark, frameClose:
		return true
	default:
		return false
	}
}

var zeros [64 << 10]byte

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if string(b[:len(zeros)]) != string(zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return string(b) == string(zeros[:len(b)])
}
