package journal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"time"
)

// pageSize is what segment lengths are multiples of.
const pageSize = 4096

// rotate begins a new segment: header, snapshot of the live set, and the batch
// behind it. On success the new segment is durable and the current one. On an
// error the current one is as it was, unless the error is an unsureError.
func (j *Journal) rotate(b batch) error {
	began := time.Now()
	if j.cur != nil {
		if err := j.stay(); err != nil {
			return &unsureError{err}
		}
	}
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	next := &segment{name: segmentName(j.number + 1), salt: binary.LittleEndian.Uint32(salt[:])}
	content, err := j.image(next.salt, b)
	if err != nil {
		return err
	}
	next.off = int64(len(content))
	next.file, next.size, err = j.pool.install(next.name, content, targetSize(j.cfg.SegmentSize, j.live.bytes, b.size))
	if err != nil {
		return err
	}
	j.number++
	id, _ := identity(j.cfg.FS, filepath.Join(j.cfg.Dir, next.name)) // without one it is not looked after
	j.place.Store(&place{number: j.number, name: next.name, identity: id})
	if j.cur != nil {
		j.pool.retire(j.cur) // may be removed from here on
	}
	j.cur = next
	j.cfg.Logger.Debug("journal rotated", "segment", next.name, "live", j.live.count, "size", next.size, "took", time.Since(began))
	return nil
}

// image returns the first bytes of the next segment.
func (j *Journal) image(salt uint32, b batch) ([]byte, error) {
	if int64(dataStart)+j.live.bytes+b.size > math.MaxUint32-pageSize {
		return nil, fmt.Errorf("%w: %d bytes are live", ErrTooLarge, j.live.bytes)
	}
	buf := append(j.buf[:0], zeros[:dataStart]...)
	for _, r := range j.live.sorted() {
		f := frame{lsn: r.LSN, time: r.Time.UnixNano(), durable: dataStart, typ: frameSnapshot, op: r.Op, kind: r.Kind}
		buf = appendFrame(buf, frameSeed(salt, int64(len(buf))), f, r.Key, r.Payload)
	}
	head := header{
		id: j.id, owner: j.owner, epoch: j.epoch, number: j.number + 1,
		firstLSN: j.lsn.Load() + 1, time: j.cfg.Now(), salt: salt,
		snapshotCount: uint64(j.live.count), snapshotEnd: uint32(len(buf)), marked: j.cfg.Mark,
	}
	if len(b.requests) > 0 {
		buf = j.encode(buf, b, salt, int64(len(buf)), head.snapshotEnd)
	}
	head.durable = uint32(len(buf))
	head.put(buf)
	j.buf = buf
	return buf, nil
}

// targetSize is how long a segment should be: twice its snapshot at least, or a
// large live set would be written again at every append.
func targetSize(segment, live, batch int64) int64 {
	size := max(segment, dataStart+2*live, dataStart+live+batch+2*markSize)
	return pages(size)
}

// pages rounds a length up to whole pages.
func pages(size int64) int64 {
	return min((size+pageSize-1)/pageSize*pageSize, math.MaxUint32/pageSize*pageSize)
}
