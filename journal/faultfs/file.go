package faultfs

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// sectorSize is the unit in which unflushed data survives.
const sectorSize = 512

type file struct {
	fs       *FS
	node     *inode
	readOnly bool
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.off {
		return 0, ErrPower
	}
	if off >= int64(len(h.node.cache)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.readOnly {
		return 0, &fs.PathError{Op: "write", Path: h.node.name, Err: unix.EBADF}
	}
	fault := h.fs.begin(OpWrite, h.node.name, len(p))
	if fault.Err != nil {
		n := min(fault.Bytes, len(p))
		h.put(p[:n], off)
		return n, fault.Err
	}
	if n := h.room(off, int64(len(p))); n < int64(len(p)) {
		h.put(p[:n], off)
		return int(n), &fs.PathError{Op: "write", Path: h.node.name, Err: unix.ENOSPC}
	}
	h.put(p, off)
	return len(p), nil
}

// room is how many of n bytes at off fit on the disk.
func (h *file) room(off, n int64) int64 {
	if h.fs.capacity == 0 {
		return n
	}
	have := int64(len(h.node.cache))
	free := max(h.fs.capacity-h.fs.used(), 0)
	if grow := off + n - have; grow > free {
		return max(n-(grow-free), 0)
	}
	return n
}

func (h *file) put(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	node := h.node
	if end := off + int64(len(p)); end > int64(len(node.cache)) {
		node.cache = append(node.cache, make([]byte, end-int64(len(node.cache)))...)
	}
	copy(node.cache[off:], p)
	if node.dirty == nil {
		node.dirty = map[int64]bool{}
	}
	for s := off / sectorSize; s*sectorSize < off+int64(len(p)); s++ {
		node.dirty[s] = true
	}
}

func (h *file) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.node.cache)), nil
}

// Sync carries the written sectors to the disk. When it fails it forgets them.
func (h *file) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	fault := h.fs.begin(OpSync, h.node.name, 0)
	if fault.PowerOff {
		return fault.Err
	}
	if fault.Err == nil {
		for s := range h.node.dirty {
			h.node.persist(s)
		}
		h.node.resize()
	}
	if !errors.Is(fault.Err, ErrPower) {
		clear(h.node.dirty)
	}
	return fault.Err
}

func (h *file) Close() error { return nil }

// persist carries one sector to the disk.
func (n *inode) persist(sector int64) {
	from := min(sector*sectorSize, int64(len(n.cache)))
	to := min(from+sectorSize, int64(len(n.cache)))
	if grow := to - int64(len(n.disk)); grow > 0 {
		n.disk = append(n.disk, make([]byte, grow)...)
	}
	copy(n.disk[from:to], n.cache[from:to])
}

// resize makes the length durable.
func (n *inode) resize() {
	if grow := len(n.cache) - len(n.disk); grow > 0 {
		n.disk = append(n.disk, make([]byte, grow)...)
	}
}
