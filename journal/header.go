package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/google/uuid"
)

// A segment begins with its header, twice, so that one bad sector does not cost
// the salt and with it every frame:
//
//	0       512          4096    4608         8192
//	+--------+------------+--------+------------+-----------------+---------------+-------
//	| header | zeros      | header | zeros      | snapshot frames | record frames | zeros
//	+--------+------------+--------+------------+-----------------+---------------+-------
//
// One header, little endian:
//
//	 0  magic "RPJNL\r\n\0"       52  epoch                92  salt (u32)
//	 8  CRC32C of the rest (u32)  60  segment number       96  flags (u32): 1 begins with a snapshot, 2 a mark file is kept
//	12  version (u32)             68  first LSN           100  owner: length (u8), text
//	16  id (16 bytes)             76  time (i64)
//	32  size of the file (u64)    84  end of snapshot (u32)
//	40  zeros                     88  durable (u32)
//	44  frames in snapshot (u64)
//
// Magic, CRC and version keep their place in every version to come.
const (
	headerSize   = 512
	headerCopy   = 4096
	dataStart    = 8192
	ownerOffset  = 100
	maxOwner     = 255
	flagSnapshot = 1
	flagMarked   = 2
	// FormatVersion is the version of the format on disk.
	FormatVersion = 1
)

var magic = [8]byte{'R', 'P', 'J', 'N', 'L', '\r', '\n', 0}

// errHeader: neither copy of a header verifies.
var errHeader = errors.New("unreadable header")

// header is what a segment says of itself.
type header struct {
	id     uuid.UUID
	owner  string
	epoch  uint64
	number uint64
	// firstLSN is the LSN of the first record that is not part of the snapshot.
	firstLSN uint64
	time     time.Time
	salt     uint32
	// snapshotCount frames stand between dataStart and snapshotEnd.
	snapshotCount uint64
	snapshotEnd   uint32
	// durable is how much of the file was flushed before it got its name.
	durable uint32
	// size is the length that the file was made with; 0: an older program made it, and
	// did not say.
	size int64
	// marked says that a mark file is kept beside the journal.
	marked bool
}

// put writes both copies into the first dataStart bytes of buf.
func (h header) put(buf []byte) {
	clear(buf[:dataStart])
	b := buf[:headerSize]
	copy(b, magic[:])
	binary.LittleEndian.PutUint32(b[12:], FormatVersion)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(h.size))
	binary.LittleEndian.PutUint64(b[44:], h.snapshotCount)
	binary.LittleEndian.PutUint64(b[52:], h.epoch)
	binary.LittleEndian.PutUint64(b[60:], h.number)
	binary.LittleEndian.PutUint64(b[68:], h.firstLSN)
	binary.LittleEndian.PutUint64(b[76:], uint64(h.time.UnixNano()))
	binary.LittleEndian.PutUint32(b[84:], h.snapshotEnd)
	binary.LittleEndian.PutUint32(b[88:], h.durable)
	binary.LittleEndian.PutUint32(b[92:], h.salt)
	flags := uint32(flagSnapshot)
	if h.marked {
		flags |= flagMarked
	}
	binary.LittleEndian.PutUint32(b[96:], flags)
	b[ownerOffset] = byte(len(h.owner))
	copy(b[ownerOffset+1:], h.owner)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	copy(buf[headerCopy:], b)
}

// stampSize writes the length of the file into both copies of an image's header.
func stampSize(buf []byte, size int64) {
	b := buf[:headerSize]
	binary.LittleEndian.PutUint64(b[32:], uint64(size))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	copy(buf[headerCopy:], b)
}

// readHeader reads the header of a file and says how many of the two copies
// verify. With none the error is errHeader.
func readHeader(f File) (h header, copies int, err error) {
	buf := make([]byte, headerSize)
	for _, off := range [...]int64{headerCopy, 0} {
		n, _ := f.ReadAt(buf, off)
		got, err := decodeHeader(buf[:n])
		if errors.Is(err, ErrVersion) {
			return header{}, 0, err
		}
		if err == nil {
			h, copies = got, copies+1
		}
	}
	if copies == 0 {
		return header{}, 0, errHeader
	}
	return h, copies, nil
}

func decodeHeader(b []byte) (header, error) {
	if len(b) != headerSize || !bytes.Equal(b[:8], magic[:]) ||
		crc32.Checksum(b[12:], castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return header{}, errHeader
	}
	if v := binary.LittleEndian.Uint32(b[12:]); v != FormatVersion {
		return header{}, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, v, FormatVersion)
	}
	h := header{
		id:            uuid.UUID(b[16:32]),
		snapshotCount: binary.LittleEndian.Uint64(b[44:]),
		epoch:         binary.LittleEndian.Uint64(b[52:]),
		number:        binary.LittleEndian.Uint64(b[60:]),
		firstLSN:      binary.LittleEndian.Uint64(b[68:]),
		time:          time.Unix(0, int64(binary.LittleEndian.Uint64(b[76:]))),
		snapshotEnd:   binary.LittleEndian.Uint32(b[84:]),
		durable:       binary.LittleEndian.Uint32(b[88:]),
		salt:          binary.LittleEndian.Uint32(b[92:]),
		marked:        binary.LittleEndian.Uint32(b[96:])&flagMarked != 0,
		size:          int64(binary.LittleEndian.Uint64(b[32:])),
	}
	n := int(b[ownerOffset])
	h.owner = string(b[ownerOffset+1 : ownerOffset+1+n])
	if h.snapshotEnd < dataStart || h.durable < h.snapshotEnd || h.firstLSN == 0 {
		return header{}, errHeader
	}
	return h, nil
}
