package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// An exchange runs over one TCP stream to the gossip port. Both begin with a
// header of fixed size; all else is frames, sealed when the cluster has keys.
//
//	caller:  +-----------------+------+---------+
//	         | d7 'r' 'p' 1    | mode | salt 16 |   mode 0 plain, 1 sealed
//	         +-----------------+------+---------+
//	called:  +-----------------+--------+---------+
//	         | d7 'r' 'p' 1    | status | salt 16 |  0 go on; else see refusals, no salt
//	         +-----------------+--------+---------+
//	frame:   +----------------+---------------------+
//	         | length, 4 byte | AES-256-GCM or plain |
//	         +----------------+---------------------+
//
// The keys of a stream, one a direction, come by HKDF-SHA256 from the caller's
// primary gossip key and the salts; the nonce is the number of the frame. The first
// frame, for which there is the caller's salt only, has a key of its own. The
// called one tries each key of its ring on it; it is therefore small, and nothing is
// looked at before it. An old first frame that is sent again yields nothing: all
// that follows is sealed with keys that the called one's fresh salt is part of.
const (
	exchangeMagic = "\xd7rp\x01"
	headerSize    = len(exchangeMagic) + 1 + saltSize
	saltSize      = 16

	modePlain  = 0
	modeSealed = 1

	maxFirstFrame = 256     // bytes
	maxFrame      = 1 << 20 // bytes: the digest of 4,096 agents has some 150,000
)

// Statuses in the header of the called one.
const (
	statusOK = iota
	statusKey
	statusPlain
	statusNoKey
	statusBusy
)

// Why an exchange, or a member, was turned away.
var (
	// ErrForeignKey says that the other one uses a gossip key that is not ours.
	ErrForeignKey = errors.New("uses another gossip key")
	// ErrPlain says that the other one gossips without encryption, or that this one
	// does and the other one does not.
	ErrPlain = errors.New("does not encrypt gossip as this member does")
	errBusy  = errors.New("is busy with other exchanges")
	errFrame = errors.New("malformed exchange")
)

var refusals = map[byte]error{statusKey: ErrForeignKey, statusPlain: ErrPlain, statusNoKey: ErrPlain, statusBusy: errBusy}

// channel carries frames. One goroutine at a time may use it.
type channel struct {
	stream    io.ReadWriter
	out, in   cipher.AEAD // nil: plain
	sent, got uint64      // frames
	bytes     int         // both ways
	limit     uint32      // of the next frame that comes
}

// call begins an exchange as the caller and sends the first frame. key nil: plain.
func call(stream io.ReadWriter, key Key, first []byte) (*channel, error) {
	header := []byte(exchangeMagic + "\x00")
	header = append(header, make([]byte, saltSize)...)
	rand.Read(header[len(exchangeMagic)+1:])
	ch := &channel{stream: stream, limit: maxFrame}
	if len(key) > 0 {
		header[len(exchangeMagic)] = modeSealed
		ch.out = derive(key, header, infoFirst)
	}
	if _, err := stream.Write(header); err != nil {
		return nil, err
	}
	if err := ch.send(first); err != nil {
		return nil, err
	}
	salt, err := answered(stream)
	if err == nil && len(key) > 0 {
		ch.out, ch.in = ciphers(key, append(header, salt...))
	}
	return ch, err
}

// answered reads what the called one begins with, and returns its salt.
func answered(stream io.Reader) ([]byte, error) {
	begin := make([]byte, len(exchangeMagic)+1)
	if _, err := io.ReadFull(stream, begin); err != nil {
		return nil, err
	}
	if string(begin[:len(exchangeMagic)]) != exchangeMagic {
		return nil, fmt.Errorf("%w: it begins with %x", errFrame, begin)
	}
	if status := begin[len(exchangeMagic)]; status != statusOK {
		if err := refusals[status]; err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: status %d", errFrame, status)
	}
	salt := make([]byte, saltSize)
	_, err := io.ReadFull(stream, salt)
	return salt, err
}

// answer begins an exchange as the called one and returns the first frame. Without
// keys only plain callers are served, with keys only sealed ones. It has told the
// caller when it returns an error of refusals.
func answer(stream io.ReadWriter, keys []Key) (*channel, []byte, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(stream, header); err != nil {
		return nil, nil, err
	}
	if string(header[:len(exchangeMagic)]) != exchangeMagic {
		return nil, nil, errFrame
	}
	ch := &channel{stream: stream, limit: maxFirstFrame}
	raw, err := ch.read()
	if err != nil {
		return nil, nil, err
	}
	status, first, key := open(header, raw, keys)
	begin := append([]byte(exchangeMagic), status)
	if status == statusOK {
		salt := make([]byte, saltSize)
		rand.Read(salt)
		begin = append(begin, salt...)
		if len(key) > 0 {
			ch.in, ch.out = ciphers(key, append(header, salt...))
		}
	}
	if _, err := stream.Write(begin); err != nil {
		return nil, nil, err
	}
	if status != statusOK {
		return nil, nil, refusals[status]
	}
	ch.limit, ch.got = maxFrame, 1
	return ch, first, nil
}

// open opens the first frame, and says with which key that was; nil: it is plain.
func open(header, raw []byte, keys []Key) (status byte, first []byte, with Key) {
	switch sealed := header[len(exchangeMagic)] == modeSealed; {
	case sealed && len(keys) == 0:
		return statusNoKey, nil, nil
	case !sealed && len(keys) > 0:
		return statusPlain, nil, nil
	case !sealed:
		return statusOK, raw, nil
	}
	for _, key := range keys {
		if plain, err := derive(key, header, infoFirst).Open(nil, nonce(0), raw, nil); err == nil {
			return statusOK, plain, key
		}
	}
	return statusKey, nil, nil
}

// What the keys of a stream are derived for.
const (
	infoFirst  = "rackpower exchange 1 first"
	infoCaller = "rackpower exchange 1 caller"
	infoCalled = "rackpower exchange 1 called"
)

// ciphers derives the two directions of a stream, the caller's first, from both salts.
func ciphers(key Key, salts []byte) (caller, called cipher.AEAD) {
	return derive(key, salts, infoCaller), derive(key, salts, infoCalled)
}

func derive(key Key, salt []byte, info string) cipher.AEAD {
	sub, err := hkdf.Key(sha256.New, key, salt, info, 32)
	if err != nil {
		panic(err) // only for an absurd length
	}
	block, err := aes.NewCipher(sub)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func nonce(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n)
}

// send writes one frame.
func (ch *channel) send(frame []byte) error {
	if ch.out != nil {
		frame = ch.out.Seal(nil, nonce(ch.sent), frame, nil)
	}
	ch.sent++
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame)))
	n, err := ch.stream.Write(append(out, frame...))
	ch.bytes += n
	return err
}

// receive reads one frame.
func (ch *channel) receive() ([]byte, error) {
	raw, err := ch.read()
	if err != nil || ch.in == nil {
		return raw, err
	}
	plain, err := ch.in.Open(raw[:0], nonce(ch.got), raw, nil)
	ch.got++
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d does not open", errFrame, ch.got)
	}
	return plain, nil
}

// read reads the bytes of a frame, never more than the limit.
func (ch *channel) read() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(ch.stream, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > ch.limit {
		return nil, fmt.Errorf("%w: a frame of %d bytes, at most %d", errFrame, n, ch.limit)
	}
	raw := make([]byte, n)
	got, err := io.ReadFull(ch.stream, raw)
	ch.bytes += got + len(size)
	return raw, err
}
