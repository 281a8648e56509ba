package journal

import (
	"errors"
	"io"
)

// windowSize is how much of a file is read at a time.
const windowSize = 1 << 20

// readWindow gives a view of a file by offset and keeps the part last read. A
// sequential reader reads each byte once.
type readWindow struct {
	file io.ReaderAt
	size int64 // of the file
	off  int64 // of buf in the file
	buf  []byte
	back []byte // what buf is cut from
	err  error  // the first read error that was not the end of the file
}

// at returns the n bytes at off, fewer where the file ends or cannot be read.
// They are valid until the next call.
func (w *readWindow) at(off int64, n int) []byte {
	if off < 0 || off >= w.size {
		return nil
	}
	n = int(min(int64(n), w.size-off))
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		w.fill(off, n)
	}
	if off < w.off || off >= w.off+int64(len(w.buf)) {
		return nil
	}
	have := w.buf[off-w.off:]
	return have[:min(n, len(have))]
}

func (w *readWindow) fill(off int64, n int) {
	want := int(min(int64(max(n, windowSize)), w.size-off))
	if cap(w.back) < want {
		w.back = make([]byte, want)
	}
	got, err := w.file.ReadAt(w.back[:want], off)
	if err != nil && !errors.Is(err, io.EOF) && w.err == nil {
		w.err = err
	}
	w.off, w.buf = off, w.back[:got]
}

// frame decodes the frame at off.
func (w *readWindow) frame(off int64, salt uint32) (f frame, key, payload []byte, size int, err error) {
	n, err := frameLen(w.at(off, frameHead))
	if err != nil {
		return frame{}, nil, nil, 0, err
	}
	return decodeFrame(w.at(off, n), frameSeed(salt, off))
}

// nextNonZero returns the offset of the first 8 bytes from off that are not all
// zero, or the size of the file. What cannot be read is passed over.
func (w *readWindow) nextNonZero(off int64) int64 {
	for off < w.size {
		b := w.at(off, 4096)
		if len(b) == 0 {
			off += 4096
			continue
		}
		if !allZero(b) {
			for i := 0; i < len(b); i += frameAlign {
				if !allZero(b[i:min(i+frameAlign, len(b))]) {
					return off + int64(i)
				}
			}
		}
		off += int64(len(b))
	}
	return max(off, w.size)
}
