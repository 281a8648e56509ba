package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// Restock makes the spare now, so that the order of calls to the disk does not
// depend on the background.
func Restock(j *Journal) { j.pool.restock() }

// Mark writes a mark now.
func Mark(j *Journal) { _ = j.submit(newRequest(frameMark, nil)) }

// What the tests of the format know of it.
const (
	DataStart  = dataStart
	HeaderSize = headerSize
	HeaderCopy = headerCopy
)

// WithVersion returns a segment as a program of another format version would
// have written it.
func WithVersion(data []byte, version uint32) []byte {
	for _, off := range []int{0, headerCopy} {
		b := data[off : off+headerSize]
		binary.LittleEndian.PutUint32(b[12:], version)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	}
	return data
}

// LookAfter looks for removed files now, and brings the mark file up to date.
func LookAfter(j *Journal) { j.lookAfter() }

// DecodeMark reads the content of a mark file and writes it anew.
func DecodeMark(data []byte) ([]byte, error) {
	m, err := decodeMark(data)
	return m.encode(), err
}
